package signin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/signintest"
	"golang.org/x/oauth2"
)

// newAuth is configured as in production, but for a key from a secret store.
func newAuth(edit ...func(*signin.Config)) *signin.Auth {
	c := signin.Config{
		Issuer:     "https://login.example.com",
		ClientID:   "calendar",
		Credential: signin.Secret("from the environment"),
		BaseURL:    "https://app.example.com",
		Keys:       [][]byte{[]byte("32 random bytes, kept like a key")},
		Logger:     slog.New(slog.DiscardHandler),
	}
	for _, f := range edit {
		f(&c)
	}
	auth, err := signin.New(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return auth
}

// get is a request as a script makes it, which is answered without the issuer.
func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://app.example.com"+path, nil))
	return w
}

// A public page, a page for users, and a way out.
func Example() {
	auth, err := signin.New(signin.Config{
		Issuer:     signin.Entra(signin.EntraGlobal, "organizations"),
		ClientID:   "11111111-2222-3333-4444-555555555555",
		Credential: signin.Secret("from the environment"),
		BaseURL:    "https://app.example.com",
		Keys:       [][]byte{[]byte("32 random bytes, kept like a key")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "welcome")
	})
	mux.Handle("GET /hello", auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", signin.UserFromContext(r.Context()).Name())
	})))
	mux.HandleFunc("POST /signout", auth.SignOut)

	// The issuer's answer is a cross-site POST, so Handler stands outside the
	// protection against those.
	app := auth.Handler(http.NewCrossOriginProtection().Handler(mux))

	fmt.Println(get(app, "/").Body)
	fmt.Println(get(app, "/hello").Code)
	// Output:
	// welcome
	// 401
}

// New reports everything that is wrong with a configuration at once.
func ExampleNew() {
	_, err := signin.New(signin.Config{Issuer: "http://login.example.com", Keys: [][]byte{[]byte("short")}})
	fmt.Println(err)
	// Output:
	// signin: bad config: Issuer: want https://login.example.com; plain http is for loopback only
	// ClientID: empty; want the id the issuer gave this application
	// Keys[0]: 5 bytes; want 32
}

// Reports are for the tenant's controllers, and for those who proved who they
// are within the last quarter of an hour.
func ExampleAuth_Require() {
	auth := newAuth()
	reports := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "reports") })

	h := auth.Handler(auth.Require(signin.Requirement{
		Scopes: []string{"Reports.Read"},
		MaxAge: 15 * time.Minute,
		Allow: signin.AllowTenant("aaaaaaaa-0000-4000-8000-000000000001").
			And(signin.AllowClaim("roles", "Controller")),
	})(reports))

	w := get(h, "/reports")
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer error="insufficient_user_authentication", max_age="900"
}

// A rule of one's own combines with the ready ones. It says why it denies for
// the log; the user is told no more than that they may not pass.
func ExampleRule() {
	onCall := map[string]bool{"00u1": true}
	rota := signin.Rule(func(u *signin.User) error {
		if !onCall[u.Subject] {
			return errors.New("not on call")
		}
		return nil
	})
	rule := rota.Or(signin.AllowClaim("groups", "operators"))

	fmt.Println(rule(&signin.User{Issuer: "https://login.example.com", Subject: "00u1"}))
	fmt.Println(rule(&signin.User{Issuer: "https://login.example.com", Subject: "00u2"}))
	// Output:
	// <nil>
	// not on call, and the user has no claims
}

// A handler is tested without any issuer.
func ExampleNewContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		token, err := signin.TokenSource(r.Context(), "Mail.Read").Token()
		if err != nil {
			http.Error(w, "no token", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%s has %s", signin.UserFromContext(r.Context()).Subject, token.AccessToken)
	}
	user := &signin.User{Issuer: "https://login.example.com", Subject: "alice"}
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "a token"})

	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/mail", nil)
	handler(w, r.WithContext(signin.NewContext(r.Context(), user, source)))
	fmt.Println(w.Body)
	// Output: alice has a token
}

// A source is never nil. Outside a request it says so.
func ExampleTokenSource() {
	_, err := signin.TokenSource(context.Background(), "Mail.Read").Token()
	fmt.Println(err)
	// Output: signin: token source: the context is not of a request below Handler
}

// What only the user can mend, Challenge answers: a navigation goes to the
// issuer and comes back, a script gets 401 and learns what to ask for.
func ExampleAuth_Challenge() {
	auth := newAuth()
	h := auth.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := signin.TokenSource(r.Context(), "Mail.Read").Token()
		if auth.Challenge(w, r, err) {
			return
		}
		if err != nil {
			http.Error(w, "the mail service cannot be reached", http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, "your mail")
	}))
	w := get(h, "/mail")
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output: 401 application/problem+json
}

// Staff and partners sign in at different issuers. Each Auth has its own
// cookies and its own callback, and the Handlers nest in either order.
func ExampleAuth_Handler_twoIssuers() {
	staff := newAuth()
	partner := newAuth(func(c *signin.Config) {
		c.Issuer = "https://partners.example.com"
		c.CookieName = "partner"
		c.CallbackPath = "/partner/callback"
	})
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, signin.UserFromContext(r.Context()).Issuer)
	})
	mux := http.NewServeMux()
	mux.Handle("/", staff.RequireUser(page))
	mux.Handle("/orders/", partner.RequireUser(page))
	app := staff.Handler(partner.Handler(mux))

	fmt.Println(get(app, "/").Code, get(app, "/orders/7").Code)
	// Output: 401 401
}

// Mounted under a prefix, BaseURL names it and http.StripPrefix takes it off.
func ExampleAuth_Handler_prefix() {
	auth := newAuth(func(c *signin.Config) { c.BaseURL = "https://app.example.com/calendar" })
	calendar := http.NewServeMux()
	calendar.HandleFunc("GET /today", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "nothing today") })

	mux := http.NewServeMux()
	mux.Handle("/calendar/", http.StripPrefix("/calendar", auth.Handler(calendar)))
	fmt.Println(get(mux, "/calendar/today").Body)
	// Output: nothing today
}

// Metrics count events by name; otelsignin does so for OpenTelemetry.
func ExampleConfig_observe() {
	counts := map[string]int{} // behind a mutex where it matters
	auth := newAuth(func(c *signin.Config) {
		c.Observe = func(_ context.Context, e signin.Event) { counts[fmt.Sprint(e.Name, " ", e.Page)]++ }
	})
	// A callback that nobody began.
	get(auth.Handler(http.NotFoundHandler()), "/oidc/callback?code=x&state=y")
	fmt.Println(counts)
	// Output: map[rejected no-cookies:1]
}

// TestMail is the test of an application that signintest's documentation
// shows; TestSignintestDoc sees that it is.
func TestMail(t *testing.T) {
	// The issuer knows the client "client" with the secret "secret".
	issuer := signintest.NewIssuer(t, nil)
	auth, err := signin.New(signin.Config{ // no BaseURL: it is the test server's
		Issuer: issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"),
		Keys: [][]byte{[]byte("32 bytes that will do in a test.")}, HTTPClient: issuer.Client(),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/mail", auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "mail of ", signin.UserFromContext(r.Context()).Subject)
	})))
	app := httptest.NewServer(auth.Handler(mux))
	defer app.Close()

	// To the issuer, which signs alice in, and back.
	page := signintest.NewBrowser(t, nil).Open(app.URL + "/mail")
	if page.Status != http.StatusOK || page.Body != "mail of alice" {
		t.Errorf("got %d %q, %v", page.Status, page.Body, page.Err)
	}
}

func TestSignintestDoc(t *testing.T) {
	here, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadFile("signintest/issuer.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(here), "\nfunc TestMail(")
	body, _, ok := strings.Cut(rest, "\n}\n")
	shown := "//\t" + strings.ReplaceAll("func TestMail("+body+"\n}\n", "\n", "\n//\t")
	if shown = strings.ReplaceAll(shown, "//\t\n", "//\n"); !ok || !strings.Contains(string(there), strings.TrimSuffix(shown, "//\t")) {
		t.Error("the documentation of signintest does not show TestMail as it is here")
	}
}
