// Package clientauth proves to an issuer who the client is: by a secret, a
// signed assertion, or what loads one of them.
package clientauth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/text"
)

// Method is one way to authenticate the client. Methods are safe for
// concurrent use and print, log and marshal as their kind only.
type Method interface {
	// Apply adds the proof to form or header, which hold none.
	Apply(ctx context.Context, in Request, form url.Values, header http.Header) error

	// Validate returns what is wrong with the method, without I/O.
	Validate() error
}

// Request is what a credential needs to know of the request it goes with.
type Request struct {
	ClientID    string
	Issuer      string
	Endpoint    string           // the token endpoint
	Methods     []string         // token_endpoint_auth_methods_supported
	SigningAlgs []string         // token_endpoint_auth_signing_alg_values_supported
	Now         func() time.Time // nil: time.Now
}

func (in Request) now() time.Time {
	if in.Now == nil {
		return time.Now()
	}
	return in.Now()
}

// Authenticate adds the client's proof to form or header. It replaces what an
// earlier attempt left there, since a request with two proofs is refused
// (RFC 6749, section 2.3) and a rotated credential may be of another kind.
// Errors are of type *Error.
func Authenticate(ctx context.Context, c Method, in Request, form url.Values, header http.Header) error {
	for _, name := range []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"} {
		form.Del(name)
	}
	header.Del("Authorization")
	if c == nil {
		form.Set("client_id", in.ClientID)
		return nil
	}
	if err := c.Apply(ctx, in, form, header); err != nil {
		return &Error{err}
	}
	return nil
}

// Reload is to be called when the issuer has answered invalid_client.
// It makes the next Authenticate load anew, and reports false if there is
// nothing to load, so that a second attempt would be the same as the first.
//
// A refresh or a client-credentials request may then be sent once more: the
// issuer authenticates the client before it looks at the grant, so nothing was
// spent. A redemption is not sent again even so. Some servers burn the code at
// the first sight of it, and to them a second POST is a stolen code, for which
// they revoke what it gave (RFC 6749, section 4.1.2). The user starts anew, and
// finds the new credential in place.
func Reload(c Method) bool {
	r, ok := c.(interface{ refused() })
	if ok {
		r.refused()
	}
	return ok
}

// Validate returns what is wrong with c, without I/O. A nil c is
// right: a public client.
func Validate(c Method) error {
	if c == nil {
		return nil
	}
	return c.Validate()
}

// Error reports that the proof could not be made: nothing was sent,
// and neither the user nor a refresh token is to blame.
type Error struct{ err error }

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

// Temporary reports true: a later attempt may find the source working again.
func (e *Error) Temporary() bool { return true }

// Redacted keeps what embeds it out of logs, error texts and JSON. Secrets
// themselves sit behind function values, so that even a dump by reflection,
// which calls no methods, shows an address.
type Redacted string

func (r Redacted) Format(s fmt.State, _ rune)   { io.WriteString(s, string(r)) }
func (r Redacted) LogValue() slog.Value         { return slog.StringValue(string(r)) }
func (r Redacted) MarshalText() ([]byte, error) { return []byte(r), nil }

// Fits returns why an issuer that announces these methods would not take c. An
// empty list announces nothing; methods beside those named are taken by many.
func Fits(c Method, announced []string) error {
	if len(announced) == 0 {
		return nil
	}
	if !slices.ContainsFunc(announced, func(m string) bool { return m != "tls_client_auth" && m != "self_signed_tls_client_auth" }) {
		return fmt.Errorf("the issuer takes a client certificate only (%s), which no Credential configured here presents", text.Printable(strings.Join(announced, ", "), 200))
	}
	if secret, ok := c.(*clientSecret); ok && !secret.post && !slices.ContainsFunc(announced, func(m string) bool { return m == "client_secret_basic" || m == "client_secret_post" }) {
		return fmt.Errorf("the issuer takes no client secret but %s; want another Credential, or SecretPost if it takes one all the same", text.Printable(strings.Join(announced, ", "), 200))
	}
	return nil
}
