package signin

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"golang.org/x/oauth2"
)

// tokens obtains access tokens and gives refresh tokens back. There is one way
// to obtain one, whatever it is obtained for: a grant says what is sent, what is
// known without asking, and where the result is kept; obtain sees to it that
// one request is sent, however many ask, on however many replicas.
type tokens struct {
	records *records
	issuer  *oidc.Issuer
	store   Store        // of leases and of the application's own tokens
	keys    seal.Keyring // of the latter
	chores  *once.Chores
	report  *reporter
	now     func() time.Time

	margin       time.Duration // Config.ExpiryMargin
	scopes       []string      // Config.Scopes
	capabilities []string      // Config.ClientCapabilities

	flights once.Flights[*renewed]
	backoff backoff
	apps    appTokens
}

// renewed is what a grant came to.
type renewed struct {
	session *session // that the token is held in; nil if it is the application's own
	token   *held
}

// A grant obtains one token for one purpose.
type grant interface {
	// name is that of the shared call: requests of one name are one request.
	name() string

	// lease is what one replica holds while it asks, and for how long a dead one
	// is believed to.
	lease() (key string, ttl time.Duration)

	// early reports whether consult is worth a try before the lease is taken.
	early() bool

	// consult decides, on a fresh read of where the result is kept, what need
	// not be asked of the issuer: a sibling has been here, or the issuer has
	// refused already. With neither it returns nil and nil.
	consult(ctx context.Context) (*renewed, error)

	// exchange sends one token request and keeps what comes back. errAgain says
	// that one more request, another one, may bring the token.
	exchange(ctx context.Context, h *holding) (*renewed, error)

	// harmless reports whether nothing is spent by a request that a sibling
	// sends at the same time, so that one without a lease will do.
	harmless() bool

	// needed reports whether the caller has nothing that serves meanwhile.
	needed() bool
}

// obtainLimit bounds the way to a token, waiting for another replica included.
const obtainLimit = 30 * time.Second

// errAgain is the cause for which exchange may be called once more.
type errAgain struct{ error }

// holding is a lease while a grant is exchanged.
type holding struct {
	*once.Lease       // nil: there is none
	passed      bool  // whether a save that goes on will end it
	down        error // of a store that fails, which does not matter to the grant
}

// take takes the lease of a grant, unless the store is known to fail.
func (h *holding) take(ctx context.Context, store Store, g grant) error {
	if h.down != nil {
		return nil
	}
	key, ttl := g.lease()
	l, err := once.Exclude(ctx, store, key, ttl)
	switch {
	case err == nil:
		h.Lease = l
	case !storeDown(err):
		return &temporaryError{err}
	case !g.harmless():
		return err
	default:
		h.down = err
	}
	return nil
}

// consult is the grant's, unless the store is known to fail.
func (h *holding) consult(ctx context.Context, g grant) (*renewed, error) {
	if h.down != nil {
		return nil, nil
	}
	r, err := g.consult(ctx)
	if g.harmless() && storeDown(err) {
		h.down, err = err, nil
	}
	return r, err
}

func (h *holding) end(ctx context.Context) {
	if h.Lease != nil && !h.passed {
		h.End(ctx, nil)
	}
}

// ready is asked at the last moment before a token request is sent.
func (h *holding) ready(ctx context.Context) error {
	if h.Lease == nil {
		return nil
	}
	return h.Sure(ctx)
}

// obtain exchanges a grant, once however many ask. When ctx ends the caller no
// longer waits, and the exchange goes on.
func (ts *tokens) obtain(ctx context.Context, g grant) (*renewed, error) {
	wait, cancel := context.WithTimeout(ctx, obtainLimit)
	defer cancel()
	r, err := ts.flights.Do(wait, g.name(), obtainLimit, func(ctx context.Context) (*renewed, error) {
		r, err := ts.obtainLeased(ctx, g)
		if err != nil && g.needed() {
			shareFailure(ctx, err)
		}
		return r, err
	})
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return nil, &temporaryError{err}
	}
	return r, err
}

// obtainLeased exchanges a grant while no other replica does. A store that
// fails stands in the way of a grant that something is spent for, and costs any
// other one a request of its own on each replica.
func (ts *tokens) obtainLeased(ctx context.Context, g grant) (*renewed, error) {
	h := &holding{}
	if g.early() {
		if r, err := h.consult(ctx, g); r != nil || err != nil {
			return r, err
		}
	}
	ts.issuer.Metadata(ctx) // which may take its time, rather now than under the lease
	if err := h.take(ctx, ts.store, g); err != nil {
		return nil, err
	}
	defer h.end(ctx)
	var again errAgain
	for range 2 {
		if r, err := h.consult(ctx, g); r != nil || err != nil {
			return r, err
		}
		if h.down != nil {
			ts.report.event(ctx, Event{Name: EventStoreFailing, Err: fmt.Errorf("token request without a lease: %w", h.down)})
		}
		r, err := g.exchange(ctx, h)
		if !errors.As(err, &again) {
			return r, err
		}
		if h.passed { // no second request before the first is saved
			break
		}
	}
	return nil, &temporaryError{again.error}
}

func storeDown(err error) bool {
	_, down := errors.AsType[*once.StoreError](err)
	return down
}

// holder is the place of a session while a request is served.
type holder interface {
	current(ctx context.Context, now time.Time) (*session, error)
	renew(*session)
}

// tokenPatience is how long a caller whose token still serves waits for a new
// one. The refresh goes on.
const tokenPatience = 3 * time.Second

// acquire returns a token that serves req: the held one, or a new one. When
// ctx ends the caller no longer waits, and what is under way goes on.
func (ts *tokens) acquire(ctx context.Context, v holder, req TokenRequest) (*held, error) {
	now := ts.now()
	s, err := v.current(ctx, now)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, req.needs(ReasonSignIn, "", nil)
	}
	if ts.issuer.Written().Mixed(req.Scopes) {
		return nil, &argumentError{fmt.Errorf("token for scopes %s: they belong to several APIs, and a token is for one", strings.Join(req.Scopes, " "))}
	}
	t := s.record.find(&req)
	if req.Refresh && t != nil && req.reject == "" {
		req.reject = t.Access
	}
	if t == nil || !t.valid(now) || !t.serves(&req) {
		if f := ts.backoff.waiting(s.key, now); f != nil && f.asked {
			return nil, f.err
		}
		r, err := ts.refresh(ctx, s, req)
		if err != nil {
			return nil, err
		}
		v.renew(r.session)
		return r.token, nil
	}
	return ts.better(ctx, v, s, req, t)
}

// better returns a held token that serves req, or a new one where that is due.
func (ts *tokens) better(ctx context.Context, v holder, s *session, req TokenRequest, t *held) (*held, error) {
	now := ts.now()
	fresh := t.fresh(now, ts.margin)
	switch {
	case fresh && !t.due(now), !ts.worthAsking(s, &req, now):
		return t, nil
	case !fresh:
		return ts.prefer(ctx, v, s, req, t)
	}
	req.reject = t.Access
	ts.chores.Go(ctx, "renew."+s.key, obtainLimit, func(ctx context.Context) { ts.refresh(ctx, s, req) })
	return t, nil
}

// prefer returns a new token in place of one that still serves, if it can be
// had soon.
func (ts *tokens) prefer(ctx context.Context, v holder, s *session, req TokenRequest, t *held) (*held, error) {
	wait, cancel := context.WithTimeout(ctx, tokenPatience)
	defer cancel()
	now := ts.now()
	r, err := ts.refresh(wait, s, req)
	if err == nil {
		v.renew(r.session)
		return r.token, nil
	}
	if !t.valid(ts.now()) {
		return nil, err
	}
	if wait.Err() != nil && ctx.Err() == nil {
		// One waited for all: the next need not.
		ts.backoff.set(s.key, failure{until: now.Add(2 * tokenPatience)})
	}
	return t, nil
}

// worthAsking reports whether a new token could be had in place of one that
// serves: the issuer has not failed a moment ago and has not refused.
func (ts *tokens) worthAsking(s *session, req *TokenRequest, now time.Time) bool {
	return silentRefusal(s.record, req, now) == nil && ts.backoff.waiting(s.key, now) == nil
}

// revoke gives a refresh token back (RFC 7009), without anyone waiting.
func (ts *tokens) revoke(ctx context.Context, meta *oidc.Metadata, refresh string) {
	if meta.RevocationEndpoint == "" || refresh == "" {
		return
	}
	ts.chores.Go(ctx, "revoke."+seal.StoreKey("v", []byte(refresh)), oidc.TokenTimeout, func(ctx context.Context) {
		form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}}
		resp, _, _, err := ts.issuer.Post(ctx, meta, meta.RevocationEndpoint, form, nil)
		if err == nil && resp.StatusCode/100 != 2 {
			err = fmt.Errorf("revocation endpoint answered with status %d", resp.StatusCode)
		}
		if err != nil {
			ts.report.event(ctx, Event{Name: EventRevokeFailed, Err: err})
		}
	})
}

// failing is a token source that has nothing.
type failing struct{ err error }

func (f failing) Token() (*oauth2.Token, error) { return nil, ownCopy(f.err) }

// newHeld is the token of an answer to a request for asked. An answer without
// scope grants what was asked for (RFC 6749, 5.1). One without an access token
// grants nothing: some issuers give none to those who ask for no API (Azure AD
// B2C).
func (ts *tokens) newHeld(answer *oidc.Answer, asked []string, resource string) held {
	if answer.AccessToken == "" {
		return held{Resource: resource} // no scope is of use without it
	}
	t := held{
		Access: answer.AccessToken, Asked: accessScopes(asked), Resource: resource,
		Obtained: answer.Asked.Unix(), Written: ts.issuer.Written(),
	}
	t.Scopes, t.Extra = t.Asked, answer.Extra()
	if len(answer.Scope) > 0 {
		t.Scopes = accessScopes(ts.issuer.Written().Spelled(answer.Scope, t.Asked))
	}
	if answer.ExpiresIn.Present {
		t.Expires = answer.Asked.Add(answer.ExpiresIn.Duration).Unix()
	}
	if answer.RefreshIn.Present && answer.RefreshIn.Duration > 0 {
		t.Renew = answer.Asked.Add(answer.RefreshIn.Duration).Unix()
	}
	return t
}

// reasons say why the user must act, for what only the user can mend.
var reasons = map[family.Subject]Reason{
	family.OfGrant: ReasonRefused, family.OfConsent: ReasonConsent, family.OfProof: ReasonClaims,
}

// requestError is a token request that the issuer refuses for what it asks: an
// API that is not there, a scope that is none. The grant is good, and neither
// the user nor time helps.
type requestError struct{ cause error }

func (e *requestError) Error() string {
	return "signin: the issuer refuses this token request, not the user: " + e.cause.Error()
}

func (e *requestError) Unwrap() error { return e.cause }

// reasonRequest marks a refusal of that kind. Its Error says what the issuer said.
const reasonRequest Reason = "request"

// temporaryError is a token request that failed in a way that may pass.
type temporaryError struct{ cause error }

func (e *temporaryError) Error() string { return "signin: obtaining a token: " + e.cause.Error() }

func (e *temporaryError) Unwrap() error { return e.cause }

// failureShared is how long a failure that may pass is held back.
const failureShared = 250 * time.Millisecond

// shareFailure holds a shared call that failed for a moment, so that those
// who came together share its failure in place of asking one by one. Who
// comes after it asks anew, and may find the issuer well again.
func shareFailure(ctx context.Context, err error) {
	if _, passes := errors.AsType[*temporaryError](err); passes {
		once.Sleep(ctx, failureShared)
	}
}

// failure is one that may pass.
type failure struct {
	err   error
	until time.Time // when to ask again
	asked bool      // the issuer said so (Retry-After)
}

// pauseAfter is how long an issuer that failed is left alone: a second, or as
// it said.
func pauseAfter(e *oidc.TokenError, err error, now time.Time) failure {
	f := failure{err: err, until: now.Add(time.Second)}
	if e != nil && e.RetryAfter.After(f.until) {
		f.until, f.asked = e.RetryAfter, true
	}
	return f
}

// backoff remembers, in this process, until when an issuer that failed is not
// asked again. A token that still serves is then used without asking; who has
// none asks all the same, unless the issuer has forbidden it.
type backoff struct {
	mu       sync.Mutex
	failures map[string]failure // guarded by mu
}

// waiting returns the failure to wait out, nil if there is none.
func (b *backoff) waiting(key string, now time.Time) *failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.failures[key]; ok && now.Before(f.until) {
		return &f
	}
	return nil
}

func (b *backoff) set(key string, f failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == nil || len(b.failures) >= 10_000 {
		b.failures = make(map[string]failure) // forgetting costs a request each
	}
	b.failures[key] = f
}

func (b *backoff) clear(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failures, key)
}
