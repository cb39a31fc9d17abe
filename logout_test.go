package signin

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// sid is the session at the issuer that a browser's session belongs to.
func (a *app) sid(t *testing.T, subject string) string {
	t.Helper()
	for _, info := range a.issuer.Tokens(subject) {
		if info.SessionID != "" {
			return info.SessionID
		}
	}
	t.Fatal("the issuer knows no sid")
	return ""
}

func (a *app) signedIn(b *signintest.Browser) bool {
	return b.Fetch(b.Open(a.url+"/"), "/me").Status == http.StatusOK
}

// logoutPost sends a logout token as an issuer does, without a browser.
func (a *app) logoutPost(t *testing.T, raw string) *http.Response {
	t.Helper()
	resp, err := a.net.Client().PostForm(a.url+"/oidc/backchannel-logout", url.Values{"logout_token": {raw}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if cc := resp.Header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", cc)
	}
	return resp
}

func TestBackChannelLogout(t *testing.T) {
	const logoutJWT = "logout+jwt"
	for _, tc := range []struct {
		name string
		edit func(claims map[string]any, o *signintest.SignOptions)
		want int
	}{
		{"good", func(map[string]any, *signintest.SignOptions) {}, 200},
		{"typ JWT", func(_ map[string]any, o *signintest.SignOptions) { o.Header["typ"] = "JWT" }, 200},
		{"typ absent", func(_ map[string]any, o *signintest.SignOptions) { o.Header["typ"] = nil }, 200},
		{"no exp", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "exp") }, 200},
		{"no sub", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "sub") }, 200},
		{"as Hydra sends it", func(c map[string]any, o *signintest.SignOptions) {
			delete(c, "exp")
			delete(c, "sub")
			o.Header["typ"] = "JWT"
		}, 200},
		{"no sid", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "sid") }, 200},

		{"typ of an access token", func(_ map[string]any, o *signintest.SignOptions) { o.Header["typ"] = "at+jwt" }, 400},
		{"neither sub nor sid", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "sub"); delete(c, "sid") }, 400},
		{"other issuer", func(c map[string]any, _ *signintest.SignOptions) { c["iss"] = "https://evil.example" }, 400},
		{"the client twice in aud", func(c map[string]any, _ *signintest.SignOptions) { c["aud"] = []string{"client", "client"} }, 200},
		{"another audience beside the client", func(c map[string]any, _ *signintest.SignOptions) { c["aud"] = []string{"client", "api"} }, 400},
		{"sid a number", func(c map[string]any, _ *signintest.SignOptions) { c["sid"] = 7 }, 400},
		{"acr and auth_time odd", func(c map[string]any, _ *signintest.SignOptions) { c["acr"], c["auth_time"] = 1, "x" }, 200},
		{"other audience", func(c map[string]any, _ *signintest.SignOptions) { c["aud"] = "other" }, 400},
		{"no iat", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "iat") }, 400},
		{"iat in the future", func(c map[string]any, _ *signintest.SignOptions) { c["iat"] = time.Now().Add(2 * time.Minute).Unix() }, 400},
		{"iat long ago", func(c map[string]any, _ *signintest.SignOptions) { c["iat"] = time.Now().Add(-7 * time.Minute).Unix() }, 400},
		{"expired", func(c map[string]any, _ *signintest.SignOptions) { c["exp"] = time.Now().Add(-2 * time.Minute).Unix() }, 400},
		{"nbf in the future", func(c map[string]any, _ *signintest.SignOptions) { c["nbf"] = time.Now().Add(2 * time.Minute).Unix() }, 400},
		{"no events", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "events") }, 400},
		{"other event", func(c map[string]any, _ *signintest.SignOptions) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}
		}, 400},
		{"event not an object", func(c map[string]any, _ *signintest.SignOptions) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/backchannel-logout": true}
		}, 400},
		{"nonce", func(c map[string]any, _ *signintest.SignOptions) { c["nonce"] = "n" }, 400},
		{"no jti", func(c map[string]any, _ *signintest.SignOptions) { delete(c, "jti") }, 400},
		{"alg none", func(_ map[string]any, o *signintest.SignOptions) { o.Alg = "none" }, 400},
		{"HS256 with the public key", func(_ map[string]any, o *signintest.SignOptions) { o.Alg = "HS256" }, 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t)
			b := a.signIn()
			claims := a.issuer.LogoutToken("alice", a.sid(t, "alice"))
			o := signintest.SignOptions{Header: map[string]any{"typ": logoutJWT}}
			tc.edit(claims, &o)
			if got := a.logoutPost(t, a.issuer.Sign(claims, o)).StatusCode; got != tc.want {
				t.Errorf("status %d, want %d\n%s", got, tc.want, a.log)
			}
			if got, want := a.signedIn(b), tc.want != 200; got != want {
				t.Errorf("signed in afterwards: %t, want %t", got, want)
			}
		})
	}
}

func TestBackChannelLogoutForeignKey(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	foreign := a.issuer.ForeignKey("RS256")
	raw := a.issuer.Sign(a.issuer.LogoutToken("alice", ""), signintest.SignOptions{Key: &foreign})
	if got := a.logoutPost(t, raw).StatusCode; got != 400 {
		t.Errorf("status %d, want 400", got)
	}
	if !a.signedIn(b) {
		t.Error("a token signed by somebody else ended a session")
	}
}

// An ID token is signed by the same key for the same client.
func TestBackChannelLogoutIDToken(t *testing.T) {
	a := newApp(t)
	var stolen string
	a.issuer.Update(func(x *signintest.Behaviour) {
		x.EditIDToken = func(it *signintest.IDToken) {
			delete(it.Claims, "nonce") // the rule below must not hang on it
			it.Claims["jti"] = "1"
		}
	})
	b := a.browser()
	stolen = a.issuer.Sign(map[string]any{
		"iss": a.issuer.URL(), "aud": "client", "sub": "alice", "jti": "1",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}, signintest.SignOptions{})
	a.issuer.Update(func(x *signintest.Behaviour) { x.EditIDToken = nil })
	if a.subject(b) != "alice" {
		t.Fatal("not signed in")
	}
	if got := a.logoutPost(t, stolen).StatusCode; got != 400 || !a.signedIn(b) {
		t.Errorf("an ID token was taken for a logout token: %d", got)
	}
}

func TestBackChannelLogoutOnce(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	raw := a.issuer.Sign(a.issuer.LogoutToken("alice", ""), signintest.SignOptions{})
	if got := a.logoutPost(t, raw).StatusCode; got != 200 || a.signedIn(b) {
		t.Fatalf("first: %d, signed in %t", got, a.signedIn(b))
	}
	if a.subject(b) != "alice" {
		t.Fatal("not signed in again")
	}
	if got := a.logoutPost(t, raw).StatusCode; got != 400 || !a.signedIn(b) {
		t.Errorf("a replay: %d, signed in %t; want 400 and no effect", got, a.signedIn(b))
	}
}

// By sid one session ends, by sub all of the user's, and nobody else's.
func TestBackChannelLogoutScope(t *testing.T) {
	for _, tc := range []struct {
		name         string
		sub          string
		bySID        bool
		one, two, bo bool // signed in afterwards
	}{
		{"by sid", "", true, false, true, true},
		{"by sub", "alice", false, false, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t)
			one := a.signIn()
			sid := a.sid(t, "alice")
			two := a.signIn()
			a.issuer.Update(func(x *signintest.Behaviour) { x.User = "bob" })
			bob := a.browser()
			if got := a.subject(bob); got != "bob" {
				t.Fatalf("signed in as %q", got)
			}
			if !tc.bySID {
				sid = ""
			}
			raw := a.issuer.Sign(a.issuer.LogoutToken(tc.sub, sid), signintest.SignOptions{})
			if got := a.logoutPost(t, raw).StatusCode; got != 200 {
				t.Fatalf("status %d\n%s", got, a.log)
			}
			if got := [3]bool{a.signedIn(one), a.signedIn(two), a.signedIn(bob)}; got != [3]bool{tc.one, tc.two, tc.bo} {
				t.Errorf("signed in afterwards: %v, want %v", got, [3]bool{tc.one, tc.two, tc.bo})
			}
		})
	}
}

func TestBackChannelLogoutRequest(t *testing.T) {
	a := newApp(t)
	client := a.net.Client()
	for _, tc := range []struct {
		name, method, contentType, body string
		want                            int
	}{
		{"GET", "GET", "", "", 405},
		{"no token", "POST", "application/x-www-form-urlencoded", "", 400},
		{"two tokens", "POST", "application/x-www-form-urlencoded", "logout_token=a&logout_token=b", 400},
		{"JSON", "POST", "application/json", `{"logout_token":"a"}`, 400},
		{"huge", "POST", "application/x-www-form-urlencoded", "logout_token=" + strings.Repeat("a", 1<<20), 400},
		{"garbage", "POST", "application/x-www-form-urlencoded", "logout_token=%zz", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, _ := http.NewRequest(tc.method, a.url+"/oidc/backchannel-logout", strings.NewReader(tc.body))
			req.Header.Set("Content-Type", tc.contentType)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tc.want {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.want)
			}
		})
	}
}

func TestFrontChannelLogout(t *testing.T) {
	a := newApp(t)
	one := a.signIn()
	sid := a.sid(t, "alice")
	two := a.signIn()

	frame := func(query url.Values) int {
		p := one.Send(&signintest.Request{URL: a.url + "/oidc/frontchannel-logout?" + query.Encode(), From: a.issuer.URL(), Mode: "navigate", Dest: "iframe"})
		if xfo := p.Header.Get("X-Frame-Options"); xfo != "" {
			t.Errorf("X-Frame-Options %q: the issuer cannot frame it", xfo)
		}
		if cc := p.Header.Get("Cache-Control"); cc != "no-store" {
			t.Errorf("Cache-Control %q, want no-store", cc)
		}
		return p.Status
	}
	for _, bad := range []url.Values{
		{},
		{"iss": {a.issuer.URL()}},
		{"iss": {"https://evil.example"}, "sid": {sid}},
		{"iss": {a.issuer.URL()}, "sid": {sid, sid}},
		{"iss": {a.issuer.URL(), a.issuer.URL()}, "sid": {sid}},
		{"sid": {sid}}, // another issuer may have the same
		{"iss": {""}, "sid": {sid}},
	} {
		if got := frame(bad); got != 400 || !a.signedIn(one) {
			t.Errorf("%v: status %d, signed in %t; want 400 and no effect", bad, got, a.signedIn(one))
		}
	}
	if got := frame(url.Values{"iss": {a.issuer.URL()}, "sid": {sid}}); got != 200 {
		t.Errorf("status %d, want 200", got)
	}
	if a.signedIn(one) || !a.signedIn(two) {
		t.Errorf("signed in afterwards: %t and %t, want only the second", a.signedIn(one), a.signedIn(two))
	}
}

// Entra sends sid alone. What it sends beside must be right all the same.
func TestFrontChannelLogoutAtEntra(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) { b.Entra = true }
		o.config = func(c *Config) { c.Issuer += "/organizations/v2.0" }
	})
	one := a.signIn()
	sid := a.sid(t, "alice")
	for _, tc := range []struct {
		query    url.Values
		status   int
		signedIn bool
	}{
		{url.Values{"sid": {sid}, "iss": {""}}, 400, true},
		{url.Values{"sid": {sid}, "iss": {"https://evil.example"}}, 400, true},
		{url.Values{"sid": {"another"}}, 200, true},
		{url.Values{"sid": {sid}}, 200, false},
		{url.Values{"sid": {sid}}, 200, false},
	} {
		p := a.browser().Open(a.url + "/oidc/frontchannel-logout?" + tc.query.Encode())
		if got := a.signedIn(one); p.Status != tc.status || got != tc.signedIn {
			t.Errorf("%v: status %d, signed in %t; want %d, %t", tc.query, p.Status, got, tc.status, tc.signedIn)
		}
	}
}

// Requests for one sid share one call, so that a crowd costs the store no more
// than one of them, and all hear that the session has ended.
func TestFrontChannelLogoutAtOnce(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		s := newStrangers(l, nil)
		l.replicas[0] = s.replica
		cookies := l.signIn("alice")
		info := l.issuer.Tokens("alice")[0]
		q := url.Values{"iss": {l.issuer.URL()}, "sid": {info.SessionID}}
		before := s.store.calls.Load()
		together(300, func(int) {
			r := httptest.NewRequest("GET", "https://app.example.test/oidc/frontchannel-logout?"+q.Encode(), nil)
			if got := s.serve(r, "", nil).StatusCode; got != http.StatusOK {
				t.Errorf("status %d, want 200", got)
			}
		})
		if n := s.store.calls.Load() - before; n > 20 {
			t.Errorf("%d calls of the store, want 20 at most", n)
		}
		if l.record(cookies) != nil {
			t.Error("the session is still there")
		}
	})
}

// Whoever does not use front-channel logout can be without its path.
func TestNoFrontChannelLogout(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.NoFrontChannelLogout = true }
	})
	b := a.signIn()
	q := url.Values{"iss": {a.issuer.URL()}, "sid": {a.sid(t, "alice")}}
	if p := b.Open(a.url + "/oidc/frontchannel-logout?" + q.Encode()); p.Status != http.StatusNotFound || !a.signedIn(b) {
		t.Errorf("status %d, signed in %t; want the application's 404 and no effect", p.Status, a.signedIn(b))
	}
}

func TestSignOutUser(t *testing.T) {
	a := newApp(t)
	one, two := a.signIn(), a.signIn()
	if err := a.SignOutUser(t.Context(), a.issuer.URL(), "bob"); err != nil || !a.signedIn(one) {
		t.Fatalf("signing bob out: %v; alice signed in: %t", err, a.signedIn(one))
	}
	if err := a.SignOutUser(t.Context(), a.issuer.URL(), "alice"); err != nil {
		t.Fatal(err)
	}
	if a.signedIn(one) || a.signedIn(two) {
		t.Error("a session is left")
	}
}

// Two replicas that write one list at once lose no entry, and a list that is
// full ends the oldest session rather than forget it.
func TestIndex(t *testing.T) {
	a := newApp(t)
	ctx := t.Context()
	user := oidc.Claims{Issuer: "i", Subject: "s"}
	later := time.Now().Add(a.cfg.SessionLifetime).Unix()
	enter := func(key string) {
		if err := a.records.enter(ctx, a.records.placesOf(user, nil), indexed{Key: key, Expires: later}, "", nil); err != nil {
			t.Error(err)
		}
		if _, _, err := once.Swap(ctx, a.store, key, nil, []byte("record"), time.Hour); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range maxIndexed {
		wg.Go(func() { enter(seal.StoreKey("s", []byte{byte(i)})) })
	}
	wg.Wait()
	place := a.records.places(indexUser, userValue("i", "s"))[0]
	count := func() int {
		sealed, err := once.ReadFresh(ctx, a.store, place.name)
		if err != nil {
			t.Fatal(err)
		}
		return len(place.open(sealed).Sessions)
	}
	if n := count(); n != maxIndexed {
		t.Errorf("%d entries, want %d", n, maxIndexed)
	}
	sealed, _ := once.ReadFresh(ctx, a.store, place.name)
	oldest := place.open(sealed).Sessions[0].Key
	enter(seal.StoreKey("s", []byte("one more")))
	if n := count(); n != maxIndexed {
		t.Errorf("%d entries, want %d", n, maxIndexed)
	}
	if left, _ := once.ReadFresh(ctx, a.store, oldest); left != nil {
		t.Error("the session that fell out of the list lives on")
	}
	a.clock.advance(13 * time.Hour)
	if err := a.records.edit(ctx, place, func(*indexList) (bool, error) { return true, nil }); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 0 {
		t.Errorf("%d entries after they expired, want 0", n)
	}
}

func TestSignOutCrossSite(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	p := b.Follow(&signintest.Request{Method: "POST", URL: a.url + "/signout", Form: url.Values{}, From: "https://evil.example.test/", Activated: true})
	if p.Status != http.StatusForbidden || !a.signedIn(b) {
		t.Errorf("a cross-site POST: %d, signed in %t; want 403 and no effect", p.Status, a.signedIn(b))
	}
}

func TestSignOutRevokes(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	b.Submit(b.Open(a.url+"/signout"), nil)
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := a.issuer.Count(signintest.EndpointRevocation); n != 1 {
		t.Errorf("%d revocations, want 1", n)
	}
	for _, info := range a.issuer.Tokens("alice") {
		if info.Refresh && info.Active {
			t.Error("a refresh token is still good")
		}
	}
}

func TestRecognize(t *testing.T) {
	a := newApp(t)
	a.mux.Handle("GET /hello", a.Recognize(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := UserFromContext(r.Context()); u != nil {
			w.Write([]byte("hello " + u.Subject))
			return
		}
		w.Write([]byte("hello"))
	})))

	// A client without cookies is never sent anywhere.
	for range 3 {
		if p := a.browser().Open(a.url + "/hello"); p.Body != "hello" {
			t.Fatalf("first visit: %d %s", p.Status, p.Body)
		}
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 0 {
		t.Errorf("%d challenges of clients without cookies", n)
	}
	b := a.browser()
	b.Open(a.url + "/hello")
	if p := b.Open(a.url + "/hello"); p.Body != "hello alice" {
		t.Errorf("second visit: %d %s", p.Status, p.Body)
	}
	if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("prompt"); got != "none" {
		t.Errorf("prompt %q, want none", got)
	}

	// Who is not known is asked for once, and after a sign-out not again.
	a.issuer.Update(func(x *signintest.Behaviour) { x.SignedOut = true })
	stranger := a.browser()
	before := a.issuer.Count(signintest.EndpointAuthorize)
	for range 4 {
		if p := stranger.Open(a.url + "/hello"); p.Body != "hello" || p.Status != 200 {
			t.Fatalf("a stranger: %d %s", p.Status, p.Body)
		}
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize) - before; n != 1 {
		t.Errorf("a stranger was asked for %d times, want 1", n)
	}
	a.issuer.Update(func(x *signintest.Behaviour) { x.SignedOut = false })
	b.Submit(b.Open(a.url+"/signout"), nil)
	if p := b.Open(a.url + "/hello"); p.Body != "hello" {
		t.Errorf("after sign-out: %s, want nobody", p.Body)
	}
}

func TestThirdPartyInitiated(t *testing.T) {
	a := newApp(t)
	open := func(q url.Values) *signintest.Page {
		return a.browser().Follow(&signintest.Request{URL: a.url + "/oidc/login?" + q.Encode(), From: "https://portal.example.test/", Activated: true})
	}
	for _, tc := range []struct {
		name   string
		q      url.Values
		status int
		url    string
	}{
		{"ours", url.Values{"iss": {a.issuer.URL()}, "target_link_uri": {a.url + "/page/1?x=2"}, "login_hint": {"bob"}}, 200, "/page/1?x=2"},
		{"no target", url.Values{"iss": {a.issuer.URL()}}, 200, "/"},
		{"foreign target", url.Values{"iss": {a.issuer.URL()}, "target_link_uri": {"https://evil.example/page/1"}}, 200, "/"},
		{"foreign issuer", url.Values{"iss": {"https://evil.example"}, "target_link_uri": {a.url + "/page/1"}}, 400, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := open(tc.q)
			if p.Status != tc.status || tc.url != "" && p.URL != a.url+tc.url {
				t.Errorf("%d at %s, want %d at %s\n%s", p.Status, p.URL, tc.status, tc.url, a.log)
			}
		})
	}
	if got := a.issuer.Calls(signintest.EndpointAuthorize)[0].Form.Get("login_hint"); got != "bob" {
		t.Errorf("login_hint %q, want bob", got)
	}
}
