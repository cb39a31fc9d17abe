package signintest_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// table stands for whatever holds the bytes: a SQL table, a bucket, a file.
type table struct {
	mu   sync.Mutex // makes Swap one atomic step; a database has transactions
	rows map[string]row
}

type row struct {
	value   []byte
	expires time.Time
}

// Get reports an expired row as absent, and a failure as a failure.
func (t *table) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.rows[key]
	if !ok || !time.Now().Before(r.expires) {
		return nil, false, nil
	}
	return r.value, true, nil
}

// Swap is the one method that takes thought: everything that must happen once
// rests on it.
func (t *table) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if new != nil && ttl <= 0 {
		return nil, false, errors.New("table: a value needs a ttl")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.rows[key]
	if ok = ok && time.Now().Before(r.expires); !ok {
		r.value = nil
	}
	if ok != (old != nil) || !bytes.Equal(r.value, old) {
		return r.value, false, nil
	}
	if new == nil {
		delete(t.rows, key)
	} else {
		t.rows[key] = row{new, time.Now().Add(ttl)}
	}
	return nil, true, nil
}

func (t *table) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rows, key)
	return nil
}

// An adapter for another database is three methods and one test. The methods
// use no type of signin, so the adapter's module need not require it.
func ExampleTestStore() {
	_ = func(t *testing.T) { // func TestTable(t *testing.T)
		signintest.TestStore(t, func(t *testing.T) signintest.Store {
			return &table{rows: make(map[string]row)}
		})
	}
}
