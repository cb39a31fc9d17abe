package clientauth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/internal/clientauth"
)

// credentialSource is a vault whose content, health and clock a test sets.
type credentialSource struct {
	mu    sync.Mutex
	now   time.Time
	c     signin.Credential
	err   error
	loads int
}

func newCredentialSource(c signin.Credential) *credentialSource {
	return &credentialSource{now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), c: c}
}

func (s *credentialSource) load(context.Context) (signin.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	return s.c, s.err
}

func (s *credentialSource) set(c signin.Credential, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c, s.err = c, err
}

func (s *credentialSource) wait(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *credentialSource) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// check makes one request and compares the secret sent and the loads so far.
func (s *credentialSource) check(t *testing.T, c signin.Credential, secret string, loads int) {
	t.Helper()
	form, err := s.request(t.Context(), c)
	if err != nil || form.Get("client_secret") != secret {
		t.Errorf("sent %q, %v; want %q", form.Get("client_secret"), err, secret)
	}
	if s.loads != loads {
		t.Errorf("loaded %d times, want %d", s.loads, loads)
	}
}

func (s *credentialSource) request(ctx context.Context, c signin.Credential) (url.Values, error) {
	form := url.Values{}
	return form, clientauth.Authenticate(ctx, c, clientauth.Request{ClientID: "app", Now: s.clock}, form, http.Header{})
}

func TestRotatingAfterRefusal(t *testing.T) {
	s := newCredentialSource(signin.SecretPost("one"))
	c := signin.Rotating(s.load)
	s.check(t, c, "one", 1)
	s.check(t, c, "one", 1)

	// Right after the start: the first load does not count against the pause.
	s.set(signin.SecretPost("two"), nil)
	s.check(t, c, "one", 1)
	clientauth.Reload(c)
	s.check(t, c, "two", 2)

	// The refusal of a request signed before that comes late.
	clientauth.Reload(c)
	s.check(t, c, "two", 2)

	// A client the issuer refuses whatever it sends does not hammer the vault.
	for range 100 {
		clientauth.Reload(c)
		s.check(t, c, "two", 2)
	}
	s.set(signin.SecretPost("three"), nil)
	s.wait(clientauth.ReloadPause)
	s.check(t, c, "two", 2)
	clientauth.Reload(c)
	s.check(t, c, "three", 3)
}

func TestRotatingByAge(t *testing.T) {
	s := newCredentialSource(signin.SecretPost("one"))
	c := signin.Rotating(s.load)
	s.check(t, c, "one", 1)
	s.set(signin.SecretPost("two"), nil)
	s.wait(clientauth.RenewEvery - time.Second)
	s.check(t, c, "one", 1)
	s.wait(time.Second)
	s.check(t, c, "two", 2)

	// The vault fails: what we hold stays in use, and it is asked once a minute.
	s.set(nil, errors.New("vault is sealed"))
	s.wait(clientauth.RenewEvery)
	s.check(t, c, "two", 3)
	s.check(t, c, "two", 3)
	s.wait(clientauth.RenewPause)
	s.check(t, c, "two", 4)
	s.set(signin.SecretPost("three"), nil)
	s.wait(clientauth.RenewPause)
	s.check(t, c, "three", 5)
}

func TestRotatingByExpiry(t *testing.T) {
	s := newCredentialSource(nil)
	cert := func(life time.Duration) signin.Credential {
		return signin.Certificate(certifyClient(t, clientKeys().p256, s.clock().Add(life)))
	}
	s.set(cert(20*time.Minute), nil)
	c := signin.Rotating(s.load)
	sign := func(loads int) {
		t.Helper()
		if _, err := s.request(t.Context(), c); err != nil || s.loads != loads {
			t.Errorf("%v after %d loads, want %d", err, s.loads, loads)
		}
	}
	sign(1)
	s.wait(15*time.Minute - time.Second)
	sign(1)
	s.wait(time.Second)
	sign(2) // five minutes before its end
	sign(2) // the vault still has the old one: once a minute
	s.wait(clientauth.RenewPause)
	sign(3)
	s.set(cert(90*24*time.Hour), nil)
	s.wait(clientauth.RenewPause)
	sign(4)
	s.wait(clientauth.RenewEvery - time.Second)
	sign(4)
}

func TestRotatingFailures(t *testing.T) {
	sealed := errors.New("vault is sealed")
	for _, tc := range []struct {
		name string
		c    signin.Credential
		err  error
		want string
	}{
		{"source fails", nil, sealed, "loading: vault is sealed"},
		{"nothing", nil, nil, "loading: got a nil Credential"},
		{"another Rotating", signin.Rotating(nil), nil, "loading: got another Rotating"},
		{"no secret", signin.Secret(""), nil, "loading: signin.Secret is empty: want the client secret, or a nil Credential for a public client"},
		{"bad certificate", signin.Certificate(tls.Certificate{}), nil, "loading: ClientKey.Signer is nil: want a key, or a Certificate with a PrivateKey that is a crypto.Signer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newCredentialSource(tc.c)
			s.err = tc.err
			c := signin.Rotating(s.load)
			form, err := s.request(t.Context(), c)
			if err == nil || err.Error() != tc.want || len(form) != 0 {
				t.Fatalf("error %v, form %q; want %q and nothing sent", err, form.Encode(), tc.want)
			}
			wantTemporary(t, err)
			if tc.err != nil && !errors.Is(err, tc.err) {
				t.Errorf("error %v lost its cause", err)
			}
			// Nothing is remembered: the next request finds the source well again.
			s.set(signin.SecretPost("one"), nil)
			s.check(t, c, "one", 2)

			// After a refusal there is nothing to go on with either.
			s.set(tc.c, tc.err)
			clientauth.Reload(c)
			if _, err := s.request(t.Context(), c); err == nil || err.Error() != tc.want {
				t.Errorf("after a refusal: error %v, want %q", err, tc.want)
			}
			s.set(signin.SecretPost("two"), nil)
			s.check(t, c, "two", 4)
		})
	}
}

// Fifty requests meet at a credential that is not there yet, or was refused:
// one load serves them all, and whoever started it may leave.
func TestRotatingConcurrently(t *testing.T) {
	for _, tc := range []struct {
		name    string
		refused bool
	}{{"at the start", false}, {"after a refusal", true}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int32
				gate := make(chan struct{})
				c := signin.Rotating(func(ctx context.Context) (signin.Credential, error) {
					if loads.Add(1) == 1 && tc.refused {
						return signin.SecretPost("one"), nil
					}
					select {
					case <-gate:
						return signin.SecretPost("two"), nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				})
				want := int32(1)
				if tc.refused {
					credentialProof(t, c, clientauth.Request{ClientID: "app"})
					clientauth.Reload(c)
					want = 2
				}

				// The first to ask hangs up while the load runs.
				ctx, cancel := context.WithCancel(t.Context())
				gone := make(chan error)
				go func() {
					gone <- clientauth.Authenticate(ctx, c, clientauth.Request{ClientID: "app"}, url.Values{}, http.Header{})
				}()
				synctest.Wait()
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						form := url.Values{}
						err := clientauth.Authenticate(t.Context(), c, clientauth.Request{ClientID: "app"}, form, http.Header{})
						if err != nil || form.Get("client_secret") != "two" {
							t.Errorf("sent %q, %v; want two", form.Get("client_secret"), err)
						}
						if tc.refused {
							clientauth.Reload(c) // their refusals come in late
						}
					})
				}
				synctest.Wait()
				cancel()
				if err := <-gone; !errors.Is(err, context.Canceled) {
					t.Errorf("who hung up got %v, want context.Canceled", err)
				}
				close(gate)
				wg.Wait()
				if form, _ := credentialProof(t, c, clientauth.Request{ClientID: "app"}); form.Get("client_secret") != "two" {
					t.Errorf("afterwards sent %q, want two", form.Get("client_secret"))
				}
				if got := loads.Load(); got != want {
					t.Errorf("loaded %d times, want %d", got, want)
				}
			})
		})
	}
}

// While a source hangs, a credential that is merely due for renewal serves all
// but the one who asked for the new one, and that one after ten seconds.
func TestRotatingHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		c := signin.Rotating(func(ctx context.Context) (signin.Credential, error) {
			if first {
				first = false
				return signin.SecretPost("one"), nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		var offset atomic.Int64
		in := clientauth.Request{ClientID: "app", Now: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }}
		credentialProof(t, c, in)
		offset.Store(int64(clientauth.RenewEvery))

		start := time.Now()
		slow := make(chan time.Duration)
		go func() {
			credentialProof(t, c, in)
			slow <- time.Since(start)
		}()
		synctest.Wait()
		for range 10 {
			if form, _ := credentialProof(t, c, in); form.Get("client_secret") != "one" {
				t.Errorf("sent %q while renewing, want one", form.Get("client_secret"))
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("others waited %v", took)
		}
		if took := <-slow; took != clientauth.LoadTimeout {
			t.Errorf("the renewal gave up after %v, want %v", took, clientauth.LoadTimeout)
		}
	})
}

// One panic of the function does not end the renewal by age.
func TestRotatingPanics(t *testing.T) {
	s := newCredentialSource(signin.SecretPost("one"))
	var panics atomic.Bool
	c := signin.Rotating(func(ctx context.Context) (signin.Credential, error) {
		if panics.Swap(false) {
			panic("vault")
		}
		return s.load(ctx)
	})
	s.check(t, c, "one", 1)
	s.set(signin.SecretPost("two"), nil)
	s.wait(clientauth.RenewEvery)
	panics.Store(true)
	s.check(t, c, "one", 1)
	s.check(t, c, "one", 1) // not again at once
	s.wait(clientauth.RenewPause)
	s.check(t, c, "two", 2)
	s.wait(clientauth.RenewEvery)
	s.check(t, c, "two", 3)
}
