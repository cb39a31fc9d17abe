package chromium

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// frontBinary builds signin-front once for all tests.
var frontBinary = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(buildDir, "signin-front")
	build := exec.Command("go", "build", "-o", bin, "./cmd/signin-front")
	build.Dir = filepath.Join("..", "..", "front")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building signin-front: %w\n%s", err, out)
	}
	return bin, nil
})

// startFront runs signin-front at localhost, with settings beside those that
// every test needs, and a site behind.
func startFront(t *testing.T, issuer *signintest.Issuer, settings string, site http.Handler) (url string) {
	t.Helper()
	bin, err := frontBinary()
	if err != nil {
		t.Fatal(err)
	}
	behind := httptest.NewServer(site)
	t.Cleanup(behind.Close)
	addr := freeAddr(t)
	url = "http://localhost:" + addr[strings.LastIndexByte(addr, ':')+1:]
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "logo.svg"), []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="10" height="10" fill="red"/></svg>`), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "front.yaml")
	text := "listen: " + addr + "\nbase_url: " + url + "\nissuer: " + issuer.URL() + "\nclient_id: client\nclient_secret: secret\n" + strings.ReplaceAll(settings, "UPSTREAM", behind.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-config", file, "-access-log", "off")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log []string
	var mu sync.Mutex
	ended := make(chan struct{})
	serving := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			var line struct{ Msg string }
			_ = json.Unmarshal(s.Bytes(), &line)
			mu.Lock()
			log = append(log, s.Text())
			mu.Unlock()
			if line.Msg == "serving" {
				close(serving)
			}
		}
	}()
	t.Cleanup(func() {
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(strings.Join(log, "\n"))
		}
	})
	select {
	case <-serving:
	case <-ended:
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("signin-front ended:\n%s", strings.Join(log, "\n"))
	}
	return url
}

// The site behind says who its user is, on a page with a script, a WebSocket
// and a form.
func frontSite(w http.ResponseWriter, r *http.Request) {
	user := r.Header.Get("X-Forwarded-User")
	switch r.URL.Path {
	case "/data":
		fmt.Fprint(w, user)
	case "/form":
		fmt.Fprint(w, r.Method, " ", user, " ", r.FormValue("a"))
	case "/socket":
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(r.Header.Get("Sec-WebSocket-Key")))
		fmt.Fprintf(rw, "\x81%c%s", len(user), user) // one text frame
		_ = rw.Flush()
		_, _ = rw.ReadByte()
	default:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<h1>Site of %s</h1><form method="post" action="/form"><input name="a" value="b"><button>Send</button></form>`, user)
	}
}

// A person in front of a real browser, a site behind that knows nothing.
func TestFrontInChromium(t *testing.T) {
	issuer := newIssuer(t)
	url := startFront(t, issuer, "site: {name: The Wiki, color: \"#0a7d3c\", logo: logo.svg}\nroutes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n  - {path: /admin/, allow: {claim: roles, any: [admin]}, upstream: UPSTREAM}\n", http.HandlerFunc(frontSite))
	p := newProfile(t)
	b := p.first
	b.open(url + "/page?x=1&y=%20#part")
	b.wait("the site", `document.querySelector("h1")?.textContent == "Site of alice"`)
	if got := eval[string](b, "location.href"); got != url+"/page?x=1&y=%20#part" && got != url+"/page?x=1&y=%20" {
		t.Errorf("came back to %s", got)
	}
	if got := eval[string](b, `fetch("/data").then(r => r.text())`); got != "alice" {
		t.Errorf("a script got %q", got)
	}
	if got := eval[string](b, `new Promise((done, failed) => { const s = new WebSocket("ws://" + location.host + "/socket"); s.onmessage = m => done(m.data); s.onerror = () => failed("error") })`); got != "alice" {
		t.Errorf("a WebSocket got %q", got)
	}
	if got := eval[string](b, `document.cookie`); got != "" {
		t.Errorf("a script sees %q", got)
	}
	b.press("Send")
	b.wait("the form's answer", `document.body.textContent == "POST alice b"`)
	// Another tab is signed in already.
	other := p.tab()
	other.open(url + "/other")
	other.wait("the site in another tab", `document.querySelector("h1")?.textContent == "Site of alice"`)
	// A page that is not for alice says so, in the site's look.
	b.open(url + "/admin/")
	b.wait("the refusal", `document.querySelector(".brand img")`)
	look := eval[[]string](b, `(() => { const i = document.querySelector(".brand img"), a = document.querySelector(".actions a"); return [String(i.naturalWidth > 0), document.querySelector(".brand span").textContent, a ? getComputedStyle(a).backgroundColor : "none"] })()`)
	if look[0] != "true" || look[1] != "The Wiki" || look[2] != "rgb(10, 125, 60)" && look[2] != "none" {
		t.Errorf("the page looks like %v", look)
	}
	// Sign-out asks, and then nobody is signed in, in either tab.
	b.open(url + "/oidc/signout")
	b.wait("the question", `document.querySelector("form button")`)
	eval[bool](b, `(document.querySelector("form button").click(), true)`)
	b.wait("the end", `location.pathname == "/oidc/signed-out"`)
	if got := eval[int](other, `fetch("/data").then(r => r.status)`); got != http.StatusUnauthorized {
		t.Errorf("a script in the other tab gets %d", got)
	}
}
