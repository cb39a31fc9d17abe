package signin

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// What stands around and inside Handler in real applications. Nothing of it
// must know of us, and nothing of ours may be in its way.

// TestServeMux has a method and a wildcard in each pattern, and a handler
// that reads what the mux has found out.
func TestServeMux(t *testing.T) {
	a := newApp(t)
	a.mux.Handle("GET /docs/{name}", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %s", r.Pattern, r.PathValue("name"), UserFromContext(r.Context()).Subject)
	})))
	b := a.browser()
	if p := b.Open(a.url + "/docs/plan"); p.Status != http.StatusOK || p.Body != "GET /docs/{name} plan for alice" {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	if p := b.Send(&signintest.Request{Method: http.MethodDelete, URL: a.url + "/docs/plan"}); p.Status != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d, want the mux's 405", p.Status)
	}
}

// The issuer's answer is a cross-site POST. It gets through because
// CrossOriginProtection is inside; the application's own forms stay covered.
func TestCrossOriginProtection(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			return a.Handler(http.NewCrossOriginProtection().Handler(mux))
		}
	})
	posted := 0
	a.mux.Handle("POST /mail", a.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posted++ })))
	b := a.signIn()
	r := &signintest.Request{Method: http.MethodPost, URL: a.url + "/mail", Form: url.Values{"to": {"x"}}, From: "https://evil.example/", Activated: true}
	if p := b.Send(r); p.Status != http.StatusForbidden || posted != 0 {
		t.Errorf("cross-site form: %d, posted %d times; want 403 and not at all", p.Status, posted)
	}
	r.From = a.url + "/"
	if p := b.Send(r); p.Status != http.StatusOK || posted != 1 {
		t.Errorf("own form: %d, posted %d times; want 200 and once", p.Status, posted)
	}
}

// gzipped compresses every answer, as such middleware does: by a
// ResponseWriter of its own.
func gzipped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			next.ServeHTTP(w, r)
			return
		}
		g := &gzipWriter{ResponseWriter: w}
		defer g.close()
		next.ServeHTTP(g, r)
	})
}

type gzipWriter struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	if g.z == nil {
		g.Header().Set("Content-Encoding", "gzip")
		g.z = gzip.NewWriter(g.ResponseWriter)
	}
	return g.z.Write(p)
}

func (g *gzipWriter) WriteHeader(status int) {
	if status != http.StatusSeeOther && status != http.StatusNoContent {
		g.Header().Set("Content-Encoding", "gzip")
		g.z = gzip.NewWriter(g.ResponseWriter)
	}
	g.ResponseWriter.WriteHeader(status)
}

func (g *gzipWriter) close() {
	if g.z != nil {
		_ = g.z.Close()
	}
}

// logged writes one line for each request, with who made it where that can be
// known: only inside Handler.
func logged(log *slog.Logger, where string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		log.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("where", where), slog.String("path", r.URL.Path),
			slog.Int("status", rec.status), slog.Any("user", UserFromContext(r.Context())))
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func TestGzipAndLogging(t *testing.T) {
	for _, tc := range []struct {
		name string
		wrap func(*slog.Logger, *Auth, http.Handler) http.Handler
		user string // of the line about /me
	}{
		{"around", func(l *slog.Logger, a *Auth, h http.Handler) http.Handler {
			return logged(l, "around", gzipped(a.Handler(h)))
		}, "nobody"},
		{"inside", func(l *slog.Logger, a *Auth, h http.Handler) http.Handler {
			return a.Handler(logged(l, "inside", gzipped(h)))
		}, "alice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var buf logBuffer
			log := slog.New(slog.NewJSONHandler(&buf, nil))
			a := newApp(t, func(o *appOptions) {
				o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler { return tc.wrap(log, a, mux) }
			})
			b := a.signIn()

			// A page of ours and one of the application's, both readable.
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+"/me", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Cookie", cookieHeader(b, a.url+"/me"))
			res, err := a.net.Client().Do(req) // Go's transport asks for gzip and undoes it
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusOK || !res.Uncompressed || !bytes.Contains(body, []byte("alice")) {
				t.Errorf("/me: %d, compressed %t: %q", res.StatusCode, res.Uncompressed, body)
			}
			if p := b.Open(a.url + "/signout"); p.Status != http.StatusOK || p.Form() == nil {
				t.Errorf("our page: %d %q", p.Status, p.Body)
			}
			var last map[string]any
			for line := range strings.Lines(buf.String()) {
				var m map[string]any
				if err := json.Unmarshal([]byte(line), &m); err != nil {
					t.Fatal(err)
				}
				if m["path"] == "/me" && m["status"] == 200.0 {
					last = m
				}
			}
			if last == nil || !strings.Contains(fmt.Sprint(last["user"]), tc.user) {
				t.Errorf("the line about /me is %v, want user %s", last, tc.user)
			}
			for _, secret := range a.issuer.Secrets() {
				if len(secret) >= 8 && strings.Contains(buf.String(), secret) {
					t.Errorf("the access log holds a secret")
				}
			}
		})
	}
}

// cookieHeader is what a browser would send.
func cookieHeader(b *signintest.Browser, url string) string {
	var all []string
	for _, c := range b.Cookies(url) {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

// A handler that runs out of time does not cost its user the refresh token
// that was being rotated meanwhile.
func TestTimeoutHandler(t *testing.T) {
	a := newApp(t)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := TokenSource(r.Context()).Token()
		<-r.Context().Done()
		if err != nil {
			t.Errorf("token: %v", err)
		}
	})
	a.mux.Handle("/slow", http.TimeoutHandler(a.RequireUser(slow), 50*time.Millisecond, "too slow"))
	a.mux.Handle("/brisk", http.TimeoutHandler(a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, UserFromContext(r.Context()).Subject)
	})), time.Minute, "too slow"))

	b := a.browser()
	if p := b.Open(a.url + "/brisk"); p.Status != http.StatusOK || p.Body != "alice" {
		t.Fatalf("sign-in below TimeoutHandler: %d %s", p.Status, p.Body)
	}
	a.clock.advance(2 * time.Hour)
	hang := make(chan struct{})
	a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{AfterProcessing: true, Hang: hang})
	if p := b.Open(a.url + "/slow"); p.Status != http.StatusServiceUnavailable || p.Body != "too slow" {
		t.Fatalf("slow: %d %s, want TimeoutHandler's 503", p.Status, p.Body)
	}
	close(hang)
	if p := b.Open(a.url + "/token"); p.Status != http.StatusOK {
		t.Errorf("token afterwards: %d %s", p.Status, p.Body)
	}
	if a.refreshed() != 1 {
		t.Errorf("%d refreshes, want the one whose caller had gone", a.refreshed())
	}
}

// TestHTTP2 signs in and streams over HTTP/2, where a browser sends its
// cookies in several fields and there is nothing to hijack.
func TestHTTP2(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.ResponseType, c.ResponseMode = "code", "query" } // a jar follows redirects, no forms
	})
	var protos []string
	var mu sync.Mutex
	more := make(chan struct{})
	a.mux.Handle("/events", a.RequireUser(events(t, more)))
	srv := httptest.NewUnstartedServer(a.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		protos = append(protos, r.Proto)
		mu.Unlock()
		a.mux.ServeHTTP(w, r)
	})))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	a.net.Map(a.url, srv.Listener.Addr().String())

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := a.net.Client().Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = true
	transport.TLSClientConfig.RootCAs = transport.TLSClientConfig.RootCAs.Clone()
	transport.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	transport.TLSClientConfig.ServerName = "" // each host by its own name
	transport.TLSClientConfig.InsecureSkipVerify = true
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Jar: jar}

	get := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	res := get("/me")
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 || !bytes.Contains(body, []byte("alice")) {
		t.Fatalf("/me: %s %d %s", res.Proto, res.StatusCode, body)
	}
	readEvents(t, get("/events").Body, more)
	mu.Lock()
	defer mu.Unlock()
	if slices.ContainsFunc(protos, func(p string) bool { return p != "HTTP/2.0" }) || len(protos) == 0 {
		t.Errorf("requests came by %q, want HTTP/2 only", protos)
	}
}

// events sends one event, waits for more, and sends another.
func events(t *testing.T, more <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, name := range []string{"one", "two"} {
			fmt.Fprintf(w, "data: %s for %s\n\n", name, UserFromContext(r.Context()).Subject)
			if err := rc.Flush(); err != nil {
				t.Errorf("flush: %v", err)
			}
			if name == "one" {
				select {
				case <-more:
				case <-r.Context().Done():
				}
			}
		}
	}
}

// readEvents reads the first event before it lets the second be sent, so it
// hangs if anything on the way holds answers back.
func readEvents(t *testing.T, body io.Reader, more chan<- struct{}) {
	t.Helper()
	in := bufio.NewReader(body)
	for _, want := range []string{"data: one for alice\n", "data: two for alice\n"} {
		line, err := in.ReadString('\n')
		if line != want {
			t.Fatalf("event %q (%v), want %q", line, err, want)
		}
		if blank, err := in.ReadString('\n'); blank != "\n" {
			t.Fatalf("event ends with %q (%v)", blank, err)
		}
		if strings.Contains(want, "one") {
			close(more)
		}
	}
}

func TestServerSentEvents(t *testing.T) {
	a := newApp(t)
	more := make(chan struct{})
	a.mux.Handle("/events", a.RequireUser(events(t, more)))
	b := a.signIn()

	stranger := a.browser()
	if p := stranger.Send(&signintest.Request{URL: a.url + "/events", From: a.url + "/", Mode: "cors", Dest: "empty",
		Header: http.Header{"Accept": {"text/event-stream"}}}); p.Status != http.StatusUnauthorized {
		t.Errorf("EventSource of nobody: %d, want 401", p.Status)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", cookieHeader(b, a.url+"/events"))
	res, err := a.net.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	readEvents(t, res.Body, more)
}

// echoUpgraded takes the connection over, as WebSocket libraries do, greets
// the user, and sends back a token long after ServeHTTP has begun.
func echoUpgraded(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(http.Hijacker); !ok {
			t.Error("the ResponseWriter has been wrapped: no http.Hijacker")
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello %s\n", UserFromContext(r.Context()).Subject)
		rw.Flush()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			token, err := TokenSource(r.Context()).Token()
			if err != nil {
				t.Errorf("token within the connection: %v", err)
				return
			}
			fmt.Fprintf(rw, "%s%s\n", line, token.AccessToken)
			rw.Flush()
		}
	}
}

func TestWebSocket(t *testing.T) {
	a := newApp(t)
	a.mux.Handle("/socket", a.RequireUser(echoUpgraded(t)))
	b := a.signIn()

	conn, in := upgrade(t, a, "")
	if status, _ := in.ReadString('\n'); !strings.Contains(status, " 401 ") {
		t.Errorf("handshake of nobody: %q, want 401", status)
	}
	conn.Close()

	conn, in = upgrade(t, a, cookieHeader(b, a.url+"/socket"))
	defer conn.Close()
	if status, _ := in.ReadString('\n'); !strings.Contains(status, " 101 ") {
		t.Fatalf("handshake: %q, want 101", status)
	}
	for {
		if line, err := in.ReadString('\n'); err != nil || line == "\r\n" {
			break
		}
	}
	if line, _ := in.ReadString('\n'); line != "hello alice\n" {
		t.Fatalf("greeting %q", line)
	}
	// The connection outlives the access token.
	a.clock.advance(2 * time.Hour)
	fmt.Fprint(conn, "ping\n")
	if line, err := in.ReadString('\n'); line != "ping\n" {
		t.Fatalf("echo %q: %v", line, err)
	}
	token, err := in.ReadString('\n')
	if info, ok := a.issuer.TokenInfo(strings.TrimSpace(token)); !ok || !info.Active || a.refreshed() != 1 {
		t.Errorf("token (%v) active %t after %d refreshes; want a fresh one after one", err, info.Active, a.refreshed())
	}
}

// upgrade sends a WebSocket handshake by hand.
func upgrade(t *testing.T, a *app, cookies string) (net.Conn, *bufio.Reader) {
	t.Helper()
	u, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	transport := a.net.Client().Transport.(*http.Transport)
	raw, err := transport.DialContext(t.Context(), "tcp", u.Host+":443")
	if err != nil {
		t.Fatal(err)
	}
	config := transport.TLSClientConfig.Clone()
	config.ServerName = u.Hostname()
	conn := tls.Client(raw, config)
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: %s\r\n", u.Host, a.url)
	if cookies != "" {
		fmt.Fprintf(conn, "Cookie: %s\r\n", cookies)
	}
	fmt.Fprint(conn, "\r\n")
	return conn, bufio.NewReader(conn)
}

// The writer and, below a page without a user, the request's own parts are
// what came in.
func TestNothingWrapped(t *testing.T) {
	auth := newApp(t).Auth
	w := httptest.NewRecorder()
	in := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x", strings.NewReader("body"))
	header := in.Header.Clone()
	called := false
	auth.Handler(http.HandlerFunc(func(got http.ResponseWriter, r *http.Request) {
		called = true
		if got != http.ResponseWriter(w) {
			t.Errorf("the ResponseWriter is %T", got)
		}
		if r.Body != in.Body || r.URL != in.URL {
			t.Errorf("body or URL are not the request's own")
		}
	})).ServeHTTP(w, in)
	if !called || len(w.Header()) != 0 || fmt.Sprint(in.Header) != fmt.Sprint(header) {
		t.Errorf("called %t; headers set %v; request's %v", called, w.Header(), in.Header)
	}
}

// Two issuers in one application: each Auth has its own cookies, callback and
// sessions, and each RequireUser sees its own user.
func TestTwoIssuers(t *testing.T) {
	var partner *Auth
	var partners *signintest.Issuer
	a := newApp(t, func(o *appOptions) {
		o.wrap = func(staff *Auth, mux *http.ServeMux) http.Handler { return staff.Handler(mux) }
	})
	partners = signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "https://partners.example.test", Network: a.net, Behaviour: func(b *signintest.Behaviour) {
		b.User = "bob"
	}})
	partner, err := New(Config{
		Issuer: partners.URL(), ClientID: "client", Credential: Secret("secret"), BaseURL: a.url,
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: a.net.Client(),
		CookieName: "partner", CallbackPath: "/partner/callback",
		Logger: slog.New(slog.NewJSONHandler(a.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	partner.now = a.clock.now
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := TokenSource(r.Context()).Token()
		if err != nil {
			t.Errorf("%s: token: %v", r.URL.Path, err)
			return
		}
		_, staffs := a.issuer.TokenInfo(token.AccessToken)
		_, partner := partners.TokenInfo(token.AccessToken)
		fmt.Fprintf(w, "%s staff=%t partner=%t", UserFromContext(r.Context()).Subject, staffs, partner)
	})
	const forStaff, forPartner = "alice staff=true partner=false", "bob staff=false partner=true"
	for name, h := range map[string]http.Handler{
		"staff outside": a.Handler(partner.Handler(a.mux)), "staff inside": partner.Handler(a.Handler(a.mux)),
	} {
		t.Run(name, func(t *testing.T) {
			a.mux.Handle("/staff/"+url.PathEscape(name), a.RequireUser(who))
			a.mux.Handle("/partner/"+url.PathEscape(name), partner.RequireUser(who))
			// A page for those who are both: the inner one's user is the page's.
			a.mux.Handle("/both/"+url.PathEscape(name), a.RequireUser(partner.RequireUser(who)))
			a.mux.Handle("/htob/"+url.PathEscape(name), partner.RequireUser(a.RequireUser(who)))
			a.url = a.net.Serve("https://app.example.test", h)
			b := a.browser()
			staff, partnerPage := a.url+"/staff/"+url.PathEscape(name), a.url+"/partner/"+url.PathEscape(name)
			if p := b.Open(staff); p.Body != forStaff {
				t.Errorf("staff's page: %d %.200s", p.Status, p.Body)
			}
			// A user of the one is nobody to the other.
			if p := b.Fetch(b.Open(a.url+"/"), partnerPage); p.Status != http.StatusUnauthorized {
				t.Errorf("partner's page with staff's session: %d, want 401", p.Status)
			}
			if p := b.Open(partnerPage); p.Body != forPartner {
				t.Errorf("partner's page: %d %.200s", p.Status, p.Body)
			}
			if p := b.Open(staff); p.Body != forStaff {
				t.Errorf("staff's page again: %d %.200s", p.Status, p.Body)
			}
			if p := b.Open(a.url + "/both/" + url.PathEscape(name)); p.Body != forPartner {
				t.Errorf("the page for both: %d %.200s", p.Status, p.Body)
			}
			if p := b.Open(a.url + "/htob/" + url.PathEscape(name)); p.Body != forStaff {
				t.Errorf("the page for both, the other way round: %d %.200s", p.Status, p.Body)
			}
			// Signing out of one leaves the other.
			a.mux.HandleFunc("POST /out/"+url.PathEscape(name), partner.SignOut)
			b.Follow(&signintest.Request{Method: http.MethodPost, URL: a.url + "/out/" + url.PathEscape(name), Form: url.Values{}, From: a.url + "/", Activated: true})
			if p := b.Fetch(b.Open(a.url+"/"), partnerPage); p.Status != http.StatusUnauthorized {
				t.Errorf("partner's page after sign-out: %d, want 401", p.Status)
			}
			if p := b.Open(staff); p.Body != forStaff {
				t.Errorf("staff's page after the partner's sign-out: %d %.200s", p.Status, p.Body)
			}
		})
	}
	if n, m := a.redemptions(), partners.CountGrant("authorization_code"); n != 2 || m != 2 {
		t.Errorf("%d and %d redemptions, want 2 and 2", n, m)
	}
	if err := partner.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// Mounted under a prefix, the callback and the page come back under it,
// whether BaseURL says so or http.StripPrefix lets it be seen.
func TestMountedUnderPrefix(t *testing.T) {
	for _, tc := range []struct {
		name, base string
		mount      func(*Auth, http.Handler) http.Handler
	}{
		{"StripPrefix, BaseURL", "https://app.example.test/team", func(a *Auth, h http.Handler) http.Handler {
			return http.StripPrefix("/team", a.Handler(h))
		}},
		{"StripPrefix, no BaseURL", "", func(a *Auth, h http.Handler) http.Handler {
			return http.StripPrefix("/team", a.Handler(h))
		}},
		{"StripPrefix inside", "https://app.example.test/team", func(a *Auth, h http.Handler) http.Handler {
			return a.Handler(http.StripPrefix("/team", h))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.BaseURL = tc.base }
				o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
					outer := http.NewServeMux()
					outer.Handle("/team/", tc.mount(a, mux))
					outer.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "outside", http.StatusTeapot) })
					return outer
				}
			})
			b := a.browser()
			p := b.Open(a.url + "/team/page/x?q=1")
			if p.Status != http.StatusOK || p.URL != a.url+"/team/page/x?q=1" {
				t.Fatalf("%d %s %.200s", p.Status, p.URL, p.Body)
			}
			if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("redirect_uri"); got != a.url+"/team/oidc/callback" {
				t.Errorf("redirect_uri %q", got)
			}
			// Links in our pages lead below the prefix, too.
			if problem := a.browser().Fetch(p, "/team/me"); !strings.Contains(problem.Body, `"login":"/team/oidc/login?`) {
				t.Errorf("problem document: %s", problem.Body)
			}
		})
	}
}
