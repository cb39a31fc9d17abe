package signintest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"
)

// storeTest is one check under way.
type storeTest struct {
	store  Store
	ctx    context.Context // of the whole check; its helpers take no other
	report *report
}

// report gathers what a check finds wrong. A check does not take a *testing.T,
// so that it can itself be tested on stores that must fail it.
type report struct {
	mu   sync.Mutex // guards errs: checks run goroutines
	errs []error
}

func (s *storeTest) errorf(format string, args ...any) {
	s.report.mu.Lock()
	defer s.report.mu.Unlock()
	if len(s.report.errs) < 10 {
		s.report.errs = append(s.report.errs, fmt.Errorf(format, args...))
	}
}

// peer returns the same check through another Store on the same data.
func (s *storeTest) peer() *storeTest {
	p := s.store.(interface{ Peer() Store }).Peer()
	return &storeTest{store: p, ctx: s.ctx, report: s.report}
}

// newKey returns a key like the ones signin makes: random, and with a dot.
func (s *storeTest) newKey() string {
	return "test." + rand.Text()
}

func (s *storeTest) get(key string) (value []byte, ok bool) {
	v, ok, err := s.store.Get(s.ctx, key)
	switch {
	case err != nil:
		s.errorf("Get: %v", err)
		return nil, false
	case !ok && v != nil:
		s.errorf("Get = %s, false; want nil with false", show(v, true))
	case ok && v == nil:
		s.errorf("Get = nil, true; want a value that is not nil with true")
	}
	return v, ok
}

func (s *storeTest) wantValue(key string, want []byte) {
	if v, ok := s.get(key); !ok || !bytes.Equal(v, want) {
		s.errorf("Get = %s; want %s", show(v, ok), show(want, true))
	}
}

func (s *storeTest) wantAbsent(key string) {
	if v, ok := s.get(key); ok {
		s.errorf("Get = %s; want nothing", show(v, ok))
	}
}

func (s *storeTest) swap(key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool) {
	found, swapped, err := s.store.Swap(s.ctx, key, old, new, ttl)
	if err != nil {
		s.errorf("Swap %s for %s: %v", show(old, old != nil), show(new, new != nil), err)
	}
	return found, swapped
}

// current reads the value under key as it is, past any copy: it swaps nothing
// for nothing.
func (s *storeTest) current(key string) []byte {
	found, _ := s.swap(key, nil, nil, 0)
	return found
}

func (s *storeTest) wantSwapped(key string, old, new []byte) {
	s.wantSwappedFor(key, old, new, longTTL)
}

func (s *storeTest) wantSwappedFor(key string, old, new []byte, ttl time.Duration) {
	if found, swapped := s.swap(key, old, new, ttl); !swapped {
		s.errorf("Swap %s for %s found %s and did nothing; want it to swap",
			show(old, old != nil), show(new, new != nil), show(found, found != nil))
	}
}

func (s *storeTest) wantRefused(key string, old, new, current []byte) {
	found, swapped := s.swap(key, old, new, longTTL)
	if swapped {
		s.errorf("Swap %s for %s swapped; want it refused, as %s is there",
			show(old, old != nil), show(new, new != nil), show(current, current != nil))
		return
	}
	if (found == nil) != (current == nil) || !bytes.Equal(found, current) {
		s.errorf("Swap found %s; want %s", show(found, found != nil), show(current, current != nil))
	}
}

func (s *storeTest) delete(key string) {
	if err := s.store.Delete(s.ctx, key); err != nil {
		s.errorf("Delete: %v", err)
	}
}

// show prints a value for a failure's message.
func show(v []byte, ok bool) string {
	switch {
	case !ok:
		return "nothing"
	case len(v) > 40:
		return fmt.Sprintf("%.40q... (%d bytes)", v, len(v))
	}
	return fmt.Sprintf("%q", v)
}
