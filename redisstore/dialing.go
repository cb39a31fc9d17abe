package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// refusedFor is how long an address that could not be connected to is not tried
// again. While Redis is down every page that asks who is there would dial, twice.
const refusedFor = 100 * time.Millisecond

// retryOnce is what rueidis waits before it repeats a read: nothing before the
// second try, for the first may have met a connection that had just died; there
// is no third. By itself rueidis goes on until the call's time is up.
func retryOnce(attempts int, _ rueidis.Completed, _ error) time.Duration {
	if attempts > 1 {
		return -1
	}
	return 0
}

type dialFunc func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error)

// dialer is how a client's options say that it connects.
func dialer(opt rueidis.ClientOption) dialFunc {
	switch {
	case opt.DialCtxFn != nil:
		return opt.DialCtxFn
	case opt.DialFn != nil:
		return func(_ context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			return opt.DialFn(address, dialer, config)
		}
	}
	return func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		if config == nil {
			return dialer.DialContext(ctx, "tcp", address)
		}
		return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
	}
}

// refusals remembers which addresses could not be connected to. There are as
// many as the options and the cluster name.
type refusals struct {
	dial dialFunc

	mu   sync.Mutex
	last map[string]refusal // by address; guarded by mu
}

type refusal struct {
	err   error
	until time.Time
}

// connect is a dialFunc. Each address has its own memory: one node of a cluster
// that is down says nothing about the others.
func (r *refusals) connect(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	r.mu.Lock()
	last, known := r.last[address]
	r.mu.Unlock()
	if known && time.Now().Before(last.until) {
		return nil, last.err
	}
	conn, err := r.dialed(ctx, address, dialer, config)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		delete(r.last, address)
	case ctx.Err() == nil: // a caller that gives up says nothing about the address
		if r.last == nil {
			r.last = make(map[string]refusal)
		}
		r.last[address] = refusal{err, time.Now().Add(refusedFor)}
	}
	return conn, err
}

// dialed is dial, which may be the caller's, and panic on a goroutine of
// rueidis's.
func (r *refusals) dialed(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (conn net.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("dialing: panic: %v", p)
		}
	}()
	return r.dial(ctx, address, dialer, config)
}
