package signin

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// sharing is an Auth on a store that others use too, without an issuer.
func sharing(t *testing.T, store Store, issuer string, keys ...[]byte) *Auth {
	t.Helper()
	a, err := New(Config{
		Issuer: issuer, ClientID: "client", BaseURL: "https://app.example.test", Keys: keys, Store: store,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var (
	oldKey   = bytes.Repeat([]byte{1}, 32)
	youngKey = bytes.Repeat([]byte{2}, 32)
)

// enter lists a session and writes something for its record.
func (a *Auth) enter(t *testing.T, key string, c oidc.Claims) {
	t.Helper()
	entry := indexed{Key: key, Expires: time.Now().Add(time.Hour).Unix(), SID: c.SessionID != ""}
	if err := a.records.enter(t.Context(), a.records.placesOf(c, nil), entry, "", a.records.signOuts.now(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := once.Swap(t.Context(), a.store, key, nil, []byte("record"), time.Hour); err != nil {
		t.Fatal(err)
	}
}

// A replica that knows the old key only finds what one with both has listed,
// and overwrites nothing of it.
func TestIndexRotation(t *testing.T) {
	store := NewMemoryStore()
	const issuer = "https://login.example.test"
	both, oldOnly := sharing(t, store, issuer, youngKey, oldKey), sharing(t, store, issuer, oldKey)
	user := oidc.Claims{Issuer: issuer, Subject: "s"}
	value := userValue(user.Issuer, user.Subject)
	both.enter(t, "s.1", user)
	if n, err := oldOnly.records.endIndexed(t.Context(), indexUser, value); n != 1 || err != nil {
		t.Errorf("the old-only replica ended %d sessions, %v; want 1", n, err)
	}
	oldOnly.enter(t, "s.a", user)
	both.enter(t, "s.b", user)
	oldOnly.enter(t, "s.c", user)
	if n, err := oldOnly.records.endIndexed(t.Context(), indexUser, value); n != 3 || err != nil {
		t.Errorf("the old-only replica ended %d sessions, %v; want 3", n, err)
	}
	for _, key := range []string{"s.a", "s.b", "s.c"} {
		if v, _ := once.ReadFresh(t.Context(), store, key); v != nil {
			t.Errorf("%s lives on", key)
		}
	}
}

// Another issuer's sid of the same name is another session.
func TestIndexOfAnotherIssuer(t *testing.T) {
	store := NewMemoryStore()
	one, two := sharing(t, store, "https://one.example", oldKey), sharing(t, store, "https://two.example", oldKey)
	one.enter(t, "s.x", oidc.Claims{Issuer: "https://one.example", Subject: "s", SessionID: "42"})
	if n, _ := two.records.endIndexed(t.Context(), indexSID, "42"); n != 0 {
		t.Errorf("a logout at one issuer ended %d sessions of another", n)
	}
}

// With the same keys and the same store, a session, and a link, of one
// application opens nothing in another.
func TestApplicationsApart(t *testing.T) {
	store := NewMemoryStore()
	portal := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
	cookie, _ := portal.signIn().Cookie(portal.url, "__Host-signin")
	staff := sharing(t, store, "https://staff.example.test", bytes.Repeat([]byte{7}, 32))
	r := httptest.NewRequest("GET", "https://app.example.test/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-signin", Value: cookie})
	w := httptest.NewRecorder()
	staff.Handler(staff.RequireUser(http.NotFoundHandler())).ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("a customer's cookie at the staff's site: %d, want 401", w.Code)
	}
	// Nor does the record open, should the cookie ever do.
	secret, err := portal.readSecretOf(cookie)
	if err != nil || secret == nil {
		t.Fatal(err)
	}
	if s, _ := staff.records.fresh(t.Context(), secret); s != nil {
		t.Error("the record of one application opens in another")
	}
	raw := portal.states.sealNeed(&InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"a"}}, site.NewReturnPath("/"))
	if _, err := staff.states.openAsk(raw); err == nil {
		t.Error("a link of one application opens in another")
	}
}

// readSecretOf opens a session cookie.
func (a *Auth) readSecretOf(cookie string) ([]byte, error) {
	r := httptest.NewRequest("GET", "https://app.example.test/", nil)
	r.AddCookie(&http.Cookie{Name: a.sess.name(true), Value: cookie})
	s, err := a.sess.sessions.New(r, a.sess.name(true))
	secret, _ := s.Values[secretField].([]byte)
	return secret, err
}

// A sign-out that comes between a session's entry and its record, or between
// two attempts to write the record, is final all the same.
func TestSignOutDuringSignIn(t *testing.T) {
	for _, tc := range []struct {
		name  string
		at    int32 // which attempt at the record the sign-out comes before
		bySID bool
	}{
		{"by user", 1, false},
		{"by sid", 1, true},
		{"by user, after a lost answer", 2, false},
		{"by sid, after a lost answer", 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := &faulty.Troubled{Store: NewMemoryStore()}
			a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
			b := a.browser()
			callback := a.toCallback(b, "/me")
			if tc.at == 2 {
				store.LoseAnswers(1, func(key string, _ []byte) bool { return strings.HasPrefix(key, "s.") })
			}
			var attempts atomic.Int32
			store.Set(func(_ context.Context, op, key string) error {
				if op != "swap" || !strings.HasPrefix(key, "s.") || attempts.Add(1) != tc.at {
					return nil
				}
				var err error
				if tc.bySID {
					_, err = a.records.endIndexed(context.Background(), indexSID, a.issuer.Tokens("alice")[0].SessionID)
				} else {
					err = a.SignOutUser(context.Background(), a.issuer.URL(), "alice")
				}
				return err
			})
			p := b.Send(callback)
			store.Set(nil)
			if p.Status != http.StatusSeeOther || p.Location() != a.url+"/me" {
				t.Errorf("the callback: %d to %s, want a new start at the page", p.Status, p.Location())
			}
			if a.signedIn(b) {
				t.Error("a session came out of a sign-in that had been signed out")
			}
			if got := a.subject(b); got != "alice" {
				t.Errorf("a new sign-in: %s", got)
			}
			if err := a.SignOutUser(t.Context(), a.issuer.URL(), "alice"); err != nil || a.signedIn(b) {
				t.Errorf("the index has forgotten the new session: %v", err)
			}
		})
	}
}

// hangRedemption sends a callback whose token request hangs after it has been
// served, lets happen, and returns the callback's answer.
func hangRedemption(t *testing.T, a *app, b *signintest.Browser, callback *signintest.Request, happen func()) *signintest.Page {
	t.Helper()
	tokens := len(a.issuer.Tokens("alice"))
	release := make(chan struct{})
	a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{AfterProcessing: true, Hang: release})
	done := make(chan *signintest.Page)
	go func() { done <- b.Send(callback) }()
	until(t, func() bool { return len(a.issuer.Tokens("alice")) > tokens })
	happen()
	close(release)
	return <-done
}

// What the issuer signs out while a redemption is under way stays so.
func TestLogoutDuringRedemption(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	hangRedemption(t, a, b, a.toCallback(b, "/me"), func() {
		raw := a.issuer.Sign(a.issuer.LogoutToken("alice", a.sid(t, "alice")), signintest.SignOptions{})
		if got := a.logoutPost(t, raw).StatusCode; got != http.StatusOK {
			t.Errorf("logout: %d", got)
		}
	})
	if a.signedIn(b) {
		t.Error("the session that was signed out lives")
	}
	if got := a.subject(b); got != "alice" {
		t.Errorf("a new sign-in: %s", got)
	}
}

// A consent that comes back after a sign-out does not sign in again.
func TestSignOutDuringConsent(t *testing.T) {
	a := newApp(t)
	a.handle("/extra", Requirement{Scopes: []string{"extra"}})
	b := a.signIn()
	callback := a.toCallback(b, "/extra")
	p := hangRedemption(t, a, b, callback, func() {
		b.Send(&signintest.Request{Method: "POST", URL: a.url + "/signout", Form: url.Values{}, From: a.url + "/", Activated: true})
	})
	if p.Status != http.StatusSeeOther || a.signedIn(b) {
		t.Errorf("%d, signed in %t; want a new start and nobody", p.Status, a.signedIn(b))
	}
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, info := range a.issuer.Tokens("alice") {
		if info.Refresh && info.Active {
			t.Error("a refresh token that nobody will use is still good")
		}
	}
}

// A store that fails in the middle costs no logout: the issuer may try again.
func TestBackChannelLogoutAgain(t *testing.T) {
	for name, fail := range map[string]func(*faulty.Troubled){
		"store fails": func(s *faulty.Troubled) {
			s.Set(func(_ context.Context, op, key string) error {
				if op == "delete" {
					return faulty.ErrDown
				}
				return nil
			})
		},
		"mark fails": func(s *faulty.Troubled) {
			var asked atomic.Int32
			s.Set(func(_ context.Context, op, key string) error {
				if strings.HasPrefix(key, "j.") && op == "swap" && asked.Add(1) == 2 {
					return faulty.ErrDown
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &faulty.Troubled{Store: NewMemoryStore()}
			a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
			b := a.signIn()
			raw := a.issuer.Sign(a.issuer.LogoutToken("alice", a.sid(t, "alice")), signintest.SignOptions{})
			fail(store)
			if got := a.logoutPost(t, raw).StatusCode; got != http.StatusServiceUnavailable {
				t.Errorf("with a failing store: %d, want 503", got)
			}
			store.Set(nil)
			if got := a.logoutPost(t, raw).StatusCode; got != http.StatusOK || a.signedIn(b) {
				t.Errorf("again: %d, signed in %t; want 200 and nobody", got, a.signedIn(b))
			}
			if got := a.logoutPost(t, raw).StatusCode; got != http.StatusBadRequest {
				t.Errorf("a replay: %d, want 400", got)
			}
		})
	}
}

// A sid that the ID tokens did not have says nothing; then sub does.
func TestBackChannelLogoutUnknownSID(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(x *signintest.Behaviour) {
			x.EditIDToken = func(it *signintest.IDToken) { delete(it.Claims, "sid") }
		}
	})
	b := a.signIn()
	raw := a.issuer.Sign(a.issuer.LogoutToken("alice", "a-sid"), signintest.SignOptions{})
	if got := a.logoutPost(t, raw).StatusCode; got != http.StatusOK || a.signedIn(b) {
		t.Errorf("%d, signed in %t; want 200 and nobody", got, a.signedIn(b))
	}
}

// Claims count by their names to the letter: \u017f folds to s.
func TestBackChannelLogoutOddClaims(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	claims := a.issuer.LogoutToken("bob", "")
	claims["\u017fub"], claims["SUB"] = "alice", "alice"
	a.logoutPost(t, a.issuer.Sign(claims, signintest.SignOptions{}))
	if !a.signedIn(b) {
		t.Error("bob's logout ended alice's session")
	}
}

// Of an expired session the issuer's half is ended all the same.
func TestSignOutExpired(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	a.clock.advance(13 * time.Hour)
	p := b.Submit(b.Open(a.url+"/signout"), nil)
	if n := a.issuer.Count(signintest.EndpointEndSession); n != 1 || p.URL != a.url+"/" {
		t.Errorf("%d visits to end_session_endpoint, landed at %s", n, p.URL)
	}
}

// Some issuers tell of a sign-out late. It is not about the sign-in that has
// begun since.
func TestBackChannelLogoutLate(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	raw := a.issuer.Sign(a.issuer.LogoutToken("alice", a.sid(t, "alice")), signintest.SignOptions{})
	b.Submit(b.Open(a.url+"/signout"), nil)
	callback := a.toCallback(b, "/me")
	if got := a.logoutPost(t, raw).StatusCode; got != http.StatusOK {
		t.Fatalf("logout: %d", got)
	}
	challenges := a.issuer.Count(signintest.EndpointAuthorize)
	if p := b.Follow(callback); p.Status != http.StatusOK || !a.signedIn(b) {
		t.Errorf("the new sign-in: %d", p.Status)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize) - challenges; n != 0 {
		t.Errorf("%d more challenges, want none", n)
	}
}

// A callback of a user with many sessions makes a bounded number of calls to
// the store, also when many come at once: they are linear in total.
func TestManySessionsOfOneUser(t *testing.T) {
	const many, most = 64, 10
	for name, o := range map[string]labOptions{
		"each under its own sid": {},
		"without sid":            {behaviour: withoutSID},
		"all under one sid": {behaviour: func(x *signintest.Behaviour) {
			x.EditIDToken = func(it *signintest.IDToken) { it.Claims["sid"] = "one" }
		}},
		"two replicas": {replicas: 2},
	} {
		t.Run(name, func(t *testing.T) {
			newLab(t, o, func(l *lab) {
				var calls atomic.Int32
				count := func(context.Context, string, string) error { calls.Add(1); return nil }
				for i := range maxIndexed + 5 {
					back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
					calls.Store(0)
					l.store.Set(count)
					done := l.replicas[0].serve(httptest.NewRequest("GET", back, nil), cookies, nil)
					l.store.Set(nil)
					if l.record(merge(cookies, done)) == nil {
						t.Fatalf("sign-in %d failed: %d", i+1, done.StatusCode)
					}
					if n := calls.Load(); n > most {
						t.Errorf("sign-in %d: %d calls to the store, want %d at most", i+1, n, most)
					}
					l.pass(redemptionLimit) // from now on it may be looked at
				}
				var backs, cookies [many]string
				for i := range many {
					backs[i], cookies[i] = l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
				}
				calls.Store(0)
				l.store.Set(func(ctx context.Context, _, _ string) error {
					calls.Add(1)
					return once.Sleep(ctx, time.Millisecond)
				})
				together(many, func(i int) {
					r := l.replicas[i%len(l.replicas)]
					cookies[i] = merge(cookies[i], r.serve(httptest.NewRequest("GET", backs[i], nil), cookies[i], nil))
				})
				l.store.Set(nil)
				// Replicas that lose to one another make a few calls more.
				if n := int(calls.Load()); n > many*(most+5*(len(l.replicas)-1)) {
					t.Errorf("%d sign-ins at once: %d calls to the store", many, n)
				}
				for i := range many {
					if l.record(cookies[i]) == nil {
						t.Errorf("sign-in %d of those at once came to nothing", i+1)
					}
				}
			})
		})
	}
}

// Sessions that have ended by themselves do not fill the list, so that the one
// that is in use is not pushed out.
func TestEndedSessionsLeaveTheIndex(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		kept := l.signIn("alice")
		r := l.replicas[0]
		for range 3 * maxIndexed {
			l.pass(redemptionLimit)
			cookies := l.signIn("alice")
			r.in(cookies, func(_ http.ResponseWriter, req *http.Request) {
				secret, err := r.sess.read(req)
				if err != nil {
					t.Fatal(err)
				}
				if err := once.Delete(t.Context(), r.store, seal.StoreKey("s", secret)); err != nil {
					t.Fatal(err)
				}
			})
		}
		if l.record(kept) == nil {
			t.Error("the session in use was ended for the sake of those that have ended")
		}
	})
}
