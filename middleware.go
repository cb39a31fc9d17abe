// Package signin signs users in to a net/http application with OpenID Connect
// and hands each request a source of access tokens for the signed-in user.
//
// # Five things
//
// [New] makes an [Auth] from a [Config], and touches no network. [Auth.Handler]
// goes around the whole application, outside any protection against cross-site
// requests, for the issuer's answer is one. [Auth.RequireUser] goes around what
// needs a user. In a handler [UserFromContext] says who that is, and
// [TokenSource] returns a source of access tokens for an API.
//
//	auth, err := signin.New(signin.Config{ ... })
//	mux.Handle("GET /mail", auth.RequireUser(http.HandlerFunc(mail)))
//	mux.HandleFunc("POST /signout", auth.SignOut)
//	http.ListenAndServe(addr, auth.Handler(http.NewCrossOriginProtection().Handler(mux)))
//
// # Also
//
// When only the user can help, Token fails with an [*InteractionRequiredError].
// [Auth.Challenge] answers it:
//
//	token, err := signin.TokenSource(r.Context(), "Mail.Read").Token()
//	if auth.Challenge(w, r, err) {
//		return
//	}
//
// [Auth.Require] asks more of a page than a user: scopes, a fresh or stronger
// sign-in, a [Rule]. [Auth.SignOut] ends a session, [Auth.SignOutUser] all of a
// user's. [Transport] brings tokens to a client that all requests share.
// [Auth.AppTokenSource] is for what is done in nobody's name. [Auth.Recognize]
// greets on pages that serve everybody. [NewContext] is for tests of handlers,
// and package signintest for tests of sites. [Auth.Ready] and [Auth.Shutdown]
// are for the process.
//
// # What happens
//
// A challenge sends the browser to the issuer with state, nonce and PKCE, all
// tied to one small cookie; nothing is stored for a sign-in that has only
// begun. The answer arrives at the callback, by form_post or query, is checked
// in a fixed order, and its code is redeemed once, however often the callback
// is posted and on however many replicas. The tokens go into a record in the
// [Store], encrypted under a key that only the session cookie completes. No
// token is ever in a cookie.
//
// Tokens are renewed silently: once however many ask, saved before anyone can
// lose them, and not given up because a browser walked away. A store that
// fails is answered with 503; it never signs anybody out.
//
// # Paths
//
// Handler serves the callback, by default at /oidc/callback, and its siblings:
//
//	/oidc/callback             the redirect URI to register at the issuer
//	/oidc/login                starts a sign-in (initiate_login_uri)
//	/oidc/signed-out           says so; see [Config].SignedOutPath
//	/oidc/backchannel-logout   backchannel_logout_uri
//	/oidc/frontchannel-logout  frontchannel_logout_uri; see [Config].NoFrontChannelLogout
//
// The body of a request that Handler, SignOut, RequireUser or Challenge answers
// has ten seconds to arrive. That needs a ResponseWriter from which
// [http.ResponseController] reaches SetReadDeadline; where a middleware around
// Handler hides it, set [http.Server].ReadTimeout.
package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/web"
)

// Auth signs users in to one application at one issuer. Its methods may be
// used concurrently. Make one with [New]. It prints, logs and marshals as its
// name only.
type Auth struct {
	redacted
	cfg       Config // without Keys, which keys holds
	keys      seal.Keyring
	party     []byte // who we are, and to whom: issuer and client
	store     Store
	now       func() time.Time
	paths     map[string]http.HandlerFunc // of ours
	loginPath string

	issuer   *oidc.Issuer
	records  *records
	tokens   *tokens
	report   *reporter
	visits   *visits
	sess     *sessionCookies
	browsers *browserCookies
	states   *states
	redeemer *redeemer

	chores      once.Chores
	moves       moves
	hostWarning sync.Once
	notices     *notices
}

// New returns an Auth for c. It reports every fault of the configuration at
// once and does not touch the network: the issuer may be down when the
// application starts.
func New(c Config) (*Auth, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	keys := seal.New(c.Keys)
	c.Keys = nil // a dump by reflection, which calls no methods, must not show them
	a := &Auth{
		redacted:  "signin.Auth",
		cfg:       c,
		keys:      keys,
		party:     slices.Clip([]byte(c.Issuer + "\x00" + c.ClientID)),
		report:    &reporter{c.Logger, c.Observe},
		now:       time.Now,
		loginPath: sibling(c.CallbackPath, "login"),
	}
	a.assemble(c)
	a.paths = make(map[string]http.HandlerFunc)
	ours := map[string]http.HandlerFunc{
		c.CallbackPath:                        a.callback,
		a.loginPath:                           a.login,
		sibling(c.CallbackPath, "signed-out"): a.signedOut,
		sibling(c.CallbackPath, "backchannel-logout"): a.backChannelLogout,
	}
	if !c.NoFrontChannelLogout {
		ours[sibling(c.CallbackPath, "frontchannel-logout")] = a.frontChannelLogout
	}
	prefix := "" // decoded, as in a request's URL.Path
	if u, err := url.Parse(c.BaseURL); err == nil {
		prefix = u.Path
	}
	for name, h := range ours {
		a.paths[name] = h
		a.paths[prefix+name] = h // where nobody strips the prefix
	}
	return a, nil
}

// assemble gives each organ what it needs.
func (a *Auth) assemble(c Config) {
	now := func() time.Time { return a.now() }
	opened, store := newOpened(c.Store, c.MemoryBytes)
	a.store = store
	a.issuer = issuerOf(c, now, func(ctx context.Context, err error) {
		a.report.event(ctx, Event{Name: EventIssuerFailing, Err: err})
	})
	a.records = &records{
		store: store, keys: a.keys, party: string(a.party), opened: opened,
		signOuts: signOutCount{store, seal.StoreKey("o", a.party)},
		chores:   &a.chores, report: a.report, now: now,
		lifetime: c.SessionLifetime, idle: c.IdleTimeout, nameClaim: c.NameClaim, scopes: accessScopes(c.Scopes),
	}
	a.tokens = &tokens{
		records: a.records, issuer: a.issuer, store: store, keys: a.keys, chores: &a.chores, report: a.report,
		now: now, margin: c.ExpiryMargin, scopes: c.Scopes, capabilities: c.ClientCapabilities,
	}
	a.visits = &visits{sites: site.Sites{Proxies: c.TrustedProxies}, tokens: a.tokens, now: now}
	if u, err := url.Parse(c.BaseURL); err == nil {
		a.visits.sites.Fixed = site.Site{Scheme: u.Scheme, Host: u.Host, Base: u.EscapedPath()}
	}
	a.sess = newSessionCookies(c, a.keys, a.party, a.visits, a.records)
	a.visits.load = a.sess.load
	a.browsers = &browserCookies{
		visits: a.visits, keys: a.keys, party: a.party, mode: c.ResponseMode,
		secureBrowser: []string{"__Host-" + c.CookieName + browserSuffix}, plainBrowser: plainBrowserCookies(c),
	}
	a.states = &states{visits: a.visits, keys: a.keys, party: a.party, cookieName: c.CookieName, mode: c.ResponseMode, now: now}
	a.notices = &notices{log: c.Logger}
	a.redeemer = &redeemer{
		records: a.records, tokens: a.tokens, issuer: a.issuer, store: store, keys: a.keys, report: a.report, notices: a.notices, now: now,
		scopes: c.Scopes, lifetime: c.SessionLifetime, skew: c.ClockSkew, hook: c.OnSignIn,
	}
	a.redeemer.flights.Patience = once.Patience
	a.redeemer.flights.Panicked, a.tokens.flights.Panicked, a.chores.Panicked = a.report.panicked, a.report.panicked, a.report.panicked
	a.redeemer.flights.Own, a.tokens.flights.Own = ownCopy, ownCopy
}

// Handler serves the paths of ours and gives every other request a context
// from which [UserFromContext] and [TokenSource] work. Wrap the whole
// application with it, outside any protection against cross-site requests:
// the issuer's answer is a cross-site POST. The ResponseWriter that next gets
// is the one that came in.
func (a *Auth) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if madeUp(r.Context()) == nil { // NewContext's stays
			r = r.WithContext(&visit{Context: r.Context(), visits: a.visits, r: r})
		}
		if r.URL.RawQuery != "" && a.backFromIssuer(r) {
			site.RedirectWithin(w, site.NewReturnPath(a.visits.site(r).Path(a.cfg.SignedOutPath)))
			return
		}
		if ours, ok := a.paths[r.URL.Path]; ok {
			web.BoundBody(w, r)
			ours(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireUser lets requests of signed-in users through to next. Others are
// challenged as [Auth.Challenge] does it. If the store fails they get 503. The
// ResponseWriter that next gets is the one that came in, but for the first page
// after a sign-in: that may set a cookie, unless next marks it public.
// It works below [Auth.Handler] only; elsewhere everybody is refused.
func (a *Auth) RequireUser(next http.Handler) http.Handler {
	return a.Require(Requirement{})(next)
}

// Require is [Auth.RequireUser] with further requirements, as a middleware. What the user can
// mend, by consent or a fresh sign-in, is challenged; what they cannot is 403.
// A requirement that no issuer could be asked for, such as two scopes in one
// element, is a mistake in the program: each request gets 500 and a log line.
func (a *Auth) Require(need Requirement) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return a.require(need, next) }
}

func (a *Auth) require(need Requirement, next http.Handler) http.Handler {
	mistake := need.check()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mistake != nil {
			a.fail(w, r, newPage(PageInternal, "/"), "", fmt.Errorf("Require: %w", mistake))
			return
		}
		v := cmp.Or(madeUp(r.Context()), a.visits.of(r.Context()))
		if v == nil {
			a.fail(w, r, newPage(PageInternal, "/"), "", errMisplaced)
			return
		}
		var s *session // none, if NewContext has made the user up
		var err error
		user, now := v.user, a.now()
		if v.source == nil {
			if s, err = v.session(r.Context()); s != nil {
				user = s.user
			}
		}
		if err == nil {
			err = a.meets(r.Context(), v, s, user, need, now)
		}
		if err != nil {
			web.BoundBody(w, r)
		}
		switch _, forbidden := errors.AsType[*forbiddenError](err); {
		case err == nil:
			if visitFrom(r.Context()) != v { // another Auth is nearer
				r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
			}
			if s == nil {
				next.ServeHTTP(w, r)
				return
			}
			a.serveSettled(next, w, r, s, now)
		case forbidden:
			a.fail(w, r, newForbiddenPage(user.Name(), a.switchAccount(r, a.returnTo(r))), "", err)
		case a.Challenge(w, r, err):
		default:
			a.fail(w, r, a.unavailable(a.returnTo(r), err), "", err)
		}
	})
}

var errMisplaced = errors.New("RequireUser outside Handler: wrap the whole application with Handler")

// forbiddenError is a refusal by Requirement.Allow.
type forbiddenError struct{ cause error }

func (e *forbiddenError) Error() string { return "signin: access denied: " + e.cause.Error() }
func (e *forbiddenError) Unwrap() error { return e.cause }

// meets reports what a user's session lacks: an *InteractionRequiredError for what
// the user can mend, a *forbiddenError for what they cannot.
func (a *Auth) meets(ctx context.Context, v *visit, s *session, user *User, need Requirement, now time.Time) error {
	if user == nil {
		return need.unmet(ReasonSignIn)
	}
	if need.Allow != nil {
		if err := need.Allow(user); err != nil {
			return &forbiddenError{err}
		}
	}
	if !a.strongEnough(user, need) {
		return need.unmet(ReasonClaims)
	}
	if s != nil && s.record.dead(now) {
		return &InteractionRequiredError{Reason: ReasonRefused, Scopes: need.Scopes, Resource: need.Resource}
	}
	if len(need.Scopes) == 0 && need.Resource == "" {
		return nil
	}
	if v.source != nil {
		_, err := v.source.Token()
		return err
	}
	return a.granted(ctx, v, need)
}

// granted reports whether need's scopes have been granted, of whatever APIs they
// are. If one API's have not, the user is asked for all of them at once, and the
// token that the challenge brings is for that API.
func (a *Auth) granted(ctx context.Context, v *visit, need Requirement) error {
	if !a.issuer.Written().Mixed(need.Scopes) {
		_, err := a.tokens.acquire(ctx, v, TokenRequest{Scopes: need.Scopes, Resource: need.Resource})
		return err
	}
	for _, scopes := range a.issuer.Written().ByAPI(need.Scopes) {
		_, err := a.tokens.acquire(ctx, v, TokenRequest{Scopes: scopes, Resource: need.Resource})
		if lack, ok := errors.AsType[*InteractionRequiredError](err); ok {
			lack.Scopes = a.issuer.Written().Together(scopes, need.Scopes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Ready reports whether a sign-in could succeed now: the issuer's metadata is
// at hand or can be had, it announces what the configuration needs and requires
// nothing else, and the store answers. It is for a readiness probe.
func (a *Auth) Ready(ctx context.Context) error {
	meta, issuerErr := a.issuer.Metadata(ctx)
	if issuerErr == nil {
		issuerErr = meta.Unfit
	}
	// Past any copy: one serves for a while after its store has gone.
	_, storeErr := once.ReadFresh(ctx, a.store, seal.StoreKey("ready", nil))
	return errors.Join(issuerErr, storeErr)
}

// Shutdown waits until no token request is under way and what they returned has
// been saved, or until ctx ends. Call it after [http.Server.Shutdown]: a
// refresh token that was rotated and not saved costs its owner a sign-in.
func (a *Auth) Shutdown(ctx context.Context) error {
	return errors.Join(a.redeemer.flights.Wait(ctx), a.tokens.flights.Wait(ctx), a.chores.Wait(ctx))
}

// Recognize signs in, without asking them anything, visitors whom the issuer
// knows already (prompt=none; OpenID Connect Core, 3.1.2.1). It is for pages
// that serve everybody and greet those they know.
//
// It tries once in a browser session, at the second navigation: the first
// sets the browser cookie, so that a client that keeps no cookies, a crawler
// say, is never sent anywhere. Whoever is not recognised, or has signed out,
// sees the page as it is; so does everybody while the issuer or the store
// fails. The first answer sets a cookie, unless next lets caches share it
// (Cache-Control: public): such a page recognises those only whom another page
// has given the cookie.
func (a *Auth) Recognize(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := a.visits.of(r.Context())
		if v == nil || a.kind(r) != web.Navigation || r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		if s, err := v.session(r.Context()); s != nil || err != nil {
			next.ServeHTTP(w, r)
			return
		}
		b := a.browsers.read(r)
		switch {
		case b == nil:
			a.browsers.serve(next, w, r, &browser{secret: seal.Random(secretLen)})
			return
		case !b.asked && a.ready(r):
			b.asked = true
			web.BoundBody(w, r)
			need := &InteractionRequiredError{Reason: ReasonSignIn, Prompt: "none", silent: true}
			a.challengeBrowser(w, r, b, need, a.returnTo(r))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ready reports whether a challenge can begin.
func (a *Auth) ready(r *http.Request) bool {
	if a.visits.site(r).Fault() != nil {
		return false
	}
	meta, err := a.issuer.Metadata(r.Context())
	return err == nil && meta.Unfit == nil
}

// strongEnough reports whether the sign-in was recent and strong enough.
func (a *Auth) strongEnough(u *User, need Requirement) bool {
	if need.MaxAge > 0 && (u.AuthTime.IsZero() || a.now().Sub(u.AuthTime) > need.MaxAge+a.cfg.ClockSkew) {
		return false
	}
	return meetsACR(u, need.ACR)
}

// serveSettled serves next to a user who is signed in, and forgets the round
// trips at whose end that is. Only a young session can have any, so that older
// ones pay nothing.
func (a *Auth) serveSettled(next http.Handler, w http.ResponseWriter, r *http.Request, s *session, now time.Time) {
	if now.Sub(time.Unix(s.record.Created, 0)) <= loopWindow && a.kind(r) == web.Navigation {
		if b := a.browsers.read(r); b != nil && b.need == loopSignIn && b.trips > 0 {
			b.progressed()
			a.browsers.serve(next, w, r, b)
			return
		}
	}
	next.ServeHTTP(w, r)
}
