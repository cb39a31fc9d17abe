package signin

import (
	"errors"
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
func (s site) url(path string) string  { return s.scheme + "://" + s.host + s.base + path }
func (s site) path(path string) string { return s.base + path }

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

// site returns BaseURL, or what the request says where that is not set. A
// forwarded header counts only from a trusted proxy.
func (a *Auth) site(r *http.Request) site {
	if a.cfg.BaseURL != "" {
		return a.base
	}
	s := site{scheme: "http", host: r.Host}
	if r.TLS != nil {
		s.scheme = "https"
	}
	if a.trustsPeer(r) {
		if proto := lastValue(r, "X-Forwarded-Proto"); proto == "http" || proto == "https" {
			s.scheme = proto
		}
		if host := lastValue(r, "X-Forwarded-Host"); validHost(host) {
			s.host = host
		}
		if prefix := lastValue(r, "X-Forwarded-Prefix"); prefix != "" {
			if p := newReturnPath(prefix); p.String() == prefix && !strings.Contains(prefix, "?") {
				s.base = strings.TrimSuffix(prefix, "/")
			}
		}
	}
	s.base += strippedPrefix(a.entered(r)) // between the proxy and us
	if !validHost(s.host) {
		s.host = ""
	}
	// The issuer compares redirect URIs to the letter, and a browser leaves
	// out the port that the scheme implies.
	s.host = strings.ToLower(s.host)
	if s.scheme == "https" {
		s.host = strings.TrimSuffix(s.host, ":443")
	} else {
		s.host = strings.TrimSuffix(s.host, ":80")
	}
	return s
}

// isSecure reports whether the browser speaks https to the application.
func (a *Auth) isSecure(r *http.Request) bool {
	if a.cfg.BaseURL != "" {
		return a.base.scheme == "https"
	}
	if a.trustsPeer(r) {
		switch lastValue(r, "X-Forwarded-Proto") {
		case "https":
			return true
		case "http":
			return false
		}
	}
	return r.TLS != nil
}

func (a *Auth) trustsPeer(r *http.Request) bool {
	if len(a.cfg.TrustedProxies) == 0 {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	for _, p := range a.cfg.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// lastValue is what the proxy nearest to us wrote. What stands before it may
// be the client's.
func lastValue(r *http.Request, name string) string {
	values := r.Header.Values(name)
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
}

// validHost admits a name or address with an optional port.
func validHost(host string) bool {
	if host == "" || len(host) > 255 || strings.ContainsAny(host, "/\\@?#% \t\r\n") {
		return false
	}
	u, err := url.Parse("https://" + host)
	return err == nil && u.Host == host && u.Hostname() != ""
}

// requestPath returns path and query of the page asked for, as the browser
// knows it: with what http.StripPrefix or a proxy took off.
func (a *Auth) requestPath(r *http.Request) string {
	asked, base := originalURL(r), a.site(r).base
	p := asked.EscapedPath()
	if p != base && !strings.HasPrefix(p, base+"/") {
		p = base + strings.TrimPrefix(p, strippedPrefix(a.entered(r)))
	}
	if asked.RawQuery != "" {
		p += "?" + asked.RawQuery
	}
	return p
}

// entered is a request as it came to Handler. What http.StripPrefix takes off
// further in is the application's own affair: the callback is not there.
func (a *Auth) entered(r *http.Request) *http.Request {
	if v := a.visitOf(r.Context()); v != nil && v.r != nil {
		return v.r
	}
	return r
}

// originalURL is what the client asked for, before any prefix was stripped.
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
