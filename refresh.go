package signin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
)

const (
	// refreshLimit bounds a refresh, waiting for another replica's included.
	refreshLimit = 30 * time.Second

	// saveWait is how long the callers of a refresh wait for its save. Then
	// they get the token, and the save goes on for as long as saveLimit. The
	// lease lives longer than that: a store that comes back after all of it
	// must not let a sibling have the old refresh token.
	saveWait  = 2 * time.Second
	saveLimit = 24 * time.Hour
	leaseTTL  = saveLimit + time.Hour
)

// renewed is what a refresh came to.
type renewed struct {
	session *session
	token   *held
}

// refresh obtains a token for req, once however many ask. req.reject is a
// token that is held and does not count.
//
// The invariant: a refresh token is sent by one process at a time, and what
// comes back for it is in the store before another is sent.
func (a *Auth) refresh(ctx context.Context, s *session, req TokenRequest) (*renewed, error) {
	// The call goes on without its callers, who may change what they gave us.
	req.Scopes, req.Params = slices.Clone(req.Scopes), cloneParams(req.Params)
	_, asked := refusalKeys("", &req)
	key := strings.Join([]string{s.key, string(asked), req.reject, req.Params.Encode()}, "\x00")
	wait, cancel := context.WithTimeout(ctx, refreshLimit)
	defer cancel()
	r, err := a.refreshes.Do(wait, key, refreshLimit, func(ctx context.Context) (*renewed, error) {
		r, err := a.refreshLeased(ctx, s, &req)
		if t := s.record.find(&req); t == nil || !t.valid(a.now()) || !t.serves(&req) {
			shareFailure(ctx, err)
		}
		return r, err
	})
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return nil, &temporaryError{err}
	}
	return r, err
}

// refreshLeased refreshes while no other replica does.
func (a *Auth) refreshLeased(ctx context.Context, s *session, req *TokenRequest) (*renewed, error) {
	if silentRefusal(s.record, req, a.now()) != nil {
		// Nothing will be sent, so there is nothing to exclude others from.
		if s, r, err := a.consult(ctx, s, req); s == nil || r != nil || err != nil {
			return r, err
		}
	}
	a.issuer.metadata(ctx) // which may take its time, rather now than under the lease
	l, err := once.Exclude(ctx, a.store, seal.StoreKey("l", s.secret), leaseTTL)
	if err != nil {
		return nil, err
	}
	kept := false
	defer func() {
		if !kept {
			l.End(ctx, nil)
		}
	}()
	var scopes []string // to send, if they must be
	for range 2 {
		s, r, err := a.consult(ctx, s, req)
		if r != nil || err != nil {
			return r, err
		}
		if scopes == nil {
			scopes = a.refreshScopes(s.record, req)
		}
		r, err = a.refreshOnce(ctx, l, &kept, s, req, scopes)
		switch {
		case errors.Is(err, errNarrow) && kept: // no second before the first is saved
			return nil, &temporaryError{err}
		case errors.Is(err, errNarrow):
			scopes = a.withReserved(req.Scopes)
		case !errors.Is(err, errRotated):
			return r, err
		}
	}
	return nil, &temporaryError{errRotated}
}

// consult decides, on a fresh read, what need not be asked of the issuer: a
// sibling has been here, or the issuer has refused already. With neither it
// returns the session as it is now.
func (a *Auth) consult(ctx context.Context, s *session, req *TokenRequest) (*session, *renewed, error) {
	s, err := a.records.fresh(ctx, s.secret)
	if err != nil {
		return nil, nil, err
	}
	if s == nil {
		return nil, nil, req.needs(ReasonSignIn, "", nil)
	}
	now := a.now()
	if t := s.record.find(req); t != nil && t.serves(req) && t.fresh(now, a.cfg.ExpiryMargin) {
		return s, &renewed{s, t}, nil
	}
	return s, nil, silentRefusal(s.record, req, now)
}

// errNarrow reports an answer to a refresh without scopes that lacks some that
// were granted before: they came with another consent than the refresh token.
// They can be had by name.
var errNarrow = errors.New("the refresh token's own scopes are not all that was granted")

// errRotated reports a refresh token that was refused because it had been
// replaced meanwhile.
var errRotated = errors.New("the refresh token was replaced meanwhile")

// silentRefusal reports what is known without asking the issuer.
func silentRefusal(r *record, req *TokenRequest, now time.Time) error {
	if f := r.refused(req, now); f != nil {
		return req.needs(f.Reason, cmp.Or(f.Claims, req.Claims), nil)
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
	return req.needs(reason, req.Claims, nil)
}

// refreshOnce sends the refresh token and saves what comes back. It sets kept
// if the save, and with it the lease, goes on after it returns.
//
// The refresh token that came back is saved before anything about the answer is
// asked of others: some issuers end the grant of a client that sends the old one.
func (a *Auth) refreshOnce(ctx context.Context, l *once.Lease, kept *bool, s *session, req *TokenRequest, scopes []string) (*renewed, error) {
	meta, err := a.issuer.metadata(ctx)
	if err != nil {
		return nil, err
	}
	start := a.now()
	sent := s.record.Refresh
	answer, err := a.requestRefresh(ctx, meta, l, s.record, scopes, req)
	if spoilt, ok := errors.AsType[*unusableAnswer](err); ok && spoilt.refresh != "" {
		s = a.saveRefreshed(ctx, meta, l, kept, s, spoilt.refresh, func(r *record) { r.rotate(sent, spoilt.refresh) })
		if s == nil {
			return nil, req.needs(ReasonSignIn, "", nil)
		}
	}
	if err != nil {
		return nil, a.refreshFailed(ctx, s, req, err)
	}
	took, newest := a.now().Sub(start), cmp.Or(answer.RefreshToken, sent)
	if namesOther(s.record.IDToken, answer.IDToken) {
		a.records.endLater(ctx, s)
		a.report.event(ctx, Event{Name: EventSessionEnded, User: s.user, Err: errors.New("iss or sub of the refreshed ID token is another user's")})
		a.revokeLater(ctx, meta, newest)
		return nil, req.needs(ReasonSignIn, "", nil)
	}
	token := a.refreshedToken(s.record, answer, scopes, req)
	s = a.saveRefreshed(ctx, meta, l, kept, s, newest, func(r *record) {
		r.renew(token, sent, answer.RefreshToken)
		if !token.meets(req) && (len(scopes) > 0 || len(req.Scopes) == 0) {
			_, asked := refusalKeys(r.Refresh, req)
			r.refuse(refusal{Key: asked, Reason: ReasonConsent, Time: start.Unix()})
		}
	})
	if s == nil {
		return nil, req.needs(ReasonSignIn, "", nil)
	}
	a.backoff.clear(s.key)
	a.report.event(ctx, Event{Name: EventRefreshed, User: s.user, Scopes: token.Scopes, Duration: took})
	if answer.IDToken != "" && !*kept { // a store that fails has other worries
		s = a.takeHint(ctx, meta, s, answer)
	}
	switch {
	case token.meets(req):
	case len(scopes) == 0 && len(req.Scopes) > 0:
		return nil, errNarrow
	default:
		// Granted less than asked for: only the user can add to it.
		return nil, req.needs(ReasonConsent, "", answer.lack())
	}
	return &renewed{s, &token}, nil
}

// saveRefreshed saves what a refresh has brought, and returns the session with
// it. It sets kept if the save, and with it the lease, goes on after it returns.
// If the user has signed out meanwhile it gives newest, the refresh token that is
// good now, back to the issuer and returns nil: nothing may come back to life.
func (a *Auth) saveRefreshed(ctx context.Context, meta *metadata, l *once.Lease, kept *bool, s *session, newest string, change func(*record)) *session {
	saving, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	saved, err := a.records.update(saving, s, change)
	switch {
	case err == nil:
		return saved
	case errors.Is(err, errSessionEnded):
		a.revokeLater(ctx, meta, newest)
		return nil
	}
	next := a.saveLater(ctx, l, s, change, func(ctx context.Context) { a.revokeLater(ctx, meta, newest) })
	*kept = true // Set last: if saveLater panics, the deferred end must still run.
	return next
}

// refreshedToken is the token of a refresh. If scopes were not sent, what was
// granted before is what was asked for (RFC 6749, 6).
func (a *Auth) refreshedToken(r *record, answer *tokenAnswer, sent []string, req *TokenRequest) held {
	old := r.find(req)
	asked := sent
	if len(sent) == 0 {
		asked = a.cfg.Scopes
		if old != nil {
			asked = old.Scopes
		}
	}
	t := a.newHeld(answer, asked, req.Resource)
	if len(sent) == 0 && old != nil {
		t.Asked = old.Asked
	}
	site := apiScopes(a.cfg.Scopes)
	t.Params = paramsHash(req.Params)
	t.Default = req.Resource == "" && (len(req.Scopes) == 0 || len(sent) == 0 && old != nil && old.Default || len(site) > 0 && t.covers(site))
	t.Claims = shortHash(req.Claims)
	return t
}

// saveLater goes on saving what a store that fails did not take, and keeps
// the lease so that no sibling sends the old refresh token meanwhile. It
// returns the session as it will be. If that has ended, gone is called.
func (a *Auth) saveLater(ctx context.Context, l *once.Lease, s *session, change func(*record), gone func(context.Context)) *session {
	next := &session{secret: s.secret, key: s.key, sealed: s.sealed, place: s.place, record: s.record.clone(), user: s.user}
	change(next.record)
	a.report.event(ctx, Event{Name: EventStoreFailing, User: s.user, Err: errors.New("refreshed tokens are kept in hand")})
	// Under a name of its own: were another save of this session under way,
	// this one must not be taken for it.
	a.chores.Go(ctx, "save."+l.Key+seal.Encode(seal.Random(8)), saveLimit, func(ctx context.Context) {
		defer l.End(ctx, nil)
		_, err := a.records.update(ctx, s, change)
		switch {
		case errors.Is(err, errSessionEnded):
			gone(ctx)
		case err != nil:
			a.report.event(ctx, Event{Name: EventStoreFailing, User: s.user, Err: fmt.Errorf("refreshed tokens lost: %w", err)})
		}
	})
	return next
}

// endLater deletes a session that must not go on, when the store lets us.
func (rs *records) endLater(ctx context.Context, s *session) {
	if once.Delete(ctx, rs.store, s.key) == nil {
		rs.unindexLater(ctx, s)
		return
	}
	rs.chores.Go(ctx, "end."+s.key, saveLimit, func(ctx context.Context) {
		if once.Insist(ctx, func() error { return once.Delete(ctx, rs.store, s.key) }) == nil {
			rs.unindexLater(ctx, s)
		}
	})
}

func cloneParams(params url.Values) url.Values {
	c := maps.Clone(params)
	for name, values := range c {
		c[name] = slices.Clone(values)
	}
	return c
}

// refreshScopes are those to send. None, if a held token covers the request
// by default: some issuers take scopes at a refresh for a wish to have no
// others any more.
func (a *Auth) refreshScopes(r *record, req *TokenRequest) []string {
	t := r.find(req)
	if t != nil && t.Default || t == nil && len(req.Scopes) == 0 {
		return nil
	}
	scopes := req.Scopes
	if t != nil && len(scopes) == 0 {
		scopes = t.Scopes
	}
	return a.withReserved(scopes)
}

// withReserved adds the sign-in's reserved scopes, without which some issuers
// give no refresh token back.
func (a *Auth) withReserved(scopes []string) []string {
	scopes = slices.Clone(scopes)
	for _, s := range a.cfg.Scopes {
		if isReserved(s) && !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

func (a *Auth) requestRefresh(ctx context.Context, meta *metadata, l *once.Lease, r *record, scopes []string, req *TokenRequest) (*tokenAnswer, error) {
	form := cloneParams(req.Params)
	if form == nil {
		form = url.Values{}
	}
	form.Set("grant_type", "refresh_token")
	form.Set("refresh_token", r.Refresh)
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if req.Resource != "" {
		form.Set("resource", req.Resource)
	}
	if req.Claims != "" {
		form.Set("claims", withCapabilities(req.Claims, a.cfg.ClientCapabilities))
	}
	answer, err := a.requestTokenIf(ctx, meta, form, l.Sure)
	if err == nil && answer.AccessToken == "" && len(r.Tokens) > 0 {
		// An issuer that has given this session access tokens has failed.
		return nil, &unusableAnswer{errNoAccessToken, answer.RefreshToken}
	}
	return answer, err
}

// namesOther reports whether a refreshed ID token names another issuer or
// subject than the sign-in's (OpenID Connect Core, 12.2). It does not ask for a
// signature: that of a token that names another user makes nothing better.
func namesOther(signIn, refreshed string) bool {
	var before, after struct {
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
	}
	// What cannot be read names nobody: such a token is not used, and that is all.
	_ = decodeExact(claimsOf(refreshed), &after)
	if err := decodeExact(claimsOf(signIn), &before); err != nil {
		return true
	}
	return after.Issuer != "" && after.Issuer != before.Issuer || after.Subject != "" && after.Subject != before.Subject
}

// takeHint keeps a refreshed ID token for the sign-out. One that is not as it
// should be is not used: the access token beside it is good, and the user has
// done nothing wrong. The user's claims stay the sign-in's in any case.
func (a *Auth) takeHint(ctx context.Context, meta *metadata, s *session, answer *tokenAnswer) *session {
	if err := a.checkRefreshed(ctx, meta, s, answer); err != nil {
		a.report.event(ctx, Event{Name: EventIDTokenIgnored, User: s.user, Err: fmt.Errorf("refreshed id token: %w", err)})
		return s
	}
	if len(answer.IDToken) > maxHint {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	signIn := s.record.IDToken
	saved, err := a.records.update(ctx, s, func(r *record) {
		if r.IDToken == signIn { // no later sign-in has brought a newer one
			r.Hint = answer.IDToken
			r.trim()
		}
	})
	if err != nil {
		return s // the one before it may do
	}
	return saved
}

// checkRefreshed holds a refreshed ID token against the sign-in that the
// refresh token is from (OpenID Connect Core, 12.2).
func (a *Auth) checkRefreshed(ctx context.Context, meta *metadata, s *session, answer *tokenAnswer) error {
	t, err := a.verifyIDToken(ctx, meta, answer.IDToken, expectation{accessToken: answer.AccessToken})
	if err != nil {
		return err
	}
	from := s.record.Origin
	if from == nil {
		var before idClaims
		if err := decodeClaims(s.record.IDToken, &before); err != nil {
			return err
		}
		from = newOrigin(before)
	}
	if t.Nonce != "" && !bytes.Equal(shortHash(t.Nonce), from.Nonce) {
		return errors.New("nonce is not the sign-in's")
	}
	if t.AuthTime != nil && from.AuthTime != 0 && t.AuthTime.Unix() != from.AuthTime {
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
		err = &temporaryError{err}
		a.backoff.set(s.key, pauseAfter(answer, err, a.now()))
		a.report.event(ctx, Event{Name: EventRefreshFailed, User: s.user, Scopes: req.Scopes, Err: err})
		return err
	}
	if reason == ReasonRefused {
		now, readErr := a.records.fresh(ctx, s.secret)
		switch {
		case readErr != nil: // whether it was replaced is not known
			err = &temporaryError{fmt.Errorf("refresh token refused, session not read again: %w", readErr)}
			a.report.event(ctx, Event{Name: EventRefreshFailed, User: s.user, Scopes: req.Scopes, Err: err})
			return err
		case now == nil: // a sign-out gave the refresh token back
			return req.needs(ReasonSignIn, "", err)
		case now.record.Refresh != s.record.Refresh:
			return errRotated
		}
	}
	a.report.event(ctx, Event{Name: EventRefreshRefused, User: s.user, Reason: reason, Scopes: req.Scopes, Err: err})
	dead, asked := refusalKeys(s.record.Refresh, req)
	f := refusal{Key: asked, Reason: reason, Claims: answer.claims, Time: a.now().Unix()}
	if reason == ReasonRefused {
		f.Key = dead
	}
	ctx, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	if _, saveErr := a.records.update(ctx, s, func(r *record) { r.refuse(f) }); saveErr != nil && !errors.Is(saveErr, errSessionEnded) {
		a.report.event(ctx, Event{Name: EventStoreFailing, User: s.user, Err: fmt.Errorf("refusal not remembered: %w", saveErr)})
	}
	return req.needs(reason, cmp.Or(answer.claims, req.Claims), err)
}
