package signin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// redirectURI is where an application's answer would go for a request, or the
// status of what came instead of a challenge.
func redirectURI(h http.Handler, r *http.Request) string {
	r.Header.Set("Accept", htmlAccept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	u, err := url.Parse(w.Header().Get("Location"))
	if w.Code != http.StatusSeeOther || err != nil {
		return fmt.Sprint(w.Code)
	}
	return u.Query().Get("redirect_uri")
}

func TestRedirectURI(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tc := range []struct {
		name    string
		baseURL string
		proxies []netip.Prefix
		peer    string
		url     string // as it arrives
		header  string
		want    string
	}{
		{"BaseURL", "https://app.example.com", nil, "", "http://10.1.2.3:8080/page/x", "", "https://app.example.com/oidc/callback"},
		{"BaseURL with a path", "https://app.example.com/crm/", nil, "", "http://10.1.2.3:8080/page/x", "", "https://app.example.com/crm/oidc/callback"},
		{"BaseURL and a forged Host", "https://app.example.com", nil, "", "https://evil.example/page/x", "", "https://app.example.com/oidc/callback"},
		{"BaseURL and forged headers from a proxy", "https://app.example.com", proxies, "10.0.0.1:1", "https://app.example.com/page/x",
			"X-Forwarded-Host: evil.example\nX-Forwarded-Proto: http\nX-Forwarded-Prefix: /evil", "https://app.example.com/oidc/callback"},

		{"request", "", nil, "", "https://app.example.com/page/x", "", "https://app.example.com/oidc/callback"},
		{"request with a port", "", nil, "", "https://app.example.com:8443/page/x", "", "https://app.example.com:8443/oidc/callback"},
		{"request with the usual port", "", nil, "", "https://app.example.com:443/page/x", "", "https://app.example.com/oidc/callback"},
		{"request in capitals", "", nil, "", "https://APP.example.com/page/x", "", "https://app.example.com/oidc/callback"},
		{"loopback", "", nil, "", "http://localhost:8080/page/x", "", "http://localhost:8080/oidc/callback"},
		{"loopback by address", "", nil, "", "http://127.0.0.1:8080/page/x", "", "http://127.0.0.1:8080/oidc/callback"},
		{"loopback by IPv6 address", "", nil, "", "http://[::1]:8080/page/x", "", "http://[::1]:8080/oidc/callback"},
		{"loopback, the usual port", "", nil, "", "http://localhost:80/page/x", "", "http://localhost/oidc/callback"},
		{"plain http elsewhere", "", nil, "", "http://app.example.com/page/x", "", "500"},
		{"plain http to what looks like loopback", "", nil, "", "http://localhost.example.com/page/x", "", "500"},
		{"a host that is none", "", nil, "", "https://app.example.com@evil.example/page/x", "Host: a b", "500"},

		{"forwarded by nobody we trust", "", nil, "10.0.0.1:1", "https://app.example.com/page/x",
			"X-Forwarded-Host: evil.example\nX-Forwarded-Proto: http\nX-Forwarded-Prefix: /evil", "https://app.example.com/oidc/callback"},
		{"forwarded by a stranger", "", proxies, "192.0.2.1:1", "https://app.example.com/page/x",
			"X-Forwarded-Host: evil.example\nX-Forwarded-Prefix: /evil", "https://app.example.com/oidc/callback"},
		{"forwarded", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https", "https://app.example.com/oidc/callback"},
		{"forwarded over IPv6", "", proxies, "[fd00::1%eth0]:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https", "https://app.example.com/oidc/callback"},
		{"forwarded over IPv4 in IPv6", "", proxies, "[::ffff:10.0.0.1]:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https", "https://app.example.com/oidc/callback"},
		{"forwarded with a prefix", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https\nX-Forwarded-Prefix: /crm/", "https://app.example.com/crm/oidc/callback"},
		{"a proxy that appends to what a client sent", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: evil.example, app.example.com\nX-Forwarded-Proto: http, https", "https://app.example.com/oidc/callback"},
		{"a proxy that adds a line to what a client sent", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: evil.example\nX-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https", "https://app.example.com/oidc/callback"},
		{"a proxy that says http", "", proxies, "10.0.0.1:1", "https://app.example.com/page/x", "X-Forwarded-Proto: http", "500"},
		{"nonsense forwarded", "", proxies, "10.0.0.1:1", "https://app.example.com/page/x",
			"X-Forwarded-Host: evil.example/x?\nX-Forwarded-Proto: gopher\nX-Forwarded-Prefix: //evil.example", "https://app.example.com/oidc/callback"},
		{"more nonsense forwarded", "", proxies, "10.0.0.1:1", "https://app.example.com/page/x",
			"X-Forwarded-Host: user@evil.example\nX-Forwarded-Prefix: /a?b", "https://app.example.com/oidc/callback"},
		{"port forwarded", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443", "https://app.example.com:8443/oidc/callback"},
		{"port forwarded, and Host kept", "", proxies, "10.0.0.1:1", "http://app.example.com/page/x",
			"X-Forwarded-Proto: https\nX-Forwarded-Port: 80, 8443", "https://app.example.com:8443/oidc/callback"},
		{"port forwarded for an address", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: [2001:db8::1]\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443", "https://[2001:db8::1]:8443/oidc/callback"},
		{"port forwarded beside a host with one", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com:444\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443", "https://app.example.com:444/oidc/callback"},
		{"the usual port forwarded", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https\nX-Forwarded-Port: 443", "https://app.example.com/oidc/callback"},
		{"the port between two proxies forwarded", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https\nX-Forwarded-Port: 80", "https://app.example.com/oidc/callback"},
		{"a port that is none", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			"X-Forwarded-Host: app.example.com\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443@evil.example", "https://app.example.com/oidc/callback"},
		{"a port by nobody we trust", "", proxies, "192.0.2.1:1", "https://app.example.com/page/x", "X-Forwarded-Port: 8443", "https://app.example.com/oidc/callback"},
		{"X-Forwarded-Ssl", "", proxies, "10.0.0.1:1", "http://app.example.com/page/x", "X-Forwarded-Ssl: on", "https://app.example.com/oidc/callback"},
		{"X-Forwarded-Ssl off", "", proxies, "10.0.0.1:1", "https://app.example.com/page/x", "X-Forwarded-Ssl: off", "500"},
		{"X-Forwarded-Proto before X-Forwarded-Ssl", "", proxies, "10.0.0.1:1", "https://app.example.com/page/x",
			"X-Forwarded-Proto: http\nX-Forwarded-Ssl: on", "500"},
		{"Front-End-Https", "", proxies, "10.0.0.1:1", "http://app.example.com/page/x", "Front-End-Https: On", "https://app.example.com/oidc/callback"},
		{"in capitals", "", proxies, "10.0.0.1:1", "http://backend/page/x",
			"X-Forwarded-Host: APP.Example.COM\nX-Forwarded-Proto: HTTPS", "https://app.example.com/oidc/callback"},
		{"Forwarded", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			`Forwarded: for=192.0.2.1;Proto=HTTPS;host="app.example.com:8443"`, "https://app.example.com:8443/oidc/callback"},
		{"Forwarded by two proxies", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			`Forwarded: for=192.0.2.1;proto=https;host=app.example.com, for="10.0.0.2:4711";proto=http`, "https://app.example.com/oidc/callback"},
		{"Forwarded by a client and a proxy", "", proxies, "10.0.0.1:1", "http://backend:8080/page/x",
			`Forwarded: proto=http;host=evil.example, for=192.0.2.1;proto=https;host=app.example.com`, "https://app.example.com/oidc/callback"},
		{"Forwarded, spoilt by a client", "", proxies, "10.0.0.1:1", "https://app.example.com/page/x",
			`Forwarded: host=evil.example;for=", for=192.0.2.1;proto=https;host=other.example.com`, "https://app.example.com/oidc/callback"},
		{"Forwarded by nobody we trust", "", proxies, "192.0.2.1:1", "https://app.example.com/page/x", "Forwarded: host=evil.example", "https://app.example.com/oidc/callback"},
		// A proxy that writes the X-Forwarded family passes on what a client says here.
		{"Forwarded by a client, the rest by a proxy", "", proxies, "10.0.0.1:1", "http://app.example.com/page/x",
			"X-Forwarded-Proto: https\nForwarded: for=10.0.0.9;host=evil.example;proto=http", "https://app.example.com/oidc/callback"},
		{"a peer without an address", "", proxies, "@", "https://app.example.com/page/x", "X-Forwarded-Host: evil.example", "https://app.example.com/oidc/callback"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.BaseURL, c.TrustedProxies = tc.baseURL, tc.proxies }
			})
			r := httptest.NewRequest("GET", strings.Replace(tc.url, "@evil.example", "", 1), nil)
			r.RequestURI = r.URL.RequestURI()
			r.URL.Scheme, r.URL.Host = "", "" // as a server has it
			r.Header = headerOf(tc.header)
			if host := r.Header.Get("Host"); host != "" {
				r.Host = host
			}
			if tc.peer != "" {
				r.RemoteAddr = tc.peer
			}
			if got := redirectURI(a.Handler(a.mux), r); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// mounted is an application below a prefix, behind whatever outer adds.
func mounted(baseURL, prefix string, outer func(http.Handler) http.Handler) func(*appOptions) {
	return func(o *appOptions) {
		o.config = func(c *Config) {
			c.BaseURL = baseURL
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
		o.wrap = func(a *Auth, mux *http.ServeMux) http.Handler {
			h := a.Handler(mux)
			if prefix != "" {
				top := http.NewServeMux()
				top.Handle(prefix+"/", http.StripPrefix(prefix, h))
				h = top
			}
			return outer(h)
		}
	}
}

// A user signs in wherever the application is mounted, and comes back to the
// page asked for, by the address in the browser.
func TestMounting(t *testing.T) {
	const origin = "https://app.example.test"
	same := func(h http.Handler) http.Handler { return h }
	// proxy is one in front, which takes a prefix off the path and says so.
	proxy := func(t *testing.T, prefix string, header http.Header) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			backend := httptest.NewServer(h)
			t.Cleanup(backend.Close)
			target, err := url.Parse(backend.URL)
			if err != nil {
				t.Fatal(err)
			}
			return http.StripPrefix(prefix, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				for name, values := range header {
					r.Out.Header[name] = values
				}
			}})
		}
	}
	forwarded := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"app.example.test"}, "X-Forwarded-Prefix": {"/crm"}}
	for _, tc := range []struct {
		name    string
		options func(t *testing.T) func(*appOptions)
		base    string // of the pages, in the browser
	}{
		{"at the root", func(*testing.T) func(*appOptions) { return mounted("", "", same) }, ""},
		{"StripPrefix", func(*testing.T) func(*appOptions) { return mounted("", "/crm", same) }, "/crm"},
		{"StripPrefix, two deep", func(*testing.T) func(*appOptions) { return mounted("", "/a/crm", same) }, "/a/crm"},
		{"StripPrefix and BaseURL", func(*testing.T) func(*appOptions) { return mounted(origin+"/crm", "/crm", same) }, "/crm"},
		{"a proxy that strips, and BaseURL", func(t *testing.T) func(*appOptions) { return mounted(origin+"/crm", "", proxy(t, "/crm", nil)) }, "/crm"},
		{"a proxy that strips and says so", func(t *testing.T) func(*appOptions) { return mounted("", "", proxy(t, "/crm", forwarded)) }, "/crm"},
		{"a proxy that strips, and StripPrefix", func(t *testing.T) func(*appOptions) { return mounted("", "/inner", proxy(t, "/crm", forwarded)) }, "/crm/inner"},
		{"a proxy that strips, StripPrefix, and BaseURL", func(t *testing.T) func(*appOptions) {
			return mounted(origin+"/crm/inner", "/inner", proxy(t, "/crm", nil))
		}, "/crm/inner"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, tc.options(t))
			page := origin + tc.base + "/page/x?q=%2F1"
			b := a.browser()
			if p := b.Open(page); p.Status != http.StatusOK || p.URL != page {
				t.Fatalf("%d at %s, want %s\n%s", p.Status, p.URL, page, a.log)
			}
			if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("redirect_uri"); got != origin+tc.base+"/oidc/callback" {
				t.Errorf("redirect_uri %s", got)
			}
			// The link for scripts, and where a plain sign-in ends.
			fresh := a.browser()
			p := fresh.Send(&signintest.Request{URL: origin + tc.base + "/me", From: page, Mode: "cors", Dest: "empty"})
			if p = fresh.Open(loginOf(t, &app{url: origin}, p)); p.URL != page || p.Status != http.StatusOK {
				t.Errorf("the login URL leads to %d at %s", p.Status, p.URL)
			}
			if p = a.browser().Open(origin + tc.base + "/oidc/login"); p.URL != origin+tc.base+"/" || p.Body != "public" {
				t.Errorf("a plain sign-in leads to %d at %s", p.Status, p.URL)
			}
			if p = b.Submit(b.Open(origin+tc.base+"/signout"), nil); p.URL != origin+tc.base+"/" || p.Body != "public" {
				t.Errorf("sign-out leads to %d at %s", p.Status, p.URL)
			}
		})
	}
}

// A page whose own path begins with the words of the prefix, behind a proxy
// that takes the prefix off: no request tells whether it did, but the callback.
func TestPrefixTwice(t *testing.T) {
	const origin = "https://app.example.test"
	forwarded := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"app.example.test"}, "X-Forwarded-Prefix": {"/page"}}
	for _, tc := range []struct {
		name, baseURL string
		strip         string
		header        http.Header
	}{
		{"BaseURL, a proxy that strips", origin + "/page", "/page", nil},
		{"X-Forwarded-Prefix, a proxy that strips", "", "/page", forwarded},
		{"BaseURL, nobody strips", origin + "/page", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, mounted(tc.baseURL, "", func(h http.Handler) http.Handler {
				return http.StripPrefix(tc.strip, proxied(t, h, func(r *httputil.ProxyRequest) {
					for name, values := range tc.header {
						r.Out.Header[name] = values
					}
				}))
			}))
			for _, page := range []string{"/page/page/x?q=1", "/page/page/page/x"} {
				if p := a.browser().Open(origin + page); p.Status != http.StatusOK || p.URL != origin+page {
					t.Errorf("%s ends with %d at %s", page, p.Status, p.URL)
				}
				// The same by a link for what cannot be redirected.
				b := a.browser()
				p := b.Send(&signintest.Request{Method: "POST", URL: origin + page, Form: url.Values{}})
				if p.Status != http.StatusUnauthorized {
					t.Fatalf("%s: %d, want 401", page, p.Status)
				}
				if p = b.Click(p, p.Link("Sign in")); p.Status != http.StatusOK || p.URL != origin+page {
					t.Errorf("%s by a link ends with %d at %s", page, p.Status, p.URL)
				}
			}
		})
	}
}

// What the application strips inside Handler is none of ours: the callback is
// where Handler is.
func TestStripPrefixInsideHandler(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.BaseURL = "" } })
	a.mux.Handle("/admin/", http.StripPrefix("/admin", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "admin "+r.URL.Path)
	}))))
	if p := a.browser().Open(a.url + "/admin/users"); p.Status != http.StatusOK || p.Body != "admin /users" || p.URL != a.url+"/admin/users" {
		t.Errorf("%d at %s: %.300s", p.Status, p.URL, p.Body)
	}
	if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("redirect_uri"); got != a.url+"/oidc/callback" {
		t.Errorf("redirect_uri %s", got)
	}
}

// The demo: everything on one machine, over plain http.
func TestLoopback(t *testing.T) {
	for _, tc := range []struct {
		name, issuer, app string
		strict            bool
	}{
		{"cross-site", "http://localhost", "http://127.0.0.1", false},
		{"cross-site, the other way", "http://127.0.0.1", "http://localhost", false},
		{"one host name", "http://127.0.0.1", "http://127.0.0.1", false},
		{"one host name, and a client that drops Secure cookies", "http://127.0.0.1", "http://127.0.0.1", true},
		{"localhost, and a client that drops Secure cookies", "http://localhost", "http://localhost", true},
	} {
		for _, flow := range flows {
			t.Run(tc.name+", "+flow.name, func(t *testing.T) {
				a := newApp(t, func(o *appOptions) {
					o.issuerURL, o.appURL = tc.issuer, tc.app
					o.config = func(c *Config) { flow.config(c); c.BaseURL = "" }
				})
				b := signintest.NewBrowser(t, &signintest.BrowserOptions{Network: a.net, StrictSecure: tc.strict})
				if got := a.subject(b); got != "alice" {
					t.Fatal(got)
				}
				for _, c := range b.Cookies(a.url) {
					if strings.HasPrefix(c.Name, "__") {
						t.Errorf("%s: a prefix that needs https", c.Name)
					}
				}
				if p := b.Submit(b.Open(a.url+"/signout"), nil); p.Status != http.StatusOK || p.Body != "public" {
					t.Errorf("sign-out: %d", p.Status)
				}
				if got := a.subject(b); got != "alice" {
					t.Error(got)
				}
			})
		}
	}
}

func TestPlainHTTPIsRefused(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.appURL = "http://app.example.test"
		o.config = func(c *Config) { c.BaseURL = "" }
	})
	p := a.browser().Open(a.url + "/me")
	if p.Status != http.StatusInternalServerError || len(p.Header.Values("Set-Cookie")) > 0 || a.issuer.Count(signintest.EndpointAuthorize) != 0 {
		t.Errorf("%d, cookies %q", p.Status, p.Header.Values("Set-Cookie"))
	}
	if !strings.Contains(a.log.String(), "set BaseURL, or TrustedProxies") {
		t.Errorf("the log does not say what to do: %s", a.log)
	}
	if p := a.browser().Open(a.url + "/"); p.Status != http.StatusOK {
		t.Errorf("public page: %d", p.Status)
	}
}

// BaseURL is as it stands in a URL, and a request's path is decoded.
func TestCallbackBelowEscapedBase(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.BaseURL = "https://app.example.test/my%20app" }
	})
	r := httptest.NewRequest("GET", "https://app.example.test/my%20app/oidc/callback", nil)
	w := httptest.NewRecorder()
	a.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("%d, want the callback's 400", w.Code)
	}
}
