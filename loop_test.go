package signin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// The page about a loop, and the log line beside it, say what is wrong as far
// as it can be told, and blame no one else.
func TestLoopCause(t *testing.T) {
	// elsewhere serves the callback from another process.
	elsewhere := func(edit func(*Config), clock func() time.Time) func(*testing.T) *app {
		return func(t *testing.T) *app {
			var replica *Auth
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) {
					other := *c
					edit(&other)
					var err error
					if replica, err = New(other); err != nil {
						t.Fatal(err)
					}
				}
				o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
					h, callback := a.Handler(mux), replica.Handler(http.NotFoundHandler())
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/oidc/callback" {
							callback.ServeHTTP(w, r)
							return
						}
						h.ServeHTTP(w, r)
					})
				}
			})
			if clock == nil {
				clock = a.clock.now
			}
			replica.now = clock
			return a
		}
	}
	// rewriting changes the session cookie on its way to the pages.
	rewriting := func(value func(string) string) func(*testing.T) *app {
		return func(t *testing.T) *app {
			return newApp(t, func(o *appOptions) {
				o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
					h := a.Handler(mux)
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						cookies := r.Cookies()
						r.Header.Del("Cookie")
						for _, c := range cookies {
							if c.Name == a.sess.secureCookie {
								c.Value = value(c.Value)
							}
							if c.Value != "" {
								r.AddCookie(c)
							}
						}
						h.ServeHTTP(w, r)
					})
				}
			})
		}
	}
	newKey := bytes.Repeat([]byte{8}, 32)
	for name, tc := range map[string]struct {
		app  func(*testing.T) *app
		want *loopError
	}{
		"no shared store":          {elsewhere(func(c *Config) { c.Store = NewMemoryStore() }, nil), loopNoRecord},
		"no cookie":                {rewriting(func(string) string { return "" }), loopNoCookie},
		"a cookie of other keys":   {elsewhere(func(c *Config) { c.Keys = [][]byte{newKey, c.Keys[0]} }, nil), loopOtherKeys},
		"a cookie that is altered": {rewriting(func(s string) string { return s[1:] }), loopOtherKeys},
		"clocks apart":             {elsewhere(func(*Config) {}, func() time.Time { return time.Now().Add(2 * time.Hour) }), loopStale},
	} {
		t.Run(name, func(t *testing.T) {
			a := tc.app(t)
			p := a.browser().Open(a.url + "/page/x?q=1")
			if p.Status != http.StatusForbidden || !strings.Contains(p.Body, pageWords[PageLoop].title) {
				t.Fatalf("%d %.300s\n%s", p.Status, p.Body, a.log)
			}
			for _, c := range []*loopError{loopNoCookie, loopNoRecord, loopOtherKeys, loopStale, loopNotEnough} {
				if got := strings.Contains(p.Body, c.text) && strings.Contains(p.Body, c.advice); got != (c == tc.want) {
					t.Errorf("the page says %q: %v", c.text, got)
				}
				if got := strings.Contains(a.log.String(), c.cause); got != (c == tc.want) {
					t.Errorf("the log says %q: %v", c.cause, got)
				}
			}
		})
	}
	t.Run("signed in", func(t *testing.T) {
		a := newApp(t)
		a.mux.Handle("GET /again", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.Challenge(w, r, &InteractionRequiredError{Reason: ReasonSignIn})
		})))
		p := a.browser().Open(a.url + "/again")
		if !strings.Contains(p.Body, loopNotEnough.text) || !strings.Contains(a.log.String(), loopNotEnough.cause) {
			t.Errorf("%d %.300s\n%s", p.Status, p.Body, a.log)
		}
	})
}

// What the issuer did not give once it will not give a second time: a page
// says so by name after one round trip, to who was signed in and to who was
// not, by redirect and by the link of an answer that could not redirect, and to
// the copies of a callback.
func TestRequiredACRUnmet(t *testing.T) {
	for _, flow := range flows {
		for who, begin := range map[string]func(*app) *signintest.Browser{"alice": (*app).signIn, "a stranger": (*app).browser} {
			t.Run(flow.name+", "+who, func(t *testing.T) {
				a := newApp(t, func(o *appOptions) {
					o.config = flow.config
					o.behaviour = func(b *signintest.Behaviour) {
						b.EditIDToken = func(token *signintest.IDToken) { token.Claims["acr"] = "bronze" }
					}
				})
				a.mux.Handle("/gold", a.Require(Requirement{ACR: []string{"gold", "platinum"}})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					t.Error("the page was served")
				})))
				b := begin(a)
				before := a.redemptions()
				check := func(p *signintest.Page, trips int) {
					t.Helper()
					if p.Status != http.StatusForbidden || !strings.Contains(p.Body, pageWords[PageStepUpRefused].title) {
						t.Fatalf("%d at %s: %.300s", p.Status, p.URL, p.Body)
					}
					if !strings.Contains(p.Body, "acr gold platinum") || !strings.Contains(a.log.String(), "acr gold platinum") {
						t.Errorf("what is missing is not named: %.300s", p.Body)
					}
					if strings.Contains(a.log.String(), "bronze") {
						t.Error("the log holds a claim")
					}
					if n := a.redemptions() - before; n != trips {
						t.Errorf("%d round trips, want %d", n, trips)
					}
				}
				callback := a.toCallback(b, "/gold")
				check(b.Send(callback), 1)
				check(b.Send(callback), 1) // a copy
				if got := a.subject(b); got != "alice" {
					t.Errorf("afterwards %s is signed in", got)
				}
				p := b.Follow(&signintest.Request{Method: "POST", URL: a.url + "/gold", Form: url.Values{"a": {"b"}}, From: a.url + "/gold", Activated: true})
				if p.Status != http.StatusUnauthorized {
					t.Fatalf("POST: %d %.300s", p.Status, p.Body)
				}
				check(b.Click(p, p.Link("Continue")), 2)
			})
		}
	}
}

// A max_age that the issuer ignores is named, too.
func TestRequiredMaxAgeUnmet(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) { delete(token.Claims, "auth_time") }
		}
	})
	a.mux.Handle("/recent", a.Require(Requirement{MaxAge: 10 * time.Minute})(http.NotFoundHandler()))
	b := a.browser()
	p := b.Open(a.url + "/recent")
	wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
	if !strings.Contains(p.Body, "max_age 600") || !strings.Contains(a.log.String(), "max_age was asked for") || a.issuer.Count(signintest.EndpointAuthorize) != 1 {
		t.Errorf("%.300s\n%s", p.Body, a.log)
	}
}

// What an API asks for is the API's to judge: its acr need not be the ID
// token's.
func TestAskedACRIsNotRequired(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) { delete(token.Claims, "acr") }
		}
	})
	asked := false
	a.mux.Handle("/call", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !asked {
			asked = true
			a.Challenge(w, r, &InteractionRequiredError{Reason: ReasonClaims, ACR: []string{"gold"}})
			return
		}
		fmt.Fprint(w, "answered")
	})))
	if p := a.signIn().Open(a.url + "/call"); p.Body != "answered" {
		t.Errorf("%d %.300s", p.Status, p.Body)
	}
}

// A page of the issuer's expires in a second tab when its user signs in in the
// first. The second tab ends on the page that it asked for.
func TestIssuersPageExpired(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = "https://sso.example.test/realms/acme"
		o.behaviour = func(b *signintest.Behaviour) {
			signintest.Keycloak(b)
			b.LoginPage = true
		}
	})
	b := a.browser()
	first, second := b.Open(a.url+"/page/1"), b.Open(a.url+"/page/2")
	for n, form := range []*signintest.Page{first, second} {
		if p := b.Submit(form, nil); p.Status != http.StatusOK || p.Body != fmt.Sprintf("page /page/%d", n+1) {
			t.Errorf("tab %d ends on %d %s %.200s; %s", n+1, p.Status, p.URL, p.Body, lastCause(a))
		}
	}
	if n := a.redemptions(); n != 1 {
		t.Errorf("%d redemptions, want 1: who is signed in is not sent again", n)
	}
}

// Nobody is signed in, and the issuer's pages expire: there is a new challenge, and
// another, and then a page that says so.
func TestIssuersPageExpiresAgain(t *testing.T) {
	for _, tc := range []struct {
		code, description string
		times, challenges int
		status            int
	}{
		{"temporarily_unavailable", "authentication_expired", 1, 2, http.StatusOK},
		{"authentication_expired", "", 1, 2, http.StatusOK},
		{"invalid_request", "You may have pressed the back button, refreshed during login, ...", 2, 3, http.StatusOK},
		{"temporarily_unavailable", "authentication_expired", 99, loopTrips, http.StatusForbidden},
	} {
		t.Run(fmt.Sprint(tc.code, tc.times), func(t *testing.T) {
			a := newApp(t)
			answers := 0
			a.issuer.Update(func(b *signintest.Behaviour) {
				b.EditResponse = func(r *signintest.AuthResponse) {
					if answers++; answers <= tc.times {
						r.Params = url.Values{"state": r.Params["state"], "iss": {a.issuer.URL()}, "error": {tc.code}, "error_description": {tc.description}}
					}
				}
			})
			p := a.browser().Open(a.url + "/page/x?y=1")
			if p.Status != tc.status || tc.status == http.StatusOK && p.Body != "page /page/x?y=1" {
				t.Errorf("%d %.300s at %s; %s", p.Status, p.Body, p.URL, lastCause(a))
			}
			if answers != tc.challenges {
				t.Errorf("%d challenges, want %d", answers, tc.challenges)
			}
		})
	}
}
