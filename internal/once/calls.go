// Package once makes things happen once: leases among replicas, shared calls
// in a process, and the store as all of that sees it, with every call bounded.
package once

import (
	"context"
	"errors"
	"time"
)

// Store is signin.Store, whose documentation holds.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error)
	Delete(ctx context.Context, key string) error
}

const (
	// CallTimeout bounds one call to the store, and Patience how long one
	// that fails is asked again while someone waits: they have their answer
	// within five seconds.
	CallTimeout = 2 * time.Second
	Patience    = 4 * time.Second
)

// Get is one bounded Get. It may be answered from a copy.
func Get(ctx context.Context, store Store, key string) ([]byte, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	value, ok, err := store.Get(ctx, key)
	return value, ok, Failed(err)
}

// Swap is one bounded Swap.
func Swap(ctx context.Context, store Store, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	found, swapped, err := store.Swap(ctx, key, old, new, ttl)
	if err != nil {
		return nil, false, &StoreError{err}
	}
	return found, swapped, nil
}

// ReadFresh returns the current value, past any copy that Get may answer
// from: a Swap that cannot succeed returns its witness. No value of ours is a
// single zero byte.
func ReadFresh(ctx context.Context, store Store, key string) ([]byte, error) {
	found, _, err := Swap(ctx, store, key, []byte{0}, []byte{0}, time.Second)
	return found, err
}

// Delete is one bounded Delete. It does not end with ctx.
func Delete(ctx context.Context, store Store, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CallTimeout)
	defer cancel()
	return Failed(store.Delete(ctx, key))
}

// Insist calls fn until it no longer reports a store that fails, or ctx ends.
// The error is fn's: it says more than that time is up. Those who wait for a
// shared call may give up meanwhile (Flights.Patience).
func Insist(ctx context.Context, fn func() error) error {
	pause := 50 * time.Millisecond
	for {
		began := time.Now()
		err := fn()
		if _, failing := errors.AsType[*StoreError](err); !failing {
			noteHoldup(ctx, began, nil)
			return err
		}
		noteHoldup(ctx, began, err)
		if Sleep(ctx, pause) != nil {
			return err
		}
		pause = min(2*pause, 500*time.Millisecond)
	}
}

// StoreError reports a store that failed, which is never "signed out".
type StoreError struct{ cause error }

func (e *StoreError) Error() string { return "signin: session store: " + e.cause.Error() }
func (e *StoreError) Unwrap() error { return e.cause }

// Failed is err as a [*StoreError], nil if it is nil.
func Failed(err error) error {
	if err == nil {
		return nil
	}
	return &StoreError{err}
}

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
