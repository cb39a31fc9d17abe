package signin

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// Two hundred tabs wait for their sign-in at once. Each can be finished, in
// any order, and what the browser sends does not grow with their number.
func TestParallelTabs(t *testing.T) {
	const tabs = 200
	var longest atomic.Int64
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) { b.Alg = "ES256" }
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			h := a.Handler(mux)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := int64(len(strings.Join(r.Header["Cookie"], "; ")))
				longest.Store(max(longest.Load(), n))
				h.ServeHTTP(w, r)
			})
		}
	})
	b := a.browser()
	begun := make([]*signintest.Request, tabs)
	for i := range begun {
		begun[i] = a.toCallback(b, fmt.Sprintf("/page/%d?tab=%d", i, i))
	}
	if n := longest.Load(); n == 0 || n > 120 {
		t.Errorf("with %d challenges outstanding the cookies had up to %d bytes, want those of one", tabs, n)
	}
	for _, i := range rand.Perm(tabs) {
		want := fmt.Sprintf("page /page/%d?tab=%d", i, i)
		if p := b.Follow(begun[i]); p.Status != http.StatusOK || p.Body != want {
			t.Fatalf("tab %d: %d %.300s, want %s", i, p.Status, p.Body, want)
		}
	}
	if n := a.redemptions(); n != tabs {
		t.Errorf("%d redemptions, want %d", n, tabs)
	}
	if n := longest.Load(); n > 400 {
		t.Errorf("the cookies had up to %d bytes", n)
	}
}

// A restored browser asks for all its pages before it has a cookie: each
// answer sets another one, and the last one stays. All tabs end on the page
// they asked for all the same, also when the ones with a lost cookie come
// back first.
func TestRestoredTabs(t *testing.T) {
	const tabs = 10
	var together sync.WaitGroup
	together.Add(tabs)
	var first atomic.Int64
	a := newApp(t, func(o *appOptions) {
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			h := a.Handler(mux)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/page/") && first.Add(1) <= tabs {
					if r.Header.Get("Cookie") != "" {
						t.Error("a first request carries a cookie")
					}
					together.Done()
					together.Wait()
				}
				h.ServeHTTP(w, r)
			})
		}
	})
	b := a.browser()
	begun := make([]*signintest.Request, tabs)
	var open sync.WaitGroup
	for i := range begun {
		open.Go(func() {
			_, begun[i] = b.OpenUntil(fmt.Sprintf("%s/page/%d", a.url, i), signintest.To("/oidc/callback"))
		})
	}
	open.Wait()
	// All answers arrive before any of their pages is asked for.
	answers := make([]*signintest.Page, tabs)
	for i, r := range begun {
		if r == nil {
			t.Fatalf("tab %d did not reach its callback", i)
		}
		if answers[i] = b.Send(r); answers[i].Status != http.StatusSeeOther {
			t.Fatalf("tab %d: %d %.300s", i, answers[i].Status, answers[i].Body)
		}
	}
	if stale := tabs - a.redemptions(); stale != tabs-1 {
		t.Errorf("%d of %d answers were another cookie's, want all but one", stale, tabs)
	}
	// The one that signed in is not there yet for the others.
	b.SetCookie(a.url, &http.Cookie{Name: a.sess.secureCookie, Value: "lost", Path: "/", Secure: true})
	for i, p := range answers {
		if p = b.Follow(p.Next()); p.Status != http.StatusOK || p.Body != fmt.Sprintf("page /page/%d", i) {
			t.Errorf("tab %d: %d %s %.300s", i, p.Status, p.URL, p.Body)
		}
	}
}

// The same without any order: whatever the interleaving, nobody meets an
// error page.
func TestRestoredTabsAtOnce(t *testing.T) {
	a := newApp(t)
	for range 5 {
		b := a.browser()
		var open sync.WaitGroup
		for i := range 8 {
			open.Go(func() {
				if p := b.Open(fmt.Sprintf("%s/page/%d", a.url, i)); p.Status != http.StatusOK || p.Body != fmt.Sprintf("page /page/%d", i) {
					t.Errorf("tab %d: %d %v %s %.300s", i, p.Status, p.Err, p.URL, p.Body)
				}
			})
		}
		open.Wait()
	}
}

// A tab that waits at the issuer while another signs in and out begins anew
// when it comes back, and no code is spent on what it brings.
func TestTabFromBeforeSignOut(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	waiting := a.toCallback(b, "/page/waiting")
	if got := a.subject(b); got != "alice" {
		t.Fatal(got)
	}
	p := b.Submit(b.Open(a.url+"/signout"), nil)
	if p.Status != http.StatusOK {
		t.Fatalf("sign-out: %d", p.Status)
	}
	before := a.redemptions()
	if p := b.Send(waiting); p.Status != http.StatusSeeOther || p.Location() != a.url+"/page/waiting" || a.redemptions() != before {
		t.Errorf("the old tab's callback: %d to %q and %d redemptions; want 303 to its page and none", p.Status, p.Location(), a.redemptions()-before)
	}
	if p := b.Open(a.url + "/page/waiting"); p.Body != "page /page/waiting" {
		t.Errorf("%d %.300s", p.Status, p.Body)
	}
}

// forgetful is an application behind something that loses the session cookie.
func forgetful(on *atomic.Bool) func(o *appOptions) {
	return func(o *appOptions) {
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			h := a.Handler(mux)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if on.Load() {
					cookies := r.Cookies()
					r.Header.Del("Cookie")
					for _, c := range cookies {
						if c.Name != a.sess.secureCookie {
							r.AddCookie(c)
						}
					}
				}
				h.ServeHTTP(w, r)
			})
		}
	}
}

func TestLoopBreaker(t *testing.T) {
	var losing atomic.Bool
	losing.Store(true)
	a := newApp(t, forgetful(&losing))
	b := a.browser()
	p := b.Open(a.url + "/page/x?q=1")
	if p.Status != http.StatusForbidden || !strings.Contains(p.Body, "Sign-in keeps failing") {
		t.Fatalf("%d %.300s, want the page about the loop", p.Status, p.Body)
	}
	if n := a.redemptions(); n != 3 {
		t.Errorf("%d round trips before the page, want 3", n)
	}
	// The page's link tries again, as often as before.
	if p = b.Click(p, p.Link("Try again")); p.Status != http.StatusForbidden || a.redemptions() != 6 {
		t.Errorf("trying again with the cause still there: %d after %d round trips, want 403 after 6", p.Status, a.redemptions())
	}
	losing.Store(false)
	if p = b.Click(p, p.Link("Try again")); p.Status != http.StatusOK || p.Body != "page /page/x?q=1" {
		t.Errorf("trying again with the cause gone: %d %.300s", p.Status, p.Body)
	}
	if a.redemptions() != 7 {
		t.Errorf("%d redemptions, want 7", a.redemptions())
	}
}

// A loop that goes round slower than three times a minute is a user's own.
func TestLoopBreakerWindow(t *testing.T) {
	var losing atomic.Bool
	losing.Store(true)
	a := newApp(t, forgetful(&losing))
	b := a.browser()
	for trip := range 6 {
		r := a.toCallback(b, "/page/x")
		if p := b.Send(r); p.Status != http.StatusSeeOther {
			t.Fatalf("trip %d: %d", trip, p.Status)
		}
		a.clock.advance(25 * time.Second)
	}
}

func TestChallengesBegunDoNotCount(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	for range 20 {
		if p := b.Send(&signintest.Request{URL: a.url + "/page/x", Activated: true}); p.Status != http.StatusSeeOther {
			t.Fatalf("%d, want 303", p.Status)
		}
	}
	if got := a.subject(b); got != "alice" {
		t.Error(got)
	}
}

// What people do in a minute is no loop.
func TestOrdinaryUseIsNoLoop(t *testing.T) {
	t.Run("in and out", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		for i := range 6 {
			if got := a.subject(b); got != "alice" {
				t.Fatalf("%d: %s", i, got)
			}
			if p := b.Submit(b.Open(a.url+"/signout"), nil); p.Status != http.StatusOK {
				t.Fatalf("%d: sign-out %d", i, p.Status)
			}
		}
	})
	t.Run("the cookie breaks", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		for i := range 6 {
			if got := a.subject(b); got != "alice" {
				t.Fatalf("%d: %s", i, got)
			}
			if err := b.SetCookie(a.url, &http.Cookie{Name: a.sess.secureCookie, Value: "broken", Path: "/", Secure: true}); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("changing accounts by a link", func(t *testing.T) {
		a := newApp(t)
		b := a.signIn()
		for i := range 6 {
			if p := b.Open(a.url + "/oidc/login"); p.Status != http.StatusOK || p.Body != "public" {
				t.Fatalf("%d: %d %.300s", i, p.Status, p.Body)
			}
		}
	})
	t.Run("200 tabs, then another sign-in", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		var begun []*signintest.Request
		for range 5 {
			begun = append(begun, a.toCallback(b, "/page/x"))
		}
		for i, r := range begun {
			if p := b.Send(r); p.Status != http.StatusSeeOther {
				t.Fatalf("%d: %d", i, p.Status)
			}
		}
		b.SetCookie(a.url, &http.Cookie{Name: a.sess.secureCookie, Value: "broken", Path: "/", Secure: true})
		if got := a.subject(b); got != "alice" {
			t.Error(got)
		}
	})
}

// Being signed in is no progress if that is not what was missing.
func TestLoopWhileSignedIn(t *testing.T) {
	t.Run("token", func(t *testing.T) {
		// No refresh token, and access tokens that are dead on arrival.
		a := newApp(t, func(o *appOptions) {
			o.config = func(c *Config) { c.Scopes = []string{"openid"} }
			o.behaviour = func(b *signintest.Behaviour) { b.AccessTokenLifetime = time.Nanosecond }
		})
		a.mux.Handle("GET /mail", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := TokenSource(r.Context()).Token()
			if !a.Challenge(w, r, err) {
				fmt.Fprint(w, "mail")
			}
		})))
		b := a.signIn()
		before := a.redemptions()
		if p := b.Open(a.url + "/mail"); p.Status != http.StatusForbidden || !strings.Contains(p.Body, "Sign-in keeps failing") {
			t.Fatalf("%d %v %.300s", p.Status, p.Err, p.Body)
		}
		if n := a.redemptions() - before; n > 4 {
			t.Errorf("%d round trips, want 4 at most", n)
		}
	})
	t.Run("handler", func(t *testing.T) {
		a := newApp(t)
		a.mux.Handle("GET /again", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.Challenge(w, r, &InteractionRequiredError{Reason: ReasonSignIn})
		})))
		b := a.browser()
		if p := b.Open(a.url + "/again"); p.Status != http.StatusForbidden || !strings.Contains(p.Body, "Sign-in keeps failing") {
			t.Fatalf("%d %v %.300s", p.Status, p.Err, p.Body)
		}
	})
}

// Whoever is signed in can get on and off a page that needs a user while
// something else goes round: that must not reset its count.
func TestLoopNeed(t *testing.T) {
	someone := &session{}
	refused, signIn := &InteractionRequiredError{Reason: ReasonRefused}, &InteractionRequiredError{Reason: ReasonSignIn}
	if loopNeed(refused, nil) != loopSignIn || loopNeed(signIn, nil) != loopSignIn {
		t.Error("nobody signed in: want the count that a sign-in ends")
	}
	if again := loopNeed(refused, someone); again == loopSignIn || again == "" || again != loopNeed(signIn, someone) {
		t.Errorf("somebody signed in: %q, want a count of its own", again)
	}
	mail := &InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"b", "a"}}
	same := &InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"a", "b"}}
	other := &InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"ab"}}
	if loopNeed(mail, someone) != loopNeed(same, someone) || loopNeed(mail, someone) == loopNeed(other, someone) {
		t.Error("scopes are not told apart, or by their order")
	}
}

func TestTripsAreCounted(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := &browser{}
	trip := func(need string) {
		tx := &transaction{Need: need, Trips: b.tripsFor(need), Browser: b.hash()}
		b.tripped(tx, now, false)
	}
	for range 3 {
		trip("mail")
	}
	if !b.looping("mail", now) || b.looping("calendar", now) || b.looping(loopSignIn, now) {
		t.Errorf("after three trips for mail: %+v", b)
	}
	trip("calendar")
	if b.looping("mail", now) || b.looping("calendar", now) {
		t.Errorf("after a trip for something else: %+v", b)
	}
	side := &transaction{Need: "calendar", Trips: 0, Browser: b.hash()}
	for range 5 {
		b.tripped(side, now, false)
	}
	if b.trips != 1 {
		t.Errorf("%d trips, want one of those that began side by side", b.trips)
	}
	for range 5 {
		b.tripped(&transaction{}, now, false)
		trip("calendar")
		now = now.Add(loopWindow)
	}
	if b.trips != 1 {
		t.Errorf("%d trips, want one: they are more than a minute apart", b.trips)
	}
	trip("calendar")
	trip("calendar")
	trip("calendar")
	if b.looping("calendar", now.Add(-time.Hour)) != true || b.looping("calendar", now.Add(loopWindow)) {
		t.Error("the window is not a minute")
	}
	now = now.Add(-time.Hour)
	if trip("calendar"); b.trips != 1 {
		t.Errorf("%d trips, want one after the clock went back", b.trips)
	}
}

// Another site can get an answer to a challenge of its own, and make a
// visitor's browser post it here as often as it likes. The visitor's count
// stays what it is.
func TestAnotherSiteDoesNotCount(t *testing.T) {
	a := newApp(t)
	attacker, victim := a.browser(), a.browser()
	a.toCallback(victim, "/page/x") // the cookie is there, the sign-in has only begun
	before, _ := victim.Cookie(a.url, a.browsers.names(true)[0])
	for i := range 3 * loopTrips {
		forged := a.toCallback(attacker, "/page/x")
		if p := victim.Send(forged); p.Status != http.StatusSeeOther {
			t.Fatalf("another browser's answer: %d, want 303", p.Status)
		}
		if i < loopTrips-1 { // its own count rises, and the next state carries it
			attacker.Send(forged)
			attacker.SetCookie(a.url, &http.Cookie{Name: a.sess.secureCookie, Value: "lost", Path: "/", Secure: true})
		}
		a.clock.advance(time.Second)
	}
	if after, _ := victim.Cookie(a.url, a.browsers.names(true)[0]); after != before {
		t.Errorf("the visitor's cookie is %q, and was %q", after, before)
	}
	if p := victim.Open(a.url + "/page/x"); p.Status != http.StatusOK || p.Body != "page /page/x" {
		t.Errorf("the visitor: %d %.300s", p.Status, p.Body)
	}
}

// A cookie's value opens under its own name only, also when it has been opened
// before: the session's and the browser's, under https and on loopback.
func TestCookieUnderAnotherName(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.BaseURL = "" } })
	b := a.signIn()
	session := a.session(b)
	browser, _ := b.Cookie(a.url, a.browsers.secureBrowser[0])
	status := func(url string, cookies ...string) int {
		r := httptest.NewRequest("GET", url+"/me", http.NoBody)
		r.Header.Set("Cookie", strings.Join(cookies, "; "))
		w := httptest.NewRecorder()
		a.Handler(a.mux).ServeHTTP(w, r)
		return w.Code
	}
	if got := status("https://app.example.test", a.sess.secureCookie+"="+session); got != http.StatusOK {
		t.Fatalf("the session under its own name: %d, want 200", got)
	}
	if got := status("http://localhost", a.cfg.CookieName+"="+session); got != http.StatusUnauthorized {
		t.Errorf("the session of https under the name of http: %d, want 401", got)
	}
	if got := status("https://app.example.test", a.sess.secureCookie+"="+session); got != http.StatusOK {
		t.Errorf("the session under its own name afterwards: %d, want 200", got)
	}
	for _, name := range slices.Concat(a.browsers.plainBrowser, a.browsers.secureBrowser) {
		for _, of := range slices.Concat(a.browsers.plainBrowser, a.browsers.secureBrowser) {
			secret := strings.Repeat("A", 43)
			r := httptest.NewRequest("GET", "http://localhost/", http.NoBody)
			if strings.HasPrefix(name, "__Host-") {
				r = httptest.NewRequest("GET", "https://app.example.test/", http.NoBody)
			}
			r.Header.Set("Cookie", name+"="+secret+"."+cookieTag(a.keys[0], a.party, of, secret))
			if got := a.browsers.read(r) != nil; got != (name == of) {
				t.Errorf("%s's value under the name %s opens: %v", of, name, got)
			}
		}
	}
	// Where a return path waits.
	tx := &transaction{ID: []byte(strings.Repeat("i", 16)), Time: 1}
	plain := a.states.aside(httptest.NewRequest("GET", "http://localhost/", http.NoBody))
	secure := a.states.aside(httptest.NewRequest("GET", "https://app.example.test/", http.NoBody))
	w := httptest.NewRecorder()
	secure.put(w, httptest.NewRequest("GET", "https://app.example.test/", http.NoBody), tx, "/long")
	value := w.Result().Cookies()[0].Value
	for _, s := range []aside{plain, secure} {
		for _, name := range s.names(s.key(tx)) {
			r := httptest.NewRequest("GET", "/", http.NoBody)
			r.Header.Set("Cookie", name+"="+value)
			if got := s.fetch(httptest.NewRecorder(), r, tx); (got == "/long") != s.secure {
				t.Errorf("a return path under the name %s: %q", name, got)
			}
		}
	}
	r := httptest.NewRequest("GET", "https://app.example.test/", http.NoBody)
	for value, want := range map[string]bool{
		browser: true, browser[:strings.LastIndexByte(browser, '.')]: false, // as made before there were tags
		strings.Replace(browser, ".", ".signin.3.1800000000.", 1): false, "A" + browser[1:]: browser[0] == 'A',
	} {
		r.Header.Set("Cookie", a.browsers.secureBrowser[0]+"="+value)
		if got := a.browsers.read(r) != nil; got != want {
			t.Errorf("browser cookie %q opens: %v, want %v", value, got, want)
		}
	}
}

func TestBrowserCookie(t *testing.T) {
	a := newApp(t)
	p := a.browser().Send(&signintest.Request{URL: a.url + "/me", Activated: true})
	lines := p.Header.Values("Set-Cookie")
	if len(lines) != 1 {
		t.Fatalf("%q, want one cookie", lines)
	}
	c, err := http.ParseSetCookie(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "__Host-signin-browser" || c.Path != "/" || c.Domain != "" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteNoneMode || len(lines[0]) > 130 {
		t.Errorf("%s", lines[0])
	}
	if p.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q beside a cookie", p.Header.Get("Cache-Control"))
	}

	a = newApp(t, func(o *appOptions) { o.config = flows[2].config })
	p = a.browser().Send(&signintest.Request{URL: a.url + "/me", Activated: true})
	if c, _ := http.ParseSetCookie(p.Header.Get("Set-Cookie")); c == nil || c.SameSite != http.SameSiteLaxMode || !c.Secure {
		t.Errorf("in query mode: %q, want SameSite=Lax, which arrives with a GET", p.Header.Get("Set-Cookie"))
	}

	// Nobody's cookie and somebody's nonsense are the same.
	for _, value := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 300), "....", strings.Repeat("A", 43) + ".n.-5.x"} {
		r, _ := http.NewRequest("GET", a.url, nil)
		r.Header.Set("Cookie", "__Host-signin-browser="+value)
		if b := a.browsers.read(r); b != nil && (len(b.secret) != secretLen || b.looping("n", time.Now())) {
			t.Errorf("%q was read as %+v", value, b)
		}
	}
}
