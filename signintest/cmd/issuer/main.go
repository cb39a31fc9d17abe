// Command issuer runs the test issuer of package signintest as a server, for
// end-to-end tests of sites in any language:
//
//	go run github.com/seed454743b5/signin/signintest/cmd/issuer -profile keycloak -addr localhost:8090
//
// It prints the issuer's URL, and serves until it is interrupted. Any client may sign
// in that has the ID and the secret of -client and -secret; whoever comes is
// alice, or chooses with -login-page. Beside the issuer's endpoints it serves, for the
// test to steer it:
//
//	POST /-/fault   with the field "fault", as the flag -fault, until it is healed
//	POST /-/next    with the field "fault": for the next request only
//	POST /-/heal    ends all faults
//	POST /-/user    with the field "user": who signs in from now on
//	POST /-/revoke  ends all grants, as an administrator does
//	GET  /-/calls   the requests received: {"token": 2, "keys": 1, ...}
//
// A fault is an endpoint (discovery, keys, authorize, token, revocation,
// end_session, userinfo, api, push, or any), "=", and an HTTP status, "drop", "html", a delay
// such as "2s", or the code of an OAuth error:
//
//	-fault token=503 -fault keys=drop -fault token=invalid_grant -fault any=2s
//
// It signs anybody in, by design: let it listen on loopback or in a network of a
// test's own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal("issuer: ", err)
	}
}

// options are what the flags say.
type options struct {
	addr, url, profile    string
	cert, key             string
	client, secret, users string
	redirects, faults     list
	loginPage             bool
	tokenLife             time.Duration
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("issuer", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.addr, "addr", "localhost:8090", "`address` to listen on; port 0 takes a free one")
	f.StringVar(&o.url, "url", "", "scheme and host that clients reach the issuer at; empty takes http and -addr")
	f.StringVar(&o.profile, "profile", "", "the `provider` to behave as: "+strings.Join(names(), ", "))
	f.StringVar(&o.cert, "cert", "", "certificate `file`, for https")
	f.StringVar(&o.key, "key", "", "key `file`, for https")
	f.StringVar(&o.client, "client", "client", "client ID")
	f.StringVar(&o.secret, "secret", "secret", "client secret; empty makes a public client")
	f.StringVar(&o.users, "users", "", "JSON `file` with a list of users: Subject, Claims, TenantID, ObjectID")
	f.Var(&o.redirects, "redirect", "redirect `URI` that is registered; may be repeated; none admits any")
	f.Var(&o.faults, "fault", "a `fault` from the start, such as token=503; may be repeated")
	f.BoolVar(&o.loginPage, "login-page", false, "ask who signs in, by a form")
	f.DurationVar(&o.tokenLife, "token-life", 0, "life of access tokens; zero leaves the profile's")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, nil
}

func names() []string {
	var all []string
	for _, p := range signintest.Profiles() {
		all = append(all, p.Name)
	}
	return all
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	faults, err := parseFaults(o.faults)
	if err != nil {
		return err
	}
	behaviour, path, err := o.behaviour()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	if o.url == "" {
		o.url = o.origin(listener)
	}
	host := &host{}
	defer host.end()
	issuer := signintest.NewIssuer(host, &signintest.IssuerOptions{URL: strings.TrimSuffix(o.url, "/") + path, Behaviour: behaviour})
	for _, f := range faults {
		issuer.Fail(f.endpoint, f.fault)
	}
	server := &http.Server{Handler: withControl(issuer), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Fprintln(stdout, issuer.URL())
	if o.cert != "" {
		err = server.ServeTLS(listener, o.cert, o.key)
	} else {
		err = server.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// origin is where the listener is reached, by the host name of -addr.
func (o options) origin(l net.Listener) string {
	name, _, _ := net.SplitHostPort(o.addr)
	if ip := net.ParseIP(name); name == "" || ip != nil && ip.IsUnspecified() {
		name = "localhost"
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	scheme := "http"
	if o.cert != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(name, port)
}

// behaviour is the profile with what the flags say, and the path of the
// profile's issuer.
func (o options) behaviour() (edit func(*signintest.Behaviour), path string, err error) {
	profile := signintest.Profile{Behaviour: func(*signintest.Behaviour) {}}
	if o.profile != "" {
		n := slices.Index(names(), o.profile)
		if n < 0 {
			return nil, "", fmt.Errorf("unknown profile %q; want one of %s", o.profile, strings.Join(names(), ", "))
		}
		profile = signintest.Profiles()[n]
		u, err := url.Parse(profile.URL)
		if err != nil {
			return nil, "", err
		}
		path = u.Path
	}
	var users []signintest.User
	if o.users != "" {
		raw, err := os.ReadFile(o.users)
		if err != nil {
			return nil, "", err
		}
		if err := json.Unmarshal(raw, &users); err != nil {
			return nil, "", fmt.Errorf("%s: %w", o.users, err)
		}
	}
	return func(b *signintest.Behaviour) {
		profile.Behaviour(b)
		// All that the provider has on several hosts is on this one.
		for e, place := range b.Endpoints {
			if u, err := url.Parse(place); err == nil {
				b.Endpoints[e] = u.Path
			}
		}
		b.Clients = []signintest.Client{{ID: o.client, Secret: o.secret, RedirectURIs: o.redirects}}
		if users != nil {
			b.Users = users
		}
		b.LoginPage = o.loginPage
		if o.tokenLife != 0 {
			b.AccessTokenLifetime = o.tokenLife
		}
	}, path, nil
}

// host stands where a test would: it ends what the issuer has begun.
type host struct {
	testing.TB
	cleanups []func()
}

func (h *host) Helper()                        {}
func (h *host) Cleanup(f func())               { h.cleanups = append(h.cleanups, f) }
func (h *host) Fatalf(format string, a ...any) { log.Fatalf(format, a...) }
func (h *host) Errorf(format string, a ...any) { log.Printf(format, a...) }

func (h *host) end() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}

// endpointFault is a fault with where it is.
type endpointFault struct {
	endpoint signintest.Endpoint
	fault    signintest.Fault
}

var endpoints = []signintest.Endpoint{
	signintest.EndpointDiscovery, signintest.EndpointKeys, signintest.EndpointAuthorize, signintest.EndpointToken,
	signintest.EndpointRevocation, signintest.EndpointEndSession, signintest.EndpointUserInfo, signintest.EndpointAPI,
	signintest.EndpointPush,
}

func parseFaults(all []string) ([]endpointFault, error) {
	var faults []endpointFault
	for _, s := range all {
		f, err := parseFault(s)
		if err != nil {
			return nil, err
		}
		faults = append(faults, f)
	}
	return faults, nil
}

func parseFault(s string) (endpointFault, error) {
	name, what, ok := strings.Cut(s, "=")
	e := signintest.Endpoint(name)
	if name == "any" {
		e = signintest.EndpointAny
	} else if !slices.Contains(endpoints, e) {
		return endpointFault{}, fmt.Errorf("fault %q: unknown endpoint", s)
	}
	if !ok || what == "" {
		return endpointFault{}, fmt.Errorf("fault %q: want endpoint=what", s)
	}
	f := endpointFault{endpoint: e}
	status, statusErr := strconv.Atoi(what)
	delay, delayErr := time.ParseDuration(what)
	switch {
	case statusErr == nil && status >= 200 && status <= 599:
		f.fault = signintest.Fault{Status: status}
	case what == "drop":
		f.fault = signintest.Fault{Drop: true}
	case what == "html":
		f.fault = signintest.HTMLFault(http.StatusOK)
	case delayErr == nil && delay > 0:
		f.fault = signintest.Fault{Delay: delay}
	case strings.Trim(what, "abcdefghijklmnopqrstuvwxyz_") == "":
		f.fault = signintest.OAuthError{Code: what}.Fault()
	default:
		return endpointFault{}, fmt.Errorf("fault %q: want a status, drop, html, a delay or an error's code", s)
	}
	return f, nil
}

// withControl serves what a test steers the issuer by, beside the issuer.
func withControl(issuer *signintest.Issuer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", issuer)
	fault := func(do func(endpointFault)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			f, err := parseFault(r.PostFormValue("fault"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			do(f)
			w.WriteHeader(http.StatusNoContent)
		}
	}
	act := func(do func(*http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			do(r)
			w.WriteHeader(http.StatusNoContent)
		}
	}
	mux.HandleFunc("POST /-/fault", fault(func(f endpointFault) { issuer.Fail(f.endpoint, f.fault) }))
	mux.HandleFunc("POST /-/next", fault(func(f endpointFault) { issuer.FailNext(f.endpoint, f.fault) }))
	mux.HandleFunc("POST /-/heal", act(func(*http.Request) { issuer.Heal() }))
	mux.HandleFunc("POST /-/revoke", act(func(*http.Request) { issuer.RevokeGrants("") }))
	mux.HandleFunc("POST /-/user", act(func(r *http.Request) {
		user := r.PostFormValue("user")
		issuer.Update(func(b *signintest.Behaviour) { b.User = user })
	}))
	mux.HandleFunc("GET /-/calls", func(w http.ResponseWriter, r *http.Request) {
		counts := map[signintest.Endpoint]int{}
		for _, e := range endpoints {
			counts[e] = issuer.Count(e)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(counts)
	})
	return mux
}
