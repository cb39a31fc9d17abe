package signin

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// stateOf opens a page until the browser is about to go to the issuer, and
// returns the state parameter of that request.
func stateOf(t *testing.T, a *app, b *signintest.Browser, page string) (*signintest.Request, string) {
	t.Helper()
	p, r := b.OpenUntil(page, func(r *signintest.Request) bool { return strings.HasPrefix(r.URL, a.issuer.URL()) })
	if r == nil {
		t.Fatalf("%.80s did not lead to the issuer but to %d %.80s", page, p.Status, p.URL)
	}
	_, query, _ := strings.Cut(r.URL, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if state, ok := strings.CutPrefix(pair, "state="); ok {
			return r, state
		}
	}
	t.Fatalf("no state in %.200s", r.URL)
	return nil, ""
}

// noise is a query that does not compress.
func noise(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_%2F"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rand.IntN(64)]
	}
	return string(b)
}

// Whatever the page's address, the state parameter is short, and the browser
// comes back to that address.
func TestStateIsShort(t *testing.T) {
	for _, flow := range flows {
		t.Run(flow.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.config = flow.config })
			for _, page := range []string{
				"/page/x?q=" + noise(200), "/page/x?q=" + noise(700), "/page/x?q=" + noise(1000), "/page/x?q=" + noise(2000),
				"/page/" + noise(1900), "/page/" + noise(1500) + "?q=" + noise(500), `/page/x?q=` + strings.Repeat(`\`, 2000),
			} {
				b := a.browser()
				r, state := stateOf(t, a, b, a.url+page)
				if len(state) > 1500 {
					t.Errorf("a page of %d bytes makes a state of %d", len(page), len(state))
				}
				if p := b.Follow(r); p.Status != http.StatusOK || p.URL != a.url+page {
					t.Errorf("%d at %.60s (%d bytes), want %.60s (%d)", p.Status, p.URL, len(p.URL), page, len(page))
				}
				for _, c := range b.Cookies(a.url) {
					if strings.Contains(c.Name, "-return-") {
						t.Errorf("%s is still there after the answer", c.Name)
					}
				}
			}
			if strings.Contains(a.log.String(), "lost its query") {
				t.Error("the log says that something was lost")
			}
		})
	}
}

func TestAsideCookie(t *testing.T) {
	a := newApp(t)
	p := a.browser().Send(&signintest.Request{URL: a.url + "/page/x?q=" + noise(2000), Activated: true})
	if len(p.Rejected) > 0 {
		t.Error(p.Rejected)
	}
	var c *http.Cookie
	for _, line := range p.Header.Values("Set-Cookie") {
		if strings.Contains(line, "-return-") {
			c, _ = http.ParseSetCookie(line)
		}
	}
	if c == nil || !strings.HasPrefix(c.Name, "__Host-signin-return-") || !c.HttpOnly || !c.Secure || c.Path != "/" || c.Domain != "" ||
		c.SameSite != http.SameSiteNoneMode || c.MaxAge != int(stateLifetime.Seconds()) || len(c.Value) > 2500 {
		t.Errorf("%+v", c)
	}
	if strings.Contains(c.Value, "page") {
		t.Error("the cookie is not sealed")
	}
	// A short page needs none.
	p = a.browser().Send(&signintest.Request{URL: a.url + "/page/x?q=" + noise(300), Activated: true})
	if n := len(p.Header.Values("Set-Cookie")); n != 1 {
		t.Errorf("%d cookies for a short page", n)
	}
	a = newApp(t, func(o *appOptions) { o.config = flows[2].config })
	p = a.browser().Send(&signintest.Request{URL: a.url + "/page/x?q=" + noise(2000), Activated: true})
	for _, line := range p.Header.Values("Set-Cookie") {
		if c, _ := http.ParseSetCookie(line); c == nil || c.SameSite != http.SameSiteLaxMode || !c.Secure {
			t.Errorf("in query mode: %.120s", line)
		}
	}
}

// Three long pages wait at most, and the oldest goes: its tab ends on the page
// without the query.
func TestAsideIsBounded(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	var begun []*signintest.Request
	var pages []string
	for i := range 5 {
		page := fmt.Sprintf("/page/%d?q=%s", i, noise(1900))
		r, _ := stateOf(t, a, b, a.url+page)
		begun, pages = append(begun, r), append(pages, page)
		a.clock.advance(1e9)
		waiting, length := 0, 0
		for _, c := range b.Cookies(a.url) {
			if strings.Contains(c.Name, "-return-") {
				waiting, length = waiting+1, length+len(c.Name)+len(c.Value)
			}
		}
		if want := min(i+1, 3); waiting != want || length > 7500 {
			t.Errorf("%d long pages wait in %d bytes, want %d", waiting, length, want)
		}
	}
	for i, r := range begun {
		want := a.url + pages[i]
		if i < 2 {
			want = fmt.Sprintf("%s/page/%d", a.url, i)
		}
		if p := b.Follow(r); p.Status != http.StatusOK || p.URL != want {
			t.Errorf("tab %d: %d at %.60s (%d bytes), want %.60s (%d)", i, p.Status, p.URL, len(p.URL), want, len(want))
		}
	}
	if !strings.Contains(a.log.String(), "lost its query") {
		t.Error("the log does not say what was lost")
	}
}

// The cookie is the challenge's: another's does not open, and neither does
// what a client makes up. Where it leads is checked like any return path.
func TestAsideIsBound(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	one, _ := stateOf(t, a, b, a.url+"/page/one?q="+noise(1900))
	first := map[string]string{}
	for _, c := range b.Cookies(a.url) {
		first[c.Name] = c.Value
	}
	two, _ := stateOf(t, a, b, a.url+"/page/two?q="+noise(1900))
	for _, c := range b.Cookies(a.url) {
		if strings.Contains(c.Name, "-return-") && first[c.Name] == "" {
			for name, value := range first {
				if strings.Contains(name, "-return-") {
					b.SetCookie(a.url, &http.Cookie{Name: c.Name, Value: value, Path: "/", Secure: true, SameSite: http.SameSiteNoneMode})
				}
			}
		}
	}
	if p := b.Follow(two); p.URL != a.url+"/page/two" {
		t.Errorf("another challenge's path: %d at %.80s", p.Status, p.URL)
	}
	for name := range first {
		if strings.Contains(name, "-return-") {
			b.SetCookie(a.url, &http.Cookie{Name: name, Value: "L2V2aWw", Path: "/", Secure: true, SameSite: http.SameSiteNoneMode})
		}
	}
	if p := b.Follow(one); p.URL != a.url+"/page/one" {
		t.Errorf("a made-up path: %d at %.80s", p.Status, p.URL)
	}

	r := httptest.NewRequest("GET", a.url, nil)
	s := a.states.aside(r)
	for _, evil := range []string{"//evil.example", `/\evil.example`, "https://evil.example/", ""} {
		tx := &transaction{ID: make([]byte, 16), Aside: true}
		w := httptest.NewRecorder()
		s.put(w, r, tx, evil)
		back := httptest.NewRequest("GET", a.url, nil)
		for _, c := range w.Result().Cookies() {
			back.AddCookie(c)
		}
		if got := site.NewReturnPath(s.fetch(httptest.NewRecorder(), back, tx)).String(); got != "/" {
			t.Errorf("%q came back as %q", evil, got)
		}
	}
}

// A doubled answer ends on the same page, though the first one has taken the
// cookie away: the second was sent with it.
func TestAsideOfDoubledAnswer(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	page := "/page/x?q=" + noise(1900)
	r := a.toCallback(b, page)
	twin := b.Clone()
	for _, b := range []*signintest.Browser{b, twin} {
		if p := b.Follow(r.Clone()); p.Status != http.StatusOK || p.URL != a.url+page {
			t.Errorf("%d at %.60s", p.Status, p.URL)
		}
	}
	if a.redemptions() != 1 {
		t.Errorf("%d redemptions", a.redemptions())
	}
}

// On loopback, too, where a twin without Secure serves the strictest clients.
func TestAsideOnLoopback(t *testing.T) {
	for _, strict := range []bool{false, true} {
		for _, flow := range flows {
			t.Run(fmt.Sprint(flow.name, strict), func(t *testing.T) {
				a := newApp(t, func(o *appOptions) {
					o.issuerURL, o.appURL = "http://localhost", "http://localhost"
					o.config = func(c *Config) { flow.config(c); c.BaseURL = "" }
				})
				b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, StrictSecure: strict})
				page := a.url + "/page/x?q=" + noise(1900)
				if p := b.Open(page); p.Status != http.StatusOK || p.URL != page {
					t.Errorf("%d at %.60s %s", p.Status, p.URL, lastCause(a))
				}
				for _, c := range b.Cookies(a.url) {
					if strings.Contains(c.Name, "-return-") {
						t.Errorf("%s is still there", c.Name)
					}
				}
			})
		}
	}
}
