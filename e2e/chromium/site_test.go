package chromium

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// demo is the demo site, a process of its own, behind a front that sees every
// request. The site is at localhost and its issuer at 127.0.0.1, so that they
// are cross-site as in production.
type demo struct {
	*front
	issuer *signintest.Issuer // nil with the embedded provider
}

// startDemo starts the site with the provider it brings along. Settings come
// in pairs.
func startDemo(t *testing.T, settings ...string) *demo {
	t.Helper()
	d := &demo{front: newFront(t)}
	d.start(t, settings)
	return d
}

// startDemoAt starts the site with an issuer that signs in whoever comes, and
// counts what it is asked.
func startDemoAt(t *testing.T, settings ...string) *demo {
	t.Helper()
	d := &demo{front: newFront(t), issuer: newIssuer(t)}
	d.start(t, append([]string{"OIDC_ISSUER", d.issuer.URL(), "OIDC_CLIENT_ID", "client", "OIDC_CLIENT_SECRET", "secret"}, settings...))
	return d
}

func newIssuer(t *testing.T, behaviour ...func(*signintest.Behaviour)) *signintest.Issuer {
	t.Helper()
	return signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "http://127.0.0.1", Behaviour: func(b *signintest.Behaviour) {
		for _, f := range behaviour {
			f(b)
		}
	}})
}

func (d *demo) start(t *testing.T, settings []string) {
	t.Helper()
	addr := freeAddr(t)
	d.to(t, addr)
	cmd := exec.CommandContext(t.Context(), demoBinary)
	cmd.Env = append(os.Environ(), "ADDR="+addr, "BASE_URL="+d.url, "SESSION_KEY="+strings.Repeat("5e", 32))
	for i := 0; i+1 < len(settings); i += 2 {
		cmd.Env = append(cmd.Env, settings[i]+"="+settings[i+1])
	}
	cmd.Stderr = t.Output()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the demo site: %v", err)
	}
	// t.Context is cancelled before the cleanups run.
	t.Cleanup(func() { _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "Open ") {
		t.Fatalf("the demo site printed %q, %v; want the URL to open", line, err)
	}
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

// exchange is a request as it arrived, and the answer's status and header.
type exchange struct {
	Method, URI string
	Header      http.Header
	Status      int
	Answer      http.Header
}

func (e exchange) String() string {
	var fetch []string
	for _, name := range []string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Purpose", "Upgrade", "Origin"} {
		if v := e.Header.Get(name); v != "" {
			fetch = append(fetch, name+"="+v)
		}
	}
	return fmt.Sprintf("%s %.120s [%s] -> %d", e.Method, e.URI, strings.Join(fetch, " "), e.Status)
}

// sent reports whether the request carried a cookie.
func (e exchange) sent(cookie string) bool {
	r := http.Request{Header: e.Header}
	_, err := r.Cookie(cookie)
	return err == nil
}

// front is a reverse proxy at localhost that keeps a log, serves pages of the
// test's own below /test/ on the site's origin, and can tamper with answers.
type front struct {
	url  string
	mux  *http.ServeMux
	next http.Handler

	mu     sync.Mutex
	log    []exchange
	answer func(*http.Response) error // may edit an answer, or lose it by an error
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{mux: http.NewServeMux()}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = "http://localhost:" + server.URL[strings.LastIndexByte(server.URL, ':')+1:]
	t.Cleanup(func() {
		if t.Failed() {
			for _, e := range f.requests("") {
				t.Log(e)
			}
		}
	})
	return f
}

func (f *front) to(t *testing.T, addr string) {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: addr}
	f.next = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which the browser's Origin is compared with
		},
		ModifyResponse: func(r *http.Response) error {
			f.mu.Lock()
			edit := f.answer
			f.mu.Unlock()
			if edit != nil {
				return edit(r)
			}
			return nil
		},
		// An answer that the test loses is lost for the browser too.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := f.mux.Handler(r); pattern != "" {
		f.mux.ServeHTTP(w, r)
		return
	}
	seen := &seenWriter{ResponseWriter: w}
	e := exchange{Method: r.Method, URI: r.RequestURI, Header: r.Header.Clone()}
	defer func() {
		e.Status, e.Answer = seen.status, w.Header().Clone()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.log = append(f.log, e)
	}()
	f.next.ServeHTTP(seen, r)
}

// requests returns those whose URI begins with a prefix, in the order in which
// they were answered.
func (f *front) requests(prefix string) []exchange {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.log), func(e exchange) bool { return !strings.HasPrefix(e.URI, prefix) })
}

// tamper edits the answers from now on. Nil leaves them alone.
func (f *front) tamper(edit func(*http.Response) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = edit
}

// page serves HTML on the site's origin.
func (f *front) page(path, html string) {
	f.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><html lang=en><title>test</title><link rel=icon href=data:,>"+html)
	})
}

// seenWriter remembers the status.
type seenWriter struct {
	http.ResponseWriter
	status int
}

func (w *seenWriter) WriteHeader(status int) {
	if w.status == 0 || w.status == http.StatusContinue {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *seenWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *seenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// dropCookie takes a cookie out of an answer before the browser sees it.
func dropCookie(name string) func(*http.Response) error {
	return func(r *http.Response) error {
		r.Header["Set-Cookie"] = slices.DeleteFunc(r.Header["Set-Cookie"], func(line string) bool { return strings.HasPrefix(line, name+"=") })
		return nil
	}
}
