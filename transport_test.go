package signin

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/wwwauth"
	"github.com/seed454743b5/signin/signintest"
	"golang.org/x/oauth2"
)

const labAPI = "https://login.example.test/api"

// call calls an API below Handler, with a client that all users share.
func (r *replica) call(cookies string, client *http.Client, method, url string, body io.Reader) (resp *http.Response, text string, err error) {
	r.in(cookies, func(_ http.ResponseWriter, hr *http.Request) {
		var req *http.Request
		if req, err = http.NewRequestWithContext(hr.Context(), method, url, body); err != nil {
			return
		}
		if resp, err = client.Do(req); err != nil {
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		text = string(b)
	})
	return resp, text, err
}

// closeCounter is a body that can be read once, and knows if it was closed.
type closeCounter struct {
	io.Reader
	mu     sync.Mutex
	closed int
}

func (c *closeCounter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

func TestTransportSendsEachUsersToken(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		client := &http.Client{Transport: &Transport{Base: r.wire}}
		cookies := map[string]string{"alice": l.signIn("alice"), "bob": l.signIn("bob")}
		users := slices.Collect(maps.Keys(cookies))
		together(100, func(i int) {
			user := users[i%2]
			resp, text, err := r.call(cookies[user], client, "GET", labAPI+"/me", nil)
			if err != nil || resp.StatusCode != 200 || !strings.Contains(text, `"sub":"`+user+`"`) {
				t.Errorf("%s: %v %s", user, err, text)
			}
			if resp != nil && resp.Request.Header.Get("Authorization") != "" {
				t.Error("the answer's request shows the token")
			}
		})
		if _, _, err := r.call("", client, "GET", labAPI, nil); !isReason(err, ReasonSignIn) {
			t.Errorf("nobody signed in: %v", err)
		}
		req, _ := http.NewRequest("GET", labAPI, nil)
		if _, err := client.Do(req); !errors.Is(err, errOutside) {
			t.Errorf("outside Handler: %v", err)
		}
		if n := l.issuer.Count(signintest.EndpointAPI); n != 100 {
			t.Errorf("%d calls of the API, want 100", n)
		}
		l.refreshes(0)
	})
}

// 50 requests find their token revoked: one refresh, and no failure.
func TestTransportInvalidToken(t *testing.T) {
	newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
		clients := []*http.Client{{Transport: &Transport{Base: l.replicas[0].wire}}, {Transport: &Transport{Base: l.replicas[1].wire}}}
		cookies := l.signIn("alice")
		l.pass(recentToken)
		l.issuer.RevokeAccessTokens("alice")
		together(50, func(i int) {
			resp, text, err := l.replicas[i%2].call(cookies, clients[i%2], "POST", labAPI, strings.NewReader("once upon a time"))
			if err != nil || resp.StatusCode != 200 || !strings.Contains(text, `"body":"once upon a time"`) {
				t.Errorf("%v %s", err, text)
			}
		})
		l.refreshes(1)

		// An API that refuses any token gets two, and the caller its answer.
		l.pass(recentToken)
		l.issuer.Fail(signintest.EndpointAPI, signintest.InvalidToken())
		resp, _, err := l.replicas[0].call(cookies, clients[0], "GET", labAPI, nil)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%v %v, want the API's 401", resp, err)
		}
		if n := l.issuer.Count(signintest.EndpointAPI); n != 2 {
			t.Errorf("the API was called %d times, want 2", n)
		}
		l.refreshes(1)
		// What came in its place is not given up for every other call.
		for range 30 {
			if resp, _, err := l.replicas[0].call(cookies, clients[0], "GET", labAPI, nil); err != nil || resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%v %v, want the API's 401", resp, err)
			}
		}
		l.refreshes(0)
	})
}

// The refresh fails: that is the error, not the API's 401.
func TestTransportInvalidTokenRefused(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		client := &http.Client{Transport: &Transport{Base: r.wire}}
		cookies := l.signIn("alice")
		l.pass(recentToken)
		l.issuer.RevokeGrants("alice")
		together(50, func(int) {
			if _, _, err := r.call(cookies, client, "GET", labAPI, nil); !isReason(err, ReasonRefused) {
				t.Errorf("%v, want %s", err, ReasonRefused)
			}
		})
		l.refreshes(1)
	})
}

func TestTransportBodies(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		client := &http.Client{Transport: &Transport{Base: r.wire}}
		cookies := l.signIn("alice")
		l.pass(recentToken)
		l.issuer.RevokeAccessTokens("alice")

		// A body that cannot be had again is sent once; the next call works.
		body := &closeCounter{Reader: strings.NewReader("a stream")}
		resp, text, err := r.call(cookies, client, "POST", labAPI, body)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || text == "" {
			t.Errorf("%v %s, want the API's 401 and its body", err, text)
		}
		if n := l.issuer.Count(signintest.EndpointAPI); n != 1 {
			t.Errorf("sent %d times, want once", n)
		}
		if resp, _, err = r.call(cookies, client, "POST", labAPI, &closeCounter{Reader: strings.NewReader("a stream")}); err != nil || resp.StatusCode != 200 {
			t.Errorf("the next call: %v %v", resp, err)
		}
		l.refreshes(1)

		// Whatever happens, the body is closed.
		for name, base := range map[string]*Transport{
			"no token": {Base: r.wire}, "host not admitted": {Base: r.wire, Hosts: []string{"other.example"}},
		} {
			body := &closeCounter{Reader: strings.NewReader("x")}
			req, _ := http.NewRequest("POST", labAPI, body)
			if _, err := base.RoundTrip(req); err == nil || body.closed == 0 {
				t.Errorf("%s: %v, body closed %d times", name, err, body.closed)
			}
		}

		// The caller's request stays as it was.
		r.in(cookies, func(_ http.ResponseWriter, hr *http.Request) {
			req, _ := http.NewRequestWithContext(hr.Context(), "GET", labAPI, nil)
			req.Header = nil
			resp, err := (&Transport{Base: r.wire}).RoundTrip(req)
			if err != nil || resp.StatusCode != 200 || req.Header != nil {
				t.Errorf("%v %v, header %v", resp, err, req.Header)
			}
		})
	})
}

// A claims challenge: one silent attempt, shared; then the user.
func TestTransportInsufficientClaims(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
	satisfied := func(l *lab, token string) bool {
		info, _ := l.issuer.TokenInfo(token)
		return strings.Contains(info.Claims, "1604106651")
	}
	t.Run("silently", func(t *testing.T) {
		newLab(t, labOptions{behaviour: single, config: func(c *Config) { c.ClientCapabilities = []string{"cp1"} }}, func(l *lab) {
			r := l.replicas[0]
			client := &http.Client{Transport: &Transport{Base: r.wire}}
			cookies := l.signIn("alice")
			l.issuer.Update(func(b *signintest.Behaviour) {
				b.Fault = func(c signintest.Call) *signintest.Fault {
					if c.Endpoint != signintest.EndpointAPI || satisfied(l, c.Token.Token) {
						return nil
					}
					return new(signintest.InsufficientClaims(claims))
				}
			})
			together(50, func(int) {
				resp, text, err := r.call(cookies, client, "POST", labAPI, strings.NewReader("hello"))
				if err != nil || resp.StatusCode != 200 || !strings.Contains(text, `"body":"hello"`) {
					t.Errorf("%v %s", err, text)
				}
			})
			sent := l.issuer.LastCall(signintest.EndpointToken).Form.Get("claims")
			if !strings.Contains(sent, `"xms_cc":{"values":["cp1"]}`) || !strings.Contains(sent, `"nbf"`) {
				t.Errorf("claims sent: %s", sent)
			}
			l.refreshes(1)
			if ask := l.record(cookies); len(ask.Tokens) != 1 {
				t.Errorf("%d tokens held, want 1", len(ask.Tokens))
			}
		})
	})
	for _, tc := range []struct {
		name      string
		refuse    *signintest.OAuthError
		refreshes int
		claims    string
		reason    Reason
	}{
		{"the API is not satisfied", nil, 1, claims, ReasonClaims},
		{"the issuer wants the user", &signintest.OAuthError{Code: "interaction_required"}, 1, claims, ReasonClaims},
		{"the issuer wants more", &signintest.OAuthError{Code: "interaction_required", Extra: map[string]any{"claims": `{"x":1}`}}, 1, `{"x":1}`, ReasonClaims},
		{"the issuer refuses", &signintest.OAuthError{Code: "invalid_grant"}, 1, claims, ReasonRefused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{}, func(l *lab) {
				r := l.replicas[0]
				client := &http.Client{Transport: &Transport{Base: r.wire, Request: TokenRequest{Scopes: []string{"a"}}}}
				cookies := l.signIn("alice", "a")
				l.issuer.Fail(signintest.EndpointAPI, signintest.InsufficientClaims(claims))
				if tc.refuse != nil {
					l.issuer.Fail(signintest.EndpointToken, tc.refuse.Fault())
				}
				var need *InteractionRequiredError
				for range 3 { // and what did not help is not tried for each call
					_, _, err := r.call(cookies, client, "GET", labAPI, nil)
					var ok bool
					need, ok = errors.AsType[*InteractionRequiredError](err)
					if !ok || need.Reason != tc.reason || need.Claims != tc.claims || !slices.Equal(need.Scopes, []string{"a"}) {
						t.Fatalf("%v: %#v", err, need)
					}
				}
				l.refreshes(tc.refreshes)

				// Challenge understands it.
				l.issuer.Heal()
				l.challenge("alice", cookies, need)
				if got := l.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("claims"); got != tc.claims {
					t.Errorf("claims of the challenge: %s, want %s", got, tc.claims)
				}
			})
		})
	}
}

// RFC 9470.
func TestTransportStepUp(t *testing.T) {
	for _, tc := range []struct {
		header string
		acr    []string
		maxAge time.Duration // -1: none
		prompt string
	}{
		{`acr_values="high higher"`, []string{"high", "higher"}, -1, ""},
		{`max_age="300"`, nil, 5 * time.Minute, ""},
		{`acr_values="high", max_age=0`, []string{"high"}, 0, ""},
		{`acr_values="high", max_age="-1"`, []string{"high"}, -1, ""},
		{`acr_values="high", max_age="99999999999"`, []string{"high"}, -1, ""},
		{`realm=x`, nil, -1, "login"},
	} {
		newLab(t, labOptions{}, func(l *lab) {
			r := l.replicas[0]
			client := &http.Client{Transport: &Transport{Base: r.wire, Request: TokenRequest{Scopes: []string{"a"}}}}
			cookies := l.signIn("alice", "a")
			l.issuer.Fail(signintest.EndpointAPI, signintest.Fault{Status: 401, Header: http.Header{
				"Www-Authenticate": {`Bearer error="insufficient_user_authentication", ` + tc.header}}})
			_, _, err := r.call(cookies, client, "GET", labAPI, nil)
			need, ok := errors.AsType[*InteractionRequiredError](err)
			if !ok || need.Reason != ReasonClaims || !slices.Equal(need.ACR, tc.acr) || need.Prompt != tc.prompt ||
				(need.MaxAge == nil) != (tc.maxAge < 0) || need.MaxAge != nil && *need.MaxAge != tc.maxAge {
				t.Errorf("%s: %v, %#v", tc.header, err, need)
			}
			l.refreshes(0)
		})
	}
}

// Answers that are the caller's.
func TestTransportLeavesAlone(t *testing.T) {
	claims := base64.StdEncoding.EncodeToString([]byte("not an object"))
	for _, f := range []signintest.Fault{
		{Status: 401},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer`}}},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="insufficient_claims"`}}},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="insufficient_claims", claims="` + claims + `"`}}},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="insufficient_claims", claims="!"`}}},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`DPoP error="invalid_token"`}}},
		{Status: 403, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}},
		{Status: 500},
	} {
		newLab(t, labOptions{}, func(l *lab) {
			r := l.replicas[0]
			client := &http.Client{Transport: &Transport{Base: r.wire}}
			cookies := l.signIn("alice")
			l.issuer.Fail(signintest.EndpointAPI, f)
			resp, _, err := r.call(cookies, client, "GET", labAPI, nil)
			if err != nil || resp.StatusCode != f.Status {
				t.Errorf("%v: %v %v", f, resp, err)
			}
			if n := l.issuer.Count(signintest.EndpointAPI); n != 1 {
				t.Errorf("%v: sent %d times", f, n)
			}
			l.refreshes(0)
		})
	}
}

// roundTripper is a network of one function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The token goes to whom the caller named, however a client is redirected.
func TestTransportRedirects(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hosts []string
		trip  []string // the request and what it is redirected to
		token []bool   // whether each gets the token
	}{
		{"same host", nil, []string{"https://api.example/a", "https://api.example/b"}, []bool{true, true}},
		{"default port", nil, []string{"https://API.example/a", "https://api.example:443/b"}, []bool{true, true}},
		{"other host", nil, []string{"https://api.example/a", "https://files.example/b"}, []bool{true, false}},
		{"subdomain", nil, []string{"https://api.example/a", "https://x.api.example/b"}, []bool{true, false}},
		{"other port", nil, []string{"https://api.example/a", "https://api.example:8443/b"}, []bool{true, false}},
		{"to plain http", nil, []string{"https://api.example/a", "http://api.example/b"}, []bool{true, false}},
		{"there and back", nil, []string{"https://api.example/a", "https://evil.example/", "https://api.example/transfer"}, []bool{true, false, false}},
		{"both listed", []string{"api.example", "files.example"}, []string{"https://api.example/a", "https://files.example/b"}, []bool{true, true}},
		{"listed, and on", []string{"api.example"}, []string{"https://api.example/a", "https://files.example/b"}, []bool{true, false}},
		{"listed, there and back", []string{"api.example"}, []string{"https://api.example/a", "https://evil.example/", "https://api.example/b"}, []bool{true, false, false}},
		{"not listed", []string{"api.example"}, []string{"https://other.example/a"}, nil},
		{"listed for https", []string{"api.example"}, []string{"http://api.example/a"}, nil},
		{"listed for http", []string{"http://api.example:8080"}, []string{"http://api.example:8080/a"}, []bool{true}},
		{"plain http", nil, []string{"http://api.example/a"}, nil},
		{"loopback", nil, []string{"http://127.0.0.1:8080/a"}, []bool{true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{}, func(l *lab) {
				cookies := l.signIn("alice")
				var got []bool
				base := roundTripper(func(r *http.Request) (*http.Response, error) {
					rec := httptest.NewRecorder()
					got = append(got, r.Header.Get("Authorization") != "")
					if len(got) < len(tc.trip) {
						rec.Header().Set("Location", tc.trip[len(got)])
						rec.WriteHeader(http.StatusTemporaryRedirect)
					}
					resp := rec.Result()
					resp.Request = r
					return resp, nil
				})
				client := &http.Client{Transport: &Transport{Base: base, Hosts: tc.hosts}}
				_, _, err := l.replicas[0].call(cookies, client, "GET", tc.trip[0], nil)
				if (err != nil) != (tc.token == nil) || !slices.Equal(got, tc.token) {
					t.Errorf("token sent: %v, %v; want %v", got, err, tc.token)
				}
			})
		})
	}
}

// A source for tests of handlers has no second token: the 401 is the answer.
func TestTransportNewContext(t *testing.T) {
	calls := 0
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		calls++
		rec := httptest.NewRecorder()
		rec.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		rec.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(rec, r.Header.Get("Authorization"))
		return rec.Result(), nil
	})
	ctx := NewContext(t.Context(), &User{}, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "static"}))
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://api.example", nil)
	resp, err := (&http.Client{Transport: &Transport{Base: base}}).Do(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || calls != 1 {
		t.Fatalf("%v %v after %d calls", resp, err, calls)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "Bearer static" {
		t.Errorf("sent %q", body)
	}
}

func TestParseChallenges(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string
	}{
		{nil, ""},
		{[]string{"Bearer"}, "bearer{}"},
		{[]string{`Bearer realm="a, b", error=invalid_token`}, "bearer{error=invalid_token realm=a, b}"},
		{[]string{`Basic realm=x, Bearer error="x"`}, "basic{realm=x} bearer{error=x}"},
		{[]string{`Negotiate abc==, Bearer a=b`}, "negotiate{} bearer{a=b}"},
		{[]string{`Negotiate, Bearer a=b`}, "negotiate{} bearer{a=b}"},
		{[]string{`Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple"`}, `newauth{realm=apps title=Login to "apps" type=1} basic{realm=simple}`},
		{[]string{`, ,Bearer  ,a = b , , c="d",`}, "bearer{a=b c=d}"},
		{[]string{`Bearer a=b`, `Basic`}, "bearer{a=b} basic{}"},
		{[]string{`Bearer a="b`}, ""},
		{[]string{`Bearer a="b\`}, ""},
		{[]string{`Bearer a="b" c="d"`}, ""},
		{[]string{`Bearer a=b, A=c`}, ""},
		{[]string{`Bearer a=`, `Basic`}, "bearer{} basic{}"},
		{[]string{`Bearer a=b, =c`}, "bearer{a=b}"},
		{[]string{"Bearer a=\"b\x00\""}, ""},
		{[]string{`realm="x"`}, ""},
		{[]string{strings.Repeat("x", wwwauth.MaxAuthHeader+1)}, ""},
	} {
		if got := describe(wwwauth.Parse(tc.in)); got != tc.want {
			t.Errorf("%q:\n got %s\nwant %s", tc.in, got, tc.want)
		}
	}
	if n := len(wwwauth.Parse([]string{strings.Repeat("a,", 1000)})); n != wwwauth.MaxAuthChallenges {
		t.Errorf("%d challenges, want %d", n, wwwauth.MaxAuthChallenges)
	}
}

func describe(all []wwwauth.Challenge) string {
	var out []string
	for _, c := range all {
		var params []string
		for _, name := range slices.Sorted(maps.Keys(c.Params)) {
			params = append(params, name+"="+c.Params[name])
		}
		out = append(out, c.Scheme+"{"+strings.Join(params, " ")+"}")
	}
	return strings.Join(out, " ")
}

// What parses is written again and parses to the same.
func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="", authorization_uri="https://login.example/authorize", error="insufficient_claims", claims="e30="`,
		`Basic realm="x", Negotiate abc==, Bearer`, `Bearer a="\"\\"`, `,,a b=c,d e=f,`, `a ==, b`, "\t",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first := wwwauth.Parse([]string{s})
		if len(first) > wwwauth.MaxAuthChallenges {
			t.Fatalf("%d challenges", len(first))
		}
		var again []string
		for _, c := range first {
			var params []string
			for _, name := range slices.Sorted(maps.Keys(c.Params)) {
				params = append(params, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(c.Params[name])+`"`)
			}
			again = append(again, strings.TrimSpace(c.Scheme+" "+strings.Join(params, ", ")))
		}
		if text := strings.Join(again, ", "); len(text) <= wwwauth.MaxAuthHeader {
			if got, want := describe(wwwauth.Parse([]string{text})), describe(first); got != want {
				t.Errorf("%q: %s\nas %q: %s", s, want, text, got)
			}
		}
		wwwauth.Bearer(http.Header{"Www-Authenticate": {s}})
	})
}
