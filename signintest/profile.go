package signintest

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Profile is a provider as a test meets it. Its function makes an issuer behave as
// the provider does, beyond what all providers do. It is for
// [IssuerOptions].Behaviour as it is, or in a function that goes on to edit:
//
//	signintest.NewIssuer(t, &signintest.IssuerOptions{
//		URL: "https://accounts.google.com",
//		Behaviour: func(b *signintest.Behaviour) {
//			signintest.Google(b)
//			b.User = "bob"
//		},
//	})
//
// A test of all runs over [Profiles].
type Profile struct {
	// Name is the function's name in lower case.
	Name string

	// URL is an issuer of the provider's, for [IssuerOptions].
	URL string

	// Behaviour makes an issuer behave as the provider does.
	Behaviour func(*Behaviour)
}

// Profiles returns all profiles, in the order of their names. The list is new at
// each call.
func Profiles() []Profile {
	return []Profile{
		{"adfs", "https://adfs.contoso.example/adfs", ADFS},
		{"apple", "https://appleid.apple.com", Apple},
		{"auth0", "https://contoso.eu.auth0.com/", Auth0},
		{"b2c", "https://contoso.b2clogin.com/contoso.onmicrosoft.com/b2c_1_signin/v2.0", B2C},
		{"cognito", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc", Cognito},
		{"entra", "https://login.microsoftonline.com/contoso.onmicrosoft.com/v2.0", Entra},
		{"externalid", "https://contoso.ciamlogin.com/contoso.onmicrosoft.com/v2.0", ExternalID},
		{"google", "https://accounts.google.com", Google},
		{"keycloak", "https://sso.example.test/realms/acme", Keycloak},
		{"okta", "https://contoso.okta.com/oauth2/default", Okta},
	}
}

// ProfileTenant is the id of contoso.onmicrosoft.com in the profiles of
// Microsoft's, where alice and bob are at home.
const ProfileTenant = "11111111-1111-1111-1111-111111111111"

// ADFS is Active Directory Federation Services, at https://HOST/adfs. It does not
// announce offline_access and gives a refresh token without, and a refresh
// brings no new one. The users there are have a upn, and no name or email.
//
// Source: Microsoft Learn, "AD FS OpenID Connect/OAuth concepts", "AD FS OpenID
// Connect/OAuth flows and application scenarios".
func ADFS(b *Behaviour) {
	b.Endpoints = map[Endpoint]string{
		EndpointAuthorize: "/oauth2/authorize/", EndpointToken: "/oauth2/token/", EndpointUserInfo: "/userinfo",
		EndpointKeys: "/discovery/keys", EndpointEndSession: "/oauth2/logout",
	}
	b.RefreshAlways, b.RefreshTokens = true, RefreshKeep
	b.OmitIss, b.OmitRevocation = true, true
	for n, u := range b.Users {
		b.Users[n].Claims = map[string]any{"upn": u.Subject + "@contoso.example", "unique_name": `CONTOSO\` + u.Subject}
	}
	b.DiscoveryMembers = map[string]any{
		"access_token_issuer":        "http://adfs.contoso.example/adfs/services/trust",
		"scopes_supported":           []string{"allatclaims", "aza", "email", "logon_cert", "openid", "profile", "user_impersonation", "vpn_cert", "winhello_cert"},
		"claims_parameter_supported": nil, "backchannel_logout_supported": nil, "backchannel_logout_session_supported": nil,
		"frontchannel_logout_supported": true, "frontchannel_logout_session_supported": true, "code_challenge_methods_supported": nil,
	}
}

// Entra is Microsoft Entra ID, at https://login.microsoftonline.com/TENANT/v2.0
// (see [Behaviour].Entra). It sends no sid unless OmitSID is set to false, which
// stands for the optional claim, it takes an old refresh token again, it announces
// neither PKCE nor back-channel logout, and it does not take a long state
// (AADSTS90015).
//
// Source: Microsoft identity platform, "OAuth 2.0 authorization code flow",
// "Microsoft Entra authentication and authorization error codes", "Optional
// claims reference".
func Entra(b *Behaviour) {
	b.Entra = true
	b.Tenants = map[string]string{"contoso.onmicrosoft.com": ProfileTenant}
	b.OmitSID = true
	b.MaxState = 1800
	b.RefreshTokens = RefreshReplace
	b.AuthMethods = []string{"client_secret_post", "private_key_jwt", "client_secret_basic"}
	b.DiscoveryMembers = map[string]any{
		"code_challenge_methods_supported": nil, "claims_parameter_supported": nil, "grant_types_supported": nil,
		"backchannel_logout_supported": nil, "backchannel_logout_session_supported": nil,
		"frontchannel_logout_supported": true, "http_logout_supported": true, "request_uri_parameter_supported": false,
	}
}

// ExternalID is Microsoft Entra External ID, at
// https://contoso.ciamlogin.com/TENANT/v2.0 or at a domain of the customer's, with
// the tenant by name or by id. Whatever the host, it calls itself by the
// tenant's id.
//
// Source: Microsoft Entra External ID, "Custom URL domains in external
// tenants"; issues about the issuer of ciamlogin.com in the trackers of MSAL and
// of ASP.NET Core.
func ExternalID(b *Behaviour) {
	Entra(b)
	b.IssuerName = "https://{tenantid}.ciamlogin.com/{tenantid}/v2.0"
}

// B2C is a user flow of Azure AD B2C, at
// https://contoso.b2clogin.com/TENANT/POLICY/v2.0 (see [Behaviour].B2C). It
// calls itself by the tenant's id without the policy; for the form with the policy set
//
//	b.IssuerName = "{origin}/tfp/{tenantid}/{policy}/v2.0/"
//
// It announces the scope openid alone, and answers without an access token
// who asks for no API. For a flow without a subject put [B2CNobody] into
// IDTokenClaims; for a user who goes elsewhere see [B2CForgotPassword].
//
// Source: Azure AD B2C, "Tokens overview", "OpenID Connect in Azure AD B2C",
// "Error codes".
func B2C(b *Behaviour) {
	b.B2C = true
	b.Tenants = map[string]string{"contoso.onmicrosoft.com": ProfileTenant}
	b.IssuerName = "{origin}/{tenantid}/v2.0/"
	b.OmitSID = true
	b.RefreshTokens = RefreshReplace
	b.AuthMethods = []string{"client_secret_post", "client_secret_basic"}
	b.DiscoveryMembers = map[string]any{
		"scopes_supported": []string{"openid"}, "userinfo_endpoint": nil, "claims_parameter_supported": nil,
		"code_challenge_methods_supported": nil, "grant_types_supported": nil,
		"backchannel_logout_supported": nil, "backchannel_logout_session_supported": nil,
	}
}

// Google is Google, at https://accounts.google.com. Its ID tokens name the
// issuer without https, as documented for some; set TokenIssuer to "" for
// the others. It refuses offline_access, and gives a refresh token to who asks with
// access_type=offline for the first time or with prompt=consent. Granted
// scopes have long names. It has no end_session_endpoint.
//
// Source: Google Identity, "OpenID Connect", "Using OAuth 2.0 for Web Server
// Applications", and https://accounts.google.com/.well-known/openid-configuration.
func Google(b *Behaviour) {
	b.TokenIssuer = "accounts.google.com"
	b.Endpoints = map[Endpoint]string{
		EndpointAuthorize:  "https://accounts.google.com/o/oauth2/v2/auth",
		EndpointToken:      "https://oauth2.googleapis.com/token",
		EndpointRevocation: "https://oauth2.googleapis.com/revoke",
		EndpointUserInfo:   "https://openidconnect.googleapis.com/v1/userinfo",
		EndpointKeys:       "https://www.googleapis.com/oauth2/v3/certs",
	}
	b.Scopes = []string{"openid", "email", "profile"}
	b.GrantedNames = map[string]string{
		"email":   "https://www.googleapis.com/auth/userinfo.email",
		"profile": "https://www.googleapis.com/auth/userinfo.profile",
	}
	b.RefreshTokenIf = func(q url.Values, first bool) bool {
		return q.Get("access_type") == "offline" && (first || slices.Contains(strings.Fields(q.Get("prompt")), "consent"))
	}
	b.RefreshTokens = RefreshKeep
	b.OmitEndSession, b.OmitIss, b.OmitSID = true, true, true
	b.AuthMethods = []string{"client_secret_post", "client_secret_basic"}
	b.DiscoveryMembers = plainDiscovery()
}

// Keycloak is a realm of Keycloak, at https://HOST/realms/REALM. Everybody gets a
// refresh token. With offline_access that is an offline session, which outlives
// the sign-out of the user there; without, the sign-out ends it. A refresh may
// move auth_time. A hint at the end of a session must be signed with a key
// that is still published. With LoginPage a second tab gets
// authentication_expired. Tokens live five minutes. Roles are in
// realm_access.roles.
//
// Source: Keycloak, "Server Administration Guide" (offline access, sessions,
// keys) and its tracker.
func Keycloak(b *Behaviour) {
	b.Endpoints = map[Endpoint]string{
		EndpointAuthorize:  "/protocol/openid-connect/auth",
		EndpointToken:      "/protocol/openid-connect/token",
		EndpointRevocation: "/protocol/openid-connect/revoke",
		EndpointUserInfo:   "/protocol/openid-connect/userinfo",
		EndpointKeys:       "/protocol/openid-connect/certs",
		EndpointEndSession: "/protocol/openid-connect/logout",
	}
	b.RefreshAlways, b.LogoutEndsGrants, b.OfflineSessions = true, true, true
	b.RefreshTokens = RefreshReplace
	b.RefreshMovesAuthTime, b.HintNeedsPublishedKey, b.SecondTabExpires = true, true, true
	b.AccessTokenLifetime, b.IDTokenLifetime = 5*time.Minute, 5*time.Minute
	b.IDTokenClaims = map[string]any{
		"typ": "ID", "realm_access": map[string]any{"roles": []string{"offline_access", "editor"}},
	}
	b.TokenMembers = map[string]any{"not-before-policy": 0, "refresh_expires_in": 1800}
}

// Okta is an authorization server of Okta's, at
// https://contoso.okta.com/oauth2/default. The users' claims are in userinfo only,
// an ID token has the claim ver as a number, and the sign-out needs an
// id_token_hint. Refresh tokens stay as they are.
//
// Source: Okta developer documentation, "OpenID Connect & OAuth 2.0 API",
// "ID token payload", "Refresh access tokens".
func Okta(b *Behaviour) {
	b.Endpoints = map[Endpoint]string{
		EndpointAuthorize: "/v1/authorize", EndpointToken: "/v1/token", EndpointRevocation: "/v1/revoke",
		EndpointUserInfo: "/v1/userinfo", EndpointKeys: "/v1/keys", EndpointEndSession: "/v1/logout",
	}
	b.Scopes = []string{"openid", "profile", "email", "address", "phone", "offline_access", "device_sso"}
	b.ClaimsInUserInfo, b.LogoutNeedsHint = true, true
	b.OmitIss, b.OmitSID = true, true
	b.RefreshTokens = RefreshKeep
	b.IDTokenClaims = map[string]any{"ver": 1, "idp": "00o1", "amr": []string{"pwd"}}
	b.DiscoveryMembers = plainDiscovery()
}

// Auth0 is a tenant of Auth0's, at https://contoso.eu.auth0.com/ with the slash. It
// announces no end_session_endpoint, as tenants from before 2022, and has /v2/logout
// with client_id and returnTo. The parameter audience of an authorization request
// chooses the API; of those it knows https://api.example.test. An invalid_grant
// comes with status 403.
//
// Source: Auth0, "Log users out of Auth0", "Get access tokens", "Authentication
// API"; https://TENANT.auth0.com/.well-known/openid-configuration.
func Auth0(b *Behaviour) {
	b.Endpoints = map[Endpoint]string{
		EndpointToken: "/oauth/token", EndpointRevocation: "/oauth/revoke",
		EndpointKeys: "/.well-known/jwks.json", EndpointEndSession: "/v2/logout",
	}
	b.Scopes = []string{"openid", "profile", "offline_access", "name", "given_name", "family_name", "nickname", "email",
		"email_verified", "picture", "created_at", "identities", "phone", "address"}
	b.Audiences = []string{"https://api.example.test"}
	b.OmitEndSession, b.LogoutParameter = true, "returnTo"
	b.OmitIss = true
	b.RefreshTokens = RefreshKeep
	b.InvalidGrant = &OAuthError{Status: 403, Code: "invalid_grant"}
	b.DiscoveryMembers = plainDiscovery()
}

// Cognito is a user pool of Amazon Cognito's, at
// https://cognito-idp.REGION.amazonaws.com/POOL, with its endpoints at the pool's
// domain. It knows the response type code alone and reads no response_mode. It
// refuses offline_access and gives a refresh token without. Token answers do
// not say the scope. The sign-out wants client_id and logout_uri.
//
// Source: Amazon Cognito developer guide, "User pool endpoints and managed
// login reference", "Logout endpoint", "Understanding the identity token".
func Cognito(b *Behaviour) {
	const domain = "https://contoso.auth.eu-west-1.amazoncognito.com"
	b.Endpoints = map[Endpoint]string{
		EndpointAuthorize: domain + "/oauth2/authorize", EndpointToken: domain + "/oauth2/token",
		EndpointRevocation: domain + "/oauth2/revoke", EndpointUserInfo: domain + "/oauth2/userInfo",
		EndpointEndSession: domain + "/logout", EndpointKeys: "/.well-known/jwks.json",
	}
	b.Scopes = []string{"openid", "email", "phone", "profile"}
	b.ResponseTypes, b.ResponseModes = []string{"code"}, []string{}
	b.RefreshAlways, b.RefreshTokens = true, RefreshKeep
	b.OmitScope, b.OmitIss, b.OmitSID = true, true, true
	b.LogoutParameter = "logout_uri"
	b.AuthMethods = []string{"client_secret_basic", "client_secret_post"}
	b.IDTokenClaims = map[string]any{"token_use": "id", "cognito:groups": []string{"editors"}}
	b.DiscoveryMembers = plainDiscovery()
	b.DiscoveryMembers["response_types_supported"] = []string{"code", "token"}
	b.DiscoveryMembers["response_modes_supported"] = nil
}

// Apple is Sign in with Apple, at https://appleid.apple.com. It gives name and
// email by form_post only. The name is in no token: it comes once, in the field user
// beside the code of a user's first sign-in. email_verified is the string "true".
// It has neither userinfo nor a sign-out, refuses profile and offline_access, and
// gives a refresh token without. Its client secret is a JWT: put the
// client's public key into [Client].SecretKeys.
//
// Source: Apple developer documentation, "Sign in with Apple REST API"
// ("Request an authorization", "Generate and validate tokens", "Creating a
// client secret").
func Apple(b *Behaviour) {
	b.Endpoints = map[Endpoint]string{
		EndpointAuthorize: "/auth/authorize", EndpointToken: "/auth/token",
		EndpointRevocation: "/auth/revoke", EndpointKeys: "/auth/keys",
	}
	b.Scopes, b.APIScopes = []string{"openid", "email", "name"}, []string{}
	b.FormPostScopes = []string{"email", "name"}
	b.UserField, b.StringBooleans = true, true
	b.RefreshAlways, b.RefreshTokens = true, RefreshKeep
	b.OmitEndSession, b.OmitIss, b.OmitSID = true, true, true
	b.AuthMethods = []string{"client_secret_post"}
	b.IDTokenClaims = map[string]any{"nonce_supported": true, "name": nil, "preferred_username": nil}
	b.DiscoveryMembers = plainDiscovery()
	b.DiscoveryMembers["response_types_supported"] = []string{"code"}
	b.DiscoveryMembers["userinfo_endpoint"] = nil
}

// plainDiscovery takes away what many providers do not announce.
func plainDiscovery() map[string]any {
	return map[string]any{
		"claims_parameter_supported": nil, "backchannel_logout_supported": nil, "backchannel_logout_session_supported": nil,
	}
}
