package signintest

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// checkReadOwnWrites holds a store with a copy to its promise that Get is not
// older than what the same Store has just written. A session that has just been
// made must be there, and one that has just been ended must not.
func checkReadOwnWrites(s *storeTest) {
	key := s.newKey()
	for i := range 100 {
		s.wantAbsent(key)
		one, two := fmt.Append(nil, "one ", i), fmt.Append(nil, "two ", i)
		s.wantSwapped(key, nil, one)
		s.wantValue(key, one)
		s.wantSwapped(key, one, two)
		s.wantValue(key, two)
		if i%2 == 0 {
			s.delete(key)
		} else {
			s.wantSwapped(key, two, nil)
		}
	}
	s.wantAbsent(key)
}

// checkOneWinner is a callback posted many times at once: one may redeem.
func checkOneWinner(s *storeTest) {
	for range 5 {
		race(s, 0, s, s, s, s)
	}
}

// checkNoLostUpdate is the index of a user's sessions, and every merge.
func checkNoLostUpdate(s *storeTest) {
	race(s, 20, s, s, s, s)
}

// race has every runner claim one key at once, which one of them must win; then
// count a value up n times each, of which none may be lost; then remove it,
// which again one of them must win.
func race(s *storeTest, n int, runners ...*storeTest) {
	claim, counter := s.newKey(), s.newKey()
	s.wantSwapped(counter, nil, binary.BigEndian.AppendUint64(nil, 0))

	won, founds := make([]bool, len(runners)), make([][]byte, len(runners))
	together(len(runners), func(i int) {
		founds[i], won[i] = runners[i].swap(claim, nil, fmt.Append(nil, "runner ", i), longTTL)
	})
	winner := s.oneOf(won, "claimed an absent key")
	for i, found := range founds {
		if winner >= 0 && !won[i] && string(found) != fmt.Sprint("runner ", winner) {
			s.errorf("a claim that lost to runner %d found %s", winner, show(found, found != nil))
		}
	}

	together(len(runners), func(i int) { runners[i].countUp(counter, n) })
	last := s.current(counter)
	if len(last) != 8 || binary.BigEndian.Uint64(last) != uint64(n*len(runners)) {
		s.errorf("%d runners counted up %d times each and reached %x: updates were lost", len(runners), n, last)
	}

	together(len(runners), func(i int) {
		_, won[i] = runners[i].swap(counter, last, nil, 0)
	})
	s.oneOf(won, "removed a value")
	s.wantAbsent(counter)
}

// countUp adds one n times. It reads through Get once: from then on every lost
// Swap must bring the current value, which never goes down.
func (s *storeTest) countUp(key string, n int) {
	held, _ := s.get(key)
	for done := 0; done < n; {
		if s.ctx.Err() != nil || len(held) != 8 {
			s.errorf("counting up: found %s: %v", show(held, held != nil), s.ctx.Err())
			return
		}
		count := binary.BigEndian.Uint64(held)
		next := binary.BigEndian.AppendUint64(nil, count+1)
		found, swapped := s.swap(key, held, next, longTTL)
		switch {
		case swapped:
			done++
			held = next
		case len(found) == 8 && binary.BigEndian.Uint64(found) <= count:
			s.errorf("a Swap of %d lost and found %d: not the current value", count, binary.BigEndian.Uint64(found))
			return
		default:
			held = found
		}
	}
}

// checkManyKeys has goroutines work on keys of their own: none may see another's.
func checkManyKeys(s *storeTest) {
	const workers = 8
	kept := make([]string, workers)
	for i := range kept {
		kept[i] = s.newKey()
		s.wantSwapped(kept[i], nil, fmt.Append(nil, "kept ", i))
	}
	together(workers, func(i int) {
		key := s.newKey()
		for n := range 10 {
			one, two := fmt.Append(nil, i, " one ", n), fmt.Append(nil, i, " two ", n)
			s.wantSwapped(key, nil, one)
			s.wantRefused(key, nil, two, one)
			s.wantValue(key, one)
			s.wantSwapped(key, one, two)
			s.wantValue(key, two)
			s.delete(key)
			s.wantAbsent(key)
		}
		s.wantValue(kept[i], fmt.Append(nil, "kept ", i))
	})
}

// oneOf returns the index of the only true in won, or -1.
func (s *storeTest) oneOf(won []bool, what string) int {
	winner, wins := -1, 0
	for i, w := range won {
		if w {
			winner, wins = i, wins+1
		}
	}
	if wins != 1 {
		s.errorf("%d of %d %s at once; want exactly one", wins, len(won), what)
		return -1
	}
	return winner
}

// together runs f(0) to f(n-1) at once and waits for all.
func together(n int, f func(i int)) {
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			f(i)
		})
	}
	start.Done()
	done.Wait()
}
