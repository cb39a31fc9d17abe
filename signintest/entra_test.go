package signintest

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

const entraTenant = "11111111-1111-1111-1111-111111111111"

func newEntraParty(t *testing.T, edit func(*Behaviour)) *party {
	return newParty(t, &IssuerOptions{URL: "https://login.microsoftonline.com/" + entraTenant + "/v2.0", Behaviour: func(b *Behaviour) {
		b.Entra = true
		if edit != nil {
			edit(b)
		}
	}})
}

// number is the AADSTS number of an error, or what stands in its place.
func number(body map[string]any) string {
	description, _ := body["error_description"].(string)
	n, _, _ := strings.Cut(strings.TrimPrefix(description, "AADSTS"), ":")
	return n
}

// sorted is a scope whose order says nothing.
func sorted(scope any) string {
	s, _ := scope.(string)
	return strings.Join(slices.Sorted(slices.Values(strings.Fields(s))), " ")
}

// One token is for one API, though a user may consent to several at once.
func TestEntraOneAPIAToken(t *testing.T) {
	const (
		orders = "api://orders/Read"
		graph  = "https://graph.microsoft.com/User.Read"
		login  = "openid profile email offline_access "
	)
	for _, tc := range []struct {
		name                     string
		ask                      string // at the authorization endpoint
		redeem                   string // scope of the redemption
		code, number             string
		granted                  string
		refresh                  string // scope of a refresh after it
		code2, number2, granted2 string
	}{
		{name: "Graph by its short name", ask: login + "User.Read", granted: "User.Read openid profile email", refresh: "User.Read", granted2: "User.Read"},
		{name: "Graph by its long name", ask: login + graph, redeem: graph, granted: "User.Read openid profile email", refresh: "user.read", granted2: "user.read"},
		{name: "another API", ask: login + orders, granted: orders},
		{name: "two APIs and no word of which", ask: login + "User.Read " + orders, code: "invalid_request", number: "28003"},
		{name: "two APIs at the redemption", ask: login + "User.Read " + orders, redeem: "User.Read " + orders, code: "invalid_request", number: "28000"},
		{name: "two APIs, one after the other", ask: login + "User.Read " + orders, redeem: orders, granted: orders, refresh: "User.Read openid", granted2: "User.Read openid"},
		{name: "two APIs at a refresh", ask: login + "User.Read " + orders, redeem: "User.Read", granted: "User.Read openid profile email",
			refresh: "User.Read " + orders, code2: "invalid_request", number2: "28000"},
		{name: "no scope at a refresh: that of before", ask: login + "User.Read " + orders, redeem: orders, granted: orders, granted2: orders},
		{name: "nothing of any API", ask: login, granted: "openid profile email"},
		{name: "/.default beside another", ask: login + "User.Read", granted: "User.Read openid profile email", refresh: "api://orders/.default " + orders, code2: "invalid_scope", number2: "70011"},
		{name: "/.default beside another, redeemed", ask: login + "User.Read", redeem: "https://graph.microsoft.com/.default User.Read", code: "invalid_scope", number: "70011"},
		{name: "/.default of what was consented to", ask: login + orders, redeem: "api://orders/.default", granted: "api://orders/.default"},
		{name: "/.default of what was not", ask: login + orders, granted: orders, refresh: "api://other/.default", code2: "invalid_grant", number2: "65001"},
		{name: "no consent", ask: login + "User.Read", granted: "User.Read openid profile email", refresh: orders, code2: "invalid_grant", number2: "65001"},
		{name: "an API that is not there", ask: login + "User.Read", granted: "User.Read openid profile email", refresh: "api://gone/Read", code2: "invalid_resource", number2: "500011"},
		{name: "no scope of the API's", ask: login + "User.Read", granted: "User.Read openid profile email", refresh: "api://orders/Delete", code2: "invalid_client", number2: "650053"},
		{name: "an API by its other name", ask: login + "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation", granted: "user_impersonation",
			refresh: "https://app.vssps.visualstudio.com/user_impersonation", granted2: "user_impersonation"},
		{name: "Graph of another cloud, by the application's id", ask: login + "00000003-0000-0000-c000-000000000000/Mail.Read", redeem: "https://microsoftgraph.chinacloudapi.cn/mail.read",
			granted: "mail.read openid profile email"},
		{name: "an API that spells at length", ask: login + "https://mail.example.test/Send", granted: "api://mail/Send"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newEntraParty(t, func(b *Behaviour) {
				b.APIs = []API{
					{ID: "api://orders", Scopes: []string{"Read", "Write"}}, {ID: "api://other"},
					{ID: "499b84ac-1321-427f-aa17-267ca6975798", Names: []string{"https://app.vssps.visualstudio.com"}, Granted: SpellShort},
					{ID: "api://mail", Names: []string{"https://mail.example.test"}, Granted: SpellLong},
				}
			})
			pairs := []string{"grant_type", "authorization_code", "code", p.authorize("scope", tc.ask).Get("code"), "redirect_uri", p.url, "code_verifier", verifier}
			if tc.redeem != "" {
				pairs = append(pairs, "scope", tc.redeem)
			}
			_, body := p.post(pairs...)
			check := func(what string, body map[string]any, code, num, granted string) {
				t.Helper()
				switch {
				case code != "" && (body["error"] != code || number(body) != num):
					t.Errorf("%s: %v, want %s AADSTS%s", what, body, code, num)
				case code == "" && sorted(body["scope"]) != sorted(granted):
					t.Errorf("%s: scope %q, error %v %v; want %q", what, body["scope"], body["error"], body["error_description"], granted)
				}
			}
			check("redemption", body, tc.code, tc.number, tc.granted)
			if tc.refresh == "" && tc.granted2 == "" || tc.code != "" {
				return
			}
			pairs = []string{"grant_type", "refresh_token", "refresh_token", body["refresh_token"].(string)}
			if tc.refresh != "" {
				pairs = append(pairs, "scope", tc.refresh)
			}
			_, body = p.post(pairs...)
			check("refresh", body, tc.code2, tc.number2, tc.granted2)
		})
	}
}

// Graph, too, can be told to spell its scopes at length, by a cloud's own name.
func TestEntraGraphAtLength(t *testing.T) {
	p := newEntraParty(t, func(b *Behaviour) {
		b.APIs = []API{{ID: "https://microsoftgraph.chinacloudapi.cn", Granted: SpellLong}}
	})
	_, body := p.redeem(p.authorize("scope", "openid Mail.Read").Get("code"))
	if got := sorted(body["scope"]); got != "https://microsoftgraph.chinacloudapi.cn/Mail.Read openid" {
		t.Errorf("granted %q", got)
	}
}

// What is wrong with a scope is said at the authorization endpoint already.
func TestEntraRefusesScopesAtOnce(t *testing.T) {
	p := newEntraParty(t, func(b *Behaviour) { b.APIs = []API{{ID: "api://orders", Scopes: []string{"Read"}}} })
	for scope, want := range map[string]string{
		"openid api://orders/Read User.Read":                    "",
		"openid api://gone/Read":                                "invalid_resource",
		"openid api://orders/Write":                             "invalid_client",
		"openid https://graph.microsoft.com/.default User.Read": "invalid_scope",
		"openid offline_access api://orders/.default":           "",
		"openid https://graph.microsoft.us/User.Read":           "",
		"openid 00000003-0000-0000-c000-000000000000/Mail.Read": "",
	} {
		if got := p.authorize("scope", scope).Get("error"); got != want {
			t.Errorf("%s: error %q, want %q", scope, got, want)
		}
	}
}

func TestEntraApplicationTokens(t *testing.T) {
	p := newEntraParty(t, nil)
	for scope, want := range map[string]string{
		"https://graph.microsoft.com/.default": "",
		"api://orders/Read":                    "1002012",
		"":                                     "1002012",
		"https://graph.microsoft.com/.default api://orders/.default": "28000",
	} {
		if _, body := p.post("grant_type", "client_credentials", "scope", scope); number(body) != want {
			t.Errorf("%q: %v, want %q", scope, body, want)
		}
	}
	if _, body := p.post("grant_type", "client_credentials", "scope", "api://orders/.default", "resource", "api://orders"); number(body) != "901002" {
		t.Errorf("with a resource: %v", body)
	}
}

// An application with a signing key of its own has it under ?appid= only.
func TestEntraOwnKey(t *testing.T) {
	p := newEntraParty(t, func(b *Behaviour) { b.Clients[0].OwnKey = true })
	get := func(url string) map[string]any {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		_, body := do(t, p.issuer.Client(), req)
		return body
	}
	token, err := parseJWT(p.authorize().Get("id_token"))
	if err != nil {
		t.Fatal(err)
	}
	published := func(uri string) bool {
		return slices.ContainsFunc(get(uri)["keys"].([]any), func(k any) bool { return k.(map[string]any)["kid"] == token.header["kid"] })
	}
	discovery := p.issuer.EndpointURL(EndpointDiscovery)
	if uri := get(discovery)["jwks_uri"].(string); strings.Contains(uri, "?") || published(uri) || published(uri+"?appid=other") {
		t.Errorf("%s has the application's own key", uri)
	}
	if uri := get(discovery + "?appid=client")["jwks_uri"].(string); !strings.HasSuffix(uri, "?appid=client") || !published(uri) {
		t.Errorf("%s lacks the application's own key", uri)
	}
}

// An authentication context is asked for by claims, and acr_values is not read.
func TestEntraAuthenticationContext(t *testing.T) {
	const want = `{"id_token":{"acrs":{"essential":true,"value":"c1"}},"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	p := newEntraParty(t, nil)
	for _, pairs := range [][]string{{"acr_values", "c1"}, {"claims", want}} {
		answer := p.authorize(append(pairs, "scope", "openid offline_access User.Read")...)
		token, err := parseJWT(answer.Get("id_token"))
		if err != nil {
			t.Fatal(err)
		}
		named, _ := token.claims["acrs"].([]any)
		asked := pairs[0] == "claims"
		if got := slices.Contains(named, any("c1")); got != asked || token.claims["acr"] != nil {
			t.Errorf("asked by %s: acrs %v, acr %v", pairs[0], token.claims["acrs"], token.claims["acr"])
		}
		_, first := p.redeem(answer.Get("code"))
		_, body := p.post("grant_type", "refresh_token", "refresh_token", first["refresh_token"].(string), "claims", want)
		if got := body["access_token"] != nil; got != asked || !asked && (body["error"] != "interaction_required" || body["claims"] != want) {
			t.Errorf("asked by %s, then refreshed: %v", pairs[0], body)
		}
	}
}
