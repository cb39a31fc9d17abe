package signin

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// wantPage checks what every error page of the callback has in common: the
// words of its kind, no script, no secret, no session cookie.
func wantPage(t *testing.T, a *app, p *signintest.Page, status int, kind PageKind) {
	t.Helper()
	if p.Err != nil || p.Status != status || !strings.Contains(p.Body, html.EscapeString(pageWords[kind].text)) {
		t.Errorf("got %d %v %.400s, want %d %s; %s", p.Status, p.Err, p.Body, status, kind, lastCause(a))
		return
	}
	csp := p.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") || strings.Contains(csp, "script") || strings.Contains(csp, "unsafe") {
		t.Errorf("Content-Security-Policy %q allows scripts", csp)
	}
	if got := p.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", got)
	}
	if a.leaks(p) {
		t.Errorf("the page shows a secret: %s", p.Body)
	}
	if setsSession(a, p) {
		t.Errorf("the page sets the session cookie: %q", p.Header["Set-Cookie"])
	}
}

// setsSession reports whether an answer sets or clears the session cookie.
func setsSession(a *app, p *signintest.Page) bool {
	return slices.ContainsFunc(p.Header["Set-Cookie"], func(line string) bool {
		return strings.HasPrefix(line, a.sess.name(true)+"=")
	})
}

// wantLanding checks that an answer leads to a page of the application.
func wantLanding(t *testing.T, a *app, p *signintest.Page, path string) {
	t.Helper()
	if p.Err != nil || p.Status != http.StatusSeeOther || p.Header.Get("Location") != path {
		t.Errorf("got %d %v, Location %q, want 303 to %s; %s", p.Status, p.Err, p.Header.Get("Location"), path, lastCause(a))
	}
	if got := p.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", got)
	}
}

// who fetches /me, which leads nowhere for who is not signed in.
func who(a *app, b *signintest.Browser) string {
	p := b.Fetch(&signintest.Page{URL: a.url + "/"}, "/me")
	var me map[string]string
	if p.Status == http.StatusUnauthorized || json.Unmarshal([]byte(p.Body), &me) != nil {
		return ""
	}
	return me["sub"]
}

func wantSignedOut(t *testing.T, a *app, b *signintest.Browser) {
	t.Helper()
	if got := who(a, b); got != "" {
		t.Errorf("%q is signed in, want nobody", got)
	}
}

// wantUntouched checks that a session that was there before still is, and that
// what happened meanwhile cost no token request.
func wantUntouched(t *testing.T, a *app, b *signintest.Browser, user string, redemptions int) {
	t.Helper()
	if got := who(a, b); got != user {
		t.Errorf("%q is signed in, want %s", got, user)
	}
	if n := a.redemptions(); n != redemptions {
		t.Errorf("%d redemptions, want %d", n, redemptions)
	}
}

// again begins another sign-in in a browser, signed in or not, and returns the
// callback it leads to.
func (a *app) again(b *signintest.Browser, page string) *signintest.Request {
	a.t.Helper()
	return a.toCallback(b, a.loginPath+"?return="+url.QueryEscape(page))
}

// TestCallbackState: a state that we did not seal, or not like this, ends
// nothing and begins nothing.
func TestCallbackState(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	r := a.again(b, "/page/x")
	good := r.Form.Get("state")
	flip := func(i int) string {
		altered := []byte(good)
		altered[i] ^= 1
		return string(altered)
	}
	tx, err := a.states.open(good)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(tx)
	if err != nil {
		t.Fatal(err)
	}
	// An Auth beside this one, with the same keys.
	beside := func(edit func(*Config)) string {
		c := a.cfg
		c.Keys = [][]byte{bytes.Repeat([]byte{7}, 32)}
		edit(&c)
		other, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		state, err := other.states.seal(tx)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	foreign := seal.New([][]byte{bytes.Repeat([]byte{9}, 32)})
	for _, tc := range []struct{ name, state string }{
		{"empty", ""},
		{"not base64", "%%%"},
		{"first character altered", flip(0)},
		{"key id altered", flip(3)},
		{"salt altered", flip(20)},
		{"middle altered", flip(len(good) / 2)},
		{"last character altered", flip(len(good) - 2)},
		{"cut short", good[:len(good)-4]},
		{"empty seal", good[:28]},
		{"longer", good + "AAAA"},
		{"with a line break", good[:8] + "\r\n" + good[8:]},
		{"padded", good + "=="},
		{"twice", good + good},
		{"huge", strings.Repeat("A", maxState+4)},
		{"plain JSON", string(plain)},
		{"sealed by other keys", seal.Encode(foreign.Seal("state", nil, a.party, plain))},
		{"sealed for another purpose", seal.Encode(a.keys.Seal("ask", nil, a.party, plain))},
		{"sealed for another client", beside(func(c *Config) { c.ClientID = "other" })},
		{"sealed for another issuer", beside(func(c *Config) { c.Issuer = "https://evil.example.test" })},
		{"another value of ours", a.states.sealNeed(&InteractionRequiredError{Reason: ReasonSignIn}, site.NewReturnPath("/page/x"))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := b.Send(edited(r, "state", tc.state))
			wantPage(t, a, p, http.StatusBadRequest, PageCallbackState)
			wantUntouched(t, a, b, "alice", 1)
		})
	}
	p := b.Send(edited(r, "state"))
	wantPage(t, a, p, http.StatusBadRequest, PageCallbackState)
	wantUntouched(t, a, b, "alice", 1)

	// The way on works.
	link := p.Link(tryAgain)
	if !strings.HasPrefix(link, a.url+"/") {
		t.Fatalf("try again leads to %q", link)
	}
	if p := b.Click(p, link); p.Status != http.StatusOK {
		t.Errorf("try again leads to %d %s", p.Status, p.URL)
	}
	wantUntouched(t, a, b, "alice", 2)
}

// TestCallbackStale: an answer to a challenge of ours that is good for nothing
// any more leads to the page it names, by no token request, and changes
// nothing.
func TestCallbackStale(t *testing.T) {
	a := newApp(t)
	old := a.browser()
	expired := a.toCallback(old, "/page/expired?q=1")
	a.clock.advance(stateLifetime + time.Second)
	b := a.signIn()
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
	mallory := a.browser()
	mallorys := a.toCallback(mallory, "/page/mallory")
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = "" })

	t.Run("expired", func(t *testing.T) {
		wantLanding(t, a, old.Send(expired), "/page/expired?q=1")
		wantSignedOut(t, a, old)
		if a.redemptions() != 1 {
			t.Errorf("%d redemptions, want only that of the sign-in before", a.redemptions())
		}
	})
	t.Run("from a clock ahead of ours", func(t *testing.T) {
		a.clock.advance(10 * time.Minute)
		ahead := a.again(b, "/page/ahead")
		a.clock.advance(-10 * time.Minute)
		p := b.Send(ahead)
		wantLanding(t, a, p, "/page/ahead")
		if setsSession(a, p) {
			t.Error("the session cookie was touched")
		}
		wantUntouched(t, a, b, "alice", 1)
	})
	t.Run("login CSRF, signed in", func(t *testing.T) {
		p := b.Send(mallorys)
		wantLanding(t, a, p, "/page/mallory")
		if setsSession(a, p) {
			t.Error("the session cookie was touched")
		}
		wantUntouched(t, a, b, "alice", 1)
	})
	t.Run("login CSRF, signed out", func(t *testing.T) {
		victim := a.browser()
		a.toCallback(victim, "/page/own") // has a browser cookie
		wantLanding(t, a, victim.Send(mallorys), "/page/mallory")
		wantSignedOut(t, a, victim)
		if p := victim.Follow(mallorys); p.Body != "page /page/mallory" {
			t.Errorf("the victim ends on %d %.200s, want the page, signed in as themselves", p.Status, p.Body)
		}
		wantUntouched(t, a, victim, "alice", 2)
	})
	t.Run("error of another browser's", func(t *testing.T) {
		r := edited(edited(mallorys, "code"), "error", "access_denied")
		wantLanding(t, a, b.Send(r), "/page/mallory")
		wantUntouched(t, a, b, "alice", 2)
	})
	t.Run("used up", func(t *testing.T) {
		wantLanding(t, a, mallory.Send(mallorys), "/page/mallory")
		wantUntouched(t, a, mallory, "bob", 3)
		p := mallory.Open(a.url + "/signout")
		mallory.Submit(p, nil)
		wantLanding(t, a, mallory.Send(mallorys), "/page/mallory")
		wantUntouched(t, a, mallory, "", 3)
	})
}

// TestTabsOfANewBrowser: tabs that open at once get a cookie each, and the
// last one stays. All end on the page they asked for.
func TestTabsOfANewBrowser(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	var challenges []*signintest.Request
	for _, page := range []string{"/page/1", "/page/2", "/page/3"} {
		b.ClearCookies() // as if asked before the answer to the one before came
		p := b.Send(&signintest.Request{URL: a.url + page})
		challenges = append(challenges, p.Next())
	}
	for i, r := range challenges {
		want := "page /page/" + string(rune('1'+i))
		if p := b.Follow(r); p.Body != want {
			t.Errorf("tab %d ends on %d %.200s, want %q", i+1, p.Status, p.Body, want)
		}
	}
	if got := who(a, b); got != "alice" {
		t.Errorf("%q is signed in, want alice", got)
	}
}

// TestCallbackShapes: what is no answer at all costs next to nothing.
func TestCallbackShapes(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	r := a.again(b, "/page/x")
	with := func(f func(*signintest.Request)) *signintest.Request {
		c := r.Clone()
		f(c)
		return c
	}
	body := func(contentType, text string) *signintest.Request {
		return with(func(c *signintest.Request) {
			c.Form, c.Body, c.Header = nil, text, http.Header{"Content-Type": {contentType}}
		})
	}
	method := func(name string) *signintest.Request {
		return with(func(c *signintest.Request) { c.Method = name })
	}
	query := func(text string) *signintest.Request {
		return with(func(c *signintest.Request) { c.Method, c.Form, c.URL = "GET", nil, c.URL+"?"+text })
	}
	const form = "application/x-www-form-urlencoded"
	good := r.Form.Encode()
	cookies := "padding=" + strings.Repeat("c", 100<<10)
	for _, tc := range []struct {
		name   string
		r      *signintest.Request
		status int
		kind   PageKind
	}{
		{"100 KB of cookies", with(func(c *signintest.Request) { c.Header = http.Header{"Cookie": {cookies}} }), http.StatusRequestHeaderFieldsTooLarge, PageCallbackTooLarge},
		{"a form of 1 MB", edited(r, "code", strings.Repeat("c", 1<<20)), http.StatusRequestEntityTooLarge, PageCallbackTooLarge},
		{"a form of 65 KB", edited(r, "more", strings.Repeat("c", 65<<10)), http.StatusRequestEntityTooLarge, PageCallbackTooLarge},
		{"a query of 65 KB", query("code=" + strings.Repeat("c", 65<<10)), http.StatusRequestEntityTooLarge, PageCallbackTooLarge},
		{"a hundred parameters", body(form, good+strings.Repeat("&a=b", 100)), http.StatusRequestEntityTooLarge, PageCallbackTooLarge},
		{"PUT", method("PUT"), http.StatusMethodNotAllowed, PageCallbackMethod},
		{"DELETE", method("DELETE"), http.StatusMethodNotAllowed, PageCallbackMethod},
		{"PATCH", method("PATCH"), http.StatusMethodNotAllowed, PageCallbackMethod},
		{"OPTIONS", method("OPTIONS"), http.StatusMethodNotAllowed, PageCallbackMethod},
		{"a method of one's own", method("BREW"), http.StatusMethodNotAllowed, PageCallbackMethod},
		{"post in lower case", method("post"), http.StatusMethodNotAllowed, PageCallbackMethod},
		{"text", body("text/plain", good), http.StatusBadRequest, PageCallbackUnreadable},
		{"JSON", body("application/json", "{}"), http.StatusBadRequest, PageCallbackUnreadable},
		{"multipart", body("multipart/form-data; boundary=b", "--b--"), http.StatusBadRequest, PageCallbackUnreadable},
		{"no content type", body("", good), http.StatusBadRequest, PageCallbackUnreadable},
		{"content type that does not parse", body(form+"; =", good), http.StatusBadRequest, PageCallbackUnreadable},
		{"escapes that do not parse", body(form, "state=%zz"), http.StatusBadRequest, PageCallbackUnreadable},
		{"semicolons", body(form, strings.ReplaceAll(good, "&", ";")), http.StatusBadRequest, PageCallbackUnreadable},
		{"state twice", edited(r, "state", r.Form.Get("state"), r.Form.Get("state")), http.StatusBadRequest, PageCallbackDuplicate},
		{"code twice", edited(r, "code", r.Form.Get("code"), "other"), http.StatusBadRequest, PageCallbackDuplicate},
		{"id_token twice", edited(r, "id_token", "other", r.Form.Get("id_token")), http.StatusBadRequest, PageCallbackDuplicate},
		{"iss twice", edited(r, "iss", a.issuer.URL(), a.issuer.URL()), http.StatusBadRequest, PageCallbackDuplicate},
		{"error twice", edited(r, "error", "", ""), http.StatusBadRequest, PageCallbackDuplicate},
		{"unknown parameter twice", edited(r, "more", "1", "2"), http.StatusBadRequest, PageCallbackDuplicate},
		{"nothing, by POST", body(form, ""), http.StatusBadRequest, PageCallbackEmpty},
		{"nothing, by GET", query(""), http.StatusBadRequest, PageCallbackEmpty},
		{"session_state only", query("session_state=1"), http.StatusBadRequest, PageCallbackEmpty},
		{"good parameters, in the query of a POST", with(func(c *signintest.Request) { c.Form, c.URL = url.Values{}, c.URL+"?"+good }), http.StatusBadRequest, PageCallbackEmpty},
		{"good parameters, by GET", query(good), http.StatusBadRequest, PageCallbackUnreadable},
		{"state only", with(func(c *signintest.Request) { c.Form = url.Values{"state": r.Form["state"]} }), http.StatusBadRequest, PageCallbackEmpty},
		{"code missing", edited(r, "code"), http.StatusBadRequest, PageCallbackEmpty},
		{"code empty", edited(r, "code", ""), http.StatusBadRequest, PageCallbackEmpty},
		{"code of 9 KB", edited(r, "code", strings.Repeat("c", 9<<10)), http.StatusBadRequest, PageCallbackEmpty},
		{"id_token missing", edited(r, "id_token"), http.StatusBadRequest, PageTokenRejected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := b.Send(tc.r)
			wantPage(t, a, p, tc.status, tc.kind)
			if allow := p.Header.Get("Allow"); (tc.status == http.StatusMethodNotAllowed) != (allow == "GET, POST") {
				t.Errorf("Allow %q with status %d", allow, p.Status)
			}
			wantUntouched(t, a, b, "alice", 1)
		})
	}
	if p := b.Send(method("HEAD")); p.Status != http.StatusMethodNotAllowed {
		t.Errorf("HEAD: %d, want 405", p.Status)
	}

	t.Run("no cookie", func(t *testing.T) {
		bare := a.browser()
		wantPage(t, a, bare.Send(r), http.StatusBadRequest, PageNoCookies)
		wantPage(t, a, bare.Send(edited(edited(r, "code"), "error", "access_denied")), http.StatusBadRequest, PageNoCookies)
		wantPage(t, a, bare.Send(query("")), http.StatusBadRequest, PageCallbackEmpty)
		wantUntouched(t, a, bare, "", 1)
	})
	t.Run("browser cookie that is none", func(t *testing.T) {
		for _, value := range []string{"", "x", strings.Repeat("A", 42), strings.Repeat("A", 44), strings.Repeat("A", 300), "."} {
			c := r.Clone()
			c.Header = http.Header{"Cookie": {a.browsers.names(true)[0] + "=" + value}}
			wantPage(t, a, b.Send(c), http.StatusBadRequest, PageNoCookies)
		}
	})
	wantLanding(t, a, b.Send(r), "/page/x") // the answer itself was good all along
}

// TestIssuerErrors: what the issuer says is a quote, and cancelling is not
// refusing.
func TestIssuerErrors(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	a.mux.Handle("/recent", a.Require(Requirement{MaxAge: time.Minute})(http.NotFoundHandler()))
	a.clock.advance(5 * time.Minute)
	signIn, consent, stepUp := a.again(b, "/page/x"), a.toCallback(b, "/token?scope=Mail.Read"), a.toCallback(b, "/recent")
	const hostile = `<script>alert(1)</script>"'><img src=x onerror=alert(2)>&lt; {{.}} ` + "\u202e\r\nSet-Cookie: a=b"
	for _, tc := range []struct {
		name        string
		r           *signintest.Request
		code        string
		description string
		status      int
		kind        PageKind
	}{
		{"cancelled", signIn, "access_denied", "", http.StatusForbidden, PageCancelled},
		{"step-up cancelled", stepUp, "access_denied", "", http.StatusForbidden, PageCancelled},
		{"consent refused, where it was asked for", consent, "access_denied", "", http.StatusForbidden, PageConsentRefused},
		{"consent refused, in Entra's words", signIn, "access_denied", "AADSTS65004: User declined to consent", http.StatusForbidden, PageConsentRefused},
		{"consent required", signIn, "consent_required", "", http.StatusForbidden, PageConsentRefused},
		{"not assigned, in Entra's words", consent, "access_denied", "AADSTS50105: not assigned to a role", http.StatusForbidden, PageAccountRefused},
		{"not assigned, in Okta's words", signIn, "access_denied", "User is not assigned to the client application.", http.StatusForbidden, PageAccountRefused},
		{"refused by Google's administrator", signIn, "admin_policy_enforced", "", http.StatusForbidden, PageAccountRefused},
		{"password forgotten", signIn, signintest.B2CForgotPassword.Code, signintest.B2CForgotPassword.Description, http.StatusForbidden, PageForgotPassword},
		{"cancelled at B2C, where more was asked for", consent, signintest.B2CCancelled.Code, signintest.B2CCancelled.Description, http.StatusForbidden, PageCancelled},
		{"cancelled at Apple", signIn, "user_cancelled_authorize", "", http.StatusForbidden, PageCancelled},
		{"no page that expired", signIn, "temporarily_unavailable", "", http.StatusBadRequest, PageIssuerError},
		{"not strong enough", stepUp, "unmet_authentication_requirements", "", http.StatusForbidden, PageStepUpRefused},
		{"login required", signIn, "login_required", "", http.StatusBadRequest, PageIssuerError},
		{"server error", signIn, "server_error", "", http.StatusBadRequest, PageIssuerError},
		{"empty", signIn, "", "", http.StatusBadRequest, PageIssuerError},
		{"hostile description", signIn, "invalid_request", hostile, http.StatusBadRequest, PageIssuerError},
		{"hostile code", signIn, hostile, "", http.StatusBadRequest, PageIssuerError},
		{"hostile both, as a refusal", consent, "access_denied", hostile, http.StatusForbidden, PageConsentRefused},
		{"15 KB of description", signIn, "invalid_request", strings.Repeat("<b>", 5<<10), http.StatusBadRequest, PageIssuerError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// A code beside the error is not looked at.
			p := b.Send(edited(edited(tc.r, "error", tc.code), "error_description", tc.description))
			wantPage(t, a, p, tc.status, tc.kind)
			for _, bad := range []string{"<script", "<img", "<b>", "onerror=alert(2)>", "\u202e"} {
				if strings.Contains(p.Body, bad) {
					t.Errorf("the page holds %q: %s", bad, p.Body)
				}
			}
			if tc.description == hostile && !strings.Contains(p.Body, "&lt;script&gt;alert(1)") {
				t.Errorf("the page does not quote the issuer: %s", p.Body)
			}
			if len(p.Body) > 12<<10 {
				t.Errorf("the page has %d bytes", len(p.Body))
			}
			if slices.ContainsFunc(p.Header["Set-Cookie"], func(s string) bool { return strings.HasPrefix(s, "a=") }) {
				t.Errorf("a header was injected: %v", p.Header)
			}
			if cause := lastCause(a); strings.ContainsAny(cause, "\r\n\x1b") || len(cause) > 600 {
				t.Errorf("the log is not clean: %q", cause)
			}
			wantUntouched(t, a, b, "alice", 1)
			// By GET, though form_post was asked: some issuers do.
			q := url.Values{"error": {tc.code}, "error_description": {tc.description}, "state": tc.r.Form["state"]}
			p = b.Send(&signintest.Request{URL: tc.r.URL + "?" + q.Encode(), From: tc.r.From})
			wantPage(t, a, p, tc.status, tc.kind)
		})
	}
	t.Run("from another issuer", func(t *testing.T) {
		r := edited(edited(edited(signIn, "error", "access_denied"), "error_description", "Call 555-0100"), "iss", "https://evil.example.test")
		p := b.Send(r)
		wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
		if strings.Contains(p.Body, "555-0100") {
			t.Error("another issuer's words are shown as ours")
		}
	})
	wantLanding(t, a, b.Send(signIn), "/page/x")
}

// TestAnswerIssuer is RFC 9207, with what real issuers leave out.
func TestAnswerIssuer(t *testing.T) {
	wrong := func(iss string) func(*signintest.Behaviour) {
		return func(b *signintest.Behaviour) {
			b.EditResponse = func(r *signintest.AuthResponse) { r.Params.Set("iss", iss) }
		}
	}
	missing := func(b *signintest.Behaviour) {
		b.EditResponse = func(r *signintest.AuthResponse) { r.Params.Del("iss") }
	}
	silent := func(b *signintest.Behaviour) { b.OmitIss = true }
	for _, tc := range []struct {
		name      string
		typ       string
		behaviour func(*signintest.Behaviour)
		ok        bool
	}{
		{"code, right", typeCode, nil, true},
		{"code, missing though announced", typeCode, missing, false},
		{"code, not announced", typeCode, silent, true},
		{"code, wrong", typeCode, wrong("https://evil.example.test"), false},
		{"code, empty", typeCode, wrong(""), false},
		{"code, with a slash", typeCode, wrong("https://login.example.test/"), false},
		{"code, wrong and not announced", typeCode, func(b *signintest.Behaviour) { silent(b); wrong("https://evil.example.test")(b) }, false},
		{"hybrid, right", typeHybrid, nil, true},
		{"hybrid, missing though announced", typeHybrid, missing, true},
		{"hybrid, wrong", typeHybrid, wrong("https://evil.example.test"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.ResponseType = tc.typ }
				o.behaviour = tc.behaviour
			})
			p := a.browser().Open(a.url + "/me")
			if tc.ok {
				if p.Status != http.StatusOK {
					t.Errorf("%d, want 200; %s", p.Status, lastCause(a))
				}
				return
			}
			wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
			if a.redemptions() != 0 {
				t.Errorf("the code was sent to the issuer all the same")
			}
		})
	}
}

// TestAnswerByAnotherWay: what comes another way than it was asked for has
// been where it should not, and is not used.
func TestAnswerByAnotherWay(t *testing.T) {
	for _, tc := range []struct {
		name      string
		typ, mode string // asked for
		comes     string
		kind      PageKind
	}{
		{"code by query, form_post asked", typeCode, modeForm, "query", PageCallbackUnreadable},
		{"code by form_post, query asked", typeCode, modeQuery, "form_post", PageCallbackUnreadable},
		{"code by fragment, query asked", typeCode, modeQuery, "fragment", PageCallbackEmpty},
		{"hybrid by query", typeHybrid, modeForm, "query", PageCallbackUnreadable},
		{"hybrid by fragment", typeHybrid, modeForm, "fragment", PageCallbackEmpty},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.ResponseType, c.ResponseMode = tc.typ, tc.mode }
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditResponse = func(r *signintest.AuthResponse) { r.Mode = tc.comes }
				}
			})
			b := a.browser()
			p := b.Open(a.url + "/page/x")
			if tc.comes == "form_post" && p.Status == http.StatusBadRequest &&
				strings.Contains(p.Body, html.EscapeString(pageWords[PageNoCookies].text)) {
				return // the cookie of query mode is Lax and did not come either
			}
			wantPage(t, a, p, http.StatusBadRequest, tc.kind)
			wantSignedOut(t, a, b)
			if a.redemptions() != 0 {
				t.Errorf("%d token requests, want 0", a.redemptions())
			}
		})
	}
}

// TestLongReturnPath: a return path of 2 KB travels whole, whatever it is made
// of; of a longer one the query is dropped.
func TestLongReturnPath(t *testing.T) {
	a := newApp(t)
	for _, unit := range []string{"&", `"`, "<", "a", "%20", "'"} {
		path := "/page/x?" + strings.Repeat(unit, (site.MaxReturnPath-8)/len(unit))
		if p := a.browser().Open(a.url + path); p.Status != http.StatusOK || p.URL != a.url+path {
			t.Errorf("2 KB of %s: %d at %.40s (%d bytes); %s", unit, p.Status, p.URL, len(p.URL), lastCause(a))
		}
		if p := a.browser().Open(a.url + path + "&more"); p.Status != http.StatusOK || p.URL != a.url+"/page/x" {
			t.Errorf("more than 2 KB of %s: %d at %.40s (%d bytes)", unit, p.Status, p.URL, len(p.URL))
		}
	}
}

// TestAccountRefused: whoever may not come in with one account is offered to
// choose another, not the same again.
func TestAccountRefused(t *testing.T) {
	const home, other = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = "https://login.microsoftonline.com/common/v2.0"
		o.config = func(c *Config) { c.Tenants = []string{home} }
		o.behaviour = func(b *signintest.Behaviour) {
			b.Entra = true
			b.Users = []signintest.User{{Subject: "stranger", TenantID: other}, {Subject: "alice", TenantID: home}}
		}
	})
	b := a.browser()
	p := b.Open(a.url + "/page/x")
	wantPage(t, a, p, http.StatusForbidden, PageAccountRefused)
	if a.redemptions() != 0 {
		t.Errorf("%d token requests, want 0", a.redemptions())
	}
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = "alice" })
	if p := b.Click(p, p.Link("Use another account")); p.Body != "page /page/x" {
		t.Errorf("another account ends on %d %.200s", p.Status, p.Body)
	}
	if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("prompt"); got != "select_account" {
		t.Errorf("prompt %q, want select_account", got)
	}
}

// TestTokenEndpoint: however the token endpoint fails, there is one request,
// one page within the deadline, and a way on.
func TestTokenEndpoint(t *testing.T) {
	var strangers atomic.Int32
	for _, flow := range flows[:2] {
		t.Run(flow.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.config = flow.config })
			evil := a.net.Serve("https://evil.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { strangers.Add(1) }))
			answer := func(extra map[string]any) signintest.Fault {
				body := map[string]any{"access_token": "at-0123456789", "token_type": "Bearer", "expires_in": 60}
				for k, v := range extra {
					body[k] = v
				}
				return signintest.JSONFault(http.StatusOK, body)
			}
			jsonBody := func(body string) signintest.Fault {
				return signintest.Fault{Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
			}
			for _, tc := range []struct {
				name   string
				fault  signintest.Fault
				status int
				kind   PageKind
			}{
				{"invalid_grant", signintest.OAuthError{Code: "invalid_grant", Description: "no"}.Fault(), 502, PageRedeemRefused},
				{"invalid_client", signintest.OAuthError{Status: 401, Code: "invalid_client"}.Fault(), 502, PageRedeemRefused},
				{"429", signintest.HTMLFault(429), 502, PageRedeemRefused},
				{"500", signintest.HTMLFault(500), 502, PageRedeemUnreachable},
				{"503", signintest.OAuthError{Status: 503, Code: "temporarily_unavailable"}.Fault(), 502, PageRedeemUnreachable},
				{"200 with HTML", signintest.HTMLFault(200), 502, PageRedeemUnreachable},
				{"200 with an error", signintest.JSONFault(200, map[string]string{"error": "invalid_grant", "access_token": "at-0123456789"}), 502, PageRedeemRefused},
				{"200 with nothing", jsonBody(" "), 502, PageRedeemUnreachable},
				{"200 with a list", jsonBody(`[{"access_token":"at-0123456789"}]`), 502, PageRedeemUnreachable},
				{"200 cut short", jsonBody(`{"access_token":"at-0123`), 502, PageRedeemUnreachable},
				{"200, nested without end", jsonBody(strings.Repeat(`{"a":`, 200_000)), 502, PageRedeemUnreachable},
				{"204", signintest.Fault{Status: 204}, 502, PageRedeemRefused},
				{"endless JSON", signintest.Fault{Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"access_token":"at-0123456789","id_token":"`, Endless: true}, 502, PageRedeemUnreachable},
				{"endless error", signintest.Fault{Status: 400, Header: http.Header{"Content-Type": {"application/json"}}, Body: "{", Endless: true}, 502, PageRedeemUnreachable},
				{"no access token", answer(map[string]any{"access_token": ""}), 502, PageRedeemUnreachable},
				{"access token a number", answer(map[string]any{"access_token": 7}), 502, PageRedeemUnreachable},
				{"a token of another type", answer(map[string]any{"token_type": "mac"}), 502, PageRedeemUnreachable},
				{"no ID token", answer(nil), 400, PageTokenRejected},
				{"an ID token that is none", answer(map[string]any{"id_token": "a.b.c"}), 400, PageTokenRejected},
				{"redirect 307", signintest.Fault{Redirect: evil + "/token"}, 502, PageRedeemRefused},
				{"redirect 308", signintest.Fault{Redirect: evil + "/token", Status: 308}, 502, PageRedeemRefused},
				{"redirect 302", signintest.Fault{Redirect: evil + "/token", Status: 302}, 502, PageRedeemRefused},
				{"connection dropped", signintest.Fault{Drop: true}, 502, PageRedeemUnreachable},
				{"dropped after the code was spent", signintest.Fault{Drop: true, AfterProcessing: true}, 502, PageRedeemUnreachable},
				{"500 after the code was spent", signintest.Fault{Status: 500, AfterProcessing: true}, 502, PageRedeemUnreachable},
			} {
				t.Run(tc.name, func(t *testing.T) {
					b := a.browser()
					r := a.toCallback(b, "/page/x")
					a.issuer.ForgetCalls()
					a.issuer.FailNext(signintest.EndpointToken, tc.fault)
					wantPage(t, a, b.Send(r), tc.status, tc.kind)
					wantSignedOut(t, a, b)
					if n := a.redemptions(); n != 1 {
						t.Errorf("%d token requests, want 1", n)
					}
					// A reload does not send the code again; it begins anew.
					wantLanding(t, a, b.Send(r), "/page/x")
					if n := a.redemptions(); n != 1 {
						t.Errorf("%d token requests after a reload, want 1", n)
					}
					if p := b.Follow(r); p.Body != "page /page/x" {
						t.Errorf("the way on ends on %d %.200s", p.Status, p.Body)
					}
					if n := a.redemptions(); n != 2 {
						t.Errorf("%d token requests after the new sign-in, want 2", n)
					}
				})
			}
		})
	}
	if n := strangers.Load(); n != 0 {
		t.Errorf("another host got %d requests", n)
	}
}

// TestTokenEndpointHangs: the deadline of the HTTP client is enough to be told
// that it took too long.
func TestTokenEndpointHangs(t *testing.T) {
	for name, fault := range map[string]signintest.Fault{
		"before the answer": {Hang: make(chan struct{})},
		"within the answer": {Header: http.Header{"Content-Type": {"application/json"}}, Body: "{", Delay: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // waits for the deadline
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.HTTPClient.Timeout = 3 * time.Second }
			})
			b := a.browser()
			r := a.toCallback(b, "/page/x")
			a.issuer.FailNext(signintest.EndpointToken, fault)
			start := time.Now()
			wantPage(t, a, b.Send(r), http.StatusGatewayTimeout, PageRedeemTimeout)
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("the page came after %v", took)
			}
			if p := b.Follow(r); p.Body != "page /page/x" || a.redemptions() != 2 {
				t.Errorf("the way on ends on %d %.200s after %d token requests", p.Status, p.Body, a.redemptions())
			}
		})
	}
}

// TestIssuerErrorLog: whoever runs the site learns what is wrong from the log, in
// the issuer's words, too. What names the user, or belongs to the answer, is not
// in them, and no line can be forged with them.
func TestIssuerErrorLog(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	signIn, consent := a.again(b, "/page/x"), a.toCallback(b, "/token?scope=Mail.Read")
	const hybrid = `; set ResponseType "code", or let the issuer give this client ID tokens by the hybrid flow`
	const maybe = `; if the issuer does not allow this client the hybrid flow, set ResponseType "code"`
	for _, tc := range []struct {
		r                       *signintest.Request
		code, description, want string
	}{
		{signIn, "invalid_request", "", "error invalid_request" + maybe},
		{signIn, "access_denied", "AADSTS50105: The signed in user 'alice@example.test' is not assigned to a role",
			"error access_denied AADSTS50105; it says: AADSTS50105: The signed in user '[removed]' is not assigned to a role"},
		{signIn, "server_error", "AADSTS" + strings.Repeat("9", 400), "error server_error AADSTS9999999999; it says: AADSTS" + strings.Repeat("9", 294) + "..."},
		{signIn, "unsupported_response_type", "AADSTS700054: response_type 'id_token' is not enabled",
			"error unsupported_response_type AADSTS700054" + hybrid + "; it says: AADSTS700054: response_type 'id_token' is not enabled"},
		{signIn, "unauthorized_client", "", "error unauthorized_client" + maybe},
		{signIn, "unauthorized_client", "The client is not allowed the implicit flow", "error unauthorized_client" + hybrid + "; it says: The client is not allowed the implicit flow"},
		{signIn, "server_error", "Unknown response type: code id_token", "error server_error" + hybrid + "; it says: Unknown response type: code id_token"},
		{signIn, "invalid_scope", "no\nsuch\x1b[1m scope", "error invalid_scope; it says: no such [1m scope"},
		{signIn, "invalid_scope", "not with state " + signIn.Form.Get("state"), "error invalid_scope; it says: not with state [removed]"},
		{signIn, "consent_required", "", "error consent_required; asked for the scopes of Config only"},
		{consent, "access_denied", "", "error access_denied; asked for scopes Mail.Read"},
	} {
		b.Send(edited(edited(tc.r, "error", tc.code), "error_description", tc.description))
		if got := lastCause(a); got != "signin: callback: the issuer answered with "+tc.want {
			t.Errorf("%s, %.40s: logged %q, want ... %q", tc.code, tc.description, got, tc.want)
		}
	}
	// Where no hybrid is asked for, none is to blame.
	plain := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.ResponseType = typeCode } })
	r := plain.toCallback(plain.browser(), "/me")
	plain.browser().Send(edited(r, "error", "unsupported_response_type"))
	if got := lastCause(plain); strings.Contains(got, "hybrid") {
		t.Errorf("logged %q", got)
	}
}

// TestScopeRefusedAtSignIn: what the user has just refused is not asked for a
// second time, at the first sign-in either.
func TestScopeRefusedAtSignIn(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.GrantScopes = func(asked []string) []string {
				return slices.DeleteFunc(slices.Clone(asked), func(s string) bool { return s == "Mail.Read" })
			}
		}
	})
	a.mux.Handle("/mail", a.Require(Requirement{Scopes: []string{"Mail.Read"}})(http.NotFoundHandler()))
	b := a.browser()
	if p := b.Open(a.url + "/mail"); p.Status != http.StatusForbidden || !strings.Contains(p.Body, pageWords[PageConsentRefused].text) {
		t.Errorf("got %d %.300s, want the page for a refused consent", p.Status, p.Body)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 1 {
		t.Errorf("%d visits to the issuer for one refusal, want 1", n)
	}
	if got := lastCause(a); !strings.HasSuffix(got, "asked for scopes Mail.Read") {
		t.Errorf("logged %q, want the scopes named", got)
	}
	if !a.signedIn(b) {
		t.Error("who refused a scope is not signed in")
	}
}
