package signin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
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
	here := a.requestPath(r)
	switch r.Method {
	case http.MethodPost:
	case http.MethodGet, http.MethodHead:
		writePage(w, r, newPage(pageSignOut, here), a.cfg.Page)
		return
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		writePage(w, r, newPage(pageCallbackMethod, a.site(r).path("/")), a.cfg.Page)
		return
	}
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		a.fail(w, r, newPage(pageSignOutRefused, here), "", err)
		return
	}
	s, err := a.endSession(r)
	if err == nil {
		err = a.clearSecret(w, r)
	}
	if err != nil {
		a.fail(w, r, a.unavailable(newReturnPath(here), err), "", err)
		return
	}
	// A callback of before the sign-out, which Back posts again, is another
	// browser's from now on: it must not sign anybody in to a session that was
	// begun beside this one.
	if a.readBrowser(r) != nil {
		// Recognize has no business with who has just left.
		a.writeBrowser(w, r, &browser{secret: seal.Random(secretLen), asked: true})
	}
	// Back would show pages as they were, out of the back/forward cache.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	landing := a.site(r)
	noStore(w)
	w.Header().Set("Location", a.endSessionURL(r, s, landing))
	w.WriteHeader(http.StatusSeeOther)
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
		_, err = a.keys.Open("signed out", nil, a.party(), sealed)
	}
	return err == nil
}

// signedOut is a page to land on after a sign-out.
func (a *Auth) signedOut(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, newPage(pageSignedOut, a.site(r).path(a.loginPath)), a.cfg.Page)
}

// endSession deletes the browser's record, after those beside it, and returns
// what it was.
func (a *Auth) endSession(r *http.Request) (*session, error) {
	secret, err := a.readSecret(r)
	if err != nil {
		return nil, err
	}
	// A browser that walks away leaves nothing half done.
	ctx := context.WithoutCancel(r.Context())
	var s *session
	if secret != nil {
		if s, err = a.freshSession(ctx, secret); err != nil {
			return nil, err
		}
	}
	if err := a.endBeside(ctx, s, a.readBrowser(r)); err != nil || secret == nil {
		return nil, err
	}
	if err := once.Delete(ctx, a.store, seal.StoreKey("s", secret)); err != nil || s == nil {
		return nil, err
	}
	a.unindexLater(ctx, s)
	a.event(ctx, Event{Name: eventSignedOut, User: s.user})
	if meta, err := a.issuer.metadata(r.Context()); err == nil {
		a.revokeLater(ctx, meta, s.record.Refresh)
	}
	return s, nil
}

// endBeside ends what the user of s started beside it: two tabs that signed in
// at once made two sessions, and the cookie of one took the place of the
// other's. Of a browser without a session it ends what came from that browser;
// anybody can make up a browser cookie, so where there is nothing to end it
// writes nothing.
func (a *Auth) endBeside(ctx context.Context, s *session, b *browser) error {
	kind, value := indexBrowser, ""
	switch {
	case s != nil && s.user.sid != "":
		kind, value = indexSID, s.user.sid
	case s != nil:
		value = string(s.record.Browser)
	case b != nil:
		value = string(b.hash())
	}
	if value == "" {
		return nil
	}
	_, own := s.name()
	_, err := a.endListed(ctx, kind, value, s != nil, func(e indexed) bool { return e.Key != own })
	return err
}

// endSessionURL is the issuer's logout page, or ours if it has none or cannot
// be asked: here the user is signed out already.
func (a *Auth) endSessionURL(r *http.Request, s *session, home site) string {
	landing := home.path(a.cfg.SignedOutPath)
	meta, err := a.issuer.metadata(r.Context())
	if err != nil || meta.EndSessionEndpoint == "" {
		return newReturnPath(landing).String()
	}
	u, err := url.Parse(meta.EndSessionEndpoint)
	if err != nil {
		return newReturnPath(landing).String()
	}
	q := u.Query()
	q.Set("client_id", a.cfg.ClientID)
	q.Set("post_logout_redirect_uri", home.url(a.cfg.SignedOutPath))
	q.Set("state", seal.Encode(a.keys.Seal("signed out", nil, a.party(), nil)))
	// Of a session that has expired here nothing is left to tell; at the issuer
	// it may go on all the same.
	if s != nil {
		// An ID token with many groups does not fit into a URL; client_id and
		// the hint then say who.
		if len(s.record.IDToken) <= 4096 {
			q.Set("id_token_hint", s.record.IDToken)
		}
		if hint := s.user.loginHint(); hint != "" {
			q.Set("logout_hint", hint)
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// revokeLater gives a refresh token back (RFC 7009), without anyone waiting.
func (a *Auth) revokeLater(ctx context.Context, meta *metadata, refresh string) {
	if meta.RevocationEndpoint == "" || refresh == "" {
		return
	}
	a.background(ctx, "revoke."+seal.StoreKey("v", []byte(refresh)), tokenTimeout, func(ctx context.Context) {
		form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}}
		resp, _, _, err := a.postForm(ctx, meta, meta.RevocationEndpoint, form)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("revocation endpoint answered with status %d", resp.StatusCode)
		}
		if err != nil {
			a.event(ctx, Event{Name: eventRevokeFailed, Err: err})
		}
	})
}

// background runs a chore that nobody waits for but Close. A chore of the
// same name that is under way is not begun again.
func (a *Auth) background(ctx context.Context, name string, limit time.Duration, fn func(context.Context)) {
	a.chores.Start(ctx, name, limit, func(ctx context.Context) (struct{}, error) {
		fn(ctx)
		return struct{}{}, nil
	})
}
