// Package faulty is a store that fails on demand, for tests.
package faulty

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Store is signin.Store.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error)
	Delete(ctx context.Context, key string) error
}

// Troubled is a store that fails on demand.
type Troubled struct {
	Store
	mu   sync.Mutex
	down func(ctx context.Context, op, key string) error // nil: up; guarded by mu
	lose func(key string, new []byte) bool               // answers to Swap to lose; guarded by mu
}

var ErrDown = errors.New("the store is down")

// Fails answers at once that the store is down, and hangs not at all.
func Fails(context.Context, string, string) error { return ErrDown }
func Hangs(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *Troubled) Set(down func(context.Context, string, string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// LoseAnswers makes Swaps succeed and fail: n of those that lose accepts.
func (s *Troubled) LoseAnswers(n int, lose func(key string, new []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = func(key string, new []byte) bool {
		if n == 0 || !lose(key, new) {
			return false
		}
		n--
		return true
	}
}

func (s *Troubled) trouble(ctx context.Context, op, key string) error {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down == nil {
		return nil
	}
	return down(ctx, op, key)
}

func (s *Troubled) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := s.trouble(ctx, "get", key); err != nil {
		return nil, false, err
	}
	return s.Store.Get(ctx, key)
}

func (s *Troubled) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	if err := s.trouble(ctx, "swap", key); err != nil {
		return nil, false, err
	}
	found, swapped, err := s.Store.Swap(ctx, key, old, new, ttl)
	s.mu.Lock()
	defer s.mu.Unlock()
	if swapped && s.lose != nil && s.lose(key, new) {
		return nil, false, errors.New("the answer got lost")
	}
	return found, swapped, err
}

func (s *Troubled) Delete(ctx context.Context, key string) error {
	if err := s.trouble(ctx, "delete", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

func (s *Troubled) Value(key string) []byte {
	v, _, _ := s.Store.Get(context.Background(), key)
	return v
}
