package signin

import (
	"context"
	"net/url"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
)

// issuerOf returns the issuer that c names. report is told of a failure that
// nobody waits for.
func issuerOf(c Config, now func() time.Time, report func(context.Context, error)) *oidc.Issuer {
	return oidc.New(oidc.Config{
		Issuer: c.Issuer, Tenants: c.Tenants, SigningAlgorithms: c.SigningAlgorithms, HTTPClient: c.HTTPClient,
		ClientID: c.ClientID, Credential: c.Credential, Audiences: c.Audiences, ClientCapabilities: c.ClientCapabilities,
		DiscoveryURL: c.DiscoveryURL, Endpoints: oidc.Endpoints(c.Endpoints),
		ResponseType: c.ResponseType, ResponseMode: c.ResponseMode, PAR: oidc.PAR(c.PAR), ScopesByDefault: c.byDefault,
		ClockSkew: c.ClockSkew, Now: now, Report: report,
	})
}

// A Cloud is one of the separate Microsoft clouds, each with hosts, tenants
// and accounts of its own.
type Cloud string

// The clouds there are, by the host that signs users in.
const (
	EntraGlobal       Cloud = family.GlobalCloud
	EntraUSGovernment Cloud = family.USGovernmentCloud
	EntraChina        Cloud = family.ChinaCloud
	EntraBleu         Cloud = family.BleuCloud  // France
	EntraDelos        Cloud = family.DelosCloud // Germany
	EntraGovSG        Cloud = family.GovSGCloud // Singapore's government
)

// Entra returns the issuer of a Microsoft Entra ID tenant for [Config].Issuer:
// Entra(EntraGlobal, "contoso.onmicrosoft.com"). The tenant is an id, a domain
// name, or one of "organizations" (any work or school account), "consumers"
// (personal accounts) and "common" (both); those three are narrowed by
// [Config].Tenants.
func Entra(cloud Cloud, tenant string) string {
	return "https://" + string(cloud) + "/" + url.PathEscape(tenant) + "/v2.0"
}

// ExternalID returns the issuer of a Microsoft Entra External ID tenant for
// [Config].Issuer: ExternalID("contoso.ciamlogin.com", "contoso.onmicrosoft.com").
// The host is the one where people sign in: the tenant's at ciamlogin.com, or a
// domain of one's own. The tenant is an id or a domain name; with a domain of one's
// own it must be the id.
func ExternalID(host, tenant string) string {
	return "https://" + host + "/" + url.PathEscape(tenant) + "/v2.0"
}

// B2C returns the issuer of a user flow (policy) of Azure AD B2C for
// [Config].Issuer: B2C("contoso.b2clogin.com", "contoso.onmicrosoft.com",
// "B2C_1_signin"). The host is the tenant's at b2clogin.com, or a domain of one's
// own; the tenant is an id or a domain name. B2C answers with an access token
// only if a scope of an API is asked for. Flows whose sub is "Not supported
// currently. Use oid claim." sign nobody in: set them to send the object id.
func B2C(host, tenant, flow string) string {
	return "https://" + host + "/" + url.PathEscape(tenant) + "/" + url.PathEscape(flow) + "/v2.0"
}

// ADFS returns the issuer of an Active Directory Federation Services farm for
// [Config].Issuer, by its federation service name: ADFS("fs.example.com").
func ADFS(host string) string { return "https://" + host + "/adfs" }

// Google is Google's issuer for [Config].Issuer. Google gives a refresh token
// at the first consent only, or with Prompt "consent"; it is asked for by
// access_type=offline, which AuthParams may replace.
const Google = family.Google
