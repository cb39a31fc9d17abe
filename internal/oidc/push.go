package oidc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/clientauth"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	// PushTimeout bounds one push, because a browser waits for it.
	PushTimeout = 10 * time.Second

	maxRequestURI = 2 << 10
)

// A PAR says when authorization requests are pushed. Its values are those of
// signin.PAR.
type PAR string

// The values of PAR.
const (
	PARAuto   PAR = "auto"
	PARAlways PAR = "always"
	PARNever  PAR = "never"
)

// Refused is an authorization request that the issuer refused before any browser
// was sent there.
type Refused struct {
	Code, Description string // of the issuer, cleaned
	Status            int
}

func (e *Refused) Error() string {
	return strings.TrimSuffix("signin: the issuer refused the pushed request with "+e.Said(), ": ")
}

// Said is what the issuer said.
func (e *Refused) Said() string {
	if e.Code == "" {
		return fmt.Sprintf("status %d", e.Status)
	}
	return strings.TrimSuffix(e.Code+": "+e.Description, ": ")
}

// AuthorizationURL returns where a browser goes with an authorization request for
// the endpoint at.
// It pushes the request first where that is configured or required (RFC 9126).
// An [*Refused] says that the issuer wants no such request, an [*Error] that the
// push failed to arrive, or that its answer is unusable.
func (i *Issuer) AuthorizationURL(ctx context.Context, meta *Metadata, at *url.URL, params url.Values) (string, error) {
	if i.pushes(meta) {
		requestURI, err := i.push(ctx, meta, params)
		if err != nil {
			return "", err
		}
		params = url.Values{"client_id": {i.ClientID}, "request_uri": {requestURI}}
	}
	u, q := *at, at.Query()
	maps.Copy(q, params)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func (i *Issuer) pushes(meta *Metadata) bool {
	return i.par == PARAlways || bool(meta.RequiresPush) && i.par != PARNever
}

// push sends a request to the issuer, and returns the name that it has there.
// Only a refused client sends it again, with a credential loaded since: the
// issuer has kept nothing of the first.
func (i *Issuer) push(ctx context.Context, meta *Metadata, params url.Values) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, PushTimeout)
	defer cancel()
	requestURI, err := i.pushOnce(ctx, meta, params)
	refused, _ := errors.AsType[*Refused](err)
	if refused == nil || refused.Code != "invalid_client" || !clientauth.Reload(i.Credential) {
		return requestURI, err
	}
	return i.pushOnce(ctx, meta, params)
}

func (i *Issuer) pushOnce(ctx context.Context, meta *Metadata, params url.Values) (string, error) {
	began := i.now()
	resp, body, sent, err := i.Post(ctx, meta, meta.PushEndpoint, maps.Clone(params), nil)
	if err != nil {
		return "", Failed(fmt.Errorf("pushing the authorization request: %w", err))
	}
	var answer struct {
		RequestURI  string  `json:"request_uri" loose:"true"`
		ExpiresIn   Seconds `json:"expires_in"`
		Code        string  `json:"error" loose:"true"`
		Description string  `json:"error_description" loose:"true"`
	}
	isJSON := DecodeExact(withoutMark(body), &answer) == nil
	if !grants(resp) || answer.Code != "" {
		refused := &Refused{text.Clean(answer.Code, sent, 100), text.Clean(answer.Description, sent, 300), resp.StatusCode}
		if refused.passes() {
			return "", Failed(refused)
		}
		return "", refused
	}
	unusable := func(why string) (string, error) {
		return "", Failed(errors.New("the answer to the pushed authorization request " + why))
	}
	switch {
	case !isJSON:
		return unusable("is no JSON object")
	case answer.RequestURI == "":
		return unusable("has no request_uri")
	case !isRequestURI(answer.RequestURI):
		return unusable("has a request_uri that is no URI of bounded length")
	case answer.ExpiresIn.Present && i.now().Sub(began) >= answer.ExpiresIn.Duration:
		// The user would be away in vain: the issuer answers an unknown
		// request_uri with a page of its own.
		return unusable("has a request_uri that has expired")
	}
	return answer.RequestURI, nil
}

// isRequestURI admits an absolute URI (RFC 9126, 2.2) that can stand in a Location.
func isRequestURI(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.IsAbs() && len(raw) <= maxRequestURI && text.Printable(raw, maxRequestURI) == raw
}

// passes reports whether the same request may succeed later. The status or a code
// of the moment says so; a gateway that answers without a code does too.
func (e *Refused) passes() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout ||
		e.Code == "temporarily_unavailable" || e.Code == "server_error" ||
		e.Status < 400 && e.Code == "" // a redirect, which we do not follow
}
