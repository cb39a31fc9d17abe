package signin

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/signintest"
)

// lab is an application of several replicas and its issuer, with nothing but
// function calls between them, so that it lives in a bubble: an hour, or a
// store that is away for a day, takes no time.
type lab struct {
	t        *testing.T
	issuer   *signintest.Issuer
	store    *faulty.Troubled
	replicas []*replica
}

type replica struct {
	*Auth
	log  *logBuffer
	wire *wire
}

// wire carries requests to the issuer.
type wire struct {
	issuer *signintest.Issuer

	mu   sync.Mutex
	hook func(*http.Request) error // before a request arrives; guarded by mu
}

func (w *wire) before(hook func(*http.Request) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

func (w *wire) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if req.Body != nil {
			req.Body.Close()
		}
		if p := recover(); p != nil { // how a handler closes the connection
			resp, err = nil, io.ErrUnexpectedEOF
		}
	}()
	w.mu.Lock()
	hook := w.hook
	w.mu.Unlock()
	if hook != nil {
		if err := hook(req); err != nil {
			return nil, err
		}
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RequestURI = req.URL.RequestURI()
	rec := httptest.NewRecorder()
	w.issuer.ServeHTTP(rec, in)
	resp = rec.Result()
	resp.Request = req
	return resp, nil
}

// hang holds token requests until a channel is closed or their caller gives
// up, and says on a channel that one has come.
func (w *wire) hang(release <-chan struct{}) (arrived <-chan struct{}) {
	came := make(chan struct{}, 100)
	w.before(func(req *http.Request) error {
		if !strings.HasSuffix(req.URL.Path, "/token") {
			return nil
		}
		came <- struct{}{}
		select {
		case <-release:
			return nil
		case <-req.Context().Done():
			return req.Context().Err()
		}
	})
	return came
}

type labOptions struct {
	replicas  int
	behaviour func(*signintest.Behaviour)
	config    func(*Config)
}

func newLab(t *testing.T, o labOptions, f func(l *lab)) {
	t.Helper()
	issuer := signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "https://login.example.test", Behaviour: o.behaviour})
	issuer.Key() // made out here, where it takes no time
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, issuer: issuer, store: &faulty.Troubled{Store: NewMemoryStore()}}
		for range max(o.replicas, 1) {
			l.replicas = append(l.replicas, l.replica(o.config))
		}
		f(l)
		for _, r := range l.replicas {
			if err := r.Shutdown(t.Context()); err != nil {
				t.Errorf("Close: %v", err)
			}
			for _, secret := range issuer.Secrets() {
				if len(secret) >= 8 && strings.Contains(r.log.String(), secret) {
					t.Errorf("the log holds a secret: %.12s...", secret)
				}
			}
		}
	})
}

// replica starts one more process of the application.
func (l *lab) replica(edit func(*Config)) *replica {
	r := &replica{log: &logBuffer{}, wire: &wire{issuer: l.issuer}}
	cfg := Config{
		Issuer: l.issuer.URL(), ClientID: "client", Credential: Secret("secret"), BaseURL: "https://app.example.test",
		ResponseType: "code", ResponseMode: "query", Store: l.store, SessionLifetime: 1000 * time.Hour,
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: &http.Client{Transport: r.wire},
		Logger: slog.New(slog.NewJSONHandler(r.log, nil)),
	}
	if edit != nil {
		edit(&cfg)
	}
	auth, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	r.Auth = auth
	return r
}

// in runs f below Handler, in a request with the given cookies.
func (r *replica) in(cookies string, f func(w http.ResponseWriter, req *http.Request)) *http.Response {
	return r.serve(httptest.NewRequest("GET", "https://app.example.test/page", nil), cookies, f)
}

func (r *replica) serve(req *http.Request, cookies string, f http.HandlerFunc) *http.Response {
	req.Header.Set("Accept", "text/html")
	if cookies != "" {
		req.Header.Set("Cookie", cookies)
	}
	rec := httptest.NewRecorder()
	r.Handler(f).ServeHTTP(rec, req)
	return rec.Result()
}

// signIn returns the cookies of a browser in which user has signed in, with
// more scopes than the site's.
func (l *lab) signIn(user string, scopes ...string) string {
	l.t.Helper()
	return l.challenge(user, "", &InteractionRequiredError{Reason: ReasonSignIn, Scopes: scopes, LoginHint: user})
}

// challenge sends a browser on a round trip and returns its cookies.
func (l *lab) challenge(user, cookies string, need *InteractionRequiredError) string {
	l.t.Helper()
	r := l.replicas[0]
	back, cookies := l.toCallback(user, cookies, need)
	done := r.serve(httptest.NewRequest("GET", back, nil), cookies, nil)
	if done.StatusCode != http.StatusSeeOther {
		body, _ := io.ReadAll(done.Body)
		l.t.Fatalf("callback: %d %s\n%s", done.StatusCode, body, r.log)
	}
	return merge(cookies, done)
}

// toCallback sends a browser to the issuer and returns the callback that it is
// about to open, with its cookies.
func (l *lab) toCallback(user, cookies string, need *InteractionRequiredError) (back, after string) {
	l.t.Helper()
	r := l.replicas[0]
	need.LoginHint = user
	out := r.in(cookies, func(w http.ResponseWriter, req *http.Request) { r.Challenge(w, req, need) })
	cookies = merge(cookies, out)
	ask, err := http.NewRequest("GET", out.Header.Get("Location"), nil)
	if err != nil || out.StatusCode != http.StatusSeeOther {
		l.t.Fatalf("challenge: %d, %v\n%s", out.StatusCode, err, r.log)
	}
	answer, err := r.wire.RoundTrip(ask)
	if err != nil {
		l.t.Fatal(err)
	}
	u, err := url.Parse(answer.Header.Get("Location"))
	if err != nil || !u.Query().Has("code") {
		l.t.Fatalf("the issuer answered with %d, Location %q", answer.StatusCode, u)
	}
	return u.String(), cookies
}

// merge is a Cookie header after the Set-Cookie lines of an answer.
func merge(cookies string, resp *http.Response) string {
	jar := map[string]string{}
	for _, pair := range strings.Split(cookies, "; ") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			jar[name] = value
		}
	}
	for _, c := range resp.Cookies() {
		jar[c.Name] = c.Value
	}
	var pairs []string
	for name, value := range jar {
		pairs = append(pairs, name+"="+value)
	}
	return strings.Join(pairs, "; ")
}

// token asks for a token in a request of its own.
func (r *replica) token(cookies string, req TokenRequest) (token string, err error) {
	r.in(cookies, func(_ http.ResponseWriter, hr *http.Request) {
		t, tokenErr := req.Source(hr.Context()).Token()
		if err = tokenErr; err == nil {
			token = t.AccessToken
		}
	})
	return token, err
}

// mustToken is token that must succeed, with a token that works.
func (l *lab) mustToken(i int, cookies string, req TokenRequest) string {
	l.t.Helper()
	token, err := l.replicas[i].token(cookies, req)
	if err != nil {
		l.t.Fatalf("Token: %v\n%s", err, l.replicas[i].log)
	}
	return token
}

// pass lets time pass.
func (l *lab) pass(d time.Duration) {
	l.t.Helper()
	if err := once.Sleep(l.t.Context(), d); err != nil {
		l.t.Fatal(err)
	}
}

// refreshes checks how many token requests with a refresh token there were
// since the last time.
func (l *lab) refreshes(want int) {
	l.t.Helper()
	synctest.Wait()
	if got := l.issuer.CountGrant("refresh_token"); got != want {
		l.t.Errorf("%d refreshes, want %d", got, want)
	}
	l.issuer.ForgetCalls()
}

// together runs f n times at once and waits for all.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// record is what the store holds of a session.
func (l *lab) record(cookies string) *record {
	l.t.Helper()
	r := l.replicas[0]
	var s *session
	r.in(cookies, func(_ http.ResponseWriter, req *http.Request) {
		secret, err := r.sess.read(req)
		if err == nil && secret != nil {
			s, _ = r.records.fresh(context.Background(), secret)
		}
	})
	if s == nil {
		return nil
	}
	return s.record
}
