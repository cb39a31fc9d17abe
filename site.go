package signin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// site is the application as a browser sees it.
type site struct {
	scheme string
	host   string
	base   string // path prefix, without a slash at the end
}

// url and path name a page of the application, below its prefix.
func (s site) url(path string) string  { return s.origin() + s.base + path }
func (s site) path(path string) string { return s.base + path }
func (s site) origin() string          { return s.scheme + "://" + s.host }

// pathOf returns path and query of a URL of this site.
func (s site) pathOf(raw string) (string, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != s.scheme || !strings.EqualFold(u.Host, s.host) || u.User != nil {
		return "", false
	}
	// Not by way of u, which does not give back what it read.
	return escapeNonASCII(afterOrigin(raw)), true
}

// fault says why nobody can be sent to the issuer from here: cookies and
// codes would cross a network in clear, or there is no way back.
func (s site) fault() error {
	host, _, err := net.SplitHostPort(s.host)
	if err != nil {
		host = s.host
	}
	switch {
	case s.host == "":
		return errHost
	case s.scheme != "https" && !isLoopback(strings.Trim(host, "[]")):
		return errInsecure
	}
	return nil
}

var (
	errHost     = errors.New("the request names no host that could be in a redirect URI")
	errInsecure = errors.New("the request arrived by plain http outside loopback: set BaseURL, or TrustedProxies and X-Forwarded-Proto")
)

// sites tells which site a request is for. Each request that it is given is
// one as it came to Handler, before anything further in has changed it.
type sites struct {
	fixed   site           // of BaseURL; the zero value if that is not set
	proxies []netip.Prefix // whose forwarded headers count
}

// of returns BaseURL, or what the request says where that is not set. A
// forwarded header counts only from a trusted proxy.
func (s *sites) of(r *http.Request) site {
	if s.fixed.host != "" {
		return s.fixed
	}
	f := s.forwarded(r)
	here := site{scheme: f.scheme, host: f.host, base: f.prefix + strippedPrefix(r)} // stripped between the proxy and us
	if !validHost(here.host) {
		here.host = ""
		return here
	}
	// The issuer compares redirect URIs to the letter, and a browser writes
	// the host in lower case and leaves out the port that the scheme implies.
	here.host = strings.ToLower(here.host)
	if u := (&url.URL{Host: here.host}); u.Port() == "" && f.port != "" {
		here.host += ":" + f.port
	}
	here.host = strings.TrimSuffix(here.host, map[string]string{"https": ":443", "http": ":80"}[here.scheme])
	return here
}

// isSecure reports whether the browser speaks https to the application.
func (s *sites) isSecure(r *http.Request) bool {
	if s.fixed.host != "" {
		return s.fixed.scheme == "https"
	}
	return s.forwarded(r).scheme == "https"
}

// page returns path and query of the page that r asks for, as the browser
// knows it: with what http.StripPrefix or a proxy took off. If sure is false,
// the path begins with the site's prefix as it arrived: either no proxy takes
// the prefix off, which is assumed, or one does, and the page's own path begins
// with the same words. The callback's path tells (see [sites.resolve]).
func (s *sites) page(r *http.Request) (page string, sure bool) {
	base, asked, inner := s.of(r).base, rawTarget(r), strippedPrefix(r)
	switch {
	case base == "":
		return asked, true
	case inner != "" && strings.HasSuffix(base, inner):
		return base + strings.TrimPrefix(asked, inner), true
	case isBelow(asked, base):
		return asked, false
	}
	return base + strings.TrimPrefix(asked, inner), true
}

// resolve completes a page that [sites.page] was not sure of. The request r is
// for a path of ours, whose name the browser knows with the prefix. So if r
// came without it, a proxy took it off, from this request and from the one
// for the page.
func (s *sites) resolve(r *http.Request, ours, page string) string {
	base := s.of(r).base
	if asked, _, _ := strings.Cut(rawTarget(r), "?"); asked == base+ours {
		return page
	}
	return base + page
}

// isBelow reports whether a path, with or without a query, is base or below it.
func isBelow(path, base string) bool {
	rest, ok := strings.CutPrefix(path, base)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == '?')
}

// validHost admits a name or address with an optional port.
func validHost(host string) bool {
	if host == "" || len(host) > 255 || strings.ContainsAny(host, "/\\@?#% \t\r\n") {
		return false
	}
	u, err := url.Parse("https://" + host)
	return err == nil && u.Host == host && u.Hostname() != ""
}

// site, isSecure and requestPath are those of [sites] for a request that a
// handler has.
func (a *Auth) site(r *http.Request) site     { return a.sites.of(a.entered(r)) }
func (a *Auth) isSecure(r *http.Request) bool { return a.sites.isSecure(a.entered(r)) }
func (a *Auth) requestPath(r *http.Request) string {
	page, _ := a.sites.page(a.entered(r))
	return page
}

// entered is a request as it came to Handler. What http.StripPrefix takes off
// further in is the application's own affair: the callback is not there.
func (a *Auth) entered(r *http.Request) *http.Request {
	if v := a.visitOf(r.Context()); v != nil && v.r != nil {
		return v.r
	}
	return r
}

// rawTarget is path and query as the client sent them, before any prefix was
// stripped. Browsers send some characters raw that net/url escapes, and in
// doing so it decodes what stands beside them: /a%2Fb|c becomes /a/b%7Cc,
// another page. Only what is not ASCII is escaped.
func rawTarget(r *http.Request) string {
	raw := r.RequestURI
	if raw == "" || raw == "*" {
		raw = r.URL.RequestURI()
	}
	if !strings.HasPrefix(raw, "/") {
		raw = afterOrigin(raw)
	}
	return strings.TrimSuffix(escapeNonASCII(raw), "?")
}

// afterOrigin is what follows scheme and host in an absolute URL.
func afterOrigin(raw string) string {
	_, rest, _ := strings.Cut(raw, "://")
	i := strings.IndexAny(rest, "/?#")
	switch {
	case i < 0:
		return "/"
	case rest[i] != '/':
		return "/" + rest[i:]
	}
	return rest[i:]
}

func escapeNonASCII(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f }) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if s[i] < 0x80 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// originalURL is rawTarget, parsed.
func originalURL(r *http.Request) *url.URL {
	if r.RequestURI != "" && r.RequestURI != "*" {
		if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
			return u
		}
	}
	return r.URL
}

// strippedPrefix is what http.StripPrefix took off the path, as it stands in
// a URL.
func strippedPrefix(r *http.Request) string {
	prefix, ok := strings.CutSuffix(originalURL(r).Path, r.URL.Path)
	if !ok {
		return ""
	}
	escaped := (&url.URL{Path: strings.TrimSuffix(prefix, "/")}).EscapedPath()
	if newReturnPath(escaped).String() != escaped { // a client chooses the path
		return ""
	}
	return escaped
}
