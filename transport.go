package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/wwwauth"
	"golang.org/x/oauth2"
)

// Transport is an [http.RoundTripper] that sends the access token of the user
// who is signed in to the request of each request's context, so that one
// client serves all users:
//
//	client := &http.Client{Transport: &signin.Transport{
//		Request: signin.TokenRequest{Scopes: []string{"Mail.Read"}},
//	}}
//	req, err := http.NewRequestWithContext(r.Context(), "GET", "https://api.example.com/mail", nil)
//	resp, err := client.Do(req)
//	if auth.Challenge(w, r, err) {
//		return
//	}
//
// Three answers of an API with status 401 it takes up itself, by the Bearer
// challenge in WWW-Authenticate; any other is the caller's:
//
//   - with acr_values or max_age, or called insufficient_user_authentication
//     (RFC 9470): the error is an [*InteractionRequiredError] with ACR and
//     MaxAge.
//   - with claims, whatever the error is called (Entra's continuous access
//     evaluation): a token with the claims asked for is obtained silently, and
//     the request sent once more. If that cannot be, or does not help, the error
//     is an [*InteractionRequiredError] that carries the claims.
//   - invalid_token (RFC 6750, 3.1): the token is given up, and the request
//     sent once more with a new one. A token obtained less than ten seconds
//     ago, as the latest, stays: a newer one would fare no better.
//
// A request is sent once more only if its body can be had again (GetBody, as
// [http.NewRequest] sets it for the usual readers). If it cannot, the caller
// gets the 401, and the next request has the new token.
//
// The token goes to the host that the caller named and nowhere else, however
// often a client is redirected; see Hosts. An Authorization header of the
// caller's is replaced. Errors of [TokenSource] come back as they are, inside
// the [*url.Error] of http.Client.
//
// A Transport may be used concurrently. It must not be changed after the
// first use.
type Transport struct {
	// Base sends the requests. Nil means [http.DefaultTransport].
	Base http.RoundTripper

	// Request says which token to send. The zero value is that of the sign-in.
	Request TokenRequest

	// Hosts are the hosts that may get the token: "api.example.com" or
	// "api.example.com:8443" by https, "http://orders.internal:8080" where an
	// API has only plain http. A request to any other fails before it is sent.
	// Set it if a URL may be influenced from outside.
	//
	// Empty allows every host by https, and loopback also by http.
	//
	// A redirect is followed with the token if all its hosts are listed or,
	// with Hosts empty, if scheme, host and port stay the same. Any other is
	// followed without, as it is to where an API keeps its files.
	Hosts []string
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	withToken, err := t.admits(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	if !withToken {
		return t.base().RoundTrip(req)
	}
	ctx := req.Context()
	token, err := t.Request.token(ctx)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.send(req, req.Body, token)
	if err != nil {
		return nil, err
	}
	again, err := t.afresh(resp, token)
	if again == nil || err != nil {
		return answer(resp, err)
	}
	renewed, err := again.token(ctx)
	if err != nil {
		return answer(resp, err)
	}
	if renewed.AccessToken == token.AccessToken {
		return resp, nil // there is no other: a source for tests
	}
	body, ok, err := bodyAgain(req)
	if !ok || err != nil {
		return answer(resp, err)
	}
	discard(resp)
	if resp, err = t.send(req, body, renewed); err != nil {
		return nil, err
	}
	if again, err = t.afresh(resp, renewed); err == nil && again != nil && again.Claims != "" {
		again.giveUp(ctx)
		err = again.needs(ReasonClaims, again.Claims, errAPIChallenge)
	}
	return answer(resp, err)
}

// bodyAgain returns a request's body once more, and false if it cannot be had.
func bodyAgain(req *http.Request) (body io.ReadCloser, ok bool, err error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return nil, true, nil
	case req.GetBody == nil:
		return nil, false, nil
	}
	if body, err = req.GetBody(); err != nil {
		return nil, false, fmt.Errorf("signin: transport: sending the body again: %w", err)
	}
	return body, true, nil
}

// afresh returns the request for the token that an API asks for in place of
// the one it was sent, nil if it asks for none, and an error if it asks for
// what only the user can give.
func (t *Transport) afresh(resp *http.Response, sent *oauth2.Token) (*TokenRequest, error) {
	if resp.StatusCode != http.StatusUnauthorized {
		return nil, nil
	}
	c := wwwauth.Bearer(resp.Header)
	if c == nil {
		return nil, nil
	}
	again := t.Request
	again.Refresh, again.reject = false, sent.AccessToken
	// What the challenge carries says more than what its error is called.
	claims, name := c.Claims(), c.Params["error"]
	switch {
	case c.AsksStepUp() || claims == "" && name == "insufficient_user_authentication":
		need := again.needs(ReasonClaims, cmp.Or(claims, again.Claims), errAPIChallenge)
		stepUp(c, need)
		return nil, need
	case claims != "":
		again.Claims = claims
		return &again, nil
	case name == "invalid_token" && !t.Request.isRecent(resp.Request.Context(), sent.AccessToken):
		return &again, nil
	}
	return nil, nil
}

// giveUp remembers that a silent attempt at claims did not help, so that it is
// not made for each call until the user has been asked.
func (req *TokenRequest) giveUp(ctx context.Context) {
	ts, ok := req.Source(ctx).(*tokenSource)
	if !ok {
		return
	}
	vs := ts.v.visits
	s, err := ts.v.current(ctx, vs.now())
	if err != nil || s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveWait)
	defer cancel()
	saved, err := vs.tokens.records.update(ctx, s, func(r *record) {
		_, asked := refusalKeys(r.Refresh, req)
		r.refuse(refusal{Key: asked, Reason: ReasonClaims, Claims: req.Claims, Time: vs.now().Unix()})
	})
	if err == nil {
		ts.v.renew(saved)
	}
}

// recentToken is how old a token must be to be given up. An API that refuses
// every token must not cost a refresh for each call.
const recentToken = 10 * time.Second

// isRecent reports whether a held token was obtained a moment ago, and no
// other since: some issuers end all tokens there are at each refresh.
func (req *TokenRequest) isRecent(ctx context.Context, access string) bool {
	ts, ok := req.Source(ctx).(*tokenSource)
	if !ok {
		return false
	}
	now := ts.v.visits.now()
	s, err := ts.v.current(ctx, now)
	if err != nil || s == nil {
		return false
	}
	n := len(s.record.Tokens)
	if n == 0 || s.record.Tokens[n-1].Access != access {
		return false
	}
	newest := s.record.Tokens[n-1]
	return newest.valid(now) && now.Sub(time.Unix(newest.Obtained, 0)) < recentToken
}

var errAPIChallenge = errors.New("the API asks for it")

// token is what the source returns, to a caller who may stop waiting.
func (req TokenRequest) token(ctx context.Context) (*oauth2.Token, error) {
	source := req.Source(ctx)
	ts, ok := source.(*tokenSource)
	if !ok {
		return source.Token()
	}
	t, err := ts.v.visits.tokens.acquire(ctx, ts.v, req)
	if err != nil {
		return nil, err
	}
	return t.token(), nil
}

// send sends a copy of the request with the token.
func (t *Transport) send(req *http.Request, body io.ReadCloser, token *oauth2.Token) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Body = body
	if out.Header == nil {
		out.Header = http.Header{}
	}
	token.SetAuthHeader(out)
	resp, err := t.base().RoundTrip(out)
	if err != nil {
		return nil, err
	}
	// Who is handed the answer has no business with the token.
	resp.Request = req
	return resp, nil
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// admits reports whether the token goes with a request. http.Client comes
// here again for each redirect, and does not take the token along, since it
// never saw it: all that has been asked since the caller's request is judged
// (as net/http does with its headers), for a host that was redirected to must
// not aim the token at a URL of its choice.
func (t *Transport) admits(req *http.Request) (bool, error) {
	if req.Response == nil {
		if !t.allows(req.URL) {
			return false, fmt.Errorf("signin: transport: %s://%s may not get the token: it is not among Hosts, or not https", req.URL.Scheme, req.URL.Host)
		}
		return true, nil
	}
	for r := req; ; r = r.Response.Request {
		if !t.allows(r.URL) || len(t.Hosts) == 0 && originOf(r.URL) != originOf(req.URL) {
			return false, nil
		}
		if r.Response == nil {
			return true, nil
		}
		if r.Response.Request == nil { // whose redirect this was is not known
			return false, nil
		}
	}
}

func (t *Transport) allows(u *url.URL) bool {
	if len(t.Hosts) == 0 {
		return u.Scheme == "https" || u.Scheme == "http" && site.IsLoopback(u.Hostname())
	}
	origin := originOf(u)
	return slices.ContainsFunc(t.Hosts, func(host string) bool {
		if !strings.Contains(host, "://") {
			host = "https://" + host
		}
		listed, err := url.Parse(host)
		return err == nil && originOf(listed) == origin
	})
}

// originOf is scheme, host and port.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = u.Scheme
		if u.Scheme == "https" {
			port = "443"
		} else if u.Scheme == "http" {
			port = "80"
		}
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// answer is the response, or the error in its place.
func answer(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		discard(resp)
		return nil, err
	}
	return resp, nil
}

// discard ends a response that nobody will read. A short one is read to its
// end, so that the connection can be used again.
func discard(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
		io.CopyN(io.Discard, resp.Body, resp.ContentLength)
	}
	resp.Body.Close()
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// stepUp is what an insufficient_user_authentication challenge asks for (RFC
// 9470, 3). Without any of it, a fresh sign-in is all that can be meant.
func stepUp(c *wwwauth.Challenge, need *InteractionRequiredError) {
	for _, acr := range strings.Fields(c.Params["acr_values"]) {
		if validScope(acr) && len(need.ACR) < 16 {
			need.ACR = append(need.ACR, acr)
		}
	}
	if n, err := strconv.ParseUint(c.Params["max_age"], 10, 31); err == nil {
		need.MaxAge = new(time.Duration(n) * time.Second)
	}
	if len(need.ACR) == 0 && need.MaxAge == nil {
		need.Prompt = "login"
	}
}
