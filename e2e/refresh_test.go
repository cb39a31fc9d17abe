package e2e

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

// refreshLimit is how long the library lets anybody wait for a refresh.
const refreshLimit = 30 * time.Second

// calls is a number of requests to /api that are under way.
type calls struct {
	wg sync.WaitGroup

	mu    sync.Mutex // guards what follows
	pages []*signintest.Page
	took  []time.Duration
}

func (c *calls) add(b *signintest.Browser, r *replica, n int) {
	for range n {
		c.wg.Go(func() {
			start := time.Now()
			p, _ := callAPI(b, r)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.pages = append(c.pages, p)
			c.took = append(c.took, time.Since(start))
		})
	}
}

func (c *calls) wait() []*signintest.Page {
	c.wg.Wait()
	return c.pages
}

// wantServed wants every call to have reached the API in a user's name.
func (f *fleet) wantServed(pages []*signintest.Page, user string) {
	f.t.Helper()
	bad := 0
	for _, p := range pages {
		if subjectOf(p) != user {
			if bad++; bad <= 3 {
				f.t.Errorf("/api: %s; want the answer for %s", describe(p), user)
			}
		}
	}
	if bad > 0 {
		f.t.Errorf("%d of %d calls failed", bad, len(pages))
	}
}

// TestOneRefresh: a hundred requests with an expired token, spread over two
// processes, at an issuer that takes a refresh token once and ends the whole
// grant when it comes again.
func TestOneRefresh(t *testing.T) {
	f := newFleet(t, shortTokens)
	b := f.signIn("alice")
	f.expiredToken("alice")
	var c calls
	start := time.Now()
	for range 50 {
		c.add(b, f.a, 1)
		c.add(b, f.b, 1)
	}
	pages := c.wait()
	t.Logf("100 requests with one refresh: %v", time.Since(start))
	f.wantServed(pages, "alice")
	if n := f.refreshes(); len(pages) != 100 || n != 1 {
		t.Errorf("%d requests made %d refreshes; want 100 and 1", len(pages), n)
	}
	// Reuse would have ended the grant: the next refresh shows that it lives.
	f.issuer.Update(func(b *signintest.Behaviour) { b.AccessTokenLifetime = time.Second })
	f.issuer.RevokeAccessTokens("alice")
	f.expireHeld(b)
	var again calls
	again.add(b, f.a, 5)
	again.add(b, f.b, 5)
	f.wantServed(again.wait(), "alice")
}

// expireHeld makes the session hold a token that expires at once, by signing
// in again with the same browser at an issuer whose tokens are short.
func (f *fleet) expireHeld(b *signintest.Browser) {
	f.t.Helper()
	if p := signOut(b, f.a); p.Status != http.StatusSeeOther {
		f.t.Fatalf("sign-out: %s", describe(p))
	}
	if p := f.signInWith(b, f.front.url, "alice"); p.Status != http.StatusOK {
		f.t.Fatalf("sign-in: %s", describe(p))
	}
	f.expiredToken("alice")
}

// TestSlowIssuer: the lease is renewed for as long as the issuer takes, though
// that is longer than a lease that nobody renews is respected.
func TestSlowIssuer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, shortTokens)
	b := f.signIn("alice")
	f.expiredToken("alice")
	f.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Delay: 6 * time.Second})
	var c calls
	c.add(b, f.a, 5)
	c.add(b, f.b, 5)
	f.wantServed(c.wait(), "alice")
	if n := f.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// TestStorePause: Redis stops answering everybody in the middle of a refresh,
// for longer than a lease stands that nobody renews. Neither the holder nor
// the waiters may take that for a death.
func TestStorePause(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]struct{ begin, end func(*fleet) }{
		"network": {
			func(f *fleet) { f.a.proxy.Hold(); f.b.proxy.Hold() },
			func(f *fleet) { f.a.proxy.Restore(); f.b.proxy.Restore() },
		},
		"server": {
			func(f *fleet) { f.redis.Pause() },
			func(f *fleet) { f.redis.Resume() },
		},
		"connections": {
			func(f *fleet) { f.a.proxy.Cut(); f.b.proxy.Cut() },
			func(f *fleet) { f.a.proxy.Restore(); f.b.proxy.Restore() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, shortTokens)
			b := f.signIn("alice")
			f.expiredToken("alice")
			release := make(chan struct{})
			f.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Hang: release})
			var c, waiting calls
			c.add(b, f.a, 3)
			f.issuer.Await(signintest.EndpointToken, 2)
			waiting.add(b, f.b, 3)
			elapse(t, time.Now(), time.Second) // B has seen the lease
			trouble.begin(f)
			start := time.Now()
			elapse(t, start, 5*time.Second)
			close(release) // the answer arrives while it cannot be saved
			elapse(t, start, 8*time.Second)
			trouble.end(f)
			// The holder had the answer and gives it; who waited for a store
			// that does not answer is told so, and is not signed out.
			f.wantServed(c.wait(), "alice")
			for _, p := range waiting.wait() {
				if subjectOf(p) != "alice" && p.Status < 500 {
					t.Errorf("a waiter on the other replica: %s", describe(p))
				}
			}
			for _, r := range f.replicas() {
				redistest.Wait(t, 2*time.Second, "replica "+r.name+" to recover", func() error {
					if p, sub := me(b, r); sub != "alice" {
						return errors.New(describe(p))
					}
					return nil
				})
			}
			if n := f.refreshes(); n != 1 {
				t.Errorf("%d refreshes, want 1", n)
			}
			var later calls
			later.add(b, f.a, 3)
			later.add(b, f.b, 3)
			f.wantServed(later.wait(), "alice")
			if n := f.refreshes(); n != 1 {
				t.Errorf("%d refreshes after the pause, want still 1", n)
			}
		})
	}
}

// TestBriefPause: the same for just as long as a lease stands, with callers who
// wait all through it. All are served, and by one refresh.
func TestBriefPause(t *testing.T) {
	t.Parallel()
	f := newFleet(t, shortTokens)
	b := f.signIn("alice")
	f.expiredToken("alice")
	release := make(chan struct{})
	f.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Hang: release})
	var c calls
	c.add(b, f.a, 3)
	f.issuer.Await(signintest.EndpointToken, 2)
	c.add(b, f.b, 3)
	elapse(t, time.Now(), time.Second)
	for range 3 {
		f.a.proxy.Cut()
		f.b.proxy.Cut()
		elapse(t, time.Now(), 2700*time.Millisecond)
		f.a.proxy.Restore()
		f.b.proxy.Restore()
		elapse(t, time.Now(), time.Second)
	}
	close(release)
	f.wantServed(c.wait(), "alice")
	if n := f.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// TestSaveFailed: the issuer has rotated the refresh token, and only the
// replica that asked is cut off when the answer comes. The caller is served,
// the tokens are kept in hand and saved when Redis is back.
func TestSaveFailed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, shortTokens)
	b := f.signIn("alice")
	f.expiredToken("alice")
	release := make(chan struct{})
	f.issuer.FailNext(signintest.EndpointToken, signintest.Fault{AfterProcessing: true, Hang: release})
	var c calls
	c.add(b, f.a, 3)
	f.issuer.Await(signintest.EndpointToken, 2)
	f.a.proxy.Cut()
	close(release)
	f.wantServed(c.wait(), "alice")
	elapse(t, time.Now(), 4*time.Second)
	f.a.proxy.Restore()
	elapse(t, time.Now(), time.Second)
	for _, r := range f.replicas() {
		var later calls
		later.add(b, r, 3)
		f.wantServed(later.wait(), "alice")
	}
	if n := f.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// TestKilledWhileRefreshing: kill -9 of the process that holds the lease.
func TestKilledWhileRefreshing(t *testing.T) {
	t.Parallel()
	t.Run("token unspent", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, shortTokens)
		b := f.signIn("alice")
		f.expiredToken("alice")
		took := f.killRefreshing(b, signintest.Fault{Hang: make(chan struct{})}, func(pages []*signintest.Page) {
			f.wantServed(pages, "alice")
		})
		t.Logf("the other replica took over and had answered after %v", took)
		if took < 2*time.Second || took > 6*time.Second {
			t.Errorf("taken over after %v; want about 3 s", took)
		}
		if n := f.refreshes(); n != 2 {
			t.Errorf("%d refreshes; want the one that died, and one more", n)
		}
	})
	t.Run("token spent", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, shortTokens)
		b := f.signIn("alice")
		f.expiredToken("alice")
		f.killRefreshing(b, signintest.Fault{AfterProcessing: true, Hang: make(chan struct{})}, func(pages []*signintest.Page) {
			for _, p := range pages {
				if !f.challenged(p) {
					t.Errorf("/api: %s; want a challenge", describe(p))
				}
			}
		})
		// The refusal is known: nobody asks the issuer again.
		for range 3 {
			if p, _ := callAPI(b, f.b); !f.challenged(p) {
				t.Errorf("/api: %s; want a challenge", describe(p))
			}
		}
		if n := f.refreshes(); n != 2 {
			t.Errorf("%d refreshes; want the one that died, and the one that was refused", n)
		}
		// One round trip, and that is all.
		asked := f.issuer.Count(signintest.EndpointAuthorize)
		p, r := f.toIssuer(b, f.b.url+"/api", "")
		if r == nil {
			t.Fatalf("/api: %s", describe(p))
		}
		if p = b.Follow(r); subjectOf(p) != "alice" || path(p.URL) != "/api" {
			t.Errorf("after signing in: %s; want the API's answer", describe(p))
		}
		f.a.start()
		for _, r := range f.replicas() {
			if p, sub := callAPI(b, r); sub != "alice" {
				t.Errorf("replica %s, later: %s", r.name, describe(p))
			}
		}
		if n := f.issuer.Count(signintest.EndpointAuthorize) - asked; n != 1 {
			t.Errorf("%d round trips, want 1", n)
		}
		if n, m := f.refreshes(), f.redemptions(); n != 2 || m != 2 {
			t.Errorf("%d refreshes and %d redemptions, want 2 and 2", n, m)
		}
	})
}

// killRefreshing lets A begin a refresh that meets a fault, kills A, and
// returns how long the calls that waited on B took from then on.
func (f *fleet) killRefreshing(b *signintest.Browser, fault signintest.Fault, check func([]*signintest.Page)) time.Duration {
	f.t.Helper()
	f.issuer.FailNext(signintest.EndpointToken, fault)
	var dying, waiting calls
	dying.add(b, f.a, 1)
	f.issuer.Await(signintest.EndpointToken, 2)
	waiting.add(b, f.b, 5)
	elapse(f.t, time.Now(), time.Second) // a living holder is respected
	if n := f.refreshes(); n != 1 {
		f.t.Errorf("%d refreshes while the first is under way", n)
	}
	f.sent.excuse(0, 1)
	start := time.Now()
	f.a.kill()
	dying.wait()
	pages := waiting.wait()
	took := time.Since(start)
	check(pages)
	return took
}

// TestIssuerHangs: nobody waits longer than the refresh deadline, on either
// replica, and no request asks the issuer twice.
func TestIssuerHangs(t *testing.T) {
	t.Parallel()
	f := newFleet(t, shortTokens)
	b := f.signIn("alice")
	f.expiredToken("alice")
	f.issuer.Fail(signintest.EndpointToken, signintest.Fault{Hang: make(chan struct{})})
	var c calls
	c.add(b, f.a, 10)
	f.issuer.Await(signintest.EndpointToken, 2)
	f.sent.excuse(0, 2) // by the other replica, and once the issuer is back
	c.add(b, f.b, 10)
	for _, p := range c.wait() {
		if p.Status < 500 || f.challenged(p) {
			t.Errorf("/api with a hanging issuer: %s; want a failure that passes", describe(p))
		}
	}
	slowest := slices.Max(c.took)
	t.Logf("slowest of %d calls: %v, %d token requests", len(c.took), slowest, f.refreshes())
	if slowest > refreshLimit+3*time.Second {
		t.Errorf("a call took %v; the deadline is %v", slowest, refreshLimit)
	}
	if n := f.refreshes(); n > 2 {
		t.Errorf("%d token requests from two replicas", n)
	}
	f.issuer.Heal()
	// The site gives up a call sooner than the library a refresh: what still
	// hangs at the issuer comes to its end first.
	redistest.Wait(t, refreshLimit, "both replicas to serve", func() error {
		var later calls
		later.add(b, f.a, 3)
		later.add(b, f.b, 3)
		for _, p := range later.wait() {
			if subjectOf(p) != "alice" {
				return errors.New(describe(p))
			}
		}
		return nil
	})
}
