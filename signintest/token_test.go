package signintest

import (
	"crypto"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRedemptionRules(t *testing.T) {
	p := newParty(t, nil)
	for _, tc := range []struct {
		name  string
		edit  func(url.Values)
		error string
	}{
		{"good", func(url.Values) {}, ""},
		{"wrong verifier", func(f url.Values) { f.Set("code_verifier", strings.ToUpper(verifier)) }, "invalid_grant"},
		{"no verifier", func(f url.Values) { f.Del("code_verifier") }, "invalid_grant"},
		{"wrong redirect_uri", func(f url.Values) { f.Set("redirect_uri", p.url+"/") }, "invalid_grant"},
		{"wrong code", func(f url.Values) { f.Set("code", "x") }, "invalid_grant"},
		{"unknown grant type", func(f url.Values) { f.Set("grant_type", "password") }, "unsupported_grant_type"},
		{"twice the code", func(f url.Values) { f.Add("code", "x") }, "invalid_request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			form := url.Values{"grant_type": {"authorization_code"}, "code": {p.authorize().Get("code")},
				"redirect_uri": {p.url}, "code_verifier": {verifier}}
			tc.edit(form)
			var pairs []string
			for k, values := range form {
				for _, v := range values {
					pairs = append(pairs, k, v)
				}
			}
			if _, body := p.post(pairs...); tc.error == "" && body["access_token"] == nil || tc.error != "" && body["error"] != tc.error {
				t.Errorf("answer %v, want error %q", body, tc.error)
			}
		})
	}
	if _, body := p.redeem(p.authorize("code_challenge", "", "code_challenge_method", "").Get("code")); body["error"] != "invalid_grant" {
		t.Errorf("a verifier without a challenge: %v", body)
	}
	short := "too-short"
	code := p.authorize("code_challenge", s256(short)).Get("code")
	if _, body := p.post("grant_type", "authorization_code", "code", code, "redirect_uri", p.url, "code_verifier", short); body["error"] != "invalid_grant" {
		t.Errorf("a short verifier: %v", body)
	}
}

// TestCodeIsSpentOnce also shows that a second redemption revokes the first.
func TestCodeIsSpentOnce(t *testing.T) {
	p := newParty(t, nil)
	code := p.authorize().Get("code")
	_, first := p.redeem(code)
	if res, _ := p.callAPI(first["access_token"], ""); res.StatusCode != http.StatusOK {
		t.Fatalf("the API answers %d", res.StatusCode)
	}
	if status, body := p.redeem(code); status != http.StatusBadRequest || body["error"] != "invalid_grant" {
		t.Errorf("second redemption: %d %v", status, body)
	}
	res, _ := p.callAPI(first["access_token"], "")
	if res.StatusCode != http.StatusUnauthorized || !strings.Contains(res.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("the API answers %d %v", res.StatusCode, res.Header)
	}
	if status, _ := p.refresh(first["refresh_token"]); status != http.StatusBadRequest {
		t.Errorf("refresh after a second redemption: %d", status)
	}
}

func TestCodeExpires(t *testing.T) {
	clock := NewClock()
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.Now = clock.Now }})
	code := p.authorize().Get("code")
	clock.Advance(61 * time.Second)
	if _, body := p.redeem(code); body["error"] != "invalid_grant" {
		t.Errorf("after a minute: %v", body)
	}
}

func TestRefreshModes(t *testing.T) {
	p := newParty(t, nil)
	for _, tc := range []struct {
		name           string
		mode           RefreshMode
		replaced, kept bool
	}{
		{"rotate", RefreshRotate, true, false},
		{"replace", RefreshReplace, true, true},
		{"keep", RefreshKeep, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.issuer.Update(func(b *Behaviour) { b.RefreshTokens = tc.mode })
			first := p.tokens()
			status, second := p.refresh(first["refresh_token"])
			if status != http.StatusOK || (second["refresh_token"] != nil) != tc.replaced || second["refresh_token"] == first["refresh_token"] {
				t.Fatalf("refresh: %d %v", status, second)
			}
			token, err := parseJWT(second["id_token"].(string))
			if err != nil || token.claims["sub"] != "alice" || token.claims["nonce"] != nil {
				t.Errorf("refreshed ID token: %v %v", token, err)
			}
			if old, _ := p.issuer.TokenInfo(first["refresh_token"].(string)); old.Active != tc.kept || !old.Refresh {
				t.Errorf("the old refresh token is active: %v, want %v", old.Active, tc.kept)
			}
			if status, _ := p.refresh(first["refresh_token"]); (status == http.StatusOK) != tc.kept {
				t.Errorf("the old refresh token: %d", status)
			}
			// Reuse of a rotated token ends the grant; otherwise all stay good.
			if tc.mode == RefreshRotate {
				if status, _ := p.refresh(second["refresh_token"]); status != http.StatusBadRequest {
					t.Errorf("the new refresh token after a reuse: %d, want 400", status)
				}
			}
		})
	}
	p.issuer.Update(func(b *Behaviour) { b.RefreshTokens = RefreshRotate })
	if got := p.tokens("scope", "openid"); got["refresh_token"] != nil {
		t.Error("a refresh token without offline_access")
	}
	p.issuer.Update(func(b *Behaviour) { b.RefreshAlways = true })
	if got := p.tokens("scope", "openid"); got["refresh_token"] == nil {
		t.Error("no refresh token with RefreshAlways")
	}
}

func TestScopesAndResources(t *testing.T) {
	p := newParty(t, nil)
	first := p.tokens("scope", "openid offline_access a b", "resource", "https://one.example/")
	info := func(body map[string]any) TokenInfo {
		i, _ := p.issuer.TokenInfo(body["access_token"].(string))
		return i
	}
	if i := info(first); !slices.Equal(i.Resources, []string{"https://one.example/"}) || first["scope"] != "openid offline_access a b" {
		t.Errorf("first token: %+v", i)
	}
	_, second := p.refresh(first["refresh_token"], "scope", "b", "resource", "https://two.example/", "claims", `{"access_token":{}}`)
	if i := info(second); second["scope"] != "b" || !slices.Equal(i.Resources, []string{"https://two.example/"}) || i.Claims != `{"access_token":{}}` {
		t.Errorf("second token: %+v", i)
	}
	if status, body := p.refresh(second["refresh_token"], "scope", "c"); status != http.StatusBadRequest || body["error"] != "invalid_scope" {
		t.Errorf("a scope nobody consented to: %d %v", status, body)
	}
	p.tokens("scope", "openid c") // consent, in another tab
	_, third := p.refresh(second["refresh_token"], "scope", "c", "audience", "aud")
	if i := info(third); !slices.Equal(i.Scopes, []string{"c"}) || !slices.Equal(i.Audience, []string{"aud"}) {
		t.Errorf("third token: %+v", i)
	}
	p.issuer.Update(func(b *Behaviour) { b.Consented, b.Resources = []string{"d"}, []string{"https://one.example/"} })
	if status, body := p.refresh(third["refresh_token"], "resource", "https://two.example/"); body["error"] != "invalid_target" {
		t.Errorf("an unknown resource: %d %v", status, body)
	}
	if answer := p.authorize("resource", "https://two.example/"); answer.Get("error") != "invalid_target" {
		t.Errorf("an unknown resource at the front: %v", answer)
	}
	if status, body := p.refresh(third["refresh_token"], "scope", "d"); body["scope"] != "d" {
		t.Errorf("a scope consented to: %d %v", status, body)
	}
	p.issuer.Update(func(b *Behaviour) {
		b.GrantScopes = func(asked []string) []string {
			return slices.DeleteFunc(asked, func(s string) bool { return s == "a" })
		}
	})
	if got := p.tokens("scope", "openid a b", "resource", "https://one.example/"); got["scope"] != "openid b" {
		t.Errorf("granted %v, want all but a", got["scope"])
	}
	res, _ := p.callAPI(p.tokens("scope", "openid b")["access_token"], "?need=a")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(res.Header.Get("WWW-Authenticate"), "insufficient_scope") {
		t.Errorf("an API call without its scope: %d", res.StatusCode)
	}
}

func TestRefreshHabits(t *testing.T) {
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) { b.RefreshEndsAccess, b.RefreshNarrows = true, true }})
	first := p.tokens("scope", "openid offline_access a b")
	_, second := p.refresh(first["refresh_token"], "scope", "a")
	if res, _ := p.callAPI(first["access_token"], ""); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("RefreshEndsAccess: the old access token gets %d", res.StatusCode)
	}
	if res, _ := p.callAPI(second["access_token"], ""); res.StatusCode != http.StatusOK {
		t.Errorf("RefreshEndsAccess: the new access token gets %d", res.StatusCode)
	}
	if status, body := p.refresh(second["refresh_token"], "scope", "b"); status != http.StatusBadRequest {
		t.Errorf("RefreshNarrows: the grant has come back: %v", body)
	}
}

func TestTokenAnswerKnobs(t *testing.T) {
	clock := NewClock()
	p := newParty(t, &IssuerOptions{Behaviour: func(b *Behaviour) {
		b.Now = clock.Now
		b.AccessTokenLifetime, b.RefreshIn, b.IDTokenLifetime = time.Minute, 30*time.Second, time.Second
	}})
	body := p.tokens()
	token := must(parseJWT(body["id_token"].(string)))
	if body["expires_in"] != 60.0 || body["refresh_in"] != 30.0 || token.claims["exp"] != float64(clock.Now().Unix()+1) {
		t.Errorf("lifetimes: %v, ID token %v", body, token.claims)
	}
	clock.Advance(time.Minute)
	if res, _ := p.callAPI(body["access_token"], ""); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("an expired token gets %d", res.StatusCode)
	}
	p.issuer.Update(func(b *Behaviour) {
		b.OmitExpiresIn, b.OmitScope, b.OmitRefreshedIDToken, b.RefreshIn = true, true, true, 0
		b.EditTokenResponse = func(c Call, body map[string]any) { body["token_type"] = "bearer/" + c.GrantType }
	})
	_, body = p.refresh(body["refresh_token"])
	for _, name := range []string{"expires_in", "scope", "id_token", "refresh_in"} {
		if body[name] != nil {
			t.Errorf("%s is %v, want none", name, body[name])
		}
	}
	if body["token_type"] != "bearer/refresh_token" {
		t.Errorf("EditTokenResponse: %v", body["token_type"])
	}
}

func TestRevocation(t *testing.T) {
	p := newParty(t, nil)
	active := func(token any) bool {
		i, _ := p.issuer.TokenInfo(token.(string))
		return i.Active
	}
	revoke := func(token any) int {
		form := url.Values{"token": {token.(string)}}
		req, _ := http.NewRequest("POST", p.issuer.EndpointURL(EndpointRevocation), strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("client", "secret")
		status, _ := do(t, p.issuer.Client(), req)
		return status
	}
	first := p.tokens()
	if revoke(first["access_token"]) != http.StatusOK || active(first["access_token"]) || !active(first["refresh_token"]) {
		t.Error("revoking an access token")
	}
	second := p.tokens()
	if revoke(second["refresh_token"]) != http.StatusOK || active(second["access_token"]) || active(second["refresh_token"]) {
		t.Error("revoking a refresh token")
	}
	if !active(first["refresh_token"]) || revoke("unknown") != http.StatusOK || revoke("") != http.StatusBadRequest {
		t.Error("revoking what is not there")
	}
	p.issuer.RevokeAccessTokens("bob")
	third := p.tokens()
	p.issuer.RevokeGrants("bob")
	if !active(third["access_token"]) {
		t.Error("alice's tokens went with bob's")
	}
	p.issuer.RevokeAccessTokens("alice")
	if active(third["access_token"]) || !active(third["refresh_token"]) {
		t.Error("RevokeAccessTokens")
	}
	p.issuer.RevokeGrants("")
	if status, _ := p.refresh(third["refresh_token"]); status != http.StatusBadRequest {
		t.Error("RevokeGrants")
	}
}

func TestUserInfo(t *testing.T) {
	p := newParty(t, nil)
	get := func(token any) (int, map[string]any) {
		req, _ := http.NewRequest("GET", p.issuer.EndpointURL(EndpointUserInfo), nil)
		req.Header.Set("Authorization", "Bearer "+token.(string))
		return do(t, p.issuer.Client(), req)
	}
	if status, body := get(p.tokens("login_hint", "bob")["access_token"]); status != http.StatusOK || body["sub"] != "bob" || body["name"] != "Bob Example" {
		t.Errorf("userinfo: %d %v", status, body)
	}
	if status, _ := get(p.tokens("resource", "https://api.example/")["access_token"]); status != http.StatusUnauthorized {
		t.Errorf("userinfo with a resource: %d, want 401", status)
	}
	if status, _ := get("nobody's"); status != http.StatusUnauthorized {
		t.Errorf("userinfo with nobody's token: %d, want 401", status)
	}
}

func TestClientAuthentication(t *testing.T) {
	odd := `s%c+r e:t&`
	p := newParty(t, nil)
	ps, es := p.issuer.ForeignKey("PS256"), p.issuer.ForeignKey("ES256")
	p.issuer.Update(func(b *Behaviour) {
		b.Clients = append(b.Clients,
			Client{ID: "odd", Secret: odd},
			Client{ID: "post only", Secret: "x", AuthMethod: "client_secret_post"},
			Client{ID: "public"},
			Client{ID: "keys", PublicKeys: []crypto.PublicKey{ps.Private.Public(), es.Private.Public()}},
			Client{ID: "federated", VerifyAssertion: func(a string) error {
				if a != "the assertion" {
					return errors.New("not the one")
				}
				return nil
			}})
	})
	const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	basic := func(id, secret string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(id, secret)
		return r.Header.Get("Authorization")
	}
	assertion := func(key Key, edits ...func(map[string]any)) url.Values {
		claims := map[string]any{"iss": "keys", "sub": "keys", "aud": p.issuer.EndpointURL(EndpointToken),
			"exp": time.Now().Add(5 * time.Minute).Unix(), "iat": time.Now().Unix(), "jti": rand.Text()}
		for _, e := range edits {
			e(claims)
		}
		return url.Values{"client_assertion_type": {jwtBearer}, "client_assertion": {p.issuer.Sign(claims, SignOptions{Key: &key})}}
	}
	once := assertion(ps)
	for _, tc := range []struct {
		name, header string
		form         url.Values
		method       string
		status       int
	}{
		{"basic", basic(url.QueryEscape("odd"), url.QueryEscape(odd)), nil, "client_secret_basic", 200},
		{"basic, not encoded", basic("odd", odd), nil, "client_secret_basic", 401},
		{"basic, wrong", basic("client", "Secret"), nil, "client_secret_basic", 401},
		{"basic, not base64", "Basic %", nil, "client_secret_basic", 401},
		{"basic, other client_id", basic("client", "secret"), url.Values{"client_id": {"odd"}}, "client_secret_basic", 401},
		{"basic where post is registered", basic("post+only", "x"), nil, "client_secret_basic", 401},
		{"post", "", url.Values{"client_id": {"odd"}, "client_secret": {odd}}, "client_secret_post", 200},
		{"post, wrong", "", url.Values{"client_id": {"odd"}, "client_secret": {""}}, "client_secret_post", 401},
		{"none", "", url.Values{"client_id": {"odd"}}, "none", 401},
		{"public", "", url.Values{"client_id": {"public"}}, "none", 400}, // no client credentials for it
		{"both", basic("client", "secret"), url.Values{"client_secret": {"secret"}}, "client_secret_basic+client_secret_post", 400},
		{"assertion PS256", "", once, "private_key_jwt", 200},
		{"assertion again", "", once, "private_key_jwt", 401},
		{"assertion ES256", "", assertion(es), "private_key_jwt", 200},
		{"assertion for the issuer", "", assertion(es, func(c map[string]any) { c["aud"] = []string{"x", p.issuer.URL()} }), "private_key_jwt", 200},
		{"assertion for another", "", assertion(es, func(c map[string]any) { c["aud"] = "https://other.example/token" }), "private_key_jwt", 401},
		{"assertion by another", "", assertion(p.issuer.ForeignKey("ES256")), "private_key_jwt", 401},
		{"assertion, expired", "", assertion(es, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }), "private_key_jwt", 401},
		{"assertion, long", "", assertion(es, func(c map[string]any) { c["exp"] = time.Now().Add(time.Hour).Unix() }), "private_key_jwt", 401},
		{"assertion, no exp", "", assertion(es, func(c map[string]any) { delete(c, "exp") }), "private_key_jwt", 401},
		{"assertion, no jti", "", assertion(es, func(c map[string]any) { delete(c, "jti") }), "private_key_jwt", 401},
		{"assertion, future", "", assertion(es, func(c map[string]any) { c["nbf"] = time.Now().Add(time.Minute).Unix() }), "private_key_jwt", 401},
		{"assertion, other sub", "", assertion(es, func(c map[string]any) { c["sub"] = "client" }), "private_key_jwt", 401},
		{"assertion, no type", "", url.Values{"client_assertion": assertion(es)["client_assertion"]}, "private_key_jwt", 401},
		{"federated", "", url.Values{"client_id": {"federated"}, "client_assertion_type": {jwtBearer}, "client_assertion": {"the assertion"}}, "private_key_jwt", 200},
		{"federated, wrong", "", url.Values{"client_id": {"federated"}, "client_assertion_type": {jwtBearer}, "client_assertion": {"another"}}, "private_key_jwt", 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			form := url.Values{"grant_type": {"client_credentials"}, "scope": {"api/.default"}}
			maps.Copy(form, tc.form)
			req, _ := http.NewRequest("POST", p.issuer.EndpointURL(EndpointToken), strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if tc.header != "" {
				req.Header.Set("Authorization", tc.header)
			}
			status, body := do(t, p.issuer.Client(), req)
			call := p.issuer.LastCall(EndpointToken)
			if status != tc.status || call.AuthMethod != tc.method {
				t.Errorf("%d %v by %s, want %d by %s", status, body, call.AuthMethod, tc.status, tc.method)
			}
			if status == http.StatusOK {
				if info, _ := p.issuer.TokenInfo(body["access_token"].(string)); info.Subject != call.ClientID || body["refresh_token"] != nil {
					t.Errorf("an app token of %+v", info)
				}
			}
		})
	}
	call := p.issuer.Calls(EndpointToken)[11]
	if call.ClientID != "keys" || call.AssertionHeader["alg"] != "PS256" || call.AssertionClaims["sub"] != "keys" {
		t.Errorf("the assertion is recorded as %v %v", call.AssertionHeader, call.AssertionClaims)
	}
	answer := p.authorize("client_id", "public", "code_challenge", "", "code_challenge_method", "")
	if answer.Get("error") != "invalid_request" {
		t.Errorf("a public client without PKCE: %v", answer)
	}
	code := p.authorize("client_id", "public").Get("code")
	status, body := p.post("client_id", "public", "grant_type", "authorization_code", "code", code, "redirect_uri", p.url, "code_verifier", verifier)
	if status != http.StatusOK {
		t.Errorf("a public client: %d %v", status, body)
	}
}
