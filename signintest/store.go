package signintest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// Store is signin.Store, method for method. It is repeated here so that an
// adapter can be tested without importing signin. The contract is documented
// there.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error)
	Delete(ctx context.Context, key string) error
}

// TestStore checks that a store keeps the contract of signin.Store: absence,
// compare-and-swap, expiry, the bytes of keys and values, cancellation, and
// all of it under concurrency. Run it with -race.
//
// newStore is called once for each check. The store it returns need not be
// empty, since keys are random, and must work until the check's test ends; use
// t.Cleanup to close it.
//
// A store may offer two methods that only TestStore calls:
//
//	Advance(d time.Duration)
//
// moves the store's clock. Without it TestStore waits for short lifetimes to
// pass by the real one, which takes some seconds.
//
//	Peer() Store
//
// returns another Store on the same data, as another replica would open it.
// With it TestStore checks that a change made by one is seen by the other:
// by Swap at once, by Get within two seconds.
func TestStore(t *testing.T, newStore func(t *testing.T) Store) {
	for _, c := range storeChecks {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			if _, ok := s.(interface{ Peer() Store }); c.needsPeer && !ok {
				t.Log("the store has no Peer: nothing to check")
				return
			}
			for _, err := range checkStore(t.Context(), s, c.check) {
				t.Error(err)
			}
		})
	}
}

// storeChecks is the contract. Each entry is a promise to the callers of Store.
var storeChecks = []struct {
	name      string
	check     func(*storeTest)
	needsPeer bool
}{
	{name: "Absent", check: checkAbsent},
	{name: "Create", check: checkCreate},
	{name: "Replace", check: checkReplace},
	{name: "Remove", check: checkRemove},
	{name: "Values", check: checkValues},
	{name: "Keys", check: checkKeys},
	{name: "Isolation", check: checkIsolation},
	{name: "Expiry", check: checkExpiry},
	{name: "Renewal", check: checkRenewal},
	{name: "NoLifetime", check: checkNoLifetime},
	{name: "Cancelled", check: checkCancelled},
	{name: "ReadOwnWrites", check: checkReadOwnWrites},
	{name: "OneWinner", check: checkOneWinner},
	{name: "NoLostUpdate", check: checkNoLostUpdate},
	{name: "ManyKeys", check: checkManyKeys},
	{name: "PeerSees", check: checkPeerSees, needsPeer: true},
	{name: "PeerRace", check: checkPeerRace, needsPeer: true},
}

const (
	// checkDeadline bounds one check, so that a store that hangs is a failure
	// with a name.
	checkDeadline = time.Minute

	// longTTL is never meant to pass during a check.
	longTTL = time.Hour
)

// checkStore runs one check and returns what it found wrong.
func checkStore(ctx context.Context, s Store, check func(*storeTest)) []error {
	ctx, cancel := context.WithTimeout(ctx, checkDeadline)
	defer cancel()
	st := &storeTest{store: s, ctx: ctx, report: new(report)}
	check(st)
	return st.report.errs
}

func checkAbsent(s *storeTest) {
	key := s.newKey()
	s.wantAbsent(key)
	s.wantRefused(key, []byte("old"), []byte("new"), nil)
	s.wantRefused(key, []byte("old"), nil, nil)
	s.wantRefused(key, []byte{}, []byte("new"), nil)
	s.wantAbsent(key)
	s.wantSwapped(key, nil, nil)
	s.wantAbsent(key)
	s.delete(key)
}

func checkCreate(s *storeTest) {
	key := s.newKey()
	s.wantSwapped(key, nil, []byte("one"))
	s.wantValue(key, []byte("one"))
	s.wantRefused(key, nil, []byte("two"), []byte("one"))
	s.wantRefused(key, nil, []byte("one"), []byte("one"))
	s.wantRefused(key, nil, nil, []byte("one"))
	s.wantValue(key, []byte("one"))
}

func checkReplace(s *storeTest) {
	key := s.newKey()
	s.wantSwapped(key, nil, []byte("Value-1"))
	for _, wrong := range []string{"", "value-1", "Value-2", "Value-", "Value-1 ", "Value-1\x00", "xalue-1"} {
		s.wantRefused(key, []byte(wrong), []byte("other"), []byte("Value-1"))
	}
	s.wantSwapped(key, []byte("Value-1"), []byte("Value-2"))
	s.wantValue(key, []byte("Value-2"))
	s.wantRefused(key, []byte("Value-1"), []byte("Value-3"), []byte("Value-2"))
	s.wantSwapped(key, []byte("Value-2"), []byte("Value-2"))
	s.wantValue(key, []byte("Value-2"))
}

func checkRemove(s *storeTest) {
	key, other := s.newKey(), s.newKey()
	s.wantSwapped(key, nil, []byte("one"))
	s.wantSwapped(other, nil, []byte("stays"))
	s.wantRefused(key, []byte("two"), nil, []byte("one"))
	s.wantValue(key, []byte("one"))
	s.wantSwapped(key, []byte("one"), nil)
	s.wantAbsent(key)
	s.wantRefused(key, []byte("one"), []byte("two"), nil)

	s.wantSwapped(key, nil, []byte("two"))
	s.delete(key)
	s.wantAbsent(key)
	// What makes a sign-out final: the refresh under way still has the old
	// value in hand and must not bring the session back with it.
	s.wantRefused(key, []byte("two"), []byte("three"), nil)
	s.wantAbsent(key)
	s.delete(key)
	s.wantSwapped(key, nil, []byte("four"))
	s.wantValue(key, []byte("four"))
	s.wantValue(other, []byte("stays"))
}

func checkValues(s *storeTest) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	big := make([]byte, 256<<10)
	for i := range big {
		big[i] = byte(i * 31 >> 3)
	}
	for _, v := range [][]byte{
		{}, {0}, {0, 0}, []byte(" \r\n\t "), []byte("nil"), []byte("0"), []byte("-1"), []byte("1e3"), []byte("\xff\xfe\xc0\x80"), every, big,
	} {
		key := s.newKey()
		s.wantSwapped(key, nil, v)
		s.wantValue(key, v)
		s.wantRefused(key, nil, []byte("other"), v)
		wrong := append(append([]byte{}, v...), 'x')
		s.wantRefused(key, wrong, []byte("other"), v)
		if len(v) > 0 {
			wrong = append([]byte{}, v...)
			wrong[len(v)-1] ^= 1
			s.wantRefused(key, wrong, []byte("other"), v)
		}
		s.wantSwapped(key, v, v)
		s.wantSwapped(key, v, []byte("next"))
		s.wantSwapped(key, []byte("next"), v)
		s.wantValue(key, v)
		s.wantSwapped(key, v, nil)
		s.wantAbsent(key)
	}
}

// checkKeys looks for stores that fold, trim, cut, clean or interpret keys.
func checkKeys(s *storeTest) {
	base := s.newKey()
	long := base
	for len(long) < 127 {
		long += "x"
	}
	keys := []string{
		base, base + ".", base + "..", base + ".a", base + ".A", base + "-", base + "_", base + "x", base + ".1", base + ".1.0", base + ".01",
		"." + base, "-" + base, "_" + base, long, long + "a", long + "b", long + "A",
	}
	for i, key := range keys {
		s.wantSwapped(key, nil, fmt.Append(nil, i))
	}
	for i, key := range keys {
		s.wantValue(key, fmt.Append(nil, i))
	}
	for i, key := range keys {
		s.delete(key)
		s.wantAbsent(key)
		if i+1 < len(keys) {
			s.wantValue(keys[i+1], fmt.Append(nil, i+1))
		}
	}
}

// checkIsolation holds a store to never writing to bytes it has handed out.
func checkIsolation(s *storeTest) {
	key := s.newKey()
	s.wantSwapped(key, nil, []byte("first value"))
	held, _ := s.get(key)
	_, _ = s.swap(key, []byte("first value"), []byte("other value"), longTTL)
	found, _ := s.swap(key, nil, []byte("x"), longTTL)
	for range 20 {
		_, _ = s.swap(key, []byte("other value"), []byte("third value"), longTTL)
		_, _ = s.swap(key, []byte("third value"), []byte("other value"), longTTL)
	}
	s.delete(key)
	s.wantSwapped(s.newKey(), nil, []byte("fresh value"))
	if string(held) != "first value" {
		s.errorf("a value that Get returned has become %q; want it to stay %q", held, "first value")
	}
	if string(found) != "other value" {
		s.errorf("a value that Swap found has become %q; want it to stay %q", found, "other value")
	}
}

func checkCancelled(s *storeTest) {
	present, absent := s.newKey(), s.newKey()
	s.wantSwapped(present, nil, []byte("value"))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()

	// A store that needs to wait for nothing may answer all the same. What it
	// must not do is to report an absence that it has not seen.
	if v, ok, err := s.store.Get(ctx, present); err == nil && (!ok || string(v) != "value") {
		s.errorf("Get of a present key with a cancelled context = %q, %t, nil; want an error or the value", v, ok)
	}
	if found, swapped, err := s.store.Swap(ctx, present, []byte("wrong"), []byte("new"), longTTL); err == nil && (swapped || string(found) != "value") {
		s.errorf("Swap with a cancelled context = %q, %t, nil; want an error or the current value", found, swapped)
	}
	if _, swapped, err := s.store.Swap(ctx, absent, nil, []byte("new"), longTTL); err == nil && !swapped {
		s.errorf("Swap of an absent key with a cancelled context = false, nil; want an error or success")
	} else if err == nil {
		s.wantValue(absent, []byte("new"))
	}
	if err := s.store.Delete(ctx, present); err == nil {
		s.wantAbsent(present)
	} else if !errors.Is(err, context.Canceled) {
		s.errorf("Delete with a cancelled context: %v; want an error that wraps context.Canceled", err)
	}
}
