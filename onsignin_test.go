package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/signintest"
)

// withHook sets OnSignIn.
func withHook(hook func(context.Context, *SignIn) error) func(*appOptions) {
	return func(o *appOptions) { o.config = func(c *Config) { c.OnSignIn = hook } }
}

// claimsOf opens a page that prints the claims of who is signed in.
func claimsOf(a *app, b *signintest.Browser) map[string]any {
	a.t.Helper()
	p := b.Open(a.url + "/claims")
	var claims map[string]any
	if err := json.Unmarshal([]byte(p.Body), &claims); err != nil {
		a.t.Fatalf("GET /claims: %d %.300s", p.Status, p.Body)
	}
	return claims
}

// TestOnSignIn: the hook sees what came, once, and what it sets is there for
// handlers and rules until the session ends, after a refresh too.
func TestOnSignIn(t *testing.T) {
	for _, flow := range flows {
		t.Run(flow.name, func(t *testing.T) {
			var seen []*SignIn
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditResponse = func(r *signintest.AuthResponse) { r.Params.Set("user", `{"name":{"firstName":"Alice"}}`) }
				}
				o.config = func(c *Config) {
					flow.config(c)
					c.OnSignIn = func(ctx context.Context, in *SignIn) error {
						seen = append(seen, in)
						if _, ok := ctx.Deadline(); !ok {
							t.Error("the hook's context has no deadline")
						}
						in.Claims["roles"] = []string{"Editor"}
						in.Claims["plan"] = map[string]any{"seats": 3}
						return nil
					}
				}
			})
			b := a.signIn()
			if len(seen) != 1 {
				t.Fatalf("the hook ran %d times", len(seen))
			}
			in := seen[0]
			token, err := in.Tokens.Token()
			switch {
			case in.User.Subject != "alice", in.Extends, in.UserInfo != nil:
				t.Errorf("told of %v, extends %v, userinfo %s", in.User, in.Extends, in.UserInfo)
			case err != nil || token.AccessToken != b.Open(a.url+"/token").Body:
				t.Errorf("the token is not the session's: %v", err)
			case strings.Count(in.IDToken, ".") != 2, (in.FrontClaims != nil) != strings.HasPrefix(flow.name, "hybrid"):
				t.Errorf("ID tokens: %.20s and %.20s", in.IDToken, in.FrontClaims)
			case !strings.Contains(in.Form.Get("user"), "Alice") || in.Form.Has("code") || in.Form.Has("state") || in.Form.Has("id_token"):
				t.Errorf("form fields %v", in.Form)
			case in.Request.URL.Path != "/oidc/callback" || in.Request.URL.RawQuery != "":
				t.Errorf("request %s", in.Request.URL.Path)
			}
			a.mux.Handle("/editors", a.Require(Requirement{Allow: AllowClaim("roles", "Editor")})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})))
			for _, when := range []string{"at once", "after a refresh"} {
				if p := b.Open(a.url + "/editors"); p.Status != http.StatusOK {
					t.Errorf("%s the rule says %d", when, p.Status)
				}
				claims := claimsOf(a, b)
				if fmt.Sprint(claims["plan"]) != "map[seats:3]" || claims["sub"] != "alice" {
					t.Errorf("%s the claims are %v", when, claims)
				}
				a.clock.advance(2 * time.Hour)
				b.Open(a.url + "/token")
			}
			if len(seen) != 1 {
				t.Errorf("the hook ran %d times", len(seen))
			}
		})
	}
}

// TestOnSignInCopies: the hook runs once, however often and on whatever replica
// the answer arrives.
func TestOnSignInCopies(t *testing.T) {
	var ran atomic.Int32
	a := newApp(t, replicas(NewMemoryStore(), func(c *Config) {
		c.OnSignIn = func(context.Context, *SignIn) error { ran.Add(1); return nil }
	}))
	b := a.browser()
	answer := a.toCallback(b, "/me")
	for _, p := range append(posts(b, answer, 6), b.Send(answer.Clone())) {
		if p.Status != http.StatusSeeOther && p.Status != http.StatusOK {
			t.Errorf("a copy got %d %.200s", p.Status, p.Body)
		}
	}
	if got := a.subject(b); got != "alice" || ran.Load() != 1 {
		t.Errorf("signed in as %s after %d runs", got, ran.Load())
	}
}

// TestOnSignInRefuses: whom the hook refuses gets its words, is not signed in,
// and the tokens go back. A copy of the callback is told the same, on the other
// replica too, and the hook is not asked again.
func TestOnSignInRefuses(t *testing.T) {
	var ran atomic.Int32
	a := newApp(t, replicas(NewMemoryStore(), func(c *Config) {
		c.OnSignIn = func(context.Context, *SignIn) error {
			ran.Add(1)
			return &RefusedError{Text: "Ask <the> help desk \u202efor an account.", Cause: errors.New("no licence left")}
		}
	}))
	b := a.browser()
	answer := a.toCallback(b, "/me")
	for range 3 {
		p := b.Send(answer.Clone())
		if p.Status != http.StatusForbidden || setsSession(a, p) || a.leaks(p) {
			t.Errorf("got %d", p.Status)
		}
		if !strings.Contains(p.Body, "Ask &lt;the&gt; help desk for an account.") || strings.Contains(p.Body, "licence") {
			t.Errorf("the page says %.600s", p.Body)
		}
	}
	if ran.Load() != 1 || a.redemptions() != 1 {
		t.Errorf("%d runs, %d redemptions", ran.Load(), a.redemptions())
	}
	if p := b.Open(a.url + "/"); p.Body != "public" || b.Open(a.url+"/token").Status == http.StatusOK {
		t.Errorf("somebody is signed in")
	}
	a.issuer.Await(signintest.EndpointRevocation, 1)
}

// TestOnSignInFails: an error that is no refusal is a 503 page. Its reload signs
// in with the code that is spent, also on another replica.
func TestOnSignInFails(t *testing.T) {
	for name, hook := range map[string]func(context.Context) error{
		"an error":     func(context.Context) error { return errors.New("directory is down") },
		"its deadline": func(ctx context.Context) error { return context.DeadlineExceeded },
	} {
		t.Run(name, func(t *testing.T) {
			var ran atomic.Int32
			a := newApp(t, replicas(NewMemoryStore(), func(c *Config) {
				c.OnSignIn = func(ctx context.Context, in *SignIn) error {
					in.Claims["attempt"] = ran.Add(1)
					if ran.Load() <= 2 {
						return hook(ctx)
					}
					return nil
				}
			}))
			b := a.browser()
			answer := a.toCallback(b, "/me")
			for range 2 {
				p := b.Send(answer.Clone())
				wantPage(t, a, p, http.StatusServiceUnavailable, PageSignInUnfinished)
				if p.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			}
			if p := b.Send(answer.Clone()); p.Status != http.StatusSeeOther || !setsSession(a, p) {
				t.Errorf("the reload got %d %.200s", p.Status, p.Body)
			}
			if got := a.subject(b); got != "alice" || ran.Load() != 3 || a.redemptions() != 1 {
				t.Errorf("signed in as %s after %d runs and %d redemptions", got, ran.Load(), a.redemptions())
			}
			if claims := claimsOf(a, b); claims["attempt"] != 3.0 {
				t.Errorf("claims of attempt %v", claims["attempt"])
			}
			if p := b.Open(a.url + "/token"); p.Status != http.StatusOK {
				t.Errorf("token: %d", p.Status)
			}
		})
	}
}

// TestOnSignInFailsForCopies: requests that waited for a hook share its failure.
func TestOnSignInFailsForCopies(t *testing.T) {
	var ran atomic.Int32
	newLab(t, labOptions{replicas: 2, config: func(c *Config) {
		c.OnSignIn = func(ctx context.Context, _ *SignIn) error {
			ran.Add(1)
			return errors.Join(once.Sleep(ctx, time.Second), errors.New("directory is down"))
		}
	}}, func(l *lab) {
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		together(6, func(i int) {
			resp := l.replicas[i%2].serve(httptest.NewRequest("GET", back, nil), cookies, nil)
			if resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a copy got %d", resp.StatusCode)
			}
		})
		if n := l.issuer.CountGrant("authorization_code"); ran.Load() != 1 || n != 1 {
			t.Errorf("%d runs and %d redemptions for one volley", ran.Load(), n)
		}
	})
}

// TestUnfinishedSignIn: what waits for a reload is nobody else's: not another
// browser's, and not that of who reads the store.
func TestUnfinishedSignIn(t *testing.T) {
	store := newDumpStore()
	a := newApp(t, replicas(store, func(c *Config) {
		c.OnSignIn = func(context.Context, *SignIn) error { return errors.New("directory is down") }
	}))
	b := a.browser()
	answer := a.toCallback(b, "/me")
	wantPage(t, a, b.Send(answer.Clone()), http.StatusServiceUnavailable, PageSignInUnfinished)
	for _, secret := range a.issuer.Secrets() {
		for key, value := range store.values {
			if len(secret) >= 8 && (strings.Contains(key, secret) || bytes.Contains(value, []byte(secret))) {
				t.Errorf("the store holds a secret: %.12s...", secret)
			}
		}
	}
	other := a.browser()
	other.Open(a.url + "/me")
	if p := other.Send(answer.Clone()); strings.Contains(p.Body, "alice") {
		t.Errorf("another browser got %d %.200s", p.Status, p.Body)
	}
}

// TestOnSignInMistakes: a panic and claims that cannot be kept end that sign-in
// only, with a page that blames nobody's account.
func TestOnSignInMistakes(t *testing.T) {
	var nobody *RefusedError
	cycle := map[string]any{}
	cycle["cycle"] = cycle
	for _, c := range []struct {
		name   string
		hook   func(*SignIn) error
		status int
		kind   PageKind
	}{
		{"a panic", func(*SignIn) error { panic("oh") }, 500, PageInternal},
		{"a value whose JSON panics", func(in *SignIn) error { in.Claims["x"] = panics{}; return nil }, 500, PageInternal},
		{"claims of 1 MB", func(in *SignIn) error { in.Claims["x"] = strings.Repeat("x", 1<<20); return nil }, 500, PageInternal},
		{"a channel", func(in *SignIn) error { in.Claims["x"] = make(chan int); return nil }, 500, PageInternal},
		{"a function", func(in *SignIn) error { in.Claims["x"] = func() {}; return nil }, 500, PageInternal},
		{"no number", func(in *SignIn) error { in.Claims["x"] = math.NaN(); return nil }, 500, PageInternal},
		{"a cycle", func(in *SignIn) error { in.Claims["x"] = cycle; return nil }, 500, PageInternal},
		{"another subject", func(in *SignIn) error { in.Claims["sub"] = "bob"; return nil }, 500, PageInternal},
		{"another tenant", func(in *SignIn) error { in.Claims["tid"] = "bob"; return nil }, 500, PageInternal},
		{"a refusal that is nil", func(*SignIn) error { return nobody }, 403, PageSignInRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			calm := false
			a := newApp(t, withHook(func(_ context.Context, in *SignIn) error {
				if calm {
					return nil
				}
				return c.hook(in)
			}))
			b := a.browser()
			wantPage(t, a, b.Open(a.url+"/me"), c.status, c.kind)
			if p := b.Open(a.url + "/"); p.Body != "public" {
				t.Errorf("the site says %d %.100s", p.Status, p.Body)
			}
			a.issuer.Await(signintest.EndpointRevocation, 1)
			calm = true
			if got := a.subject(b); got != "alice" {
				t.Errorf("then signed in as %s", got)
			}
		})
	}
}

type panics struct{}

func (panics) MarshalJSON() ([]byte, error) { panic("oh") }

// TestOnSignInBlocks: a hook that does not return costs its own user a 503 page
// in bounded time and nobody else anything. It is not called a second time beside
// itself. When it returns, a reload signs in.
func TestOnSignInBlocks(t *testing.T) {
	release := make(chan struct{})
	var ran atomic.Int32
	newLab(t, labOptions{replicas: 2, config: func(c *Config) {
		c.OnSignIn = func(ctx context.Context, in *SignIn) error {
			if in.User.Subject != "alice" {
				return nil
			}
			ran.Add(1)
			if release == nil {
				<-ctx.Done()
				return ctx.Err()
			}
			<-release
			return nil
		}
	}}, func(l *lab) {
		release = make(chan struct{}) // of the bubble
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		send := func(i int) *http.Response {
			return l.replicas[i].serve(httptest.NewRequest("GET", back, nil), cookies, nil)
		}
		began, named := time.Now(), atomic.Int32{}
		together(4, func(i int) {
			resp := send(i % 2)
			if body, _ := io.ReadAll(resp.Body); strings.Contains(string(body), "not finished") {
				named.Add(1)
			}
			if resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("while the hook blocks: %d", resp.StatusCode)
			}
			if i == 0 {
				l.signIn("bob")
			}
		})
		if named.Load() != 2 {
			t.Errorf("%d of the replica's requests were told what they wait for, want 2", named.Load())
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the user waited %v", took)
		}
		close(release)
		if resp := send(0); resp.StatusCode != http.StatusSeeOther || ran.Load() != 1 {
			t.Errorf("the reload got %d, after %d runs", resp.StatusCode, ran.Load())
		}
		if resp := send(1); resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) == 0 {
			t.Errorf("the reload on the other replica got %d", resp.StatusCode)
		}

		release = nil // from now on the hook heeds its deadline
		back, cookies = l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		began = time.Now()
		if resp := send(0); resp.StatusCode != http.StatusServiceUnavailable || time.Since(began) != hookLimit {
			t.Errorf("at its deadline: %d after %v", resp.StatusCode, time.Since(began))
		}
	})
}

// TestOnSignInExtends: the hook is told of consent, and finds what it has set.
func TestOnSignInExtends(t *testing.T) {
	var told []string
	refuse := false
	a := newApp(t, withHook(func(_ context.Context, in *SignIn) error {
		told = append(told, fmt.Sprint(in.Extends, " ", in.Claims["plan"]))
		if refuse {
			return &RefusedError{}
		}
		if !in.Extends {
			in.Claims["plan"] = "basic"
		}
		return nil
	}))
	b := a.signIn()
	if p := b.Open(a.url + "/token?scope=Mail.Read"); p.Status != http.StatusOK {
		t.Fatalf("consent led to %d %.200s", p.Status, p.Body)
	}
	if got := fmt.Sprint(told); got != "[false <nil> true basic]" {
		t.Errorf("the hook was told %s", got)
	}
	if claims := claimsOf(a, b); claims["plan"] != "basic" {
		t.Errorf("then the plan is %v", claims["plan"])
	}
	refuse = true
	wantPage(t, a, b.Open(a.url+"/token?scope=Mail.Send"), http.StatusForbidden, PageSignInRefused)
	if got := a.subject(b); got != "alice" {
		t.Errorf("the running session is %s", got)
	}
}

// TestAppleTellsTheName: Apple tells the user's name once in a lifetime, in the
// form of the first answer, and in no token.
func TestAppleTellsTheName(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = "https://appleid.apple.com"
		o.behaviour = func(b *signintest.Behaviour) {
			b.Users = []signintest.User{{Subject: "001234.abcdef.0123"}}
			b.EditResponse = func(r *signintest.AuthResponse) {
				r.Params.Set("user", `{"name":{"firstName":"Ada","lastName":"Lovelace"},"email":"ada@example.test"}`)
			}
		}
		o.config = func(c *Config) {
			c.Scopes = []string{"openid", "name", "email"}
			c.OnSignIn = func(_ context.Context, in *SignIn) error {
				var told struct {
					Name struct{ FirstName, LastName string }
				}
				if json.Unmarshal([]byte(in.Form.Get("user")), &told) == nil {
					in.Claims["name"] = told.Name.FirstName + " " + told.Name.LastName
				}
				return nil
			}
		}
	})
	if p := a.browser().Open(a.url + "/me"); p.Status != http.StatusOK || !strings.Contains(p.Body, "Ada Lovelace") {
		t.Errorf("got %d %q, want the name that Apple told", p.Status, p.Body)
	}
}

// TestMergeClaims: what vouches for a value comes with it.
func TestMergeClaims(t *testing.T) {
	for _, c := range []struct{ under, over, want string }{
		{`{"a":1,"b":2}`, `{"b":3}`, `{"a":1,"b":3}`},
		{`{"email":"a@b.c","email_verified":true}`, `{}`, `{"email":"a@b.c","email_verified":true}`},
		{`{"email":"a@b.c","email_verified":true}`, `{"email":"a@b.c"}`, `{"email":"a@b.c","email_verified":true}`},
		{`{"email":"x@b.c","email_verified":true}`, `{"email":"a@b.c"}`, `{"email":"a@b.c"}`},
		{`{"email":"x@b.c"}`, `{"email_verified":true}`, `{"email_verified":true}`},
		{`{"email":"x@b.c","xms_edov":true}`, `{"email":"a@b.c"}`, `{"email":"a@b.c"}`},
		{`{"phone_number":"1","phone_number_verified":true}`, `{"phone_number":"2"}`, `{"phone_number":"2"}`},
		{`null`, `{"a":1}`, `{"a":1}`},
		{`[]`, `{"a":1}`, `{"a":1}`},
	} {
		if got := string(mergeClaims(json.RawMessage(c.under), json.RawMessage(c.over))); got != c.want {
			t.Errorf("%s under %s is %s, want %s", c.under, c.over, got, c.want)
		}
	}
}
