// Package linear records what several clients of a store do at once, with
// trouble on the way, and checks that it is linearizable: that each call which
// acted did so at one moment between its beginning and its end.
package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Store is signin.Store.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error)
	Delete(ctx context.Context, key string) error
}

// Options are what a history is made of.
type Options struct {
	Keys, Calls int           // Calls of each client
	Timeout     time.Duration // of each call
	Gets        bool          // whether Get is fresh; if not, it is not checked
	Seed        uint64
}

const ttl = time.Hour

type op int

const (
	get op = iota
	swap
	del
)

// call is what a client asked, and answer what it was told. "" is absent.
type call struct {
	op       op
	key      string
	old, new string
}

type answer struct {
	value   string // of Get, and what Swap found
	swapped bool
	unknown bool // there was no answer: the call may have acted, then or later
}

// Check runs the clients, which see one and the same data, and reports what is
// not linearizable.
func Check(t *testing.T, clients []Store, o Options) {
	t.Helper()
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	begin := time.Now()
	history := record(clients, o)
	unknown := 0
	for _, op := range history {
		if op.Output.(answer).unknown {
			unknown++
		}
	}
	t.Logf("seed %d: %d calls in %v, %d without an answer", o.Seed, len(history), time.Since(begin).Round(time.Millisecond), unknown)
	switch judge(history) {
	case porcupine.Illegal:
		t.Errorf("the history is not linearizable (seed %d)", o.Seed)
	case porcupine.Unknown:
		t.Errorf("no order was found within a minute (seed %d)", o.Seed)
	}
}

func judge(history []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model.ToModel(), history, time.Minute)
}

// record runs the clients, and returns what they did.
func record(clients []Store, o Options) []porcupine.Operation {
	var mu sync.Mutex
	var history []porcupine.Operation
	run := fmt.Sprint("linear.", rand.Uint64(), ".")
	begin := time.Now()
	var all sync.WaitGroup
	for id, client := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(o.Seed, uint64(id)))
			last := map[string]string{} // as last seen
			for n := range o.Calls {
				c := next(rng, o, last, run, fmt.Sprint(id, ".", n))
				from := time.Since(begin).Nanoseconds()
				a := ask(client, c, o.Timeout)
				to := time.Since(begin).Nanoseconds()
				switch {
				case a.unknown, c.op == del:
					delete(last, c.key)
				case a.swapped:
					last[c.key] = c.new
				default:
					last[c.key] = a.value
				}
				if a.unknown {
					to = 1 << 62                 // it may act at any time
					time.Sleep(time.Millisecond) // a store that is away is not asked all the time
				}
				if a.unknown && c.op == get {
					continue
				}
				mu.Lock()
				// Each call is a client of its own: one without an answer overlaps the next.
				history = append(history, porcupine.Operation{ClientId: len(history), Input: c, Output: a, Call: from, Return: to})
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return history
}

// next draws a call. Most Swaps have what was last seen as old, or none would
// succeed; each value is written once, so that it tells who wrote it.
func next(rng *rand.Rand, o Options, last map[string]string, run, value string) call {
	c := call{op: swap, key: fmt.Sprint(run, rng.IntN(o.Keys)), new: value}
	c.old = last[c.key]
	switch p := rng.IntN(10); {
	case p == 0:
		c.op = del
	case p == 1:
		c.new = ""
	case p == 2:
		c.old = "never written" // reads what is there
	case p < 5 && o.Gets:
		c.op = get
	}
	return c
}

func ask(s Store, c call, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	bytes := func(v string) []byte {
		if v == "" {
			return nil
		}
		return []byte(v)
	}
	var a answer
	var value []byte
	var err error
	switch c.op {
	case get:
		value, _, err = s.Get(ctx, c.key)
	case swap:
		value, a.swapped, err = s.Swap(ctx, c.key, bytes(c.old), bytes(c.new), ttl)
	case del:
		err = s.Delete(ctx, c.key)
	}
	a.value, a.unknown = string(value), err != nil
	return a
}

// model is one key: a value that calls change.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(call).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{""} },
	Step: func(state, input, output any) []any {
		value, c, a := state.(string), input.(call), output.(answer)
		after := value
		switch {
		case c.op == del:
			after = ""
		case c.op == swap && c.old == value:
			after = c.new
		}
		if a.unknown {
			if after == value {
				return []any{value}
			}
			return []any{value, after}
		}
		switch c.op {
		case get:
			if a.value != value {
				return nil
			}
		case swap:
			if a.swapped != (c.old == value) || !a.swapped && a.value != value {
				return nil
			}
		}
		return []any{after}
	},
	Equal: func(a, b any) bool { return a == b },
}
