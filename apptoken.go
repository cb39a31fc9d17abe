package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"golang.org/x/oauth2"
)

const (
	// maxAppSources bounds the scope sets that are remembered.
	maxAppSources = 1000

	// appTokenAge is how long a token is kept whose lifetime the issuer did
	// not say, and appLeaseTTL what a dead replica leaves behind.
	appTokenAge = time.Hour
	appLeaseTTL = time.Minute
)

// appTokens are the sources there are, by their scopes.
type appTokens struct {
	mu      sync.Mutex
	sources map[string]*appTokenSource // guarded by mu
}

func (apps *appTokens) source(ts *tokens, scopes []string) *appTokenSource {
	name := strings.Join(scopes, " ")
	apps.mu.Lock()
	defer apps.mu.Unlock()
	if s, ok := apps.sources[name]; ok {
		return s
	}
	if apps.sources == nil || len(apps.sources) >= maxAppSources {
		apps.sources = make(map[string]*appTokenSource)
	}
	what := strings.Join([]string{ts.issuer.URL, ts.issuer.ClientID, name}, "\x00")
	s := &appTokenSource{
		tokens: ts, scopes: scopes, flight: "app." + name,
	}
	var leases []string
	for _, k := range ts.keys {
		s.places = append(s.places, k.Name("a", what))
		leases = append(leases, k.Name("b", what))
	}
	// The same on replicas that have the same keys in another order.
	s.lease = slices.Min(leases)
	apps.sources[name] = s
	return s
}

type appTokenSource struct {
	tokens *tokens
	scopes []string
	flight string
	places []string // of the token in the store, one for each of Config.Keys
	lease  string
	held   atomic.Pointer[held]
}

// Token implements [oauth2.TokenSource].
func (s *appTokenSource) Token() (*oauth2.Token, error) {
	ts, now, ctx := s.tokens, s.tokens.now(), context.Background()
	t := s.held.Load()
	usable := t != nil && t.valid(now)
	paused := ts.backoff.waiting(s.flight, now)
	switch {
	case usable && t.fresh(now, ts.margin) && !t.due(now):
		return t.token(), nil
	case usable && paused != nil:
		return t.token(), nil
	case usable && t.fresh(now, ts.margin/5):
		ts.chores.Go(ctx, "renew."+s.flight, obtainLimit, func(ctx context.Context) { ts.obtain(ctx, &appGrant{s, t}) })
		return t.token(), nil
	case paused != nil && paused.asked:
		return nil, paused.err
	}
	if usable {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tokenPatience)
		defer cancel()
	}
	r, err := ts.obtain(ctx, &appGrant{s, t})
	switch {
	case err == nil:
		return r.token.token(), nil
	case usable && t.valid(ts.now()):
		return t.token(), nil
	}
	return nil, err
}

// appGrant is the client's own credential, exchanged for a token of its own
// (client credentials). The result is kept in the source, and in the store for
// the other replicas.
type appGrant struct {
	*appTokenSource
	old *held // to be replaced; nil: there is none
}

func (g *appGrant) name() string { return g.flight }

func (g *appGrant) lease() (string, time.Duration) { return g.appTokenSource.lease, appLeaseTTL }

func (g *appGrant) early() bool    { return true }
func (g *appGrant) harmless() bool { return true }
func (g *appGrant) needed() bool   { return g.old == nil || !g.old.valid(g.tokens.now()) }

func (g *appGrant) consult(ctx context.Context) (*renewed, error) {
	t := g.held.Load()
	if t == g.old || !g.serves(t) { // else another call ended while we came here
		var err error
		if t, err = g.stored(ctx); err != nil || !g.serves(t) {
			return nil, err
		}
		g.held.Store(t)
	}
	return &renewed{token: t}, nil
}

func (g *appGrant) serves(t *held) bool {
	now := g.tokens.now()
	return t != nil && t.fresh(now, g.tokens.margin) && !t.due(now)
}

func (g *appGrant) exchange(ctx context.Context, _ *holding) (*renewed, error) {
	t, err := g.request(ctx)
	if err != nil {
		return nil, err
	}
	g.held.Store(t)
	g.save(ctx, t)
	return &renewed{token: t}, nil
}

func (s *appTokenSource) request(ctx context.Context) (*held, error) {
	ts := s.tokens
	meta, err := ts.issuer.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(s.scopes) > 0 {
		form.Set("scope", strings.Join(s.scopes, " "))
	}
	start := ts.now()
	answer, err := ts.issuer.RequestToken(ctx, meta, form, nil)
	if err == nil && answer.AccessToken == "" {
		err = oidc.ErrNoAccessToken
	}
	if err != nil {
		refused, _ := errors.AsType[*oidc.TokenError](err)
		if !refused.Passes() {
			err = fmt.Errorf("signin: app token: %w", err)
		} else {
			err = &temporaryError{err}
		}
		ts.backoff.set(s.flight, pauseAfter(refused, err, ts.now()))
		ts.report.event(ctx, Event{Name: EventRefreshFailed, Scopes: s.scopes, Err: err})
		return nil, err
	}
	ts.backoff.clear(s.flight)
	ts.report.event(ctx, Event{Name: EventRefreshed, Scopes: s.scopes, Duration: ts.now().Sub(start)})
	t := ts.newHeld(answer, s.scopes, "")
	if t.Expires == 0 && t.Renew == 0 {
		t.Renew = start.Add(appTokenAge).Unix()
	}
	return &t, nil
}

// stored returns the token that lives longest of those in the store, or nil.
func (s *appTokenSource) stored(ctx context.Context) (*held, error) {
	var best *held
	for _, place := range s.places {
		sealed, err := once.ReadFresh(ctx, s.tokens.store, place)
		if err != nil {
			return nil, err
		}
		plain, err := s.tokens.keys.Open("app", nil, []byte(place), sealed)
		if err != nil {
			continue // none, or under a key that we do not have
		}
		t := &held{}
		if json.Unmarshal(plain, t) == nil && t.Access != "" && (best == nil || t.better(best, &TokenRequest{})) {
			best = t
		}
	}
	return best, nil
}

// save offers a token to the other replicas. If that fails they ask for one
// of their own.
func (s *appTokenSource) save(ctx context.Context, t *held) {
	ts := s.tokens
	left := appTokenAge
	if t.Expires != 0 {
		left = time.Unix(t.Expires, 0).Sub(ts.now())
	}
	if left <= 0 {
		return
	}
	plain, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and numbers only
	}
	place := s.places[0]
	sealed := ts.keys.Seal("app", nil, []byte(place), plain)
	var old []byte
	for range 3 {
		found, swapped, err := once.Swap(ctx, ts.store, place, old, sealed, left)
		if swapped || err != nil {
			return
		}
		old = found
	}
}
