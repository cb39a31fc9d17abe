package signin

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// simStore is the store of a simulated world: one copy of the data, changed one
// step at a time, with the adversary between it and the replicas.
type simStore struct {
	w *simWorld

	mu      sync.Mutex
	values  map[string]*simValue // guarded by mu, with what follows
	order   int
	journal []simWrite // of the last seconds, for a failover
	paused  time.Time  // the store answers nobody before
	lost    map[string]time.Time
	copies  map[*simReplica]map[string]*simCopy
}

type simValue struct {
	bytes   []byte
	expires time.Time
	by      *simReplica
	written time.Time
	order   int // of the key's creation: keys are random, and choices must not be
}

// simWrite undoes a write.
type simWrite struct {
	at   time.Time
	key  string
	prev *simValue
}

// simCopy is what a replica remembers of a Get until the store tells it that
// the value has changed.
type simCopy struct {
	value []byte
	ok    bool
	until time.Time // zero: not changed since
}

func newSimStore(w *simWorld) *simStore {
	return &simStore{w: w, values: map[string]*simValue{}, lost: map[string]time.Time{}, copies: map[*simReplica]map[string]*simCopy{}}
}

// live is the value under a key. The caller holds mu.
func (s *simStore) live(key string) *simValue {
	v := s.values[key]
	if v != nil && !time.Now().Before(v.expires) {
		delete(s.values, key)
		return nil
	}
	return v
}

// peek looks at a value as nobody in the world can.
func (s *simStore) peek(key string) *simValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live(key)
}

// lostAt is when the store lost a write of a key, zero if it did not.
func (s *simStore) lostAt(key string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost[key]
}

// lostSince reports whether the store has lost a write of a key since a time.
func (s *simStore) lostSince(key string, since time.Time) bool {
	t := s.lostAt(key)
	return !t.IsZero() && !t.Before(since)
}

// lostKind is lostSince of any key of a kind.
func (s *simStore) lostKind(kind string, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.lost {
		if strings.HasPrefix(key, kind) && !t.Before(since) {
			return true
		}
	}
	return false
}

// swap is one atomic step. The caller holds mu.
func (s *simStore) swap(r *simReplica, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool) {
	now := time.Now()
	v := s.live(key)
	switch {
	case v == nil && old != nil:
		return nil, false
	case v != nil && (old == nil || !bytes.Equal(v.bytes, old)):
		return v.bytes, false
	}
	s.w.judge.written(r, key, v, new)
	s.write(r, key, v, new, now.Add(ttl))
	return nil, true
}

// write puts a value, or nothing, in the place of prev. The caller holds mu.
func (s *simStore) write(r *simReplica, key string, prev *simValue, new []byte, expires time.Time) {
	now := time.Now()
	s.journal = append(s.journal, simWrite{now, key, prev})
	for len(s.journal) > 0 && now.Sub(s.journal[0].at) > 2*time.Second {
		s.journal = s.journal[1:]
	}
	s.changed(r, key)
	if new == nil {
		delete(s.values, key)
		return
	}
	next := &simValue{bytes: new, expires: expires, by: r, written: now}
	if prev != nil {
		next.order = prev.order
	} else {
		s.order++
		next.order = s.order
	}
	s.values[key] = next
}

// changed tells the replicas that have a copy. It takes some milliseconds; a
// replica that is cut off learns after two seconds that it is.
func (s *simStore) changed(by *simReplica, key string) {
	now := time.Now()
	for r, copies := range s.copies {
		c := copies[key]
		if c == nil || !c.until.IsZero() {
			continue
		}
		rng := s.w.rng(7, uint64(r.number), uint64(s.order), uint64(len(s.journal)))
		switch {
		case r == by:
			delete(copies, key)
		case s.w.faulted("cut", r):
			c.until = now.Add(2 * time.Second)
		default:
			c.until = now.Add(time.Millisecond + time.Duration(rng.Int64N(int64(40*time.Millisecond))))
		}
	}
}

// lose takes values out of the store as no client can. The caller holds mu.
func (s *simStore) lose(key string, instead *simValue) {
	s.changed(nil, key)
	s.lost[key] = time.Now()
	if instead == nil {
		delete(s.values, key)
	} else {
		s.values[key] = instead
	}
}

// restart loses all.
func (s *simStore) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.values {
		s.lose(key, nil)
	}
	s.journal = nil
}

// failover goes back to how it was a moment ago.
func (s *simStore) failover(back time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.journal) > 0 {
		last := s.journal[len(s.journal)-1]
		if time.Since(last.at) > back {
			return
		}
		s.journal = s.journal[:len(s.journal)-1]
		s.lose(last.key, last.prev)
	}
}

// evict loses the nth of the values of a kind.
func (s *simStore) evict(kind string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := map[int]string{}
	highest := 0
	for key, v := range s.values {
		if strings.HasPrefix(key, kind) {
			oldest[v.order] = key
			highest = max(highest, v.order)
		}
	}
	if len(oldest) == 0 {
		return
	}
	n %= len(oldest)
	for order := 0; order <= highest; order++ {
		if key, ok := oldest[order]; ok {
			if n == 0 {
				s.lose(key, nil)
				return
			}
			n--
		}
	}
}

// simConn is one replica's way to the store.
type simConn struct{ r *simReplica }

var (
	errSimDown = errors.New("the store cannot be reached")
	errSimLost = errors.New("the connection to the store broke")
	errSimDead = errors.New("this replica has been killed")
)

// call carries one request to the store and its answer back. act runs at the
// store, once or not at all, perhaps after the caller has given up.
func (c simConn) call(ctx context.Context, act func()) error {
	r, w := c.r, c.r.w
	rng := w.choice(ctx)
	r.gate(rng)
	if r.dead() {
		return errSimDead
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := c.travel(ctx, rng, act)
	r.gate(rng)
	if r.dead() {
		return errSimDead
	}
	// After a pause of the whole process the answer and the timer are both
	// there, and either may be seen first.
	if err == nil && ctx.Err() != nil && rng.IntN(2) == 0 {
		return ctx.Err()
	}
	return err
}

func (c simConn) travel(ctx context.Context, rng *rand.Rand, act func()) error {
	s := c.r.w.store
	there, back := simLeg(rng), simLeg(rng)
	fate := c.fate(rng)
	s.mu.Lock()
	pause := time.Until(s.paused)
	s.mu.Unlock()
	if fate == (simFate{}) && pause <= 0 {
		time.Sleep(there)
		act()
		time.Sleep(back)
		return nil
	}
	arrived := make(chan struct{})
	if pause > 0 {
		// Those who wait for the store are served in any order.
		there += pause + time.Duration(rng.Int64N(int64(20*time.Millisecond)))
	}
	go func() {
		time.Sleep(there + fate.there)
		if !fate.drop {
			act()
		}
		time.Sleep(back + fate.back)
		close(arrived)
	}()
	if fate.silent {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-arrived:
		return fate.err
	}
}

// simFate is what the adversary does to one request to the store.
type simFate struct {
	drop        bool // it never arrives
	silent      bool // no answer ever comes
	err         error
	there, back time.Duration // more than usual
}

func (c simConn) fate(rng *rand.Rand) (f simFate) {
	w := c.r.w
	p := rng.Float64()
	long := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
	switch {
	case w.faulted("cut", c.r):
		f = simFate{drop: true, silent: true}
	case w.faulted("drop", c.r) && p < 0.5:
		f = simFate{drop: true, err: errSimDown}
	case w.faulted("forget", c.r) && p < 0.5:
		f = simFate{err: errSimLost}
	case w.faulted("silence", c.r) && p < 0.5:
		f = simFate{silent: true, drop: p < 0.2}
	case w.faulted("late", c.r) && p < 0.7:
		f = simFate{there: long(4 * time.Second), back: long(time.Second)}
	default:
		return f
	}
	c.r.trouble()
	return f
}

// simLeg is how long a message takes when nothing is wrong.
func simLeg(rng *rand.Rand) time.Duration {
	return 50*time.Microsecond + time.Duration(rng.Int64N(int64(time.Millisecond)))
}

// Get implements [Store]. It may be answered from a copy.
func (c simConn) Get(ctx context.Context, key string) ([]byte, bool, error) {
	s := c.r.w.store
	c.r.gate(c.r.w.choice(ctx))
	var known simCopy // as it is now
	s.mu.Lock()
	kept := s.copies[c.r][key]
	if kept != nil {
		known = *kept
	}
	s.mu.Unlock()
	if kept != nil && (known.until.IsZero() || time.Now().Before(known.until)) && !c.r.dead() {
		return known.value, known.ok, nil
	}
	var got simCopy // guarded by s.mu: act may run after the answer was given up
	err := c.call(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if v := s.live(key); v != nil {
			got = simCopy{value: v.bytes, ok: true}
		}
		if c.r.w.copies {
			if s.copies[c.r] == nil {
				s.copies[c.r] = map[string]*simCopy{}
			}
			copied := got
			s.copies[c.r][key] = &copied
		}
	})
	if errors.Is(err, errSimDead) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return got.value, got.ok, nil
}

// Swap implements [Store]. To a replica that is dead, and whose goroutines are
// only to end, everything succeeds.
func (c simConn) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	s := c.r.w.store
	if new != nil && ttl <= 0 {
		c.r.w.judge.violation("a Swap of %.2s with a lifetime of %v", key, ttl)
	}
	var f []byte // guarded by s.mu: act may run after the answer was given up
	var ok bool
	err = c.call(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		f, ok = s.swap(c.r, key, old, new, ttl)
		delete(s.copies[c.r], key)
	})
	c.r.w.judge.leases(old, new, err)
	if errors.Is(err, errSimDead) {
		return nil, !bytes.Equal(old, []byte{0}), nil
	}
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return f, ok, nil
}

// Delete implements [Store].
func (c simConn) Delete(ctx context.Context, key string) error {
	s := c.r.w.store
	if c.r.w.visitOf(ctx).claim != "" {
		c.r.w.judge.replaces(key)
	}
	err := c.call(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if v := s.live(key); v != nil {
			s.w.judge.written(c.r, key, v, nil)
			s.write(c.r, key, v, nil, time.Time{})
		}
		delete(s.copies[c.r], key)
	})
	if errors.Is(err, errSimDead) {
		return nil
	}
	return err
}
