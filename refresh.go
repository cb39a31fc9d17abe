package signin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	// saveWait is how long the callers of a refresh wait for its save. Then
	// they get the token, and the save goes on for as long as saveLimit. The
	// lease lives longer than that: a store that comes back after all of it
	// must not let a sibling have the old refresh token.
	saveWait  = 2 * time.Second
	saveLimit = 24 * time.Hour
	leaseTTL  = saveLimit + time.Hour
)

// refreshGrant is a session's refresh token, exchanged for a token that serves
// req. The result is kept in the session's record.
//
// The invariant: a refresh token is sent by one process at a time, and what
// comes back for it is in the store before another is sent.
type refreshGrant struct {
	*tokens
	s      *session // as last read
	req    TokenRequest
	named  []string // scopes to send by name, if exchange has found that it must
	unheld bool     // nothing held serves meanwhile
}

// refresh obtains a token for req. req.reject is a token that is held and does
// not count.
func (ts *tokens) refresh(ctx context.Context, s *session, req TokenRequest) (*renewed, error) {
	// The call goes on without its callers, who may change what they gave us.
	req.Scopes, req.Params = slices.Clone(req.Scopes), cloneParams(req.Params)
	t := s.record.find(&req)
	return ts.obtain(ctx, &refreshGrant{
		tokens: ts, s: s, req: req,
		unheld: t == nil || !t.valid(ts.now()) || !t.serves(&req),
	})
}

func (g *refreshGrant) name() string {
	_, asked := refusalKeys("", &g.req)
	return strings.Join([]string{g.s.key, string(asked), g.req.reject, g.req.Params.Encode()}, "\x00")
}

func (g *refreshGrant) lease() (string, time.Duration) {
	return seal.StoreKey("l", g.s.secret), leaseTTL
}

// early: where nothing will be sent there is nothing to exclude others from.
func (g *refreshGrant) early() bool {
	return silentRefusal(g.s.record, &g.req, g.now()) != nil
}

func (g *refreshGrant) harmless() bool { return false }
func (g *refreshGrant) needed() bool   { return g.unheld }

func (g *refreshGrant) consult(ctx context.Context) (*renewed, error) {
	s, err := g.records.fresh(ctx, g.s.secret)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, g.req.needs(ReasonSignIn, "", nil)
	}
	g.s = s
	now := g.now()
	if t := s.record.find(&g.req); t != nil && t.serves(&g.req) && t.fresh(now, g.margin) {
		return &renewed{s, t}, nil
	}
	return nil, silentRefusal(s.record, &g.req, now)
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
	if f := r.refused(req, now); f != nil && f.Reason == reasonRequest {
		return &requestError{errors.New(f.Error)}
	} else if f != nil {
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

// exchange sends the refresh token and saves what comes back.
//
// The refresh token that came back is saved before anything about the answer is
// asked of others: some issuers end the grant of a client that sends the old one.
func (g *refreshGrant) exchange(ctx context.Context, h *holding) (*renewed, error) {
	meta, err := g.issuer.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	x := &refreshing{refreshGrant: g, h: h, meta: meta, sent: g.s.record.Refresh, scopes: g.named, start: g.now()}
	if x.scopes == nil {
		x.scopes = meta.Askable(g.refreshScopes(g.s.record, &g.req), g.req.Scopes)
	}
	answer, err := g.requestRefresh(ctx, meta, h, g.s.record, x.scopes, &g.req)
	if spoilt, ok := errors.AsType[*oidc.UnusableAnswer](err); ok && spoilt.Refresh != "" {
		if !x.save(ctx, spoilt.Refresh, func(r *record) { r.rotate(x.sent, spoilt.Refresh) }) {
			return nil, g.req.needs(ReasonSignIn, "", nil)
		}
	}
	if err != nil {
		return nil, x.failed(ctx, err)
	}
	return x.answered(ctx, answer)
}

// refreshing is one token request of a refreshGrant.
type refreshing struct {
	*refreshGrant
	h      *holding
	meta   *oidc.Metadata
	sent   string   // the refresh token
	scopes []string // sent; empty: those of the refresh token
	start  time.Time
}

// answered keeps what the issuer has granted.
func (x *refreshing) answered(ctx context.Context, answer *oidc.Answer) (*renewed, error) {
	req := &x.req
	took, newest := x.now().Sub(x.start), cmp.Or(answer.RefreshToken, x.sent)
	if namesOther(x.s.record.IDToken, answer.IDToken) {
		x.records.endLater(ctx, x.s)
		x.report.event(ctx, Event{Name: EventSessionEnded, User: x.s.user, Err: errors.New("iss or sub of the refreshed ID token is another user's")})
		x.revoke(ctx, x.meta, newest)
		return nil, req.needs(ReasonSignIn, "", nil)
	}
	token := x.refreshedToken(x.s.record, answer, x.scopes, req)
	saved := x.save(ctx, newest, func(r *record) {
		r.renew(token, x.sent, answer.RefreshToken)
		if !token.meets(req) && (len(x.scopes) > 0 || len(req.Scopes) == 0) {
			_, asked := refusalKeys(r.Refresh, req)
			r.refuse(refusal{Key: asked, Reason: ReasonConsent, Time: x.start.Unix()})
		}
	})
	if !saved {
		return nil, req.needs(ReasonSignIn, "", nil)
	}
	x.backoff.clear(x.s.key)
	x.report.event(ctx, Event{Name: EventRefreshed, User: x.s.user, Scopes: token.Scopes, Duration: took})
	if answer.IDToken != "" && !x.h.passed { // a store that fails has other worries
		x.s = x.takeHint(ctx, x.meta, x.s, answer)
	}
	switch {
	case token.meets(req):
		ready := token // a save that goes on reads the other one
		ready.made = token.make(x.s.record.hint())
		return &renewed{x.s, &ready}, nil
	case len(x.scopes) == 0 && len(req.Scopes) > 0:
		x.named = x.meta.Askable(x.withReserved(req.Scopes), req.Scopes)
		return nil, errAgain{errNarrow}
	}
	// Granted less than asked for: only the user can add to it.
	return nil, req.needs(ReasonConsent, "", answer.Lack())
}

// save saves what a refresh has brought, and sets the session to what it is
// then. If the store fails the save goes on, and the lease with it. If the user
// has signed out meanwhile, save gives newest, the refresh token that is good
// now, back to the issuer and reports false: nothing may come back to life.
func (x *refreshing) save(ctx context.Context, newest string, change func(*record)) bool {
	saving, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	saved, err := x.records.update(saving, x.s, change)
	switch {
	case err == nil:
		x.s = saved
		return true
	case errors.Is(err, errSessionEnded):
		x.revoke(ctx, x.meta, newest)
		return false
	}
	x.s = x.saveLater(ctx, x.h.Lease, x.s, change, func(ctx context.Context) { x.revoke(ctx, x.meta, newest) })
	x.h.passed = true // Set last: if saveLater panics, the deferred end must still run.
	return true
}

// refreshedToken is the token of a refresh. If scopes were not sent, what was
// granted before is what was asked for (RFC 6749, 6).
func (ts *tokens) refreshedToken(r *record, answer *oidc.Answer, sent []string, req *TokenRequest) held {
	old := r.find(req)
	asked := sent
	if len(sent) == 0 {
		asked = ts.siteScopes()
		if old != nil {
			asked = old.Scopes
		}
	}
	t := ts.newHeld(answer, asked, req.Resource)
	if len(sent) == 0 && old != nil {
		t.Asked = old.Asked
	}
	site := apiScopes(ts.siteScopes())
	t.Params = paramsHash(req.Params)
	t.Default = req.Resource == "" && (len(req.Scopes) == 0 || len(sent) == 0 && old != nil && old.Default || len(site) > 0 && t.covers(site))
	t.Claims = shortHash(req.Claims)
	return t
}

// saveLater goes on saving what a store that fails did not take, and keeps
// the lease so that no sibling sends the old refresh token meanwhile. It
// returns the session as it will be. If that has ended, gone is called.
func (ts *tokens) saveLater(ctx context.Context, l *once.Lease, s *session, change func(*record), gone func(context.Context)) *session {
	next := &session{secret: s.secret, key: s.key, sealed: s.sealed, place: s.place, record: s.record.clone(), user: s.user}
	change(next.record)
	next.record.makeTokens()
	ts.report.event(ctx, Event{Name: EventStoreFailing, User: s.user, Err: errors.New("refreshed tokens are kept in hand")})
	// Under a name of its own: were another save of this session under way,
	// this one must not be taken for it.
	ts.chores.Go(ctx, "save."+l.Key+seal.Encode(seal.Random(8)), saveLimit, func(ctx context.Context) {
		defer l.End(ctx, nil)
		_, err := ts.records.update(ctx, s, change)
		switch {
		case errors.Is(err, errSessionEnded):
			gone(ctx)
		case err != nil:
			ts.report.event(ctx, Event{Name: EventStoreFailing, User: s.user, Err: fmt.Errorf("refreshed tokens lost: %w", err)})
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

// refreshScopes are those to send. None, if a held token covers the request
// by default: some issuers take scopes at a refresh for a wish to have no
// others any more. Where a token is for one API, the scopes have to name it.
func (ts *tokens) refreshScopes(r *record, req *TokenRequest) []string {
	t := r.find(req)
	if ts.issuer.Written().PerAPI() {
		scopes := req.Scopes
		if t != nil {
			scopes = ts.issuer.Written().Together(t.Asked, scopes)
		} else if len(scopes) == 0 {
			scopes = ts.siteScopes()
		}
		return ts.withReserved(ts.issuer.Written().OneAPI(scopes))
	}
	if t != nil && t.Default || t == nil && len(req.Scopes) == 0 {
		return nil
	}
	scopes := req.Scopes
	if t != nil && len(scopes) == 0 {
		scopes = t.Scopes
	}
	return ts.withReserved(scopes)
}

// siteScopes are those of Config.Scopes that the token of a request for no scopes
// is for: all of them, or those of the first one's API.
func (ts *tokens) siteScopes() []string { return ts.issuer.Written().OneAPI(ts.scopes) }

// withReserved adds the sign-in's reserved scopes, without which some issuers
// give no refresh token back.
func (ts *tokens) withReserved(scopes []string) []string {
	scopes = slices.Clone(scopes)
	for _, s := range ts.scopes {
		if family.Reserved(s) && !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

func (ts *tokens) requestRefresh(ctx context.Context, meta *oidc.Metadata, h *holding, r *record, scopes []string, req *TokenRequest) (*oidc.Answer, error) {
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
		form.Set("claims", oidc.WithCapabilities(req.Claims, ts.capabilities))
	}
	answer, err := ts.issuer.RequestToken(ctx, meta, form, h.ready)
	if err == nil && answer.AccessToken == "" && len(r.Tokens) > 0 {
		// An issuer that has given this session access tokens has failed.
		return nil, answer.Unusable(oidc.ErrNoAccessToken)
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
	_ = oidc.DecodeExact(oidc.ClaimsOf(refreshed), &after)
	if err := oidc.DecodeExact(oidc.ClaimsOf(signIn), &before); err != nil {
		return true
	}
	return after.Issuer != "" && after.Issuer != before.Issuer || after.Subject != "" && after.Subject != before.Subject
}

// takeHint keeps a refreshed ID token for the sign-out. One that is not as it
// should be is not used: the access token beside it is good, and the user has
// done nothing wrong. The user's claims stay the sign-in's in any case.
func (ts *tokens) takeHint(ctx context.Context, meta *oidc.Metadata, s *session, answer *oidc.Answer) *session {
	if err := ts.checkRefreshed(ctx, meta, s, answer); err != nil {
		ts.report.event(ctx, Event{Name: EventIDTokenIgnored, User: s.user, Err: fmt.Errorf("refreshed id token: %w", err)})
		return s
	}
	if len(answer.IDToken) > maxHint {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	signIn := s.record.IDToken
	saved, err := ts.records.update(ctx, s, func(r *record) {
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
func (ts *tokens) checkRefreshed(ctx context.Context, meta *oidc.Metadata, s *session, answer *oidc.Answer) error {
	t, err := ts.issuer.VerifyIDToken(ctx, meta, answer.IDToken, oidc.Expectation{AccessToken: answer.AccessToken})
	if err != nil {
		return err
	}
	from := s.record.Origin
	if from == nil {
		var before oidc.Claims
		if err := oidc.DecodeClaims(s.record.IDToken, &before); err != nil {
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

// failed sorts what the issuer answered: what passes, what only the user can
// mend, what nobody can, and what was refused because a sibling was faster.
func (x *refreshing) failed(ctx context.Context, err error) error {
	s, req := x.s, &x.req
	answer, _ := errors.AsType[*oidc.TokenError](err)
	bare := len(x.scopes) == 0 && req.Resource == "" && req.Claims == "" && len(req.Params) == 0
	subject := answer.Subject(x.issuer.Written(), bare)
	switch subject {
	case family.OfMoment, family.OfClient:
		err = &temporaryError{err}
		x.backoff.set(s.key, pauseAfter(answer, err, x.now()))
		x.report.event(ctx, Event{Name: EventRefreshFailed, User: s.user, Scopes: req.Scopes, Err: err})
		return err
	case family.OfGrant:
		if other := x.replaced(ctx, err); other != nil {
			return other
		}
	}
	dead, asked := refusalKeys(s.record.Refresh, req)
	f := refusal{Key: asked, Reason: reasons[subject], Claims: answer.Claims, Time: x.now().Unix()}
	refused := error(req.needs(f.Reason, cmp.Or(answer.Claims, req.Claims), err))
	switch subject {
	case family.OfGrant:
		f.Key = dead
	case family.OfRequest:
		f.Reason, f.Error = reasonRequest, text.Printable(err.Error(), maxRefusalError)
		refused = &requestError{err}
	}
	x.report.event(ctx, Event{Name: EventRefreshRefused, User: s.user, Reason: f.Reason, Scopes: req.Scopes, Err: err})
	x.remember(ctx, f)
	return refused
}

// replaced looks again at a session whose refresh token was refused. It returns
// an error if that says nothing about the session as it is now.
func (x *refreshing) replaced(ctx context.Context, refused error) error {
	now, err := x.records.fresh(ctx, x.s.secret)
	switch {
	case err != nil: // whether it was replaced is not known
		err = &temporaryError{fmt.Errorf("refresh token refused, session not read again: %w", err)}
		x.report.event(ctx, Event{Name: EventRefreshFailed, User: x.s.user, Scopes: x.req.Scopes, Err: err})
		return err
	case now == nil: // a sign-out gave the refresh token back
		return x.req.needs(ReasonSignIn, "", refused)
	case now.record.Refresh != x.s.record.Refresh:
		return errAgain{errRotated}
	}
	return nil
}

func (x *refreshing) remember(ctx context.Context, f refusal) {
	ctx, cancel := context.WithTimeout(ctx, saveWait)
	defer cancel()
	if _, err := x.records.update(ctx, x.s, func(r *record) { r.refuse(f) }); err != nil && !errors.Is(err, errSessionEnded) {
		x.report.event(ctx, Event{Name: EventStoreFailing, User: x.s.user, Err: fmt.Errorf("refusal not remembered: %w", err)})
	}
}
