package signintest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const verifier = "a-code-verifier-of-at-least-43-characters-for-tests"

// party is a relying party that does all by hand.
type party struct {
	t       *testing.T
	issuer  *Issuer
	browser *Browser
	url     string // of its callback
	ctx     context.Context
}

func newParty(t *testing.T, o *IssuerOptions) *party {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		io.WriteString(w, r.Form.Encode())
	}))
	t.Cleanup(app.Close)
	i := NewIssuer(t, o)
	return &party{
		t: t, issuer: i, url: app.URL + "/callback",
		browser: NewBrowser(t, &BrowserOptions{Network: i.Network()}),
		ctx:     oidc.ClientContext(t.Context(), i.Client()),
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is an authorization request; pairs replace its parameters, an empty
// value removes one.
func (p *party) request(pairs ...string) string {
	q := url.Values{
		"client_id": {"client"}, "redirect_uri": {p.url}, "response_type": {"code id_token"},
		"response_mode": {"form_post"}, "scope": {"openid profile offline_access"}, "state": {"a state"},
		"nonce": {"a nonce"}, "code_challenge": {s256(verifier)}, "code_challenge_method": {"S256"},
	}
	for n := 0; n < len(pairs); n += 2 {
		if q.Set(pairs[n], pairs[n+1]); pairs[n+1] == "" {
			q.Del(pairs[n])
		}
	}
	return p.issuer.EndpointURL(EndpointAuthorize) + "?" + q.Encode()
}

// authorize sends the browser to the issuer and returns what the callback got.
func (p *party) authorize(pairs ...string) url.Values {
	p.t.Helper()
	page := p.browser.Open(p.request(pairs...))
	if page.Err != nil || page.Status != http.StatusOK || !strings.HasPrefix(page.URL, p.url) {
		p.t.Fatalf("sign-in ended at %s with %d %v: %s", page.URL, page.Status, page.Err, page.Body)
	}
	form, err := url.ParseQuery(page.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return form
}

// post makes a token request with Basic credentials.
func (p *party) post(pairs ...string) (int, map[string]any) {
	p.t.Helper()
	form := url.Values{}
	for n := 0; n < len(pairs); n += 2 {
		form.Add(pairs[n], pairs[n+1])
	}
	req, _ := http.NewRequestWithContext(p.t.Context(), "POST", p.issuer.EndpointURL(EndpointToken), strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !form.Has("client_id") {
		req.SetBasicAuth("client", "secret")
	}
	return do(p.t, p.issuer.Client(), req)
}

func do(t *testing.T, c *http.Client, req *http.Request) (int, map[string]any) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil && err != io.EOF {
		t.Fatalf("%s answers %d without JSON: %v", req.URL.Path, res.StatusCode, err)
	}
	return res.StatusCode, body
}

func (p *party) redeem(code string) (int, map[string]any) {
	p.t.Helper()
	return p.post("grant_type", "authorization_code", "code", code, "redirect_uri", p.url, "code_verifier", verifier)
}

// tokens signs in and redeems.
func (p *party) tokens(pairs ...string) map[string]any {
	p.t.Helper()
	status, body := p.redeem(p.authorize(pairs...).Get("code"))
	if status != http.StatusOK {
		p.t.Fatalf("redemption answers %d: %v", status, body)
	}
	return body
}

func (p *party) refresh(token any, pairs ...string) (int, map[string]any) {
	p.t.Helper()
	return p.post(append([]string{"grant_type", "refresh_token", "refresh_token", token.(string)}, pairs...)...)
}

// callAPI calls the protected API with a token.
func (p *party) callAPI(token any, query string) (*http.Response, map[string]any) {
	p.t.Helper()
	req, _ := http.NewRequestWithContext(p.t.Context(), "GET", p.issuer.EndpointURL(EndpointAPI)+query, nil)
	req.Header.Set("Authorization", "Bearer "+token.(string))
	res, err := p.issuer.Client().Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		p.t.Fatal(err)
	}
	return res, body
}

// TestHybridSignIn does a whole sign-in with go-oidc and x/oauth2, which know
// nothing of this package, for each algorithm and kind of URL.
func TestHybridSignIn(t *testing.T) {
	half256 := func(v string) string {
		h := sha256.Sum256([]byte(v))
		return base64.RawURLEncoding.EncodeToString(h[:16])
	}
	half384 := func(v string) string {
		h := sha512.Sum384([]byte(v))
		return base64.RawURLEncoding.EncodeToString(h[:24])
	}
	half512 := func(v string) string {
		h := sha512.Sum512([]byte(v))
		return base64.RawURLEncoding.EncodeToString(h[:32])
	}
	for _, tc := range []struct {
		alg, url string
		half     func(string) string
	}{
		{"RS256", "", half256},
		{"RS384", "http://127.0.0.1/tenant", half384},
		{"RS512", "https://localhost", half512},
		{"PS256", "https://login.example.test/a/b/", half256},
		{"ES256", "https://127.0.0.1/x", half256},
		{"ES384", "", half384},
		{"ES512", "", half512},
		{"EdDSA", "", half512},
	} {
		t.Run(tc.alg+" "+tc.url, func(t *testing.T) {
			p := newParty(t, &IssuerOptions{URL: tc.url, Behaviour: func(b *Behaviour) { b.Alg = tc.alg }})
			want, got := must(url.Parse(cmp.Or(tc.url, "http://localhost"))), must(url.Parse(p.issuer.URL()))
			if got.Scheme != want.Scheme || got.Hostname() != want.Hostname() || got.Path != want.Path {
				t.Fatalf("issuer is %s, want %s", got, want)
			}
			provider, err := oidc.NewProvider(p.ctx, p.issuer.URL())
			if err != nil {
				t.Fatal(err)
			}
			config := oauth2.Config{ClientID: "client", ClientSecret: "secret", Endpoint: provider.Endpoint(),
				RedirectURL: p.url, Scopes: []string{"openid", "offline_access", "mail"}}
			ids := provider.Verifier(&oidc.Config{ClientID: "client"})
			page := p.browser.Open(config.AuthCodeURL("a state", oidc.Nonce("a nonce"), oauth2.S256ChallengeOption(verifier),
				oauth2.SetAuthURLParam("response_type", "code id_token"), oauth2.SetAuthURLParam("response_mode", "form_post")))
			answer, err := url.ParseQuery(page.Body)
			if err != nil || page.Sent.Method != "POST" || page.URL != p.url {
				t.Fatalf("the callback got %s %s %v %v", page.Sent.Method, page.URL, page.Err, err)
			}
			if answer.Get("state") != "a state" || answer.Get("iss") != p.issuer.URL() {
				t.Errorf("answer has state %q and iss %q", answer.Get("state"), answer.Get("iss"))
			}
			front, err := ids.Verify(p.ctx, answer.Get("id_token"))
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				CHash string `json:"c_hash"`
				Name  string `json:"name"`
				SID   string `json:"sid"`
			}
			if err := front.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			if front.Nonce != "a nonce" || front.Subject != "alice" || claims.Name != "Alice Example" || claims.CHash != tc.half(answer.Get("code")) {
				t.Errorf("front ID token: nonce %q, sub %q, %+v", front.Nonce, front.Subject, claims)
			}
			token, err := config.Exchange(p.ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			back, err := ids.Verify(p.ctx, token.Extra("id_token").(string))
			if err != nil {
				t.Fatal(err)
			}
			if back.Subject != front.Subject || back.Nonce != "a nonce" || back.AccessTokenHash != tc.half(token.AccessToken) {
				t.Errorf("second ID token: sub %q, nonce %q, at_hash %q", back.Subject, back.Nonce, back.AccessTokenHash)
			}
			_, seen := p.callAPI(token.AccessToken, "/me?need=mail")
			if seen["sub"] != "alice" || seen["scope"] != "openid offline_access mail" {
				t.Errorf("the API sees %v", seen)
			}
			info, ok := p.issuer.TokenInfo(token.AccessToken)
			if !ok || !info.Active || info.Subject != "alice" || info.SessionID != claims.SID {
				t.Errorf("TokenInfo = %+v, %v", info, ok)
			}
			call := p.issuer.LastCall(EndpointToken)
			if call.AuthMethod != "client_secret_basic" || call.ClientID != "client" || call.Form.Get("code_verifier") != verifier {
				t.Errorf("the token request is recorded as %+v", call)
			}
		})
	}
}

func TestAuthorizeAnswers(t *testing.T) {
	p := newParty(t, nil)
	for _, tc := range []struct {
		name  string
		pairs []string
		error string
		mode  string
	}{
		{"form_post", nil, "", "form_post"},
		{"code by query", []string{"response_type", "code", "response_mode", ""}, "", "query"},
		{"code by fragment", []string{"response_type", "code", "response_mode", "fragment"}, "", "fragment"},
		{"hybrid by default", []string{"response_mode", ""}, "", "fragment"},
		{"hybrid by query", []string{"response_mode", "query"}, "invalid_request", "fragment"},
		{"unknown response_type", []string{"response_type", "token"}, "unsupported_response_type", "query"},
		{"unknown response_mode", []string{"response_mode", "web_message"}, "invalid_request", "query"},
		{"no openid", []string{"scope", "profile"}, "invalid_scope", "form_post"},
		{"hybrid without nonce", []string{"nonce", ""}, "invalid_request", "form_post"},
		{"plain PKCE", []string{"code_challenge_method", "plain"}, "invalid_request", "form_post"},
		{"none and login", []string{"prompt", "none login"}, "invalid_request", "form_post"},
		{"max_age of words", []string{"max_age", "long"}, "invalid_request", "form_post"},
		{"silent", []string{"prompt", "none"}, "", "form_post"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page := p.browser.Send(&Request{URL: p.request(tc.pairs...)})
			next := page.Next()
			if next == nil {
				t.Fatalf("the issuer answers %d %s", page.Status, page.Body)
			}
			u, _ := url.Parse(next.URL)
			got, mode := next.Form, "form_post"
			if next.Form == nil {
				got, mode = u.Query(), "query"
			}
			if u.Fragment != "" {
				got, _ = url.ParseQuery(u.EscapedFragment())
				mode = "fragment"
			}
			if mode != tc.mode || got.Get("error") != tc.error || got.Get("state") != "a state" || (got.Get("code") == "") != (tc.error != "") {
				t.Errorf("answer by %s: %v; want %s, error %q", mode, got, tc.mode, tc.error)
			}
		})
	}
	for _, pairs := range [][]string{{"client_id", "other"}, {"redirect_uri", "/relative"}, {"redirect_uri", ""}} {
		if page := p.browser.Open(p.request(pairs...)); page.Status != http.StatusBadRequest || page.Form() != nil {
			t.Errorf("%v: %d %s, want a plain 400", pairs, page.Status, page.Body)
		}
	}
	if page := p.browser.Open(p.request() + "&scope=more"); !strings.Contains(page.Body, "error=invalid_request") {
		t.Errorf("a parameter given twice: %s", page.Body)
	}
}

func TestUsersAndSessions(t *testing.T) {
	clock := NewClock()
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.Now = clock.Now }})
	signIn := func(pairs ...string) map[string]any {
		t.Helper()
		token, err := parseJWT(p.authorize(pairs...).Get("id_token"))
		if err != nil {
			t.Fatal(err)
		}
		return token.claims
	}
	first := signIn()
	if first["sub"] != "alice" {
		t.Errorf("the first user is %v", first["sub"])
	}
	clock.Advance(time.Minute)
	if again := signIn("acr_values", "gold silver"); again["sid"] != first["sid"] || again["auth_time"] != first["auth_time"] || again["acr"] != "gold" {
		t.Errorf("the same session: %v, before %v", again, first)
	}
	if again := signIn("max_age", "90"); again["auth_time"] != first["auth_time"] {
		t.Errorf("max_age 90 after a minute asks again: %v", again)
	}
	if answer := p.authorize("max_age", "30", "prompt", "none"); answer.Get("error") != "login_required" {
		t.Errorf("max_age 30 after a minute, silently: %v", answer)
	}
	for _, pairs := range [][]string{{"max_age", "30"}, {"max_age", "0"}, {"prompt", "login"}} {
		clock.Advance(time.Minute)
		if again := signIn(pairs...); again["auth_time"] != float64(clock.Now().Unix()) || again["sid"] != first["sid"] {
			t.Errorf("%v: auth_time %v, want %d", pairs, again["auth_time"], clock.Now().Unix())
		}
	}
	if bob := signIn("login_hint", "bob@example.test"); bob["sub"] != "bob" || bob["sid"] == first["sid"] {
		t.Errorf("by login_hint: %v", bob)
	}
	p.issuer.Update(func(b *Behaviour) { b.User, b.SignedOut = "bob", true })
	if got := signIn(); got["sub"] != "bob" {
		t.Errorf("by Behaviour.User: %v", got["sub"])
	}
	if answer := p.authorize("prompt", "none"); answer.Get("error") != "login_required" {
		t.Errorf("signed out, silently: %v", answer)
	}
	p.issuer.Update(func(b *Behaviour) { b.Refuse = &OAuthError{Code: "access_denied", Description: "no & never"} })
	if answer := p.authorize(); answer.Get("error") != "access_denied" || answer.Get("error_description") != "no & never" || answer.Has("code") {
		t.Errorf("refused: %v", answer)
	}
}

func TestNewestHintOnly(t *testing.T) {
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.NewestHintOnly = true }})
	first := p.tokens()
	old := first["id_token"].(string)
	_, refreshed := p.refresh(first["refresh_token"])
	newest, _ := refreshed["id_token"].(string)
	end := p.issuer.EndpointURL(EndpointEndSession) + "?post_logout_redirect_uri=" + url.QueryEscape(p.url) + "&id_token_hint="
	if page := p.browser.Open(end + old); page.Status != http.StatusBadRequest {
		t.Errorf("the ID token before the refresh: %d, want 400", page.Status)
	}
	if page := p.browser.Open(end + newest); newest == "" || page.URL != p.url {
		t.Errorf("the newest ID token: %d at %s", page.Status, page.URL)
	}
}

func TestEndSession(t *testing.T) {
	p := newParty(t, nil)
	hint := p.tokens()["id_token"].(string)
	end := p.issuer.EndpointURL(EndpointEndSession)
	back := url.QueryEscape(p.url)
	if p.browser.Cookies(p.issuer.URL()) == nil {
		t.Fatal("the issuer keeps no session")
	}
	page := p.browser.Open(end + "?id_token_hint=" + hint + "&state=x&post_logout_redirect_uri=" + back)
	if page.URL != p.url+"?state=x" {
		t.Errorf("ended at %s: %s", page.URL, page.Body)
	}
	if c := p.browser.Cookies(p.issuer.URL()); len(c) != 0 {
		t.Errorf("the issuer's session is still there: %v", c)
	}
	forged := NewIssuer(t, nil).Sign(map[string]any{"aud": "client"}, SignOptions{})
	for _, query := range []string{
		"?id_token_hint=" + forged, "?client_id=other&id_token_hint=" + hint,
		"?post_logout_redirect_uri=" + back, "?client_id=other&post_logout_redirect_uri=" + back,
	} {
		if page := p.browser.Open(end + query); page.Status != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400", query, page.Status)
		}
	}
	p.issuer.Update(func(b *Behaviour) { b.Clients[0].PostLogoutRedirectURIs = []string{"https://other.example/"} })
	if page := p.browser.Open(end + "?client_id=client&post_logout_redirect_uri=" + back); page.Status != http.StatusBadRequest {
		t.Errorf("an unregistered redirect: %d, want 400", page.Status)
	}
	if page := p.browser.Open(end); page.Status != http.StatusOK {
		t.Errorf("without a redirect: %d", page.Status)
	}
}

func TestEntra(t *testing.T) {
	p := newParty(t, &IssuerOptions{
		URL:       "https://login.microsoftonline.com/organizations/v2.0",
		Behaviour: func(b *Behaviour) { b.Entra = true },
	})
	const home, other = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
	host := "https://login.microsoftonline.com/"
	for path, want := range map[string]string{
		"organizations/v2.0": host + "{tenantid}/v2.0",
		"common/v2.0":        host + "{tenantid}/v2.0",
		"consumers/v2.0":     host + consumers + "/v2.0",
		home + "/v2.0":       host + home + "/v2.0",
		home:                 "https://sts.windows.net/" + home + "/",
		"common":             "https://sts.windows.net/{tenantid}/",
	} {
		req, _ := http.NewRequest("GET", host+path+"/.well-known/openid-configuration", nil)
		status, doc := do(t, p.issuer.Client(), req)
		if status != http.StatusOK || doc["issuer"] != want || doc["revocation_endpoint"] != nil ||
			doc["authorization_response_iss_parameter_supported"] != nil {
			t.Errorf("%s announces %v, want %s", path, doc["issuer"], want)
		}
		req, _ = http.NewRequest("GET", doc["jwks_uri"].(string), nil)
		if _, keys := do(t, p.issuer.Client(), req); len(keys["keys"].([]any)) == 0 {
			t.Errorf("%s has no keys", path)
		}
	}
	ctx := oidc.InsecureIssuerURLContext(p.ctx, host+"{tenantid}/v2.0")
	provider, err := oidc.NewProvider(ctx, p.issuer.URL())
	if err != nil {
		t.Fatal(err)
	}
	answer := p.authorize("client_info", "1")
	token, err := provider.Verifier(&oidc.Config{ClientID: "client", SkipIssuerCheck: true}).Verify(ctx, answer.Get("id_token"))
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ TID, OID, Ver string }
	if err := token.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if token.Issuer != host+home+"/v2.0" || claims.TID != home || claims.OID != "aaaaaaaa-0000-0000-0000-000000000001" || claims.Ver != "2.0" {
		t.Errorf("token of %s: %+v", token.Issuer, claims)
	}
	_, body := p.redeem(answer.Get("code"))
	for _, info := range []any{answer.Get("client_info"), body["client_info"]} {
		raw, _ := base64.RawURLEncoding.DecodeString(info.(string))
		if want := `{"uid":"aaaaaaaa-0000-0000-0000-000000000001","utid":"` + home + `"}`; string(raw) != want {
			t.Errorf("client_info is %s, want %s", raw, want)
		}
	}
	status, refused := p.refresh(body["refresh_token"], "scope", "Mail.Read")
	if status != http.StatusBadRequest || refused["error"] != "invalid_grant" || refused["suberror"] != "consent_required" {
		t.Errorf("a scope without consent: %d %v", status, refused)
	}

	// A guest has another oid there, and is at home where client_info says.
	page := p.browser.Open(strings.Replace(p.request("client_info", "1"), "/organizations/", "/"+other+"/", 1))
	form, _ := url.ParseQuery(page.Body)
	guest, err := parseJWT(form.Get("id_token"))
	if err != nil {
		t.Fatal(err)
	}
	if guest.claims["tid"] != other || guest.claims["iss"] != host+other+"/v2.0" || guest.claims["oid"] == claims.OID ||
		form.Get("client_info") != answer.Get("client_info") {
		t.Errorf("as a guest: %v", guest.claims)
	}
	v1, _ := url.Parse(p.request())
	v1.Path = "/" + home + "/oauth2/authorize"
	form, _ = url.ParseQuery(p.browser.Open(v1.String()).Body)
	if old, err := parseJWT(form.Get("id_token")); err != nil || old.claims["iss"] != "https://sts.windows.net/"+home+"/" || old.claims["ver"] != "1.0" {
		t.Errorf("by version 1: %v %+v", err, old)
	}
}

func TestKeys(t *testing.T) {
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.Alg = "ES256" }})
	published := func() []string {
		req, _ := http.NewRequest("GET", p.issuer.EndpointURL(EndpointKeys), nil)
		_, doc := do(t, p.issuer.Client(), req)
		var ids []string
		for _, k := range doc["keys"].([]any) {
			ids = append(ids, k.(map[string]any)["kid"].(string))
		}
		return ids
	}
	kid := func() any {
		token, err := parseJWT(p.authorize().Get("id_token"))
		if err != nil {
			t.Fatal(err)
		}
		return token.header["kid"]
	}
	first := p.issuer.Key().ID
	if got := published(); !slices.Equal(got, []string{first}) || kid() != first {
		t.Errorf("published %v, signed by %v, want %s", got, kid(), first)
	}
	second := p.issuer.RotateKey().ID
	if got := published(); !slices.Equal(got, []string{first, second}) || kid() != second {
		t.Errorf("after rotation published %v, signed by %v, want %s", got, kid(), second)
	}
	p.issuer.RetireKeys()
	p.issuer.ForeignKey("ES256")
	if got := published(); !slices.Equal(got, []string{second}) {
		t.Errorf("after retirement published %v, want %s", got, second)
	}
	if a, b := NewIssuer(t, nil).Key(), NewIssuer(t, nil).Key(); a.Private == b.Private {
		t.Error("two issuers share a key")
	}
}

// TestConcurrentUse shows, under -race, that all may be used at once.
func TestConcurrentUse(t *testing.T) {
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.Alg = "ES256" }})
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			user := []string{"alice", "bob"}[n%2]
			p.issuer.Update(func(b *Behaviour) {
				b.Users[n%2].Claims["n"] = n
				b.GrantScopes = func(s []string) []string { return s }
			})
			page := p.browser.Clone().Open(p.request("login_hint", user))
			form, _ := url.ParseQuery(page.Body)
			status, body := p.redeem(form.Get("code"))
			if status != http.StatusOK {
				t.Errorf("redemption: %d %v %v", status, body, page.Err)
				return
			}
			if _, got := p.callAPI(body["access_token"], ""); got["sub"] != user {
				t.Errorf("the token of %s is %v's", user, got["sub"])
			}
			p.issuer.RotateKey()
		})
	}
	p.issuer.Await(EndpointAPI, 16)
	wg.Wait()
	if n := p.issuer.CountGrant("authorization_code"); n != 16 {
		t.Errorf("%d redemptions, want 16", n)
	}
	if tokens := p.issuer.Tokens("bob"); len(tokens) != 16 || tokens[0].Subject != "bob" {
		t.Errorf("bob has %d tokens, want 16", len(tokens))
	}
	for _, s := range p.issuer.Tokens("") {
		if !slices.Contains(p.issuer.Secrets(), s.Token) {
			t.Errorf("Secrets lacks a token")
		}
	}
	p.issuer.ForgetCalls()
	if n := p.issuer.Count(EndpointToken); n != 0 {
		t.Errorf("%d calls after ForgetCalls", n)
	}
}

func TestOtherPaths(t *testing.T) {
	plain := newParty(t, &IssuerOptions{URL: "http://localhost/base"})
	entra := newParty(t, &IssuerOptions{URL: "https://login.example.test/common/v2.0", Behaviour: func(b *Behaviour) { b.Entra = true }})
	for p, paths := range map[*party][]string{
		plain: {"/", "/authorize", "/base", "/base/unknown", "/base/token/x"},
		entra: {"/", "/common", "/common/", "//v2.0/.well-known/openid-configuration", "/common/authorize"},
	} {
		u := must(url.Parse(p.issuer.URL()))
		for _, path := range paths {
			if page := p.browser.Open(u.Scheme + "://" + u.Host + path); page.Status != http.StatusNotFound {
				t.Errorf("%s: %d %v, want 404", path, page.Status, page.Err)
			}
		}
	}
	if page := plain.browser.Open(plain.issuer.EndpointURL(EndpointToken)); page.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET of the token endpoint: %d, want 405", page.Status)
	}
	bad := &Request{Method: "POST", URL: plain.issuer.EndpointURL(EndpointToken), Body: "a=%",
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	if page := plain.browser.Send(bad); page.Status != http.StatusBadRequest {
		t.Errorf("a broken form: %d, want 400", page.Status)
	}
}
