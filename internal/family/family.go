// Package family knows what each family of issuers does otherwise than the
// specifications: how they name themselves, whose tenants they admit, which
// keys sign for whom, what they leave unannounced, how one leaves them.
package family

import (
	"net/url"
	"strings"
)

// Family is one row of the table below. The zero value is an issuer that does
// nothing otherwise.
type Family struct {
	// Name is for log lines and error texts.
	Name string

	// is recognises the family by what is configured as the issuer and, where
	// that may be any host, by what the discovery document calls itself.
	is func(configured, documented string) bool

	// check, if not nil, says what is wrong with a configured issuer.
	check func(configured string) error

	// rule, if not nil, compares both names. Nil wants them equal.
	rule func(configured, documented string) (Rule, bool)

	// alias is another iss that the family's tokens may have, for the issuer
	// named canonical.
	alias, canonical string

	// AppKeys says that the key of an application with a signing key of its own
	// is published only where discovery is asked with appid=CLIENT_ID.
	AppKeys bool

	// ClientInfo says that client_info=1 asks for the user's home account, and
	// that authentication contexts are asked for by the claim acrs.
	ClientInfo bool

	// written is how scopes are written.
	written Scopes

	// BareSID says that front-channel logout names sid without iss.
	BareSID bool

	// Scopes are known though discovery does not announce them.
	Scopes []string

	// NoOffline leaves offline_access out of what is asked for by default: a
	// refresh token comes without it, and with it the session at the issuer
	// would outlive the user's sign-out there.
	NoOffline bool

	// Offline asks for a refresh token where offline_access is unknown.
	Offline url.Values

	// ResponseTypes are known though discovery does not announce them.
	ResponseTypes []string

	// Leave says how a browser signs out at the issuer.
	Leave Leave
}

// Leave is how a browser signs out at an issuer. The zero value is RP-Initiated
// Logout 1.0, where discovery announces it.
type Leave struct {
	// Path, if set, is the endpoint on the issuer's host where discovery
	// announces none. One that is announced is RP-Initiated Logout's then.
	Path string

	// Return is the parameter that names the page to come back to, beside
	// client_id. Then no other parameter of RP-Initiated Logout is known.
	// Empty means post_logout_redirect_uri.
	Return string
}

// From returns where a browser signs out, empty if nowhere, and the parameter
// that names the page to come back to, empty for those of RP-Initiated Logout.
// announced is the end_session_endpoint.
func (l Leave) From(issuer, announced string) (endpoint, back string) {
	switch {
	case announced != "" && l.Path != "":
		return announced, ""
	case announced != "":
		return announced, l.Return
	case l.Path == "":
		return "", ""
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return "", ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: l.Path}).String(), l.Return
}

// families is the table. The first row that recognises an issuer counts.
var families = []*Family{
	{
		Name: "Microsoft Entra ID", is: isEntra, check: checkEntra, rule: entraRule,
		AppKeys: true, ClientInfo: true, BareSID: true, written: entraScopes,
	},
	{
		Name: "Microsoft Entra External ID", is: isExternalID, check: checkExternalID, rule: externalIDRule,
		AppKeys: true, ClientInfo: true, BareSID: true, written: entraScopes,
	},
	{
		Name: "Azure AD B2C", is: isB2C, check: checkB2C, rule: b2cRule, written: b2cScopes,
		// It announces openid alone.
		Scopes: []string{"profile", "offline_access"},
	},
	{
		Name: "AD FS", is: byURL(isADFS),
	},
	{
		Name: "Google", is: byURL(func(u *url.URL) bool { return u.Host == "accounts.google.com" }), check: checkGoogle,
		alias: "accounts.google.com", canonical: Google,
		Offline: url.Values{"access_type": {"offline"}},
	},
	{
		Name: "Keycloak", is: byURL(func(u *url.URL) bool { return strings.Contains(u.Path, "/realms/") }),
		NoOffline: true,
	},
	{
		Name: "Amazon Cognito", is: byURL(isCognito),
		NoOffline: true, // it knows no offline_access
		Leave:     Leave{Return: "logout_uri"},
	},
	{
		Name: "Auth0", is: byURL(func(u *url.URL) bool { return strings.HasSuffix(u.Host, ".auth0.com") }),
		// Tenants from before 2022 announce no end_session_endpoint.
		Leave: Leave{Path: "/v2/logout", Return: "returnTo"},
	},
	{
		Name: "Apple", is: byURL(func(u *url.URL) bool { return u.Host == "appleid.apple.com" }),
		ResponseTypes: []string{"code id_token"},
	},
}

// other is everybody else.
var other = &Family{}

// Of returns the family of an issuer by its name in the configuration and, if
// it has been read, in the discovery document.
func Of(configured, documented string) *Family {
	for _, f := range families {
		if f.is(configured, documented) {
			return f
		}
	}
	return other
}

// Check is for New: what is wrong with an issuer's name.
func Check(configured string) error {
	if f := Of(configured, ""); f.check != nil {
		return f.check(configured)
	}
	return nil
}

// Canonical is the one name of an issuer whose tokens may have two: by either,
// a user is the same.
func Canonical(iss string) string {
	for _, f := range families {
		if f.alias != "" && iss == f.alias {
			return f.canonical
		}
	}
	return iss
}

// Nobody reports whether a sub is one that everybody gets. Azure AD B2C sends
// it where a user flow is set to have none: "Not supported currently. Use oid
// claim."
func Nobody(subject string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(subject)), "not supported currently")
}

// byURL recognises a family by the configured https URL.
func byURL(is func(*url.URL) bool) func(configured, documented string) bool {
	return func(configured, _ string) bool {
		u, err := url.Parse(strings.ToLower(configured))
		return err == nil && is(u)
	}
}

func isCognito(u *url.URL) bool {
	return strings.HasPrefix(u.Host, "cognito-idp") &&
		(strings.HasSuffix(u.Host, ".amazonaws.com") || strings.HasSuffix(u.Host, ".amazonaws.com.cn"))
}
