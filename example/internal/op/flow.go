package op

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

// Keys of goidc.AuthnSession.Store, and of goidc.Grant.Store which inherits it.
const (
	storeSession     = "session"      // string: id of the browser session this flow goes on in
	storeLoggedIn    = "logged_in"    // bool: the password was asked for in this flow
	storeStepUp      = "step_up"      // bool: the client or its API asks for the second step
	storeFinished    = "finished"     // bool: an answer has gone to the client
	storeIDClaims    = "id_claims"    // map[string]any
	storeTokenClaims = "token_claims" // map[string]any
)

// Errors of OpenID Connect Core, section 3.1.2.6, that go-oidc has no name for.
const (
	errInteractionRequired goidc.ErrorCode = "interaction_required"
	errConsentRequired     goidc.ErrorCode = "consent_required"
)

// storedClaims returns the claims that authenticate left in the grant.
func storedClaims(key string) func(context.Context, *goidc.Grant) map[string]any {
	return func(_ context.Context, g *goidc.Grant) map[string]any {
		claims, _ := g.Store[key].(map[string]any)
		return claims
	}
}

// setup looks at the authorization request. It reads the claims parameter
// itself: go-oidc drops its access_token member, in which an API's claims
// challenge arrives.
func (p *Provider) setup(r *http.Request, as *goidc.AuthnSession, _ *goidc.Client) bool {
	as.Store = map[string]any{
		storeSession: sessionID(r),
		storeStepUp:  wantsStepUp(as.ACRValues, r.FormValue("claims")),
	}
	return true
}

func wantsStepUp(acrValues, claims string) bool {
	if slices.Contains(strings.Fields(acrValues), ACRStepUp) {
		return true
	}
	type claim struct {
		Value  string   `json:"value"`
		Values []string `json:"values"`
	}
	var c struct {
		IDToken     map[string]*claim `json:"id_token"`
		AccessToken map[string]*claim `json:"access_token"`
	}
	if json.Unmarshal([]byte(claims), &c) != nil {
		return false
	}
	asks := func(c *claim, value string) bool {
		return c != nil && (c.Value == value || slices.Contains(c.Values, value))
	}
	return asks(c.IDToken["acr"], ACRStepUp) || asks(c.AccessToken["acrs"], ContextStepUp)
}

// flow is one visit to the authorization endpoint or to a page of ours.
type flow struct {
	p  *Provider
	w  http.ResponseWriter
	r  *http.Request
	as *goidc.AuthnSession

	// action is the button that was pressed. An authorization request that
	// another site posts must not press one, so it is empty there.
	action  string
	session browserSession
	known   bool // session holds somebody
}

// authenticate asks for whatever is still missing, one page at a time, and
// then lets go-oidc answer the client.
func (p *Provider) authenticate(w http.ResponseWriter, r *http.Request, as *goidc.AuthnSession, _ *goidc.Client) (goidc.Status, error) {
	f := &flow{p: p, w: w, r: r, as: as}
	// go-oidc makes a new code each time a finished session is visited, say
	// by Back and the consent button once more.
	if f.is(storeFinished) {
		return f.show("finished", http.StatusBadRequest, nil)
	}
	if r.Method == http.MethodPost && r.PathValue("callback") != "" {
		f.action = r.PostFormValue("action")
	}
	f.session, f.known = p.sessions.get(f.sessionID())
	for _, step := range []func() (goidc.Status, error){f.login, f.stepUp, f.consent} {
		if status, err := step(); status != goidc.StatusSuccess {
			if status == goidc.StatusFailure {
				as.Store[storeFinished] = true
			}
			return status, err
		}
	}
	return f.finish()
}

func (f *flow) is(key string) bool {
	v, _ := f.as.Store[key].(bool)
	return v
}

func (f *flow) sessionID() string {
	id, _ := f.as.Store[storeSession].(string)
	return id
}

// prompts reports whether the client asked for one of the prompts.
func (f *flow) prompts(any ...string) bool {
	return slices.ContainsFunc(strings.Fields(string(f.as.Prompt)), func(p string) bool { return slices.Contains(any, p) })
}

func refuse(code goidc.ErrorCode, text string) (goidc.Status, error) {
	return goidc.StatusFailure, goidc.NewError(code, text)
}

func (f *flow) show(page string, status int, data map[string]any) (goidc.Status, error) {
	values := map[string]any{
		"Action": "/authorize/" + url.PathEscape(f.as.ID),
		"User":   f.session.user,
		"Site":   siteOf(f.as.RedirectURI),
	}
	maps.Copy(values, data)
	return goidc.StatusPending, f.p.pages.Render(f.w, status, page, values)
}

func siteOf(redirectURI string) string {
	u, err := url.Parse(redirectURI)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/"
}

// login asks for name and password unless somebody is signed in who serves.
func (f *flow) login() (goidc.Status, error) {
	if f.known && (f.is(storeLoggedIn) || !f.mustLogIn()) {
		return goidc.StatusSuccess, nil
	}
	if f.prompts("none") {
		return refuse(goidc.ErrorCodeLoginRequired, "nobody is signed in")
	}
	switch f.action {
	case "cancel":
		return refuse(goidc.ErrorCodeAccessDenied, "the user cancelled the sign-in")
	case "login":
	default:
		return f.show("login", http.StatusOK, map[string]any{"Users": Users, "Username": f.as.LoginHint})
	}
	username := f.r.PostFormValue("username")
	user, ok := checkPassword(username, f.r.PostFormValue("password"))
	if !ok {
		return f.show("login", http.StatusUnauthorized, map[string]any{"Users": Users, "Username": username, "Wrong": true})
	}
	session := browserSession{user: user, authTime: time.Now(), consented: map[string]bool{}}
	if f.session.user == user {
		session.consented = f.session.consented
	}
	f.p.sessions.remove(f.sessionID())
	id := f.p.sessions.add(session)
	f.p.setSessionCookie(f.w, id)
	f.as.Store[storeSession], f.as.Store[storeLoggedIn] = id, true
	f.session, f.known, f.action = session, true, ""
	return goidc.StatusSuccess, nil
}

func (f *flow) mustLogIn() bool {
	age := f.as.MaxAuthnAgeSecs
	return f.prompts("login", "select_account") ||
		age != nil && time.Since(f.session.authTime) >= time.Duration(*age)*time.Second
}

func checkPassword(username, password string) (User, bool) {
	for _, u := range Users {
		if strings.EqualFold(u.Username, strings.TrimSpace(username)) {
			return u, subtle.ConstantTimeCompare([]byte(u.Password), []byte(password)) == 1
		}
	}
	return User{}, false
}

// stepUp asks for the second step if the request wants it.
func (f *flow) stepUp() (goidc.Status, error) {
	if !f.is(storeStepUp) || f.session.steppedUp {
		return goidc.StatusSuccess, nil
	}
	if f.prompts("none") {
		return refuse(errInteractionRequired, "a second step is required")
	}
	switch f.action {
	case "cancel":
		return refuse(goidc.ErrorCodeAccessDenied, "the user cancelled the second step")
	case "step-up":
	default:
		return f.show("stepup", http.StatusOK, map[string]any{"Code": Code})
	}
	if f.r.PostFormValue("code") != Code {
		return f.show("stepup", http.StatusUnauthorized, map[string]any{"Code": Code, "Wrong": true})
	}
	f.session.steppedUp, f.action = true, ""
	f.p.sessions.update(f.sessionID(), func(s *browserSession) { s.steppedUp = true })
	return goidc.StatusSuccess, nil
}

// consent asks for the scopes that were not consented to before. The user may
// leave some out; what is left is granted.
func (f *flow) consent() (goidc.Status, error) {
	if f.session.covers(f.as.Scopes) && !f.prompts("consent") {
		f.as.GrantedScopes = f.as.Scopes
		return goidc.StatusSuccess, nil
	}
	if f.prompts("none") {
		return refuse(errConsentRequired, "the user has not consented")
	}
	switch f.action {
	case "cancel":
		return refuse(goidc.ErrorCodeAccessDenied, "the user refused")
	case "allow":
	default:
		return f.show("consent", http.StatusOK, map[string]any{"Scopes": f.scopesToShow()})
	}
	allowed := make(map[string]bool)
	var granted []string
	for scope := range strings.FieldsSeq(f.as.Scopes) {
		if required(scope) || !f.toShow(scope) || slices.Contains(f.r.PostForm["scope"], scope) {
			granted = append(granted, scope)
			allowed[scope] = true
		}
	}
	f.as.GrantedScopes = strings.Join(granted, " ")
	f.p.sessions.update(f.sessionID(), func(s *browserSession) {
		s.consented = maps.Clone(s.consented)
		maps.Copy(s.consented, allowed)
		f.session.consented = s.consented
	})
	return goidc.StatusSuccess, nil
}

// required reports whether a scope comes with signing in, and so has no
// checkbox.
func required(scope string) bool {
	return slices.Contains([]string{"openid", "profile", "email", "offline_access"}, scope)
}

type scopeView struct {
	ID, Text string
	Required bool
}

func (f *flow) scopesToShow() []scopeView {
	asked := strings.Fields(f.as.Scopes)
	var list []scopeView
	for _, s := range scopes {
		if slices.Contains(asked, s.id) && f.toShow(s.id) {
			list = append(list, scopeView{s.id, s.text, required(s.id)})
		}
	}
	return list
}

// toShow leaves out what was consented to before, unless the client wants it
// asked again.
func (f *flow) toShow(scope string) bool {
	return !f.session.consented[scope] || f.prompts("consent")
}

// finish tells go-oidc who it was and what was granted: the scopes of this
// request, and what the user consented to before, so that the newest refresh
// token reaches them all, as one of Entra ID does.
func (f *flow) finish() (goidc.Status, error) {
	granted := strings.Fields(f.as.GrantedScopes)
	for _, s := range scopes {
		if f.session.consented[s.id] && !slices.Contains(granted, s.id) && !f.leftOut(s.id) {
			granted = append(granted, s.id)
		}
	}
	user := f.session.user
	f.as.Subject, f.as.Username = user.Subject, user.Username
	f.as.GrantedScopes = strings.Join(granted, " ")
	f.as.GrantedResources = f.as.Resources

	id := map[string]any{
		goidc.ClaimAuthTime: f.session.authTime.Unix(),
		goidc.ClaimACR:      ACRPassword,
		goidc.ClaimAMR:      []string{"pwd"},
	}
	token := map[string]any{"name": user.Name, "preferred_username": user.Username, "email": user.Email}
	if f.session.steppedUp {
		id[goidc.ClaimACR] = ACRStepUp
		id[goidc.ClaimAMR] = []string{"pwd", "otp", "mfa"}
		token["acrs"] = []string{ContextStepUp}
	}
	if slices.Contains(granted, "profile") {
		id[goidc.ClaimName] = user.Name
		id[goidc.ClaimGivenName] = user.GivenName
		id[goidc.ClaimPreferredUsername] = user.Username
	}
	if slices.Contains(granted, "email") {
		id[goidc.ClaimEmail] = user.Email
		id[goidc.ClaimEmailVerified] = true
	}
	f.as.Store[storeIDClaims], f.as.Store[storeTokenClaims] = id, token
	f.as.Store[storeFinished] = true
	return goidc.StatusSuccess, nil
}

// leftOut reports whether the user just unticked a scope consented to before.
func (f *flow) leftOut(scope string) bool {
	return f.action == "allow" && slices.Contains(strings.Fields(f.as.Scopes), scope) &&
		!slices.Contains(strings.Fields(f.as.GrantedScopes), scope)
}
