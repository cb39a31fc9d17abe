package serve

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/front/internal/settings"
)

// lenient is a server that reads a path in every way that any server does, and
// shows its secret if one of them leads to /admin/.
func lenient(w http.ResponseWriter, r *http.Request) {
	target, _, _ := strings.Cut(r.RequestURI, "?")
	for range 3 {
		for _, p := range []string{target, strings.ReplaceAll(target, `\`, "/")} {
			var bare []string
			for segment := range strings.SplitSeq(p, "/") {
				segment, _, _ = strings.Cut(segment, ";")
				bare = append(bare, segment)
			}
			for _, p := range []string{p, strings.Join(bare, "/")} {
				p, _, _ = strings.Cut(p, "?")
				if clean := path.Clean("/" + p); clean == "/admin" || strings.HasPrefix(clean, "/admin/") {
					fmt.Fprint(w, "SECRET")
					return
				}
			}
		}
		decoded, err := url.PathUnescape(target)
		if err != nil {
			break
		}
		target = decoded
	}
	fmt.Fprint(w, "public")
}

// Whatever a stranger asks for, by whatever path, method and headers, does not
// lead past a rule, and does not end the process.
func FuzzStranger(f *testing.F) {
	behind := httptest.NewServer(http.HandlerFunc(lenient))
	f.Cleanup(behind.Close)
	file := filepath.Join(f.TempDir(), "front.yaml")
	text := "issuer: http://127.0.0.1:1\nclient_id: x\nclient_secret: y\naccess_log: off\ntrusted_proxies: [198.51.100.1]\nroutes:\n  - {path: /, allow: public, upstream: '" + behind.URL + "'}\n" +
		"  - {path: /admin/, allow: signed-in, upstream: '" + behind.URL + "', bearer: true}\n  - {path: GET /only, allow: signed-in, upstream: '" + behind.URL + "'}\n  - {path: POST /only, allow: signed-in, upstream: '" + behind.URL + "'}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
	c, _, err := Load(settings.Source{Args: []string{"-config", file}})
	if err != nil {
		f.Fatal(err)
	}
	front, err := newFront(io.Discard, io.Discard)
	if err != nil {
		f.Fatal(err)
	}
	if err := front.use(c); err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][3]string{
		{"GET", "/admin/x", "Cookie: a=b"}, {"GET", "//admin/x", ""}, {"POST", "/x/../admin/", "X-Original-URL: /admin/x"}, {"GET", "/admin%2fx", "Upgrade: websocket"},
		{"GET", "/%5cadmin;x/y", "Authorization: Bearer abc"}, {"HEAD", "/oidc/auth", "X-Original-URI: /admin/"}, {"OPTIONS", "*", ""}, {"CONNECT", "x:1", ""},
		{"GET", "http://x/admin", "Transfer-Encoding: chunked"}, {"GET", "/oidc/callback?state=x", ""}, {"GET", "/a%252561dmin/", "Connection: x"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, target, header string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: x.example\r\n" + strings.NewReplacer("\n\n", "\n", "\r\n\r\n", "\r\n").Replace(header) + "\r\n\r\n")))
		if err != nil {
			return
		}
		r.RemoteAddr = "192.0.2.1:1"
		w := httptest.NewRecorder()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		front.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), "SECRET") || w.Code == http.StatusNoContent {
			t.Fatalf("%s %s, %q: %d %s", method, target, header, w.Code, w.Body)
		}
	})
}
