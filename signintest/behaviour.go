package signintest

import (
	"crypto"
	"maps"
	"net/url"
	"slices"
	"time"
)

// Behaviour says how an [Issuer] acts. The zero value of each field is the
// good behaviour of an ordinary OpenID Provider, except that one without
// Clients or Users serves nobody. [NewIssuer] starts with the client "client"
// and the users "alice" and "bob".
//
// Hooks are called from the goroutine of the request they concern, several at
// once, and may call the Issuer's methods.
type Behaviour struct {
	// Now is the issuer's clock. Nil means time.Now.
	Now func() time.Time

	// Clients are the registered clients. The default is one, with the ID
	// "client" and the secret "secret", that may use any redirect URI.
	Clients []Client

	// Users are the accounts. The default are alice and bob.
	Users []User

	// User is the subject of the user who signs in when login_hint names
	// nobody. Empty means the first of Users.
	User string

	// SignedOut makes prompt=none fail with login_required. Any other request
	// still signs the user in.
	SignedOut bool

	// Refuse, if not nil, is the error every authorization request gets.
	Refuse *OAuthError

	// Entra makes the issuer look like Microsoft Entra ID: any tenant in
	// place of the first path element, {tenantid} in the discovery documents of
	// common and organizations, v1 endpoints beside v2.0, the claims tid, oid
	// and ver, and Entra's errors. Scopes have APIs: an authorization request
	// may name those of several, a token request those of one. The claim acrs is
	// there for those who ask for it by claims; acr_values is not read. The URL of
	// the issuer must be https://host/tenant/v2.0, or https://host/tenant for v1.
	Entra bool

	// APIs are the APIs that Entra knows beside Microsoft Graph. A scope of
	// another is refused with invalid_resource (AADSTS500011). Nil means that it
	// knows all.
	APIs []API

	// Alg is the algorithm of ID tokens and the only one announced: RS256
	// (the default), RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512
	// or EdDSA.
	Alg string

	// AuthMethods are the announced token_endpoint_auth_methods_supported.
	// Nil announces all that are implemented: client_secret_basic,
	// client_secret_post, private_key_jwt and none. A method that is not
	// announced still works; see Client.AuthMethod.
	AuthMethods []string

	// OmitIss neither announces nor sends the iss parameter of RFC 9207. In
	// Entra mode it is never sent.
	OmitIss bool

	// OmitRevocation does not announce the revocation endpoint. Entra mode
	// never does.
	OmitRevocation bool

	// OmitEndSession does not announce the end_session endpoint.
	OmitEndSession bool

	// GrantScopes returns the scopes granted of those asked for. Nil grants
	// all.
	GrantScopes func(asked []string) []string

	// Consented are scopes that a refresh may ask for although no
	// authorization request has asked for them yet.
	Consented []string

	// Resources are the resource indicators (RFC 8707) the issuer knows; any
	// other is refused with invalid_target. Nil knows all.
	Resources []string

	// AccessTokenLifetime is the life of access tokens. Zero means an hour.
	AccessTokenLifetime time.Duration

	// IDTokenLifetime is the life of ID tokens. Zero means an hour.
	IDTokenLifetime time.Duration

	// OmitExpiresIn leaves expires_in out of token answers.
	OmitExpiresIn bool

	// RefreshIn is sent as refresh_in, in whole seconds. Zero sends none.
	RefreshIn time.Duration

	// OmitScope leaves scope out of token answers.
	OmitScope bool

	// RefreshTokens says what becomes of a refresh token that is used.
	RefreshTokens RefreshMode

	// RefreshAlways gives refresh tokens to those who did not ask for
	// offline_access too.
	RefreshAlways bool

	// RefreshEndsAccess makes each refresh revoke the access tokens the grant
	// had before, as Hydra and zitadel do.
	RefreshEndsAccess bool

	// RefreshNarrows makes the scope of a refresh shrink the grant for good,
	// as zitadel does.
	RefreshNarrows bool

	// OmitRefreshedIDToken leaves the ID token out of refresh answers.
	OmitRefreshedIDToken bool

	// NewestHintOnly makes the end_session endpoint answer 400 to an
	// id_token_hint that is not the last ID token of its session, as Spring
	// Authorization Server does.
	NewestHintOnly bool

	// EditDiscovery edits the discovery document. Values are those that
	// encoding/json takes.
	EditDiscovery func(document map[string]any)

	// EditKeys edits the JSON Web Key Set; its member "keys" is a
	// []map[string]any.
	EditKeys func(document map[string]any)

	// EditIDToken edits an ID token before it is signed, how it is signed, or
	// what is sent in its place.
	EditIDToken func(*IDToken)

	// EditResponse edits the answer to an authorization request, an error
	// answer too.
	EditResponse func(*AuthResponse)

	// EditTokenResponse edits a good answer of the token endpoint.
	EditTokenResponse func(call Call, body map[string]any)

	// Fault chooses a fault for a request, nil for none. It is asked before
	// the faults of [Issuer.FailNext] and [Issuer.Fail].
	Fault func(Call) *Fault
}

// RefreshMode says what becomes of a refresh token that is used.
type RefreshMode int

const (
	// RefreshRotate answers with a new refresh token and accepts the old one
	// never again: its reuse revokes the whole grant.
	RefreshRotate RefreshMode = iota
	// RefreshReplace answers with a new refresh token and still accepts the
	// old one, as Entra ID does.
	RefreshReplace
	// RefreshKeep answers without a refresh token; the old one stays good.
	RefreshKeep
)

// Client is an application registered at the issuer.
type Client struct {
	// ID is the client_id.
	ID string

	// Secret is for client_secret_basic and client_secret_post. A client
	// without Secret, PublicKeys and VerifyAssertion is a public one.
	Secret string

	// PublicKeys verify the assertions of private_key_jwt. Any may match.
	PublicKeys []crypto.PublicKey

	// VerifyAssertion, if not nil, decides about client assertions in place of
	// the rules for private_key_jwt, as for federated credentials.
	VerifyAssertion func(assertion string) error

	// AuthMethod, if not empty, is the only authentication method accepted.
	AuthMethod string

	// OwnKey makes Entra sign the client's ID tokens with a key of its own, as
	// for an application with claims mapping. The key is published only in the
	// key set that ?appid=ID asks for, which the discovery document names when it
	// is asked with ?appid=ID.
	OwnKey bool

	// RedirectURIs are compared exactly. None means that any will do.
	RedirectURIs []string

	// PostLogoutRedirectURIs are compared exactly. None means that any will do.
	PostLogoutRedirectURIs []string
}

// User is an account at the issuer.
type User struct {
	// Subject is the sub claim. It is also a valid login_hint, like the claims
	// preferred_username and email.
	Subject string

	// Claims are added to ID tokens. They replace the issuer's own of the same
	// name.
	Claims map[string]any

	// TenantID and ObjectID are the home tenant and the object ID in Entra
	// mode, sent as utid and uid in client_info.
	TenantID, ObjectID string
}

// AuthResponse is an answer of the authorization endpoint about to be sent.
type AuthResponse struct {
	// Request holds the parameters of the authorization request. Read only.
	Request url.Values

	// RedirectURI is where the answer goes.
	RedirectURI string

	// Mode is form_post, query or fragment, whatever was asked.
	Mode string

	// Params are the parameters of the answer. Several values under one name
	// are sent as duplicates.
	Params url.Values
}

func defaultBehaviour() *Behaviour {
	account := func(subject, name, object string) User {
		return User{
			Subject: subject,
			Claims: map[string]any{
				"name":               name,
				"preferred_username": subject + "@example.test",
				"email":              subject + "@example.test",
				"email_verified":     true,
			},
			TenantID: "11111111-1111-1111-1111-111111111111",
			ObjectID: object,
		}
	}
	return &Behaviour{
		Clients: []Client{{ID: "client", Secret: "secret"}},
		Users: []User{
			account("alice", "Alice Example", "aaaaaaaa-0000-0000-0000-000000000001"),
			account("bob", "Bob Example", "bbbbbbbb-0000-0000-0000-000000000002"),
		},
	}
}

// clone returns a copy whose slices and maps are its own, so that Update never
// touches what a request is reading.
func (b *Behaviour) clone() *Behaviour {
	c := *b
	c.AuthMethods = slices.Clone(b.AuthMethods)
	c.Consented = slices.Clone(b.Consented)
	c.APIs = slices.Clone(b.APIs)
	c.Resources = slices.Clone(b.Resources)
	c.Clients = slices.Clone(b.Clients)
	for n := range c.Clients {
		c.Clients[n].PublicKeys = slices.Clone(c.Clients[n].PublicKeys)
		c.Clients[n].RedirectURIs = slices.Clone(c.Clients[n].RedirectURIs)
		c.Clients[n].PostLogoutRedirectURIs = slices.Clone(c.Clients[n].PostLogoutRedirectURIs)
	}
	c.Users = slices.Clone(b.Users)
	for n := range c.Users {
		c.Users[n].Claims = maps.Clone(c.Users[n].Claims)
	}
	if b.Refuse != nil {
		c.Refuse = new(*b.Refuse)
	}
	return &c
}

func (b *Behaviour) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now()
}

// sendsIss reports whether RFC 9207 is announced and done. Entra does not.
func (b *Behaviour) sendsIss() bool { return !b.OmitIss && !b.Entra }

func (b *Behaviour) alg() string {
	if b.Alg != "" {
		return b.Alg
	}
	return "RS256"
}

func (b *Behaviour) client(id string) (Client, bool) {
	for _, c := range b.Clients {
		if c.ID == id {
			return c, true
		}
	}
	return Client{}, false
}

// user chooses who signs in.
func (b *Behaviour) user(hint string) (User, bool) {
	for _, u := range b.Users {
		if hint != "" && (u.Subject == hint || u.Claims["preferred_username"] == hint || u.Claims["email"] == hint) {
			return u, true
		}
	}
	for _, u := range b.Users {
		if b.User == "" || u.Subject == b.User {
			return u, true
		}
	}
	return User{}, false
}

func (b *Behaviour) accessTokenLifetime() time.Duration {
	if b.AccessTokenLifetime != 0 {
		return b.AccessTokenLifetime
	}
	return time.Hour
}

func (b *Behaviour) idTokenLifetime() time.Duration {
	if b.IDTokenLifetime != 0 {
		return b.IDTokenLifetime
	}
	return time.Hour
}
