package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

var (
	steps = flag.Int("steps", 80, "number of steps of the randomised test")
	seed  = flag.Uint64("seed", 0, "seed of the randomised test; 0: a new one")
)

const (
	guests    = 6
	maxGhosts = 24

	// copyFor is how long a replica that is cut off may serve its copy.
	copyFor = 2 * time.Second

	// settle bounds how long after the end of all trouble a replica may still
	// say 503, and how long a takeover of a dead process's lease takes.
	settle = 8 * time.Second
)

// guest is a browser and what it must see.
type guest struct {
	name string
	user string
	b    *signintest.Browser
	in   bool
}

// ghost is the cookies of a session that has ended.
type ghost struct {
	user  string
	b     *signintest.Browser
	since time.Time
}

// soak is the randomised test: a fleet, and a model of what its users must see.
type soak struct {
	*fleet
	rng     *rand.Rand
	guests  []*guest
	ghosts  []ghost
	spoilt  *replica    // the one that is cut off, if any
	until   int         // the step that mends it
	short   atomic.Bool // tokens expire at once
	probe   *signintest.Browser
	step    int
	history []string
}

// TestSoak drives two replicas with a random sequence of what users, issuers,
// networks and operators do, and checks after each step that no code and no
// refresh token has been sent twice, that nobody was signed out without cause,
// that no session lives after its sign-out, and that nobody sees another user.
func TestSoak(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("%d steps; the same choices again: -steps=%d -seed=%d", *steps, *steps, n)
	s := &soak{rng: rand.New(rand.NewPCG(n, 1))}
	s.fleet = newFleet(t, func(o *options) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.Users = nil
			for i := range guests / 2 { // two guests share each account
				b.Users = append(b.Users, signintest.User{Subject: fmt.Sprint("user-", i)})
			}
			b.EditTokenResponse = func(_ signintest.Call, body map[string]any) {
				if s.short.Load() {
					body["expires_in"] = 0
				}
			}
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the last steps:\n" + strings.Join(s.history[max(0, len(s.history)-80):], "\n"))
		}
	})
	s.probe = s.browser()
	for i := range guests {
		s.guests = append(s.guests, &guest{name: fmt.Sprint("guest ", i), user: fmt.Sprint("user-", i/2), b: s.browser()})
	}
	start := time.Now()
	counts := map[string]int{}
	for s.step = 1; s.step <= *steps && !t.Failed(); s.step++ {
		op := s.choose()
		counts[op.name]++
		s.note("%s", op.name)
		op.run()
		s.sent.check(t)
		s.haunt(1)
		if s.spoilt != nil && s.step >= s.until {
			s.mend()
		}
		if s.step%500 == 0 {
			s.checkLogs()
			s.issuer.ForgetCalls()
			t.Logf("step %d after %v", s.step, time.Since(start).Round(time.Second))
		}
	}
	s.mend()
	s.haunt(len(s.ghosts))
	for _, g := range s.guests {
		for _, r := range s.replicas() {
			s.visit(g, r)
		}
	}
	s.sent.check(t)
	t.Logf("%v in %v, %d codes and refresh tokens sent: %v", *steps, time.Since(start).Round(time.Millisecond), s.sent.sent(), counts)
}

func (s *soak) note(format string, args ...any) {
	s.history = append(s.history, fmt.Sprintf("%s %d: ", time.Now().Format("15:04:05.000"), s.step)+fmt.Sprintf(format, args...))
	if len(s.history) > 400 {
		s.history = s.history[200:]
	}
}

type op struct {
	name   string
	weight int
	run    func()
}

func (s *soak) choose() op {
	ops := []op{
		{"visit", 10, func() { s.visit(s.anyGuest(), s.any()) }},
		{"api", 24, func() { s.api(s.anyGuest(), s.any()) }},
		{"sign in", 24, s.signInSomebody},
		{"sign out", 8, s.signOutSomebody},
		{"burst", 20, func() { s.burst(nil) }},
		{"burst in trouble", 12, s.troubledBurst},
		{"sign-in in trouble", 4, s.troubledSignIn},
		{"issuer signs out", 2, s.issuerSignsOut},
		{"restart", 2, s.restart},
		{"kill in a burst", 2, s.killInBurst},
		{"redis lost", 1, s.redisLost},
		{"cut off", 6, s.spoil},
	}
	total := 0
	for _, o := range ops {
		total += o.weight
	}
	n := s.rng.IntN(total)
	for _, o := range ops {
		if n -= o.weight; n < 0 {
			s.short.Store(s.rng.IntN(4) > 0)
			return o
		}
	}
	panic("unreachable")
}

func (s *soak) anyGuest() *guest { return s.guests[s.rng.IntN(len(s.guests))] }
func (s *soak) any() *replica    { return s.replicas()[s.rng.IntN(2)] }

// guestWho is a guest who is signed in, or is not, if there is one.
func (s *soak) guestWho(in bool) *guest {
	first := s.rng.IntN(len(s.guests))
	for i := range s.guests {
		if g := s.guests[(first+i)%len(s.guests)]; g.in == in {
			return g
		}
	}
	return s.guests[first]
}

// sound is a replica that is not cut off.
func (s *soak) sound() *replica {
	for {
		if r := s.any(); r != s.spoilt {
			return r
		}
	}
}

func (s *soak) other(r *replica) *replica {
	if r == s.a {
		return s.b
	}
	return s.a
}

func (s *soak) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("step %d: "+format, append([]any{s.step}, args...)...)
	s.note("ERROR "+format, args...)
}

// visit asks who is signed in.
func (s *soak) visit(g *guest, r *replica) { s.observe(g, r, me) }

// api uses, and maybe refreshes, the token.
func (s *soak) api(g *guest, r *replica) { s.observe(g, r, callAPI) }

// observe wants what the model says. A replica that is cut off may answer with
// 503, but with nothing that is wrong; one that is not must give the answer
// within the time that a takeover needs.
func (s *soak) observe(g *guest, r *replica, ask func(*signintest.Browser, *replica) (*signintest.Page, string)) {
	s.t.Helper()
	if r == s.spoilt {
		p, sub := ask(g.b, r)
		s.judge(g, r, p, sub)
		return
	}
	redistest.Wait(s.t, settle, g.name+" to be answered by "+r.name, func() error {
		p, sub := ask(g.b, r)
		if p.Status >= 500 {
			return errors.New(describe(p))
		}
		s.judge(g, r, p, sub)
		return nil
	})
}

// judge reports an answer that is wrong whatever the trouble.
func (s *soak) judge(g *guest, r *replica, p *signintest.Page, sub string) {
	s.t.Helper()
	switch {
	case p.Err != nil:
		s.errorf("%s at %s: %v", g.name, r.name, p.Err)
	case p.Status == http.StatusOK && sub != g.user:
		s.errorf("%s, who is %s, sees the page of %q", g.name, g.user, sub)
	case p.Status == http.StatusOK && !g.in:
		s.errorf("%s is served by %s and not signed in", g.name, r.name)
	case s.challenged(p) && g.in:
		s.errorf("%s was signed out without cause, by %s", g.name, r.name)
	case p.Status != http.StatusOK && p.Status < 500 && !s.challenged(p):
		s.errorf("%s at %s: %s", g.name, r.name, describe(p))
	case p.Status >= 500 && (len(p.Header["Set-Cookie"]) > 0 || p.Location() != ""):
		s.errorf("%s at %s: a failure that touches cookies or redirects: %s", g.name, r.name, describe(p))
	}
}

// haunt tries the cookies of sessions that have ended.
func (s *soak) haunt(n int) {
	s.t.Helper()
	for range min(n, len(s.ghosts)) {
		h := s.ghosts[s.rng.IntN(len(s.ghosts))]
		r := s.any()
		limit := copyFor + 200*time.Millisecond
		if r != s.spoilt {
			limit = time.Second // for the invalidation, on a busy machine
		}
		redistest.Wait(s.t, limit+settle, "a sign-out to count at "+r.name, func() error {
			asked := time.Now()
			p, sub := me(h.b, r)
			if p.Status == http.StatusOK && asked.Sub(h.since) <= limit {
				return errors.New("still served")
			}
			if p.Status == http.StatusOK {
				s.errorf("a session of %s that ended %v ago lives at %s, as %s", h.user, asked.Sub(h.since), r.name, sub)
			}
			return nil
		})
	}
}

// ended makes the cookies of a guest a ghost's, and keeps them with the guest.
func (s *soak) ended(g *guest) {
	g.in = false
	s.ghosts = append(s.ghosts, ghost{g.user, g.b.Clone(), time.Now()})
	if len(s.ghosts) > maxGhosts {
		s.ghosts = s.ghosts[1:]
	}
}

// signInSomebody signs a guest in, by one callback or the same one twice.
func (s *soak) signInSomebody() {
	g := s.guestWho(false)
	if g.in {
		s.visit(g, s.sound())
		return
	}
	s.signInGuest(g)
}

func (s *soak) signInGuest(g *guest) {
	begin, end := s.sound(), s.sound()
	p, r := s.toIssuer(g.b, begin.url+"/me", g.user)
	if r != nil {
		p, r = g.b.FollowUntil(r, signintest.To("/oidc/callback"))
	}
	if r == nil {
		s.errorf("%s, who is not signed in, gets no challenge at %s: %s", g.name, begin.name, describe(p))
		return
	}
	before := s.redemptions()
	if s.spoilt == nil && s.rng.IntN(2) == 0 {
		browsers, pages := s.postToBoth(g.b, r)
		for i, p := range pages {
			if p.Status != http.StatusSeeOther || path(p.Location()) != "/me" {
				s.errorf("callback of %s at both, %s: %s", g.name, s.replicas()[i].name, describe(p))
			}
		}
		g.b = browsers[s.rng.IntN(2)]
	} else if p := g.b.Send(at(end, r)); p.Status != http.StatusSeeOther || path(p.Location()) != "/me" {
		s.errorf("callback of %s at %s: %s", g.name, end.name, describe(p))
	}
	g.in = true
	s.visit(g, end)
	if n := s.redemptions() - before; n != 1 {
		s.errorf("%d redemptions for one sign-in of %s", n, g.name)
	}
}

// signOutSomebody ends a session, sometimes at a replica that cannot.
func (s *soak) signOutSomebody() {
	g, r := s.guestWho(true), s.any()
	if !g.in {
		return
	}
	kept := g.b.Clone()
	p := signOut(g.b, r)
	switch {
	case p.Status == http.StatusSeeOther:
		g.in = false
		s.ghosts = append(s.ghosts, ghost{g.user, kept, time.Now()})
	case r == s.spoilt && unavailable(p) == nil:
		// It may or may not have arrived, and may yet. The user tries again.
		r = s.other(r)
		if p := signOut(g.b, r); p.Status != http.StatusSeeOther {
			s.errorf("second sign-out of %s at %s: %s", g.name, r.name, describe(p))
		}
		s.ended(g)
		s.ghosts = append(s.ghosts, ghost{g.user, kept, time.Now()})
	default:
		s.errorf("sign-out of %s at %s: %s", g.name, r.name, describe(p))
	}
	s.ghosts = s.ghosts[max(0, len(s.ghosts)-maxGhosts):]
}

// issuerSignsOut ends all sessions of an account through the back channel.
func (s *soak) issuerSignsOut() {
	user := s.anyGuest().user
	s.backChannel(s.sound(), user, "")
	for _, g := range s.guests {
		if g.user == user && g.in {
			s.ended(g)
			for _, r := range s.replicas() {
				if r != s.spoilt {
					s.wantGone(g.b, r)
				}
			}
		}
	}
}
