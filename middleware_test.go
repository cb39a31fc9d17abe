package signin

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// flows are the ways to sign in.
var flows = []struct {
	name   string
	config func(*Config)
}{
	{"hybrid form_post", func(*Config) {}},
	{"code form_post", func(c *Config) { c.ResponseType = "code" }},
	{"code query", func(c *Config) { c.ResponseType, c.ResponseMode = "code", "query" }},
}

// No access or refresh token is ever in a cookie, a page or a URL. The ID token
// passes through the browser at a hybrid sign-in, in the issuer's form, and in
// the URL that a sign-out leads to.
func TestNoTokenInTheBrowser(t *testing.T) {
	for _, flow := range flows {
		t.Run(flow.name, func(t *testing.T) {
			var sent strings.Builder // to the browser
			var leads []string
			a := newApp(t, func(o *appOptions) {
				o.config = flow.config
				o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
					h := a.Handler(mux)
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						rec := httptest.NewRecorder()
						h.ServeHTTP(rec, r)
						leads = append(leads, r.RequestURI, rec.Header().Get("Location"))
						maps.Copy(w.Header(), rec.Header())
						rec.Header().Del("Location")
						fmt.Fprintln(&sent, rec.Header(), rec.Body)
						w.WriteHeader(rec.Code)
						w.Write(rec.Body.Bytes())
					})
				}
			})
			a.mux.HandleFunc("/renew", func(w http.ResponseWriter, r *http.Request) {
				if _, err := (TokenRequest{Refresh: true}).Source(r.Context()).Token(); err != nil {
					t.Error(err)
				}
			})
			b := a.signIn()
			b.Open(a.url + "/renew")
			b.Open(a.url + "/me")
			b.Submit(b.Open(a.url+"/signout"), nil)

			hinted := ""
			for _, lead := range leads {
				if u, err := url.Parse(lead); err == nil && u.Query().Has("id_token_hint") {
					hinted = u.Query().Get("id_token_hint")
					lead = strings.Replace(lead, hinted, "", 1)
				}
				fmt.Fprintln(&sent, lead)
			}
			if hinted == "" {
				t.Error("no id_token_hint")
			}
			kinds := map[string]int{}
			for _, secret := range a.issuer.Secrets() {
				kind := "other"
				if info, ok := a.issuer.TokenInfo(secret); ok {
					kind = map[bool]string{false: "access token", true: "refresh token"}[info.Refresh]
				} else if strings.Count(secret, ".") == 2 {
					kind = "ID token"
				} else if strings.Contains(flow.name, "query") {
					continue // the code comes in a URL
				}
				if kinds[kind]++; len(secret) >= 8 && strings.Contains(sent.String(), secret) {
					t.Errorf("the browser was sent a secret: %s %.12s...", kind, secret)
				}
			}
			for _, kind := range []string{"access token", "refresh token", "ID token"} {
				if kinds[kind] == 0 {
					t.Errorf("nothing to test: no %s", kind)
				}
			}
		})
	}
}

func TestSignIn(t *testing.T) {
	for _, flow := range flows {
		t.Run(flow.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.config = flow.config })
			b := a.browser()

			if p := b.Open(a.url + "/"); p.Status != http.StatusOK || p.Body != "public" {
				t.Fatalf("public page: %d %s", p.Status, p.Body)
			}
			if n := a.issuer.Count(signintest.EndpointAny); n != 0 {
				t.Errorf("a public page cost %d requests to the issuer", n)
			}
			p := b.Open(a.url + "/page/x?q=1&r=%2F")
			if p.Status != http.StatusOK || p.Body != "page /page/x?q=1&r=%2F" {
				t.Fatalf("protected page: %d %s\n%s", p.Status, p.Body, a.log)
			}
			if got := a.subject(b); got != "alice" {
				t.Errorf("subject %q, want alice", got)
			}
			if a.redemptions() != 1 {
				t.Errorf("%d redemptions, want 1", a.redemptions())
			}
			token := b.Open(a.url + "/token").Body
			if info, _ := a.issuer.TokenInfo(token); info.Subject != "alice" {
				t.Errorf("the token is %q's, want alice's", info.Subject)
			}

			ask := a.issuer.LastCall(signintest.EndpointAuthorize).Form
			for _, name := range []string{"nonce", "state", "code_challenge"} {
				if len(ask.Get(name)) < 43 {
					t.Errorf("%s is %q", name, ask.Get(name))
				}
			}
			if ask.Get("code_challenge_method") != "S256" {
				t.Errorf("code_challenge_method %q, want S256", ask.Get("code_challenge_method"))
			}
		})
	}
}

func TestSignOut(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	thief := b.Clone()

	p := b.Open(a.url + "/signout")
	if p.Status != http.StatusOK || p.Form() == nil {
		t.Fatalf("GET /signout: %d, want a page that asks", p.Status)
	}
	p = b.Submit(p, nil)
	if p.Status != http.StatusOK || p.Body != "public" {
		t.Fatalf("after sign-out: %d %.300s", p.Status, p.Body)
	}
	end := a.issuer.LastCall(signintest.EndpointEndSession).Form
	for _, name := range []string{"id_token_hint", "client_id", "post_logout_redirect_uri"} {
		if end.Get(name) == "" {
			t.Errorf("%s is missing from the request to end_session_endpoint", name)
		}
	}
	before := a.issuer.Count(signintest.EndpointAuthorize)
	if p := b.Fetch(p, "/me"); p.Status != http.StatusUnauthorized {
		t.Errorf("fetch after sign-out: %d, want 401", p.Status)
	}
	if p := thief.Fetch(p, "/me"); p.Status != http.StatusUnauthorized {
		t.Errorf("a cookie kept from before: %d, want 401", p.Status)
	}
	if after := a.issuer.Count(signintest.EndpointAuthorize); after != before {
		t.Errorf("fetch led to the issuer")
	}
	if !strings.Contains(a.log.String(), "signed out") {
		t.Errorf("no line about the sign-out in the log")
	}
}

// An application whose every page needs a user lands on a page of ours.
func TestSignedOutPage(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.SignedOutPath = "/oidc/signed-out" }
	})
	b := a.signIn()
	p := b.Submit(b.Open(a.url+"/signout"), nil)
	if p.Status != http.StatusOK || p.URL != a.url+"/oidc/signed-out" {
		t.Fatalf("landed at %s: %d", p.URL, p.Status)
	}
	if a.signedIn(b) {
		t.Error("still signed in")
	}
	if p = b.Click(p, p.Link("Sign in")); p.Status != http.StatusOK || !a.signedIn(b) {
		t.Errorf("the page's link: %d at %s, signed in %t", p.Status, p.URL, a.signedIn(b))
	}
}

// Config.Navigation has the last word on who is redirected.
func TestNavigation(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) {
			c.Navigation = func(r *http.Request) bool { return r.Header.Get("X-Navigates") != "" }
		}
	})
	b := a.browser()
	if p := b.Open(a.url + "/me"); p.Status != http.StatusUnauthorized {
		t.Errorf("a navigation the application denies: %d, want 401", p.Status)
	}
	p := b.Follow(&signintest.Request{URL: a.url + "/me", Mode: "cors", Dest: "empty", Header: http.Header{"X-Navigates": {"1"}}})
	if p.Status != http.StatusOK {
		t.Errorf("a fetch the application sends on: %d, want 200", p.Status)
	}
}
