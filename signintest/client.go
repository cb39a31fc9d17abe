package signintest

import (
	"crypto"
	"net/url"
)

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
	// without Secret, SecretKeys, PublicKeys and VerifyAssertion is a public one.
	Secret string

	// PublicKeys verify the assertions of private_key_jwt. Any may match.
	PublicKeys []crypto.PublicKey

	// SecretKeys make the secret a JWT that one of these keys verifies, for the
	// client and this issuer and good for six months at most, as Apple wants it
	// in client_secret. Secret is not read then.
	SecretKeys []crypto.PublicKey

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
