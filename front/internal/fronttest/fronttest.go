// Package fronttest runs the front for tests: in this process or as one of its
// own, with an issuer to sign in at and a server behind that notes what it
// gets.
package fronttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/command"
	"github.com/seed454743b5/signin/signintest"
)

// Patience is how long anything may take before a test gives up.
const Patience = 20 * time.Second

// Front is a running front.
type Front struct {
	T       testing.TB
	URL     string // where browsers find it
	Host    string // of URL
	Admin   string // URL of the operator's listener, if the settings have one
	File    string // with the settings
	Issuer  *signintest.Issuer
	Browser *signintest.Browser
	Behind  *Behind
	Log     *Buffer // standard error
	Access  *Buffer // standard output
	Reload  chan os.Signal

	env  []string
	stop func()
	done chan int
}

// Options say what to run.
type Options struct {
	// Settings are YAML lines after those that every test needs: issuer,
	// client and listen. Instead of the server behind, write UPSTREAM; instead
	// of a folder for the test, DIR.
	Settings string

	Env       []string
	Upstream  http.HandlerFunc // nil: answers "behind"
	Behaviour func(*signintest.Behaviour)
	Issuer    *signintest.Issuer // nil: one of its own
	Listen    string             // nil: a free port of 127.0.0.1
	Dir       string             // empty: one of its own
}

// Issuer returns an issuer with alice, who may do something, and bob.
func Issuer(t testing.TB, edit func(*signintest.Behaviour)) *signintest.Issuer {
	return signintest.NewIssuer(t, &signintest.IssuerOptions{Behaviour: func(b *signintest.Behaviour) {
		b.Users = []signintest.User{
			{Subject: "1001", Claims: map[string]any{"preferred_username": "Alice Ä.", "email": "alice@example.com", "email_verified": true,
				"groups": []string{"staff", "a,b"}, "realm_access": map[string]any{"roles": []string{"admin"}}}},
			{Subject: "1002", Claims: map[string]any{"preferred_username": "bob", "email": "bob@example.com", "email_verified": false}},
		}
		if edit != nil {
			edit(b)
		}
	}})
}

// Start runs the front in this process, as main does.
func Start(t testing.TB, o Options) *Front {
	t.Helper()
	f := Prepare(t, o)
	f.Run()
	return f
}

// Run runs what has been prepared, and waits until it serves.
func (f *Front) Run() {
	f.T.Helper()
	f.begin()
	f.Serving()
}

// RunToEnd runs what has been prepared until it ends, which it does by itself
// if it has a fault, and returns the exit code.
func (f *Front) RunToEnd() int {
	f.T.Helper()
	f.begin()
	select {
	case code := <-f.done:
		f.done <- code
		return code
	case <-time.After(Patience):
		f.T.Fatalf("the front does not end:\n%s", f.Log)
		return -1
	}
}

func (f *Front) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() {
		f.done <- command.Run(ctx, command.Process{
			Args: []string{"-config", f.File}, Environ: f.env, Getenv: func(string) string { return "" },
			Stdout: f.Access, Stderr: f.Log, Reload: f.Reload, ReadFile: os.ReadFile,
		})
	}()
}

// Prepare makes all that Start needs, and runs nothing.
func Prepare(t testing.TB, o Options) *Front {
	t.Helper()
	f := &Front{T: t, Log: &Buffer{}, Access: &Buffer{}, Issuer: o.Issuer, Browser: signintest.NewBrowser(t, nil), Reload: make(chan os.Signal, 1), done: make(chan int, 1), env: o.Env}
	if f.Issuer == nil {
		f.Issuer = Issuer(t, o.Behaviour)
	}
	f.Behind = NewBehind(t, o.Upstream)
	dir := o.Dir
	if dir == "" {
		dir = t.TempDir()
	}
	listen := o.Listen
	if listen == "" {
		listen = FreeAddr(t)
	}
	f.File = filepath.Join(dir, "front.yaml")
	f.Write(listen, dir, o.Settings)
	t.Cleanup(f.checkOutput)
	t.Cleanup(func() { f.Stop() })
	return f
}

// Write writes the settings.
func (f *Front) Write(listen, dir, settings string) {
	f.T.Helper()
	text := "listen: '" + listen + "'\nissuer: " + f.Issuer.URL() + "\nclient_id: client\nclient_secret: secret\n" +
		strings.NewReplacer("UPSTREAM", f.Behind.URL, "DIR", dir).Replace(settings)
	if err := os.WriteFile(f.File, []byte(text), 0o600); err != nil {
		f.T.Fatal(err)
	}
}

// Serving waits until the front serves, which may be another process.
func (f *Front) Serving() {
	f.T.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		select {
		case code := <-f.done:
			f.done <- code
			f.T.Fatalf("the front ended with %d:\n%s", code, f.Log)
		default:
		}
		for _, line := range f.Log.Lines() {
			switch line["msg"] {
			case "serving":
				f.Host = fmt.Sprint(line["address"])
				f.URL = fmt.Sprint(line["scheme"]) + "://" + f.Host
			case "serving the operator":
				f.Admin = "http://" + fmt.Sprint(line["address"])
			}
		}
		if f.URL != "" {
			return
		}
		if time.Now().After(deadline) {
			f.T.Fatalf("the front does not serve:\n%s", f.Log)
		}
	}
}

// Stop tells the front to stop and waits for it. It returns the exit code.
func (f *Front) Stop() int {
	if f.stop == nil {
		return 0
	}
	f.stop()
	select {
	case code := <-f.done:
		f.done <- code
		return code
	case <-time.After(Patience + 10*time.Second):
		f.T.Errorf("the front does not stop:\n%s", f.Log)
		return -1
	}
}

// checkOutput holds whatever the front printed to the rules: JSON, a line
// each, and no secret.
func (f *Front) checkOutput() {
	for _, out := range []*Buffer{f.Log, f.Access} {
		for line := range strings.SplitSeq(strings.TrimSpace(out.String()), "\n") {
			if line != "" && !json.Valid([]byte(line)) {
				f.T.Errorf("printed %q, which is not JSON", line)
			}
		}
		for _, secret := range f.Issuer.Secrets() {
			if len(secret) >= 8 && strings.Contains(out.String(), secret) {
				f.T.Errorf("printed a secret")
			}
		}
	}
}

// SignIn opens a page as the issuer's user.
func (f *Front) SignIn() *signintest.Page {
	f.T.Helper()
	p := f.Browser.Open(f.URL + "/")
	if p.Status != http.StatusOK || p.URL != f.URL+"/" {
		f.T.Fatalf("sign-in: %d %s %v %.300s\n%s", p.Status, p.URL, p.Err, p.Body, f.Log)
	}
	return p
}

// As signs in as somebody else.
func (f *Front) As(subject string) {
	f.Browser.ClearCookies()
	f.Issuer.Update(func(b *signintest.Behaviour) { b.User = subject })
}

// Cookies is the browser's Cookie header.
func (f *Front) Cookies() string {
	var all []string
	for _, c := range f.Browser.Cookies(f.URL + "/") {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

// Raw sends a request to the letter, with \n for the ends of lines, and
// returns the connection to read from. COOKIES and HOST are filled in.
func (f *Front) Raw(request string) (net.Conn, *bufio.Reader) {
	f.T.Helper()
	request = strings.NewReplacer("\n", "\r\n", "COOKIES", f.Cookies(), "HOST", f.Host).Replace(request)
	return RawTo(f.T, f.Host, request)
}

// RawTo sends bytes to an address.
func RawTo(t testing.TB, addr, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: Patience}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// Answer is Raw, read to the end of one answer.
func (f *Front) Answer(request string) (*http.Response, string) {
	f.T.Helper()
	_, in := f.Raw(request)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		f.T.Fatalf("%v after %q\n%s", err, request, f.Log)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

// Status is Answer's status.
func (f *Front) Status(request string) int {
	f.T.Helper()
	res, _ := f.Answer(request)
	return res.StatusCode
}

// Behind is a server behind the front.
type Behind struct {
	URL string

	mu   sync.Mutex
	seen []*http.Request // bodies are gone
}

// NewBehind starts one. A nil handler answers "behind".
func NewBehind(t testing.TB, h http.HandlerFunc) *Behind {
	if h == nil {
		h = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "behind") }
	}
	b := &Behind{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.seen = append(b.seen, r.Clone(context.WithoutCancel(r.Context())))
		b.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(server.Close)
	b.URL = server.URL
	return b
}

// Count is how many requests have come.
func (b *Behind) Count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

// Await waits until n have come.
func (b *Behind) Await(t testing.TB, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); b.Count() < n; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("the server behind got %d requests, want %d", b.Count(), n)
		}
	}
}

// Last is the latest of them.
func (b *Behind) Last(t testing.TB) *http.Request {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.seen) == 0 {
		t.Fatal("the server behind got nothing")
	}
	return b.seen[len(b.seen)-1]
}

// FreeAddr is an address of loopback that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Buffer is output that grows while it is read.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Lines are those that are JSON objects.
func (l *Buffer) Lines() (lines []map[string]any) {
	for text := range strings.SplitSeq(l.String(), "\n") {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// Await waits for a line that a test looks for.
func (l *Buffer) Await(t testing.TB, want func(line map[string]any) bool) map[string]any {
	t.Helper()
	deadline := time.After(Patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, line := range l.Lines() {
			if want(line) {
				return line
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no such line in\n%s", l)
		}
	}
}
