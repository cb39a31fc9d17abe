// Package chirouter shows package signin below a chi router: there is nothing
// to adapt, for both speak net/http.
package chirouter

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/signintest"
)

// routes has sign-in for the whole site, a user for /notes, and an access
// rule for /notes/{id}/edit.
func routes(auth *signin.Auth) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer, middleware.Compress(5))
	// Handler is middleware like any other. It answers its own paths, so the
	// router need not know them.
	r.Use(auth.Handler)
	r.Use(http.NewCrossOriginProtection().Handler)

	r.Get("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "welcome") })
	r.Post("/signout", auth.SignOut)
	r.Route("/notes/{id}", func(r chi.Router) {
		r.Use(auth.RequireUser)
		r.Get("/", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "note %s of %s", chi.URLParam(r, "id"), signin.UserFromContext(r.Context()).Subject)
		})
		r.With(func(next http.Handler) http.Handler {
			return auth.Require(signin.Requirement{Allow: signin.AllowClaim("roles", "Editor")})(next)
		}).Get("/edit", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "editor") })
	})
	return r
}

func TestChi(t *testing.T) {
	net := signintest.NewNetwork(t)
	issuer := signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "https://login.example.test", Network: net, Behaviour: func(b *signintest.Behaviour) {
		b.Users = []signintest.User{{Subject: "alice"}, {Subject: "bob", Claims: map[string]any{"roles": []string{"Editor"}}}}
	}})
	auth, err := signin.New(signin.Config{
		Issuer: issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"), BaseURL: "https://app.example.test",
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: net.Client(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	site := net.Serve("https://app.example.test", routes(auth))
	for subject, edits := range map[string]int{"alice": http.StatusForbidden, "bob": http.StatusOK} {
		issuer.Update(func(b *signintest.Behaviour) { b.User = subject })
		b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: net})
		if p := b.Open(site + "/"); p.Status != http.StatusOK || p.Body != "welcome" {
			t.Errorf("public page: %d %q", p.Status, p.Body)
		}
		if p := b.Open(site + "/notes/7/"); p.Status != http.StatusOK || p.Body != "note 7 of "+subject {
			t.Errorf("%s: %d %.200q", subject, p.Status, p.Body)
		}
		if p := b.Open(site + "/notes/7/edit"); p.Status != edits {
			t.Errorf("%s edits: %d, want %d", subject, p.Status, edits)
		}
		out := b.Send(&signintest.Request{Method: http.MethodPost, URL: site + "/signout", From: site + "/", Activated: true})
		if out.Status != http.StatusSeeOther {
			t.Errorf("sign-out: %d", out.Status)
		}
		if p := b.Fetch(out, "/notes/7/"); p.Status != http.StatusUnauthorized {
			t.Errorf("after sign-out: %d, want 401", p.Status)
		}
	}
	if n := issuer.CountGrant("authorization_code"); n != 2 {
		t.Errorf("%d redemptions, want one for each user", n)
	}
}
