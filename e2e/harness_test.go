package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

// siteBinary is the demo site, built once with the race detector.
var siteBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most tests wait for a lease or a deadline rather than work.
	_ = flag.Set("test.parallel", "8")
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "signin-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	siteBinary = filepath.Join(dir, "site")
	build := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", siteBinary, ".")
	build.Dir = "../example"
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the demo site: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// fleet is two processes of the demo site on one Redis, each with a proxy of
// its own in between, behind one public URL, with an issuer in this process.
// When its test ends, what the processes logged is searched for secrets and
// data races, and no code or refresh token may have been sent twice.
type fleet struct {
	t      *testing.T
	issuer *signintest.Issuer
	redis  *redistest.Server
	front  *front
	a, b   *replica
	sent   *sentLog
}

type options struct {
	behaviour func(*signintest.Behaviour)
	redisArgs []string
	keys      [2]string // SESSION_KEY of each
	redisURL  string    // in place of a server and proxies of our own
}

// twoKeys are two session keys, as SESSION_KEY spells them.
var twoKeys = [2]string{strings.Repeat("1a", 32), strings.Repeat("2b", 32)}

func newFleet(t *testing.T, edit ...func(*options)) *fleet {
	t.Helper()
	o := options{keys: [2]string{twoKeys[0], twoKeys[0]}}
	for _, e := range edit {
		e(&o)
	}
	f := &fleet{t: t, sent: newSentLog()}
	f.issuer = signintest.NewIssuer(t, &signintest.IssuerOptions{Behaviour: func(b *signintest.Behaviour) {
		b.Fault = f.sent.record
		if o.behaviour != nil {
			o.behaviour(b)
		}
	}})
	f.front = newFront(t)
	if o.redisURL == "" {
		f.redis = redistest.Start(t, o.redisArgs...)
	}
	for i, name := range []string{"A", "B"} {
		r := &replica{t: t, name: name, addr: freeAddr(t), log: &buffer{}}
		storeURL := o.redisURL
		if storeURL == "" {
			r.proxy = redistest.StartProxy(t, f.redis.Addr())
			storeURL = r.proxy.URL()
		}
		r.url = "http://" + r.addr
		r.env = []string{
			"ADDR=" + r.addr, "BASE_URL=" + f.front.url, "REDIS_URL=" + storeURL, "SESSION_KEY=" + o.keys[i],
			"OIDC_ISSUER=" + f.issuer.URL(), "OIDC_CLIENT_ID=client", "OIDC_CLIENT_SECRET=secret",
			"API_URL=" + f.issuer.EndpointURL(signintest.EndpointAPI),
		}
		if i == 0 {
			f.a = r
		} else {
			f.b = r
		}
		r.start()
		f.front.add(r)
		t.Cleanup(r.kill)
	}
	t.Cleanup(f.checkLogs)
	t.Cleanup(func() { f.sent.check(t) })
	return f
}

func (f *fleet) replicas() []*replica { return []*replica{f.a, f.b} }

func (f *fleet) browser() *signintest.Browser { return signintest.NewBrowser(f.t, nil) }

// signIn returns a browser that has signed in as a user, behind the front.
func (f *fleet) signIn(user string) *signintest.Browser {
	f.t.Helper()
	b := f.browser()
	if p := f.signInWith(b, f.front.url, user); p.Status != http.StatusOK || p.URL != f.front.url+"/me" {
		f.t.Fatalf("signing in as %s: %s", user, describe(p))
	}
	return b
}

// signInWith opens /me at a URL and signs in there as a user.
func (f *fleet) signInWith(b *signintest.Browser, at, user string) *signintest.Page {
	p, r := f.toIssuer(b, at+"/me", user)
	if r == nil {
		return p
	}
	return b.Follow(r)
}

// toIssuer opens a page and returns the authorization request that follows,
// nil if none does. It asks for a user by login_hint.
func (f *fleet) toIssuer(b *signintest.Browser, page, user string) (*signintest.Page, *signintest.Request) {
	authorize := f.issuer.EndpointURL(signintest.EndpointAuthorize)
	p, r := b.OpenUntil(page, func(r *signintest.Request) bool { return strings.HasPrefix(r.URL, authorize+"?") })
	if r != nil && user != "" {
		u, err := url.Parse(r.URL)
		if err != nil {
			f.t.Errorf("authorization request: %v", err)
			return p, nil
		}
		q := u.Query()
		q.Set("login_hint", user)
		u.RawQuery = q.Encode()
		r.URL = u.String()
	}
	return p, r
}

// toCallback is a sign-in that stops before the browser sends the answer.
func (f *fleet) toCallback(b *signintest.Browser, user string) *signintest.Request {
	f.t.Helper()
	p, r := f.toIssuer(b, f.front.url+"/me", user)
	if r != nil {
		p, r = b.FollowUntil(r, signintest.To("/oidc/callback"))
	}
	if r == nil {
		f.t.Fatalf("/me did not lead to the callback: %s", describe(p))
	}
	return r
}

// at is a request sent to one replica in place of the front.
func at(r *replica, req *signintest.Request) *signintest.Request {
	c := req.Clone()
	u, err := url.Parse(c.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	c.URL = r.url + u.RequestURI()
	return c
}

// me asks a replica who is signed in and follows nothing: 200 and the subject,
// 303 to the issuer for nobody, 503 for a failing store.
func me(b *signintest.Browser, r *replica) (*signintest.Page, string) {
	p := b.Send(&signintest.Request{URL: r.url + "/me", Activated: true, Header: http.Header{"Accept": {"application/json"}}})
	return p, subjectOf(p)
}

// callAPI has a replica call the API with the user's token. The API says
// whose it is.
func callAPI(b *signintest.Browser, r *replica) (*signintest.Page, string) {
	p := b.Send(&signintest.Request{URL: r.url + "/api", Activated: true})
	return p, subjectOf(p)
}

func subjectOf(p *signintest.Page) string {
	var doc struct{ Sub string }
	if p.Status != http.StatusOK || json.Unmarshal([]byte(p.Body), &doc) != nil {
		return ""
	}
	return doc.Sub
}

// signOut posts to a replica's /signout and follows nothing: 303 is done.
func signOut(b *signintest.Browser, r *replica) *signintest.Page {
	return b.Send(&signintest.Request{Method: http.MethodPost, URL: r.url + "/signout", From: r.url + "/", Form: url.Values{}, Activated: true})
}

func (f *fleet) wantUser(b *signintest.Browser, r *replica, user string) {
	f.t.Helper()
	if p, sub := me(b, r); sub != user {
		f.t.Errorf("replica %s: /me is %s; want %s signed in", r.name, describe(p), user)
	}
}

// wantNobody wants a challenge, as who is signed out gets it.
func (f *fleet) wantNobody(b *signintest.Browser, r *replica) {
	f.t.Helper()
	if p, _ := me(b, r); !f.challenged(p) {
		f.t.Errorf("replica %s: /me is %s; want a challenge", r.name, describe(p))
	}
}

func (f *fleet) challenged(p *signintest.Page) bool {
	return p.Status == http.StatusSeeOther && strings.HasPrefix(p.Location(), f.issuer.EndpointURL(signintest.EndpointAuthorize)+"?")
}

// wantUnavailable is what store trouble must look like: 503, Retry-After, no
// challenge, and the cookies left alone.
func (f *fleet) wantUnavailable(p *signintest.Page, what string) {
	f.t.Helper()
	if err := unavailable(p); err != nil {
		f.t.Errorf("%s: %v", what, err)
	}
}

func unavailable(p *signintest.Page) error {
	switch {
	case p.Err != nil || p.Status != http.StatusServiceUnavailable:
		return fmt.Errorf("%s; want 503", describe(p))
	case p.Header.Get("Retry-After") == "":
		return errors.New("503 without Retry-After")
	case len(p.Header["Set-Cookie"]) > 0:
		return fmt.Errorf("503 touches cookies: %d", len(p.Header["Set-Cookie"]))
	case p.Location() != "":
		return errors.New("503 with a Location")
	}
	return nil
}

// wantPublic wants what needs no store to be up.
func (f *fleet) wantPublic(b *signintest.Browser, r *replica) {
	f.t.Helper()
	for _, path := range []string{"/", "/style.css", "/healthz"} {
		if p := b.Send(&signintest.Request{URL: r.url + path, Activated: true}); p.Status != http.StatusOK {
			f.t.Errorf("replica %s: %s is %s; want 200, whatever the store does", r.name, path, describe(p))
		}
	}
}

// expiredToken waits until the access tokens handed out so far have expired,
// with tokens of an hour from now on. The fleet's issuer must give shorter
// ones before.
func (f *fleet) expiredToken(subject string) {
	f.t.Helper()
	f.issuer.Update(func(b *signintest.Behaviour) { b.AccessTokenLifetime = time.Hour })
	redistest.Wait(f.t, 10*time.Second, "the access token to expire", func() error {
		for _, info := range f.issuer.Tokens(subject) {
			if !info.Refresh && info.Active {
				return errors.New("still good")
			}
		}
		return nil
	})
}

func shortTokens(o *options) {
	o.behaviour = func(b *signintest.Behaviour) { b.AccessTokenLifetime = time.Second }
}

func (f *fleet) refreshes() int   { return f.issuer.CountGrant("refresh_token") }
func (f *fleet) redemptions() int { return f.issuer.CountGrant("authorization_code") }

// keysInRedis lists the keys that match a pattern, all without the prefix.
func (f *fleet) keysInRedis(pattern string) []string {
	f.t.Helper()
	return redisKeys(f.t, f.redis, pattern)
}

func redisKeys(t *testing.T, s *redistest.Server, pattern string) []string {
	t.Helper()
	list, _ := s.MustDo("KEYS", "signin:"+pattern).([]any)
	var names []string
	for _, k := range list {
		name, _ := k.(string)
		names = append(names, strings.TrimPrefix(name, "signin:"))
	}
	return names
}

func (f *fleet) checkLogs() {
	for _, r := range f.replicas() {
		text := r.log.take()
		if m := secretLooking.FindString(text); m != "" {
			f.t.Errorf("the log of replica %s holds a secret: %.8s...", r.name, m)
		}
		if i := strings.Index(text, "DATA RACE"); i >= 0 {
			f.t.Errorf("replica %s: %.6000s", r.name, text[i:])
		}
		if i := strings.Index(text, "panic"); i >= 0 {
			f.t.Errorf("replica %s panics: %.3000s", r.name, text[i:])
		}
		if f.t.Failed() {
			f.t.Logf("replica %s logged:\n%s", r.name, tail(text, 6000))
		}
	}
}

// secretLooking matches the issuer's codes, access, refresh and ID tokens, its
// client's secret and our keys.
var secretLooking = regexp.MustCompile(`\b(code|at|rt)_[A-Za-z0-9_-]{8,}|eyJ[A-Za-z0-9_-]{8,}|client_secret|(1a){8,}|(2b){8,}`)

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func describe(p *signintest.Page) string {
	if p.Err != nil {
		return p.Err.Error()
	}
	return fmt.Sprintf("%d %s %.200q", p.Status, p.Location(), p.Body)
}

// elapse waits until d has gone by since start.
func elapse(t *testing.T, start time.Time, d time.Duration) {
	t.Helper()
	redistest.Wait(t, d+10*time.Second, "the time to pass", func() error {
		if time.Since(start) < d {
			return errors.New("not yet")
		}
		return nil
	})
}

// sentLog notes every code and refresh token that reaches the token endpoint,
// and every one that comes more often than it may.
type sentLog struct {
	mu      sync.Mutex // guards what follows
	allowed map[string]int
	order   []string
	faults  []string
}

func newSentLog() *sentLog { return &sentLog{allowed: map[string]int{}} }

// record is a signintest.Behaviour.Fault that spoils nothing.
func (l *sentLog) record(c signintest.Call) *signintest.Fault {
	if c.Endpoint != signintest.EndpointToken {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range []string{"code", "refresh_token"} {
		v := c.Form.Get(name)
		if v == "" {
			continue
		}
		left, seen := l.allowed[v]
		switch {
		case !seen:
			l.order = append(l.order, v)
		case left == 0:
			l.faults = append(l.faults, fmt.Sprintf("%.8s... was sent to the token endpoint again", v))
		default:
			left--
		}
		l.allowed[v] = left
	}
	return nil
}

// sent is how many different ones have come.
func (l *sentLog) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.order)
}

// excuse lets the refresh tokens that came after the first ones, and until
// now, come n times more: their sender dies or gets no answer, and nobody can
// know whether they were spent. A code is never excused.
func (l *sentLog) excuse(first, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.order[first:] {
		if strings.HasPrefix(v, "rt_") {
			l.allowed[v] = n
		}
	}
}

// check reports the faults since it was last called.
func (l *sentLog) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fault := range l.faults {
		t.Error(fault)
	}
	l.faults = nil
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// take returns what was written and forgets it.
func (l *buffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.b.String()
	l.b.Reset()
	return text
}
