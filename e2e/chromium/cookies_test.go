package chromium

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"

	"github.com/seed454743b5/signin/signintest"
)

// A browser that blocks all cookies gets a page that says so, after one visit
// to the issuer: in such a browser nothing can be counted.
func TestCookiesBlocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// What the browser's own settings page writes.
	preferences := filepath.Join(dir, "Default", "Preferences")
	if err := os.MkdirAll(filepath.Dir(preferences), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(preferences, []byte(`{"profile":{"default_content_setting_values":{"cookies":2}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	browser, stop, err := launch(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)

	d := startDemoAt(t)
	b := profileIn(t, browser).first
	b.open(d.url + "/me")
	b.heading("Your browser sent no cookie")
	if status := b.status(); status != http.StatusBadRequest {
		t.Errorf("status %d, want 400", status)
	}
	if n := d.issuer.Count(signintest.EndpointAuthorize); n != 1 {
		t.Errorf("%d visits to the issuer, want 1", n)
	}
	if n := d.issuer.Count(signintest.EndpointToken); n != 0 {
		t.Errorf("%d token requests, want none", n)
	}
	b.press("Try again")
	b.heading("Your browser sent no cookie")
	b.waitFor("the second visit", func() bool { return d.issuer.Count(signintest.EndpointAuthorize) == 2 })
}

// To block third-party cookies, as many do, must not keep anybody out: the
// issuer's answer is a navigation, not a third party.
func TestThirdPartyCookiesBlocked(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	d.page("/test/other", "<h1>other</h1>")
	b := newProfile(t).first
	tell(b, network.Enable, network.EnableParams{})
	tell(b, network.SetCookieControls, network.SetCookieControlsParams{EnableThirdPartyCookieRestriction: true})
	b.open(d.url + "/me")
	b.at(d.url+"/me", signedIn)

	// The same front by another name is a third party, and cookies are blocked.
	b.open(strings.Replace(d.url, "localhost", "127.0.0.1", 1) + "/test/other")
	b.heading("other")
	eval[bool](b, `fetch(`+quoted(d.url+"/healthz")+`, {mode: "no-cors", credentials: "include"}).then(() => true)`)
	for _, e := range d.requests("/healthz") {
		if e.sent("signin-browser") {
			t.Error("third-party cookies are not blocked, so this test shows nothing")
		}
	}
}

// The session cookie never arrives: after three sign-ins that came to nothing
// there is a page that says what to check, and its "try again" works once the
// cause is gone.
func TestLoop(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	b := newProfile(t).first
	d.tamper(dropCookie("signin"))
	b.open(d.url + "/me")
	b.heading("Sign-in keeps failing")
	if n := d.issuer.Count(signintest.EndpointAuthorize); n != 3 {
		t.Errorf("%d visits to the issuer, want 3", n)
	}
	if status := b.status(); status != http.StatusForbidden {
		t.Errorf("status %d, want 403", status)
	}
	d.tamper(nil)
	b.press("Try again")
	b.at(d.url+"/me", signedIn)

	// Who loses the cookie after each sign-in, by a cleaner say, did get to see
	// the page each time: that is no loop.
	for range 4 {
		b.forget("signin", d.url)
		b.open(d.url + "/me")
		b.at(d.url+"/me", signedIn)
	}
}

// The cookies that a sign-in leaves, as the browser keeps them.
func TestCookieAttributes(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	p := newProfile(t)
	p.first.open(d.url + "/me")
	p.first.at(d.url+"/me", signedIn)
	if readable := eval[string](p.first, `document.cookie`); readable != "" {
		t.Errorf("a script can read %q", readable)
	}
	for name, value := range p.cookies() {
		if len(value) > 200 {
			t.Errorf("cookie %s has %d bytes, want at most 200", name, len(value))
		}
	}
	for _, name := range []string{"signin", "signin-browser"} {
		if p.cookies()[name] == "" {
			t.Errorf("no cookie %s: %v", name, p.cookies())
		}
	}
}
