package redisstore

import (
	"sync"
	"sync/atomic"
	"time"
)

// pastCopies is how long after a write Get asks Redis itself: until every copy
// made before the write has had its time. Redis tells of our own changes too,
// but that message may come after the answer to the change, on another
// connection. The tenth of a second covers the copies' clock, which counts
// milliseconds.
const pastCopies = copyFor + 100*time.Millisecond

// recent holds the keys written in the last pastCopies, and some longer. It
// keeps them in two maps by age and forgets a map at a time, so it needs no
// timer, and its size is bounded by the writes of twice that time. Its zero
// value is ready.
type recent struct {
	last atomic.Int64 // when a key was last added; 0: never

	mu      sync.RWMutex // guards the rest
	newer   map[string]struct{}
	older   map[string]struct{}
	swapped time.Duration // when newer was begun
}

// processStart makes times cheap to take and to compare.
var processStart = time.Now()

// add notes that a key is being written.
func (r *recent) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(processStart)
	if r.newer == nil || now-r.swapped >= pastCopies {
		r.older, r.newer, r.swapped = r.newer, make(map[string]struct{}), now
	}
	r.newer[key] = struct{}{}
	r.last.Store(int64(max(now, 1)))
}

// has reports whether a copy of the key may be older than what was written.
func (r *recent) has(key string) bool {
	last := r.last.Load()
	if last == 0 || time.Since(processStart)-time.Duration(last) >= pastCopies {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, ok := r.newer[key]; ok {
		return true
	}
	_, ok := r.older[key]
	return ok
}
