package clientauth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// NewSecret is a client secret. Post sends it in the body whatever is announced.
func NewSecret(secret string, post bool) Method {
	c := &clientSecret{Redacted: "signin.Secret", value: func() string { return secret }, post: post}
	if post {
		c.Redacted = "signin.SecretPost"
	}
	return c
}

type clientSecret struct {
	Redacted
	value func() string
	post  bool
}

func (c *clientSecret) Apply(_ context.Context, in Request, form url.Values, header http.Header) error {
	if c.post || (slices.Contains(in.Methods, "client_secret_post") && !slices.Contains(in.Methods, "client_secret_basic")) {
		form.Set("client_id", in.ClientID)
		form.Set("client_secret", c.value())
		return nil
	}
	// Both halves are form-urlencoded first, or a colon in the client ID and a
	// plus or percent sign in the secret arrive as something else (RFC 6749,
	// section 2.3.1).
	pair := url.QueryEscape(in.ClientID) + ":" + url.QueryEscape(c.value())
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	return nil
}

func (c *clientSecret) Validate() error {
	switch {
	case c.value() == "":
		return fmt.Errorf("%s is empty: want the client secret, or a nil Credential for a public client", c.Redacted)
	case strings.ContainsFunc(c.value(), unicode.IsControl):
		return fmt.Errorf("%s holds a control character: want the secret without the line end of its file", c.Redacted)
	}
	return nil
}
