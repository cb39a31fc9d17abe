package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// refreshLimit bounds a refresh, waiting for another replica's included.
	refreshLimit = 30 * time.Second

	// saveWait is how long the callers of a refresh wait for its save. Then
	// they get the token, and the save goes on for as long as saveLimit.
	saveWait  = 2 * time.Second
	saveLimit = 10 * time.Minute
)

// renewed is what a refresh came to.
type renewed struct {
	session *session
	token   *held
}

// refresh obtains a token for req, once however many ask. known is an access
// token that is held and does not count; req.reject is another.
//
// The invariant: a refresh token is sent by one process at a time, and what
// comes back for it is in the store before another is sent.
func (a *Auth) refresh(ctx context.Context, s *session, req TokenRequest, known string) (*renewed, error) {
	_, asked := refusalKeys("", &req)
	ctx, cancel := context.WithTimeout(ctx, refreshLimit)
	defer cancel()
	return a.refreshes.do(ctx, s.key+string(asked)+known+req.reject+req.Params.Encode(), refreshLimit, func(ctx context.Context) (*renewed, error) {
		l, _, err := acquire(ctx, a.store, storeKey("l", s.secret), saveLimit)
		if err != nil {
			return nil, err
		}
		kept := false
		defer func() {
			if !kept {
				l.end(ctx, nil)
			}
		}()
		for range 2 {
			// What is decided under the lease is decided on a fresh read.
			s, err := a.freshSession(ctx, s.secret)
			if err != nil {
				return nil, err
			}
			if s == nil {
				return nil, &InteractionRequiredError{Reason: ReasonSignIn, Scopes: req.Scopes, Resource: req.Resource}
			}
			now := a.now()
			if t := s.record.find(&req); t != nil && t.Access != req.reject && t.Access != known && req.Claims == "" && t.fresh(now, a.cfg.ExpiryMargin) {
				return &renewed{s, t}, nil // a sibling has been here
			}
			if err := silentRefusal(s.record, &req, now); err != nil {
				return nil, err
			}
			r, err := a.refreshOnce(ctx, l, &kept, s, &req)
			if err == nil || !errors.Is(err, errRotated) {
				return r, err
			}
		}
		return nil, errRotated
	})
}

// errRotated reports a refresh token that was refused because it had been
// replaced meanwhile.
var errRotated = errors.New("signin: refresh: the refresh token was replaced meanwhile")

// silentRefusal reports what is known without asking the issuer.
func silentRefusal(r *record, req *TokenRequest, now time.Time) error {
	if f := r.refused(req, now); f != nil {
		return &InteractionRequiredError{Reason: f.Reason, Scopes: req.Scopes, Resource: req.Resource, Claims: cmp.Or(f.Claims, req.Claims)}
	}
	if r.Refresh != "" {
		return nil
	}
	reason := ReasonRefused
	switch {
	case req.Claims != "":
		reason = ReasonClaims
	case r.find(req) == nil:
		reason = ReasonConsent
	}
	return &InteractionRequiredError{Reason: reason, Scopes: req.Scopes, Resource: req.Resource, Claims: req.Claims}
}

// refreshOnce sends the refresh token and saves what comes back. It sets kept
// if the save, and with it the lease, goes on after it returns.
func (a *Auth) refreshOnce(ctx context.Context, l *lease, kept *bool, s *session, req *TokenRequest) (*renewed, error) {
	meta, err := a.issuer.metadata(ctx)
	if err != nil {
		return nil, err
	}
	start := a.now()
	scopes := a.refreshScopes(s.record, req)
	answer, err := a.requestRefresh(ctx, meta, s.record.Refresh, scopes, req)
	if err != nil {
		return nil, a.refreshFailed(ctx, s, req, err)
	}
	if answer.IDToken != "" {
		if err := a.checkRefreshed(ctx, meta, s, answer); err != nil {
			a.store.Delete(ctx, s.key)
			a.event(ctx, Event{Name: eventSessionEnded, User: s.user, Err: fmt.Errorf("refreshed id token: %w", err)})
			a.revokeLater(ctx, meta, cmp.Or(answer.RefreshToken, s.record.Refresh))
			return nil, &InteractionRequiredError{Reason: ReasonSignIn, Scopes: req.Scopes, Resource: req.Resource}
		}
	}
	asked := scopes
	old := s.record.find(req)
	if len(asked) == 0 {
		if asked = a.cfg.Scopes; old != nil {
			asked = old.Scopes
		}
	}
	token := a.newHeld(answer, asked, req.Resource)
	token.Default = req.Resource == "" && (old != nil && old.Default || len(req.Scopes) == 0 || token.covers(unreserved(a.cfg.Scopes)) && len(unreserved(a.cfg.Scopes)) > 0)
	change := func(r *record) { r.add(token, answer.RefreshToken) }
	a.backoff.clear(s.key)
	a.event(ctx, Event{Name: eventRefreshed, User: s.user, Scopes: req.Scopes, Duration: a.now().Sub(start)})

	saving, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	saved, err := a.update(saving, s, change)
	switch {
	case err == nil:
		s = saved
	case errors.Is(err, errSessionEnded):
		// Signed out while we asked. Nothing may come back to life.
		a.revokeLater(ctx, meta, cmp.Or(answer.RefreshToken, s.record.Refresh))
		return nil, &InteractionRequiredError{Reason: ReasonSignIn, Scopes: req.Scopes, Resource: req.Resource}
	default:
		*kept = true
		s = a.saveLater(ctx, l, s, change)
	}
	if t := s.record.find(req); t == nil {
		// Granted less than asked for: only the user can add to it.
		return nil, &InteractionRequiredError{Reason: ReasonConsent, Scopes: req.Scopes, Resource: req.Resource}
	}
	return &renewed{s, &token}, nil
}

// saveLater goes on saving what a store that fails did not take, and keeps
// the lease so that no sibling sends the old refresh token meanwhile. It
// returns the session as it will be.
func (a *Auth) saveLater(ctx context.Context, l *lease, s *session, change func(*record)) *session {
	next := *s
	next.record = s.record.clone()
	change(next.record)
	a.event(ctx, Event{Name: eventStoreFailing, User: s.user, Err: errors.New("refreshed tokens are kept in hand")})
	a.background(ctx, "save."+l.key, saveLimit, func(ctx context.Context) {
		_, err := a.update(ctx, s, change)
		if err != nil && !errors.Is(err, errSessionEnded) {
			a.event(ctx, Event{Name: eventStoreFailing, User: s.user, Err: fmt.Errorf("refreshed tokens lost: %w", err)})
		}
		l.end(ctx, nil)
	})
	return &next
}

// refreshScopes are those to send. None, if a held token covers the request
// by default: some issuers take scopes at a refresh for a wish to have no
// others any more.
func (a *Auth) refreshScopes(r *record, req *TokenRequest) []string {
	t := r.find(req)
	if t != nil && t.Default || t == nil && len(req.Scopes) == 0 {
		return nil
	}
	scopes := slices.Clone(req.Scopes)
	if t != nil && len(scopes) == 0 {
		scopes = slices.Clone(t.Scopes)
	}
	for _, s := range a.cfg.Scopes {
		if isReserved(s) && !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

func (a *Auth) requestRefresh(ctx context.Context, meta *metadata, refresh string, scopes []string, req *TokenRequest) (*tokenAnswer, error) {
	form := url.Values{}
	for name, values := range req.Params {
		form[name] = slices.Clone(values)
	}
	form.Set("grant_type", "refresh_token")
	form.Set("refresh_token", refresh)
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if req.Resource != "" {
		form.Set("resource", req.Resource)
	}
	if req.Claims != "" {
		form.Set("claims", req.Claims)
	}
	return a.requestToken(ctx, meta, form)
}

// checkRefreshed holds a refreshed ID token against the sign-in's (OpenID
// Connect Core, 12.2). If the issuer's keys cannot be had the token is
// ignored: it came over TLS from the token endpoint and changes nothing.
func (a *Auth) checkRefreshed(ctx context.Context, meta *metadata, s *session, answer *tokenAnswer) error {
	var before idClaims
	if err := decodeClaims(s.record.IDToken, &before); err != nil {
		return err
	}
	t, err := a.verifyIDToken(ctx, meta, answer.IDToken, expectation{accessToken: answer.AccessToken})
	if _, lost := errors.AsType[*issuerError](err); lost {
		return nil
	}
	if err != nil {
		return err
	}
	if err := sameUser(before, t.idClaims); err != nil {
		return err
	}
	if t.Nonce != "" && t.Nonce != before.Nonce {
		return errors.New("nonce is not the sign-in's")
	}
	if t.AuthTime != nil && before.AuthTime != nil && !t.AuthTime.Equal(before.AuthTime.Time) {
		return errors.New("auth_time is not the sign-in's")
	}
	return nil
}

// refreshFailed sorts what the issuer answered: what passes, what only the
// user can mend, and what was refused because a sibling was faster.
func (a *Auth) refreshFailed(ctx context.Context, s *session, req *TokenRequest, err error) error {
	answer, _ := errors.AsType[*tokenError](err)
	reason := reasonFor(answer, req)
	if reason == "" {
		until := a.now().Add(time.Second)
		if answer != nil && answer.retryAfter.After(until) {
			until = answer.retryAfter
		}
		a.backoff.set(s.key, until)
		a.event(ctx, Event{Name: eventRefreshFailed, User: s.user, Scopes: req.Scopes, Err: err})
		return &temporaryError{err}
	}
	if reason == ReasonRefused {
		now, readErr := a.freshSession(ctx, s.secret)
		if readErr == nil && now != nil && now.record.Refresh != s.record.Refresh {
			return errRotated
		}
	}
	a.event(ctx, Event{Name: eventRefreshRefused, User: s.user, Reason: reason, Scopes: req.Scopes, Err: err})
	dead, asked := refusalKeys(s.record.Refresh, req)
	f := refusal{Key: asked, Reason: reason, Claims: answer.claims, Time: a.now().Unix()}
	if reason == ReasonRefused {
		f.Key = dead
	}
	ctx, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	if _, saveErr := a.update(ctx, s, func(r *record) { r.refuse(f) }); saveErr != nil && !errors.Is(saveErr, errSessionEnded) {
		a.event(ctx, Event{Name: eventStoreFailing, User: s.user, Err: fmt.Errorf("refusal not remembered: %w", saveErr)})
	}
	return &InteractionRequiredError{Reason: reason, Scopes: req.Scopes, Resource: req.Resource, Claims: cmp.Or(answer.claims, req.Claims), Cause: err}
}

// reasonFor says why the user must act, or nothing if a failure passes or is
// the configuration's. Any OAuth error of a 4xx answer that is not about the
// client means a dead refresh token: Dex answers invalid_request.
func reasonFor(e *tokenError, req *TokenRequest) Reason {
	if e == nil || e.status() >= 500 || e.status() == http.StatusTooManyRequests || e.status() == http.StatusRequestTimeout {
		return ""
	}
	switch e.ErrorCode {
	case "": // not an OAuth answer: a proxy's, or a wrong address
		return ""
	case "temporarily_unavailable", "server_error", "slow_down", "error": // Hydra says error under load
		return ""
	case "invalid_client", "unauthorized_client", "unsupported_grant_type", "unsupported_client_assertion_type":
		return ""
	case "invalid_scope", "invalid_target", "consent_required":
		return ReasonConsent
	case "interaction_required", "login_required":
		return ReasonClaims
	}
	switch e.suberror {
	case "consent_required":
		return ReasonConsent
	case "basic_action", "additional_action", "message_only", "protection_policy_required", "client_mismatch":
		return ReasonClaims
	}
	if e.claims != "" {
		return ReasonClaims
	}
	return ReasonRefused
}

// temporaryError is a refresh that failed in a way that may pass.
type temporaryError struct{ cause error }

func (e *temporaryError) Error() string { return "signin: refresh: " + e.cause.Error() }
func (e *temporaryError) Unwrap() error { return e.cause }

// backoff remembers, in this process, until when an issuer that failed is not
// asked again for a session whose token still serves.
type backoff struct {
	mu    sync.Mutex
	until map[string]time.Time // guarded by mu
}

func (b *backoff) waiting(key string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Before(b.until[key])
}

func (b *backoff) set(key string, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until == nil || len(b.until) >= 10_000 {
		b.until = make(map[string]time.Time) // forgetting costs a request each
	}
	b.until[key] = until
}

func (b *backoff) clear(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.until, key)
}
