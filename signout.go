package signin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/web"
)

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
	web.BoundBody(w, r)
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
	s, err := a.visits.sessionFor(r)
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

// logoutLimit bounds one front-channel logout, which goes on without the frame
// that asked for it.
const logoutLimit = 30 * time.Second

// SignOutUser ends all sessions of a user, on all replicas. issuer is the iss
// of the user's ID tokens. The issuer is not told: its own session goes on.
// After an error some sessions may be left; call it again.
func (a *Auth) SignOutUser(ctx context.Context, issuer, subject string) error {
	n, err := a.records.endIndexed(ctx, indexUser, userValue(issuer, subject))
	if n > 0 {
		a.report.event(ctx, Event{Name: EventSignedOut, User: &User{Issuer: issuer, Subject: subject}})
	}
	if err != nil {
		return fmt.Errorf("signin: signing a user out: %w", err)
	}
	return nil
}

// backChannelLogout takes a logout token from the issuer (OpenID Connect
// Back-Channel Logout 1.0, 2.5 to 2.8).
func (a *Auth) backChannelLogout(w http.ResponseWriter, r *http.Request) {
	site.NoStore(w)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	err := a.logoutByToken(r)
	_, store := errors.AsType[*once.StoreError](err)
	_, keys := errors.AsType[*oidc.Error](err)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case store || keys: // the token may be good: the issuer should try again
		a.report.event(r.Context(), Event{Name: EventRejected, Page: "backchannel-logout", Status: http.StatusServiceUnavailable, Err: err})
		w.Header().Set("Retry-After", "5")
		http.Error(w, "temporarily unavailable", http.StatusServiceUnavailable)
	default:
		a.report.event(r.Context(), Event{Name: EventRejected, Page: "backchannel-logout", Status: http.StatusBadRequest, Err: err})
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"error":"invalid_request"}`+"\n")
	}
}

func (a *Auth) logoutByToken(r *http.Request) error {
	raw, err := readLogoutToken(r)
	if err != nil {
		return err
	}
	// Not the request's: once the token id is used up, the rest must be done.
	ctx := context.WithoutCancel(r.Context())
	meta, err := a.issuer.Metadata(ctx)
	if err != nil {
		return err
	}
	token, err := a.issuer.VerifyLogoutToken(ctx, meta, raw)
	if err != nil {
		return err
	}
	// Whoever keeps a token must not be able to end later sessions with it. It
	// is marked as used when all is done: until then the issuer may try again.
	mark := seal.StoreKey("j", append(a.party, "\x00"+token.Issuer+"\x00"+token.ID...))
	used, err := once.ReadFresh(ctx, a.store, mark)
	if err != nil {
		return err
	}
	if used != nil {
		return errors.New("logout token: jti was used before")
	}
	if err := a.records.checkLogoutAlg(ctx, token); err != nil {
		return err
	}
	if err := a.records.endNamed(ctx, token); err != nil {
		return err
	}
	if _, _, err = once.Swap(ctx, a.store, mark, nil, []byte{claimDone}, 2*(oidc.LogoutAge+a.cfg.ClockSkew)); err != nil {
		return err
	}
	a.report.event(ctx, Event{Name: EventSignedOut, User: &User{Issuer: token.Issuer, Subject: token.Subject}})
	return nil
}

// readLogoutToken reads the form that a logout token comes in.
func readLogoutToken(r *http.Request) (string, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return "", errors.New("not a form")
	}
	body, err := web.ReadForm(r)
	if err != nil || len(body) > web.MaxForm {
		return "", errors.New("form too large or cut off")
	}
	form, err := url.ParseQuery(body)
	if err != nil || len(form["logout_token"]) != 1 {
		return "", errors.New("want one logout_token")
	}
	return form.Get("logout_token"), nil
}

// frontChannelLogout is loaded by the issuer's logout page in a frame (OpenID
// Connect Front-Channel Logout 1.0). The session cookie does not arrive there,
// so iss and sid say which session ends. A sid is known to the issuer, the
// browser and us.
func (a *Auth) frontChannelLogout(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	site.NoStore(w)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'")
	if r.Method != http.MethodGet {
		h.Set("Allow", "GET")
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	err := a.logoutByName(r)
	_, store := errors.AsType[*once.StoreError](err)
	_, issuer := errors.AsType[*oidc.Error](err)
	switch {
	case err == nil:
		h.Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!DOCTYPE html><title>Signed out</title><p>Signed out.\n")
	case store || issuer:
		a.report.event(r.Context(), Event{Name: EventRejected, Page: "frontchannel-logout", Status: http.StatusServiceUnavailable, Err: err})
		h.Set("Retry-After", "5")
		http.Error(w, "temporarily unavailable", http.StatusServiceUnavailable)
	default:
		http.Error(w, "want iss and sid", http.StatusBadRequest)
	}
}

// logoutByName ends the sessions that iss and sid name. Anybody can ask for
// that, with any sid. So it reads first and writes nothing where no session
// stands under the sid, and requests for one sid share one call. A sign-in that
// is under way then goes on; a logout token, which is signed, ends that too.
func (a *Auth) logoutByName(r *http.Request) error {
	q := r.URL.Query()
	sid := q.Get("sid")
	if sid == "" || len(sid) > 1024 || len(q["sid"]) > 1 || len(q["iss"]) > 1 {
		a.notices.foundNothing(r.Context())
		return errors.New("front-channel logout: want one sid")
	}
	meta, err := a.issuer.Metadata(r.Context())
	if err != nil {
		return err
	}
	// Entra sends sid alone. Anybody else must say iss, too (Front-Channel
	// Logout, 2): another issuer may have the same sid.
	if !meta.Rule.Names(q.Get("iss")) && (q.Has("iss") || !meta.Rule.Family.BareSID) {
		return errors.New("front-channel logout: another issuer")
	}
	// The frame may be gone before all is done.
	_, err = a.chores.Do(r.Context(), "sid."+sid, logoutLimit, func(ctx context.Context) (struct{}, error) {
		found, err := a.records.endSID(ctx, sid)
		if err == nil && !found {
			a.notices.foundNothing(ctx)
		}
		return struct{}{}, err
	})
	return err
}
