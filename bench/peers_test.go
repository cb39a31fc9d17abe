package bench

import (
	"context"
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

// tokens are the payload of one session.
type tokens struct{ access, refresh, id string }

// newTokens are as long as an issuer's. Nobody who keeps them looks into them.
func newTokens() tokens { return tokens{text(accessLen), text(refreshLen), text(idTokenLen)} }

func bare(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// peer is a way to keep sessions: a handler, and how users come to it.
type peer struct {
	name    string
	max     int // users beyond which it is not to be borne, or no different
	prepare func(tb testing.TB, users int) (http.Handler, []string)
}

var peers = []peer{
	{"bare handler", 100_000, func(_ testing.TB, users int) (http.Handler, []string) {
		return http.HandlerFunc(bare), make([]string, users)
	}},
	{"floor", 100_000, func(_ testing.TB, users int) (http.Handler, []string) {
		f := newFloor(workOnFloor)
		cookies := make([]string, users)
		inParallel(users, func(n int) { cookies[n] = f.signIn(newTokens()) })
		return f, cookies
	}},
	{"signin", 100_000, func(tb testing.TB, users int) (http.Handler, []string) {
		a := newApplication(tb, newIssuer(tb, issuerURL, "ES256"))
		cookies := a.signInAll(users)
		a.requestAll(cookies) // what has been opened is remembered
		return a.handler, cookies
	}},
	{"scs in memory", 100_000, prepareSCS},
	{"gorilla cookie", 10_000, prepareGorilla},
	{"MSAL Go in memory", 10_000, prepareMSAL},
	{"MSAL Go with an accessor", 10_000, prepareMSALAccessor},
	{"ID token verified", 100, prepareVerified},
}

// prepareSCS keeps the tokens in an scs session.
func prepareSCS(_ testing.TB, users int) (http.Handler, []string) {
	sm := scs.New()
	sm.Store = memstore.NewWithCleanupInterval(0)
	cookies := make([]string, users)
	signIn := func(n int) {
		t := newTokens()
		w := httptest.NewRecorder()
		sm.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			sm.Put(r.Context(), "access", t.access)
			sm.Put(r.Context(), "refresh", t.refresh)
			sm.Put(r.Context(), "id", t.id)
		})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, appURL+"/", nil))
		c := w.Result().Cookies()[0]
		cookies[n] = c.Name + "=" + c.Value
	}
	inParallel(users, signIn)
	return sm.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done(w, sm.GetString(r.Context(), "access"))
	})), cookies
}

// prepareGorilla keeps the tokens in an encrypted cookie.
func prepareGorilla(tb testing.TB, users int) (http.Handler, []string) {
	store := sessions.NewCookieStore([]byte(text(32)), []byte(text(32)))
	store.Codecs[0].(*securecookie.SecureCookie).MaxLength(0) // over 4096, which a browser would not keep
	cookies := make([]string, users)
	inParallel(users, func(n int) {
		t := newTokens()
		values := map[any]any{"access": t.access, "refresh": t.refresh, "id": t.id}
		value, err := securecookie.EncodeMulti("session", values, store.Codecs...)
		if err != nil {
			tb.Error(err)
		}
		cookies[n] = "session=" + value
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := store.New(r, "session") // Get would keep it with the request, which is sent again
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		token, _ := s.Values["access"].(string)
		done(w, token)
	}), cookies
}

// prepareVerified verifies an ID token on each request, and keeps nothing.
func prepareVerified(tb testing.TB, users int) (http.Handler, []string) {
	i := newIssuer(tb, issuerURL, "RS256") // what most issuers sign with
	verifier := oidc.NewVerifier(i.url, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{i.key.Public()}}, &oidc.Config{ClientID: "client"})
	cookies := make([]string, users)
	for n := range cookies {
		cookies[n] = "session=" + i.idToken(tb, fmt.Sprintf("user%d", n), "client", text(43), nil)
	}
	access := text(accessLen)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session")
		if err == nil {
			_, err = verifier.Verify(context.Background(), c.Value)
		}
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		done(w, access)
	}), cookies
}
