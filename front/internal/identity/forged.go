package identity

import (
	"net/http"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/front/internal/settings"
)

// Forged knows the headers that only the front may send.
type Forged struct {
	names   map[string]bool // folded
	longest int
}

// NewForged collects them: those of every route, for one upstream may serve
// several, those that proxies send, and those by which a client could ask the
// server behind for another page, or by another method, than was judged here.
func NewForged(c *settings.Config) *Forged {
	f := &Forged{names: map[string]bool{}}
	add := func(names ...string) {
		for _, n := range names {
			n = settings.Fold(n)
			f.names[n] = true
			f.longest = max(f.longest, len(n))
		}
	}
	add("Forwarded", "X-Real-IP", "X-Original-URL", "X-Original-URI", "X-Original-Method", "X-Original-Host", "X-Rewrite-URL",
		"X-Client-IP", "True-Client-IP", "Remote-User", "X-Remote-User")
	if c.Table.ByMethod() {
		add("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
	}
	for _, r := range c.Routes {
		for _, h := range r.Headers {
			add(h.Name)
		}
	}
	return f
}

const forwarded = "x-forwarded-"

// Strip removes them from h in every spelling that a server might take for one
// of them.
func (f *Forged) Strip(h http.Header) {
	var buf [64]byte
	for name := range h {
		if len(name) <= len(buf) {
			// As settings.Fold, without memory.
			for i := range len(name) {
				switch c := name[i]; {
				case 'A' <= c && c <= 'Z':
					buf[i] = c + 'a' - 'A'
				case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
					buf[i] = c
				default:
					buf[i] = '-'
				}
			}
			folded := buf[:len(name)]
			if f.names[string(folded)] || len(folded) > len(forwarded) && string(folded[:len(forwarded)]) == forwarded {
				delete(h, name) // not Del, which looks for the canonical spelling
			}
			continue
		}
		if folded := settings.Fold(name); f.names[folded] || strings.HasPrefix(folded, forwarded) {
			delete(h, name)
		}
	}
}

// Cookies knows the names of the front's own cookies.
type Cookies struct{ stem string }

// NewCookies is for cookies with this stem (Config.CookieName of package signin).
func NewCookies(stem string) Cookies { return Cookies{strings.ToLower(stem)} }

// Strip removes them from a request and leaves the others as they were sent.
func (c Cookies) Strip(h http.Header) {
	lines := h["Cookie"]
	if len(lines) == 0 {
		return
	}
	var kept []string
	for _, l := range lines {
		kept = append(kept, slices.DeleteFunc(strings.Split(l, ";"), c.own)...)
	}
	if rest := strings.TrimSpace(strings.Join(kept, ";")); rest != "" {
		h["Cookie"] = []string{rest}
	} else {
		delete(h, "Cookie")
	}
}

// StripSet removes them from an answer: an upstream must not sign anybody in
// or out.
func (c Cookies) StripSet(h http.Header) {
	lines, ok := h["Set-Cookie"]
	if !ok {
		return
	}
	if lines = slices.DeleteFunc(lines, c.own); len(lines) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = lines
}

func (c Cookies) own(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	name = strings.ToLower(strings.TrimSpace(name))
	for _, prefix := range []string{"__host-", "__secure-", "__http-", "__host-http-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name == c.stem || strings.HasPrefix(name, c.stem+"-")
}
