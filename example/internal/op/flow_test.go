package op_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/example/internal/browsertest"
	"github.com/seed454743b5/signin/example/internal/op"
)

func TestWrongPassword(t *testing.T) {
	w := start(t, nil)
	p := w.browser.Open(w.authorizeURL("login_hint", "bob"))
	if name, _ := p.Field("username"); name != "bob" {
		t.Errorf("the login page proposes %q, want the login_hint", name)
	}
	p = w.browser.Press(p, "Sign in", url.Values{"password": {"wrong"}})
	if p.Status != http.StatusUnauthorized || !strings.Contains(p.Text(), "do not go together") {
		t.Errorf("a wrong password got status %d: %s", p.Status, p.Text())
	}
	if p = w.login(p, op.Users[1]); !p.HasButton("Allow") {
		t.Errorf("after the right password: %s", p.Text())
	}
}

func TestDemoUserButtons(t *testing.T) {
	w := start(t, nil)
	p := w.browser.Press(w.browser.Open(w.authorizeURL()), "Continue as Bob", nil)
	got := w.arrived(w.browser.Press(p, "Allow", nil))
	if c := claims(t, got.Get("id_token")); c["sub"] != op.Users[1].Subject {
		t.Errorf("signed in as %v, want Bob", c["sub"])
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		refuse     func(w *world, p *browsertest.Page) *browsertest.Page
	}{
		{"at the login page", "access_denied", func(w *world, p *browsertest.Page) *browsertest.Page {
			return w.browser.Press(p, "Cancel", nil)
		}},
		{"at the consent page", "access_denied", func(w *world, p *browsertest.Page) *browsertest.Page {
			return w.browser.Press(w.login(p, op.Users[0]), "Refuse", nil)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := start(t, nil)
			got := w.arrived(tc.refuse(w, w.browser.Open(w.authorizeURL())))
			if got.Get("error") != tc.want || got.Get("state") != "the-state" || got.Get("code") != "" {
				t.Errorf("answer %v, want error %s with the state and no code", got, tc.want)
			}
		})
	}
}

func TestPrompts(t *testing.T) {
	w := start(t, nil)
	if got := w.arrived(w.browser.Open(w.authorizeURL("prompt", "none"))); got.Get("error") != "login_required" {
		t.Errorf("prompt=none with nobody signed in: %v", got)
	}
	w.signIn()
	if got := w.arrived(w.browser.Open(w.authorizeURL("prompt", "none"))); got.Get("code") == "" {
		t.Errorf("prompt=none with somebody signed in: %v", got)
	}
	if got := w.arrived(w.browser.Open(w.authorizeURL("prompt", "none", "scope", "openid mail.read"))); got.Get("error") != "consent_required" {
		t.Errorf("prompt=none for a new scope: %v", got)
	}
	if got := w.arrived(w.browser.Open(w.authorizeURL("prompt", "none", "acr_values", op.ACRStepUp))); got.Get("error") != "interaction_required" {
		t.Errorf("prompt=none for a second step: %v", got)
	}
	for _, param := range [][]string{{"prompt", "login"}, {"prompt", "select_account"}, {"max_age", "0"}} {
		p := w.browser.Open(w.authorizeURL(param...))
		if !p.HasButton("Sign in") {
			t.Errorf("%s: no login page but %s", param, p.Text())
		} else if p = w.login(p, op.Users[0]); p.HasButton("Sign in") {
			t.Errorf("%s asks for the password twice", param)
		}
	}
	if p := w.browser.Open(w.authorizeURL("prompt", "consent")); !p.HasButton("Allow") {
		t.Errorf("prompt=consent: no consent page but %s", p.Text())
	}
}

func TestConsentToSome(t *testing.T) {
	w := start(t, nil)
	p := w.login(w.browser.Open(w.authorizeURL("scope", "openid offline_access mail.read mail.send")), op.Users[0])
	got := w.arrived(w.browser.Press(p, "Allow", url.Values{"scope": {"mail.read"}}))
	if a := w.redeem(got.Get("code")); a.Scope != "openid offline_access mail.read" {
		t.Errorf("granted %q, want all but mail.send", a.Scope)
	}
}

// The newest refresh token reaches what was consented to before, so that a
// client that keeps one refresh token loses nothing by asking for more.
func TestIncrementalConsent(t *testing.T) {
	w := start(t, nil)
	w.signIn("scope", "openid offline_access mail.read")
	p := w.browser.Open(w.authorizeURL("scope", "openid offline_access mail.send"))
	if p.HasButton("Sign in") || !p.HasButton("Allow") {
		t.Fatalf("a new scope wants consent only: %s", p.Text())
	}
	if text := p.Text(); !strings.Contains(text, "mail.send") || strings.Contains(text, "offline_access") {
		t.Errorf("the consent page shows more than what is new: %s", text)
	}
	a := w.redeem(w.arrived(w.browser.Press(p, "Allow", nil)).Get("code"))
	if got := strings.Fields(a.Scope); !slices.Contains(got, "mail.read") || !slices.Contains(got, "mail.send") {
		t.Errorf("granted %q, want both", a.Scope)
	}
}

func TestStepUp(t *testing.T) {
	for name, param := range map[string][]string{
		"acr_values":         {"acr_values", op.ACRStepUp},
		"essential acr":      {"claims", `{"id_token":{"acr":{"essential":true,"values":["` + op.ACRStepUp + `"]}}}`},
		"API's acrs claim":   {"claims", `{"access_token":{"acrs":{"essential":true,"value":"` + op.ContextStepUp + `"}}}`},
		"mixed with a null":  {"claims", `{"id_token":{"email":null},"access_token":{"acrs":{"value":"` + op.ContextStepUp + `"}}}`},
		"both, in one query": {"acr_values", op.ACRPassword + " " + op.ACRStepUp},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, nil)
			before := claims(t, w.redeem(w.signIn().Get("code")).AccessToken)
			if before["acrs"] != nil {
				t.Fatalf("acrs = %v before the second step", before["acrs"])
			}
			p := w.browser.Open(w.authorizeURL(param...))
			if p = w.browser.Press(p, "Confirm", url.Values{"code": {"000000"}}); p.Status != http.StatusUnauthorized {
				t.Fatalf("a wrong code got status %d", p.Status)
			}
			a := w.redeem(w.arrived(w.browser.Press(p, "Confirm", url.Values{"code": {op.Code}})).Get("code"))
			if got := claims(t, a.IDToken)["acr"]; got != op.ACRStepUp {
				t.Errorf("acr = %v", got)
			}
			if got, _ := claims(t, a.AccessToken)["acrs"].([]any); !slices.Contains(got, any(op.ContextStepUp)) {
				t.Errorf("acrs = %v", got)
			}
		})
	}
}

// A finished flow must not hand out a second code: go-oidc itself would.
func TestFlowIsAnsweredOnce(t *testing.T) {
	w := start(t, nil)
	consent := w.login(w.browser.Open(w.authorizeURL()), op.Users[0])
	w.arrived(w.browser.Press(consent, "Allow", nil))
	p := w.browser.Press(consent, "Allow", nil)
	if p.Status != http.StatusBadRequest || !strings.Contains(p.Text(), "already answered") {
		t.Errorf("the consent button once more: %s, status %d: %s", p.URL, p.Status, p.Text())
	}
}

// A page of another site must not consent for the user.
func TestForeignFormsPressNoButtons(t *testing.T) {
	w := start(t, nil)
	w.signIn()
	u, err := url.Parse(w.authorizeURL("scope", "openid mail.send", "response_type", "code", "response_mode", "query"))
	if err != nil {
		t.Fatal(err)
	}
	form := u.Query()
	form.Set("action", "allow")
	form.Set("scope", "openid mail.send")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.issuer+"/authorize", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	for _, c := range w.browser.Cookies("127.0.0.1") {
		r.AddCookie(c)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Location") != "" {
		t.Errorf("a posted authorization request with a button in it: status %d, Location %q; want the consent page",
			resp.StatusCode, resp.Header.Get("Location"))
	}
}

func TestLogout(t *testing.T) {
	w := start(t, nil)
	a := w.redeem(w.signIn().Get("code"))
	p := w.browser.Open(w.issuer + "/logout?" + url.Values{
		"id_token_hint": {a.IDToken}, "client_id": {clientID}, "post_logout_redirect_uri": {w.client + "/"}, "state": {"bye"},
	}.Encode())
	if p.URL.String() != w.client+"/?state=bye" {
		t.Fatalf("after the sign-out the browser is at %s: %s", p.URL, p.Text())
	}
	if p := w.browser.Open(w.authorizeURL()); !p.HasButton("Sign in") {
		t.Errorf("after the sign-out the provider still knows the user: %s", p.Text())
	}
}

func TestLogoutWithExpiredHint(t *testing.T) {
	w := start(t, func(c *op.Config) { c.IDTokenLifetime = time.Second })
	a := w.redeem(w.signIn().Get("code"))
	waitExpired(t, claims(t, a.IDToken)["exp"].(float64))
	p := w.browser.Open(w.issuer + "/logout?" + url.Values{
		"id_token_hint": {a.IDToken}, "post_logout_redirect_uri": {w.client + "/"},
	}.Encode())
	if p.URL.String() != w.client+"/" {
		t.Errorf("an expired id_token_hint leads to %s: %s", p.URL, p.Text())
	}
}

func TestLogoutAsks(t *testing.T) {
	w := start(t, nil)
	w.signIn()
	p := w.browser.Open(w.issuer + "/logout?client_id=" + clientID)
	p = w.browser.Press(p, "Stay signed in", nil)
	if !strings.Contains(p.Text(), "still signed in") {
		t.Errorf("staying: %s", p.Text())
	}
	p = w.browser.Press(w.browser.Open(w.issuer+"/logout?client_id="+clientID), "Sign out", nil)
	if !strings.Contains(p.Text(), "You are signed out") {
		t.Errorf("signing out: %s", p.Text())
	}
	if len(w.browser.Cookies("127.0.0.1")) != 0 {
		t.Error("the session cookie stayed")
	}
}

func TestLogoutRefusesForgedHints(t *testing.T) {
	w := start(t, nil)
	a := w.redeem(w.signIn().Get("code"))
	for name, hint := range map[string]string{"garbage": "x", "tampered": a.IDToken[:len(a.IDToken)-8] + "AAAAAAAA"} {
		p := w.browser.Open(w.issuer + "/logout?id_token_hint=" + hint)
		if p.Status != http.StatusBadRequest {
			t.Errorf("%s hint: status %d", name, p.Status)
		}
	}
	if p := w.browser.Open(w.issuer + "/logout?client_id=" + clientID + "&post_logout_redirect_uri=https://evil.example/"); p.Status != http.StatusBadRequest {
		t.Errorf("a foreign post_logout_redirect_uri: status %d at %s", p.Status, p.URL)
	}
	if got := w.arrived(w.browser.Open(w.authorizeURL("prompt", "none"))); got.Get("code") == "" {
		t.Errorf("the refused sign-outs ended the session: %v", got)
	}
}

func TestPagesAreLocked(t *testing.T) {
	w := start(t, nil)
	p := w.browser.Open(w.authorizeURL())
	csp := p.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self' " + w.client} {
		if !strings.Contains(csp, want) {
			t.Errorf("Content-Security-Policy %q lacks %q", csp, want)
		}
	}
	if p := w.browser.Open(w.authorizeURL("redirect_uri", "https://evil.example/")); p.Status != http.StatusBadRequest || !strings.Contains(p.Text(), "That did not work") {
		t.Errorf("an unknown redirect_uri: status %d at %s", p.Status, p.URL)
	}
	css := w.browser.Fetch(w.issuer + "/style.css")
	if css.Status != http.StatusOK || !strings.HasPrefix(css.Header.Get("Content-Type"), "text/css") {
		t.Errorf("the stylesheet: status %d, %s", css.Status, css.Header.Get("Content-Type"))
	}
}

func TestFormPostWithoutScripts(t *testing.T) {
	w := start(t, nil)
	w.signIn()
	p := w.browser.Fetch(w.authorizeURL())
	if !strings.Contains(p.Body, "<noscript>") || !strings.Contains(p.Body, "Continue to the site") {
		t.Errorf("the form_post page has no button for browsers without scripts:\n%s", p.Body)
	}
	if csp := p.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action "+w.client) || !strings.Contains(csp, "'unsafe-hashes' 'sha256-") {
		t.Errorf("Content-Security-Policy of the form_post page: %q", csp)
	}
}

func TestConfig(t *testing.T) {
	_, err := op.New(op.Config{Issuer: "nowhere", AccessTokenLifetime: 1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{"Issuer", "ClientID", "RedirectURIs", "AccessTokenLifetime"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}

// waitExpired waits for a Unix time to pass.
func waitExpired(t *testing.T, exp float64) {
	t.Helper()
	tick, deadline := time.NewTicker(50*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for time.Now().Before(time.Unix(int64(exp), 0)) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the token never expired")
		}
	}
}
