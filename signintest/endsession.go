package signintest

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// endSession is OpenID Connect RP-Initiated Logout 1.0, or the like of it. It
// asks no question.
func (i *Issuer) endSession(w http.ResponseWriter, x *exchange) {
	q := x.call.Form
	client, err := i.leaving(x)
	if err != nil {
		http.Error(w, "signintest: "+err.Error(), http.StatusBadRequest)
		return
	}
	if c, err := x.r.Cookie(sessionCookie); err == nil {
		i.endSessionOf(x.b, c.Value)
		http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1})
	}
	back := q.Get(cmp.Or(x.b.LogoutParameter, "post_logout_redirect_uri"))
	if back == "" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte("<!DOCTYPE html><title>Signed out</title><h1>You have signed out at the issuer</h1>"))
		return
	}
	u, err := url.Parse(back)
	if err != nil || client.ID == "" || client.PostLogoutRedirectURIs != nil && !slices.Contains(client.PostLogoutRedirectURIs, back) {
		http.Error(w, "signintest: the address to go to afterwards is not registered", http.StatusBadRequest)
		return
	}
	if state := q.Get("state"); state != "" {
		params := u.Query()
		params.Set("state", state)
		u.RawQuery = params.Encode()
	}
	w.Header().Set("Location", u.String())
	w.WriteHeader(http.StatusSeeOther)
}

// leaving is the client that ends a session. It may be none.
func (i *Issuer) leaving(x *exchange) (Client, error) {
	q := x.call.Form
	id, hint := q.Get("client_id"), q.Get("id_token_hint")
	if x.b.LogoutParameter != "" {
		client, known := x.b.client(id)
		switch {
		case !known:
			return Client{}, errors.New("client_id is missing or unknown")
		case q.Has("post_logout_redirect_uri"):
			return Client{}, errors.New("post_logout_redirect_uri is not known here; want " + x.b.LogoutParameter)
		}
		return client, nil
	}
	if hint == "" {
		if x.b.LogoutNeedsHint {
			return Client{}, errors.New("id_token_hint is missing")
		}
		client, _ := x.b.client(id)
		return client, nil
	}
	token, err := parseJWT(hint)
	if err != nil || !slices.ContainsFunc(i.hintKeys(x.b), func(k Key) bool { return token.verify(k.Private.Public()) }) {
		return Client{}, errors.New("id_token_hint is not ours")
	}
	aud, _ := token.claims["aud"].(string)
	if id != "" && id != aud {
		return Client{}, errors.New("id_token_hint is another client's")
	}
	if x.b.NewestHintOnly && !i.isNewest(hint) {
		return Client{}, errors.New("id_token_hint is not the newest ID token")
	}
	client, _ := x.b.client(aud)
	return client, nil
}

// endSessionOf ends a session at the issuer, by its cookie.
func (i *Issuer) endSessionOf(b *Behaviour, cookie string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.sessions[cookie]
	delete(i.sessions, cookie)
	for _, g := range i.grants {
		offline := b.OfflineSessions && slices.Contains(g.scopes, "offline_access")
		if s != nil && b.LogoutEndsGrants && g.session.sid == s.sid && !offline {
			g.revoked = true
		}
	}
}

// FrontChannelLogoutURL is the address that the issuer has a browser load in a frame
// to end a client's session (OpenID Connect Front-Channel Logout 1.0,
// section 3): uri with iss and sid. Entra sends sid alone.
func (i *Issuer) FrontChannelLogoutURL(uri, sid string) string {
	params := url.Values{"sid": {sid}}
	if b := i.behaviour.Load(); !b.microsoft() {
		params.Set("iss", i.name(b))
	}
	if strings.Contains(uri, "?") {
		return uri + "&" + params.Encode()
	}
	return uri + "?" + params.Encode()
}

// isNewest reports whether an ID token is the last one of its session.
func (i *Issuer) isNewest(raw string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, newest := range i.newest {
		if newest == raw {
			return true
		}
	}
	return false
}

// NewestIDToken returns the last ID token of the session with the sid, as it was
// sent. It is empty if there is none.
func (i *Issuer) NewestIDToken(sid string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.newest[sid]
}

// hintKeys are the keys that a hint may be signed by.
func (i *Issuer) hintKeys(b *Behaviour) []Key {
	if b.HintNeedsPublishedKey {
		return i.published()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.borrowed)
}
