package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

const (
	simApp    = "app.example.test"
	simLogin  = "login.example.test"
	simExtra  = "extra" // a scope that is not asked for at sign-in
	simAccess = 10 * time.Minute

	// simPatience is how long a user looks at a page that does not come.
	simPatience = 2 * time.Minute

	// simHealing is how long after the last fault all must be well.
	simHealing = time.Minute
)

// simWorld is an application of several replicas, its store, its issuer and its
// users, with nothing but function calls between them. It lives in a bubble, so
// that time is the adversary's. All choices come from the seed.
type simWorld struct {
	tb       testing.TB
	seed     uint64
	began    time.Time
	issuer   *signintest.Issuer
	store    *simStore
	judge    *simJudge
	replicas []*simReplica
	browsers []*simBrowser
	users    []string
	form     bool // the issuer answers by form_post
	copies   bool // the store's clients keep copies

	mu      sync.Mutex
	faults  []simFault // guarded by mu, with what follows
	trouble time.Time  // when the last fault ends, or ended
	trace   func(string)
}

// simFault is a kind of trouble while it lasts.
type simFault struct {
	op       string
	r        *simReplica // nil: all
	from, to time.Time
}

// simTB gives an issuer of one world an end before that of the test.
type simTB struct {
	testing.TB
	cleanups []func()
}

func (tb *simTB) Cleanup(f func()) { tb.cleanups = append(tb.cleanups, f) }
func (tb *simTB) end() {
	for i := len(tb.cleanups) - 1; i >= 0; i-- {
		tb.cleanups[i]()
	}
}

// simulate runs a script and returns what the judge has found.
func simulate(t *testing.T, s simScript, trace func(string)) (found []string, took time.Duration) {
	tb := &simTB{TB: t}
	defer tb.end()
	rng := rand.New(rand.NewPCG(s.seed, 2))
	w := &simWorld{seed: s.seed, trace: trace, form: rng.IntN(2) == 0, copies: rng.IntN(2) == 0}
	for i := range 1 + rng.IntN(3) {
		w.users = append(w.users, fmt.Sprint("user-", i))
	}
	w.issuer = signintest.NewIssuer(tb, &signintest.IssuerOptions{Behaviour: func(b *signintest.Behaviour) {
		b.Users = nil
		for _, u := range w.users {
			b.Users = append(b.Users, signintest.User{Subject: u})
		}
		b.Alg, b.AccessTokenLifetime, b.RefreshTokens = "ES256", simAccess, signintest.RefreshRotate
	}})
	w.issuer.Key()
	w.tb = tb
	defer func() {
		if p := recover(); p != nil {
			panic(fmt.Sprintf("%v\nin the script\n%v", p, s))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w.began = time.Now()
		w.store, w.judge = newSimStore(w), newSimJudge(w)
		for i := range 2 + rng.IntN(4) {
			w.replicas = append(w.replicas, w.start(i))
		}
		for i := range len(w.users) + rng.IntN(3) {
			w.browsers = append(w.browsers, w.newBrowser(w.users[i%len(w.users)]))
		}
		w.play(s)
		took = time.Since(w.began)
	})
	return w.judge.found, took
}

func (w *simWorld) note(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%10v ", time.Since(w.began)) + fmt.Sprintf(format, args...))
	}
}

// rng makes choices that depend on the seed and the tags, and on nothing else.
func (w *simWorld) rng(tags ...uint64) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, tag := range tags {
		h = (h ^ tag) * 1099511628211
		h ^= h >> 29
	}
	return rand.New(rand.NewPCG(w.seed, h))
}

// simVisit goes with a request and with all that is done on its account.
type simVisit struct {
	step    int
	ghost   bool // it comes with cookies of long ago
	choices atomic.Uint64

	key   string // of the record that the cookie names
	lease string // of its refresh
	claim string // of the callback
}

type simVisitKey struct{}

func (w *simWorld) visitOf(ctx context.Context) *simVisit {
	if v, ok := ctx.Value(simVisitKey{}).(*simVisit); ok {
		return v
	}
	return &simVisit{}
}

func (w *simWorld) choice(ctx context.Context) *rand.Rand {
	v := w.visitOf(ctx)
	return w.rng(3, uint64(v.step), v.choices.Add(1))
}

// faulted reports whether a replica suffers from a kind of trouble now.
func (w *simWorld) faulted(op string, r *simReplica) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, f := range w.faults {
		if f.op == op && (f.r == nil || f.r == r) && !now.Before(f.from) && now.Before(f.to) {
			return true
		}
	}
	return false
}

func (w *simWorld) fault(op string, r *simReplica, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.faults = append(w.faults, simFault{op, r, now, now.Add(d)})
	if end := now.Add(d); end.After(w.trouble) {
		w.trouble = end
	}
}

// calm reports whether nothing has gone wrong since a time, nor for a while before.
func (w *simWorld) calm(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trouble.IsZero() || since.Sub(w.trouble) > simHealing
}

// play lets a script happen, ends all trouble, and looks at what is left.
func (w *simWorld) play(s simScript) {
	var steps sync.WaitGroup
	for _, step := range s.steps {
		if d := time.Until(w.began.Add(step.at)); d > 0 {
			time.Sleep(d)
		}
		w.note("step %v", step)
		steps.Go(func() { simOps[step.op].run(w, step) })
	}
	steps.Wait()
	w.mu.Lock()
	rest := time.Until(w.trouble)
	w.mu.Unlock()
	time.Sleep(max(rest, 0) + simHealing)
	w.judge.end()
	var ends sync.WaitGroup
	for _, r := range w.replicas {
		ends.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), simHealing)
			defer cancel()
			if err := r.auth.Shutdown(ctx); err != nil {
				w.judge.violation("replica %d does not end: %v", r.number, err)
			}
		})
	}
	ends.Wait()
}

// simReplica is one process of the application.
type simReplica struct {
	w      *simWorld
	number int
	auth   *Auth
	app    http.Handler
	killed chan struct{}

	mu       sync.Mutex
	frozen   time.Time      // it does nothing before; guarded by mu, with what follows
	troubled time.Time      // when it was last frozen or its call to the store spoilt
	naps     [][2]time.Time // when it was frozen
}

// start starts a process with a clock of its own.
func (w *simWorld) start(number int) *simReplica {
	r := &simReplica{w: w, number: number, killed: make(chan struct{})}
	cfg := Config{
		Issuer: w.issuer.URL(), ClientID: "client", Credential: Secret("secret"), BaseURL: "https://" + simApp,
		ResponseType: "code", ResponseMode: "query", Store: simConn{r}, SessionLifetime: 100 * time.Hour,
		Scopes: []string{"openid", "offline_access", "mail"},
		Keys:   [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: &http.Client{Transport: simWire{r}},
		Logger: slog.New(slog.DiscardHandler),
	}
	if w.form {
		cfg.ResponseType, cfg.ResponseMode = "code id_token", "form_post"
	}
	auth, err := New(cfg)
	if err != nil {
		panic(err)
	}
	rng := w.rng(4, uint64(number))
	ahead := time.Duration(rng.Int64N(int64(time.Minute))) - 30*time.Second
	drift := (rng.Float64() - 0.5) / 500
	auth.now = func() time.Time {
		now := time.Now()
		return now.Add(ahead + time.Duration(float64(now.Sub(w.began))*drift))
	}
	r.auth = auth
	mux := http.NewServeMux()
	mux.Handle("GET /page", auth.RequireUser(r.page(TokenRequest{})))
	mux.Handle("GET /fresh", auth.RequireUser(r.page(TokenRequest{Refresh: true})))
	mux.Handle("GET /more", auth.Require(Requirement{Scopes: []string{simExtra}})(r.page(TokenRequest{Scopes: []string{simExtra}})))
	mux.HandleFunc("POST /signout", auth.SignOut)
	r.app = auth.Handler(mux)
	return r
}

// simPage is what a page shows.
type simPage struct{ User, Nonce, SID, Token string }

// page shows who is signed in, and a token of theirs.
func (r *simReplica) page(req TokenRequest) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		user := UserFromContext(hr.Context())
		var claims struct{ Nonce, SID string }
		json.Unmarshal(user.RawClaims, &claims)
		p := simPage{User: user.Subject, Nonce: claims.Nonce, SID: claims.SID}
		token, err := req.Source(hr.Context()).Token()
		switch {
		case r.auth.Challenge(w, hr, err):
			return
		case err == nil:
			p.Token = token.AccessToken
		}
		json.NewEncoder(w).Encode(p)
	})
}

func (r *simReplica) dead() bool {
	select {
	case <-r.killed:
		return true
	default:
		return false
	}
}

// gate holds up whoever belongs to a process that is frozen.
func (r *simReplica) gate(rng *rand.Rand) {
	for !r.dead() {
		r.mu.Lock()
		d := time.Until(r.frozen)
		r.mu.Unlock()
		if d <= 0 {
			return
		}
		select {
		case <-time.After(d + time.Duration(rng.Int64N(int64(3*time.Millisecond)))):
		case <-r.killed:
		}
	}
}

func (r *simReplica) freeze(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = time.Now().Add(d)
	r.naps = append(r.naps, [2]time.Time{time.Now(), r.frozen})
	r.troubled = r.frozen
}

func (r *simReplica) trouble() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.troubled = time.Now()
}

// troubledWithin reports whether the replica is dead, or had trouble of its own
// not long ago.
func (r *simReplica) troubledWithin(d time.Duration) bool {
	if r.dead() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.troubled.IsZero() && time.Since(r.troubled) < d
}

// asleep is how long it has been frozen since a time.
func (r *simReplica) asleep(since time.Time) (d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, nap := range r.naps {
		from, to := nap[0], nap[1]
		if from.Before(since) {
			from = since
		}
		d += max(to.Sub(from), 0)
	}
	return d
}

// simWire carries a replica's requests to the issuer.
type simWire struct{ r *simReplica }

var errSimBroke = errors.New("the connection to the issuer broke")

// RoundTrip implements [http.RoundTripper].
func (c simWire) RoundTrip(req *http.Request) (*http.Response, error) {
	r, w, ctx := c.r, c.r.w, req.Context()
	rng := w.choice(ctx)
	if req.Body == nil {
		req.Body = http.NoBody
	}
	defer req.Body.Close()
	r.gate(rng)
	dial := simLeg(rng)
	if w.faulted("dial", r) {
		dial = time.Duration(rng.Int64N(int64(12 * time.Second)))
	}
	if err := c.wait(ctx, rng, dial); err != nil {
		return nil, err
	}
	// The connection stands. What follows is the last that is asked before the
	// bytes are on the wire.
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if r.dead() {
		return nil, errSimDead
	}
	form, _ := url.ParseQuery(string(body))
	sent := w.judge.ready(r, ctx, req.URL.Path, form)
	r.gate(rng) // it may be frozen even here, and nothing can be done about it
	if r.dead() {
		return nil, errSimDead
	}
	w.judge.sends(sent)
	resp, err := c.answer(ctx, rng, req, body, sent)
	if r.dead() {
		return nil, errSimDead
	}
	if err != nil {
		w.judge.unanswered(sent)
		return nil, err
	}
	w.judge.answered(sent, resp.StatusCode)
	return resp, nil
}

func (c simWire) wait(ctx context.Context, rng *rand.Rand, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.r.killed:
		return errSimDead
	case <-timer.C:
	}
	c.r.gate(rng)
	return nil
}

// answer has the issuer act, once, twice or not at all, and brings its answer.
func (c simWire) answer(ctx context.Context, rng *rand.Rand, req *http.Request, body []byte, sent *simSent) (*http.Response, error) {
	w := c.r.w
	leg, slow, p := simLeg(rng), time.Duration(0), rng.Float64()
	if w.faulted("slow", c.r) {
		slow = time.Duration(rng.Int64N(int64(20 * time.Second)))
	}
	type result struct {
		resp *http.Response
		err  error
	}
	done := make(chan result, 1)
	status := func(code int, text string) result {
		rec := httptest.NewRecorder()
		rec.Header().Set("Content-Type", "application/json")
		rec.WriteHeader(code)
		io.WriteString(rec, text)
		return result{rec.Result(), nil}
	}
	act := func() result {
		return result{w.serveIssuer(req, body), nil}
	}
	decide := func() result {
		half := p < 0.5
		switch token := sent != nil; {
		case half && w.faulted("unavailable", c.r):
			if token && p < 0.25 {
				w.judge.acted(sent, act().resp)
			}
			return status(503, `{"error":"server_error"}`)
		case half && token && w.faulted("busy", c.r):
			return status(429, `{"error":"slow_down"}`)
		case half && token && w.faulted("refuse", c.r):
			w.judge.spoilt(sent, "invalid_grant without cause")
			return status(400, `{"error":"invalid_grant"}`)
		case half && token && w.faulted("twice", c.r):
			w.judge.acted(sent, act().resp)
			w.judge.spoilt(sent, "the issuer got it twice")
			return act()
		case half && w.faulted("answerlost", c.r):
			if res := act(); token {
				w.judge.acted(sent, res.resp)
			}
			return result{nil, errSimBroke}
		}
		res := act()
		if sent != nil {
			w.judge.acted(sent, res.resp)
		}
		return res
	}
	go func() {
		time.Sleep(leg + slow)
		res := decide()
		time.Sleep(leg)
		done <- res
	}()
	var res result
	select {
	case res = <-done:
	case <-ctx.Done():
		res.err = ctx.Err()
	case <-c.r.killed:
		res.err = errSimDead
	}
	c.r.gate(rng)
	if res.err == nil {
		res.resp.Request = req
	}
	return res.resp, res.err
}

func (w *simWorld) serveIssuer(req *http.Request, body []byte) *http.Response {
	in := req.Clone(context.Background())
	in.Body = io.NopCloser(bytes.NewReader(body))
	in.RequestURI = req.URL.RequestURI()
	rec := httptest.NewRecorder()
	w.issuer.ServeHTTP(rec, in)
	return rec.Result()
}

// simBrowser is a browser of one user.
type simBrowser struct {
	*signintest.Browser
	w    *simWorld
	user string

	mu       sync.Mutex
	callback *signintest.Request // the last; guarded by mu, with what follows
	ghosts   []*signintest.Browser
	seen     time.Time // when a page was asked for that has shown its user
	shown    time.Time // when it did
}

func (w *simWorld) newBrowser(user string) *simBrowser {
	b := &simBrowser{w: w, user: user}
	b.Browser = signintest.NewBrowser(w.tb, &signintest.BrowserOptions{Transport: simNet{b}})
	return b
}

// do is what a user does in one tab: as often as it needs, until a page settles.
func (b *simBrowser) do(v *simVisit, r *signintest.Request) *signintest.Page {
	return b.doIn(b.Browser, v, r)
}

func (b *simBrowser) doIn(in *signintest.Browser, v *simVisit, r *signintest.Request) *signintest.Page {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), simVisitKey{}, v), simPatience)
	defer cancel()
	for hops := 0; ; hops++ {
		if strings.Contains(r.URL, "/oidc/callback") {
			b.mu.Lock()
			b.callback = r.Clone()
			b.mu.Unlock()
		}
		page := in.SendContext(ctx, r)
		b.w.note("%s step %d %s %.60s: %d %.100s %v", b.user, v.step, r.Method, r.URL, page.Status, page.Location(), page.Err)
		if r = page.Next(); page.Err != nil || r == nil || hops == 20 {
			return page
		}
	}
}

func simURL(path string) string { return "https://" + simApp + path }

// simNet carries a browser's requests to the application, by way of any
// replica, and to the issuer.
type simNet struct{ b *simBrowser }

// RoundTrip implements [http.RoundTripper].
func (n simNet) RoundTrip(req *http.Request) (*http.Response, error) {
	w, ctx := n.b.w, req.Context()
	rng := w.choice(ctx)
	time.Sleep(simLeg(rng))
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if req.URL.Host != simApp {
		if strings.HasSuffix(req.URL.Path, "/authorize") {
			q := req.URL.Query()
			q.Set("login_hint", n.b.user) // as the user types
			req.URL.RawQuery = q.Encode()
		}
		resp := w.serveIssuer(req, body)
		resp.Request = req
		return resp, nil
	}
	r := w.replica(rng.IntN(1 << 10))
	for tries := 0; tries < 20 && r.dead(); tries++ { // the load balancer knows
		r = w.replica(rng.IntN(1 << 10))
	}
	resp, err := n.ask(ctx, r, rng, req, body)
	if err == nil {
		resp.Request = req
	}
	return resp, err
}

// ask sends a request to a replica. A user who leaves cancels it; a replica
// that is killed says nothing more.
func (n simNet) ask(ctx context.Context, r *simReplica, rng *rand.Rand, req *http.Request, body []byte) (*http.Response, error) {
	w := n.b.w
	v := &simVisit{step: w.visitOf(ctx).step, ghost: w.visitOf(ctx).ghost}
	v.choices.Store(rng.Uint64() >> 1)
	ctx, cancel := context.WithCancel(context.WithValue(ctx, simVisitKey{}, v))
	defer cancel()
	in := httptest.NewRequest(req.Method, req.URL.String(), bytes.NewReader(body)).WithContext(ctx)
	in.Header = req.Header.Clone()
	if secret, _ := r.auth.sess.read(in); secret != nil {
		v.key, v.lease = seal.StoreKey("s", secret), seal.StoreKey("l", secret)
		w.judge.knows(v.key, secret)
	}
	asked := w.judge.asks(n.b, r, v, in, body)
	done := make(chan *http.Response, 1)
	go func() {
		r.gate(rng)
		rec := httptest.NewRecorder()
		r.app.ServeHTTP(rec, in)
		r.gate(rng)
		if !r.dead() {
			done <- rec.Result()
		}
	}()
	select {
	case resp := <-done:
		w.judge.got(asked, resp)
		time.Sleep(simLeg(rng))
		return resp, nil
	case <-ctx.Done():
		w.judge.left(asked)
		return nil, ctx.Err()
	case <-r.killed:
		return nil, io.ErrUnexpectedEOF
	}
}
