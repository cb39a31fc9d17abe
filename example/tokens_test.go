package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/example/internal/api"
	"github.com/seed454743b5/signin/example/internal/op"
)

// scopesAsked are those of the latest challenge.
func (l *lab) scopesAsked() []string {
	l.t.Helper()
	return strings.Fields(l.last("/authorize").form.Get("scope"))
}

// challenges checks how often the browser has been sent to the provider.
func (l *lab) challenges(want int) {
	l.t.Helper()
	if got := len(l.seen("/authorize")); got != want {
		l.t.Fatalf("%d challenges so far, want %d", got, want)
	}
}

// A scope is asked for when it is needed, and once. What the session has it
// keeps.
func TestConsentIsAskedForWhenNeeded(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		if asked := l.scopesAsked(); !slices.Equal(asked, []string{"openid", "profile", "offline_access"}) {
			t.Errorf("at sign-in the scopes %q are asked for", asked)
		}
		apiSays(t, l.browser.Fetch(labSite+"/api"))
		l.expect()

		// A program is told, by one question to the provider however often it
		// asks.
		for range 3 {
			p := l.browser.Fetch(labSite + "/api?scope=mail.read")
			if p.Status != http.StatusUnauthorized || !strings.Contains(p.Header.Get("WWW-Authenticate"), `insufficient_scope", scope="mail.read"`) {
				t.Errorf("for a program: status %d, %q", p.Status, p.Header.Get("WWW-Authenticate"))
			}
			if ct := p.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("for a program: a %s", ct)
			}
		}
		l.expect("refresh_token")
		l.challenges(1)

		page := labSite + "/api?scope=mail.read"
		p := l.browser.Open(page)
		if !strings.Contains(p.Text(), "Read your mail") || p.HasButton("Sign in") {
			t.Fatalf("no consent page but %s: %s", p.URL, p.Text())
		}
		if asked := l.scopesAsked(); !slices.Equal(asked, []string{"openid", "profile", "offline_access", "mail.read"}) {
			t.Errorf("the challenge asks for %q", asked)
		}
		l.expect()
		at(t, l.browser.Press(p, "Allow", nil), page)
		l.expect("authorization_code")
		l.challenges(2)

		for _, path := range []string{"/api?scope=mail.read", "/api", "/api?scope=mail.read"} {
			apiSays(t, l.browser.Fetch(labSite+path))
		}
		l.expect()
		l.challenges(2)
	})
}

// A refusal is an error page and never a second redirect, whether all is
// refused or the scope is only left out. The session goes on as it was.
func TestRefusedConsentChangesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		button string
		fields url.Values
		grants []string
	}{
		"refused":  {"Refuse", nil, nil},
		"left out": {"Allow", url.Values{"scope": nil}, []string{"authorization_code"}},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, labOptions{}, func(t *testing.T, l *lab) {
				l.signIn()
				p := l.browser.Open(labSite + "/api?scope=mail.read")
				l.expect("refresh_token") // the silent attempt
				p = l.browser.Press(p, tc.button, tc.fields)
				if !strings.HasPrefix(p.URL.String(), labSite) || p.Status < 400 || p.Status >= 500 {
					t.Errorf("after the refusal at %s, status %d: %s", p.URL, p.Status, p.Text())
				}
				l.expect(tc.grants...)
				l.challenges(2)
				if who, status := me(t, l.browser, labSite); who.Sub != op.Users[0].Subject {
					t.Errorf("the session ended: status %d", status)
				}
				apiSays(t, l.browser.Fetch(labSite+"/api"))
				l.expect()
				l.challenges(2)
			})
		})
	}
}

// The API's claims challenge is met silently if that can be, and else by the
// user, who comes back to the page.
func TestClaimsChallenge(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		apiSays(t, l.browser.Fetch(labSite+"/api"))
		p := l.browser.Open(labSite + "/vault")
		l.expect("refresh_token")
		want := `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
		if got := l.last("/token").form.Get("claims"); got != want {
			t.Errorf("the silent attempt asks for the claims %s, want %s", got, want)
		}
		if got := l.last("/authorize").form.Get("claims"); got != want {
			t.Errorf("the challenge asks for the claims %s, want %s", got, want)
		}
		if !p.HasButton("Confirm") {
			t.Fatalf("no second step but %s: %s", p.URL, p.Text())
		}
		at(t, l.browser.Press(p, "Confirm", url.Values{"code": {op.Code}}), labSite+"/vault")
		l.expect("authorization_code")
		for range 3 {
			at(t, l.browser.Open(labSite+"/vault"), labSite+"/vault")
			apiSays(t, l.browser.Fetch(labSite+"/api"))
		}
		l.expect()
		l.challenges(2)
		l.rotation()
	})
}

// Cancelling the second step is an error page, and the rest goes on.
func TestCancelledSecondStep(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		p := l.browser.Open(labSite + "/vault")
		l.expect("refresh_token")
		p = l.browser.Press(p, "Cancel", nil)
		if !strings.HasPrefix(p.URL.String(), labSite) || p.Status < 400 || p.Status >= 500 {
			t.Errorf("after the refusal at %s, status %d: %s", p.URL, p.Status, p.Text())
		}
		l.challenges(2)
		apiSays(t, l.browser.Fetch(labSite+"/api"))
		l.expect()
	})
}

// Each token is renewed once, shortly before it expires, by the newest refresh
// token.
func TestRefreshWithRotation(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		for range 4 {
			before := apiSays(t, l.browser.Fetch(labSite+"/api"))
			pass(3*time.Minute + 50*time.Second) // of five, a fifth of which is kept in reserve
			apiSays(t, l.browser.Fetch(labSite+"/api"))
			l.expect()
			pass(20 * time.Second)
			after := apiSays(t, l.browser.Fetch(labSite+"/api"))
			l.expect("refresh_token")
			if !after.Expires.After(before.Expires) {
				t.Errorf("the token expires at %v, as before", after.Expires)
			}
		}
		l.rotation()
	})
}

// However many requests find the token expired, one renews it.
func TestFiftyRequestsOneRefresh(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		pass(6 * time.Minute)
		cookies := l.browser.Cookies("localhost")
		release := l.hold()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if status, body := l.fetch("/api", cookies); status != http.StatusOK {
					t.Errorf("status %d: %s", status, body)
				}
			})
		}
		synctest.Wait() // all fifty wait for the one answer
		l.expect("refresh_token")
		release()
		wg.Wait()
		l.rotation()
	})
}

// Who signs out while a refresh is under way is signed out: nothing brings the
// session back, and what the refresh got is given back.
func TestSignOutDuringRefresh(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		home := l.browser.Open(labSite)
		pass(6 * time.Minute)
		cookies := l.browser.Cookies("localhost")
		release := l.hold()
		var wg sync.WaitGroup
		wg.Go(func() {
			if status, _ := l.fetch("/api", cookies); status != http.StatusUnauthorized {
				t.Errorf("the request that waited: status %d, want 401", status)
			}
		})
		synctest.Wait()
		l.expect("refresh_token")
		at(t, l.browser.Press(home, "Sign out", nil), labSite+"/")
		release()
		wg.Wait()
		if err := l.auth.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, _ := l.fetch("/me", cookies); status != http.StatusUnauthorized {
			t.Errorf("with the cookies of before: status %d, want 401", status)
		}
		got := l.last("/token")
		if !slices.ContainsFunc(l.seen("/revoke"), func(c call) bool {
			return c.form.Get("token") == got.refresh && c.status == http.StatusOK
		}) {
			t.Error("the refresh token that came after the sign-out was not given back")
		}
		if info, err := l.provider.Introspect(t.Context(), got.access); err != nil || info.IsActive {
			t.Errorf("the access token that came after the sign-out: active %t, %v", info.IsActive, err)
		}
	})
}

// A grant that was revoked at the issuer takes its user to the sign-in, once,
// and the issuer is not asked again and again about it.
func TestRevokedGrant(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		apiSays(t, l.browser.Fetch(labSite+"/api"))
		revoke(l, l.last("/token").refresh)
		pass(time.Minute) // a token of a moment ago would not be given up

		for range 3 {
			if p := l.browser.Fetch(labSite + "/api"); p.Status != http.StatusUnauthorized {
				t.Errorf("for a program: status %d: %s", p.Status, p.Body)
			}
		}
		l.expect("refresh_token")
		// What is known of the refresh token is known for other scopes, and
		// when its last access token has expired nobody is signed in.
		pass(6 * time.Minute)
		for _, path := range []string{"/api?scope=mail.read", "/me", "/tokens"} {
			if p := l.browser.Fetch(labSite + path); p.Status != http.StatusUnauthorized {
				t.Errorf("%s: status %d: %s", path, p.Status, p.Body)
			}
		}
		l.expect()
		l.challenges(1)
		page := labSite + "/api?view=page"
		at(t, l.browser.Open(page), page)
		l.expect("authorization_code")
		l.challenges(2)
		apiSays(t, l.browser.Fetch(labSite+"/api"))
		if who, _ := me(t, l.browser, labSite); who.Sub != op.Users[0].Subject {
			t.Errorf("signed in as %q", who.Sub)
		}
	})
}

// revoke ends a grant as an administrator at the provider does.
func revoke(l *lab, refresh string) {
	l.t.Helper()
	form := url.Values{"token": {refresh}}
	r, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, labIssuer+"/revoke", strings.NewReader(form.Encode()))
	if err != nil {
		l.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("lab", "top-secret")
	resp, err := l.wire.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		l.t.Fatalf("revoking: %v, %v", resp, err)
	}
}

// The page lists scopes and expiry. That no token is on it, nor on any other
// page, lab checks of every test.
func TestTokensPage(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		p := l.browser.Press(l.browser.Open(labSite+"/tokens"), "Calendar and files", nil)
		l.expect("refresh_token")
		at(t, l.browser.Press(p, "Allow", nil), labSite+"/tokens")
		l.expect("authorization_code")
		p = l.browser.Open(labSite + "/tokens")
		for _, want := range []string{"calendars.read", "files.read", "in 5m0s"} {
			if !strings.Contains(p.Text(), want) {
				t.Errorf("%q is not on the page: %s", want, p.Text())
			}
		}
		at(t, l.browser.Press(p, "Read the calendar", nil), labSite+"/tokens")
		l.expect()
	})
}

// The permission to send is asked for by the first Send, the form comes back
// as it was filled in, and the mail ends in the API's outbox.
func TestMailReachesTheOutbox(t *testing.T) {
	inLab(t, labOptions{}, func(t *testing.T, l *lab) {
		l.signIn()
		typed := url.Values{"to": {"bob@demo.example"}, "subject": {"Tea & cake"}, "body": {"At four?"}}
		p := l.browser.Press(l.browser.Open(labSite+"/mail"), "Send", typed)
		l.expect("refresh_token")
		l.challenges(2)
		if asked := l.scopesAsked(); !slices.Contains(asked, "mail.send") {
			t.Fatalf("the challenge asks for %q", asked)
		}
		p = l.browser.Press(p, "Allow", nil)
		at(t, p, labSite+"/mail?ask")
		l.expect("authorization_code")
		for name, want := range typed {
			if got, _ := p.Field(name); got != want[0] {
				t.Errorf("%s came back as %q, want %q", name, got, want[0])
			}
		}
		at(t, l.browser.Press(p, "Send", nil), labSite+"/mail?sent")
		l.expect()

		at(t, l.browser.Press(l.browser.Open(labSite+"/tokens?scope=mail.read"), "Allow", nil), labSite+"/tokens")
		l.expect("refresh_token", "authorization_code")
		outbox := callAPI(l, "/mailFolders/SentItems/messages", l.last("/token").access)
		if strings.Count(outbox, `"subject"`) != 1 || !strings.Contains(outbox, `"subject":"Tea \u0026 cake"`) || !strings.Contains(outbox, `"address":"bob@demo.example"`) {
			t.Errorf("the outbox: %s", outbox)
		}
	})
}

func callAPI(l *lab, path, token string) string {
	l.t.Helper()
	p := l.browser.Fetch(labAPI+path, "Authorization", "Bearer "+token)
	if p.Status != http.StatusOK {
		l.t.Fatalf("%s: status %d: %s", path, p.Status, p.Body)
	}
	return p.Body
}

// An API may want more than the permission to send. What it wants is not lost
// on the way, and neither is the mail.
func TestMailWithClaimsChallenge(t *testing.T) {
	guarded := func(next http.Handler, verify api.Verifier) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, err := verify(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			if err == nil && strings.HasSuffix(r.URL.Path, "/sendMail") && !slices.Contains(token.Contexts, op.ContextStepUp) {
				r = r.Clone(r.Context())
				r.Method, r.URL.Path = http.MethodGet, strings.TrimSuffix(r.URL.Path, "sendMail")+"vault"
			}
			next.ServeHTTP(w, r)
		})
	}
	inLab(t, labOptions{api: guarded}, func(t *testing.T, l *lab) {
		l.signIn()
		typed := url.Values{"to": {"bob@demo.example"}, "subject": {"Tea"}, "body": {"At four?"}}
		p := l.browser.Press(l.browser.Open(labSite+"/mail"), "Send", typed)
		p = l.browser.Press(p, "Allow", nil)
		l.expect("refresh_token", "authorization_code")
		p = l.browser.Press(p, "Send", nil)
		l.expect("refresh_token")
		if p.Status != http.StatusUnauthorized || !strings.HasPrefix(p.URL.String(), labSite) {
			t.Fatalf("at %s, status %d: %s", p.URL, p.Status, p.Text())
		}
		p = l.browser.Follow(p, "Continue")
		p = l.browser.Press(p, "Confirm", url.Values{"code": {op.Code}})
		at(t, p, labSite+"/mail")
		l.expect("authorization_code")
		if to, _ := p.Field("to"); to != "bob@demo.example" {
			t.Errorf("the mail came back to %q", to)
		}
		at(t, l.browser.Press(p, "Send", nil), labSite+"/mail?sent")
		l.expect()
		l.challenges(3)
	})
}
