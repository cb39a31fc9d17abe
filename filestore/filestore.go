// Package filestore keeps the sessions of package signin in one file, so that a
// single machine keeps its users signed in across restarts.
//
//	store, err := filestore.Open("/var/lib/mysite/sessions.db")
//	defer store.Close()
//	auth, err := signin.New(signin.Config{Store: store, ...})
//
// The file is a bbolt database. One process at a time can have it open; for
// several there is redisstore. It must be on a local disk: file locks and
// memory maps are not to be trusted on a network file system.
//
// A write is on the disk, by fsync, before it is acknowledged: a process that is
// killed loses nothing that it has told anyone of. Writes that come together
// share an fsync. On an ordinary SSD one takes a few milliseconds; reads take
// microseconds.
//
// What has expired is removed by later writes, a few entries at each. The file
// does not shrink, but its free space is used again.
package filestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// lockWait is how long Open waits for another process to let go of the
	// file: one that is about to end may be a moment late.
	lockWait = time.Second

	// batchDelay is how long a write waits for others to share its fsync.
	batchDelay = time.Millisecond

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

// Store is a signin.Store in a file. Make one with [Open]. Its methods are safe
// for concurrent use. They look at ctx once, at the start: a write under way is
// finished.
type Store struct {
	db  *bbolt.DB
	now func() time.Time

	// sweepFrom is the key at which the next write examines entries. bbolt runs
	// one write at a time, and only a write uses it.
	sweepFrom []byte
}

// Open opens the file, creating it with mode 0600 if there is none. The
// directory must exist. If another process has the file open, or this one has
// already, Open fails after a second.
func Open(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("filestore: open %s: another process has it open: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: open %s: %w", path, err)
	}
	db.MaxBatchDelay = batchDelay
	if err := db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	}); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("filestore: open %s: %w", path, err)
	}
	return &Store{db: db, now: time.Now}, nil
}

// Close lets go of the file. It waits for calls under way; later ones fail.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("filestore: close: %w", err)
	}
	return nil
}

// Get implements signin.Store.
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, fmt.Errorf("filestore: get: %w", err)
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		// Outside the transaction the bytes are no longer ours.
		value = bytes.Clone(s.live(tx.Bucket(bucketName).Get([]byte(key)), s.now()))
		return nil
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
	err = s.db.Batch(func(tx *bbolt.Tx) error { // may run more than once
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
	if err := s.db.Batch(func(tx *bbolt.Tx) error {
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
