package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// front is the command, running, with an issuer and a server behind.
type front struct {
	t       *testing.T
	url     string
	host    string
	issuer  *signintest.Issuer
	browser *signintest.Browser
	log     *lockedBuffer

	mu   sync.Mutex
	seen []*http.Request // by upstream; bodies are gone
}

// start runs the command as main does. Its upstream notes what it gets.
func start(t *testing.T, upstream http.HandlerFunc, args ...string) *front {
	t.Helper()
	f := &front{t: t, log: &lockedBuffer{}, browser: signintest.NewBrowser(t, nil)}
	// 127.0.0.1 and localhost are cross-site, as issuer and site are.
	f.issuer = signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "http://127.0.0.1", Behaviour: func(b *signintest.Behaviour) {
		b.Users = []signintest.User{
			{Subject: "alice", Claims: map[string]any{"preferred_username": "Alice Ä.", "email": "alice@example.com", "email_verified": true, "roles": []string{"Reader"}}},
			{Subject: "bob", Claims: map[string]any{"preferred_username": "bob", "email": "bob@example.com", "email_verified": false}},
		}
	}})
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Clone(context.WithoutCancel(r.Context())))
		f.mu.Unlock()
		upstream(w, r)
	}))
	t.Cleanup(behind.Close)
	f.run(append([]string{"-upstream", behind.URL}, args...))
	return f
}

var servingAt = regexp.MustCompile(`msg=serving url=(http://\S+)`)

func (f *front) run(args []string) {
	env := map[string]string{
		"ADDR": "127.0.0.1:0", "OIDC_ISSUER": f.issuer.URL(), "OIDC_CLIENT_ID": "client", "OIDC_CLIENT_SECRET": "secret",
		"SESSION_KEY": strings.Repeat("07", 32),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, func(name string) string { return env[name] }, f.log) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !strings.Contains(err.Error(), http.ErrServerClosed.Error()) {
			f.t.Errorf("run: %v", err)
		}
		for _, secret := range f.issuer.Secrets() {
			if len(secret) >= 8 && strings.Contains(f.log.String(), secret) {
				f.t.Errorf("the log holds a secret")
			}
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for f.url == "" {
		select {
		case err := <-done:
			done <- err
			f.t.Fatalf("run: %v", err)
		case <-deadline:
			f.t.Fatalf("not serving within 10 s:\n%s", f.log)
		case <-tick.C:
			if m := servingAt.FindStringSubmatch(f.log.String()); m != nil {
				f.url, f.host = m[1], strings.TrimPrefix(m[1], "http://")
			}
		}
	}
}

// last is the latest request that upstream got.
func (f *front) last() *http.Request {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) == 0 {
		f.t.Fatal("upstream got nothing")
	}
	return f.seen[len(f.seen)-1]
}

func (f *front) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// signIn opens the root as alice.
func (f *front) signIn() *signintest.Page {
	f.t.Helper()
	p := f.browser.Open(f.url + "/")
	if p.Status != http.StatusOK || p.URL != f.url+"/" {
		f.t.Fatalf("sign-in: %d %s %.300s\n%s", p.Status, p.URL, p.Body, f.log)
	}
	return p
}

func (f *front) cookies() string {
	var all []string
	for _, c := range f.browser.Cookies(f.url + "/") {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

// raw sends a request to the letter and returns the connection to read from.
func (f *front) raw(request string) (net.Conn, *bufio.Reader) {
	f.t.Helper()
	_, port, err := net.SplitHostPort(f.host)
	if err != nil {
		f.t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(f.t.Context(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		f.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		f.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func (f *front) status(request string) int {
	f.t.Helper()
	_, in := f.raw(request)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		f.t.Fatalf("%v after %q", err, request)
	}
	defer res.Body.Close()
	return res.StatusCode
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func ok(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "behind") }

func TestUserReachesUpstream(t *testing.T) {
	f := start(t, ok, "-allow-anyone")
	if p := f.browser.Fetch(&signintest.Page{URL: f.url + "/"}, "/data"); p.Status != http.StatusUnauthorized || f.count() != 0 {
		t.Fatalf("nobody: %d, upstream got %d requests; want 401 and none", p.Status, f.count())
	}
	f.signIn()
	p := f.browser.Open(f.url + "/a//b%2Fc/?x=1;y=%zz")
	if p.Status != http.StatusOK || p.Body != "behind" {
		t.Fatalf("%d %s", p.Status, p.Body)
	}
	r := f.last()
	if r.RequestURI != "/a//b%2Fc/?x=1;y=%zz" || r.Host != f.host {
		t.Errorf("upstream was asked for %s at %s", r.RequestURI, r.Host)
	}
	for name, want := range map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-User-Id": "alice", "X-Forwarded-User-Email": "alice@example.com",
		"X-Forwarded-Preferred-Username": "Alice Ä.",
		"X-Forwarded-Host":               f.host, "X-Forwarded-Proto": "http", "X-Forwarded-For": "127.0.0.1",
		"Authorization": "",
	} {
		if got := strings.Join(r.Header.Values(name), "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestUnverifiedEmailIsNotSent(t *testing.T) {
	f := start(t, ok, "-allow-anyone", "-user-header", "X-Who")
	f.issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
	f.signIn()
	r := f.last()
	if r.Header.Get("X-Who-Id") != "bob" || r.Header.Get("X-Who") != "bob" || r.Header.Get("X-Who-Email") != "" {
		t.Errorf("upstream got %v", r.Header)
	}
}

// Whoever may pass can still not say that they are somebody else.
func TestForgedHeadersAreDropped(t *testing.T) {
	for _, header := range []string{"X-Forwarded-User", "X-Remote-User"} {
		t.Run(header, func(t *testing.T) { forgedHeadersAreDropped(t, header) })
	}
}

func forgedHeadersAreDropped(t *testing.T, header string) {
	f := start(t, ok, "-allow-anyone", "-user-header", header)
	f.signIn()
	under := strings.ReplaceAll(header, "-", "_")
	for name, lines := range map[string]string{
		"as it is":           "$: mallory\n$-Id: mallory\n$-Email: mallory\n",
		"the name":           "X-Forwarded-Preferred-Username: mallory\nX_Forwarded_Preferred_Username: mallory\nConnection: X-Forwarded-Preferred-Username\n",
		"lower case":         strings.ToLower(header + ": mallory\n" + header + "-Id: mallory\n"),
		"upper case":         strings.ToUpper(header) + ": mallory\n" + strings.ToUpper(header) + "-EMAIL: mallory\n",
		"twice":              "$: mallory\n$: mallory\n",
		"underscores":        under + ": mallory\n" + under + "_ID: mallory\n" + strings.ToUpper(under) + "_EMAIL: mallory\n",
		"mixed":              strings.Replace(header, "-", "_", 1) + ": mallory\n" + under + "-Email: mallory\n$_Id: mallory\n",
		"dots":               strings.ReplaceAll(header, "-", ".") + ": mallory\n",
		"other punctuation":  strings.Replace(header, "-", "~", 1) + ": mallory\n$'Id: mallory\n$|Email: mallory\n",
		"empty, then forged": "$:\n" + under + ": mallory\n",
		"connection":         "Connection: $, $-Id, " + strings.ToLower(header) + "-email\n",
		"connection, forged": "Connection: close, $\n$: mallory\n" + under + ": mallory\n",
		"proxy's":            "X-Forwarded-For: 192.0.2.66, mallory\nX_Forwarded_For: mallory\nForwarded: for=mallory\nX-Real-IP: mallory\nX-Forwarded-Host: mallory\nX-Forwarded-Proto: mallory\nX-Forwarded-Prefix: /mallory\n",
		"trailer":            "Transfer-Encoding: chunked\nTrailer: $\n",
	} {
		body := ""
		if name == "trailer" {
			body = "0\n$: mallory\n\n"
		}
		lines = strings.ReplaceAll(lines+"\n"+body, "$", header)
		if status := f.status("GET /forged HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\n" + lines); status != http.StatusOK {
			t.Errorf("%s: %d, want 200 for\n%s", name, status, lines)
			continue
		}
		r := f.last()
		var dump bytes.Buffer
		_ = r.Header.Write(&dump)
		_ = r.Trailer.Write(&dump)
		if len(r.Trailer) > 0 || strings.Contains(dump.String(), "mallory") {
			t.Errorf("%s: upstream got\n%s%v", name, &dump, r.Trailer)
		}
		for _, h := range []string{header, header + "-Id"} {
			if got := r.Header.Values(h); len(got) != 1 || got[0] != "alice" {
				t.Errorf("%s: %s is %q, want alice once", name, h, got)
			}
		}
		if got := r.Header.Values("X-Forwarded-Preferred-Username"); len(got) != 1 || got[0] != "Alice Ä." {
			t.Errorf("%s: the name is %q", name, got)
		}
		if got := r.Header.Values(header + "-Email"); len(got) != 1 || got[0] != "alice@example.com" {
			t.Errorf("%s: the address is %q", name, got)
		}
	}
	// What is no header name at all does not get as far.
	for _, line := range []string{"X-Forwarded-User : mallory", " X-Forwarded-User: mallory", "X-Forwarded-User\x00: mallory", "X Forwarded User: mallory"} {
		before := f.count()
		if status := f.status("GET / HTTP/1.1\nHost: " + f.host + "\n" + line + "\nCookie: " + f.cookies() + "\n\n"); status != http.StatusBadRequest || f.count() != before {
			t.Errorf("%q: %d, upstream got %d more; want 400 and none", line, status, f.count()-before)
		}
	}
}

// The header that servers take for a login tells users apart, whatever names
// they choose: it carries the subject. A name that would change on the way is
// not sent, for what is left of it may be the name of somebody else. A subject
// that would change is refused.
func TestUsersStayApart(t *testing.T) {
	f := start(t, ok, "-allow-anyone")
	names := map[string]struct{ chosen, sent string }{
		"1001": {"alice", "alice"},
		"6666": {"al\u200bice", ""},
		"6667": {"alice", "alice"},
		"6668": {" alice", ""},
		"6669": {"alice\u00a0", ""},
		"6670": {"eve\r\nX-Forwarded-User: 1001", ""},
		"6671": {"ali\x00ce", ""},
		"6672": {"\u202ealice", ""},
		"6673": {"1001", "1001"},
		"6674": {"Zoë Ä", "Zoë Ä"},
	}
	f.issuer.Update(func(b *signintest.Behaviour) {
		b.Users = nil
		for subject, name := range names {
			b.Users = append(b.Users, signintest.User{Subject: subject, Claims: map[string]any{"preferred_username": name.chosen}})
		}
	})
	for subject, name := range names {
		f.browser.ClearCookies()
		f.issuer.Update(func(b *signintest.Behaviour) { b.User = subject })
		f.signIn()
		h := f.last().Header
		for _, header := range []string{"X-Forwarded-User", "X-Forwarded-User-Id"} {
			if got := h.Values(header); len(got) != 1 || got[0] != subject {
				t.Errorf("%q: %s is %q, want the subject %s", name.chosen, header, got, subject)
			}
		}
		if got := strings.Join(h.Values("X-Forwarded-Preferred-Username"), "|"); got != name.sent {
			t.Errorf("%q: the name sent is %q, want %q", name.chosen, got, name.sent)
		}
	}
	for _, subject := range []string{"al\u200bice", "alice ", "älice", "ali\nce"} {
		f.browser.ClearCookies()
		f.issuer.Update(func(b *signintest.Behaviour) {
			b.Users = []signintest.User{{Subject: subject}}
			b.User = subject
		})
		before := f.count()
		if p := f.browser.Open(f.url + "/"); p.Status != http.StatusForbidden && p.Status != http.StatusBadRequest || f.count() != before {
			t.Errorf("subject %q: %d, upstream got %d; want it refused", subject, p.Status, f.count()-before)
		}
	}
}

// No request leaves the path prefix of -upstream, however the server there
// reads a path. What only looks odd gets through as it is.
func TestUpstreamPrefix(t *testing.T) {
	var mu sync.Mutex
	got := ""
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = r.RequestURI
	}))
	t.Cleanup(behind.Close)
	f := start(t, ok, "-allow-anyone", "-upstream", behind.URL+"/app") // the last one counts
	if p := f.browser.Open(f.url + "/"); p.Status != http.StatusOK {
		t.Fatal(p.Status)
	}
	ask := func(target string) (status int, reached string) {
		mu.Lock()
		got = ""
		mu.Unlock()
		status = f.status("GET " + target + " HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\n\n")
		mu.Lock()
		defer mu.Unlock()
		return status, got
	}
	for _, target := range []string{
		"/../admin", "/..", "/x/../../admin", "//../admin", "http://" + f.host + "/../admin", "/../admin?x=1",
		"/%2e%2e/admin", "/.%2E/admin", "/..%2fadmin", "/%2e%2e%2fadmin", "/x%2f..%2f..%2fadmin",
		"/%252e%252e/admin", "/..%252fadmin", "/%25252e%25252e/admin",
		`/..\admin`, "/..%5cadmin", "/x%5c..%5c..%5cadmin", "/..%255cadmin",
		"/..;/admin", "/..;x=y/admin", "/..%3b/admin", "/%2e%2e;a/admin", "/..%00/admin", "/..%3f/admin", "/..%23/admin",
		"/...%20/admin", "/..%20/admin", "/.../admin", "/..%09/admin",
		"/%c0%ae%c0%ae/admin", "/..%c0%afadmin", "/%e0%80%ae./admin", "/..%c1%9cadmin",
		"/%25252525252561", // encoded more often than anybody does
		"/%zz/../admin", "/100%25/../../admin", "/100%2525zz/%2e%2e/%2e%2e/admin",
	} {
		if status, reached := ask(target); status != http.StatusBadRequest || reached != "" {
			t.Errorf("GET %s: %d, upstream was asked for %q; want 400 and nothing", target, status, reached)
		}
	}
	for _, target := range []string{
		"/", "/a//b%2Fc/?x=1;y=%zz", "/.well-known/x", "/a..b/c..", "/..a/", "/a/..b", "/100%25", "/%2525", "/?file=../../x",
		"/%c3%84/%e2%82%ac", "/;/x", "/./x", "/x;a=..", "/%C0",
	} {
		if status, reached := ask(target); status != http.StatusOK || reached != "/app"+target {
			t.Errorf("GET %s: %d, upstream was asked for %q; want it below /app", target, status, reached)
		}
	}
}

// Without a prefix there is nothing to leave.
func TestUpstreamWithoutPrefix(t *testing.T) {
	f := start(t, ok, "-allow-anyone")
	f.signIn()
	const target = "/x/..;/%2e%2e/y"
	status := f.status("GET " + target + " HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\n\n")
	if got := f.last().RequestURI; status != http.StatusOK || got != target {
		t.Errorf("%d, upstream was asked for %s; want %s", status, got, target)
	}
}

func FuzzClimbs(f *testing.F) {
	for _, seed := range []string{"/../x", "/%252e%252e/x", "/..;/x", "/a%", "/%2", "/..%c0%af"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if climbs(s) {
			return
		}
		// What each kind of server makes of it must stay below.
		for range 3 {
			for _, read := range []string{s, strings.ReplaceAll(s, `\`, "/")} {
				if clean := path.Clean("/app/x/" + read); read != "" && clean != "/app/x" && !strings.HasPrefix(clean, "/app/x/") {
					t.Fatalf("%q is read as %q, which leads to %q", s, read, clean)
				}
			}
			if s = unescape(s); strings.Contains(s, "\x00") {
				return
			}
		}
	})
}

func TestCookies(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/evil" {
			for name := range strings.FieldsSeq("internalsite internalsite-browser INTERNALSITE internalsite-browser-lax theirs") {
				http.SetCookie(w, &http.Cookie{Name: name, Value: "upstream's", Path: "/", MaxAge: 60})
			}
		}
		fmt.Fprint(w, "behind")
	}, "-allow-anyone")
	f.signIn()
	before := f.cookies()
	if !strings.Contains(before, "internalsite=") || !strings.Contains(before, "internalsite-browser=") {
		t.Fatalf("the browser has %s; the test needs our cookies", before)
	}
	for sent, want := range map[string]string{
		before:                                           "",
		"a=1; " + before + "; b=\"2\"":                   `a=1; b="2"`,
		before + ";odd;  c=3":                            `odd;  c=3`,
		"__Host-internalsite=x;" + before:                "",
		"theirs-internalsite=1;" + before:                "theirs-internalsite=1",
		"\tINTERNALSITE =x; " + before + "\nCookie: d=4": "d=4",
	} {
		if status := f.status("GET /c HTTP/1.1\nHost: " + f.host + "\nCookie: " + sent + "\n\n"); status != http.StatusOK {
			t.Errorf("%q: %d", sent, status)
		}
		if got := strings.Join(f.last().Header["Cookie"], "|"); got != want {
			t.Errorf("of %q upstream got %q, want %q", sent, got, want)
		}
	}
	if p := f.browser.Open(f.url + "/evil"); p.Status != http.StatusOK {
		t.Fatal(p.Status)
	}
	if after := f.cookies(); strings.Replace(after, `theirs="upstream's"`, "", 1) == after && !strings.Contains(after, "theirs=") {
		t.Errorf("upstream's own cookie did not arrive: %s", after)
	}
	for _, c := range f.browser.Cookies(f.url + "/") {
		if strings.Contains(strings.ToLower(c.Name), "internalsite") && strings.Contains(c.Value, "upstream") {
			t.Errorf("upstream has set %s", c.Name)
		}
	}
	f.signIn()
}

func TestRule(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want int
	}{
		{[]string{"-allow-claim", "roles=Admin,Reader"}, http.StatusOK},
		{[]string{"-allow-claim", "roles=Admin"}, http.StatusForbidden},
		{[]string{"-allow-claim", "roles"}, http.StatusForbidden},
		{[]string{"-allow-email-domain", "example.org,example.com"}, http.StatusOK},
		{[]string{"-allow-email-domain", "example.org"}, http.StatusForbidden},
		{[]string{"-allow-email-domain", "example.com", "-allow-claim", "roles=Reader"}, http.StatusOK},
		{[]string{"-allow-email-domain", "example.com", "-allow-claim", "roles=Admin"}, http.StatusForbidden},
		{[]string{"-allow-claim", "roles=Admin", "-allow-email-domain", "example.com"}, http.StatusForbidden},
		{[]string{"-allow-tenant", "aaaaaaaa-0000-4000-8000-000000000001"}, http.StatusForbidden},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			f := start(t, ok, tc.args...)
			p := f.browser.Open(f.url + "/")
			if p.Status != tc.want || (f.count() == 1) != (tc.want == http.StatusOK) {
				t.Errorf("%d, upstream got %d requests; want %d", p.Status, f.count(), tc.want)
			}
		})
	}
}

func TestAccessToken(t *testing.T) {
	t.Run("passed", func(t *testing.T) {
		f := start(t, ok, "-allow-anyone", "-pass-access-token")
		f.signIn()
		f.status("GET / HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\nauthorization: Bearer forged\nAuthorization_: forged\n\n")
		raw, isBearer := strings.CutPrefix(strings.Join(f.last().Header.Values("Authorization"), "|"), "Bearer ")
		if info, known := f.issuer.TokenInfo(raw); !isBearer || !known || info.Subject != "alice" || info.Refresh {
			t.Errorf("Authorization is not alice's access token")
		}
	})
	t.Run("refused", func(t *testing.T) {
		f := start(t, ok, "-allow-anyone", "-pass-access-token")
		f.issuer.Update(func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["expires_in"] = 0 }
		})
		page := f.browser.Open(f.url + "/oidc/login?return=/oidc/signed-out")
		f.issuer.RevokeGrants("alice")
		if p := f.browser.Fetch(page, "/"); p.Status != http.StatusUnauthorized || f.count() != 0 {
			t.Errorf("%d without a token to be had, upstream got %d requests; want 401 and none", p.Status, f.count())
		}
		if n := f.issuer.CountGrant("refresh_token"); n != 1 {
			t.Errorf("%d refreshes, want one: the test needs a refusal", n)
		}
	})
	t.Run("issuer down", func(t *testing.T) {
		f := start(t, ok, "-allow-anyone", "-pass-access-token")
		f.issuer.Update(func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["expires_in"] = 0 }
		})
		page := f.browser.Open(f.url + "/oidc/login?return=/oidc/signed-out")
		f.issuer.Fail(signintest.EndpointToken, signintest.HTMLFault(http.StatusInternalServerError))
		if p := f.browser.Fetch(page, "/"); p.Status != http.StatusBadGateway || p.Body != "Bad Gateway\n" || f.count() != 0 {
			t.Errorf("%d %q, upstream got %d requests; want a plain 502 and none", p.Status, p.Body, f.count())
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		f := start(t, ok, "-allow-anyone")
		f.signIn()
		f.status("GET / HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\nAuthorization: Basic dGhlaXJzOm93bg==\n\n")
		if got := f.last().Header.Get("Authorization"); got != "Basic dGhlaXJzOm93bg==" {
			t.Errorf("Authorization is %q, want what the client sent", got)
		}
	})
}

func TestUpstreamDown(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/drop" {
			panic(http.ErrAbortHandler)
		}
	}, "-allow-anyone")
	f.signIn()
	p := f.browser.Open(f.url + "/drop")
	if p.Status != http.StatusBadGateway || p.Body != "Bad Gateway\n" || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %q, want a plain 502", p.Status, p.Body)
	}
	if !strings.Contains(f.log.String(), "bad gateway") {
		t.Errorf("nothing about it in the log")
	}
}

func TestSignOut(t *testing.T) {
	f := start(t, ok, "-allow-anyone")
	f.signIn()
	p := f.browser.Submit(f.browser.Open(f.url+"/oidc/signout"), nil)
	if p.Status != http.StatusOK || p.URL != f.url+"/oidc/signed-out" {
		t.Fatalf("%d %s %.300s", p.Status, p.URL, p.Body)
	}
	if p := f.browser.Fetch(p, "/"); p.Status != http.StatusUnauthorized {
		t.Errorf("afterwards: %d, want 401", p.Status)
	}
}

func TestServerSentEvents(t *testing.T) {
	more := make(chan struct{})
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "data: two\n\n")
	}, "-allow-anyone")
	f.signIn()
	_, in := f.raw("GET /events HTTP/1.1\nHost: " + f.host + "\nCookie: " + f.cookies() + "\n\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewReader(res.Body)
	for _, want := range []string{"data: one\n", "\n", "data: two\n"} {
		if line, err := events.ReadString('\n'); line != want {
			t.Fatalf("%q (%v), want %q", line, err, want)
		}
		if want == "\n" { // the first has come before the second was sent
			close(more)
		}
	}
}

// upgrades accepts any upgrade at all, then echoes.
func upgrades(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		fmt.Fprint(w, "no upgrade")
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhello %s\n", r.Header.Get("Upgrade"), r.Header.Get("X-Forwarded-User-Id"))
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

func TestWebSocket(t *testing.T) {
	f := start(t, upgrades, "-allow-anyone")
	f.signIn()
	handshake := func(cookies, more string) string {
		return "GET /socket HTTP/1.1\nHost: " + f.host + "\nConnection: Upgrade, X-Forwarded-User-Id\nCookie: " + cookies + "\n" + more + "\n"
	}
	conn, in := f.raw(handshake(f.cookies(), "Upgrade: websocket\nOrigin: "+f.url+"\n"))
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", res, err)
	}
	fmt.Fprint(conn, "ping\n")
	for _, want := range []string{"hello alice\n", "ping\n"} {
		if line, err := in.ReadString('\n'); line != want {
			t.Fatalf("%q (%v), want %q", line, err, want)
		}
	}
	before := f.count()
	for name, tc := range map[string]struct {
		request string
		want    int
	}{
		"nobody":                  {handshake("", "Upgrade: websocket\n"), http.StatusUnauthorized},
		"another origin":          {handshake(f.cookies(), "Upgrade: websocket\nOrigin: https://evil.example\n"), http.StatusForbidden},
		"origin null":             {handshake(f.cookies(), "Upgrade: WebSocket\nOrigin: null\n"), http.StatusForbidden},
		"cross-site form as POST": {"POST / HTTP/1.1\nHost: " + f.host + "\nOrigin: https://evil.example\nContent-Length: 0\nCookie: " + f.cookies() + "\n\n", http.StatusForbidden},
	} {
		if status := f.status(tc.request); status != tc.want || f.count() != before {
			t.Errorf("%s: %d, upstream got %d; want %d and none", name, status, f.count()-before, tc.want)
		}
	}
	// Upstream would accept these, and then read whatever the client writes.
	for _, upgrade := range []string{"Upgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n", "Upgrade: websocket, h2c\n", "Upgrade: TLS/1.0\n", "Upgrade: h2c\nUpgrade: websocket\n"} {
		if status := f.status(handshake(f.cookies(), upgrade)); status != http.StatusOK || f.last().Header.Get("Upgrade") != "" {
			t.Errorf("%q: %d, upstream got Upgrade %q; want it ignored", upgrade, status, f.last().Header.Get("Upgrade"))
		}
	}
}

func TestFlags(t *testing.T) {
	for name, args := range map[string][]string{
		"no upstream":         {"-allow-anyone"},
		"upstream without //": {"-upstream", "127.0.0.1:9000", "-allow-anyone"},
		"upstream by ftp":     {"-upstream", "ftp://127.0.0.1", "-allow-anyone"},
		"no rule":             {"-upstream", "http://127.0.0.1:9000"},
		"rule and anyone":     {"-upstream", "http://127.0.0.1:9000", "-allow-anyone", "-allow-claim", "a=b"},
		"token in clear":      {"-upstream", "http://wiki.internal", "-allow-anyone", "-pass-access-token"},
		"HTTP's own header":   {"-upstream", "http://127.0.0.1:9000", "-allow-anyone", "-user-header", "Host"},
		"two spellings":       {"-upstream", "http://127.0.0.1:9000", "-allow-anyone", "-user-header", "X-Remote_User"},
		"the name's header":   {"-upstream", "http://127.0.0.1:9000", "-allow-anyone", "-user-header", "X-Forwarded-preferred-username"},
		"the proxy's header":  {"-upstream", "http://127.0.0.1:9000", "-allow-anyone", "-user-header", "X-Forwarded-For"},
		"header with a space": {"-upstream", "http://127.0.0.1:9000", "-allow-anyone", "-user-header", "X-Remote User"},
		"unknown":             {"-upstream", "http://127.0.0.1:9000", "-allow-everyone"},
	} {
		if _, err := readFlags(args, io.Discard); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	p, err := readFlags([]string{"-upstream", "https://wiki.internal/base", "-allow-claim", "a=b", "-pass-access-token"}, io.Discard)
	if err != nil || p.upstream.String() != "https://wiki.internal/base" || p.allow == nil {
		t.Errorf("%v %+v", err, p)
	}
}

func TestEnvironment(t *testing.T) {
	env := map[string]string{"OIDC_ISSUER": "https://login.example.com", "SESSION_KEY": "secret-no-hex", "ADDR": "127.0.0.1:0"}
	getenv := func(name string) string { return env[name] }
	args := []string{"-upstream", "http://127.0.0.1:9000", "-allow-anyone"}
	err := run(t.Context(), args, getenv, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "SESSION_KEY") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v; want an error about SESSION_KEY that does not quote it", err)
	}
	env["SESSION_KEY"] = ""
	if err = run(t.Context(), args, getenv, io.Discard); err == nil || !strings.Contains(err.Error(), "ClientID") {
		t.Errorf("%v; want what signin.New says", err)
	}
}
