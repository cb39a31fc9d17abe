package chromium

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// signedIn is the heading of /me for the user of the counting issuer.
const signedIn = "You are Alice Example"

// A callback whose answer got lost is sent again by Reload. The code must not
// be: the person lands signed in, with one token request.
func TestReloadOfTheCallback(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"form_post", "query"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := startDemoAt(t, "OIDC_RESPONSE_TYPE", "code", "OIDC_RESPONSE_MODE", mode)
			b := newProfile(t).first
			var lost atomic.Int64
			d.tamper(func(r *http.Response) error {
				if strings.HasPrefix(r.Request.URL.Path, "/oidc/callback") {
					lost.Add(1)
					return errors.New("lost on its way")
				}
				return nil
			})
			b.open(d.url + "/me")
			b.waitFor("the browser's own error page", func() bool {
				shown, err := try[string](b, `document.readyState == "complete" ? document.documentElement.innerText : ""`)
				return err == nil && lost.Load() > 0 && strings.Contains(shown, "ERR_")
			})
			d.tamper(nil)
			b.reload()
			b.heading(signedIn)
			b.wait("the page asked for", `location.href == `+quoted(d.url+"/me"))
			if n := d.issuer.Count(signintest.EndpointToken); n != 1 {
				t.Errorf("%d token requests for one code, want 1", n)
			}
			if n := d.issuer.Count(signintest.EndpointAuthorize); n != 1 {
				t.Errorf("%d visits to the issuer, want 1", n)
			}
			if got := len(d.requests("/oidc/callback")); got < 2 {
				t.Errorf("%d callbacks, want the reload to send it again", got)
			}
		})
	}
}

// The callback's URL, kept from the history of a query sign-in, leads to the
// page and not to a dead end, whether or not the session is still there.
func TestOldCallback(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t, "OIDC_RESPONSE_TYPE", "code", "OIDC_RESPONSE_MODE", "query")
	b := newProfile(t).first
	b.open(d.url + "/me")
	b.at(d.url+"/me", signedIn)
	old := d.url + d.requests("/oidc/callback")[0].URI

	b.open(d.url + "/")
	b.heading("Hello, Alice Example")
	b.open(old)
	b.at(d.url+"/me", signedIn)
	if n := d.issuer.Count(signintest.EndpointToken); n != 1 {
		t.Errorf("opening an old callback: %d token requests, want 1", n)
	}

	b.press("Sign out")
	b.at(d.url+"/", "Sign in and call an API")
	visits := d.issuer.Count(signintest.EndpointAuthorize)
	b.open(old)
	b.at(d.url+"/me", signedIn) // by a new sign-in: this issuer asks for nothing
	if n := d.issuer.Count(signintest.EndpointAuthorize); n != visits+1 {
		t.Errorf("an old callback after the sign-out: %d new visits to the issuer, want 1", n-visits)
	}
	redeemed := map[string]int{}
	for _, c := range d.issuer.Calls(signintest.EndpointToken) {
		redeemed[c.Form.Get("code")]++
	}
	for code, n := range redeemed {
		if n != 1 || code == "" {
			t.Errorf("a code was redeemed %d times", n)
		}
	}
}

// A person who double clicks gets where one click leads.
func TestDoubleClick(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	b := newProfile(t).first
	b.open(d.url + "/")
	b.heading("Sign in and call an API")
	b.doublePress("Sign in")
	b.at(d.url+"/me", signedIn)

	b.open(d.url + "/tokens")
	b.heading("Tokens held for you")
	b.doublePress("Calendar and files")
	b.at(d.url+"/tokens", "Tokens held for you")
	b.wait("the new scopes", `document.body.innerText.includes("files.read")`)

	b.open(d.url + "/me")
	b.at(d.url+"/me", signedIn)
	b.doublePress("Sign out")
	b.at(d.url+"/", "Sign in and call an API")
}

// A browser that restores its tabs opens them all at once, without a single
// cookie. Every tab ends on its own page.
func TestRestoredTabs(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	p := newProfile(t)
	pages := []struct{ path, heading string }{
		{"/me", signedIn}, {"/me?second", signedIn}, {"/tokens", "Tokens held for you"},
		{"/mail", "Send a mail"}, {"/mail?x=1", "Send a mail"}, {"/me?third=%2F%3D", signedIn},
	}
	tabs := make([]*tab, len(pages))
	for i := range pages {
		if tabs[i] = p.first; i > 0 {
			tabs[i] = p.tab()
		}
	}
	// All of them are under way before the first is answered.
	opened := make(chan error, len(pages))
	for i, b := range tabs {
		go func() {
			_, err := try[bool](b, `location.href = `+quoted(d.url+pages[i].path)+`, true`)
			opened <- err
		}()
	}
	for range tabs {
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range tabs {
		b.at(d.url+pages[i].path, pages[i].heading)
	}
	// One sign-in for each tab would do; a tab that lost the race for the
	// browser cookie may need one more visit.
	if n := d.issuer.Count(signintest.EndpointAuthorize); n > 2*len(pages) {
		t.Errorf("%d visits to the issuer for %d tabs", n, len(pages))
	}
}

// With a provider that asks for a password, the tabs wait there together, and
// are answered one after the other.
func TestRestoredTabsByHand(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	p := newProfile(t)
	paths := []string{"/me", "/tokens", "/mail"}
	headings := []string{"You are Alice Liddell", "Tokens held for you", "Send a mail"}
	tabs := []*tab{p.first, p.tab(), p.tab()}
	for i, b := range tabs {
		b.open(d.url + paths[i])
	}
	for _, b := range tabs {
		b.heading("Sign in")
	}
	for i, b := range tabs {
		login(b)
		b.heading("Allow access?")
		b.press("Allow")
		b.at(d.url+paths[i], headings[i])
	}
}
