package signin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/signintest"
)

// clockedStore is a MemoryStore whose clock a test moves.
type clockedStore struct {
	*MemoryStore
	offset *atomic.Int64
}

func newClockedStore() clockedStore {
	s := clockedStore{NewMemoryStore(), new(atomic.Int64)}
	start := time.Now()
	s.now = func() time.Time { return start.Add(time.Duration(s.offset.Load())) }
	return s
}

func (s clockedStore) Advance(d time.Duration) { s.offset.Add(int64(d)) }

func TestMemoryStore(t *testing.T) {
	t.Run("Clocked", func(t *testing.T) {
		signintest.TestStore(t, func(t *testing.T) signintest.Store { return newClockedStore() })
	})
	t.Run("RealTime", func(t *testing.T) {
		signintest.TestStore(t, func(t *testing.T) signintest.Store { return NewMemoryStore() })
	})
}

// TestMemoryStoreSynctest sees that the store follows the clock of a bubble,
// and leaves no goroutine in it: a bubble does not end before its goroutines.
func TestMemoryStoreSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemoryStore()
		mustSwap(t, s, "key", nil, []byte("value"), time.Hour)
		time.Sleep(time.Hour - time.Nanosecond)
		if _, ok, _ := s.Get(t.Context(), "key"); !ok {
			t.Error("the value is gone before its hour is over")
		}
		time.Sleep(time.Nanosecond)
		if _, ok, _ := s.Get(t.Context(), "key"); ok {
			t.Error("the value is still there after its hour")
		}
	})
}

func TestMemoryStoreForgetsWhatExpired(t *testing.T) {
	s := newClockedStore()
	for i := range 5000 {
		mustSwap(t, s, "short."+strconv.Itoa(i), nil, make([]byte, 100), time.Second)
	}
	for i := range 500 {
		mustSwap(t, s, "long."+strconv.Itoa(i), nil, make([]byte, 100), 24*time.Hour)
	}
	s.Advance(sweepEvery)
	// Writes sweep; two thousand touch every shard.
	for i := range 2000 {
		mustSwap(t, s, "other."+strconv.Itoa(i), nil, []byte("x"), time.Hour)
	}
	if n := s.entries(); n != 2500 {
		t.Errorf("the store holds %d entries; want the 2500 that live", n)
	}
	for i := range 500 {
		if _, ok, _ := s.Get(t.Context(), "long."+strconv.Itoa(i)); !ok {
			t.Fatalf("long.%d is gone", i)
		}
	}
	s.checkSize(t)
}

// TestMemoryStoreSize has the count of bytes survive every way a value comes
// and goes: drift would empty the store or let it grow without bound.
func TestMemoryStoreSize(t *testing.T) {
	s := newClockedStore()
	ctx := t.Context()
	value := func(n int) []byte { return make([]byte, n, n+n/8) }
	for round := range 200 {
		key := strconv.Itoa(round % 7)
		switch round % 6 {
		case 0:
			_, _, _ = s.Swap(ctx, key, nil, value(round), time.Minute)
		case 1:
			v, _, _ := s.Get(ctx, key)
			_, _, _ = s.Swap(ctx, key, v, value(2*round), time.Minute)
		case 2:
			_, _, _ = s.Swap(ctx, key, []byte("wrong"), value(round), time.Minute)
		case 3:
			v, _, _ := s.Get(ctx, key)
			_, _, _ = s.Swap(ctx, key, v, nil, 0)
		case 4:
			_ = s.Delete(ctx, key)
		case 5:
			s.Advance(20 * time.Second)
			_, _, _ = s.Swap(ctx, key, nil, nil, 0)
		}
		s.checkSize(t)
	}
	for i := range 7 {
		_ = s.Delete(ctx, strconv.Itoa(i))
	}
	if n := s.size.Load(); n != 0 {
		t.Errorf("an empty store counts %d bytes", n)
	}
}

func TestMemoryStoreEvicts(t *testing.T) {
	const valueSize = 4000
	s := newClockedStore()
	s.MaxBytes = 1000 * (valueSize + 200)
	ctx := t.Context()

	// 500 sessions expire in an hour, 400 are idle, 50 are in use.
	for i := range 500 {
		mustSwap(t, s, "s.brief."+strconv.Itoa(i), nil, make([]byte, valueSize), time.Hour)
	}
	for i := range 400 {
		mustSwap(t, s, "s.idle."+strconv.Itoa(i), nil, make([]byte, valueSize), 24*time.Hour)
	}
	for i := range 50 {
		mustSwap(t, s, "s.used."+strconv.Itoa(i), nil, make([]byte, valueSize), 24*time.Hour)
	}
	count := func(kind string, n int) (found int) {
		for i := range n {
			if _, ok, _ := s.Get(ctx, kind+strconv.Itoa(i)); ok {
				found++
			}
		}
		return found
	}

	s.Advance(2 * time.Hour)
	count("s.used.", 50)
	for i := range 400 {
		mustSwap(t, s, "s.new."+strconv.Itoa(i), nil, make([]byte, valueSize), time.Hour)
	}
	if used, fresh := count("s.used.", 50), count("s.new.", 400); used != 50 || fresh != 400 {
		t.Errorf("%d of 50 in use and %d of 400 new are there; want all", used, fresh)
	}
	held := s.entries()
	if idle := held - 450; idle < 350 {
		t.Errorf("%d of 400 idle entries are there; want nearly all, as what expired makes room", idle)
	}

	// Now only the idle can make room.
	for i := range 400 {
		mustSwap(t, s, "s.newer."+strconv.Itoa(i), nil, make([]byte, valueSize), time.Hour)
	}
	if used, fresh, newer := count("s.used.", 50), count("s.new.", 400), count("s.newer.", 400); used != 50 || fresh != 400 || newer != 400 {
		t.Errorf("%d of 50 in use, %d of 400 new, %d of 400 newer are there; want all", used, fresh, newer)
	}
	if n := s.size.Load(); n > s.MaxBytes {
		t.Errorf("the store holds %d bytes; want at most %d", n, s.MaxBytes)
	}
	s.checkSize(t)

	// Everything was used just now, so a new key is refused, with an error:
	// nobody is told that they are signed out.
	var refused error
	for i := 0; refused == nil && i < 1000; i++ {
		_, _, refused = s.Swap(ctx, "s.late."+strconv.Itoa(i), nil, make([]byte, valueSize), time.Hour)
	}
	if !errors.Is(refused, errFull) {
		t.Errorf("a store full of what is in use answers %v; want errFull", refused)
	}
	if used, fresh, newer := count("s.used.", 50), count("s.new.", 400), count("s.newer.", 400); used != 50 || fresh != 400 || newer != 400 {
		t.Errorf("%d of 50 in use, %d of 400 new, %d of 400 newer are there; want all", used, fresh, newer)
	}
	// What is there can still be renewed,
	for i := range 50 {
		mustSwap(t, s, "s.used."+strconv.Itoa(i), make([]byte, valueSize), make([]byte, valueSize), time.Hour)
	}
	// and let go; and later there is room again.
	if _, swapped, err := s.Swap(ctx, "s.used.0", make([]byte, valueSize), nil, 0); !swapped || err != nil {
		t.Errorf("removing from a full store = %t, %v; want true, nil", swapped, err)
	}
	s.Advance(2 * inUse)
	mustSwap(t, s, "later", nil, make([]byte, valueSize), time.Hour)
	s.checkSize(t)
}

func TestMemoryStoreEvictsTheLeastRecentlyUsed(t *testing.T) {
	const n = 5000
	s := newClockedStore()
	fill := func(kind string, n int) {
		for i := range n {
			mustSwap(t, s, kind+strconv.Itoa(i), nil, make([]byte, 100), 24*time.Hour)
		}
	}
	fill("s.newer.", n)
	fill("s.older.", n)
	s.Advance(time.Hour)
	for i := range n {
		_, _, _ = s.Get(t.Context(), "s.newer."+strconv.Itoa(i))
	}
	s.Advance(time.Hour)
	s.MaxBytes = s.size.Load()
	fill("s.more.", n/5)
	var older, newer int
	for i := range n {
		if _, ok, _ := s.Get(t.Context(), "s.older."+strconv.Itoa(i)); ok {
			older++
		}
		if _, ok, _ := s.Get(t.Context(), "s.newer."+strconv.Itoa(i)); ok {
			newer++
		}
	}
	if newer != n || older > n-n/6 || older < n/3 {
		t.Errorf("%d of %d last used an hour ago and %d of %d last used before are there; want all, and some", newer, n, older, n)
	}
}

// What protects sessions does not give way to them: without its index a
// session could not be signed out, without its claim a code could be sent twice.
func TestMemoryStoreEvictsNothingButSessions(t *testing.T) {
	s := newClockedStore()
	kinds := []string{"u.", "i.", "j.", "c.", "l."}
	for _, kind := range kinds {
		for i := range 100 {
			mustSwap(t, s, kind+strconv.Itoa(i), nil, make([]byte, 100), 24*time.Hour)
		}
	}
	s.MaxBytes = 2 * s.size.Load()
	s.Advance(time.Hour) // all of it idle for longer than any session
	for i := range 2000 {
		s.Advance(time.Second)
		mustSwap(t, s, "s."+strconv.Itoa(i), nil, make([]byte, 100), 24*time.Hour)
	}
	for _, kind := range kinds {
		for i := range 100 {
			if _, ok, _ := s.Get(t.Context(), kind+strconv.Itoa(i)); !ok {
				t.Fatalf("%s%d has made room for sessions", kind, i)
			}
		}
	}
	s.checkSize(t)
}

// A user in the middle of her work can be signed out, also after the store
// was full.
func TestSignOutUserAfterEviction(t *testing.T) {
	s := newClockedStore()
	s.MaxBytes = 400 << 10
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.Store = s.MemoryStore } })
	b := a.signIn()
	for i := range 400 {
		s.Advance(2 * time.Second)
		if i%10 == 0 && !a.signedIn(b) {
			t.Fatalf("a session in use is gone after %d others", i)
		}
		_, _, _ = s.Swap(t.Context(), fmt.Sprintf("s.other%d", i), nil, make([]byte, 4000), 12*time.Hour)
	}
	if err := a.SignOutUser(t.Context(), a.issuer.URL(), "alice"); err != nil {
		t.Fatal(err)
	}
	if a.signedIn(b) {
		t.Error("signed in after SignOutUser: the store evicted the index and kept the session")
	}
}

// A Swap that only reads takes no room: a full store can be read past its
// copies, and nobody loses a session for it.
func TestMemoryStoreReadsWhenFull(t *testing.T) {
	s := newClockedStore()
	s.MaxBytes = 64 << 10
	var full error
	for i := 0; full == nil && i < 2000; i++ {
		_, _, full = s.Swap(t.Context(), "s."+strconv.Itoa(i), nil, []byte{1}, time.Hour)
	}
	if !errors.Is(full, errFull) {
		t.Fatalf("2000 sessions fit into 64 KB (%v)", full)
	}
	s.Advance(2 * inUse) // now anything could be evicted
	held := s.entries()
	for i := range 100 {
		if found, err := once.ReadFresh(t.Context(), s, "s.absent"+strconv.Itoa(i)); found != nil || err != nil {
			t.Fatalf("reading an absent key = %q, %v; want nil, nil", found, err)
		}
		if found, _, err := s.Swap(t.Context(), "s.0", []byte{2}, make([]byte, 100), time.Hour); len(found) != 1 || err != nil {
			t.Fatalf("a Swap that finds another value = %q, %v; want that value", found, err)
		}
	}
	if n := s.entries(); n != held {
		t.Errorf("%d of %d sessions are left after reads", n, held)
	}
}

func TestMemoryStoreRefusesTheOversized(t *testing.T) {
	s := NewMemoryStore()
	s.MaxBytes = 10_000
	mustSwap(t, s, "small", nil, make([]byte, 100), time.Hour)
	if _, _, err := s.Swap(t.Context(), "big", nil, make([]byte, 20_000), time.Hour); err == nil {
		t.Error("a value of twice MaxBytes is kept")
	}
	if _, ok, _ := s.Get(t.Context(), "small"); !ok {
		t.Error("a value too large for the store has evicted another")
	}
	s.checkSize(t)
}

// TestMemoryStoreEvictsUnderLoad fills a small store from many goroutines: for
// the race detector, and to see the bound kept.
func TestMemoryStoreEvictsUnderLoad(t *testing.T) {
	s := newClockedStore()
	s.MaxBytes = 1 << 20
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				key := fmt.Sprintf("s.%d.%d", g, i)
				if _, _, err := s.Swap(context.Background(), key, nil, make([]byte, 1000), time.Hour); err != nil && !errors.Is(err, errFull) {
					t.Errorf("Swap: %v", err)
				}
				_, _, _ = s.Get(context.Background(), key)
				if i%50 == 0 {
					s.Advance(inUse)
				}
				if i%3 == 0 {
					_ = s.Delete(context.Background(), key)
				}
			}
		})
	}
	wg.Wait()
	if n := s.size.Load(); n > s.MaxBytes {
		t.Errorf("the store holds %d bytes; want at most %d", n, s.MaxBytes)
	}
	s.checkSize(t)
}

// TestMemoryStoreOverhead weighs a session's keep: what the store adds to key
// and value, and that it knows it.
func TestMemoryStoreOverhead(t *testing.T) {
	const n, valueSize = 50_000, 64
	keys, values := benchKeys(n), make([][]byte, n)
	for i := range values {
		values[i] = make([]byte, valueSize)
	}
	s := NewMemoryStore()
	before := heapInUse()
	for i, key := range keys {
		mustSwap(t, s, key, nil, values[i], time.Hour)
	}
	perEntry := (heapInUse() - before) / n
	if perEntry > entryOverhead {
		t.Errorf("an entry costs %d bytes beside its key and value; MaxBytes reckons with %d", perEntry, entryOverhead)
	}
	runtime.KeepAlive(keys)
	runtime.KeepAlive(values)
	runtime.KeepAlive(s)
}

func TestMemoryStoreGetAllocates(t *testing.T) {
	s := NewMemoryStore()
	mustSwap(t, s, "key", nil, []byte("value"), time.Hour)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _, _ = s.Get(ctx, "key") }); n != 0 {
		t.Errorf("Get allocates %v times; want none", n)
	}
}

// entries counts what is held, expired or not.
func (m *MemoryStore) entries() (n int) {
	for i := range m.shards {
		m.shards[i].mu.Lock()
		n += len(m.shards[i].entries)
		m.shards[i].mu.Unlock()
	}
	return n
}

// checkSize counts the bytes held anew.
func (m *MemoryStore) checkSize(t *testing.T) {
	t.Helper()
	var n int64
	for i := range m.shards {
		m.shards[i].mu.Lock()
		for key, e := range m.shards[i].entries {
			n += entrySize(key, e.value)
		}
		m.shards[i].mu.Unlock()
	}
	if guests := m.guests.Load(); guests != nil {
		for _, g := range *guests {
			n += g.(*opened).held.Load()
		}
	}
	if got := m.size.Load(); got != n {
		t.Fatalf("the store counts %d bytes and holds %d", got, n)
	}
}

func mustSwap(tb testing.TB, s Store, key string, old, new []byte, ttl time.Duration) {
	tb.Helper()
	if found, swapped, err := s.Swap(tb.Context(), key, old, new, ttl); err != nil || !swapped {
		tb.Fatalf("Swap %s = %q, %t, %v; want it to swap", key, found, swapped, err)
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func benchKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = rand.Text() + rand.Text()[:17] // as long as 32 bytes in base64
	}
	return keys
}

func BenchmarkMemoryStoreGet(b *testing.B) {
	for _, n := range []int{1, 10_000, 100_000} {
		s := NewMemoryStore()
		keys := benchKeys(n)
		for _, key := range keys {
			mustSwap(b, s, key, nil, make([]byte, 64), time.Hour)
		}
		ctx := context.Background()
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok, _ := s.Get(ctx, keys[i]); !ok {
					b.Fatal("absent")
				}
				if i++; i == n {
					i = 0
				}
			}
		})
		b.Run(strconv.Itoa(n)+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				i := int(next.Add(7919)) % n
				for pb.Next() {
					if _, ok, _ := s.Get(ctx, keys[i]); !ok {
						b.Error("absent")
						return
					}
					if i++; i == n {
						i = 0
					}
				}
			})
		})
	}
}

func BenchmarkMemoryStoreSwap(b *testing.B) {
	s := NewMemoryStore()
	keys := benchKeys(10_000)
	value := make([]byte, 4000)
	for _, key := range keys {
		mustSwap(b, s, key, nil, value, time.Hour)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, swapped, err := s.Swap(context.Background(), keys[i%len(keys)], value, value, time.Hour); !swapped || err != nil {
			b.Fatal(swapped, err)
		}
		i++
	}
}
