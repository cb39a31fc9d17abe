package signin

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
)

// maxHint bounds an ID token that travels in a URL.
const maxHint = 4 << 10

// SignOut ends the session of the browser, here and at the issuer (OpenID
// Connect RP-Initiated Logout 1.0). It ends also what the user started beside
// it: the sessions, and the sign-ins under way, of the same session at the
// issuer (sid), or of the same browser if the ID token has no sid. It deletes
// the records, so that a cookie kept from before opens nothing, then clears the
// cookie, and sends the browser to the issuer if that has an
// end_session_endpoint, else to [Config].SignedOutPath. The refresh token of the
// browser's session is revoked where the issuer offers it, without holding the
// user up. Those of the other sessions only their own cookies could open: they
// are deleted.
//
// Serve it on POST. A GET shows a page that asks; a POST from another site is
// refused. If the store fails, the browser's session stays and the answer is
// 503; a second attempt ends all.
func (a *Auth) SignOut(w http.ResponseWriter, r *http.Request) {
	boundBody(w, r)
	here := a.visits.requestPath(r)
	switch r.Method {
	case http.MethodPost:
	case http.MethodGet, http.MethodHead:
		writePage(w, r, newPage(PageSignOut, here), a.cfg.Page)
		return
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		writePage(w, r, newPage(PageCallbackMethod, a.visits.site(r).Path("/")), a.cfg.Page)
		return
	}
	if err := sameOrigin(r, a.visits.site(r)); err != nil {
		a.fail(w, r, newPage(PageSignOutRefused, here), "", err)
		return
	}
	s, err := a.endSession(r)
	if err == nil {
		err = a.sess.clear(w, r)
	}
	if err != nil {
		a.fail(w, r, a.unavailable(site.NewReturnPath(here), err), "", err)
		return
	}
	// A callback of before the sign-out, which Back posts again, is another
	// browser's from now on: it must not sign anybody in to a session that was
	// begun beside this one.
	if a.browsers.read(r) != nil {
		// Recognize has no business with who has just left.
		a.browsers.write(w, r, &browser{secret: seal.Random(secretLen), asked: true})
	}
	// Back would show pages as they were, out of the back/forward cache.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	landing := a.visits.site(r)
	site.NoStore(w)
	w.Header().Set("Location", a.endSessionURL(r, s, landing))
	w.WriteHeader(http.StatusSeeOther)
}

// sameOrigin refuses what a page of another origin sends. Browsers that say no
// more than Origin are known by it: net/http would compare it with Host, which
// a proxy may have rewritten.
func sameOrigin(r *http.Request, here site.Site) error {
	protection := http.NewCrossOriginProtection()
	if here.Fault() == nil {
		if err := protection.AddTrustedOrigin(here.Origin()); err != nil {
			return err
		}
	}
	return protection.Check(r)
}

// backFromIssuer reports whether a request is the browser's return from the
// issuer's logout page, by the state that we sent there. It has done its
// work, and a URL with it is none to keep.
func (a *Auth) backFromIssuer(r *http.Request) bool {
	raw, ok := strings.CutPrefix(r.URL.RawQuery, "state=")
	if !ok || len(raw) > 200 || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, a.cfg.SignedOutPath) {
		return false
	}
	sealed, err := seal.Decode(raw)
	if err == nil {
		_, err = a.keys.Open("signed out", nil, a.party, sealed)
	}
	return err == nil
}

// signedOut is a page to land on after a sign-out. Anybody can send a browser
// here: a user who is signed in must not believe otherwise.
func (a *Auth) signedOut(w http.ResponseWriter, r *http.Request) {
	home := a.visits.site(r).Path("/")
	s, err := a.sessionFor(r)
	switch {
	case err != nil:
		a.fail(w, r, a.unavailable(site.NewReturnPath(home), err), "", err)
		return
	case s != nil:
		page := newPage(PageStillSignedIn, home)
		page.User = s.user.Name()
		writePage(w, r, page, a.cfg.Page)
		return
	}
	writePage(w, r, newPage(PageSignedOut, a.visits.site(r).Path(a.loginPath)), a.cfg.Page)
}

// endSession deletes the browser's record, after those beside it, and returns
// what it was.
func (a *Auth) endSession(r *http.Request) (*session, error) {
	secret, err := a.sess.read(r)
	if err != nil {
		return nil, err
	}
	// A browser that walks away leaves nothing half done.
	ctx := context.WithoutCancel(r.Context())
	var s *session
	if secret != nil {
		if s, err = a.records.fresh(ctx, secret); err != nil {
			return nil, err
		}
	}
	var browser []byte
	if b := a.browsers.read(r); b != nil {
		browser = b.hash()
	}
	beside := a.records.besides(s, browser)
	if err := beside.endRecords(ctx); err != nil {
		return nil, err
	}
	if secret != nil {
		key := seal.StoreKey("s", secret)
		if err := once.Delete(ctx, a.store, key); err != nil {
			return nil, err
		}
		beside.ended[key] = true
	}
	// All sessions have ended. What is left is for sign-ins under way. A store
	// without room for it has none for their sessions, so do not refuse the user.
	if err := beside.settle(ctx); err != nil {
		beside.settleLater(ctx, seal.StoreKey("s", secret))
	}
	if s == nil {
		return nil, nil
	}
	a.records.unindexLater(ctx, s)
	a.report.event(ctx, Event{Name: EventSignedOut, User: s.user})
	if meta, err := a.issuer.Metadata(r.Context()); err == nil {
		a.tokens.revoke(ctx, meta, s.record.Refresh)
	}
	return s, nil
}

// besides is what the user of s started beside it: two tabs that signed in at
// once made two sessions, and the cookie of one took the place of the other's.
// Of a browser without a session it is what came from that browser. Anybody can
// make up a browser cookie, so a sign-in under way does not count there: it
// would make a stranger write.
func (rs *records) besides(s *session, browser []byte) *ending {
	others := func(e indexed) bool { return s == nil || e.Key != s.key }
	switch {
	case s != nil && s.user.sid != "":
		return rs.newEnding(indexSID, s.user.sid, true, others)
	case s != nil:
		return rs.newEnding(indexBrowser, string(s.record.Browser), true, others)
	case browser != nil:
		return rs.newEnding(indexBrowser, string(browser), false, others)
	}
	return &ending{ended: map[string]bool{}} // nothing
}

// endSessionURL is the issuer's logout page, or ours if it has none or cannot
// be asked: here the user is signed out already.
func (a *Auth) endSessionURL(r *http.Request, s *session, home site.Site) string {
	landing := home.Path(a.cfg.SignedOutPath)
	meta, err := a.issuer.Metadata(r.Context())
	if err != nil {
		return site.NewReturnPath(landing).String()
	}
	endpoint, back := meta.Rule.Family.Leave.From(a.cfg.Issuer, meta.EndSessionEndpoint)
	u, err := url.Parse(endpoint)
	if err != nil || endpoint == "" {
		return site.NewReturnPath(landing).String()
	}
	q := u.Query()
	q.Set("client_id", a.cfg.ClientID)
	if back != "" {
		q.Set(back, home.URL(a.cfg.SignedOutPath))
		u.RawQuery = q.Encode()
		return u.String()
	}
	q.Set("post_logout_redirect_uri", home.URL(a.cfg.SignedOutPath))
	q.Set("state", seal.Encode(a.keys.Seal("signed out", nil, a.party, nil)))
	// Of a session that has expired here nothing is left to tell; at the issuer
	// it may go on all the same.
	if s != nil {
		// An ID token with many groups does not fit into a URL; client_id and
		// the hint then say who.
		if hint := s.record.hint(); len(hint) <= maxHint {
			q.Set("id_token_hint", hint)
		}
		if hint := s.user.loginHint(); hint != "" {
			q.Set("logout_hint", hint)
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}
