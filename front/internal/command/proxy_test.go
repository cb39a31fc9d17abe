package command_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"github.com/seed454743b5/signin/signintest"
)

const plain = "routes:\n  - {path: /, allow: signed-in, upstream: UPSTREAM}\n"

func TestUserReachesUpstream(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain})
	if p := f.Browser.Fetch(&signintest.Page{URL: f.URL + "/"}, "/data"); p.Status != http.StatusUnauthorized || f.Behind.Count() != 0 {
		t.Fatalf("nobody: %d, upstream got %d requests; want 401 and none", p.Status, f.Behind.Count())
	}
	f.SignIn()
	p := f.Browser.Open(f.URL + "/a//b%2Fc/?x=1;y=%zz&a=1;b=2")
	if p.Status != http.StatusOK || p.Body != "behind" {
		t.Fatalf("%d %s", p.Status, p.Body)
	}
	r := f.Behind.Last(t)
	if r.RequestURI != "/a//b%2Fc/?x=1;y=%zz&a=1;b=2" || r.Host != f.Host {
		t.Errorf("upstream was asked for %s at %s", r.RequestURI, r.Host)
	}
	for name, want := range map[string]string{
		"X-Forwarded-User": "1001", "X-Forwarded-Preferred-Username": "Alice Ä.", "X-Forwarded-Email": "alice@example.com", "X-Forwarded-Groups": "staff,a%2Cb",
		"X-Forwarded-Host": f.Host, "X-Forwarded-Proto": "http", "X-Forwarded-For": "127.0.0.1",
		"Authorization": "", "Cookie": "",
	} {
		if got := strings.Join(r.Header.Values(name), "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	line := f.Access.Await(t, func(l map[string]any) bool { return l["path"] == "/a//b%2Fc/" })
	if line["sub"] != "1001" || line["status"] != 200.0 || line["route"] != "/" || line["client"] != "127.0.0.1" || line["method"] != "GET" || strings.Contains(f.Access.String(), "%zz") {
		t.Errorf("access log: %v", line)
	}
	f.As("1002")
	f.SignIn()
	if h := f.Behind.Last(t).Header; h.Get("X-Forwarded-User") != "1002" || h["X-Forwarded-Email"] != nil {
		t.Errorf("an address that is not verified is sent: %v", h)
	}
}

// Whoever may pass can still not say that they are somebody else.
func TestForgedHeadersAreDropped(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: `
routes:
  - {path: /, allow: signed-in, upstream: UPSTREAM}
  - {path: /grafana/, allow: signed-in, upstream: UPSTREAM, headers: {X-WEBAUTH-USER: email, Remote-User: subject}}
  - {path: /public/, allow: public, upstream: UPSTREAM}
`})
	f.SignIn()
	for name, lines := range map[string]string{
		"as it is":           "$: mallory\nX-Forwarded-Email: mallory\nX-Forwarded-Groups: mallory\n",
		"lower case":         "x-forwarded-user: mallory\nx-webauth-user: mallory\nremote-user: mallory\n",
		"upper case":         "X-FORWARDED-USER: mallory\nREMOTE-USER: mallory\n",
		"twice":              "$: mallory\n$: mallory\n",
		"underscores":        "X_Forwarded_User: mallory\nx_forwarded_email: mallory\nX_WEBAUTH_USER: mallory\nRemote_User: mallory\n",
		"mixed":              "X_Forwarded-User: mallory\nX-Forwarded_Groups: mallory\nX-WEBAUTH_USER: mallory\n",
		"dots":               "X.Forwarded.User: mallory\n",
		"other punctuation":  "X~Forwarded'User: mallory\n",
		"empty, then forged": "$:\nX_Forwarded_User: mallory\n",
		"connection":         "Connection: $, X-Forwarded-Email, remote-user, X-WEBAUTH-USER\n",
		"connection, forged": "Connection: close, $\n$: mallory\nX_FORWARDED_USER: mallory\n",
		"proxy's":            "X-Forwarded-For: 192.0.2.66, mallory\nX_Forwarded_For: mallory\nForwarded: for=mallory\nX-Real-IP: mallory\nX-Forwarded-Host: mallory\nX-Forwarded-Proto: mallory\nX-Forwarded-Prefix: /mallory\n",
		"another page":       "X-Original-URL: /mallory\nX-Rewrite-URL: /mallory\n",
		"trailer":            "Transfer-Encoding: chunked\nTrailer: $\n",
	} {
		for path, want := range map[string]map[string]string{
			"/forged":         {"X-Forwarded-User": "1001", "X-Forwarded-Email": "alice@example.com", "Remote-User": ""},
			"/grafana/forged": {"X-Webauth-User": "alice@example.com", "Remote-User": "1001", "X-Forwarded-User": ""},
			"/public/forged":  {"X-Webauth-User": "", "Remote-User": "", "X-Forwarded-User": ""},
		} {
			body := ""
			if name == "trailer" {
				body = "0\nX-Forwarded-User: mallory\n\n"
			}
			request := strings.ReplaceAll("GET "+path+" HTTP/1.1\nHost: HOST\nCookie: COOKIES\n"+lines+"\n"+body, "$", "X-Forwarded-User")
			if status := f.Status(request); status != http.StatusOK {
				t.Errorf("%s %s: %d, want 200", name, path, status)
				continue
			}
			r := f.Behind.Last(t)
			var dump bytes.Buffer
			_ = r.Header.Write(&dump)
			_ = r.Trailer.Write(&dump)
			if len(r.Trailer) > 0 || strings.Contains(dump.String(), "mallory") {
				t.Errorf("%s %s: upstream got\n%s%v", name, path, &dump, r.Trailer)
			}
			for header, value := range want {
				if got := strings.Join(r.Header.Values(header), "|"); got != value {
					t.Errorf("%s %s: %s is %q, want %q", name, path, header, got, value)
				}
			}
		}
	}
	// What is no header name at all does not get as far.
	for _, line := range []string{"X-Forwarded-User : mallory", " X-Forwarded-User: mallory", "X-Forwarded-User\x00: mallory", "X Forwarded User: mallory"} {
		before := f.Behind.Count()
		if status := f.Status("GET / HTTP/1.1\nHost: HOST\n" + line + "\nCookie: COOKIES\n\n"); status != http.StatusBadRequest || f.Behind.Count() != before {
			t.Errorf("%q: %d, upstream got %d more; want 400 and none", line, status, f.Behind.Count()-before)
		}
	}
}

// Users who choose names that look like another's stay apart.
func TestChosenNames(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "header_encoding: percent\n"})
	seen := map[string]bool{}
	for i, name := range []string{"alice", "al\u200bice", "alice ", "al%E2%80%8Bice", "eve\r\nX-Forwarded-User: root", "Älice"} {
		subject := fmt.Sprint(2000 + i)
		f.Issuer.Update(func(b *signintest.Behaviour) {
			b.Users = append(b.Users, signintest.User{Subject: subject, Claims: map[string]any{"preferred_username": name}})
		})
		f.As(subject)
		f.SignIn()
		h := f.Behind.Last(t).Header
		got := h.Get("X-Forwarded-Preferred-Username")
		if seen[got] || h.Get("X-Forwarded-User") != subject || len(h["X-Forwarded-User"]) != 1 || strings.ContainsFunc(got, func(r rune) bool { return r > 0x7e }) {
			t.Errorf("%q is %q, of %s", name, got, h["X-Forwarded-User"])
		}
		seen[got] = true
	}
	for _, subject := range []string{"al\u200bice", "älice", "ali\nce"} {
		f.Issuer.Update(func(b *signintest.Behaviour) { b.Users = append(b.Users, signintest.User{Subject: subject}) })
		f.As(subject)
		before := f.Behind.Count()
		if p := f.Browser.Open(f.URL + "/"); p.Status != http.StatusForbidden && p.Status != http.StatusBadRequest || f.Behind.Count() != before {
			t.Errorf("subject %q: %d", subject, p.Status)
		}
	}
}

func TestCookies(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain, Upstream: func(w http.ResponseWriter, r *http.Request) {
		set := func() {
			for name := range strings.FieldsSeq("signin-front __Host-signin-front signin-front-browser SIGNIN-FRONT signin-front-browser-lax theirs") {
				w.Header().Add("Set-Cookie", name+"=upstream; Path=/")
			}
		}
		switch r.URL.Path {
		case "/evil":
			set()
		case "/hints":
			set()
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Set-Cookie")
		}
		fmt.Fprint(w, "behind")
	}})
	f.SignIn()
	before := f.Cookies()
	if !strings.Contains(before, "signin-front=") || !strings.Contains(before, "signin-front-browser=") {
		t.Fatalf("the browser has %s; the test needs our cookies", before)
	}
	for sent, want := range map[string]string{
		"COOKIES":                                 "",
		"a=1; COOKIES; b=\"2\"":                   `a=1; b="2"`,
		"COOKIES;odd;  c=3":                       `odd;  c=3`,
		"theirs-signin-front=1;COOKIES":           "theirs-signin-front=1",
		"\tSIGNIN-FRONT =x; COOKIES\nCookie: d=4": "d=4",
	} {
		if status := f.Status("GET /c HTTP/1.1\nHost: HOST\nCookie: " + sent + "\n\n"); status != http.StatusOK {
			t.Errorf("%q: %d", sent, status)
		}
		if got := strings.Join(f.Behind.Last(t).Header["Cookie"], "|"); got != want {
			t.Errorf("of %q upstream got %q, want %q", sent, got, want)
		}
	}
	// What package signin sets beside an upstream's answer does arrive.
	f.As("1001")
	f.Browser.Open(f.URL + "/oidc/login?return=/oidc/signed-out")
	if res, _ := f.Answer("GET /x HTTP/1.1\nHost: HOST\nCookie: COOKIES\nAccept: text/html\n\n"); !strings.Contains(strings.Join(res.Header["Set-Cookie"], ";"), "signin-front-browser=") {
		t.Errorf("the first page after a sign-in sets %v; the test needs one of ours", res.Header["Set-Cookie"])
	}
	f.SignIn()
	for _, path := range []string{"/evil", "/hints"} {
		_, in := f.Raw("GET " + path + " HTTP/1.1\nHost: HOST\nCookie: COOKIES\nConnection: close\n\n")
		all, err := io.ReadAll(in)
		if err != nil || !strings.Contains(string(all), "theirs=upstream") || strings.Count(string(all), "=upstream") != 1 {
			t.Errorf("%s: %v\n%s", path, err, all)
		}
	}
}

func TestRoutes(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"a.txt": "a file", ".env": "secret", "sub/b.txt": "b", "index.html": "index"} {
		p := filepath.Join(dir, "files", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", filepath.Join(dir, "files", "link")); err != nil {
		t.Fatal(err)
	}
	other := fronttest.NewBehind(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "other "+r.URL.Path) })
	f := fronttest.Start(t, fronttest.Options{Dir: dir, Settings: `
routes:
  - {path: /, allow: signed-in, upstream: UPSTREAM}
  - {path: /public/, allow: public, upstream: "file:files"}
  - {path: /admin/, allow: {claim: realm_access.roles, any: [admin]}, upstream: "` + other.URL + `/base"}
  - {path: /staff/, allow: {all: [{group: [staff]}, {email_domain: [example.com]}, {not: {subject: ["1002"]}}]}, upstream: UPSTREAM}
  - {path: GET /only, allow: signed-in, upstream: UPSTREAM}
  - {path: POST /only, allow: {subject: ["9"]}, upstream: UPSTREAM}
  - {path: /dead/, allow: signed-in, upstream: "http://` + fronttest.FreeAddr(t) + `"}
  - {path: /nowhere/, allow: signed-in}
`})
	get := func(path string) (int, string) {
		res, body := f.Answer("GET " + path + " HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
		return res.StatusCode, body
	}
	for path, want := range map[string]string{"/public/a.txt": "a file", "/public/": "index", "/public/sub/b.txt": "b"} {
		if status, body := get(path); status != http.StatusOK || body != want {
			t.Errorf("%s: %d %q, want %q", path, status, body, want)
		}
	}
	for _, path := range []string{"/public/.env", "/public/link", "/public/sub/", "/public/none", "/public/files/a.txt"} {
		if status, body := get(path); status != http.StatusNotFound || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %q, want 404", path, status, body)
		}
	}
	for _, path := range []string{"/", "/x", "/admin/", "/staff/", "/only", "/public/../admin/x", "/public/..%2fadmin/x", "//admin/x", "/admin%2fx"} {
		if status, _ := get(path); status != http.StatusUnauthorized && status != http.StatusBadRequest || other.Count()+f.Behind.Count() > 0 {
			t.Errorf("nobody at %s: %d", path, status)
		}
	}
	if status, _ := get("/admin"); status != http.StatusTemporaryRedirect {
		t.Errorf("/admin: %d", status)
	}
	f.SignIn()
	for path, want := range map[string]int{"/admin/x": 200, "/staff/": 200, "/only": 200, "/dead/": 502, "/nowhere/": 404, "/public/../admin/x": 400, "//admin/x": 400, "/oidc/none": 404} {
		if status, _ := get(path); status != want {
			t.Errorf("alice at %s: %d, want %d", path, status, want)
		}
	}
	if got := other.Last(t).URL.Path; got != "/base/admin/x" {
		t.Errorf("the other upstream got %s", got)
	}
	if status := f.Status("POST /only HTTP/1.1\nHost: HOST\nCookie: COOKIES\nContent-Length: 0\nX-HTTP-Method-Override: GET\n\n"); status != http.StatusForbidden {
		t.Errorf("POST /only: %d", status)
	}
	f.Status("GET /only HTTP/1.1\nHost: HOST\nCookie: COOKIES\nX-HTTP-Method-Override: POST\n\n")
	if f.Behind.Last(t).Header["X-Http-Method-Override"] != nil {
		t.Error("a client may ask for another method than was judged")
	}
	f.As("1002")
	f.SignIn()
	before := other.Count()
	for path, want := range map[string]int{"/admin/x": 403, "/staff/": 403, "/": 200} {
		if status, _ := get(path); status != want {
			t.Errorf("bob at %s: %d, want %d", path, status, want)
		}
	}
	if other.Count() != before {
		t.Error("bob has reached the other upstream")
	}
}

func TestTokens(t *testing.T) {
	settings := `
routes:
  - {path: /, allow: signed-in, upstream: UPSTREAM, pass: [access_token]}
  - {path: /jwt/, allow: signed-in, upstream: UPSTREAM, pass: [identity_jwt]}
  - {path: /both/, allow: signed-in, upstream: UPSTREAM, pass: [access_token, identity_jwt]}
  - {path: /none/, allow: signed-in, upstream: UPSTREAM}
  - {path: /id/, allow: signed-in, upstream: UPSTREAM, pass: [id_token, access_token]}
`
	f := fronttest.Start(t, fronttest.Options{Settings: settings})
	f.SignIn()
	send := func(path string) http.Header {
		f.Status("GET " + path + " HTTP/1.1\nHost: HOST\nCookie: COOKIES\nauthorization: Basic dGhlaXJzOm93bg==\nX-Forwarded-Identity-Jwt: forged\n\n")
		return f.Behind.Last(t).Header
	}
	for _, path := range []string{"/", "/both/"} {
		raw, isBearer := strings.CutPrefix(strings.Join(send(path)["Authorization"], "|"), "Bearer ")
		if info, known := f.Issuer.TokenInfo(raw); !isBearer || !known || info.Subject != "1001" || info.Refresh {
			t.Errorf("%s: Authorization is not alice's access token", path)
		}
	}
	if h := send("/none/"); h.Get("Authorization") != "Basic dGhlaXJzOm93bg==" || h["X-Forwarded-Identity-Jwt"] != nil {
		t.Errorf("%v, want what the client sent", h)
	}
	raw, _ := strings.CutPrefix(send("/jwt/").Get("Authorization"), "Bearer ")
	checkIdentity(t, f, raw, "/jwt/")
	checkIdentity(t, f, send("/both/").Get("X-Forwarded-Identity-Jwt"), "/both/")

	checkIDToken := func(when string) {
		t.Helper()
		h := send("/id/")
		raw, _ := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
		if info, known := f.Issuer.TokenInfo(h.Get("X-Forwarded-Access-Token")); !known || info.Subject != "1001" {
			t.Errorf("%s: no access token beside", when)
		}
		var got struct {
			Sub, Aud, Nonce string
		}
		parts := strings.Split(raw, ".")
		if len(parts) != 3 {
			t.Fatalf("%s: Authorization is %q", when, raw)
		}
		plain, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil || json.Unmarshal(plain, &got) != nil || got.Sub != "1001" || got.Aud != "client" {
			t.Errorf("%s: not alice's ID token: %+v %v", when, got, err)
		}
	}
	checkIDToken("at first")
	// It outlives a refresh that brings none.
	f.Issuer.Update(func(b *signintest.Behaviour) {
		b.OmitRefreshedIDToken, b.AccessTokenLifetime = true, time.Second
	})
	f.As("1001")
	f.SignIn()
	f.Issuer.Update(func(b *signintest.Behaviour) { b.AccessTokenLifetime = 0 })
	before := f.Issuer.CountGrant("refresh_token")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(fronttest.Patience); f.Issuer.CountGrant("refresh_token") == before; <-tick.C {
		if send("/id/"); time.Now().After(deadline) {
			t.Fatal("no refresh")
		}
	}
	checkIDToken("after a refresh")

	f.Issuer.RevokeGrants("1001")
	t.Run("issuer down", func(t *testing.T) {
		f := fronttest.Start(t, fronttest.Options{Settings: settings})
		f.Issuer.Update(func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(_ signintest.Call, body map[string]any) { body["expires_in"] = 0 }
		})
		page := f.Browser.Open(f.URL + "/oidc/login?return=/oidc/signed-out")
		f.Issuer.Fail(signintest.EndpointToken, signintest.HTMLFault(http.StatusInternalServerError))
		if p := f.Browser.Fetch(page, "/"); p.Status != http.StatusBadGateway || f.Behind.Count() != 0 {
			t.Errorf("%d, upstream got %d requests; want 502 and none", p.Status, f.Behind.Count())
		}
	})
}

func TestOwnPages(t *testing.T) {
	f := fronttest.Start(t, fronttest.Options{Settings: plain + "site: {name: Wiki}\n"})
	if status := f.Status("GET /oidc/user HTTP/1.1\nHost: HOST\n\n"); status != http.StatusUnauthorized {
		t.Errorf("nobody: %d", status)
	}
	f.SignIn()
	res, body := f.Answer("GET /oidc/user HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
	var user map[string]any
	if err := json.Unmarshal([]byte(body), &user); err != nil || user["sub"] != "1001" || user["name"] != "Alice Ä." || user["issuer"] != f.Issuer.URL() || user["email"] != "alice@example.com" || user["claims"] == nil || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v %s", err, body)
	}
	ask := f.Browser.Open(f.URL + "/oidc/signout")
	if ask.Status != http.StatusOK || !strings.Contains(ask.Body, "Wiki") {
		t.Errorf("%d %s", ask.Status, ask.Body)
	}
	p := f.Browser.Submit(ask, nil)
	if p.Status != http.StatusOK || p.URL != f.URL+"/oidc/signed-out" {
		t.Fatalf("%d %s %.300s", p.Status, p.URL, p.Body)
	}
	if p := f.Browser.Fetch(p, "/"); p.Status != http.StatusUnauthorized {
		t.Errorf("afterwards: %d, want 401", p.Status)
	}
}

func TestServerSentEvents(t *testing.T) {
	more := make(chan struct{})
	f := fronttest.Start(t, fronttest.Options{Settings: plain, Upstream: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "data: two\n\n")
	}})
	f.SignIn()
	_, in := f.Raw("GET /events HTTP/1.1\nHost: HOST\nCookie: COOKIES\n\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewReader(res.Body)
	for _, want := range []string{"data: one\n", "\n", "data: two\n"} {
		if line, err := events.ReadString('\n'); line != want {
			t.Fatalf("%q (%v), want %q", line, err, want)
		}
		if want == "\n" { // the first has come before the second was sent
			close(more)
		}
	}
}
