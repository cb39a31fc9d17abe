package signin

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	openedShards = 64
	openedMax    = 1 << 18 // sessions remembered at most, in all shards
	openedIdle   = 5 * time.Minute
)

// opened remembers sessions that have been opened, by cookie value, so that a
// request costs neither securecookie nor decryption. Only what opened under
// our keys gets in, so an anonymous client cannot fill it. What has not been
// used for a while is dropped: then the sealed value is all that is in memory.
type opened struct {
	seed   maphash.Seed
	shards [openedShards]openedShard

	mu    sync.Mutex
	armed bool // whether a sweep is due; guarded by mu
}

// openedShard has two generations: what is used moves to the younger, and the
// older is dropped whole.
type openedShard struct {
	mu    sync.RWMutex
	young map[string]*session
	old   map[string]*session

	_ [64]byte // shards do not share a cache line
}

func newOpened() *opened { return &opened{seed: maphash.MakeSeed()} }

func (o *opened) shard(id string) *openedShard {
	return &o.shards[maphash.String(o.seed, id)%openedShards]
}

func (o *opened) get(id string) *session {
	sh := o.shard(id)
	sh.mu.RLock()
	s, young := sh.young[id]
	if !young {
		s = sh.old[id]
	}
	sh.mu.RUnlock()
	if s != nil && !young {
		o.put(id, s)
	}
	return s
}

func (o *opened) put(id string, s *session) {
	sh := o.shard(id)
	sh.mu.Lock()
	if len(sh.young) >= openedMax/openedShards/2 {
		sh.old, sh.young = sh.young, nil
	}
	if sh.young == nil {
		sh.young = make(map[string]*session)
	}
	sh.young[id] = s
	delete(sh.old, id)
	sh.mu.Unlock()
	o.arm()
}

func (o *opened) forget(id string) {
	sh := o.shard(id)
	sh.mu.Lock()
	delete(sh.young, id)
	delete(sh.old, id)
	sh.mu.Unlock()
}

// age drops what has not been used since the last time. It runs only as long
// as something is remembered.
func (o *opened) age() {
	// First, so that whoever puts something into a shard already seen to here
	// sees to it that there is a next time.
	o.mu.Lock()
	o.armed = false
	o.mu.Unlock()
	left := false
	for i := range o.shards {
		sh := &o.shards[i]
		sh.mu.Lock()
		sh.old, sh.young = sh.young, nil
		left = left || len(sh.old) > 0
		sh.mu.Unlock()
	}
	if left {
		o.arm()
	}
}

// arm sees to it that age runs again.
func (o *opened) arm() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.armed {
		o.armed = true
		time.AfterFunc(openedIdle, o.age)
	}
}
