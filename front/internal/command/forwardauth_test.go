package command_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/front/internal/fronttest"
)

const asking = `
trusted_proxies: [127.0.0.1/32]
routes:
  - {path: /, allow: signed-in}
  - {path: /public/, allow: public}
  - {path: /admin/, allow: {claim: realm_access.roles, any: [admin]}, headers: {X-WEBAUTH-USER: email}}
  - {path: /jwt/, allow: signed-in, pass: [identity_jwt]}
  - {path: POST /form, allow: {subject: ["9"]}}
`

// ask asks about a request in a proxy's name.
func ask(f *fronttest.Front, query, headers string) (*http.Response, string) {
	f.T.Helper()
	return f.Answer("GET /oidc/auth" + query + " HTTP/1.1\nHost: HOST\nCookie: COOKIES\n" + headers + "\n")
}

func TestForwardAuth(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: asking})
	f.SignInBy("/oidc/login?return=/oidc/user")
	for name, tc := range map[string]struct {
		headers string
		want    int
		user    string
	}{
		"nginx":                   {"X-Original-URI: /x?a=1;b=%zz\nX-Original-Method: GET\n", 204, "1001"},
		"nginx, by itself":        {"X-Original-URI: /x\n", 204, "1001"},
		"Traefik and Caddy":       {"X-Forwarded-Uri: /x\nX-Forwarded-Method: GET\nX-Forwarded-Host: HOST\nX-Forwarded-Proto: http\n", 204, "1001"},
		"public":                  {"X-Original-URI: /public/x\n", 204, ""},
		"rule":                    {"X-Original-URI: /admin/x\n", 204, ""},
		"subtree without a slash": {"X-Original-URI: /admin\n", 204, ""},
		"method":                  {"X-Original-URI: /form\nX-Original-Method: POST\n", 403, ""},
		"another method":          {"X-Original-URI: /form\nX-Original-Method: GET\n", 204, "1001"},
		"method of the other":     {"X-Original-URI: /form\nX-Original-Method: POST\nX-Forwarded-Method: GET\n", 403, ""},
		"nothing":                 {"", 400, ""},
		"both":                    {"X-Original-URI: /admin/\nX-Forwarded-Uri: /public/\n", 400, ""},
		"both, underscores":       {"X-Original-URI: /admin/\nX_Forwarded_Uri: /public/\n", 400, ""},
		"twice":                   {"X-Original-URI: /admin/\nX-Original-URI: /public/\n", 400, ""},
		"twice, forwarded":        {"X-Forwarded-Uri: /admin/\nX-Forwarded-Uri: /public/\n", 400, ""},
		"two methods":             {"X-Original-URI: /form\nX-Original-Method: POST\nX-Original-Method: GET\n", 400, ""},
		"bad method":              {"X-Original-URI: /form\nX-Original-Method: post it\n", 400, ""},
		"no path":                 {"X-Original-URI: https://evil.example/\n", 400, ""},
		"no good path":            {"X-Original-URI: /%zz\n", 400, ""},
		"empty":                   {"X-Original-URI:\n", 400, ""},
		"unclear":                 {"X-Original-URI: /public/../admin/\n", 403, ""},
		"unclear, encoded":        {"X-Original-URI: /public/%2e%2e/admin/\n", 403, ""},
		"doubled slash":           {"X-Original-URI: //admin/\n", 403, ""},
		"our own":                 {"X-Original-URI: /oidc/callback\n", 403, ""},
		"forged identity":         {"X-Original-URI: /x\nX-Forwarded-User: root\nX-Forwarded-Groups: root\n", 204, "1001"},
		"cross-site form":         {"X-Original-URI: /x\nX-Original-Method: POST\nSec-Fetch-Site: cross-site\n", 403, ""},
		"WebSocket elsewhere":     {"X-Original-URI: /x\nSec-WebSocket-Key: x\nOrigin: https://evil.example\n", 403, ""},
	} {
		res, _ := ask(f, "", tc.headers)
		if res.StatusCode != tc.want || res.Header.Get("X-Forwarded-User") != tc.user || strings.Contains(res.Header.Get("X-Forwarded-Groups"), "root") {
			t.Errorf("%s: %d as %q, want %d as %q", name, res.StatusCode, res.Header.Get("X-Forwarded-User"), tc.want, tc.user)
		}
	}
	if res, _ := ask(f, "", "X-Original-URI: /admin/x\n"); res.Header.Get("X-Webauth-User") != "alice@example.com" {
		t.Errorf("%v", res.Header)
	}
	res, _ := ask(f, "", "X-Original-URI: /jwt/x\n")
	raw, _ := strings.CutPrefix(res.Header.Get("Authorization"), "Bearer ")
	checkIdentity(t, f, raw, "/jwt/")
	line := f.Access.Await(t, func(l map[string]any) bool { return l["asked"] == "/x" && l["status"] == 204.0 })
	if line["sub"] != "1001" || line["path"] != "/oidc/auth" {
		t.Errorf("%v", line)
	}

	f.As("1002")
	f.SignInBy("/oidc/login?return=/oidc/user")
	if res, body := ask(f, "", "X-Original-URI: /admin/x\n"); res.StatusCode != http.StatusForbidden || res.Header.Get("X-Webauth-User") != "" {
		t.Errorf("bob: %d %s", res.StatusCode, body)
	}
	// What cannot be said of a user is said to be nothing: the proxy puts it in
	// place of what a client sent.
	res, _ = ask(f, "", "X-Original-URI: /x\nX-Forwarded-Email: root@example.com\n")
	if email, ok := res.Header["X-Forwarded-Email"]; !ok || strings.Join(email, "|") != "" {
		t.Errorf("bob's address is %q", email)
	}
}

// A browser that is nobody is sent to the issuer, and comes back to the whole
// address.
func TestForwardAuthRedirect(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: asking})
	const browser = "Accept: text/html\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\n"
	for name, tc := range map[string]struct {
		query, headers string
		want           int
	}{
		"navigation":               {"?redirect=1", browser + "X-Original-URI: /a%2Fb?x=1&y=%20;z\n", 303},
		"navigation, Traefik":      {"?redirect=1", browser + "X-Forwarded-Uri: /a%2Fb?x=1&y=%20;z\nX-Forwarded-Method: GET\nX-Forwarded-Host: HOST\nX-Forwarded-Proto: http\n", 303},
		"navigation, no redirect":  {"", browser + "X-Original-URI: /x\n", 401},
		"script":                   {"?redirect=1", "Sec-Fetch-Mode: cors\nX-Original-URI: /x\n", 401},
		"program":                  {"?redirect=1", "X-Original-URI: /x\n", 401},
		"form":                     {"?redirect=1", browser + "X-Original-URI: /x\nX-Original-Method: POST\n", 401},
		"public":                   {"?redirect=1", browser + "X-Original-URI: /public/\n", 204},
		"another query":            {"?redirect=1&x", browser + "X-Original-URI: /x\n", 401},
		"client's own script mark": {"?redirect=1", "Sec-Fetch-Mode: navigate\nX-Requested-With: XMLHttpRequest\nX-Original-URI: /x\n", 401},
	} {
		res, body := ask(f, tc.query, tc.headers)
		if res.StatusCode != tc.want {
			t.Errorf("%s: %d %.200s, want %d", name, res.StatusCode, body, tc.want)
		}
		if tc.want == 401 && res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: 401 without WWW-Authenticate", name)
		}
		if tc.want != 303 {
			continue
		}
		to, err := url.Parse(res.Header.Get("Location"))
		if err != nil || !strings.HasPrefix(to.String(), f.Issuer.URL()) || to.Query().Get("redirect_uri") != f.URL+"/oidc/callback" || len(res.Header["Set-Cookie"]) == 0 {
			t.Errorf("%s: %s %v", name, to, res.Header)
		}
	}
	for _, kind := range []string{"X-Original-URI: /a%2Fb?x=1&y=%20;z\n", "X-Forwarded-Uri: /a%2Fb?x=1&y=%20;z\n"} {
		f.Browser.ClearCookies()
		proxy := fronttest.NewProxy(t, f, kind)
		p := f.Browser.Open(proxy.URL + "/a%2Fb?x=1&y=%20;z")
		if p.Status != http.StatusOK || p.URL != proxy.URL+"/a%2Fb?x=1&y=%20;z" || p.Body != "passed 1001" {
			t.Errorf("%s: %d %s %q\n%s", kind, p.Status, p.URL, p.Body, f.Log)
		}
	}
}

// Whoever is not a trusted proxy gets nothing, whatever they send.
func TestForwardAuthByStrangers(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain})
	f.SignIn()
	for _, headers := range []string{"X-Original-URI: /\n", "X-Forwarded-Uri: /\n", "X-Forwarded-For: 127.0.0.1\nX-Original-URI: /\n", ""} {
		if res, _ := ask(f, "", headers); res.StatusCode != http.StatusForbidden || res.Header.Get("X-Forwarded-User") != "" {
			t.Errorf("%q: %d %v", headers, res.StatusCode, res.Header)
		}
	}
	other := fronttest.Start(t, fronttest.Options{Settings: strings.Replace(asking, "127.0.0.1/32", "192.0.2.0/24", 1)})
	if res, _ := ask(other, "", "X-Original-URI: /public/\n"); res.StatusCode != http.StatusForbidden {
		t.Errorf("%d", res.StatusCode)
	}
}

// Each host signs in by itself; at the issuer the second one is silent.
func TestForwardAuthTwoHosts(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: strings.Replace(asking, "  - {path: /, allow: signed-in}\n", "  - {path: localhost/, allow: signed-in}\n  - {path: 127.0.0.1/, allow: signed-in}\n", 1)})
	proxy := fronttest.NewProxy(t, f, "X-Forwarded-Uri: /\n")
	for _, host := range []string{"127.0.0.1", "localhost"} {
		at := strings.Replace(proxy.URL, "127.0.0.1", host, 1)
		if p := f.Browser.Open(at + "/page"); p.Body != "passed 1001" || p.URL != at+"/page" {
			t.Errorf("%s: %d %s %.300s", host, p.Status, p.URL, p.Body)
		}
	}
	if p := f.Browser.Fetch(f.Browser.Open(proxy.URL+"/page"), "/page"); p.Body != "passed 1001" {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	// The rules are those of the host that was asked for: nginx says it by Host,
	// and passes on what a client says it is.
	hosts := fronttest.Start(t, fronttest.Options{Settings: "trusted_proxies: [127.0.0.1]\nroutes:\n  - {path: private.example.com/, allow: signed-in}\n  - {path: public.example.com/, allow: public}\n"})
	for name, tc := range map[string]struct {
		headers string
		want    int
	}{
		"Host":                 {"Host: private.example.com\nX-Original-URI: /\n", 401},
		"public":               {"Host: public.example.com\nX-Original-URI: /\n", 204},
		"forged":               {"Host: private.example.com\nX-Original-URI: /\nX-Forwarded-Host: public.example.com\n", 401},
		"forged for public":    {"Host: public.example.com\nX-Original-URI: /\nX-Forwarded-Host: private.example.com\n", 204},
		"X-Forwarded-Host":     {"Host: front\nX-Forwarded-Uri: /\nX-Forwarded-Host: private.example.com\n", 401},
		"X-Forwarded-Host two": {"Host: front\nX-Forwarded-Uri: /\nX-Forwarded-Host: private.example.com\nX-Forwarded-Host: public.example.com\n", 400},
		"no such host":         {"Host: front\nX-Original-URI: /\n", 403},
		"bad host":             {"Host: private.example.com\nX-Forwarded-Uri: /\nX-Forwarded-Host: a/b\n", 401},
	} {
		if status := hosts.Status("GET /oidc/auth HTTP/1.1\n" + tc.headers + "\n"); status != tc.want {
			t.Errorf("%s: %d, want %d", name, status, tc.want)
		}
	}
	other := "Cookie: " + strings.ReplaceAll(f.Cookies(), "\n", "")
	if res, _ := f.Answer("GET /oidc/auth HTTP/1.1\nHost: evil.example\n" + other + "\nX-Original-URI: /\n\n"); res.StatusCode != http.StatusForbidden {
		t.Errorf("a host without a route: %d", res.StatusCode)
	}
}
