package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// fuzzed is an application in front of a real issuer, called without a network.
// Its handler answers 200 to who is signed in and to nobody else.
type fuzzed struct {
	*Auth
	network *signintest.Network
	store   *countingStore
	issuer  *signintest.Issuer
	handler http.Handler
	browser *browser
}

func newFuzzed(f *testing.F) *fuzzed {
	network := signintest.NewNetwork(f)
	issuer := signintest.NewIssuer(f, &signintest.IssuerOptions{URL: "https://login.example.test", Network: network})
	store := counting(NewMemoryStore())
	store.quick = true
	auth, err := New(Config{
		Issuer: issuer.URL(), ClientID: "client", Credential: Secret("secret"), BaseURL: "https://app.example.test",
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: network.Client(), Logger: slog.New(slog.DiscardHandler),
		Store: store,
	})
	if err != nil {
		f.Fatal(err)
	}
	return &fuzzed{
		Auth: auth, network: network, store: store, issuer: issuer,
		handler: auth.Handler(auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))),
		browser: &browser{secret: bytes.Repeat([]byte{5}, secretLen)},
	}
}

// state is one that the browser may answer, whatever process sealed it.
func (a *fuzzed) state(f *testing.F) string {
	state, err := a.states.seal(&transaction{
		ID: bytes.Repeat([]byte{3}, 16), Time: time.Now().Unix(), Return: "/page/x?q=1",
		Browser: a.browser.hash(), Redirect: "https://app.example.test/oidc/callback",
	})
	if err != nil {
		f.Fatal(err)
	}
	return state
}

// browserCookie is a browser cookie of ours with any value.
func (a *fuzzed) browserCookie(value string) string {
	name := a.browsers.names(true)[0]
	return name + "=" + value + "." + cookieTag(a.keys[0], a.party, name, value)
}

// serve asks as a navigation does, and checks what holds for whatever is
// asked: no fault of ours, no token request, no session.
func (a *fuzzed) serve(t *testing.T, method, path, query, cookie string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.URL.RawQuery = query
	r.RequestURI = path
	r.Header.Set("Accept", "text/html")
	r.Header["Cookie"] = []string{cookie}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	if w.Code >= 500 || w.Code < 300 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if n := a.issuer.Count(signintest.EndpointToken); n != 0 {
		t.Fatalf("%d token requests", n)
	}
	for _, c := range w.Result().Cookies() {
		if c.Name == a.sess.name(true) {
			t.Errorf("the session cookie was set: %v", c)
		}
	}
	return w
}

// FuzzReturnPath: wherever a browser is told to go, it stays on this site, and
// what is a return path already stays as it is.
func FuzzReturnPath(f *testing.F) {
	for _, s := range []string{
		"/", "/a?b=c#d", "//evil.example", `/\evil.example`, "https://evil.example", "/.//evil.example", "/%2e%2e//evil.example",
		"/\t/evil.example", "/a/..//evil.example", "/;//evil.example", "/?//evil.example", "/%5cevil.example", "/%2f%2fevil.example", "/@evil.example",
		`/%2f"`, `/%2fevil.example/"`, `/a%2f..%2f/evil.example/|`,
		`/?\evil.example`, `/a?b=\\evil.example\c`, `/?#\evil.example`, `/a\?b`, "/" + strings.Repeat("a", site.MaxReturnPath), "/?" + strings.Repeat("a", site.MaxReturnPath),
	} {
		f.Add(s)
	}
	base, err := url.Parse("https://app.example.test/deep/page?query")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w := httptest.NewRecorder()
		site.RedirectWithin(w, site.NewReturnPath(s))
		location := w.Header().Get("Location")
		u, err := base.Parse(location)
		if err != nil || u.Scheme != "https" || u.Host != "app.example.test" || u.User != nil {
			t.Fatalf("%q leads to %q, which is %v %v", s, location, u, err)
		}
		// What net/url does not know of browsers: \ is /, and tabs and line
		// breaks are nothing (URL Standard, 4.4).
		path, _, _ := strings.Cut(location, "?")
		if strings.Contains(path, `\`) || strings.ContainsAny(location, "\t\r\n\x00") || !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") || len(location) > site.MaxReturnPath {
			t.Errorf("%q leads to %q", s, location)
		}
		// What resolution makes of it is no other host's either.
		if strings.HasPrefix(u.EscapedPath(), "//") {
			t.Errorf("%q leads to %q, whose path is %q", s, location, u.EscapedPath())
		}
		if again := site.NewReturnPath(location).String(); again != location {
			t.Errorf("%q became %q and then %q", s, location, again)
		}
	})
}

// FuzzState: what opens is what was sealed, and nothing else opens.
func FuzzState(f *testing.F) {
	a := newFuzzed(f)
	f.Add(a.state(f), "/page", "Mail.Read Mail.Send", int64(1_800_000_000), uint16(0), byte(1))
	f.Add("", "/?&&&&", "", int64(-1), uint16(100), byte(0x20))
	f.Add("AAAA", "", "\x00", int64(1<<62), uint16(9999), byte(0xff))
	f.Fuzz(func(t *testing.T, raw, to, scopes string, at int64, where uint16, flip byte) {
		if tx, err := a.states.open(raw); err == nil {
			again, err := a.states.seal(tx)
			if err != nil {
				t.Fatal(err)
			}
			if reopened, err := a.states.open(again); err != nil || !reflect.DeepEqual(reopened, tx) {
				t.Errorf("%+v became %+v, %v", tx, reopened, err)
			}
		}
		tx := &transaction{
			ID: seal.Random(16), Time: at, Return: site.NewReturnPath(to).String(), Browser: a.browser.hash(),
			Scopes: strings.Fields(strings.ToValidUTF8(scopes[:min(len(scopes), 500)], "")), MaxAge: &at, Interactive: flip&1 == 1,
		}
		if len(tx.Scopes) == 0 {
			tx.Scopes = nil
		}
		state, err := a.states.seal(tx)
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := a.states.open(state); err != nil || !reflect.DeepEqual(opened, tx) {
			t.Fatalf("%+v became %+v, %v", tx, opened, err)
		}
		altered := []byte(state)
		if altered[int(where)%len(altered)] ^= flip; flip != 0 {
			if opened, err := a.states.open(string(altered)); err == nil {
				t.Errorf("opens with byte %d altered: %+v", int(where)%len(altered), opened)
			}
		}
		if opened, err := a.states.open(state[:int(where)%len(state)]); err == nil {
			t.Errorf("opens cut to %d bytes: %+v", int(where)%len(state), opened)
		}
	})
}

// FuzzCallback: whatever comes to the callback, by form or query, with the
// right browser cookie, a good state and no good ID token, is refused.
func FuzzCallback(f *testing.F) {
	a := newFuzzed(f)
	state := a.state(f)
	now := time.Now().Unix()
	token := a.issuer.Sign(map[string]any{"iss": a.issuer.URL(), "aud": "client", "sub": "alice", "exp": now + 3600, "iat": now, "nonce": "n"}, signintest.SignOptions{})
	for _, v := range []url.Values{
		{}, {"state": {state}}, {"code": {"c"}}, {"state": {"AAAA"}, "code": {"c"}},
		{"state": {state}, "code": {"c"}, "id_token": {token}, "iss": {a.issuer.URL()}},
		{"state": {state}, "code": {"c"}, "id_token": {"a.b.c"}, "iss": {"https://evil.example.test"}},
		{"state": {state}, "code": {"c"}, "id_token": {`{"payload":"","signatures":[]}`}},
		{"state": {state}, "error": {"access_denied"}, "error_description": {"<script>"}},
		{"state": {state, state}, "code": {"c"}},
	} {
		f.Add([]byte(v.Encode()))
	}
	f.Add([]byte("state=%zz&&&;=\x00"))
	f.Add(bytes.Repeat([]byte("a=b&"), 40))
	cookie := a.browserCookie(seal.Encode(a.browser.secret))
	f.Fuzz(func(t *testing.T, form []byte) {
		for _, w := range []*httptest.ResponseRecorder{
			a.serve(t, http.MethodPost, "/oidc/callback", "", cookie, form),
			a.serve(t, http.MethodGet, "/oidc/callback", string(form), cookie, nil),
		} {
			if location := w.Header().Get("Location"); w.Code < 400 && location != "/page/x?q=1" {
				t.Errorf("%d to %q", w.Code, location)
			}
			if body := w.Body.String(); strings.Contains(body, "<script") || strings.Contains(body, token) {
				t.Errorf("the page holds what came: %s", body)
			}
		}
	})
}

// FuzzBrowserCookie: a browser cookie is 32 bytes or nothing, and never a
// session or a fault.
func FuzzBrowserCookie(f *testing.F) {
	a := newFuzzed(f)
	good := seal.Encode(a.browser.secret)
	for _, s := range []string{
		"", good, good + ".signin.3.1800000000", good + ".signin.-1.-1", good + ".s", good + ".x.99999999999999999999.1",
		good + "=", `"` + good + `"`, strings.Repeat(".", 200), strings.Repeat("A", 5000), good + "; " + good, good + ".a;b.1.1", good + `.a"b.1.1800000000`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		// Without a tag of ours it is nobody's.
		r := httptest.NewRequest(http.MethodGet, "https://app.example.test/", http.NoBody)
		r.Header["Cookie"] = []string{a.browsers.names(true)[0] + "=" + value}
		if b := a.browsers.read(r); b != nil {
			t.Fatalf("%q was read as %+v", value, b)
		}
		cookie := a.browserCookie(value)
		w := a.serve(t, http.MethodGet, "/page/x", "", cookie, nil)
		r.Header["Cookie"] = []string{cookie}
		b := a.browsers.read(r)
		if b == nil {
			return
		}
		if len(b.secret) != secretLen {
			t.Fatalf("a secret of %d bytes", len(b.secret))
		}
		// Whatever it held, what we make of it is the same browser's.
		next := httptest.NewRequest(http.MethodGet, "https://app.example.test/", http.NoBody)
		for _, c := range w.Result().Cookies() {
			next.AddCookie(c)
		}
		if again := a.browsers.read(next); again == nil || !bytes.Equal(again.secret, b.secret) {
			t.Errorf("%q became another browser's: %q", value, w.Result().Cookies())
		}
	})
}

// FuzzSessionCookie: a session cookie that we did not make is nobody's, and no
// fault.
func FuzzSessionCookie(f *testing.F) {
	a := newFuzzed(f)
	w := httptest.NewRecorder()
	if err := a.sess.write(w, httptest.NewRequest(http.MethodGet, "https://app.example.test/", http.NoBody), bytes.Repeat([]byte{1}, secretLen)); err != nil {
		f.Fatal(err)
	}
	ours := w.Result().Cookies()[0].Value // of a session that is in no store
	for _, s := range []string{"", ours, ours[:len(ours)-1], ours + "A", `"` + ours + `"`, ours + "; " + ours, "=", ";", strings.Repeat("A", 5000), "MTIzfA==", "\x00\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		w := a.serve(t, http.MethodGet, "/page/x", "", a.sess.name(true)+"="+value, nil)
		if _, err := io.Copy(io.Discard, w.Body); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), a.issuer.URL()+"/") {
			t.Errorf("%d to %q, want a sign-in", w.Code, w.Header().Get("Location"))
		}
	})
}

// FuzzRefreshTokenIn: of an answer that is whole, the refresh token is what
// encoding/json reads; of one that is cut off anywhere it is that or none.
func FuzzRefreshTokenIn(f *testing.F) {
	for _, s := range []string{
		`{"access_token":"a","refresh_token":"r","expires_in":3600}`, `{"refresh_token":17}`, `{"a":{"refresh_token":"x"}}`,
		`{"refresh_token":"a","refresh_token":"b"}`, `["refresh_token","x"]`, `{"refresh_token":"\u0041\ud800"}`, `{"a":1}{"refresh_token":"x"}`, "<html>",
	} {
		f.Add([]byte(s), len(s)/2)
	}
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		got := oidc.RefreshTokenIn(body)
		var all map[string]json.RawMessage
		if json.Unmarshal(body, &all) != nil || all == nil || bytes.Count(body, []byte("refresh")) > 1 || bytes.Contains(body, []byte{'\\'}) {
			return
		}
		var want string
		if json.Unmarshal(all["refresh_token"], &want) != nil || len(want) > oidc.MaxRefreshToken {
			want = ""
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if cut >= 0 && cut < len(body) {
			if got := oidc.RefreshTokenIn(body[:cut]); got != "" && got != want {
				t.Errorf("cut off: %q, want %q or none", got, want)
			}
		}
	})
}

// signIn signs alice in and returns the session cookie.
func (a *fuzzed) signIn(f *testing.F) (cookie string) {
	app := a.network.Serve("https://app.example.test", a.handler)
	b := signintest.NewBrowser(f, &signintest.BrowserOptions{Network: a.network})
	if p := b.Open(app + "/page"); p.Status != http.StatusOK {
		f.Fatalf("signing in: %d %v %.300s", p.Status, p.Err, p.Body)
	}
	value, _ := b.Cookie(app, a.sess.name(true))
	a.issuer.ForgetCalls()
	return a.sess.name(true) + "=" + value
}

// stays checks that alice is still signed in, and that nothing has been
// written since before.
func (a *fuzzed) stays(t *testing.T, cookie string, before int64) {
	t.Helper()
	if n := a.store.writes.Load() - before; n != 0 {
		t.Errorf("%d writes to the store", n)
	}
	r := httptest.NewRequest(http.MethodGet, "/page", http.NoBody)
	r.Header.Set("Cookie", cookie)
	w := httptest.NewRecorder()
	if a.handler.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Errorf("alice was signed in and now gets %d", w.Code)
	}
}

// FuzzLogin: the login path leads to the issuer, with a page of this site to
// come back to, or to a page of this site, or nowhere. From another site it
// leads nobody to the issuer who is signed in.
func FuzzLogin(f *testing.F) {
	a := newFuzzed(f)
	session := a.signIn(f)
	initiated := url.Values{"iss": {a.issuer.URL()}, "login_hint": {"bob"}, "target_link_uri": {"https://app.example.test/page?x=1"}}
	for _, v := range []url.Values{
		{}, initiated, {"return": {"/page"}}, {"return": {"//evil.example"}}, {"return": {"/oidc/login?return=/oidc/login"}}, {"ask": {"AAAA"}},
		{"iss": {"https://evil.example"}}, {"iss": {a.issuer.URL()}, "target_link_uri": {"https://app.example.test@evil.example/"}},
		{"iss": {a.issuer.URL()}, "target_link_uri": {"https://app.example.test//evil.example/"}, "login_hint": {strings.Repeat("a", 2000)}},
	} {
		for _, from := range []string{"", "cross-site", "none"} {
			f.Add(v.Encode(), from, true, true)
			f.Add(v.Encode(), from, false, false)
		}
	}
	f.Add("return=%zz&&&;=\x00", "cross-site", true, false)
	f.Fuzz(func(t *testing.T, params, from string, post, signedIn bool) {
		r := httptest.NewRequest(http.MethodGet, "/oidc/login", http.NoBody)
		r.URL.RawQuery = params
		if post {
			r = httptest.NewRequest(http.MethodPost, "/oidc/login", strings.NewReader(params))
		}
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Sec-Fetch-Site", from)
		if signedIn {
			r.Header.Set("Cookie", session)
		}
		before := a.store.writes.Load()
		w := httptest.NewRecorder()
		a.handler.ServeHTTP(w, r)
		a.stays(t, session, before)
		location := w.Header().Get("Location")
		for _, c := range w.Result().Cookies() {
			if c.Name == a.sess.name(true) {
				t.Errorf("the session cookie was set: %v", c)
			}
		}
		switch {
		case w.Code >= 400 && w.Code < 500 && location == "":
			return
		case w.Code != http.StatusSeeOther:
			t.Fatalf("%d to %q", w.Code, location)
		case site.NewReturnPath(location).String() == location:
			return // a page of this site
		}
		to, err := url.Parse(location)
		if err != nil || !strings.HasPrefix(location, a.issuer.URL()+"/") || post || signedIn && from == "cross-site" {
			t.Fatalf("leads to %q", location)
		}
		tx, err := a.states.open(to.Query().Get("state"))
		if err != nil || site.NewReturnPath(tx.Return).String() != tx.Return || tx.Redirect != "https://app.example.test/oidc/callback" {
			t.Errorf("comes back by %+v, %v", tx, err)
		}
		if hint, asked := to.Query().Get("login_hint"), r.URL.Query().Get("login_hint"); hint != "" && hint != asked {
			t.Errorf("login_hint %q, asked for %q", hint, asked)
		}
	})
}

// FuzzFrontChannelLogout: whoever does not know a sid ends no session, and
// leaves nothing in the store.
func FuzzFrontChannelLogout(f *testing.F) {
	a := newFuzzed(f)
	session := a.signIn(f)
	issuer := url.QueryEscape(a.issuer.URL())
	for _, s := range []string{"", "sid=x", "sid=x&iss=" + issuer, "sid=x&iss=", "sid=x&sid=y&iss=" + issuer, "sid=%00&iss=" + issuer, "sid=&iss=" + issuer, "%zz;&sid=" + strings.Repeat("x", 2000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/oidc/frontchannel-logout", http.NoBody)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		before := a.store.writes.Load()
		a.handler.ServeHTTP(w, r)
		a.stays(t, session, before)
		if q := r.URL.Query(); w.Code != http.StatusBadRequest && (w.Code != http.StatusOK || q.Get("iss") != a.issuer.URL() || q.Get("sid") == "") {
			t.Errorf("status %d", w.Code)
		}
	})
}

// FuzzBackChannelLogout: what the issuer has not signed ends no session, and
// leaves nothing in the store.
func FuzzBackChannelLogout(f *testing.F) {
	a := newFuzzed(f)
	session := a.signIn(f)
	foreign := a.issuer.ForeignKey("RS256")
	claims := a.issuer.LogoutToken("alice", "")
	good := a.issuer.Sign(claims, signintest.SignOptions{})
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for _, token := range []string{
		"", "a.b.c", head + "." + payload + ".", head + "." + payload + "." + signature[1:], head + "." + payload + "A." + signature,
		a.issuer.Sign(claims, signintest.SignOptions{Key: &foreign}),
		a.issuer.Sign(claims, signintest.SignOptions{Alg: "none"}), a.issuer.Sign(claims, signintest.SignOptions{Alg: "HS256"}),
		`{"payload":"` + payload + `","signatures":[{"protected":"` + head + `","signature":"` + signature + `"}]}`,
	} {
		f.Add([]byte(url.Values{"logout_token": {token}}.Encode()))
	}
	f.Add([]byte("logout_token=" + good + "&logout_token=" + good))
	f.Fuzz(func(t *testing.T, form []byte) {
		r := httptest.NewRequest(http.MethodPost, "/oidc/backchannel-logout", bytes.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		before := a.store.writes.Load()
		a.handler.ServeHTTP(w, r)
		a.stays(t, session, before)
		if w.Code != http.StatusBadRequest && w.Code != http.StatusServiceUnavailable { // 503: by a key to come, maybe
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}

// signed is an application and an issuer's key, with a clock that stands, so
// that what was found once is found again.
type signed struct {
	*Auth
	meta   *oidc.Metadata
	signer jose.Signer
	now    time.Time
}

func newSigned(f *testing.F, typ string) *signed {
	a := newFuzzed(f)
	s := &signed{Auth: a.Auth, now: time.Unix(1_900_000_000, 0)}
	a.Auth.now = func() time.Time { return s.now }
	a.issuer.Update(func(b *signintest.Behaviour) { b.Alg = "EdDSA" }) // quick, and the same each time
	key := a.issuer.Key()
	var err error
	s.signer, err = jose.NewSigner(
		jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Alg), Key: jose.JSONWebKey{Key: key.Private, KeyID: key.ID}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err == nil {
		s.meta, err = a.Auth.issuer.Metadata(f.Context())
	}
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// sign signs a payload as it is.
func (s *signed) sign(t *testing.T, payload []byte) string {
	t.Helper()
	object, err := s.signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// claimsAsRead are a payload's members by a reader of another make: to the
// letter, and the last of those that are doubled.
func claimsAsRead(t *testing.T, payload []byte) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(payload, &all); err != nil {
		t.Fatalf("accepted, and no JSON object: %v", err)
	}
	return all
}

// isFor reports whether aud names the client.
func isFor(aud any) bool {
	list, _ := aud.([]any)
	return aud == "client" || slices.Contains(list, any("client"))
}

// FuzzIDTokenClaims: an ID token that is accepted says what it must, to a
// reader of another make too, and is no logout token.
func FuzzIDTokenClaims(f *testing.F) {
	a := newSigned(f, "JWT")
	good := fmt.Sprintf(`{"iss":%q,"aud":"client","sub":"alice","exp":%d,"iat":%d,"nonce":"n","sid":"s","auth_time":%d}`, a.cfg.Issuer, a.now.Unix()+300, a.now.Unix(), a.now.Unix()-5)
	for _, s := range []string{
		good, "{}", "null", "[]", `{"iss":1}`,
		strings.Replace(good, `"aud":"client"`, `"aud":"other"`, 1), strings.Replace(good, `"iss":"`, `"iss":"https://evil.example/?`, 1),
		strings.Replace(good, `"sub":"alice",`, ``, 1), strings.Replace(good, `"exp"`, `"Exp"`, 1),
		strings.Replace(good, `"aud":"client"`, `"aud":["client"],"azp":"client"`, 1),
		strings.Replace(good, `"aud":"client"`, `"aud":["client","other"],"azp":"other"`, 1),
		strings.Replace(good, `"sub":"alice"`, `"Sub":"alice","sub":"bob","sub":"carol"`, 1),
		strings.Replace(good, `"sub":"alice"`, `"sub":"\ud800"`, 1),
		strings.Replace(good, `"sid":"s"`, `"sid":7,"tid":{},"acr":[]`, 1),
		strings.Replace(good, `"nonce":"n"`, `"nonce":null`, 1),
		strings.Replace(good, `"exp":19`, `"exp":-19`, 1), strings.Replace(good, `"exp":1`, `"exp":1e300,"x":1`, 1),
		strings.Replace(good, `"iat":1`, `"iat":9`, 1), good + "{}", " " + good,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		raw := a.sign(t, payload)
		token, err := a.issuer.VerifyIDToken(t.Context(), a.meta, raw, oidc.Expectation{Nonce: "n"})
		if _, lost := errors.AsType[*oidc.Error](err); lost {
			t.Fatalf("the keys are to blame: %v", err)
		}
		if err != nil {
			return
		}
		c := claimsAsRead(t, payload)
		subject, _ := c["sub"].(string)
		expires, _ := c["exp"].(float64)
		issued, isNumber := c["iat"].(float64)
		late, early := float64(a.now.Add(-time.Minute).Unix()), float64(a.now.Add(time.Minute).Unix())
		if c["iss"] != a.cfg.Issuer || !isFor(c["aud"]) || c["nonce"] != "n" || subject == "" || len(subject) > 255 || token.Subject != subject ||
			expires <= late || !isNumber || issued > early+1 {
			t.Errorf("accepted: %s", payload)
		}
		if azp, ok := c["azp"].(string); ok && azp != "client" {
			t.Errorf("accepted for %q: %s", azp, payload)
		}
		if _, err := a.issuer.VerifyLogoutToken(t.Context(), a.meta, raw); err == nil {
			t.Errorf("an ID token and a logout token: %s", payload)
		}
	})
}

// FuzzLogoutTokenClaims: a logout token that is accepted says what it must, to
// a reader of another make too, and whose sessions it ends is what it says.
func FuzzLogoutTokenClaims(f *testing.F) {
	a := newSigned(f, "logout+jwt")
	good := fmt.Sprintf(`{"iss":%q,"aud":"client","sub":"alice","sid":"s","jti":"1","exp":%d,"iat":%d,"events":{%q:{}}}`, a.cfg.Issuer, a.now.Unix()+120, a.now.Unix(), oidc.LogoutEvent)
	for _, s := range []string{
		good, "{}", "null",
		strings.Replace(good, `"sub":"alice",`, ``, 1), strings.Replace(good, `"sid":"s",`, ``, 1), strings.Replace(good, `"sid":"s"`, `"sid":7`, 1),
		strings.Replace(good, `"sid":"s"`, `"Sid":"s","SID":"t"`, 1), strings.Replace(good, `"jti":"1"`, `"nonce":null,"jti":"1"`, 1),
		strings.Replace(good, `:{}}`, `:[]}`, 1), strings.Replace(good, `:{}}`, `:null}`, 1), strings.Replace(good, `"iat":19`, `"iat":18`, 1),
		strings.Replace(good, `"aud":"client"`, `"aud":[]`, 1), strings.Replace(good, `"iss":"`, `"iss":"https://evil.example/?`, 1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		token, err := a.issuer.VerifyLogoutToken(t.Context(), a.meta, a.sign(t, payload))
		if _, lost := errors.AsType[*oidc.Error](err); lost {
			t.Fatalf("the keys are to blame: %v", err)
		}
		if err != nil {
			return
		}
		c := claimsAsRead(t, payload)
		subject, _ := c["sub"].(string)
		sid, _ := c["sid"].(string)
		id, _ := c["jti"].(string)
		issued, isNumber := c["iat"].(float64)
		events, _ := c["events"].(map[string]any)
		_, isLogout := events[oidc.LogoutEvent].(map[string]any)
		_, hasNonce := c["nonce"]
		oldest := float64(a.now.Add(-oidc.LogoutAge - time.Minute).Unix())
		if c["iss"] != a.cfg.Issuer || !isFor(c["aud"]) || hasNonce || !isLogout || id == "" || !isNumber || issued < oldest-1 || subject+sid == "" {
			t.Errorf("accepted: %s", payload)
		}
		if token.Subject != subject || token.SessionID != sid || token.ID != id {
			t.Errorf("read as %q, %q, %q: %s", token.Subject, token.SessionID, token.ID, payload)
		}
	})
}

// answers is an issuer that gives every request one answer.
type answers struct {
	status int
	header http.Header
	body   []byte
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
}

// tellable checks what goes into a log.
func tellable(t *testing.T, err error) {
	t.Helper()
	if said := err.Error(); len(said) > 2000 || strings.ContainsFunc(said, unicode.IsControl) {
		t.Errorf("an error of %d bytes: %.3000q", len(said), said)
	}
}

// FuzzDiscoveryAnswer: a discovery document that is accepted is the issuer's own, and
// leads nowhere by plain http and to no symmetric algorithm.
func FuzzDiscoveryAnswer(f *testing.F) {
	const issuer = "https://login.example.test"
	good := `{"issuer":"` + issuer + `","authorization_endpoint":"` + issuer + `/a","token_endpoint":"` + issuer + `/t","jwks_uri":"` + issuer + `/k",
		"end_session_endpoint":"` + issuer + `/e","revocation_endpoint":"` + issuer + `/r","id_token_signing_alg_values_supported":["RS256"],"authorization_response_iss_parameter_supported":true}`
	for _, s := range []string{
		good, "{}", "null", "[]", "<html>", strings.Replace(good, "RS256", "HS256", 1), strings.Replace(good, `["RS256"]`, `["none","HS256"]`, 1),
		strings.Replace(good, issuer+`/t`, "http://evil.example/t", 1), strings.Replace(good, issuer+`/t`, "http://127.0.0.1/t", 1),
		strings.Replace(good, issuer+`/a`, "javascript:alert(1)//", 1), strings.Replace(good, issuer+`/a`, "https://user@evil.example/?x=1#y", 1),
		strings.Replace(good, issuer+`"`, issuer+`/"`, 1), strings.Replace(good, issuer+`/e`, "//evil.example", 1), strings.Replace(good, `"issuer"`, `"Issuer"`, 1),
		strings.Replace(good, `["RS256"]`, `"RS256"`, 1), strings.Replace(good, `:true`, `:"true"`, 1),
	} {
		f.Add(s, "application/json", uint16(200))
	}
	f.Add(good, "text/html", uint16(200))
	f.Add(good, "application/json", uint16(404))
	f.Add("sorry\x01\nlevel=ERROR", "text/plain", uint16(500))
	f.Fuzz(func(t *testing.T, body, contentType string, status uint16) {
		client := &http.Client{Transport: answers{int(status), http.Header{"Content-Type": {contentType}}, []byte(body)}}
		i := issuerOf(Config{Issuer: issuer, HTTPClient: client}, time.Now, func(_ context.Context, err error) { tellable(t, err) })
		meta, err := i.Discover(t.Context())
		if err != nil {
			tellable(t, err)
			return
		}
		if status != http.StatusOK || meta.Issuer != issuer || meta.Rule.Check(issuer, "", "") != nil {
			t.Errorf("accepted with status %d: %s", status, body)
		}
		for _, endpoint := range []string{meta.AuthorizationEndpoint, meta.TokenEndpoint, meta.JWKSURI, meta.EndSessionEndpoint, meta.RevocationEndpoint} {
			u, err := url.Parse(endpoint)
			if endpoint != "" && (err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !site.IsLoopback(u.Hostname()))) {
				t.Errorf("an endpoint is %q: %v", endpoint, err)
			}
		}
		if meta.AuthorizationEndpoint == "" || meta.TokenEndpoint == "" || meta.JWKSURI == "" {
			t.Errorf("an endpoint is missing: %s", body)
		}
		for _, v := range []oidc.TokenVerifier{meta.Keys, meta.LogoutKeys} {
			if len(v.Algs) == 0 || slices.ContainsFunc(v.Algs, func(alg string) bool { return !slices.Contains(oidc.Asymmetric, alg) }) {
				t.Errorf("algorithms %q", v.Algs)
			}
		}
	})
}

// FuzzTokenAnswer: an answer that is accepted holds a bearer token of a size
// that a session can hold, or an ID token. An error can be logged, and gives
// away nothing that was sent, though the issuer echoes it. The refresh token of
// an answer that cannot be used is not lost.
func FuzzTokenAnswer(f *testing.F) {
	a := newFuzzed(f)
	meta, err := a.Auth.issuer.Metadata(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	const code = "the-code-that-was-sent"
	for _, s := range []string{
		`{"access_token":"a","token_type":"Bearer","refresh_token":"r","id_token":"i","scope":"openid","expires_in":300}`,
		`{"access_token":"a","token_type":"bearer","scope":["a","b"],"expires_in":"300"}`, `{"access_token":"a","expires_in":-1e99}`,
		`{"access_token":"a","token_type":"DPoP"}`, `{"access_token":1,"id_token":"i"}`, `{"access_token":"","refresh_token":"r"}`, "\ufeff{\"refresh_token\":\"r\",\"token_type\":1}", `{}`, `null`, `<html>`, ``,
		`{"error":"invalid_grant","error_description":"` + code + `\n"}`, `{"error":"` + code + `"}`, `{"error":"x","claims":"{}","suberror":"` + code + `"}`,
		`{"error":{"code":"x"}}`, `{"access_token":"` + strings.Repeat("a", 1<<17) + `"}`,
	} {
		for _, status := range []uint16{200, 400, 503} {
			f.Add([]byte(s), "application/json", "", status)
		}
	}
	f.Add([]byte(code), "text/"+code, "120", uint16(200))
	f.Fuzz(func(t *testing.T, body []byte, contentType, after string, status uint16) {
		header := http.Header{"Content-Type": {contentType}, "Retry-After": {after}}
		a.Auth.issuer.Client.Transport = answers{int(status), header, body}
		answer, err := a.Auth.issuer.RequestToken(t.Context(), meta, url.Values{"grant_type": {"authorization_code"}, "code": {code}}, nil)
		if err != nil {
			tellable(t, err)
			if strings.Contains(err.Error(), code) {
				t.Errorf("the error holds the code: %v", err)
			}
			if e, ok := errors.AsType[*oidc.TokenError](err); ok && e.RetryAfter.After(time.Now().Add(6*time.Minute)) {
				t.Errorf("to be asked again at %v", e.RetryAfter)
			}
			if spoilt, ok := errors.AsType[*oidc.UnusableAnswer](err); ok && spoilt.Refresh != oidc.RefreshTokenIn(body) {
				t.Errorf("the refresh token is lost: %.500q", body)
			}
			return
		}
		if answer.AccessToken == "" && answer.IDToken == "" || answer.TokenType != "" && !strings.EqualFold(answer.TokenType, "Bearer") ||
			len(answer.AccessToken) > oidc.MaxAccessToken || len(answer.RefreshToken) > oidc.MaxRefreshToken || answer.ExpiresIn.Duration < 0 {
			t.Errorf("accepted with status %d: %.500q", status, body)
		}
	})
}

// FuzzForwardedHeaders: whatever a trusted proxy passes on, the site is one that a
// redirect URI can name, by https or on loopback, or there is none; and from
// anybody else it counts for nothing.
func FuzzForwardedHeaders(f *testing.F) {
	base := newFuzzed(f)
	auth, err := New(Config{
		Issuer: base.issuer.URL(), ClientID: "client", Credential: Secret("secret"), HTTPClient: base.network.Client(),
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, Logger: slog.New(slog.DiscardHandler), TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	})
	if err != nil {
		f.Fatal(err)
	}
	handler := auth.Handler(auth.RequireUser(http.NotFoundHandler()))
	for _, s := range [][5]string{
		{"https", "app.example.test", "", "", ""}, {"https", "App.Example.Test:443", "/app", "443", ""}, {"wss", "[::1]:8443", "/a/../b", "8443", ""},
		{"http", "app.example.test", "", "", ""}, {"https", "evil.example/x?", "//evil.example", "99999", ""}, {"https", "a@b", "/%2f", "-1", ""},
		{"https, http", "a.example, b.example", "/a, /b", "1, 2", `for=1.2.3.4;host="x";proto=https`}, {"https", "", "/\\evil", "", "proto=http"},
		{"https", "app.example.test", "/p?q#f", "", ""},
	} {
		f.Add(s[0], s[1], s[2], s[3], s[4], "/page?x=1")
	}
	f.Fuzz(func(t *testing.T, proto, host, prefix, port, forwarded, target string) {
		if site.NewReturnPath(target).String() != target {
			target = "/"
		}
		request := func(peer string) *http.Request {
			r := httptest.NewRequest(http.MethodGet, "http://inner.example.test/", http.NoBody)
			r.URL.Path, r.RequestURI, r.RemoteAddr = "/", target, peer
			if u, err := url.ParseRequestURI(target); err == nil {
				r.URL = u
			}
			for name, value := range map[string]string{
				"X-Forwarded-Proto": proto, "X-Forwarded-Host": host, "X-Forwarded-Prefix": prefix, "X-Forwarded-Port": port, "Forwarded": forwarded,
			} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			r.Header.Set("Accept", "text/html")
			return r
		}
		if s, want := auth.visits.site(request("192.0.2.1:1")), (site.Site{Scheme: "http", Host: "inner.example.test"}); s != want {
			t.Errorf("from a peer that is not trusted: %+v, want %+v", s, want)
		}
		r := request("10.1.2.3:4")
		s := auth.visits.site(r)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		location := w.Header().Get("Location")
		if s.Fault() != nil {
			if w.Code < 400 && site.NewReturnPath(location).String() != location {
				t.Errorf("a site with a fault, %+v: %d to %q", s, w.Code, location)
			}
			return
		}
		redirect := s.URL("/oidc/callback")
		u, err := url.Parse(redirect)
		if err != nil || u.Host != s.Host || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.EscapedPath() != s.Base+"/oidc/callback" ||
			u.Scheme != "https" && (u.Scheme != "http" || !site.IsLoopback(u.Hostname())) {
			t.Errorf("%+v makes %q: %v", s, redirect, err)
		}
		if home := s.Path("/x"); site.NewReturnPath(home).String() != home {
			t.Errorf("%q is no page of the site", home)
		}
		to, err := url.Parse(location)
		if err != nil || w.Code == http.StatusSeeOther && strings.HasPrefix(location, base.issuer.URL()) && to.Query().Get("redirect_uri") != redirect {
			t.Errorf("%d to %q, want redirect_uri %q", w.Code, location, redirect)
		}
	})
}
