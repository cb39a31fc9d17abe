package signintest

import (
	"bytes"
	"fmt"
	"time"
)

const (
	// shortTTL is waited for where the store's clock cannot be moved.
	shortTTL = 200 * time.Millisecond

	// expiryGrace is how late a store may be in seeing that a value expired:
	// the two seconds of a copy, and a slow machine.
	expiryGrace = 10 * time.Second

	// copyAge is how old an answer from a copy may be, with the store in reach
	// or not.
	copyAge = 2 * time.Second
)

func checkExpiry(s *storeTest) {
	key, swapped, other := s.newKey(), s.newKey(), s.newKey()
	s.wantSwapped(other, nil, []byte("stays"))
	s.wantSwappedFor(s.newKey(), nil, []byte("a year"), 400*24*time.Hour)
	start := time.Now()
	s.wantSwappedFor(swapped, nil, []byte("goes"), s.ttl())
	s.wantSwappedFor(key, nil, []byte("goes"), s.ttl())
	if advance := s.clock(); advance != nil {
		const little = time.Second
		advance(s.ttl() - little)
		s.wantValue(key, []byte("goes"))
		advance(little)
		s.wantAbsent(key)
	} else {
		if _, ok := s.get(key); !ok && time.Since(start) < s.ttl() {
			s.errorf("a value with a lifetime of %v is gone after %v", s.ttl(), time.Since(start))
		}
		s.waitExpired(key)
		s.poll("Swap", nil, expiryGrace, func() ([]byte, bool) {
			found := s.current(swapped)
			return found, found != nil
		})
	}

	// A key that has expired is an absent one, for Swap too.
	s.wantRefused(key, []byte("goes"), []byte("back"), nil)
	s.wantRefused(swapped, []byte("goes"), nil, nil)
	s.wantSwapped(key, nil, []byte("new"))
	s.wantValue(key, []byte("new"))
	s.wantValue(other, []byte("stays"))
	s.delete(swapped)
}

func checkRenewal(s *storeTest) {
	renewed, same, cut := s.newKey(), s.newKey(), s.newKey()
	for {
		start := time.Now()
		s.wantSwappedFor(renewed, nil, []byte("one"), s.ttl())
		s.wantSwappedFor(same, nil, []byte("one"), s.ttl())
		_, ok := s.swap(renewed, []byte("one"), []byte("two"), longTTL)
		_, ok2 := s.swap(same, []byte("one"), []byte("one"), longTTL)
		if ok && ok2 {
			break
		}
		if s.clock() != nil || time.Since(start) < s.ttl() || s.ctx.Err() != nil {
			s.errorf("a value with a lifetime of %v cannot be swapped after %v", s.ttl(), time.Since(start))
			return
		}
		renewed, same = s.newKey(), s.newKey() // this machine slept: again
	}
	s.wantSwapped(cut, nil, []byte("one"))
	s.wantSwappedFor(cut, []byte("one"), []byte("two"), s.ttl())
	s.waitExpired(cut)
	s.wantValue(renewed, []byte("two"))
	s.wantValue(same, []byte("one"))
}

// checkNoLifetime holds a store to keeping nothing for ever: many read a ttl of
// zero as "no limit".
func checkNoLifetime(s *storeTest) {
	for _, ttl := range []time.Duration{0, -time.Second, time.Nanosecond} {
		key := s.newKey()
		_, _, err := s.store.Swap(s.ctx, key, nil, []byte("value"), ttl)
		if err != nil && ttl > 0 {
			s.errorf("Swap for %v: %v; want a value that is gone at once", ttl, err)
		}
		s.waitExpired(key)

		s.wantSwapped(key, nil, []byte("value"))
		s.wantSwappedFor(key, []byte("value"), nil, ttl)
		s.wantAbsent(key)
	}
}

func checkPeerSees(s *storeTest) {
	peer := s.peer()
	key := s.newKey()
	peer.wantAbsent(key)
	s.wantSwapped(key, nil, []byte("one"))
	peer.waitFor(key, []byte("one"), copyAge)

	// The peer has a copy of "one" now. Whatever Get says, Swap decides by the
	// value as it is, and what it found is what Get says from then on.
	for i := range 20 {
		before, after := fmt.Append(nil, "before ", i), fmt.Append(nil, "after ", i)
		peer.wantSwapped(key, peer.current(key), before)
		s.wantSwapped(key, before, after)
		peer.wantRefused(key, before, []byte("never"), after)
		peer.wantValue(key, after)
	}
	s.delete(key)
	peer.wantRefused(key, []byte("after 19"), []byte("never"), nil)
	peer.wantAbsent(key)

	s.wantSwapped(key, nil, []byte("two"))
	peer.waitFor(key, []byte("two"), copyAge)
	s.delete(key)
	peer.waitFor(key, nil, copyAge)
}

// checkPeerRace is NoLostUpdate and OneWinner between replicas.
func checkPeerRace(s *storeTest) {
	race(s, 10, s, s.peer(), s.peer())
}

// ttl is a lifetime that a check can wait for.
func (s *storeTest) ttl() time.Duration {
	if s.clock() != nil {
		return time.Minute
	}
	return shortTTL
}

// clock returns what moves the store's clock, or nil.
func (s *storeTest) clock() (advance func(time.Duration)) {
	if c, ok := s.store.(interface{ Advance(time.Duration) }); ok {
		return c.Advance
	}
	return nil
}

// waitExpired lets one ttl pass, after which the key must be absent.
func (s *storeTest) waitExpired(key string) {
	if advance := s.clock(); advance != nil {
		advance(s.ttl())
		s.wantAbsent(key)
		return
	}
	s.waitFor(key, nil, s.ttl()+expiryGrace)
}

// waitFor asks Get until the key has the value, nil for none.
func (s *storeTest) waitFor(key string, want []byte, limit time.Duration) {
	s.poll("Get", want, limit, func() ([]byte, bool) { return s.get(key) })
}

func (s *storeTest) poll(what string, want []byte, limit time.Duration, read func() ([]byte, bool)) {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		v, ok := read()
		if ok == (want != nil) && bytes.Equal(v, want) {
			return
		}
		if time.Now().After(deadline) {
			s.errorf("after %v %s still finds %s; want %s", limit, what, show(v, ok), show(want, want != nil))
			return
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.errorf("waiting for %s: %v", show(want, want != nil), s.ctx.Err())
			return
		}
	}
}
