package settings

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/front/internal/rule"
	"go.yaml.in/yaml/v3"
)

func (l *loader) routes(c *Config, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		l.fault(n, "want a list of routes, such as - {path: /, allow: signed-in, upstream: http://127.0.0.1:9000}")
		return
	}
	for i, item := range n.Content {
		l.prefix = fmt.Sprintf("routes[%d]: ", i)
		c.Routes = append(c.Routes, l.route(i, item))
	}
	l.prefix = "routes: "
}

// route reads one route. What it returns is used only if there is no fault.
func (l *loader) route(i int, n *yaml.Node) *Route {
	r := &Route{Index: i}
	if n.Kind != yaml.MappingNode {
		l.fault(n, "want a mapping with path, allow and upstream")
		return r
	}
	seen := map[string]*yaml.Node{}
	within := func(name string) func() {
		old := l.prefix
		l.prefix = strings.TrimSuffix(old, ": ") + "." + name + ": "
		return func() { l.prefix = old }
	}
	readers := map[string]func(*yaml.Node){
		"path":        func(n *yaml.Node) { r.Pattern = l.text(n) },
		"allow":       func(n *yaml.Node) { l.allow(r, n) },
		"upstream":    func(n *yaml.Node) { l.upstream(r, n) },
		"upstream_ca": func(n *yaml.Node) { r.Upstream.CA = l.certificates(n) },
		"plain_http":  func(n *yaml.Node) { r.Upstream.PlainHTTP = l.truth(n) },
		"require":     func(n *yaml.Node) { l.require(r, n) },
		"headers":     func(n *yaml.Node) { r.Headers = l.headers(n) },
		"pass":        func(n *yaml.Node) { r.Pass = l.pass(n) },
		"bearer":      func(n *yaml.Node) { l.bearer(r, n) },
		"introspect":  func(n *yaml.Node) {},
	}
	for k, v := range l.fields(n) {
		read, ok := readers[k.Value]
		if !ok {
			l.fault(k, "unknown name %q; a route has path, allow, upstream, upstream_ca, plain_http, require, headers, pass, bearer and introspect", k.Value)
			continue
		}
		seen[k.Value] = v
		back := within(k.Value)
		read(v)
		back()
	}
	if v := seen["introspect"]; v != nil && r.Bearer != nil {
		back := within("introspect")
		r.Bearer.Introspect = l.truth(v)
		back()
	} else if v != nil {
		l.fault(v, "introspect: of use beside bearer only")
	}
	if seen["path"] == nil {
		back := within("path")
		l.fault(n, "missing; want a path such as / or /admin/")
		back()
	}
	if seen["allow"] == nil {
		back := within("allow")
		l.fault(n, "missing; say who may pass: public, signed-in, or a rule such as {email_domain: [example.com]}")
		back()
	}
	l.fits(r, n, seen)
	return r
}

// fits reports what does not go together on one route.
func (l *loader) fits(r *Route, n *yaml.Node, seen map[string]*yaml.Node) {
	if r.Public {
		for _, name := range []string{"require", "headers", "pass", "bearer"} {
			if v := seen[name]; v != nil {
				l.fault(v, "%s: of no use where allow is public, for nobody is asked who they are", name)
			}
		}
	}
	u := r.Upstream
	secure, clear := u.scheme() == "https", u.scheme() == "http"
	tokens := slices.Contains(r.Pass, PassAccessToken) || slices.Contains(r.Pass, PassIDToken)
	switch {
	case len(u.CA) > 0 && !secure:
		l.fault(n, "upstream_ca: of use with an https upstream only")
	case u.PlainHTTP && !clear:
		l.fault(n, "plain_http: of use with an http upstream only")
	case clear && tokens && !u.PlainHTTP && !loopback(u.URL.Hostname()):
		l.fault(seen["pass"], "pass: a token would cross the network in clear; want an https upstream, or plain_http: true if that network is your own")
	case u.Kind == KindFile && strings.ContainsAny(r.Pattern, "{}"):
		l.fault(n, "path: want no wildcards with a file: upstream, which serves what follows the path")
	}
}

func (u Upstream) scheme() string {
	if u.Kind != KindHTTP {
		return ""
	}
	return u.URL.Scheme
}

func (l *loader) allow(r *Route, n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == "public":
		r.Public = true
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == "signed-in":
	case n.Kind == yaml.ScalarNode:
		l.fault(n, "%q: want public, signed-in, or a rule such as {email_domain: [example.com]}", n.Value)
	default:
		r.Rule = rule.Parse(n, l.fault)
	}
}

func (l *loader) upstream(r *Route, n *yaml.Node) {
	s := l.text(n)
	if p, ok := strings.CutPrefix(s, "unix:"); ok && p != "" {
		r.Upstream.Kind, r.Upstream.Path = KindUnix, l.beside(p)
		return
	}
	if p, ok := strings.CutPrefix(s, "file:"); ok && p != "" {
		r.Upstream.Kind, r.Upstream.Path = KindFile, l.beside(p)
		if _, err := os.Stat(r.Upstream.Path); err != nil {
			l.fault(n, "%s: %s", r.Upstream.Path, cause(err))
		}
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		l.fault(n, "want an http or https URL such as http://127.0.0.1:9000, unix:PATH or file:FOLDER")
		return
	}
	r.Upstream.Kind, r.Upstream.URL = KindHTTP, u
}

func (l *loader) require(r *Route, n *yaml.Node) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		l.fault(n, "want {scopes: [...], acr: [...], max_age: 1h}")
		return
	}
	for k, v := range l.fields(n) {
		old := l.prefix
		l.prefix = strings.TrimSuffix(old, ": ") + "." + k.Value + ": "
		switch k.Value {
		case "scopes":
			r.Scopes = l.some(v)
		case "acr":
			r.ACR = l.some(v)
		case "max_age":
			r.MaxAge = l.duration(v)
		default:
			l.prefix = old
			l.fault(k, "unknown name %q; want scopes, acr or max_age", k.Value)
		}
		l.prefix = old
	}
}

// some is list, of one at least.
func (l *loader) some(n *yaml.Node) []string {
	out := l.list(n)
	if len(out) == 0 {
		l.fault(n, "is empty; want at least one")
	}
	return out
}

func (l *loader) pass(n *yaml.Node) []string {
	out := l.some(n)
	for i, p := range out {
		switch {
		case p != PassAccessToken && p != PassIDToken && p != PassIdentityJWT:
			l.fault(n, "%q: want access_token, id_token or identity_jwt", p)
		case slices.Contains(out[:i], p):
			l.fault(n, "%q stands twice", p)
		}
	}
	return out
}

func (l *loader) bearer(r *Route, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		if l.truth(n) {
			r.Bearer = &Bearer{}
		}
		return
	}
	r.Bearer = &Bearer{}
	for k, v := range l.fields(n) {
		if k.Value != "audience" {
			l.fault(k, "unknown name %q; want audience", k.Value)
			continue
		}
		r.Bearer.Audience = l.some(v)
	}
	if len(n.Content) == 0 {
		l.fault(n, "want true, or {audience: [NAME]}")
	}
}

func loopback(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "::1" || strings.HasPrefix(host, "127.")
}
