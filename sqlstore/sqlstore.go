package sqlstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	defaultTimeout = 2 * time.Second

	// maxKey is the longest key of the contract. A database that is not strict
	// would cut a longer one, and make two keys one.
	maxKey = 128

	// firstPause and lastPause are how long a call waits before it tries
	// again what another has locked.
	firstPause = time.Millisecond
	lastPause  = 32 * time.Millisecond
)

// errMoving: the value was changed between the refusal and the reading of what
// is there, and changed back. What Swap would report makes no sense.
var errMoving = errors.New("the value does not stand still")

// Options are the settings of a Store. The zero value serves.
type Options struct {
	// Table is the name of the table, such as "signin_store", which is what
	// empty means, or "web.sessions" with a schema (PostgreSQL) or database
	// (MySQL). It is made of letters, digits and _, 48 at most, and is not
	// quoted. Sites that share a database need different ones, or their
	// Config.Keys must differ.
	Table string

	// Timeout bounds each call, connecting and tries included, as far as the
	// driver obeys its context. Zero means two seconds, which is what package
	// signin itself waits.
	Timeout time.Duration
}

// Store is a signin.Store in a table. Make one with [New]. Its methods are safe
// for concurrent use. It holds nothing that needs closing: the *sql.DB is its
// owner's to close.
type Store struct {
	db      *sql.DB
	timeout time.Duration
	say     statements
	created atomic.Uint64 // rows made, for the sweep
}

// New returns a Store in db, which must be of the dialect, and whose table must
// exist when the first call comes: see [Store.Create]. It does not connect. The
// error is an unknown dialect, or a name or timeout that cannot be one.
func New(db *sql.DB, dialect Dialect, options Options) (*Store, error) {
	say, err := statementsFor(dialect, options.Table)
	switch {
	case err != nil:
		return nil, err
	case db == nil:
		return nil, errors.New("sqlstore: no database")
	case options.Timeout < 0:
		return nil, fmt.Errorf("sqlstore: the timeout %v is negative", options.Timeout)
	}
	s := &Store{db: db, timeout: options.Timeout, say: say}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	return s, nil
}

// Create makes the table and its index. It does nothing, and needs no right to
// make tables, if the table is there. Replicas may call it at the same time.
func (s *Store) Create(ctx context.Context) error {
	err := s.Ready(ctx)
	if err == nil {
		return nil
	}
	// PostgreSQL's IF NOT EXISTS fails if another makes the table in the same
	// instant: then it is there the next time.
	for range 3 {
		if err = s.run(ctx, "create", s.create); err == nil {
			return s.Ready(ctx)
		}
	}
	return err
}

func (s *Store) create(ctx context.Context) error {
	for _, statement := range s.say.schema {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Ready reports whether the database answers, is a primary and has the table,
// for a readiness probe.
func (s *Store) Ready(ctx context.Context) error {
	return s.run(ctx, "ready", func(ctx context.Context) error {
		_, err := s.read(ctx, []byte("ready."+rand.Text()))
		return err
	})
}

// Get implements signin.Store by one query. It always asks the database.
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	err = s.run(ctx, "get", func(ctx context.Context) error {
		value, err = s.read(ctx, []byte(key))
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return value, value != nil, nil
}

// Swap implements signin.Store: in PostgreSQL by one statement, in MySQL and
// SQLite by one statement if it swaps, and by one more if it does not. A ttl is
// rounded up to whole milliseconds.
//
// Swap does not repeat what may have been carried out. If the connection is
// lost before the answer comes, the outcome is unknown, as the contract has it.
func (s *Store) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	if new != nil && ttl <= 0 {
		return nil, false, errors.New("sqlstore: swap: ttl of a value must be positive")
	}
	err = s.run(ctx, "swap", func(ctx context.Context) error {
		found, swapped, err = s.try(ctx, []byte(key), old, new, ttl)
		if err == nil && !swapped && same(found, old) {
			err = errMoving
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if swapped && old == nil && new != nil && s.created.Add(1)%sweepEvery == 1 {
		s.sweep(ctx)
	}
	return found, swapped, nil
}

// Delete implements signin.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return s.run(ctx, "delete", func(ctx context.Context) error {
		return s.twice(ctx, func() error {
			_, err := s.db.ExecContext(ctx, s.say.delete, []byte(key))
			return err
		})
	})
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > maxKey {
		return fmt.Errorf("sqlstore: a key of %d bytes; want 1 to %d", len(key), maxKey)
	}
	return nil
}

// same compares two values of which nil is not like an empty one.
func same(a, b []byte) bool {
	return (a == nil) == (b == nil) && bytes.Equal(a, b)
}

// try is one attempt of Swap. What it found may be old: then it is another's
// doing, between two statements, and worth another attempt.
func (s *Store) try(ctx context.Context, id, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	millis := int64((max(ttl, 1)-1)/time.Millisecond) + 1
	switch {
	case old == nil && new == nil:
		found, err = s.read(ctx, id)
		return found, err == nil && found == nil, err
	case old == nil:
		found, swapped, err = s.change(ctx, id, s.say.create, id, new, millis)
		if err == nil && !swapped && found == nil && s.say.renew != "" {
			return s.change(ctx, id, s.say.renew, new, millis, id)
		}
		return found, swapped, err
	case new == nil:
		return s.change(ctx, id, s.say.remove, id, old)
	default:
		return s.change(ctx, id, s.say.replace, new, millis, id, old)
	}
}

// change runs one statement that changes the row under id or does not, and then
// says what is there.
func (s *Store) change(ctx context.Context, id []byte, statement string, args ...any) (found []byte, swapped bool, err error) {
	if s.say.answers {
		var present bool
		err = s.db.QueryRowContext(ctx, statement, args...).Scan(&swapped, &present, &found)
		return value(found, present && !swapped), swapped, err
	}
	result, err := s.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return nil, false, err
	}
	n, err := result.RowsAffected()
	if err != nil || n == 1 {
		return nil, err == nil, err
	}
	found, err = s.read(ctx, id)
	return found, false, err
}

// read returns the value under id, or nil if there is none, from a server that
// is fit to say so.
func (s *Store) read(ctx context.Context, id []byte) (found []byte, err error) {
	var unfit string
	var present bool
	err = s.twice(ctx, func() error {
		return s.db.QueryRowContext(ctx, s.say.get, id).Scan(&unfit, &present, &found)
	})
	switch {
	case err != nil:
		return nil, err
	case unfit != "":
		return nil, errors.New(unfit)
	}
	return value(found, present), nil
}

// value tells an empty value from none. Drivers do not agree on which of them a
// nil is.
func value(found []byte, present bool) []byte {
	switch {
	case !present:
		return nil
	case found == nil:
		return []byte{}
	}
	return found
}

// sweep removes some of what has expired. That it fails is nothing to the
// caller: the next one will do it.
func (s *Store) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, _ = s.db.ExecContext(ctx, s.say.sweep)
}

// run calls fn, with its time bounded, until it succeeds, or fails in a way that
// will last or that may have changed something.
func (s *Store) run(ctx context.Context, what string, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := ctx.Err()
		if err == nil {
			err = fn(ctx)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, errMoving) && !s.say.transient(err) || sleep(ctx, pause) != nil {
			return failure(ctx, what, err)
		}
	}
}

// twice calls fn, which may be repeated, once more if it fails: the pool may
// hold a connection that has died with the server.
func (s *Store) twice(ctx context.Context, fn func() error) error {
	err := fn()
	if err != nil && ctx.Err() == nil && !s.say.transient(err) {
		err = fn()
	}
	return err
}

// failure names the call, and its time being up where the driver does not.
func failure(ctx context.Context, what string, err error) error {
	if up := ctx.Err(); up != nil && !errors.Is(err, up) {
		return fmt.Errorf("sqlstore: %s: %w: %w", what, up, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", what, err)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
