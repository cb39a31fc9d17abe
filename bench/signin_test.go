package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed454743b5/signin"
)

const (
	appURL = "https://app.example.com"
	scope  = "Mail.Read"
)

// application is one that signs in with package signin, by its front door.
type application struct {
	tb      testing.TB
	issuer  *issuer
	auth    *signin.Auth
	handler http.Handler
}

func newApplication(tb testing.TB, i *issuer, edit ...func(*signin.Config)) *application {
	tb.Helper()
	c := signin.Config{
		Issuer: i.url, ClientID: "client", Credential: signin.Secret("secret"), BaseURL: appURL,
		Keys: [][]byte{[]byte(text(32))}, Scopes: []string{scope}, HTTPClient: i.client(),
		ResponseType: "code", ResponseMode: "query", // half the signatures of hybrid
		Logger: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	for _, f := range edit {
		f(&c)
	}
	auth, err := signin.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := auth.Shutdown(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return &application{tb, i, auth, auth.Handler(auth.RequireUser(http.HandlerFunc(work)))}
}

// work is the handler that all contestants serve: it gets hold of the access
// token.
func work(w http.ResponseWriter, r *http.Request) {
	token, err := signin.TokenSource(r.Context(), scope).Token()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	done(w, token.AccessToken)
}

// done ends a request that has got its token.
func done(w http.ResponseWriter, token string) {
	if len(token) != accessLen {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// challenge begins a sign-in. It returns the callback request, for which the
// issuer's answer is ready.
func (a *application) challenge(subject string) *http.Request {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, appURL+"/work", nil)
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Accept", "text/html")
	a.handler.ServeHTTP(w, r)
	if w.Code != http.StatusSeeOther {
		a.tb.Fatalf("challenge: status %d, want 303: %s", w.Code, w.Body)
	}
	location := w.Header().Get("Location")
	params := a.issuer.authorize(a.tb, location, subject)
	if strings.Contains(location, "response_mode=form_post") {
		r = httptest.NewRequest(http.MethodPost, appURL+"/oidc/callback", strings.NewReader(params.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r = httptest.NewRequest(http.MethodGet, appURL+"/oidc/callback?"+params.Encode(), nil)
	}
	for _, c := range w.Result().Cookies() {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	return r
}

// callback finishes a sign-in and returns what the browser will send as
// Cookie: the session cookie alone.
func (a *application) callback(r *http.Request) string {
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	if w.Code != http.StatusSeeOther {
		a.tb.Fatalf("callback: status %d, want 303: %s", w.Code, w.Body)
	}
	for _, c := range w.Result().Cookies() {
		if !strings.HasSuffix(c.Name, "-browser") {
			return c.Name + "=" + c.Value
		}
	}
	a.tb.Fatal("callback: no session cookie")
	return ""
}

func (a *application) signIn(subject string) (cookie string) {
	return a.callback(a.challenge(subject))
}

// signInAll returns the cookies of n users.
func (a *application) signInAll(n int) []string {
	cookies := make([]string, n)
	inParallel(n, func(i int) { cookies[i] = a.signIn(fmt.Sprintf("user%d", i)) })
	return cookies
}

// requestAll sends one request for each user.
func (a *application) requestAll(cookies []string) {
	inParallel(len(cookies), func(i int) { serve(a.tb, a.handler, cookies[i:i+1])(0) })
}

// inParallel calls f for 0 to n-1.
func inParallel(n int, f func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	all.Wait()
}
