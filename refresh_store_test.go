package signin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// writesOf makes all but reads of a kind of key fail, as a store does that is
// full or has become read-only.
func writesOf(prefix string) func(context.Context, string, string) error {
	return func(_ context.Context, op, key string) error {
		if op != "get" && strings.HasPrefix(key, prefix) {
			return faulty.ErrDown
		}
		return nil
	}
}

// A refresh whose save fails gives its callers the token at once, lets nobody
// have the old refresh token meanwhile, and saves when the store is back.
func TestRefreshSaveFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		pause time.Duration
		down  func(context.Context, string, string) error
	}{
		{"records read-only for 3s", 3 * time.Second, writesOf("s.")},
		{"store fails for 10s", 10 * time.Second, faulty.Fails},
		{"store hangs for 20m", 20 * time.Minute, faulty.Hangs},
		{"store hangs for 20h", 20 * time.Hour, faulty.Hangs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
				cookies := l.signIn("alice")
				l.pass(2 * time.Hour)
				release := make(chan struct{})
				arrived := l.replicas[0].wire.hang(release)
				var wg sync.WaitGroup
				var mu sync.Mutex
				got := map[string]bool{}
				for range 10 {
					wg.Go(func() {
						token, err := l.replicas[0].token(cookies, TokenRequest{})
						if err != nil {
							t.Errorf("Token: %v", err)
						}
						mu.Lock()
						defer mu.Unlock()
						got[token] = true
					})
				}
				<-arrived
				synctest.Wait()
				l.store.Set(tc.down) // after the lease, before the save
				close(release)
				start := time.Now()
				wg.Wait()
				if took := time.Since(start); len(got) != 1 || took > saveWait+time.Second {
					t.Errorf("%d tokens after %v, want one within %v", len(got), took, saveWait)
				}

				// Others fail within 5 seconds, with an error that is a 503. The
				// old refresh token is not sent.
				start = time.Now()
				_, err := l.replicas[1].token(cookies, TokenRequest{})
				if took := time.Since(start); tc.pause > 10*time.Second {
					if _, down := errors.AsType[*once.StoreError](err); !down || took > once.Patience+once.CallTimeout {
						t.Errorf("after %v: %v; want a *storeError", took, err)
					}
				}
				l.pass(tc.pause)
				l.store.Set(nil)
				together(100, func(i int) {
					if _, err := l.replicas[i%2].token(cookies, TokenRequest{}); err != nil {
						t.Errorf("the store is back: %v", err)
					}
				})
				want := 1
				if tc.pause > time.Hour {
					want = 2 // the token saved has expired meanwhile
				}
				l.refreshes(want)
				l.pass(2 * time.Hour)
				l.mustToken(1, cookies, TokenRequest{}) // the chain is whole
				l.refreshes(1)
			})
		})
	}
}

// A store that does not answer is told within five seconds, and nothing is
// sent.
func TestRefreshStoreDown(t *testing.T) {
	for _, tc := range []struct {
		name string
		down func(context.Context, string, string) error
	}{
		{"fails", faulty.Fails},
		{"hangs", faulty.Hangs},
		{"leases fail", writesOf("l.")},
		{"leases hang", func(ctx context.Context, op, key string) error {
			if op == "swap" && strings.HasPrefix(key, "l.") {
				return faulty.Hangs(ctx, op, key)
			}
			return nil
		}},
		{"fresh reads hang", func(ctx context.Context, op, key string) error {
			if op == "swap" && strings.HasPrefix(key, "s.") {
				return faulty.Hangs(ctx, op, key)
			}
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{}, func(l *lab) {
				cookies := l.signIn("alice")
				l.pass(2 * time.Hour)
				l.store.Set(tc.down)
				start := time.Now()
				together(20, func(int) {
					_, err := l.replicas[0].token(cookies, TokenRequest{})
					if _, down := errors.AsType[*once.StoreError](err); !down {
						t.Errorf("Token: %v, want a *storeError", err)
					}
					if p := l.replicas[0].unavailable(site.ReturnPath{}, err); p.Status != http.StatusServiceUnavailable {
						t.Errorf("that would be a %d, want 503", p.Status)
					}
				})
				if took := time.Since(start); took > once.Patience+100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				l.refreshes(0)
				l.store.Set(nil)
				l.mustToken(0, cookies, TokenRequest{})
				l.refreshes(1)
			})
		})
	}
}

// The holder of the lease dies with the request under way. Its sibling tries
// the token once, three seconds later; if it was spent, the user signs in.
func TestRefreshHolderDies(t *testing.T) {
	for _, spent := range []bool{false, true} {
		newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
			cookies := l.signIn("alice")
			l.pass(2 * time.Hour)
			r := l.record(cookies)
			l.replicas[1].in(cookies, func(_ http.ResponseWriter, req *http.Request) {
				secret, _ := l.replicas[1].sess.read(req)
				if spent {
					meta, _ := l.replicas[1].issuer.Metadata(l.t.Context())
					other, _, err := once.Acquire(l.t.Context(), l.store, "l.other", leaseTTL)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := l.replicas[1].tokens.requestRefresh(l.t.Context(), meta, &holding{Lease: other}, r, nil, &TokenRequest{}); err != nil {
						t.Fatal(err)
					}
					other.End(l.t.Context(), nil)
					l.issuer.ForgetCalls()
				}
				leaveLease(l.t, l.store, seal.StoreKey("l", secret))
			})
			start := time.Now()
			together(20, func(int) {
				_, err := l.replicas[0].token(cookies, TokenRequest{})
				if spent && !isReason(err, ReasonRefused) || !spent && err != nil {
					t.Errorf("spent %t: %v", spent, err)
				}
			})
			if took := time.Since(start); took < once.LeaseStale || took > once.LeaseStale+once.LeaseBeat {
				t.Errorf("taken over after %v, want %v", took, once.LeaseStale)
			}
			l.refreshes(1)
			if l.record(cookies) == nil {
				t.Error("the session is gone")
			}
		})
	}
}

// A process that was stopped until another took it for dead sends nothing.
func TestRefreshHolderStopped(t *testing.T) {
	newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		// Between lease and request the credential is loaded: stop there.
		stopped, release := make(chan struct{}, 1), make(chan struct{})
		l.replicas[0].issuer.Credential = Rotating(func(context.Context) (Credential, error) {
			stopped <- struct{}{}
			<-release
			return Secret("secret"), nil
		})
		done := make(chan error)
		go func() {
			_, err := l.replicas[0].token(cookies, TokenRequest{})
			done <- err
		}()
		<-stopped
		// Cut off from the store, its beats do not arrive; the sibling's calls do.
		l.store.Set(faulty.Fails)
		beside := &faulty.Troubled{Store: l.store.Store}
		l.replicas[1].store, l.replicas[1].records.store, l.replicas[1].tokens.store = beside, beside, beside
		l.mustToken(1, cookies, TokenRequest{})
		close(release)
		if err := <-done; err == nil {
			t.Error("a token, from a request that must not have been sent")
		}
		l.store.Set(nil)
		l.refreshes(1)
		l.pass(2 * time.Hour)
		l.mustToken(0, cookies, TokenRequest{})
		l.refreshes(1)
	})
}

// The answer to the Swap that saves is lost; what was saved is recognised.
func TestRefreshLostSave(t *testing.T) {
	newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		for range 3 {
			l.pass(2 * time.Hour)
			l.store.LoseAnswers(1, func(key string, _ []byte) bool { return strings.HasPrefix(key, "s.") })
			together(20, func(i int) {
				if _, err := l.replicas[i%2].token(cookies, TokenRequest{}); err != nil {
					t.Errorf("Token: %v", err)
				}
			})
			l.refreshes(1)
			if n := len(l.record(cookies).Tokens); n != 1 {
				t.Errorf("%d tokens held, want 1", n)
			}
		}
	})
}

// Signing out during a refresh leaves no session behind, and gives back what
// the refresh got.
func TestRefreshDuringSignOut(t *testing.T) {
	for _, late := range []bool{false, true} { // with a store that takes the save later
		newLab(t, labOptions{behaviour: single}, func(l *lab) {
			cookies := l.signIn("alice")
			l.pass(2 * time.Hour)
			release := make(chan struct{})
			arrived := l.replicas[0].wire.hang(release)
			done := make(chan error, 1)
			go func() {
				_, err := l.replicas[0].token(cookies, TokenRequest{})
				done <- err
			}()
			<-arrived
			if late {
				l.store.Set(writesOf("s."))
				close(release)
				if err := <-done; err != nil {
					t.Errorf("Token: %v", err)
				}
				l.store.Set(nil)
			}
			req := httptest.NewRequest("POST", "https://app.example.test/signout", nil)
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			if resp := l.replicas[0].serve(req, cookies, l.replicas[0].SignOut); resp.StatusCode != http.StatusSeeOther {
				t.Fatalf("sign-out: %d", resp.StatusCode)
			}
			if !late {
				close(release)
				if err := <-done; !isReason(err, ReasonSignIn) {
					t.Errorf("Token: %v, want %s", err, ReasonSignIn)
				}
			}
			l.pass(time.Minute)
			if l.record(cookies) != nil {
				t.Error("the session came back to life")
			}
			for _, info := range l.issuer.Tokens("alice") {
				if info.Refresh && info.Active {
					t.Error("a refresh token is still good")
				}
			}
			l.refreshes(1)
		})
	}
}

// A caller that goes away does not undo what others wait for.
func TestRefreshCallerGone(t *testing.T) {
	newLab(t, labOptions{behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		release := make(chan struct{})
		arrived := l.replicas[0].wire.hang(release)
		ctx, hangUp := context.WithCancel(l.t.Context())
		var wg sync.WaitGroup
		ask := func(ctx context.Context, want error) {
			req := httptest.NewRequestWithContext(ctx, "GET", "https://app.example.test/page", nil)
			l.replicas[0].serve(req, cookies, func(_ http.ResponseWriter, r *http.Request) {
				if _, err := (TokenRequest{}).token(r.Context()); !errors.Is(err, want) {
					t.Errorf("Token: %v, want %v", err, want)
				}
			})
		}
		wg.Go(func() { ask(ctx, context.Canceled) })
		<-arrived
		wg.Go(func() { ask(l.t.Context(), nil) })
		synctest.Wait()
		hangUp()
		synctest.Wait()
		close(release)
		wg.Wait()
		l.refreshes(1)
		l.pass(2 * time.Hour)
		l.mustToken(0, cookies, TokenRequest{})
		l.refreshes(1)
	})
}

// A refreshed ID token that names another user ends the session. Anything else
// that is wrong with it (OpenID Connect Core, 12.2) costs that ID token only.
func TestRefreshedIDToken(t *testing.T) {
	const used, ignored, ends = "used", "ignored", "the session ends"
	for _, tc := range []struct {
		name string
		edit func(*signintest.IDToken)
		then string
	}{
		{"as it should be", func(*signintest.IDToken) {}, used},
		{"without nonce", func(id *signintest.IDToken) { delete(id.Claims, "nonce") }, used},
		{"without auth_time", func(id *signintest.IDToken) { delete(id.Claims, "auth_time") }, used},
		{"omitted", func(id *signintest.IDToken) { id.Omit = true }, used},
		{"other sub", func(id *signintest.IDToken) { id.Claims["sub"] = "bob" }, ends},
		{"other iss", func(id *signintest.IDToken) { id.Claims["iss"] = "https://evil.example" }, ends},
		{"other aud", func(id *signintest.IDToken) { id.Claims["aud"] = "other" }, ignored},
		{"other azp", func(id *signintest.IDToken) { id.Claims["azp"] = "other" }, ignored},
		{"other nonce", func(id *signintest.IDToken) { id.Claims["nonce"] = "other" }, ignored},
		{"other auth_time", func(id *signintest.IDToken) { id.Claims["auth_time"] = time.Now().Unix() }, ignored},
		{"no iat", func(id *signintest.IDToken) { delete(id.Claims, "iat") }, ignored},
		{"expired", func(id *signintest.IDToken) { id.Claims["exp"] = time.Now().Add(-time.Hour).Unix() }, ignored},
		{"unsigned", func(id *signintest.IDToken) { id.Signing.Alg = "none" }, ignored},
		{"garbage", func(id *signintest.IDToken) { id.Raw = "a.b.c" }, ignored},
		{"encrypted", func(id *signintest.IDToken) { id.Raw = "a.b.c.d.e" }, ignored},
		{"too large", func(id *signintest.IDToken) { id.Claims["groups"] = strings.Repeat("g", oidc.MaxIDToken) }, ignored},
		{"no sub", func(id *signintest.IDToken) { delete(id.Claims, "sub") }, ignored},
		{"sub a number", func(id *signintest.IDToken) { id.Claims["sub"] = 1 }, ignored},
		{"other at_hash", func(id *signintest.IDToken) { id.Claims["at_hash"] = "other" }, ignored},
		{"other sub, unsigned", func(id *signintest.IDToken) { id.Claims["sub"], id.Signing.Alg = "bob", "none" }, ends},
		{"other sub, expired", func(id *signintest.IDToken) { id.Claims["sub"], id.Claims["exp"] = "bob", 1 }, ends},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newLab(t, labOptions{behaviour: func(b *signintest.Behaviour) {
				b.EditIDToken = func(id *signintest.IDToken) {
					if id.Channel == signintest.RefreshChannel {
						tc.edit(id)
					} else {
						id.Claims["auth_time"] = time.Now().Unix()
					}
				}
			}}, func(l *lab) {
				cookies := l.signIn("alice")
				l.pass(2 * time.Hour)
				_, err := l.replicas[0].token(cookies, TokenRequest{})
				if isReason(err, ReasonSignIn) != (tc.then == ends) || tc.then != ends && err != nil {
					t.Errorf("Token: %v; want that the ID token is %s", err, tc.then)
				}
				if (l.record(cookies) == nil) != (tc.then == ends) {
					t.Errorf("session gone: %t, want that the ID token is %s", tc.then != ends, tc.then)
				}
				synctest.Wait()
				if n := l.issuer.Count(signintest.EndpointRevocation); (n > 0) != (tc.then == ends) {
					t.Errorf("%d revocations; want that the ID token is %s", n, tc.then)
				}
				l.refreshes(1)
				if logged := strings.Contains(l.replicas[0].log.String(), string(EventIDTokenIgnored)); logged != (tc.then == ignored) {
					t.Errorf("a line that says so: %t, want that the ID token is %s", logged, tc.then)
				}
			})
		})
	}
}

// The store is down when a session must end: it ends when the store is back.
func TestRefreshedIDTokenStoreDown(t *testing.T) {
	newLab(t, labOptions{behaviour: func(b *signintest.Behaviour) {
		b.EditIDToken = func(id *signintest.IDToken) {
			if id.Channel == signintest.RefreshChannel {
				id.Claims["sub"] = "bob"
			}
		}
	}}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		l.store.Set(func(_ context.Context, op, _ string) error {
			if op == "delete" {
				return faulty.ErrDown
			}
			return nil
		})
		if _, err := l.replicas[0].token(cookies, TokenRequest{}); !isReason(err, ReasonSignIn) {
			t.Errorf("Token: %v, want %s", err, ReasonSignIn)
		}
		l.store.Set(nil)
		l.pass(time.Second)
		if l.record(cookies) != nil {
			t.Error("the session goes on")
		}
	})
}

// A step-up that brings no refresh token leaves one that belongs to the
// sign-in before: what is refreshed with it has that one's nonce.
func TestRefreshedIDTokenOfEarlierSignIn(t *testing.T) {
	newLab(t, labOptions{behaviour: func(b *signintest.Behaviour) {
		signIns := 0
		b.EditTokenResponse = func(call signintest.Call, body map[string]any) {
			if call.GrantType == "authorization_code" {
				if signIns++; signIns > 1 {
					delete(body, "refresh_token")
				}
			}
		}
	}}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(time.Minute)
		l.challenge("alice", cookies, &InteractionRequiredError{Reason: ReasonClaims, ACR: []string{"high"}})
		l.pass(2 * time.Hour)
		l.mustToken(0, cookies, TokenRequest{})
		l.refreshes(1)
	})
}

// What stands in place of the lease was not written by us. Nothing is sent
// without it, and nobody is signed out.
func TestRefreshLeasePoisoned(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		cookies := l.signIn("alice")
		var key string
		r.in(cookies, func(_ http.ResponseWriter, hr *http.Request) {
			s, err := r.visits.of(hr.Context()).session(hr.Context())
			if err != nil {
				t.Fatal(err)
			}
			key = seal.StoreKey("l", s.secret)
		})
		if _, swapped, err := once.Swap(l.t.Context(), l.store, key, nil, []byte("X"), time.Minute); err != nil || !swapped {
			t.Fatal(swapped, err)
		}
		_, err := r.token(cookies, TokenRequest{Refresh: true})
		if _, store := errors.AsType[*once.StoreError](err); !store {
			t.Errorf("%v, want the store's error", err)
		}
		l.refreshes(0)
		l.pass(time.Minute)
		l.mustToken(0, cookies, TokenRequest{Refresh: true})
		l.refreshes(1)
	})
}

// A refresh token is refused, and whether a sibling has replaced it cannot be
// read: that passes, and nothing is remembered against the user.
func TestRefreshRefusedWhileStoreFails(t *testing.T) {
	newLab(t, labOptions{}, func(l *lab) {
		r := l.replicas[0]
		cookies := l.signIn("alice")
		r.wire.before(func(req *http.Request) error {
			if strings.HasSuffix(req.URL.Path, "/token") {
				l.store.Set(func(_ context.Context, _, key string) error {
					if strings.HasPrefix(key, "s.") {
						return faulty.ErrDown
					}
					return nil
				})
			}
			return nil
		})
		l.issuer.FailNext(signintest.EndpointToken, signintest.JSONFault(400, map[string]any{"error": "invalid_grant"}))
		_, err := r.token(cookies, TokenRequest{Refresh: true, Scopes: []string{"none.held"}})
		if err == nil || isReason(err, ReasonRefused) || !errors.Is(err, faulty.ErrDown) {
			t.Errorf("%v, want what passes", err)
		}
		r.wire.before(nil)
		l.store.Set(nil)
		l.pass(time.Minute)
		if n := len(l.record(cookies).Refusals); n != 0 {
			t.Errorf("%d refusals are remembered", n)
		}
		l.mustToken(0, cookies, TokenRequest{Refresh: true})
	})
}

// leaveLease puts a lease into a store that nobody holds any more: its owner
// has died.
func leaveLease(t *testing.T, store Store, key string) {
	t.Helper()
	dead := append([]byte{once.LeaseMark}, bytes.Repeat([]byte{1}, 24)...)
	if _, ok, err := store.Swap(t.Context(), key, nil, dead, claimLifetime); !ok || err != nil {
		t.Fatalf("leaving a lease: %t %v", ok, err)
	}
}
