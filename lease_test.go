package signin

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// troubled is a store that fails on demand.
type troubled struct {
	Store
	mu   sync.Mutex
	down func(ctx context.Context, op, key string) error // nil: up; guarded by mu
	lose func(key string, new []byte) bool               // answers to Swap to lose; guarded by mu
}

var errTrouble = errors.New("the store is down")

// fails answers at once that the store is down, and hangs not at all.
func fails(context.Context, string, string) error { return errTrouble }
func hangs(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *troubled) set(down func(context.Context, string, string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// loseAnswers makes Swaps succeed and fail: n of those that lose accepts.
func (s *troubled) loseAnswers(n int, lose func(key string, new []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = func(key string, new []byte) bool {
		if n == 0 || !lose(key, new) {
			return false
		}
		n--
		return true
	}
}

func (s *troubled) trouble(ctx context.Context, op, key string) error {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down == nil {
		return nil
	}
	return down(ctx, op, key)
}

func (s *troubled) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := s.trouble(ctx, "get", key); err != nil {
		return nil, false, err
	}
	return s.Store.Get(ctx, key)
}

func (s *troubled) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	if err := s.trouble(ctx, "swap", key); err != nil {
		return nil, false, err
	}
	found, swapped, err := s.Store.Swap(ctx, key, old, new, ttl)
	s.mu.Lock()
	defer s.mu.Unlock()
	if swapped && s.lose != nil && s.lose(key, new) {
		return nil, false, errors.New("the answer got lost")
	}
	return found, swapped, err
}

func (s *troubled) Delete(ctx context.Context, key string) error {
	if err := s.trouble(ctx, "delete", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

// bubble runs a test in which time passes only while everybody waits.
func bubble(t *testing.T, f func(t *testing.T, store *troubled)) {
	synctest.Test(t, func(t *testing.T) { f(t, &troubled{Store: NewMemoryStore()}) })
}

// pass lets time pass in a bubble.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func mustAcquire(t *testing.T, store Store) *lease {
	t.Helper()
	l, outcome, err := acquire(t.Context(), store, "l.x", leaseTTL)
	if err != nil || outcome != nil {
		t.Fatalf("acquire: outcome %q, %v", outcome, err)
	}
	return l
}

// die stops a lease's beat as the end of its process does.
func (l *lease) die() {
	l.stop()
	<-l.stopped
}

func (s *troubled) value(key string) []byte {
	v, _, _ := s.Store.Get(context.Background(), key)
	return v
}

func TestLeaseExcludes(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		var holders, turns atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				l := mustAcquire(t, store)
				if holders.Add(1) != 1 {
					t.Error("two hold the lease at once")
				}
				if l.orphaned {
					t.Error("orphaned, though nobody died")
				}
				pass(t, 700*time.Millisecond)
				holders.Add(-1)
				turns.Add(1)
				if err := l.end(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if turns.Load() != 20 || store.value("l.x") != nil {
			t.Errorf("%d turns, then %q is left; want 20 and nothing", turns.Load(), store.value("l.x"))
		}
	})
}

func TestLeaseHeldForLong(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		l := mustAcquire(t, store)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if _, _, err := acquire(ctx, store, "l.x", time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got a lease that another holds: %v", err)
		}
		if err := l.sure(t.Context()); err != nil {
			t.Error(err)
		}
		l.end(t.Context(), nil)
	})
}

func TestLeaseTakeover(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		l := mustAcquire(t, store)
		pass(t, 10*time.Second)
		l.die()
		start := time.Now()
		next := mustAcquire(t, store)
		if took := time.Since(start); took < leaseStale || took > leaseStale+leaseBeat {
			t.Errorf("taken over after %v, want %v", took, leaseStale)
		}
		if !next.orphaned {
			t.Error("the new holder does not know that the old one died")
		}
		// The old one was only stopped for a while.
		if err := l.sure(t.Context()); !errors.Is(err, errLeaseLost) {
			t.Errorf("sure: %v, want %v", err, errLeaseLost)
		}
		if err := l.end(t.Context(), []byte("outcome")); !errors.Is(err, errLeaseLost) {
			t.Errorf("end: %v, want %v", err, errLeaseLost)
		}
		if err := next.sure(t.Context()); err != nil {
			t.Error(err)
		}
		next.end(t.Context(), nil)
	})
}

// A store that pauses stops holder and waiter alike: whatever its length, it
// is no reason to take over.
func TestLeaseStorePause(t *testing.T) {
	for _, tc := range []struct {
		name  string
		pause time.Duration
		down  func(context.Context, string, string) error
	}{
		{"fails for 2s", 2 * time.Second, fails},
		{"hangs for 4s", 4 * time.Second, hangs},
		{"fails for 10m", 10 * time.Minute, fails},
		{"hangs for 10m", 10 * time.Minute, hangs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *troubled) {
				l := mustAcquire(t, store)
				pass(t, 1200*time.Millisecond)
				store.set(tc.down)
				start := time.Now()
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						other, _, err := acquire(t.Context(), store, "l.x", leaseTTL)
						if tc.pause < storePatience {
							if err != nil || time.Since(start) < 20*time.Second {
								t.Errorf("after %v: %v; want the lease once its holder ends it", time.Since(start), err)
							}
							if err == nil {
								other.end(t.Context(), nil)
							}
							return
						}
						var down *storeError
						if took := time.Since(start); !errors.As(err, &down) || took > storePatience+leasePoll {
							t.Errorf("after %v: %v; want a *storeError within 5s", took, err)
						}
					})
				}
				pass(t, tc.pause)
				store.set(nil)
				if tc.pause < time.Minute {
					pass(t, 20*time.Second-tc.pause)
				}
				late, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if tc.pause > time.Minute {
					if _, _, err := acquire(late, store, "l.x", leaseTTL); err == nil {
						t.Error("taken over from a holder that lives")
					}
				}
				if err := l.end(t.Context(), nil); err != nil {
					t.Errorf("end: %v", err)
				}
				wg.Wait()
			})
		})
	}
}

func TestLeaseLostAnswers(t *testing.T) {
	any := func(string, []byte) bool { return true }

	t.Run("acquire", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *troubled) {
			store.loseAnswers(1, any)
			start := time.Now()
			l := mustAcquire(t, store)
			if l.orphaned || time.Since(start) > time.Second {
				t.Errorf("orphaned %t after %v: our own Swap was not recognised", l.orphaned, time.Since(start))
			}
			l.end(t.Context(), nil)
		})
	})
	t.Run("takeover", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *troubled) {
			mustAcquire(t, store).die()
			store.loseAnswers(1, any)
			l := mustAcquire(t, store)
			if !l.orphaned {
				t.Error("the new holder does not know that the old one died")
			}
			l.end(t.Context(), nil)
		})
	})
	t.Run("beats", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *troubled) {
			l := mustAcquire(t, store)
			store.loseAnswers(7, any)
			pass(t, 10*time.Second)
			if err := l.sure(t.Context()); err != nil {
				t.Errorf("sure: %v", err)
			}
			if err := l.end(t.Context(), nil); err != nil || store.value("l.x") != nil {
				t.Errorf("end: %v, and %q is left", err, store.value("l.x"))
			}
		})
	})
	t.Run("last beat", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *troubled) {
			l := mustAcquire(t, store)
			store.loseAnswers(1, any)
			pass(t, leaseBeat+time.Millisecond)
			if err := l.end(t.Context(), []byte("done")); err != nil || string(store.value("l.x")) != "done" {
				t.Errorf("end: %v, and %q is left", err, store.value("l.x"))
			}
		})
	})
}

// The holder we were about to take over from came back while the store was
// away, and ended its lease.
func TestLeaseEndedDuringTakeover(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		l := mustAcquire(t, store)
		l.die()
		var since time.Time
		stale := 0
		store.set(func(ctx context.Context, op, key string) error {
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) >= leaseStale {
				stale++ // the first sees that it is, the second tries to replace it
			}
			if stale > 1 && stale < 20 {
				store.Store.Delete(ctx, key)
				return errTrouble
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		next, _, err := acquire(ctx, store, "l.x", leaseTTL)
		if err != nil {
			t.Fatalf("nobody holds the lease, but: %v", err)
		}
		if next.orphaned {
			t.Error("orphaned, though it was ended")
		}
		next.end(t.Context(), nil)
	})
}

func TestLeaseOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		l := mustAcquire(t, store)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				got, outcome, err := acquire(t.Context(), store, "l.x", leaseTTL)
				if got != nil || string(outcome) != "done" || err != nil {
					t.Errorf("lease %v, outcome %q, %v; want the outcome", got, outcome, err)
				}
			})
		}
		pass(t, 5*time.Second)
		l.end(t.Context(), []byte("done"))
		wg.Wait()
	})
}

// A store that has lost the lease, by eviction or a restart, gets it again.
func TestLeaseEvicted(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		l := mustAcquire(t, store)
		store.Store.Delete(t.Context(), "l.x")
		pass(t, leaseBeat+time.Millisecond)
		synctest.Wait()
		l.mu.Lock()
		if v := store.value("l.x"); !l.wrote(v) {
			t.Errorf("the store holds %q, want the lease", v)
		}
		l.mu.Unlock()
		store.Store.Delete(t.Context(), "l.x")
		if err := l.end(t.Context(), []byte("done")); err != nil || string(store.value("l.x")) != "done" {
			t.Errorf("end: %v, and the store holds %q", err, store.value("l.x"))
		}
	})
}

func TestLeaseSure(t *testing.T) {
	bubble(t, func(t *testing.T, store *troubled) {
		l := mustAcquire(t, store)
		store.set(fails)
		if err := l.sure(t.Context()); err != nil {
			t.Errorf("just taken: %v", err)
		}
		pass(t, leaseStale)
		var down *storeError
		if err := l.sure(t.Context()); !errors.As(err, &down) {
			t.Errorf("cut off from the store: %v, want a *storeError", err)
		}
		store.set(nil)
		if err := l.sure(t.Context()); err != nil {
			t.Errorf("the store is back: %v", err)
		}
		l.end(t.Context(), nil)
	})
}
