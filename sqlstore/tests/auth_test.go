package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/signintest"
	"github.com/seed454743b5/signin/sqlstore"
)

// site is replicas behind a load balancer that gives each request to the next
// of them, each with connections of its own.
type site struct {
	t    *testing.T
	url  string
	open func() *sqlstore.Store
	next atomic.Int64

	replicas [2]atomic.Pointer[http.Handler]
}

func newSite(t *testing.T, open func() *sqlstore.Store) (*site, func()) {
	t.Helper()
	s := &site{t: t, open: open}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*s.replicas[s.next.Add(1)%2].Load()).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	issuer := signintest.NewIssuer(t, nil)
	restart := func() {
		for i := range s.replicas {
			auth, err := signin.New(signin.Config{
				Issuer: issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"), HTTPClient: issuer.Client(),
				BaseURL: s.url, Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Store: open(),
			})
			if err != nil {
				t.Fatal(err)
			}
			page := func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "signed in as ", signin.UserFromContext(r.Context()).Subject)
			}
			handler := auth.Handler(auth.RequireUser(http.HandlerFunc(page)))
			s.replicas[i].Store(&handler)
		}
	}
	restart()
	return s, restart
}

// wantPage wants each replica to serve the page to whoever is signed in, or
// the status and nobody's page.
func (s *site) wantPage(b *signintest.Browser, status int, why string) {
	s.t.Helper()
	for range 2 * len(s.replicas) {
		page := b.Fetch(&signintest.Page{URL: s.url}, "/page")
		if page.Err != nil || page.Status != status || strings.Contains(page.Body, "signed in as") != (status == http.StatusOK) {
			s.t.Errorf("%s: %d %.200q %v; want %d", why, page.Status, page.Body, page.Err, status)
		}
	}
}

// TestReplicas signs in at replicas that share a table, and restarts them.
func TestReplicas(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		s, restart := newSite(t, func() *sqlstore.Store { return openStore(t, dialect, source, options) })
		b := signintest.NewBrowser(t, nil)
		s.wantPage(b, http.StatusUnauthorized, "signed out")
		for range 3 {
			if page := b.Open(s.url + "/page"); page.Status != http.StatusOK || !strings.Contains(page.Body, "signed in as") {
				t.Fatalf("signing in: %d %.200q %v", page.Status, page.Body, page.Err)
			}
		}
		s.wantPage(b, http.StatusOK, "signed in")
		restart()
		s.wantPage(b, http.StatusOK, "after a restart")
	})
}

// TestReplicasWithoutServer kills the database under a user who is signed in.
func TestReplicasWithoutServer(t *testing.T) {
	for _, kind := range servers {
		t.Run(kind.dialect.String(), func(t *testing.T) {
			t.Parallel()
			server := kind.start(t)
			s, restart := newSite(t, func() *sqlstore.Store { return openStore(t, kind.dialect, server.source(), sqlstore.Options{}) })
			b := signintest.NewBrowser(t, nil)
			if page := b.Open(s.url + "/page"); page.Status != http.StatusOK {
				t.Fatalf("signing in: %d %.200q %v", page.Status, page.Body, page.Err)
			}
			s.wantPage(b, http.StatusOK, "signed in")
			server.kill()
			s.wantPage(b, http.StatusServiceUnavailable, "without the database")
			server.run()
			s.wantPage(b, http.StatusOK, "with it again")
			restart()
			s.wantPage(b, http.StatusOK, "after a restart too")
		})
	}
}
