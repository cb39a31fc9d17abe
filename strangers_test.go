package signin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/web"
	"github.com/seed454743b5/signin/signintest"
)

// countingStore counts what it is asked for, and knows what has been left in
// it. Unless it is quick, a call takes a millisecond, as over a network, so that
// calls meet.
type countingStore struct {
	Store
	quick         bool
	calls, writes atomic.Int64

	mu   sync.Mutex
	kept map[string]time.Duration // guarded by mu
}

func counting(s Store) *countingStore {
	return &countingStore{Store: s, kept: map[string]time.Duration{}}
}

func (s *countingStore) call() {
	s.calls.Add(1)
	if !s.quick {
		<-time.After(time.Millisecond)
	}
}

func (s *countingStore) Get(ctx context.Context, key string) ([]byte, bool, error) {
	s.call()
	return s.Store.Get(ctx, key)
}

func (s *countingStore) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	s.call()
	found, swapped, err := s.Store.Swap(ctx, key, old, new, ttl)
	if swapped && (old != nil || new != nil) { // else it has looked whether the key is absent
		s.writes.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.kept, key); new != nil {
			s.kept[key] = ttl
		}
	}
	return found, swapped, err
}

func (s *countingStore) Delete(ctx context.Context, key string) error {
	s.call()
	s.writes.Add(1)
	s.mu.Lock()
	delete(s.kept, key)
	s.mu.Unlock()
	return s.Store.Delete(ctx, key)
}

func (s *countingStore) left() map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.kept)
}

// strangers is an application with a page of each kind, as somebody meets it
// who has neither a cookie of ours nor a signature of the issuer's.
type strangers struct {
	*replica
	store   *countingStore
	handler http.Handler
	targets []string // every path of ours, and pages of the application
}

func newStrangers(l *lab, edit func(*Config)) *strangers {
	s := &strangers{}
	s.replica = l.replica(func(c *Config) {
		c.Keys = append(c.Keys, []byte("another key of thirty-two bytes!"))
		if edit != nil {
			edit(c)
		}
		s.store = counting(c.Store)
		c.Store = s.store
	})
	nobody := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if UserFromContext(r.Context()) != nil {
			l.t.Error("a stranger is signed in")
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/me", s.RequireUser(nobody))
	mux.Handle("/hello", s.Recognize(nobody))
	mux.HandleFunc("/signout", s.SignOut)
	mux.Handle("/token", s.Require(Requirement{Scopes: []string{"Mail.Read"}})(nobody))
	s.handler = s.Handler(mux)
	s.targets = append(slices.Sorted(maps.Keys(s.paths)), "/me", "/hello", "/signout", "/token")
	return s
}

// requests are what a stranger may send to target, by every method, with what
// the paths of ours look for, as a query and as a form.
func (s *strangers) requests(target string) []*http.Request {
	issuer := s.cfg.Issuer
	unsigned := seal.Encode([]byte(`{"alg":"RS256","typ":"logout+jwt"}`)) + "." +
		seal.Encode([]byte(`{"iss":"`+issuer+`","aud":"client","sub":"alice","jti":"1","events":{"`+oidc.LogoutEvent+`":{}}}`)) + ".AAAA"
	cookies := "__Host-signin=AAAA; __Host-signin-browser=" + seal.Encode(make([]byte, secretLen))
	var all []*http.Request
	for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
		for _, params := range []url.Values{
			{},
			{"sid": {"x"}},
			{"sid": {"x"}, "iss": {issuer}},
			{"sid": {strings.Repeat("x", 2000)}, "iss": {issuer}},
			{"state": {"AAAA"}, "code": {"c"}, "iss": {issuer}},
			{"error": {"access_denied"}, "state": {"AAAA"}},
			{"id_token": {unsigned}, "state": {"AAAA"}, "code": {"c"}},
			{"logout_token": {unsigned}},
			{"iss": {issuer}, "login_hint": {"bob"}, "target_link_uri": {"https://app.example.test/me"}},
			{"return": {"/me"}}, {"ask": {"AAAA"}},
		} {
			for _, cookie := range []string{"", cookies} {
				r := httptest.NewRequest(method, "https://app.example.test"+target+"?"+params.Encode(), nil)
				if method == "POST" {
					r = httptest.NewRequest(method, "https://app.example.test"+target, strings.NewReader(params.Encode()))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				r.Header.Set("Accept", "text/html")
				if cookie != "" {
					r.Header.Set("Cookie", cookie)
				}
				all = append(all, r)
			}
		}
	}
	return all
}

// TestStrangers: what carries neither a cookie of ours nor a signature of the
// issuer's writes nothing to the store, costs it a few calls, and holds no
// connection, on every path of ours and every page of the application.
func TestStrangers(t *testing.T) {
	for _, tc := range []struct {
		name      string
		behaviour func(*signintest.Behaviour)
		config    func(*Config)
	}{
		{"code", nil, nil},
		{"hybrid", nil, func(c *Config) { c.ResponseType, c.ResponseMode = typeHybrid, modeForm }},
		{"an issuer that sends sid alone", func(b *signintest.Behaviour) { b.Entra = true }, func(c *Config) { c.Issuer += "/organizations/v2.0" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{behaviour: tc.behaviour}, func(l *lab) {
				s := newStrangers(l, tc.config)
				for _, target := range s.targets {
					for _, r := range s.requests(target) {
						s.asks(t, r, 1)
					}
				}
				// Many of one kind at once cost no more than one after the other.
				for _, target := range s.targets {
					for _, method := range []string{"GET", "POST"} {
						r := httptest.NewRequest(method, "https://app.example.test"+target+"?sid=one&iss="+url.QueryEscape(s.cfg.Issuer), nil)
						s.asks(t, r, 300)
					}
				}
				if n := l.issuer.Count(signintest.EndpointToken); n != 0 {
					t.Errorf("%d token requests", n)
				}
				if s.store.calls.Load() == 0 {
					t.Error("nothing to test: no request got as far as the store")
				}
				for _, target := range s.targets {
					s.holdsNothing(t, target)
				}
			})
		})
	}
}

// asks sends copies of a request at once.
func (s *strangers) asks(t *testing.T, r *http.Request, copies int) {
	t.Helper()
	calls, writes := s.store.calls.Load(), s.store.writes.Load()
	together(copies, func(int) {
		copied := r.Clone(r.Context())
		if copies > 1 {
			copied.Body = http.NoBody
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, copied)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: status %d", r.Method, r.URL, w.Code)
		}
	})
	synctest.Wait()
	const each = 4 // two keys
	if n := s.store.calls.Load() - calls; n > int64(each*copies) {
		t.Errorf("%s %s, %d times: %d calls of the store, want %d each at most", r.Method, r.URL, copies, n, each)
	}
	if n := s.store.writes.Load() - writes; n != 0 {
		t.Errorf("%s %s, %d times: %d writes to the store: %v", r.Method, r.URL, copies, n, s.store.left())
	}
}

// holdsNothing sends requests whose bodies never end, over connections, and
// waits until the server has closed them.
func (s *strangers) holdsNothing(t *testing.T, target string) {
	t.Helper()
	if target == "/hello" {
		return // the application answers that, and may want what is sent
	}
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: s.handler}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(pipes) })
	for _, head := range []string{
		"POST %s HTTP/1.1\r\nHost: app.example.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\na",
		"POST %s HTTP/1.1\r\nHost: app.example.test\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
		"POST %s HTTP/1.1\r\nHost: app.example.test\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		"POST %s HTTP/1.1\r\nHost: app.example.test\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 1000\r\n\r\na",
		"GET %s HTTP/1.1\r\nHost: app.example.test\r\nAccept: text/html\r\nContent-Length: 1000\r\n\r\na",
		"PUT %s HTTP/1.1\r\nHost: app.example.test\r\nContent-Length: 1000\r\n\r\na",
	} {
		client, server := net.Pipe()
		pipes.conns <- server
		sent := fmt.Sprintf(head, target)
		if _, err := io.WriteString(client, sent); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_ = client.SetReadDeadline(start.Add(time.Hour))
		if _, err := io.Copy(io.Discard, bufio.NewReader(client)); err != nil || time.Since(start) > web.BodyTime+5*time.Second {
			t.Errorf("%.60q holds its connection for %v: %v", sent, time.Since(start), err)
		}
		client.Close()
	}
	_ = server.Close()
	serving.Wait()
}

// pipeListener accepts connections that live in a bubble.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestMadeUpCodes: with plain code, whoever asks for a page has a state and a
// browser cookie, and can answer with a code of their own making. What the
// issuer refuses leaves nothing in the store, and is not sent again for a
// minute; of what may have been spent a claim stays.
func TestMadeUpCodes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault *signintest.Fault // nil: the issuer's own
		claim bool
	}{
		{"invalid_grant", nil, false},
		{"refused otherwise", new(signintest.OAuthError{Code: "invalid_request"}.Fault()), false},
		{"refused with 200", new(signintest.OAuthError{Code: "bad_verification_code", Status: 200}.Fault()), false},
		{"refused as text", &signintest.Fault{Status: 400, Header: http.Header{"Content-Type": {"text/plain"}}, Body: "invalid_grant"}, false},
		{"too many requests", new(signintest.HTMLFault(429)), false},

		{"server_error", new(signintest.OAuthError{Code: "server_error"}.Fault()), true},
		{"unavailable", new(signintest.HTMLFault(503)), true},
		{"time-out", new(signintest.HTMLFault(408)), true},
		{"redirected", &signintest.Fault{Redirect: "https://elsewhere.example.test/"}, true},
		{"no answer", &signintest.Fault{Drop: true}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{}, func(l *lab) {
				s := newStrangers(l, nil)
				if tc.fault != nil {
					l.issuer.Fail(signintest.EndpointToken, *tc.fault)
				}
				answer := func(back, cookies string) int {
					return s.serve(httptest.NewRequest("GET", back, nil), cookies, nil).StatusCode
				}
				var back, cookies string
				const n = 5
				for range n {
					out := s.serve(httptest.NewRequest("GET", "https://app.example.test/oidc/login", nil), "", nil)
					to, err := out.Location()
					if err != nil {
						t.Fatal(err)
					}
					q := url.Values{"state": {to.Query().Get("state")}, "code": {"made-up"}, "iss": {l.issuer.URL()}}
					back, cookies = "https://app.example.test/oidc/callback?"+q.Encode(), merge("", out)
					if got := answer(back, cookies); got < 500 {
						t.Errorf("status %d, want 5xx", got)
					}
				}
				if left := s.store.left(); len(left) > 0 != tc.claim {
					t.Errorf("%d made-up answers left %v; a claim: %t wanted", n, left, tc.claim)
				}
				sent := func() int { return l.issuer.CountGrant("authorization_code") }
				before := sent()
				if got := answer(back, cookies); got != http.StatusSeeOther || sent() != before {
					t.Errorf("the same again: status %d and %d token requests, want 303 and none", got, sent()-before)
				}
				l.pass(refusedLifetime)
				answer(back, cookies)
				if want := map[bool]int{false: 1, true: 0}[tc.claim]; sent()-before != want {
					t.Errorf("after a minute: %d token requests, want %d", sent()-before, want)
				}
			})
		})
	}
}

// Copies of an answer on another replica wait for the one that redeems it. They
// do not send a code that was refused, though nothing says so but the claim
// that went away.
func TestCopiesOfAMadeUpCode(t *testing.T) {
	newLab(t, labOptions{replicas: 3}, func(l *lab) {
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		l.issuer.Fail(signintest.EndpointToken, signintest.OAuthError{Code: "invalid_grant"}.Fault())
		release := make(chan struct{})
		arrived := l.replicas[0].wire.hang(release)
		var all sync.WaitGroup
		ask := func(i int) {
			all.Go(func() {
				if got := l.replicas[i].serve(httptest.NewRequest("GET", back, nil), cookies, nil); setsSessionCookie(got) {
					t.Errorf("replica %d: the session cookie was set", i)
				}
			})
		}
		ask(0)
		<-arrived
		ask(1)
		ask(2)
		synctest.Wait()
		l.pass(time.Second)
		close(release)
		all.Wait()
		ask(1) // came late
		all.Wait()
		if n := l.issuer.CountGrant("authorization_code"); n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

func setsSessionCookie(resp *http.Response) bool {
	return slices.ContainsFunc(resp.Cookies(), func(c *http.Cookie) bool { return c.Name == "__Host-signin" && c.MaxAge >= 0 })
}

// bodyDeadline is a ResponseWriter that notes deadlines.
type bodyDeadline struct {
	*httptest.ResponseRecorder
	set bool
}

func (w *bodyDeadline) SetReadDeadline(t time.Time) error {
	w.set = !t.IsZero()
	return errors.ErrUnsupported
}

// A request without a body has no deadline: net/http would take its end for a
// browser that has gone, and a redemption may take longer.
func TestBodyDeadlineIsForBodies(t *testing.T) {
	a := newApp(t)
	for _, body := range []string{"", "a=b"} {
		w := &bodyDeadline{ResponseRecorder: httptest.NewRecorder()}
		a.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("POST", "/oidc/callback", strings.NewReader(body)))
		if w.set != (body != "") {
			t.Errorf("body %q: a deadline: %t", body, w.set)
		}
	}
}
