package signin

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "how many seeds the simulation runs; 0: as many as fit into sim.time")
	simTime  = flag.Duration("sim.time", 4*time.Second, "how long the simulation runs fresh seeds")
	simFirst = flag.Uint64("sim.seed", 1, "the first seed; 0: a new one")
	simWhole = flag.Bool("sim.whole", false, "do not cut a script that fails")
	simShow  = flag.Bool("sim.trace", false, "print what happens in the first seed")
)

// TestSimulation runs worlds of fresh seeds. A seed that fails is cut to a short
// script, to be kept in testdata/sim.
func TestSimulation(t *testing.T) {
	first := *simFirst
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	t.Logf("the first seed is %d", first)
	if *simShow {
		found, _ := simulate(t, newScript(first), func(line string) { fmt.Println(line) })
		t.Log(newScript(first), found)
		return
	}
	start := time.Now()
	var next, steps atomic.Int64
	var virtual atomic.Int64
	var stop atomic.Bool
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for !stop.Load() {
				n := next.Add(1) - 1
				if *simSeeds > 0 && n >= int64(*simSeeds) || *simSeeds == 0 && time.Since(start) > *simTime {
					next.Add(-1)
					return
				}
				s := newScript(first + uint64(n))
				found, took := simulate(t, s, nil)
				virtual.Add(int64(took))
				steps.Add(int64(len(s.steps)))
				if len(found) > 0 && !stop.Swap(true) {
					t.Errorf("seed %d, the %dth: %v", s.seed, n+1, found[0])
					if !*simWhole {
						simReport(t, s, simKind(found[0]))
					}
				}
			}
		})
	}
	workers.Wait()
	took := time.Since(start)
	t.Logf("%d seeds from %d on, %d steps, %v of virtual time in %v: %.0f minutes a minute",
		next.Load(), first, steps.Load(), time.Duration(virtual.Load()).Round(time.Second), took.Round(time.Millisecond),
		float64(virtual.Load())/float64(took))
}

// simReport cuts a script that fails, and prints it with what happens in it.
func simReport(t *testing.T, s simScript, kind string) {
	fails := func(s simScript) bool {
		for range 3 {
			found, _ := simulate(t, s, nil)
			if slices.ContainsFunc(found, func(f string) bool { return simKind(f) == kind }) {
				return true
			}
		}
		return false
	}
	if !fails(s) {
		t.Log("it does not fail again")
		return
	}
	s = shrinkScript(s, fails)
	var mu sync.Mutex
	var lines []string
	var found []string
	for range 3 {
		lines = nil
		found, _ = simulate(t, s, func(line string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, line)
		})
		if len(found) > 0 {
			break
		}
	}
	for _, line := range lines {
		fmt.Println(line)
	}
	t.Errorf("the shortest script:\n%s%v", s, found)
}

// simKind is what the judge says without its numbers and times.
func simKind(found string) string {
	_, kind, _ := strings.Cut(found, ": ")
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '.' || r == '-' {
			return -1
		}
		return r
	}, kind)
}

// TestSimulationScripts runs the scripts of faults that were found once.
func TestSimulationScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/sim/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := readScript(string(text))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				found, _ := simulate(t, s, nil)
				for _, f := range found {
					t.Error(f)
				}
			}
		})
	}
}

// A script says all that happens: it can be written down and read again.
func TestSimulationScriptReads(t *testing.T) {
	for seed := range uint64(50) {
		s := newScript(seed)
		again, err := readScript(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("seed %d: %v\n%s\nis read as\n%s", seed, err, s, again)
		}
	}
}

// simOps are the kinds of steps. Users come first, then the adversary.
var simOps map[string]simOp
var simOpNames []string

func init() {
	replicas := func(op string) func(w *simWorld, s simStep) {
		return func(w *simWorld, s simStep) {
			r := w.replica(s.a)
			if s.b%4 == 0 {
				r = nil // all
			}
			w.fault(op, r, s.d)
		}
	}
	simOps = map[string]simOp{
		"page":        {weight: 10, run: simOpen("/page")},
		"fresh":       {weight: 10, run: simOpen("/fresh")},
		"more":        {weight: 3, run: simOpen("/more")},
		"tabs":        {weight: 4, run: simTabs},
		"burst":       {weight: 6, run: simBurst},
		"leave":       {weight: 3, longest: 100 * time.Millisecond, run: simLeave},
		"double":      {weight: 4, run: simDouble},
		"replay":      {weight: 3, run: simReplay},
		"ghost":       {weight: 4, run: simGhost},
		"signout":     {weight: 4, run: simSignOut},
		"admin":       {weight: 2, run: simAdmin},
		"logout":      {weight: 2, run: simLogout},
		"rotate":      {weight: 1, run: simRotate},
		"cut":         {weight: 4, fault: true, longest: 40 * time.Second, run: replicas("cut")},
		"drop":        {weight: 3, fault: true, longest: 30 * time.Second, run: replicas("drop")},
		"forget":      {weight: 3, fault: true, longest: 30 * time.Second, run: replicas("forget")},
		"silence":     {weight: 3, fault: true, longest: 30 * time.Second, run: replicas("silence")},
		"late":        {weight: 3, fault: true, longest: 30 * time.Second, run: replicas("late")},
		"dial":        {weight: 3, fault: true, longest: 60 * time.Second, run: replicas("dial")},
		"slow":        {weight: 3, fault: true, longest: 60 * time.Second, run: replicas("slow")},
		"unavailable": {weight: 2, fault: true, longest: 30 * time.Second, run: replicas("unavailable")},
		"busy":        {weight: 1, fault: true, longest: 30 * time.Second, run: replicas("busy")},
		"refuse":      {weight: 1, fault: true, longest: 20 * time.Second, run: replicas("refuse")},
		"twice":       {weight: 1, fault: true, longest: 20 * time.Second, run: replicas("twice")},
		"answerlost":  {weight: 2, fault: true, longest: 20 * time.Second, run: replicas("answerlost")},
		"freeze":      {weight: 6, fault: true, longest: time.Minute, run: simFreeze},
		"kill":        {weight: 4, fault: true, longest: 20 * time.Second, run: simKill},
		"pause":       {weight: 4, fault: true, longest: 40 * time.Second, run: simPause},
		"stall":       {weight: 4, fault: true, longest: 6 * time.Second, run: simStall},
		"restart":     {weight: 1, fault: true, run: simRestart},
		"failover":    {weight: 2, fault: true, longest: 2 * time.Second, run: simFailover},
		"evict":       {weight: 2, fault: true, run: simEvict},
	}
	simOpNames = slices.Sorted(maps.Keys(simOps))
}

func (w *simWorld) browser(n int) *simBrowser { return w.browsers[n%len(w.browsers)] }

func (w *simWorld) replica(n int) *simReplica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replicas[n%len(w.replicas)]
}

func simOpen(path string) func(*simWorld, simStep) {
	return func(w *simWorld, s simStep) {
		w.browser(s.a).do(&simVisit{step: s.id}, &signintest.Request{URL: simURL(path), Activated: true})
	}
}

// simTabs opens pages in several tabs at once.
func simTabs(w *simWorld, s simStep) {
	simTogether(2+s.b%3, func(i int) {
		w.browser(s.a).do(&simVisit{step: s.id<<8 + i}, &signintest.Request{URL: simURL([]string{"/page", "/fresh", "/more"}[i%3]), Activated: true})
	})
}

// simBurst is a page whose scripts all want a new token.
func simBurst(w *simWorld, s simStep) {
	simTogether(3+s.b%5, func(i int) {
		time.Sleep(time.Duration(w.rng(5, uint64(s.id), uint64(i)).Int64N(int64(10 * time.Millisecond))))
		w.browser(s.a).do(&simVisit{step: s.id<<8 + i}, &signintest.Request{URL: simURL("/fresh"), From: simURL("/page"), Mode: "cors", Dest: "empty"})
	})
}

func simTogether(n int, f func(int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// simLeave is a user who does not wait.
func simLeave(w *simWorld, s simStep) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), simVisitKey{}, &simVisit{step: s.id}), max(s.d, time.Microsecond))
	defer cancel()
	r := &signintest.Request{URL: simURL([]string{"/fresh", "/page"}[s.b%2]), Activated: true}
	for hops := 0; r != nil && hops < 10; hops++ {
		page := w.browser(s.a).SendContext(ctx, r)
		r = page.Next()
	}
}

// simDouble is a browser that posts a callback twice at once.
func simDouble(w *simWorld, s simStep) {
	b := w.browser(s.a)
	r := &signintest.Request{URL: simURL("/oidc/login"), Activated: true}
	ctx := context.WithValue(context.Background(), simVisitKey{}, &simVisit{step: s.id << 8})
	for hops := 0; r != nil && hops < 6; hops++ {
		if signintest.To("/oidc/callback")(r) {
			simTogether(2+s.b%3, func(i int) { b.do(&simVisit{step: s.id<<8 + i + 1}, r.Clone()) })
			return
		}
		r = b.SendContext(ctx, r).Next()
	}
}

// simReplay posts the last callback again, as Back does.
func simReplay(w *simWorld, s simStep) {
	b := w.browser(s.a)
	b.mu.Lock()
	last := b.callback
	b.mu.Unlock()
	if last != nil {
		b.do(&simVisit{step: s.id}, last.Clone())
	}
}

// simGhost opens a page with cookies of long ago.
func simGhost(w *simWorld, s simStep) {
	b := w.browser(s.a)
	b.mu.Lock()
	ghosts := b.ghosts
	b.mu.Unlock()
	if len(ghosts) == 0 {
		return
	}
	ghost := ghosts[s.b%len(ghosts)]
	ctx := context.WithValue(context.Background(), simVisitKey{}, &simVisit{step: s.id, ghost: true})
	ghost.SendContext(ctx, &signintest.Request{URL: simURL([]string{"/page", "/fresh"}[s.b%2]), Activated: true})
}

func simSignOut(w *simWorld, s simStep) {
	b := w.browser(s.a)
	b.haunt()
	b.do(&simVisit{step: s.id}, &signintest.Request{Method: "POST", URL: simURL("/signout"), Form: url.Values{}, From: simURL("/page"), Activated: true})
}

// haunt keeps the cookies that a browser has now.
func (b *simBrowser) haunt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ghosts = append(b.ghosts, b.Clone())
}

// simAdmin ends all sessions of a user.
func simAdmin(w *simWorld, s simStep) {
	user := w.users[s.b%len(w.users)]
	for _, b := range w.browsers {
		if b.user == user {
			b.haunt()
		}
	}
	r := w.replica(s.a)
	if r.dead() {
		return
	}
	out := w.judge.signsOut(&simOut{user: user})
	v := &simVisit{step: s.id}
	ctx := context.WithValue(context.Background(), simVisitKey{}, v)
	r.gate(w.choice(ctx))
	err := r.auth.SignOutUser(ctx, w.issuer.URL(), user)
	r.gate(w.choice(ctx))
	if err == nil && !r.dead() {
		w.judge.signedOut(out)
	}
}

// simLogout is a logout token of the issuer's.
func simLogout(w *simWorld, s simStep) {
	b := w.browser(s.a)
	sid := ""
	if s.b%3 != 0 {
		if sid = w.judge.sidOf(b); sid == "" {
			return
		}
	}
	claims := w.issuer.LogoutToken(b.user, sid)
	out := &simOut{sid: sid}
	if sid == "" {
		out.user = b.user
	}
	b.haunt()
	raw := w.issuer.Sign(claims, signintest.SignOptions{Alg: "ES256", Header: map[string]any{"typ": "logout+jwt"}})
	out = w.judge.signsOut(out)
	issuer := &simBrowser{w: w, user: "the issuer"}
	issuer.Browser = signintest.NewBrowser(w.tb, &signintest.BrowserOptions{Transport: simNet{issuer}})
	page := issuer.do(&simVisit{step: s.id}, &signintest.Request{Method: "POST", URL: simURL("/oidc/backchannel-logout"), Form: url.Values{"logout_token": {raw}}})
	if page.Status == http.StatusOK {
		w.judge.signedOut(out)
	}
}

func (j *simJudge) signsOut(o *simOut) *simOut {
	j.mu.Lock()
	defer j.mu.Unlock()
	o.start = time.Now()
	j.outs = append(j.outs, o)
	return o
}

func (j *simJudge) signedOut(o *simOut) {
	j.mu.Lock()
	defer j.mu.Unlock()
	o.ack = time.Now()
}

// sidOf is the session at the issuer that a browser's newest session is of.
func (j *simJudge) sidOf(b *simBrowser) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var newest *simSession
	for _, s := range j.sessions {
		if s.browser == b && s.sid != "" && (newest == nil || s.created.After(newest.created)) {
			newest = s
		}
	}
	if newest == nil {
		return ""
	}
	return newest.sid
}

func simFreeze(w *simWorld, s simStep) {
	w.fault("freeze", w.replica(s.a), s.d)
	w.replica(s.a).freeze(s.d)
}

// simKill ends a process between any two of its steps; another takes its place.
func simKill(w *simWorld, s simStep) {
	n := s.a % len(w.replicas)
	w.mu.Lock()
	r := w.replicas[n]
	w.mu.Unlock()
	if r.dead() {
		return
	}
	w.fault("kill", r, s.d+simStale)
	w.mu.Lock()
	select {
	case <-r.killed:
	default:
		close(r.killed)
	}
	w.mu.Unlock()
	time.Sleep(s.d)
	next := w.start(n)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replicas[n] = next
}

// simRotate has the issuer sign with another key. Of two rotations within a
// minute the second need not be noticed at once.
func simRotate(w *simWorld, _ simStep) {
	w.fault("rotate", nil, simStale)
	w.issuer.RotateKey()
}

func simPause(w *simWorld, s simStep) {
	w.fault("pause", nil, s.d+simStale)
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if until := time.Now().Add(s.d); until.After(w.store.paused) {
		w.store.paused = until
	}
}

// simStall is a pause of the store while one replica holds a lease, for its issuer
// is slow, and others wait for it.
func simStall(w *simWorld, s simStep) {
	w.fault("slow", nil, time.Second)
	var burst sync.WaitGroup
	burst.Go(func() { simBurst(w, s) })
	time.Sleep(500 * time.Millisecond)
	pause := s // the burst reads s
	pause.d += time.Second
	simPause(w, pause)
	burst.Wait()
}

func simRestart(w *simWorld, _ simStep) {
	w.fault("restart", nil, simStale)
	w.store.restart()
}

func simFailover(w *simWorld, s simStep) {
	w.fault("failover", nil, simStale)
	w.store.failover(s.d)
}

func simEvict(w *simWorld, s simStep) {
	w.fault("evict", nil, simStale)
	w.store.evict([]string{"s.", "l.", "c.", "u.", "i.", "o."}[s.a%6], s.b)
}

func simClaimKey(tx *transaction) string { return seal.StoreKey("c", tx.ID) }
func simLeaseKey(secret []byte) string   { return seal.StoreKey("l", secret) }
