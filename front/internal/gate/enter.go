package gate

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/seed454743b5/signin/front/internal/visit"
)

// asker is who is at the other end of the connection, and what it said about
// the request, before the headers are put in order.
type asker struct {
	trusted bool
	host    string // the Host header
	hosts   int    // X-Forwarded-Host headers
}

// enter finds out where the browser thinks it is, and who asks. Afterwards the
// forwarded headers of r say only what has been decided here: package signin
// believes them, and so does the upstream.
func (g *Gate) enter(r *http.Request, v *visit.Visit) asker {
	peer, trusted := g.peer(r)
	a := asker{trusted: trusted, host: r.Host, hosts: len(r.Header["X-Forwarded-Host"])}
	v.Scheme, v.Host = "http", r.Host
	if r.TLS != nil {
		v.Scheme = "https"
	}
	v.Client, v.Chain = peer, peer
	if trusted {
		v.Client, v.Chain = g.chain(r, peer)
		switch lastValue(r, "X-Forwarded-Proto") {
		case "https", "wss": // Traefik says wss for a WebSocket
			v.Scheme = "https"
		case "http", "ws":
			v.Scheme = "http"
		}
		if host := lastValue(r, "X-Forwarded-Host"); validHost(host) {
			v.Host = host
		}
	}
	g.settle(r, v)
	return a
}

// settle makes r say what v does.
func (g *Gate) settle(r *http.Request, v *visit.Visit) {
	if !validHost(v.Host) {
		v.Host = ""
	}
	v.Host = withoutDefaultPort(strings.ToLower(v.Host), v.Scheme)
	r.Host = v.Host
	h := r.Header
	for _, name := range []string{"Forwarded", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		delete(h, name)
	}
	if g.Config.BaseURL != "" {
		// The browser's own name for the host stays in r.Host, where package
		// signin looks at it.
		if u, err := url.Parse(g.Config.BaseURL); err == nil {
			v.Scheme, v.Host = u.Scheme, u.Host
		}
		return
	}
	if (v.Scheme == "https") == (r.TLS != nil) {
		return // as the request says by itself
	}
	h["X-Forwarded-Proto"] = []string{v.Scheme}
	// For package signin the front is the trusted proxy. The peer may be a Unix
	// socket, which has no address.
	if _, err := netip.ParseAddrPort(r.RemoteAddr); err != nil {
		r.RemoteAddr = "127.0.0.1:0"
	}
}

// peer returns the address of the other end, and whether it is a trusted
// proxy. Whoever may open our Unix socket is: its folder's permissions say who.
func (g *Gate) peer(r *http.Request) (string, bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		return "unknown", local != nil && local.Network() == "unix"
	}
	addr := ap.Addr().Unmap().WithZone("")
	return addr.String(), g.trusts(addr)
}

func (g *Gate) trusts(addr netip.Addr) bool {
	for _, p := range g.Config.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// chain returns the client's address as seen by the outermost trusted proxy,
// and the whole list.
func (g *Gate) chain(r *http.Request, peer string) (client, list string) {
	client = peer
	all := strings.Join(r.Header["X-Forwarded-For"], ",")
	if all == "" || len(all) > 2048 {
		return client, peer
	}
	hops := strings.Split(all, ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = addr.Unmap().String()
		if !g.trusts(addr.Unmap()) {
			break
		}
	}
	if peer == "unknown" { // a Unix socket is no hop
		return client, all
	}
	return client, all + ", " + peer
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

const hostBytes = "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// validHost admits a name or address with an optional port.
func validHost(host string) bool {
	if host == "" || len(host) > 255 {
		return false
	}
	for i := range len(host) {
		if strings.IndexByte(hostBytes, host[i]) < 0 {
			return false
		}
	}
	if name, port, _ := strings.Cut(host, ":"); !strings.ContainsAny(name, "[]") && name != "" && strings.Trim(port, "0123456789") == "" {
		return true
	}
	u, err := url.Parse("https://" + host)
	return err == nil && u.Host == host && u.Hostname() != ""
}

// withoutDefaultPort is how a browser spells a host.
func withoutDefaultPort(host, scheme string) string {
	if scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}
