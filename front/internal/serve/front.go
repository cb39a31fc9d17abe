// Package serve runs the front: it opens what the settings name, serves, reads
// them again when told to, and stops without losing a request.
package serve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/bearer"
	"github.com/seed454743b5/signin/front/internal/gate"
	"github.com/seed454743b5/signin/front/internal/library"
	"github.com/seed454743b5/signin/front/internal/look"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// front is what lasts from one configuration to the next.
type front struct {
	log     *slog.Logger
	access  *accessLog
	metrics *metrics
	client  *http.Client
	random  []byte // the session key of a front without any

	now     atomic.Pointer[state]
	stopped atomic.Bool

	mu     sync.Mutex     // of reloads
	closes sync.WaitGroup // of states that are no longer served
}

// state is one configuration at work.
type state struct {
	config   *settings.Config
	store    signin.Store
	close    func() error // the store
	auth     *signin.Auth
	verifier *bearer.Verifier
	ids      *library.IDTokens
	gate     *gate.Gate
	requests sync.WaitGroup
}

func newFront(stdout, stderr io.Writer) (*front, error) {
	m, err := newMetrics()
	if err != nil {
		return nil, err
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxResponseHeaderBytes = 256 << 10
	return &front{
		log:     slog.New(slog.NewJSONHandler(stderr, nil)),
		access:  &accessLog{stdout: stdout},
		metrics: m,
		client:  &http.Client{Timeout: 15 * time.Second, Transport: &transport{m.telemetry.Transport(base), &m.issuerUp}},
		random:  settings.RandomKey(),
	}, nil
}

// ServeHTTP implements [http.Handler].
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := f.enter()
	defer s.requests.Done()
	s.gate.ServeHTTP(w, r)
}

// enter returns the state of now, which stays open until Done.
func (f *front) enter() *state {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.now.Load()
	s.requests.Add(1)
	return s
}

// use begins to serve a configuration. What has not changed is kept: sessions
// in memory, what package signin remembers.
func (f *front) use(c *settings.Config) error {
	old := f.now.Load()
	s := &state{config: c}
	if err := f.open(s, old); err != nil {
		if s.close != nil && (old == nil || s.store != old.store) {
			err = errors.Join(err, s.close())
		}
		return err
	}
	f.mu.Lock()
	f.now.Store(s)
	f.mu.Unlock()
	if old != nil {
		f.closes.Add(1)
		go f.retire(old, s)
	}
	return nil
}

func (f *front) open(s, old *state) error {
	c := s.config
	keys := c.SessionKeys
	if len(keys) == 0 {
		keys = [][]byte{f.random}
		if old == nil {
			f.log.Warn("session_keys are not set: a restart signs everyone out")
		}
	}
	if err := f.access.open(c.AccessLog); err != nil {
		return err
	}
	if old != nil && old.config.Store == c.Store {
		s.store, s.close = old.store, old.close
	} else {
		store, closeStore, err := openers[c.Store.Kind](c.Store.URL)
		if err != nil {
			return err
		}
		s.store, s.close = f.metrics.watched(store, c.Store.Kind), closeStore
	}
	pages, client := look.New(c.Site), f.client
	if c.PassesIDToken() {
		s.ids = &library.IDTokens{Next: f.client.Transport, Store: s.store, Life: c.SessionLifetime}
		client = &http.Client{Timeout: f.client.Timeout, Transport: s.ids}
	}
	if old != nil && library.Same(old.config, c) {
		s.auth = old.auth
	} else {
		var err error
		s.auth, err = library.New(c, library.Parts{Keys: keys, Store: s.store, Client: client, Log: f.log, Observe: f.metrics.telemetry.Observe, Page: pages.Page})
		if err != nil {
			return err
		}
	}
	if err := f.openVerifier(s, old); err != nil {
		return err
	}
	var err error
	s.gate, err = gate.New(gate.Options{
		Config: c, Auth: s.auth, Bearer: s.verifier, IDTokens: s.ids, Keys: keys, Log: f.log, Pages: pages.Page, Observe: f.metrics.upstream, Now: time.Now,
		Done: func(r *http.Request, v *visit.Visit, status int, bytes int64, took time.Duration) {
			f.metrics.request(r, v, status, took)
			f.access.request(r, v, status, bytes, took)
		},
	})
	return err
}

// openVerifier makes what judges bearer tokens, where a route takes them. One
// that knows the same issuer and client goes on with what it has fetched.
func (f *front) openVerifier(s, old *state) error {
	c := s.config
	if !slices.ContainsFunc(c.Routes, func(r *settings.Route) bool { return r.Bearer != nil }) {
		return nil
	}
	secret, key, err := library.Introspector(c)
	if err != nil {
		return err
	}
	if old != nil && library.Same(old.config, c) {
		s.verifier = old.verifier
	}
	if s.verifier == nil {
		s.verifier = bearer.New(bearer.Options{Issuer: c.Issuer, ClientID: c.ClientID, Secret: secret, Key: key, Client: f.client})
	}
	return nil
}

// retire closes what only the old state needs, once its requests have ended.
func (f *front) retire(old, next *state) {
	defer f.closes.Done()
	old.requests.Wait()
	old.gate.Close()
	if old.auth != next.auth {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := library.Close(ctx, old.auth); err != nil {
			f.log.Warn("what the old configuration had under way did not end", "err", err)
		}
	}
	if old.store != next.store {
		if err := old.close(); err != nil {
			f.log.Warn("the old store did not close", "err", err)
		}
	}
}

// close ends what is open. Requests have ended by then, or been given up.
func (f *front) close(ctx context.Context) error {
	s := f.now.Load()
	retired := make(chan struct{})
	go func() { f.closes.Wait(); close(retired) }()
	select {
	case <-retired:
	case <-ctx.Done():
	}
	err := library.Close(ctx, s.auth)
	s.gate.Close()
	err = errors.Join(err, s.close())
	f.access.close()
	return err
}
