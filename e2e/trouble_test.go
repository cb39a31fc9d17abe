package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

// recovery is how soon after Redis is back its users must be served.
const recovery = time.Second

// TestStoreTrouble: whatever keeps Redis from answering, those who are signed
// in get 503 and stay signed in, and the public pages stay up.
func TestStoreTrouble(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]struct{ begin, end func(*fleet) }{
		"refused": {
			func(f *fleet) { f.a.proxy.Cut(); f.b.proxy.Cut() },
			func(f *fleet) { f.a.proxy.Restore(); f.b.proxy.Restore() },
		},
		"black hole": {
			func(f *fleet) { f.a.proxy.Hold(); f.b.proxy.Hold() },
			func(f *fleet) { f.a.proxy.Restore(); f.b.proxy.Restore() },
		},
		"answers lost": {
			func(f *fleet) { f.a.proxy.HoldReplies(); f.b.proxy.HoldReplies() },
			func(f *fleet) { f.a.proxy.Restore(); f.b.proxy.Restore() },
		},
		"server paused": {
			func(f *fleet) { f.redis.Pause() },
			func(f *fleet) { f.redis.Resume() },
		},
		"too slow": {
			func(f *fleet) { f.a.proxy.Delay(1500 * time.Millisecond); f.b.proxy.Delay(1500 * time.Millisecond) },
			func(f *fleet) { f.a.proxy.Restore(); f.b.proxy.Restore() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			b := f.signIn("alice")
			for _, r := range f.replicas() {
				f.wantUser(b, r, "alice")
			}
			asked := f.issuer.Count(signintest.EndpointAuthorize)
			trouble.begin(f)
			began := time.Now()
			for _, r := range f.replicas() {
				// The copy may serve for two seconds; nothing else may be said.
				redistest.Wait(t, 6*time.Second, "replica "+r.name+" to notice", func() error {
					p, sub := me(b, r)
					if sub == "alice" && time.Since(began) < 5*time.Second {
						return errors.New("still served")
					}
					f.wantUnavailable(p, "replica "+r.name)
					return nil
				})
				start := time.Now()
				f.wantUnavailable(b.Send(&signintest.Request{URL: r.url + "/me", Activated: true}), "page")
				f.wantUnavailable(b.Send(&signintest.Request{URL: r.url + "/me", From: r.url + "/", Mode: "cors", Dest: "empty"}), "fetch")
				f.wantUnavailable(signOut(b, r), "sign-out")
				if took := time.Since(start); took > 3*(2*time.Second+500*time.Millisecond) {
					t.Errorf("replica %s: three refusals took %v", r.name, took)
				}
				f.wantPublic(f.browser(), r)
			}
			if n := f.issuer.Count(signintest.EndpointAuthorize) - asked; n != 0 {
				t.Errorf("%d browsers were sent to the issuer", n)
			}
			trouble.end(f)
			start := time.Now()
			for _, r := range f.replicas() {
				redistest.Wait(t, recovery, "replica "+r.name+" to recover", func() error {
					if err := unavailable(firstOf(me(b, r))); err == nil {
						return errors.New("503")
					}
					return nil
				})
			}
			t.Logf("served again %v after Redis was back", time.Since(start))
			// Commands that waited in the network may arrive now: the user has
			// pressed sign-out, so both ends are right, but nothing between.
			for _, r := range f.replicas() {
				if p, sub := me(b, r); sub != "alice" && !(f.challenged(p) && name != "refused") {
					t.Errorf("replica %s, after the trouble: %s", r.name, describe(p))
				}
			}
		})
	}
}

func firstOf(p *signintest.Page, _ string) *signintest.Page { return p }

// TestRestartEmpty: nobody is left signed in, and one silent round trip to the
// issuer later everybody is again.
func TestRestartEmpty(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.signIn("alice")
	for _, r := range f.replicas() {
		f.wantUser(b, r, "alice")
	}
	f.redis.Kill()
	for _, r := range f.replicas() {
		f.wantUnavailable(firstOf(me(b, r)), "replica "+r.name)
	}
	asked, redeemed := f.issuer.Count(signintest.EndpointAuthorize), f.redemptions()
	f.redis.Run()
	for _, r := range f.replicas() {
		redistest.Wait(t, recovery, "replica "+r.name+" to recover", func() error {
			if p, _ := me(b, r); !f.challenged(p) {
				return errors.New(describe(p))
			}
			return nil
		})
	}
	p := b.Open(f.a.url + "/me")
	if p.Status != http.StatusOK || path(p.URL) != "/me" {
		t.Fatalf("/me at an empty Redis: %s; want to be signed in again", describe(p))
	}
	if n, m := f.issuer.Count(signintest.EndpointAuthorize)-asked, f.redemptions()-redeemed; n != 1 || m != 1 {
		t.Errorf("%d round trips and %d redemptions, want one each", n, m)
	}
	for _, r := range f.replicas() {
		f.wantUser(b, r, "alice")
	}
}

// TestRedisFull: who is signed in stays so and can be served and signed out;
// who signs in meanwhile is told to wait, and gets in when there is room.
func TestRedisFull(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(o *options) { o.redisArgs = []string{"--maxmemory-policy", "noeviction"} })
	b := f.signIn("alice")
	for _, r := range f.replicas() {
		f.wantUser(b, r, "alice")
	}
	stranger := f.browser()
	callback := f.toCallback(stranger, "bob")
	f.redis.MustDo("CONFIG", "SET", "maxmemory", "1mb")
	for _, r := range f.replicas() {
		f.wantUser(b, r, "alice")
	}
	start := time.Now()
	p := stranger.Send(at(f.a, callback))
	f.wantUnavailable(p, "callback")
	t.Logf("a callback at a full Redis is refused after %v", time.Since(start))
	if n := f.redemptions(); n != 1 {
		t.Errorf("%d redemptions: a code was spent that cannot be saved", n)
	}
	if p := signOut(b.Clone(), f.b); p.Status != http.StatusSeeOther {
		t.Errorf("sign-out at a full Redis: %s", describe(p))
	}
	f.wantGone(b, f.a)
	f.redis.MustDo("CONFIG", "SET", "maxmemory", "0")
	// The reload of the page that said "later".
	if p := stranger.Follow(at(f.b, callback)); p.Status != http.StatusOK || path(p.URL) != "/me" {
		t.Errorf("the callback again, with room: %s", describe(p))
	}
	f.wantUser(stranger, f.b, "bob")
	if n := f.redemptions(); n != 2 {
		t.Errorf("%d redemptions, want 2", n)
	}
}

// TestFailover: the primary dies and its replica is promoted by Sentinel.
func TestFailover(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartReplicated(t)
	f := newFleet(t, func(o *options) { o.redisURL = cluster.Sentinel.URL() + "?master_set=" + cluster.Name })
	b := f.signIn("alice")
	for _, r := range f.replicas() {
		f.wantUser(b, r, "alice")
	}
	redistest.Wait(t, 5*time.Second, "the replica to have the session", func() error {
		list, err := cluster.Replica.Do("KEYS", "signin:s.*")
		if keys, _ := list.([]any); err == nil && len(keys) != 1 {
			err = errors.New("not yet")
		}
		return err
	})
	cluster.Master.Kill()
	start := time.Now()
	var refused int
	var last time.Duration
	redistest.Wait(t, 30*time.Second, "the failover", func() error {
		served := 0
		for _, r := range f.replicas() {
			p, sub := me(b, r)
			switch err := unavailable(p); {
			case err == nil:
				refused++
				last = time.Since(start)
			case sub != "alice":
				t.Errorf("during the failover: %v", err)
			default:
				served++
			}
		}
		if served < 2 || time.Since(start) < 2*copyFor { // until then it may be a copy
			return fmt.Errorf("%d replicas serve", served)
		}
		return nil
	})
	t.Logf("%d answers of 503 during the failover, the last after %v", refused, last)
	if refused == 0 {
		t.Error("nobody noticed the failover: this test sees nothing")
	}
	for _, r := range f.replicas() {
		f.wantUser(b, r, "alice")
	}
	// And it takes writes.
	other := f.signIn("bob")
	f.wantUser(other, f.a, "bob")
}

// TestNoPileUp: a crowd at two Auths in this process, with Redis in a black
// hole. Everybody is answered in time, and when it is over no goroutine is
// left behind.
func TestNoPileUp(t *testing.T) {
	p := newPair(t)
	b := p.signIn("alice")
	p.settle(t)
	before := goroutines()
	p.proxies[0].Hold()
	p.proxies[1].Cut()
	start := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	for i := range 300 {
		wg.Go(func() {
			asked := time.Now()
			page := b.Send(&signintest.Request{URL: p.urls[i%2] + "/token", Activated: true})
			took := time.Since(asked)
			if page.Status == http.StatusOK && time.Since(start) > 3*time.Second || page.Status == http.StatusSeeOther {
				t.Errorf("a request of the crowd: %s", describe(page))
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
		})
	}
	wg.Wait()
	t.Logf("slowest of 300: %v", slowest)
	if slowest > 8*time.Second {
		t.Errorf("a request of the crowd took %v", slowest)
	}
	p.settle(t)
	redistest.Wait(t, 10*time.Second, "the crowd's goroutines to end", func() error {
		if n := goroutines(); n > before+10 {
			return errors.New(stacks())
		}
		return nil
	})
	for _, proxy := range p.proxies {
		proxy.Restore()
	}
	for i := range p.urls {
		redistest.Wait(t, recovery, "recovery", func() error {
			page := b.Send(&signintest.Request{URL: p.urls[i] + "/me", Activated: true})
			if page.Status != http.StatusOK || page.Body != "alice" {
				return errors.New(describe(page))
			}
			return nil
		})
	}
}

// TestReady tells store and issuer apart.
func TestReady(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const store, issuer = "session store", "issuer"
	want := func(i int, names ...string) {
		t.Helper()
		err := p.auths[i].Ready(t.Context())
		for _, name := range []string{store, issuer} {
			named := err != nil && strings.Contains(err.Error(), "signin: "+name)
			wanted := strings.Contains(strings.Join(names, ","), name)
			if named != wanted {
				t.Errorf("Ready of %d names %q: %t, want %t: %v", i, name, named, wanted, err)
			}
		}
		if len(names) == 0 && err != nil {
			t.Errorf("Ready of %d: %v", i, err)
		}
	}
	p.issuer.Fail(signintest.EndpointAny, signintest.Fault{Drop: true})
	want(0, issuer)
	p.proxies[0].Cut()
	want(0, issuer, store)
	p.issuer.Heal()
	want(1)
	redistest.Wait(t, 10*time.Second, "the backoff to pass", func() error {
		if err := p.auths[0].Ready(t.Context()); err == nil || strings.Contains(err.Error(), "signin: "+issuer) {
			return errors.New("still naming the issuer")
		}
		return nil
	})
	want(0, store)
	p.proxies[0].Restore()
	redistest.Wait(t, recovery, "the store", func() error { return p.auths[0].Ready(t.Context()) })
	want(0)
}
