package signintest

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
)

// TestIDTokenLies shows that each lie reaches the client, on each channel, and
// that go-oidc sees through it for the reason meant.
func TestIDTokenLies(t *testing.T) {
	p := newParty(t, nil)
	foreign := p.issuer.ForeignKey("RS256")
	provider, err := oidc.NewProvider(p.ctx, p.issuer.URL())
	if err != nil {
		t.Fatal(err)
	}
	verify := provider.Verifier(&oidc.Config{ClientID: "client"}).Verify
	for _, tc := range []struct {
		name string
		lie  func(*IDToken)
		want string // in go-oidc's error, or in the token's header
	}{
		{"issuer", func(d *IDToken) { d.Claims["iss"] = "https://evil.example" }, "different provider"},
		{"audience", func(d *IDToken) { d.Claims["aud"] = []string{"other"} }, "expected audience"},
		{"expired", func(d *IDToken) { d.Claims["exp"] = time.Now().Add(-time.Hour).Unix() }, "expired"},
		{"unknown kid", func(d *IDToken) { d.Signing.KeyID = "nobody" }, "failed to verify signature"},
		{"other key", func(d *IDToken) { d.Signing = SignOptions{Key: &foreign, KeyID: p.issuer.Key().ID} }, "failed to verify signature"},
		{"alg none", func(d *IDToken) { d.Signing.Alg = "none" }, "unexpected signature algorithm"},
		{"HS256 with the public key", func(d *IDToken) { d.Signing.Alg = "HS256" }, "unexpected signature algorithm"},
		{"not announced", func(d *IDToken) { d.Signing.Alg = "PS256" }, "unexpected signature algorithm"},
		{"embedded key", func(d *IDToken) {
			d.Signing = SignOptions{Key: &foreign, Header: map[string]any{"jwk": foreign.JWK(), "kid": nil}}
		}, "failed to verify signature"},
		{"raw", func(d *IDToken) { d.Raw = "not.a.token" }, "malformed jwt"},
	} {
		for _, channel := range []Channel{FrontChannel, BackChannel, RefreshChannel} {
			t.Run(tc.name+" "+channel.String(), func(t *testing.T) {
				p.issuer.Update(func(b *Behaviour) {
					b.EditIDToken = func(d *IDToken) {
						if d.Channel == channel {
							tc.lie(d)
						}
					}
				})
				answer := p.authorize()
				_, first := p.redeem(answer.Get("code"))
				_, second := p.refresh(first["refresh_token"])
				for n, raw := range []any{answer.Get("id_token"), first["id_token"], second["id_token"]} {
					_, err := verify(p.ctx, raw.(string))
					if Channel(n) != channel && err != nil {
						t.Errorf("%v token: %v", Channel(n), err)
					}
					if Channel(n) == channel && (err == nil || !strings.Contains(err.Error(), tc.want)) {
						t.Errorf("%v token: error %v, want %q", Channel(n), err, tc.want)
					}
				}
			})
		}
	}
	p.issuer.Update(func(b *Behaviour) { b.EditIDToken = func(d *IDToken) { d.Omit = true } })
	answer := p.authorize()
	if _, body := p.redeem(answer.Get("code")); answer.Has("id_token") || body["id_token"] != nil {
		t.Error("Omit sends an ID token")
	}
}

func TestSign(t *testing.T) {
	p := newParty(t, nil)
	key := p.issuer.Key()
	theirs := oidctest.SignIDToken(key.Private, key.ID, key.Alg, `{"sub":"x"}`)
	for name, raw := range map[string]string{"ours": p.issuer.Sign(map[string]any{"sub": "x"}, SignOptions{}), "oidctest's": theirs} {
		if token := must(parseJWT(raw)); !token.verify(key.Private.Public()) || token.header["kid"] != key.ID || token.claims["sub"] != "x" {
			t.Errorf("%s: %+v", name, token)
		}
	}
	der := must(x509.MarshalPKIXPublicKey(key.Private.Public()))
	byDefault := p.issuer.Sign(map[string]any{"a": 1}, SignOptions{Alg: "HS256"})
	if byDefault != p.issuer.Sign(map[string]any{"a": 1}, SignOptions{Alg: "HS256", Secret: der}) ||
		byDefault == p.issuer.Sign(map[string]any{"a": 1}, SignOptions{Alg: "HS256", Secret: []byte("x")}) {
		t.Error("the default secret of HS256 is not the public key")
	}
	if raw := p.issuer.Sign(nil, SignOptions{Alg: "none"}); !strings.HasSuffix(raw, ".") || must(parseJWT(raw)).header["alg"] != "none" {
		t.Errorf("alg none: %s", raw)
	}

	provider, err := oidc.NewProvider(p.ctx, p.issuer.URL())
	if err != nil {
		t.Fatal(err)
	}
	raw := p.issuer.Sign(p.issuer.LogoutToken("alice", "s"), SignOptions{Header: map[string]any{"typ": "logout+jwt"}})
	logout, err := provider.Verifier(&oidc.Config{ClientID: "client"}).VerifyLogout(p.ctx, raw)
	if err != nil || logout.Subject != "alice" || logout.SessionID != "s" || must(parseJWT(raw)).header["typ"] != "logout+jwt" {
		t.Errorf("logout token: %+v %v", logout, err)
	}
}

func TestEditResponse(t *testing.T) {
	p := newParty(t, nil)
	for _, tc := range []struct {
		name  string
		edit  func(*AuthResponse)
		check func(method string, u *url.URL, form url.Values) bool
	}{
		{"drop", func(a *AuthResponse) { a.Params.Del("state") }, func(_ string, _ *url.URL, f url.Values) bool { return !f.Has("state") }},
		{"duplicate", func(a *AuthResponse) { a.Params.Add("code", "x") }, func(_ string, _ *url.URL, f url.Values) bool { return len(f["code"]) == 2 }},
		{"add an error", func(a *AuthResponse) { a.Params.Set("error", `<b>&"`) }, func(_ string, _ *url.URL, f url.Values) bool {
			return f.Get("error") == `<b>&"` && f.Has("code")
		}},
		{"other issuer", func(a *AuthResponse) { a.Params.Set("iss", "https://evil.example") }, func(_ string, _ *url.URL, f url.Values) bool {
			return f.Get("iss") == "https://evil.example"
		}},
		{"by GET", func(a *AuthResponse) { a.Mode = "query" }, func(m string, u *url.URL, f url.Values) bool {
			return m == "GET" && u.Query().Has("id_token") && f.Has("code")
		}},
		{"by fragment", func(a *AuthResponse) { a.Mode = "fragment" }, func(m string, u *url.URL, f url.Values) bool {
			return m == "GET" && strings.Contains(u.Fragment, "id_token=") && len(f) == 0
		}},
		{"elsewhere", func(a *AuthResponse) { a.RedirectURI += "/x?y=z" }, func(_ string, u *url.URL, f url.Values) bool {
			return u.Path == "/callback/x" && f.Get("y") == "z"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.issuer.Update(func(b *Behaviour) { b.EditResponse = tc.edit })
			page := p.browser.Open(p.request())
			u, form := must(url.Parse(page.URL)), must(url.ParseQuery(page.Body))
			if !tc.check(page.Sent.method(), u, form) {
				t.Errorf("the callback got %s %s %v", page.Sent.method(), page.URL, form)
			}
		})
	}
	p.issuer.Update(func(b *Behaviour) { b.EditResponse, b.OmitIss = nil, true })
	if answer := p.authorize(); answer.Has("iss") {
		t.Error("OmitIss sends iss")
	}
}

func TestAnswersOfFaults(t *testing.T) {
	p := newParty(t, nil)
	get := func() (int, http.Header, string, error) {
		req, _ := http.NewRequest("GET", p.issuer.EndpointURL(EndpointAPI), nil)
		req.Close = true // a connection of its own, so that nothing is repeated
		res, err := p.issuer.Client().Transport.RoundTrip(req)
		if err != nil {
			return 0, nil, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(io.LimitReader(res.Body, 3<<20))
		return res.StatusCode, res.Header, string(body), err
	}
	for _, tc := range []struct {
		name   string
		fault  Fault
		status int
		header string // a part of all header lines
		body   string // a part
	}{
		{"status", Fault{Status: 503, Header: http.Header{"Retry-After": {"7"}}}, 503, "Retry-After:[7]", ""},
		{"HTML", HTMLFault(502), 502, "text/html", "<h1>"},
		{"200 with an error", JSONFault(200, map[string]string{"error": "server_error"}), 200, "application/json", `{"error":"server_error"}`},
		{"OAuth error", OAuthError{Code: "invalid_grant", Description: "d", URI: "u", Extra: map[string]any{"suberror": "s"}}.Fault(), 400,
			"no-store", `{"error":"invalid_grant","error_description":"d","error_uri":"u","suberror":"s"}`},
		{"redirect", Fault{Redirect: "http://127.0.0.1:1/x"}, 307, "Location:[http://127.0.0.1:1/x]", ""},
		{"redirect by 302", Fault{Redirect: "/x", Status: 302}, 302, "Location:[/x]", ""},
		{"body", Fault{Body: "garbage"}, 200, "", "garbage"},
		{"endless", Fault{Endless: true, Body: "{"}, 200, "", "{" + strings.Repeat(" ", 2<<20)},
		{"invalid token", InvalidToken(), 401, `error="invalid_token"`, ""},
		{"claims, as invalid_token", ClaimsInInvalidToken(`{"a":1}`), 401, `error="invalid_token", error_description="The authentication token is revoked.", claims="` + base64.StdEncoding.EncodeToString([]byte(`{"a":1}`)) + `"`, ""},
		{"claims", InsufficientClaims(`{"a":1}`), 401, `claims="` + base64.StdEncoding.EncodeToString([]byte(`{"a":1}`)) + `"`, ""},
		{"step-up", StepUp("gold", 90*time.Second), 401, `error="insufficient_user_authentication", error_description="sign in again", acr_values="gold", max_age="90"`, ""},
		{"step-up by acr", StepUp("gold", -1), 401, `acr_values="gold"]`, ""},
		{"only late", Fault{Delay: time.Millisecond}, 401, "Www-Authenticate:[Bearer]", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.issuer.FailNext(EndpointAPI, tc.fault)
			status, header, body, err := get()
			if status != tc.status || !strings.Contains(fmt.Sprint(header), tc.header) || !strings.Contains(body, tc.body) || err != nil {
				t.Errorf("%d %v %.80q %v", status, header, body, err)
			}
		})
	}
	p.issuer.FailNext(EndpointAPI, Fault{Drop: true}, Fault{Status: 501})
	if status, _, _, err := get(); err == nil {
		t.Errorf("Drop answers %d", status)
	}
	p.issuer.Fail(EndpointAny, Fault{Status: 502})
	p.issuer.Fail(EndpointAPI, Fault{Status: 503})
	p.issuer.Update(func(b *Behaviour) {
		b.Fault = func(c Call) *Fault {
			if c.Form.Get("x") != "" {
				return &Fault{Status: 500 + c.N}
			}
			return nil
		}
	})
	for _, want := range []int{501, 503, 503} {
		if status, _, _, _ := get(); status != want {
			t.Errorf("status %d, want %d", status, want)
		}
	}
	p.issuer.ForgetCalls()
	if res := p.browser.Open(p.issuer.EndpointURL(EndpointAPI) + "?x=1"); res.Status != 501 {
		t.Errorf("Behaviour.Fault: %d, want 501", res.Status)
	}
	if res := p.browser.Open(p.issuer.EndpointURL(EndpointKeys)); res.Status != 502 {
		t.Errorf("EndpointAny: %d, want 502", res.Status)
	}
	p.issuer.Heal()
	if status, _, _, _ := get(); status != 401 {
		t.Errorf("healed: %d, want 401", status)
	}
}

// TestLostAnswer shows that AfterProcessing does the work: the code is spent.
func TestLostAnswer(t *testing.T) {
	p := newParty(t, nil)
	for name, fault := range map[string]Fault{
		"dropped": {AfterProcessing: true, Drop: true},
		"500":     {AfterProcessing: true, Status: 500, Body: "{}"},
	} {
		code := p.authorize().Get("code")
		p.issuer.FailNext(EndpointToken, fault)
		before := len(p.issuer.Tokens(""))
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {p.url},
			"code_verifier": {verifier}, "client_id": {"client"}, "client_secret": {"secret"}}
		if res, err := p.issuer.Client().PostForm(p.issuer.EndpointURL(EndpointToken), form); err == nil {
			res.Body.Close()
			if res.StatusCode != 500 {
				t.Errorf("%s: answer %d", name, res.StatusCode)
			}
		}
		if after := len(p.issuer.Tokens("")); after != before+2 {
			t.Errorf("%s: %d tokens were issued, want 2", name, after-before)
		}
		if _, body := p.redeem(code); body["error"] != "invalid_grant" {
			t.Errorf("%s: the code is still good: %v", name, body)
		}
	}
	// Without AfterProcessing nothing has happened.
	code := p.authorize().Get("code")
	p.issuer.FailNext(EndpointToken, Fault{Status: 500, Body: "{}"})
	p.redeem(code)
	if status, body := p.redeem(code); status != http.StatusOK {
		t.Errorf("after a fault instead of processing: %d %v", status, body)
	}
}

func TestHang(t *testing.T) {
	p := newParty(t, nil)
	release := make(chan struct{})
	p.issuer.FailNext(EndpointAPI, Fault{Hang: release}, Fault{Hang: release})
	status := make(chan int)
	go func() { status <- p.browser.Open(p.issuer.EndpointURL(EndpointAPI)).Status }()
	p.issuer.Await(EndpointAPI, 1)
	select {
	case s := <-status:
		t.Fatalf("it does not hang: %d", s)
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		failed <- p.browser.SendContext(ctx, &Request{URL: p.issuer.EndpointURL(EndpointAPI)}).Err
	}()
	p.issuer.Await(EndpointAPI, 2)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the user has gone: %v", err)
	}
	close(release)
	if s := <-status; s != http.StatusUnauthorized {
		t.Errorf("released: %d", s)
	}
}

// TestHangEndsWithTest shows that a request nobody releases does not keep the
// issuer from stopping.
func TestHangEndsWithTest(t *testing.T) {
	failed := make(chan error, 1)
	t.Run("hanging", func(t *testing.T) {
		i := NewIssuer(t, nil)
		i.Fail(EndpointAny, Fault{Hang: make(chan struct{})})
		go func() {
			_, err := i.Client().Get(i.URL() + plainPaths[EndpointDiscovery])
			failed <- err
		}()
		i.Await(EndpointDiscovery, 1)
	})
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

func TestDiscoveryAndKeyLies(t *testing.T) {
	p := newParty(t, nil)
	p.issuer.Update(func(b *Behaviour) {
		b.EditDiscovery = func(d map[string]any) { d["issuer"] = "https://evil.example" }
	})
	var mismatch *oidc.IssuerMismatchError
	if _, err := oidc.NewProvider(p.ctx, p.issuer.URL()); !errors.As(err, &mismatch) {
		t.Errorf("wrong issuer: %v", err)
	}
	p.issuer.Update(func(b *Behaviour) {
		b.EditDiscovery = nil
		b.AuthMethods = []string{"private_key_jwt"}
		b.OmitIss, b.OmitEndSession, b.OmitRevocation = true, true, true
		b.EditKeys = func(d map[string]any) { d["keys"] = []any{} }
	})
	provider, err := oidc.NewProvider(p.ctx, p.issuer.URL())
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := provider.Claims(&doc); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"end_session_endpoint", "revocation_endpoint", "authorization_response_iss_parameter_supported"} {
		if doc[name] != nil {
			t.Errorf("%s is announced", name)
		}
	}
	if fmt.Sprint(doc["token_endpoint_auth_methods_supported"]) != "[private_key_jwt]" {
		t.Errorf("AuthMethods: %v", doc["token_endpoint_auth_methods_supported"])
	}
	if _, err := provider.Verifier(&oidc.Config{ClientID: "client"}).Verify(p.ctx, p.authorize().Get("id_token")); err == nil {
		t.Error("a token verifies without keys")
	}
	if p.issuer.Count(EndpointDiscovery) != 2 || p.issuer.Count(EndpointKeys) != 1 {
		t.Errorf("%d discoveries and %d key requests, want 2 and 1", p.issuer.Count(EndpointDiscovery), p.issuer.Count(EndpointKeys))
	}
}

func TestCallsToTheAPI(t *testing.T) {
	p := newParty(t, nil)
	token := p.tokens()["access_token"].(string)
	req := httptest.NewRequest("POST", p.issuer.EndpointURL(EndpointAPI)+"/me/sendMail?x=1", strings.NewReader("hello"))
	req.RequestURI = ""
	req.Header.Set("Authorization", "Bearer "+token)
	status, body := do(t, p.issuer.Client(), req)
	if status != http.StatusOK || body["method"] != "POST" || body["body"] != "hello" || body["url"] != "/api/me/sendMail?x=1" {
		t.Errorf("the API echoes %d %v", status, body)
	}
	call := p.issuer.LastCall(EndpointAPI)
	if call.Token.Token != token || call.Token.Subject != "alice" || string(call.Body) != "hello" || call.N != 1 {
		t.Errorf("recorded as %+v", call)
	}
}

// An edited answer is one whose work has been done.
func TestFaultEdit(t *testing.T) {
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.RefreshTokens = RefreshRotate }})
	refresh := p.tokens()["refresh_token"].(string)
	send := func(f Fault) (*http.Response, []byte, error) {
		p.issuer.FailNext(EndpointToken, f)
		resp, err := p.issuer.Client().PostForm(p.issuer.EndpointURL(EndpointToken), url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {"client"}, "client_secret": {"secret"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp, body, err
	}
	var sent []byte
	resp, body, err := send(Fault{Edit: func(a *Answer) {
		a.Status = http.StatusCreated
		a.Header.Set("Content-Type", "text/html")
		sent, a.Body = a.Body, []byte("<p>")
	}})
	if err != nil || resp.StatusCode != http.StatusCreated || resp.Header.Get("Content-Type") != "text/html" || string(body) != "<p>" {
		t.Errorf("%d %q %q, %v", resp.StatusCode, resp.Header, body, err)
	}
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal(sent, &answer); err != nil || answer.Refresh == "" || answer.Refresh == refresh {
		t.Fatalf("the answer was %s", sent)
	}
	refresh = answer.Refresh // the old one is spent
	if _, body, err = send(Fault{Edit: func(a *Answer) { a.Body, a.Cut = a.Body[:10], true }}); len(body) != 10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %q, %v", body, err)
	}
}
