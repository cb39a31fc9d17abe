package signin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/signintest"
)

// pushApp is an application whose issuer takes pushed requests only, unless par
// says something.
func pushApp(t *testing.T, par PAR, behave func(*signintest.Behaviour), edit ...func(*Config)) *app {
	t.Helper()
	return newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.RequirePush = par == ""
			if behave != nil {
				behave(b)
			}
		}
		o.config = func(c *Config) {
			c.PAR = par
			for _, f := range edit {
				f(c)
			}
		}
	})
}

// TestPush: a request that is pushed travels with the client's proof, and the
// browser carries its name and nothing else.
func TestPush(t *testing.T) {
	key := clientKey(t)
	for _, tc := range []struct {
		name       string
		par        PAR
		credential Credential
		method     string
		pushes     int
	}{
		{"required", "", Secret("secret"), "client_secret_basic", 1},
		{"always", PARAlways, Secret("secret"), "client_secret_basic", 1},
		{"secret in the body", PARAlways, SecretPost("secret"), "client_secret_post", 1},
		{"key", PARAlways, PrivateKey(ClientKey{Signer: key}), "private_key_jwt", 1},
		{"public client", PARAlways, nil, "none", 1},
		{"auto, not required", PARAuto, Secret("secret"), "", 0},
		{"never, not required", PARNever, Secret("secret"), "", 0},
	} {
		for _, typ := range []string{typeHybrid, typeCode} {
			t.Run(tc.name+", "+typ, func(t *testing.T) {
				a := pushApp(t, tc.par, func(b *signintest.Behaviour) {
					b.Clients[0] = signintest.Client{ID: "client"}
					switch tc.method {
					case "private_key_jwt":
						b.Clients[0].PublicKeys = append(b.Clients[0].PublicKeys, key.Public())
					case "none":
					default:
						b.Clients[0].Secret = "secret"
					}
				}, func(c *Config) {
					c.Credential, c.ResponseType = tc.credential, typ
					c.AuthParams = url.Values{"ui_locales": {"fr"}}
				})
				if err := a.Ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				a.signIn()
				if n := a.issuer.Count(signintest.EndpointPush); n != tc.pushes {
					t.Fatalf("%d pushes, want %d", n, tc.pushes)
				}
				if tc.pushes == 0 {
					return
				}
				seen := a.issuer.LastCall(signintest.EndpointAuthorize).Form
				if len(seen) != 2 || seen.Get("client_id") != "client" || seen.Get("request_uri") == "" {
					t.Errorf("the browser carries %v, want client_id and request_uri", seen)
				}
				push := a.issuer.LastCall(signintest.EndpointPush)
				for name, want := range map[string]string{
					"client_id": "client", "redirect_uri": a.url + "/oidc/callback", "response_type": typ, "code_challenge_method": "S256", "ui_locales": "fr",
				} {
					if got := push.Form.Get(name); got != want {
						t.Errorf("pushed %s %q, want %q", name, got, want)
					}
				}
				if push.AuthMethod != tc.method || push.Method != http.MethodPost {
					t.Errorf("pushed by %s with %s, want %s", push.Method, push.AuthMethod, tc.method)
				}
			})
		}
	}
}

// TestPushScript: only a browser that is sent away costs a push, and each sign-in
// has one of its own.
func TestPushScript(t *testing.T) {
	a := pushApp(t, "", nil)
	b := a.browser()
	if p := b.Fetch(&signintest.Page{URL: a.url + "/"}, "/me"); p.Status != http.StatusUnauthorized {
		t.Fatalf("a script got %d", p.Status)
	}
	if n := a.issuer.Count(signintest.EndpointPush); n != 0 {
		t.Errorf("a script made %d pushes", n)
	}
	names := map[string]bool{}
	for range 3 {
		a.toCallback(a.browser(), "/me")
		names[a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("request_uri")] = true
	}
	if n := a.issuer.Count(signintest.EndpointPush); n != 3 || len(names) != 3 {
		t.Errorf("%d pushes, %d names, for 3 sign-ins", n, len(names))
	}
}

// TestPushRefused: what the issuer refuses is told by its name, and nobody is sent
// away for it.
func TestPushRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault *signintest.Fault
		said  string
	}{
		{"redirect URI", nil, "invalid_request: redirect_uri https://app.example.test/oidc/callback is not registered"},
		{"client", new(signintest.OAuthError{Status: 401, Code: "invalid_client"}.Fault()), "invalid_client"},
		{"scope", new(signintest.OAuthError{Code: "invalid_scope", Description: "mail.read is not known"}.Fault()), "invalid_scope: mail.read is not known"},
		{"with status 200", new(signintest.OAuthError{Status: 200, Code: "invalid_target"}.Fault()), "invalid_target"},
		{"no such endpoint", new(signintest.HTMLFault(404)), "status 404"},
		{"too large", new(signintest.Fault{Status: 413}), "status 413"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := pushApp(t, "", func(b *signintest.Behaviour) {
				if tc.fault == nil {
					b.Clients[0].RedirectURIs = []string{"https://app.example.test/another"}
				}
			})
			if tc.fault != nil {
				a.issuer.Fail(signintest.EndpointPush, *tc.fault)
			}
			b := a.browser()
			p := b.Open(a.url + "/me")
			wantPage(t, a, p, http.StatusBadRequest, PageIssuerError)
			if !strings.Contains(p.Body, tc.said) || !strings.Contains(lastCause(a), tc.said) {
				t.Errorf("%q is not on the page, or not in the log: %s\n%s", tc.said, lastCause(a), p.Body)
			}
			if pushes, sent := a.issuer.Count(signintest.EndpointPush), a.issuer.Count(signintest.EndpointAuthorize); pushes != 1 || sent != 0 {
				t.Errorf("%d pushes, %d users sent away, want 1 and 0", pushes, sent)
			}
			a.issuer.Heal()
			a.issuer.Update(func(b *signintest.Behaviour) { b.Clients[0].RedirectURIs = nil })
			if got := a.subject(b); got != "alice" {
				t.Errorf("mended: %s", got)
			}
		})
	}
}

// TestPushEchoed: an issuer that echoes what was pushed gets none of it into a log
// or on a page.
func TestPushEchoed(t *testing.T) {
	a := pushApp(t, "", nil, func(c *Config) { c.Credential = SecretPost("secret-of-the-client") })
	var state string
	a.issuer.Update(func(b *signintest.Behaviour) {
		b.Fault = func(c signintest.Call) *signintest.Fault {
			if c.Endpoint != signintest.EndpointPush {
				return nil
			}
			state = c.Form.Get("state")
			f := signintest.OAuthError{Code: "invalid_request", Description: "got " + c.Form.Get("client_secret") + " " + state[:40] + state[40:]}.Fault()
			return &f
		}
	})
	p := a.browser().Open(a.url + "/me")
	for _, secret := range []string{"secret-of-the-client", state} {
		if strings.Contains(p.Body, secret) || strings.Contains(a.log.String(), secret) {
			t.Errorf("%.20s is shown or logged", secret)
		}
	}
}

// TestPushLost: a push that does not arrive, or whose answer is of no use, is a 503.
// It is not sent again by itself.
func TestPushLost(t *testing.T) {
	member := func(name string, value any) signintest.Fault {
		return signintest.JSONFault(201, map[string]any{"request_uri": "urn:example:1", "expires_in": 60, name: value})
	}
	for name, fault := range map[string]signintest.Fault{
		"dropped":              {Drop: true},
		"answer lost":          {AfterProcessing: true, Drop: true},
		"status 500":           {Status: 500},
		"gateway":              signintest.HTMLFault(502),
		"too many":             {Status: 429},
		"later":                signintest.OAuthError{Code: "temporarily_unavailable"}.Fault(),
		"redirected":           {Redirect: "https://login.example.test/par"},
		"page":                 signintest.HTMLFault(201),
		"empty":                {Status: 201},
		"endless":              {Status: 201, Body: "{", Endless: true},
		"cut":                  {Edit: func(a *signintest.Answer) { a.Cut = true }},
		"no request_uri":       member("request_uri", nil),
		"empty request_uri":    member("request_uri", ""),
		"request_uri a number": member("request_uri", 7),
		"request_uri relative": member("request_uri", "/par/7"),
		"request_uri broken":   member("request_uri", "urn:a\r\nSet-Cookie: x"),
		"request_uri huge":     member("request_uri", "urn:"+strings.Repeat("x", 10<<10)),
		"expired at once":      member("expires_in", 0),
		"expired before":       member("expires_in", -60),
		"expired, as text":     member("expires_in", "0"),
	} {
		t.Run(name, func(t *testing.T) {
			a := pushApp(t, "", nil)
			a.issuer.Fail(signintest.EndpointPush, fault)
			b := a.browser()
			p := b.Open(a.url + "/me")
			wantPage(t, a, p, http.StatusServiceUnavailable, PageIssuerDown)
			if p.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if pushes, sent := a.issuer.Count(signintest.EndpointPush), a.issuer.Count(signintest.EndpointAuthorize); pushes != 1 || sent != 0 {
				t.Errorf("%d pushes, %d users sent away, want 1 and 0", pushes, sent)
			}
			a.issuer.Heal()
			if got := a.subject(b); got != "alice" {
				t.Errorf("healed: %s", got)
			}
		})
	}
}

// TestPushAnswers: an answer counts for what it says.
func TestPushAnswers(t *testing.T) {
	for name, behave := range map[string]func(*signintest.Behaviour){
		"status 200":         func(b *signintest.Behaviour) { b.PushStatus = 200 },
		"no expires_in":      func(b *signintest.Behaviour) { b.PushMembers = map[string]any{"expires_in": nil} },
		"expires_in as text": func(b *signintest.Behaviour) { b.PushMembers = map[string]any{"expires_in": "60"} },
		"short life":         func(b *signintest.Behaviour) { b.PushLifetime = 2 * time.Second },
	} {
		t.Run(name, func(t *testing.T) { pushApp(t, "", behave).signIn() })
	}
}

// TestPushExpiring: a name that has expired while the answer travelled sends nobody
// away.
func TestPushExpiring(t *testing.T) {
	a := pushApp(t, "", nil)
	a.issuer.FailNext(signintest.EndpointPush, signintest.Fault{Edit: func(*signintest.Answer) { a.clock.advance(2 * time.Minute) }})
	wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusServiceUnavailable, PageIssuerDown)
}

// TestPushHangs: how long a browser waits is bounded.
func TestPushHangs(t *testing.T) {
	a := pushApp(t, "", nil, func(c *Config) {
		c.HTTPClient.Transport = deadlines{t, c.HTTPClient.Transport}
	})
	a.signIn()
}

// deadlines checks that a push has one.
type deadlines struct {
	t    *testing.T
	next http.RoundTripper
}

func (d deadlines) RoundTrip(r *http.Request) (*http.Response, error) {
	if end, ok := r.Context().Deadline(); strings.HasSuffix(r.URL.Path, "/par") && (!ok || time.Until(end) > oidc.PushTimeout) {
		d.t.Errorf("a push may last until %v", end)
	}
	return d.next.RoundTrip(r)
}

// TestPushRotated: a client that is refused with a secret that has been replaced
// pushes once more with the new one, for the issuer has kept nothing.
func TestPushRotated(t *testing.T) {
	secret := "old-secret"
	a := pushApp(t, "", nil, func(c *Config) {
		c.Credential = Rotating(func(ctx context.Context) (Credential, error) { return Secret(secret), nil })
	})
	a.issuer.Update(func(b *signintest.Behaviour) { b.Clients[0].Secret = "old-secret" })
	a.signIn()
	secret = "new-secret"
	a.issuer.Update(func(b *signintest.Behaviour) { b.Clients[0].Secret = "new-secret" })
	a.issuer.ForgetCalls()
	a.signIn()
	if n := a.issuer.Count(signintest.EndpointPush); n != 2 {
		t.Errorf("%d pushes, want 2", n)
	}
}

// TestPushSilent: nobody asked for a silent sign-in, so its visitor sees the page
// when the push fails.
func TestPushSilent(t *testing.T) {
	for name, fault := range map[string]signintest.Fault{
		"lost": {Drop: true}, "refused": signintest.OAuthError{Code: "invalid_scope"}.Fault(),
	} {
		t.Run(name, func(t *testing.T) {
			a := pushApp(t, "", nil)
			a.mux.Handle("GET /greet", a.Recognize(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })))
			a.issuer.Fail(signintest.EndpointPush, fault)
			b := a.browser()
			for range 3 {
				if p := b.Open(a.url + "/greet"); p.Body != "hello" {
					t.Errorf("a public page: %d %.100s", p.Status, p.Body)
				}
			}
			if n := a.issuer.Count(signintest.EndpointPush); n != 1 {
				t.Errorf("%d pushes, want 1", n)
			}
		})
	}
}

// TestPushUnfit: where requests cannot be pushed as configured, Ready says so by
// name before a user is sent away.
func TestPushUnfit(t *testing.T) {
	endpoint := func(value any) func(*signintest.Behaviour) {
		return func(b *signintest.Behaviour) {
			b.DiscoveryMembers = map[string]any{"pushed_authorization_request_endpoint": value}
		}
	}
	for _, tc := range []struct {
		name   string
		par    PAR
		behave func(*signintest.Behaviour)
		named  string
	}{
		{"never, and required", PARNever, func(b *signintest.Behaviour) { b.RequirePush = true }, "require_pushed_authorization_requests"},
		{"never, and required as text", PARNever, func(b *signintest.Behaviour) {
			b.DiscoveryMembers = map[string]any{"require_pushed_authorization_requests": "true"}
		}, "require_pushed_authorization_requests"},
		{"required without an endpoint", "", endpoint(nil), "pushed_authorization_request_endpoint"},
		{"always without an endpoint", PARAlways, endpoint(nil), "pushed_authorization_request_endpoint"},
		{"endpoint over http", PARAlways, endpoint("http://login.example.test/par"), "pushed_authorization_request_endpoint"},
		{"endpoint a number", PARAlways, endpoint(7), "pushed_authorization_request_endpoint"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := pushApp(t, tc.par, tc.behave)
			wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusInternalServerError, PageInternal)
			if err := a.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), tc.named) {
				t.Errorf("Ready: %v, want %s in it", err, tc.named)
			}
			if pushes, sent := a.issuer.Count(signintest.EndpointPush), a.issuer.Count(signintest.EndpointAuthorize); pushes+sent != 0 {
				t.Errorf("%d pushes, %d users sent away", pushes, sent)
			}
		})
	}
}

// TestPushElsewhere: the endpoint stands where the issuer says, on a host of its own
// maybe. The browser carries what that host answers.
func TestPushElsewhere(t *testing.T) {
	a := pushApp(t, "", func(b *signintest.Behaviour) {
		b.DiscoveryMembers = map[string]any{"pushed_authorization_request_endpoint": "https://par.example.test/par"}
	})
	pushed := make(chan string, 9)
	a.net.Serve("https://par.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pushed <- r.Method + " " + r.PostFormValue("redirect_uri")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"request_uri":"urn:ietf:params:oauth:request_uri:1","expires_in":60}`)
	}))
	_, r := a.browser().OpenUntil(a.url+"/me", signintest.To("/authorize"))
	if r == nil {
		t.Fatal("not sent to the issuer")
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	if q := u.Query(); q.Get("request_uri") != "urn:ietf:params:oauth:request_uri:1" || q.Get("client_id") != "client" || len(q) != 2 {
		t.Errorf("sent to %.150s, want client_id and request_uri only", r.URL)
	}
	if got := <-pushed; got != "POST https://app.example.test/oidc/callback" {
		t.Errorf("pushed %s", got)
	}
}

// TestPushUnannounced: without a discovery document the endpoint is configured.
func TestPushUnannounced(t *testing.T) {
	a := pushApp(t, PARAlways, nil, func(c *Config) {
		c.Endpoints = Endpoints{
			Authorization: c.Issuer + "/authorize", Token: c.Issuer + "/token", Keys: c.Issuer + "/keys", PushedRequest: c.Issuer + "/par",
		}
	})
	a.signIn()
	if n := a.issuer.Count(signintest.EndpointPush); n != 1 {
		t.Errorf("%d pushes, want 1", n)
	}
}

func clientKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
