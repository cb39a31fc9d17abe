package signin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/web"
	"github.com/seed454743b5/signin/signintest"
)

// Another site can send a signed-in user to the login path. That must not put
// them into another account, by replacing the session or by a login_hint; the
// page that the site means is opened as it would be by a link.
func TestLoginFromAnotherSite(t *testing.T) {
	const elsewhere = "https://portal.example.test/"
	for _, tc := range []struct {
		name     string
		method   string
		params   func(a *app) url.Values
		from     string
		signedIn bool
		landing  string // where the browser ends
		trips    int    // to the issuer
		hint     string // of the last of them
	}{
		{"signed in", "GET", nil, elsewhere, true, "/", 0, ""},
		{"signed in, with a page", "GET", func(*app) url.Values { return url.Values{"return": {"/page/1"}} }, elsewhere, true, "/page/1", 0, ""},
		{"signed in, initiated", "GET", initiated, elsewhere, true, "/page/1?x=2", 0, ""},
		{"signed in, initiated by POST", "POST", initiated, elsewhere, true, "/page/1?x=2", 0, ""},
		{"signed in, by a link of ours", "GET", switchesAccount, elsewhere, true, "/page/1", 0, ""},
		{"signed in, by a consent of ours", "GET", consents, elsewhere, true, "/page/1", 1, "alice@example.test"},

		{"nobody, initiated", "GET", initiated, elsewhere, false, "/page/1?x=2", 1, "bob"},
		{"nobody, initiated by POST", "POST", initiated, elsewhere, false, "/page/1?x=2", 1, "bob"},
		{"signed in, from this site", "GET", initiated, "", true, "/page/1?x=2", 1, "bob"},
		{"signed in, typed", "GET", func(*app) url.Values { return url.Values{"return": {"/page/1"}} }, "", true, "/page/1", 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t)
			b := a.browser()
			if tc.signedIn {
				b = a.signIn()
			}
			a.issuer.ForgetCalls()
			before, _ := b.Cookie(a.url, "__Host-signin")
			params := url.Values{}
			if tc.params != nil {
				params = tc.params(a)
			}
			r := &signintest.Request{Method: tc.method, URL: a.url + "/oidc/login", From: tc.from, Activated: true}
			if tc.method == "POST" {
				r.Form = params
			} else {
				r.URL += "?" + params.Encode()
			}
			p := b.Follow(r)
			if p.Status != http.StatusOK || p.URL != a.url+tc.landing {
				t.Errorf("%d at %s, want 200 at %s\n%s", p.Status, p.URL, tc.landing, a.log)
			}
			asked := a.issuer.Calls(signintest.EndpointAuthorize)
			if len(asked) != tc.trips {
				t.Fatalf("%d round trips to the issuer, want %d", len(asked), tc.trips)
			}
			if tc.trips > 0 && asked[0].Form.Get("login_hint") != tc.hint {
				t.Errorf("login_hint %q, want %q", asked[0].Form.Get("login_hint"), tc.hint)
			}
			if after, _ := b.Cookie(a.url, "__Host-signin"); tc.trips == 0 && after != before {
				t.Error("the session cookie was replaced")
			}
		})
	}
}

func initiated(a *app) url.Values {
	return url.Values{"iss": {a.issuer.URL()}, "login_hint": {"bob"}, "target_link_uri": {a.url + "/page/1?x=2"}}
}

// switchesAccount is a link of ours that another visitor has been given.
func switchesAccount(a *app) url.Values {
	need := &InteractionRequiredError{Reason: ReasonSignIn, Prompt: "select_account"}
	return url.Values{"ask": {a.states.sealNeed(need, site.NewReturnPath("/page/1"))}}
}

func consents(a *app) url.Values {
	need := &InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"Mail.Read"}}
	return url.Values{"ask": {a.states.sealNeed(need, site.NewReturnPath("/page/1"))}}
}

// A session whose refresh token the issuer has refused is none to keep.
func TestLoginFromAnotherSiteWithADeadSession(t *testing.T) {
	a := newApp(t)
	a.issuer.Update(func(x *signintest.Behaviour) {
		x.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["expires_in"] = 0 }
	})
	b := a.signIn()
	a.issuer.RevokeGrants("alice")
	b.Fetch(b.Open(a.url+"/"), "/token")
	a.issuer.ForgetCalls()
	b.Follow(&signintest.Request{URL: a.url + "/oidc/login?return=/page/1", From: "https://portal.example.test/", Activated: true})
	if n := a.issuer.Count(signintest.EndpointAuthorize); n == 0 {
		t.Error("the user was not sent to sign in again")
	}
}

// The login path by a store that fails is 503 for whoever has a session cookie.
func TestLoginFromAnotherSiteStoreDown(t *testing.T) {
	store := &failingStore{Store: NewMemoryStore()}
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
	b := a.signIn()
	store.down.Store(true)
	p := b.Follow(&signintest.Request{URL: a.url + "/oidc/login", From: "https://portal.example.test/", Activated: true})
	if p.Status != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", p.Status)
	}
}

// Whoever sends a browser to the signed-out page does not end its session, and
// the page must not say so.
func TestSignedOutPageOfASignedInUser(t *testing.T) {
	store := &failingStore{Store: NewMemoryStore()}
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
	b := a.signIn()
	open := func(b *signintest.Browser) *signintest.Page { return b.Open(a.url + "/oidc/signed-out") }
	p := open(b)
	if p.Status != http.StatusOK || !strings.Contains(p.Body, "still signed in") || strings.Contains(p.Body, "You are signed out") {
		t.Errorf("signed in: %d %.500s", p.Status, p.Body)
	}
	if !strings.Contains(p.Body, "alice") {
		t.Error("the page does not say who is signed in")
	}
	if p := open(a.browser()); p.Status != http.StatusOK || !strings.Contains(p.Body, "You are signed out") {
		t.Errorf("nobody: %d %.500s", p.Status, p.Body)
	}
	store.down.Store(true)
	if p := open(b); p.Status != http.StatusServiceUnavailable || strings.Contains(p.Body, "signed out") {
		t.Errorf("store down: %d %.500s", p.Status, p.Body)
	}
}

// A cache shares a page that is marked public: no cookie of ours stands there.
// On the next page that is not, it does.
func TestNoCookieInPublicPages(t *testing.T) {
	for _, tc := range []struct {
		cacheControl string
		cookie       bool
	}{
		{"", true},
		{"no-store", true},
		{"private", true},
		{"private, max-age=60", true},
		{"no-cache", true},
		{"public", false},
		{"Public, max-age=60", false},
		{"max-age=3600,public", false},
		{"no-cache, public", false},
		{"max-age=60", false},
		{"s-maxage=60, private", false},
		{"public, no-store", false},
	} {
		t.Run(tc.cacheControl, func(t *testing.T) {
			for _, writes := range []bool{true, false} {
				a := newApp(t)
				page := func(w http.ResponseWriter, r *http.Request) {
					if tc.cacheControl != "" {
						w.Header().Set("Cache-Control", tc.cacheControl)
					}
					if writes {
						w.Write([]byte("hello"))
					}
				}
				a.mux.Handle("/user", a.RequireUser(http.HandlerFunc(page)))
				a.mux.Handle("/hello", a.Recognize(http.HandlerFunc(page)))
				for _, path := range []string{"/user", "/hello"} {
					b := a.browser()
					p := b.Open(a.url + path)
					if got := len(p.Header.Values("Set-Cookie")) > 0; p.Status != http.StatusOK || got != tc.cookie {
						t.Errorf("%s: status %d, Set-Cookie: %t, want %t", path, p.Status, got, tc.cookie)
					}
					want := tc.cacheControl
					if tc.cookie {
						want = "no-store"
					}
					if got := p.Header.Get("Cache-Control"); got != want {
						t.Errorf("%s: Cache-Control %q, want %q", path, got, want)
					}
				}
			}
		})
	}
}

// The one answer that may carry a late cookie still does what others do.
func TestLateCookieKeepsTheResponseWriter(t *testing.T) {
	a := newApp(t)
	done := make(chan struct{})
	a.mux.Handle("/stream", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, late := w.(*web.LateCookie); !late {
			t.Error("nothing to test: no cookie is due")
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.(http.Flusher).Flush()
		if w.Header().Get("Set-Cookie") == "" {
			t.Error("no cookie when the headers went out")
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Errorf("what only the real one has: %v", err)
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		conn.Close()
		close(done)
	})))
	a.browser().Open(a.url + "/stream")
	<-done
}

// A challenge on a page that is due a late cookie is tied to a cookie of its
// own, which stands.
func TestChallengeBelowRecognize(t *testing.T) {
	a := newApp(t)
	a.mux.Handle("/hello", a.Recognize(a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("hello"))
	}))))
	if p := a.browser().Open(a.url + "/hello"); p.Body != "hello" {
		t.Errorf("%d %.300s", p.Status, p.Body)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 1 {
		t.Errorf("%d round trips to the issuer, want 1", n)
	}
}
