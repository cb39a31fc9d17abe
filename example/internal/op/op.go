// Package op is the OpenID Provider of the demo site: github.com/luikyv/go-oidc
// with demo users, a login page, a consent page and memory for storage.
//
// It serves people who try the demo, and tests. It has no place in production:
// its users' passwords stand on its login page.
package op

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/luikyv/go-oidc/pkg/goidc"
	"github.com/luikyv/go-oidc/pkg/provider"

	"github.com/seed454743b5/signin/example/internal/ui"
)

// Config describes a provider with one client.
type Config struct {
	// Issuer is the URL under which the handler can be reached, without a
	// path. Required.
	Issuer string

	// ClientID and ClientSecret identify the one client. go-oidc does not undo
	// the form encoding of RFC 6749, section 2.3.1, so keep to letters, digits,
	// "-" and "_". Required, the secret unless there is a ClientKey.
	ClientID, ClientSecret string

	// ClientAuth is how the client authenticates: client_secret_basic,
	// client_secret_post or, with ClientKey, private_key_jwt. Empty means
	// client_secret_basic.
	ClientAuth goidc.AuthnMethod

	// ClientKey verifies the assertions of private_key_jwt: the public half of
	// an RSA key (RS256, PS256) or of one on P-256 (ES256).
	ClientKey crypto.PublicKey

	// RedirectURIs and PostLogoutRedirectURIs are the client's, compared as
	// strings. At least one redirect URI is required.
	RedirectURIs, PostLogoutRedirectURIs []string

	// Resources are the values that the resource parameter (RFC 8707) may
	// take. Nil ignores the parameter.
	Resources []string

	// AccessTokenLifetime, IDTokenLifetime and RefreshTokenLifetime are
	// whole seconds. Zero means 5 minutes, 10 minutes and one day.
	AccessTokenLifetime, IDTokenLifetime, RefreshTokenLifetime time.Duration

	// Logger takes what goes wrong. Nil discards it.
	Logger *slog.Logger
}

// User is one of the demo users.
type User struct {
	Subject, Username, Password, Name, GivenName, Email string
}

// Users are the people who can sign in.
var Users = []User{
	{"u-1001", "alice", "wonderland", "Alice Liddell", "Alice", "alice@demo.example"},
	{"u-1002", "bob", "builder", "Bob Martin", "Bob", "bob@demo.example"},
}

// Code is what the page of the second step asks for.
const Code = "123456"

// The levels of authentication that the provider can vouch for. A client asks
// for ACRStepUp with acr_values or with an essential acr claim, an API for
// ContextStepUp with an acrs claim in the access token, as Entra ID has it.
const (
	ACRPassword   = "urn:demo:password"
	ACRStepUp     = "urn:demo:step-up"
	ContextStepUp = "c1"
)

// scopes are all the scopes, with what the consent page says about them.
var scopes = []struct{ id, text string }{
	{"openid", "Know who you are"},
	{"profile", "See your name"},
	{"email", "See your e-mail address"},
	{"offline_access", "Keep this access while you are away"},
	{"mail.read", "Read your mail"},
	{"mail.send", "Send mail in your name"},
	{"calendars.read", "Read your calendar"},
	{"calendars.write", "Change your calendar"},
	{"files.read", "Read your files"},
}

// Provider is a running provider. It is safe for concurrent use.
type Provider struct {
	config   Config
	goidc    *provider.Provider
	key      *rsa.PrivateKey
	pages    *ui.Pages
	log      *slog.Logger
	sessions *browserSessions
	tokenMu  sync.Mutex // one token request at a time: see tokenEndpoint
}

// New returns a provider with a fresh signing key.
func New(c Config) (*Provider, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.ClientAuth = cmp.Or(c.ClientAuth, goidc.AuthnMethodSecretBasic)
	c.AccessTokenLifetime = cmp.Or(c.AccessTokenLifetime, 5*time.Minute)
	c.IDTokenLifetime = cmp.Or(c.IDTokenLifetime, 10*time.Minute)
	c.RefreshTokenLifetime = cmp.Or(c.RefreshTokenLifetime, 24*time.Hour)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("op: making the signing key: %w", err)
	}
	p := &Provider{config: c, key: key, sessions: newBrowserSessions(), log: c.Logger}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.pages, err = ui.Parse(pageFiles, "pages", nil, p.clientOrigins()...); err != nil {
		return nil, err
	}
	if p.goidc, err = p.newGoidc(); err != nil {
		return nil, fmt.Errorf("op: configuring go-oidc: %w", err)
	}
	return p, nil
}

func (c *Config) validate() error {
	var errs []error
	if u, err := url.Parse(c.Issuer); err != nil || u.Host == "" || u.Path != "" {
		errs = append(errs, fmt.Errorf("Issuer %q: want a URL without a path", c.Issuer))
	}
	errs = append(errs, c.validateClient())
	if len(c.RedirectURIs) == 0 {
		errs = append(errs, errors.New("RedirectURIs: want at least one"))
	}
	for name, d := range map[string]time.Duration{
		"AccessTokenLifetime":  c.AccessTokenLifetime,
		"IDTokenLifetime":      c.IDTokenLifetime,
		"RefreshTokenLifetime": c.RefreshTokenLifetime,
	} {
		if d < 0 || d%time.Second != 0 {
			errs = append(errs, fmt.Errorf("%s %v: want whole seconds", name, d))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("op: bad config: %w", err)
	}
	return nil
}

func (p *Provider) newGoidc() (*provider.Provider, error) {
	store := newStorage()
	options := []provider.Option{
		provider.WithScopes(goidcScopes()...),
		provider.WithAuthCodeGrant(store, goidc.ResponseTypeCode, goidc.ResponseTypeCodeAndIDToken),
		provider.WithRefreshTokenGrant(store),
		provider.WithRefreshTokenRotation(),
		provider.WithRefreshTokenLifetime(seconds(p.config.RefreshTokenLifetime)),
		provider.WithRefreshTokenShouldIssue(func(_ context.Context, _ *goidc.Client, g *goidc.Grant) bool {
			return slices.Contains(strings.Fields(g.Scopes), "offline_access")
		}),
		provider.WithClientCredentialsGrant(),
		provider.WithFormPostResponseMode(),
		provider.WithIssuerResponseParameter(),
		provider.WithPKCE(goidc.CodeChallengeMethodSHA256),
		p.clientAuthn(),
		provider.WithIDTokenSignatureAlgs(goidc.RS256),
		provider.WithIDTokenLifetime(seconds(p.config.IDTokenLifetime)),
		provider.WithTokenOptions(func(context.Context, *goidc.Grant, *goidc.Client) goidc.TokenOptions {
			return goidc.NewJWTTokenOptions(goidc.RS256, seconds(p.config.AccessTokenLifetime))
		}),
		provider.WithTokenRevocation(func(context.Context, *goidc.Client) bool { return true }),
		provider.WithClaimsParameter(),
		provider.WithACRs(ACRPassword, ACRStepUp),
		provider.WithIDTokenClaims(storedClaims(storeIDClaims)),
		provider.WithUserInfoClaims(storedClaims(storeIDClaims)),
		provider.WithTokenClaims(func(_ context.Context, _ *goidc.Token, g *goidc.Grant) map[string]any {
			return storedClaims(storeTokenClaims)(context.Background(), g)
		}),
		provider.WithStaticClients(p.client()),
		provider.WithPolicies(goidc.NewPolicy("demo", p.setup, p.authenticate)),
		provider.WithLogout(store, p.loggedOut),
		provider.WithLogoutPolicies(goidc.NewLogoutPolicy("demo", setupLogout, p.logout)),
		provider.WithErrorRenderer(p.renderError),
		provider.WithErrorHandler(func(ctx context.Context, err error) {
			p.log.LogAttrs(ctx, slog.LevelWarn, "provider refused a request", slog.Any("err", err))
		}),
		provider.WithJTIConsumer(newSeenIDs().consume),
	}
	if r := p.config.Resources; len(r) > 0 {
		options = append(options, provider.WithResourceIndicators(r[0], r[1:]...))
	}
	return provider.New(p.config.Issuer, store, p.jwks(), options...)
}

func goidcScopes() []goidc.Scope {
	var list []goidc.Scope
	for _, s := range scopes {
		list = append(list, goidc.NewScope(s.id))
	}
	return list
}

func (p *Provider) jwks() goidc.JWKSFunc {
	key := goidc.JSONWebKey{Key: p.key, Algorithm: string(goidc.RS256), Use: string(goidc.KeyUsageSignature)}
	thumb, err := (&jose.JSONWebKey{Key: &p.key.PublicKey}).Thumbprint(crypto.SHA256)
	key.KeyID = base64.RawURLEncoding.EncodeToString(thumb)
	return func(context.Context) (goidc.JSONWebKeySet, error) {
		return goidc.JSONWebKeySet{Keys: []goidc.JSONWebKey{key}}, err
	}
}

// clientOrigins are where a form of ours may end up by redirects.
func (p *Provider) clientOrigins() []string {
	var origins []string
	for _, s := range slices.Concat(p.config.RedirectURIs, p.config.PostLogoutRedirectURIs) {
		if u, err := url.Parse(s); err == nil {
			origins = append(origins, u.Scheme+"://"+u.Host)
		}
	}
	slices.Sort(origins)
	return slices.Compact(origins)
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// Issuer returns the issuer URL.
func (p *Provider) Issuer() string { return p.config.Issuer }

// Introspect returns what the provider knows about an access token. A token
// that is malformed, expired or revoked is not active and not an error.
func (p *Provider) Introspect(ctx context.Context, token string) (goidc.TokenInfo, error) {
	// For anything that is not a JWT go-oidc looks for a refresh token, and
	// would find one: a refresh token must not open an API.
	if strings.Count(token, ".") != 2 {
		return goidc.TokenInfo{}, nil
	}
	info, err := p.goidc.Introspect(ctx, token)
	if err != nil {
		return goidc.TokenInfo{}, fmt.Errorf("op: introspecting a token: %w", err)
	}
	// ID tokens are signed by the same key; only access tokens name a grant.
	if info.GrantID == "" || info.ExpiresAt == 0 {
		return goidc.TokenInfo{}, nil
	}
	return info, nil
}

// Handler serves the provider at the root of its origin.
func (p *Provider) Handler() http.Handler {
	core := p.goidc.Handler()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /style.css", ui.Style)
	mux.Handle("POST /token", p.tokenEndpoint(core))
	mux.Handle("POST /revoke", p.tokenEndpoint(core))
	mux.Handle("/authorize", formPost(core, p.clientOrigins()))
	mux.Handle("/authorize/", formPost(core, p.clientOrigins()))
	mux.Handle("/logout", p.logoutHint(core))
	mux.Handle("/", core)

	// Another site must not press the buttons of our pages. The requests that
	// OpenID Connect lets a client post from its own site are let through.
	csrf := http.NewCrossOriginProtection()
	csrf.AddInsecureBypassPattern("POST /authorize")
	csrf.AddInsecureBypassPattern("POST /logout")
	return limitBody(csrf.Handler(mux))
}

// tokenEndpoint serves token and revocation requests one at a time, because
// go-oidc reads a grant, decides and writes it back without a transaction: two
// requests with one code, or with one refresh token, could both succeed.
func (p *Provider) tokenEndpoint(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The body is read before the lock, or one slow client stops all.
		if err := r.ParseForm(); err != nil {
			http.Error(w, "Bad Request", http.StatusBadRequest)
			return
		}
		p.tokenMu.Lock()
		defer p.tokenMu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}
