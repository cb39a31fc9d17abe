// Command example is a small site that signs people in, shows who they are,
// and calls an API in their name. Without any settings it brings its own
// OpenID Provider and its own API:
//
//	go run ./example
//
// README.md lists the settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/example/internal/ui"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It prints the URL to open on a line of its own.
func run(ctx context.Context, getenv func(string) string, stdout, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	set, err := readSettings(getenv, log)
	if err != nil {
		return err
	}
	servers := &servers{log: log}
	defer servers.close()
	listener, err := servers.listen(ctx, set.addr)
	if err != nil {
		return err
	}
	if set.baseURL == "" {
		if set.baseURL, err = publicURL(listener); err != nil {
			return err
		}
	}
	api, err := servers.supply(ctx, &set, listener)
	if err != nil {
		return err
	}
	store, closeStore, err := openStore(set.redisURL)
	if err != nil {
		return err
	}
	defer closeStore()

	auth, err := signin.New(signin.Config{
		Issuer:       set.issuer,
		ClientID:     set.clientID,
		Credential:   credential(set.clientSecret),
		BaseURL:      set.baseURL,
		Scopes:       set.scopes,
		ResponseType: set.responseType,
		ResponseMode: set.responseMode,
		PAR:          signin.PAR(set.par),
		Prompt:       set.prompt,
		NameClaim:    "name",
		Keys:         set.keys,
		Store:        store,
		Logger:       log,
		Page:         setupPage,
	})
	if err != nil {
		return err
	}
	pages, err := ui.Parse(pageFiles, "pages", pageFuncs, formTargets(set.issuer)...)
	if err != nil {
		return err
	}
	s := &site{auth: auth, pages: pages, api: api, log: log}
	servers.add(listener, s.routes())
	fmt.Fprintf(stdout, "Open %s\n", set.baseURL)

	err = servers.serve(ctx)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, auth.Shutdown(closing))
}

// credential is nil for a public client, which has PKCE only.
func credential(secret string) signin.Credential {
	if secret == "" {
		return nil
	}
	return signin.Secret(secret)
}

// site is the demo site. Its handlers are in site.go and mail.go.
type site struct {
	auth  *signin.Auth
	pages *ui.Pages
	api   *apiClient
	log   *slog.Logger
}

func (s *site) routes() http.Handler {
	user := func(h http.HandlerFunc) http.Handler { return s.auth.RequireUser(h) }

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.Handle("GET /me", user(s.me))
	mux.Handle("GET /api", user(s.callAPI))
	mux.Handle("GET /tokens", user(s.tokens))
	mux.Handle("GET /mail", user(s.mailForm))
	mux.Handle("POST /mail", user(s.sendMail))
	mux.Handle("GET /vault", user(s.vault))
	mux.HandleFunc("POST /signout", s.auth.SignOut)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /style.css", ui.Style)
	mux.HandleFunc("GET /", s.notFound)

	// The issuer's answer is a cross-site POST, so the protection against
	// those stands inside the handler that receives it.
	return s.auth.Handler(http.NewCrossOriginProtection().Handler(mux))
}
