package command_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"github.com/seed454743b5/signin/signintest"
)

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
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhello %s\n", r.Header.Get("Upgrade"), r.Header.Get("X-Forwarded-User"))
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

func TestUpgrades(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "  - {path: /public/, allow: public, upstream: UPSTREAM}\n", Upstream: upgrades})
	f.SignIn()
	handshake := func(path, cookies, more string) string {
		return "GET " + path + " HTTP/1.1\nHost: HOST\nConnection: Upgrade, X-Forwarded-User\nCookie: " + cookies + "\n" + more + "\n"
	}
	conn, in := f.Raw(handshake("/socket", "COOKIES", "Upgrade: websocket\nSec-WebSocket-Key: x\nOrigin: "+f.URL+"\n"))
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", res, err)
	}
	fmt.Fprint(conn, "ping\n")
	for _, want := range []string{"hello 1001\n", "ping\n"} {
		if line, err := in.ReadString('\n'); line != want {
			t.Fatalf("%q (%v), want %q", line, err, want)
		}
	}
	before := f.Behind.Count()
	for name, tc := range map[string]struct {
		request string
		want    int
	}{
		"nobody":                     {handshake("/socket", "", "Upgrade: websocket\n"), http.StatusUnauthorized},
		"another origin":             {handshake("/socket", "COOKIES", "Upgrade: websocket\nOrigin: https://evil.example\n"), http.StatusForbidden},
		"origin null":                {handshake("/socket", "COOKIES", "Upgrade: WebSocket\nOrigin: null\n"), http.StatusForbidden},
		"another port":               {handshake("/socket", "COOKIES", "Upgrade: websocket\nOrigin: http://127.0.0.1:1\n"), http.StatusForbidden},
		"two origins":                {handshake("/socket", "COOKIES", "Upgrade: websocket\nOrigin: "+f.URL+"\nOrigin: https://evil.example\n"), http.StatusForbidden},
		"cross-site form as POST":    {"POST / HTTP/1.1\nHost: HOST\nOrigin: https://evil.example\nContent-Length: 0\nCookie: COOKIES\n\n", http.StatusForbidden},
		"cross-site, as the browser": {"POST / HTTP/1.1\nHost: HOST\nSec-Fetch-Site: cross-site\nContent-Length: 0\nCookie: COOKIES\n\n", http.StatusForbidden},
	} {
		if status := f.Status(tc.request); status != tc.want || f.Behind.Count() != before {
			t.Errorf("%s: %d, upstream got %d; want %d and none", name, status, f.Behind.Count()-before, tc.want)
		}
	}
	// Upstream would accept these, and then read whatever the client writes.
	for _, path := range []string{"/socket", "/public/socket"} {
		for _, upgrade := range []string{"Upgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n", "Upgrade: websocket, h2c\n", "Upgrade: TLS/1.0\n", "Upgrade: h2c\nUpgrade: websocket\n", "Upgrade: websocket\nUpgrade: h2c\n"} {
			if status := f.Status(handshake(path, "COOKIES", upgrade)); status != http.StatusOK || f.Behind.Last(t).Header.Get("Upgrade") != "" || f.Behind.Last(t).Header.Get("Http2-Settings") != "" {
				t.Errorf("%s %q: %d, upstream got %v; want it ignored", path, upgrade, status, f.Behind.Last(t).Header)
			}
		}
	}
	_, in = fronttest.RawTo(t, f.Host, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	if all, _ := io.ReadAll(in); !strings.Contains(string(all), " 400 ") && !strings.Contains(string(all), " 505 ") {
		t.Errorf("HTTP/2 by prior knowledge: %q", all)
	}
}

// What two servers might take for two requests is one, or none.
func TestLengths(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: "routes:\n  - {path: /, allow: public, upstream: UPSTREAM}\n", Upstream: func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d", len(body))
	}})
	const next = "GET /smuggled HTTP/1.1\nHost: HOST\n\n"
	for name, tc := range map[string]struct {
		request string
		want    []int // the statuses of all answers until the connection closes
	}{
		"two lengths":            {"POST / HTTP/1.1\nHost: HOST\nContent-Length: 3\nContent-Length: 30\n\nabc" + next, []int{400}},
		"a list of lengths":      {"POST / HTTP/1.1\nHost: HOST\nContent-Length: 3, 30\n\nabc" + next, []int{400}},
		"signed length":          {"POST / HTTP/1.1\nHost: HOST\nContent-Length: +3\n\nabc" + next, []int{400}},
		"length and chunks":      {"POST / HTTP/1.1\nHost: HOST\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\n" + next, []int{200}},
		"chunks and length":      {"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\nContent-Length: 60\n\n3\nabc\n0\n\n" + next, []int{200}},
		"unknown coding":         {"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: xchunked\n\n0\n\n" + next, []int{501}},
		"two codings":            {"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\nTransfer-Encoding: identity\n\n0\n\n" + next, []int{400, 501}},
		"space before the colon": {"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding : chunked\nContent-Length: 3\n\nabc" + next, []int{400}},
		"folded line":            {"POST / HTTP/1.1\nHost: HOST\nX: a\n Transfer-Encoding: chunked\nContent-Length: 3\n\nabc", []int{200}},
		"chunks in HTTP/1.0":     {"POST / HTTP/1.0\nHost: HOST\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n" + next, []int{200}},
		"bad chunk":              {"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\nzz\nabc\n" + next, []int{400, 502}},
		"two hosts":              {"GET / HTTP/1.1\nHost: HOST\nHost: evil.example\n\n", []int{400}},
		"no host":                {"GET / HTTP/1.1\n\n", []int{400}},
		"bare LF in a header":    {"GET / HTTP/1.1\nHost: HOST\nX: a\x0bb\n\n", []int{400}},
		"100 KB of headers":      {"GET / HTTP/1.1\nHost: HOST\nX: " + strings.Repeat("a", 100<<10) + "\n\n", []int{431}},
		"100 KB in many headers": {"GET / HTTP/1.1\nHost: HOST\n" + strings.Repeat("X-Forwarded-User: mallory\n", 4096) + "\n", []int{431}},
	} {
		t.Run(name, func(t *testing.T) {
			before := f.Behind.Count()
			conn, in := f.Raw(tc.request)
			_ = conn.(*net.TCPConn).CloseWrite()
			var got []int
			for {
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, res.Body)
				got = append(got, res.StatusCode)
				if res.Close {
					break
				}
			}
			ok := len(got) == 1 && (got[0] == tc.want[0] || got[0] == tc.want[len(tc.want)-1])
			if !ok {
				t.Errorf("statuses %v, want one of %v", got, tc.want)
			}
			for i := before; i < f.Behind.Count(); i++ {
				if r := f.Behind.Last(t); r.URL.Path == "/smuggled" {
					t.Errorf("upstream got the smuggled request")
				}
			}
		})
	}
}

// What strangers send slowly ends. What users send slowly does not.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "  - {path: /public/, allow: public, upstream: UPSTREAM}\n", Upstream: func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %v", n, err)
	}})
	f.SignIn()
	started := time.Now()
	held := map[string]net.Conn{}
	for name, request := range map[string]string{
		"callback":    "POST /oidc/callback HTTP/1.1\nHost: HOST\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 1000\n\na",
		"login":       "POST /oidc/login HTTP/1.1\nHost: HOST\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 1000\n\na",
		"logout":      "POST /oidc/backchannel-logout HTTP/1.1\nHost: HOST\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 1000\n\na",
		"refused":     "POST / HTTP/1.1\nHost: HOST\nContent-Length: 1000\n\na",
		"chunks":      "POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n1\na\n",
		"not found":   "POST /oidc/none HTTP/1.1\nHost: HOST\nContent-Length: 1000\n\na",
		"public":      "POST /public/ HTTP/1.1\nHost: HOST\nContent-Length: 1000\n\na",
		"stranger":    "GET /oidc/auth HTTP/1.1\nHost: HOST\nContent-Length: 1000\n\na",
		"half a head": "GET / HTTP/1.1\nHost: HOST\n",
	} {
		conn, _ := f.Raw(request)
		held[name] = conn
	}
	conn, in := f.Raw("POST /upload HTTP/1.1\nHost: HOST\nCookie: COOKIES\nContent-Length: 3\n\na")
	for name, c := range held {
		_ = c.SetReadDeadline(started.Add(30 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%s: still held after 30 s", name)
			}
		}
	}
	if took := time.Since(started); took < 10*time.Second {
		t.Errorf("all ended within %v, before any bound", took)
	}
	fmt.Fprint(conn, "bc")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "3 <nil>" {
		t.Errorf("a user's slow upload: %d %s", res.StatusCode, body)
	}
}

// An answer is refused before a body has been read.
func TestRefusedBody(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain})
	for _, request := range []string{
		"POST / HTTP/1.1\nHost: HOST\nContent-Length: 100000\n\na",
		"POST / HTTP/1.1\nHost: HOST\nContent-Length: 100000\nExpect: 100-continue\n\n",
		"POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n1\na\n",
	} {
		start := time.Now()
		res, _ := f.Answer(request)
		if res.StatusCode != http.StatusUnauthorized || time.Since(start) > 4*time.Second || !res.Close {
			t.Errorf("%d after %v, close %v; want a 401 at once, and the end", res.StatusCode, time.Since(start), res.Close)
		}
	}
	if f.Behind.Count() != 0 {
		t.Error("upstream got a request")
	}
}

// An upstream that answers early, dies half-way or never ends harms nobody else.
func TestBadUpstreams(t *testing.T) {
	stop := make(chan struct{})
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "shutdown_timeout: 1s\nupstream_timeout: 1s\n", Upstream: func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/drop":
			panic(http.ErrAbortHandler)
		case "/half":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/silent":
			select {
			case <-r.Context().Done():
			case <-stop:
			}
		case "/early":
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		case "/headers":
			for i := range 5000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("a", 100))
			}
		case "/for-ever":
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 1000)); err != nil {
					return
				}
			}
		default:
			fmt.Fprint(w, "behind")
		}
	}})
	defer close(stop)
	page := f.SignIn()
	for path, want := range map[string]int{"/drop": 502, "/silent": 504, "/headers": 502} {
		if p := f.Browser.Fetch(page, path); p.Status != want || strings.Contains(p.Body, "EOF") {
			t.Errorf("%s: %d %s, want %d", path, p.Status, p.Body, want)
		}
	}
	conn, in := f.Raw("GET /half HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
	if res, err := http.ReadResponse(in, nil); err == nil {
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%q without an error; want the connection to end before the answer does", body)
		}
	}
	conn.Close()
	start := time.Now()
	if res, _ := f.Answer("POST /early HTTP/1.1\nHost: HOST\nCookie: COOKIES\nContent-Length: 1000000\n\na"); res.StatusCode != http.StatusRequestEntityTooLarge || time.Since(start) > 4*time.Second {
		t.Errorf("%d after %v", res.StatusCode, time.Since(start))
	}
	conn, in = f.Raw("GET /for-ever HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
	if _, err := io.CopyN(io.Discard, in, 1<<20); err != nil {
		t.Fatal(err)
	}
	// Others are served all the while.
	if p := f.Browser.Fetch(page, "/x"); p.Body != "behind" {
		t.Errorf("%d", p.Status)
	}
	// It does not keep the front from stopping.
	start = time.Now()
	go func() { _, _ = io.Copy(io.Discard, in) }()
	if code := f.Stop(); code != 0 || time.Since(start) > 10*time.Second {
		t.Errorf("stopped with %d after %v", code, time.Since(start))
	}
	conn.Close()
	line := f.Access.Await(t, func(l map[string]any) bool { return l["path"] == "/drop" })
	if line["status"] != 502.0 || line["cause"] != "upstream unreachable" {
		t.Errorf("%v", line)
	}
}

// Whatever a path looks like, no rule is passed by another spelling of it.
func TestPaths(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: `
routes:
  - {path: /, allow: public, upstream: UPSTREAM}
  - {path: /admin/, allow: signed-in, upstream: UPSTREAM}
`})
	for path, want := range map[string]int{
		"/": 200, "/a//b": 200, "/a%2Fb": 200, "/a%20b;c": 200, "//x": 200, "/admin": 307, "/admin/": 401,
		"//admin/": 400, "/admin%2f": 400, "/%61dmin/": 401, "/./admin/": 400, "/x/../admin/": 400, "/x/%2e%2e/admin/": 400, "/x/..;/admin/": 400,
		"/x\\..\\admin/": 400, "/%5cadmin/": 400, "/admin%00/": 400, "/admin/..": 400, "/%252e%252e/admin/": 400, "/admin;x/": 400, "//admin/../": 400,
		"/%zz": 400, "http://HOST/admin/": 401, "http://evil.example/admin/": 401, "*": 400, "admin/": 400,
	} {
		before := f.Behind.Count()
		status := f.Status("GET " + path + " HTTP/1.1\nHost: HOST\n\n")
		if status != want || (f.Behind.Count() > before) != (want == 200) {
			t.Errorf("%s: %d, want %d; upstream got %d", path, status, want, f.Behind.Count()-before)
		}
		if want == 200 && f.Behind.Last(t).RequestURI != path {
			t.Errorf("%s reached the upstream as %s", path, f.Behind.Last(t).RequestURI)
		}
	}
	if status := f.Status("CONNECT evil.example:443 HTTP/1.1\nHost: evil.example:443\n\n"); status != 400 && status != 404 {
		t.Errorf("CONNECT: %d", status)
	}
}

// Forwarded headers of somebody who is not trusted say nothing.
func TestForwardedByStrangers(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain, Behaviour: func(b *signintest.Behaviour) {}})
	forged := "X-Forwarded-Host: evil.example\nX-Forwarded-Proto: https\nX-Forwarded-For: 192.0.2.1\nForwarded: host=evil.example\n"
	res, _ := f.Answer("GET / HTTP/1.1\nHost: HOST\nAccept: text/html\n" + forged + "\n")
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || strings.Contains(to, "evil.example") || !strings.Contains(to, "redirect_uri=http%3A%2F%2F127.0.0.1") {
		t.Errorf("%d %s", res.StatusCode, to)
	}
	if l := f.Access.Await(t, func(l map[string]any) bool { return l["status"] == 303.0 }); l["client"] != "127.0.0.1" {
		t.Errorf("%v", l)
	}
	trusting := fronttest.Start(t, fronttest.Options{Settings: plain + "trusted_proxies: [127.0.0.1]\n"})
	res, _ = trusting.Answer("GET / HTTP/1.1\nHost: HOST\nAccept: text/html\nX-Forwarded-Host: wiki.example.com\nX-Forwarded-Proto: https\nX-Forwarded-For: 192.0.2.66, 192.0.2.1\n\n")
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || !strings.Contains(to, "redirect_uri=https%3A%2F%2Fwiki.example.com%2Foidc%2Fcallback") {
		t.Errorf("%d %s", res.StatusCode, to)
	}
	if l := trusting.Access.Await(t, func(l map[string]any) bool { return l["status"] == 303.0 }); l["client"] != "192.0.2.1" || l["host"] != "wiki.example.com" {
		t.Errorf("%v", l)
	}
}
