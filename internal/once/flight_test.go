package once

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlightShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flights[int]
		var calls atomic.Int32
		inParallel(50, func(i int) {
			key := "even"
			if i%2 == 1 {
				key = "odd"
			}
			got, err := f.Do(t.Context(), key, time.Minute, func(ctx context.Context) (int, error) {
				calls.Add(1)
				return len(key), Sleep(ctx, time.Second)
			})
			if got != len(key) || err != nil {
				t.Errorf("%s: %d, %v", key, got, err)
			}
		})
		if calls.Load() != 2 {
			t.Errorf("%d calls, want 2", calls.Load())
		}
		if len(f.running) != 0 {
			t.Errorf("%d are left", len(f.running))
		}
	})
}

// A caller that gives up ends neither the call nor the wait of others.
func TestFlightOutlivesCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flights[string]
		call := func(ctx context.Context) (string, error) { return "done", Sleep(ctx, 10*time.Second) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Do(ctx, "", time.Minute, call); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		if got, err := f.Do(t.Context(), "", time.Minute, nil); got != "done" || err != nil {
			t.Errorf("the second: %q, %v", got, err)
		}
		wg.Wait()
		if _, err := f.Do(t.Context(), "", time.Second, call); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("over its limit: %v", err)
		}
	})
}

// What the application gave us may panic; that must not end the process, nor
// leave a result that is none.
func TestFlightPanic(t *testing.T) {
	var f Flights[*int]
	_, err := f.Do(t.Context(), "", time.Minute, func(context.Context) (*int, error) { panic("oops") })
	if err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("panic: %v", err)
	}
	// Callers may show the error: where it was is for the log, and even what
	// logs may be what panics.
	var stack string
	f.Panicked = func(_ context.Context, _ any, s []byte) {
		stack = string(s)
		panic("logging")
	}
	_, err = f.Do(t.Context(), "", time.Minute, func(context.Context) (*int, error) { panic("oops\nforged line") })
	if text := err.Error(); strings.ContainsAny(text, "\n") || strings.Contains(text, ".go:") || !strings.Contains(stack, "flight_test.go:") {
		t.Errorf("panic: %q, with the stack %q", text, stack)
	}
	_, err = f.Do(t.Context(), "", time.Minute, func(context.Context) (*int, error) { runtime.Goexit(); return nil, nil })
	if !errors.Is(err, ErrNoResult) {
		t.Errorf("Goexit: %v", err)
	}
	if err := f.Wait(t.Context()); err != nil {
		t.Errorf("wait: %v", err)
	}
}

// Calls may begin while somebody waits: Close runs beside late requests.
func TestFlightWaitWhileOthersBegin(t *testing.T) {
	var f Flights[struct{}]
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for i := range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				f.Do(t.Context(), strconv.Itoa(i), time.Second, func(context.Context) (struct{}, error) { return struct{}{}, nil })
			}
		})
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 5000 {
		if err := f.Wait(ended); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("wait: %v", err)
		}
	}
	cancel()
	callers.Wait()
	if err := f.Wait(t.Context()); err != nil {
		t.Errorf("wait for nothing: %v", err)
	}
}

func TestFlightWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flights[struct{}]
		f.Start(t.Context(), "", time.Minute, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, Sleep(ctx, 10*time.Second)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v", err)
		}
		start := time.Now()
		if err := f.Wait(t.Context()); err != nil || time.Since(start) != 9*time.Second {
			t.Errorf("wait: %v after %v", err, time.Since(start))
		}
	})
}

// inParallel calls f n times at once and waits for all.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// Turns are taken one at a time for each key, and a caller does not wait for
// ever.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns
		ctx, start := t.Context(), time.Now()
		first := turns.Take(ctx, "a", time.Second)
		other := turns.Take(ctx, "b", time.Second)
		if time.Since(start) != 0 {
			t.Error("waited though nobody had the turn")
		}
		impatient := turns.Take(ctx, "a", time.Second)
		if got := time.Since(start); got != time.Second {
			t.Errorf("waited %v for a turn that is not ended, want 1s", got)
		}
		impatient()
		var had atomic.Bool
		go func() {
			defer turns.Take(ctx, "a", time.Hour)()
			had.Store(true)
		}()
		synctest.Wait()
		if had.Load() {
			t.Error("two had the turn at once")
		}
		first()
		other()
		synctest.Wait()
		if !had.Load() || len(turns.taken) != 0 {
			t.Errorf("the turn was passed on: %t; %d keys are kept", had.Load(), len(turns.taken))
		}
	})
}
