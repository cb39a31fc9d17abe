// Command internalsite puts sign-in, an access rule and a header with the
// user's subject in front of any HTTP server:
//
//	export OIDC_ISSUER=https://login.microsoftonline.com/<tenant>/v2.0
//	export OIDC_CLIENT_ID=... OIDC_CLIENT_SECRET=... BASE_URL=https://wiki.example.com
//	go run ./example/internalsite -upstream http://127.0.0.1:9000 -allow-claim roles=Reader,Editor
//
// The server behind gets X-Forwarded-User, the subject at the issuer, which is
// what tells users apart, X-Forwarded-Preferred-Username, a name to show, which
// users may choose and two may share, and X-Forwarded-User-Email if the issuer
// has verified the address. X-Forwarded-User-Id repeats the subject. Only this
// command must be able to reach the server behind. A path in -upstream is a
// prefix that no request leaves. /oidc/signout signs out. The environment is that of the demo site, in
// ../README.md; OIDC_ISSUER is required.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/redisstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "internalsite:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	p, err := readFlags(args, stderr)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	defer listener.Close()
	config, err := readEnv(getenv, listener.Addr().(*net.TCPAddr).Port, log)
	if err != nil {
		return err
	}
	if dest := getenv("REDIS_URL"); dest != "" {
		store, err := redisstore.Open(dest)
		if err != nil {
			return fmt.Errorf("REDIS_URL: %w", err)
		}
		defer store.Close()
		config.Store = store
	}
	auth, err := signin.New(config)
	if err != nil {
		return err
	}
	if p.base, err = url.Parse(config.BaseURL); err != nil {
		return err
	}
	// No limit on a whole request or answer: uploads, events and WebSockets of
	// users take as long as they take. For strangers see proxy.handler.
	server := &http.Server{Handler: p.handler(auth, log), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("serving", slog.String("url", config.BaseURL), slog.String("upstream", p.upstream.String()))
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(closing), auth.Shutdown(closing))
}

// readFlags reads the access rule: of one flag any value will do, of several
// flags each must hold.
func readFlags(args []string, stderr io.Writer) (*proxy, error) {
	p := &proxy{}
	flags := flag.NewFlagSet("internalsite", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rule := func(name, usage string, parse func(string) signin.Rule) {
		flags.Func(name, usage, func(s string) error {
			if p.allow != nil {
				p.allow = p.allow.And(parse(s))
			} else {
				p.allow = parse(s)
			}
			return nil
		})
	}
	rule("allow-email-domain", "admit verified addresses in these `domains`, comma separated", func(s string) signin.Rule {
		return signin.AllowEmailDomain(strings.Split(s, ",")...)
	})
	rule("allow-tenant", "admit users of these Entra tenants, by `id`, comma separated", func(s string) signin.Rule {
		return signin.AllowTenant(strings.Split(s, ",")...)
	})
	rule("allow-claim", "admit users with a claim, `name=value,value`", func(s string) signin.Rule {
		name, values, _ := strings.Cut(s, "=")
		return signin.AllowClaim(name, strings.Split(values, ",")...)
	})
	anyone := flags.Bool("allow-anyone", false, "admit whomever the issuer signs in, which may be the whole world")
	upstream := flags.String("upstream", "", "`URL` of the server behind")
	flags.StringVar(&p.header, "user-header", "X-Forwarded-User", "`name` of the header with the user's subject; -Id and -Email are added for its copy and the address")
	flags.BoolVar(&p.passToken, "pass-access-token", false, "send the user's access token as Authorization: Bearer")
	err := flags.Parse(args)
	if err != nil {
		return nil, err
	}
	p.upstream, err = url.Parse(*upstream)
	switch {
	case err != nil || p.upstream.Host == "" || p.upstream.Scheme != "http" && p.upstream.Scheme != "https" || p.upstream.User != nil:
		return nil, errors.New("-upstream: want an http or https URL, such as http://127.0.0.1:9000")
	case p.passToken && p.upstream.Scheme == "http" && !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, p.upstream.Hostname()):
		return nil, errors.New("-pass-access-token: want https to an upstream on another machine")
	case !strings.HasPrefix(p.header, "X-") || folded(p.header) != strings.ToLower(p.header):
		return nil, fmt.Errorf("-user-header %q: want X- and letters, digits and hyphens", p.header)
	case slices.ContainsFunc(otherHeaders, func(name string) bool { return strings.EqualFold(name, p.header) }):
		return nil, fmt.Errorf("-user-header %q: says something else about a request; want another name", p.header)
	case *anyone == (p.allow != nil):
		return nil, errors.New("say who may pass: -allow-email-domain, -allow-claim or -allow-tenant, or else -allow-anyone")
	}
	return p, nil
}

// readEnv leaves to signin.New what that checks itself.
func readEnv(getenv func(string) string, port int, log *slog.Logger) (signin.Config, error) {
	c := signin.Config{
		Issuer:        getenv("OIDC_ISSUER"),
		ClientID:      getenv("OIDC_CLIENT_ID"),
		BaseURL:       cmp.Or(getenv("BASE_URL"), fmt.Sprintf("http://localhost:%d", port)),
		Scopes:        strings.Fields(cmp.Or(getenv("OIDC_SCOPES"), "openid profile email offline_access")),
		ResponseType:  getenv("OIDC_RESPONSE_TYPE"),
		ResponseMode:  getenv("OIDC_RESPONSE_MODE"),
		Prompt:        getenv("OIDC_PROMPT"),
		CookieName:    cookieName,
		SignedOutPath: "/oidc/signed-out", // at the root, signing in would begin anew
		Logger:        log,
	}
	if secret := getenv("OIDC_CLIENT_SECRET"); secret != "" {
		c.Credential = signin.Secret(secret)
	}
	if getenv("SESSION_KEY") == "" {
		log.Warn("SESSION_KEY is not set: a restart signs everyone out")
		c.Keys = [][]byte{make([]byte, 32)}
		_, err := rand.Read(c.Keys[0])
		return c, err
	}
	for s := range strings.SplitSeq(getenv("SESSION_KEY"), ",") {
		key, err := hex.DecodeString(strings.TrimSpace(s))
		if err != nil { // which quotes a part of the key
			return c, fmt.Errorf("SESSION_KEY: entry %d is not hexadecimal", len(c.Keys)+1)
		}
		c.Keys = append(c.Keys, key)
	}
	return c, nil
}
