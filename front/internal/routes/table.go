// Package routes finds the route of a request, by the patterns of
// [http.ServeMux].
//
// The server behind may read a path otherwise than we do: it may join doubled
// slashes, decode %2F, cut off ;parameters. So a request is looked up under
// every reading that servers are known to have, and refused unless all of them
// lead to one route. What a rule protects is not reached by another spelling.
package routes

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Reserved is the subtree that belongs to the front itself, on every host.
const Reserved = "/oidc/"

// Found says what a request is for.
type Found int

// The zero value is no route.
const (
	None     Found = iota
	Route          // one of the patterns
	Own            // below Reserved
	Slash          // ServeMux answers /tree with a redirect to /tree/
	Method         // the path has a route, but not for this method
	Unclear        // readings of the path differ, or it has dot segments
	maxTries = 64  // readings of one path
)

// Match is the outcome of a lookup.
type Match struct {
	Found Found
	Index int    // of the pattern, if Found is Route or Slash
	Why   string // for Unclear, for the log and explain
	Allow string // for Method, as in the Allow header
}

// Table finds routes. It is immutable and may be used concurrently.
type Table struct {
	mux     *http.ServeMux
	methods bool
}

// index is a handler that only says which pattern matched.
type index int

func (index) ServeHTTP(http.ResponseWriter, *http.Request) {}

// New makes a table. It returns a fault for each pattern that ServeMux
// refuses, or that could never match.
func New(patterns []string) (*Table, []error) {
	t := &Table{mux: http.NewServeMux()}
	faults := make([]error, len(patterns))
	bad := false
	for i, p := range patterns {
		if faults[i] = t.add(p, index(i)); faults[i] != nil {
			bad = true
		}
	}
	if !bad {
		faults = nil
	}
	return t, faults
}

func (t *Table) add(pattern string, i index) (err error) {
	method, host, p := Split(pattern)
	switch {
	case pattern == "":
		return errors.New("missing; want a path such as / or /admin/")
	case p == "":
		return fmt.Errorf("%q: want [METHOD ][HOST]/PATH", pattern)
	case strings.Contains(host, ":"):
		return fmt.Errorf("%q: want the host without a port", pattern)
	case host != strings.ToLower(host):
		return fmt.Errorf("%q: want the host in lower case", pattern)
	case strings.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' }):
		return fmt.Errorf("%q: want the method in capitals", pattern)
	case own(p):
		return fmt.Errorf("%q: %s belongs to signin-front itself", pattern, Reserved)
	case strings.Contains(p, "%") || path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/":
		return fmt.Errorf("%q: want a clean path without percent signs", pattern)
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%q: %s", pattern, strings.TrimPrefix(fmt.Sprint(r), "http: "))
			if _, conflict, ok := strings.Cut(err.Error(), "conflicts with pattern"); ok {
				err = fmt.Errorf("%q conflicts with pattern%s", pattern, registration.Replace(conflict))
			}
		}
	}()
	t.mux.Handle(pattern, i)
	t.methods = t.methods || method != ""
	return nil
}

// registration makes one line of ServeMux's panic.
var registration = strings.NewReplacer("\n", " ")

// Split takes a pattern apart: "GET wiki.example.com/admin/".
func Split(pattern string) (method, host, path string) {
	if m, rest, ok := strings.Cut(pattern, " "); ok {
		method, pattern = m, strings.TrimLeft(rest, " ")
	}
	if i := strings.IndexByte(pattern, '/'); i >= 0 {
		return method, pattern[:i], pattern[i:]
	}
	return method, pattern, ""
}

// ByMethod reports whether any pattern names a method.
func (t *Table) ByMethod() bool { return t.methods }

// Find looks a request up. The host is as in a Host header, u is as the client
// sent it.
func (t *Table) Find(method, host string, u *url.URL) Match {
	escaped := u.EscapedPath()
	host = strings.ToLower(host)
	if plain(escaped) {
		return t.match(method, host, escaped)
	}
	all, err := readings(escaped)
	if err != nil {
		return Match{Found: Unclear, Why: err.Error()}
	}
	first := t.match(method, host, all[0])
	for _, p := range all[1:] {
		if m := t.match(method, host, p); m != first {
			return Match{Found: Unclear, Why: "servers read this path in ways that lead to different routes"}
		}
	}
	if first.Found == Slash { // a redirect to a spelling that is not plain
		return Match{Found: Unclear, Why: "the path is not plain"}
	}
	return first
}

// match looks one clean, escaped path up.
func (t *Table) match(method, host, escaped string) Match {
	if own(escaped) {
		return Match{Found: Own}
	}
	if strings.Contains(escaped, "\x00") {
		escaped = strings.ReplaceAll(escaped, "\x00", "%00")
	}
	r := &http.Request{Method: method, Host: host, URL: &url.URL{Path: escaped}}
	if strings.Contains(escaped, "%") {
		p, err := url.PathUnescape(escaped)
		if err != nil {
			return Match{Found: Unclear, Why: "the path is not well formed"}
		}
		r.URL.Path, r.URL.RawPath = p, escaped
	}
	h, pattern := t.mux.Handler(r)
	if i, ok := h.(index); ok {
		return Match{Found: Route, Index: int(i)}
	}
	if pattern != "" && !strings.HasSuffix(escaped, "/") {
		if m := t.match(method, host, escaped+"/"); m.Found == Route {
			return Match{Found: Slash, Index: m.Index}
		}
	}
	if pattern == "" && t.methods {
		if allow := t.allowed(host, r.URL); allow != "" {
			return Match{Found: Method, Allow: allow}
		}
	}
	return Match{}
}

// allowed says for which methods the path has a route.
func (t *Table) allowed(host string, u *url.URL) string {
	w := &statusOnly{}
	r := &http.Request{Method: "\x00", Host: host, URL: u}
	h, _ := t.mux.Handler(r)
	h.ServeHTTP(w, r)
	if w.status != http.StatusMethodNotAllowed {
		return ""
	}
	return w.Header().Get("Allow")
}

type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}
func (w *statusOnly) WriteHeader(status int)      { w.status = status }
func (w *statusOnly) Write(p []byte) (int, error) { return len(p), nil }

func own(p string) bool { return p+"/" == Reserved || strings.HasPrefix(p, Reserved) }
