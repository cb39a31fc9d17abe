// Package command is what can be done from a shell.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"strings"

	"github.com/seed454743b5/signin/front/internal/gate"
	"github.com/seed454743b5/signin/front/internal/manual"
	"github.com/seed454743b5/signin/front/internal/oauth2proxy"
	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/serve"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// Process is what a run has from its surroundings.
type Process struct {
	Args           []string
	Environ        []string
	Getenv         func(string) string
	Stdout, Stderr io.Writer
	Reload         <-chan os.Signal
	ReadFile       func(string) ([]byte, error) // for import; "-" is the standard input
}

// The exit codes.
const (
	exitOK = iota
	exitFault
	exitUsage
)

// Run does what the arguments say and returns the exit code.
func Run(ctx context.Context, p Process) int {
	name, args := "", p.Args
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	if len(args) > 0 && (args[0] == "-h" || args[0] == "-help" || args[0] == "--help") {
		name = "help"
	}
	switch name {
	case "":
		return p.serve(ctx, args)
	case "check":
		return p.check(args)
	case "explain":
		return p.explain(args)
	case "import":
		return p.importFile(args)
	case "man":
		return p.print(manual.Man())
	case "completion":
		return p.completion(args)
	case "version":
		return p.print(version() + "\n")
	case "help":
		return p.print(manual.Usage())
	}
	fmt.Fprintf(p.Stderr, "signin-front: unknown command %q; see signin-front help\n", name)
	return exitUsage
}

func (p Process) print(s string) int {
	if _, err := io.WriteString(p.Stdout, s); err != nil {
		return exitFault
	}
	return exitOK
}

func (p Process) serve(ctx context.Context, args []string) int {
	err := serve.Run(ctx, serve.Program{
		Stdout: p.Stdout, Stderr: p.Stderr, Getenv: p.Getenv, Reload: p.Reload,
		Load: func() (*settings.Config, error) {
			c, rest, err := serve.Load(settings.Source{Args: args, Environ: p.Environ})
			if err == nil && len(rest) > 0 {
				err = settings.Faults{{Text: fmt.Sprintf("%q is neither a flag nor a command", rest[0])}}
			}
			return c, err
		},
	})
	if err != nil {
		return exitFault
	}
	return exitOK
}

// load is for people: faults are printed as they are.
func (p Process) load(args []string) (*settings.Config, []string, bool) {
	c, rest, err := serve.Load(settings.Source{Args: args, Environ: p.Environ})
	if err == nil {
		return c, rest, true
	}
	fmt.Fprintln(p.Stderr, err)
	if faults, ok := errors.AsType[settings.Faults](err); ok {
		fmt.Fprintf(p.Stderr, "%d fault(s)\n", len(faults))
	}
	return nil, rest, false
}

func (p Process) check(args []string) int {
	c, rest, ok := p.load(args)
	if !ok {
		return exitFault
	}
	if len(rest) > 0 {
		fmt.Fprintf(p.Stderr, "signin-front check: %q is not a flag\n", rest[0])
		return exitUsage
	}
	fmt.Fprintf(p.Stdout, "no fault; %d route(s)\n", len(c.Routes))
	if len(c.SessionKeys) == 0 {
		fmt.Fprintln(p.Stdout, "note: session_keys are not set, so a restart signs everyone out")
	}
	return exitOK
}

func (p Process) explain(args []string) int {
	c, rest, ok := p.load(args)
	if !ok {
		return exitFault
	}
	if len(rest) == 1 {
		rest = []string{"GET", rest[0]}
	}
	if len(rest) != 2 {
		fmt.Fprintln(p.Stderr, "usage: signin-front explain -config FILE METHOD URL")
		return exitUsage
	}
	u, err := url.Parse(rest[1])
	if err != nil {
		fmt.Fprintf(p.Stderr, "signin-front explain: %q is not a URL\n", rest[1])
		return exitUsage
	}
	return p.print(Explain(c, strings.ToUpper(rest[0]), u))
}

// Explain says which route and rule decide about a request.
func Explain(c *settings.Config, method string, u *url.URL) string {
	host := u.Host
	if base, err := url.Parse(c.BaseURL); host == "" && err == nil {
		host = base.Host
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", name+":", fmt.Sprintf(format, args...))
	}
	line("request", "%s %s", method, u)
	m := c.Table.Find(method, host, u)
	switch m.Found {
	case routes.Own:
		line("answer", "the front itself, for everybody")
		return b.String()
	case routes.Unclear:
		line("answer", "400: %s", m.Why)
		return b.String()
	case routes.Method:
		line("answer", "405: the path has routes for %s", m.Allow)
		return b.String()
	case routes.None:
		line("answer", "404: no route")
		return b.String()
	case routes.Slash:
		line("answer", "307 to the same path with a slash, where the route is")
	}
	r := c.Routes[m.Index]
	line("route", "routes[%d], %s", m.Index, r.Pattern)
	line("allow", "%s", r.Allows())
	explainNeeds(c, r, line)
	line("upstream", "%s", upstreamText(r))
	headers := r.Headers
	if headers == nil {
		headers = settings.Defaults()
	}
	for _, h := range headers {
		if !r.Public {
			line("header", "%s: %s", h.Name, h.Source)
		}
	}
	for i, pass := range r.Pass {
		name := "Authorization: Bearer"
		if i > 0 {
			name = gate.TokenHeaders[pass] + ":"
		}
		line("header", "%s %s", name, pass)
	}
	return b.String()
}

// explainNeeds says what a route asks for beside its rule.
func explainNeeds(c *settings.Config, r *settings.Route, line func(name, format string, args ...any)) {
	if len(r.Scopes) > 0 {
		line("require", "these scopes are granted: %s", strings.Join(r.Scopes, " "))
	}
	if len(r.ACR) > 0 {
		line("require", "a sign-in of class %s", strings.Join(r.ACR, " or "))
	}
	if r.MaxAge > 0 {
		line("require", "a sign-in no older than %s", r.MaxAge)
	}
	if r.Bearer != nil {
		audience := r.Bearer.Audience
		if len(audience) == 0 {
			audience = []string{c.ClientID, "the site's URL"}
		}
		line("bearer", "access tokens of the issuer for %s are users, too", strings.Join(audience, " or "))
	}
}

func upstreamText(r *settings.Route) string {
	switch r.Upstream.Kind {
	case settings.KindHTTP:
		return r.Upstream.URL.String()
	case settings.KindUnix:
		return "unix:" + r.Upstream.Path
	case settings.KindFile:
		return "file:" + r.Upstream.Path
	}
	return "none: for forward authentication only"
}

func (p Process) importFile(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(p.Stderr, "usage: signin-front import oauth2-proxy.cfg > front.yaml")
		return exitUsage
	}
	raw, err := p.ReadFile(args[0])
	if err != nil {
		fmt.Fprintln(p.Stderr, "signin-front import:", err)
		return exitFault
	}
	out, notes, err := oauth2proxy.Import(raw)
	if err != nil {
		fmt.Fprintln(p.Stderr, "signin-front import:", err)
		return exitFault
	}
	for _, n := range notes {
		fmt.Fprintln(p.Stderr, n)
	}
	return p.print(out)
}

func (p Process) completion(args []string) int {
	if len(args) == 1 {
		if script, ok := manual.Completion(args[0]); ok {
			return p.print(script)
		}
	}
	fmt.Fprintln(p.Stderr, "usage: signin-front completion bash|zsh|fish")
	return exitUsage
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "signin-front (unknown version)"
	}
	return "signin-front " + info.Main.Version + " " + info.GoVersion
}
