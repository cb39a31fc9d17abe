package signin

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	// maxScopes bounds the scopes of one request, and maxResource a resource.
	maxScopes   = 64
	maxResource = 2048

	// maxACR bounds the authentication context classes of one request.
	maxACR = 16
)

// argumentError reports what a program asks for and no issuer can be asked
// for. No user can mend it, and nothing is sent because of it.
type argumentError struct{ err error }

func (e *argumentError) Error() string { return "signin: " + e.err.Error() }

func (e *argumentError) Unwrap() error { return e.err }

// check returns what is wrong with a token request, an *argumentError.
func (req *TokenRequest) check() error {
	return argumentFault(checkScopes(req.Scopes), checkResource(req.Resource), checkClaims(req.Claims))
}

// check returns what is wrong with a requirement, an *argumentError.
func (need Requirement) check() error {
	return argumentFault(checkScopes(need.Scopes), checkResource(need.Resource), checkACR(need.ACR))
}

// check returns what is wrong with a challenge, an *argumentError.
func (e *InteractionRequiredError) check() error {
	var maxAge error
	if e.MaxAge != nil && *e.MaxAge < 0 {
		maxAge = fmt.Errorf("MaxAge %v: want zero or more", *e.MaxAge)
	}
	return argumentFault(checkScopes(e.Scopes), checkResource(e.Resource), checkACR(e.ACR), checkClaims(e.Claims), maxAge)
}

func argumentFault(faults ...error) error {
	for _, err := range faults {
		if err != nil {
			return &argumentError{err}
		}
	}
	return nil
}

// checkScopes admits what an authorization and a token request can carry (RFC
// 6749, 3.3). The answer's scopes have the same bound.
func checkScopes(scopes []string) error {
	size := 0
	for _, s := range scopes {
		if !validScope(s) {
			return fmt.Errorf("%q is not a scope: want one scope in each element (RFC 6749, 3.3)", text.Printable(s, 100))
		}
		size += len(s) + 1
	}
	if len(scopes) > maxScopes || size > oidc.MaxScope {
		return fmt.Errorf("%d scopes of %d bytes: want %d and %d at most", len(scopes), size, maxScopes, oidc.MaxScope)
	}
	return nil
}

// checkResource admits names without a fragment (RFC 8707, 2). Some issuers
// take names that are no URI.
func checkResource(resource string) error {
	if len(resource) > maxResource || strings.ContainsFunc(resource, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		return fmt.Errorf("resource %q: want one URI without a fragment (RFC 8707, 2)", text.Printable(resource, 100))
	}
	return nil
}

// checkACR admits what acr_values can carry: it separates them by spaces
// (OpenID Connect Core, 3.1.2.1).
func checkACR(acr []string) error {
	for _, value := range acr {
		if !validScope(value) {
			return fmt.Errorf("ACR %q: want one authentication context class in each element", text.Printable(value, 100))
		}
	}
	if len(acr) > maxACR {
		return fmt.Errorf("ACR: %d elements: want %d at most", len(acr), maxACR)
	}
	return nil
}

func checkClaims(claims string) error {
	if claims != "" && oidc.ValidClaims(claims) == "" {
		return errors.New("Claims is not a JSON object of at most 4 KiB")
	}
	return nil
}

// ownParams are the parameters that AuthParams and Params may not set.
var ownParams = []string{
	"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "request", "request_uri", "max_age",
}

// Requirement is what [Auth.Require] asks of a request, beside a signed-in
// user. The zero value asks nothing more.
type Requirement struct {
	// Scopes must have been granted, for Resource if that is set (RFC 8707).
	// If they have not, the user is asked for them before the handler runs. They
	// may be of several APIs.
	Scopes   []string
	Resource string

	// MaxAge, if positive, is how long ago the user may have proved who they
	// are, in whole seconds. ACR are the authentication context classes of
	// which the sign-in must have one. What the issuer did not meet in one round
	// trip it would not meet in another: a page says so and names it. At Entra,
	// c1 to c99 are authentication contexts, which are asked for by the claim acrs.
	MaxAge time.Duration
	ACR    []string

	// Allow, if set, decides about the user. An error refuses with a 403 page;
	// its text goes to the log only.
	Allow func(*User) error
}

// unmet is the error that asks the user for what need asks for.
func (need Requirement) unmet(reason Reason) *InteractionRequiredError {
	e := &InteractionRequiredError{Reason: reason, Scopes: need.Scopes, Resource: need.Resource, ACR: need.ACR, MaxAge: positive(need.MaxAge), required: true}
	return e.clone()
}

// TokenRequest is what [TokenSource] is asked for, where scopes do not say it
// all. The zero value asks for the token of the sign-in.
type TokenRequest struct {
	// Scopes the token must have been granted, one in each element. At Entra and
	// Azure AD B2C they must be of one API.
	Scopes []string

	// Resource is the API the token is for (RFC 8707). Empty leaves it to the
	// scopes.
	Resource string

	// Claims is a claims request that a held token does not satisfy, as an
	// API's claims challenge carries it. JSON.
	Claims string

	// Params are further parameters of the token request, such as audience. A
	// token obtained with Params serves only requests with the same ones.
	Params url.Values

	// Refresh asks for a new token though one is held.
	Refresh bool

	// reject is an access token known to be refused by its API.
	reject string
}

// needs is the error that asks the user for what req asks for.
func (req *TokenRequest) needs(reason Reason, claims string, cause error) *InteractionRequiredError {
	return &InteractionRequiredError{Reason: reason, Scopes: slices.Clone(req.Scopes), Resource: req.Resource, Claims: claims, Cause: cause}
}

// They stand in the store for the copies of a callback.
const (
	unmetNothing unmet = iota
	unmetScopes
	unmetACR
)

func positive(d time.Duration) *time.Duration {
	if d <= 0 {
		return nil
	}
	return &d
}

// validScope reports whether s is one scope-token (RFC 6749, 3.3).
func validScope(s string) bool {
	return s != "" && len(s) <= 512 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '"' || r == '\\'
	})
}

// unmet is what a completed round trip did not bring though it was asked for.
// A second one would bring no more.
type unmet byte

// meetsACR reports whether the sign-in had one of the authentication context
// classes asked for, if any were.
func meetsACR(u *User, asked []string) bool {
	return len(asked) == 0 || slices.Contains(asked, u.ACR) ||
		slices.ContainsFunc(u.contexts, func(c string) bool { return oidc.AuthContext.MatchString(c) && slices.Contains(asked, c) })
}
