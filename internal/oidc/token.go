package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/clientauth"
	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/text"
	"golang.org/x/oauth2"
)

const (
	// TokenTimeout bounds one token request.
	TokenTimeout = 15 * time.Second

	// maxAnswer bounds what is read of any answer of the issuer's.
	maxAnswer = 1 << 20

	// MaxClaims bounds a claims request, which travels in a URL.
	MaxClaims = 4 << 10
)

// RequestToken sends one token request and, with one exception, never a
// second: a code or a single-use refresh token that meets an error may have
// been spent. The exception is a client that was refused before the issuer
// looked at the grant and has another credential by now; and even then a code
// is not sent again, for some issuers take that for theft.
//
// ready, if not nil, is asked at the last moment before the form is sent.
func (i *Issuer) RequestToken(ctx context.Context, meta *Metadata, form url.Values, ready func(context.Context) error) (*Answer, error) {
	answer, err := i.requestTokenOnce(ctx, meta, form, ready)
	refused, _ := errors.AsType[*TokenError](err)
	if refused == nil || refused.ErrorCode != "invalid_client" || !clientauth.Reload(i.Credential) || form.Get("grant_type") == "authorization_code" {
		return answer, err
	}
	return i.requestTokenOnce(ctx, meta, form, ready)
}

func (i *Issuer) requestTokenOnce(ctx context.Context, meta *Metadata, form url.Values, ready func(context.Context) error) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, TokenTimeout)
	defer cancel()
	if form.Get("claims") == "" {
		if claims := WithCapabilities("", i.capabilities); claims != "" {
			form.Set("claims", claims)
		}
	}
	asked := i.now() // lifetimes count from then
	resp, body, sent, err := i.Post(ctx, meta, meta.TokenEndpoint, form, ready)
	if err != nil {
		if resp != nil && resp.StatusCode/100 == 2 {
			err = newUnusableAnswer(err, body) // of which only a part could be read
		}
		return nil, err
	}
	answer, err := readTokenAnswer(resp, body, sent, i.now())
	if err != nil {
		return nil, err
	}
	answer.Asked = asked
	return answer, nil
}

// Post posts form to an endpoint of the issuer, with the client's proof.
// sent is what must not be logged should the answer echo it.
// ready, if not nil, is asked once the connection stands, before the first byte
// of the form is written: to connect may take longer than a lease is good for.
// When an answer cannot be read to its end, post returns what could be read,
// beside the error.
func (i *Issuer) Post(ctx context.Context, meta *Metadata, endpoint string, form url.Values, ready func(context.Context) error) (resp *http.Response, body []byte, sent []string, err error) {
	header := http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {"application/json"},
	}
	in := clientauth.Request{
		ClientID: i.ClientID, Issuer: meta.Issuer, Endpoint: meta.TokenEndpoint,
		Methods: meta.TokenAuthMethods, SigningAlgs: meta.TokenAuthAlgs, Now: i.now,
	}
	if err := clientauth.Authenticate(ctx, i.Credential, in, form, header); err != nil {
		return nil, nil, nil, fmt.Errorf("authenticating the client: %w", err)
	}
	if form.Has("response_type") || form.Has("request") {
		form.Set("client_id", i.ClientID) // an authorization request has it, also beside HTTP Basic (RFC 9126, 2.1)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, nil, err
	}
	req.Header = header
	// net/http repeats a POST on a connection that broke only if the body can
	// be had again and the request is marked idempotent. Ours must not be.
	req.GetBody = nil
	for name, values := range form {
		if slices.Contains(namedInErrors, name) {
			continue
		}
		for _, v := range values {
			sent = append(sent, v, url.QueryEscape(v))
		}
	}
	if _, secret, ok := req.BasicAuth(); ok {
		plain, _ := url.QueryUnescape(secret)
		sent = append(sent, secret, plain)
	}
	if ready != nil {
		req.Body = &provedBody{ReadCloser: req.Body, ready: func() error { return ready(ctx) }}
	}
	resp, err = i.Client.Do(req)
	if unready, ok := errors.AsType[*notReady](err); ok {
		return nil, nil, nil, unready.error
	}
	if err != nil {
		// net/http quotes an answer that it cannot read.
		return nil, nil, nil, fmt.Errorf("token request: %w", newCleanError(withoutURL(err), sent))
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the issuer's answer is over 1 MiB")
	} else if err != nil {
		err = fmt.Errorf("reading the issuer's answer: %w", newCleanError(err, sent))
	}
	return resp, body, sent, err
}

// provedBody is a body of which nothing is read unless ready allows it.
// RoundTrippers read a body when they are about to write it.
type provedBody struct {
	io.ReadCloser
	ready func() error // nil: it has been asked
}

// notReady is why a request was not written.
type notReady struct{ error }

func (b *provedBody) Read(p []byte) (int, error) {
	if b.ready != nil {
		if err := b.ready(); err != nil {
			return 0, &notReady{err}
		}
		b.ready = nil
	}
	return b.ReadCloser.Read(p)
}

// namedInErrors are parameters that anybody may see, and that an operator has to
// see in an error text to mend a registration.
var namedInErrors = []string{"redirect_uri", "scope", "resource", "response_type", "response_mode", "acr_values"}

// TokenError is an error answer of the token endpoint (RFC 6749, 5.2), with
// what Entra adds to it. An [*oauth2.RetrieveError] can be had from it.
type TokenError struct {
	*oauth2.RetrieveError
	Suberror   string
	Claims     string
	RetryAfter time.Time
}

func withoutCookies(h http.Header) http.Header {
	h = h.Clone()
	h.Del("Set-Cookie")
	return h
}

func (e *TokenError) Error() string {
	if e.ErrorCode == "" {
		return "token endpoint answered with status " + strconv.Itoa(e.Status())
	}
	return strings.TrimSuffix("token endpoint answered with "+e.ErrorCode+": "+e.ErrorDescription, ": ")
}

func (e *TokenError) Unwrap() error { return e.RetrieveError }
func (e *TokenError) Status() int   { return e.Response.StatusCode }

// RetryAfter is when the issuer wants to be asked again, at most five minutes
// from now (RFC 9110, 10.2.3).
func RetryAfter(h http.Header, now time.Time) time.Time {
	v := h.Get("Retry-After")
	var t time.Time
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		t = now.Add(time.Duration(min(n, 3600)) * time.Second)
	} else if date, err := http.ParseTime(v); err == nil {
		t = date
	}
	if latest := now.Add(5 * time.Minute); t.After(latest) {
		return latest
	}
	return t
}

// cleanError is an error with its text cleaned. What it is stays: whether time
// was up, say.
type cleanError struct {
	text  string
	cause error
}

func newCleanError(err error, sent []string) error {
	return &cleanError{text.Clean(err.Error(), sent, 300), err}
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.cause }

// withoutURL drops the URL that net/http puts before a cause.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Subject is what the error speaks of. A nil e is a request without an answer.
// bare says that the request named nothing but its grant.
func (e *TokenError) Subject(written family.Scopes, bare bool) family.Subject {
	if e == nil {
		return family.OfMoment
	}
	return family.Failure{
		Written: written, Code: e.ErrorCode, Description: e.ErrorDescription, Suberror: e.Suberror,
		Status: e.Status(), Claims: e.Claims != "", Bare: bare,
	}.Subject()
}

// Passes reports whether what failed may succeed later, though nobody does
// anything about it.
func (e *TokenError) Passes() bool { return e.Subject("", true) == family.OfMoment }
