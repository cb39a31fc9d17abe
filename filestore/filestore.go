// Package filestore keeps the sessions of package signin in one file, so that a
// single machine keeps its users signed in across restarts.
//
//	store, err := filestore.Open("/var/lib/mysite/sessions.db")
//	defer store.Close()
//	auth, err := signin.New(signin.Config{Store: store, ...})
//
// The file is a bbolt database. One process at a time can have it open; for
// several there are redisstore and sqlstore. It must be on a local disk: file locks and
// memory maps are not to be trusted on a network file system.
//
// A write is on the disk, by fsync, before it is acknowledged: a process that is
// killed loses nothing that it has told anyone of. Writes that come together
// share an fsync. On an ordinary SSD one takes a few milliseconds; reads take
// microseconds.
//
// What has expired is removed by later writes, a few entries at each. The file
// does not shrink, but its free space is used again.
//
// Open reads the file through, and refuses one that is damaged: it has been cut
// short or written over. If that happens while it is open, every call fails from
// then on. Move the file away and start again: a new one is made, and users sign
// in again.
//
// # Limits
//
// One machine, one process. In a deployment the old process must end before
// the new one opens the file: Open waits for a second. Writes go one after
// another, or many together in one fsync: the disk sets their number. A session
// takes some kilobytes, and with large tokens up to 256 KiB. On a 32-bit machine
// the file cannot grow past 2 GiB. A disk that is full fails the writes that
// need more room.
//
// # Backup
//
// There is seldom a reason for one: what is lost costs its owner a new sign-in.
// A backup that is restored brings back sessions that have ended since, and
// refresh tokens that are spent. The file is of no use without Config.Keys: keep
// the two apart.
//
// Stop the process and copy the file. A snapshot of the whole file system will
// do as well: it holds what a power cut would leave, and opens as that does. A
// copy that is made while the process runs is torn: Open may refuse it.
package filestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// lockWait is how long Open waits for another process to let go of the
	// file: one that is about to end may be a moment late.
	lockWait = time.Second

	// sweepCount is how many entries each write examines. As it adds one at
	// most, what has expired cannot pile up.
	sweepCount = 8

	// expirySize is the length of the expiry that precedes every value: the
	// big-endian nanoseconds since 1970.
	expirySize = 8
)

// bucketName ends in the version of the format.
var bucketName = []byte("signin.1")

var errNoTTL = errors.New("filestore: swap: ttl of a value must be positive")

// damagedError is a file that is not as bbolt wrote it.
type damagedError struct{ cause error }

func (e *damagedError) Error() string {
	return "the file is damaged (" + e.cause.Error() + "); move it away and start again: a new one is made, and users sign in again"
}

func (e *damagedError) Unwrap() error { return e.cause }

// Store is a signin.Store in a file. Make one with [Open]. Its methods are safe
// for concurrent use. They look at ctx once, at the start: a write under way is
// finished.
type Store struct {
	db      *bbolt.DB
	now     func() time.Time
	damaged atomic.Pointer[damagedError] // nil: not that we know

	mu      sync.Mutex
	waiting []*write   // for the next transaction; guarded by mu
	turn    sync.Mutex // held by the transaction under way

	// sweepFrom is the key at which the next write examines entries. There is
	// one transaction at a time, and only a transaction uses it.
	sweepFrom []byte
}

// write is a change that waits for its transaction.
type write struct {
	change func(*bbolt.Tx) error // may run twice
	done   chan error
}

// Open opens the file, creating it with mode 0600 if there is none. The
// directory must exist. If another process has the file open, or this one has
// already, Open fails after a second. A file that is damaged, or no file of
// bbolt's, is an error that says so; Open leaves it as it is.
func Open(path string) (*Store, error) {
	s := &Store{now: time.Now}
	if err := s.open(path); err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			return nil, fmt.Errorf("filestore: open %s: another process has it open: %w", path, err)
		}
		return nil, fmt.Errorf("filestore: open %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) open(path string) error {
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist): // bbolt makes it
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Size() > 0:
		if err := s.safely(func() error { return check(path) }); err != nil {
			return err
		}
	}
	return s.safely(func() (err error) {
		if s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType}); err != nil {
			return err
		}
		if err = s.db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(bucketName)
			return err
		}); err != nil {
			_ = s.db.Close()
		}
		return err
	})
}

// check verifies a file under a lock that keeps writers away, before anything
// is read from it that is trusted.
func check(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout), errors.Is(err, os.ErrPermission):
		return err
	case err != nil: // what it reads first are the meta pages
		return &damagedError{err}
	}
	defer db.Close()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := verify(file, info.Size(), int64(db.Info().PageSize)); err != nil {
		return &damagedError{err}
	}
	return nil
}

// safely calls fn. bbolt panics, or the process faults in the memory that maps
// the file, if the file is not as bbolt left it. That becomes an error here, and
// the store does nothing more: what bbolt was about to do is half done, and its
// locks may be held.
func (s *Store) safely(fn func() error) (err error) {
	if damaged := s.damaged.Load(); damaged != nil {
		return damaged
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			damaged := &damagedError{fmt.Errorf("%v", p)}
			s.damaged.Store(damaged)
			err = damaged
		}
	}()
	return fn()
}

// commit makes a change in a transaction, together with the changes that came
// while the transaction before was under way.
func (s *Store) commit(change func(*bbolt.Tx) error) error {
	w := &write{change, make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	first := len(s.waiting) == 1
	s.mu.Unlock()
	if first { // who comes first runs all
		s.turn.Lock()
		s.mu.Lock()
		all := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		s.run(all)
		s.turn.Unlock()
	}
	return <-w.done
}

// run makes changes in one transaction, or, if one of them fails, each in its
// own.
func (s *Store) run(all []*write) {
	err := s.safely(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, w := range all {
				if err := w.change(tx); err != nil {
					return err
				}
			}
			return nil
		})
	})
	for _, w := range all {
		if err != nil && len(all) > 1 {
			s.run([]*write{w})
			continue
		}
		w.done <- err
	}
}

// Close lets go of the file. It waits for calls under way; later ones fail.
func (s *Store) Close() error {
	closed := make(chan error, 1)
	go func() { closed <- s.db.Close() }()
	wait := make(<-chan time.Time) // for ever
	if s.damaged.Load() != nil {
		wait = time.After(lockWait) // bbolt may wait for a lock that nobody gives back
	}
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("filestore: close: %w", err)
		}
		return nil
	case <-wait:
		return fmt.Errorf("filestore: close: %w", s.damaged.Load())
	}
}

// Get implements signin.Store.
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, fmt.Errorf("filestore: get: %w", err)
	}
	err = s.safely(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			// Outside the transaction the bytes are no longer ours.
			value = bytes.Clone(s.live(tx.Bucket(bucketName).Get([]byte(key)), s.now()))
			return nil
		})
	})
	if err != nil {
		return nil, false, fmt.Errorf("filestore: get: %w", err)
	}
	return value, value != nil, nil
}

// Swap implements signin.Store. When it returns without an error, what it did
// is on the disk.
func (s *Store) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	if new != nil && ttl <= 0 {
		return nil, false, errNoTTL
	}
	if err := ctx.Err(); err != nil {
		return nil, false, fmt.Errorf("filestore: swap: %w", err)
	}
	err = s.commit(func(tx *bbolt.Tx) error {
		now := s.now()
		b := tx.Bucket(bucketName)
		current := s.live(b.Get([]byte(key)), now)
		if swapped = (current == nil) == (old == nil) && bytes.Equal(current, old); !swapped {
			found = bytes.Clone(current)
			return nil
		}
		found = nil
		if err := s.sweep(b, now); err != nil {
			return err
		}
		if new == nil {
			return b.Delete([]byte(key))
		}
		entry := binary.BigEndian.AppendUint64(make([]byte, 0, expirySize+len(new)), uint64(now.Add(ttl).UnixNano()))
		return b.Put([]byte(key), append(entry, new...))
	})
	if err != nil {
		return nil, false, fmt.Errorf("filestore: swap: %w", err)
	}
	return found, swapped, nil
}

// Delete implements signin.Store. When it returns without an error, the key is
// gone from the disk.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("filestore: delete: %w", err)
	}
	if err := s.commit(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketName).Delete([]byte(key))
	}); err != nil {
		return fmt.Errorf("filestore: delete: %w", err)
	}
	return nil
}

// live returns the value of an entry, or nil if there is none or it has
// expired. An empty value is not nil.
func (s *Store) live(entry []byte, now time.Time) []byte {
	if len(entry) < expirySize || now.UnixNano() >= int64(binary.BigEndian.Uint64(entry)) {
		return nil
	}
	return entry[expirySize:]
}

// sweep examines the next few entries and removes what has expired.
func (s *Store) sweep(b *bbolt.Bucket, now time.Time) error {
	var expired [][]byte
	c := b.Cursor()
	k, v := c.Seek(s.sweepFrom)
	for range sweepCount {
		if k == nil {
			break
		}
		if s.live(v, now) == nil {
			expired = append(expired, k)
		}
		k, v = c.Next()
	}
	s.sweepFrom = bytes.Clone(k) // nil at the end: from the start again
	for _, k := range expired {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
