package signin

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Reason says why the user must act.
type Reason string

const (
	// ReasonSignIn: nobody is signed in, or the session has ended.
	ReasonSignIn Reason = "sign_in"

	// ReasonRefused: the issuer no longer honours the session's refresh token,
	// or there never was one and the access token has expired.
	ReasonRefused Reason = "refused"

	// ReasonConsent: no token was granted these scopes yet.
	ReasonConsent Reason = "consent"

	// ReasonClaims: an API or a page asks for a stronger or more recent
	// sign-in: a claims challenge, acr values or a maximum age.
	ReasonClaims Reason = "claims"
)

// InteractionRequiredError reports that only the user can make progress.
// Answer it with [Auth.Challenge], which sends the browser to the issuer with
// what the fields ask for and back to the same page. A handler may set fields
// before it does, or make an error of its own to start a challenge. Each call
// of Token returns an error of its own, also to callers that share a refresh.
type InteractionRequiredError struct {
	Reason Reason

	Scopes   []string // to be granted, beside those of the sign-in
	Resource string   // they belong to (RFC 8707); empty: the default one

	// Claims is a claims request to pass on to the issuer (OpenID Connect
	// Core, 5.5), as an API's claims challenge carries it. JSON.
	Claims string

	// ACR are the authentication context classes that will do, best first
	// (acr_values), and MaxAge, if not nil, how long ago the user may have
	// proved who they are (max_age; RFC 9470).
	ACR    []string
	MaxAge *time.Duration

	// Prompt, LoginHint and DomainHint are sent as prompt, login_hint and
	// domain_hint. Empty fields leave the site's setting and, for the hint,
	// who is signed in.
	Prompt     string
	LoginHint  string
	DomainHint string

	// Params are further parameters of the authorization request, such as
	// ui_locales for the language the page is in. They replace those of
	// Config.AuthParams, never those the protocol needs or a field above sets.
	Params url.Values

	// silent marks an attempt of Recognize's, whose failure is no failure.
	silent bool

	// required marks what a page cannot do without, as its Requirement says.
	required bool

	// chosen marks a sign-in that somebody began by opening a link.
	chosen bool

	// flow is another user flow of Azure AD B2C to go through; see UserFlow.
	flow string

	// tried marks one that came back to see whether the browser keeps cookies.
	tried bool

	// Cause is what the issuer or the API answered, if anything.
	Cause error
}

// clone returns a copy that shares nothing that can be set.
func (e *InteractionRequiredError) clone() *InteractionRequiredError {
	c := *e
	c.Scopes, c.ACR, c.Params = slices.Clone(e.Scopes), slices.Clone(e.ACR), cloneParams(e.Params)
	if e.MaxAge != nil {
		c.MaxAge = new(*e.MaxAge)
	}
	return &c
}

// Error names the reason and the scopes, never a claim or a token.
func (e *InteractionRequiredError) Error() string {
	s := "signin: interaction required: " + string(e.Reason)
	if len(e.Scopes) > 0 {
		s += ": scopes " + strings.Join(e.Scopes, " ")
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns Cause.
func (e *InteractionRequiredError) Unwrap() error { return e.Cause }

// ownCopy makes an *InteractionRequiredError a copy for one caller, which may set
// its fields: the callers of one shared call get the same err. Other errors of
// ours have nothing to set.
func ownCopy(err error) error {
	if need, ok := err.(*InteractionRequiredError); ok {
		return need.clone()
	}
	return err
}

func cloneParams(params url.Values) url.Values {
	c := maps.Clone(params)
	for name, values := range c {
		c[name] = slices.Clone(values)
	}
	return c
}

// RefusedError is what [Config].OnSignIn returns to refuse a sign-in for good.
type RefusedError struct {
	// Text tells the user why, in a sentence or two of plain text, at most 300
	// characters. Empty leaves the page's own words.
	Text string

	// Cause is logged, and nobody else sees it. It may be nil.
	Cause error
}

// Error says that the sign-in is refused, and Cause.
func (e *RefusedError) Error() string {
	if e.Cause == nil {
		return "signin: refused by OnSignIn"
	}
	return "signin: refused by OnSignIn: " + e.Cause.Error()
}

// Unwrap returns Cause.
func (e *RefusedError) Unwrap() error { return e.Cause }
