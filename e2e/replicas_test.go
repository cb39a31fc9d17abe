// Package e2e proves what several replicas of a site promise together, with
// real processes of the demo site, a real Redis, and a network in between
// that fails on request.
package e2e

import (
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// postToBoth posts one callback to both replicas at once, as a browser with
// two connections or a load balancer that repeats a request would, and returns
// the two browsers and what they were answered.
func (f *fleet) postToBoth(b *signintest.Browser, callback *signintest.Request) (browsers [2]*signintest.Browser, pages [2]*signintest.Page) {
	var wg sync.WaitGroup
	for i, r := range f.replicas() {
		browsers[i] = b.Clone()
		wg.Go(func() { pages[i] = browsers[i].Send(at(r, callback)) })
	}
	wg.Wait()
	return browsers, pages
}

func (f *fleet) wantOneSession(browsers [2]*signintest.Browser, pages [2]*signintest.Page, user string) {
	f.t.Helper()
	for i, p := range pages {
		if p.Status != http.StatusSeeOther || p.Location() == "" || path(p.Location()) != "/me" {
			f.t.Fatalf("callback at replica %d: %s; want 303 to /me", i, describe(p))
		}
		for _, r := range f.replicas() {
			f.wantUser(browsers[i], r, user)
		}
	}
}

func path(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Path
}

// TestCallbackOnBothReplicas: one token request, and both answers lead to the
// same session, which is one record and ends for both.
func TestCallbackOnBothReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for round := 1; round <= 8; round++ {
		b := f.browser()
		browsers, pages := f.postToBoth(b, f.toCallback(b, "alice"))
		f.wantOneSession(browsers, pages, "alice")
		if n := f.redemptions(); n != round {
			t.Fatalf("%d token requests for %d sign-ins", n, round)
		}
		if n := len(f.keysInRedis("s.*")); n != 1 {
			t.Fatalf("%d records for one session", n)
		}
		if p := signOut(browsers[0], f.b); p.Status != http.StatusSeeOther {
			t.Fatalf("sign-out: %s", describe(p))
		}
		f.wantGone(browsers[1], f.a)
		f.wantGone(browsers[1], f.b)
	}
}

// TestCallbackSlowIssuer: the claim on a code is kept up for as long as its
// redemption takes, though that is longer than a dead one's would last.
func TestCallbackSlowIssuer(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.browser()
	callback := f.toCallback(b, "alice")
	f.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Delay: 5 * time.Second})
	start := time.Now()
	browsers, pages := f.postToBoth(b, callback)
	if took := time.Since(start); took < 5*time.Second {
		t.Errorf("answered after %v, before the issuer was", took)
	}
	f.wantOneSession(browsers, pages, "alice")
	if n := f.redemptions(); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// TestKilledWhileRedeeming: nobody can know whether the code was spent, so it
// is not sent again. The browser goes back to its page and starts anew.
func TestKilledWhileRedeeming(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.browser()
	callback := f.toCallback(b, "alice")
	f.issuer.FailNext(signintest.EndpointToken, signintest.Fault{AfterProcessing: true, Hang: make(chan struct{})})
	var wg sync.WaitGroup
	wg.Go(func() { b.Clone().Send(at(f.a, callback)) })
	f.issuer.Await(signintest.EndpointToken, 1)
	f.a.kill()
	wg.Wait()
	p := b.Follow(at(f.b, callback))
	if p.Status != http.StatusOK || path(p.URL) != "/me" {
		t.Errorf("the same callback at the other replica: %s; want /me in the end", describe(p))
	}
	f.wantUser(b, f.b, "alice")
	if n := f.redemptions(); n != 2 {
		t.Errorf("%d token requests; want the one that died, and the new sign-in's", n)
	}
}

// TestReadyz: a readiness probe fails with either, and the log says with
// which.
func TestReadyz(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.browser()
	ready := func(r *replica) int { return b.Send(&signintest.Request{URL: r.url + "/readyz"}).Status }
	for _, r := range f.replicas() {
		if s := ready(r); s != http.StatusOK {
			t.Errorf("replica %s: /readyz is %d", r.name, s)
		}
	}
	f.a.proxy.Cut()
	if a, b := ready(f.a), ready(f.b); a != http.StatusServiceUnavailable || b != http.StatusOK {
		t.Errorf("with A cut off from Redis /readyz is %d on A and %d on B", a, b)
	}
}
