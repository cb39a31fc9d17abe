package signintest

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"time"
)

// pushedRequest is an authorization request that waits for its browser.
type pushedRequest struct {
	clientID string
	form     url.Values
	expiry   time.Time
}

// push serves the pushed authorization request endpoint (RFC 9126, section 2).
func (i *Issuer) push(w http.ResponseWriter, x *exchange) {
	w.Header().Set("Cache-Control", "no-store")
	if x.call.Method != http.MethodPost {
		http.Error(w, "signintest: the pushed authorization request endpoint wants POST", http.StatusMethodNotAllowed)
		return
	}
	client, oerr := i.authenticate(x)
	if oerr == nil {
		oerr = i.checkPush(x, client)
	}
	if oerr != nil {
		x.writeError(w, *oerr)
		return
	}
	form := maps.Clone(x.call.Form)
	for _, name := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		delete(form, name)
	}
	life := cmp.Or(x.b.PushLifetime, time.Minute)
	uri := "urn:ietf:params:oauth:request_uri:" + random("")
	i.remember(uri)
	i.mu.Lock()
	i.pushed[uri] = pushedRequest{client.ID, form, x.b.now().Add(life)}
	i.mu.Unlock()
	body := map[string]any{"request_uri": uri, "expires_in": int64(life / time.Second)}
	replace(body, x.b.PushMembers)
	writeJSON(w, cmp.Or(x.b.PushStatus, http.StatusCreated), body)
}

// checkPush judges a pushed request as the authorization endpoint would.
func (i *Issuer) checkPush(x *exchange, client Client) *OAuthError {
	q := x.call.Form
	switch {
	case duplicate(q) != "":
		return invalidRequest(duplicate(q) + " is given twice")
	case q.Has("request_uri"):
		return invalidRequest("request_uri is not for pushed requests")
	case q.Get("client_id") != client.ID:
		return invalidRequest("client_id is missing or another client's")
	case !client.mayGoTo(q.Get("redirect_uri")):
		return invalidRequest("redirect_uri " + q.Get("redirect_uri") + " is not registered")
	}
	return client.checkRequest(q)
}

// pushedForm puts the request that request_uri names in place of that in the URL. A
// name serves once.
func (i *Issuer) pushedForm(x *exchange) *OAuthError {
	q := x.call.Form
	if !q.Has("request_uri") {
		if x.b.RequirePush && !i.submitted(x) {
			return invalidRequest("the request has to be pushed")
		}
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	p, ok := i.pushed[q.Get("request_uri")]
	delete(i.pushed, q.Get("request_uri"))
	switch {
	case !ok || x.b.now().After(p.expiry):
		return invalidRequest("request_uri is unknown, used or expired")
	case p.clientID != q.Get("client_id"):
		return invalidRequest("request_uri is another client's")
	}
	x.call.Form = p.form
	return nil
}
