package signin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// secondHost is an application whose BaseURL names one host and that answers
// at another one, too. It returns the other's URL.
func secondHost(t *testing.T, base, other string, edit ...func(*appOptions)) (*app, string) {
	t.Helper()
	var handler http.Handler
	a := newApp(t, append([]func(*appOptions){func(o *appOptions) {
		o.appURL = base
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			handler = a.Handler(mux)
			return handler
		}
	}}, edit...)...)
	return a, a.net.Serve(other, handler)
}

// A browser that comes under another host name than BaseURL's goes to the same
// page under BaseURL's, signs in there, and nothing is lost on the way.
func TestSecondHostName(t *testing.T) {
	a, other := secondHost(t, "https://app.example.test", "https://www.app.example.test")
	for _, page := range []string{"/page/x?x=1", `/page/a|b%2Fc?path=C:\temp`, "/page/x?next=//evil.example"} {
		b := a.browser()
		p := b.Send(&signintest.Request{URL: other + page, Activated: true})
		if p.Status != http.StatusSeeOther || p.Header.Get("Location") != a.url+page || p.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d to %s", page, p.Status, p.Header.Get("Location"))
		}
		if p = b.Follow(p.Next()); p.Status != http.StatusOK || p.URL != a.url+page {
			t.Errorf("%s ends with %d at %s", page, p.Status, p.URL)
		}
		// Signed in there, and again by the other name, at once and later.
		for range 2 {
			if p = b.Open(other + page); p.Status != http.StatusOK || p.URL != a.url+page {
				t.Errorf("%s again ends with %d at %s", page, p.Status, p.URL)
			}
			a.clock.advance(2 * movedFor)
		}
	}
	if log := a.log.String(); !strings.Contains(log, `"host":"www.app.example.test","base":"app.example.test"`) {
		t.Errorf("the log does not name both hosts: %s", log)
	}
	if !strings.HasPrefix(a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("redirect_uri"), a.url+"/") {
		t.Error("the redirect URI is not BaseURL's")
	}
}

// The links for what cannot be redirected lead there, with what they ask for.
func TestSecondHostNameByLink(t *testing.T) {
	a, other := secondHost(t, "https://app.example.test", "https://www.app.example.test")
	for _, r := range []*signintest.Request{
		{Method: "POST", URL: other + "/page/x", Form: url.Values{"a": {"b"}}},
		{URL: other + "/page/x", From: other + "/page/x", Mode: "cors", Dest: "empty", Header: http.Header{"Accept": {htmlAccept}}},
	} {
		b := a.browser()
		p := b.Send(r)
		if p.Status != http.StatusUnauthorized {
			t.Fatalf("%s: %d, want 401", r.Method, p.Status)
		}
		login := loginOf(t, &app{url: other}, b.Send(&signintest.Request{URL: other + "/me", From: other + "/page/x", Mode: "cors", Dest: "empty"}))
		p = b.Send(&signintest.Request{URL: login, Activated: true})
		if !strings.HasPrefix(p.Location(), a.url+"/oidc/login?ask=") {
			t.Errorf("the link leads to %d %s", p.Status, p.Location())
		}
		if p = b.Follow(p.Next()); p.Status != http.StatusOK || !strings.HasPrefix(p.URL, a.url+"/") {
			t.Errorf("the link ends with %d at %s", p.Status, p.URL)
		}
	}
}

// On one machine: http://localhost and http://127.0.0.1 are two hosts, too.
func TestSecondHostNameOnLoopback(t *testing.T) {
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	base := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.BaseURL = base } })
	handler = a.Handler(a.mux)
	if p := a.browser().Open(server.URL + "/page/x"); p.Status != http.StatusOK || p.URL != base+"/page/x" {
		t.Errorf("%d at %s", p.Status, p.URL)
	}
}

// A proxy that rewrites Host, as many do by default, costs one redirect, and
// no browser goes round: not one that keeps no cookies either.
func TestProxyRewritesHost(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			return proxied(t, a.Handler(mux), func(r *httputil.ProxyRequest) { r.Out.Host = "backend:8080" })
		}
	})
	const warning = "a proxy seems to rewrite Host"
	for _, page := range []string{"/page/x?q=1", "/page/y"} {
		b := a.browser()
		if p := b.Open(a.url + page); p.Status != http.StatusOK || p.URL != a.url+page {
			t.Errorf("%s ends with %d at %s", page, p.Status, p.URL)
		}
		c, _ := b.Cookie(a.url, a.browsers.secureBrowser[0])
		if regexp.MustCompile(`\.m[0-9]+\.`).MatchString(c) {
			t.Errorf("the browser cookie still remembers that it was sent: %s", c)
		}
	}
	if log := a.log.String(); strings.Count(log, warning) != 1 || !strings.Contains(log, `"host":"backend:8080","base":"app.example.test"`) {
		t.Errorf("want one warning that names both hosts: %s", log)
	}
	b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, Now: a.clock.now, NoCookies: true})
	if p := b.Open(a.url + "/page/z"); p.Err != nil || p.Status != http.StatusBadRequest || !strings.Contains(p.Body, "sent no cookie") {
		t.Errorf("without cookies: %d %v %s", p.Status, p.Err, p.URL)
	}
	// Somebody else's cookie from the future, or nonsense, is no way round.
	for _, value := range []string{"m99999999999999", "mx", "m-1", "m"} {
		b := a.browser()
		b.SetCookie(a.url, &http.Cookie{Name: a.browsers.secureBrowser[0], Value: strings.Repeat("A", 43) + "." + value, Path: "/", Secure: true})
		if p := b.Open(a.url + "/page/x"); p.Status != http.StatusOK {
			t.Errorf("%s: %d %v", value, p.Status, p.Err)
		}
	}
}

// Sign-out behind such a proxy, from browsers that send no Sec-Fetch headers.
func TestSignOutWhereHostIsRewritten(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			return proxied(t, a.Handler(mux), func(r *httputil.ProxyRequest) { r.Out.Host = "backend:8080" })
		}
	})
	for _, tc := range []struct {
		from string
		want int
	}{{a.url, http.StatusSeeOther}, {"https://evil.example", http.StatusForbidden}, {"http://app.example.test", http.StatusForbidden}} {
		b := a.signIn()
		p := b.Send(&signintest.Request{Method: "POST", URL: a.url + "/signout", From: tc.from + "/page", Form: url.Values{},
			Header: http.Header{"Sec-Fetch-Site": nil, "Sec-Fetch-Mode": nil, "Sec-Fetch-Dest": nil}})
		if p.Status != tc.want {
			t.Errorf("from %s: %d, want %d", tc.from, p.Status, tc.want)
		}
	}
}

// A trusted proxy tells which host the browser used, BaseURL or not, and a
// port is no other host.
func TestHostIsTold(t *testing.T) {
	for _, tc := range []struct {
		host, header string
		moved        bool
	}{
		{"app.example.test", "", false},
		{"app.example.test:8443", "", false},
		{"APP.example.test", "", false},
		{"backend:8080", "X-Forwarded-Host: app.example.test", false},
		{"backend:8080", "Forwarded: host=app.example.test", false},
		{"backend:8080", "X-Forwarded-Host: a b", true},
		{"app.example.test", "X-Forwarded-Host: www.app.example.test", true},
		{"app.example.test.", "", true},
		{"a b", "", false},
	} {
		t.Run(tc.host+" "+tc.header, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
			})
			r := httptest.NewRequest("GET", "/page/x", nil)
			r.Host, r.Header = tc.host, headerOf(tc.header)
			r.Header.Set("Accept", htmlAccept)
			r.Header.Set("User-Agent", "Mozilla/5.0")
			w := httptest.NewRecorder()
			a.Handler(a.mux).ServeHTTP(w, r)
			if got := w.Header().Get("Location") == a.url+"/page/x"; got != tc.moved {
				t.Errorf("%d to %.60s; sent to BaseURL's host: %t, want %t", w.Code, w.Header().Get("Location"), got, tc.moved)
			}
		})
	}
}

// What is remembered of clients without cookies is bounded, and short-lived.
func TestMovesAreBounded(t *testing.T) {
	m, now := &moves{}, time.Unix(1_800_000_000, 0)
	r := httptest.NewRequest("GET", "/page", nil)
	for range maxMoves {
		if m.tooMany(r, now) {
			t.Fatal("too many, too early")
		}
	}
	if !m.tooMany(r, now) {
		t.Error("not too many, though a browser would give up soon")
	}
	if m.tooMany(r, now.Add(movedFor)) {
		t.Error("remembered for too long")
	}
	for i := range 2 * maxClients {
		r.RequestURI = fmt.Sprint("/", i)
		m.tooMany(r, now)
	}
	if len(m.count) > maxClients {
		t.Errorf("%d clients are remembered", len(m.count))
	}
}
