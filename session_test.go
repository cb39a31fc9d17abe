package signin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/sessions"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// dumpStore is a store that shows what it holds, and fails when told to. Its
// values may be shared by several.
type dumpStore struct {
	mu     sync.Mutex
	values map[string][]byte
	err    error
}

func (d *dumpStore) Get(_ context.Context, key string) ([]byte, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.values[key]
	return v, ok && d.err == nil, d.err
}

func (d *dumpStore) Swap(_ context.Context, key string, old, new []byte, _ time.Duration) ([]byte, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.values[key]
	switch {
	case d.err != nil:
		return nil, false, d.err
	case ok != (old != nil) || !bytes.Equal(v, old):
		return v, false, nil
	case new == nil:
		delete(d.values, key)
	default:
		d.values[key] = new
	}
	return nil, true, nil
}

func (d *dumpStore) Delete(_ context.Context, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		delete(d.values, key)
	}
	return d.err
}

func (d *dumpStore) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *dumpStore) dump() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.values)
}

// records are the keys of the sessions held.
func (d *dumpStore) records() []string {
	var keys []string
	for key := range d.dump() {
		if strings.HasPrefix(key, "s.") {
			keys = append(keys, key)
		}
	}
	return keys
}

func newDumpStore() *dumpStore { return &dumpStore{values: map[string][]byte{}} }

func withStore(s Store) func(*appOptions) {
	return func(o *appOptions) { o.config = func(c *Config) { c.Store = s } }
}

// setSession replaces the session cookie of a browser.
func (a *app) setSession(b *signintest.Browser, value string) {
	a.t.Helper()
	if err := b.SetCookie(a.url, &http.Cookie{Name: a.sess.secureCookie, Value: value, Path: "/", Secure: true}); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) session(b *signintest.Browser) string {
	a.t.Helper()
	value, ok := b.Cookie(a.url, a.sess.secureCookie)
	if !ok {
		a.t.Fatal("no session cookie")
	}
	return value
}

// status is what a script gets, which follows no redirect: 200 or 401.
func (a *app) status(b *signintest.Browser) int {
	return b.Send(&signintest.Request{URL: a.url + "/me", From: a.url + "/", Mode: "cors", Dest: "empty"}).Status
}

func TestSessionCookie(t *testing.T) {
	groups := make([]string, 400)
	for i := range groups {
		groups[i] = fmt.Sprintf("%08d-aaaa-bbbb-cccc-dddddddddddd", i)
	}
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) { token.Claims["groups"] = groups }
		}
	})
	b := a.browser()
	p := b.Send(a.toCallback(b, "/me"))
	var line string
	for _, l := range p.Header.Values("Set-Cookie") {
		if strings.HasPrefix(l, a.sess.secureCookie+"=") {
			line = l
		}
	}
	c, err := http.ParseSetCookie(line)
	if err != nil {
		t.Fatalf("%d %q: %v", p.Status, p.Header.Values("Set-Cookie"), err)
	}
	if c.Name != "__Host-signin" || c.Path != "/" || c.Domain != "" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 12*60*60 {
		t.Errorf("attributes: %s", strings.TrimPrefix(line, c.Name+"="+c.Value))
	}
	if n := len(c.Name) + 1 + len(c.Value); n >= 200 {
		t.Errorf("%d bytes with an ID token of %d groups, want under 200", n, len(groups))
	}
	if p.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q beside a cookie", p.Header.Get("Cache-Control"))
	}
	if got := a.subject(b); got != "alice" {
		t.Error(got)
	}
}

func TestSessionIDIsNewAtEverySignIn(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, withStore(store))
	b := a.signIn()
	first, before := a.session(b), store.records()
	planted := b.Clone()

	if p := b.Open(a.url + "/oidc/login"); p.Status != http.StatusOK {
		t.Fatalf("%d %.300s", p.Status, p.Body)
	}
	after := store.records()
	if a.session(b) == first || len(after) != 1 || after[0] == before[0] {
		t.Errorf("a second sign-in kept the id, or left the first session behind: %d records", len(after))
	}
	// Who knew the id from before has nothing.
	if got := a.status(planted); got != http.StatusUnauthorized {
		t.Errorf("the cookie from before the sign-in: %d, want 401", got)
	}
	if got := a.status(b); got != http.StatusOK {
		t.Errorf("the new cookie: %d, want 200", got)
	}
}

func TestSessionLifetime(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration
		want  int
	}{
		{"before its end", 12*time.Hour - 5*time.Second, http.StatusOK},
		{"after its end", 12*time.Hour + time.Second, http.StatusUnauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, withStore(newDumpStore()))                                 // which never expires anything
			b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net}) // nor does this one's clock move
			if got := a.subject(b); got != "alice" {
				t.Fatal(got)
			}
			for range 10 { // use does not prolong it
				a.clock.advance(tc.after / 10)
				a.status(b)
			}
			if got := a.status(b); got != tc.want {
				t.Errorf("%v after the sign-in: %d, want %d", tc.after, got, tc.want)
			}
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	start := func(t *testing.T) (*app, *signintest.Browser) {
		a := newApp(t, func(o *appOptions) {
			o.config = func(c *Config) { c.Store, c.IdleTimeout = newDumpStore(), 10*time.Minute }
		})
		b := a.signIn()
		return a, b
	}
	settle := func(a *app) { // until the time of use is written
		if err := a.chores.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("idle", func(t *testing.T) {
		a, b := start(t)
		a.clock.advance(10*time.Minute + time.Second)
		if got := a.status(b); got != http.StatusUnauthorized {
			t.Errorf("%d, want 401", got)
		}
	})
	t.Run("almost idle", func(t *testing.T) {
		a, b := start(t)
		a.clock.advance(10*time.Minute - 5*time.Second)
		if got := a.status(b); got != http.StatusOK {
			t.Errorf("%d, want 200", got)
		}
	})
	t.Run("used", func(t *testing.T) {
		a, b := start(t)
		for i := range 10 {
			a.clock.advance(9 * time.Minute)
			if got := a.status(b); got != http.StatusOK {
				t.Fatalf("use %d: %d, want 200", i, got)
			}
			settle(a)
		}
		a.clock.advance(10*time.Minute + time.Second)
		if got := a.status(b); got != http.StatusUnauthorized {
			t.Errorf("idle in the end: %d, want 401", got)
		}
	})
	t.Run("a touch does not bring back what has signed out", func(t *testing.T) {
		a, b := start(t)
		a.clock.advance(5 * time.Minute)
		thief := b.Clone()
		if p := b.Submit(b.Open(a.url+"/signout"), nil); p.Status != http.StatusOK {
			t.Fatal(p.Status)
		}
		settle(a)
		if got := a.status(thief); got != http.StatusUnauthorized {
			t.Errorf("%d, want 401", got)
		}
	})
}

// newReplicas returns an application, and a function that puts another process
// of it, with other keys and the same store, in its place.
func newReplicas(t *testing.T, store Store, keys ...[]byte) (*app, func(keys ...[]byte)) {
	var serving atomic.Pointer[http.Handler] // connections outlive replicas
	o := appOptions{appURL: "https://app.example.test"}
	o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
		serving.Store(new(a.Handler(mux)))
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*serving.Load()).ServeHTTP(w, r) })
	}
	configure := func(keys [][]byte) func(*Config) {
		return func(c *Config) { c.Store, c.Keys = store, keys }
	}
	a := newApp(t, func(first *appOptions) { first.wrap, first.config = o.wrap, configure(keys) })
	return a, func(keys ...[]byte) {
		o.config = configure(keys)
		a.replica(o)
	}
}

func TestKeyRotation(t *testing.T) {
	old, new := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	a, replica := newReplicas(t, newDumpStore(), old)
	b := a.signIn()
	before := a.session(b)

	replica(new, old)
	if got := a.status(b); got != http.StatusOK {
		t.Errorf("with the old key second: %d, want 200", got)
	}
	fresh := a.browser()
	waiting := a.toCallback(fresh, "/me") // a challenge under the new key
	replica(old, new)
	if p := fresh.Follow(waiting); p.Status != http.StatusOK {
		t.Errorf("a challenge of the replica that knows the new key first: %d %.200s", p.Status, p.Body)
	}
	replica(new, old)
	if got := a.status(fresh); got != http.StatusOK {
		t.Errorf("a session of the replica that has the old key first: %d, want 200", got)
	}
	again := a.signIn()
	if a.session(again) == before {
		t.Error("the same cookie")
	}

	replica(new)
	if got := a.status(again); got != http.StatusOK {
		t.Errorf("sealed by the first key, the old one gone: %d, want 200", got)
	}
	if got := a.status(b); got != http.StatusUnauthorized {
		t.Errorf("made with a dropped key: %d, want 401", got)
	}
	if got := a.subject(b); got != "alice" {
		t.Errorf("signing in again after that: %s", got)
	}
}

// The cookie was sealed by a key that stays, the record by one that is gone.
func TestRecordOfDroppedKey(t *testing.T) {
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	a, replica := newReplicas(t, newDumpStore(), k1)
	b := a.signIn()
	secret, err := a.sess.read(sessionRequest(a, a.session(b)))
	if err != nil || secret == nil {
		t.Fatal(err)
	}
	replica(k2)
	w := httptest.NewRecorder()
	if err := a.sess.write(w, sessionRequest(a, ""), secret); err != nil {
		t.Fatal(err)
	}
	a.setSession(b, w.Result().Cookies()[0].Value)
	if got := a.status(b); got != http.StatusUnauthorized {
		t.Errorf("%d, want 401", got)
	}
}

func sessionRequest(a *app, value string) *http.Request {
	r := httptest.NewRequest("GET", a.url+"/me", nil)
	if value != "" {
		r.Header.Set("Cookie", a.sess.secureCookie+"="+value)
	}
	return r
}

func TestUnreadableCookie(t *testing.T) {
	a, other := newApp(t), newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.Keys = [][]byte{bytes.Repeat([]byte{9}, 32)} }
	})
	b := a.signIn()
	good := a.session(b)
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for name, value := range map[string]string{
		"garbage":       "hello",
		"truncated":     good[:len(good)-4],
		"one character": good[:1],
		"longer":        good + "AAAA",
		"flipped":       string(flipped),
		"another site":  other.session(other.signIn()),
		"huge":          strings.Repeat("A", 3900),
		"browser's":     base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
	} {
		t.Run(name, func(t *testing.T) {
			b := a.browser()
			a.setSession(b, value)
			if got := a.status(b); got != http.StatusUnauthorized {
				t.Errorf("%d, want 401", got)
			}
			if p := b.Open(a.url + "/"); p.Status != http.StatusOK {
				t.Errorf("public page: %d", p.Status)
			}
			if got := a.subject(b); got != "alice" {
				t.Errorf("signing in from there: %s", got)
			}
		})
	}
	if got := a.status(b); got != http.StatusOK {
		t.Errorf("the good one: %d", got)
	}
}

// What opened once is remembered under the value that opened, and under no
// other: not under one that net/http passes over on its way to the good one.
func TestRememberedUnderItsOwnValue(t *testing.T) {
	a := newApp(t)
	victim := a.session(a.signIn())
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
	bob := a.browser()
	if got := a.subject(bob); got != "bob" {
		t.Fatal(got)
	}
	who := func(cookies ...string) string {
		r := httptest.NewRequest("GET", a.url+"/me", nil)
		for i, c := range cookies {
			cookies[i] = a.sess.secureCookie + "=" + c
		}
		r.Header.Set("Cookie", strings.Join(cookies, "; "))
		w := httptest.NewRecorder()
		a.Handler(a.mux).ServeHTTP(w, r)
		var me map[string]string
		json.Unmarshal(w.Body.Bytes(), &me)
		return me["sub"]
	}
	for _, raw := range []string{victim + `"`, `"` + victim, victim + "\\", victim + "\x00"} {
		if s := a.records.opened.byCookie(victim); s != nil {
			a.records.opened.forget(s.key)
		}
		who(raw, a.session(bob))
		if got := who(victim); got != "alice" {
			t.Errorf("after a request with %.4q...%q alice is %q", raw, raw[len(raw)-1:], got)
		}
	}
}

// A dump of the store is of no use to anybody, even with the server's keys.
func TestStoreDumpTellsNothing(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, withStore(store))
	b := a.signIn()
	cookie, _ := base64.URLEncoding.DecodeString(a.session(b))
	secret, err := a.sess.read(sessionRequest(a, a.session(b)))
	if err != nil || len(secret) != secretLen {
		t.Fatal(err)
	}
	words := append(a.issuer.Secrets(), "alice", "bob", "example", "Mail", "access_token", string(secret), seal.Encode(secret), string(cookie))
	dump := store.dump()
	if len(store.records()) != 1 {
		t.Fatalf("%d records, want 1", len(store.records()))
	}
	for key, value := range dump {
		for _, w := range words {
			if w != "" && (strings.Contains(key, w) || bytes.Contains(value, []byte(w))) {
				t.Errorf("%.10s... holds %.12q", key, w)
			}
		}
		if strings.HasPrefix(key, "s.") {
			for _, bind := range [][]byte{nil, []byte(key), make([]byte, 32)} {
				if _, err := a.keys.Open("record", bind, []byte(key), value); err == nil {
					t.Error("a record opens without its cookie")
				}
			}
		}
	}
}

func TestSwappedRecordsOpenForNobody(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, withStore(store))
	b := a.signIn()
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
	c := a.browser()
	if got := a.subject(c); got != "bob" {
		t.Fatal(got)
	}
	keys := store.records()
	if len(keys) != 2 {
		t.Fatalf("%d records", len(keys))
	}
	store.mu.Lock()
	store.values[keys[0]], store.values[keys[1]] = store.values[keys[1]], store.values[keys[0]]
	store.mu.Unlock()
	for name, b := range map[string]*signintest.Browser{"alice": b, "bob": c} {
		if got := a.status(b); got != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, got)
		}
	}
}

func TestGorillaStore(t *testing.T) {
	dir := t.TempDir()
	files := sessions.NewFilesystemStore(dir, bytes.Repeat([]byte{3}, 32), bytes.Repeat([]byte{4}, 32))
	files.Options = &sessions.Options{Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode, MaxAge: 12 * 60 * 60}
	count := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "session_*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	a := newApp(t, func(o *appOptions) {
		// By query, so that the callback sees the cookie that is there already.
		o.config = func(c *Config) { c.Sessions, c.ResponseType, c.ResponseMode = files, "code", "query" }
	})

	// Fixation: an id that the visitor brings along is not kept.
	planted := httptest.NewRecorder()
	gs, _ := files.New(httptest.NewRequest("GET", a.url, nil), a.sess.secureCookie)
	gs.Values["theirs"] = 1
	if err := gs.Save(httptest.NewRequest("GET", a.url, nil), planted); err != nil {
		t.Fatal(err)
	}
	known := planted.Result().Cookies()[0].Value
	b := a.browser()
	a.setSession(b, known)
	if got := a.subject(b); got != "alice" {
		t.Fatalf("%s\n%s", got, a.log)
	}
	if a.session(b) == known {
		t.Error("the session id from before the sign-in was kept")
	}
	thief := a.browser()
	a.setSession(thief, known)
	if got := a.status(thief); got != http.StatusUnauthorized {
		t.Errorf("who planted the id: %d, want 401", got)
	}

	// Reload, and another process.
	for range 3 {
		if got := a.status(b); got != http.StatusOK {
			t.Errorf("%d, want 200", got)
		}
	}
	held, kept := count(), b.Clone()
	if p := b.Submit(b.Open(a.url+"/signout"), nil); p.Status != http.StatusOK || p.Body != "public" {
		t.Fatalf("sign-out: %d %.300s", p.Status, p.Body)
	}
	if got := count(); got != held-1 {
		t.Errorf("%d files after sign-out, want %d", got, held-1)
	}
	if got := a.status(kept); got != http.StatusUnauthorized {
		t.Errorf("a cookie kept from before: %d, want 401", got)
	}
	if _, ok := b.Cookie(a.url, a.sess.secureCookie); ok {
		t.Error("the cookie is still there")
	}
	a.setSession(b, "garbage")
	if got := a.status(b); got != http.StatusUnauthorized {
		t.Errorf("garbage: %d, want 401", got)
	}
	if got := a.subject(b); got != "alice" {
		t.Error(got)
	}
}

// brokenSessions is a gorilla store whose backend fails.
type brokenSessions struct {
	sessions.Store
	err error
}

func (s *brokenSessions) New(r *http.Request, name string) (*sessions.Session, error) {
	gs, err := s.Store.New(r, name)
	if _, cookieErr := r.Cookie(name); cookieErr == nil && s.err != nil {
		err = s.err
	}
	return gs, err
}

func (s *brokenSessions) Save(r *http.Request, w http.ResponseWriter, gs *sessions.Session) error {
	if s.err != nil {
		return s.err
	}
	return s.Store.Save(r, w, gs)
}

func TestGorillaStoreFails(t *testing.T) {
	cookies := sessions.NewCookieStore(bytes.Repeat([]byte{3}, 32))
	cookies.Options.Secure = true
	broken := &brokenSessions{Store: cookies}
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Sessions = broken } })
	b := a.signIn()
	fresh := a.browser()
	waiting := a.toCallback(fresh, "/me")
	for _, err := range []error{errors.New("connection refused"), os.ErrPermission, fmt.Errorf("backend: %w", context.DeadlineExceeded)} {
		broken.err = err
		before := a.issuer.Count(signintest.EndpointAuthorize)
		p := b.Open(a.url + "/me")
		if p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" || len(p.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%v: %d, Retry-After %q, cookies %q; want 503", err, p.Status, p.Header.Get("Retry-After"), p.Header.Values("Set-Cookie"))
		}
		if a.issuer.Count(signintest.EndpointAuthorize) != before {
			t.Errorf("%v: led to the issuer", err)
		}
		if p := b.Send(&signintest.Request{Method: "POST", URL: a.url + "/signout", From: a.url + "/", Activated: true}); p.Status != http.StatusServiceUnavailable {
			t.Errorf("%v: sign-out: %d, want 503", err, p.Status)
		}
		if p := b.Open(a.url + "/"); p.Status != http.StatusOK {
			t.Errorf("%v: public page: %d", err, p.Status)
		}
	}
	broken.err = errors.New("disk full")
	if p := fresh.Send(waiting); p.Status != http.StatusServiceUnavailable {
		t.Errorf("a sign-in that cannot be kept: %d, want 503", p.Status)
	}
	broken.err = nil
	if got := a.status(b); got != http.StatusOK {
		t.Errorf("recovered: %d, want 200", got)
	}
}

// Store down is not signed out.
func TestStoreDown(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, withStore(store))
	a.mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		u, err := LookupUser(r.Context())
		switch {
		case err != nil && UserFromContext(r.Context()) == nil:
			fmt.Fprint(w, "unknown")
		case u == nil && err == nil:
			fmt.Fprint(w, "nobody")
		default:
			fmt.Fprint(w, u.Subject)
		}
	})
	b, nobody := a.signIn(), a.browser()
	who := func() string { return b.Open(a.url+"/who").Body + " " + nobody.Open(a.url+"/who").Body }
	if got := who(); got != "alice nobody" {
		t.Errorf("store up: %q", got)
	}
	cookie, asked := a.session(b), a.issuer.Count(signintest.EndpointAny)

	store.fail(errors.New("connection refused"))
	if got := who(); got != "unknown nobody" {
		t.Errorf("store down: %q, want unknown nobody", got)
	}
	p := b.Open(a.url + "/page/x")
	if p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" || len(p.Header.Values("Set-Cookie")) > 0 || p.Header.Get("Clear-Site-Data") != "" {
		t.Errorf("protected page: %d, Retry-After %q, cookies %q; want 503 and nothing touched", p.Status, p.Header.Get("Retry-After"), p.Header.Values("Set-Cookie"))
	}
	if got := a.status(b); got != http.StatusServiceUnavailable {
		t.Errorf("fetch: %d, want 503", got)
	}
	for _, path := range []string{"/token", "/oidc/login"} {
		if p := b.Open(a.url + path); p.Status < 500 {
			t.Errorf("%s: %d", path, p.Status)
		}
	}
	if p := b.Open(a.url + "/"); p.Status != http.StatusOK || p.Body != "public" {
		t.Errorf("public page: %d", p.Status)
	}
	if p := b.Send(&signintest.Request{Method: "POST", URL: a.url + "/signout", From: a.url + "/", Activated: true}); p.Status != http.StatusServiceUnavailable || len(p.Header.Values("Set-Cookie")) > 0 {
		t.Errorf("sign-out: %d, want 503 and the cookie kept", p.Status)
	}
	if n := a.issuer.Count(signintest.EndpointAny); n != asked {
		t.Errorf("a failing store cost %d requests to the issuer", n-asked)
	}
	if !strings.Contains(a.log.String(), "connection refused") {
		t.Error("the log does not say why")
	}

	store.fail(nil)
	if got := who(); got != "alice nobody" || a.session(b) != cookie {
		t.Errorf("store back: %q", got)
	}
}

// A caller with less patience than the request spoils only its own answer.
func TestImpatientLookup(t *testing.T) {
	store := &slowStore{dumpStore: newDumpStore()}
	a := newApp(t, withStore(store))
	a.mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		_, early := LookupUser(ctx)
		u, err := LookupUser(r.Context())
		fmt.Fprintln(w, early != nil, u != nil, err)
	})
	b := a.signIn()
	if got := strings.TrimSpace(b.Open(a.url + "/who").Body); got != "true true <nil>" {
		t.Errorf("%s, want an error for the first and a user for the second", got)
	}
}

// slowStore looks at its context, as one in the network does.
type slowStore struct{ *dumpStore }

func (s *slowStore) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	return s.dumpStore.Get(ctx, key)
}

func TestPublicPagesDoNotReadTheStore(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, withStore(store))
	b := a.signIn()
	before := slices.Clone(a.issuer.Calls(signintest.EndpointAny))
	store.fail(errors.New("must not be asked"))
	if p := b.Open(a.url + "/"); p.Status != http.StatusOK || len(p.Header.Values("Set-Cookie")) > 0 || len(a.issuer.Calls(signintest.EndpointAny)) != len(before) {
		t.Errorf("%d, cookies %q", p.Status, p.Header.Values("Set-Cookie"))
	}
	if strings.Contains(a.log.String(), "must not be asked") {
		t.Error("a public page read the store")
	}
}
