package e2e

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

// burst sends calls of one guest to both replicas at once, with the issuer
// taking its time, and something happening meanwhile.
func (s *soak) burst(meanwhile func(*guest)) {
	g := s.guestWho(true)
	if !g.in {
		s.visit(g, s.sound())
		return
	}
	s.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Delay: time.Duration(s.rng.IntN(300)) * time.Millisecond})
	var wg sync.WaitGroup
	var mu sync.Mutex
	type answer struct {
		r   *replica
		p   *signintest.Page
		sub string
	}
	var answers []answer
	for i := range 2 + s.rng.IntN(4) {
		r := s.replicas()[i%2]
		wg.Go(func() {
			p, sub := callAPI(g.b, r)
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, answer{r, p, sub})
		})
	}
	if meanwhile != nil {
		meanwhile(g)
	}
	wg.Wait()
	s.issuer.Heal()
	for _, a := range answers {
		switch {
		case meanwhile == nil && a.p.Status >= 500 && a.r != s.spoilt && s.spoilt == nil:
			s.errorf("%s at %s, without any trouble: %s", g.name, a.r.name, describe(a.p))
		case meanwhile != nil && a.p.Err != nil: // a replica that restarts
		default:
			s.judge(g, a.r, a.p, a.sub)
		}
	}
	for _, r := range s.replicas() {
		s.api(g, r)
	}
}

// pause lets a random part of a second, or of limit, go by.
func (s *soak) pause(limit time.Duration) {
	elapse(s.t, time.Now(), time.Duration(s.rng.Int64N(int64(limit))))
}

// troubledBurst is a burst in which something fails and comes back. None of
// it lasts as long as a lease stands that nobody renews, so none of it may
// cost anybody a session or a refresh token.
func (s *soak) troubledBurst() {
	s.mend()
	s.burst(func(*guest) { s.anyTrouble() })
}

// anyTrouble breaks something for a moment.
func (s *soak) anyTrouble() {
	r := s.any()
	s.pause(200 * time.Millisecond)
	const brief = 1200 * time.Millisecond
	switch n := s.rng.IntN(7); n {
	case 0:
		s.note("network of both")
		s.a.proxy.Hold()
		s.b.proxy.Hold()
		s.pause(2 * time.Second)
		s.a.proxy.Restore()
		s.b.proxy.Restore()
	case 1:
		s.note("redis pauses")
		s.redis.Pause()
		s.pause(2 * time.Second)
		s.redis.Resume()
	case 2:
		s.note("connections of %s drop", r.name)
		r.proxy.Drop()
	case 3:
		s.note("network of %s", r.name)
		r.proxy.Hold()
		s.pause(brief)
		r.proxy.Restore()
	case 4:
		s.note("answers to %s", r.name)
		r.proxy.HoldReplies()
		s.pause(brief)
		if s.rng.IntN(2) == 0 {
			r.proxy.Drop()
		}
		r.proxy.Restore()
	case 5:
		s.note("slow network of %s", r.name)
		r.proxy.Delay(100 * time.Millisecond)
		s.pause(brief)
		r.proxy.Restore()
	case 6:
		s.note("%s restarts in good order", r.name)
		r.stop()
		r.start()
	}
}

// troubledSignIn has a sign-in meet the same. It may fail, but the next one
// must not, and the code is spent once.
func (s *soak) troubledSignIn() {
	s.mend()
	g := s.guestWho(false)
	if g.in {
		s.visit(g, s.sound())
		return
	}
	p, r := s.toIssuer(g.b, s.any().url+"/me", g.user)
	if r != nil {
		p, r = g.b.FollowUntil(r, signintest.To("/oidc/callback"))
	}
	if r == nil {
		s.errorf("%s gets no challenge: %s", g.name, describe(p))
		return
	}
	s.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Delay: time.Duration(s.rng.IntN(300)) * time.Millisecond})
	var browsers [2]*signintest.Browser
	var pages [2]*signintest.Page
	done := make(chan struct{})
	go func() {
		defer close(done)
		browsers, pages = s.postToBoth(g.b, r)
	}()
	s.anyTrouble()
	<-done
	s.issuer.Heal()
	for i, p := range pages {
		if p.Err == nil && p.Status != http.StatusSeeOther && p.Status < 500 {
			s.errorf("callback of %s in trouble: %s", g.name, describe(p))
		}
		if p.Status == http.StatusSeeOther {
			g.b = browsers[i]
		}
	}
	s.finish(g)
}

// finish opens the page until the guest is signed in: at once, or by one more
// sign-in.
func (s *soak) finish(g *guest) {
	r := s.sound()
	redistest.Wait(s.t, settle, g.name+" to get an answer", func() error {
		p, sub := me(g.b, r)
		switch {
		case s.challenged(p):
			s.signInGuest(g)
		case p.Status == http.StatusOK && sub == g.user:
			g.in = true
		case p.Status < 500:
			s.errorf("%s after trouble: %s", g.name, describe(p))
		default:
			return errors.New(describe(p))
		}
		return nil
	})
}

// spoil cuts one replica off for the next few steps.
func (s *soak) spoil() {
	s.mend()
	s.spoilt, s.until = s.any(), s.step+1+s.rng.IntN(6)
	switch s.rng.IntN(4) {
	case 0:
		s.note("%s refused", s.spoilt.name)
		s.spoilt.proxy.Cut()
	case 1:
		s.note("%s in a black hole", s.spoilt.name)
		s.spoilt.proxy.Hold()
	case 2:
		s.note("%s gets no answers", s.spoilt.name)
		s.spoilt.proxy.HoldReplies()
	case 3:
		s.note("%s has a slow network", s.spoilt.name)
		s.spoilt.proxy.Delay(time.Duration(300+s.rng.IntN(1500)) * time.Millisecond)
	}
	s.front.avoid(s.spoilt)
}

// mend ends that, and wants the replica back in time.
func (s *soak) mend() {
	r := s.spoilt
	if r == nil {
		return
	}
	s.note("%s is mended", r.name)
	r.proxy.Restore()
	s.recovered(r)
	s.spoilt = nil
	s.front.avoid(nil)
}

// recovered waits for a replica to answer from the store again.
func (s *soak) recovered(r *replica) {
	redistest.Wait(s.t, 2*recovery, "replica "+r.name+" to recover", func() error {
		if p := s.probe.Send(&signintest.Request{URL: r.url + "/readyz"}); p.Status != http.StatusOK {
			return errors.New(describe(p))
		}
		return nil
	})
}

// restart ends a replica between requests, in good order or not.
func (s *soak) restart() {
	s.mend()
	r := s.any()
	if s.rng.IntN(2) == 0 {
		s.note("%s restarts", r.name)
		r.stop()
	} else {
		s.note("%s is killed", r.name)
		r.kill()
	}
	if s.rng.IntN(2) == 0 { // the other one serves meanwhile
		g := s.anyGuest()
		s.visit(g, s.other(r))
		s.api(g, s.other(r))
	}
	r.start()
}

// killInBurst kills a replica in the middle of a refresh. If the refresh token
// was spent, the user signs in once; everybody else notices nothing.
func (s *soak) killInBurst() {
	s.mend()
	g := s.guestWho(true)
	if !g.in {
		return
	}
	r := s.any()
	first := s.sent.sent()
	fault := signintest.Fault{AfterProcessing: s.rng.IntN(2) == 0, Delay: 300 * time.Millisecond}
	s.issuer.FailNext(signintest.EndpointToken, fault)
	done := make(chan struct{})
	go func() {
		defer close(done)
		callAPI(g.b, r)
	}()
	s.pause(400 * time.Millisecond)
	s.note("%s is killed while it serves %s, token spent: %t", r.name, g.name, fault.AfterProcessing)
	r.kill()
	<-done
	s.issuer.Heal()
	s.sent.excuse(first, 1)
	o := s.other(r)
	redistest.Wait(s.t, settle, "a takeover", func() error {
		p, sub := callAPI(g.b, o)
		switch {
		case s.challenged(p):
			p, req := s.toIssuer(g.b, o.url+"/api", g.user)
			if req == nil {
				s.errorf("%s after the kill: %s", g.name, describe(p))
				return nil
			}
			if p = g.b.Follow(req); subjectOf(p) != g.user {
				s.errorf("%s signs in after the kill: %s", g.name, describe(p))
			}
		case p.Status == http.StatusOK && sub == g.user:
		case p.Status < 500:
			s.errorf("%s after the kill: %s", g.name, describe(p))
		default:
			return errors.New(describe(p))
		}
		return nil
	})
	r.start()
	s.api(g, r)
}

// redisLost empties Redis, by a restart or by command: everybody is signed
// out, with cause.
func (s *soak) redisLost() {
	s.mend()
	if s.rng.IntN(2) == 0 {
		s.note("redis restarts empty")
		s.redis.Kill()
		s.redis.Run()
	} else {
		s.note("redis is flushed")
		s.redis.MustDo("FLUSHALL")
	}
	for _, r := range s.replicas() {
		s.recovered(r)
	}
	for _, g := range s.guests {
		if g.in {
			s.ended(g)
			for _, r := range s.replicas() {
				s.wantGone(g.b, r)
			}
		}
	}
}
