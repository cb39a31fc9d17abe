package signin

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/signintest"
)

const graphDefault = "https://graph.microsoft.com/.default"

// appTokens counts the requests for app tokens since the last time.
func (l *lab) appTokens(want int) {
	l.t.Helper()
	synctest.Wait()
	if got := l.issuer.CountGrant("client_credentials"); got != want {
		l.t.Errorf("%d requests for app tokens, want %d", got, want)
	}
	l.issuer.ForgetCalls()
}

func (l *lab) mustAppToken(i int, scopes ...string) string {
	l.t.Helper()
	token, err := l.replicas[i].AppTokenSource(scopes...).Token()
	if err != nil {
		l.t.Fatalf("Token: %v\n%s", err, l.replicas[i].log)
	}
	return token.AccessToken
}

// One token for all replicas, renewed in the background, once.
func TestAppToken(t *testing.T) {
	newLab(t, labOptions{replicas: 3}, func(l *lab) {
		var mu sync.Mutex
		tokens := map[string]bool{}
		together(90, func(i int) {
			token := l.mustAppToken(i%3, graphDefault)
			mu.Lock()
			defer mu.Unlock()
			tokens[token] = true
		})
		if len(tokens) != 1 {
			t.Errorf("%d tokens, want 1", len(tokens))
		}
		if form := l.issuer.LastCall(signintest.EndpointToken).Form; form.Get("scope") != graphDefault {
			t.Errorf("asked for %v", form)
		}
		l.appTokens(1)

		// The same set in another order is the same token; another is not.
		a := l.mustAppToken(0, "b", "a", "b")
		if l.mustAppToken(1, "a", "b") != a || l.mustAppToken(1, "a") == a {
			t.Error("scope sets are confused")
		}
		l.appTokens(2)

		// Early, behind the back of the one that serves.
		l.pass(56 * time.Minute)
		release := make(chan struct{})
		arrived := l.replicas[0].wire.hang(release)
		start := time.Now()
		together(20, func(int) {
			if !tokens[l.mustAppToken(0, graphDefault)] {
				t.Error("not the token that still serves")
			}
		})
		<-arrived
		if time.Since(start) != 0 {
			t.Errorf("callers waited %v", time.Since(start))
		}
		close(release)
		synctest.Wait()
		fresh := l.mustAppToken(0, graphDefault)
		for i := range 3 {
			l.mustAppToken(i, graphDefault)
			synctest.Wait()
			if l.mustAppToken(i, graphDefault) != fresh || tokens[fresh] {
				t.Errorf("replica %d has another token", i)
			}
		}
		l.appTokens(1)

		l.pass(3 * time.Hour)
		together(90, func(i int) { l.mustAppToken(i%3, graphDefault) })
		l.appTokens(1)
	})
}

// A restart finds the token in the store, also with the keys in another
// order; a dump of the store names and shows nothing.
func TestAppTokenInStore(t *testing.T) {
	old, young := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	newLab(t, labOptions{config: func(c *Config) { c.Keys = [][]byte{old} }}, func(l *lab) {
		token := l.mustAppToken(0, graphDefault)
		for _, keys := range [][][]byte{{old}, {old, young}, {young, old}} {
			l.replicas = append(l.replicas, l.replica(func(c *Config) { c.Keys = keys }))
			if l.mustAppToken(len(l.replicas)-1, graphDefault) != token {
				t.Error("another token")
			}
		}
		l.appTokens(1)
		l.replicas = append(l.replicas, l.replica(func(c *Config) { c.Keys = [][]byte{young} }))
		l.mustAppToken(4, graphDefault)
		other := l.replica(func(c *Config) { c.Keys, c.ClientID = [][]byte{old}, "other" })
		if _, err := other.AppTokenSource(graphDefault).Token(); err == nil {
			t.Error("another client got the token")
		}
		memory := l.store.Store.(*MemoryStore)
		for i := range memory.shards {
			for key, e := range memory.shards[i].entries {
				if strings.Contains(key+string(e.value), token) || strings.Contains(key+string(e.value), "graph") {
					t.Errorf("the store shows it under %q", key)
				}
			}
		}
	})
}

// A failure is not reported while a token is valid, and 50 that fail together
// ask once.
func TestAppTokenFails(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		first := l.mustAppToken(0, "a")
		l.issuer.ForgetCalls()
		l.issuer.Fail(signintest.EndpointToken, signintest.Fault{Status: 503})
		l.pass(56 * time.Minute)
		for range 10 {
			if l.mustAppToken(0, "a") != first {
				t.Error("not the token that still serves")
			}
			synctest.Wait()
		}
		l.appTokens(1)
		l.pass(3*time.Minute + 30*time.Second) // in its last minute it is waited for
		if l.mustAppToken(0, "a") != first {
			t.Error("not the token that still serves")
		}
		l.appTokens(1)
		l.pass(time.Hour)
		together(50, func(int) {
			_, err := l.replicas[0].AppTokenSource("a").Token()
			if _, passes := errors.AsType[*temporaryError](err); !passes {
				t.Errorf("Token: %v, want a temporary failure", err)
			}
		})
		l.appTokens(1)

		l.issuer.Fail(signintest.EndpointToken, signintest.OAuthError{Code: "invalid_scope"}.Fault())
		_, err := l.replicas[0].AppTokenSource("a").Token()
		refused, ok := errors.AsType[*oauth2.RetrieveError](err)
		if _, passes := errors.AsType[*temporaryError](err); !ok || refused.ErrorCode != "invalid_scope" || passes {
			t.Errorf("Token: %v, want the issuer's error", err)
		}
		if _, interaction := errors.AsType[*InteractionRequiredError](err); interaction {
			t.Error("nobody is there to interact")
		}
		l.appTokens(1)
		l.issuer.Fail(signintest.EndpointToken, signintest.Fault{Status: 429, Header: map[string][]string{"Retry-After": {"60"}}})
		for range 5 {
			l.replicas[0].AppTokenSource("a").Token()
		}
		l.appTokens(1)
		l.issuer.Heal()
		l.pass(time.Minute + time.Second)
		l.mustAppToken(0, "a")
		l.appTokens(1)
	})
}

// Without its store a replica gets tokens of its own.
func TestAppTokenStoreDown(t *testing.T) {
	for _, down := range []func(context.Context, string, string) error{faulty.Fails, faulty.Hangs} {
		newLab(t, labOptions{replicas: 2}, func(l *lab) {
			l.store.Set(down)
			start := time.Now()
			together(20, func(i int) { l.mustAppToken(i%2, "a") })
			if took := time.Since(start); took > once.Patience+once.CallTimeout {
				t.Errorf("it took %v", took)
			}
			l.mustAppToken(0, "a")
			l.appTokens(2)
			l.store.Set(nil)
		})
	}
}

func TestAppTokenLifetimes(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(b *signintest.Behaviour)
		want int // requests for one call now, and one 90 minutes later
	}{
		{"an hour", func(*signintest.Behaviour) {}, 2},
		{"a day", func(b *signintest.Behaviour) { b.AccessTokenLifetime = 24 * time.Hour }, 1},
		{"not said", func(b *signintest.Behaviour) { b.OmitExpiresIn = true }, 2},
		{"refresh_in", func(b *signintest.Behaviour) {
			b.AccessTokenLifetime, b.RefreshIn = 24*time.Hour, time.Hour
		}, 2},
	} {
		newLab(t, labOptions{behaviour: tc.edit}, func(l *lab) {
			l.mustAppToken(0, "a")
			l.pass(90 * time.Minute)
			l.mustAppToken(0, "a")
			synctest.Wait()
			if got := l.issuer.CountGrant("client_credentials"); got != tc.want {
				t.Errorf("%s: %d requests, want %d", tc.name, got, tc.want)
			}
		})
	}
}

func TestAppTokenMistakes(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		public := l.replica(func(c *Config) { c.Credential = nil })
		if _, err := public.AppTokenSource("a").Token(); err == nil || !strings.Contains(err.Error(), "Credential") {
			t.Errorf("public client: %v", err)
		}
		if _, err := l.replicas[0].AppTokenSource("a b").Token(); err == nil || !strings.Contains(err.Error(), "scope") {
			t.Errorf("two scopes in one: %v", err)
		}
		for i := range 2 * maxAppSources {
			l.replicas[0].AppTokenSource(strings.Repeat("x", 1+i%500), strings.Repeat("y", 1+i/500))
		}
		if n := len(l.replicas[0].tokens.apps.sources); n > maxAppSources {
			t.Errorf("%d sources are remembered", n)
		}
		l.appTokens(0)
	})
}
