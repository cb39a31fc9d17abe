package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	// refusedLifetime is how long a code that the issuer has refused is
	// remembered, by this process only.
	refusedLifetime = time.Minute

	claimDone   = 'D'
	claimFailed = 'F'
)

// redeemed is what a redemption left behind.
type redeemed struct {
	secret []byte // of the session; nil: none to write
	unmet  unmet
}

// redeemer exchanges codes for sessions, each once.
type redeemer struct {
	records *records
	tokens  *tokens
	issuer  *oidc.Issuer
	store   Store
	keys    seal.Keyring
	report  *reporter
	notices *notices
	now     func() time.Time

	// Of Config.
	scopes   []string
	lifetime time.Duration
	skew     time.Duration

	flights once.Flights[*redeemed]
	refused backoff // codes, by the key of their claim
}

// redeemOnce redeems a code, or returns what the redemption came to when it
// was done before, here or on another replica. Only the browser that began
// gets here: its cookie opens the outcome. If whoever claimed the state died,
// the code may have been spent, and it is not tried again.
//
// A code that the issuer has refused leaves nothing in the store: with
// [Config].ResponseType "code" anybody can come here with a made-up one, and
// each would be kept for as long as a claim. Nothing has been issued for it, so
// sending it once more could spend nothing twice.
func (rd *redeemer) redeemOnce(ctx context.Context, meta *oidc.Metadata, tx *transaction, b *browser, code string, front *oidc.IDToken) (*redeemed, error) {
	key := seal.StoreKey("c", tx.ID)
	if rd.refused.waiting(key, rd.now()) != nil {
		return nil, errStale
	}
	claim, outcome, err := once.Acquire(ctx, rd.store, key, claimLifetime)
	if err != nil {
		return nil, err
	}
	if outcome != nil {
		return rd.settled(ctx, key, outcome, b)
	}
	// Deferred, for a panic must not leave a claim that is kept for ever.
	left := []byte{claimFailed}
	defer func() { rd.endClaim(ctx, claim, left) }()
	refused := func() {
		left = nil
		rd.refused.set(key, failure{err: errStale, until: rd.now().Add(refusedLifetime)})
	}
	switch {
	case claim.Orphaned:
		return nil, errStale
	case claim.Followed: // whoever held it has had the code refused
		refused()
		return nil, errStale
	}
	done, err := rd.redeem(ctx, meta, tx, b, code, front)
	if refusesCode(err) {
		refused()
		once.Sleep(ctx, failureShared) // copies of this callback, which wait for the claim
	}
	if err != nil {
		return nil, err
	}
	plain := append([]byte{byte(done.unmet)}, done.secret...)
	left = append([]byte{claimDone}, rd.keys.Seal("claim", b.secret, []byte(key), plain)...)
	return done, nil
}

// endClaim leaves the outcome for those who come later. Should it get lost,
// they find a claim whose owner is gone and start anew.
func (rd *redeemer) endClaim(ctx context.Context, claim *once.Lease, outcome []byte) {
	if err := claim.End(ctx, outcome); err != nil {
		rd.report.event(ctx, Event{Name: EventStoreFailing, Err: fmt.Errorf("claim not settled: %w", err)})
	}
}

// settled reads an outcome. A session that has ended since is not brought
// back: its cookie would push out that of a session begun meanwhile.
func (rd *redeemer) settled(ctx context.Context, key string, outcome []byte, b *browser) (*redeemed, error) {
	if outcome[0] != claimDone {
		return nil, errStale
	}
	plain, err := rd.keys.Open("claim", b.secret, []byte(key), outcome[1:])
	if err != nil || len(plain) != 1+secretLen {
		return nil, errStale
	}
	done := &redeemed{secret: plain[1:], unmet: unmet(plain[0])}
	s, err := rd.records.fresh(ctx, done.secret)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errStale
	}
	return done, nil
}

// redeem exchanges the code in one token request. If nothing comes of the
// answer, its refresh token is given back to the issuer.
func (rd *redeemer) redeem(ctx context.Context, meta *oidc.Metadata, tx *transaction, b *browser, code string, front *oidc.IDToken) (*redeemed, error) {
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {tx.Redirect},
		"code_verifier": {b.verifier(tx.ID)},
	}
	if tx.Resource != "" {
		form.Set("resource", tx.Resource)
	}
	if meta.Rule.Family.ClientInfo {
		form.Set("client_info", "1")
	}
	if rd.issuer.Written().PerAPI() {
		// The code may be for several APIs, and the token is for one (AADSTS28003).
		form.Set("scope", strings.Join(meta.Askable(rd.tokenScopes(tx), tx.Scopes), " "))
	}
	answer, err := rd.issuer.RequestToken(ctx, meta, form, nil)
	if err != nil {
		if spoilt, ok := errors.AsType[*oidc.UnusableAnswer](err); ok {
			rd.tokens.revoke(ctx, meta, spoilt.Refresh)
		}
		return nil, redemptionFailed(tx.Return, err)
	}
	done, err := rd.accept(ctx, meta, tx, b, code, front, answer)
	if err != nil {
		rd.tokens.revoke(ctx, meta, answer.RefreshToken) // nobody will use it
	}
	return done, err
}

// accept checks the second ID token against the first and the challenge, and
// saves the session.
func (rd *redeemer) accept(ctx context.Context, meta *oidc.Metadata, tx *transaction, b *browser, code string, front *oidc.IDToken, answer *oidc.Answer) (*redeemed, error) {
	if n := len(answer.IDToken); n > oidc.MaxIDToken {
		return nil, redemptionFailed(tx.Return, oidc.TooLarge("the ID token", n, oidc.MaxIDToken))
	}
	want := rd.expect(tx, b)
	want.Code, want.AccessToken = code, answer.AccessToken
	back, err := rd.issuer.VerifyIDToken(ctx, meta, answer.IDToken, want)
	if err != nil {
		return nil, tx.rejected("token endpoint", err)
	}
	if front != nil {
		if err := oidc.SameUser(front.Claims, back.Claims); err != nil {
			return nil, tx.rejected("token endpoint", err)
		}
	}
	asked := meta.Askable(rd.tokenScopes(tx), tx.Scopes)
	token := rd.tokens.newHeld(answer, asked, tx.Resource)
	site := rd.tokens.siteScopes()
	token.Default = tx.Resource == "" && rd.issuer.Written().SameAPI(asked, site) && (!tx.Interactive || token.covers(apiScopes(site)))
	s, err := rd.saveSignIn(ctx, tx, b, back, answer, token)
	if err != nil {
		return nil, err
	}
	rd.notices.signedIn(back.Claims)
	rd.report.event(ctx, Event{Name: EventSignedIn, Reference: tx.id(), User: s.user, Duration: rd.now().Sub(answer.Asked)})
	done := &redeemed{secret: s.secret}
	switch {
	case !token.covers(rd.issuer.Written().Told(tx.Scopes, asked)):
		done.unmet = unmetScopes
	case tx.Interactive && len(tx.ACR) == 0 && tx.MaxAge == nil && answer.AccessToken == "":
		done.unmet = unmetScopes // it was for a token, and another trip would bring none either
	case tx.Required && !meetsACR(s.user, tx.ACR):
		done.unmet = unmetACR
	}
	return done, nil
}

// saveSignIn writes a new session, or extends the one the challenge named.
// It is extended only for what the same user added to it; a sign-in gets a
// new id, and of another user's session nothing is carried over. It reports
// errStale if the session to extend, or the user, has been signed out since
// the challenge.
func (rd *redeemer) saveSignIn(ctx context.Context, tx *transaction, b *browser, id *oidc.IDToken, answer *oidc.Answer, token held) (*session, error) {
	home := homeAccount(answer.ClientInfo)
	var before *session
	if secret, err := rd.keys.Open("extend", b.secret, tx.ID, tx.Session); err == nil {
		err := once.Insist(ctx, func() (err error) {
			before, err = rd.records.fresh(ctx, secret)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if tx.Interactive && before == nil {
		return nil, errStale
	}
	if tx.Interactive && before.user.Issuer == id.Issuer && before.user.Subject == id.Subject {
		err := once.Insist(ctx, func() error {
			entry := indexed{Key: before.key, Expires: before.record.Expires, SID: id.SessionID != "", Alg: id.Alg}
			return rd.records.enter(ctx, rd.records.placesOf(id.Claims, before.record.Browser), entry, "", tx.Moment)
		})
		if err != nil {
			return nil, err
		}
		s, err := rd.records.update(ctx, before, func(r *record) {
			r.IDToken, r.Hint = id.Raw(), ""
			if home != "" {
				r.HomeAccount = home
			}
			r.add(token, answer.RefreshToken)
		})
		if errors.Is(err, errSessionEnded) {
			err = errStale
		}
		return s, err
	}
	now := rd.now()
	r := &record{
		Created: now.Unix(), Seen: now.Unix(), Expires: now.Add(rd.lifetime).Unix(),
		IDToken: id.Raw(), HomeAccount: home, Browser: b.hash(),
	}
	r.add(token, answer.RefreshToken)
	s, err := rd.records.create(ctx, r, tx.Moment)
	if err != nil {
		return nil, err
	}
	if before != nil {
		// If this fails, the old record ends by its own time: no cookie is
		// left that names it.
		if once.Delete(ctx, rd.store, before.key) == nil {
			rd.records.unindexLater(ctx, before)
		}
	}
	return s, nil
}

// refusesCode reports whether the issuer has certainly issued nothing for a
// code. An answer that speaks of a failure of its own may have come too late.
func refusesCode(err error) bool {
	e, ok := errors.AsType[*oidc.TokenError](err)
	switch {
	case !ok || e.Status() >= 500 || e.Status() == http.StatusRequestTimeout:
		return false
	case e.ErrorCode == "" || e.Status() == http.StatusTooManyRequests:
		return e.Status() >= 400 // turned away before anybody looked at the code
	}
	return !e.Passes()
}

// redemptionFailed tells what a user can wait out from what they cannot.
func redemptionFailed(again string, err error) error {
	if large, ok := errors.AsType[*oidc.TooLargeError](err); ok {
		return &rejection{newTooLargePage(large, again), err}
	}
	kind := PageRedeemUnreachable
	answer, refused := errors.AsType[*oidc.TokenError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		kind = PageRedeemTimeout
	case refused && answer.Status() < 500:
		kind = PageRedeemRefused
	}
	return &rejection{newPage(kind, again), err}
}

// homeAccount is uid.utid of Entra's client_info, or nothing. It came over
// TLS from the token endpoint, which is all that vouches for it.
func homeAccount(clientInfo string) string {
	raw, err := seal.Decode(strings.TrimRight(clientInfo, "="))
	if err != nil || len(raw) > 1024 {
		return ""
	}
	var info struct {
		UID  string `json:"uid"`
		UTID string `json:"utid"`
	}
	if json.Unmarshal(raw, &info) != nil || info.UID == "" || info.UTID == "" || strings.Contains(info.UID, ".") {
		return ""
	}
	return info.UID + "." + info.UTID
}

func (rd *redeemer) expect(tx *transaction, b *browser) oidc.Expectation {
	return oidc.Expectation{Nonce: b.nonce(tx.ID), MaxAge: tx.MaxAge, Challenged: tx.began()}
}

// challengeScopes are the sign-in's and those needed. Scopes of a resource
// named in the request stand alone with the reserved ones: the issuer would
// take the others for that resource's.
func (rd *redeemer) challengeScopes(tx *transaction) []string {
	var scopes []string
	for _, s := range rd.scopes {
		if tx.Resource == "" || family.Reserved(s) {
			scopes = append(scopes, s)
		}
	}
	if tx.Interactive && rd.issuer.Written().PerAPI() {
		// Who is signed in is asked for what a page needs. The sign-in's scopes go
		// along where they can.
		return rd.issuer.Written().Together(tx.Scopes, scopes)
	}
	return rd.issuer.Written().Together(scopes, tx.Scopes)
}

// tokenScopes are those of a challenge's that its token is for: all of them, or
// those of one API. That is the page's where a page asked for more than the
// sign-in, else the site's.
func (rd *redeemer) tokenScopes(tx *transaction) []string {
	return rd.issuer.Written().OneAPI(rd.challengeScopes(tx))
}

// rejection is a callback that ends in an error page.
type rejection struct {
	page  Page
	cause error
}

func (e *rejection) Error() string { return "signin: callback: " + e.cause.Error() }

func (e *rejection) Unwrap() error { return e.cause }

func reject(kind PageKind, link, cause string) error {
	return &rejection{newPage(kind, link), errors.New(cause)}
}

// rejected is a bad ID token, unless it is the issuer's keys that could not be
// had. Where a page requires a recent sign-in, what is missing is named.
func (t *transaction) rejected(where string, err error) error {
	if _, ok := errors.AsType[*oidc.Error](err); ok {
		return err
	}
	page := newPage(PageTokenRejected, t.Return)
	switch {
	case errors.Is(err, family.ErrTenant):
		page = newPage(PageAccountRefused, t.Return)
	case errors.Is(err, oidc.ErrAuthTime) && t.Required:
		page.Text += " It had to be recent (max_age " + strconv.FormatInt(*t.MaxAge, 10) + "), and is not, or does not say."
	}
	return &rejection{page, errors.New("id token, " + where + ": " + text.Printable(err.Error(), 300))}
}
