package signin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
)

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
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return errors.New("not a form")
	}
	body, err := readForm(r)
	if err != nil || len(body) > maxCallback {
		return errors.New("form too large or cut off")
	}
	form, err := url.ParseQuery(body)
	if err != nil || len(form["logout_token"]) != 1 {
		return errors.New("want one logout_token")
	}
	// Not the request's: once the token id is used up, the rest must be done.
	ctx := context.WithoutCancel(r.Context())
	meta, err := a.issuer.Metadata(ctx)
	if err != nil {
		return err
	}
	token, err := a.issuer.VerifyLogoutToken(ctx, meta, form.Get("logout_token"))
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
	if token.SessionID != "" {
		_, err = a.records.endIndexed(ctx, indexSID, token.SessionID)
	}
	switch user := userValue(token.Issuer, token.Subject); {
	case err != nil || token.Subject == "":
	case token.SessionID == "":
		_, err = a.records.endIndexed(ctx, indexUser, user)
	default:
		// Beside a sid the user is meant only where their ID tokens had none. A
		// sign-in under way is another session: some issuers send this late.
		_, err = a.records.endListed(ctx, indexUser, user, false, func(e indexed) bool { return !e.SID })
	}
	if err == nil {
		_, _, err = once.Swap(ctx, a.store, mark, nil, []byte{claimDone}, 2*(oidc.LogoutAge+a.cfg.ClockSkew))
	}
	if err != nil {
		return err
	}
	a.report.event(ctx, Event{Name: EventSignedOut, User: &User{Issuer: token.Issuer, Subject: token.Subject}})
	return nil
}

// checkLogoutAlg checks that a logout token is signed by the algorithm of the
// ID tokens (Back-Channel Logout, 2.6, 2). An issuer announces the algorithms
// of all its clients. Which one is ours, the sessions tell that the token
// names: at least one began with an ID token by the same.
func (rs *records) checkLogoutAlg(ctx context.Context, t *oidc.LogoutToken) error {
	var named []indexed
	if t.SessionID != "" {
		list, err := rs.listed(ctx, indexSID, t.SessionID)
		if err != nil {
			return err
		}
		named = list
	}
	if t.Subject != "" {
		list, err := rs.listed(ctx, indexUser, userValue(t.Issuer, t.Subject))
		if err != nil {
			return err
		}
		for _, e := range list {
			if t.SessionID == "" || !e.SID {
				named = append(named, e)
			}
		}
	}
	if len(named) > 0 && !slices.ContainsFunc(named, func(e indexed) bool { return e.Alg == t.Alg }) {
		return errors.New("logout token: signed by another algorithm than the session's ID token")
	}
	return nil
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
		return struct{}{}, a.records.endSID(ctx, sid)
	})
	return err
}

// endSID ends the sessions under a sid, if there are any.
func (rs *records) endSID(ctx context.Context, sid string) error {
	for _, p := range rs.places(indexSID, sid) {
		sealed, err := once.ReadFresh(ctx, rs.store, p.name)
		if err != nil {
			return err
		}
		l := p.open(sealed)
		if l.forget(rs.now()); len(l.Sessions) == 0 {
			continue
		}
		n, err := rs.endIndexed(ctx, indexSID, sid)
		if n > 0 {
			rs.report.event(ctx, Event{Name: EventSignedOut})
		}
		return err
	}
	return nil
}
