package signin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// secretIn is the session that an answer's cookie names.
func secretIn(a *app, p *signintest.Page) string {
	r, err := http.NewRequest(http.MethodGet, a.url, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, c := range (&http.Response{Header: p.Header}).Cookies() {
		r.AddCookie(c)
	}
	secret, err := a.sess.read(r)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(secret)
}

// posts sends copies of a callback at once.
func posts(b *signintest.Browser, r *signintest.Request, copies int) []*signintest.Page {
	pages := make([]*signintest.Page, copies)
	var wg sync.WaitGroup
	for i := range copies {
		wg.Go(func() { pages[i] = b.Send(r.Clone()) })
	}
	wg.Wait()
	return pages
}

// replicas runs two processes of an application behind one address that gives
// each request to the next of them. They share a store.
func replicas(store Store, config func(*Config)) func(*appOptions) {
	return func(o *appOptions) {
		var first Config
		o.config = func(c *Config) {
			c.Store = store
			if config != nil {
				config(c)
			}
			first = *c
		}
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			second, err := New(first)
			if err != nil {
				panic(err)
			}
			second.now = a.now
			other := http.NewServeMux()
			(&app{Auth: second, mux: other}).routes()
			handlers := []http.Handler{a.Handler(mux), second.Handler(other)}
			var turn atomic.Uint32
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				handlers[turn.Add(1)%2].ServeHTTP(w, r)
			})
		}
	}
}

// TestCopiesOfACallback: however often and wherever an answer arrives, its
// code is redeemed once, and every copy leads to the page with one session.
func TestCopiesOfACallback(t *testing.T) {
	for _, flow := range flows {
		for _, tc := range []struct {
			name string
			edit func(*appOptions)
		}{
			{"one process", func(o *appOptions) { o.config = flow.config }},
			{"two replicas", replicas(NewMemoryStore(), flow.config)},
		} {
			t.Run(flow.name+", "+tc.name, func(t *testing.T) {
				a := newApp(t, tc.edit)
				b := a.browser()
				r := a.toCallback(b, "/page/x?q=1")
				sessions := map[string]bool{}
				for _, p := range posts(b, r, 20) {
					wantLanding(t, a, p, "/page/x?q=1")
					sessions[secretIn(a, p)] = true
				}
				if len(sessions) != 1 || sessions[""] {
					t.Errorf("%d different sessions, want one", len(sessions))
				}
				if n := a.redemptions(); n != 1 {
					t.Errorf("%d token requests, want 1", n)
				}
				// Later: a reload, and Back onto it.
				for range 2 {
					p := b.Send(r)
					wantLanding(t, a, p, "/page/x?q=1")
					if !sessions[secretIn(a, p)] {
						t.Error("a reload leads to another session")
					}
				}
				if p := b.Follow(r); p.Body != "page /page/x?q=1" {
					t.Errorf("a reload ends on %d %.200s", p.Status, p.Body)
				}
				wantUntouched(t, a, b, "alice", 1)
			})
		}
	}
}

// TestCopiesOfARefusedCallback: a code that is refused is refused once.
func TestCopiesOfARefusedCallback(t *testing.T) {
	a := newApp(t, replicas(NewMemoryStore(), nil))
	b := a.browser()
	r := a.toCallback(b, "/page/x")
	a.issuer.FailNext(signintest.EndpointToken, signintest.OAuthError{Code: "invalid_grant"}.Fault())
	for _, p := range posts(b, r, 20) {
		if p.Status == http.StatusSeeOther { // came when it was over
			wantLanding(t, a, p, "/page/x")
		} else {
			wantPage(t, a, p, http.StatusBadGateway, PageRedeemRefused)
		}
		if setsSession(a, p) {
			t.Error("a refused code set a session")
		}
	}
	if n := a.redemptions(); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	if p := b.Follow(r); p.Body != "page /page/x" {
		t.Errorf("the way on ends on %d %.200s", p.Status, p.Body)
	}
}

// TestCallbackAfterSignOut: an answer that was used brings back no session
// that has ended, nor another that was begun beside it, and pushes none out.
func TestCallbackAfterSignOut(t *testing.T) {
	t.Run("reload", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		r := a.toCallback(b, "/page/x")
		p := b.Follow(r)
		b.Submit(b.Click(p, "/signout"), nil)
		p = b.Send(r)
		wantLanding(t, a, p, "/page/x")
		if setsSession(a, p) {
			t.Error("the session cookie was set")
		}
		wantUntouched(t, a, b, "", 1)
	})
	t.Run("a newer session", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		r := a.toCallback(b, "/page/x")
		b.Follow(r)
		b.Submit(b.Open(a.url+"/signout"), nil)
		a.issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
		if got := a.subject(b); got != "bob" {
			t.Fatalf("signed in as %q, want bob", got)
		}
		p := b.Send(r)
		wantLanding(t, a, p, "/page/x")
		if setsSession(a, p) {
			t.Error("the session cookie was set")
		}
		wantUntouched(t, a, b, "bob", 2)
	})
	t.Run("sessions begun side by side", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		one, two := a.toCallback(b, "/page/1"), a.toCallback(b, "/page/2")
		b.Follow(one)
		b.Follow(two) // its session is the browser's; that of one is in the store
		b.Submit(b.Open(a.url+"/signout"), nil)
		for _, r := range []*signintest.Request{one, two} {
			if p := b.Send(r); setsSession(a, p) {
				t.Errorf("the session cookie was set by the answer for %s", p.Header.Get("Location"))
			}
		}
		wantUntouched(t, a, b, "", 2)
	})
	t.Run("ended elsewhere", func(t *testing.T) {
		a := newApp(t)
		b := a.browser()
		r := a.toCallback(b, "/page/x")
		b.Follow(r)
		if err := a.SignOutUser(t.Context(), a.issuer.URL(), "alice"); err != nil {
			t.Fatal(err)
		}
		if p := b.Send(r); setsSession(a, p) {
			t.Error("the session cookie was set")
		}
		wantUntouched(t, a, b, "", 1)
	})
}

// TestOrphanedClaim: whoever claimed a state and died may have sent the code.
// It is not sent again, and the browser begins anew.
func TestOrphanedClaim(t *testing.T) {
	t.Parallel() // waits for three seconds
	store := NewMemoryStore()
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
	b := a.browser()
	r := a.toCallback(b, "/page/x")
	tx, err := a.states.open(r.Form.Get("state"))
	if err != nil {
		t.Fatal(err)
	}
	leaveLease(t, store, seal.StoreKey("c", tx.ID))
	for _, p := range posts(b, r, 3) {
		wantLanding(t, a, p, "/page/x")
		if setsSession(a, p) {
			t.Error("the session cookie was set")
		}
	}
	wantLanding(t, a, b.Send(r), "/page/x")
	wantUntouched(t, a, b, "", 0)
	if p := b.Follow(r); p.Body != "page /page/x" {
		t.Errorf("the way on ends on %d %.200s", p.Status, p.Body)
	}
	if sent := a.issuer.LastCall(signintest.EndpointToken).Form.Get("code"); sent == r.Form.Get("code") {
		t.Error("the code of the orphaned claim was sent")
	}
}

// TestLiveClaim: a redemption under way on another replica is waited for, not
// taken for an orphan, however long it takes.
func TestLiveClaim(t *testing.T) {
	t.Parallel() // waits for longer than an orphan's three seconds
	a := newApp(t, replicas(NewMemoryStore(), nil))
	b := a.browser()
	r := a.toCallback(b, "/page/x")
	a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Delay: once.LeaseStale + 2*once.LeaseBeat})
	sessions := map[string]bool{}
	for _, p := range posts(b, r, 4) {
		wantLanding(t, a, p, "/page/x")
		sessions[secretIn(a, p)] = true
	}
	if len(sessions) != 1 || sessions[""] {
		t.Errorf("%d different sessions, want one", len(sessions))
	}
	wantUntouched(t, a, b, "alice", 1)
}

// failingStore fails on demand, before it does anything, or after.
type failingStore struct {
	Store
	down, deaf atomic.Bool
}

var errStoreFails = errors.New("the store is down")

func (s *failingStore) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if s.down.Load() {
		return nil, false, errStoreFails
	}
	return s.Store.Get(ctx, key)
}

func (s *failingStore) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	if s.down.Load() {
		return nil, false, errStoreFails
	}
	found, swapped, err := s.Store.Swap(ctx, key, old, new, ttl)
	if s.deaf.Load() {
		return nil, false, errStoreFails // done, and the answer lost
	}
	return found, swapped, err
}

func (s *failingStore) Delete(ctx context.Context, key string) error {
	if s.down.Load() {
		return errStoreFails
	}
	return s.Store.Delete(ctx, key)
}

// impatient gives up on callbacks after a while, as [callbackWait] would.
func impatient(wait time.Duration) func(*Auth, *http.ServeMux) http.Handler {
	return func(a *Auth, mux *http.ServeMux) http.Handler {
		next := a.Handler(mux)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), wait)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// TestStoreFailsBetweenRedemptionAndSave: what the issuer gave is held in hand
// until the store is back.
func TestStoreFailsBetweenRedemptionAndSave(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*failingStore, bool)
	}{
		{"down", func(s *failingStore, fails bool) { s.down.Store(fails) }},
		{"answers lost", func(s *failingStore, fails bool) { s.deaf.Store(fails); s.down.Store(false) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := &failingStore{Store: NewMemoryStore()}
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.Store = store }
				o.wrap = impatient(2 * time.Second)
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditTokenResponse = func(signintest.Call, map[string]any) { tc.edit(store, true) }
				}
			})
			b := a.browser()
			r := a.toCallback(b, "/page/x")
			p := b.Send(r)
			if tc.name == "down" {
				wantPage(t, a, p, http.StatusServiceUnavailable, PageStoreDown)
			}
			if p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" || setsSession(a, p) {
				t.Errorf("%d with Retry-After %q, want 503", p.Status, p.Header.Get("Retry-After"))
			}
			tc.edit(store, false)
			until(t, func() bool { return b.Send(r).Status == http.StatusSeeOther })
			if p := b.Follow(r); p.Body != "page /page/x" {
				t.Errorf("a reload ends on %d %.200s", p.Status, p.Body)
			}
			wantUntouched(t, a, b, "alice", 1)
		})
	}
}

// TestStoreDownBeforeRedemption: without a claim no code is sent.
func TestStoreDownBeforeRedemption(t *testing.T) {
	t.Parallel()
	store := &failingStore{Store: NewMemoryStore()}
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.Store = store }
		o.wrap = impatient(2 * time.Second)
	})
	b := a.browser()
	r := a.toCallback(b, "/page/x")
	store.down.Store(true)
	wantPage(t, a, b.Send(r), http.StatusServiceUnavailable, PageStoreDown)
	if n := a.redemptions(); n != 0 {
		t.Errorf("%d token requests, want 0", n)
	}
	store.down.Store(false)
	until(t, func() bool { return b.Send(r).Status == http.StatusSeeOther })
	wantUntouched(t, a, b, "alice", 1)
}

// TestBrowserHangsUp: a redemption that has begun is finished and saved for
// whoever went away.
func TestBrowserHangsUp(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	r := a.toCallback(b, "/page/x")
	hang := make(chan struct{})
	a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Hang: hang})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan *signintest.Page)
	go func() { gone <- b.SendContext(ctx, r) }()
	a.issuer.Await(signintest.EndpointToken, 1)
	cancel()
	if p := <-gone; p.Err == nil {
		t.Fatalf("got an answer: %d", p.Status)
	}
	close(hang)
	until(t, func() bool { return strings.Contains(a.log.String(), `"signin: signed in"`) })
	p := b.Send(r)
	wantLanding(t, a, p, "/page/x")
	if secretIn(a, p) == "" {
		t.Error("a reload brings no session")
	}
	wantUntouched(t, a, b, "alice", 1)
	if strings.Contains(a.log.String(), `"level":"ERROR"`) {
		t.Errorf("a browser that went away is logged as an error: %s", a.log)
	}
}

// TestCloseWaitsForRedemption: what has been sent is saved before the process
// ends.
func TestCloseWaitsForRedemption(t *testing.T) {
	store := NewMemoryStore()
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = store } })
	b := a.browser()
	r := a.toCallback(b, "/page/x")
	hang := make(chan struct{})
	a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Hang: hang})
	go b.Send(r)
	a.issuer.Await(signintest.EndpointToken, 1)
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Shutdown(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close while a redemption is under way: %v, want its context's error", err)
	}
	close(hang)
	if err := a.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(a.log.String(), `"signin: signed in"`) {
		t.Error("Close returned before the session was saved")
	}
}

// TestAnotherUserComesBack: a challenge that was to extend a session begins a
// new one if another user answers it, and carries nothing over.
func TestAnotherUserComesBack(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	thief := b.Clone()
	alices := b.Open(a.url + "/token").Body
	a.issuer.Update(func(behaviour *signintest.Behaviour) {
		behaviour.EditResponse = nil
		behaviour.EditIDToken = func(token *signintest.IDToken) { token.Claims["sub"] = "bob" }
	})
	r := a.toCallback(b, "/token?scope=Mail.Read")
	if p := b.Follow(r); p.Status != http.StatusOK {
		t.Fatalf("%d %.300s", p.Status, p.Body)
	}
	if got := who(a, b); got != "bob" {
		t.Errorf("%q is signed in, want bob", got)
	}
	if token := b.Open(a.url + "/token").Body; token == alices {
		t.Error("bob has alice's token")
	}
	wantSignedOut(t, a, thief)
}

// TestNewSessionAtEverySignIn: a sign-in over a session ends that, so that a
// cookie taken before opens nothing after; consent extends it.
func TestNewSessionAtEverySignIn(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	before := b.Clone()
	if p := b.Send(a.toCallback(b, "/token?scope=Mail.Read")); p.Status != http.StatusSeeOther {
		t.Fatalf("consent: %d", p.Status)
	}
	if got := who(a, before); got != "alice" {
		t.Errorf("after a consent the session is %q's, want alice's still", got)
	}
	p := b.Send(a.again(b, "/page/x"))
	wantLanding(t, a, p, "/page/x")
	wantSignedOut(t, a, before)
	wantUntouched(t, a, b, "alice", 3)
}

// until polls for something that happens in the background.
func until(t *testing.T, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("did not happen within 10 seconds")
		}
	}
}

// What the application gave us may panic while a code is redeemed. Nobody
// waits for the claim then, on any replica: it is settled as failed.
func TestRedemptionPanics(t *testing.T) {
	newLab(t, labOptions{replicas: 2, config: func(c *Config) {
		c.Observe = func(_ context.Context, e Event) {
			if e.Name == EventSignedIn {
				panic("observer")
			}
		}
	}}, func(l *lab) {
		var mu sync.Mutex
		var claim string
		beats := 0
		l.store.Set(func(_ context.Context, op, key string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "swap" && strings.HasPrefix(key, "c.") {
				claim, beats = key, beats+1
			}
			return nil
		})
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		if got := l.replicas[0].serve(httptest.NewRequest("GET", back, nil), cookies, nil).StatusCode; got < 500 {
			t.Errorf("callback: %d, want an error", got)
		}
		mu.Lock()
		key, before := claim, beats
		mu.Unlock()
		l.pass(time.Minute)
		mu.Lock()
		if beats != before {
			t.Errorf("the claim is kept: %d beats in a minute", beats-before)
		}
		mu.Unlock()
		if value, err := once.ReadFresh(l.t.Context(), l.store, key); err != nil || !bytes.Equal(value, []byte{claimFailed}) {
			t.Errorf("left %q, %v; want %q", value, err, claimFailed)
		}
	})
}

// A session that cannot be saved is told within five seconds, whatever the
// store does, to those who wait and to those who reload. When the store is back
// a reload signs in, and the code has been sent once at most.
func TestCallbackThatCannotBeSaved(t *testing.T) {
	answersNoWrites := func(ctx context.Context, op, key string) error {
		if op == "get" {
			return nil
		}
		return faulty.Hangs(ctx, op, key)
	}
	for name, down := range map[string]func(context.Context, string, string) error{
		"fails": faulty.Fails, "hangs": faulty.Hangs, "full": writesOf(""), "records full": writesOf("s."),
		"index full": writesOf("u."), "writes hang": answersNoWrites,
	} {
		for _, when := range []string{"before the redemption", "after it"} {
			if when == "before the redemption" && (name == "records full" || name == "index full") {
				continue // the claim can be written
			}
			t.Run(name+" "+when, func(t *testing.T) {
				newLab(t, labOptions{}, func(l *lab) {
					r := l.replicas[0]
					back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
					want := 0 // redemptions
					if when == "after it" {
						want = 1
						r.wire.before(func(req *http.Request) error {
							if strings.HasSuffix(req.URL.Path, "/token") {
								l.store.Set(down)
							}
							return nil
						})
					} else {
						l.store.Set(down)
					}
					ask := func() *http.Response { return r.serve(httptest.NewRequest("GET", back, nil), cookies, nil) }
					for range 3 {
						start := time.Now()
						together(3, func(int) {
							if resp := ask(); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
								t.Errorf("%d, want 503 with Retry-After", resp.StatusCode)
							}
						})
						if took := time.Since(start); took > 5*time.Second {
							t.Errorf("it took %v", took)
						}
					}
					if got := l.issuer.CountGrant("authorization_code"); got != want {
						t.Errorf("%d redemptions while the store is down, want %d", got, want)
					}
					l.store.Set(nil)
					r.wire.before(nil)
					resp := ask()
					if resp.StatusCode != http.StatusSeeOther || l.record(merge(cookies, resp)) == nil {
						t.Errorf("the store is back: %d, want 303 and a session", resp.StatusCode)
					}
					if got := l.issuer.CountGrant("authorization_code"); got != 1 {
						t.Errorf("%d redemptions, want one", got)
					}
				})
			})
		}
	}
}

// A slow issuer is no failing store: the browser waits for it.
func TestSlowIssuerIsNoStore(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		release := make(chan struct{})
		arrived := r.wire.hang(release)
		go func() {
			<-arrived
			once.Sleep(l.t.Context(), 12*time.Second)
			close(release)
		}()
		if resp := r.serve(httptest.NewRequest("GET", back, nil), cookies, nil); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%d after 12 seconds, want 303", resp.StatusCode)
		}
	})
}
