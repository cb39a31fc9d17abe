package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// label gives an answer another Content-Type; an empty one is none at all.
func label(value string) func(*signintest.Answer) {
	return func(a *signintest.Answer) {
		a.Header["Content-Type"] = []string{value}
		if value == "" {
			a.Header["Content-Type"] = nil
		}
	}
}

// oddAnswers are good answers of the token endpoint, as some issuers write them.
var oddAnswers = map[string]func(*signintest.Answer){
	"as text/plain":           label("text/plain; charset=utf-8"),
	"as text/html":            label("text/html"),
	"as text/javascript":      label("text/javascript"),
	"as a form":               label("application/x-www-form-urlencoded"),
	"as another JSON":         label("application/vnd.example+json"),
	"as nothing":              label(""),
	"with a broken label":     label("application/json; charset"),
	"201":                     func(a *signintest.Answer) { a.Status = http.StatusCreated },
	"byte order mark":         func(a *signintest.Answer) { a.Body = append([]byte("\ufeff"), a.Body...) },
	"space around":            func(a *signintest.Answer) { a.Body = []byte("\r\n\t" + string(a.Body) + "\n\n") },
	"expires_in a string":     member("expires_in", "3600"),
	"expires_in a fraction":   member("expires_in", 3599.5),
	"expires_in a float":      member("expires_in", json.RawMessage("3.6e3")),
	"expires_in no number":    member("expires_in", "an hour"),
	"expires_in an object":    member("expires_in", map[string]any{"s": 3600}),
	"refresh_in odd":          member("refresh_in", []int{1}),
	"scope a list":            member("scope", []string{"openid", "profile", "offline_access"}),
	"scope null":              member("scope", nil),
	"scope an object":         member("scope", map[string]any{}),
	"client_info a number":    member("client_info", 7),
	"error null":              member("error", nil),
	"error empty":             member("error", ""),
	"error_description odd":   member("error_description", 1),
	"token_type missing":      member("token_type", nil),
	"token_type by case":      member("token_type", "bearer"),
	"names by another case":   func(a *signintest.Answer) { member("Access_Token", 1)(a); member("ERROR", "x")(a) },
	"members that nobody has": member("id_token_expires_in", map[string]any{"x": []any{}}),
}

// An answer of the token endpoint counts for what it says: at a sign-in, at a
// refresh, and for the application's own tokens.
func TestOddAnswers(t *testing.T) {
	for name, edit := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			a := newApp(t)
			a.issuer.Fail(signintest.EndpointToken, signintest.Fault{Edit: edit})
			b := a.browser()
			if got := a.subject(b); got != "alice" {
				t.Fatalf("signed in as %q, want alice; %s", got, lastCause(a))
			}
			first := b.Open(a.url + "/token")
			if info, ok := a.issuer.TokenInfo(first.Body); !ok || !info.Active {
				t.Errorf("token: %d %.200s", first.Status, first.Body)
			}
			a.clock.advance(2 * time.Hour)
			p := b.Open(a.url + "/token")
			if info, ok := a.issuer.TokenInfo(p.Body); !ok || !info.Active && !strings.Contains(name, "no number") && !strings.Contains(name, "an object") {
				t.Errorf("refreshed: %d %.200s", p.Status, p.Body)
			}
			if token, err := a.AppTokenSource("api").Token(); err != nil || token.AccessToken == "" {
				t.Errorf("the application's own: %v", err)
			}
		})
	}
}

// An error of the token endpoint counts for what it says, too: a dead refresh
// token leads to a sign-in, not to a failure for the rest of the session.
func TestOddErrors(t *testing.T) {
	for name, edit := range map[string]func(*signintest.Answer){
		"as it should be":     func(*signintest.Answer) {},
		"as text/plain":       label("text/plain; charset=utf-8"),
		"as text/html":        label("text/html"),
		"as nothing":          label(""),
		"byte order mark":     oddAnswers["byte order mark"],
		"200":                 func(a *signintest.Answer) { a.Status = http.StatusOK },
		"201":                 func(a *signintest.Answer) { a.Status = http.StatusCreated },
		"401":                 func(a *signintest.Answer) { a.Status = http.StatusUnauthorized },
		"description a list":  member("error_description", []string{"gone"}),
		"claims an object":    member("claims", map[string]any{"access_token": 1}),
		"suberror a number":   member("suberror", 1),
		"error_uri an object": member("error_uri", map[string]any{}),
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t)
			b := a.signIn()
			a.clock.advance(2 * time.Hour)
			a.issuer.RevokeGrants("alice")
			a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Edit: edit})
			p := b.Send(&signintest.Request{URL: a.url + "/token", Activated: true})
			if p.Status != http.StatusSeeOther || !strings.HasPrefix(p.Header.Get("Location"), a.issuer.URL()) {
				t.Errorf("a dead refresh token: %d %.200q, want a redirect to the issuer\n%s", p.Status, p.Body, a.log)
			}
		})
	}
}

// TestAnswerCauses: what is refused names its cause in the log, and quotes
// nothing that is a secret.
func TestAnswerCauses(t *testing.T) {
	second := func(raw string) func(*signintest.Answer) { return member("id_token", raw) }
	for _, tc := range []struct {
		name string
		edit func(*signintest.Answer)
		want string
	}{
		{"HTML", func(a *signintest.Answer) { a.Body = []byte("<html>"); label("text/html")(a) }, `no JSON object but with "text/html"`},
		{"a list", func(a *signintest.Answer) { a.Body = []byte("[]") }, "no JSON object"},
		{"cut off", func(a *signintest.Answer) { a.Body = a.Body[:len(a.Body)-1] }, "no JSON object"},
		{"token_type a number", member("token_type", 1), "token_type"},
		{"another type of token", member("token_type", "mac"), "not a bearer token"},
		{"nothing", func(a *signintest.Answer) { a.Body = []byte("{}") }, "without an access token"},
		{"no ID token", member("id_token", nil), "there is none"},
		{"ID token a number", member("id_token", 7), "there is none"},
		{"an encrypted ID token", second("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a2V5.aXY.dGV4dA.dGFn"), "encrypted"},
		{"an ID token of four parts", second("eyJhbGciOiJSUzI1NiJ9.e30.e30.e30"), "compact"},
		{"an opaque ID token", second("it_0123456789"), "compact"},
		{"204", func(a *signintest.Answer) { a.Status, a.Body = http.StatusNoContent, nil }, "status 204"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t)
			a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Edit: tc.edit})
			if p := a.browser().Open(a.url + "/me"); p.Status < 400 || a.leaks(p) {
				t.Errorf("%d %.200s, want a refusal", p.Status, p.Body)
			}
			if cause := lastCause(a); !strings.Contains(cause, tc.want) {
				t.Errorf("refused because of %q, want %q in it", cause, tc.want)
			}
		})
	}
}

// noAccess is an issuer that gives no access token to those who ask for no API,
// as Azure AD B2C is.
func noAccess(b *signintest.Behaviour) {
	b.EditIDToken = func(it *signintest.IDToken) { delete(it.Claims, "at_hash") }
	b.EditTokenResponse = func(call signintest.Call, body map[string]any) {
		if strings.Contains(call.Form.Get("scope"), "api") {
			return
		}
		delete(body, "access_token")
		delete(body, "expires_in")
		body["not_before"], body["id_token_expires_in"], body["scope"] = time.Now().Unix(), 3600, "openid"
	}
}

// A sign-in needs no access token. A handler that wants one learns that there
// is none, with the way on: it is a question of scopes, not an outage.
func TestNoAccessToken(t *testing.T) {
	for _, typ := range []string{typeHybrid, typeCode} {
		t.Run(typ, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					noAccess(b)
					b.Consented = []string{"api"}
				}
				o.config = func(c *Config) { c.ResponseType = typ }
			})
			var failed error
			a.mux.HandleFunc("/try", func(w http.ResponseWriter, r *http.Request) {
				_, failed = TokenSource(r.Context()).Token()
				held, err := HeldTokens(r.Context())
				fmt.Fprint(w, len(held), err)
			})
			b := a.signIn()
			for range 3 {
				if p := b.Open(a.url + "/try"); p.Body != "0 <nil>" {
					t.Errorf("held: %s", p.Body)
				}
				need, ok := errors.AsType[*InteractionRequiredError](failed)
				if !ok || need.Reason != ReasonConsent {
					t.Errorf("Token: %v, want an InteractionRequiredError for consent", failed)
				}
			}
			if n := a.refreshed(); n != 1 {
				t.Errorf("%d refreshes for three calls, want 1: the answer is remembered", n)
			}
			// The refresh token serves for an API's token.
			if p := b.Open(a.url + "/token?scope=api"); p.Status != http.StatusOK || len(p.Body) == 0 {
				t.Errorf("an API's token: %d %.200s", p.Status, p.Body)
			}
			if got := a.subject(b); got != "alice" {
				t.Errorf("signed in as %q", got)
			}
		})
	}
}

// A challenge for a token that brings none ends on a page, not at the issuer
// again. One for a stronger sign-in has done its work without.
func TestNoAccessTokenAfterChallenge(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.behaviour = noAccess })
	a.mux.Handle("/recent", a.Require(Requirement{MaxAge: time.Minute})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "recent")
	})))
	b := a.signIn()
	before := a.issuer.Count(signintest.EndpointAuthorize)
	p := b.Open(a.url + "/token")
	if p.Status != http.StatusForbidden || !strings.Contains(p.Body, pageWords[PageConsentRefused].text) {
		t.Errorf("%d %.300s, want the page for what was not granted", p.Status, p.Body)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize) - before; n != 1 {
		t.Errorf("%d visits to the issuer, want 1", n)
	}
	a.issuer.Update(func(b *signintest.Behaviour) {
		b.EditIDToken = func(it *signintest.IDToken) {
			delete(it.Claims, "at_hash")
			it.Claims["auth_time"] = a.clock.now().Unix()
		}
	})
	a.clock.advance(time.Hour)
	if p := b.Open(a.url + "/recent"); p.Status != http.StatusOK || p.Body != "recent" {
		t.Errorf("a recent sign-in: %d %.300s", p.Status, p.Body)
	}
}
