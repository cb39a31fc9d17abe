package signin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/text"
	"golang.org/x/oauth2"
)

const (
	// refusedLifetime is how long a code that the issuer has refused is
	// remembered, by this process only.
	refusedLifetime = time.Minute

	claimDone       = 'D'
	claimFailed     = 'F'
	claimRefused    = 'R' // by OnSignIn; its words, sealed
	claimUnfinished = 'U' // the issuer's answer, sealed

	// hookLimit is how long OnSignIn may take.
	hookLimit = 10 * time.Second
)

// arrival is an answer of the issuer's, by way of the browser, that has passed
// every check there is before the code is redeemed.
type arrival struct {
	tx    *transaction
	b     *browser
	code  string
	front *oidc.IDToken // nil with ResponseType "code"

	form    url.Values    // its other fields
	request *http.Request // that brought it
}

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
	hook     func(context.Context, *SignIn) error // OnSignIn

	flights once.Flights[*redeemed]
	refused backoff  // codes, by the key of their claim
	hooked  sync.Map // ids of the transactions that OnSignIn is at
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
//
// What could not be finished for a cause that may pass is left sealed in place of
// the claim, the issuer's answer with it: the code is spent, and a reload goes on.
func (rd *redeemer) redeemOnce(ctx context.Context, meta *oidc.Metadata, in *arrival) (*redeemed, error) {
	key := seal.StoreKey("c", in.tx.ID)
	if rd.refused.waiting(key, rd.now()) != nil {
		return nil, errStale
	}
	claim, outcome, err := once.Resume(ctx, rd.store, key, claimLifetime, isUnfinished)
	if err != nil {
		return nil, err
	}
	if outcome != nil {
		return rd.settled(ctx, key, outcome, in)
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
	kept := rd.unseal(in, key, claim.Resumed)
	if kept == nil && claim.Resumed != nil {
		return nil, errStale // the code is spent, and its answer cannot be read any more
	}
	done, err := rd.redeem(ctx, meta, in, kept)
	if refusesCode(err) {
		refused()
		once.Sleep(ctx, failureShared) // copies of this callback, which wait for the claim
	}
	outcomeOf := func(mark byte, plain []byte) []byte {
		return append([]byte{mark}, rd.keys.Seal("claim", in.b.secret, []byte(key), plain)...)
	}
	if unfinished, ok := errors.AsType[*unfinishedError](err); ok {
		left = outcomeOf(claimUnfinished, seal.Pack(unfinished.answer.Pack()))
	}
	if refusal, ok := errors.AsType[*RefusedError](err); ok {
		left = outcomeOf(claimRefused, []byte(plainText(refusal.Text, maxQuote)))
	}
	if err != nil {
		return nil, err
	}
	left = outcomeOf(claimDone, append([]byte{byte(done.unmet)}, done.secret...))
	return done, nil
}

// unfinishedError is a sign-in that may be finished with the same answer.
type unfinishedError struct {
	cause  error
	answer *oidc.Answer // nil: another holds it
}

func (e *unfinishedError) Error() string { return "signin: sign-in not finished: " + e.cause.Error() }

func (e *unfinishedError) Unwrap() error { return e.cause }

func isUnfinished(outcome []byte) bool { return outcome[0] == claimUnfinished }

// unseal opens an outcome, which only the browser that began can have opened. It
// is nil if there is none that opens.
func (rd *redeemer) unseal(in *arrival, key string, outcome []byte) []byte {
	if len(outcome) == 0 {
		return nil
	}
	plain, err := rd.keys.Open("claim", in.b.secret, []byte(key), outcome[1:])
	if err != nil {
		return nil
	}
	return plain
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
func (rd *redeemer) settled(ctx context.Context, key string, outcome []byte, in *arrival) (*redeemed, error) {
	plain := rd.unseal(in, key, outcome)
	switch {
	case outcome[0] == claimUnfinished && plain != nil:
		return nil, &unfinishedError{errors.New("another request has just failed to finish it"), nil}
	case outcome[0] == claimRefused && plain != nil:
		return nil, refusedSignIn(in.tx, &RefusedError{Text: string(plain)})
	case outcome[0] != claimDone || len(plain) != 1+secretLen:
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

// redeem exchanges the code in one token request, unless the answer to it was
// kept from an attempt that was not finished. If nothing comes of the answer, its
// refresh token is given back to the issuer.
func (rd *redeemer) redeem(ctx context.Context, meta *oidc.Metadata, in *arrival, kept []byte) (*redeemed, error) {
	answer, err := unpackAnswer(kept)
	if err == nil && answer == nil {
		answer, err = rd.requestCode(ctx, meta, in)
	}
	if err != nil {
		return nil, err
	}
	done, err := rd.accept(ctx, meta, in, answer)
	if unfinished, ok := errors.AsType[*unfinishedError](err); ok {
		unfinished.answer = answer
	} else if err != nil {
		rd.tokens.revoke(ctx, meta, answer.RefreshToken) // nobody will use it
	}
	return done, err
}

// unpackAnswer reads an answer that was kept. Of nothing it makes nil.
func unpackAnswer(kept []byte) (*oidc.Answer, error) {
	if kept == nil {
		return nil, nil
	}
	plain, err := seal.Unpack(kept)
	if err != nil {
		return nil, errStale
	}
	answer, err := oidc.UnpackAnswer(plain)
	if err != nil {
		return nil, errStale
	}
	return answer, nil
}

// requestCode sends the one token request for a code.
func (rd *redeemer) requestCode(ctx context.Context, meta *oidc.Metadata, in *arrival) (*oidc.Answer, error) {
	tx := in.tx
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {in.code},
		"redirect_uri":  {tx.Redirect},
		"code_verifier": {in.b.verifier(tx.ID)},
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
	return answer, nil
}

// accept checks the second ID token against the first and the challenge, shows
// what came to OnSignIn, and saves the session.
func (rd *redeemer) accept(ctx context.Context, meta *oidc.Metadata, in *arrival, answer *oidc.Answer) (*redeemed, error) {
	tx := in.tx
	back, err := rd.verify(ctx, meta, in, answer)
	if err != nil {
		return nil, err
	}
	asked := meta.Askable(rd.tokenScopes(tx), tx.Scopes)
	token := rd.tokens.newHeld(answer, asked, tx.Resource)
	site := rd.tokens.siteScopes()
	token.Default = tx.Resource == "" && rd.issuer.Written().SameAPI(asked, site) && (!tx.Interactive || token.covers(apiScopes(site)))
	before, err := rd.toExtend(ctx, in)
	if err != nil {
		return nil, err
	}
	r := rd.newRecord(in, before, back, answer)
	if err := rd.show(ctx, in, before, r, back, &token); err != nil {
		return nil, err
	}
	s, err := rd.saveSignIn(ctx, tx, before, back, r, token, answer.RefreshToken)
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

// verify checks the second ID token against the first and the challenge.
func (rd *redeemer) verify(ctx context.Context, meta *oidc.Metadata, in *arrival, answer *oidc.Answer) (*oidc.IDToken, error) {
	tx := in.tx
	if n := len(answer.IDToken); n > oidc.MaxIDToken {
		return nil, redemptionFailed(tx.Return, oidc.TooLarge("the ID token", n, oidc.MaxIDToken))
	}
	want := rd.expect(tx, in.b)
	want.Code, want.AccessToken = in.code, answer.AccessToken
	back, err := rd.issuer.VerifyIDToken(ctx, meta, answer.IDToken, want)
	if err != nil {
		return nil, tx.rejected("token endpoint", err)
	}
	if in.front != nil {
		if err := oidc.SameUser(in.front.Claims, back.Claims); err != nil {
			return nil, tx.rejected("token endpoint", err)
		}
	}
	return back, nil
}

// toExtend reads the session that the challenge named, nil if it named none. It
// reports errStale if that has been signed out since the challenge.
func (rd *redeemer) toExtend(ctx context.Context, in *arrival) (before *session, err error) {
	if secret, err := rd.keys.Open("extend", in.b.secret, in.tx.ID, in.tx.Session); err == nil {
		err := once.Insist(ctx, func() (err error) {
			before, err = rd.records.fresh(ctx, secret)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if in.tx.Interactive && before == nil {
		return nil, errStale
	}
	return before, nil
}

// extends reports whether a sign-in goes on with the session before: the
// challenge asked that user for more, and the same user has answered.
func (t *transaction) extends(before *session, id *oidc.IDToken) bool {
	return t.Interactive && before.user.Issuer == id.Issuer && before.user.Subject == id.Subject
}

// newRecord is the record of a sign-in, still without tokens. Of one that extends
// a session only the identity counts.
func (rd *redeemer) newRecord(in *arrival, before *session, id *oidc.IDToken, answer *oidc.Answer) *record {
	now := rd.now()
	r := &record{
		Created: now.Unix(), Seen: now.Unix(), Expires: now.Add(rd.lifetime).Unix(),
		IDToken: id.Raw(), HomeAccount: homeAccount(answer.ClientInfo), Browser: in.b.hash(),
	}
	if in.tx.extends(before, id) {
		r.HomeAccount = cmp.Or(r.HomeAccount, before.record.HomeAccount)
		r.UserInfo, r.Own = before.record.UserInfo, before.record.Own
	}
	return r
}

// show shows a sign-in to OnSignIn, and takes the claims that it sets into r.
func (rd *redeemer) show(ctx context.Context, in *arrival, before *session, r *record, id *oidc.IDToken, token *held) error {
	if rd.hook == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	request := in.request.Clone(ctx)
	request.Body, request.Form, request.PostForm = http.NoBody, nil, nil
	request.URL.RawQuery, request.RequestURI = "", request.URL.EscapedPath()
	shown := &SignIn{
		User: rd.records.userOf(id.Claims, r), Extends: in.tx.extends(before, id),
		IDToken: id.Raw(), UserInfo: r.UserInfo, Form: in.form, Request: request,
		Claims: map[string]any{}, Tokens: failing{oidc.ErrNoAccessToken},
	}
	if in.front != nil {
		shown.FrontClaims = oidc.ClaimsOf(in.front.Raw())
	}
	if token.Access != "" {
		shown.Tokens = oauth2.StaticTokenSource(token.make(id.Raw()))
	}
	if r.Own != nil {
		if err := json.Unmarshal(r.Own, &shown.Claims); err != nil {
			return fmt.Errorf("claims of OnSignIn: %w", err)
		}
	}
	rd.hooked.Store(string(in.tx.ID), true)
	defer rd.hooked.Delete(string(in.tx.ID))
	own, err := rd.callHook(ctx, shown)
	if refusal, refused := errors.AsType[*RefusedError](err); refused {
		return refusedSignIn(in.tx, cmp.Or(refusal, &RefusedError{}))
	}
	if _, mistake := errors.AsType[*hookMistake](err); mistake {
		return &rejection{newPage(PageInternal, in.tx.Return), err}
	}
	if err != nil {
		return &unfinishedError{cause: fmt.Errorf("OnSignIn: %w", err)}
	}
	r.Own = own
	return nil
}

// overdue is the error for a browser that has waited long enough, if it waits for
// OnSignIn. The hook goes on: a second one beside it would be one too many.
func (rd *redeemer) overdue(tx *transaction) error {
	if _, at := rd.hooked.Load(string(tx.ID)); !at {
		return nil
	}
	return &unfinishedError{cause: errors.New("OnSignIn has not returned yet")}
}

// hookMistake is what no second call of OnSignIn would mend.
type hookMistake struct{ cause error }

func (e *hookMistake) Error() string { return "OnSignIn: " + e.cause.Error() }

// callHook calls OnSignIn and returns the claims that it has set. A panic, also
// one of a value that makes its own JSON, ends this sign-in only.
func (rd *redeemer) callHook(ctx context.Context, in *SignIn) (own json.RawMessage, err error) {
	defer func() {
		if v := recover(); v != nil {
			rd.report.panicked(ctx, v, debug.Stack())
			err = &hookMistake{errors.New("panic")}
		}
	}()
	if err := rd.hook(ctx, in); err != nil {
		return nil, err
	}
	if own, err = ownClaims(in.Claims); err != nil {
		return nil, &hookMistake{err}
	}
	return own, nil
}

// refusedSignIn is a sign-in that OnSignIn has refused.
func refusedSignIn(tx *transaction, refusal *RefusedError) error {
	return &rejection{newRefusedPage(refusal.Text, tx.Return), refusal}
}

// saveSignIn writes a new session, or extends before, the one that the challenge
// named. It is extended only for what the same user added to it; a sign-in gets a
// new id, and of another user's session nothing is carried over. It reports
// errStale if the session to extend, or the user, has been signed out since
// the challenge.
func (rd *redeemer) saveSignIn(ctx context.Context, tx *transaction, before *session, id *oidc.IDToken, r *record, token held, refresh string) (*session, error) {
	if tx.extends(before, id) {
		err := once.Insist(ctx, func() error {
			entry := indexed{Key: before.key, Expires: before.record.Expires, SID: id.SessionID != "", Alg: id.Alg}
			return rd.records.enter(ctx, rd.records.placesOf(id.Claims, before.record.Browser), entry, "", tx.Moment)
		})
		if err != nil {
			return nil, err
		}
		s, err := rd.records.update(ctx, before, func(old *record) {
			old.IDToken, old.Hint, old.HomeAccount, old.UserInfo, old.Own = r.IDToken, "", r.HomeAccount, r.UserInfo, r.Own
			old.add(token, refresh)
		})
		if errors.Is(err, errSessionEnded) {
			err = errStale
		}
		return s, err
	}
	r.add(token, refresh)
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

// errForgotten reports that the user has asked for a password reset, which a
// flow of its own does.
var errForgotten = errors.New("the user has forgotten their password")
