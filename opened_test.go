package signin

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/seed454743b5/signin/signintest"
)

// count is how many sessions are remembered, and a check that what is counted
// of them is what is there.
func (o *opened) count(t *testing.T) (n int) {
	t.Helper()
	var held int64
	cookies, found := 0, 0
	for i := range o.records {
		sh := &o.records[i]
		sh.mu.RLock()
		for key, e := range sh.byKey {
			if n++; key != e.key {
				t.Errorf("a session of %s is remembered as that of %s", e.key, key)
			}
			held += e.size
			if e.cookie != "" {
				cookies++
			}
		}
		sh.mu.RUnlock()
	}
	for i := range o.cookies {
		c := &o.cookies[i]
		c.mu.RLock()
		found += len(c.byValue)
		c.mu.RUnlock()
	}
	if cookies != found {
		t.Errorf("%d cookie values lead to %d sessions that have one", found, cookies)
	}
	if got := o.held.Load(); got != held {
		t.Errorf("%d bytes are counted of %d", got, held)
	}
	return n
}

// elsewhere remembers sessions of a store in another process.
func openedElsewhere(max int64) *opened {
	o, _ := newOpened(newDumpStore(), max)
	return o
}

func fakeSession(key string, size int64) *session { return &session{key: key, size: size} }

func TestOpenedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10_000
		o := openedElsewhere(1000 * size)
		for i := range 5000 {
			o.put(fmt.Sprint("c", i), fakeSession(fmt.Sprint("k", i), size))
			if got := o.held.Load(); got > 1000*size {
				t.Fatalf("%d bytes are held of %d", got, 1000*size)
			}
		}
		if n := o.count(t); n < 900 {
			t.Errorf("%d are remembered, want nearly 1000", n)
		}
		if o.byCookie("c4999") == nil || o.byKey("k4999") == nil {
			t.Error("the latest is not")
		}
		// What does not fit is not remembered, and costs nobody else their place.
		o.put("big", fakeSession("big", 2000*size))
		if o.byCookie("big") != nil {
			t.Error("what is larger than the budget is remembered")
		}
		time.Sleep(2 * openedIdle * openedTick)
	})
}

// What is in use stays when others come and go.
func TestOpenedKeepsWhatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openedElsewhere(10_000_000)
		for i := range 500 {
			o.put(fmt.Sprint("used", i), fakeSession(fmt.Sprint("used", i), 9000))
		}
		kept := 0
		for round := range 20 {
			time.Sleep(openedTick)
			for i := range 500 {
				if o.byCookie(fmt.Sprint("used", i)) != nil {
					kept++
				}
			}
			for i := range 200 {
				o.put("", fakeSession(fmt.Sprint("passing", round, ".", i), 9000))
			}
		}
		if kept < 20*500*8/10 {
			t.Errorf("what is used was found %d times of %d", kept, 20*500)
		}
		time.Sleep(2 * openedIdle * openedTick)
	})
}

func TestOpenedForgetsWhatIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openedElsewhere(1 << 20)
		used, idle := fakeSession("used", 100), fakeSession("idle", 100)
		o.put("used", used)
		o.put("idle", idle)
		for range 10 {
			time.Sleep((openedIdle - 1) * openedTick)
			if o.byCookie("used") != used {
				t.Fatal("what is used was forgotten")
			}
		}
		if n := o.count(t); n != 1 {
			t.Errorf("%d remembered, want 1", n)
		}
		time.Sleep(2 * openedIdle * openedTick)
		synctest.Wait()
		if n := o.count(t); n != 0 || o.armed {
			t.Errorf("%d remembered when all are idle, timer armed: %t", n, o.armed)
		}
		// And it begins anew.
		o.put("again", used)
		time.Sleep(2 * openedIdle * openedTick)
		synctest.Wait()
		if n := o.count(t); n != 0 {
			t.Errorf("%d remembered", n)
		}
		o.put("gone", used)
		if o.forget(used.key); o.byCookie("gone") != nil || o.byKey(used.key) != nil {
			t.Error("what was forgotten is there")
		}
		time.Sleep(2 * openedIdle * openedTick)
	})
}

// There is one for each record, whoever comes first with which cookie value, and
// nothing is left when all are idle.
func TestOpenedUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		memory.MaxBytes = 100_000
		o, _ := newOpened(memory, 0)
		var users sync.WaitGroup
		for u := range 8 {
			users.Go(func() {
				for i := range 200 {
					key := fmt.Sprint(sessionKeys, i/4)
					s := fakeSession(key, 1000)
					memory.Swap(t.Context(), key, nil, make([]byte, 500), time.Hour)
					o.locate(s)
					o.put(fmt.Sprint(u, i), s)
					o.byCookie(fmt.Sprint(u, i/2))
					if i%7 == 0 {
						memory.Delete(t.Context(), key)
					}
					time.Sleep(openedTick / 10)
				}
			})
		}
		users.Wait()
		synctest.Wait() // a tick may be sweeping
		if n := o.count(t); n > 50 {
			t.Errorf("%d are remembered of 50 records", n)
		}
		time.Sleep(2 * openedIdle * openedTick)
		synctest.Wait()
		if n := o.count(t); n != 0 {
			t.Errorf("%d remembered", n)
		}
		memory.checkSize(t)
	})
}

// A record and what is opened of it share one budget: opened sessions make room
// for records, but for a share, and idle records for that share.
func TestOneBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1000
		s := newClockedStore()
		s.MaxBytes = 1000 * size
		o, _ := newOpened(s.MemoryStore, 0)
		value := func() []byte { return make([]byte, size-entryOverhead-10) }
		for i := range 990 {
			o.put("", fakeSession(fmt.Sprint("open", i), size))
		}
		for i := range 980 {
			if i%10 == 0 {
				s.Advance(inUse)
			}
			mustSwap(t, s, fmt.Sprint("s.", i), nil, value(), 24*time.Hour)
			if got := s.size.Load(); got > s.MaxBytes {
				t.Fatalf("%d bytes are held of %d", got, s.MaxBytes)
			}
		}
		share := int64(s.MaxBytes / guestShare)
		if got := o.held.Load(); got < share-2*size || got > share+size {
			t.Errorf("opened sessions hold %d bytes, want about their share, %d", got, share)
		}
		if n := s.entries(); n < 980-990/guestShare-100 {
			t.Errorf("%d records are left", n)
		}
		// With nothing idle, records take the share too.
		for i := 0; ; i++ {
			if _, _, err := s.Swap(t.Context(), fmt.Sprint("s.more", i), nil, value(), time.Hour); err != nil {
				break
			}
			if i > 2000 {
				t.Fatal("it is never full")
			}
			for j := range i {
				s.Get(t.Context(), fmt.Sprint("s.more", j))
			}
		}
		if n := o.count(t); n != 0 {
			t.Errorf("a sign-in was refused for %d sessions that could be opened again", n)
		}
		// And what is in use is opened again once there is something idle.
		s.Advance(2 * inUse)
		o.put("", fakeSession("back", size))
		if o.byKey("back") == nil {
			t.Error("idle records make no room for what is in use")
		}
		if got := s.size.Load(); got > s.MaxBytes {
			t.Errorf("%d bytes are held of %d", got, s.MaxBytes)
		}
		time.Sleep(2 * openedIdle * openedTick)
	})
}

// Whoever repeats a callback gets a cookie of another value each time, for one
// session. It is opened once, by whatever cookie.
func TestOneOpenedForEachRecord(t *testing.T) {
	for name, store := range map[string]Store{"memory": nil, "elsewhere": newDumpStore()} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, withStore(store), func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["access_token"] = strings.Repeat("a", 12<<10) }
					b.EditIDToken = func(it *signintest.IDToken) {
						it.Claims["groups"] = strings.Repeat("g", 12<<10)
						delete(it.Claims, "at_hash")
					}
				}
			})
			b := a.browser()
			callback := a.toCallback(b, "/me")
			values := map[string]bool{}
			var held int64
			for i := range 50 {
				if p := b.Send(callback); p.Status != http.StatusSeeOther {
					t.Fatalf("%d %s", p.Status, p.Body)
				}
				values[a.session(b)] = true
				for range 2 {
					if got := a.status(b); got != http.StatusOK {
						t.Fatal(got)
					}
				}
				if n := a.records.opened.count(t); n != 1 {
					t.Fatalf("%d opened sessions of one record", n)
				}
				if i == 0 {
					held = a.records.opened.held.Load()
				}
			}
			if got := a.records.opened.held.Load(); len(values) < 50 || got != held {
				t.Errorf("after %d cookie values %d bytes are held, want %d", len(values), got, held)
			}
			// The former values still lead to it, one at a time.
			for value := range values {
				a.setSession(b, value)
				if got := a.status(b); got != http.StatusOK || a.records.opened.count(t) != 1 {
					t.Errorf("%d by a former value", got)
				}
			}
		})
	}
}

// A cookie value that is remembered does not hold on to the header it came in.
func TestOpenedKeepsNoHeader(t *testing.T) {
	o := openedElsewhere(1 << 20)
	header := []byte(strings.Repeat("x", 1000) + "value")
	line := unsafe.String(&header[0], len(header))
	o.put(line[1000:], fakeSession("k", 100))
	copy(header[1000:], "other") // as if its memory were used for something else
	if o.byCookie("value") == nil {
		t.Error("a part of the header is remembered, not a copy")
	}
	o.forget("k")
}

// What is counted of an opened session is what it takes.
func TestOpenedWeight(t *testing.T) {
	const users = 500
	for name, o := range map[string]struct {
		store Store
		edit  func(*signintest.Behaviour)
	}{
		"small": {newDumpStore(), func(*signintest.Behaviour) {}},
		"many groups": {newDumpStore(), func(b *signintest.Behaviour) {
			b.EditIDToken = func(it *signintest.IDToken) {
				it.Claims["groups"] = strings.Split(strings.Repeat("00000000-0000-4000-8000-000000000000 ", 100), " ")
			}
		}},
		"large token": {newDumpStore(), func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["access_token"] = strings.Repeat("a", 12<<10) }
			b.EditIDToken = func(it *signintest.IDToken) { delete(it.Claims, "at_hash") }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, withStore(o.store), func(ao *appOptions) {
				ao.behaviour = func(b *signintest.Behaviour) {
					b.Alg = "ES256"
					o.edit(b)
				}
			})
			b := a.signIn()
			s := a.records.opened.byCookie(a.session(b))
			if s == nil {
				t.Fatal("nothing is remembered, so this test tests nothing")
			}
			weigh := func() (taken, counted int64) {
				o := openedElsewhere(1 << 30)
				before := heapInUse()
				for i := range users {
					other, err := a.records.open(bytes.Clone(s.secret), s.key, bytes.Clone(s.sealed))
					if err != nil {
						t.Fatal(err)
					}
					other.key = fmt.Sprintf("%s%04d", s.key[:len(s.key)-4], i)
					o.locate(other)
					o.put(fmt.Sprintf("%s%04d", a.session(b), i), other)
				}
				taken, counted = heapInUse()-before, o.held.Load()
				if n := o.count(t); n != users {
					t.Fatalf("%d are remembered", n)
				}
				for i := range users {
					o.forget(fmt.Sprintf("%s%04d", s.key[:len(s.key)-4], i))
				}
				return taken / users, counted / users
			}
			// What other tests have left is freed meanwhile, so one good look is enough.
			for look := 1; ; look++ {
				taken, counted := weigh()
				if ratio := float64(taken) / float64(counted); ratio < 1.1 && ratio > 0.7 {
					break
				} else if look == 5 {
					t.Errorf("an opened session takes %d bytes, and %d are counted", taken, counted)
					break
				}
			}
			runtime.KeepAlive(a)
		})
	}
}

// Who has signed out, or is evicted, or whose session expires, leaves the
// budget at once, or when the store next looks.
func TestOpenedLeavesTheBudget(t *testing.T) {
	signOut := func(a *app, b *signintest.Browser, _ clockedStore) {
		b.Send(&signintest.Request{Method: "POST", URL: a.url + "/signout", From: a.url + "/", Mode: "navigate", Dest: "document"})
	}
	for name, leave := range map[string]func(a *app, b *signintest.Browser, s clockedStore){
		"sign-out": signOut,
		"sign-out of the user": func(a *app, _ *signintest.Browser, _ clockedStore) {
			if err := a.SignOutUser(t.Context(), a.issuer.URL(), "alice"); err != nil {
				t.Error(err)
			}
		},
		"expired": func(a *app, b *signintest.Browser, s clockedStore) {
			if s.MemoryStore == nil {
				value := a.session(b)
				a.clock.advance(13 * time.Hour)
				a.setSession(b, value) // a browser would not send it any more
				a.status(b)
				return
			}
			s.Advance(13 * time.Hour)
			for i := range 10_000 { // writes look for what has expired
				s.Swap(t.Context(), fmt.Sprint("x", i), nil, nil, 0)
			}
		},
		"evicted": func(a *app, b *signintest.Browser, s clockedStore) {
			key := a.records.opened.byCookie(a.session(b)).key
			s.Advance(2 * inUse)
			s.MaxBytes = s.size.Load()
			if _, _, err := s.Swap(t.Context(), "s.other", nil, make([]byte, s.MaxBytes*7/10), time.Hour); err != nil {
				t.Error(err)
			}
			if s.entry(key) != nil {
				t.Error("the session is not evicted, so this test tests nothing")
			}
		},
	} {
		for _, near := range []bool{true, false} {
			if name == "evicted" && !near {
				continue
			}
			t.Run(fmt.Sprint(name, ", store in this process: ", near), func(t *testing.T) {
				var s clockedStore
				var store Store = newDumpStore()
				if near {
					s = newClockedStore()
					store = s.MemoryStore
				}
				a := newApp(t, withStore(store))
				b := a.signIn()
				a.status(b)
				if a.records.opened.count(t) != 1 {
					t.Fatal("nothing is remembered, so this test tests nothing")
				}
				leave(a, b, s)
				if n := a.records.opened.count(t); n != 0 || a.records.opened.held.Load() != 0 {
					t.Errorf("%d are remembered, %d bytes are held", n, a.records.opened.held.Load())
				}
				if near {
					s.checkSize(t)
				}
			})
		}
	}
}

func TestMemoryBytes(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.MemoryBytes = 40_000 } })
	b := a.signIn()
	if got := a.store.(*MemoryStore).limit(); got != 40_000 {
		t.Errorf("the store has %d bytes, want MemoryBytes", got)
	}
	for range 3 { // it need not be remembered
		if got := a.status(b); got != http.StatusOK {
			t.Error(got)
		}
	}
	elsewhere := newApp(t, withStore(newDumpStore()), func(o *appOptions) {
		config := o.config
		o.config = func(c *Config) { config(c); c.MemoryBytes = 1 }
	})
	b = elsewhere.signIn()
	for range 3 {
		if got := elsewhere.status(b); got != http.StatusOK || elsewhere.records.opened.count(t) != 0 {
			t.Errorf("%d with a budget of one byte, %d are remembered", got, elsewhere.records.opened.count(t))
		}
	}
}

// The store is the judge of whether a session exists, whatever is remembered.
func TestOpenedIsNoSession(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, withStore(store))
	b := a.signIn()
	thief := b.Clone()
	for range 3 {
		if got := a.status(thief); got != http.StatusOK {
			t.Fatal(got)
		}
	}
	if a.records.opened.byCookie(a.session(b)) == nil {
		t.Fatal("nothing is remembered, so this test tests nothing")
	}
	// The record goes, as by a sign-out on another replica.
	for _, key := range store.records() {
		store.Delete(t.Context(), key)
	}
	if got := a.status(thief); got != http.StatusUnauthorized {
		t.Errorf("%d, want 401", got)
	}
	if a.records.opened.byCookie(a.session(b)) != nil {
		t.Error("it is still remembered")
	}
}

// Many users at once, each always gets their own session.
func TestOpenedIsNobodyElses(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.Alg = "ES256"
			for i := range 10 {
				b.Users = append(b.Users, signintest.User{Subject: fmt.Sprint("user", i)})
			}
		}
	})
	browsers := make([]*signintest.Browser, 10)
	for i := range browsers {
		a.issuer.Update(func(b *signintest.Behaviour) { b.User = fmt.Sprint("user", i) })
		browsers[i] = a.browser()
		if got := a.subject(browsers[i]); got != fmt.Sprint("user", i) {
			t.Fatal(got)
		}
	}
	var all sync.WaitGroup
	for i, b := range browsers {
		all.Go(func() {
			for range 10 {
				if got := a.subject(b); got != fmt.Sprint("user", i) {
					t.Errorf("user%d is told to be %s", i, got)
				}
			}
		})
	}
	all.Wait()
}
