package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/signintest"
)

func TestDiscoveryIsShared(t *testing.T) {
	a := newApp(t)
	if n := a.issuer.Count(signintest.EndpointAny); n != 0 {
		t.Fatalf("New cost %d requests", n)
	}
	release := make(chan struct{})
	a.issuer.Fail(signintest.EndpointDiscovery, signintest.Fault{Delay: 50 * time.Millisecond})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			<-release
			if p := a.browser().Send(&signintest.Request{URL: a.url + "/me", Activated: true}); p.Status != http.StatusSeeOther {
				t.Errorf("%d %v, want 303", p.Status, p.Err)
			}
		})
	}
	close(release)
	all.Wait()
	if n := a.issuer.Count(signintest.EndpointDiscovery); n != 1 {
		t.Errorf("%d fetches for 50 requests at once, want 1", n)
	}
	if n := a.issuer.Count(signintest.EndpointKeys); n != 0 {
		t.Errorf("%d fetches of keys before any token", n)
	}
}

func TestIssuerDownAtStart(t *testing.T) {
	a := newApp(t)
	a.issuer.Fail(signintest.EndpointAny, signintest.Fault{Drop: true})
	b := a.browser()
	ask := func(want int) {
		t.Helper()
		p := b.Send(&signintest.Request{URL: a.url + "/page/x", Activated: true})
		if p.Status != want || (p.Header.Get("Retry-After") != "") != (want == http.StatusServiceUnavailable) {
			t.Errorf("%d, Retry-After %q; want %d", p.Status, p.Header.Get("Retry-After"), want)
		}
	}
	ask(http.StatusServiceUnavailable)
	if p := b.Open(a.url + "/"); p.Status != http.StatusOK {
		t.Errorf("public page: %d", p.Status)
	}
	if err := a.Ready(t.Context()); err == nil {
		t.Error("Ready with an issuer that is down")
	}
	// The next to ask do not wait for it again, and do not keep it down.
	tried := a.issuer.Count(signintest.EndpointDiscovery)
	for range 20 {
		ask(http.StatusServiceUnavailable)
	}
	if n := a.issuer.Count(signintest.EndpointDiscovery); n != tried {
		t.Errorf("%d fetches within the backoff", n-tried)
	}
	// The pauses grow, up to half a minute.
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
		a.clock.advance(pause - 500*time.Millisecond)
		before := a.issuer.Count(signintest.EndpointDiscovery)
		ask(http.StatusServiceUnavailable)
		if n := a.issuer.Count(signintest.EndpointDiscovery); n != before {
			t.Errorf("asked again before %v were over", pause)
		}
		a.clock.advance(time.Second)
		ask(http.StatusServiceUnavailable)
		if n := a.issuer.Count(signintest.EndpointDiscovery); n == before {
			t.Errorf("not asked again after %v", pause)
		}
	}
	a.issuer.Heal()
	ask(http.StatusServiceUnavailable)
	a.clock.advance(oidc.MaxBackoff + time.Second)
	ask(http.StatusSeeOther)
	if err := a.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
	if got := a.subject(b); got != "alice" {
		t.Error(got)
	}
}

// An issuer that goes away does not take those with it who are signed in.
func TestIssuerDownLater(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	waiting := a.browser()
	r := a.toCallback(waiting, "/me")
	a.issuer.Fail(signintest.EndpointAny, signintest.Fault{Drop: true})
	a.clock.advance(25 * time.Minute)
	for range 3 {
		if got := a.status(b); got != http.StatusOK {
			t.Errorf("%d, want 200", got)
		}
	}
	if p := waiting.Send(r); p.Status != http.StatusBadGateway {
		t.Errorf("a callback: %d, want 502", p.Status)
	}
	// The metadata we have serves when it is old, too.
	a.clock.advance(oidc.DiscoveryAge)
	if p := a.browser().Send(&signintest.Request{URL: a.url + "/me", Activated: true}); p.Status != http.StatusSeeOther {
		t.Errorf("%d, want a challenge from what is known", p.Status)
	}
	if err := a.Auth.issuer.Fetches.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(a.log.String(), "metadata older than a day serves") {
		t.Errorf("the log does not say that old metadata serves:\n%s", a.log)
	}
	a.issuer.Heal()
	a.clock.advance(time.Minute)
	if got := a.subject(a.browser()); got != "alice" {
		t.Error(got)
	}
}

func TestBadDiscovery(t *testing.T) {
	edit := func(f func(doc map[string]any)) func(*signintest.Behaviour) {
		return func(b *signintest.Behaviour) { b.EditDiscovery = f }
	}
	set := func(name string, value any) func(*signintest.Behaviour) {
		return edit(func(doc map[string]any) { doc[name] = value })
	}
	for _, tc := range []struct {
		name  string
		lie   func(*signintest.Behaviour)
		fault *signintest.Fault
		want  string // in the error
	}{
		{"another issuer", set("issuer", "https://other.example.test"), nil, `configure that in place of "https://login.example.test"`},
		{"a slash more", set("issuer", "https://login.example.test/"), nil, `the issuer calls itself "https://login.example.test/"; configure that`},
		{"no issuer", edit(func(doc map[string]any) { delete(doc, "issuer") }), nil, `the issuer calls itself ""`},
		{"a template on a host that is not Entra's", set("issuer", "https://login.example.test/{tenantid}/v2.0"), nil, "with a tenant, common, organizations or consumers"},
		{"plain http elsewhere", set("token_endpoint", "http://login.example.test/token"), nil, "token_endpoint: want https"},
		{"no token endpoint", edit(func(doc map[string]any) { delete(doc, "token_endpoint") }), nil, "token_endpoint"},
		{"no keys", set("jwks_uri", ""), nil, "jwks_uri"},
		{"an endpoint that is none", set("authorization_endpoint", "javascript:alert(1)"), nil, "authorization_endpoint"},
		{"a token endpoint that is a number", set("token_endpoint", 1), nil, "token_endpoint"},
		{"an issuer that is a list", set("issuer", []string{"https://login.example.test"}), nil, "issuer"},
		{"keys over http", set("jwks_uri", "http://evil.example/keys"), nil, "jwks_uri: want https"},
		{"symmetric keys only", set("id_token_signing_alg_values_supported", []string{"HS256", "none"}), nil, "no asymmetric signing algorithm"},
		{"an algorithm that is a number", set("id_token_signing_alg_values_supported", 1), nil, "discovery"},
		{"HTML", nil, new(signintest.HTMLFault(200)), "discovery"},
		{"500", nil, &signintest.Fault{Status: 500, Body: strings.Repeat("sorry ", 100000)}, "500"},
		{"endless", nil, &signintest.Fault{Status: 200, Body: `{"issuer":"`, Endless: true}, "discovery"},
		{"redirect", nil, &signintest.Fault{Redirect: "https://evil.example/"}, "307"},
		{"nothing", nil, &signintest.Fault{Status: 200, Body: ""}, "discovery"},
		{"null", nil, &signintest.Fault{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: "null"}, "discovery"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.behaviour = tc.lie })
			if tc.fault != nil {
				a.issuer.Fail(signintest.EndpointDiscovery, *tc.fault)
			}
			p := a.browser().Open(a.url + "/me")
			if tc.name == "symmetric keys only" { // that does not pass by itself
				wantPage(t, a, p, http.StatusInternalServerError, PageInternal)
			} else if p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" {
				t.Errorf("%d %.200s, want 503", p.Status, p.Body)
			}
			err := a.Ready(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "https://login.example.test/.well-known/openid-configuration") || len(err.Error()) > 1000 {
				t.Errorf("Ready: %.300v\nwant %q in it", err, tc.want)
			}
			if strings.Contains(p.Body, "configure") {
				t.Error("the page tells a visitor how to configure the site")
			}
			a.issuer.Update(func(b *signintest.Behaviour) { b.EditDiscovery = nil })
			a.issuer.Heal()
			a.clock.advance(oidc.MaxBackoff)
			if got := a.subject(a.browser()); got != "alice" {
				t.Errorf("mended: %s", got)
			}
		})
	}
}

// A hanging issuer holds nobody longer than it must.
func TestDiscoveryHangs(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.HTTPClient.Timeout = 200 * time.Millisecond }
	})
	release := make(chan struct{})
	a.issuer.Fail(signintest.EndpointDiscovery, signintest.Fault{Hang: release})
	start := time.Now()
	if p := a.browser().Open(a.url + "/me"); p.Status != http.StatusServiceUnavailable {
		t.Errorf("%d, want 503", p.Status)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	// Who gives up first does not end the fetch for the others.
	a.clock.advance(time.Minute)
	a.issuer.Heal()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Auth.issuer.Metadata(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := a.Auth.issuer.Metadata(t.Context()); err != nil {
		t.Error(err)
	}
	close(release)
}

func TestTrailingSlash(t *testing.T) {
	for _, path := range []string{"", "/", "/realms/staff", "/realms/staff/"} {
		t.Run(path, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.issuerURL = "https://login.example.test" + path })
			if got := a.subject(a.browser()); got != "alice" {
				t.Errorf("%s\n%s", got, a.log)
			}
		})
	}
}

// sendForged sends a callback whose front-channel token is signed by a key that
// is not the issuer's. Its claims are those of the real one, but for edit's.
func (a *app) sendForged(kid string, edit func(claims map[string]any)) int {
	a.t.Helper()
	b := a.browser()
	r := a.toCallback(b, "/me")
	var claims map[string]any
	if err := json.Unmarshal(oidc.ClaimsOf(r.Form.Get("id_token")), &claims); err != nil {
		a.t.Fatal(err)
	}
	if edit != nil {
		edit(claims)
	}
	key := a.issuer.ForeignKey("ES256")
	raw := a.issuer.Sign(claims, signintest.SignOptions{Key: &key, KeyID: kid})
	return b.Send(edited(r, "id_token", raw)).Status
}

// letFetchKeys lets keys be fetched as if that had last been long ago.
func (a *app) letFetchKeys() {
	a.t.Helper()
	meta, err := a.Auth.issuer.Metadata(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	source := meta.Keys.Source
	source.Mu.Lock()
	defer source.Mu.Unlock()
	source.NotUntil = time.Time{}
}

func TestKeyRotationAtTheIssuer(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.behaviour = func(b *signintest.Behaviour) { b.Alg = "ES256" } })
	count := func() int { return a.issuer.Count(signintest.EndpointKeys) }
	if a.signIn(); count() != 1 {
		t.Fatalf("%d fetches of keys, want 1", count())
	}
	// Right after a start, too: the first load is not counted.
	a.issuer.RotateKey()
	a.issuer.RetireKeys()
	if a.signIn(); count() != 2 {
		t.Errorf("%d fetches after a rotation, want 2", count())
	}
	a.signIn()
	if count() != 2 {
		t.Errorf("%d fetches though the key is known, want 2", count())
	}
	// An unknown key id costs one fetch a minute, whoever invents it. Without
	// one, whether the key exists is not known.
	for i := range 20 {
		if got := a.sendForged(strings.Repeat("x", i+1), nil); got != http.StatusServiceUnavailable {
			t.Errorf("a token by an unknown key, keys fetched a moment ago: %d, want 503", got)
		}
	}
	// Somebody may have made those up: they do not speak against the issuer.
	if log := a.log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("tokens by unknown keys are an error of the site's:\n%s", log)
	}
	// What no key could save is refused, whether or not the key exists.
	for name, edit := range map[string]func(map[string]any){
		"no claims":           func(c map[string]any) { clear(c) },
		"another nonce":       func(c map[string]any) { c["nonce"] = "x" },
		"another code":        func(c map[string]any) { c["c_hash"] = "x" },
		"another client":      func(c map[string]any) { c["aud"] = "x" },
		"another issuer":      func(c map[string]any) { c["iss"] = "https://evil.example" },
		"expired":             func(c map[string]any) { c["exp"] = 1 },
		"claims that are odd": func(c map[string]any) { c["exp"] = "soon" },
	} {
		if got := a.sendForged("unknown", edit); got != http.StatusBadRequest {
			t.Errorf("a token by an unknown key with %s: %d, want 400", name, got)
		}
	}
	if got := a.sendForged(a.issuer.Key().ID, nil); got != http.StatusBadRequest {
		t.Errorf("a bad signature under a known key id: %d, want 400", got)
	}
	if count() != 2 {
		t.Errorf("%d fetches within the minute, want 2", count())
	}
	a.signIn()
	a.clock.advance(oidc.KeyInterval + time.Second)
	if got := a.sendForged("unknown", nil); got != http.StatusBadRequest {
		t.Errorf("a token by an unknown key, keys fetched for it: %d, want 400", got)
	}
	for range 5 {
		a.sendForged("unknown", nil)
	}
	if count() != 3 {
		t.Errorf("%d fetches a minute later, want 3", count())
	}
	a.issuer.RotateKey()
	a.clock.advance(oidc.KeyInterval + time.Second)
	if a.signIn(); count() != 4 {
		t.Errorf("%d fetches, want 4", count())
	}
}

// Without a state of ours nobody makes us ask the issuer anything, logout
// tokens aside: see [TestForgedLogoutTokensCostSignInsNothing].
func TestAnonymousRequestsDoNotReachTheIssuer(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	r := a.toCallback(b, "/me")
	key := a.issuer.ForeignKey("RS256")
	forged := edited(r, "id_token", a.issuer.Sign(map[string]any{}, signintest.SignOptions{Key: &key}))
	before := a.issuer.Count(signintest.EndpointAny)
	for name, r := range map[string]*signintest.Request{
		"no state":      edited(forged, "state"),
		"another state": edited(forged, "state", strings.Repeat("A", 300)),
		"nothing":       {Method: http.MethodPost, URL: r.URL},
		"GET":           {URL: r.URL + "?code=x&state=y"},
	} {
		if p := b.Send(r); p.Status < 400 {
			t.Errorf("%s: %d", name, p.Status)
		}
	}
	if p := a.browser().Send(forged); p.Status != http.StatusBadRequest {
		t.Errorf("no cookie: %d, want 400", p.Status)
	}
	if n := a.issuer.Count(signintest.EndpointAny); n != before {
		t.Errorf("%d requests to the issuer", n-before)
	}
}

// Anybody may post logout tokens. What they cost in fetches of keys is bounded,
// and the sign-ins' fetch after a rotation is not used up.
func TestForgedLogoutTokensCostSignInsNothing(t *testing.T) {
	a := newApp(t)
	a.mux.HandleFunc("/refresh", func(w http.ResponseWriter, r *http.Request) {
		_, err := TokenRequest{Refresh: true}.Source(r.Context()).Token()
		fmt.Fprint(w, err)
	})
	b := a.signIn()
	forge := func() int {
		key := a.issuer.ForeignKey("RS256")
		return a.logoutPost(t, a.issuer.Sign(a.issuer.LogoutToken("alice", "x"), signintest.SignOptions{Key: &key, KeyID: "unknown"})).StatusCode
	}
	before := a.issuer.Count(signintest.EndpointKeys)
	for range 10 {
		if got := forge(); got != http.StatusBadRequest && got != http.StatusServiceUnavailable {
			t.Errorf("a forged logout token: %d", got)
		}
	}
	if n := a.issuer.Count(signintest.EndpointKeys) - before; n > 2 {
		t.Errorf("%d fetches of keys for 10 forged logout tokens, want 2: the first load and one more", n)
	}
	a.issuer.RotateKey()
	a.issuer.RetireKeys()
	if got := a.subject(a.browser()); got != "alice" {
		t.Errorf("signed in after a rotation as %q, want alice; %s", got, lastCause(a))
	}
	forge()
	// A second rotation within the minute: keys may not be fetched again, and
	// the refreshed ID token is not to blame.
	a.issuer.RotateKey()
	a.issuer.RetireKeys()
	if p := b.Fetch(b.Open(a.url+"/"), "/refresh"); p.Body != "<nil>" {
		t.Errorf("refresh: %s", p.Body)
	}
	if !a.signedIn(b) {
		t.Errorf("a rotation ended a session at its refresh\n%s", a.log)
	}
	if p := a.browser().Open(a.url + "/me"); p.Status != http.StatusServiceUnavailable {
		t.Errorf("a sign-in while keys may not be fetched: %d, want 503", p.Status)
	}
	a.clock.advance(oidc.KeyInterval)
	if got := a.subject(a.browser()); got != "alice" {
		t.Errorf("signed in a minute later as %q, want alice; %s", got, lastCause(a))
	}
}

// Keys that cannot be had say nothing about a token: the answer is 503, and
// the same callback works once they can.
func TestKeysUnavailable(t *testing.T) {
	for name, fault := range map[string]signintest.Fault{
		"dropped":  {Drop: true},
		"500":      {Status: 500},
		"HTML":     signintest.HTMLFault(200),
		"no keys":  signintest.JSONFault(200, map[string]any{"keys": []any{}}),
		"endless":  {Status: 200, Body: `{"keys":[`, Endless: true},
		"redirect": {Redirect: "https://evil.example/"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t)
			b := a.browser()
			r := a.toCallback(b, "/me")
			// go-oidc lets a request share a fetch that has just failed, so that
			// the first one after it may have to ask again.
			recovered := func(r *signintest.Request) *signintest.Page {
				p := b.Send(r)
				for range 3 {
					if p.Status == http.StatusSeeOther {
						return b.Follow(p.Next())
					}
					a.clock.advance(oidc.KeyRetry)
					p = b.Send(r)
				}
				return p
			}
			a.issuer.Fail(signintest.EndpointKeys, fault)
			for range 3 {
				if p := b.Send(r); p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" {
					t.Errorf("first load: %d, want 503\n%s", p.Status, a.log)
				}
			}
			most := 1
			if fault.Drop {
				most = 2 // net/http itself asks again where a connection breaks
			}
			if n := a.issuer.Count(signintest.EndpointKeys); n > most {
				t.Errorf("%d fetches within a second, want %d", n, most)
			}
			a.issuer.Heal()
			a.clock.advance(oidc.KeyRetry)
			if p := recovered(r); p.Status != http.StatusOK {
				t.Errorf("keys there: %d %.200s", p.Status, p.Body)
			}
			if a.redemptions() != 1 {
				t.Errorf("%d redemptions, want 1", a.redemptions())
			}

			// Later, when a rotation meets an outage.
			a.clock.advance(oidc.KeyInterval)
			a.issuer.RotateKey()
			b = a.browser()
			r = a.toCallback(b, "/me")
			a.issuer.Fail(signintest.EndpointKeys, fault)
			for range 3 {
				if p := b.Send(r); p.Status != http.StatusServiceUnavailable {
					t.Errorf("after a rotation: %d, want 503", p.Status)
				}
			}
			a.issuer.Heal()
			a.clock.advance(oidc.KeyRetry)
			if p := recovered(r); p.Status != http.StatusOK {
				t.Errorf("after a rotation, keys there: %d after %d fetches", p.Status, a.issuer.Count(signintest.EndpointKeys))
			}
		})
	}
}

// The issuer announces another algorithm, as it moves to other keys. What is
// announced counts from the next discovery on, with the same key set or not.
func TestAlgorithmChanges(t *testing.T) {
	a := newApp(t)
	a.signIn()
	a.issuer.Update(func(b *signintest.Behaviour) { b.Alg = "ES256" })
	b := a.browser()
	if p := b.Open(a.url + "/me"); p.Status != http.StatusBadRequest {
		t.Errorf("an algorithm that was not announced: %d, want 400", p.Status)
	}
	a.clock.advance(oidc.DiscoveryAge + time.Minute)
	b.Send(&signintest.Request{URL: a.url + "/me", Activated: true})
	if err := a.Auth.issuer.Fetches.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.subject(a.browser()); got != "alice" {
		t.Errorf("%s\n%s", got, a.log)
	}
}

func TestIssuerSeesNoCookiesAndNoRedirects(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) {
			c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error {
				t.Error("the client's own redirect policy was asked")
				return nil
			}
		}
	})
	a.issuer.FailNext(signintest.EndpointDiscovery, signintest.Fault{Redirect: a.issuer.URL() + "/.well-known/openid-configuration"})
	if p := a.browser().Open(a.url + "/me"); p.Status != http.StatusServiceUnavailable {
		t.Errorf("%d, want 503", p.Status)
	}
}
