package once

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/text"
)

// Flights share one call among all who ask for the same thing while it runs.
// The call is detached from its callers, so that a browser that walks away
// does not undo what others wait for or what cannot be repeated.
type Flights[V any] struct {
	mu      sync.Mutex
	running map[string]*Flight[V] // guarded by mu

	// Patience, if positive, is how long a caller waits for a call that a failing
	// store holds up (Insist).
	Patience time.Duration

	// Panicked, if set, is told of a panic, for the callers' error does not
	// show where it was.
	Panicked func(ctx context.Context, value any, stack []byte)

	// Own, if set, makes an error one caller's own: callers who share a call
	// share its error, and some errors have fields to set.
	Own func(error) error
}

// Flight is one shared call.
type Flight[V any] struct {
	done     chan struct{}
	value    V
	err      error
	own      func(error) error
	patience time.Duration
	store    holdup
}

// Do returns fn's result for key, joining a call that is under way. fn gets a
// context with the values of the first caller's, and limit to finish in.
// When ctx ends first, do returns its cause and fn goes on.
func (f *Flights[V]) Do(ctx context.Context, key string, limit time.Duration, fn func(context.Context) (V, error)) (V, error) {
	return f.Start(ctx, key, limit, fn).Wait(ctx)
}

// Wait returns the call's result, the cause of ctx if that ends first, or the
// error of a store that has held the call up for as long as the caller is
// patient. The call goes on then.
func (c *Flight[V]) Wait(ctx context.Context) (V, error) {
	came := time.Now()
	var look <-chan time.Time
	if c.patience > 0 {
		ticker := time.NewTicker(holdupLook)
		defer ticker.Stop()
		look = ticker.C
	}
	var zero V
	for {
		select {
		case <-c.done:
			if c.own != nil && c.err != nil {
				return c.value, c.own(c.err)
			}
			return c.value, c.err
		case <-ctx.Done():
			return zero, context.Cause(ctx)
		case <-look:
			if err := c.store.over(came, c.patience); err != nil {
				return zero, err
			}
		}
	}
}

// holdupLook is how often a waiter looks whether a store holds its call up.
const holdupLook = 100 * time.Millisecond

// holdup is a store that keeps a shared call from going on. The call tries for
// as long as it may; those who wait for it need not.
type holdup struct {
	mu    sync.Mutex
	since time.Time // zero: the store answers; guarded by mu, with err
	err   error
}

type holdupKey struct{}

// noteHoldup tells those who wait for a shared call how an attempt ended that
// began at a time: err is nil or the store's.
func noteHoldup(ctx context.Context, began time.Time, err error) {
	h, ok := ctx.Value(holdupKey{}).(*holdup)
	if !ok {
		return // nobody waits
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		began = time.Time{}
	} else if !h.since.IsZero() {
		began = h.since
	}
	h.since, h.err = began, err
}

// over returns the store's error if it has failed for as long as a caller who
// came at a time is patient. A late caller waits as long as the first: the store
// may be back, and the next attempt about to find out.
func (h *holdup) over(came time.Time, patience time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() || time.Since(h.since) < patience || time.Since(came) < patience {
		return nil
	}
	return h.err
}

// Start is Do without waiting.
func (f *Flights[V]) Start(ctx context.Context, key string, limit time.Duration, fn func(context.Context) (V, error)) *Flight[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.running[key]; ok {
		return c
	}
	c := &Flight[V]{done: make(chan struct{}), err: ErrNoResult, own: f.Own, patience: f.Patience}
	if f.running == nil {
		f.running = make(map[string]*Flight[V])
	}
	f.running[key] = c
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	ctx = context.WithValue(ctx, holdupKey{}, &c.store)
	go func() {
		defer cancel()
		defer func() {
			f.mu.Lock()
			delete(f.running, key)
			f.mu.Unlock()
			close(c.done)
		}()
		c.value, c.err = f.guarded(ctx, fn)
	}()
	return c
}

// ErrNoResult is what callers get if fn ends its goroutine.
var ErrNoResult = errors.New("signin: a shared call ended without a result")

// guarded turns a panic into an error. fn calls what the application gave us,
// a credential or an HTTP transport, and runs on a goroutine of ours: there
// net/http does not keep a panic from ending the process.
func (f *Flights[V]) guarded(ctx context.Context, fn func(context.Context) (V, error)) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("signin: panic: %s", text.Printable(fmt.Sprint(p), 300))
			if f.Panicked != nil {
				defer func() { recover() }() // it may be the logger that panics
				f.Panicked(ctx, p, debug.Stack())
			}
		}
	}()
	return fn(ctx)
}

// Wait blocks until nothing is under way, or ctx ends. Calls may begin all the
// while, which a WaitGroup does not allow.
func (f *Flights[V]) Wait(ctx context.Context) error {
	for {
		var next *Flight[V]
		f.mu.Lock()
		for _, next = range f.running {
			break
		}
		f.mu.Unlock()
		if next == nil {
			return nil
		}
		select {
		case <-next.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Turns let one caller at a time through for each key.
type Turns struct {
	mu    sync.Mutex
	taken map[string]*turn // guarded by mu
}

type turn struct {
	free    chan struct{} // holds a value while nobody has the turn
	callers int           // that have it or wait for it; guarded by Turns.mu
}

// Take waits for the turn, at most as long as patience, and returns what ends
// it. A caller whose patience or ctx ends goes on without the turn.
func (t *Turns) Take(ctx context.Context, key string, patience time.Duration) (done func()) {
	t.mu.Lock()
	c := t.taken[key]
	if c == nil {
		c = &turn{free: make(chan struct{}, 1)}
		c.free <- struct{}{}
		if t.taken == nil {
			t.taken = make(map[string]*turn)
		}
		t.taken[key] = c
	}
	c.callers++
	t.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	had := false
	select {
	case <-c.free:
		had = true
	case <-timer.C:
	case <-ctx.Done():
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if had {
			c.free <- struct{}{}
		}
		if c.callers--; c.callers == 0 {
			delete(t.taken, key)
		}
	}
}

// Chores run what nobody waits for but the end of the process. The zero value
// is ready for use.
type Chores struct{ Flights[struct{}] }

// Go starts a chore, with limit to finish in. A chore of the same name that is
// under way is not begun again.
func (c *Chores) Go(ctx context.Context, name string, limit time.Duration, chore func(context.Context)) {
	c.Start(ctx, name, limit, func(ctx context.Context) (struct{}, error) {
		chore(ctx)
		return struct{}{}, nil
	})
}
