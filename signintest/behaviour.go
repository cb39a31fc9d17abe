package signintest

import (
	"net/url"
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

	// B2C makes the issuer look like Azure AD B2C: a tenant and a policy in
	// place of the first path elements, the claim tfp, and no access token for
	// those who ask for no API. The URL of the issuer must be
	// https://host/tenant/policy/v2.0, or https://host/tfp/tenant/policy/v2.0.
	B2C bool

	// Tenants are the ids of tenants that go by a name in a URL, by that name
	// in lower case. It is for Entra and B2C.
	Tenants map[string]string

	// IssuerName is what the issuer calls itself in documents and tokens, where
	// that is not its URL. In it {origin} stands for scheme and host of the URL,
	// {tenantid} for the tenant's id and {policy} for the policy.
	IssuerName string

	// TokenIssuer is the iss of ID tokens where that is not what the documents
	// say. It is written as IssuerName is.
	TokenIssuer string

	// Endpoints are the places of endpoints: a path below the issuer's URL, or a
	// URL. The hosts of URLs are entered in the Network when the issuer starts; at an issuer
	// on loopback only their paths count. Entra and B2C have their own.
	Endpoints map[Endpoint]string

	// Scopes are the scopes announced. Another of OpenID Connect's own is refused
	// with invalid_scope. Nil announces openid, profile, email and offline_access,
	// and knows all.
	Scopes []string

	// APIScopes are scopes that are known and not announced, where Scopes are set.
	// Nil knows all but OpenID Connect's own.
	APIScopes []string

	// GrantedNames are names that token answers have for scopes that were asked
	// for by another, as at Google. Entra has APIs in place of it.
	GrantedNames map[string]string

	// ResponseTypes are the response types announced; any other is refused. Nil
	// means "code" and "code id_token".
	ResponseTypes []string

	// ResponseModes are the response modes announced; another that is asked for
	// is not read. Nil means query, fragment and form_post, and
	// each signed (JARM).
	ResponseModes []string

	// Audiences are the values that the parameter audience of an authorization
	// request may have; another is refused with access_denied, as Auth0 does. Nil
	// allows all.
	Audiences []string

	// RequirePush takes pushed authorization requests only (RFC 9126), and announces
	// it.
	RequirePush bool

	// PushLifetime is how long a pushed request waits for its browser. Zero means
	// a minute.
	PushLifetime time.Duration

	// PushStatus is the HTTP status of good answers to pushed requests. Zero means
	// 201.
	PushStatus int

	// PushMembers are put into good answers to pushed requests, in place of what
	// is there. A nil value takes a member away.
	PushMembers map[string]any

	// LoginPage asks who comes without a session at the issuer to sign in, by a
	// form that a test submits. Its field "user" is the subject. False signs
	// in whoever comes.
	LoginPage bool

	// SecondTabExpires refuses a form of LoginPage once the user has signed in
	// in another tab: temporarily_unavailable with the description
	// authentication_expired, as Keycloak does.
	SecondTabExpires bool

	// MaxState is the longest state taken. A longer one gets an error page
	// that the client never hears of. Zero means no limit.
	MaxState int

	// ErrorsByQuery sends errors of the authorization endpoint by a GET,
	// whatever response_mode was asked for.
	ErrorsByQuery bool

	// FormPostScopes are scopes that are refused in any response mode but
	// form_post, as Apple refuses name and email.
	FormPostScopes []string

	// UserField sends the field user, JSON with name and email, beside the code
	// of the first sign-in of a user, and never again, as Apple does.
	UserField bool

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

	// RefreshTokenIf decides by the authorization request whether a sign-in
	// brings a refresh token; first says that the user has not signed in at this
	// client before. Nil decides by offline_access and RefreshAlways.
	RefreshTokenIf func(request url.Values, first bool) bool

	// RefreshMovesAuthTime puts the time of a refresh into auth_time, as
	// Keycloak does when the user has signed in anew elsewhere.
	RefreshMovesAuthTime bool

	// RefreshEndsAccess makes each refresh revoke the access tokens the grant
	// had before, as Hydra and zitadel do.
	RefreshEndsAccess bool

	// RefreshNarrows makes the scope of a refresh shrink the grant for good,
	// as zitadel does.
	RefreshNarrows bool

	// OmitRefreshedIDToken leaves the ID token out of refresh answers.
	OmitRefreshedIDToken bool

	// RepeatIDToken sends the last ID token of the session again at a refresh,
	// be it expired, as CAS does.
	RepeatIDToken bool

	// NewestHintOnly makes the end_session endpoint answer 400 to an
	// id_token_hint that is not the last ID token of its session, as Spring
	// Authorization Server does.
	NewestHintOnly bool

	// HintNeedsPublishedKey makes the end_session endpoint answer 400 to an
	// id_token_hint whose key is no longer in the key set, as Keycloak does.
	HintNeedsPublishedKey bool

	// LogoutNeedsHint makes the end_session endpoint answer 400 to a request
	// without id_token_hint, as Okta does.
	LogoutNeedsHint bool

	// LogoutParameter is the parameter of the end_session endpoint that says
	// where the browser goes afterwards: logout_uri at Cognito, returnTo at Auth0's
	// /v2/logout. There the client is named by client_id, and
	// post_logout_redirect_uri is refused. Empty means post_logout_redirect_uri.
	LogoutParameter string

	// LogoutEndsGrants makes the end of a session at the issuer revoke its
	// grants.
	LogoutEndsGrants bool

	// OfflineSessions makes a grant with offline_access outlive the session it
	// comes from in spite of LogoutEndsGrants, as at Keycloak.
	OfflineSessions bool

	// ClaimsInUserInfo leaves the users' claims out of ID tokens; userinfo has
	// them (OpenID Connect Core, section 5.4).
	ClaimsInUserInfo bool

	// StringBooleans spells the users' claims that are true or false as strings.
	StringBooleans bool

	// OmitSID leaves sid out of ID tokens.
	OmitSID bool

	// OmitAccessToken leaves access_token out of token answers, and all that
	// speaks of it.
	OmitAccessToken bool

	// OddKeys publishes [OddKeys] before the issuer's own keys.
	OddKeys bool

	// OmitKeyIDs publishes keys without kid.
	OmitKeyIDs bool

	// EncryptIDTokens sends ID tokens that look encrypted. Nobody can read them.
	EncryptIDTokens bool

	// ExpiresIn makes the member expires_in of the seconds, for another type than
	// a number. Nil keeps the number.
	ExpiresIn func(seconds int64) any

	// TokenStatus is the HTTP status of good token answers. Zero means 200.
	TokenStatus int

	// TokenType and ErrorType are the Content-Type of good and bad answers of
	// the token endpoint. Empty means application/json, and "-" sends none.
	TokenType, ErrorType string

	// InvalidGrant, if not nil, is what the token endpoint says in place of
	// invalid_grant: with status 403 at Auth0, as invalid_request at Dex. An empty
	// Description leaves the issuer's own.
	InvalidGrant *OAuthError

	// ByteOrderMark begins each JSON document with a byte order mark.
	ByteOrderMark bool

	// DiscoveryMembers, IDTokenClaims and TokenMembers are put into the
	// discovery document, into ID tokens and into good token answers, in place of
	// what is there. A nil value takes a member away. The Edit functions come after.
	DiscoveryMembers, IDTokenClaims, TokenMembers map[string]any

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

	// AnswerAlgs are the algorithms announced for signed answers
	// (authorization_signing_alg_values_supported). Nil announces none.
	AnswerAlgs []string

	// EditSignedAnswer edits an answer of a signed response mode (JARM) before it is
	// signed, how it is signed, or what is sent in its place. EditResponse comes
	// after it.
	EditSignedAnswer func(*SignedAnswer)

	// EditTokenResponse edits a good answer of the token endpoint.
	EditTokenResponse func(call Call, body map[string]any)

	// Fault chooses a fault for a request, nil for none. It is asked before
	// the faults of [Issuer.FailNext] and [Issuer.Fail].
	Fault func(Call) *Fault
}
