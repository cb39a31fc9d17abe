package signin

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// fuzzed is an application in front of a real issuer, called without a network.
// Its handler answers 200 to who is signed in and to nobody else.
type fuzzed struct {
	*Auth
	issuer  *signintest.Issuer
	handler http.Handler
	browser *browser
}

func newFuzzed(f *testing.F) *fuzzed {
	network := signintest.NewNetwork(f)
	issuer := signintest.NewIssuer(f, &signintest.IssuerOptions{URL: "https://login.example.test", Network: network})
	auth, err := New(Config{
		Issuer: issuer.URL(), ClientID: "client", Credential: Secret("secret"), BaseURL: "https://app.example.test",
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: network.Client(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	return &fuzzed{
		Auth: auth, issuer: issuer,
		handler: auth.Handler(auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))),
		browser: &browser{secret: bytes.Repeat([]byte{5}, secretLen)},
	}
}

// state is one that the browser may answer, whatever process sealed it.
func (a *fuzzed) state(f *testing.F) string {
	state, err := a.sealState(&transaction{
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
	name := a.browserCookies(true)[0]
	return name + "=" + value + "." + cookieTag(a.keys[0], a.party(), name, value)
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
		if c.Name == a.sessionCookie(true) {
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
		`/?\evil.example`, `/a?b=\\evil.example\c`, `/?#\evil.example`, `/a\?b`, "/" + strings.Repeat("a", maxReturnPath), "/?" + strings.Repeat("a", maxReturnPath),
	} {
		f.Add(s)
	}
	base, err := url.Parse("https://app.example.test/deep/page?query")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w := httptest.NewRecorder()
		redirectWithin(w, newReturnPath(s))
		location := w.Header().Get("Location")
		u, err := base.Parse(location)
		if err != nil || u.Scheme != "https" || u.Host != "app.example.test" || u.User != nil {
			t.Fatalf("%q leads to %q, which is %v %v", s, location, u, err)
		}
		// What net/url does not know of browsers: \ is /, and tabs and line
		// breaks are nothing (URL Standard, 4.4).
		path, _, _ := strings.Cut(location, "?")
		if strings.Contains(path, `\`) || strings.ContainsAny(location, "\t\r\n\x00") || !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") || len(location) > maxReturnPath {
			t.Errorf("%q leads to %q", s, location)
		}
		// What resolution makes of it is no other host's either.
		if strings.HasPrefix(u.EscapedPath(), "//") {
			t.Errorf("%q leads to %q, whose path is %q", s, location, u.EscapedPath())
		}
		if again := newReturnPath(location).String(); again != location {
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
		if tx, err := a.openState(raw); err == nil {
			again, err := a.sealState(tx)
			if err != nil {
				t.Fatal(err)
			}
			if reopened, err := a.openState(again); err != nil || !reflect.DeepEqual(reopened, tx) {
				t.Errorf("%+v became %+v, %v", tx, reopened, err)
			}
		}
		tx := &transaction{
			ID: seal.Random(16), Time: at, Return: newReturnPath(to).String(), Browser: a.browser.hash(),
			Scopes: strings.Fields(strings.ToValidUTF8(scopes[:min(len(scopes), 500)], "")), MaxAge: &at, Interactive: flip&1 == 1,
		}
		if len(tx.Scopes) == 0 {
			tx.Scopes = nil
		}
		state, err := a.sealState(tx)
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := a.openState(state); err != nil || !reflect.DeepEqual(opened, tx) {
			t.Fatalf("%+v became %+v, %v", tx, opened, err)
		}
		altered := []byte(state)
		if altered[int(where)%len(altered)] ^= flip; flip != 0 {
			if opened, err := a.openState(string(altered)); err == nil {
				t.Errorf("opens with byte %d altered: %+v", int(where)%len(altered), opened)
			}
		}
		if opened, err := a.openState(state[:int(where)%len(state)]); err == nil {
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
		good + "=", `"` + good + `"`, strings.Repeat(".", 200), strings.Repeat("A", 5000), good + "; " + good, good + ".a;b.1.1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		// Without a tag of ours it is nobody's.
		r := httptest.NewRequest(http.MethodGet, "https://app.example.test/", http.NoBody)
		r.Header["Cookie"] = []string{a.browserCookies(true)[0] + "=" + value}
		if b := a.readBrowser(r); b != nil {
			t.Fatalf("%q was read as %+v", value, b)
		}
		cookie := a.browserCookie(value)
		w := a.serve(t, http.MethodGet, "/page/x", "", cookie, nil)
		r.Header["Cookie"] = []string{cookie}
		b := a.readBrowser(r)
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
		if again := a.readBrowser(next); again == nil || !bytes.Equal(again.secret, b.secret) {
			t.Errorf("%q became another browser's: %q", value, w.Result().Cookies())
		}
	})
}

// FuzzSessionCookie: a session cookie that we did not make is nobody's, and no
// fault.
func FuzzSessionCookie(f *testing.F) {
	a := newFuzzed(f)
	w := httptest.NewRecorder()
	if err := a.writeSecret(w, httptest.NewRequest(http.MethodGet, "https://app.example.test/", http.NoBody), bytes.Repeat([]byte{1}, secretLen)); err != nil {
		f.Fatal(err)
	}
	ours := w.Result().Cookies()[0].Value // of a session that is in no store
	for _, s := range []string{"", ours, ours[:len(ours)-1], ours + "A", `"` + ours + `"`, ours + "; " + ours, "=", ";", strings.Repeat("A", 5000), "MTIzfA==", "\x00\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		w := a.serve(t, http.MethodGet, "/page/x", "", a.sessionCookie(true)+"="+value, nil)
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
		got := refreshTokenIn(body)
		var all map[string]json.RawMessage
		if json.Unmarshal(body, &all) != nil || all == nil || bytes.Count(body, []byte("refresh")) > 1 || bytes.Contains(body, []byte{'\\'}) {
			return
		}
		var want string
		if json.Unmarshal(all["refresh_token"], &want) != nil || len(want) > maxRefreshToken {
			want = ""
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if cut >= 0 && cut < len(body) {
			if got := refreshTokenIn(body[:cut]); got != "" && got != want {
				t.Errorf("cut off: %q, want %q or none", got, want)
			}
		}
	})
}
