package signin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
	"github.com/seed454743b5/signin/internal/web"
)

// Challenge answers a request whose handler needs the user to act. If err is
// an [*InteractionRequiredError], Challenge writes the answer and returns
// true: a navigation goes to the issuer and comes back to the same page,
// anything else gets 401 with a problem document (RFC 9457) that says what to
// ask for. A POST navigation gets a page with a link, for its body would be
// lost. A store that fails is answered with 503, for nothing that needs a
// user can go on. An error that asks for what no issuer can be asked for, such
// as two scopes in one element, is a mistake in the program: it is answered
// with 500 and a log line. For any other error Challenge does nothing and
// returns false.
//
//	token, err := signin.TokenSource(r.Context(), "Mail.Read").Token()
//	if auth.Challenge(w, r, err) {
//		return
//	}
func (a *Auth) Challenge(w http.ResponseWriter, r *http.Request, err error) bool {
	var need *InteractionRequiredError
	if !errors.As(err, &need) {
		if _, failing := errors.AsType[*once.StoreError](err); !failing {
			return false
		}
		a.fail(w, r, a.unavailable(a.returnTo(r), err), "", err)
		return true
	}
	web.BoundBody(w, r)
	if mistake := need.check(); mistake != nil {
		a.fail(w, r, newPage(PageInternal, a.returnTo(r).String()), "", fmt.Errorf("Challenge: %w", mistake))
		return true
	}
	switch a.kind(r) {
	case web.Navigation:
		a.challenge(w, r, need, a.returnTo(r))
	case web.Submission:
		page := PageSessionEnded
		if need.Reason == ReasonConsent || need.Reason == ReasonClaims {
			page = PagePermissionNeeded
		}
		a.unauthorized(w, r, need, page)
	default:
		page := PageSignInRequired
		if need.Reason == ReasonConsent || need.Reason == ReasonClaims {
			page = PageMoreRequired
		}
		a.unauthorized(w, r, need, page)
	}
	return true
}

// unauthorized answers what cannot follow a redirect: it says what to ask for
// and names a URL that a person can open for it.
func (a *Auth) unauthorized(w http.ResponseWriter, r *http.Request, need *InteractionRequiredError, kind PageKind) {
	here := a.visits.site(r)
	// The page to come back to is the one that asked: a script's URL is no
	// page, and what takes a form by POST need not have one.
	to := site.NewReturnPath(here.Path("/"))
	if from, ok := here.PathOf(r.Referer()); ok {
		to = site.NewReturnPath(from)
	} else if kind != PageSignInRequired && kind != PageMoreRequired {
		to = a.returnTo(r)
	}
	w.Header().Set("WWW-Authenticate", wwwAuthenticate(need))
	writePage(w, r, newPage(kind, a.askURL(r, need, to)), a.cfg.Page)
}

// returnTo is the page that r asks for. A very long path loses its query, for
// the state parameter or a cookie has to carry it.
func (a *Auth) returnTo(r *http.Request) site.ReturnPath {
	asked, sure := a.visits.sites.Page(a.visits.entered(r))
	if len(asked) > site.MaxReturnPath {
		a.report.log.LogAttrs(r.Context(), slog.LevelInfo, "signin: return path lost its query", slog.Int("length", len(asked)))
	}
	to := site.NewReturnPath(asked)
	if to == (site.ReturnPath{}) {
		return site.NewReturnPath(a.visits.site(r).Path("/"))
	}
	to.Bare = !sure
	return to
}

// wwwAuthenticate says what is missing (RFC 6750, 3; RFC 9470, 3).
func wwwAuthenticate(need *InteractionRequiredError) string {
	switch {
	case len(need.ACR) > 0 || need.MaxAge != nil || need.Reason == ReasonClaims:
		s := `Bearer error="insufficient_user_authentication"`
		if len(need.ACR) > 0 {
			s += `, acr_values=` + strconv.Quote(text.Printable(strings.Join(need.ACR, " "), 500))
		}
		if need.MaxAge != nil {
			s += `, max_age="` + strconv.FormatInt(int64(need.MaxAge.Seconds()), 10) + `"`
		}
		return s
	case need.Reason == ReasonConsent && len(need.Scopes) > 0:
		return `Bearer error="insufficient_scope", scope=` + strconv.Quote(text.Printable(strings.Join(need.Scopes, " "), 1000))
	}
	return "Bearer"
}

// challenge sends the browser to the issuer, unless that has just been tried
// too often.
func (a *Auth) challenge(w http.ResponseWriter, r *http.Request, need *InteractionRequiredError, to site.ReturnPath) {
	b := a.browsers.read(r)
	if b == nil {
		b = &browser{secret: seal.Random(secretLen)}
	}
	a.challengeBrowser(w, r, b, need, to)
}

// challengeBrowser is challenge for a browser that has been read.
func (a *Auth) challengeBrowser(w http.ResponseWriter, r *http.Request, b *browser, need *InteractionRequiredError, to site.ReturnPath) {
	if err := a.visits.site(r).Fault(); err != nil {
		a.fail(w, r, newPage(PageInternal, to.String()), "", err)
		return
	}
	if a.moveHost(w, r, b, need, to) {
		return
	}
	s, err := a.visits.sessionFor(r)
	if err != nil {
		a.fail(w, r, a.unavailable(to, err), "", err)
		return
	}
	a.challengeSession(w, r, b, s, need, to)
}

// challengeSession is challengeBrowser for a session that has been read.
func (a *Auth) challengeSession(w http.ResponseWriter, r *http.Request, b *browser, s *session, need *InteractionRequiredError, to site.ReturnPath) {
	loop := loopNeed(need, s)
	if b.looping(loop, a.now()) {
		cause := a.sess.whyLoop(r, b, s)
		b.progressed() // so that "try again" works once the cause is gone
		a.browsers.write(w, r, b)
		a.fail(w, r, newLoopPage(cause, a.askURL(r, need, to)), "", cause)
		return
	}
	meta, err := a.issuer.Metadata(r.Context())
	if err != nil {
		a.fail(w, r, a.unavailable(to, err), "", err)
		return
	}
	if meta.Unfit != nil {
		a.fail(w, r, a.unavailable(to, meta.Unfit), "", meta.Unfit)
		return
	}
	if !a.canAnswer(w, r, b, meta, need, to) {
		return
	}
	tx := a.newTransaction(r, b, s, need, to)
	tx.Need, tx.Trips = loop, b.tripsFor(loop)
	page, err := a.states.fit(tx, a.visits.site(r).Path("/"))
	if err != nil {
		a.fail(w, r, a.unavailable(to, err), tx.id(), err)
		return
	}
	location, err := a.authorizationURL(r.Context(), meta, tx, b, need, s)
	if err != nil {
		a.notSent(w, r, b, tx, need, to, err)
		return
	}
	a.browsers.write(w, r, b)
	if tx.Aside {
		a.states.aside(r).put(w, r, tx, page)
	}
	a.notices.register(r.Context(), a.cfg, a.visits.site(r))
	a.report.event(r.Context(), Event{Name: EventChallenge, Reference: tx.id(), Reason: need.Reason, Scopes: need.Scopes})
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// notSent answers a challenge that could not begin. Nobody asked for a silent one,
// so its visitor gets the page, and the cookie says that it has been tried.
func (a *Auth) notSent(w http.ResponseWriter, r *http.Request, b *browser, tx *transaction, need *InteractionRequiredError, to site.ReturnPath, err error) {
	if errors.Is(r.Context().Err(), context.Canceled) {
		return // the browser has gone
	}
	if need.silent {
		a.report.event(r.Context(), Event{Name: EventIssuerFailing, Reference: tx.id(), Err: err})
		a.browsers.write(w, r, b)
		site.RedirectWithin(w, to)
		return
	}
	page := a.unavailable(to, err)
	if refused, ok := errors.AsType[*oidc.Refused](err); ok && !errors.As(err, new(*oidc.Error)) {
		page = newIssuerErrorPage(PageIssuerError, refused.Said(), to.String())
	}
	a.fail(w, r, page, tx.id(), err)
}

func (a *Auth) newTransaction(r *http.Request, b *browser, s *session, need *InteractionRequiredError, to site.ReturnPath) *transaction {
	tx := &transaction{
		ID: seal.Random(16), Time: a.now().UnixMilli(), Moment: a.records.signOuts.now(r.Context()),
		Return: to.String(), Bare: to.Bare, Browser: b.hash(),
		Redirect: a.visits.site(r).URL(a.cfg.CallbackPath),
		Scopes:   need.Scopes, Resource: need.Resource, ACR: need.ACR, Required: need.required,
		Interactive: need.Reason == ReasonConsent || need.Reason == ReasonClaims, Silent: need.silent, Flow: need.flow,
		Host: text.Printable(a.visits.sites.Elsewhere(a.visits.entered(r)), 60), Agent: agentHash(r),
	}
	if need.MaxAge != nil {
		tx.MaxAge = new(int64(need.MaxAge.Seconds()))
	} else if a.cfg.MaxAge > 0 {
		tx.MaxAge = new(int64(a.cfg.MaxAge.Seconds()))
	}
	if s != nil {
		tx.Session = a.keys.Seal("extend", b.secret, tx.ID, s.secret)
	}
	return tx
}

// agentHash tells apart the programs that ask. An office program opens a link
// by itself first, and hands its browser the page where that ended: the
// issuer's.
func agentHash(r *http.Request) []byte {
	sum := sha256.Sum256([]byte(r.UserAgent()))
	return sum[:6]
}

// loopSignIn names the trips of those who are not signed in. Whoever is has
// made progress.
const loopSignIn = "signin"

// loopNeed names what a round trip is for, so that it is counted with its
// like. Who is signed in and sent for another sign-in all the same is counted
// apart, for being signed in at the end of it is no progress.
func loopNeed(need *InteractionRequiredError, s *session) string {
	again := ""
	if need.Reason == ReasonSignIn || need.Reason == ReasonRefused {
		switch {
		case need.silent:
			return "silent"
		case s == nil:
			return loopSignIn
		case need.chosen && need.Reason == ReasonSignIn:
			return "" // to change accounts; no machine goes round there
		}
		again = "again"
	}
	maxAge := ""
	if need.MaxAge != nil {
		maxAge = need.MaxAge.String()
	}
	return needOf(strings.Join(slices.Sorted(slices.Values(need.Scopes)), " "), need.Resource, need.Claims, strings.Join(need.ACR, " "), maxAge, again)
}

// authorizationURL is where the browser goes with the authentication request
// (OpenID Connect Core, 3.1.2.1 and 3.3.2.1; RFC 7636, 4.3).
func (a *Auth) authorizationURL(ctx context.Context, meta *oidc.Metadata, tx *transaction, b *browser, need *InteractionRequiredError, s *session) (string, error) {
	at, err := a.authorizeAt(meta, need)
	if err != nil {
		return "", err
	}
	state, err := a.states.seal(tx)
	if err != nil {
		return "", err
	}
	challenge := sha256.Sum256([]byte(b.verifier(tx.ID)))
	q := url.Values{}
	maps.Copy(q, a.cfg.AuthParams)
	for name, values := range need.Params {
		if !slices.Contains(ownParams, name) {
			q[name] = values
		}
	}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("client_id", a.cfg.ClientID)
	set("redirect_uri", tx.Redirect)
	set("response_type", a.cfg.ResponseType)
	set("response_mode", a.cfg.ResponseMode)
	set("scope", strings.Join(meta.Askable(a.redeemer.challengeScopes(tx), tx.Scopes), " "))
	if slices.Contains(meta.Withheld, "offline_access") {
		for name, values := range meta.Rule.Family.Offline {
			if !q.Has(name) {
				q[name] = values
			}
		}
	}
	set("state", state)
	set("nonce", b.nonce(tx.ID))
	set("code_challenge", seal.Encode(challenge[:]))
	set("code_challenge_method", "S256")
	set("resource", need.Resource)
	claims, classes := cmp.Or(need.Claims, q.Get("claims")), need.ACR
	if meta.Rule.Family.ClientInfo {
		var contexts []string
		contexts, classes = oidc.SplitContexts(need.ACR)
		claims = oidc.WithContexts(claims, contexts, need.required)
	}
	set("claims", oidc.WithCapabilities(claims, a.cfg.ClientCapabilities))
	set("acr_values", strings.Join(classes, " "))
	set("prompt", a.cfg.Prompt)
	set("prompt", need.Prompt)
	set("domain_hint", need.DomainHint)
	if tx.MaxAge != nil {
		set("max_age", strconv.FormatInt(*tx.MaxAge, 10))
	}
	if s != nil && need.Reason != ReasonSignIn { // else it may be for another account
		set("login_hint", s.user.loginHint())
	}
	set("login_hint", need.LoginHint)
	if meta.Rule.Family.ClientInfo {
		set("client_info", "1") // Entra: who the user is at home
	}
	return a.issuer.AuthorizationURL(ctx, meta, at, q)
}

// moveHost sends a browser that came under another host name than BaseURL's
// to the same page under BaseURL's, and reports whether it did. From here its
// challenge would come to nothing: the answer arrives where BaseURL is, and the
// browser cookie would be here.
//
// To us a proxy that rewrites Host looks the same. It would send the browser
// round for ever, so each is sent once: the browser cookie remembers it, and
// those that keep no cookie are counted.
func (a *Auth) moveHost(w http.ResponseWriter, r *http.Request, b *browser, need *InteractionRequiredError, to site.ReturnPath) bool {
	host := a.visits.sites.Elsewhere(a.visits.entered(r))
	if host == "" || r.Method != http.MethodGet || r.UserAgent() == "" { // every browser has one
		return false
	}
	now := a.now()
	names := []slog.Attr{slog.String("host", text.Printable(host, 100)), slog.String("base", a.visits.sites.Fixed.Host)}
	if since := now.Sub(time.Unix(b.moved, 0)); since >= 0 && since < movedFor || a.browsers.read(r) == nil && a.moves.tooMany(r, now) {
		b.moved = 0
		a.hostWarning.Do(func() {
			a.report.log.LogAttrs(r.Context(), slog.LevelWarn, "signin: a proxy seems to rewrite Host: let it keep Host, or send X-Forwarded-Host and be in TrustedProxies", names...)
		})
		return false
	}
	page := to.String()
	if need.chosen {
		page = a.askURL(r, need, to) // the page itself may ask for less
	}
	b.moved = now.Unix()
	a.browsers.write(w, r, b)
	a.report.log.LogAttrs(r.Context(), slog.LevelInfo, "signin: sent to BaseURL's host", names...)
	w.Header().Set("Location", a.visits.sites.Fixed.Origin()+page)
	w.WriteHeader(http.StatusSeeOther)
	return true
}

// canAnswer answers a challenge whose end would come to nothing in this
// browser, and reports false. A browser that may be such a one is sent to our
// login path with a cookie, to see whether it keeps it.
func (a *Auth) canAnswer(w http.ResponseWriter, r *http.Request, b *browser, meta *oidc.Metadata, need *InteractionRequiredError, to site.ReturnPath) bool {
	if a.visits.secure(r) || !oidc.AnswersByForm(a.cfg.ResponseMode) || !crossesSites(meta.AuthorizationEndpoint, a.visits.site(r)) {
		return true
	}
	again := a.askURL(r, need, to)
	switch keeps(r, a.browsers.names(false), need) {
	case keepsUnsure:
		try := *need
		try.tried = true
		a.browsers.write(w, r, b)
		w.Header().Set("Location", a.askURL(r, &try, to))
		w.WriteHeader(http.StatusSeeOther)
	case keepsNoSecure:
		a.fail(w, r, newPage(PageNoSecureCookies, again), "", errNoSecureCookie)
	case keepsNone:
		a.fail(w, r, newPage(PageNoCookies, again), "", errors.New("the browser sent back no cookie that this site has just set"))
	default:
		return true
	}
	return false
}

// retryAfterDown is what a client is told when the issuer or the store fails.
const retryAfterDown = 5 * time.Second

// fail answers with a page and logs why, under one reference: id, if the
// failure belongs to a sign-in whose lines have one.
func (a *Auth) fail(w http.ResponseWriter, r *http.Request, p Page, id string, err error) {
	if id == "" {
		id = newReference()
	}
	p.Reference = id
	a.report.event(r.Context(), Event{Name: EventRejected, Reference: id, Page: p.Kind, Status: p.Status, Err: err})
	writePage(w, r, p, a.cfg.Page)
}

// unavailable is the page for a failure that is not the user's.
func (a *Auth) unavailable(again site.ReturnPath, err error) Page {
	if large, ok := errors.AsType[*oidc.TooLargeError](err); ok {
		p := newTooLargePage(large, again.String())
		p.Status = http.StatusServiceUnavailable // as for any token that cannot be had
		return p
	}
	if _, ok := errors.AsType[*oidc.Misconfigured](err); ok {
		return newPage(PageInternal, again.String())
	}
	if _, ok := errors.AsType[*once.StoreError](err); ok {
		return newUnavailablePage(PageStoreDown, again.String(), retryAfterDown)
	}
	if _, ok := errors.AsType[*unfinishedError](err); ok {
		return newUnavailablePage(PageSignInUnfinished, again.String(), retryAfterDown)
	}
	_, issuerDown := errors.AsType[*oidc.Error](err)
	_, temporary := errors.AsType[*temporaryError](err)
	if issuerDown || temporary || errors.Is(err, context.DeadlineExceeded) {
		return newUnavailablePage(PageIssuerDown, again.String(), retryAfterDown)
	}
	return newPage(PageInternal, again.String())
}

// kind is kindOf, unless the application decides.
func (a *Auth) kind(r *http.Request) web.Kind {
	if a.cfg.Navigation == nil {
		return web.KindOf(r)
	}
	switch {
	case !a.cfg.Navigation(r):
		return web.Other
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return web.Navigation
	default:
		return web.Submission
	}
}

// switchAccount is a link that signs in as somebody else and leads to a page.
func (a *Auth) switchAccount(r *http.Request, to site.ReturnPath) string {
	need := &InteractionRequiredError{Reason: ReasonSignIn, Prompt: "select_account"}
	ask := a.states.sealNeed(need, to)
	return a.visits.site(r).Path(a.loginPath) + "?" + url.Values{"ask": {ask}}.Encode()
}

// authorizeAt is the authorization endpoint of a challenge.
func (a *Auth) authorizeAt(meta *oidc.Metadata, need *InteractionRequiredError) (*url.URL, error) {
	endpoint := meta.AuthorizationEndpoint
	if need.flow != "" {
		var err error
		if endpoint, err = family.FlowEndpoint(a.cfg.Issuer, endpoint, need.flow); err != nil {
			return nil, &oidc.Misconfigured{Cause: err}
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, oidc.Failed(err)
	}
	return u, nil
}
