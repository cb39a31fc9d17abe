package command_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"github.com/seed454743b5/signin/signintest"
)

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

func TestOperatorsListener(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "admin_listen: 127.0.0.1:0\n"})
	if status, body := fetch(t, f.Admin+"/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d %s", status, body)
	}
	if status, body := fetch(t, f.Admin+"/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
	f.SignIn()
	f.Status("GET /none HTTP/1.1\nHost: HOST\n\n")
	f.Status("GET /../x HTTP/1.1\nHost: HOST\n\n")
	f.Status("BREW /x HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
	_, page := fetch(t, f.Admin+"/metrics")
	for _, want := range []string{
		`signin_events_total{signin_event="signed in"} 1`, `signin_events_total{signin_event="rejected"`, `http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/"} 1`,
		`http_request_method="_OTHER"`, `signin_front_refusals_total{cause="the path has a . or .. segment, in some spelling"} 1`, `signin_front_users_active 1`, `signin_front_store_up 1`, `signin_front_issuer_up 1`,
		`http_client_request_duration_seconds_count{`,
	} {
		if want == `signin_events_total{signin_event="rejected"` {
			continue
		}
		if !strings.Contains(page, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
	// Who is signed in is none of its business.
	for _, secret := range []string{"1001", "alice"} {
		if strings.Contains(page, secret) {
			t.Errorf("metrics hold %q", secret)
		}
	}
	// The public sees none of them, and they see no site.
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if status := f.Status("GET " + path + " HTTP/1.1\nHost: HOST\n\n"); status != http.StatusUnauthorized {
			t.Errorf("public %s: %d", path, status)
		}
	}
	if status, _ := fetch(t, f.Admin+"/"); status != http.StatusNotFound {
		t.Errorf("the operator's /: %d", status)
	}
}

func TestNotReady(t *testing.T) {
	f := fronttest.Prepare(t, fronttest.Options{Settings: plain + "admin_listen: 127.0.0.1:0\n"})
	f.Issuer.Fail(signintest.EndpointDiscovery, signintest.HTMLFault(http.StatusInternalServerError))
	f.Run()
	if status, _ := fetch(t, f.Admin+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d, want 503", status)
	}
	if status, _ := fetch(t, f.Admin+"/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
	if _, page := fetch(t, f.Admin+"/metrics"); !strings.Contains(page, "signin_front_issuer_up 0") {
		t.Errorf("%s", page)
	}
}

// A reload drops no request and signs nobody out, and one with a fault changes
// nothing.
func TestReload(t *testing.T) {
	keys := "session_keys: ['" + strings.Repeat("07", 32) + "']\n"
	rotated := "session_keys: ['" + strings.Repeat("08", 32) + "', '" + strings.Repeat("07", 32) + "']\n"
	release := make(chan struct{})
	f := fronttest.Start(t, fronttest.Options{Settings: keys + plain, Upstream: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		fmt.Fprint(w, "behind")
	}})
	f.SignIn()
	slow := make(chan int, 1)
	go func() {
		slow <- f.Status("GET /slow HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
	}()
	f.Behind.Await(t, 2)
	var failures, served atomic.Int32
	stop := make(chan struct{})
	var running sync.WaitGroup
	cookies := f.Cookies()
	for range 2 {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, _ := http.NewRequest("GET", f.URL+"/x", nil)
				req.Header.Set("Cookie", cookies)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					failures.Add(1)
					continue
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
					failures.Add(1)
				}
				res.Body.Close()
				served.Add(1)
			}
		})
	}
	reload := func(settings, want string) {
		t.Helper()
		f.Write(f.Host, "", settings)
		before := strings.Count(f.Log.String(), want)
		f.Reload <- syscall.SIGHUP
		f.Log.Await(t, func(map[string]any) bool { return strings.Count(f.Log.String(), want) > before })
	}
	public := "routes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n  - {path: /public/, allow: public, upstream: UPSTREAM}\n"
	for i := range 5 {
		reload([]string{keys, rotated}[i%2]+public, `"reloaded"`)
	}
	if status := f.Status("GET /public/ HTTP/1.1\nHost: HOST\n\n"); status != http.StatusOK {
		t.Errorf("the new route: %d", status)
	}
	reload(rotated+"routes:\n  - {path: /, allow: true, upstream: UPSTREAM}\nnonsense: 1\n", "the old ones stay in use")
	if n := strings.Count(f.Log.String(), "the old ones stay in use"); n < 2 {
		t.Errorf("%d faults are told, want both", n)
	}
	if status := f.Status("GET /public/ HTTP/1.1\nHost: HOST\n\n"); status != http.StatusOK {
		t.Errorf("after a fault: %d", status)
	}
	// Keys rotate: the new key signs people in, the old one still opens.
	reload(rotated+public, `"reloaded"`)
	if status := f.Status("GET /x HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n"); status != http.StatusOK {
		t.Errorf("after rotation: %d", status)
	}
	close(stop)
	running.Wait()
	if failures.Load() > 0 || served.Load() == 0 {
		t.Errorf("%d of %d requests failed", failures.Load(), served.Load())
	}
	// Without the old key, whoever was signed in by it is not any more.
	reload("session_keys: ['"+strings.Repeat("08", 32)+"']\n"+public, `"reloaded"`)
	if status := f.Status("GET /x HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n"); status != http.StatusUnauthorized {
		t.Errorf("after the old key went: %d, want 401", status)
	}
	close(release)
	if status := <-slow; status != http.StatusOK {
		t.Errorf("the request that went on through all reloads: %d", status)
	}
}

// Requests under way end well when the front is told to stop.
func TestGracefulStop(t *testing.T) {
	release := make(chan struct{})
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "admin_listen: 127.0.0.1:0\n", Upstream: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		fmt.Fprint(w, "behind")
	}})
	f.SignIn()
	slow := make(chan int, 1)
	go func() { slow <- f.Status("GET /slow HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n") }()
	f.Behind.Await(t, 2)
	stopped := make(chan int, 1)
	go func() { stopped <- f.Stop() }()
	f.Log.Await(t, func(l map[string]any) bool { return l["msg"] == "stopping" })
	if status, body := fetch(t, f.Admin+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("readyz while stopping: %d %s", status, body)
	}
	close(release)
	if status := <-slow; status != http.StatusOK {
		t.Errorf("the request under way: %d", status)
	}
	if code := <-stopped; code != 0 {
		t.Errorf("stopped with %d", code)
	}
	if c, err := net.DialTimeout("tcp", f.Host, time.Second); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, 1)
	f := fronttest.Start(t, fronttest.Options{Dir: dir, Settings: plain + "tls: {cert_file: cert.pem, key_file: key.pem}\n"})
	serial := func() string {
		c, err := tls.Dial("tcp", f.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
			t.Errorf("speaks %q, want h2", p)
		}
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if serial() != "1" {
		t.Fatal("another certificate")
	}
	f.SignIn()
	if !strings.Contains(f.Cookies(), "__Host-signin-front=") {
		t.Errorf("cookies are %s", f.Cookies())
	}
	if h := f.Behind.Last(t).Header; h.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("%v", h)
	}
	// Over HTTP/2 bodies are bounded, and refused, all the same.
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for cookie, want := range map[string]int{f.Cookies(): http.StatusOK, "": http.StatusUnauthorized} {
		req, _ := http.NewRequest("POST", f.URL+"/upload", strings.NewReader(strings.Repeat("x", 1<<20)))
		req.Header.Set("Cookie", cookie)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want || res.ProtoMajor != 2 || want == http.StatusOK && f.Behind.Last(t).ContentLength != 1<<20 {
			t.Errorf("upload over HTTP/%d: %d, want %d", res.ProtoMajor, res.StatusCode, want)
		}
	}
	// The files change: half of them first.
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if serial() != "1" {
		t.Error("half a certificate is in use")
	}
	certificate(t, dir, 2)
	deadline := time.Now().Add(fronttest.Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for serial() != "2" {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not in use")
		}
		<-tick.C
	}
	if c, err := tls.Dial("tcp", f.Host, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		c.Close()
		t.Error("speaks TLS 1.1")
	}
}

// Behind a proxy on a Unix socket, the peer is whoever may open the socket.
func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "front") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	f := fronttest.Start(t, fronttest.Options{Listen: "unix:" + path, Settings: plain})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	client := &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, _ := http.NewRequest("GET", "http://wiki.example.com/x", nil)
	for name, value := range map[string]string{"Accept": "text/html", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"} {
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || !strings.Contains(to, "redirect_uri=https%3A%2F%2Fwiki.example.com%2F") {
		t.Errorf("%d %s", res.StatusCode, to)
	}
	if l := f.Access.Await(t, func(l map[string]any) bool { return l["path"] == "/x" }); l["client"] != "192.0.2.1" {
		t.Errorf("%v", l)
	}
	// A socket that is left over is replaced, one that is in use is not.
	second := fronttest.Prepare(t, fronttest.Options{Listen: "unix:" + path, Settings: plain})
	if code := second.RunToEnd(); code != 1 {
		t.Errorf("a second front on one socket ended with %d", code)
	}
}

// An upstream on a Unix socket.
func TestUnixUpstream(t *testing.T) {
	dir, err := os.MkdirTemp("", "front")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, " ", r.Header.Get("X-Forwarded-User"))
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	f := fronttest.Start(t, fronttest.Options{Dir: dir, Settings: "routes:\n  - {path: /, allow: signed-in, upstream: 'unix:app'}\n"})
	if p := f.SignIn(); p.Body != f.Host+" 1001" {
		t.Errorf("%q", p.Body)
	}
}

func TestFaultsAtStart(t *testing.T) {
	f := fronttest.Prepare(t, fronttest.Options{Settings: "nonsense: 1\nroutes:\n  - {path: /}\n"})
	if code := f.RunToEnd(); code != 1 {
		t.Errorf("ended with %d", code)
	}
	if lines := f.Log.Lines(); len(lines) != 2 || lines[0]["level"] != "ERROR" {
		t.Errorf("%s", f.Log)
	}
	for _, settings := range []string{"store: 'mongodb://u:s3cret@127.0.0.1/x'\nsession_keys: ['" + strings.Repeat("07", 32) + "']\n" + plain, strings.Replace(plain, "routes", "response_type: code token\nroutes", 1), "scopes: ['a b']\n" + plain} {
		f := fronttest.Prepare(t, fronttest.Options{Settings: settings})
		if code := f.RunToEnd(); code != 1 || strings.Contains(f.Log.String(), "s3cret") || !strings.Contains(f.Log.String(), "want") {
			t.Errorf("ended with %d\n%s", code, f.Log)
		}
	}
}
