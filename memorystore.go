package signin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	memoryShards = 64

	defaultMemoryBytes = 2 << 30

	// sessionKeys begin the keys of session records (storeKey).
	sessionKeys = "s."

	// entryOverhead is what an entry costs beside its key and value: the entry
	// itself, its slot in a map that is two thirds full, the key's header.
	entryOverhead = 96

	// sweepEvery is how often a write looks through its shard for what has
	// expired.
	sweepEvery = time.Minute

	// touchEvery is how exactly the time of last use is known. Writing it on
	// every Get would move a cache line between cores on every request.
	touchEvery = time.Second

	// guestShare is the part of the budget that guests keep when records take
	// the rest, as one in so many. Without it a store full of idle sessions would
	// make every request open its session anew.
	guestShare = 8

	// inUse is how long a session is safe from eviction after its last use. In
	// a store that is too small for its users, those who come are refused
	// before those who are there are thrown out, only to come again.
	inUse = time.Minute
)

var (
	errNoTTL = errors.New("signin: memory store: ttl of a value must be positive")
	errFull  = errors.New("signin: memory store: full, and no session in it has been idle for a minute")
)

// MemoryStore is a [Store] in this process: a restart signs everyone out, and
// replicas do not share sessions. It is what a nil Config.Store means.
//
// It is bounded. What has expired goes first, removed by later writes; no
// goroutine is left behind. When it is full, sessions that an [Auth] keeps opened
// make room, and then the least recently used ones, because they belong to those who are least likely to come back,
// and coming back costs them one round trip to the issuer. Nothing else gives
// way: without its claim or lease a code or a refresh token could be sent
// twice, without its index a session could not be signed out. If every session
// was used within the last minute, Swap of a new key fails, and with it the
// sign-in that needs it.
//
// Methods are safe for concurrent use. Make one with [NewMemoryStore].
type MemoryStore struct {
	// MaxBytes bounds the keys, values and what holds them, and with them the
	// sessions that an [Auth] has opened. Zero means 2 GiB, room for about
	// 480,000 idle sessions of 4 KB, or 190,000 in use. Set it before the first
	// use.
	MaxBytes int64

	now   func() time.Time // nil: the real clock
	epoch time.Time        // times are kept as durations since then: no calendar, half the cost
	seed  maphash.Seed

	size      atomic.Int64  // bytes held, room reserved included
	evictFrom atomic.Uint32 // the shard whose turn it is to make room
	fullUntil atomic.Int64  // nothing could be evicted: do not look again before

	guests atomic.Pointer[[]guest]

	shards [memoryShards]memoryShard
}

// guest keeps what it has read from a store, within the store's budget.
type guest interface {
	// forget is told that a record is gone. It must not call the store.
	forget(key string)
	// shrink frees want bytes, as long as the guest holds more than keep.
	shrink(want, keep int64) (freed int64)
}

// place is where a value is in a store in this process.
type place interface {
	// read is Get without looking for the key. A value that is gone does not
	// come back, but there may be another under its key.
	read() (value []byte, ok bool)
}

type memoryShard struct {
	store *MemoryStore

	mu      sync.RWMutex // guards entries, their value and expires, and sweepAt
	entries map[string]*memoryEntry
	sweepAt time.Duration

	_ [80]byte // a shard to itself on two cache lines: they are fetched in pairs
}

type memoryEntry struct {
	shard   *memoryShard
	value   []byte // its bytes are never written to; nil: removed
	expires time.Duration
	used    atomic.Int64 // a time.Duration
}

// NewMemoryStore returns an empty store in this process.
func NewMemoryStore() *MemoryStore {
	m := &MemoryStore{epoch: time.Now(), seed: maphash.MakeSeed()}
	m.fullUntil.Store(math.MinInt64)
	for i := range m.shards {
		m.shards[i].store = m
		m.shards[i].entries = make(map[string]*memoryEntry)
	}
	return m
}

// Get implements [Store]. It does not look at ctx: there is nothing to wait for.
func (m *MemoryStore) Get(_ context.Context, key string) (value []byte, ok bool, err error) {
	if e := m.entry(key); e != nil {
		value, ok = e.read()
	}
	return value, ok, nil
}

// find returns where the value under key is, or nil. It spares looking for it:
// finding a key among many costs more than the rest of a request.
func (m *MemoryStore) find(key string) place {
	if e := m.entry(key); e != nil {
		return e
	}
	return nil
}

func (m *MemoryStore) entry(key string) *memoryEntry {
	s := m.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[key]
}

func (e *memoryEntry) read() (value []byte, ok bool) {
	e.shard.mu.RLock()
	value, expires := e.value, e.expires
	e.shard.mu.RUnlock()

	now := e.shard.store.elapsed()
	if value == nil || now >= expires {
		return nil, false
	}
	e.touch(now)
	return value, true
}

// host lets a guest share the budget, for as long as the store lives.
func (m *MemoryStore) host(g guest) {
	for {
		old := m.guests.Load()
		all := []guest{g}
		if old != nil {
			all = append(slices.Clip(*old), g)
		}
		if m.guests.CompareAndSwap(old, &all) {
			return
		}
	}
}

// shrink has the guests free want bytes, as long as each holds more than keep.
func (m *MemoryStore) shrink(want, keep int64) {
	if guests := m.guests.Load(); guests != nil {
		for _, g := range *guests {
			want -= g.shrink(want, keep)
		}
	}
}

func (m *MemoryStore) limit() int64 { return cmp.Or(m.MaxBytes, defaultMemoryBytes) }
func (m *MemoryStore) give(n int64) { m.size.Add(-n) }

func (m *MemoryStore) take(n int64, urgent bool) bool {
	if m.size.Add(n) <= m.limit() || urgent && m.evict() {
		return true
	}
	m.size.Add(-n)
	return false
}

// Swap implements [Store]. It fails only for a ttl that is not positive and
// when the store is full. It does not look at ctx.
func (m *MemoryStore) Swap(_ context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	if new == nil {
		found, swapped = m.swap(key, old, nil, 0)
		return found, swapped, nil
	}
	if ttl <= 0 {
		return nil, false, errNoTTL
	}
	// Room is made before the shard is locked, so that no two shards are ever
	// locked at once, and only for what the key takes more than now: a lease can
	// be renewed in a full store, and a Swap that only reads evicts nobody.
	if need := m.lacks(key, old, new); need > 0 {
		if err := m.reserve(need); err != nil {
			return nil, false, err
		}
		defer m.size.Add(-need)
	}
	found, swapped = m.swap(key, old, new, ttl)
	return found, swapped, nil
}

// swap does what Swap does once there is room for new, and counts it.
func (m *MemoryStore) swap(key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := m.elapsed()
	if now >= s.sweepAt {
		m.size.Add(-s.sweep(now))
		s.sweepAt = now + sweepEvery
	}

	e := s.entries[key]
	if e != nil && now >= e.expires {
		m.size.Add(-s.remove(key, e))
		e = nil
	}
	switch {
	case e == nil && old != nil:
		return nil, false
	case e != nil && (old == nil || !bytes.Equal(e.value, old)):
		e.touch(now)
		return e.value, false
	}

	if e != nil && new == nil {
		m.size.Add(-s.remove(key, e))
	}
	if new != nil {
		if e == nil {
			e = &memoryEntry{shard: s}
			s.entries[key] = e
		} else {
			m.size.Add(-entrySize(key, e.value))
		}
		m.size.Add(entrySize(key, new))
		e.value, e.expires = new, later(now, ttl)
		e.used.Store(int64(now))
	}
	return nil, true
}

// Delete implements [Store]. It never fails, and does not look at ctx.
func (m *MemoryStore) Delete(_ context.Context, key string) error {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		m.size.Add(-s.remove(key, e))
	}
	return nil
}

// lacks is how many bytes new would take more than what is under key now, or
// nothing if that is not old: then new is not written. Should it become old
// before swap looks again, new is written without a reservation, and the next
// write makes up for it.
func (m *MemoryStore) lacks(key string, old, new []byte) int64 {
	s := m.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entries[key]
	switch absent := e == nil || m.elapsed() >= e.expires; {
	case absent && old == nil:
		return entrySize(key, new)
	case absent, old == nil, !bytes.Equal(e.value, old):
		return 0
	}
	return entrySize(key, new) - entrySize(key, e.value)
}

// reserve counts n bytes as held, and makes room for them. What guests can read
// again goes first, but for a share that keeps requests fast; then idle
// sessions; then the share.
func (m *MemoryStore) reserve(n int64) error {
	limit := m.limit()
	if n > limit {
		return fmt.Errorf("signin: memory store: a value of %d bytes does not fit into MaxBytes %d", n, limit)
	}
	if m.size.Add(n) <= limit {
		return nil
	}
	m.shrink(m.size.Load()-limit, limit/guestShare)
	if m.size.Load() <= limit || m.evict() {
		return nil
	}
	m.shrink(m.size.Load()-limit, 0)
	if m.size.Load() <= limit {
		return nil
	}
	m.size.Add(-n)
	return errFull
}

// evict makes room until no more than the limit is held, and reports whether it
// could. It takes the shards in turn, so that what goes is the least recently
// used of about a 64th of the store at a time.
func (m *MemoryStore) evict() bool {
	limit, now := m.limit(), m.elapsed()
	if int64(now) < m.fullUntil.Load() {
		return false
	}
	for range memoryShards {
		s := &m.shards[m.evictFrom.Add(1)%memoryShards]
		if m.size.Add(-s.evict(now, m.size.Load()-limit)) <= limit {
			return true
		}
	}
	// Looking through everything once per refused write would make a full
	// store a slow one.
	m.fullUntil.Store(int64(now + touchEvery))
	return false
}

// evict removes what has expired and then, if that frees less than want bytes,
// the least recently used sessions, together an eighth of the shard at least,
// so that the next writes find room without looking again. It returns what it
// freed.
func (s *memoryShard) evict(now time.Duration, want int64) (freed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if freed = s.sweep(now); freed >= want {
		return freed
	}
	type candidate struct {
		key  string
		used int64
	}
	var held int64
	var idle []candidate
	for key, e := range s.entries {
		held += entrySize(key, e.value)
		if used := e.used.Load(); strings.HasPrefix(key, sessionKeys) && used+int64(inUse) <= int64(now) {
			idle = append(idle, candidate{key, used})
		}
	}
	slices.SortFunc(idle, func(a, b candidate) int { return cmp.Compare(a.used, b.used) })
	want = max(want, held/8)
	for _, c := range idle {
		if freed >= want {
			break
		}
		freed += s.remove(c.key, s.entries[c.key])
	}
	return freed
}

// sweep removes what has expired and returns the bytes that frees.
func (s *memoryShard) sweep(now time.Duration) (freed int64) {
	for key, e := range s.entries {
		if now >= e.expires {
			freed += s.remove(key, e)
		}
	}
	return freed
}

func (s *memoryShard) remove(key string, e *memoryEntry) (freed int64) {
	freed = entrySize(key, e.value)
	delete(s.entries, key)
	e.value = nil
	if guests := s.store.guests.Load(); guests != nil && strings.HasPrefix(key, sessionKeys) {
		for _, g := range *guests {
			g.forget(key)
		}
	}
	return freed
}

func (e *memoryEntry) touch(now time.Duration) {
	if int64(now)-e.used.Load() >= int64(touchEvery) {
		e.used.Store(int64(now))
	}
}

func (m *MemoryStore) shard(key string) *memoryShard {
	return &m.shards[maphash.String(m.seed, key)%memoryShards]
}

// elapsed is the time since epoch. It is read from the monotonic clock, so a
// clock set back does not revive what has expired.
func (m *MemoryStore) elapsed() time.Duration {
	if m.now != nil {
		return m.now().Sub(m.epoch)
	}
	return time.Since(m.epoch)
}

// later is now+ttl, or the end of time where that would overflow.
func later(now, ttl time.Duration) time.Duration {
	if t := now + ttl; t > now {
		return t
	}
	return math.MaxInt64
}

func entrySize(key string, value []byte) int64 {
	return int64(len(key) + cap(value) + entryOverhead)
}
