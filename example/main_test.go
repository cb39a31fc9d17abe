package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/example/internal/browsertest"
	"github.com/seed454743b5/signin/example/internal/op"
)

// startSite runs the site as main does, on free ports, and returns its URL.
// Settings come in pairs. It is stopped with the test.
func startSite(t *testing.T, settings ...string) string {
	t.Helper()
	env := map[string]string{"ADDR": "127.0.0.1:0", "SESSION_KEY": strings.Repeat("5e", 32)}
	for i := 0; i+1 < len(settings); i += 2 {
		env[settings[i]] = settings[i+1]
	}
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, func(name string) string { return env[name] }, in, t.Output())
		in.CloseWithError(io.EOF)
		done <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return readURL(t, out)
}

// readURL reads the line that tells a person what to open.
func readURL(t *testing.T, out io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(out).ReadString('\n')
	site, ok := strings.CutPrefix(strings.TrimSpace(line), "Open ")
	if err != nil || !ok {
		t.Fatalf("the site printed %q, %v; want the URL to open", line, err)
	}
	return site
}

// signIn opens a page, signs Alice in if asked to, allows what is asked for,
// and returns where that leads.
func signIn(t *testing.T, b *browsertest.Browser, page string) *browsertest.Page {
	t.Helper()
	p := b.Open(page)
	if p.HasButton("Sign in") {
		p = b.Press(p, "Sign in", url.Values{"username": {op.Users[0].Username}, "password": {op.Users[0].Password}})
	}
	if p.HasButton("Allow") {
		p = b.Press(p, "Allow", nil)
	}
	return p
}

func at(t *testing.T, p *browsertest.Page, want string) {
	t.Helper()
	if p.URL.String() != want || p.Status != http.StatusOK {
		t.Fatalf("at %s, status %d; want %s: %s", p.URL, p.Status, want, p.Text())
	}
}

// identity is what /me tells a program.
type identity struct {
	Sub, Name, Issuer string
	Claims            map[string]any
}

func me(t *testing.T, b *browsertest.Browser, site string) (who identity, status int) {
	t.Helper()
	p := b.Fetch(site+"/me", "Accept", "application/json")
	if p.Status == http.StatusOK {
		if err := json.Unmarshal([]byte(p.Body), &who); err != nil {
			t.Fatalf("/me answered %q: %v", p.Body, err)
		}
	}
	return who, p.Status
}

func apiSays(t *testing.T, p *browsertest.Page) (doc struct {
	ID      string
	Scopes  []string
	Expires time.Time
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.Body), &doc); p.Status != http.StatusOK || err != nil {
		t.Fatalf("%s answered %d %q, %v", p.URL, p.Status, p.Body, err)
	}
	return doc
}

// The way of a person through the site, in each way that an answer can come.
func TestFromSignInToSignOut(t *testing.T) {
	for _, tc := range [][]string{
		nil,
		{"OIDC_RESPONSE_TYPE", "code"},
		{"OIDC_RESPONSE_TYPE", "code", "OIDC_RESPONSE_MODE", "query"},
	} {
		t.Run(strings.Join(tc, " "), func(t *testing.T) {
			site := startSite(t, tc...)
			b := browsertest.New(t)

			home := b.Open(site)
			if home.Status != http.StatusOK || !strings.Contains(home.Text(), "This page is public") {
				t.Fatalf("home: status %d: %s", home.Status, home.Text())
			}
			if _, status := me(t, b, site); status != http.StatusUnauthorized {
				t.Errorf("/me for a program, signed out: status %d, want 401", status)
			}
			p := b.Follow(home, "Sign in")
			p = b.Press(p, "Sign in", url.Values{"username": {"alice"}, "password": {"wonderland"}})
			p = b.Press(p, "Allow", nil)
			at(t, p, site+"/me")
			if !strings.Contains(p.Text(), "You are Alice Liddell") {
				t.Errorf("/me: %s", p.Text())
			}
			who, _ := me(t, b, site)
			if who.Sub != op.Users[0].Subject || who.Name != "Alice Liddell" || who.Issuer == "" || who.Claims["sub"] != who.Sub {
				t.Errorf("/me for a program: %+v", who)
			}
			if doc := apiSays(t, b.Fetch(site+"/api")); doc.ID != who.Sub {
				t.Errorf("the API saw %q, want %q", doc.ID, who.Sub)
			}
			if page := b.Follow(p, "Call the API"); !strings.Contains(page.Text(), "200 OK") || !strings.Contains(page.Text(), who.Sub) {
				t.Errorf("the API's answer on a page: %s", page.Text())
			}

			kept := b.Cookies("localhost")
			p = b.Press(b.Open(site), "Sign out", nil)
			at(t, p, site+"/")
			if !strings.Contains(p.Text(), "This page is public") {
				t.Errorf("after the sign-out: %s", p.Text())
			}
			if _, status := me(t, b, site); status != http.StatusUnauthorized {
				t.Errorf("/me after the sign-out: status %d, want 401", status)
			}
			old := browsertest.New(t)
			old.OnRequest = func(r *http.Request) {
				for _, c := range kept {
					r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
				}
			}
			if _, status := me(t, old, site); status != http.StatusUnauthorized {
				t.Errorf("cookies kept from before the sign-out: status %d, want 401", status)
			}
			if p := b.Open(site + "/me"); !p.HasButton("Continue as Alice") {
				t.Errorf("the sign-out did not reach the provider: %s", p.Text())
			}
		})
	}
}

func TestMoreScopes(t *testing.T) {
	site := startSite(t)
	b := browsertest.New(t)
	at(t, signIn(t, b, site+"/me"), site+"/me")

	refused := b.Fetch(site + "/api?scope=mail.read+calendars.read")
	if refused.Status != http.StatusUnauthorized || !strings.Contains(refused.Header.Get("WWW-Authenticate"), "mail.read") {
		t.Errorf("missing scopes, for a program: status %d, WWW-Authenticate %q", refused.Status, refused.Header.Get("WWW-Authenticate"))
	}
	p := b.Open(site + "/api?scope=mail.read+calendars.read")
	if !strings.Contains(p.Text(), "Read your mail") || !strings.Contains(p.Text(), "Read your calendar") {
		t.Fatalf("no consent page but %s: %s", p.URL, p.Text())
	}
	p = b.Press(p, "Allow", nil)
	at(t, p, site+"/api?scope=mail.read+calendars.read")
	for _, scope := range []string{"mail.read", "calendars.read"} {
		if doc := apiSays(t, p); !slices.Contains(doc.Scopes, scope) {
			t.Errorf("the API saw the scopes %v, want %s among them", doc.Scopes, scope)
		}
	}

	p = b.Press(b.Open(site+"/tokens"), "Calendar and files", nil)
	p = b.Press(p, "Allow", nil)
	at(t, p, site+"/tokens")
	if !strings.Contains(p.Text(), "files.read") {
		t.Errorf("the token asked for is not listed: %s", p.Text())
	}
	if p = b.Press(p, "Read mail", nil); p.URL.String() != site+"/tokens" {
		t.Errorf("asking for what was granted leads to %s", p.URL)
	}
	if strings.Contains(p.Body, "eyJ") {
		t.Error("a token is on the page")
	}
}

func TestRefusedConsentIsAnErrorPage(t *testing.T) {
	site := startSite(t)
	b := browsertest.New(t)
	signIn(t, b, site+"/me")
	p := b.Press(b.Open(site+"/api?scope=mail.read"), "Refuse", nil)
	if !strings.HasPrefix(p.URL.String(), site) || p.Status < 400 || p.Status >= 500 {
		t.Errorf("after a refusal at %s, status %d: %s", p.URL, p.Status, p.Text())
	}
	if _, status := me(t, b, site); status != http.StatusOK {
		t.Errorf("a refused scope ended the session: status %d", status)
	}
}

// The permission to send is asked for when it is needed, and nothing typed is
// lost.
func TestMail(t *testing.T) {
	site := startSite(t)
	b := browsertest.New(t)
	p := signIn(t, b, site+"/mail")
	at(t, p, site+"/mail")

	if wrong := b.Press(p, "Send", url.Values{"to": {"nobody"}}); wrong.Status != http.StatusUnprocessableEntity {
		t.Errorf("a bad address: status %d", wrong.Status)
	}
	if long := b.Press(p, "Send", url.Values{"to": {"bob@demo.example"}, "body": {strings.Repeat("x", 5000)}}); long.Status != http.StatusUnprocessableEntity {
		t.Errorf("a long mail: status %d", long.Status)
	}
	typed := url.Values{"to": {"bob@demo.example"}, "subject": {"Tea & cake"}, "body": {"At four?\n— A."}}
	p = b.Press(p, "Send", typed)
	if !strings.Contains(p.Text(), "Send mail in your name") {
		t.Fatalf("no consent page but %s: %s", p.URL, p.Text())
	}
	p = b.Press(p, "Allow", nil)
	for name, want := range typed {
		if got, _ := p.Field(name); strings.ReplaceAll(got, "\r\n", "\n") != want[0] {
			t.Errorf("%s came back as %q, want %q", name, got, want[0])
		}
	}
	p = b.Press(p, "Send", nil)
	at(t, p, site+"/mail?sent")
	if !strings.Contains(p.Text(), "Sent.") {
		t.Errorf("after sending: %s", p.Text())
	}
	if to, _ := p.Field("to"); to != "" {
		t.Errorf("the form still holds the mail to %q", to)
	}
}

func TestVaultAsksForASecondStep(t *testing.T) {
	site := startSite(t)
	b := browsertest.New(t)
	signIn(t, b, site+"/me")
	p := b.Open(site + "/vault")
	if !p.HasButton("Confirm") {
		t.Fatalf("no second step but %s: %s", p.URL, p.Text())
	}
	p = b.Press(p, "Confirm", url.Values{"code": {op.Code}})
	at(t, p, site+"/vault")
	if !strings.Contains(p.Text(), "behind the milk") {
		t.Errorf("the vault: %s", p.Text())
	}
	if p = b.Open(site + "/vault"); p.Status != http.StatusOK || p.HasButton("Confirm") {
		t.Errorf("the vault asks again: %s", p.Text())
	}
}

func TestProbes(t *testing.T) {
	site := startSite(t)
	b := browsertest.New(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		if p := b.Fetch(site + path); p.Status != http.StatusOK {
			t.Errorf("%s: status %d", path, p.Status)
		}
	}
	down := startSite(t, "OIDC_ISSUER", "http://127.0.0.1:1", "OIDC_CLIENT_ID", "demo")
	if p := b.Fetch(down + "/healthz"); p.Status != http.StatusOK {
		t.Errorf("/healthz without an issuer: status %d", p.Status)
	}
	if p := b.Fetch(down + "/readyz"); p.Status != http.StatusServiceUnavailable {
		t.Errorf("/readyz without an issuer: status %d", p.Status)
	}
	if p := b.Open(down); p.Status != http.StatusOK {
		t.Errorf("the public page without an issuer: status %d", p.Status)
	}
	if p := b.Open(down + "/me"); p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" {
		t.Errorf("/me without an issuer: status %d, Retry-After %q", p.Status, p.Header.Get("Retry-After"))
	}
}

// A store that is down is not a sign-out: it is said as what it is, and the
// session goes on once the store is back.
func TestStoreDown(t *testing.T) {
	addr := freeAddr(t)
	issuer := startIssuer(t, "http://localhost:"+addr[strings.LastIndexByte(addr, ':')+1:], func(*op.Config) {})
	site := startSite(t, issuer.settings(addr)...)
	b := browsertest.New(t)
	signIn(t, b, site+"/me")
	// The same keys and issuer and, since ports do not part cookies, the same
	// session.
	cutOff := startSite(t, append(issuer.settings("127.0.0.1:0"), "REDIS_URL", "redis://127.0.0.1:1/0")...)
	for path, want := range map[string]int{
		"/healthz": http.StatusOK,
		"/readyz":  http.StatusServiceUnavailable,
		"/":        http.StatusOK,
		"/me":      http.StatusServiceUnavailable,
		"/tokens":  http.StatusServiceUnavailable,
	} {
		if p := b.Open(cutOff + path); p.Status != want || p.URL.String() != cutOff+path {
			t.Errorf("%s: status %d at %s, want %d", path, p.Status, p.URL, want)
		}
	}
	if p := b.Open(cutOff); !strings.Contains(p.Text(), "cannot tell who you are") {
		t.Errorf("the public page: %s", p.Text())
	}
	if who, status := me(t, b, site); who.Sub != op.Users[0].Subject {
		t.Errorf("after the store's outage: status %d", status)
	}
}

// Another site cannot press the site's buttons.
func TestForeignPosts(t *testing.T) {
	site := startSite(t)
	b := browsertest.New(t)
	signIn(t, b, site+"/me")
	for _, path := range []string{"/signout", "/mail"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, site+path, strings.NewReader("to=eve@demo.example"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Origin", "https://evil.example")
		for _, c := range b.Cookies("localhost") {
			r.AddCookie(c)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("POST %s from elsewhere: status %d, want 403", path, resp.StatusCode)
		}
	}
	if _, status := me(t, b, site); status != http.StatusOK {
		t.Errorf("a foreign post signed the user out: status %d", status)
	}
}

func TestBadSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		env  []string
		want []string
	}{
		"several at once": {
			[]string{"OIDC_ISSUER", "https://issuer.example", "SESSION_KEY", "abc", "API_URL", "http://api.example"},
			[]string{"OIDC_CLIENT_ID", "SESSION_KEY", "API_URL"},
		},
		"client without issuer":   {[]string{"OIDC_CLIENT_ID", "x"}, []string{"OIDC_ISSUER"}},
		"embedded but far away":   {[]string{"BASE_URL", "https://site.example"}, []string{"BASE_URL"}},
		"pushed by another name":  {[]string{"OIDC_PAR", "yes"}, []string{"PAR"}},
		"hybrid answer by query":  {[]string{"OIDC_RESPONSE_MODE", "query"}, []string{"ResponseMode"}},
		"issuer without a secure": {[]string{"OIDC_ISSUER", "http://issuer.example", "OIDC_CLIENT_ID", "x"}, []string{"Issuer"}},
		"no Redis URL":            {[]string{"REDIS_URL", "nonsense://x:y"}, []string{"REDIS_URL"}},
		"taken address":           {[]string{"ADDR", "256.0.0.1:1"}, []string{"256.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"ADDR": "127.0.0.1:0"}
			for i := 0; i+1 < len(tc.env); i += 2 {
				env[tc.env[i]] = tc.env[i+1]
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := run(ctx, func(name string) string { return env[name] }, io.Discard, io.Discard)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %s: %v", want, err)
				}
			}
		})
	}
}

func TestMain(m *testing.M) {
	// A process started by TestAsAProcess runs the site in place of the tests.
	if os.Getenv("EXAMPLE_RUN_AS_SITE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}
