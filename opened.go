package signin

import (
	"context"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	openedShards = 64

	// What has not been used for openedIdle ticks is dropped.
	openedTick = time.Minute
	openedIdle = 5

	// openedSample is of how many sessions the one used least recently makes
	// room. More would find a better one and take longer.
	openedSample = 8
)

// opened remembers sessions that have been opened, so that a request costs
// neither securecookie nor decryption. There is one for each record, whatever
// number of cookie values lead to it: they are found by the latest. Only what
// opened under our keys gets in, so an anonymous client cannot fill it, and what
// is there counts against a budget. What has not been used for a while is
// dropped: then the sealed value is all that is in memory.
type opened struct {
	seed maphash.Seed
	near nearStore // nil: the store is elsewhere
	room room
	held atomic.Int64  // bytes, which count in room too
	tick atomic.Uint32 // the time in ticks, while something is remembered

	records  [openedShards]openedRecords
	cookies  [openedShards]openedCookies
	evicting atomic.Uint32 // the shard of records whose turn it is

	mu    sync.Mutex
	armed bool // whether a tick is due; guarded by mu
}

// room is a budget of bytes.
type room interface {
	// limit is how many bytes there are, held or free.
	limit() int64
	// take counts n more bytes as held if they are free. If urgent, idle
	// records may go to make them so.
	take(n int64, urgent bool) bool
	give(n int64)
}

// nearStore is a store in this process, as [MemoryStore] is. What it holds and
// what is opened share one budget, and a value in it is found once.
type nearStore interface {
	Store
	room
	// find returns where the value under key is, or nil.
	find(key string) place
	// host has a guest know of records that are gone, and make room for others.
	host(g guest)
}

// budget is the room of a process whose records are elsewhere.
type budget struct {
	max  int64
	held atomic.Int64
}

func (b *budget) limit() int64 { return b.max }
func (b *budget) give(n int64) { b.held.Add(-n) }

func (b *budget) take(n int64, _ bool) bool {
	if b.held.Add(n) <= b.max {
		return true
	}
	b.held.Add(-n)
	return false
}

// watchedStore is a store elsewhere that tells which records are deleted.
type watchedStore struct {
	Store
	gone func(key string)
}

func (s *watchedStore) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	if new == nil {
		defer s.gone(key)
	}
	return s.Store.Swap(ctx, key, old, new, ttl)
}

func (s *watchedStore) Delete(ctx context.Context, key string) error {
	defer s.gone(key)
	return s.Store.Delete(ctx, key)
}

// openedRecords are opened sessions by store key.
type openedRecords struct {
	mu    sync.RWMutex
	byKey map[string]openedSession // guarded by mu

	_ [64]byte // shards do not share a cache line
}

type openedSession struct {
	*session
	cookie string // that finds it, or empty
	size   int64
}

// openedCookies finds what openedRecords hold by cookie value. Its lock is taken
// after that of a shard of records, never before.
type openedCookies struct {
	mu      sync.RWMutex
	byValue map[string]*session // guarded by mu

	_ [64]byte
}

// newOpened returns what remembers the opened sessions of a store, and that
// store, to be used from then on. If it is elsewhere, max bounds the bytes.
func newOpened(store Store, max int64) (*opened, Store) {
	o := &opened{seed: maphash.MakeSeed()}
	for i := range o.records {
		o.records[i].byKey = make(map[string]openedSession)
		o.cookies[i].byValue = make(map[string]*session)
	}
	if near, ok := store.(nearStore); ok {
		o.near, o.room = near, near
		near.host(o)
		return o, store
	}
	o.room = &budget{max: max}
	return o, &watchedStore{store, o.forget}
}

func (o *opened) recordShard(key string) *openedRecords {
	return &o.records[maphash.String(o.seed, key)%openedShards]
}

func (o *opened) cookieShard(cookie string) *openedCookies {
	return &o.cookies[maphash.String(o.seed, cookie)%openedShards]
}

// byCookie returns the session that a cookie value found last time, or nil.
func (o *opened) byCookie(cookie string) *session {
	sh := o.cookieShard(cookie)
	sh.mu.RLock()
	s := sh.byValue[cookie]
	sh.mu.RUnlock()
	if s != nil {
		o.touch(s)
	}
	return s
}

// byKey returns the opened session of a record, or nil.
func (o *opened) byKey(key string) *session {
	sh := o.recordShard(key)
	sh.mu.RLock()
	s := sh.byKey[key].session
	sh.mu.RUnlock()
	if s != nil {
		o.touch(s)
	}
	return s
}

// touch notes that a session is in use. Writing it on every request would move a
// cache line between cores each time.
func (o *opened) touch(s *session) {
	if now := o.tick.Load(); s.used.Load() != now {
		s.used.Store(now)
	}
}

// put remembers a session in place of the one that its record had before, to be
// found by a cookie value, or by its key alone if that is empty. Where there is
// no room it does nothing.
func (o *opened) put(cookie string, s *session) {
	o.forget(s.key)
	e := openedSession{s, strings.Clone(cookie), s.size + int64(len(cookie))} // not a part of a whole header
	if !o.reserve(e.size) {
		return
	}
	o.touch(s)
	sh := o.recordShard(s.key)
	sh.mu.Lock()
	o.remove(sh, s.key) // of another request, which was faster
	sh.byKey[s.key] = e
	if cookie != "" {
		c := o.cookieShard(cookie)
		c.mu.Lock()
		c.byValue[e.cookie] = s
		c.mu.Unlock()
	}
	sh.mu.Unlock()
	o.arm()
	// Whoever removes a record has it forgotten, perhaps a moment ago.
	if s.place != nil {
		if _, ok := s.place.read(); !ok {
			o.forget(s.key)
		}
	}
}

// locate notes where the record of a session is, if that can be told.
func (o *opened) locate(s *session) {
	if o.near != nil {
		s.place = o.near.find(s.key)
	} else {
		s.size += int64(len(s.sealed)) // not the store's own bytes
	}
}

// forget drops the opened session of a record, if there is one.
func (o *opened) forget(key string) {
	sh := o.recordShard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	o.remove(sh, key)
}

// remove is forget for a shard that is locked. It returns how many bytes that
// frees.
func (o *opened) remove(sh *openedRecords, key string) int64 {
	e, ok := sh.byKey[key]
	if !ok {
		return 0
	}
	delete(sh.byKey, key)
	if e.cookie != "" {
		c := o.cookieShard(e.cookie)
		c.mu.Lock()
		delete(c.byValue, e.cookie)
		c.mu.Unlock()
	}
	o.held.Add(-e.size)
	o.room.give(e.size)
	return e.size
}

// reserve counts n bytes as held. What is remembered makes room for them, and,
// so that something can be remembered at all, idle sessions do.
func (o *opened) reserve(n int64) bool {
	for range 2 {
		urgent := (o.held.Load()+n)*guestShare <= o.room.limit()
		if o.room.take(n, urgent) {
			o.held.Add(n)
			return true
		}
		if o.shrink(n, 0) == 0 {
			return false
		}
	}
	return false
}

// shrink frees want bytes, as long as more than keep are held. It takes the
// shards in turn, and of a few sessions in one the least recently used.
func (o *opened) shrink(want, keep int64) (freed int64) {
	for empty := 0; freed < want && empty < openedShards && o.held.Load() > keep; {
		sh := &o.records[o.evicting.Add(1)%openedShards]
		sh.mu.Lock()
		if key, ok := sh.idlest(); ok {
			freed += o.remove(sh, key)
			empty = 0
		} else {
			empty++
		}
		sh.mu.Unlock()
	}
	return freed
}

// idlest is the key of the least recently used of a few sessions. Where the
// iteration of a map begins is random.
func (sh *openedRecords) idlest() (key string, ok bool) {
	seen, used := 0, uint32(0)
	for k, e := range sh.byKey {
		if u := e.used.Load(); !ok || u < used {
			key, used, ok = k, u, true
		}
		if seen++; seen == openedSample {
			break
		}
	}
	return key, ok
}

// age drops what has not been used for a while. It runs only as long as
// something is remembered.
func (o *opened) age() {
	// First, so that whoever puts something into a shard already seen to here
	// sees to it that there is a next time.
	o.mu.Lock()
	o.armed = false
	o.mu.Unlock()
	now := o.tick.Add(1)
	left := false
	defer o.trim()
	for i := range o.records {
		sh := &o.records[i]
		sh.mu.Lock()
		for key, e := range sh.byKey {
			if int32(now-e.used.Load()) > openedIdle {
				o.remove(sh, key)
			}
		}
		if len(sh.byKey) == 0 {
			sh.byKey = make(map[string]openedSession) // the old one keeps its memory
		}
		left = left || len(sh.byKey) > 0
		sh.mu.Unlock()
	}
	if left {
		o.arm()
	}
}

// trim gives back the memory of maps that are empty: a map does not by itself.
func (o *opened) trim() {
	for i := range o.cookies {
		c := &o.cookies[i]
		c.mu.Lock()
		if len(c.byValue) == 0 {
			c.byValue = make(map[string]*session)
		}
		c.mu.Unlock()
	}
}

// arm sees to it that age runs again.
func (o *opened) arm() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.armed {
		o.armed = true
		time.AfterFunc(openedTick, o.age)
	}
}
