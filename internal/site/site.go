// Package site knows where the application is, as a browser sees it, and where
// a browser may be sent. It is a wall: a [ReturnPath] can only be made by the
// function that checks it.
package site

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Site is the application as a browser sees it.
type Site struct {
	Scheme string
	Host   string
	Base   string // path prefix, without a slash at the end
}

// URL and path name a page of the application, below its prefix.
func (s Site) URL(path string) string  { return s.Origin() + s.Base + path }
func (s Site) Path(path string) string { return s.Base + path }
func (s Site) Origin() string          { return s.Scheme + "://" + s.Host }

// PathOf returns path and query of a URL of this site.
func (s Site) PathOf(raw string) (string, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != s.Scheme || !strings.EqualFold(u.Host, s.Host) || u.User != nil {
		return "", false
	}
	// Not by way of u, which does not give back what it read.
	return escapeNonASCII(afterOrigin(raw)), true
}

// Fault says why nobody can be sent to the issuer from here: cookies and
// codes would cross a network in clear, or there is no way back.
func (s Site) Fault() error {
	host, _, err := net.SplitHostPort(s.Host)
	if err != nil {
		host = s.Host
	}
	switch {
	case s.Host == "":
		return errHost
	case s.Scheme != "https" && !IsLoopback(strings.Trim(host, "[]")):
		return errInsecure
	}
	return nil
}

var (
	errHost     = errors.New("the request names no host that could be in a redirect URI")
	errInsecure = errors.New("the request arrived by plain http outside loopback: set BaseURL, or TrustedProxies and X-Forwarded-Proto")
)

// Sites tells which site a request is for. Each request that it is given is
// one as it came to Handler, before anything further in has changed it.
type Sites struct {
	Fixed   Site           // of BaseURL; the zero value if that is not set
	Proxies []netip.Prefix // whose forwarded headers count
}

// Of returns BaseURL, or what the request says where that is not set. A
// forwarded header counts only from a trusted proxy.
func (s *Sites) Of(r *http.Request) Site {
	if s.Fixed.Host != "" {
		return s.Fixed
	}
	f := s.Forwarded(r)
	here := Site{Scheme: f.scheme, Host: f.Host, Base: f.prefix + strippedPrefix(r)} // stripped between the proxy and us
	if !ValidHost(here.Host) {
		here.Host = ""
		return here
	}
	// The issuer compares redirect URIs to the letter, and a browser writes
	// the host in lower case and leaves out the port that the scheme implies.
	here.Host = strings.ToLower(here.Host)
	if u := (&url.URL{Host: here.Host}); u.Port() == "" && f.port != "" {
		here.Host += ":" + f.port
	}
	here.Host = strings.TrimSuffix(here.Host, map[string]string{"https": ":443", "http": ":80"}[here.Scheme])
	return here
}

// IsSecure reports whether the browser speaks https to the application.
func (s *Sites) IsSecure(r *http.Request) bool {
	if s.Fixed.Host != "" {
		return s.Fixed.Scheme == "https"
	}
	return s.Forwarded(r).scheme == "https"
}

// Page returns path and query of the page that r asks for, as the browser
// knows it: with what http.StripPrefix or a proxy took off. If sure is false,
// the path begins with the site's prefix as it arrived: either no proxy takes
// the prefix off, which is assumed, or one does, and the page's own path begins
// with the same words. The callback's path tells (see [sites.resolve]).
func (s *Sites) Page(r *http.Request) (page string, sure bool) {
	base, asked, inner := s.Of(r).Base, rawTarget(r), strippedPrefix(r)
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

// Resolve completes a page that [sites.page] was not sure of. The request r is
// for a path of ours, whose name the browser knows with the prefix. So if r
// came without it, a proxy took it off, from this request and from the one
// for the page.
func (s *Sites) Resolve(r *http.Request, ours, page string) string {
	base := s.Of(r).Base
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

// ValidHost admits a name or address with an optional port.
func ValidHost(host string) bool {
	if host == "" || len(host) > 255 || strings.ContainsAny(host, "/\\@?#% \t\r\n") {
		return false
	}
	u, err := url.Parse("https://" + host)
	return err == nil && u.Host == host && u.Hostname() != ""
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
	if NewReturnPath(escaped).String() != escaped { // a client chooses the path
		return ""
	}
	return escaped
}

// Elsewhere returns the host under which the browser came, if its name is not
// BaseURL's. Ports do not count: cookies do not know them, and many proxies do
// not tell them.
func (s *Sites) Elsewhere(r *http.Request) string {
	came := s.Forwarded(r).Host
	if s.Fixed.Host == "" || !ValidHost(came) || strings.EqualFold(Hostname(came), Hostname(s.Fixed.Host)) {
		return ""
	}
	return came
}

func Hostname(host string) string { return (&url.URL{Host: host}).Hostname() }
