package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// copyMemory bounds the copies held for each connection, unless the options
// say. rueidis keeps 128 MiB, which suits copies that are served for longer.
const copyMemory = 32 << 20

// refreshTopology is how often the sentinels are asked who is master, unless
// the options say. Without asking, one missed notice would leave us writing to
// a demoted master until a restart.
const refreshTopology = 5 * time.Second

// New returns a Store that uses a client the caller made, shares and closes.
// With a nil client every call fails.
//
// The client's own timeouts and retries apply beside [Store.Timeout]: one that
// waits ten seconds for a connection makes the calls wait that share it, and as
// rueidis comes it repeats a read until Timeout is over while Redis refuses
// connections (ClientOption.RetryDelay). Prefer [OpenWith] where the client is
// for this Store alone.
func New(client rueidis.Client) *Store {
	s := new(Store)
	s.link.shared = client
	return s
}

// Open returns a Store for a URL such as
//
//	redis://user:password@host:6379/0
//	rediss://host:6379?addr=host2:6379&addr=host3:6379
//	redis://sentinel:26379?master_set=main
//
// with rediss for TLS, addr for further nodes of a cluster or further
// sentinels. [rueidis.ParseURL] documents the rest. Like [OpenWith] it does not
// connect; the error reports a URL that cannot be read, without quoting it.
func Open(rawURL string) (*Store, error) {
	opt, err := rueidis.ParseURL(rawURL)
	if err != nil {
		// Its text would quote what it takes for a scheme, a path or a number,
		// which may be a part of the password.
		return nil, errors.New("redisstore: open: want a URL like redis://user:password@host:6379/0, special characters of the password percent-encoded, times like 2s")
	}
	return OpenWith(opt), nil
}

// OpenWith returns a Store for a client's options. Options left zero are set to
// what suits a request that waits: one second to connect and to notice a dead
// connection, one immediate second try of a read that failed, and 32 MiB for the
// copies of each connection. An address that refuses a connection is not tried
// again for 100 ms; calls that need it fail at once.
//
// It does not connect. The first call does, and while Redis cannot be reached
// each call fails in its time; so a process can start while Redis is down, and
// recovers when it is back. Options that rueidis does not accept make every call
// fail.
func OpenWith(opt rueidis.ClientOption) *Store {
	if opt.Dialer.Timeout == 0 {
		opt.Dialer.Timeout = defaultTimeout
	}
	if opt.ConnWriteTimeout == 0 {
		opt.ConnWriteTimeout = defaultTimeout
	}
	if opt.CacheSizeEachConn == 0 {
		opt.CacheSizeEachConn = copyMemory
	}
	if opt.RetryDelay == nil {
		opt.RetryDelay = retryOnce
	}
	if opt.Sentinel.Dialer.Timeout == 0 {
		opt.Sentinel.Dialer.Timeout = opt.Dialer.Timeout
	}
	if opt.Sentinel.MasterSet != "" && opt.Sentinel.TopologyRefreshInterval == 0 {
		opt.Sentinel.TopologyRefreshInterval = refreshTopology
	}
	opt.DialCtxFn = (&refusals{dial: dialer(opt)}).connect
	// Otherwise a connection that is used by one call at a time has no reader
	// between calls, and one call's deadline would close it for all.
	opt.AlwaysPipelining = !opt.DisableAutoPipelining
	s := new(Store)
	s.link.opt = func() rueidis.ClientOption { return opt }
	return s
}

// link is the client, made when it is first needed. The options hold Redis's
// password. They sit behind a function value, so that a Store prints as none
// of them, also where fmt calls no methods.
type link struct {
	shared rueidis.Client // the caller's; nil: ours, from opt
	opt    func() rueidis.ClientOption
	own    atomic.Pointer[rueidis.Client]

	mu     sync.Mutex // guards dial and closed
	dial   *dial      // nil: none under way
	closed bool
}

// dial is an attempt to connect, shared by all who wait for it.
type dial struct {
	done chan struct{} // closed when err is final
	err  error
}

var errClosed = errors.New("the store is closed")

// client returns the client, connecting if there is none yet. It waits no
// longer than ctx allows.
func (l *link) client(ctx context.Context) (rueidis.Client, error) {
	if l.shared != nil {
		return l.shared, nil
	}
	if c := l.own.Load(); c != nil {
		return *c, nil
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, errClosed
	}
	d := l.dial
	if d == nil {
		d = &dial{done: make(chan struct{})}
		l.dial = d
		// It outlives this call: the next one finds it connected. Its end is
		// the dialer's timeout.
		go l.connect(d)
	}
	l.mu.Unlock()

	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("connecting: %w", ctx.Err())
	}
	if c := l.own.Load(); c != nil {
		return *c, nil
	}
	return nil, fmt.Errorf("connecting: %w", d.err)
}

func (l *link) connect(d *dial) {
	var opt rueidis.ClientOption // of a Store that nobody made: no address, an error
	if l.opt != nil {
		opt = l.opt()
	}
	client, err := newClient(opt)
	if errors.Is(err, rueidis.ErrNoCache) {
		opt.DisableCache = true
		client, err = newClient(opt)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dial = nil
	switch {
	case err != nil:
		d.err = err
		if client != nil { // with ForceSingleClient there is one in spite of the error
			client.Close()
		}
	case l.closed:
		d.err = errClosed
		client.Close()
	default:
		l.own.Store(&client)
	}
	close(d.done)
}

// newClient is rueidis.NewClient on a goroutine of ours, where nobody else keeps
// a panic from ending the process: functions among the options are the caller's,
// and numbers among them are not all checked.
func newClient(opt rueidis.ClientOption) (client rueidis.Client, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bad options: panic: %v", p)
		}
	}()
	return rueidis.NewClient(opt)
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if c := l.own.Load(); c != nil {
		(*c).Close()
	}
}

// patience is context.WithTimeout for a call that mostly need not wait: it makes
// no timer until someone asks for one.
type patience struct {
	context.Context // of the caller
	deadline        time.Time

	once   sync.Once
	within context.Context
	cancel context.CancelFunc
}

// patience returns a context for one call. The time runs from now: rueidis may
// wait for a connection before it looks at the context.
func (s *Store) patience(ctx context.Context) *patience {
	return &patience{Context: ctx, deadline: time.Now().Add(cmp.Or(s.Timeout, defaultTimeout))}
}

func (p *patience) begin() context.Context {
	p.once.Do(func() {
		p.within, p.cancel = context.WithDeadline(p.Context, p.deadline)
	})
	return p.within
}

func (p *patience) Done() <-chan struct{}       { return p.begin().Done() }
func (p *patience) Err() error                  { return p.begin().Err() }
func (p *patience) Deadline() (time.Time, bool) { return p.begin().Deadline() }

// end frees the timer, if there is one.
func (p *patience) end() {
	if p.cancel != nil {
		p.cancel()
	}
}
