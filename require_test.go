package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/signintest"
	"golang.org/x/oauth2"
)

// handle adds a page that says whether its requirement is met.
func (a *app) handle(path string, need Requirement) {
	a.mux.Handle(path, a.Require(need)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "in")
	})))
}

// A page that needs a scope asks for it before its handler runs, once, and the
// session is extended: the tokens held stay, and so does the session.
func TestRequireScopes(t *testing.T) {
	a := newApp(t)
	a.handle("/calendar", Requirement{Scopes: []string{"Calendars.Read"}})
	b := a.signIn()
	before := b.Open(a.url + "/token").Body

	p := b.Open(a.url + "/calendar?week=7")
	if p.Body != "in" || p.URL != a.url+"/calendar?week=7" {
		t.Fatalf("%d at %s: %.300s\n%s", p.Status, p.URL, p.Body, a.log)
	}
	asked := a.issuer.LastCall(signintest.EndpointAuthorize).Form
	if scope := " " + asked.Get("scope") + " "; !strings.Contains(scope, " Calendars.Read ") || !strings.Contains(scope, " openid ") {
		t.Errorf("scope %q", scope)
	}
	if asked.Get("login_hint") == "" {
		t.Error("no login_hint for the user who is signed in")
	}
	if n := a.redemptions(); n != 2 {
		t.Errorf("%d redemptions, want 2", n)
	}
	for range 2 {
		if p := b.Open(a.url + "/calendar"); p.Body != "in" {
			t.Fatalf("%d %s", p.Status, p.Body)
		}
	}
	// The refresh was tried first, and refused once.
	if n := a.redemptions() + a.refreshed(); n != 3 {
		t.Errorf("%d token requests, want 3: the scope is held now", n)
	}
	if after := b.Open(a.url + "/token").Body; after == "" {
		t.Errorf("the token of the sign-in, %.8s, is gone", before)
	}
}

// A refusal is a page, never a second redirect.
func TestRequireScopesRefused(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(x *signintest.Behaviour) {
			x.GrantScopes = func(asked []string) []string {
				var granted []string
				for _, s := range asked {
					if s != "Calendars.Read" {
						granted = append(granted, s)
					}
				}
				return granted
			}
		}
	})
	a.handle("/calendar", Requirement{Scopes: []string{"Calendars.Read"}})
	b := a.signIn()
	p := b.Open(a.url + "/calendar")
	if p.Status != http.StatusForbidden || p.URL != a.url+"/oidc/callback" {
		t.Errorf("%d at %s, want a 403 page at the callback", p.Status, p.URL)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 2 {
		t.Errorf("%d challenges, want 2: sign-in and one for the scope", n)
	}
	if !a.signedIn(b) {
		t.Error("the refusal ended the session")
	}
}

// If another user comes back it is a new session, with nothing of the old one.
func TestRequireScopesOtherUser(t *testing.T) {
	a := newApp(t)
	a.handle("/calendar", Requirement{Scopes: []string{"Calendars.Read"}})
	b := a.signIn()
	old := b.Clone()
	a.issuer.Update(func(x *signintest.Behaviour) {
		x.User = "bob"
		x.Users = x.Users[1:] // so that the login_hint finds nobody
	})
	if p := b.Open(a.url + "/calendar"); p.Body != "in" {
		t.Fatalf("%d %s", p.Status, p.Body)
	}
	if got := a.subject(b); got != "bob" {
		t.Errorf("signed in as %s, want bob", got)
	}
	if info, _ := a.issuer.TokenInfo(b.Open(a.url + "/token").Body); info.Subject != "bob" {
		t.Errorf("the token is %q's, want bob's", info.Subject)
	}
	if a.signedIn(old) {
		t.Error("alice's session lives on in a browser that is bob's now")
	}
}

func TestRequireMaxAge(t *testing.T) {
	a := newApp(t)
	a.handle("/danger", Requirement{MaxAge: 10 * time.Minute})
	b := a.signIn()
	if p := b.Open(a.url + "/danger"); p.Body != "in" || a.redemptions() != 1 {
		t.Fatalf("a sign-in of just now: %d, %d redemptions\n%.300s", p.Status, a.redemptions(), p.Body)
	}
	a.clock.advance(12 * time.Minute)
	if p := b.Open(a.url + "/danger"); p.Body != "in" {
		t.Fatalf("%d %.300s\n%s", p.Status, p.Body, a.log)
	}
	if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("max_age"); got != "600" {
		t.Errorf("max_age %q, want 600", got)
	}
	if n := a.redemptions(); n != 2 {
		t.Errorf("%d redemptions, want 2", n)
	}
}

func TestRequireACR(t *testing.T) {
	a := newApp(t)
	a.handle("/danger", Requirement{ACR: []string{"phr", "mfa"}})
	b := a.signIn()
	p := b.Fetch(b.Open(a.url+"/"), "/danger")
	if got := p.Header.Get("WWW-Authenticate"); p.Status != 401 || !strings.Contains(got, `error="insufficient_user_authentication"`) || !strings.Contains(got, `acr_values="phr mfa"`) {
		t.Errorf("fetch: %d, WWW-Authenticate %q", p.Status, got)
	}
	if p := b.Open(a.url + "/danger"); p.Body != "in" {
		t.Fatalf("%d %.300s\n%s", p.Status, p.Body, a.log)
	}
	if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("acr_values"); got != "phr mfa" {
		t.Errorf("acr_values %q, want both", got)
	}
}

// A POST navigation is not turned into a GET; its page has a link that leads
// to what is needed, and back.
func TestRequirePost(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	// The form was open when the session ended.
	p := b.Follow(&signintest.Request{Method: "POST", URL: a.url + "/page/save", Form: url.Values{"text": {"long"}}, From: a.url + "/page/form?id=1", Activated: true})
	if p.Status != http.StatusUnauthorized || !strings.Contains(p.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %s, want a 401 page", p.Status, p.Header.Get("Content-Type"))
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 0 {
		t.Errorf("%d challenges", n)
	}
	if p = b.Click(p, p.Link("Sign in")); p.Status != http.StatusOK || p.URL != a.url+"/page/form?id=1" {
		t.Errorf("the link led to %d at %s", p.Status, p.URL)
	}
}

func TestRequireOutsideHandler(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.wrap = func(_ *Auth, mux *http.ServeMux) http.Handler { return mux }
	})
	if p := a.browser().Open(a.url + "/me"); p.Status != http.StatusInternalServerError {
		t.Errorf("%d, want 500: nobody gets through", p.Status)
	}
}

func TestUser(t *testing.T) {
	claims := func(c map[string]any) *User {
		raw, _ := json.Marshal(c)
		return &User{Issuer: "i", Subject: "s", RawClaims: raw}
	}
	for _, tc := range []struct {
		name   string
		claims map[string]any
		claim  string
		want   string
	}{
		{"preferred_username first", map[string]any{"preferred_username": "p", "name": "n", "email": "e"}, "", "p"},
		{"then name", map[string]any{"name": "n", "email": "e"}, "", "n"},
		{"then email", map[string]any{"email": "e"}, "", "e"},
		{"then sub", map[string]any{}, "", "s"},
		{"empty ones do not count", map[string]any{"preferred_username": "", "name": "n"}, "", "n"},
		{"nor others than strings", map[string]any{"preferred_username": 7, "name": "n"}, "", "n"},
		{"the claim configured", map[string]any{"preferred_username": "p", "upn": "u"}, "upn", "u"},
		{"the claim configured is missing", map[string]any{"name": "n"}, "upn", "n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := claims(tc.claims)
			u.nameClaim = tc.claim
			if got := u.Name(); got != tc.want {
				t.Errorf("Name() = %q, want %q", got, tc.want)
			}
		})
	}

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("user", claims(map[string]any{"email": "secret@example"})))
	if strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "user.sub=s") {
		t.Errorf("logged as %s", log.String())
	}
	if u := (&User{Tenant: "a", HomeAccount: "uid.b"}); !u.Guest() {
		t.Error("a user of another tenant is a guest")
	}
	if u := (&User{Tenant: "a", HomeAccount: "uid.a"}); u.Guest() {
		t.Error("a user at home is no guest")
	}
}

func TestNewContext(t *testing.T) {
	alice := &User{Issuer: "i", Subject: "alice"}
	token := &oauth2.Token{AccessToken: "a"}
	ctx := NewContext(t.Context(), alice, oauth2.StaticTokenSource(token))
	if got := UserFromContext(ctx); got != alice {
		t.Errorf("UserFromContext = %v", got)
	}
	if got, err := TokenSource(ctx, "any").Token(); err != nil || got.AccessToken != "a" {
		t.Errorf("Token = %v, %v", got, err)
	}
	nobody := NewContext(t.Context(), nil, nil)
	if u, err := LookupUser(nobody); u != nil || err != nil {
		t.Errorf("LookupUser = %v, %v; want nobody", u, err)
	}
	if _, err := TokenSource(nobody).Token(); err == nil {
		t.Error("nobody has a token")
	}
	if _, err := TokenSource(context.Background()).Token(); err == nil {
		t.Error("a context of no request has a token")
	}
	if u := UserFromContext(context.Background()); u != nil {
		t.Errorf("UserFromContext of no request = %v", u)
	}
}

// What NewContext makes up counts for the middleware, too, which asks neither
// the store nor the issuer for it.
func TestNewContextBelowRequire(t *testing.T) {
	a := newApp(t)
	token := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "a"})
	consent := failing{&InteractionRequiredError{Reason: ReasonConsent}}
	alice := &User{Subject: "alice", AuthTime: a.clock.now(), ACR: "mfa"}
	only := func(subject string) func(*User) error {
		return func(u *User) error {
			if u.Subject != subject {
				return errors.New("somebody else")
			}
			return nil
		}
	}
	for _, tc := range []struct {
		name   string
		user   *User
		source oauth2.TokenSource
		need   Requirement
		want   int
	}{
		{"user", alice, token, Requirement{}, 200},
		{"nobody", nil, nil, Requirement{}, 401},
		{"nobody with a token", nil, token, Requirement{}, 401},
		{"allowed", alice, token, Requirement{Allow: only("alice")}, 200},
		{"not allowed", alice, token, Requirement{Allow: only("bob")}, 403},
		{"recent", alice, nil, Requirement{MaxAge: time.Minute, ACR: []string{"mfa"}}, 200},
		{"not strong enough", alice, token, Requirement{ACR: []string{"hwk"}}, 401},
		{"no time of sign-in", &User{Subject: "x"}, token, Requirement{MaxAge: time.Minute}, 401},
		{"scopes", alice, token, Requirement{Scopes: []string{"Mail.Read"}}, 200},
		{"resource, and a source without", alice, consent, Requirement{Resource: "https://api.example.test"}, 401},
		{"scopes, and no source", alice, nil, Requirement{Scopes: []string{"Mail.Read"}}, 401},
		{"scopes, and a source that fails", alice, failing{&temporaryError{errors.New("gone")}}, Requirement{Scopes: []string{"Mail.Read"}}, 503},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if u, err := LookupUser(r.Context()); u != tc.user || err != nil {
					t.Errorf("LookupUser = %v, %v", u, err)
				}
			})
			h := a.Recognize(a.Require(tc.need)(page))
			for where, h := range map[string]http.Handler{"Require": h, "Handler": a.Handler(h)} {
				r := httptest.NewRequest("GET", a.url+"/x", nil) // of a script: not redirected
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r.WithContext(NewContext(r.Context(), tc.user, tc.source)))
				if w.Code != tc.want {
					t.Errorf("%s: %d, want %d", where, w.Code, tc.want)
				}
				// As well where the request has come through Handler before.
				w = httptest.NewRecorder()
				a.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					h.ServeHTTP(w, r.WithContext(NewContext(r.Context(), tc.user, tc.source)))
				})).ServeHTTP(w, r)
				if w.Code != tc.want {
					t.Errorf("%s inside Handler: %d, want %d", where, w.Code, tc.want)
				}
			}
		})
	}
	if n := a.issuer.Count(signintest.EndpointAny); n != 0 {
		t.Errorf("%d requests to the issuer", n)
	}
}

// A handler whose token needs a store that fails has nothing to decide.
func TestChallengeStoreFailing(t *testing.T) {
	a := newApp(t)
	for _, tc := range []struct {
		name string
		err  error
		want int
	}{
		{"store", fmt.Errorf("calling the API: %w", once.Failed(errors.New("gone"))), http.StatusServiceUnavailable},
		{"issuer", &temporaryError{errors.New("gone")}, 0},
		{"other", errors.New("gone"), 0},
		{"none", nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			answered := a.Challenge(w, httptest.NewRequest("GET", "https://app.example.test/", nil), tc.err)
			if answered != (tc.want != 0) || answered && (w.Code != tc.want || w.Header().Get("Retry-After") == "") {
				t.Errorf("answered %t with %d and Retry-After %q, want %d", answered, w.Code, w.Header().Get("Retry-After"), tc.want)
			}
		})
	}
}

// Scopes that came with different consents are all renewed silently, though a
// refresh without scopes brings the newest consent's only.
func TestConsentsOutliveTheirTokens(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	for _, scope := range []string{"api.read", "Mail.Read"} {
		if p := b.Open(a.url + "/token?scope=" + scope); p.Status != http.StatusOK {
			t.Fatalf("%s: %d %.300s", scope, p.Status, p.Body)
		}
	}
	challenges := a.issuer.Count(signintest.EndpointAuthorize)
	for i := range 3 {
		a.clock.advance(2 * time.Hour)
		for _, scope := range []string{"api.read", "Mail.Read"} {
			p := b.Open(a.url + "/token?scope=" + scope)
			info, _ := a.issuer.TokenInfo(p.Body)
			if p.Status != http.StatusOK || !slices.Contains(info.Scopes, scope) || !info.Active {
				t.Fatalf("%s, %d: %d, scopes %v\n%s", scope, i, p.Status, info.Scopes, a.log)
			}
		}
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize) - challenges; n != 0 {
		t.Errorf("%d challenges, want none", n)
	}
	// One for each scope and round. The first round learns with one that
	// serves Mail.Read that api.read must be asked for by name.
	if n := a.refreshed() - 2; n != 6 {
		t.Errorf("%d refreshes, want 6", n)
	}
}
