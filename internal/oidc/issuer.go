// Package oidc asks an issuer, and believes its answers only as far as they prove
// themselves: metadata, keys, ID and logout tokens, and the one door for token
// requests. It is a wall: an [IDToken] comes from [Issuer.VerifyIDToken] alone, so
// one that there is has passed every check.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/seed454743b5/signin/internal/clientauth"
	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	discoveryTimeout = 10 * time.Second
	DiscoveryAge     = 24 * time.Hour
	MaxBackoff       = 30 * time.Second
)

// Issuer is the OpenID Provider as we know it. Nothing is fetched before it
// is needed, and one fetch serves all who wait for it.
type Issuer struct {
	URL         string
	documentURL string    // of Config.DiscoveryURL; empty: below URL
	endpoints   Endpoints // in place of discovery, unless zero
	Tenants     []string
	algorithms  []string // pinned
	Client      *http.Client

	// Who we are to it, of Config.
	ClientID     string
	Credential   clientauth.Method
	audiences    []string
	capabilities []string
	responseType string
	responseMode string
	par          PAR
	byDefault    []string // scopes that nobody named
	skew         time.Duration

	now    func() time.Time
	report func(context.Context, error) // of a failure that nobody waits for

	Fetches once.Flights[*Metadata]

	written atomic.Value // family.Scopes

	mu       sync.Mutex
	Meta     *Metadata // guarded by mu, with what follows
	fetched  time.Time
	failures int
	err      error
	retry    time.Time // no fetch before
}

// Config is what an issuer is made of. Its fields are those of
// signin.Config.
type Config struct {
	Issuer             string
	Tenants            []string
	SigningAlgorithms  []string
	HTTPClient         *http.Client
	ClientID           string
	Credential         clientauth.Method
	Audiences          []string
	ClientCapabilities []string
	ClockSkew          time.Duration
	DiscoveryURL       string
	Endpoints          Endpoints
	ResponseType       string
	ResponseMode       string
	PAR                PAR
	ScopesByDefault    []string // those that nobody named

	Now    func() time.Time
	Report func(context.Context, error) // of a failure that nobody waits for
}

// Endpoints are those of signin.Config.
type Endpoints struct{ Authorization, Token, Keys, EndSession, Revocation, PushedRequest string }

// New returns the issuer of c. It touches no network.
func New(c Config) *Issuer {
	client := *c.HTTPClient
	client.Transport = boundedTransport{cmpTransport(client.Transport)}
	// A redirect would carry a code, a refresh token or an assertion to where
	// discovery did not send us.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Jar = nil
	i := &Issuer{
		URL: c.Issuer, documentURL: c.DiscoveryURL, endpoints: c.Endpoints,
		responseType: c.ResponseType, responseMode: c.ResponseMode, par: c.PAR, byDefault: c.ScopesByDefault,
		Tenants: c.Tenants, algorithms: c.SigningAlgorithms, Client: &client,
		ClientID: c.ClientID, Credential: c.Credential, audiences: c.Audiences, capabilities: c.ClientCapabilities, skew: c.ClockSkew,
		now: c.Now, report: c.Report,
	}
	i.written.Store(family.ScopesOf(i.URL, ""))
	return i
}

// Written is how the issuer writes scopes: as its name in the configuration says,
// or, once there is metadata, its name there.
func (i *Issuer) Written() family.Scopes { return i.written.Load().(family.Scopes) }

func cmpTransport(t http.RoundTripper) http.RoundTripper {
	if t == nil {
		return http.DefaultTransport
	}
	return t
}

// Metadata returns the issuer's metadata, fetching it when there is none yet.
// After a failure it fails at once until the backoff is over.
func (i *Issuer) Metadata(ctx context.Context) (*Metadata, error) {
	i.mu.Lock()
	meta, err, now := i.Meta, i.err, i.now()
	stale := now.Sub(i.fetched) > DiscoveryAge
	if meta != nil && meta.Unfit != nil { // somebody may be mending it there
		stale = now.Sub(i.fetched) > MaxBackoff
	}
	wait := now.Before(i.retry)
	i.mu.Unlock()

	switch {
	case meta != nil && stale && !wait:
		// What we have still serves; what comes back serves the next.
		i.Fetches.Start(ctx, "", discoveryTimeout, i.fetch)
		return meta, nil
	case meta != nil:
		return meta, nil
	case wait:
		return nil, err
	}
	meta, err = i.Fetches.Do(ctx, "", discoveryTimeout, i.fetch)
	if err != nil {
		return nil, &Error{err}
	}
	return meta, nil
}

func (i *Issuer) fetch(ctx context.Context) (*Metadata, error) {
	meta, err := i.Discover(ctx)
	if old := i.settle(meta, err); old && err != nil {
		i.report(ctx, fmt.Errorf("metadata older than a day serves: %w", err))
	}
	return meta, err
}

// settle takes in what a fetch came to, and reports whether there was metadata
// before it.
func (i *Issuer) settle(meta *Metadata, err error) (old bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	old = i.Meta != nil
	if err != nil {
		i.retry = i.now().Add(min(time.Second<<min(i.failures, 10), MaxBackoff))
		i.failures++
		i.err = &Error{err}
		return old
	}
	if i.Meta != nil && i.Meta.JWKSURI == meta.JWKSURI {
		meta.Keys.Source, meta.LogoutKeys.Source = i.Meta.Keys.Source, i.Meta.LogoutKeys.Source
	}
	i.written.Store(family.ScopesOf(i.URL, meta.Issuer))
	i.Meta, i.fetched, i.failures, i.err, i.retry = meta, i.now(), 0, nil, time.Time{}
	return old
}

func (i *Issuer) newKeySource(url string) *keySource {
	return &keySource{url: url, client: i.Client, now: i.now, report: i.report}
}

// bounded is an error whose text can stand in a line: it may quote what the
// issuer sent, a page maybe.
func bounded(err error) error {
	said := err.Error()
	if line := text.Printable(said, 300); line != said {
		return errors.New(line)
	}
	return err
}

// signingAlgs are the algorithms that tokens may be signed with: those that
// were pinned, else those that the issuer announces.
func signingAlgs(pinned, announced []string) ([]string, error) {
	if len(pinned) > 0 {
		return pinned, nil
	}
	if len(announced) == 0 {
		return []string{oidc.RS256}, nil // the one that every provider must have
	}
	algs := slices.DeleteFunc(slices.Clone(announced), func(alg string) bool {
		return !slices.Contains(Asymmetric, alg)
	})
	if len(algs) == 0 {
		return nil, &Misconfigured{fmt.Errorf("the issuer announces no asymmetric signing algorithm for ID tokens (id_token_signing_alg_values_supported has %s): register this client for one, such as RS256, and name it in SigningAlgorithms", text.Printable(strings.Join(announced, ", "), 200))}
	}
	return algs, nil
}

// Asymmetric are the signing algorithms an ID token may have. With a
// symmetric one, whoever knows a public key or the client secret could sign.
var Asymmetric = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// boundedTransport ends an endless answer.
type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer+1), resp.Body}
	return resp, nil
}

// Error reports an issuer that cannot be reached or does not make
// sense. It passes by itself, so it is a 503 and not the user's fault.
type Error struct{ cause error }

// Failed is err as an [*Error].
func Failed(err error) error { return &Error{err} }

func (e *Error) Error() string { return "signin: issuer: " + e.cause.Error() }
func (e *Error) Unwrap() error { return e.cause }
