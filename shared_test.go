package signin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

// spoil sets everything in an error that can be set.
func spoil(need *InteractionRequiredError, i int) {
	need.Scopes = append(need.Scopes[:0], fmt.Sprint("scope-", i))
	need.LoginHint, need.Prompt, need.Resource = fmt.Sprint(i), "login", "x"
	if need.MaxAge != nil {
		*need.MaxAge = time.Duration(i)
	}
	for n := range need.ACR {
		need.ACR[n] = fmt.Sprint(i)
	}
	for name := range need.Params {
		need.Params[name][0] = fmt.Sprint(i)
	}
}

// "A handler may set fields before it does" (InteractionRequiredError): what
// one handler sets is neither seen nor raced by those who share its refresh.
func TestSharedInteraction(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		l.issuer.RevokeGrants("alice")
		release := make(chan struct{})
		r.wire.hang(release)
		scopes := []string{"mail"} // as a package's variable is
		var mu sync.Mutex
		seen := map[*InteractionRequiredError]bool{}
		const callers = 8
		go func() {
			synctest.Wait() // all wait for one refresh
			close(release)
		}()
		together(callers, func(i int) {
			r.in(cookies, func(_ http.ResponseWriter, req *http.Request) {
				_, err := TokenSource(req.Context(), scopes...).Token()
				need, ok := err.(*InteractionRequiredError)
				if !ok || !slices.Equal(need.Scopes, []string{"mail"}) || need.LoginHint != "" || need.Prompt != "" {
					t.Errorf("Token: %#v", err)
					return
				}
				mu.Lock()
				seen[need] = true
				mu.Unlock()
				spoil(need, i)
			})
		})
		l.refreshes(1)
		if len(seen) != callers || scopes[0] != "mail" {
			t.Errorf("%d errors for %d callers; the scopes they asked for are now %q", len(seen), callers, scopes)
		}
	})
}

// A source of NewContext's serves many requests, too.
func TestSharedInteractionMadeUp(t *testing.T) {
	ctx := NewContext(context.Background(), nil, nil)
	together(8, func(i int) {
		_, err := TokenSource(ctx).Token()
		need, ok := err.(*InteractionRequiredError)
		if !ok || need.Reason != ReasonSignIn || need.LoginHint != "" {
			t.Errorf("Token: %#v", err)
			return
		}
		spoil(need, i)
	})
}

func TestInteractionClone(t *testing.T) {
	age := time.Minute
	e := &InteractionRequiredError{
		Scopes: []string{"a"}, ACR: []string{"gold"}, MaxAge: &age, Params: url.Values{"ui_locales": {"de"}},
	}
	spoil(e.clone(), 7)
	if e.Scopes[0] != "a" || e.ACR[0] != "gold" || *e.MaxAge != time.Minute || e.Params.Get("ui_locales") != "de" || e.LoginHint != "" {
		t.Errorf("the original is now %+v", e)
	}
}

// Config.Page may change the page that it gets. Callbacks that wait for one
// redemption are refused with one page.
func TestSharedPage(t *testing.T) {
	newLab(t, labOptions{config: func(c *Config) {
		c.Page = func(w http.ResponseWriter, r *http.Request, p Page) {
			for i := range p.Actions {
				p.Actions[i].Label += "!"
			}
			p.ServeHTTP(w, r)
		}
	}}, func(l *lab) {
		r := l.replicas[0]
		back, cookies := l.toCallback("alice", "", &InteractionRequiredError{Reason: ReasonSignIn})
		l.issuer.FailNext(signintest.EndpointToken, signintest.OAuthError{Code: "invalid_grant"}.Fault())
		release := make(chan struct{})
		r.wire.hang(release)
		go func() {
			synctest.Wait() // all wait for one redemption
			close(release)
		}()
		together(4, func(int) {
			resp := r.serve(httptest.NewRequest("GET", back, nil), cookies, nil)
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), tryAgain+"!<") {
				t.Errorf("%d %.300s", resp.StatusCode, body)
			}
		})
	})
}

// Config.Observe may keep and change what it gets, and gets no claim of a user's
// beside iss and sub, in what the issuer says for itself neither.
func TestEventHoldsNoClaims(t *testing.T) {
	var mu sync.Mutex
	var events []Event
	newLab(t, labOptions{config: func(c *Config) {
		c.Scopes = []string{"mail"}
		c.Observe = func(_ context.Context, e Event) {
			mu.Lock()
			defer mu.Unlock()
			kept := e
			kept.Scopes = slices.Clone(e.Scopes)
			events = append(events, kept)
			for i := range e.Scopes {
				e.Scopes[i] = "spoilt"
			}
			if e.User != nil {
				u := *e.User
				events[len(events)-1].User = &u
				e.User.Subject = "spoilt"
			}
		}
	}}, func(l *lab) {
		r := l.replicas[0]
		cookies := l.signIn("alice", "extra")
		l.pass(2 * time.Hour)
		l.mustToken(0, cookies, TokenRequest{Scopes: []string{"mail", "extra"}})
		l.pass(2 * time.Hour)
		l.issuer.FailNext(signintest.EndpointToken,
			signintest.OAuthError{Status: 500, Code: "server_error", Description: "no mailbox for alice@example.test (Alice@Example.Test)"}.Fault(),
			signintest.OAuthError{Code: "interaction_required", Description: "User 'alice@example.test' must act"}.Fault())
		for range 2 {
			if _, err := r.token(cookies, TokenRequest{Scopes: []string{"mail"}}); err == nil {
				t.Error("a token out of nowhere")
			}
			l.pass(time.Minute)
		}
		l.mustToken(0, cookies, TokenRequest{Scopes: []string{"extra"}})
		r.serve(httptest.NewRequest("POST", "https://app.example.test/signout", nil), cookies, r.SignOut)
		synctest.Wait()
	})
	names := map[EventName]bool{}
	for _, e := range events {
		names[e.Name] = true
		if slices.Contains(e.Scopes, "spoilt") {
			t.Errorf("%s: an observer changed the scopes of others: %q", e.Name, e.Scopes)
		}
		if u := e.User; u != nil && (u.Subject != "alice" || u.Issuer == "" || len(u.RawClaims) > 0 || u.Tenant != "" || u.HomeAccount != "" || u.Name() != "alice") {
			t.Errorf("%s: the user is %+v, want iss and sub only", e.Name, u)
		}
		if e.Err != nil && strings.Contains(strings.ToLower(e.Err.Error()), "alice@") {
			t.Errorf("%s: the cause names the user: %v", e.Name, e.Err)
		}
	}
	for _, name := range []EventName{EventChallenge, EventSignedIn, EventRefreshed, EventRefreshFailed, EventRefreshRefused, EventSignedOut} {
		if !names[name] {
			t.Errorf("no event %q", name)
		}
	}
}
