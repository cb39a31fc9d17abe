package oidc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/internal/clientauth"
	"github.com/seed454743b5/signin/internal/text"
)

// announced is what discovery says the issuer can do and what it requires
// (OpenID Connect Discovery, 3; RFC 8414, 2; RFC 9126, 5; RFC 9101, 10.5). A
// list that is absent says nothing.
type announced struct {
	Scopes        strs    `json:"scopes_supported" loose:"true"`
	ResponseTypes strs    `json:"response_types_supported" loose:"true"`
	ResponseModes strs    `json:"response_modes_supported" loose:"true"`
	GrantTypes    strs    `json:"grant_types_supported" loose:"true"`
	PKCEMethods   strs    `json:"code_challenge_methods_supported" loose:"true"`
	RequiresPush  boolean `json:"require_pushed_authorization_requests" loose:"true"`
	RequiresJAR   boolean `json:"require_signed_request_object" loose:"true"`
}

// What of the configuration is compared with what is announced.
const (
	typeCode  = "code"
	modeQuery = "query"
)

// Misconfigured is a fault that does not pass by itself: the configuration
// and the issuer do not go together.
type Misconfigured struct{ Cause error }

func (e *Misconfigured) Error() string { return e.Cause.Error() }
func (e *Misconfigured) Unwrap() error { return e.Cause }

// unwanted are those of the scopes asked for by default that this issuer does
// not know, or that would do harm there.
func (m *Metadata) unwanted(byDefault []string) (out []string) {
	f := m.Rule.Family
	for _, s := range byDefault {
		unknown := len(m.Scopes) > 0 && !slices.Contains(m.Scopes, s) && !slices.Contains(f.Scopes, s)
		if unknown || f.NoOffline && s == "offline_access" {
			out = append(out, s)
		}
	}
	return out
}

// Askable are scopes without those withheld, unless somebody asks for them by
// name.
func (m *Metadata) Askable(scopes, byName []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(s string) bool {
		return slices.Contains(m.Withheld, s) && !slices.Contains(byName, s)
	})
}

// unfit says by name why nobody could sign in here with our configuration. It
// is told before a user is sent away, for they would not come back.
func (i *Issuer) unfit(m *Metadata) error {
	var faults []error
	lacks := func(member string, list strs, want, advice string) {
		faults = append(faults, fmt.Errorf("%s lacks %q (it has %s)%s", member, want, text.Printable(strings.Join(list, ", "), 200), advice))
	}
	if want := i.responseType; len(m.ResponseTypes) > 0 && !hasType(m.ResponseTypes, want) && !hasType(m.Rule.Family.ResponseTypes, want) {
		advice := ""
		if want != typeCode && hasType(m.ResponseTypes, typeCode) {
			advice = `; set ResponseType "code"`
		}
		lacks("response_types_supported", m.ResponseTypes, want, advice)
	}
	if want := i.responseMode; len(m.ResponseModes) > 0 && !slices.Contains(m.ResponseModes, want) {
		advice := ""
		if want != modeQuery && slices.Contains(m.ResponseModes, modeQuery) {
			advice = `; set ResponseType "code" and ResponseMode "query"`
		}
		lacks("response_modes_supported", m.ResponseModes, want, advice)
	}
	for _, need := range []struct {
		member string
		list   strs
		want   string
	}{
		{"code_challenge_methods_supported", m.PKCEMethods, "S256"},
		{"grant_types_supported", m.GrantTypes, "authorization_code"},
	} {
		if len(need.list) > 0 && !slices.Contains(need.list, need.want) {
			lacks(need.member, need.list, need.want, "")
		}
	}
	faults = append(faults, i.unfitPush(m), i.unfitClient(m))
	if err := errors.Join(faults...); err != nil {
		return &Misconfigured{fmt.Errorf("signin: the issuer and the configuration do not go together: discovery: %s: %w", m.from, err)}
	}
	return nil
}

// unfitClient says what the issuer wants of this client that it does not do.
func (i *Issuer) unfitClient(m *Metadata) error {
	var faults []error
	if m.RequiresJAR {
		faults = append(faults, errors.New("require_signed_request_object: this package does not sign requests (RFC 9101); want that off for this client"))
	}
	if err := clientauth.Fits(i.Credential, m.TokenAuthMethods); err != nil {
		faults = append(faults, fmt.Errorf("token_endpoint_auth_methods_supported: %w", err))
	}
	return errors.Join(faults...)
}

// unfitPush says why requests cannot be pushed, or must not be though the issuer
// requires it.
func (i *Issuer) unfitPush(m *Metadata) error {
	switch {
	case bool(m.RequiresPush) && i.par == PARNever:
		return errors.New(`require_pushed_authorization_requests: the issuer takes pushed requests only (RFC 9126), and PAR is "never"; set PAR "auto"`)
	case i.pushes(m) && m.PushEndpoint == "":
		return errors.New("pushed_authorization_request_endpoint: there is none that can be used, and requests are to be pushed (PAR, require_pushed_authorization_requests)")
	}
	return nil
}

// hasType reports whether a list of response types has one. The order of its
// words says nothing (OAuth 2.0 Multiple Response Type Encoding Practices, 3).
func hasType(list []string, want string) bool {
	words := func(s string) []string { return slices.Sorted(slices.Values(strings.Fields(s))) }
	return slices.ContainsFunc(list, func(s string) bool { return slices.Equal(words(s), words(want)) })
}
