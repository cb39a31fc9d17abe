package signin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/signintest"
)

// loginOf is the URL in a problem document.
func loginOf(t *testing.T, a *app, p *signintest.Page) string {
	t.Helper()
	var problem struct{ Login string }
	if err := json.Unmarshal([]byte(p.Body), &problem); err != nil || !strings.HasPrefix(problem.Login, "/") {
		t.Fatalf("%d %.300s: no login URL (%v)", p.Status, p.Body, err)
	}
	return a.url + problem.Login
}

// A script opens the URL it was given. Its user signs in, and comes back to
// the page the script is on.
func TestLoginURL(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	script := func(page string, header http.Header) *signintest.Page {
		return b.Send(&signintest.Request{URL: a.url + "/me", From: a.url + page, Mode: "cors", Dest: "empty", Header: header})
	}
	for _, tc := range []struct {
		name, page string
		header     http.Header
		want       string
	}{
		{"from a page", "/page/inbox?folder=2", nil, "/page/inbox?folder=2"},
		{"that does not say which", "/page/inbox", http.Header{"Referer": {""}}, "/"},
		{"from another site", "/page/inbox", http.Header{"Referer": {"https://evil.example/page/inbox"}}, "/"},
		{"from another port", "/page/inbox", http.Header{"Referer": {"https://app.example.test:8443/page/inbox"}}, "/"},
		{"from http", "/page/inbox", http.Header{"Referer": {"http://app.example.test/page/inbox"}}, "/"},
		{"with a path to another host", "/page/inbox", http.Header{"Referer": {"https://app.example.test//evil.example/"}}, "/"},
		{"with nonsense", "/page/inbox", http.Header{"Referer": {"%zz"}}, "/"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b = a.browser()
			login := loginOf(t, a, script(tc.page, tc.header))
			if p := b.Open(login); p.Status != http.StatusOK || p.URL != a.url+tc.want {
				t.Errorf("%d at %s, want %s", p.Status, p.URL, tc.want)
			}
			if got := a.status(b); got != http.StatusOK {
				t.Errorf("the script's next try: %d", got)
			}
		})
	}
	t.Run("opened late", func(t *testing.T) {
		b = a.browser()
		login := loginOf(t, a, script("/page/inbox", nil))
		a.clock.advance(stateLifetime + time.Minute)
		if p := b.Open(login); p.Status != http.StatusOK || p.URL != a.url+"/page/inbox" {
			t.Errorf("%d at %s", p.Status, p.URL)
		}
	})
	t.Run("made by somebody else", func(t *testing.T) {
		b = a.browser()
		for _, ask := range []string{"x", strings.Repeat("A", 200), strings.Repeat("A", 9000), ""} {
			if p := b.Open(a.url + "/oidc/login?ask=" + ask); p.Status != http.StatusOK || p.URL != a.url+"/" {
				t.Errorf("%.10q: %d at %s, want a plain sign-in", ask, p.Status, p.URL)
			}
		}
		for _, to := range []string{"//evil.example/", "https://evil.example/", `/\evil.example`, "/.//evil.example"} {
			if p := b.Open(a.url + "/oidc/login?return=" + url.QueryEscape(to)); p.URL != a.url+"/" {
				t.Errorf("return=%s leads to %s", to, p.URL)
			}
		}
		if p := b.Open(a.url + "/oidc/login?return=" + url.QueryEscape("/page/x?y=1")); p.URL != a.url+"/page/x?y=1" {
			t.Errorf("return to a page leads to %s", p.URL)
		}
	})
}

// A form's body does not survive a redirect. Its user gets a page with a
// link, and comes back to the form, not to where the form went.
func TestSubmissionWithoutSession(t *testing.T) {
	a := newApp(t)
	a.mux.HandleFunc("GET /compose", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `<!DOCTYPE html><form method="post" action="/send"><input name="text"></form>`)
	})
	sent := 0
	a.mux.Handle("POST /send", a.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent++ })))
	b := a.browser()
	p := b.Submit(b.Open(a.url+"/compose"), url.Values{"text": {"hello"}})
	if p.Status != http.StatusUnauthorized || sent != 0 || !strings.Contains(p.Body, "Your session ended while you were typing") {
		t.Fatalf("%d, sent %d times: %.300s", p.Status, sent, p.Body)
	}
	if p = b.Click(p, p.Link("Sign in again")); p.Status != http.StatusOK || p.URL != a.url+"/compose" {
		t.Errorf("the link leads to %d at %s", p.Status, p.URL)
	}
	// Where the browser does not say where the form was, its target will do.
	r := &signintest.Request{Method: http.MethodPost, URL: a.url + "/page/x", From: a.url + "/compose", Activated: true, Header: http.Header{"Referer": {""}}}
	b = a.browser()
	if p = b.Follow(r); p.Status != http.StatusUnauthorized {
		t.Fatal(p.Status)
	}
	if p = b.Click(p, p.Link("Sign in again")); p.URL != a.url+"/page/x" {
		t.Errorf("the link leads to %s", p.URL)
	}
}

func TestWWWAuthenticate(t *testing.T) {
	for _, tc := range []struct {
		need InteractionRequiredError
		want string
	}{
		{InteractionRequiredError{Reason: ReasonSignIn}, `Bearer`},
		{InteractionRequiredError{Reason: ReasonRefused, Scopes: []string{"Mail.Read"}}, `Bearer`},
		{InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"Mail.Read", "Mail.Send"}}, `Bearer error="insufficient_scope", scope="Mail.Read Mail.Send"`},
		{InteractionRequiredError{Reason: ReasonClaims, ACR: []string{"gold", "silver"}, MaxAge: new(5 * time.Minute)}, `Bearer error="insufficient_user_authentication", acr_values="gold silver", max_age="300"`},
		{InteractionRequiredError{Reason: ReasonClaims, MaxAge: new(time.Duration(0))}, `Bearer error="insufficient_user_authentication", max_age="0"`},
		{InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"a\r\nSet-Cookie: x", `q"uote`}}, `Bearer error="insufficient_scope", scope="a  Set-Cookie: x q\"uote"`},
	} {
		if got := wwwAuthenticate(&tc.need); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.need, got, tc.want)
		}
	}
}

func TestReturnPathTravels(t *testing.T) {
	const lost = "return path lost its query"
	base := "/page/x?q="
	for _, tc := range []struct {
		name string
		path string
		want string
		log  bool
	}{
		{"2 KB", base + strings.Repeat("a", site.MaxReturnPath-len(base)), "", false},
		{"a byte more", base + strings.Repeat("a", site.MaxReturnPath-len(base)+1), "/page/x", true},
		{"much more", base + strings.Repeat("a", 20000), "/page/x", true},
		{"a long path", "/page/" + strings.Repeat("a", 3000), "/", true},
		{"escapes", "/page/%2F%5C%20?a=%00&b=c+d&&e", "", false},
		{"no query", "/page/x?", "/page/x", false},
		// What browsers send as it stands (URL Standard, percent-encode sets).
		{"backslashes", `/page/files?path=C:\temp\x&user=CORP\jo`, "", false},
		{"raw in a query", "/page/x?a=|^`{}[]!$'()*+,;:@/?~&100%&%zz", "", false},
		{"raw in a path", "/page/a|b^c[d]%2Fe?f", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t)
			want := tc.want
			if want == "" {
				want = tc.path
			}
			p := a.browser().Open(a.url + tc.path)
			if p.Status != http.StatusOK || p.URL != a.url+want {
				t.Errorf("%d at %.100s (%d bytes), want %.100s (%d)", p.Status, p.URL, len(p.URL), want, len(a.url+want))
			}
			if got := strings.Contains(a.log.String(), lost); got != tc.log {
				t.Errorf("logged %q: %t, want %t", lost, got, tc.log)
			}
		})
	}
}

// The page that a script runs on is named by its Referer, with what browsers
// send raw.
func TestRefererTravels(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	from := a.url + `/page/a|b%2Fc?path=C:\temp`
	if p := b.Open(loginOf(t, a, b.Send(&signintest.Request{URL: a.url + "/me", From: from, Mode: "cors", Dest: "empty"}))); p.URL != from {
		t.Errorf("at %s, want %s", p.URL, from)
	}
	// By a third party's initiation, too.
	if p := a.browser().Open(a.url + "/oidc/login?" + url.Values{"iss": {a.issuer.URL()}, "target_link_uri": {from}}.Encode()); p.URL != from {
		t.Errorf("at %s, want %s", p.URL, from)
	}
}

// Bytes that are not ASCII, which no current browser sends raw, come back
// escaped.
func TestNonASCIITravels(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RequestURI = "/caf\xc3\xa9/%C3%A9?q=\xe9\\"
	if got, _ := new(site.Sites).Page(r); got != `/caf%C3%A9/%C3%A9?q=%E9\` {
		t.Errorf("%q", got)
	}
}

// A link that was long enough to be sealed is not a path that was too long.
func TestLoginLosesNothing(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	from := a.url + "/page/x?q=" + strings.Repeat("a", 1900)
	login := loginOf(t, a, b.Send(&signintest.Request{URL: a.url + "/me", From: from, Mode: "cors", Dest: "empty"}))
	if p := b.Open(login); p.URL != from {
		t.Errorf("at %.100s", p.URL)
	}
	if strings.Contains(a.log.String(), "lost its query") {
		t.Error("the log says that something was lost")
	}
}

// Who is signed in is suggested to the issuer for more of the same, and not
// where it may be another account that is wanted.
func TestLoginHint(t *testing.T) {
	a := newApp(t)
	a.mux.Handle("GET /more", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Challenge(w, r, &InteractionRequiredError{Reason: ReasonConsent, Scopes: []string{"Mail.Read"}})
	})))
	b := a.signIn()
	hint := func(path string) string {
		if _, r := b.OpenUntil(a.url+path, signintest.To("/oidc/callback")); r == nil {
			t.Fatalf("%s did not lead to the issuer", path)
		}
		return a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("login_hint")
	}
	if got := hint("/more"); got == "" {
		t.Error("no login_hint for more scopes")
	}
	if got := hint("/oidc/login"); got != "" {
		t.Errorf("login_hint %q for a sign-in by a link", got)
	}
}

func TestAuthorizationRequest(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) {
			c.Scopes, c.Prompt, c.MaxAge = []string{"Mail.Read"}, "consent", time.Hour
			c.AuthParams = url.Values{"ui_locales": {"de"}, "domain_hint": {"example.com"}}
		}
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditDiscovery = func(doc map[string]any) {
				doc["authorization_endpoint"] = doc["authorization_endpoint"].(string) + "?realm=staff"
			}
		}
	})
	a.toCallback(a.browser(), "/me")
	got := a.issuer.LastCall(signintest.EndpointAuthorize).Form
	for name, want := range map[string]string{
		"realm": "staff", "ui_locales": "de", "domain_hint": "example.com", "prompt": "consent", "max_age": "3600",
		"client_id": "client", "redirect_uri": a.url + "/oidc/callback", "response_type": "code id_token", "response_mode": "form_post",
		"scope": "openid profile offline_access Mail.Read", "code_challenge_method": "S256",
	} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Get(name), want)
		}
	}
	if got.Has("login_hint") || got.Has("client_info") || got.Has("resource") {
		t.Errorf("more than asked for: %v", got)
	}
}

// A handler adds parameters to one challenge, by redirect or by the link in a
// 401, and cannot break the protocol with them.
func TestChallengeParams(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.config = func(c *Config) { c.AuthParams = url.Values{"ui_locales": {"de"}, "domain_hint": {"example.com"}} }
	})
	a.mux.HandleFunc("/bonjour", func(w http.ResponseWriter, r *http.Request) {
		if u := UserFromContext(r.Context()); u != nil {
			return
		}
		params := url.Values{"ui_locales": {"fr-CA fr"}, "audience": {"mail"}, "login_hint": {"bob"}}
		for _, name := range ownParams {
			params.Set(name, "mine")
		}
		a.Challenge(w, r, &InteractionRequiredError{Reason: ReasonSignIn, LoginHint: "alice", Params: params})
	})
	for name, open := range map[string]func(b *signintest.Browser) *signintest.Page{
		"redirect": func(b *signintest.Browser) *signintest.Page { return b.Open(a.url + "/bonjour") },
		"link": func(b *signintest.Browser) *signintest.Page {
			return b.Open(loginOf(t, a, b.Fetch(b.Open(a.url+"/"), "/bonjour")))
		},
	} {
		a.issuer.ForgetCalls()
		if p := open(a.browser()); p.Status != http.StatusOK {
			t.Errorf("%s: %d %.300s", name, p.Status, p.Body)
		}
		got := a.issuer.LastCall(signintest.EndpointAuthorize).Form
		for name, want := range map[string]string{
			"ui_locales": "fr-CA fr", "audience": "mail", "domain_hint": "example.com", "login_hint": "alice", "client_id": "client",
		} {
			if got.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, got.Get(name), want)
			}
		}
		for _, name := range ownParams {
			if slices.Contains(got[name], "mine") {
				t.Errorf("a handler has set %s", name)
			}
		}
	}
}
