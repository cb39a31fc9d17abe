package signintest

import (
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Call is a request the issuer has received. It is recorded as it arrives,
// before any fault.
type Call struct {
	// Endpoint is where it arrived, and N its number there, from 1.
	Endpoint Endpoint
	N        int

	// Time is by the issuer's clock.
	Time time.Time

	// Method, URL (path and query), Header and Body are as received. At most
	// 1 MiB of the body is kept.
	Method string
	URL    string
	Header http.Header
	Body   []byte

	// Form holds the parameters: those of the body if it is a form, else those
	// of the query.
	Form url.Values

	// GrantType is the grant_type of a token request.
	GrantType string

	// ClientID is the client that a token or revocation request names.
	ClientID string

	// AuthMethod is how the client authenticates there: client_secret_basic,
	// client_secret_post, private_key_jwt or none. Several at once, which
	// RFC 6749, section 2.3 forbids, are joined by "+".
	AuthMethod string

	// Assertion holds header and claims of a client assertion, whether or not
	// it is a valid one. They are nil without one.
	AssertionHeader, AssertionClaims map[string]any

	// Token is what the issuer knows about the access token of a call to the
	// API or userinfo. It is zero if the token is none of the issuer's.
	Token TokenInfo

	secret    string // presented
	assertion string
	badClient string // why the credentials cannot be read
}

const maxRequestBody = 1 << 20

func newCall(e Endpoint, r *http.Request) (*Call, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBody))
	if err != nil {
		return nil, fmt.Errorf("signintest: reading a request: %w", err)
	}
	c := &Call{
		Endpoint: e,
		Method:   r.Method,
		URL:      r.URL.RequestURI(),
		Header:   r.Header.Clone(),
		Body:     body,
		Form:     r.URL.Query(),
	}
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t == "application/x-www-form-urlencoded" {
		if c.Form, err = url.ParseQuery(string(body)); err != nil {
			return nil, fmt.Errorf("signintest: reading a form: %w", err)
		}
	}
	if e == EndpointToken {
		c.GrantType = c.Form.Get("grant_type")
	}
	return c, nil
}

// readClient finds out who calls, and how that is shown.
func (c *Call) readClient() {
	var methods []string
	c.ClientID = c.Form.Get("client_id")
	if basic, ok := strings.CutPrefix(c.Header.Get("Authorization"), "Basic "); ok {
		methods = append(methods, "client_secret_basic")
		c.ClientID, c.secret, c.badClient = readBasic(basic)
	}
	if c.Form.Has("client_secret") {
		methods = append(methods, "client_secret_post")
		c.secret = c.Form.Get("client_secret")
	}
	if c.Form.Has("client_assertion") {
		methods = append(methods, "private_key_jwt")
		c.assertion = c.Form.Get("client_assertion")
		if token, err := parseJWT(c.assertion); err == nil {
			c.AssertionHeader, c.AssertionClaims = token.header, token.claims
			if c.ClientID == "" {
				c.ClientID, _ = token.claims["sub"].(string)
			}
		}
	}
	if len(methods) == 0 {
		methods = []string{"none"}
	}
	c.AuthMethod = strings.Join(methods, "+")
}

// readBasic decodes Basic credentials. Both halves are form-urlencoded first
// (RFC 6749, section 2.3.1), so a client that sends a "+" or "%" raw is not
// understood here, as with a real issuer.
func readBasic(basic string) (id, secret, problem string) {
	raw, err := base64.StdEncoding.DecodeString(basic)
	if err != nil {
		return "", "", "the Basic credentials are not base64"
	}
	id, secret, ok := strings.Cut(string(raw), ":")
	if !ok {
		return "", "", "the Basic credentials have no colon"
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if err1 != nil || err2 != nil {
		return "", "", "the Basic credentials are not form-urlencoded"
	}
	return id, secret, ""
}

// record numbers and keeps a call, and wakes those who await it.
func (i *Issuer) record(x *exchange) {
	x.call.Time = x.b.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	x.call.N = len(i.calls[x.call.Endpoint]) + 1
	i.calls[x.call.Endpoint] = append(i.calls[x.call.Endpoint], *x.call)
	close(i.arrived)
	i.arrived = make(chan struct{})
}

// Calls returns the requests an endpoint has received, oldest first.
func (i *Issuer) Calls(e Endpoint) []Call {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.calls[e])
}

// Count returns how many requests an endpoint has received.
func (i *Issuer) Count(e Endpoint) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.calls[e])
}

// CountGrant returns how many token requests there were for a grant type:
// authorization_code, refresh_token or client_credentials.
func (i *Issuer) CountGrant(grantType string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, c := range i.calls[EndpointToken] {
		if c.GrantType == grantType {
			n++
		}
	}
	return n
}

// LastCall returns the latest request to an endpoint. It fails the test if
// there was none, and so must be called from the test's own goroutine.
func (i *Issuer) LastCall(e Endpoint) Call {
	i.tb.Helper()
	calls := i.Calls(e)
	if len(calls) == 0 {
		i.tb.Fatalf("signintest: the %s endpoint has not been called", e)
	}
	return calls[len(calls)-1]
}

// Await waits until an endpoint has received n requests in all, for example
// to know that one hangs. It fails the test if they have not come within
// 10 seconds, and so must be called from the test's own goroutine.
func (i *Issuer) Await(e Endpoint, n int) {
	i.tb.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		i.mu.Lock()
		count, arrived := len(i.calls[e]), i.arrived
		i.mu.Unlock()
		if count >= n {
			return
		}
		select {
		case <-arrived:
		case <-deadline.C:
			i.tb.Fatalf("signintest: the %s endpoint has received %d requests, want %d", e, count, n)
		}
	}
}

// ForgetCalls sets all counts to zero.
func (i *Issuer) ForgetCalls() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.calls)
}
