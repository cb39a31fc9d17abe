package signintest

import (
	"cmp"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func newProfileParty(t *testing.T, name string, edit func(*Behaviour)) *party {
	t.Helper()
	n := slices.IndexFunc(Profiles(), func(p Profile) bool { return p.Name == name })
	profile := Profiles()[n]
	return newParty(t, &IssuerOptions{URL: profile.URL, Behaviour: func(b *Behaviour) {
		profile.Behaviour(b)
		if edit != nil {
			edit(b)
		}
	}})
}

func (p *party) get(url string) (int, map[string]any) {
	p.t.Helper()
	req, _ := http.NewRequestWithContext(p.t.Context(), "GET", url, nil)
	return do(p.t, p.issuer.Client(), req)
}

func (p *party) claims(raw any) map[string]any {
	p.t.Helper()
	s, _ := raw.(string)
	token, err := parseJWT(s)
	if err != nil {
		p.t.Fatal(err)
	}
	return token.claims
}

// What each provider announces and answers, at a sign-in by code.
func TestProfiles(t *testing.T) {
	const sts = "https://contoso.b2clogin.com/" + ProfileTenant + "/v2.0/"
	for _, tc := range []struct {
		name      string
		issuer    string // in the documents
		iss       string // in tokens; empty: the same
		scope     string
		pairs     []string // of the authorization request
		refused   string   // a scope that is
		noRefresh bool
		granted   string // scope of the token answer
		absent    []string
		token     func(answer, claims map[string]any) bool
	}{
		{name: "adfs", issuer: "https://adfs.contoso.example/adfs", scope: "openid", granted: "openid",
			absent: []string{"revocation_endpoint", "code_challenge_methods_supported"},
			token:  func(_, claims map[string]any) bool { return claims["upn"] != nil && claims["email"] == nil }},
		{name: "apple", issuer: "https://appleid.apple.com", scope: "openid email name", refused: "profile", granted: "openid email name",
			absent: []string{"end_session_endpoint", "userinfo_endpoint"},
			token: func(_, claims map[string]any) bool {
				return claims["email_verified"] == "true" && claims["name"] == nil && claims["preferred_username"] == nil
			}},
		{name: "auth0", issuer: "https://contoso.eu.auth0.com/", scope: "openid offline_access", granted: "openid offline_access", absent: []string{"end_session_endpoint"}},
		{name: "b2c", issuer: sts, scope: "openid offline_access", granted: "openid offline_access",
			absent: []string{"userinfo_endpoint", "revocation_endpoint"},
			token: func(answer, claims map[string]any) bool {
				return answer["access_token"] == nil && answer["expires_in"] == nil && claims["at_hash"] == nil && claims["tfp"] == "b2c_1_signin"
			}},
		{name: "cognito", issuer: "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc", scope: "openid", refused: "offline_access",
			absent: []string{"response_modes_supported"}, token: func(answer, _ map[string]any) bool { return answer["scope"] == nil }},
		{name: "entra", issuer: "https://login.microsoftonline.com/" + ProfileTenant + "/v2.0", scope: "openid offline_access User.Read", granted: "User.Read openid",
			absent: []string{"revocation_endpoint", "code_challenge_methods_supported"},
			token:  func(_, claims map[string]any) bool { return claims["tid"] == ProfileTenant && claims["sid"] == nil }},
		{name: "externalid", issuer: "https://" + ProfileTenant + ".ciamlogin.com/" + ProfileTenant + "/v2.0", scope: "openid offline_access", granted: "openid",
			token: func(_, claims map[string]any) bool { return claims["tid"] == ProfileTenant && claims["oid"] != nil }},
		{name: "google", issuer: "https://accounts.google.com", iss: "accounts.google.com", scope: "openid email https://www.googleapis.com/auth/calendar", refused: "offline_access",
			granted: "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/calendar", noRefresh: true, absent: []string{"end_session_endpoint"}},
		{name: "keycloak", issuer: "https://sso.example.test/realms/acme", scope: "openid", granted: "openid",
			token: func(answer, claims map[string]any) bool {
				roles, _ := json.Marshal(claims["realm_access"])
				return answer["expires_in"] == 300.0 && strings.Contains(string(roles), `"editor"`)
			}},
		{name: "okta", issuer: "https://contoso.okta.com/oauth2/default", scope: "openid email offline_access", granted: "openid email offline_access",
			token: func(_, claims map[string]any) bool { return claims["email"] == nil && claims["ver"] == 1.0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newProfileParty(t, tc.name, nil)
			_, doc := p.get(p.issuer.EndpointURL(EndpointDiscovery))
			if doc["issuer"] != tc.issuer {
				t.Errorf("the document says %v, want %s", doc["issuer"], tc.issuer)
			}
			for _, name := range tc.absent {
				if doc[name] != nil {
					t.Errorf("%s is announced: %v", name, doc[name])
				}
			}
			for name, e := range map[string]Endpoint{"authorization_endpoint": EndpointAuthorize, "token_endpoint": EndpointToken} {
				if doc[name] != p.issuer.EndpointURL(e) {
					t.Errorf("%s is %v, and served at %s", name, doc[name], p.issuer.EndpointURL(e))
				}
			}
			if _, keys := p.get(doc["jwks_uri"].(string)); keys["keys"] == nil {
				t.Errorf("no keys at %v", doc["jwks_uri"])
			}
			if tc.refused != "" {
				if got := p.authorize("scope", "openid "+tc.refused, "response_type", "code"); got.Get("error") != "invalid_scope" {
					t.Errorf("scope %s: %v, want invalid_scope", tc.refused, got)
				}
			}
			_, answer := p.redeem(p.authorize("scope", tc.scope, "response_type", "code").Get("code"))
			claims := p.claims(answer["id_token"])
			if want := cmp.Or(tc.iss, tc.issuer); claims["iss"] != want {
				t.Errorf("iss %v, want %s", claims["iss"], want)
			}
			if tc.token != nil && !tc.token(answer, claims) {
				t.Errorf("token answer %v with claims %v", slices.Collect(maps.Keys(answer)), claims)
			}
			if got := sorted(answer["scope"]); got != sorted(tc.granted) {
				t.Errorf("granted %q, want %q", got, tc.granted)
			}
			if got := answer["refresh_token"] == nil; got != tc.noRefresh {
				t.Errorf("without a refresh token: %t, want %t", got, tc.noRefresh)
			}
			if tc.noRefresh {
				return
			}
			if status, body := p.post("grant_type", "refresh_token", "refresh_token", answer["refresh_token"].(string)); status != http.StatusOK {
				t.Errorf("refresh: %d %v", status, body["error"])
			}
		})
	}
	if len(Profiles()) != 10 {
		t.Errorf("%d profiles, and not all are tried here", len(Profiles()))
	}
}

func TestGoogleRefreshTokens(t *testing.T) {
	p := newProfileParty(t, "google", nil)
	for _, tc := range []struct {
		pairs []string
		want  bool
	}{
		{[]string{"access_type", "offline"}, true}, // the first time
		{[]string{"access_type", "offline"}, false},
		{[]string{"access_type", "offline", "prompt", "consent"}, true},
		{[]string{"prompt", "consent"}, false},
	} {
		_, answer := p.redeem(p.authorize(append(tc.pairs, "scope", "openid")...).Get("code"))
		if got := answer["refresh_token"] != nil; got != tc.want {
			t.Errorf("%v: a refresh token %t, want %t", tc.pairs, got, tc.want)
		}
	}
}

func TestB2CScopes(t *testing.T) {
	p := newProfileParty(t, "b2c", func(b *Behaviour) { b.IssuerName = "{origin}/tfp/{tenantid}/{policy}/v2.0/" })
	const api = "https://contoso.onmicrosoft.com/orders/"
	for scope, want := range map[string]string{
		"openid": "",
		"openid " + api + "Read " + api + "Write": "access",
		"openid client":                 "access",
		"openid Read":                   "AADB2C90117",
		"openid client " + api + "Read": "AADB2C90146",
	} {
		answer := p.authorize("scope", scope)
		if strings.HasPrefix(want, "AADB2C") {
			if !strings.HasPrefix(answer.Get("error_description"), want) {
				t.Errorf("%s: %v, want %s", scope, answer, want)
			}
			continue
		}
		_, body := p.redeem(answer.Get("code"))
		if got := body["access_token"] != nil; got != (want == "access") {
			t.Errorf("%s: an access token %t", scope, got)
		}
		if iss := p.claims(body["id_token"])["iss"]; iss != "https://contoso.b2clogin.com/tfp/"+ProfileTenant+"/b2c_1_signin/v2.0/" {
			t.Errorf("iss %v", iss)
		}
	}
}

// A sign-out ends what it ends at each provider, and leads back by the
// parameter that the provider knows.
func TestProfileSignOut(t *testing.T) {
	for _, tc := range []struct {
		name, parameter string
		needsHint       bool
	}{
		{"auth0", "returnTo", false}, {"cognito", "logout_uri", false},
		{"okta", "post_logout_redirect_uri", true}, {"keycloak", "post_logout_redirect_uri", false},
		{"entra", "post_logout_redirect_uri", false}, {"b2c", "post_logout_redirect_uri", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newProfileParty(t, tc.name, nil)
			_, body := p.redeem(p.authorize("scope", "openid", "response_type", "code").Get("code"))
			end := func(pairs ...string) *Page {
				q := url.Values{}
				for n := 0; n < len(pairs); n += 2 {
					q.Set(pairs[n], pairs[n+1])
				}
				return p.browser.Open(p.issuer.EndpointURL(EndpointEndSession) + "?" + q.Encode())
			}
			if got := end("client_id", "client", tc.parameter, p.url).Status == http.StatusBadRequest; got != tc.needsHint {
				t.Errorf("without a hint: refused %t, want %t", got, tc.needsHint)
			}
			if tc.parameter != "post_logout_redirect_uri" {
				if end(tc.parameter, p.url).Status != http.StatusBadRequest || end("client_id", "client", "post_logout_redirect_uri", p.url).Status != http.StatusBadRequest {
					t.Error("takes the parameters of OpenID Connect")
				}
				return
			}
			if page := end("id_token_hint", body["id_token"].(string), tc.parameter, p.url); !strings.HasPrefix(page.URL, p.url) {
				t.Errorf("ended at %s: %d %s", page.URL, page.Status, page.Body)
			}
		})
	}
}

// At Keycloak a sign-out ends the grants of the session, but for offline ones;
// and it takes no hint whose key has gone.
func TestKeycloakSessions(t *testing.T) {
	for scope, survives := range map[string]bool{"openid": false, "openid offline_access": true} {
		p := newProfileParty(t, "keycloak", nil)
		_, first := p.redeem(p.authorize("scope", scope).Get("code"))
		status, again := p.refresh(first["refresh_token"])
		if status != http.StatusOK {
			t.Fatalf("%s: refresh before: %d", scope, status)
		}
		p.browser.Open(p.issuer.EndpointURL(EndpointEndSession) + "?client_id=client")
		if status, _ = p.refresh(again["refresh_token"]); (status == http.StatusOK) != survives {
			t.Errorf("%s: refresh after the sign-out: %d", scope, status)
		}
		hint := p.issuer.EndpointURL(EndpointEndSession) + "?id_token_hint=" + first["id_token"].(string)
		before := p.browser.Open(hint).Status
		p.issuer.RotateKey()
		p.issuer.RetireKeys()
		if after := p.browser.Open(hint).Status; before != http.StatusOK || after != http.StatusBadRequest {
			t.Errorf("hint: %d with its key, %d without", before, after)
		}
	}
}

// Of two tabs with login pages the second finds its page expired.
func TestKeycloakSecondTab(t *testing.T) {
	for _, expires := range []bool{true, false} {
		p := newProfileParty(t, "keycloak", func(b *Behaviour) { b.LoginPage, b.SecondTabExpires = true, expires })
		one, two := p.browser.Open(p.request("state", "one")), p.browser.Open(p.request("state", "two"))
		if one.Form() == nil || two.Form() == nil || strings.HasPrefix(one.URL, p.url) {
			t.Fatalf("no login page at %s: %s", one.URL, one.Body)
		}
		answers := map[string]url.Values{}
		for _, tab := range []*Page{one, two} {
			got, err := url.ParseQuery(p.browser.Submit(tab, url.Values{"user": {"bob"}}).Body)
			if err != nil {
				t.Fatal(err)
			}
			answers[got.Get("state")] = got
		}
		if answers["one"].Get("code") == "" {
			t.Errorf("first tab: %v", answers["one"])
		}
		if got := answers["two"].Get("error_description") == "authentication_expired"; got != expires {
			t.Errorf("second tab: %v", answers["two"])
		}
		// Who has signed in is not asked again, and is who has signed in.
		third := p.authorize("state", "three")
		if sub := p.claims(third.Get("id_token"))["sub"]; sub != "bob" {
			t.Errorf("third tab: %v", sub)
		}
		if page := p.browser.Open(p.request("prompt", "login")); page.Form() == nil || strings.HasPrefix(page.URL, p.url) {
			t.Errorf("prompt=login asks nobody: %s", page.URL)
		}
	}
}

func TestOktaClaims(t *testing.T) {
	p := newProfileParty(t, "okta", nil)
	_, body := p.redeem(p.authorize("scope", "openid email").Get("code"))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", p.issuer.EndpointURL(EndpointUserInfo), nil)
	req.Header.Set("Authorization", "Bearer "+body["access_token"].(string))
	if _, info := do(t, p.issuer.Client(), req); info["email"] != "alice@example.test" {
		t.Errorf("userinfo %v", info)
	}
}

func TestAuth0Audience(t *testing.T) {
	p := newProfileParty(t, "auth0", nil)
	for audience, want := range map[string]string{"https://api.example.test": "", "https://gone.example.test": "access_denied"} {
		if got := p.authorize("audience", audience); got.Get("error") != want {
			t.Errorf("%s: %v, want %q", audience, got, want)
		}
	}
	if status, body := p.refresh("nothing"); status != http.StatusForbidden || body["error"] != "invalid_grant" {
		t.Errorf("unknown refresh token: %d %v, want 403", status, body)
	}
}

func TestCognitoResponses(t *testing.T) {
	p := newProfileParty(t, "cognito", nil)
	if got := p.authorize("scope", "openid", "response_mode", ""); got.Get("error") != "unsupported_response_type" {
		t.Errorf("hybrid: %v", got)
	}
	page := p.browser.Open(p.request("scope", "openid", "response_type", "code", "response_mode", "form_post"))
	if page.Sent.Method != "" && page.Sent.Method != http.MethodGet || !strings.Contains(page.URL, "code=") {
		t.Errorf("form_post is heeded: %s %s", page.Sent.Method, page.URL)
	}
}

// Apple tells the name once, by form_post, and takes a JWT for a secret.
func TestApple(t *testing.T) {
	var keys []crypto.PublicKey
	p := newProfileParty(t, "apple", func(b *Behaviour) { b.Clients[0].Secret = "" })
	team := p.issuer.ForeignKey("ES256")
	keys = append(keys, team.Private.Public())
	p.issuer.Update(func(b *Behaviour) { b.Clients[0].SecretKeys = keys })

	if got := p.authorize("scope", "openid email", "response_mode", "query", "response_type", "code"); got.Get("error") != "invalid_request" {
		t.Errorf("email by query: %v", got)
	}
	first, second := p.authorize("scope", "openid name email"), p.authorize("scope", "openid name email")
	if got := first.Get("user"); got != `{"email":"alice@example.test","name":{"firstName":"Alice","lastName":"Example"}}` {
		t.Errorf("user %s", got)
	}
	if second.Has("user") {
		t.Errorf("the second time too: %s", second.Get("user"))
	}
	good := func() map[string]any {
		return map[string]any{"iss": "TEAM", "sub": "client", "aud": "https://appleid.apple.com", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	}
	for name, tc := range map[string]struct {
		edit func(map[string]any)
		sign SignOptions
		want int
	}{
		"good":           {func(map[string]any) {}, SignOptions{Key: &team}, http.StatusOK},
		"another client": {func(c map[string]any) { c["sub"] = "other" }, SignOptions{Key: &team}, http.StatusUnauthorized},
		"another issuer": {func(c map[string]any) { c["aud"] = "https://other.example.test" }, SignOptions{Key: &team}, http.StatusUnauthorized},
		"no team":        {func(c map[string]any) { delete(c, "iss") }, SignOptions{Key: &team}, http.StatusUnauthorized},
		"expired":        {func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }, SignOptions{Key: &team}, http.StatusUnauthorized},
		"for a year":     {func(c map[string]any) { c["exp"] = time.Now().Add(8760 * time.Hour).Unix() }, SignOptions{Key: &team}, http.StatusUnauthorized},
		"another's key":  {func(map[string]any) {}, SignOptions{}, http.StatusUnauthorized},
	} {
		claims := good()
		tc.edit(claims)
		status, body := p.post("grant_type", "authorization_code", "code", p.authorize("scope", "openid").Get("code"), "redirect_uri", p.url,
			"code_verifier", verifier, "client_id", "client", "client_secret", p.issuer.Sign(claims, tc.sign))
		if status != tc.want {
			t.Errorf("%s: %d %v, want %d", name, status, body["error"], tc.want)
		}
	}
}

// Each field that makes an answer odd does so, and nothing else.
func TestOddities(t *testing.T) {
	read := func(p *party, req *http.Request) (*http.Response, string) {
		res, err := p.issuer.Client().Do(req)
		if err != nil {
			p.t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res, string(body)
	}
	get := func(p *party, e Endpoint) (*http.Response, string) {
		req, _ := http.NewRequestWithContext(p.t.Context(), "GET", p.issuer.EndpointURL(e), nil)
		return read(p, req)
	}
	token := func(p *party, code string) (*http.Response, string) {
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {p.url}, "code_verifier": {verifier}}
		req, _ := http.NewRequestWithContext(p.t.Context(), "POST", p.issuer.EndpointURL(EndpointToken), strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("client", "secret")
		return read(p, req)
	}
	for name, tc := range map[string]struct {
		edit func(*Behaviour)
		odd  func(p *party) bool
	}{
		"a status": {func(b *Behaviour) { b.TokenStatus = 201 }, func(p *party) bool {
			res, _ := token(p, p.authorize().Get("code"))
			return res.StatusCode == http.StatusCreated
		}},
		"a label": {func(b *Behaviour) { b.TokenType = "-" }, func(p *party) bool {
			res, _ := token(p, p.authorize().Get("code"))
			return res.StatusCode == http.StatusOK && len(res.Header["Content-Type"]) == 0
		}},
		"errors as text": {func(b *Behaviour) { b.ErrorType = "text/plain" }, func(p *party) bool {
			res, body := token(p, "none")
			return res.StatusCode == http.StatusBadRequest && res.Header.Get("Content-Type") == "text/plain" && strings.Contains(body, `"invalid_grant"`)
		}},
		"a byte order mark": {func(b *Behaviour) { b.ByteOrderMark = true }, func(p *party) bool {
			_, keys := get(p, EndpointKeys)
			_, doc := get(p, EndpointDiscovery)
			_, bad := token(p, "none")
			_, good := token(p, p.authorize().Get("code"))
			return !slices.ContainsFunc([]string{keys, doc, bad, good}, func(s string) bool { return !strings.HasPrefix(s, "\xef\xbb\xbf{") })
		}},
		"expires_in a string": {func(b *Behaviour) { b.ExpiresIn = func(s int64) any { return fmt.Sprint(s) } }, func(p *party) bool {
			_, body := token(p, p.authorize().Get("code"))
			return strings.Contains(body, `"expires_in":"3600"`)
		}},
		"no access token": {func(b *Behaviour) { b.OmitAccessToken = true }, func(p *party) bool {
			_, body := token(p, p.authorize().Get("code"))
			return !strings.Contains(body, "access_token") && strings.Contains(body, "id_token")
		}},
		"members": {func(b *Behaviour) {
			b.TokenMembers = map[string]any{"scope": nil, "instance_url": "https://eu1.example.test"}
			b.DiscoveryMembers = map[string]any{"userinfo_endpoint": nil, "revocation_endpoint": "N/A"}
		}, func(p *party) bool {
			_, body := token(p, p.authorize().Get("code"))
			_, doc := get(p, EndpointDiscovery)
			return !strings.Contains(body, `"scope"`) && strings.Contains(body, "eu1.example") && !strings.Contains(doc, "userinfo") && strings.Contains(doc, `"N/A"`)
		}},
		"claims": {func(b *Behaviour) {
			b.IDTokenClaims = map[string]any{"acr": 1, "email": nil}
			b.StringBooleans, b.OmitSID = true, true
		}, func(p *party) bool {
			c := p.claims(p.authorize().Get("id_token"))
			return c["acr"] == 1.0 && c["email"] == nil && c["email_verified"] == "true" && c["sid"] == nil
		}},
		"keys without kid, and odd ones": {func(b *Behaviour) { b.OmitKeyIDs, b.OddKeys = true, true }, func(p *party) bool {
			_, body := get(p, EndpointKeys)
			return strings.Contains(body, "secp256k1") && !strings.Contains(body, `"kid":"key-`)
		}},
		"an encrypted ID token": {func(b *Behaviour) { b.EncryptIDTokens = true }, func(p *party) bool {
			return strings.Count(p.authorize().Get("id_token"), ".") == 4
		}},
		"a long state": {func(b *Behaviour) { b.MaxState = 20 }, func(p *party) bool {
			return p.browser.Open(p.request("state", strings.Repeat("s", 21))).Status == http.StatusBadRequest && p.authorize("state", strings.Repeat("s", 20)).Get("code") != ""
		}},
		"errors by query": {func(b *Behaviour) { b.ErrorsByQuery = true; b.Refuse = &OAuthError{Code: "server_error"} }, func(p *party) bool {
			return strings.Contains(p.browser.Open(p.request()).URL, "error=server_error")
		}},
		"a sub of everybody": {func(b *Behaviour) { b.IDTokenClaims = map[string]any{"sub": B2CNobody} }, func(p *party) bool {
			return p.claims(p.authorize().Get("id_token"))["sub"] == B2CNobody
		}},
		"invalid_grant by another name": {func(b *Behaviour) { b.InvalidGrant = &OAuthError{Status: 422, Code: "invalid_request"} }, func(p *party) bool {
			res, body := token(p, "none")
			return res.StatusCode == 422 && strings.Contains(body, `"invalid_request"`) && strings.Contains(body, "unknown code")
		}},
		"the same ID token again": {func(b *Behaviour) { b.RepeatIDToken = true }, func(p *party) bool {
			answer := p.tokens()
			_, again := p.refresh(answer["refresh_token"])
			return again["id_token"] == answer["id_token"]
		}},
		"auth_time that moves": {func(b *Behaviour) { b.RefreshMovesAuthTime = true }, func(p *party) bool {
			clock := NewClock()
			p.issuer.Update(func(b *Behaviour) { b.Now = clock.Now })
			answer := p.tokens()
			clock.Advance(time.Minute)
			_, again := p.refresh(answer["refresh_token"])
			return p.claims(again["id_token"])["auth_time"].(float64)-p.claims(answer["id_token"])["auth_time"].(float64) == 60
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParty(t, nil)
			if tc.odd(p) {
				t.Fatal("odd without the field")
			}
			p = newParty(t, nil)
			p.issuer.Update(tc.edit)
			if !tc.odd(p) {
				t.Error("not odd")
			}
		})
	}
}

func TestFrontChannelLogoutURL(t *testing.T) {
	for name, want := range map[string]string{"keycloak": "https://app.example.test/out?iss=https%3A%2F%2Fsso.example.test%2Frealms%2Facme&sid=s", "entra": "https://app.example.test/out?sid=s"} {
		p := newProfileParty(t, name, nil)
		if got := p.issuer.FrontChannelLogoutURL("https://app.example.test/out", "s"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
