package once

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/seed454743b5/signin/internal/seal"
)

// A lease makes one replica at a time do a thing: redeem a code, spend a
// refresh token. It is a value in the store,
//
//	'P' | owner (16) | beat (8)
//
// whose holder changes the beat every half second. A waiter judges it by
// watching, never by its time to live: only a value that stayed the same for
// three seconds of the waiter's own clock, with a store that answered all
// along, is taken over. A store that pauses stops the holder and the waiters
// alike, so it cannot make two of them act.
//
// In place of the lease the holder may leave an outcome, any value that does
// not begin with 'P', for those who come later.
const (
	LeaseMark  = 'P'
	LeaseBeat  = 500 * time.Millisecond
	LeaseStale = 3 * time.Second
	leasePoll  = 50 * time.Millisecond

	// beatTimeout keeps the time between two beats below leaseStale, even of
	// one whose answer is lost.
	beatTimeout = time.Second
)

type Lease struct {
	store Store
	Key   string
	ttl   time.Duration

	// orphaned says that the one before us died holding it: what it was about
	// to do may have been done.
	Orphaned bool

	// Followed says that another held it while we waited, and left nothing.
	Followed bool

	// Resumed is the outcome that this lease has replaced (see [Resume]).
	Resumed []byte

	// turn holds a value while nobody has the turn to write to the store. A wait
	// for it ends with a context, which that for a mutex does not.
	turn   chan struct{}
	value  []byte    // what we last knew to be written; for who has the turn, as what follows
	proved time.Time // when we were last known to hold it

	stop    context.CancelFunc
	stopped chan struct{}
}

// Acquire takes the lease under key, waiting for its holder as long as ctx
// allows. If the holder leaves an outcome, Acquire returns that instead.
// ttl is only for what a dead process leaves behind. A store that does not
// answer is a [*StoreError] after a few seconds.
func Acquire(ctx context.Context, store Store, key string, ttl time.Duration) (held *Lease, outcome []byte, err error) {
	return Resume(ctx, store, key, ttl, func([]byte) bool { return false })
}

// Resume is [Acquire] for work that its holder may leave unfinished, with an
// outcome that says how to go on. An outcome that resumable picks is replaced by
// the lease, by one caller. A caller that waited while it was made gets it as any
// other outcome: it was told what the holder was told.
func Resume(ctx context.Context, store Store, key string, ttl time.Duration, resumable func(outcome []byte) bool) (held *Lease, outcome []byte, err error) {
	l := &Lease{store: store, Key: key, ttl: ttl, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	l.value = append(append([]byte{LeaseMark}, seal.Random(16)...), make([]byte, 8)...)

	w := watch{}
	for {
		asked := time.Now()
		found, swapped, err := l.try(ctx, w.old, w.failing)
		switch {
		case err != nil:
			if ctx.Err() != nil || !w.failed(asked) {
				return nil, nil, err
			}
		case swapped, bytes.Equal(found, l.value):
			// The latter: our Swap arrived, its answer did not.
			if swapped {
				l.proved = asked
			}
			l.won(&w)
			l.keep(ctx)
			return l, nil, nil
		case isOutcome(found):
			if w.held || !resumable(found) {
				return nil, found, nil
			}
			w = watch{old: found}
			continue
		case w.stale(found):
			continue
		}
		if err := Sleep(ctx, leasePoll); err != nil {
			return nil, nil, err
		}
	}
}

// won notes what the lease was taken from.
func (l *Lease) won(w *watch) {
	l.Followed = w.held && w.old == nil
	if isOutcome(w.old) {
		l.Resumed = w.old
		return
	}
	l.Orphaned = w.old != nil
}

// isOutcome reports whether a value in a lease's place is none.
func isOutcome(value []byte) bool { return len(value) > 0 && value[0] != LeaseMark }

// watch is what somebody who waits for a lease has seen of it.
type watch struct {
	held    bool      // there was a holder
	seen    []byte    // the holder's value, as last read
	since   time.Time // when it was first seen
	failing time.Time // since when the store does not answer
	old     []byte    // what to replace: nothing, or a lease gone stale
}

// failed notes a call that came to nothing, and reports whether to try again. A
// store that does not answer says nothing about the holder. What we try to
// replace stays: if our Swap arrived all the same, the next one finds our value,
// and we still know whose it was before.
func (w *watch) failed(asked time.Time) bool {
	w.seen = nil
	if w.failing.IsZero() {
		w.failing = asked
	}
	return time.Since(w.failing)+leasePoll < Patience
}

// stale notes the value found, and reports whether its holder is taken for dead.
func (w *watch) stale(found []byte) bool {
	w.failing = time.Time{}
	switch {
	case len(found) == 0:
		w.seen, w.old = nil, nil // its holder has ended it
	case !bytes.Equal(found, w.seen):
		w.held, w.seen, w.since, w.old = true, found, time.Now(), nil
	case time.Since(w.since) >= LeaseStale:
		w.old = found
		return true
	}
	return false
}

// Exclude is [Acquire] for a lease in whose place nobody leaves an outcome. What
// stands there all the same was not written by us.
func Exclude(ctx context.Context, store Store, key string, ttl time.Duration) (*Lease, error) {
	l, outcome, err := Acquire(ctx, store, key, ttl)
	if outcome != nil {
		return nil, &StoreError{errors.New("what stands in place of a lease is none")}
	}
	return l, err
}

// try is one attempt to take the lease, from a store that has been failing
// since a time, if it has.
func (l *Lease) try(ctx context.Context, old []byte, failing time.Time) (found []byte, swapped bool, err error) {
	if !failing.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, failing.Add(Patience))
		defer cancel()
	}
	return l.swap(ctx, old, l.value)
}

// keep changes the beat until the lease is ended.
func (l *Lease) keep(ctx context.Context) {
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.stopped = make(chan struct{})
	go func() {
		defer close(l.stopped)
		for Sleep(ctx, LeaseBeat) == nil {
			if l.take(ctx) == nil {
				l.beat(ctx)
				l.give()
			}
		}
	}()
}

func (l *Lease) take(ctx context.Context) error {
	select {
	case <-l.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Lease) give() { l.turn <- struct{}{} }

// beat writes a new value in place of our last one. The caller has the turn.
func (l *Lease) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	start := time.Now()
	for range 2 {
		next := bytes.Clone(l.value)
		binary.BigEndian.PutUint64(next[17:], binary.BigEndian.Uint64(next[17:])+1)
		found, swapped, err := l.swap(ctx, l.value, next)
		if err == nil && !swapped && found == nil {
			if since(l.proved) >= LeaseStale {
				return errLeaseLost // another may have taken it over, and ended it
			}
			// The store has lost it: nobody takes over what was changed just now.
			found, swapped, err = l.swap(ctx, nil, next)
		}
		switch {
		case err != nil:
			return err // unknown; the next beat finds out
		case swapped:
			l.value, l.proved = next, start
			return nil
		case !l.wrote(found):
			return errLeaseLost
		}
		// An earlier beat arrived, its answer did not. It proves nothing: others
		// have watched it since.
		l.value = found
	}
	return errLeaseLost
}

// wrote reports whether a value found in the store is one of ours.
func (l *Lease) wrote(found []byte) bool {
	return len(found) == len(l.value) && bytes.Equal(found[:17], l.value[:17])
}

// Sure reports whether the lease is certainly ours, for as long as it takes
// to send a request. A process that was stopped for a while, or cut off from
// the store, may have been taken for dead, and then what it was about to send
// has been sent by another.
//
// A beat alone is no proof: the process may have been stopped between the beat
// and its answer.
func (l *Lease) Sure(ctx context.Context) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	for since(l.proved) >= LeaseStale/2 {
		if err := l.beat(ctx); err != nil {
			return err
		}
	}
	return nil
}

// since is the time since t by the clock that says more. The monotonic one
// stands still while a machine is suspended, and the other one can be set back.
func since(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// End stops the beat and leaves outcome in the lease's place; nil leaves
// nothing. The error reports a store that failed, or a lease taken over.
func (l *Lease) End(ctx context.Context, outcome []byte) error {
	ctx = context.WithoutCancel(ctx)
	if l.stop != nil {
		l.stop()
		<-l.stopped
		l.stop = nil
	}
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	for range 2 {
		found, swapped, err := l.swap(ctx, l.value, outcome)
		switch {
		case err != nil:
			return err
		case swapped, bytes.Equal(found, outcome):
			return nil
		case found == nil:
			// The store has lost it; the outcome must be there all the same.
			if _, swapped, err = l.swap(ctx, nil, outcome); err != nil || swapped {
				return err
			}
			return errLeaseLost
		case !l.wrote(found):
			return errLeaseLost
		}
		l.value = found // our own beat, written though its answer was lost
	}
	return errLeaseLost
}

var errLeaseLost = errors.New("lease taken over")

func (l *Lease) swap(ctx context.Context, old, new []byte) ([]byte, bool, error) {
	return Swap(ctx, l.store, l.Key, old, new, l.ttl)
}
