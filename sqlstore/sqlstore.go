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

	// grace is how much longer than its context a driver may take to say why
	// it ended.
	grace = 100 * time.Millisecond
)

// errMoving: a swap was refused, and then found what it wanted to replace. The
// value has changed in between, and a report of it would make no sense.
var errMoving = errors.New("the value does not stand still")

// Options are the settings of a Store. The zero value serves.
type Options struct {
	// Table is the name of the table, such as "signin_store", which is what
	// empty means, or "web.sessions" with a schema (PostgreSQL) or database
	// (MySQL). It is made of letters, digits and _, 48 at most, and is not
	// quoted. Sites that share a database need different ones, or their
	// Config.Keys must differ.
	Table string

	// Timeout bounds each call, connecting and all tries included. Zero means
	// two seconds, which is what package signin itself waits.
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
		if _, err = s.call(ctx, "create", s.create); err == nil {
			return s.Ready(ctx)
		}
	}
	return err
}

func (s *Store) create(ctx context.Context) (answer, error) {
	for _, statement := range s.say.schema {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			return answer{}, err
		}
	}
	return answer{}, nil
}

// Ready reports whether the database answers, is a primary and has the table,
// for a readiness probe.
func (s *Store) Ready(ctx context.Context) error {
	_, err := s.call(ctx, "ready", func(ctx context.Context) (answer, error) {
		return s.read(ctx, []byte("ready."+rand.Text()))
	})
	return err
}

// Get implements signin.Store by one query. It always asks the database.
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	got, err := s.call(ctx, "get", func(ctx context.Context) (answer, error) { return s.read(ctx, []byte(key)) })
	return got.found, got.found != nil, err
}

// Swap implements signin.Store. In PostgreSQL it is one statement. In MySQL and
// SQLite it is one if it replaces, and one more if it is refused; MySQL creates
// by two, and replaces by three what has expired. A ttl is rounded up to whole
// milliseconds.
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
	got, err := s.call(ctx, "swap", func(ctx context.Context) (answer, error) {
		got, err := s.try(ctx, []byte(key), old, new, ttl)
		if err == nil && !got.swapped && same(got.found, old) {
			err = errMoving
		}
		return got, err
	})
	if got.swapped && old == nil && new != nil && s.created.Add(1)%sweepEvery == 1 {
		// If it fails, the next one does its work.
		_, _ = s.call(ctx, "sweep", func(ctx context.Context) (answer, error) {
			return answer{}, s.exec(ctx, s.say.sweep)
		})
	}
	return got.found, got.swapped, err
}

// Delete implements signin.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	_, err := s.call(ctx, "delete", func(ctx context.Context) (answer, error) {
		return answer{}, s.twice(ctx, func() error { return s.exec(ctx, s.say.delete, []byte(key)) })
	})
	return err
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

// answer is what a call brings: the value there is, or nil, and whether Swap
// did what it was to do. Then it has found nothing.
type answer struct {
	found   []byte
	swapped bool
}

// try is one attempt of Swap. What it found may be what Swap wanted to replace:
// another has changed the row between two statements.
func (s *Store) try(ctx context.Context, id, old, new []byte, ttl time.Duration) (answer, error) {
	millis := int64((max(ttl, 1)-1)/time.Millisecond) + 1
	switch {
	case old == nil && new == nil:
		got, err := s.read(ctx, id)
		got.swapped = err == nil && got.found == nil
		return got, err
	case old == nil && s.say.renew == "":
		return s.change(ctx, id, s.say.create, id, new, millis)
	case old == nil:
		if got, err := s.read(ctx, id); err != nil || got.found != nil {
			return got, err
		}
		if got, err := s.once(ctx, s.say.create, id, new, millis); err != nil || got.swapped {
			return got, err
		}
		return s.change(ctx, id, s.say.renew, new, millis, id)
	case new == nil:
		return s.change(ctx, id, s.say.remove, id, old)
	default:
		return s.change(ctx, id, s.say.replace, new, millis, id, old)
	}
}

// change runs one statement that changes the row under id or does not, and then
// says what is there.
func (s *Store) change(ctx context.Context, id []byte, statement string, args ...any) (answer, error) {
	got, err := s.once(ctx, statement, args...)
	if err != nil || got.swapped || s.say.answers {
		return got, err
	}
	return s.read(ctx, id)
}

// once runs a statement that changes a row, and never again. A statement of
// sql.DB would be repeated when the driver says that the connection is bad, and
// lib/pq says so, too, of one that was lost after the server had the statement.
// The second one would find what the first had done, and Swap would report that
// it was another's doing. sql.Conn repeats nothing but the choice of a
// connection.
func (s *Store) once(ctx context.Context, statement string, args ...any) (answer, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if s.say.answers {
		var got answer
		var present bool
		err := conn.QueryRowContext(ctx, statement, args...).Scan(&got.swapped, &present, &got.found)
		got.found = value(got.found, present && !got.swapped)
		return got, err
	}
	result, err := conn.ExecContext(ctx, statement, args...)
	if err != nil {
		return answer{}, err
	}
	n, err := result.RowsAffected()
	return answer{swapped: err == nil && n == 1}, err
}

// read finds the value under id, on a server that is fit to say so.
func (s *Store) read(ctx context.Context, id []byte) (answer, error) {
	var unfit string
	var present bool
	var found []byte
	err := s.twice(ctx, func() error {
		return s.db.QueryRowContext(ctx, s.say.get, id).Scan(&unfit, &present, &found)
	})
	switch {
	case err != nil:
		return answer{}, err
	case unfit != "":
		return answer{}, errors.New(unfit)
	}
	return answer{found: value(found, present)}, nil
}

func (s *Store) exec(ctx context.Context, statement string, args ...any) error {
	_, err := s.db.ExecContext(ctx, statement, args...)
	return err
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

// call is one call by our user, which ends when its time is up. A driver may
// not: lib/pq waits for a server that has fallen silent as long as it takes. Then
// fn is left behind.
func (s *Store) call(ctx context.Context, what string, fn func(context.Context) (answer, error)) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	type outcome struct {
		got answer
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		got, err := s.insist(ctx, fn)
		ended <- outcome{got, err}
	}()
	var end outcome
	select {
	case end = <-ended:
	case <-ctx.Done():
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case end = <-ended:
		case <-timer.C:
			end.err = ctx.Err()
		}
	}
	up := ctx.Err()
	switch {
	case end.err == nil:
		return end.got, nil
	case up != nil && !errors.Is(end.err, up): // the driver does not say so
		return answer{}, fmt.Errorf("sqlstore: %s: %w: %w", what, up, end.err)
	}
	return answer{}, fmt.Errorf("sqlstore: %s: %w", what, end.err)
}

// insist calls fn until it succeeds, or fails in a way that will last or that
// may have changed something.
func (s *Store) insist(ctx context.Context, fn func(context.Context) (answer, error)) (answer, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := ctx.Err(); err != nil {
			return answer{}, err
		}
		got, err := fn(ctx)
		if err == nil || !errors.Is(err, errMoving) && !s.say.transient(err) || !sleep(ctx, pause) {
			return got, err
		}
	}
}

// twice calls fn, which may be called again, once more if it fails: the pool may
// hold a connection that has died, with its server or at a firewall.
func (s *Store) twice(ctx context.Context, fn func() error) error {
	err := fn()
	if err != nil && ctx.Err() == nil && !s.say.transient(err) {
		err = fn()
	}
	return err
}

// sleep reports whether it could: false means that ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
