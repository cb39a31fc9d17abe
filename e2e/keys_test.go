package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

// rotating is the middle of a rotation: the new key is first on one replica
// and still second on the other.
func rotating(o *options) {
	o.keys = [2]string{twoKeys[1] + "," + twoKeys[0], twoKeys[0] + "," + twoKeys[1]}
}

// TestRotatedKeys: replicas with the same keys in another order serve each
// other's sessions, refresh them, and answer each other's challenges.
func TestRotatedKeys(t *testing.T) {
	t.Parallel()
	f := newFleet(t, rotating, shortTokens)
	made := map[string]*signintest.Browser{}
	for _, r := range f.replicas() {
		b := f.browser()
		// Begun at one and finished at the other.
		other := f.a
		if r == f.a {
			other = f.b
		}
		p, req := f.toIssuer(b, other.url+"/me", "alice")
		if req == nil {
			t.Fatalf("/me: %s", describe(p))
		}
		if p, req = b.FollowUntil(req, signintest.To("/oidc/callback")); req == nil {
			t.Fatalf("no callback: %s", describe(p))
		}
		if p := b.Send(at(r, req)); p.Status != http.StatusSeeOther {
			t.Fatalf("callback at %s: %s", r.name, describe(p))
		}
		made[r.name] = b
	}
	for _, b := range made {
		for _, r := range f.replicas() {
			f.wantUser(b, r, "alice")
		}
	}
	f.expiredToken("alice")
	for name, b := range made {
		for i := range 4 {
			r := f.replicas()[i%2]
			if p, sub := callAPI(b, r); sub != "alice" {
				t.Errorf("a session made on %s, used on %s: %s", name, r.name, describe(p))
			}
		}
	}
	if n, m := f.redemptions(), f.refreshes(); n != 2 || m != 2 {
		t.Errorf("%d redemptions and %d refreshes, want 2 and 2", n, m)
	}

	// A sign-out by the issuer on either finds what the other wrote.
	f.backChannel(f.a, "alice", "")
	for _, b := range made {
		f.wantGone(b, f.a)
		f.wantGone(b, f.b)
	}
}

// backChannel posts a logout token of the issuer's to a replica.
func (f *fleet) backChannel(r *replica, subject, sid string) {
	f.t.Helper()
	token := f.issuer.Sign(f.issuer.LogoutToken(subject, sid), signintest.SignOptions{Header: map[string]any{"typ": "logout+jwt"}})
	res, err := f.issuer.Client().PostForm(r.url+"/oidc/backchannel-logout", url.Values{"logout_token": {token}})
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		f.t.Errorf("back-channel logout at %s: %s", r.name, res.Status)
	}
}

// TestIndexWrittenByTwo: the list of a user's sessions is written by both
// replicas at once, and forgets none. The issuer ends one by its sid, and the
// rest by their user, each with one request to one replica.
func TestIndexWrittenByTwo(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const n = 24
	var browsers [n]*signintest.Browser
	var callbacks [n]*signintest.Request
	for i := range n {
		browsers[i] = f.browser()
		callbacks[i] = f.toCallback(browsers[i], "alice")
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if p := browsers[i].Send(at(f.replicas()[i%2], callbacks[i])); p.Status != http.StatusSeeOther {
				t.Errorf("sign-in %d: %s", i, describe(p))
			}
		})
	}
	bob := f.signIn("bob")
	wg.Wait()
	sids := map[string]bool{}
	for _, info := range f.issuer.Tokens("alice") {
		sids[info.SessionID] = true
	}
	if len(sids) != n {
		t.Fatalf("%d sessions at the issuer for %d sign-ins", len(sids), n)
	}
	for i, b := range browsers {
		f.wantUser(b, f.replicas()[(i+1)%2], "alice")
	}
	// One of them, by its sid.
	for sid := range sids {
		f.backChannel(f.b, "", sid)
		break
	}
	ended := 0
	for _, b := range browsers {
		if p, _ := me(b, f.b); f.challenged(p) {
			ended++
		}
	}
	if ended != 1 {
		t.Errorf("a logout token for one sid ended %d sessions", ended)
	}
	// All, by their user.
	start := time.Now()
	f.backChannel(f.a, "alice", "")
	t.Logf("ended %d sessions in %v", n-1, time.Since(start))
	for _, b := range browsers {
		f.wantGone(b, f.a)
		f.wantGone(b, f.b)
	}
	for _, r := range f.replicas() {
		f.wantUser(bob, r, "bob")
	}
	if keys := f.keysInRedis("s.*"); len(keys) != 1 {
		t.Errorf("%d records left, want bob's", len(keys))
	}
}

// TestIndexCleansUp: what sign-outs end leaves the index, and the list of a
// user who signs in and out all day does not grow.
func TestIndexCleansUp(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var size [2]int64
	for round := range 12 {
		b := f.signIn("alice")
		if round == 0 || round == 11 {
			for _, key := range f.keysInRedis("u.*") {
				n, _ := f.redis.MustDo("STRLEN", "signin:"+key).(int64)
				size[min(round, 1)] += n
			}
		}
		if p := signOut(b, f.replicas()[round%2]); p.Status != http.StatusSeeOther {
			t.Fatalf("sign-out: %s", describe(p))
		}
		f.settled()
	}
	if size[0] == 0 || size[1] != size[0] {
		t.Errorf("the list of one session has %d bytes at first and %d after eleven sign-outs", size[0], size[1])
	}
	// Under the sid the mark of the sign-out stays, for sign-ins under way.
	redistest.Wait(t, 2*time.Second, "the sessions to leave the lists of their sid", func() error {
		for _, key := range f.keysInRedis("i.*") {
			if n, _ := f.redis.MustDo("STRLEN", "signin:"+key).(int64); n >= size[0] {
				return fmt.Errorf("%s has %d bytes, as many as the list of a session", key, n)
			}
		}
		return nil
	})
}

// TestIndexForgetsReplaced: a session that a new sign-in replaces leaves the
// index too. The list is bounded, so what it kept of dead sessions would push
// out living ones.
func TestIndexForgetsReplaced(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(o *options) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["expires_in"] = 0 }
		}
	})
	b := f.signIn("alice")
	size := func() (n int64) {
		for _, key := range f.keysInRedis("u.*") {
			length, _ := f.redis.MustDo("STRLEN", "signin:"+key).(int64)
			n += length
		}
		return n
	}
	first := size()
	for range 2 { // more within a minute would look like a loop
		f.issuer.RevokeGrants("alice") // as an administrator does
		p, r := f.toIssuer(b, f.a.url+"/api", "alice")
		if r == nil {
			t.Fatalf("/api after the grant was revoked: %s; want a challenge", describe(p))
		}
		if p = b.Follow(r); subjectOf(p) != "alice" {
			t.Fatalf("after signing in again: %s", describe(p))
		}
	}
	if keys := f.keysInRedis("s.*"); len(keys) != 1 {
		t.Errorf("%d records for one session", len(keys))
	}
	redistest.Wait(t, 2*time.Second, "the index to be cleaned", func() error {
		if n := size(); first == 0 || n != first {
			return fmt.Errorf("the list has %d bytes, had %d with as many sessions", n, first)
		}
		return nil
	})
}
