package chromium

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/signintest"
)

// app is an application of the library in this process, whose every page can
// be provoked.
type app struct {
	url    string
	issuer *signintest.Issuer
	store  *brittleStore
	tamper atomic.Bool // drop the session cookie

	mu    sync.Mutex
	kinds []string // of the library's pages, as they were shown
}

// brittleStore fails when it is told to.
type brittleStore struct {
	signin.Store
	down atomic.Bool
}

func (s *brittleStore) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if s.down.Load() {
		return nil, false, errors.New("the store is down")
	}
	return s.Store.Get(ctx, key)
}

func newApp(t *testing.T, issuer *signintest.Issuer, edit ...func(*signin.Config)) *app {
	t.Helper()
	a := &app{issuer: issuer, store: &brittleStore{Store: signin.NewMemoryStore()}}
	mux, outer := http.NewServeMux(), http.NewServeMux()
	server := httptest.NewServer(outer)
	t.Cleanup(server.Close)
	a.url = "http://localhost:" + server.URL[strings.LastIndexByte(server.URL, ':')+1:]

	cfg := signin.Config{
		Issuer: a.issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"), BaseURL: a.url,
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, Store: a.store, NameClaim: "name",
		HTTPClient: &http.Client{Timeout: 3 * time.Second},
		Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		Page: func(w http.ResponseWriter, r *http.Request, p signin.Page) {
			a.mu.Lock()
			a.kinds = append(a.kinds, string(p.Kind))
			a.mu.Unlock()
			p.ServeHTTP(w, r)
		},
	}
	for _, f := range edit {
		f(&cfg)
	}
	auth, err := signin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := auth.Shutdown(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { html(w, "<h1>application</h1>") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { html(w, "<h1>public</h1>") })
	mux.Handle("/page", auth.RequireUser(ok))
	mux.Handle("/mail", auth.Require(signin.Requirement{Scopes: []string{"mail.send"}})(ok))
	mux.Handle("/staff", auth.Require(signin.Requirement{Allow: func(*signin.User) error { return errors.New("not staff") }})(ok))
	mux.HandleFunc("/signout", auth.SignOut)
	mux.HandleFunc("GET /form", func(w http.ResponseWriter, r *http.Request) {
		html(w, `<h1>form</h1><form method="post" action="`+r.URL.Query().Get("to")+`"><button>Send</button></form>`)
	})
	whole := auth.Handler(mux)
	outer.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if a.tamper.Load() {
			w = &withoutCookie{w, "signin"}
		}
		whole.ServeHTTP(w, r)
	})
	outer.Handle("/misplaced", auth.RequireUser(ok))
	return a
}

func html(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html><html lang=en><title>test</title><link rel=icon href=data:,><body>"+body)
}

// withoutCookie drops one cookie from the answer's header.
type withoutCookie struct {
	http.ResponseWriter
	name string
}

func (w *withoutCookie) WriteHeader(status int) {
	_ = dropCookie(w.name)(&http.Response{Header: w.Header()})
	w.ResponseWriter.WriteHeader(status)
}

func (a *app) lastKind() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kinds) == 0 {
		return "none"
	}
	return a.kinds[len(a.kinds)-1]
}

// begin leaves the browser cookie that a started sign-in sets.
func (a *app) begin(b *tab) {
	b.t.Helper()
	a.signIn(b)
	b.forget("signin", a.url)
}

func (a *app) signIn(b *tab) {
	b.t.Helper()
	b.open(a.url + "/page")
	b.at(a.url+"/page", "application")
}

// refuse makes the issuer answer sign-ins with an error.
func (a *app) refuse(code, description string) {
	a.issuer.Update(func(i *signintest.Behaviour) {
		i.Refuse = &signintest.OAuthError{Code: code, Description: description}
	})
}

func open(path string) func(*app, *tab) {
	return func(a *app, b *tab) { b.open(a.url + path) }
}

// Each page of the library, brought about in the way it comes about, can be
// read by everybody.
func TestPages(t *testing.T) {
	t.Parallel()
	// One of each for all pages: to start them takes longer than a page.
	p := newProfile(t)
	issuer := newIssuer(t)
	var wellBehaved signintest.Behaviour
	issuer.Update(func(i *signintest.Behaviour) { wellBehaved = *i })

	hurried := func(c *signin.Config) { c.HTTPClient = &http.Client{Timeout: 400 * time.Millisecond} }
	for _, tc := range []struct {
		kind   string
		status int
		reach  func(*app, *tab)
		config func(*signin.Config)
	}{
		{"callback-unreadable", 400, open("/oidc/callback?code=%zz"), nil},
		{"callback-empty", 400, open("/oidc/callback"), nil},
		{"callback-state", 400, func(a *app, b *tab) { a.begin(b); b.open(a.url + "/oidc/callback?code=x&state=y") }, nil},
		{"callback-duplicate", 400, open("/oidc/callback?code=a&code=b"), nil},
		{"callback-too-large", 413, open("/oidc/callback?" + strings.Repeat("a=b&", 40)), nil},
		{"callback-method", 405, func(a *app, b *tab) { b.openAs("PUT", a.url+"/oidc/callback") }, nil},
		{"no-cookies", 400, open("/oidc/callback?code=x&state=y"), nil},
		{"no-secure-cookies", 400, func(a *app, b *tab) {
			a.begin(b)
			b.forget("signin-browser", a.url) // as if it had kept the twin only
			b.open(a.url + "/page")
		}, nil},
		{"cancelled", 403, func(a *app, b *tab) {
			a.refuse("access_denied", "The user pressed Cancel <b>here</b>.")
			b.open(a.url + "/page")
		}, nil},
		{"consent-refused", 403, func(a *app, b *tab) {
			a.signIn(b)
			a.issuer.Update(func(i *signintest.Behaviour) {
				i.GrantScopes = func([]string) []string { return []string{"openid", "offline_access"} }
			})
			b.open(a.url + "/mail")
		}, nil},
		{"issuer-error", 400, func(a *app, b *tab) {
			a.refuse("server_error", "AADSTS90033: A transient error has occurred. Trace ID: 3f1c0a3e-6a3b-4c1e-9c55-"+strings.Repeat("0123456789", 20))
			b.open(a.url + "/page")
		}, nil},
		{"forgot-password", 403, func(a *app, b *tab) {
			a.refuse("access_denied", "AADB2C90118: The user has forgotten their password.")
			b.open(a.url + "/page")
		}, nil},
		{"token-rejected", 400, func(a *app, b *tab) {
			a.issuer.Update(func(i *signintest.Behaviour) {
				i.EditIDToken = func(token *signintest.IDToken) { token.Claims["nonce"] = "another" }
			})
			b.open(a.url + "/page")
		}, nil},
		{"redeem-refused", 502, func(a *app, b *tab) {
			a.issuer.Fail(signintest.EndpointToken, signintest.JSONFault(400, map[string]string{"error": "invalid_grant"}))
			b.open(a.url + "/page")
		}, nil},
		{"redeem-unreachable", 502, func(a *app, b *tab) {
			a.issuer.Fail(signintest.EndpointToken, signintest.Fault{Drop: true})
			b.open(a.url + "/page")
		}, nil},
		{"redeem-timeout", 504, func(a *app, b *tab) {
			a.issuer.Fail(signintest.EndpointToken, signintest.Fault{Hang: b.ctx.Done()})
			b.open(a.url + "/page")
		}, hurried},
		{"loop", 403, func(a *app, b *tab) { a.tamper.Store(true); b.open(a.url + "/page") }, nil},
		{"issuer-unavailable", 503, open("/page"), func(c *signin.Config) { c.Issuer = "http://127.0.0.1:1" }},
		{"store-unavailable", 503, func(a *app, b *tab) { a.signIn(b); a.store.down.Store(true); b.open(a.url + "/page") }, nil},
		{"internal-error", 500, open("/misplaced"), nil},
		{"session-ended", 401, func(a *app, b *tab) { b.submit(a.url, "/page") }, nil},
		{"permission-needed", 401, func(a *app, b *tab) { a.signIn(b); b.submit(a.url, "/mail") }, nil},
		{"forbidden", 403, func(a *app, b *tab) { a.signIn(b); b.open(a.url + "/staff") }, nil},
		{"sign-out", 200, func(a *app, b *tab) { a.signIn(b); b.open(a.url + "/signout") }, nil},
		{"signed-out", 200, open("/oidc/signed-out"), nil},
		{"account-refused", 403, open("/page"), func(c *signin.Config) {
			entra := signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "http://127.0.0.1/common/v2.0", Behaviour: func(i *signintest.Behaviour) { i.Entra = true }})
			c.Issuer, c.Tenants = entra.URL(), []string{"00000000-0000-4000-8000-000000000000"}
		}},
		{"sign-out-refused", 403, func(a *app, b *tab) {
			a.signIn(b)
			// The same server by another name is another site.
			b.submit(strings.Replace(a.url, "localhost", "127.0.0.1", 1), a.url+"/signout")
		}, nil},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			b := p.first.in(t)
			tell(b, network.ClearBrowserCookies, cdp.Empty{})
			issuer.Heal()
			issuer.Update(func(i *signintest.Behaviour) { *i = wellBehaved })
			var edit []func(*signin.Config)
			if tc.config != nil {
				edit = append(edit, tc.config)
			}
			a := newApp(t, issuer, edit...)
			tc.reach(a, b)
			b.waitFor("page "+tc.kind, func() bool { return a.lastKind() == tc.kind })
			b.wait("the page", `document.querySelector("main h1")`)
			if got := b.status(); got != tc.status {
				t.Errorf("status %d, want %d", got, tc.status)
			}
			b.look("page " + tc.kind)
		})
	}
}

// submit presses the button of a form on one site that posts to a URL.
func (b *tab) submit(site, to string) {
	b.t.Helper()
	b.open(site + "/form?to=" + to)
	b.heading("form")
	b.press("Send")
}

// openAs opens a URL by another method than a person can.
func (b *tab) openAs(method, url string) {
	b.t.Helper()
	tell(b, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: url}}})
	paused := make(chan *fetch.EventRequestPaused, 8)
	b.must(chromedp.Listen(b.ctx, func(ev any) {
		if e, ok := ev.(*fetch.EventRequestPaused); ok {
			paused <- e
		}
	}))
	done := make(chan string, 1)
	go func() { done <- b.open(url) }()
	select {
	case e := <-paused:
		tell(b, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID, Method: method})
	case <-b.ctx.Done():
		b.t.Fatal("the request did not come")
	}
	<-done
	tell(b, fetch.Disable, cdp.Empty{})
}

// The pages of the demo site and of its provider.
func TestDemoPages(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	p := newProfile(t)
	b := p.first
	see := func(name, heading string) {
		t.Helper()
		b.heading(heading)
		b.look("demo " + name)
	}
	b.open(d.url + "/")
	see("home", "Sign in and call an API")
	b.open(d.url + "/no-such-page")
	see("not found", "Not found")
	b.open(d.url + "/me")
	see("login", "Sign in")
	b.fill("username", "alice")
	b.fill("password", "wrong")
	b.press("Sign in")
	b.wait("the refusal", `document.querySelector("[role=alert]")`)
	see("login refused", "Sign in")
	login(b)
	see("consent", "Allow access?")
	b.press("Allow")
	see("me", "You are Alice Liddell")
	b.open(d.url + "/")
	see("home signed in", "Hello, Alice Liddell")
	b.open(d.url + "/api?view=page&scope=mail.read+calendars.read")
	see("consent with choices", "Allow access?")
	b.press("Allow")
	see("api", "What the API says")
	b.press("Mail")
	b.heading("Send a mail")
	see("mail", "Send a mail")
	eval[bool](b, `document.querySelector("#to").type = "text", true`)
	b.fill("to", "nobody")
	b.press("Send")
	b.wait("the fault", `document.querySelector("[role=alert]")`)
	see("mail refused", "Send a mail")
	b.press("Tokens")
	see("tokens", "Tokens held for you")
	b.press("Vault")
	see("step up", "Confirm it is you")
	b.fill("code", "123456")
	b.press("Confirm")
	see("vault", "The vault")
	b.press("You")
	b.heading("You are Alice Liddell")
	issuer := eval[string](b, `document.querySelector("dd code").textContent`)
	b.open(issuer + "/logout")
	see("provider sign-out", "Sign out?")
	b.press("Stay signed in")
	see("provider still in", "You are still signed in")
	b.open(issuer + "/authorize?client_id=signin-demo&redirect_uri=http://localhost/wrong&response_type=code")
	see("provider error", "That did not work")
	b.open(issuer + "/logout")
	b.heading("Sign out?")
	b.press("Sign out")
	see("provider signed out", "You are signed out")
}
