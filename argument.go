package signin

import (
	"errors"
	"fmt"
	"strings"

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
		return fmt.Errorf("Resource %q: want one URI without a fragment (RFC 8707, 2)", text.Printable(resource, 100))
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
