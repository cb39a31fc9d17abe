package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/text"
	"github.com/seed454743b5/signin/signintest"
)

// observed collects what Config.Observe is told.
type observed struct {
	mu     sync.Mutex
	events []Event
}

func (o *observed) observe(_ context.Context, e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
}

// named returns the events of one name, oldest first.
func (o *observed) named(name EventName) (list []Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.events {
		if e.Name == name {
			list = append(list, e)
		}
	}
	return list
}

// one waits for the only event of a name: some follow the answer.
func (o *observed) one(t *testing.T, name EventName) Event {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		if list := o.named(name); len(list) > 0 {
			if len(list) > 1 {
				t.Errorf("%d events %q, want one", len(list), name)
			}
			return list[0]
		}
		select {
		case <-deadline:
			t.Fatalf("no event %q within 10 s", name)
		case <-tick.C:
		}
	}
}

// fallible is a memory store that fails when told to.
type fallible struct {
	Store
	mu   sync.Mutex
	fail func(op, key string) error // guarded by mu
}

func (s *fallible) set(fail func(op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *fallible) check(op, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		return nil
	}
	return s.fail(op, key)
}

func (s *fallible) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := s.check("get", key); err != nil {
		return nil, false, err
	}
	return s.Store.Get(ctx, key)
}

func (s *fallible) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	op := "swap"
	if len(new) > 500 { // a record; claims and leases are short
		op = "save"
	}
	if err := s.check(op, key); err != nil {
		return nil, false, err
	}
	return s.Store.Swap(ctx, key, old, new, ttl)
}

func (s *fallible) Delete(ctx context.Context, key string) error {
	if err := s.check("delete", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

// newObservedApp is an application whose events are collected, and compared
// with its log when the test ends.
func newObservedApp(t *testing.T, edit ...func(*appOptions)) (*app, *observed, *fallible) {
	o, store := &observed{}, &fallible{Store: NewMemoryStore()}
	a := newApp(t, append(edit, func(opts *appOptions) {
		before := opts.config
		opts.config = func(c *Config) {
			if before != nil {
				before(c)
			}
			c.Observe, c.Store = o.observe, store
		}
	})...)
	t.Cleanup(func() { compareWithLog(t, a, o) })
	return a, o, store
}

// eventAttrs are the attributes that a line of each event may have, beside
// time, level and msg. Dashboards are built on them.
var eventAttrs = map[EventName]struct{ always, sometimes []string }{
	EventChallenge:      {[]string{"ref", "reason"}, []string{"scopes"}},
	EventSignedIn:       {[]string{"ref", "user", "took"}, nil},
	EventStale:          {[]string{"ref", "cause"}, nil},
	EventRejected:       {[]string{"ref", "page", "cause"}, nil},
	EventRefreshed:      {[]string{"user", "took"}, []string{"scopes"}},
	EventRefreshFailed:  {[]string{"user", "cause"}, []string{"scopes"}},
	EventRefreshRefused: {[]string{"user", "reason", "cause"}, []string{"scopes"}},
	EventSignedOut:      {[]string{"user"}, nil},
	EventIDTokenIgnored: {[]string{"user", "cause"}, nil},
	EventSessionEnded:   {[]string{"user", "cause"}, nil},
	EventStoreFailing:   {[]string{"cause"}, []string{"user"}},
	EventRevokeFailed:   {[]string{"cause"}, nil},
}

// compareWithLog checks that each event is one line of the log with the same
// facts, under attributes that do not change.
func compareWithLog(t *testing.T, a *app, o *observed) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	var lines []map[string]any
	for raw := range strings.Lines(a.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(raw), &line); err != nil {
			t.Fatalf("a line of the log is not JSON: %v: %s", err, raw)
		}
		// What must be registered is said once, and is no event.
		if msg, _ := line["msg"].(string); strings.HasPrefix(msg, "signin: ") && !strings.HasPrefix(msg, "signin: must be registered") {
			lines = append(lines, line)
		}
	}
	if len(lines) != len(o.events) {
		t.Errorf("%d lines and %d events, want as many", len(lines), len(o.events))
	}
	for _, e := range o.events {
		want := factsOf(e)
		n := slices.IndexFunc(lines, func(line map[string]any) bool { return maps.Equal(want, flat(line)) })
		if n < 0 {
			t.Errorf("event %q has no line with its facts %v:\n%s", e.Name, want, a.log)
			continue
		}
		attrs, known := eventAttrs[e.Name]
		if !known {
			t.Errorf("event %q is new: add its attributes to eventAttrs, and its name to Event", e.Name)
		}
		for _, name := range attrs.always {
			if _, ok := lines[n][name]; !ok {
				t.Errorf("event %q lacks %q: %v", e.Name, name, lines[n])
			}
		}
		for name := range lines[n] {
			if !slices.Contains(slices.Concat(attrs.always, attrs.sometimes, []string{"time", "level", "msg"}), name) {
				t.Errorf("event %q has %q, which is new", e.Name, name)
			}
		}
		lines = slices.Delete(lines, n, n+1)
	}
}

// factsOf is an event as its line should say it.
func factsOf(e Event) map[string]string {
	facts := map[string]string{"msg": "signin: " + string(e.Name), "level": e.level().String()}
	set := func(name, value string) {
		if value != "" {
			facts[name] = value
		}
	}
	set("ref", e.Reference)
	set("reason", string(e.Reason))
	set("page", string(e.Page))
	if e.User != nil {
		set("user", fmt.Sprint(map[string]any{"iss": e.User.Issuer, "sub": e.User.Subject}))
	}
	if len(e.Scopes) > 0 {
		set("scopes", fmt.Sprint(e.Scopes))
	}
	if e.Duration > 0 {
		set("took", fmt.Sprint(float64(e.Duration)))
	}
	if e.Err != nil {
		set("cause", text.Printable(e.Err.Error(), 500))
	}
	return facts
}

func flat(line map[string]any) map[string]string {
	out := make(map[string]string, len(line))
	for name, value := range line {
		if name != "time" {
			out[name] = fmt.Sprint(value)
		}
	}
	return out
}

// One reference ties a challenge to what it came to, and another sign-in has
// another.
func TestEventsOfSignIn(t *testing.T) {
	a, o, _ := newObservedApp(t)
	b := a.signIn()

	challenge, signedIn := o.one(t, EventChallenge), o.one(t, EventSignedIn)
	if challenge.Reference == "" || challenge.Reference != signedIn.Reference {
		t.Errorf("references %q and %q, want one", challenge.Reference, signedIn.Reference)
	}
	if challenge.Reason != ReasonSignIn || challenge.User != nil {
		t.Errorf("challenge: %+v; want sign_in for nobody yet", challenge)
	}
	if signedIn.User == nil || signedIn.User.Subject != "alice" || signedIn.Duration <= 0 {
		t.Errorf("signed in: user %v, took %v; want alice and a duration", signedIn.User, signedIn.Duration)
	}

	// A second consent is a second sign-in in the log.
	if p := b.Open(a.url + "/token?scope=Mail.Read"); p.Status != http.StatusOK {
		t.Fatalf("consent: %d %.300s", p.Status, p.Body)
	}
	second := o.named(EventChallenge)[1]
	if second.Reason != ReasonConsent || !slices.Equal(second.Scopes, []string{"Mail.Read"}) || second.Reference == challenge.Reference {
		t.Errorf("second challenge: %+v", second)
	}
	if list := o.named(EventSignedIn); len(list) != 2 || list[1].Reference != second.Reference {
		t.Errorf("%d times signed in, want two, the second under %s", len(list), second.Reference)
	}
}

func TestEventStaleCallback(t *testing.T) {
	a, o, _ := newObservedApp(t)
	b := a.browser()
	r := a.toCallback(b, "/me")
	a.clock.advance(stateLifetime + time.Minute)
	if p := b.Send(r); p.Status != http.StatusSeeOther {
		t.Fatalf("stale callback: %d, want 303", p.Status)
	}
	if e := o.one(t, EventStale); e.Reference != o.one(t, EventChallenge).Reference {
		t.Errorf("reference %q is not the challenge's", e.Reference)
	}
}

// The page's reference is that of the whole sign-in, and the cause is only in
// the log.
func TestEventRejected(t *testing.T) {
	const lie = "the description, which is the issuer's word only"
	for _, tc := range []struct {
		name     string
		page     PageKind
		status   int
		callback func(*app, *signintest.Request) *signintest.Request
		shared   bool // with the challenge
	}{
		{"redemption refused", PageRedeemRefused, 502, func(a *app, r *signintest.Request) *signintest.Request {
			a.issuer.FailNext(signintest.EndpointToken, signintest.OAuthError{Code: "invalid_client", Description: lie}.Fault())
			return r
		}, true},
		{"another user's token", PageTokenRejected, 400, func(a *app, r *signintest.Request) *signintest.Request {
			a.issuer.Update(func(b *signintest.Behaviour) {
				b.EditIDToken = func(t *signintest.IDToken) { t.Claims["nonce"] = "another" }
			})
			return r
		}, true},
		{"the issuer says no", PageIssuerError, 400, func(_ *app, r *signintest.Request) *signintest.Request {
			c := edited(r, "code")
			c.Form = url.Values{"state": c.Form["state"], "error": {"server_error"}, "error_description": {lie}}
			return c
		}, true},
		{"altered state", PageCallbackState, 400, func(_ *app, r *signintest.Request) *signintest.Request {
			return edited(r, "state", "altered")
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, o, _ := newObservedApp(t)
			b := a.browser()
			r := a.toCallback(b, "/me")
			p := b.Send(tc.callback(a, r))
			e := o.one(t, EventRejected)
			if p.Status != tc.status || e.Page != tc.page || e.Status != tc.status || e.Err == nil {
				t.Errorf("page %d, event %q %d %v; want %q %d and a cause", p.Status, e.Page, e.Status, e.Err, tc.page, tc.status)
			}
			if e.Reference == "" || !strings.Contains(p.Body, e.Reference) {
				t.Errorf("the page does not show the reference %q:\n%s", e.Reference, p.Body)
			}
			if shared := e.Reference == o.one(t, EventChallenge).Reference; shared != tc.shared {
				t.Errorf("reference shared with the challenge: %t, want %t", shared, tc.shared)
			}
			if strings.Contains(p.Body, e.Err.Error()) {
				t.Errorf("the page shows the cause")
			}
			if len(o.named(EventSignedIn)) != 0 {
				t.Errorf("signed in all the same")
			}
		})
	}
}

func TestEventsOfRefresh(t *testing.T) {
	for _, tc := range []struct {
		name   string
		event  EventName
		fault  func(*app)
		status int
	}{
		{"refreshed", EventRefreshed, func(*app) {}, http.StatusOK},
		{"failed", EventRefreshFailed, func(a *app) {
			a.issuer.Fail(signintest.EndpointToken, signintest.HTMLFault(http.StatusBadGateway))
		}, http.StatusBadGateway},
		{"refused", EventRefreshRefused, func(a *app) { a.issuer.RevokeGrants("alice") }, http.StatusUnauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, o, _ := newObservedApp(t)
			b := a.signIn()
			page := b.Open(a.url + "/")
			a.clock.advance(2 * time.Hour)
			tc.fault(a)
			if p := b.Fetch(page, "/token"); p.Status != tc.status {
				t.Fatalf("token: %d %.200s, want %d", p.Status, p.Body, tc.status)
			}
			e := o.one(t, tc.event)
			if e.User == nil || e.User.Subject != "alice" {
				t.Errorf("user %v, want alice", e.User)
			}
			if refused := tc.event == EventRefreshRefused; refused != (e.Reason == ReasonRefused) {
				t.Errorf("reason %q", e.Reason)
			}
			if ok := tc.event == EventRefreshed; ok != (e.Duration > 0) || ok != (e.Err == nil) {
				t.Errorf("took %v, error %v", e.Duration, e.Err)
			}
		})
	}
}

func TestEventSessionEnded(t *testing.T) {
	a, o, _ := newObservedApp(t)
	b := a.signIn()
	page := b.Open(a.url + "/")
	a.clock.advance(2 * time.Hour)
	a.issuer.Update(func(b *signintest.Behaviour) {
		b.EditIDToken = func(t *signintest.IDToken) { t.Claims["sub"] = "mallory" }
	})
	if p := b.Fetch(page, "/token"); p.Status != http.StatusUnauthorized {
		t.Fatalf("token: %d, want 401: the refreshed ID token is another user's", p.Status)
	}
	if e := o.one(t, EventSessionEnded); e.User.Subject != "alice" || e.Err == nil {
		t.Errorf("user %v, error %v; want alice and a cause", e.User, e.Err)
	}
}

func TestEventIDTokenIgnored(t *testing.T) {
	a, o, _ := newObservedApp(t)
	b := a.signIn()
	page := b.Open(a.url + "/")
	a.clock.advance(2 * time.Hour)
	a.issuer.Update(func(b *signintest.Behaviour) {
		b.EditIDToken = func(t *signintest.IDToken) { t.Claims["auth_time"] = a.clock.now().Unix() }
	})
	if p := b.Fetch(page, "/token"); p.Status != http.StatusOK {
		t.Fatalf("token: %d, want 200: the user proved who they are again elsewhere", p.Status)
	}
	if e := o.one(t, EventIDTokenIgnored); e.User.Subject != "alice" || e.Err == nil {
		t.Errorf("user %v, error %v; want alice and a cause", e.User, e.Err)
	}
}

func TestEventsOfSignOut(t *testing.T) {
	a, o, _ := newObservedApp(t)
	b := a.signIn()
	a.issuer.Fail(signintest.EndpointRevocation, signintest.HTMLFault(http.StatusInternalServerError))
	p := b.Submit(b.Open(a.url+"/signout"), nil)
	if p.Status != http.StatusOK {
		t.Fatalf("sign-out: %d, want 200: nobody waits for the revocation", p.Status)
	}
	if e := o.one(t, EventSignedOut); e.User == nil || e.User.Subject != "alice" {
		t.Errorf("user %v, want alice", e.User)
	}
	if e := o.one(t, EventRevokeFailed); e.Err == nil {
		t.Errorf("revoke failed without a cause")
	}
}

// A store that fails where somebody waits is a page; where nobody does, it is
// a line of its own.
func TestEventStoreFailing(t *testing.T) {
	down := errors.New("connection refused")

	t.Run("page", func(t *testing.T) {
		a, o, store := newObservedApp(t)
		b := a.signIn()
		store.set(func(string, string) error { return down })
		p := b.Open(a.url + "/me")
		e := o.one(t, EventRejected)
		if p.Status != http.StatusServiceUnavailable || e.Page != PageStoreDown || !errors.Is(e.Err, down) {
			t.Errorf("%d %q %v, want 503, %q and the store's error", p.Status, e.Page, e.Err, PageStoreDown)
		}
		if !strings.Contains(p.Body, e.Reference) || strings.Contains(p.Body, down.Error()) {
			t.Errorf("want the page to show the reference and not the cause:\n%s", p.Body)
		}
		if line := logLine(t, a, "signin: rejected"); line["level"] != "ERROR" {
			t.Errorf("level %v, want ERROR: somebody must act", line["level"])
		}
	})

	t.Run("nobody there", func(t *testing.T) {
		t.Parallel() // it takes as long as a save is given
		a, o, store := newObservedApp(t)
		b := a.signIn()
		page := b.Open(a.url + "/")
		a.clock.advance(2 * time.Hour)
		a.issuer.RevokeGrants("alice")
		// The lease can be had, and the record read, but not written.
		store.set(func(op, _ string) error {
			if op == "save" {
				return down
			}
			return nil
		})
		if p := b.Fetch(page, "/token"); p.Status != http.StatusUnauthorized {
			t.Fatalf("token: %d, want 401", p.Status)
		}
		if e := o.one(t, EventStoreFailing); !errors.Is(e.Err, down) {
			t.Errorf("error %v, want the store's", e.Err)
		}
		store.set(nil)
	})
}

// Every name has had its scenario above: eventAttrs and the names there are
// are the same.
func TestEventNames(t *testing.T) {
	names := []EventName{
		EventChallenge, EventSignedIn, EventStale, EventRejected, EventRefreshed, EventRefreshFailed,
		EventRefreshRefused, EventSignedOut, EventIDTokenIgnored, EventSessionEnded, EventStoreFailing, EventRevokeFailed,
	}
	want := []EventName{
		"challenge", "signed in", "stale callback", "rejected", "refreshed", "refresh failed",
		"refresh refused", "signed out", "id token ignored", "session ended", "store failing", "revoke failed",
	}
	if !slices.Equal(names, want) {
		t.Errorf("events are now %q; users have built on %q", names, want)
	}
	if got := slices.Sorted(maps.Keys(eventAttrs)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("eventAttrs knows %q", got)
	}
}
