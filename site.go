package signin

import (
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

// insecure reports whether cookies and codes would cross a network in clear.
func (s site) insecure() bool {
	if s.scheme == "https" {
		return false
	}
	host, _, err := net.SplitHostPort(s.host)
	if err != nil {
		host = s.host
	}
	return !isLoopback(strings.Trim(host, "[]"))
}

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
	if s.base == "" {
		s.base = strippedPrefix(r)
	}
	if !validHost(s.host) {
		s.host = "" // the issuer refuses the redirect URI
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
	asked := originalURL(r)
	p := asked.EscapedPath()
	if asked.RawQuery != "" {
		p += "?" + asked.RawQuery
	}
	base := a.site(r).base
	if base == "" || asked.Path == base || strings.HasPrefix(asked.Path, base+"/") {
		return p
	}
	return base + p
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

// strippedPrefix is what http.StripPrefix took off the path.
func strippedPrefix(r *http.Request) string {
	prefix, ok := strings.CutSuffix(originalURL(r).Path, r.URL.Path)
	if !ok || r.URL.Path == "" {
		return ""
	}
	return strings.TrimSuffix(prefix, "/")
}
