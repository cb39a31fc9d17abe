package signintest

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const sessionCookie = "issuer_session"

// authorize answers an authorization request at once: who comes is signed in.
func (i *Issuer) authorize(w http.ResponseWriter, x *exchange) {
	if e := i.pushedForm(x); e != nil {
		http.Error(w, "signintest: "+e.Description, http.StatusBadRequest)
		return
	}
	q := x.call.Form
	client, ok := x.b.client(q.Get("client_id"))
	if !ok {
		http.Error(w, "signintest: unknown client_id", http.StatusBadRequest)
		return
	}
	redirect := q.Get("redirect_uri")
	if !client.mayGoTo(redirect) {
		http.Error(w, "signintest: redirect_uri is not registered", http.StatusBadRequest)
		return
	}
	if x.b.MaxState > 0 && len(q.Get("state")) > x.b.MaxState {
		http.Error(w, "signintest: AADSTS90015: Requested query string is too long.", http.StatusBadRequest)
		return
	}
	if x.b.LoginPage && i.askUser(w, x) {
		return
	}
	mode := x.b.responseMode(q)
	resp := &AuthResponse{Request: q, RedirectURI: redirect, Mode: baseMode(mode, q), Params: url.Values{}}
	if e := i.authorizeInto(w, x, client, resp); e != nil {
		if x.b.ErrorsByQuery {
			resp.Mode = "query"
		}
		resp.Params = e.params()
	}
	if q.Has("state") {
		resp.Params.Set("state", q.Get("state"))
	}
	if x.b.sendsIss() {
		resp.Params.Set("iss", i.announcedIssuer(x))
	}
	if signedMode(mode) {
		if err := i.signResponse(x, client, resp); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if x.b.EditResponse != nil {
		x.b.EditResponse(resp)
	}
	resp.send(w, x.r)
}

// mayGoTo reports whether an answer may go to a redirect URI.
func (c Client) mayGoTo(redirect string) bool {
	u, err := url.Parse(redirect)
	return err == nil && u.IsAbs() && u.Fragment == "" && (c.RedirectURIs == nil || slices.Contains(c.RedirectURIs, redirect))
}

// params are the error as an authorization answer (RFC 6749, section 4.1.2.1).
func (e *OAuthError) params() url.Values {
	params := url.Values{"error": {e.Code}}
	for name, value := range map[string]string{"error_description": e.Description, "error_uri": e.URI} {
		if value != "" {
			params.Set(name, value)
		}
	}
	for name, value := range e.Extra {
		params.Set(name, fmt.Sprint(value))
	}
	return params
}

// responseMode is the one asked for, else the response type's own.
func (b *Behaviour) responseMode(q url.Values) string {
	if m := q.Get("response_mode"); m != "" && (b.ResponseModes == nil || slices.Contains(b.ResponseModes, m)) {
		return m
	}
	if q.Get("response_type") == "code" {
		return "query"
	}
	return "fragment"
}

func invalidRequest(description string) *OAuthError {
	return &OAuthError{Code: "invalid_request", Description: description}
}

func hybrid(q url.Values) bool { return q.Get("response_type") == "code id_token" }

// checkResponse judges how the answer is to come, and mends the mode for the
// error that says no.
func (b *Behaviour) checkResponse(resp *AuthResponse) *OAuthError {
	kind := resp.Request.Get("response_type")
	switch {
	case !slices.Contains([]string{"code", "code id_token"}, kind), !slices.Contains(b.responseTypes(), kind):
		resp.Mode = "query"
		return &OAuthError{Code: "unsupported_response_type"}
	case !slices.Contains([]string{"query", "fragment", "form_post"}, resp.Mode):
		resp.Mode = "query"
		return invalidRequest("unknown response_mode")
	case hybrid(resp.Request) && resp.Mode == "query":
		// OAuth 2.0 Multiple Response Types, section 3: no token in a query.
		resp.Mode = "fragment"
		return invalidRequest("response_mode query cannot carry a token")
	}
	return nil
}

// checkRequest judges what any issuer wants of a request.
func (c Client) checkRequest(q url.Values) *OAuthError {
	scopes, prompt := strings.Fields(q.Get("scope")), strings.Fields(q.Get("prompt"))
	maxAge, err := strconv.Atoi(q.Get("max_age"))
	switch {
	case !slices.Contains(scopes, "openid"):
		return &OAuthError{Code: "invalid_scope", Description: "scope lacks openid"}
	case duplicate(q) != "":
		return invalidRequest(duplicate(q) + " is given twice")
	case c.public() && !q.Has("code_challenge"):
		return invalidRequest("a public client must use PKCE")
	case hybrid(q) && q.Get("nonce") == "":
		return invalidRequest("nonce is missing")
	case q.Has("code_challenge") && q.Get("code_challenge_method") != "S256":
		return invalidRequest("code_challenge_method is not S256")
	case len(prompt) > 1 && slices.Contains(prompt, "none"):
		return invalidRequest("prompt=none with another")
	case q.Has("max_age") && (err != nil || maxAge < 0):
		return invalidRequest("max_age is not a number of seconds")
	}
	return nil
}

// authorizeInto fills a good answer in, or returns the error to answer with.
func (i *Issuer) authorizeInto(w http.ResponseWriter, x *exchange, client Client, resp *AuthResponse) *OAuthError {
	q := resp.Request
	if x.b.Refuse != nil {
		return x.b.Refuse
	}
	if e := x.b.checkResponse(resp); e != nil {
		return e
	}
	if e := client.checkRequest(q); e != nil {
		return e
	}
	if e := x.b.checkAsked(x, client, resp.Mode, strings.Fields(q.Get("scope"))); e != nil {
		return e
	}
	g, e := i.grantFor(w, x, client, resp.RedirectURI)
	if e != nil {
		return e
	}
	first := i.firstTime(g)
	g.refreshToken = x.b.givesRefreshToken(q, g.scopes, first)
	code := i.issueCode(g)
	resp.Params.Set("code", code)
	if hybrid(q) {
		raw, err := i.issueIDToken(x, g, FrontChannel, code, "")
		if err != nil {
			return &OAuthError{Code: "server_error", Description: err.Error()}
		}
		if raw != "" {
			resp.Params.Set("id_token", raw)
		}
	}
	if g.clientInfo && x.b.microsoft() {
		resp.Params.Set("client_info", g.user.clientInfo())
	}
	if x.b.UserField && first && resp.Mode == "form_post" {
		resp.Params.Set("user", g.user.appleField(g.scopes))
	}
	return nil
}

// grantFor signs the user in and makes the grant, as far as the request is
// about who that is.
func (i *Issuer) grantFor(w http.ResponseWriter, x *exchange, client Client, redirect string) (*grant, *OAuthError) {
	q := x.call.Form
	prompt, scopes := strings.Fields(q.Get("prompt")), strings.Fields(q.Get("scope"))
	user, ok := x.b.user(i.hint(x))
	if !ok {
		return nil, &OAuthError{Code: "access_denied", Description: "there is no such user"}
	}
	if i.formExpired(x) {
		return nil, &OAuthError{Code: "temporarily_unavailable", Description: "authentication_expired"}
	}
	maxAge := -1
	if q.Has("max_age") {
		maxAge, _ = strconv.Atoi(q.Get("max_age")) // has been checked
	}
	s, ok := i.signIn(w, x, user.Subject, slices.Contains(prompt, "none"), slices.Contains(prompt, "login"), maxAge)
	if !ok {
		return nil, &OAuthError{Code: "login_required"}
	}
	granted := scopes
	if x.b.GrantScopes != nil {
		granted = x.b.GrantScopes(slices.Clone(scopes))
	}
	g := &grant{
		clientID: client.ID, user: user, scopes: granted, resources: q["resource"],
		audience: q["audience"], nonce: q.Get("nonce"), claims: q.Get("claims"),
		session: s, challenge: q.Get("code_challenge"), redirectURI: redirect,
		clientInfo: q.Get("client_info") == "1", place: x.place,
		codeExpiry: x.b.now().Add(time.Minute),
	}
	g.tenant = x.b.tenantID(g.tenant)
	switch acr := strings.Fields(q.Get("acr_values")); {
	case x.b.Entra:
		// acr_values is not read. Who is asked for a context, shows it.
		g.idACRs = acrs(g.claims, "id_token")
		g.acrs = append(acrs(g.claims, "access_token"), g.idACRs...)
	case len(acr) > 0:
		g.acr = acr[0]
	}
	return g, nil
}

// checkAsked judges what a request asks for: scopes, resources, audiences.
func (b *Behaviour) checkAsked(x *exchange, client Client, mode string, scopes []string) *OAuthError {
	for _, s := range scopes {
		switch {
		case !b.knowScope(s):
			return &OAuthError{Code: "invalid_scope", Description: "the scope " + s + " is not known"}
		case slices.Contains(b.FormPostScopes, s) && mode != "form_post":
			return &OAuthError{Code: "invalid_request", Description: "response_mode must be form_post when " + s + " scope is requested"}
		}
	}
	for _, a := range x.call.Form["audience"] {
		if b.Audiences != nil && !slices.Contains(b.Audiences, a) {
			return &OAuthError{Code: "access_denied", Description: "Service not found: " + a}
		}
	}
	switch {
	case !b.knowResources(x.call.Form["resource"]):
		return &OAuthError{Code: "invalid_target"}
	case b.Entra && !x.v1:
		return b.checkScopes(scopes)
	case b.B2C:
		return checkB2CScopes(client.ID, scopes)
	}
	return nil
}

func (b *Behaviour) knowScope(s string) bool {
	if b.Scopes == nil || slices.Contains(b.Scopes, s) || slices.Contains(b.APIScopes, s) {
		return true
	}
	own := reserved(s) || slices.Contains([]string{"address", "phone"}, s)
	return b.APIScopes == nil && !own
}

func (b *Behaviour) givesRefreshToken(q url.Values, granted []string, first bool) bool {
	if b.RefreshTokenIf != nil {
		return b.RefreshTokenIf(q, first)
	}
	return b.RefreshAlways || slices.Contains(granted, "offline_access")
}

// firstTime reports whether a user has given nothing to a client yet.
func (i *Issuer) firstTime(g *grant) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.consents[consent{g.clientID, g.user.Subject}] == nil
}

// duplicate returns the name of a parameter that is given more than once,
// which RFC 6749, section 3.1 forbids for all but these.
func duplicate(q url.Values) string {
	for name, values := range q {
		if len(values) > 1 && name != "resource" && name != "audience" {
			return name
		}
	}
	return ""
}

// signIn finds or makes the browser's session at the issuer. A negative
// maxAge is none. It reports false if a silent request cannot be answered.
func (i *Issuer) signIn(w http.ResponseWriter, x *exchange, subject string, silent, fresh bool, maxAge int) (session, bool) {
	var id string
	if c, err := x.r.Cookie(sessionCookie); err == nil {
		id = c.Value
	}
	now := x.b.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.sessions[id]
	known := s != nil && s.subject == subject && !fresh
	stale := known && maxAge >= 0 && now.Sub(s.authTime) >= time.Duration(maxAge)*time.Second
	if silent && (x.b.SignedOut || stale) {
		return session{}, false
	}
	switch {
	case !known && s != nil && s.subject == subject, stale:
		s.authTime = now // signed in again, within the same session
	case !known:
		id = random("is_")
		i.begun++
		s = &session{number: i.begun, sid: random("sid_"), subject: subject, authTime: now}
		i.sessions[id] = s
		http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true,
			Secure: i.url.Scheme == "https", SameSite: http.SameSiteLaxMode})
	}
	return *s, true
}

// formPost is the page of OAuth 2.0 Form Post Response Mode.
var formPost = template.Must(template.New("form_post").Parse(`<!DOCTYPE html>
<html><head><title>Submit this form</title></head>
<body onload="javascript:document.forms[0].submit()">
<form method="post" action="{{.RedirectURI}}">
{{range $name, $values := .Params}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">
{{end}}{{end}}<noscript><button type="submit">Continue</button></noscript>
</form></body></html>
`))

func (a *AuthResponse) send(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	u, err := url.Parse(a.RedirectURI)
	if err != nil {
		http.Error(w, "signintest: redirect URI: "+err.Error(), http.StatusInternalServerError)
		return
	}
	switch a.Mode {
	case "form_post":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := formPost.Execute(w, map[string]any{"RedirectURI": template.URL(a.RedirectURI), "Params": a.Params}); err != nil {
			panic(http.ErrAbortHandler)
		}
		return
	case "fragment":
		// Set as a string, since URL.Fragment would be escaped once more.
		w.Header().Set("Location", a.RedirectURI+"#"+a.Params.Encode())
	default:
		if u.RawQuery != "" && len(a.Params) > 0 {
			u.RawQuery += "&"
		}
		u.RawQuery += a.Params.Encode()
		w.Header().Set("Location", u.String())
	}
	w.WriteHeader(http.StatusSeeOther)
}
