package signin

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// single makes refresh tokens single-use, with detection of their reuse.
func single(b *signintest.Behaviour) { b.RefreshTokens = signintest.RefreshRotate }

// 100 requests meet an expired token on two replicas: one token request, and
// nobody fails.
func TestRefreshOnce(t *testing.T) {
	newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		first := l.mustToken(0, cookies, TokenRequest{})
		l.refreshes(0)
		for range 5 {
			l.pass(2 * time.Hour)
			var mu sync.Mutex
			tokens := map[string]int{}
			together(100, func(i int) {
				token, err := l.replicas[i%2].token(cookies, TokenRequest{})
				if err != nil {
					t.Errorf("Token: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				tokens[token]++
			})
			if len(tokens) != 1 || tokens[first] != 0 {
				t.Errorf("%d tokens, want a new one for all", len(tokens))
			}
			l.refreshes(1)
		}
	})
}

// While the token still serves, the refresh is as early as D8 says.
func TestRefreshEarly(t *testing.T) {
	for _, tc := range []struct{ lifetime, margin, held, renewed time.Duration }{
		{time.Hour, 0, 54 * time.Minute, 56 * time.Minute},                                  // 5 minutes
		{5 * time.Minute, 0, 3*time.Minute + 58*time.Second, 4*time.Minute + 2*time.Second}, // a fifth
		{time.Hour, 10 * time.Minute, 49 * time.Minute, 51 * time.Minute},
		{10 * time.Second, 0, 7 * time.Second, 9 * time.Second},
	} {
		newLab(t, labOptions{
			behaviour: func(b *signintest.Behaviour) { b.AccessTokenLifetime = tc.lifetime },
			config:    func(c *Config) { c.ExpiryMargin = tc.margin },
		}, func(l *lab) {
			cookies := l.signIn("alice")
			l.pass(tc.held)
			first := l.mustToken(0, cookies, TokenRequest{})
			l.refreshes(0)
			l.pass(tc.renewed - tc.held)
			if l.mustToken(0, cookies, TokenRequest{}) == first {
				t.Errorf("lifetime %v: still the old token after %v", tc.lifetime, tc.renewed)
			}
			l.refreshes(1)
		})
	}
}

// refresh_in starts a refresh behind the back of a token that serves.
func TestRefreshIn(t *testing.T) {
	newLab(t, labOptions{behaviour: func(b *signintest.Behaviour) { b.RefreshIn = 20 * time.Minute }}, func(l *lab) {
		cookies := l.signIn("alice")
		first := l.mustToken(0, cookies, TokenRequest{})
		l.pass(21 * time.Minute)
		release := make(chan struct{})
		arrived := l.replicas[0].wire.hang(release)
		start := time.Now()
		for range 20 {
			if l.mustToken(0, cookies, TokenRequest{}) != first {
				t.Error("not the token that still serves")
			}
		}
		<-arrived
		if took := time.Since(start); took != 0 {
			t.Errorf("20 callers waited %v for a refresh in the background", took)
		}
		close(release)
		l.refreshes(1)
		if l.mustToken(0, cookies, TokenRequest{}) == first {
			t.Error("the refresh in the background was not kept")
		}
		l.refreshes(0)

		// One that fails is not tried on each request, and costs nobody anything.
		l.pass(21 * time.Minute)
		l.issuer.Fail(signintest.EndpointToken, signintest.Fault{Status: 503})
		second := l.mustToken(0, cookies, TokenRequest{})
		synctest.Wait()
		for range 20 {
			if l.mustToken(0, cookies, TokenRequest{}) != second {
				t.Error("not the token that still serves")
			}
			synctest.Wait()
		}
		l.refreshes(1)
		l.issuer.Heal()
	})
}

// How token answers are read that do not say all, or other than asked.
func TestRefreshAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		edit  func(body map[string]any)
		asked int // refreshes for three calls, 1 minute apart, after expiry
		want  Reason
	}{
		{"complete", func(map[string]any) {}, 1, ""},
		{"no expires_in", func(b map[string]any) { delete(b, "expires_in") }, 1, ""},
		{"expires_in a string", func(b map[string]any) { b["expires_in"] = "3600" }, 1, ""},
		{"expires_in is nonsense", func(b map[string]any) { b["expires_in"] = "soon" }, 1, ""},
		{"expires_in huge", func(b map[string]any) { b["expires_in"] = 1e300 }, 1, ""},
		{"expires_in 0", func(b map[string]any) { b["expires_in"] = 0 }, 3, ""},
		{"expires_in negative", func(b map[string]any) { b["expires_in"] = -5 }, 3, ""},
		{"no scope", func(b map[string]any) { delete(b, "scope") }, 1, ""},
		{"scope a list", func(b map[string]any) { b["scope"] = []string{"a", "b"} }, 1, ""},
		{"more scopes", func(b map[string]any) { b["scope"] = "b x a openid" }, 1, ""},
		{"fewer scopes", func(b map[string]any) { b["scope"] = "b" }, 2, ReasonConsent}, // once more, by name
		{"no ID token", func(b map[string]any) { delete(b, "id_token") }, 1, ""},
		{"no refresh token", func(b map[string]any) { delete(b, "refresh_token") }, 1, ""},
		{"token_type bearer", func(b map[string]any) { b["token_type"] = "bEARER" }, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{behaviour: func(b *signintest.Behaviour) {
				b.RefreshTokens = signintest.RefreshReplace
				b.EditTokenResponse = func(call signintest.Call, body map[string]any) {
					if call.GrantType == "refresh_token" {
						tc.edit(body)
					}
				}
			}}, func(l *lab) {
				cookies := l.signIn("alice", "a", "b")
				l.pass(2 * time.Hour)
				for range 3 {
					_, err := l.replicas[0].token(cookies, TokenRequest{Scopes: []string{"a", "openid"}})
					var need *InteractionRequiredError
					if errors.As(err, &need); tc.want == "" && err != nil || tc.want != "" && (need == nil || need.Reason != tc.want) {
						t.Errorf("Token: %v, want reason %q", err, tc.want)
					}
					if need != nil && !slices.Equal(need.Scopes, []string{"a", "openid"}) {
						t.Errorf("scopes %q", need.Scopes)
					}
					l.pass(time.Minute)
				}
				if got := l.record(cookies).Refresh; got == "" {
					t.Error("the refresh token is gone")
				}
				l.refreshes(tc.asked)
			})
		})
	}
}

// The newest refresh token wins: that of a sign-in that ends while a refresh
// with the old one is under way.
func TestRefreshDuringConsent(t *testing.T) {
	newLab(t, labOptions{behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		// The answer to the refresh is late; its token is spent already.
		release, done := make(chan struct{}), make(chan struct{})
		var once sync.Once
		l.issuer.Update(func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(call signintest.Call, _ map[string]any) {
				if call.GrantType == "refresh_token" {
					once.Do(func() { <-release })
				}
			}
		})
		go func() {
			defer close(done)
			l.mustToken(0, cookies, TokenRequest{})
		}()
		synctest.Wait()
		l.challenge("alice", cookies, &InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"mail"}})
		newest := l.record(cookies).Refresh
		close(release)
		<-done
		if got := l.record(cookies).Refresh; got != newest {
			t.Error("the refresh token of the sign-in was replaced by an older one")
		}
		held := l.mustToken(0, cookies, TokenRequest{Scopes: []string{"mail"}})
		if info, _ := l.issuer.TokenInfo(held); !slices.Contains(info.Scopes, "mail") {
			t.Errorf("scopes %q", info.Scopes)
		}
		l.refreshes(1)
		l.pass(2 * time.Hour)
		l.mustToken(0, cookies, TokenRequest{Scopes: []string{"mail"}})
		l.refreshes(1)
	})
}

// What the issuer answers decides whether the user must act, and how often it
// is asked.
func TestRefreshRefused(t *testing.T) {
	oauth := func(code string) signintest.Fault { return signintest.OAuthError{Code: code}.Fault() }
	entra := func(code, suberror, claims string) signintest.Fault {
		extra := map[string]any{"suberror": suberror}
		if claims != "" {
			extra["claims"] = claims
		}
		return signintest.OAuthError{Code: code, Extra: extra}.Fault()
	}
	const policy = `{"access_token":{"capolids":{"essential":true,"values":["1"]}}}`
	for _, tc := range []struct {
		name   string
		fault  signintest.Fault
		reason Reason
		claims string
	}{
		{"invalid_grant", oauth("invalid_grant"), ReasonRefused, ""},
		{"Dex", oauth("invalid_request"), ReasonRefused, ""},
		{"unknown", oauth("what_is_this"), ReasonRefused, ""},
		{"access_denied", oauth("access_denied"), ReasonRefused, ""},
		{"invalid_scope", oauth("invalid_scope"), ReasonConsent, ""},
		{"invalid_target", oauth("invalid_target"), ReasonConsent, ""},
		{"consent_required", oauth("consent_required"), ReasonConsent, ""},
		{"interaction_required", oauth("interaction_required"), ReasonClaims, ""},
		{"login_required", oauth("login_required"), ReasonClaims, ""},
		{"conditional access", entra("interaction_required", "", policy), ReasonClaims, policy},
		{"claims not an object", entra("interaction_required", "", "[1]"), ReasonClaims, ""},
		{"suberror consent_required", entra("invalid_grant", "consent_required", ""), ReasonConsent, ""},
		{"suberror basic_action", entra("invalid_grant", "basic_action", policy), ReasonClaims, policy},
		{"suberror bad_token", entra("invalid_grant", "bad_token", ""), ReasonRefused, ""},
		{"suberror token_expired", entra("invalid_grant", "token_expired", ""), ReasonRefused, ""},
		{"suberror client_mismatch", entra("invalid_grant", "client_mismatch", ""), ReasonClaims, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{replicas: 2}, func(l *lab) {
				cookies := l.signIn("alice", "a")
				l.pass(2 * time.Hour)
				l.issuer.Fail(signintest.EndpointToken, tc.fault)
				req := TokenRequest{Scopes: []string{"a"}}
				check := func(err error) {
					need, ok := errors.AsType[*InteractionRequiredError](err)
					if !ok || need.Reason != tc.reason || need.Claims != tc.claims || !slices.Equal(need.Scopes, req.Scopes) {
						t.Errorf("Token: %#v (%v), want reason %q, claims %q", need, err, tc.reason, tc.claims)
					}
				}
				together(50, func(i int) {
					_, err := l.replicas[i%2].token(cookies, req)
					check(err)
				})
				l.refreshes(1)
				for i := range 10 { // and it is remembered
					_, err := l.replicas[i%2].token(cookies, req)
					check(err)
				}
				l.refreshes(0)
				if l.record(cookies) == nil {
					t.Error("the session is gone")
				}

				// The user mends it.
				l.issuer.Heal()
				cookies = l.challenge("alice", cookies, &InteractionRequiredError{Reason: tc.reason, Scopes: req.Scopes})
				l.mustToken(0, cookies, req)
				l.pass(2 * time.Hour)
				l.mustToken(1, cookies, req)
				l.refreshes(1)
			})
		})
	}
}

// A refusal of one request is no refusal of others, and is forgotten in time.
func TestRefreshRefusalScope(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		cookies := l.signIn("alice")
		extra := TokenRequest{Scopes: []string{"mail"}}
		for range 3 {
			if _, err := l.replicas[0].token(cookies, extra); !isReason(err, ReasonConsent) {
				t.Errorf("Token: %v, want %s", err, ReasonConsent)
			}
		}
		l.refreshes(1)
		l.mustToken(0, cookies, TokenRequest{})
		l.issuer.Update(func(b *signintest.Behaviour) { b.Consented = []string{"mail"} }) // by an administrator
		l.pass(refusalAge + time.Second)
		l.mustToken(0, cookies, extra)
		l.refreshes(1)
	})
}

// What Entra refuses for what it asks costs that request alone: it is an error
// about the request, remembered for the request, and a token for anything else
// comes without the user.
func TestRefusedRequestIsNoDeadGrant(t *testing.T) {
	entra := func(code, number string) signintest.OAuthError {
		return signintest.OAuthError{Code: code, Description: "AADSTS" + number + ": in many words"}
	}
	for _, tc := range []struct {
		answer signintest.OAuthError
		reason Reason // empty: an error that no user can mend
	}{
		{entra("invalid_resource", "500011"), ""},
		{entra("invalid_request", "28000"), ""},
		{entra("invalid_scope", "70011"), ""},
		{entra("invalid_client", "650053"), ""},
		{entra("invalid_request", "900144"), ""},
		{signintest.OAuthError{Code: "invalid_resource"}, ""},
		{entra("invalid_grant", "65001"), ReasonConsent},
		{entra("invalid_grant", "50076"), ReasonClaims},
		{signintest.OAuthError{Code: "access_denied"}, ReasonConsent},
		{signintest.OAuthError{Code: "invalid_target"}, ReasonConsent},
	} {
		t.Run(tc.answer.Code+" "+tc.answer.Description, func(t *testing.T) {
			a := apiSite(t, []string{"User.Read"}, func(b *signintest.Behaviour) {
				b.Consented = []string{"Mail.Read"}
				b.Fault = func(c signintest.Call) *signintest.Fault {
					if c.Endpoint == signintest.EndpointToken && strings.Contains(c.Form.Get("scope"), "api://gone") {
						return new(tc.answer.Fault())
					}
					return nil
				}
			})
			var failed error
			a.mux.HandleFunc("/try", func(w http.ResponseWriter, r *http.Request) {
				_, failed = TokenSource(r.Context(), "api://gone/Read").Token()
			})
			b := a.browser()
			b.Open(a.url + "/me")
			for range 3 {
				b.Open(a.url + "/try")
				need, interaction := errors.AsType[*InteractionRequiredError](failed)
				switch _, temporary := errors.AsType[*temporaryError](failed); {
				case failed == nil, temporary, interaction != (tc.reason != ""), interaction && need.Reason != tc.reason:
					t.Errorf("%v, want reason %q", failed, tc.reason)
				case !interaction && !strings.Contains(failed.Error(), tc.answer.Code):
					t.Errorf("%v does not say %s", failed, tc.answer.Code)
				}
			}
			if n := a.refreshed(); n != 1 {
				t.Errorf("%d refreshes for three calls, want 1: the answer is remembered", n)
			}
			for _, scope := range []string{"Mail.Read", "User.Read"} {
				if p := b.Open(a.url + "/token?scope=" + scope); p.Status != http.StatusOK {
					t.Errorf("%s: %d %.300s", scope, p.Status, p.Body)
				}
			}
			if got := a.subject(b); got != "carol" {
				t.Errorf("signed in as %q", got)
			}
			if n := a.issuer.Count(signintest.EndpointAuthorize); n != 1 {
				t.Errorf("%d visits to the issuer, want that of the sign-in", n)
			}
		})
	}
}

// A page that requires what no issuer grants is a mistake in the program, and says
// so: it is not down, and nobody is sent round.
func TestRequireScopeOfNoAPI(t *testing.T) {
	a := apiSite(t, []string{"User.Read"}, func(b *signintest.Behaviour) { b.APIs = []signintest.API{{ID: "api://orders"}} })
	a.mux.Handle("/gone", a.Require(Requirement{Scopes: []string{"api://gone/Read"}})(http.NotFoundHandler()))
	b := a.browser()
	b.Open(a.url + "/me")
	for range 2 {
		wantPage(t, a, b.Open(a.url+"/gone"), http.StatusInternalServerError, PageInternal)
		if got := lastCause(a); !strings.Contains(got, "AADSTS500011") {
			t.Errorf("logged %q, want what the issuer said", got)
		}
	}
}

func isReason(err error, want Reason) bool {
	need, ok := errors.AsType[*InteractionRequiredError](err)
	return ok && need.Reason == want
}

// What passes by itself signs nobody out, is not reported while a token still
// serves, and is a 503 when none does.
func TestRefreshTemporary(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault signintest.Fault
	}{
		{"500", signintest.Fault{Status: 500}},
		{"500 with an OAuth error", signintest.OAuthError{Status: 500, Code: "invalid_grant"}.Fault()},
		{"503 HTML", signintest.HTMLFault(503)},
		{"200 HTML", signintest.HTMLFault(200)},
		{"404 HTML", signintest.HTMLFault(404)},
		{"429", signintest.Fault{Status: 429}},
		{"408", signintest.Fault{Status: 408}},
		{"server_error", signintest.OAuthError{Code: "server_error"}.Fault()},
		{"temporarily_unavailable", signintest.OAuthError{Code: "temporarily_unavailable"}.Fault()},
		{"Hydra's error", signintest.OAuthError{Code: "error"}.Fault()},
		{"invalid_client", signintest.OAuthError{Status: 401, Code: "invalid_client"}.Fault()},
		{"dropped", signintest.Fault{Drop: true}},
		{"redirect", signintest.Fault{Redirect: "https://evil.example/token"}},
		{"endless", signintest.Fault{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: "{" + strings.Repeat(" ", 2<<20)}},
		{"no access token", signintest.JSONFault(200, map[string]any{"token_type": "Bearer"})},
		{"oversize token", signintest.JSONFault(200, map[string]any{"access_token": strings.Repeat("x", oidc.MaxAccessToken+1)})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
				cookies := l.signIn("alice")
				l.pass(58 * time.Minute)
				l.issuer.Fail(signintest.EndpointToken, tc.fault)
				first := ""
				for i := range 20 {
					token := l.mustToken(i%2, cookies, TokenRequest{})
					if first == "" {
						first = token
					}
					if token != first {
						t.Error("another token out of nowhere")
					}
				}
				l.refreshes(2) // one for each replica; then they leave it alone for a second
				l.pass(5 * time.Minute)
				_, err := l.replicas[0].token(cookies, TokenRequest{})
				if _, interaction := errors.AsType[*InteractionRequiredError](err); err == nil || interaction {
					t.Errorf("Token: %v, want a temporary failure", err)
				}
				if p := l.replicas[0].unavailable(site.ReturnPath{}, err); p.Status != http.StatusServiceUnavailable {
					t.Errorf("that would be a %d, want 503", p.Status)
				}
				together(50, func(i int) {
					if _, err := l.replicas[0].token(cookies, TokenRequest{}); err == nil {
						t.Error("a token out of nowhere")
					}
				})
				l.refreshes(2)
				l.issuer.Heal() // and the next to come finds it well
				l.mustToken(1, cookies, TokenRequest{})
				l.refreshes(1)
			})
		})
	}
}

// An issuer that names a time is left alone until then.
func TestRefreshRetryAfter(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		l.issuer.Fail(signintest.EndpointToken, signintest.Fault{Status: 429, Header: http.Header{"Retry-After": {"30"}}})
		for range 10 {
			if _, err := l.replicas[0].token(cookies, TokenRequest{}); err == nil || isReason(err, ReasonRefused) {
				t.Errorf("Token: %v", err)
			}
		}
		l.refreshes(1)
		l.issuer.Heal()
		l.pass(31 * time.Second)
		l.mustToken(0, cookies, TokenRequest{})
		l.refreshes(1)
	})
}

// An issuer that hangs holds nobody up who has a token that serves.
func TestRefreshHangs(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(58 * time.Minute)
		l.replicas[0].wire.hang(nil)
		start := time.Now()
		for range 5 {
			l.mustToken(0, cookies, TokenRequest{})
		}
		if took := time.Since(start); took > tokenPatience {
			t.Errorf("five callers waited %v, want one to wait %v", took, tokenPatience)
		}
		l.pass(2 * time.Minute)
		start = time.Now()
		_, err := l.replicas[0].token(cookies, TokenRequest{})
		if took := time.Since(start); err == nil || took > oidc.TokenTimeout+failureShared {
			t.Errorf("Token: %v after %v, want an error within %v", err, took, oidc.TokenTimeout)
		}
		l.replicas[0].wire.before(nil)
		l.mustToken(0, cookies, TokenRequest{})
	})
}
