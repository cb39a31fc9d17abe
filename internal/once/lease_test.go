package once

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
)

// bubble runs a test in which time passes only while everybody waits.
func bubble(t *testing.T, f func(t *testing.T, store *faulty.Troubled)) {
	synctest.Test(t, func(t *testing.T) { f(t, &faulty.Troubled{Store: &memory{}}) })
}

// pass lets time pass in a bubble.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

// testTTL outlives every test.
const testTTL = 25 * time.Hour

func mustAcquire(t *testing.T, store Store) *Lease {
	t.Helper()
	l, outcome, err := Acquire(t.Context(), store, "l.x", testTTL)
	if err != nil || outcome != nil {
		t.Fatalf("acquire: outcome %q, %v", outcome, err)
	}
	return l
}

// die stops a lease's beat as the end of its process does.
func (l *Lease) die() {
	l.stop()
	<-l.stopped
}

func TestLeaseExcludes(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		var holders, turns atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				l := mustAcquire(t, store)
				if holders.Add(1) != 1 {
					t.Error("two hold the lease at once")
				}
				if l.Orphaned {
					t.Error("orphaned, though nobody died")
				}
				pass(t, 700*time.Millisecond)
				holders.Add(-1)
				turns.Add(1)
				if err := l.End(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if turns.Load() != 20 || store.Value("l.x") != nil {
			t.Errorf("%d turns, then %q is left; want 20 and nothing", turns.Load(), store.Value("l.x"))
		}
	})
}

func TestLeaseHeldForLong(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if _, _, err := Acquire(ctx, store, "l.x", time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got a lease that another holds: %v", err)
		}
		if err := l.Sure(t.Context()); err != nil {
			t.Error(err)
		}
		l.End(t.Context(), nil)
	})
}

func TestLeaseTakeover(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		pass(t, 10*time.Second)
		l.die()
		start := time.Now()
		next := mustAcquire(t, store)
		if took := time.Since(start); took < LeaseStale || took > LeaseStale+LeaseBeat {
			t.Errorf("taken over after %v, want %v", took, LeaseStale)
		}
		if !next.Orphaned {
			t.Error("the new holder does not know that the old one died")
		}
		// The old one was only stopped for a while.
		if err := l.Sure(t.Context()); !errors.Is(err, errLeaseLost) {
			t.Errorf("sure: %v, want %v", err, errLeaseLost)
		}
		if err := l.End(t.Context(), []byte("outcome")); !errors.Is(err, errLeaseLost) {
			t.Errorf("end: %v, want %v", err, errLeaseLost)
		}
		if err := next.Sure(t.Context()); err != nil {
			t.Error(err)
		}
		next.End(t.Context(), nil)
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
		{"fails for 2s", 2 * time.Second, faulty.Fails},
		{"hangs for 4s", 4 * time.Second, faulty.Hangs},
		{"fails for 10m", 10 * time.Minute, faulty.Fails},
		{"hangs for 10m", 10 * time.Minute, faulty.Hangs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *faulty.Troubled) {
				l := mustAcquire(t, store)
				pass(t, 1200*time.Millisecond)
				store.Set(tc.down)
				start := time.Now()
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						other, _, err := Acquire(t.Context(), store, "l.x", testTTL)
						if tc.pause < Patience {
							if err != nil || time.Since(start) < 20*time.Second {
								t.Errorf("after %v: %v; want the lease once its holder ends it", time.Since(start), err)
							}
							if err == nil {
								other.End(t.Context(), nil)
							}
							return
						}
						var down *StoreError
						if took := time.Since(start); !errors.As(err, &down) || took > Patience+leasePoll {
							t.Errorf("after %v: %v; want a *storeError within 5s", took, err)
						}
					})
				}
				pass(t, tc.pause)
				store.Set(nil)
				if tc.pause < time.Minute {
					pass(t, 20*time.Second-tc.pause)
				}
				late, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if tc.pause > time.Minute {
					if _, _, err := Acquire(late, store, "l.x", testTTL); err == nil {
						t.Error("taken over from a holder that lives")
					}
				}
				if err := l.End(t.Context(), nil); err != nil {
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
		bubble(t, func(t *testing.T, store *faulty.Troubled) {
			store.LoseAnswers(1, any)
			start := time.Now()
			l := mustAcquire(t, store)
			if l.Orphaned || time.Since(start) > time.Second {
				t.Errorf("orphaned %t after %v: our own Swap was not recognised", l.Orphaned, time.Since(start))
			}
			l.End(t.Context(), nil)
		})
	})
	t.Run("takeover", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *faulty.Troubled) {
			mustAcquire(t, store).die()
			store.LoseAnswers(1, any)
			l := mustAcquire(t, store)
			if !l.Orphaned {
				t.Error("the new holder does not know that the old one died")
			}
			l.End(t.Context(), nil)
		})
	})
	t.Run("beats", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *faulty.Troubled) {
			l := mustAcquire(t, store)
			store.LoseAnswers(7, any)
			pass(t, 10*time.Second)
			if err := l.Sure(t.Context()); err != nil {
				t.Errorf("sure: %v", err)
			}
			if err := l.End(t.Context(), nil); err != nil || store.Value("l.x") != nil {
				t.Errorf("end: %v, and %q is left", err, store.Value("l.x"))
			}
		})
	})
	t.Run("last beat", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *faulty.Troubled) {
			l := mustAcquire(t, store)
			store.LoseAnswers(1, any)
			pass(t, LeaseBeat+time.Millisecond)
			if err := l.End(t.Context(), []byte("done")); err != nil || string(store.Value("l.x")) != "done" {
				t.Errorf("end: %v, and %q is left", err, store.Value("l.x"))
			}
		})
	})
}

// The holder we were about to take over from came back while the store was
// away, and ended its lease.
func TestLeaseEndedDuringTakeover(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		l.die()
		var since time.Time
		stale := 0
		store.Set(func(ctx context.Context, op, key string) error {
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) >= LeaseStale {
				stale++ // the first sees that it is, the second tries to replace it
			}
			if stale > 1 && stale < 20 {
				store.Store.Delete(ctx, key)
				return faulty.ErrDown
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		next, _, err := Acquire(ctx, store, "l.x", testTTL)
		if err != nil {
			t.Fatalf("nobody holds the lease, but: %v", err)
		}
		if next.Orphaned {
			t.Error("orphaned, though it was ended")
		}
		next.End(t.Context(), nil)
	})
}

func TestLeaseOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				got, outcome, err := Acquire(t.Context(), store, "l.x", testTTL)
				if got != nil || string(outcome) != "done" || err != nil {
					t.Errorf("lease %v, outcome %q, %v; want the outcome", got, outcome, err)
				}
			})
		}
		pass(t, 5*time.Second)
		l.End(t.Context(), []byte("done"))
		wg.Wait()
	})
}

// A store that has lost the lease, by eviction or a restart, gets it again.
func TestLeaseEvicted(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		store.Store.Delete(t.Context(), "l.x")
		pass(t, LeaseBeat+time.Millisecond)
		synctest.Wait()
		l.take(t.Context())
		if v := store.Value("l.x"); !l.wrote(v) {
			t.Errorf("the store holds %q, want the lease", v)
		}
		l.give()
		store.Store.Delete(t.Context(), "l.x")
		if err := l.End(t.Context(), []byte("done")); err != nil || string(store.Value("l.x")) != "done" {
			t.Errorf("end: %v, and the store holds %q", err, store.Value("l.x"))
		}
	})
}

func TestLeaseSure(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		store.Set(faulty.Fails)
		if err := l.Sure(t.Context()); err != nil {
			t.Errorf("just taken: %v", err)
		}
		pass(t, LeaseStale)
		var down *StoreError
		if err := l.Sure(t.Context()); !errors.As(err, &down) {
			t.Errorf("cut off from the store: %v, want a *storeError", err)
		}
		store.Set(nil)
		if err := l.Sure(t.Context()); err != nil {
			t.Errorf("the store is back: %v", err)
		}
		l.End(t.Context(), nil)
	})
}

// memory is the least that a store can be. Nothing in it expires.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte // guarded by mu
}

func (m *memory) Get(_ context.Context, key string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	return v, ok, nil
}

func (m *memory) Swap(_ context.Context, key string, old, new []byte, _ time.Duration) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	if ok != (old != nil) || !bytes.Equal(v, old) {
		return v, false, nil
	}
	if new == nil {
		delete(m.values, key)
		return nil, true, nil
	}
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	m.values[key] = new
	return nil, true, nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

// A process may be stopped between its beat and the answer, for longer than
// others wait before they take over.
func TestLeaseSureAfterStop(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		stopped := &stoppedStore{Store: store}
		l := mustAcquire(t, stopped)
		l.die()
		pass(t, LeaseStale/2)
		stopped.after = 10 * time.Second
		var taken *Lease
		var wg sync.WaitGroup
		wg.Go(func() { taken = mustAcquire(t, store) })
		if err := l.Sure(t.Context()); !errors.Is(err, errLeaseLost) {
			t.Errorf("sure: %v, want %v", err, errLeaseLost)
		}
		wg.Wait()
		taken.End(t.Context(), nil)
	})
}

// A lease that is not there may have been taken over and ended. Whoever comes back
// late must not put it back.
func TestLeaseSureAfterOthers(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		l.die()
		mustAcquire(t, store).End(t.Context(), nil)
		if err := l.Sure(t.Context()); !errors.Is(err, errLeaseLost) {
			t.Errorf("sure: %v, want %v", err, errLeaseLost)
		}
		if v := store.Value("l.x"); v != nil {
			t.Errorf("the store holds %q, want nothing", v)
		}
	})
}

// A beat whose answer was lost is found later. Others have watched it since, and
// it is no proof: only another beat is.
func TestLeaseSureAfterLostAnswer(t *testing.T) {
	any := func(string, []byte) bool { return true }
	for _, lost := range []string{"a beat", "the first"} {
		t.Run(lost, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *faulty.Troubled) {
				if lost == "the first" {
					store.LoseAnswers(1, any)
				}
				l := mustAcquire(t, store)
				l.die()
				if lost == "a beat" {
					pass(t, LeaseStale/2)
					store.LoseAnswers(1, any)
					var down *StoreError
					if err := l.Sure(t.Context()); !errors.As(err, &down) {
						t.Fatalf("sure: %v, want a *StoreError", err)
					}
					pass(t, LeaseStale-time.Second)
				}
				seen := store.Value("l.x")
				if err := l.Sure(t.Context()); err != nil {
					t.Error(err)
				}
				if bytes.Equal(store.Value("l.x"), seen) {
					t.Error("sure, and others see what they have seen for long")
				}
			})
		})
	}
}

// Whoever waits for a beat to end does not wait longer than they want to.
func TestLeaseSureGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, store *faulty.Troubled) {
		l := mustAcquire(t, store)
		pass(t, LeaseBeat-time.Millisecond)
		store.Set(faulty.Hangs)
		pass(t, 2*time.Millisecond) // a beat is under way
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := l.Sure(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("sure: %v after %v", err, time.Since(start))
		}
		store.Set(nil)
		l.End(t.Context(), nil)
	})
}

// stoppedStore is the store as a process sees it that is stopped once, after
// its Swap has arrived.
type stoppedStore struct {
	Store
	after time.Duration
}

func (s *stoppedStore) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	found, swapped, err := s.Store.Swap(ctx, key, old, new, ttl)
	d := s.after
	s.after = 0
	time.Sleep(d)
	return found, swapped, err
}
