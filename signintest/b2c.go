package signintest

import (
	"slices"
	"strings"
)

// B2CNobody is the sub of everybody where a user flow of Azure AD B2C is set to
// send none. It is for [Behaviour].IDTokenClaims.
const B2CNobody = "Not supported currently. Use oid claim."

// What Azure AD B2C answers when a user does something else than to sign in, for
// [Behaviour].Refuse.
var (
	// B2CForgotPassword: the user has asked for the password reset.
	B2CForgotPassword = OAuthError{Code: "access_denied", Description: "AADB2C90118: The user has forgotten their password.\r\nCorrelation ID: 00000000-0000-0000-0000-000000000001\r\nTimestamp: 2026-01-01 00:00:00Z\r\n"}
	// B2CCancelled: the user has left a page.
	B2CCancelled = OAuthError{Code: "access_denied", Description: "AADB2C90091: The user has cancelled entering self-asserted information.\r\nCorrelation ID: 00000000-0000-0000-0000-000000000001\r\nTimestamp: 2026-01-01 00:00:00Z\r\n"}
)

// checkB2CScopes refuses scopes that are nobody's and those of several APIs.
// The client itself is an API, by its id.
func checkB2CScopes(clientID string, scopes []string) *OAuthError {
	api := ""
	for _, s := range scopes {
		if reserved(s) {
			continue
		}
		name := s
		if strings.Contains(s, "/") {
			name, _ = splitScope(s)
		} else if s != clientID {
			return &OAuthError{Code: "invalid_request", Description: "AADB2C90117: The scope '" + s + "' provided in the request is not supported."}
		}
		if api != "" && name != api {
			return &OAuthError{Code: "invalid_request", Description: "AADB2C90146: The scope '" + strings.Join(scopes, " ") + "' provided in request specifies more than one resource for an access token, which is not supported."}
		}
		api = name
	}
	return nil
}

// b2cAccess reports whether B2C answers with an access token: only those who ask
// for an API get one.
func (is *issue) b2cAccess() bool {
	return slices.ContainsFunc(is.scopes, func(s string) bool { return !reserved(s) })
}
