package family

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What an error of the token endpoint speaks of. Only the grant's death may end
// anything beyond the request.
func TestTokenErrors(t *testing.T) {
	const generic = "https://issuer.example"
	said := func(text string) Failure { return Failure{Description: text} }
	for _, tc := range []struct {
		name   string
		issuer string
		code   string
		more   Failure
		bare   Subject
		named  Subject // where the request named scopes
	}{
		{"RFC 6749", generic, "invalid_grant", Failure{}, OfGrant, OfGrant},
		{"RFC 6749", generic, "invalid_scope", Failure{}, OfConsent, OfConsent},
		{"RFC 6749", generic, "invalid_client", Failure{Status: 401}, OfClient, OfClient},
		{"RFC 6749", generic, "unauthorized_client", Failure{}, OfClient, OfClient},
		{"RFC 6749", generic, "unsupported_grant_type", Failure{}, OfClient, OfClient},
		{"RFC 8707", generic, "invalid_target", Failure{}, OfConsent, OfConsent},
		{"Dex", generic, "invalid_request", Failure{}, OfGrant, OfConsent},
		{"nobody", generic, "what_is_this", Failure{}, OfGrant, OfConsent},
		{"a policy", generic, "access_denied", Failure{}, OfGrant, OfConsent},
		{"Hydra", generic, "error", Failure{}, OfMoment, OfMoment},
		{"Hydra", generic, "token_inactive", Failure{Status: 401}, OfGrant, OfGrant},
		{"a proxy", generic, "", Failure{Status: 404}, OfMoment, OfMoment},
		{"under load", generic, "invalid_grant", Failure{Status: 500}, OfMoment, OfMoment},
		{"too many", generic, "invalid_request", Failure{Status: http.StatusTooManyRequests}, OfMoment, OfMoment},
		{"Salesforce", generic, "rate_limit_exceeded", Failure{}, OfMoment, OfMoment},
		{"RFC 9449", generic, "invalid_dpop_proof", Failure{}, OfClient, OfClient},
		{"Keycloak", generic, "invalid_grant", said("Session not active"), OfGrant, OfGrant},
		{"Okta", generic, "invalid_grant", said("The refresh token is invalid or expired."), OfGrant, OfGrant},
		{"Okta", generic, "access_denied", said("Policy evaluation failed for this request"), OfGrant, OfConsent},
		{"Auth0", generic, "mfa_required", Failure{Status: 403}, OfProof, OfProof},
		{"Auth0", generic, "consent_required", Failure{Status: 403}, OfConsent, OfConsent},
		{"Auth0", generic, "invalid_grant", Failure{Status: 403, Description: "Unknown or invalid refresh token."}, OfGrant, OfGrant},
		{"Google", "https://accounts.google.com", "invalid_grant", said("Token has been expired or revoked."), OfGrant, OfGrant},
		{"Google", "https://accounts.google.com", "invalid_grant", said("Bad Request"), OfGrant, OfGrant},
		{"Google", "https://accounts.google.com", "deleted_client", Failure{Status: 401}, OfClient, OfClient},
		{"Google", "https://accounts.google.com", "internal_failure", Failure{}, OfMoment, OfMoment},
		{"AD FS", "https://adfs.example/adfs", "invalid_grant", Failure{Status: 401, Description: "MSIS9615: The refresh token received in 'refresh_token' parameter has expired."}, OfGrant, OfGrant},
		{"AD FS", "https://adfs.example/adfs", "invalid_resource", said("MSIS9602: The received 'resource' parameter is invalid."), OfRequest, OfRequest},
		{"AD FS", "https://adfs.example/adfs", "unauthorized_client", said("MSIS9611: The client is not allowed to access the requested resource."), OfRequest, OfRequest},
		{"Entra", entra, "invalid_grant", said("AADSTS700082: The refresh token has expired due to inactivity."), OfGrant, OfGrant},
		{"Entra", entra, "invalid_grant", said("AADSTS50173: The provided grant has expired due to it being revoked."), OfGrant, OfGrant},
		{"Entra", entra, "invalid_grant", Failure{Suberror: "bad_token"}, OfGrant, OfGrant},
		{"Entra", entra, "invalid_resource", said("AADSTS500011: The resource principal was not found."), OfRequest, OfRequest},
		{"Entra", entra, "invalid_resource", Failure{}, OfRequest, OfRequest},
		{"Entra", entra, "invalid_request", said("AADSTS28000: more than one resource."), OfRequest, OfRequest},
		{"Entra", entra, "invalid_request", Failure{}, OfRequest, OfRequest},
		{"Entra", entra, "invalid_scope", said("AADSTS70011: .default can't be combined."), OfRequest, OfRequest},
		{"Entra", entra, "invalid_client", said("AADSTS650053: asked for a scope that doesn't exist."), OfRequest, OfRequest},
		{"Entra, at a domain of its own", generic, "invalid_request", said("AADSTS28000: more than one resource."), OfRequest, OfRequest},
		{"Entra", entra, "invalid_grant", said("AADSTS65001: The user has not consented."), OfConsent, OfConsent},
		{"Entra", entra, "invalid_grant", Failure{Suberror: "consent_required"}, OfConsent, OfConsent},
		{"Entra", entra, "interaction_required", Failure{Claims: true}, OfProof, OfProof},
		{"Entra", entra, "invalid_grant", said("AADSTS50076: you must use multi-factor authentication."), OfProof, OfProof},
		{"Entra", entra, "invalid_grant", Failure{Suberror: "basic_action"}, OfProof, OfProof},
		{"Entra", entra, "invalid_grant", Failure{Claims: true}, OfProof, OfProof},
		{"Entra", entra, "invalid_grant", said("AADSTS50196: a client request loop."), OfMoment, OfMoment},
		{"Entra", entra, "unauthorized_client", said("AADSTS700016: Application not found."), OfClient, OfClient},
		{"Entra", entra, "invalid_request", said("AADSTS90002: Tenant not found."), OfClient, OfClient},
		{"Entra", entra, "invalid_grant", said("No AADSTS here, and of xAADSTS65001 no word."), OfGrant, OfGrant},
		{"B2C", generic, "invalid_grant", said("AADB2C90080: The provided grant has expired."), OfGrant, OfGrant},
		{"B2C", "https://contoso.b2clogin.com/contoso.onmicrosoft.com/b2c_1/v2.0", "invalid_scope", Failure{}, OfConsent, OfConsent},
		{"B2C", generic, "invalid_request", said("AADB2C90117: The scope is not supported."), OfRequest, OfRequest},
	} {
		f := tc.more
		f.Written, f.Code = ScopesOf(tc.issuer, ""), tc.code
		if f.Status == 0 {
			f.Status = http.StatusBadRequest
		}
		for _, bare := range []bool{true, false} {
			want := tc.named
			if f.Bare = bare; bare {
				want = tc.bare
			}
			if got := f.Subject(); got != want {
				t.Errorf("%s: %s %q (bare %t) speaks of %d, want %d", tc.name, f.Code, f.Description, bare, got, want)
			}
		}
	}
}

// What an answer to an authorization request speaks of: who cancelled, who was
// refused, who forgot a password, whose page expired.
func TestAuthorizationErrors(t *testing.T) {
	for _, tc := range []struct {
		name, code, description string
		signIn, asks            Subject
	}{
		{"RFC 6749", "access_denied", "", Cancelled, OfConsent},
		{"RFC 6749", "server_error", "", OfMoment, OfMoment},
		{"RFC 6749", "temporarily_unavailable", "", OfMoment, OfMoment},
		{"RFC 6749", "invalid_scope", "", OfRequest, OfRequest},
		{"RFC 6749", "unauthorized_client", "", OfClient, OfClient},
		{"nobody", "", "", OfRequest, OfRequest},
		{"nobody", "what_is_this", "", OfRequest, OfRequest},
		{"OpenID Connect", "consent_required", "", OfConsent, OfConsent},
		{"OpenID Connect", "login_required", "", OfProof, OfProof},
		{"OpenID Connect", "unmet_authentication_requirements", "", Unmet, Unmet},
		{"Entra", "access_denied", "AADSTS65004: User declined to consent", OfConsent, OfConsent},
		{"Entra", "access_denied", "AADSTS90094: An administrator must consent.", OfConsent, OfConsent},
		{"Entra", "access_denied", "AADSTS50105: The signed in user is not assigned to a role", Refused, Refused},
		{"Entra", "interaction_required", "AADSTS50105: The signed in user is not assigned to a role", Refused, Refused},
		{"Entra", "invalid_resource", "AADSTS500011: not found", OfRequest, OfRequest},
		{"B2C", "access_denied", "AADB2C90118: The user has forgotten their password.", Forgotten, Forgotten},
		{"B2C", "access_denied", "AADB2C90091: The user has cancelled entering self-asserted information.", Cancelled, Cancelled},
		{"Okta", "access_denied", "User is not assigned to the client application.", Refused, Refused},
		{"Google", "admin_policy_enforced", "", Refused, Refused},
		{"Apple", "user_cancelled_authorize", "", Cancelled, Cancelled},
		{"Keycloak", "temporarily_unavailable", "authentication_expired", Expired, Expired},
		{"Auth0", "invalid_request", "You may have pressed the back button, refreshed during login, or opened too many login dialogs", Expired, Expired},
	} {
		for _, asks := range []bool{false, true} {
			want := tc.signIn
			if asks {
				want = tc.asks
			}
			if got := (Failure{Code: tc.code, Description: tc.description, Asks: asks}).Subject(); got != want {
				t.Errorf("%s: %s %q (asks %t) speaks of %d, want %d", tc.name, tc.code, tc.description, asks, got, want)
			}
		}
	}
}

// Numbers are written as they are found, and none means two things.
func TestErrorNumbers(t *testing.T) {
	seen := map[endpoint][]string{}
	for _, row := range errorRows {
		for _, number := range strings.Fields(row.numbers) {
			if got := (Failure{Description: "(" + number + ") said"}).Number(); got != number {
				t.Errorf("%s is read as %q", number, got)
			}
			if slices.Contains(seen[row.at], number) || row.at != 0 && slices.Contains(seen[0], number) {
				t.Errorf("%s stands twice", number)
			}
			seen[row.at] = append(seen[row.at], number)
		}
	}
}
