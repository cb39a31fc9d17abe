package family

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Subject is what an error of an issuer's speaks of. It decides what is to be
// done: only what speaks of the grant ends it.
type Subject int

const (
	// OfGrant: the refresh token or code is good for nothing any more.
	OfGrant Subject = iota + 1

	// OfRequest: this request can never be answered as it is. Others can.
	OfRequest

	// OfClient: what is registered at the issuer, or configured here, is wrong.
	OfClient

	// OfMoment: the same request may succeed later.
	OfMoment

	// OfConsent: the user has not allowed what is asked for, or has refused it.
	OfConsent

	// OfProof: the user has to prove more, or again, who they are.
	OfProof

	// Cancelled: the user has turned back.
	Cancelled

	// Refused: the issuer does not let this user in.
	Refused

	// Unmet: the issuer cannot let the user prove what is asked for.
	Unmet

	// Forgotten: the user wants to reset the password, and the site has to lead
	// them there.
	Forgotten

	// Expired: a page of the issuer's was open for too long, or the user has signed
	// in in another tab meanwhile. A new request succeeds.
	Expired
)

// endpoint is where an error comes from. Zero is either.
type endpoint int

const (
	atToken endpoint = iota + 1
	atAuthorize
)

// errorRow is what one error means. Of several that match the first counts.
type errorRow struct {
	at endpoint

	// from is who says it. Empty means anybody.
	from string

	// codes, suberrors and numbers are those meant. Empty means all.
	codes, suberrors, numbers string

	// says are words of the description, in lower case. Empty means any.
	says string

	// when, if not nil, must hold, too.
	when func(*Failure) bool

	of Subject
}

// Who speaks. The others' errors need no name to be told apart.
const (
	fromEntra = "AADSTS"
	fromB2C   = "AADB2C"
	fromADFS  = "MSIS"
)

// errorRows is the table. Numbers come first: they say more than codes. Entra
// uses invalid_grant for nearly all that only the user can mend.
var errorRows = []errorRow{
	// Numbers of Entra, Azure AD B2C and AD FS.
	{numbers: "AADSTS28000 AADSTS28002 AADSTS28003 AADSTS50001 AADSTS65005 AADSTS70011 AADSTS500011 AADSTS500014 AADSTS500131" +
		" AADSTS650052 AADSTS650053 AADSTS650057 AADSTS901002 AADSTS1002012 AADB2C90117 AADB2C90146 MSIS9602 MSIS9611", of: OfRequest},
	{numbers: "AADSTS65001 AADSTS65004 AADSTS90094 AADSTS90095", of: OfConsent},
	{numbers: "AADSTS50194 AADSTS90002 AADSTS700016 AADSTS7000112 AADSTS9002326 AADSTS9002327", of: OfClient},
	{numbers: "AADSTS50196 AADSTS90024 AADSTS90033 AADSTS90036 AADSTS90055 AADB2C90035", of: OfMoment},
	{at: atToken, numbers: "AADSTS50055 AADSTS50072 AADSTS50074 AADSTS50076 AADSTS50078 AADSTS50079 AADSTS50097 AADSTS50125" +
		" AADSTS50144 AADSTS50158 AADSTS53000 AADSTS53001 AADSTS53002 AADSTS53003 AADSTS53004", of: OfProof},
	{at: atAuthorize, numbers: "AADSTS50020 AADSTS50034 AADSTS50053 AADSTS50057 AADSTS50105 AADSTS51004 AADSTS53000 AADSTS53001" +
		" AADSTS53002 AADSTS53003 AADB2C90114 AADB2C90157 AADB2C99002", of: Refused},
	{at: atAuthorize, numbers: "AADB2C90118", of: Forgotten},
	{at: atAuthorize, numbers: "AADB2C90091 AADB2C90273", of: Cancelled},
	{at: atAuthorize, numbers: "AADSTS50089", of: Expired},

	// Pages that expired: Keycloak's and Auth0's.
	{at: atAuthorize, codes: "temporarily_unavailable", says: "authentication_expired", of: Expired},
	{at: atAuthorize, codes: "authentication_expired", of: Expired},
	{at: atAuthorize, codes: "invalid_request", says: "you may have pressed the back button", of: Expired},

	// People who were refused: Okta, Google, Auth0.
	{at: atAuthorize, codes: "access_denied", says: "user is not assigned to the client application", of: Refused},
	{at: atAuthorize, codes: "admin_policy_enforced org_internal unauthorized", of: Refused},

	// Apple and LinkedIn have codes of their own for one who turns back.
	{at: atAuthorize, codes: "user_cancelled_authorize user_cancelled_login", of: Cancelled},

	// Who turns back where the page asked for more has refused that.
	{at: atAuthorize, codes: "access_denied", when: func(f *Failure) bool { return f.Asks }, of: OfConsent},
	{at: atAuthorize, codes: "access_denied", of: Cancelled},

	// OpenID Connect Unmet Authentication Requirements, 2.
	{at: atAuthorize, codes: "unmet_authentication_requirements", of: Unmet},

	// RFC 6749, 4.1.2.1 and 5.2; OpenID Connect Core, 3.1.2.6; RFC 8707, 2;
	// RFC 9449, 5; RFC 9470, 3; Hydra's "error", under load; Google, Salesforce, Slack.
	{codes: "temporarily_unavailable server_error slow_down error too_many_requests rate_limit_exceeded ratelimited" +
		" internal_failure internal_error service_unavailable", of: OfMoment},
	{codes: "invalid_client unauthorized_client unsupported_grant_type unsupported_client_assertion_type unsupported_response_type" +
		" unsupported_response_mode invalid_dpop_proof use_dpop_nonce deleted_client disabled_client", of: OfClient},
	{codes: "invalid_resource", of: OfRequest},
	{from: fromEntra, codes: "invalid_scope invalid_request", of: OfRequest},
	{from: fromB2C, codes: "invalid_request", of: OfRequest},
	{codes: "consent_required insufficient_scope", of: OfConsent},
	{at: atToken, codes: "invalid_scope invalid_target", of: OfConsent},
	{codes: "interaction_required login_required account_selection_required insufficient_user_authentication" +
		" unmet_authentication_requirements mfa_required", of: OfProof},
	{codes: "invalid_scope invalid_target invalid_request", at: atAuthorize, of: OfRequest},

	// A refresh token that is dead. Entra says in the suberror, or by the claims
	// that would satisfy it, what the user can mend.
	{at: atToken, suberrors: "consent_required", of: OfConsent},
	{at: atToken, suberrors: "basic_action additional_action message_only protection_policy_required client_mismatch", of: OfProof},
	{at: atToken, when: func(f *Failure) bool { return f.Claims }, of: OfProof},
	{at: atToken, codes: "invalid_grant invalid_token invalid_refresh_token token_inactive token_expired", of: OfGrant},

	// Dex answers invalid_request for a refresh token that is dead. Such a code, or
	// one that nobody knows, means the grant only where nothing else was named.
	// Where something was, the user is asked for it: that helps in either case,
	// and costs no other token.
	{at: atToken, when: func(f *Failure) bool { return f.Bare }, of: OfGrant},
	{at: atToken, of: OfConsent},
}

// Failure is an error answer of an issuer's.
type Failure struct {
	// Written is how the issuer writes scopes, which tells its family.
	Written Scopes

	// Code is error, Description error_description, and Suberror Entra's.
	Code, Description, Suberror string

	// Status is the token endpoint's. Zero is an answer to an authorization request.
	Status int

	// Claims says that the answer tells what would satisfy the issuer.
	Claims bool

	// Bare says that a token request named nothing but the grant: no scope, no
	// resource, no claims, no parameter of the site's.
	Bare bool

	// Asks says that an authorization request was for scopes of a page's, by a
	// user who is signed in.
	Asks bool
}

// fits reports whether a failure is one that the row is about, wherever it came.
func (row *errorRow) fits(f *Failure) bool {
	return (row.from == "" || row.from == f.from()) &&
		has(row.codes, f.Code) && has(row.suberrors, f.Suberror) && has(row.numbers, f.Number()) &&
		strings.Contains(strings.ToLower(f.Description), row.says) && (row.when == nil || row.when(f))
}

// Subject is what the failure speaks of.
func (f Failure) Subject() Subject {
	at := atToken
	if f.Status == 0 {
		at = atAuthorize
	}
	if f.Status >= 500 || f.Status == http.StatusTooManyRequests || f.Status == http.StatusRequestTimeout ||
		at == atToken && f.Code == "" { // not an OAuth answer: a proxy's, or a wrong address
		return OfMoment
	}
	for _, row := range errorRows {
		if (row.at == 0 || row.at == at) && row.fits(&f) {
			return row.of
		}
	}
	return OfRequest // an answer to an authorization request that nobody knows
}

func has(list, value string) bool {
	return list == "" || slices.Contains(strings.Fields(list), value)
}

// from is the family that speaks. A number says it also where the issuer is at a
// domain of the customer's.
func (f Failure) from() string {
	number := f.Number()
	for _, name := range []string{fromEntra, fromB2C, fromADFS} {
		if strings.HasPrefix(number, name) {
			return name
		}
	}
	switch f.Written {
	case entraScopes, entraV1Scopes:
		return fromEntra
	case b2cScopes:
		return fromB2C
	}
	return ""
}

// errorNumber is how Entra, Azure AD B2C and AD FS number their errors.
var errorNumber = regexp.MustCompile(`\b(AADSTS|AADB2C|MSIS)[0-9]{1,10}`)

// Number is the issuer's number of the error, such as AADSTS65004, or empty. It may be
// logged, which a description may not.
func (f Failure) Number() string { return errorNumber.FindString(f.Description) }
