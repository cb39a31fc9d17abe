package signin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// proxied is a TLS-ending proxy in front of a handler. It keeps the Host
// header, and edit changes what goes on.
func proxied(t *testing.T, h http.Handler, edit func(*httputil.ProxyRequest)) http.Handler {
	t.Helper()
	backend := httptest.NewServer(h)
	t.Cleanup(backend.Close)
	target, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
		edit(r)
	}}
}

// However a proxy spells the scheme of one request, the session is found
// where the other requests of the browser have put it.
func TestSchemeOfProxies(t *testing.T) {
	for _, header := range []http.Header{
		{"X-Forwarded-Proto": {"wss"}}, // Traefik, for a WebSocket handshake
		{"X-Forwarded-Proto": {"WSS"}},
		{"X-Forwarded-Proto": {"HTTPS"}},
		{"X-Forwarded-Proto": {"http, wss"}},
		{"X-Forwarded-Proto": {"http", " https "}},
		{"X-Forwarded-Proto": {"https, http"}, "X-Forwarded-For": {"192.0.2.7, 127.0.0.2"}},
		{"X-Forwarded-Ssl": {"on"}},
		{"X-Forwarded-Ssl": {"On"}},
		{"Front-End-Https": {"on"}},
		{"Forwarded": {`for=192.0.2.7;proto=wss`}},
		{"Forwarded": {`for="[2001:db8::1]:4711"; Proto="https"`}},
		{"Forwarded": {`for=192.0.2.7;proto=https, for=127.0.0.2;proto=http`}},
		{"Forwarded": {`for=192.0.2.7;proto=https`, `for=127.0.0.2;proto=http`}},
	} {
		t.Run(fmt.Sprint(header), func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) {
					c.BaseURL = ""
					c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				}
				o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
					return proxied(t, a.Handler(mux), func(r *httputil.ProxyRequest) {
						if r.In.Header.Get("Upgrade") == "" {
							r.SetXForwarded()
							return
						}
						for name, values := range header {
							r.Out.Header[name] = values
						}
					})
				}
			})
			b := a.signIn()
			p := b.Send(&signintest.Request{
				URL: a.url + "/me", From: a.url + "/page/x", Mode: "websocket",
				Header: http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}},
			})
			if p.Status != http.StatusOK || !strings.Contains(p.Body, `"alice"`) {
				t.Errorf("handshake of a signed-in user: %d %.200s", p.Status, p.Body)
			}
		})
	}
}

// A server on a Unix socket has a peer without an address. A trusted loopback
// prefix covers it, and no other prefix does.
func TestUnixSocketPeers(t *testing.T) {
	for _, tc := range []struct{ prefix, want string }{
		{"127.0.0.0/8", "https://app.example.test/oidc/callback"},
		{"::1/128", "https://app.example.test/oidc/callback"},
		{"10.0.0.0/8", "500"},
		{"2001:db8::/32", "500"},
	} {
		t.Run(tc.prefix, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) {
					c.BaseURL = ""
					c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(tc.prefix)}
				}
			})
			socket := filepath.Join(t.TempDir(), "app.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: a.Handler(a.mux)}
			go server.Serve(l)
			t.Cleanup(func() { server.Close() })
			client := &http.Client{
				Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "unix", socket)
				}},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}
			t.Cleanup(client.CloseIdleConnections)
			r, err := http.NewRequest(http.MethodGet, "http://app.example.test/page/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = http.Header{"Accept": {htmlAccept}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"app.example.test"}}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			got := fmt.Sprint(resp.StatusCode)
			if u, err := resp.Location(); err == nil {
				got = u.Query().Get("redirect_uri")
			}
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// Over TCP an empty or odd RemoteAddr is nobody's, whatever is trusted.
func TestNoAddressIsNoUnixSocket(t *testing.T) {
	s := &site.Sites{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/0")}}
	for _, addr := range []string{"", "@", "/run/app.sock", "nonsense"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = addr
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}))
		if s.TrustsPeer(r) {
			t.Errorf("RemoteAddr %q over TCP is trusted", addr)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	if r.RemoteAddr = ""; s.TrustsPeer(r) {
		t.Error("a request without any address is trusted")
	}
}

func TestParseForwarded(t *testing.T) {
	for _, tc := range []struct {
		line string
		want string // the elements; empty: malformed
	}{
		{`for=192.0.2.60;proto=http;by=203.0.113.43`, `[{192.0.2.60 http }]`},
		{`For="[2001:db8:cafe::17]:4711"`, `[{[2001:db8:cafe::17]:4711  }]`},
		{`for=192.0.2.43, for=198.51.100.17`, `[{192.0.2.43  } {198.51.100.17  }]`},
		{`for=_hidden, for=_SEVKISEK;proto=https;host=app.example.test:8443`, `[{_hidden  } {_SEVKISEK https app.example.test:8443}]`},
		{`host="app.example.test:8443" ; proto = https`, ``},
		{`host="app.example.test:8443" ;proto=https`, `[{ https app.example.test:8443}]`},
		{`host="a\"b\\c"`, `[{  a"b\c}]`},
		{`for="a,b;c=d";proto=https`, `[{a,b;c=d https }]`},
		{`secret=x;proto=https`, `[{ https }]`},
		{``, `[{  }]`},

		{`proto`, ``},
		{`proto=`, ``},
		{`=https`, ``},
		{`proto=https;`, ``},
		{`proto=https,`, ``},
		{`proto=https;proto=http`, ``},
		{`proto=https host=evil.example`, ``},
		{`for="open, for=192.0.2.1;proto=https;host=app.example.test`, ``},
		{`for="open, for=192.0.2.1;host="app.example.test:8443"`, ``},
		{`for="open\`, ``},
		{`for=a"b`, ``},
		{`a b=c`, ``},
		{"proto=" + strings.Repeat("a", 5000), ``},
	} {
		got := ""
		if elements, ok := site.ParseForwarded(tc.line); ok {
			got = fmt.Sprint(elements)
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.line, got, tc.want)
		}
	}
}

// FuzzForwarded: whatever stands in the header, a host that comes out of it
// could stand in a redirect URI, and what a trusted proxy adds after it counts.
func FuzzForwarded(f *testing.F) {
	for _, line := range []string{`for=192.0.2.60;proto=http;host=a`, `for="x`, `host="a\"b"`, `a=b,`, `,`, `for=10.0.0.1`} {
		f.Add(line)
	}
	s := &site.Sites{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, line string) {
		r := httptest.NewRequest("GET", "http://backend/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header["Forwarded"] = []string{line}
		if here := s.Of(r); here.Host != "" && !site.ValidHost(here.Host) || here.Scheme != "http" && here.Scheme != "https" {
			t.Errorf("%q makes %+v", line, here)
		}
		r.Header["Forwarded"] = []string{line, "for=192.0.2.1;proto=https;host=app.example.test"}
		if got := s.Of(r).URL("/"); got != "https://app.example.test/" {
			t.Errorf("%q before the proxy's own line makes %s", line, got)
		}
	})
}
