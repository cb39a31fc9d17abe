package signin

import (
	"context"
	"time"
)

// Store keeps sessions between requests, and with them the claims and leases
// that make a redemption or a refresh happen once. Values are sealed and keys
// are hashes, so neither names a user. Losing a value costs its owner a new
// sign-in and nothing else. Methods must be safe for concurrent use.
//
// The types are the standard library's, so that an adapter need not import
// this package. Prove one with signintest.TestStore.
//
// A key is 1 to 128 bytes of A-Z, a-z, 0-9, '-', '_' and '.', and case counts.
// A value is any bytes, up to 256 KiB: access tokens with many roles are large. An empty value that is not nil is a
// value like another.
type Store interface {
	// Get returns the value under key, and false if there is none or it has
	// expired. The error reports a failing store, never an absent key. Get may
	// answer from a copy that the store invalidates when the value changes,
	// but not from one older than what this Store last wrote or found.
	// The caller does not modify the value, and the store does not either.
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)

	// Swap replaces old by new for at most ttl, as one atomic step. A nil old
	// matches only an absent or expired key; a nil new deletes, and only then
	// may ttl be zero or less. If it does not swap, found is the current value,
	// read fresh, or nil if there is none. After an error the outcome is
	// unknown: read again. The store keeps new as it is; the caller does not
	// modify it afterwards.
	Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error)

	// Delete removes key. Removing an absent key is not an error.
	Delete(ctx context.Context, key string) error
}
