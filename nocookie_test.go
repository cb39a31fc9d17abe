package signin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// A bookmark of the issuer's login page, opened the next day: the browser has
// lost the cookie and the state has expired. It leads to the page all the same.
func TestBookmarkedLoginPage(t *testing.T) {
	for _, flow := range flows {
		t.Run(flow.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.config = flow.config })
			b := a.browser()
			const page = `/page/7?year=2024&path=C:\x`
			bookmark, _ := stateOf(t, a, b, a.url+page)
			b.Restart()
			a.clock.advance(stateLifetime + time.Second)
			if p := b.Open(bookmark.URL); p.Status != http.StatusOK || p.URL != a.url+page {
				t.Errorf("%d at %s: %s", p.Status, p.URL, lastCause(a))
			}
			// Opened at once, nothing tells it from blocked cookies but the page's
			// link, which leads there.
			b = a.browser()
			bookmark, _ = stateOf(t, a, b, a.url+page)
			b.Restart()
			p := b.Open(bookmark.URL)
			wantPage(t, a, p, http.StatusBadRequest, PageNoCookies)
			if p = b.Click(p, p.Link("Try")); p.Status != http.StatusOK || p.Header.Get("Location") != "" {
				t.Errorf("the link leads to %d at %s", p.Status, p.URL)
			}
		})
	}
}

// An office program opens a link by itself, is sent to the issuer, and hands
// that address to the user's browser.
func TestLinkInOfficeDocument(t *testing.T) {
	a := newApp(t)
	office := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, Now: a.clock.now,
		UserAgent: "Mozilla/4.0 (compatible; ms-office; MSOffice rmj)"})
	handed, _ := stateOf(t, a, office, a.url+"/page/7?year=2024")
	b := a.browser()
	if p := b.Open(handed.URL); p.Status != http.StatusOK || p.URL != a.url+"/page/7?year=2024" {
		t.Errorf("%d at %s: %s", p.Status, p.URL, lastCause(a))
	}
	if n := a.redemptions(); n != 1 {
		t.Errorf("%d redemptions, want the browser's own only", n)
	}
	// Signed in already: no second visit to the issuer but the one handed over.
	handed, _ = stateOf(t, a, office, a.url+"/page/8")
	before := a.issuer.Count(signintest.EndpointAuthorize)
	if p := b.Open(handed.URL); p.URL != a.url+"/page/8" || a.issuer.Count(signintest.EndpointAuthorize) != before+1 {
		t.Errorf("%d at %s", p.Status, p.URL)
	}
	// A browser that refuses cookies is told so after one visit of its own.
	blocked := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, NoCookies: true})
	handed, _ = stateOf(t, a, office, a.url+"/page/9")
	before = a.issuer.Count(signintest.EndpointAuthorize)
	wantPage(t, a, blocked.Open(handed.URL), http.StatusBadRequest, PageNoCookies)
	if n := a.issuer.Count(signintest.EndpointAuthorize) - before; n != 2 {
		t.Errorf("%d visits to the issuer, want the one handed over and its own", n)
	}
}

// Nobody is signed in by an answer without the cookie, however old its state
// or whatever its User-Agent.
func TestAnswerWithoutCookieSpendsNothing(t *testing.T) {
	a := newApp(t)
	for name, change := range map[string]func(*signintest.Request){
		"old":     func(*signintest.Request) { a.clock.advance(2 * stateLifetime) },
		"another": func(r *signintest.Request) { r.Header = http.Header{"User-Agent": {"another"}} },
		"fresh":   func(*signintest.Request) {},
	} {
		r := a.toCallback(a.browser(), "/page/x")
		change(r)
		b := a.browser()
		p := b.Send(r)
		if p.Status < 300 || a.redemptions() != 0 || len(p.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: %d, %d redemptions, cookies %q", name, p.Status, a.redemptions(), p.Header.Values("Set-Cookie"))
		}
	}
}

// The log blames what is to blame.
func TestNoCookieCause(t *testing.T) {
	a, other := secondHost(t, "https://app.example.test", "https://www.app.example.test")
	b := a.browser()
	p := b.Send(&signintest.Request{URL: other + "/page/x", Activated: true})
	stay := p.Sent.Clone() // as behind a proxy that rewrites Host: it stays here
	_, r := b.FollowUntil(stay, signintest.To("/oidc/callback"))
	wantPage(t, a, a.browser().Send(r), http.StatusBadRequest, PageNoCookies)
	if cause := lastCause(a); !strings.Contains(cause, "under the host www.app.example.test, and BaseURL's is app.example.test") {
		t.Errorf("cause %q", cause)
	}
	r = a.toCallback(a.browser(), "/page/x")
	wantPage(t, a, a.browser().Send(r), http.StatusBadRequest, PageNoCookies)
	if cause := lastCause(a); !strings.Contains(cause, "blocked or were deleted") || strings.Contains(cause, "host") {
		t.Errorf("cause %q", cause)
	}
}

// A browser that keeps no Secure cookie over plain http cannot get a form_post
// of another site. It is told before it goes to the issuer, and so is the log
// what to set; with that set, it signs in.
func TestNoSecureCookieOverHTTP(t *testing.T) {
	start := func(t *testing.T, config func(*Config)) *app {
		return newApp(t, func(o *appOptions) {
			o.issuerURL, o.appURL = "https://login.example.test", "http://localhost"
			o.config = func(c *Config) { config(c); c.BaseURL = "" }
		})
	}
	const chromium, firefox = "", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	t.Run("Safari", func(t *testing.T) {
		a := start(t, flows[0].config)
		b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, StrictSecure: true})
		p := b.Open(a.url + "/page/x")
		wantPage(t, a, p, http.StatusBadRequest, PageNoSecureCookies)
		if n := a.issuer.Count(signintest.EndpointAuthorize); n != 0 {
			t.Errorf("%d visits to the issuer, want none", n)
		}
		for _, text := range []string{p.Body, lastCause(a)} {
			if !strings.Contains(text, "https") || !strings.Contains(text, "ResponseMode") || !strings.Contains(text, "query") {
				t.Errorf("does not say what to set: %s", text)
			}
		}
		wantPage(t, a, b.Open(a.url+"/page/x"), http.StatusBadRequest, PageNoSecureCookies)
	})
	t.Run("a Safari that keeps them", func(t *testing.T) {
		a := start(t, flows[0].config)
		b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, UserAgent: safariAgent})
		if p := b.Open(a.url + "/page/x?q=1"); p.Status != http.StatusOK || p.URL != a.url+"/page/x?q=1" {
			t.Errorf("%d at %s", p.Status, p.URL)
		}
	})
	t.Run("a Safari without cookies", func(t *testing.T) {
		a := start(t, flows[0].config)
		b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, StrictSecure: true, NoCookies: true})
		wantPage(t, a, b.Open(a.url+"/page/x"), http.StatusBadRequest, PageNoCookies)
	})
	t.Run("a browser of another name", func(t *testing.T) {
		a := start(t, flows[0].config)
		b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, StrictSecure: true, UserAgent: firefox})
		p := b.Open(a.url + "/page/x")
		wantPage(t, a, p, http.StatusBadRequest, PageNoCookies)
		if !strings.Contains(lastCause(a), `ResponseMode "query"`) {
			t.Errorf("cause %q", lastCause(a))
		}
		// Now its cookies tell.
		wantPage(t, a, b.Click(p, p.Link("Try")), http.StatusBadRequest, PageNoSecureCookies)
	})
	for i, agent := range []string{chromium, firefox} {
		t.Run(fmt.Sprint("not a Safari ", i), func(t *testing.T) {
			a := start(t, flows[0].config)
			b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, UserAgent: agent})
			if p := b.Send(&signintest.Request{URL: a.url + "/page/x", Activated: true}); !strings.HasPrefix(p.Location(), a.issuer.URL()) {
				t.Errorf("%d to %s, want the issuer at once", p.Status, p.Location())
			}
		})
	}
	t.Run("with query mode", func(t *testing.T) {
		a := start(t, flows[2].config)
		b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, StrictSecure: true})
		if p := b.Open(a.url + "/page/x"); p.Status != http.StatusOK {
			t.Errorf("%d: %s", p.Status, lastCause(a))
		}
	})
}

const safariAgent = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"
