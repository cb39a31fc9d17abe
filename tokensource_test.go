package signin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/signintest"
)

// A handler's one line, through the front door: a scope that is missing sends
// the browser to the issuer for exactly that scope, and back to the same page.
func TestTokenIncrementalConsent(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Scopes = []string{"read"} } })
	b := a.signIn()
	page := b.Open(a.url + "/token")
	first := page.Body
	asked := a.issuer.Count(signintest.EndpointAuthorize)

	p := b.Fetch(page, "/token?scope=send")
	if p.Status != http.StatusUnauthorized || !strings.Contains(p.Header.Get("WWW-Authenticate"), `scope="send"`) {
		t.Errorf("fetch: %d %q", p.Status, p.Header.Get("WWW-Authenticate"))
	}
	p = b.Open(a.url + "/token?scope=send")
	info, ok := a.issuer.TokenInfo(p.Body)
	if p.URL != a.url+"/token?scope=send" || !ok || !slices.Contains(info.Scopes, "send") {
		t.Fatalf("%d %s %.200s", p.Status, p.URL, p.Body)
	}
	ask := a.issuer.LastCall(signintest.EndpointAuthorize).Form
	if got := ask.Get("scope"); got != "openid profile offline_access read send" {
		t.Errorf("scope of the challenge: %q", got)
	}
	if ask.Get("login_hint") == "" {
		t.Error("the challenge does not say who is signed in")
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize) - asked; n != 1 {
		t.Errorf("%d visits at the issuer, want 1", n)
	}
	if a.refreshed() != 1 || a.redemptions() != 2 {
		t.Errorf("%d refreshes and %d redemptions, want 1 (refused, and remembered) and 2", a.refreshed(), a.redemptions())
	}
	// The session is extended: what was held before serves, or its better.
	if got := b.Open(a.url + "/token").Body; got == "" || a.refreshed() != 1 {
		t.Errorf("the sign-in's token: %.20s (before %.20s), %d refreshes", got, first, a.refreshed())
	}
}

// Which token serves which request, and what is sent to obtain another.
func TestTokenScopes(t *testing.T) {
	type step struct {
		req   TokenRequest
		sent  string // scope of the refresh; "-": none is made
		extra url.Values
	}
	for _, tc := range []struct {
		name  string
		site  []string
		steps []step
	}{
		{"the sign-in's token serves all it covers", []string{"a", "b"}, []step{
			{TokenRequest{}, "-", nil},
			{TokenRequest{Scopes: []string{"a"}}, "-", nil},
			{TokenRequest{Scopes: []string{"b", "openid", "offline_access", "profile"}}, "-", nil},
			{TokenRequest{Scopes: []string{"c"}}, "c openid profile offline_access", nil},
			{TokenRequest{Scopes: []string{"c"}}, "-", nil},
			{TokenRequest{Scopes: []string{"a"}}, "-", nil},
		}},
		{"no scopes of its own", nil, []step{
			{TokenRequest{}, "-", nil},
			{TokenRequest{Scopes: []string{"c"}}, "c openid profile offline_access", nil},
			{TokenRequest{}, "-", nil},
			{TokenRequest{Scopes: []string{"c"}}, "-", nil},
			{TokenRequest{Scopes: []string{"c", "d"}}, "c d openid profile offline_access", nil},
			{TokenRequest{Scopes: []string{"c"}}, "-", nil},
			{TokenRequest{}, "-", nil},
		}},
		{"resources", []string{"a"}, []step{
			{TokenRequest{Resource: "https://x.example"}, "", url.Values{"resource": {"https://x.example"}}},
			{TokenRequest{Resource: "https://x.example"}, "-", nil},
			{TokenRequest{Resource: "https://y.example", Scopes: []string{"c"}}, "c openid profile offline_access", url.Values{"resource": {"https://y.example"}}},
			{TokenRequest{Resource: "https://x.example"}, "-", nil},
			{TokenRequest{}, "-", nil},
			{TokenRequest{Scopes: []string{"a"}}, "-", nil},
		}},
		{"parameters", []string{"a"}, []step{
			{TokenRequest{Scopes: []string{"c"}, Params: url.Values{"audience": {"x"}, "grant_type": {"evil"}}},
				"c openid profile offline_access", url.Values{"audience": {"x"}, "grant_type": {"refresh_token"}}},
			{TokenRequest{Scopes: []string{"c"}, Params: url.Values{"grant_type": {"evil"}, "audience": {"x"}}}, "-", nil},
			{TokenRequest{Scopes: []string{"c"}, Params: url.Values{"audience": {"y"}}}, "c openid profile offline_access", url.Values{"audience": {"y"}}},
			{TokenRequest{Scopes: []string{"c"}}, "c openid profile offline_access", url.Values{"audience": nil}},
			{TokenRequest{Scopes: []string{"c"}, Params: url.Values{"audience": {"y"}}}, "-", nil},
			{TokenRequest{Params: url.Values{"audience": {"y"}}}, "", url.Values{"audience": {"y"}}},
			{TokenRequest{Params: url.Values{"audience": {"y"}}}, "-", nil},
			{TokenRequest{Scopes: []string{"a"}}, "-", nil},
			{TokenRequest{}, "-", nil},
		}},
		{"email and profile are scopes", []string{"openid", "offline_access", "a"}, []step{
			{TokenRequest{Scopes: []string{"email"}}, "email openid offline_access", nil},
			{TokenRequest{Scopes: []string{"email"}}, "-", nil},
			{TokenRequest{Scopes: []string{"a", "profile"}}, "a profile openid offline_access", nil},
			{TokenRequest{Scopes: []string{"profile"}}, "-", nil},
			{TokenRequest{Scopes: []string{"a"}}, "-", nil},
			{TokenRequest{}, "-", nil},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{
				behaviour: func(b *signintest.Behaviour) { b.Consented = []string{"c", "d"} },
				config:    func(c *Config) { c.Scopes = tc.site },
			}, func(l *lab) {
				cookies := l.signIn("alice")
				for i, step := range tc.steps {
					l.issuer.ForgetCalls()
					token := l.mustToken(0, cookies, step.req)
					info, _ := l.issuer.TokenInfo(token)
					if r := step.req.Resource; r != "" && !slices.Equal(info.Resources, []string{r}) || r == "" && len(info.Resources) > 0 {
						t.Errorf("step %d: a token for %q", i+1, info.Resources)
					}
					for _, s := range step.req.Scopes {
						if !slices.Contains(info.Scopes, s) {
							t.Errorf("step %d: a token for scopes %q", i+1, info.Scopes)
						}
					}
					if step.sent == "-" {
						if n := l.issuer.Count(signintest.EndpointAny); n != 0 {
							t.Errorf("step %d: %d requests, want none", i+1, n)
						}
						continue
					}
					form := l.issuer.LastCall(signintest.EndpointToken).Form
					if form.Get("scope") != step.sent {
						t.Errorf("step %d: sent scope %q, want %q", i+1, form.Get("scope"), step.sent)
					}
					for name, want := range step.extra {
						if !slices.Equal(form[name], want) {
							t.Errorf("step %d: sent %s %q, want %q", i+1, name, form[name], want)
						}
					}
					l.refreshes(1)
				}
			})
		})
	}
}

// zitadel: a narrower scope at a refresh shrinks the grant for good, so none
// is sent where a held token covers what is asked.
func TestTokenGrantStaysWhole(t *testing.T) {
	newLab(t, labOptions{
		behaviour: func(b *signintest.Behaviour) { b.RefreshNarrows = true },
		config:    func(c *Config) { c.Scopes = []string{"a", "b"} },
	}, func(l *lab) {
		cookies := l.signIn("alice")
		for _, scope := range []string{"a", "b", "a"} {
			l.pass(2 * time.Hour)
			l.mustToken(0, cookies, TokenRequest{Scopes: []string{scope}})
			if sent := l.issuer.LastCall(signintest.EndpointToken).Form; sent.Has("scope") {
				t.Errorf("sent scope %q", sent.Get("scope"))
			}
			l.refreshes(1)
		}
	})
}

// Hydra: each refresh ends the access tokens before it. The one that serves
// no scopes may be dead then; an API's 401 leads to one fresh token.
func TestTokenRefreshEndsAccess(t *testing.T) {
	newLab(t, labOptions{
		behaviour: func(b *signintest.Behaviour) { b.RefreshEndsAccess, b.Consented = true, []string{"c"} },
		config:    func(c *Config) { c.Scopes = []string{"a"} },
	}, func(l *lab) {
		r := l.replicas[0]
		cookies := l.signIn("alice")
		l.mustToken(0, cookies, TokenRequest{Scopes: []string{"c"}})
		client := &http.Client{Transport: &Transport{Base: r.wire}}
		together(20, func(int) {
			if resp, text, err := r.call(cookies, client, "GET", labAPI, nil); err != nil || resp.StatusCode != 200 {
				t.Errorf("%v %s", err, text)
			}
		})
		l.refreshes(2)
	})
}

// Many users, each in many goroutines, on two replicas, with scopes, forced
// and expired: nobody ever sees another's token.
func TestTokenNeverAnothers(t *testing.T) {
	const users, each = 12, 20
	newLab(t, labOptions{replicas: 2, behaviour: func(b *signintest.Behaviour) {
		single(b)
		b.Consented = []string{"c"}
		b.Users = nil
		for i := range users {
			b.Users = append(b.Users, signintest.User{Subject: fmt.Sprint("user-", i)})
		}
	}}, func(l *lab) {
		var cookies []string
		for i := range users {
			cookies = append(cookies, l.signIn(fmt.Sprint("user-", i)))
		}
		for range 2 {
			l.pass(2 * time.Hour)
			together(users*each, func(i int) {
				user, k := i%users, i/users
				req := TokenRequest{}
				if k%3 == 0 {
					req.Scopes = []string{"c"}
				}
				token, err := l.replicas[k%2].token(cookies[user], req)
				if info, _ := l.issuer.TokenInfo(token); err != nil || info.Subject != fmt.Sprint("user-", user) {
					t.Errorf("user-%d got %q's token (%v)", user, info.Subject, err)
				}
			})
			l.refreshes(2 * users) // one for each user and set of scopes
		}
	})
}

// A source outlives its request, for as long as a WebSocket does, and serves
// several goroutines; it learns of a sign-out.
func TestTokenAfterTheRequest(t *testing.T) {
	newLab(t, labOptions{behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		src := make(chan func() (string, error), 1)
		l.replicas[0].in(cookies, func(_ http.ResponseWriter, r *http.Request) {
			ts := TokenSource(r.Context())
			src <- func() (string, error) {
				t, err := ts.Token()
				if err != nil {
					return "", err
				}
				return t.AccessToken, nil
			}
		})
		token := <-src
		seen := map[string]bool{}
		for range 24 {
			var mu sync.Mutex
			together(5, func(int) {
				got, err := token()
				if info, _ := l.issuer.TokenInfo(got); err != nil || !info.Active {
					t.Errorf("Token: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[got] = true
			})
			l.pass(time.Hour)
		}
		if len(seen) != 24 {
			t.Errorf("%d tokens in 24 hours, want one each", len(seen))
		}
		l.refreshes(23)
		l.store.Store = NewMemoryStore() // signed out elsewhere
		if _, err := token(); !isReason(err, ReasonSignIn) {
			t.Errorf("after sign-out: %v", err)
		}
		l.refreshes(0)
	})
}

// A new token though one is held: those who ask together share it.
func TestTokenForced(t *testing.T) {
	newLab(t, labOptions{replicas: 2}, func(l *lab) {
		cookies := l.signIn("alice")
		first := l.mustToken(0, cookies, TokenRequest{})
		release := make(chan struct{})
		l.replicas[0].wire.hang(release)
		l.replicas[1].wire.hang(release)
		go func() {
			synctest.Wait() // all have asked
			close(release)
		}()
		together(50, func(i int) {
			if token, err := l.replicas[i%2].token(cookies, TokenRequest{Refresh: true}); err != nil || token == first {
				t.Errorf("Token: %v, the old one: %t", err, token == first)
			}
		})
		l.refreshes(1)
		l.mustToken(1, cookies, TokenRequest{})
		l.refreshes(0)
		l.mustToken(1, cookies, TokenRequest{Refresh: true})
		l.refreshes(1)
		l.issuer.Fail(signintest.EndpointToken, signintest.Fault{Status: 500})
		if _, err := l.replicas[0].token(cookies, TokenRequest{Refresh: true}); err == nil {
			t.Error("the held token, for one who wants another")
		}
		l.issuer.Heal()
	})
}

// Claims of the caller's are never met from what is held, are checked, and
// carry the client's capabilities.
func TestTokenClaims(t *testing.T) {
	newLab(t, labOptions{config: func(c *Config) { c.ClientCapabilities = []string{"cp1"} }}, func(l *lab) {
		cookies := l.signIn("alice")
		const cp1 = `{"access_token":{"xms_cc":{"values":["cp1"]}}}`
		for _, e := range []signintest.Endpoint{signintest.EndpointAuthorize, signintest.EndpointToken} {
			if got := l.issuer.LastCall(e).Form.Get("claims"); got != cp1 {
				t.Errorf("%s: claims %s, want %s", e, got, cp1)
			}
		}
		req := TokenRequest{Claims: `{"access_token":{"a":null,"n":12345678901234567890},"id_token":{"b":null}}`}
		for range 2 {
			l.mustToken(0, cookies, req)
			want := `{"access_token":{"a":null,"n":12345678901234567890,"xms_cc":{"values":["cp1"]}},"id_token":{"b":null}}`
			if got := l.issuer.LastCall(signintest.EndpointToken).Form.Get("claims"); got != want {
				t.Errorf("claims %s, want %s", got, want)
			}
			l.refreshes(1)
		}
		for _, bad := range []string{"x", "[]", `"a"`, "null", "{" + strings.Repeat(" ", oidc.MaxClaims) + "}"} {
			_, err := l.replicas[0].token(cookies, TokenRequest{Claims: bad})
			if _, interaction := errors.AsType[*InteractionRequiredError](err); err == nil || interaction {
				t.Errorf("claims %.20s: %v", bad, err)
			}
		}
		l.refreshes(0)
	})
}

func TestTokenWithoutRefreshToken(t *testing.T) {
	newLab(t, labOptions{config: func(c *Config) { c.Scopes = []string{"openid", "a"} }}, func(l *lab) {
		cookies := l.signIn("alice")
		l.mustToken(0, cookies, TokenRequest{Scopes: []string{"a"}})
		for _, tc := range []struct {
			req  TokenRequest
			want Reason
		}{
			{TokenRequest{Scopes: []string{"c"}}, ReasonConsent},
			{TokenRequest{Claims: `{"a":1}`}, ReasonClaims},
		} {
			if _, err := l.replicas[0].token(cookies, tc.req); !isReason(err, tc.want) {
				t.Errorf("%v: %v, want %s", tc.req, err, tc.want)
			}
		}
		l.pass(59*time.Minute + 30*time.Second)
		l.mustToken(0, cookies, TokenRequest{}) // to its last second
		l.pass(time.Minute)
		if _, err := l.replicas[0].token(cookies, TokenRequest{}); !isReason(err, ReasonRefused) {
			t.Errorf("expired: %v", err)
		}
		l.refreshes(0)
	})
}

func TestHeldTokens(t *testing.T) {
	newLab(t, labOptions{behaviour: func(b *signintest.Behaviour) { b.Consented = []string{"c"} }}, func(l *lab) {
		cookies := l.signIn("alice", "a")
		l.mustToken(0, cookies, TokenRequest{Scopes: []string{"c"}, Resource: "https://x.example"})
		list := func(cookies string) (infos []TokenInfo, err error) {
			l.replicas[0].in(cookies, func(_ http.ResponseWriter, r *http.Request) { infos, err = HeldTokens(r.Context()) })
			return infos, err
		}
		infos, err := list(cookies)
		if err != nil || len(infos) != 2 || infos[1].Resource != "https://x.example" || !slices.Equal(infos[1].Scopes, []string{"c"}) ||
			!slices.Contains(infos[0].Scopes, "a") || time.Until(infos[0].Expiry).Round(time.Minute) != time.Hour {
			t.Errorf("%+v %v", infos, err)
		}
		if infos, err := list(""); len(infos) > 0 || err != nil {
			t.Errorf("nobody holds %v, %v", infos, err)
		}
		if infos, err := HeldTokens(t.Context()); len(infos) > 0 || err != nil {
			t.Errorf("outside Handler: %v, %v", infos, err)
		}
		l.store.Set(faulty.Fails)
		if _, err := list(cookies); err == nil {
			t.Error("a store that fails is not reported")
		}
		l.store.Set(nil)
		synctest.Wait()
		if _, err := TokenSource(t.Context()).Token(); !errors.Is(err, errOutside) {
			t.Errorf("outside Handler: %v", err)
		}
	})
}
