package e2e

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

// settled waits until a session that was signed out has left the list of its
// user, which nobody waits for.
func (f *fleet) settled() {
	f.t.Helper()
	redistest.Wait(f.t, 5*time.Second, "the index to be cleaned", func() error {
		if len(f.keysInRedis("u.*")) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// dump reads everything there is in a Redis: keys, values and their
// serialised form, found by SCAN. Every key must have a time to live.
func dump(t *testing.T, s *redistest.Server) map[string]string {
	t.Helper()
	all := map[string]string{}
	cursor := "0"
	for {
		reply, _ := s.MustDo("SCAN", cursor, "COUNT", "100").([]any)
		if len(reply) != 2 {
			t.Fatalf("SCAN: %v", reply)
		}
		keys, _ := reply[1].([]any)
		for _, k := range keys {
			key, _ := k.(string)
			value, err := s.Do("GET", key)
			if err != nil {
				t.Fatalf("GET %q: %v", key, err)
			}
			text, ok := value.(string)
			if !ok {
				continue // it has expired since
			}
			serialised, _ := s.MustDo("DUMP", key).(string)
			all[key] = text + serialised
			if ttl, _ := s.MustDo("PTTL", key).(int64); ttl == -1 {
				t.Errorf("%q has no time to live", key)
			}
		}
		if cursor, _ = reply[0].(string); cursor == "0" {
			return all
		}
	}
}

// TestNothingInClear reads the whole Redis in the middle of everything that
// is ever stored: sessions, claims, a lease in use, the index, the marks of
// logout tokens.
func TestNothingInClear(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.issuer.Update(func(b *signintest.Behaviour) {
		b.Users = []signintest.User{
			{Subject: "subject-of-alice", Claims: map[string]any{"name": "Alice Liddell", "email": "alice@wonderland.example"}},
			{Subject: "subject-of-bob", Claims: map[string]any{"name": "Bob Hargreaves", "email": "bob@wonderland.example"}},
		}
	})
	alice, _ := p.signIn("subject-of-alice"), p.signIn("subject-of-bob")
	// Signed out by the issuer, to leave the mark of a logout token.
	third := p.signIn("subject-of-bob")
	claims := p.issuer.LogoutToken("", p.issuer.Tokens("subject-of-bob")[len(p.issuer.Tokens("subject-of-bob"))-1].SessionID)
	token := p.issuer.Sign(claims, signintest.SignOptions{Header: map[string]any{"typ": "logout+jwt"}})
	if page := third.Send(&signintest.Request{Method: http.MethodPost, URL: p.urls[1] + "/oidc/backchannel-logout",
		Form: map[string][]string{"logout_token": {token}}}); page.Status != http.StatusOK {
		t.Fatalf("back-channel logout: %s", describe(page))
	}
	// A refresh under way, to leave a lease.
	release := make(chan struct{})
	p.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Hang: release})
	done := make(chan *signintest.Page, 1)
	go func() { done <- alice.Send(&signintest.Request{URL: p.urls[0] + "/token", Activated: true}) }()
	p.issuer.Await(signintest.EndpointToken, 4)
	during := dump(t, p.redis)
	close(release)
	if page := <-done; page.Status != http.StatusOK {
		t.Fatalf("refresh: %s", describe(page))
	}
	kinds := map[string]int{}
	for key := range during {
		kind, _, _ := strings.Cut(strings.TrimPrefix(key, "signin:"), ".")
		kinds[kind]++
	}
	for kind, what := range map[string]string{"s": "session", "c": "claim", "l": "lease", "u": "user index", "i": "sid index", "j": "logout token"} {
		if kinds[kind] == 0 {
			t.Errorf("Redis holds no %s: this test sees too little: %v", what, kinds)
		}
	}

	ids := p.secrets.spellings()
	if len(ids) == 0 {
		t.Error("no session id was seen")
	}
	secrets := append(p.issuer.Secrets(), ids...)
	secrets = append(secrets, token, claims["jti"].(string))
	for _, info := range p.issuer.Tokens("") {
		secrets = append(secrets, info.SessionID)
	}
	for _, c := range alice.Cookies(p.urls[0]) {
		secrets = append(secrets, c.Value)
	}
	secrets = append(secrets, "subject-of", "Liddell", "Hargreaves", "wonderland", p.issuer.URL(), "openid", "offline_access")
	for _, state := range []map[string]string{during, dump(t, p.redis)} {
		for key, value := range state {
			for _, secret := range secrets {
				if len(secret) >= 6 && strings.Contains(key+"\x00"+value, secret) {
					t.Errorf("%q holds %.12q in clear", key, secret)
				}
			}
		}
	}
}

// TestSwappedValues: a record opens under its own key only. Two that have
// changed places open nothing, and do again once they are back.
func TestSwappedValues(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	alice, bob := f.signIn("alice"), f.signIn("bob")
	keys := f.keysInRedis("s.*")
	if len(keys) != 2 {
		t.Fatalf("%d records, want 2", len(keys))
	}
	swap := func() {
		first, second := f.redis.MustDo("GET", "signin:"+keys[0]).(string), f.redis.MustDo("GET", "signin:"+keys[1]).(string)
		f.redis.MustDo("SET", "signin:"+keys[0], second, "KEEPTTL")
		f.redis.MustDo("SET", "signin:"+keys[1], first, "KEEPTTL")
	}
	check := func() {
		for _, r := range f.replicas() {
			f.wantUser(alice, r, "alice")
			f.wantUser(bob, r, "bob")
		}
	}
	check()
	swap()
	for _, r := range f.replicas() {
		f.wantGone(alice, r)
		f.wantGone(bob, r)
	}
	swap()
	for _, r := range f.replicas() {
		redistest.Wait(t, time.Second, "the record to be back", func() error {
			if p, sub := me(alice, r); sub != "alice" {
				return errors.New(describe(p))
			}
			return nil
		})
	}
	check()
}
