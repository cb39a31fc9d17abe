package signin

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// withoutSID is an issuer that names no session of its own.
func withoutSID(x *signintest.Behaviour) {
	x.EditIDToken = func(it *signintest.IDToken) { delete(it.Claims, "sid") }
}

func (a *app) signOut(b *signintest.Browser) *signintest.Page {
	return b.Send(&signintest.Request{Method: "POST", URL: a.url + "/signout", Form: url.Values{}, From: a.url + "/", Activated: true})
}

// opens reports whether a session cookie kept from before opens a session.
func (a *app) opens(t *testing.T, cookie string) bool {
	t.Helper()
	req, err := http.NewRequest("GET", a.url+"/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", "__Host-signin="+cookie)
	resp, err := a.net.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Two tabs that sign in at once make two sessions, and the browser keeps the
// cookie of one. A sign-out ends both, and what a third tab is about to bring.
func TestSignOutOfAllTabs(t *testing.T) {
	for name, behaviour := range map[string]func(*signintest.Behaviour){
		"with sid": nil, "without sid": withoutSID,
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.behaviour = behaviour })
			b, elsewhere := a.browser(), a.signIn()
			one, two, three := a.toCallback(b, "/me"), a.toCallback(b, "/me"), a.toCallback(b, "/me")
			var cookies []string
			for _, callback := range []*signintest.Request{one, two} {
				if p := b.Send(callback); p.Status != http.StatusSeeOther {
					t.Fatal(p.Status)
				}
				cookie, _ := b.Cookie(a.url, "__Host-signin")
				cookies = append(cookies, cookie)
			}
			hangRedemption(t, a, b, three, func() {
				if p := a.signOut(b); p.Status != http.StatusSeeOther {
					t.Errorf("sign-out: %d", p.Status)
				}
				for i, cookie := range cookies {
					if a.opens(t, cookie) {
						t.Errorf("the session of tab %d lives on", i+1)
					}
				}
			})
			if a.signedIn(b) {
				t.Error("the third tab's sign-in outlasted the sign-out")
			}
			if !a.signedIn(elsewhere) {
				t.Error("the user's other browser was signed out too")
			}
			if got := a.subject(b); got != "alice" {
				t.Errorf("a new sign-in: %s", got)
			}
		})
	}
}

// The session of the browser's own cookie may have ended by itself. What the
// user started beside it has not.
func TestSignOutWithoutOwnSession(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.behaviour = withoutSID })
	b := a.browser()
	one, two := a.toCallback(b, "/me"), a.toCallback(b, "/me")
	b.Send(one)
	first, _ := b.Cookie(a.url, "__Host-signin")
	b.Send(two)
	second, _ := b.Cookie(a.url, "__Host-signin")
	secret, err := a.readSecretOf(second)
	if err != nil {
		t.Fatal(err)
	}
	if err := once.Delete(t.Context(), a.store, seal.StoreKey("s", secret)); err != nil {
		t.Fatal(err)
	}
	if p := a.signOut(b); p.Status != http.StatusSeeOther || a.opens(t, first) {
		t.Errorf("%d; the other tab's session lives: %t", p.Status, a.opens(t, first))
	}
}

// A sign-out that the store interrupts leaves the session, so that a second
// attempt finds what there is to end.
func TestSignOutAgain(t *testing.T) {
	for n := int32(1); ; n++ {
		store := &faulty.Troubled{Store: NewMemoryStore()}
		a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
		b := a.browser()
		one, two := a.toCallback(b, "/me"), a.toCallback(b, "/me")
		b.Send(one)
		first, _ := b.Cookie(a.url, "__Host-signin")
		b.Send(two)
		second, _ := b.Cookie(a.url, "__Host-signin")
		var calls atomic.Int32
		store.Set(func(context.Context, string, string) error {
			if calls.Add(1) == n {
				return faulty.ErrDown
			}
			return nil
		})
		interrupted := a.signOut(b).Status == http.StatusServiceUnavailable
		store.Set(nil)
		if interrupted {
			if p := a.signOut(b); p.Status != http.StatusSeeOther {
				t.Fatalf("failing at call %d, again: %d", n, p.Status)
			}
		}
		if a.opens(t, first) || a.opens(t, second) {
			t.Errorf("failing at call %d: a session lives on", n)
		}
		if calls.Load() < n {
			return // nothing was left to fail
		}
	}
}

// A store that has no room left can delete: who is signed in can sign out. The
// mark for sign-ins under way is left when there is room.
func TestSignOutWithFullStore(t *testing.T) {
	store := &faulty.Troubled{Store: NewMemoryStore()}
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = full{store} } })
	b := a.browser()
	one, two, three := a.toCallback(b, "/me"), a.toCallback(b, "/me"), a.toCallback(b, "/me")
	b.Send(one)
	first, _ := b.Cookie(a.url, "__Host-signin")
	b.Send(two)
	second, _ := b.Cookie(a.url, "__Host-signin")
	hangRedemption(t, a, b, three, func() {
		store.Set(faulty.Fails)
		if p := a.signOut(b); p.Status != http.StatusSeeOther {
			t.Errorf("sign-out: %d", p.Status)
		}
		store.Set(nil)
		if a.opens(t, first) || a.opens(t, second) {
			t.Error("a session lives on")
		}
		until(t, func() bool { return a.records.signOuts.now(t.Context()) != nil })
	})
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.signedIn(b) {
		t.Error("the third tab's sign-in outlasted the sign-out")
	}
}

// full is a store that has no room while the one below is down.
type full struct{ *faulty.Troubled }

func (s full) Get(ctx context.Context, key string) ([]byte, bool, error) {
	return s.Store.Get(ctx, key)
}

func (s full) Delete(ctx context.Context, key string) error { return s.Store.Delete(ctx, key) }

func (s full) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	if v, _, _ := s.Store.Get(ctx, key); new == nil || !bytes.Equal(v, old) {
		return s.Store.Swap(ctx, key, old, new, ttl)
	}
	return s.Troubled.Swap(ctx, key, old, new, ttl)
}

// Anybody can make up a browser cookie and post a sign-out with it.
func TestSignOutOfStrangerWritesNothing(t *testing.T) {
	store := NewMemoryStore()
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
	for range 10 {
		r := httptest.NewRequest("POST", a.url+"/signout", nil)
		r.AddCookie(&http.Cookie{Name: "__Host-signin-browser", Value: seal.Encode(seal.Random(secretLen))})
		w := httptest.NewRecorder()
		a.SignOut(w, r)
		if w.Code != http.StatusSeeOther {
			t.Fatal(w.Code)
		}
	}
	if n := store.entries(); n != 0 {
		t.Errorf("%d values in the store, want none", n)
	}
}

// Replicas whose clocks differ agree on what began before a sign-out.
func TestSignOutBySkewedReplicas(t *testing.T) {
	const skew = 30 * time.Second
	for _, tc := range []struct {
		name            string
		signIn, signOut time.Duration // by how much the replica's clock is ahead
	}{
		{name: "sign-in ahead", signIn: skew},
		{name: "sign-out ahead", signOut: skew},
	} {
		for how, signOut := range map[string]func(l *lab, r *replica, sid string) error{
			"user": func(l *lab, r *replica, _ string) error {
				return r.SignOutUser(l.t.Context(), l.issuer.URL(), "alice")
			},
			"sid": func(l *lab, r *replica, sid string) error {
				_, err := r.records.endIndexed(l.t.Context(), indexSID, sid)
				return err
			},
		} {
			t.Run(tc.name+" by "+how, func(t *testing.T) {
				o := labOptions{replicas: 2, behaviour: func(x *signintest.Behaviour) {
					x.EditIDToken = func(it *signintest.IDToken) { it.Claims["sid"] = "one" }
				}}
				newLab(t, o, func(l *lab) {
					in, out := l.replicas[0], l.replicas[1]
					in.now = func() time.Time { return time.Now().Add(tc.signIn) }
					out.now = func() time.Time { return time.Now().Add(tc.signOut) }
					need := &InteractionRequiredError{Reason: ReasonSignIn}
					back, cookies := l.toCallback("alice", "", need)
					if err := signOut(l, out, "one"); err != nil {
						t.Fatal(err)
					}
					for _, r := range l.replicas {
						done := r.serve(httptest.NewRequest("GET", back, nil), cookies, nil)
						if l.record(merge(cookies, done)) != nil {
							t.Error("a sign-in outlasted a sign-out that came after it began")
						}
					}
					// The next one begins after the sign-out.
					if l.record(l.signIn("alice")) == nil {
						t.Error("a sign-in that began after a sign-out was refused")
					}
				})
			})
		}
	}
}

// A replica that is behind answers for a challenge of one that is ahead.
func TestCallbackOnReplicaBehind(t *testing.T) {
	o := labOptions{replicas: 2, config: func(c *Config) { c.ClockSkew = 10 * time.Second }}
	newLab(t, o, func(l *lab) {
		l.replicas[0].now = func() time.Time { return time.Now().Add(30 * time.Second) }
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		done := l.replicas[1].serve(httptest.NewRequest("GET", back, nil), cookies, nil)
		if l.record(merge(cookies, done)) == nil {
			t.Errorf("the callback: %d to %s, and nobody is signed in", done.StatusCode, done.Header.Get("Location"))
		}
	})
}

// A store that has lost the count of sign-outs, or the last of it, refuses a
// user who was signed out once more, and not for longer.
func TestSignOutCountLost(t *testing.T) {
	for name, lose := range map[string]func(a *app, before moment){
		"all of it":      func(a *app, _ moment) { a.store.Delete(context.Background(), a.records.signOuts.key) },
		"the last of it": func(a *app, before moment) { setCount(a, before) },
		"another count":  func(a *app, _ moment) { setCount(a, moment(nil).next()) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t)
			b := a.browser()
			if err := a.SignOutUser(t.Context(), a.issuer.URL(), "bob"); err != nil {
				t.Fatal(err)
			}
			before := a.records.signOuts.now(t.Context())
			callback := a.toCallback(b, "/me")
			for range 2 {
				if err := a.SignOutUser(t.Context(), a.issuer.URL(), "alice"); err != nil {
					t.Fatal(err)
				}
			}
			lose(a, before)
			b.Send(callback)
			if a.signedIn(b) {
				t.Error("a sign-in outlasted a sign-out")
			}
			if got := a.subject(b); got != "alice" {
				t.Errorf("a new sign-in: %s", got)
			}
		})
	}
}

func setCount(a *app, m moment) {
	ctx := context.Background()
	found, _ := once.ReadFresh(ctx, a.store, a.records.signOuts.key)
	once.Swap(ctx, a.store, a.records.signOuts.key, found, m, time.Hour)
}

func TestMoment(t *testing.T) {
	none := moment(nil)
	first := none.next()
	second, other := first.next(), none.next()
	for _, tc := range []struct {
		name          string
		began, signed moment
		before        bool
	}{
		{"no sign-out", first, none, false},
		{"neither", none, none, false},
		{"no count yet", none, first, true},
		{"same", first, first, false},
		{"earlier", first, second, true},
		{"later", second, first, false},
		{"across a byte", moment("countnam\x00\x00\x00\x00\x00\x00\x00\xff"), moment("countnam\x00\x00\x00\x00\x00\x00\x00\xff").next(), true},
		{"of another count", second, other, true},
		{"not a moment", moment("x"), first, true},
		{"not a mark", first, moment("x"), true},
	} {
		if got := tc.began.before(tc.signed); got != tc.before {
			t.Errorf("%s: before is %t, want %t", tc.name, got, tc.before)
		}
	}
}

// Sign-outs at once, on replicas that read the count from a copy, each get a
// moment that no earlier challenge has reached.
func TestSignOutCountRaise(t *testing.T) {
	store := &stale{Store: NewMemoryStore()}
	c := signOutCount{store, "o.x"}
	together(50, func(int) {
		began := moment(store.fresh(c.key))
		m, err := c.raise(context.Background(), nil)
		if err != nil {
			t.Error(err)
		}
		if !began.before(m) {
			t.Errorf("a challenge at %x is not before a sign-out at %x", began, m)
		}
		if moment(store.fresh(c.key)).before(m) {
			t.Errorf("a challenge after a sign-out is before it")
		}
	})
	if n := store.swaps.Load(); n > 2*50+50 {
		t.Errorf("%d Swaps for 50 sign-outs", n)
	}
}

// stale is a store whose Get answers from the copy it took first.
type stale struct {
	Store
	swaps atomic.Int32
	copy  atomic.Pointer[[]byte]
}

func (s *stale) fresh(key string) []byte {
	v, _, _ := s.Store.Get(context.Background(), key)
	return v
}

func (s *stale) Get(ctx context.Context, key string) ([]byte, bool, error) {
	v := s.fresh(key)
	if v != nil {
		s.copy.CompareAndSwap(nil, &v)
	}
	if first := s.copy.Load(); first != nil {
		return *first, true, nil
	}
	return nil, false, nil
}

func (s *stale) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	s.swaps.Add(1)
	return s.Store.Swap(ctx, key, old, new, ttl)
}
