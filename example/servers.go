package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/seed454743b5/signin/example/internal/api"
	"github.com/seed454743b5/signin/example/internal/op"
)

// servers are the site and what it brings along, each on a listener of its
// own, so that they are as separate as they would be in the real world.
type servers struct {
	log       *slog.Logger
	listeners []net.Listener
	running   []server
}

type server struct {
	listener net.Listener
	http     *http.Server
}

func (s *servers) listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	s.listeners = append(s.listeners, l)
	return l, nil
}

// listenBeside takes the port after the site's, so that its URL is the same
// at the next start, or any free one.
func (s *servers) listenBeside(ctx context.Context, site net.Listener, distance int) (net.Listener, error) {
	if a, ok := site.Addr().(*net.TCPAddr); ok && a.Port+distance < 1<<16 {
		if l, err := s.listen(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port+distance))); err == nil {
			return l, nil
		}
	}
	return s.listen(ctx, "127.0.0.1:0")
}

func (s *servers) add(l net.Listener, h http.Handler) {
	s.running = append(s.running, server{l, &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      time.Minute, // a sign-in waits for the issuer
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}})
}

// supply starts the OpenID Provider and the API that the settings do not name,
// completes the settings, and returns a client of the API.
func (s *servers) supply(ctx context.Context, set *settings, site net.Listener) (*apiClient, error) {
	// Both exist before either knows the other's URL.
	var providerListener, apiListener net.Listener
	var err error
	if set.issuer == "" {
		if providerListener, err = s.listenBeside(ctx, site, 1); err != nil {
			return nil, err
		}
	}
	demo := set.apiURL == ""
	if demo {
		if apiListener, err = s.listenBeside(ctx, site, 2); err != nil {
			return nil, err
		}
		set.apiURL = "http://" + apiListener.Addr().String() + "/me"
	}
	resource := "" // an issuer of its own need not know the demo API
	verify := api.ByIssuer(set.issuer, &http.Client{Timeout: 10 * time.Second})
	if providerListener != nil {
		resource = set.apiURL
		provider, err := startProvider(set, providerListener, s.log)
		if err != nil {
			return nil, err
		}
		s.add(providerListener, provider.Handler())
		verify = api.ByProvider(provider)
	}
	if demo {
		h, err := api.New(api.Config{Verify: verify, Resource: resource, VaultContext: op.ContextStepUp, Logger: s.log})
		if err != nil {
			return nil, err
		}
		s.add(apiListener, h)
	}
	return newAPIClient(set.apiURL, demo, nil), nil
}

// startProvider makes the embedded provider and writes it into the settings.
func startProvider(set *settings, l net.Listener, log *slog.Logger) (*op.Provider, error) {
	set.issuer = "http://" + l.Addr().String()
	set.clientID, set.clientSecret = "signin-demo", rand.Text()
	return op.New(op.Config{
		Issuer:                 set.issuer,
		ClientID:               set.clientID,
		ClientSecret:           set.clientSecret,
		RedirectURIs:           []string{set.baseURL + "/oidc/callback"},
		PostLogoutRedirectURIs: []string{set.baseURL + "/"},
		Resources:              []string{set.apiURL},
		Logger:                 log,
	})
}

// serve serves until ctx ends, then lets running requests finish.
func (s *servers) serve(ctx context.Context) error {
	failed := make(chan error, len(s.running))
	for _, srv := range s.running {
		go func() { failed <- srv.http.Serve(srv.listener) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	// The site was added last and stops first: what it is doing may need the
	// others.
	for i := len(s.running) - 1; i >= 0; i-- {
		err = errors.Join(err, s.running[i].http.Shutdown(closing))
	}
	return err
}

// close frees the ports of what was never served.
func (s *servers) close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// formTargets are where a form of the site may lead: its sign-out goes on to
// the issuer, which may send the browser to issuers of its own.
func formTargets(issuer string) []string {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme == "https" {
		return []string{"https:"}
	}
	return []string{u.Scheme + "://" + u.Host, "https:"}
}
