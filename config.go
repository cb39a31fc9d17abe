package signin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/sessions"

	"github.com/seed454743b5/signin/internal/clientauth"
	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
)

// Config says who the issuer is, who we are to it, and how long a session
// lasts. [New] copies it; later changes have no effect.
//
// A Config prints, logs and marshals as its name only, for it holds Keys. That
// does not help where it stands in an unexported field of a struct: fmt calls
// no methods on those.
type Config struct {
	// Issuer is the issuer's URL, as its discovery document spells it. For
	// Microsoft Entra ID it may be made with [Entra]. An http URL is accepted
	// on loopback only. Required.
	Issuer string

	// DiscoveryURL is where the issuer's discovery document is, for an issuer
	// that has it elsewhere. The document must name Issuer all the same. Empty
	// means Issuer followed by /.well-known/openid-configuration.
	DiscoveryURL string

	// Endpoints, unless zero, are those of an issuer without a discovery
	// document. Then nothing is fetched but the keys; ID tokens are signed by
	// RS256 unless SigningAlgorithms says otherwise.
	Endpoints Endpoints

	// ClientID is what the issuer calls this application. Required.
	ClientID string

	// Credential proves to the issuer who the client is: [Secret],
	// [Certificate], [PrivateKey] or [Assertion]. Nil makes a public client,
	// which has PKCE and nothing else.
	Credential Credential

	// BaseURL is the public URL of the application, with the path prefix it is
	// mounted under, if any. It is https, also behind a proxy that ends TLS; an
	// http URL is accepted on loopback only. A browser that comes under another
	// host name is sent to BaseURL's before it signs in. Empty takes scheme and
	// host from each request, as seen by the trusted proxy nearest to us: then
	// the issuer's list of redirect URIs is all that keeps a forged Host header
	// from moving the answer.
	BaseURL string

	// TrustedProxies are the peers whose forwarded headers are believed:
	// X-Forwarded-Proto, -Host, -Port, -Prefix and -Ssl, Front-End-Https, and,
	// if none of these is there, Forwarded (RFC 7239). They must overwrite or
	// remove all of them in what a client sends. A loopback prefix covers the
	// peers of a server on a Unix socket. Empty believes nobody. With BaseURL
	// set, they tell only under which host name the browser came.
	TrustedProxies []netip.Prefix

	// Scopes are asked for at sign-in, beside openid and, unless the issuer
	// announces others only, profile and offline_access. Some issuers give a
	// refresh token without offline_access (Keycloak, Cognito) or another way
	// (Google): it is left out there, too. If openid is among Scopes, exactly
	// these are asked for. A handler may ask for more later. At Entra and Azure AD
	// B2C a token is for one API: the sign-in's is for that of the first scope, the
	// part before its last slash, and the tokens for others are had without the user.
	Scopes []string

	// Keys authenticate and encrypt cookies, the state parameter and records.
	// The first key seals, every key opens. Each is 32 random bytes. Required.
	//
	// To rotate in one process, prepend the new key, and drop the old one after
	// SessionLifetime. Several replicas would meet cookies of a key that they do
	// not have yet: there, append the new key on all of them, then move it to
	// the front on all, and drop the old one SessionLifetime after that.
	Keys [][]byte

	// Store keeps the records. Nil keeps them in this process, so a restart
	// signs everyone out and replicas do not share sessions.
	Store Store

	// MemoryBytes bounds what this process keeps of sessions: the records, if
	// Store is nil, and for a few minutes each session in use, opened, so that a
	// request need not decrypt it. At the bound a request opens its session anew,
	// and records give way as [MemoryStore] says. Zero means 2 GiB. If Store is a
	// MemoryStore, set its MaxBytes in place of this.
	MemoryBytes int64

	// Sessions, if set, keeps the session's 32 bytes in place of our own
	// cookie, for sites that already run a gorilla store. Its options decide
	// about the cookie then: see to HttpOnly, Secure, SameSite=Lax, and a
	// MaxAge of at least SessionLifetime. The records stay in Store.
	Sessions sessions.Store

	// ResponseType is "code id_token" (the default) or "code".
	ResponseType string

	// ResponseMode is "form_post" (the default) or, with ResponseType "code"
	// only, "query". Either needs https outside loopback. Over plain http on
	// loopback, browsers that keep no Secure cookie there, such as Safari, need
	// "query" if the issuer is under another host name.
	//
	// "form_post.jwt", and with "code" only "query.jwt" and "jwt", ask for answers
	// that the issuer signs (JARM). Then an answer that is not signed, an error
	// too, is refused, and so is one for another client, or by an algorithm that
	// SigningAlgorithms, or what the issuer announces, does not name.
	ResponseMode string

	// PAR says when authorization requests are pushed to the issuer from here, so
	// that the browser carries only a name of the request that nobody can change
	// (RFC 9126). Empty means [PARAuto]. A push costs each sign-in one request to
	// the issuer, of ten seconds at most. What the issuer refuses is told on a
	// page, and the browser stays here; while the issuer cannot be reached the
	// answer is 503.
	PAR PAR

	// Prompt is sent with every challenge that does not set its own, such as
	// "consent" or "select_account" (OpenID Connect Core, 3.1.2.1). Empty
	// leaves the choice to the issuer. For "none" see [Auth.Recognize].
	Prompt string

	// AuthParams are further parameters of every authorization request, such
	// as domain_hint or ui_locales. They cannot replace those the protocol
	// needs.
	AuthParams url.Values

	// ClientCapabilities are announced to Entra with every authorization and
	// token request (xms_cc). "cp1" says that claims challenges are understood,
	// as [Transport] does: then APIs such as Microsoft Graph end a token early
	// when its user is disabled or a policy changes, and issue ones that live
	// longer (continuous access evaluation). Empty announces nothing, which is
	// right for other issuers.
	ClientCapabilities []string

	// MaxAge, if positive, is how long ago the user may have proved who they
	// are when a session begins (max_age). In whole seconds, at least one.
	MaxAge time.Duration

	// SigningAlgorithms are those that the issuer signs this client's ID and
	// logout tokens with, such as "PS256" (id_token_signed_response_alg of the
	// registration). A token by any other is refused, announced or not. They
	// are among RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512
	// and EdDSA. Empty admits those of them that the issuer announces, and
	// RS256 if it announces none.
	SigningAlgorithms []string

	// Audiences are others whom the issuer names in aud of ID and logout tokens
	// beside ClientID, such as itself. A token that names any other is refused
	// unless azp says ClientID (OpenID Connect Core, 3.1.3.7, errata 2).
	Audiences []string

	// PasswordResetFlow is the user flow of Azure AD B2C for those who say at the
	// sign-in that they have forgotten their password (AADB2C90118), such as
	// "B2C_1_reset". They sign in afterwards. Empty shows them a page: leave it so
	// where the flow of Issuer resets passwords itself. See [Auth.UserFlow].
	PasswordResetFlow string

	// Tenants are the Entra tenants, by id, whose users may sign in. Empty
	// admits whom the issuer's tenant segment admits: one tenant, or with
	// common every tenant there is.
	Tenants []string

	// NameClaim is the claim that [User.Name] returns. Empty takes the first
	// there is of preferred_username, name, email and sub.
	NameClaim string

	// CookieName is the stem of our cookies' names. Empty means "signin". Two
	// Auths under one host need two names.
	CookieName string

	// CallbackPath is where the issuer's answer arrives, below BaseURL. Empty
	// means "/oidc/callback". The other paths of ours are its siblings.
	CallbackPath string

	// SignedOutPath is where the browser lands after [Auth.SignOut], below
	// BaseURL; the issuer must know BaseURL plus this path as a post-logout
	// redirect URI. Empty means "/". An application whose every page needs a
	// user wants "/oidc/signed-out", a page of ours, or it would sign the user
	// in again at once.
	SignedOutPath string

	// NoFrontChannelLogout leaves the path of front-channel logout
	// (/oidc/frontchannel-logout) to the application. The zero value serves it:
	// whoever knows the sid of a session at the issuer can end that session
	// with one GET. Set it if the issuer does not use it.
	NoFrontChannelLogout bool

	// SessionLifetime ends a session, used or not. Zero means 12 hours.
	SessionLifetime time.Duration

	// IdleTimeout ends a session that has not been used for so long. It is
	// kept to within a tenth of itself, and no longer than SessionLifetime.
	// Zero means no idle timeout.
	IdleTimeout time.Duration

	// ClockSkew is by how much the issuer's clock may differ from ours, in
	// either direction, in every check of a time claim. Zero means a minute.
	ClockSkew time.Duration

	// ExpiryMargin is how long before its expiry an access token is renewed,
	// though never more than a fifth of its lifetime. Zero means 5 minutes.
	ExpiryMargin time.Duration

	// HTTPClient sends our requests to the issuer. Its redirect policy is not
	// used: we follow none. Nil means a client with a timeout of 15 seconds.
	HTTPClient *http.Client

	// Logger receives one line for each event, never a token, a code, a
	// cookie, a secret or a claim. Nil means slog.Default().
	Logger *slog.Logger

	// Navigation, if set, decides which requests can follow a redirect to the
	// issuer and come back, in place of what docs/requests.md describes.
	Navigation func(r *http.Request) bool

	// Observe, if set, is called for each line logged, with the same facts,
	// for metrics and traces. It runs on the request's goroutine, or that of a
	// refresh, and must be quick and safe for concurrent use.
	Observe func(ctx context.Context, e Event)

	// Page, if set, writes the error, sign-out and explanation pages in place
	// of ours. It must escape what it prints.
	Page func(w http.ResponseWriter, r *http.Request, p Page)

	// OnSignIn, if set, sees what a sign-in brought, after every check and before
	// there is a session: to provision a user, to add claims of the site's own
	// ([SignIn].Claims), or to refuse. It is called once for a sign-in, however
	// often and on however many replicas the issuer's answer arrives, and once
	// more, with Extends, when a user consents or steps up. The user waits: ctx
	// ends after ten seconds, and the goroutine lives for as long as the hook does.
	//
	// A [*RefusedError] is a 403 page with its words; the tokens are given back to
	// the issuer. Any other error counts as one that may pass: a 503 page whose
	// reload calls OnSignIn again with the same tokens, for an hour at most. A
	// panic, and claims that are no JSON or too large, end that sign-in with a 500
	// page. Nobody is signed in by any of these, and a running session stays as it
	// was. Errors are logged: put no secret into them. OnSignIn must be safe for
	// concurrent use.
	OnSignIn func(ctx context.Context, in *SignIn) error

	byDefault []string // of Scopes, those that nobody named
}

// Endpoints are the URLs of an issuer that has no discovery document. They are
// https URLs, or http on loopback.
type Endpoints struct {
	// Authorization and Token are the endpoints of OAuth 2.0, and Keys is the
	// issuer's JSON Web Key Set (jwks_uri). Required.
	Authorization, Token, Keys string

	// EndSession is the issuer's logout page (RP-Initiated Logout 1.0), and
	// Revocation takes back refresh tokens (RFC 7009). Empty: it has none.
	EndSession, Revocation string

	// PushedRequest is where authorization requests are pushed (RFC 9126). It is
	// required with [PARAlways] and not used with any other [Config].PAR.
	PushedRequest string
}

// PAR says when authorization requests are pushed; see [Config].PAR.
type PAR string

// The values of [Config].PAR.
const (
	// PARAuto pushes where the issuer announces that it requires it. An issuer
	// does not announce that it requires it of one client: that wants PARAlways.
	PARAuto PAR = "auto"

	// PARAlways pushes each request. An issuer without an endpoint for it makes
	// [Auth.Ready] fail.
	PARAlways PAR = "always"

	// PARNever pushes none. An issuer that requires it makes [Auth.Ready] fail.
	PARNever PAR = "never"
)

type redacted = clientauth.Redacted

// Format prints the type's name only.
func (c Config) Format(s fmt.State, verb rune) { redacted("signin.Config").Format(s, verb) }

// LogValue is the type's name only.
func (c Config) LogValue() slog.Value { return redacted("signin.Config").LogValue() }

// MarshalText is the type's name only.
func (c Config) MarshalText() ([]byte, error) { return redacted("signin.Config").MarshalText() }

const (
	typeHybrid = "code id_token"
	typeCode   = "code"
	modeForm   = "form_post"
	modeQuery  = "query"

	modeSignedForm  = "form_post.jwt"
	modeSignedQuery = "query.jwt"
	modeSigned      = "jwt" // the query, with code
)

// withDefaults returns a copy that spells out what was left to us.
func (c Config) withDefaults() Config {
	setDefault(&c.ResponseType, typeHybrid)
	setDefault(&c.ResponseMode, modeForm)
	setDefault(&c.PAR, PARAuto)
	setDefault(&c.CookieName, "signin")
	setDefault(&c.CallbackPath, "/oidc/callback")
	setDefault(&c.SignedOutPath, "/")
	setDefault(&c.SessionLifetime, 12*time.Hour)
	setDefault(&c.ClockSkew, time.Minute)
	setDefault(&c.ExpiryMargin, 5*time.Minute)
	if c.Store == nil {
		memory := NewMemoryStore()
		memory.MaxBytes = c.MemoryBytes
		c.Store = memory
	}
	setDefault(&c.MemoryBytes, defaultMemoryBytes)
	if c.HTTPClient == nil {
		c.HTTPClient = &http.Client{Timeout: 15 * time.Second}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.BaseURL = strings.TrimSuffix(c.BaseURL, "/")
	if !slices.Contains(c.Scopes, "openid") {
		for _, s := range []string{"profile", "offline_access"} {
			if !slices.Contains(c.Scopes, s) {
				c.byDefault = append(c.byDefault, s)
			}
		}
		c.Scopes = slices.Concat([]string{"openid"}, c.byDefault, c.Scopes)
	}
	c.Scopes = slices.Clone(c.Scopes)
	c.SigningAlgorithms = slices.Clone(c.SigningAlgorithms)
	c.Audiences = slices.Clone(c.Audiences)
	c.Tenants = slices.Clone(c.Tenants)
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
	c.AuthParams = cloneParams(c.AuthParams)
	c.ClientCapabilities = slices.Clone(c.ClientCapabilities)
	return c
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// validate reports every fault at once, each by its field and with what to
// write instead.
func (c Config) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c.validateIssuer(fault)
	c.validateClient(fault)
	c.validateSite(fault)
	c.validateKeys(fault)
	c.validatePaths(fault)
	c.validateRequest(fault)
	c.validateLimits(fault)
	c.validateTokens(fault)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("signin: bad config: %w", err)
	}
	return nil
}

// validateClient judges who we are to the issuer.
func (c Config) validateClient(fault func(format string, args ...any)) {
	if c.ClientID == "" {
		fault("ClientID: empty; want the id the issuer gave this application")
	}
	if err := clientauth.Validate(c.Credential); err != nil {
		fault("Credential: %w", err)
	}
}

// validateSite judges where the application is.
func (c Config) validateSite(fault func(format string, args ...any)) {
	if err := c.checkBaseURL(); c.BaseURL != "" && err != nil {
		fault("BaseURL: %w", err)
	}
	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			fault("TrustedProxies[%d]: not a prefix; want one such as 10.0.0.0/8", i)
		}
	}
}

func (c Config) checkBaseURL() error {
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return errors.New("want scheme, host and at most a path, such as https://app.example.com")
	case u.Scheme == "http" && !site.IsLoopback(u.Hostname()):
		return fmt.Errorf("want https://%s; plain http is for loopback only", u.Host)
	case u.Path != "" && u.Path != path.Clean(u.Path):
		return errors.New("want a clean path, without dots or doubled slashes")
	case strings.HasSuffix(u.Path, c.CallbackPath):
		return fmt.Errorf("want it without CallbackPath, %s, which is added to it", c.CallbackPath)
	}
	return nil
}

func (c Config) validateKeys(fault func(format string, args ...any)) {
	if len(c.Keys) == 0 {
		fault("Keys: none; want at least one key of 32 random bytes")
	}
	for i, k := range c.Keys {
		same := func(other []byte) bool { return bytes.Equal(other, k) }
		switch first := slices.IndexFunc(c.Keys, same); {
		case len(k) != 32:
			fault("Keys[%d]: %d bytes; want 32", i, len(k))
		case same(make([]byte, 32)):
			fault("Keys[%d]: all zero; want 32 random bytes", i)
		case first < i:
			fault("Keys[%d]: the same as Keys[%d]; want each key once", i, first)
		}
	}
}

// validatePaths judges our paths and cookies.
func (c Config) validatePaths(fault func(format string, args ...any)) {
	for _, p := range []struct{ field, value string }{{"CallbackPath", c.CallbackPath}, {"SignedOutPath", c.SignedOutPath}} {
		if rp := site.NewReturnPath(p.value); rp.String() != p.value || strings.ContainsAny(p.value, "?#%") {
			fault("%s %q: want an absolute path such as /oidc/callback", p.field, p.value)
		}
	}
	if c.CallbackPath == "/" || strings.HasSuffix(c.CallbackPath, "/") {
		fault("CallbackPath %q: want a path that ends in a name, such as /oidc/callback", c.CallbackPath)
	}
	if name := path.Base(c.CallbackPath); slices.Contains([]string{"login", "signed-out", "backchannel-logout", "frontchannel-logout"}, name) {
		fault("CallbackPath %q: %s is another path of ours; want a name such as callback", c.CallbackPath, name)
	}
	if strings.ContainsFunc(c.CookieName, func(r rune) bool { return !text.IsTokenRune(r) }) || strings.HasPrefix(c.CookieName, "__") {
		fault("CookieName %q: want letters, digits, - and _, not beginning with __", c.CookieName)
	}
}

// validateRequest judges what is asked of the issuer, and how.
func (c Config) validateRequest(fault func(format string, args ...any)) {
	switch {
	case c.ResponseType != typeHybrid && c.ResponseType != typeCode:
		fault("ResponseType %q: want %q or %q", c.ResponseType, typeHybrid, typeCode)
	case !slices.Contains([]string{modeForm, modeQuery, modeSignedForm, modeSignedQuery, modeSigned}, c.ResponseMode):
		fault("ResponseMode %q: want %q or %q, or, for signed answers, %q, %q or %q", text.Printable(c.ResponseMode, 40), modeForm, modeQuery, modeSignedForm, modeSignedQuery, modeSigned)
	case c.ResponseType == typeHybrid && !oidc.AnswersByForm(c.ResponseMode):
		fault("ResponseMode %q: want %q or %q with ResponseType %q, for an ID token must not stand in a URL", c.ResponseMode, modeForm, modeSignedForm, typeHybrid)
	}
	if !slices.Contains([]PAR{PARAuto, PARAlways, PARNever}, c.PAR) {
		fault("PAR %q: want %q, %q or %q", text.Printable(string(c.PAR), 40), PARAuto, PARAlways, PARNever)
	}
	for _, p := range ownParams {
		if c.AuthParams.Has(p) {
			fault("AuthParams: %q is set by this package; want it left out", p)
		}
	}
	if slices.Contains(strings.Fields(c.Prompt), "none") {
		fault("Prompt %q: nobody who is not signed in at the issuer could sign in; want it empty, and Recognize around pages that serve everybody", c.Prompt)
	}
	for _, s := range c.Scopes {
		if !validScope(s) {
			fault("Scopes: %q is not a scope; want one scope in each element (RFC 6749, 3.3)", s)
		}
	}
}

// validateLimits judges times and sizes.
func (c Config) validateLimits(fault func(format string, args ...any)) {
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"SessionLifetime", c.SessionLifetime}, {"IdleTimeout", c.IdleTimeout}, {"ClockSkew", c.ClockSkew},
		{"ExpiryMargin", c.ExpiryMargin}, {"MaxAge", c.MaxAge},
	} {
		if d.value < 0 {
			fault("%s %v: want zero or more", d.field, d.value)
		}
	}
	if near, ok := c.Store.(interface{ limit() int64 }); c.MemoryBytes < 0 {
		fault("MemoryBytes %d: want zero or more", c.MemoryBytes)
	} else if ok && c.MemoryBytes != defaultMemoryBytes && near.limit() != c.MemoryBytes {
		fault("MemoryBytes %d: want MaxBytes of the MemoryStore set in place of it", c.MemoryBytes)
	}
	if c.MaxAge > 0 && c.MaxAge < time.Second {
		fault("MaxAge %v: want a second or more, or zero for no limit", c.MaxAge)
	}
	if c.IdleTimeout > c.SessionLifetime && c.SessionLifetime > 0 {
		fault("IdleTimeout %v: want SessionLifetime, %v, or less, for no session lasts longer", c.IdleTimeout, c.SessionLifetime)
	}
	if c.ClockSkew > 10*time.Minute {
		fault("ClockSkew %v: want 10 minutes or less; set the clock instead", c.ClockSkew)
	}
}

// validateTokens judges which tokens are believed.
func (c Config) validateTokens(fault func(format string, args ...any)) {
	if slices.Contains(c.Audiences, "") {
		fault("Audiences: one is empty; want names as they stand in aud")
	}
	for _, alg := range c.SigningAlgorithms {
		if !slices.Contains(oidc.Asymmetric, alg) {
			fault("SigningAlgorithms: %q: want %s", text.Printable(alg, 40), strings.Join(oidc.Asymmetric, ", "))
		}
	}
	if err := family.CheckTenants(c.Issuer, c.Tenants); err != nil {
		fault("Tenants: %w", err)
	}
}

// validateIssuer judges what says who the issuer is and where.
func (c Config) validateIssuer(fault func(format string, args ...any)) {
	check := checkIssuerURL
	if c.DiscoveryURL != "" || c.Endpoints != (Endpoints{}) {
		check = site.CheckServerURL // how a family spells itself is its document's affair then
	}
	if err := check(c.Issuer); err != nil {
		fault("Issuer: %w", err)
	}
	if c.DiscoveryURL != "" {
		if err := site.CheckEndpointURL(c.DiscoveryURL); err != nil {
			fault("DiscoveryURL: %w", err)
		}
	}
	if c.PasswordResetFlow != "" {
		if err := family.CheckFlow(c.Issuer, c.PasswordResetFlow); err != nil {
			fault("PasswordResetFlow: %w", err)
		}
	}
	e := c.Endpoints
	switch {
	case e == (Endpoints{}):
		return
	case c.DiscoveryURL != "":
		fault("Endpoints: want them or DiscoveryURL, not both")
	}
	for _, f := range []struct {
		name, url string
		required  bool
	}{
		{"Authorization", e.Authorization, true}, {"Token", e.Token, true}, {"Keys", e.Keys, true},
		{"EndSession", e.EndSession, false}, {"Revocation", e.Revocation, false}, {"PushedRequest", e.PushedRequest, c.PAR == PARAlways},
	} {
		if err := site.CheckEndpointURL(f.url); err != nil && (f.required || f.url != "") {
			fault("Endpoints.%s: %w", f.name, err)
		}
	}
}

// checkIssuerURL also catches what is easily pasted or left empty, which would
// otherwise show as an issuer that cannot be reached.
func checkIssuerURL(raw string) error {
	if err := site.CheckServerURL(raw); err != nil {
		return err
	}
	if issuer, ok := strings.CutSuffix(raw, "/.well-known/openid-configuration"); ok {
		return fmt.Errorf("%q is the discovery document's URL; want the issuer's, %q", raw, issuer)
	}
	return family.Check(raw)
}

// sibling is a path of ours beside the callback's.
func sibling(callback, name string) string { return path.Join(path.Dir(callback), name) }
