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

// AppTokenSource returns a source of access tokens for the application
// itself, by client credentials (RFC 6749, 4.4), for what is done in nobody's
// name. For Entra there is one scope, the API's name and /.default, such as
// "https://graph.microsoft.com/.default", and the issuer must be one tenant.
//
// There is one token for a set of scopes in this process and, through
// [Config].Store, on all replicas, where it is encrypted under [Config].Keys.
// It is renewed in the background before it expires, once however many ask.
// While it is valid a failure to renew it is not reported, and a store that
// fails only costs each replica a token of its own.
//
// Token never asks for interaction: an error is the issuer's, of which an
// [*oauth2.RetrieveError] tells more, or a temporary failure. The source is
// never nil, may be used concurrently, and needs no request.
func (a *Auth) AppTokenSource(scopes ...string) oauth2.TokenSource {
	if a.cfg.Credential == nil {
		return failing{errors.New("signin: app token: Config.Credential is nil: a public client has no tokens of its own")}
	}
	scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	if err := checkScopes(scopes); err != nil {
		return failing{fmt.Errorf("signin: app token: %w", err)}
	}
	return a.apps.source(a, scopes)
}

// appTokens are the sources there are, by their scopes.
type appTokens struct {
	mu      sync.Mutex
	sources map[string]*appTokenSource // guarded by mu
}

func (apps *appTokens) source(a *Auth, scopes []string) *appTokenSource {
	name := strings.Join(scopes, " ")
	apps.mu.Lock()
	defer apps.mu.Unlock()
	if s, ok := apps.sources[name]; ok {
		return s
	}
	if apps.sources == nil || len(apps.sources) >= maxAppSources {
		apps.sources = make(map[string]*appTokenSource)
	}
	what := strings.Join([]string{a.cfg.Issuer, a.cfg.ClientID, name}, "\x00")
	s := &appTokenSource{
		auth: a, scopes: scopes, flight: "app." + name,
	}
	var leases []string
	for _, k := range a.keys {
		s.places = append(s.places, k.Name("a", what))
		leases = append(leases, k.Name("b", what))
	}
	// The same on replicas that have the same keys in another order.
	s.lease = slices.Min(leases)
	apps.sources[name] = s
	return s
}

type appTokenSource struct {
	auth   *Auth
	scopes []string
	flight string
	places []string // of the token in the store, one for each of Config.Keys
	lease  string
	held   atomic.Pointer[held]
}

// Token implements [oauth2.TokenSource].
func (s *appTokenSource) Token() (*oauth2.Token, error) {
	a, now, ctx := s.auth, s.auth.now(), context.Background()
	t := s.held.Load()
	usable := t != nil && t.valid(now)
	paused := a.backoff.waiting(s.flight, now)
	switch {
	case usable && t.fresh(now, a.cfg.ExpiryMargin) && !t.due(now):
		return t.token(), nil
	case usable && paused != nil:
		return t.token(), nil
	case usable && t.fresh(now, a.cfg.ExpiryMargin/5):
		a.chores.Go(ctx, "renew."+s.flight, refreshLimit, func(ctx context.Context) { s.renew(ctx, t) })
		return t.token(), nil
	case paused != nil && paused.asked:
		return nil, paused.err
	}
	if usable {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tokenPatience)
		defer cancel()
	}
	renewed, err := s.renew(ctx, t)
	switch {
	case err == nil:
		return renewed.token(), nil
	case usable && t.valid(a.now()):
		return t.token(), nil
	}
	return nil, err
}

// renew obtains a token in place of old, once however many ask.
func (s *appTokenSource) renew(ctx context.Context, old *held) (*held, error) {
	r, err := s.auth.refreshes.Do(ctx, s.flight, refreshLimit, func(ctx context.Context) (*renewed, error) {
		t, err := s.obtain(ctx, old)
		if err != nil {
			if old == nil || !old.valid(s.auth.now()) {
				shareFailure(ctx, err)
			}
			return nil, err
		}
		s.held.Store(t)
		return &renewed{token: t}, nil
	})
	if err != nil {
		return nil, err
	}
	return r.token, nil
}

func (s *appTokenSource) obtain(ctx context.Context, old *held) (*held, error) {
	a := s.auth
	serves := func(t *held) bool {
		now := a.now()
		return t != nil && t.fresh(now, a.cfg.ExpiryMargin) && !t.due(now)
	}
	if t := s.held.Load(); t != old && serves(t) {
		return t, nil // another call ended while we came here
	}
	t, err := s.stored(ctx)
	if err == nil && serves(t) {
		return t, nil
	}
	a.issuer.metadata(ctx) // which may take its time, rather now than under the lease
	if err == nil {
		var l *once.Lease
		if l, err = once.Exclude(ctx, a.store, s.lease, appLeaseTTL); err == nil {
			defer l.End(ctx, nil)
			if t, err = s.stored(ctx); err == nil && serves(t) {
				return t, nil
			}
		}
	}
	if _, down := errors.AsType[*once.StoreError](err); err != nil && !down {
		return nil, &temporaryError{err}
	} else if down {
		// Nothing here is spent by being asked for twice.
		a.report.event(ctx, Event{Name: EventStoreFailing, Err: fmt.Errorf("app token: %w", err)})
	}
	if t, err = s.request(ctx); err != nil {
		return nil, err
	}
	s.save(ctx, t)
	return t, nil
}

func (s *appTokenSource) request(ctx context.Context) (*held, error) {
	a := s.auth
	meta, err := a.issuer.metadata(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(s.scopes) > 0 {
		form.Set("scope", strings.Join(s.scopes, " "))
	}
	start := a.now()
	answer, err := a.requestToken(ctx, meta, form)
	if err == nil && answer.AccessToken == "" {
		err = errNoAccessToken
	}
	if err != nil {
		refused, _ := errors.AsType[*tokenError](err)
		if !refused.passes() {
			err = fmt.Errorf("signin: app token: %w", err)
		} else {
			err = &temporaryError{err}
		}
		a.backoff.set(s.flight, pauseAfter(refused, err, a.now()))
		a.report.event(ctx, Event{Name: EventRefreshFailed, Scopes: s.scopes, Err: err})
		return nil, err
	}
	a.backoff.clear(s.flight)
	a.report.event(ctx, Event{Name: EventRefreshed, Scopes: s.scopes, Duration: a.now().Sub(start)})
	t := a.newHeld(answer, s.scopes, "")
	if t.Expires == 0 && t.Renew == 0 {
		t.Renew = start.Add(appTokenAge).Unix()
	}
	return &t, nil
}

// stored returns the token that lives longest of those in the store, or nil.
func (s *appTokenSource) stored(ctx context.Context) (*held, error) {
	var best *held
	for _, place := range s.places {
		sealed, err := once.ReadFresh(ctx, s.auth.store, place)
		if err != nil {
			return nil, err
		}
		plain, err := s.auth.keys.Open("app", nil, []byte(place), sealed)
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
	a := s.auth
	left := appTokenAge
	if t.Expires != 0 {
		left = time.Unix(t.Expires, 0).Sub(a.now())
	}
	if left <= 0 {
		return
	}
	plain, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and numbers only
	}
	place := s.places[0]
	sealed := a.keys.Seal("app", nil, []byte(place), plain)
	var old []byte
	for range 3 {
		found, swapped, err := once.Swap(ctx, a.store, place, old, sealed, left)
		if swapped || err != nil {
			return
		}
		old = found
	}
}
