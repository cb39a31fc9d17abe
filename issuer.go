package signin

import (
	"context"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
)

// issuerOf returns the issuer that c names. report is told of a failure that
// nobody waits for.
func issuerOf(c Config, now func() time.Time, report func(context.Context, error)) *oidc.Issuer {
	return oidc.New(oidc.Config{
		Issuer: c.Issuer, Tenants: c.Tenants, SigningAlgorithms: c.SigningAlgorithms, HTTPClient: c.HTTPClient,
		ClientID: c.ClientID, Credential: c.Credential, Audiences: c.Audiences, ClientCapabilities: c.ClientCapabilities,
		DiscoveryURL: c.DiscoveryURL, Endpoints: oidc.Endpoints(c.Endpoints),
		ResponseType: c.ResponseType, ResponseMode: c.ResponseMode, ScopesByDefault: c.byDefault,
		ClockSkew: c.ClockSkew, Now: now, Report: report,
	})
}
