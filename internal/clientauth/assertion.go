package clientauth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// NewAssertion is a signed JWT from elsewhere (RFC 7523, section 2.2).
func NewAssertion(f func(ctx context.Context) (string, error)) Method {
	return &assertionFunc{Redacted: "signin.Assertion", f: f}
}

// maxAssertion bounds an assertion from outside. Real ones stay below 8 KB.
const maxAssertion = 64 << 10

// loadTimeout bounds one call of a function that gets a credential.
const loadTimeout = 10 * time.Second

type assertionFunc struct {
	Redacted
	f func(context.Context) (string, error)
}

func (c *assertionFunc) Apply(ctx context.Context, in Request, form url.Values, _ http.Header) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	jwt, err := c.f(ctx)
	if err != nil {
		return fmt.Errorf("getting an assertion: %w", err)
	}
	jwt = strings.TrimSpace(jwt)
	// What is not a JWT is an error page, a path or a key: not to be sent.
	if len(jwt) > maxAssertion || strings.Count(jwt, ".") < 2 || strings.ContainsFunc(jwt, notInJWT) {
		return fmt.Errorf("getting an assertion: got %d bytes that are not a JWT", len(jwt))
	}
	setAssertion(form, in.ClientID, jwt)
	return nil
}

func notInJWT(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// setAssertion also sends client_id, which RFC 7521, section 4.2 leaves open
// and Entra requires.
func setAssertion(form url.Values, clientID, jwt string) {
	form.Set("client_id", clientID)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", jwt)
}

func (c *assertionFunc) Validate() error {
	if c.f == nil {
		return fmt.Errorf("%s has no function: want one that returns a JWT", c.Redacted)
	}
	return nil
}

// refused has nothing to forget: the function is called for every request. It
// is there because the next call may well return something newer.
func (c *assertionFunc) refused() {}
