package signin

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

func (o *opened) count() int {
	n := 0
	for i := range o.shards {
		sh := &o.shards[i]
		sh.mu.RLock()
		n += len(sh.young) + len(sh.old)
		sh.mu.RUnlock()
	}
	return n
}

func TestOpenedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOpened()
		s := &session{}
		for i := range 2 * openedMax {
			o.put(fmt.Sprint(i), s)
		}
		if n := o.count(); n > openedMax || n < openedMax/4 {
			t.Errorf("%d remembered of %d, want at most %d", n, 2*openedMax, openedMax)
		}
		// The latest are there.
		for i := 2*openedMax - 100; i < 2*openedMax; i++ {
			if o.get(fmt.Sprint(i)) == nil {
				t.Errorf("%d is not", i)
			}
		}
		time.Sleep(3 * openedIdle)
	})
}

func TestOpenedForgetsWhatIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOpened()
		used, idle := &session{}, &session{}
		o.put("used", used)
		o.put("idle", idle)
		for range 10 {
			time.Sleep(openedIdle - time.Second)
			if o.get("used") != used {
				t.Fatal("what is used was forgotten")
			}
		}
		if n := o.count(); n != 1 {
			t.Errorf("%d remembered, want 1", n)
		}
		time.Sleep(3 * openedIdle)
		synctest.Wait()
		if n := o.count(); n != 0 || o.armed {
			t.Errorf("%d remembered when all are idle, timer armed: %t", n, o.armed)
		}
		// And it begins anew.
		o.put("again", used)
		time.Sleep(3 * openedIdle)
		synctest.Wait()
		if n := o.count(); n != 0 {
			t.Errorf("%d remembered", n)
		}
		o.put("gone", used)
		if o.forget("gone"); o.get("gone") != nil {
			t.Error("what was forgotten is there")
		}
		time.Sleep(3 * openedIdle)
	})
}

// Whatever is put while the old is dropped is dropped in its turn.
func TestOpenedForgetsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOpened()
		var users sync.WaitGroup
		for u := range 8 {
			users.Go(func() {
				for i := range 200 {
					o.put(fmt.Sprint(u, i), &session{})
					o.get(fmt.Sprint(u, i/2))
					time.Sleep(openedIdle / 10)
				}
			})
		}
		users.Wait()
		time.Sleep(3 * openedIdle)
		synctest.Wait()
		if n := o.count(); n != 0 {
			t.Errorf("%d remembered", n)
		}
	})
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
	if a.opened.get(a.session(b)) == nil {
		t.Fatal("nothing is remembered, so this test tests nothing")
	}
	// The record goes, as by a sign-out on another replica.
	for _, key := range store.records() {
		store.Delete(t.Context(), key)
	}
	if got := a.status(thief); got != http.StatusUnauthorized {
		t.Errorf("%d, want 401", got)
	}
	if a.opened.get(a.session(b)) != nil {
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
