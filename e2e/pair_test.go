package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/sessions"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/redisstore"
	"github.com/seed454743b5/signin/signintest"
)

// pair is two Auths in this process on one Redis, each through a proxy of its
// own, for what cannot be seen from outside a process. The sessions' secrets
// are kept in a gorilla store that shows them to the test.
type pair struct {
	t       *testing.T
	issuer  *signintest.Issuer
	redis   *redistest.Server
	proxies [2]*redistest.Proxy
	auths   [2]*signin.Auth
	urls    [2]string
	secrets *seenSecrets
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, issuer: signintest.NewIssuer(t, nil), redis: redistest.Start(t)}
	cookies := sessions.NewCookieStore(bytes.Repeat([]byte{3}, 32), bytes.Repeat([]byte{4}, 32))
	cookies.Options.HttpOnly, cookies.Options.SameSite = true, http.SameSiteLaxMode
	p.secrets = &seenSecrets{CookieStore: cookies}
	for i := range p.auths {
		p.proxies[i] = redistest.StartProxy(t, p.redis.Addr())
		store, err := redisstore.Open(p.proxies[i].URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		var handler http.Handler
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
		t.Cleanup(server.Close)
		p.urls[i] = server.URL
		auth, err := signin.New(signin.Config{
			Issuer: p.issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"), BaseURL: server.URL,
			Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, Store: store, Sessions: p.secrets,
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		p.auths[i] = auth
		mux := http.NewServeMux()
		mux.Handle("GET /me", auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, signin.UserFromContext(r.Context()).Subject)
		})))
		mux.Handle("GET /token", auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, err := signin.TokenRequest{Refresh: true}.Source(r.Context()).Token()
			switch {
			case auth.Challenge(w, r, err):
			case err != nil:
				http.Error(w, "no token", http.StatusServiceUnavailable)
			default:
				fmt.Fprint(w, token.AccessToken)
			}
		})))
		mux.HandleFunc("POST /signout", auth.SignOut)
		handler = auth.Handler(mux)
	}
	return p
}

func (p *pair) signIn(user string) *signintest.Browser {
	p.t.Helper()
	p.issuer.Update(func(b *signintest.Behaviour) { b.User = user })
	b := signintest.NewBrowser(p.t, nil)
	if page := b.Open(p.urls[0] + "/me"); page.Status != http.StatusOK || page.Body != user {
		p.t.Fatalf("signing in as %s: %s", user, describe(page))
	}
	return b
}

// settle ends what is idle, so that goroutines can be counted.
func (p *pair) settle(t *testing.T) {
	t.Helper()
	for _, auth := range p.auths {
		if err := auth.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	p.issuer.Client().CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
}

// goroutines counts those that are not a connection's, idle or in use.
func goroutines() int {
	n := 0
	for _, g := range strings.Split(stacks(), "\n\n") {
		if strings.Contains(g, "signin.(") || strings.Contains(g, "redisstore.") || strings.Contains(g, "rueidis.") {
			n++
		}
	}
	return n
}

func stacks() string {
	runtime.GC()
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
	return b.String()
}

// seenSecrets is a cookie store that remembers the sessions' secrets, which
// is what a session is opened with.
type seenSecrets struct {
	*sessions.CookieStore
	mu   sync.Mutex
	seen [][]byte // guarded by mu
}

func (s *seenSecrets) Save(r *http.Request, w http.ResponseWriter, gs *sessions.Session) error {
	for _, v := range gs.Values {
		if secret, ok := v.([]byte); ok && len(secret) > 0 {
			s.mu.Lock()
			s.seen = append(s.seen, bytes.Clone(secret))
			s.mu.Unlock()
		}
	}
	return s.CookieStore.Save(r, w, gs)
}

// spellings are the ways a secret could stand in a dump.
func (s *seenSecrets) spellings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, secret := range s.seen {
		all = append(all, string(secret), fmt.Sprintf("%x", secret),
			base64.RawURLEncoding.EncodeToString(secret), base64.RawStdEncoding.EncodeToString(secret))
	}
	return all
}
