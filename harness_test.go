package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// app is an application at https://app.example.test that signs in at
// https://login.example.test, cross-site as in production. When its test
// ends, everything it logged is searched for secrets.
type app struct {
	*Auth
	t      *testing.T
	issuer *signintest.Issuer
	net    *signintest.Network
	url    string
	mux    *http.ServeMux
	log    *logBuffer
	clock  *clock
}

type appOptions struct {
	issuerURL string
	appURL    string
	behaviour func(*signintest.Behaviour)
	config    func(*Config)
	wrap      func(a *Auth, mux *http.ServeMux) http.Handler
	clock     *clock
}

func newApp(t *testing.T, edit ...func(*appOptions)) *app {
	t.Helper()
	o := appOptions{issuerURL: "https://login.example.test", appURL: "https://app.example.test", clock: &clock{}}
	for _, f := range edit {
		f(&o)
	}
	net := signintest.NewNetwork(t)
	issuer := signintest.NewIssuer(t, &signintest.IssuerOptions{URL: o.issuerURL, Network: net, Behaviour: func(b *signintest.Behaviour) {
		b.Now = o.clock.now
		if o.behaviour != nil {
			o.behaviour(b)
		}
	}})
	a := &app{t: t, issuer: issuer, net: net, clock: o.clock}
	a.replica(o)
	return a
}

// replica starts the application, or another process of it.
func (a *app) replica(o appOptions) {
	t := a.t
	log := &logBuffer{}
	a.log = log
	cfg := Config{
		Issuer: a.issuer.URL(), ClientID: "client", Credential: Secret("secret"), BaseURL: o.appURL,
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: a.net.Client(),
		Logger: slog.New(slog.NewJSONHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if o.config != nil {
		o.config(&cfg)
	}
	auth, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	auth.now = a.clock.now
	a.Auth = auth
	a.mux = http.NewServeMux()
	a.routes()
	h := auth.Handler(a.mux)
	if o.wrap != nil {
		h = o.wrap(auth, a.mux)
	}
	a.url = a.net.Serve(o.appURL, h)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// What still hangs then, a test has made to hang.
		_ = auth.Shutdown(ctx)
		a.checkLog(log)
	})
}

func (a *app) routes() {
	a.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "public") })
	a.mux.Handle("GET /me", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := UserFromContext(r.Context())
		json.NewEncoder(w).Encode(map[string]string{"sub": u.Subject, "iss": u.Issuer, "name": u.Name(), "tid": u.Tenant, "home": u.HomeAccount})
	})))
	a.mux.Handle("GET /claims", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(UserFromContext(r.Context()).RawClaims)
	})))
	a.mux.Handle("/page/", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "page %s", r.URL.RequestURI())
	})))
	a.mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		token, err := TokenSource(r.Context(), r.URL.Query()["scope"]...).Token()
		if a.Challenge(w, r, err) {
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, token.AccessToken)
	})
	a.mux.HandleFunc("GET /token-extra", func(w http.ResponseWriter, r *http.Request) {
		token, err := TokenRequest{Refresh: r.URL.Query().Has("refresh")}.Source(r.Context()).Token()
		if a.Challenge(w, r, err) {
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		for _, name := range r.URL.Query()["name"] {
			fmt.Fprintln(w, token.Extra(name))
		}
		fmt.Fprint(w, UserFromContext(r.Context()).IDToken())
		token.AccessToken = "" // it is the caller's
	})
	a.mux.HandleFunc("/signout", a.SignOut)
}

func (a *app) browser() *signintest.Browser {
	return signintest.NewBrowser(a.t, &signintest.BrowserOptions{Network: a.net, Now: a.clock.now})
}

// signIn returns a browser that is signed in, by default as alice.
func (a *app) signIn() *signintest.Browser {
	a.t.Helper()
	b := a.browser()
	if got := a.subject(b); got != "alice" {
		a.t.Fatalf("signed in as %q, want alice", got)
	}
	return b
}

// subject opens /me and returns who is signed in at the end, or what the page
// says instead.
func (a *app) subject(b *signintest.Browser) string {
	a.t.Helper()
	p := b.Open(a.url + "/me")
	var me map[string]string
	if p.Err != nil || p.Status != http.StatusOK || json.Unmarshal([]byte(p.Body), &me) != nil {
		return fmt.Sprintf("%d %v %.300s", p.Status, p.Err, p.Body)
	}
	return me["sub"]
}

// toCallback opens a page and returns the callback request that the browser
// is about to send.
func (a *app) toCallback(b *signintest.Browser, page string) *signintest.Request {
	a.t.Helper()
	p, r := b.OpenUntil(a.url+page, signintest.To("/oidc/callback"))
	if r == nil {
		a.t.Fatalf("GET %s did not lead to the callback but to %d %s %.300s", page, p.Status, p.URL, p.Body)
	}
	return r
}

// edited is a callback with one parameter replaced; nil drops it.
func edited(r *signintest.Request, name string, values ...string) *signintest.Request {
	c := r.Clone()
	c.Form = url.Values{}
	for k, v := range r.Form {
		c.Form[k] = append([]string(nil), v...)
	}
	delete(c.Form, name)
	if len(values) > 0 {
		c.Form[name] = values
	}
	return c
}

func (a *app) redemptions() int { return a.issuer.CountGrant("authorization_code") }
func (a *app) refreshed() int   { return a.issuer.CountGrant("refresh_token") }

// checkLog searches what was logged for what must not be there.
func (a *app) checkLog(log *logBuffer) {
	text := log.String()
	for _, secret := range a.issuer.Secrets() {
		if len(secret) >= 8 && strings.Contains(text, secret) {
			a.t.Errorf("the log holds a secret: %.12s...", secret)
		}
	}
	for _, word := range []string{"alice@", "bob@", "__Host-"} {
		if strings.Contains(text, word) {
			a.t.Errorf("the log holds %q", word)
		}
	}
}

// leaks reports whether a page shows a secret of the issuer's.
func (a *app) leaks(p *signintest.Page) bool {
	for _, secret := range a.issuer.Secrets() {
		if len(secret) >= 8 && strings.Contains(p.Body, secret) {
			return true
		}
	}
	return false
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// clock is the real one plus what a test has added.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}
