package site

import (
	"cmp"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/seed454743b5/signin/internal/text"
)

// forwarded is how the browser's request reached the first proxy, as far as
// the proxies that we trust tell, and else how it reached us.
type forwarded struct {
	scheme string // http or https
	Host   string // not checked
	port   string // empty if nobody says, or if it is the one of a scheme
	prefix string // that a proxy took off the path
}

// Forwarded reads the forwarded headers of r, if its peer may send any. It is
// the only reader, so that all decisions about one request agree: a scheme
// read otherwise for another request of the same browser would look for the
// session under another cookie name.
//
// A header of the X-Forwarded family wins over Forwarded (RFC 7239): many
// proxies write the former and pass on the latter as a client sent it.
func (s *Sites) Forwarded(r *http.Request) forwarded {
	f := forwarded{scheme: "http", Host: r.Host}
	if r.TLS != nil {
		f.scheme = "https"
	}
	if !s.TrustsPeer(r) {
		return f
	}
	told := s.readXForwarded(r, &f)
	if lines := r.Header["Forwarded"]; !told && len(lines) > 0 {
		s.readForwarded(lines, &f)
	}
	return f
}

// readXForwarded reads the headers that are no standard. It reports whether
// there is any.
func (s *Sites) readXForwarded(r *http.Request, f *forwarded) (told bool) {
	if proto := s.forwardedProto(r); proto != "" {
		told = true
		if scheme := schemeOf(proto); scheme != "" {
			f.scheme = scheme
		}
	} else if tls := cmp.Or(lastValue(r, "X-Forwarded-Ssl"), lastValue(r, "Front-End-Https")); tls != "" {
		told = true
		switch {
		case strings.EqualFold(tls, "on"):
			f.scheme = "https"
		case strings.EqualFold(tls, "off"):
			f.scheme = "http"
		}
	}
	if host := lastValue(r, "X-Forwarded-Host"); host != "" {
		told = true
		if ValidHost(host) {
			f.Host = host
		}
	}
	if port := lastValue(r, "X-Forwarded-Port"); port != "" {
		told = true
		f.port = oddPort(port)
	}
	if prefix := lastValue(r, "X-Forwarded-Prefix"); prefix != "" {
		told = true
		if NewReturnPath(prefix).String() == prefix && !strings.Contains(prefix, "?") {
			f.prefix = strings.TrimSuffix(prefix, "/")
		}
	}
	return told
}

// oddPort is a port that a browser writes, empty for what is none. One that
// belongs to a scheme is left out, also under the other scheme: 80 under https
// is the port between two proxies.
func oddPort(port string) string {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || n == 80 || n == 443 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// forwardedProto is what the nearest proxy wrote into X-Forwarded-Proto. If
// X-Forwarded-For shows that its peer is a trusted proxy too, and both lists
// have grown alike, it is what that one wrote, and so on. A client that wrote
// into both lists gains nothing: its own cookies lose or get Secure.
func (s *Sites) forwardedProto(r *http.Request) string {
	lines := r.Header["X-Forwarded-Proto"]
	if len(lines) == 0 {
		return ""
	}
	protos := splitList(lines)
	n := len(protos) - 1
	if peers := splitList(r.Header["X-Forwarded-For"]); len(peers) == len(protos) {
		for n > 0 && s.trusts(peers[n]) {
			n--
		}
	}
	return protos[n]
}

// readForwarded reads Forwarded, element by element from the nearest proxy's
// on, as far as each was written by a proxy that we trust.
func (s *Sites) readForwarded(lines []string, f *forwarded) {
	for i := len(lines) - 1; i >= 0; i-- {
		elements, ok := ParseForwarded(lines[i])
		if !ok {
			return // who has written it cannot be told
		}
		for j := len(elements) - 1; j >= 0; j-- {
			e := elements[j]
			if scheme := schemeOf(e.proto); scheme != "" {
				f.scheme = scheme
			}
			if ValidHost(e.host) {
				f.Host = e.host
			}
			if !s.trusts(e.peer) {
				return
			}
		}
	}
}

// forwardedElement is what one proxy says: for, proto and host.
type forwardedElement struct{ peer, proto, host string }

// ParseForwarded reads one line of Forwarded (RFC 7239, 4): elements parted by
// commas, pairs by semicolons, values that are tokens or quoted strings. A line
// that is not well formed says nothing: a quotation mark that a client left
// open would swallow what our proxy has added.
func ParseForwarded(line string) ([]forwardedElement, bool) {
	const maxLine = 4096
	if len(line) > maxLine {
		return nil, false
	}
	elements := []forwardedElement{{}}
	seen := map[string]bool{}
	for rest := strings.TrimSpace(line); rest != ""; {
		name, after, ok := strings.Cut(rest, "=")
		value, after, valid := cutValue(after)
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || !valid || name == "" || seen[name] || strings.ContainsFunc(name, func(r rune) bool { return !text.IsTokenRune(r) }) {
			return nil, false
		}
		seen[name] = true
		e := &elements[len(elements)-1]
		switch name {
		case "for":
			e.peer = value
		case "proto":
			e.proto = value
		case "host":
			e.host = value
		}
		after = strings.TrimLeft(after, " \t")
		if after == "" {
			break
		}
		if after[0] == ',' {
			elements, seen = append(elements, forwardedElement{}), map[string]bool{}
		} else if after[0] != ';' {
			return nil, false
		}
		if rest = strings.TrimLeft(after[1:], " \t"); rest == "" {
			return nil, false
		}
	}
	return elements, true
}

// cutValue takes a token or a quoted string off the front of s. A token may
// hold the colons and brackets of an address, which some proxies do not quote.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ";, \t\"\\")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], end > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// TrustsPeer reports whether the forwarded headers of r count.
func (s *Sites) TrustsPeer(r *http.Request) bool {
	if len(s.Proxies) == 0 {
		return false
	}
	if onUnixSocket(r) {
		// The peer has no address, and is on this machine: whoever may connect
		// has the file's permission.
		return s.trustsAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1})) || s.trustsAddr(netip.IPv6Loopback())
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && s.trustsAddr(peer.Addr())
}

// onUnixSocket reports whether r came by a Unix socket. RemoteAddr is "@" or
// empty then, or the path that the client bound.
func onUnixSocket(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return local.Network() == "unix"
	}
	return strings.HasPrefix(r.RemoteAddr, "@") // a handler called without a server
}

// trusts is trustsAddr for an address in a forwarded header, with or without a
// port.
func (s *Sites) trusts(peer string) bool {
	if addr, err := netip.ParseAddrPort(peer); err == nil {
		return s.trustsAddr(addr.Addr())
	}
	addr, err := netip.ParseAddr(strings.Trim(peer, "[]"))
	return err == nil && s.trustsAddr(addr)
}

func (s *Sites) trustsAddr(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range s.Proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// schemeOf is the scheme that a proxy names: for a WebSocket handshake some
// write wss.
func schemeOf(proto string) string {
	switch {
	case strings.EqualFold(proto, "https"), strings.EqualFold(proto, "wss"):
		return "https"
	case strings.EqualFold(proto, "http"), strings.EqualFold(proto, "ws"):
		return "http"
	}
	return ""
}

// lastValue is what the proxy nearest to us wrote. What stands before it may
// be the client's.
func lastValue(r *http.Request, name string) string {
	values := r.Header[name]
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
}

// splitList returns the values of a header that is a list.
func splitList(lines []string) []string {
	var values []string
	for _, line := range lines {
		for v := range strings.SplitSeq(line, ",") {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}
