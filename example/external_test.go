package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/example/internal/browsertest"
	"github.com/seed454743b5/signin/example/internal/op"
	"github.com/seed454743b5/signin/signintest"
)

// issuer is a provider that does not belong to the site.
type issuer struct {
	url           string
	tokenRequests atomic.Int64
}

func startIssuer(t *testing.T, site string, change func(*op.Config)) *issuer {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	config := op.Config{
		Issuer:                 server.URL,
		ClientID:               "site",
		ClientSecret:           "top-secret",
		RedirectURIs:           []string{site + "/oidc/callback"},
		PostLogoutRedirectURIs: []string{site + "/"},
	}
	if change != nil {
		change(&config)
	}
	p, err := op.New(config)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{url: server.URL}
	mux.Handle("/", p.Handler())
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		i.tokenRequests.Add(1)
		p.Handler().ServeHTTP(w, r)
	})
	return i
}

// freeAddr is an address that nobody listened on a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (i *issuer) settings(addr string) []string {
	return []string{"ADDR", addr, "OIDC_ISSUER", i.url, "OIDC_CLIENT_ID", "site", "OIDC_CLIENT_SECRET", "top-secret"}
}

// The demo API knows tokens of an issuer it does not run in one process with.
func TestRefreshAfterExpiry(t *testing.T) {
	addr := freeAddr(t)
	url := "http://localhost:" + addr[strings.LastIndexByte(addr, ':')+1:]
	issuer := startIssuer(t, url, func(c *op.Config) { c.AccessTokenLifetime = 2 * time.Second })
	site := startSite(t, issuer.settings(addr)...)
	b := browsertest.New(t)
	at(t, signIn(t, b, site+"/me"), site+"/me")
	first := apiSays(t, b.Fetch(site+"/api"))
	if n := issuer.tokenRequests.Load(); n != 1 {
		t.Errorf("%d token requests for a sign-in and a call, want 1", n)
	}
	tick, deadline := time.NewTicker(100*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the access token was never renewed")
		}
		// Each answer is a good one: the old token serves until the new one.
		if doc := apiSays(t, b.Fetch(site+"/api")); doc.Expires.After(first.Expires) {
			return
		}
	}
}

// The API may be anybody's.
func TestOtherAPI(t *testing.T) {
	var path, authorization string
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, authorization = r.URL.Path, r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "<script>alert(1)</script>")
	}))
	t.Cleanup(apiServer.Close)
	site := startSite(t, "API_URL", apiServer.URL+"/tea")
	b := browsertest.New(t)
	signIn(t, b, site+"/me")
	p := b.Fetch(site + "/api")
	if p.Status != http.StatusTeapot || p.Body != "<script>alert(1)</script>" || path != "/tea" || !strings.HasPrefix(authorization, "Bearer ey") {
		t.Errorf("/api answered %d %q; the API was called at %q with %q", p.Status, p.Body, path, authorization[:min(9, len(authorization))])
	}
	if ct := p.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") || p.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a foreign page is passed on as %q", ct)
	}
	if p := b.Open(site + "/vault"); p.Status != http.StatusNotFound {
		t.Errorf("the vault of an API that is not ours: status %d", p.Status)
	}
}

// API_URL is called as it is given: a slash at its end names another document.
func TestAPIURLToTheLetter(t *testing.T) {
	var asked []string
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.RequestURI)
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(apiServer.Close)
	for _, tc := range []struct{ url, get, post string }{
		{"/tea", "GET /tea", "POST /tea/sendMail"},
		{"/tea/", "GET /tea/", "POST /tea/sendMail"},
		{"/tea//?x=1&y=a%2Fb", "GET /tea//?x=1&y=a%2Fb", "POST /tea/sendMail?x=1&y=a%2Fb"},
		{"", "GET /", "POST /sendMail"},
		{"/", "GET /", "POST /sendMail"},
	} {
		asked = nil
		c := newAPIClient(apiServer.URL+tc.url, false, nil)
		ctx := signin.NewContext(t.Context(), &signin.User{Subject: "alice"}, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "at"}))
		if _, err := c.read(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := c.sendMail(ctx, struct{}{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(asked, ", "); got != tc.get+", "+tc.post {
			t.Errorf("API_URL ending in %q: %s, want %s, %s", tc.url, got, tc.get, tc.post)
		}
	}
	for _, root := range []string{"https://graph.microsoft.com/v1.0", "https://graph.microsoft.com/v1.0/", "https://graph.microsoft.com/v1.0/me"} {
		if c := newAPIClient(root, false, nil); c.me != "https://graph.microsoft.com/v1.0/me" {
			t.Errorf("%s: %s", root, c.me)
		}
	}
	if site := startSite(t, "API_URL", apiServer.URL+"/tea/"); site != "" {
		asked = nil
		b := browsertest.New(t)
		signIn(t, b, site+"/me")
		if b.Fetch(site + "/api"); len(asked) != 1 || asked[0] != "GET /tea/" {
			t.Errorf("the site asked for %q", asked)
		}
	}
}

// An issuer that answers by query, however it is asked: the page names the
// settings for it, and with them the site works.
func TestIssuerByQueryOnly(t *testing.T) {
	issuer := signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "http://127.0.0.1", Behaviour: func(b *signintest.Behaviour) {
		b.EditResponse = func(r *signintest.AuthResponse) { r.Mode = "query" }
	}})
	settings := []string{"OIDC_ISSUER", issuer.URL(), "OIDC_CLIENT_ID", "client", "OIDC_CLIENT_SECRET", "secret"}
	for _, wrong := range [][]string{nil, {"OIDC_RESPONSE_TYPE", "code"}} {
		site := startSite(t, append(wrong, settings...)...)
		p := signintest.NewBrowser(t, nil).Open(site + "/me")
		if p.Status != http.StatusBadRequest || !strings.Contains(p.Body, "OIDC_RESPONSE_TYPE=code and OIDC_RESPONSE_MODE=query") {
			t.Errorf("with %q: %d, and the page does not name the settings: %s", wrong, p.Status, p.Body)
		}
	}
	site := startSite(t, append([]string{"OIDC_RESPONSE_TYPE", "code", "OIDC_RESPONSE_MODE", "query"}, settings...)...)
	p := signintest.NewBrowser(t, nil).Open(site + "/me")
	if p.Status != http.StatusOK || p.URL != site+"/me" || !strings.Contains(p.Body, "alice") {
		t.Errorf("with the settings that the page names: %d at %s", p.Status, p.URL)
	}
	// Safari over plain http is sent there by the same settings.
	safari := &signintest.BrowserOptions{StrictSecure: true}
	if p := signintest.NewBrowser(t, safari).Open(site + "/me"); p.Status != http.StatusOK {
		t.Errorf("Safari with the settings: %d %s", p.Status, p.URL)
	}
	p = signintest.NewBrowser(t, safari).Open(startSite(t, settings...) + "/me")
	if p.Status != http.StatusBadRequest || !strings.Contains(p.Body, "OIDC_RESPONSE_TYPE=code and OIDC_RESPONSE_MODE=query") {
		t.Errorf("Safari without them: %d %s", p.Status, p.Body)
	}
}

func TestTokenDoesNotFollowRedirects(t *testing.T) {
	var leaked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("Authorization") != "")
	}))
	t.Cleanup(elsewhere.Close)
	apiServer := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	t.Cleanup(apiServer.Close)
	site := startSite(t, "API_URL", apiServer.URL)
	b := browsertest.New(t)
	signIn(t, b, site+"/me")
	if p := b.Fetch(site + "/api"); p.Status != http.StatusFound || leaked.Load() {
		t.Errorf("status %d, token sent on: %t; want the redirect passed on and nothing sent", p.Status, leaked.Load())
	}
}

// The site as a process of its own, configured by its environment only.
func TestAsAProcess(t *testing.T) {
	addr := freeAddr(t)
	url := "http://localhost:" + addr[strings.LastIndexByte(addr, ':')+1:]
	issuer := startIssuer(t, url, nil)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = []string{"EXAMPLE_RUN_AS_SITE=1", "SESSION_KEY=" + strings.Repeat("ab", 32) + "," + strings.Repeat("cd", 32)}
	for s := issuer.settings(addr); len(s) > 1; s = s[2:] {
		cmd.Env = append(cmd.Env, s[0]+"="+s[1])
	}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	site := readURL(t, out)
	if site != url {
		t.Fatalf("the site is at %s, want %s", site, url)
	}
	b := browsertest.New(t)
	at(t, signIn(t, b, site+"/me"), site+"/me")
	if who, _ := me(t, b, site); who.Issuer != issuer.url {
		t.Errorf("issuer %q, want %q", who.Issuer, issuer.url)
	}
	if doc := apiSays(t, b.Fetch(site+"/api")); doc.ID != op.Users[0].Subject {
		t.Errorf("the API saw %q", doc.ID)
	}
	at(t, b.Press(b.Open(site), "Sign out", nil), site+"/")

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt the process ended with %v", err)
	}
	stopped = true
}
