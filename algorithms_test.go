package signin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// announcing makes an issuer that announces several algorithms and signs by
// the first.
func announcing(algs ...string) func(*signintest.Behaviour) {
	return func(b *signintest.Behaviour) {
		b.Alg = algs[0]
		b.EditDiscovery = func(d map[string]any) { d["id_token_signing_alg_values_supported"] = algs }
	}
}

// TestSigningAlgorithms: what is pinned counts, for ID tokens as for logout
// tokens, whatever the issuer announces.
func TestSigningAlgorithms(t *testing.T) {
	for _, tc := range []struct {
		name      string
		announced []string // the first signs
		pinned    []string
		ok        bool
	}{
		{"as announced", []string{"RS256", "ES256"}, nil, true},
		{"the other that is announced", []string{"ES256", "RS256"}, nil, true},
		{"pinned and used", []string{"ES256", "RS256"}, []string{"ES256"}, true},
		{"one of those pinned", []string{"ES256", "RS256"}, []string{"RS256", "ES256"}, true},
		{"another is pinned", []string{"ES256", "RS256"}, []string{"RS256"}, false},
		{"another padding is pinned", []string{"RS256", "PS256"}, []string{"PS256"}, false},
		{"another hash is pinned", []string{"RS512", "RS256"}, []string{"RS256"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = announcing(tc.announced...)
				o.config = func(c *Config) { c.SigningAlgorithms = tc.pinned }
			})
			logout := a.logoutPost(t, a.issuer.Sign(a.issuer.LogoutToken("bob", ""), signintest.SignOptions{})).StatusCode
			p := a.browser().Open(a.url + "/me")
			if !tc.ok {
				wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
				if logout != http.StatusBadRequest {
					t.Errorf("a logout token: %d, want 400", logout)
				}
				return
			}
			if p.Status != http.StatusOK || logout != http.StatusOK {
				t.Errorf("%d, a logout token %d; want 200 twice; %s", p.Status, logout, lastCause(a))
			}
		})
	}
	// What is not announced but pinned is this client's own registration.
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			announcing("ES256", "RS256")(b)
			b.EditDiscovery = func(d map[string]any) { d["id_token_signing_alg_values_supported"] = []string{"RS256"} }
		}
		o.config = func(c *Config) { c.SigningAlgorithms = []string{"ES256"} }
	})
	a.signIn()
}

// TestLogoutTokenAlgorithm: a logout token is signed as the session's ID token
// is (Back-Channel Logout, 2.6).
func TestLogoutTokenAlgorithm(t *testing.T) {
	for _, by := range []string{"sub", "sid", "sub and sid"} {
		t.Run(by, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.behaviour = announcing("RS256", "ES256", "PS256") })
			b := a.signIn()
			subject, sid := "alice", a.sid(t, "alice")
			switch by {
			case "sub":
				sid = ""
			case "sid":
				subject = ""
			}
			logout := func(alg string) int {
				return a.logoutPost(t, a.issuer.Sign(a.issuer.LogoutToken(subject, sid), signintest.SignOptions{Alg: alg})).StatusCode
			}
			for _, alg := range []string{"ES256", "PS256"} {
				if got := logout(alg); got != http.StatusBadRequest || !a.signedIn(b) {
					t.Errorf("by %s: %d, want 400 and the session untouched", alg, got)
				}
				if cause := lastCause(a); !strings.Contains(cause, "another algorithm") {
					t.Errorf("refused because of %q", cause)
				}
			}
			if got := logout("RS256"); got != http.StatusOK || a.signedIn(b) {
				t.Errorf("by the ID token's: %d, want 200; %s", got, lastCause(a))
			}
			// Of a session that is not here nothing is known, and nothing ends.
			if got := logout("ES256"); got != http.StatusOK {
				t.Errorf("without a session: %d, want 200; %s", got, lastCause(a))
			}
		})
	}
}

// While the issuer moves to another algorithm, sessions begun before and after
// end together.
func TestLogoutTokenAlgorithmChanges(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.behaviour = announcing("RS256", "ES256") })
	before := a.signIn()
	a.issuer.Update(func(b *signintest.Behaviour) { b.Alg = "ES256" })
	after := a.signIn()
	raw := a.issuer.Sign(a.issuer.LogoutToken("alice", ""), signintest.SignOptions{})
	if got := a.logoutPost(t, raw).StatusCode; got != http.StatusOK || a.signedIn(before) || a.signedIn(after) {
		t.Errorf("%d, want 200 and nobody signed in; %s", got, lastCause(a))
	}
}
