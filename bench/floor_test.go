package bench

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"net/http"
	"sync"
	"time"
)

const (
	floorID     = 64
	floorShards = 64
)

// floor is the least that a server-side session costs in idiomatic Go: no
// store to ask, nothing encrypted, no refresh.
type floor struct {
	next   http.Handler
	macs   sync.Pool
	shards [floorShards]struct {
		sync.RWMutex
		entries map[string]*floorEntry
	}
}

type floorEntry struct {
	expires                time.Time
	access, refresh, idTok string
}

type floorKey struct{}

func newFloor(next http.Handler) *floor {
	f := &floor{next: next}
	key := []byte(text(32))
	f.macs.New = func() any { return hmac.New(sha256.New, key) }
	for i := range f.shards {
		f.shards[i].entries = make(map[string]*floorEntry)
	}
	return f
}

func (f *floor) sum(id, out []byte) []byte {
	h := f.macs.Get().(hash.Hash)
	defer f.macs.Put(h)
	h.Reset()
	h.Write(id)
	return h.Sum(out)
}

func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie("session")
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	raw, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(raw) != floorID+sha256.Size || !hmac.Equal(f.sum(raw[:floorID], nil), raw[floorID:]) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	shard := &f.shards[raw[0]%floorShards]
	shard.RLock()
	e := shard.entries[string(raw[:floorID])]
	shard.RUnlock()
	if e == nil || time.Now().After(e.expires) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), floorKey{}, e)))
}

// workOnFloor is the handler below floor.
var workOnFloor http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
	done(w, r.Context().Value(floorKey{}).(*floorEntry).access)
}

// signIn adds a session and returns its cookie.
func (f *floor) signIn(t tokens) string {
	id := make([]byte, floorID)
	rand.Read(id)
	shard := &f.shards[id[0]%floorShards]
	shard.Lock()
	defer shard.Unlock()
	shard.entries[string(id)] = &floorEntry{time.Now().Add(time.Hour), t.access, t.refresh, t.id}
	return "session=" + base64.RawURLEncoding.EncodeToString(f.sum(id, id))
}
