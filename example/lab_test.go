package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/example/internal/api"
	"github.com/seed454743b5/signin/example/internal/browsertest"
	"github.com/seed454743b5/signin/example/internal/op"
	"github.com/seed454743b5/signin/example/internal/ui"
)

// The site and its provider are sites apart, as everywhere: localhost and
// 127.0.0.1 are to a browser.
const (
	labSite   = "http://localhost:8080"
	labIssuer = "http://127.0.0.1:8081"
	labAPI    = "http://127.0.0.1:8082/me"
)

// lab is the demo site, its provider and its API in one synctest bubble: an
// hour passes at once, and synctest.Wait knows when all have come to a halt.
// So they talk over wire in place of sockets. All that the provider is asked
// is counted. When the test ends, what the site answered and logged is
// searched for tokens.
type lab struct {
	*meter
	t        *testing.T
	wire     wire
	provider *op.Provider
	auth     *signin.Auth
	browser  *browsertest.Browser
	said     *transcript
}

type labOptions struct {
	op     func(*op.Config)
	config func(*signin.Config)
	api    func(http.Handler, api.Verifier) http.Handler // around the demo API

	// site makes other handlers than the demo's.
	site func(*signin.Auth, wire) http.Handler
}

func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	l := &lab{t: t, wire: wire{}, browser: browsertest.New(t), said: &transcript{}}
	l.browser.Transport = l.wire

	provider := op.Config{
		Issuer: labIssuer, ClientID: "lab", ClientSecret: "top-secret",
		RedirectURIs: []string{labSite + "/oidc/callback"}, PostLogoutRedirectURIs: []string{labSite + "/"},
		Resources: []string{labAPI, "https://other.example/"},
	}
	if o.op != nil {
		o.op(&provider)
	}
	var err error
	if l.provider, err = op.New(provider); err != nil {
		t.Fatal(err)
	}
	l.meter = &meter{t: t, next: l.provider.Handler()}
	l.wire.serve(labIssuer, l.meter)

	verify := api.ByProvider(l.provider)
	h, err := api.New(api.Config{Verify: verify, Resource: labAPI, VaultContext: op.ContextStepUp})
	if err != nil {
		t.Fatal(err)
	}
	if o.api != nil {
		h = o.api(h, verify)
	}
	l.wire.serve(labAPI, h)

	log := slog.New(slog.NewJSONHandler(l.said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config := signin.Config{
		Issuer: labIssuer, ClientID: provider.ClientID, Credential: signin.Secret(provider.ClientSecret), BaseURL: labSite,
		NameClaim: "name", Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, Logger: log,
		HTTPClient: &http.Client{Transport: l.wire, Timeout: 15 * time.Second},
	}
	if o.config != nil {
		o.config(&config)
	}
	if l.auth, err = signin.New(config); err != nil {
		t.Fatal(err)
	}
	var routes http.Handler
	if o.site != nil {
		routes = l.auth.Handler(o.site(l.auth, l.wire))
	} else {
		pages, err := ui.Parse(pageFiles, "pages", pageFuncs)
		if err != nil {
			t.Fatal(err)
		}
		routes = (&site{auth: l.auth, pages: pages, api: newAPIClient(labAPI, true, l.wire), log: log}).routes()
	}
	l.wire.serve(labSite, l.said.of(routes))
	return l
}

// inLab runs a test in a bubble of its own.
func inLab(t *testing.T, o labOptions, test func(*testing.T, *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, o)
		test(t, l)
		l.end()
	})
}

// end checks what is true of every test.
func (l *lab) end() {
	l.t.Helper()
	if err := l.auth.Shutdown(l.t.Context()); err != nil {
		l.t.Errorf("closing: %v", err)
	}
	l.expect()
	said := l.said.String()
	if said == "" {
		l.t.Error("the site said nothing at all")
	}
	for _, c := range l.seen("/token") {
		for _, token := range []string{c.access, c.refresh} {
			if token != "" && strings.Contains(said, token) {
				l.t.Error("the site answered or logged a token")
			}
		}
	}
}

// signIn signs Alice in and checks that it took one token request.
func (l *lab) signIn() {
	l.t.Helper()
	at(l.t, signIn(l.t, l.browser, labSite+"/me"), labSite+"/me")
	l.expect("authorization_code")
}

// fetch is a script's GET, which may run on any goroutine.
func (l *lab) fetch(path string, cookies []*http.Cookie) (status int, body string) {
	r := httptest.NewRequestWithContext(l.t.Context(), http.MethodGet, labSite+path, nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	resp, err := l.wire.RoundTrip(r)
	if err != nil {
		l.t.Error(err)
		return 0, ""
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Error(err)
	}
	return resp.StatusCode, string(b)
}

// pass lets time pass in the bubble.
func pass(d time.Duration) { <-time.After(d) }

// wire carries requests to the handlers of hosts.
type wire map[string]http.Handler

func (n wire) serve(origin string, h http.Handler) {
	u, err := url.Parse(origin)
	if err != nil {
		panic(err)
	}
	n[u.Host] = h
}

func (n wire) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.Host, in.RemoteAddr = r.URL.RequestURI(), r.URL.Host, "127.0.0.1:1"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	n[r.URL.Host].ServeHTTP(w, in)
	_ = in.Body.Close()
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// transcript is all that the site logged and answered.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *transcript) of(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		for name, values := range rec.Header() {
			_, _ = io.WriteString(s, name+": "+strings.Join(values, ", ")+"\n")
			w.Header()[name] = values
		}
		_, _ = s.Write(rec.Body.Bytes())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// meter notes what reaches the provider.
type meter struct {
	t    *testing.T
	next http.Handler

	mu     sync.Mutex
	calls  []call
	judged int           // token requests that expect has seen
	held   chan struct{} // nil, or closed to let the answers to token requests go
}

// call is one request at the provider, and its answer.
type call struct {
	path            string
	form            url.Values
	header          http.Header
	status          int
	access, refresh string
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		m.t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	c := call{path: r.URL.Path, form: r.URL.Query(), header: r.Header.Clone()}
	if posted, err := url.ParseQuery(string(body)); err == nil && r.Method == http.MethodPost {
		c.form = posted
	}
	rec := httptest.NewRecorder()
	m.next.ServeHTTP(rec, r)
	c.status = rec.Code
	if c.path == "/token" {
		var answer struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			m.t.Errorf("the provider answered %q: %v", rec.Body, err)
		}
		c.access, c.refresh = answer.Access, answer.Refresh
	}
	m.mu.Lock()
	m.calls = append(m.calls, c)
	held := m.held
	m.mu.Unlock()
	if held != nil && c.path == "/token" {
		<-held
	}
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// hold keeps back the answers to token requests until release is called.
func (m *meter) hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := make(chan struct{})
	m.held = held
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held = nil
		close(held)
	}
}

// seen returns the calls of a path so far.
func (m *meter) seen(path string) []call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.calls), func(c call) bool { return c.path != path })
}

// last is the latest call of a path.
func (m *meter) last(path string) call {
	m.t.Helper()
	calls := m.seen(path)
	if len(calls) == 0 {
		m.t.Fatalf("the provider was never asked at %s", path)
	}
	return calls[len(calls)-1]
}

// expect checks the token requests since it was last called, by their grants:
// no more, no fewer.
func (m *meter) expect(grants ...string) {
	m.t.Helper()
	calls := m.seen("/token")
	var got []string
	for _, c := range calls[m.judged:] {
		got = append(got, c.form.Get("grant_type"))
	}
	m.judged = len(calls)
	if !slices.Equal(got, grants) {
		m.t.Fatalf("token requests since the last look: %q, want %q", got, grants)
	}
}

// rotation checks that no refresh token was sent twice, and that each was the
// newest there was.
func (m *meter) rotation() {
	m.t.Helper()
	newest := ""
	for i, c := range m.seen("/token") {
		if sent := c.form.Get("refresh_token"); sent != "" && sent != newest {
			m.t.Errorf("token request %d sent a refresh token that was not the newest", i)
		}
		if c.refresh != "" {
			newest = c.refresh
		}
	}
}

// jwtClaims reads a JWT without verifying it.
func jwtClaims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %q", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}
