package signintest

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestJarSet is which cookies are stored: from where, and with which
// attributes.
func TestJarSet(t *testing.T) {
	const (
		secure = "https://app.example.test/a/b"
		plain  = "http://app.example.test/a/b"
		local  = "http://localhost:8080/"
		ip     = "http://127.0.0.1:8080/"
	)
	for _, tc := range []struct {
		url, line string
		from      reach
		ok        bool
	}{
		{secure, "a=b", fromSameSite, true},
		{plain, "a=b", fromSameSite, true},
		{secure, "a=b; Secure", fromSameSite, true},
		{plain, "a=b; Secure", fromSameSite, false},
		{local, "a=b; Secure", fromSameSite, true},
		{ip, "a=b; Secure", fromSameSite, true},

		{secure, "__Host-a=b; Secure; Path=/", fromSameSite, true},
		{local, "__Host-a=b; Secure; Path=/", fromSameSite, true},
		{secure, "__Host-a=b; Path=/", fromSameSite, false},
		{secure, "__Host-a=b; Secure", fromSameSite, false},
		{secure, "__Host-a=b; Secure; Path=/a", fromSameSite, false},
		{secure, "__Host-a=b; Secure; Path=/; Domain=app.example.test", fromSameSite, false},
		{secure, "__hoSt-a=b; Path=/", fromSameSite, false},
		{secure, "__Secure-a=b; Secure", fromSameSite, true},
		{secure, "__Secure-a=b", fromSameSite, false},
		{plain, "__Secure-a=b; Secure", fromSameSite, false},

		{secure, "a=b; SameSite=None; Secure", fromSameSite, true},
		{secure, "a=b; SameSite=None", fromSameSite, false},
		{local, "a=b; SameSite=None; Secure", fromSameSite, true},
		{secure, "a=b; SameSite=None; Secure", fromCrossSite, true},
		{secure, "a=b", fromCrossSite, false},
		{secure, "a=b; SameSite=Lax", fromCrossSite, false},
		{secure, "a=b; SameSite=Strict", fromCrossSite, false},

		{secure, "a=b; Domain=example.test", fromSameSite, true},
		{secure, "a=b; Domain=.example.test", fromSameSite, true},
		{secure, "a=b; Domain=test", fromSameSite, false},
		{secure, "a=b; Domain=login.example.test", fromSameSite, false},
		{secure, "a=b; Domain=x.app.example.test", fromSameSite, false},
		{secure, "a=b; Domain=pp.example.test", fromSameSite, false},
		{ip, "a=b; Domain=0.0.1", fromSameSite, false},
		{ip, "a=b; Domain=127.0.0.1", fromSameSite, true},
		{local, "a=b; Domain=localhost", fromSameSite, true},

		{secure, "a=" + strings.Repeat("x", 4095), fromSameSite, true},
		{secure, "a=" + strings.Repeat("x", 4096), fromSameSite, false},
		{secure, "a=" + strings.Repeat("x", 9000), fromSameSite, false},
		{secure, "", fromSameSite, false},
		{secure, "a b=c", fromSameSite, false},
	} {
		b := NewBrowser(t, nil)
		u := must(url.Parse(tc.url))
		err := b.jar.set(u, tc.line, tc.from)
		if (err == nil) != tc.ok || (len(b.Cookies(tc.url)) == 1) != tc.ok {
			t.Errorf("%s sets %.60q (%d): %v, stored %v; want stored %v", tc.url, tc.line, tc.from, err, b.Cookies(tc.url), tc.ok)
		}
	}
	strict := NewBrowser(t, &BrowserOptions{StrictSecure: true})
	if err := strict.SetCookie(local, &http.Cookie{Name: "a", Value: "b", Secure: true}); err == nil {
		t.Error("StrictSecure stores a Secure cookie over http")
	}
}

// TestJarSend is which requests carry a stored cookie.
func TestJarSend(t *testing.T) {
	for _, tc := range []struct {
		set, line, to string
		from          reach
		sent          bool
	}{
		// Secure
		{"https://a.test/", "a=b; Secure", "https://a.test/", fromSameSite, true},
		{"https://a.test/", "a=b; Secure", "https://a.test:8443/", fromSameSite, true},
		{"https://a.test/", "a=b; Secure", "http://a.test/", fromSameSite, false},
		{"https://a.test/", "a=b", "http://a.test/", fromSameSite, true},
		{"https://localhost/", "a=b; Secure", "http://localhost:1/", fromSameSite, true},
		// Domain
		{"https://a.test/", "a=b", "https://x.a.test/", fromSameSite, false},
		{"https://x.a.test/", "a=b; Domain=a.test", "https://y.a.test/", fromSameSite, true},
		{"https://x.a.test/", "a=b; Domain=a.test", "https://a.test/", fromSameSite, true},
		{"https://x.a.test/", "a=b; Domain=a.test", "https://ba.test/", fromSameSite, false},
		{"http://127.0.0.1/", "a=b", "http://localhost/", fromSameSite, false},
		// Path
		{"https://a.test/x/y", "a=b", "https://a.test/x/z", fromSameSite, true},
		{"https://a.test/x/y", "a=b", "https://a.test/x", fromSameSite, true},
		{"https://a.test/x/y", "a=b", "https://a.test/xz", fromSameSite, false},
		{"https://a.test/x/y", "a=b", "https://a.test/", fromSameSite, false},
		{"https://a.test/x/y", "a=b; Path=/", "https://a.test", fromSameSite, true},
		{"https://a.test/", "a=b; Path=/x/", "https://a.test/x", fromSameSite, false},
		{"https://a.test/", "a=b; Path=x", "https://a.test/y", fromSameSite, true},
		// SameSite
		{"https://a.test/", "a=b", "https://a.test/", fromNavigation, true},
		{"https://a.test/", "a=b", "https://a.test/", fromCrossSite, false},
		{"https://a.test/", "a=b; SameSite=unknown", "https://a.test/", fromCrossSite, false},
		{"https://a.test/", "a=b; SameSite=Lax", "https://a.test/", fromNavigation, true},
		{"https://a.test/", "a=b; SameSite=Lax", "https://a.test/", fromCrossSite, false},
		{"https://a.test/", "a=b; SameSite=Strict", "https://a.test/", fromSameSite, true},
		{"https://a.test/", "a=b; SameSite=Strict", "https://a.test/", fromNavigation, false},
		{"https://a.test/", "a=b; SameSite=Strict", "https://a.test/", fromCrossSite, false},
		{"https://a.test/", "a=b; SameSite=None; Secure", "https://a.test/", fromCrossSite, true},
	} {
		b := NewBrowser(t, nil)
		if err := b.jar.set(must(url.Parse(tc.set)), tc.line, fromSameSite); err != nil {
			t.Fatal(err)
		}
		if sent := b.jar.header(must(url.Parse(tc.to)), tc.from) == "a=b"; sent != tc.sent {
			t.Errorf("%q of %s is sent to %s (%d): %v, want %v", tc.line, tc.set, tc.to, tc.from, sent, tc.sent)
		}
	}
}

func TestJarLife(t *testing.T) {
	const at = "https://a.test/"
	clock := NewClock()
	for _, tc := range []struct {
		attributes string
		alive      time.Duration // a moment before it ends
		dead       time.Duration
	}{
		{"", 1000 * 24 * time.Hour, 0},
		{"; Max-Age=60", 59 * time.Second, 60 * time.Second},
		{"; Max-Age=60; Expires=" + clock.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 59 * time.Second, time.Minute},
		{"; Expires=" + clock.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 59 * time.Minute, time.Hour},
		{"; Expires=Fri, 01 Jan 2100 00:00:00 GMT", maxCookieAge - 1, maxCookieAge},
		{"; Max-Age=999999999", maxCookieAge - 1, maxCookieAge},
		{"; Expires=garbage", 1000 * 24 * time.Hour, 0},
	} {
		c := NewClock()
		b := NewBrowser(t, &BrowserOptions{Now: c.Now})
		if err := b.jar.set(must(url.Parse(at)), "a=b"+tc.attributes, fromSameSite); err != nil {
			t.Fatal(err)
		}
		c.Advance(tc.alive)
		if len(b.Cookies(at)) != 1 {
			t.Errorf("%q is gone after %v", tc.attributes, tc.alive)
		}
		c.Advance(tc.dead - tc.alive)
		if tc.dead != 0 && len(b.Cookies(at)) != 0 {
			t.Errorf("%q is still there after %v", tc.attributes, tc.dead)
		}
	}

	b := NewBrowser(t, nil)
	set := func(lines ...string) {
		t.Helper()
		for _, l := range lines {
			if err := b.jar.set(must(url.Parse(at)), l, fromSameSite); err != nil {
				t.Fatal(err)
			}
		}
	}
	set("a=1", "b=2; Max-Age=60", "c=3; Path=/x", `q="quoted"`, "a=4")
	if got := b.jar.header(must(url.Parse(at+"x")), fromSameSite); got != `c=3; a=4; b=2; q="quoted"` {
		t.Errorf("Cookie: %s", got)
	}
	copied := b.Clone()
	b.Restart()
	if got := b.jar.header(must(url.Parse(at)), fromSameSite); got != "b=2" {
		t.Errorf("after a restart: %s", got)
	}
	for _, end := range []string{"b=; Max-Age=0", "b=; Max-Age=-1", "b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"} {
		set("b=2", end)
		if _, ok := b.Cookie(at, "b"); ok {
			t.Errorf("%q does not remove", end)
		}
	}
	if v, ok := copied.Cookie(at, "a"); !ok || v != "4" {
		t.Errorf("the clone has lost a cookie: %q", v)
	}
	copied.ClearCookies()
	if len(copied.Cookies(at)) != 0 {
		t.Error("ClearCookies leaves some")
	}
	for n := range 200 {
		set(fmt.Sprintf("n%d=1", n))
	}
	if _, first := b.Cookie(at, "n0"); first || len(b.Cookies(at)) != maxCookiesOnSite {
		t.Errorf("%d cookies, the first still there: %v", len(b.Cookies(at)), first)
	}
}

// TestJarLeavesSecureAlone: an insecure page must not plant a cookie in place
// of a Secure one.
func TestJarLeavesSecureAlone(t *testing.T) {
	b := NewBrowser(t, nil)
	if err := b.SetCookie("https://a.test/", &http.Cookie{Name: "a", Value: "good", Secure: true, Path: "/"}); err != nil {
		t.Fatal(err)
	}
	if err := b.SetCookie("http://a.test/", &http.Cookie{Name: "a", Value: "evil", Path: "/"}); err == nil {
		t.Error("overwritten from http")
	}
	if v, _ := b.Cookie("https://a.test/", "a"); v != "good" {
		t.Errorf("the cookie is %q", v)
	}
	if err := b.SetCookie("http://a.test/", &http.Cookie{Name: "other", Value: "x", Path: "/"}); err != nil {
		t.Error(err)
	}
}
