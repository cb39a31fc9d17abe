package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/front/internal/fronttest"
)

// recipe takes a configuration out of docs/front.md, which is tested so, and
// puts this test's addresses into it.
func recipe(t *testing.T, name string, replace ...string) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/front.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```" + name + "\n(.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatalf("docs/front.md has no recipe for %s", name)
	}
	text := string(m[1])
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("the recipe for %s says nothing about %s", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

const asked = `
trusted_proxies: [127.0.0.1/32]
routes:
  - {path: /, allow: signed-in}
  - {path: /public/, allow: public}
  - {path: /admin/, allow: {claim: realm_access.roles, any: [admin]}}
`

// site is a server behind a proxy that asks. It says who the proxy says that
// the user is.
func site(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s user=%s email=%s", r.RequestURI, strings.Join(r.Header["X-Forwarded-User"], "|"), strings.Join(r.Header["X-Forwarded-Email"], "|"))
}

func TestNginx(t *testing.T) {
	f := fronttest.Prepare(t, fronttest.Options{Settings: asked, Upstream: site})
	process(t, f)
	addr, dir := fronttest.FreeAddr(t), t.TempDir()
	server := recipe(t, "nginx", "listen 443 ssl;", "listen "+addr+";", "server_name wiki.example.com;", "server_name 127.0.0.1 localhost;",
		"http://127.0.0.1:8080", "http://"+f.Host, "http://127.0.0.1:9000", f.Behind.URL)
	conf := "daemon off;\npid " + dir + "/pid;\nerror_log stderr;\nworker_processes 1;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf+server+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other(t, addr, "nginx", "-p", dir, "-c", file)
	behindProxy(t, f, addr)
	// nginx passes on what the client sent: the recipe must overwrite it, and
	// what it does not overwrite must be refused.
	for _, forged := range []string{"X-Original-URI: /public/", "X_Original_URI: /public/", "X-Original-Method: OPTIONS"} {
		if status := status(t, addr, "GET /admin/x HTTP/1.1\nHost: "+addr+"\n"+forged+"\n\n"); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", forged, status)
		}
	}
	if status := status(t, addr, "GET /admin/x HTTP/1.1\nHost: "+addr+"\nX-Forwarded-Uri: /public/\n\n"); status/100 == 2 {
		t.Errorf("a second address: %d", status)
	}
	for _, path := range []string{"/public/../admin/x", "/public/%2e%2e/admin/x", "//admin/x", "/public/..%2fadmin/x", "/%61dmin/x", "/admin"} {
		if status := status(t, addr, "GET "+path+" HTTP/1.1\nHost: "+addr+"\n\n"); status/100 == 2 {
			t.Errorf("nobody at %s: %d", path, status)
		}
	}
}

func TestCaddy(t *testing.T) {
	f := fronttest.Prepare(t, fronttest.Options{Settings: asked, Upstream: site})
	process(t, f)
	addr, dir := fronttest.FreeAddr(t), t.TempDir()
	_, port, _ := strings.Cut(addr, ":")
	text := recipe(t, "caddyfile", "wiki.example.com", "http://127.0.0.1:"+port, "127.0.0.1:8080", f.Host, "127.0.0.1:9000", strings.TrimPrefix(f.Behind.URL, "http://"))
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte("{\n\tadmin off\n\tauto_https off\n}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	other(t, addr, "caddy", "run", "--adapter", "caddyfile", "--config", file)
	behindProxy(t, f, addr)
	for _, forged := range []string{"X-Forwarded-Uri: /public/", "X-Original-URI: /public/", "X-Forwarded-Method: OPTIONS"} {
		if status := status(t, addr, "GET /admin/x HTTP/1.1\nHost: "+addr+"\n"+forged+"\n\n"); status/100 == 2 {
			t.Errorf("%s: %d", forged, status)
		}
	}
}

// behindProxy signs in through a proxy and tries to be somebody else.
func behindProxy(t *testing.T, f *fronttest.Front, addr string) {
	t.Helper()
	at := "http://" + addr
	page(t, f.Browser.Open(at+"/public/x"), http.StatusOK, "/public/x user= email=")
	p := f.Browser.Open(at + "/a%2Fb?x=1&y=%20;z")
	page(t, p, http.StatusOK, "/a%2Fb?x=1&y=%20;z user=1001 email=alice@example.com")
	if p.URL != at+"/a%2Fb?x=1&y=%20;z" {
		t.Errorf("came back to %s", p.URL)
	}
	page(t, f.Browser.Open(at+"/admin/x"), http.StatusOK, "/admin/x user=1001 email=alice@example.com")
	var cookies []string
	for _, c := range f.Browser.Cookies(at + "/") {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	for _, line := range []string{"X-Forwarded-User: root", "x_forwarded_user: root", "X-Forwarded-Email: root", "Connection: X-Forwarded-User"} {
		_, in := fronttest.RawTo(t, addr, strings.ReplaceAll("GET /x HTTP/1.1\nHost: "+addr+"\nCookie: "+strings.Join(cookies, "; ")+"\n"+line+"\n\n", "\n", "\r\n"))
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 100)
		n, _ := res.Body.Read(body)
		res.Body.Close()
		if got := string(body[:n]); got != "/x user=1001 email=alice@example.com" && res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %q", line, res.StatusCode, got)
		}
	}
	page(t, f.Browser.Fetch(p, "/oidc/user"), http.StatusOK, "")
	// Bob has no role, and his address is not verified: nothing stands in for it.
	f.As("1002")
	page(t, f.Browser.Open(at+"/x"), http.StatusOK, "/x user=1002 email=")
	page(t, f.Browser.Open(at+"/admin/x"), http.StatusForbidden, "")
	if got := status(t, addr, "GET /x HTTP/1.1\nHost: "+addr+"\nX-Forwarded-User: root\n\n"); got != http.StatusUnauthorized {
		t.Errorf("nobody: %d", got)
	}
	out := f.Browser.Submit(f.Browser.Open(at+"/oidc/signout"), nil)
	page(t, out, http.StatusOK, "")
	page(t, f.Browser.Fetch(out, "/x"), http.StatusUnauthorized, "")
}

func status(t *testing.T, addr, request string) int {
	t.Helper()
	_, in := fronttest.RawTo(t, addr, strings.ReplaceAll(request, "\n", "\r\n"))
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%v after %q", err, request)
	}
	defer res.Body.Close()
	return res.StatusCode
}
