package signin

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

const someTenant = "11111111-1111-1111-1111-111111111111"

// entra is an application at a tenant of Entra's.
func entra(edit func(*Config)) func(*appOptions) {
	return func(o *appOptions) {
		o.issuerURL = Entra(EntraGlobal, someTenant)
		o.behaviour = func(b *signintest.Behaviour) {
			b.Entra = true
			b.Users = []signintest.User{{Subject: "alice", TenantID: someTenant, ObjectID: "c0000000-0000-0000-0000-000000000000"}}
		}
		o.config = edit
	}
}

// What an API's 401 carries wins over what its error is called: Azure Resource
// Manager calls its claims challenge invalid_token. A token without the claims
// would not do, however new it is.
func TestClaimsWhateverTheError(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}`
	encoded := base64.StdEncoding.EncodeToString([]byte(claims))
	quoted := strings.ReplaceAll(claims, `"`, `\"`)
	for name, headers := range map[string][]string{
		"Azure Resource Manager":  {`Bearer authorization_uri="https://login.windows.net/", error="invalid_token", error_description="User session has been revoked", claims="` + encoded + `"`},
		"insufficient_claims":     {`Bearer error="insufficient_claims", claims="` + encoded + `"`},
		"another error":           {`Bearer error="interaction_required", claims="` + encoded + `"`},
		"no error":                {`Bearer realm="", claims="` + encoded + `"`},
		"no padding, URL-safe":    {`Bearer error="invalid_token", claims="` + base64.RawURLEncoding.EncodeToString([]byte(claims)) + `"`},
		"as JSON":                 {`Bearer error="invalid_token", claims="` + quoted + `"`},
		"behind another Bearer":   {`Bearer error="invalid_token"`, `Bearer error="insufficient_claims", claims="` + encoded + `"`},
		"behind another scheme":   {`PoP error="invalid_token", Bearer error="invalid_token", claims="` + encoded + `"`},
		"RFC 9470's, with claims": {`Bearer error="insufficient_user_authentication", claims="` + encoded + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, entra(func(c *Config) { c.ClientCapabilities = []string{"cp1"} }))
			api := a.net.Serve("https://management.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				info, _ := a.issuer.TokenInfo(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
				if !strings.Contains(info.Claims, "1603742800") {
					w.Header()["Www-Authenticate"] = headers
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				fmt.Fprint(w, "subscriptions")
			}))
			client := &http.Client{Transport: &Transport{Base: a.net.Client().Transport}}
			a.mux.HandleFunc("/api", func(w http.ResponseWriter, r *http.Request) {
				req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, api, http.NoBody)
				resp, err := client.Do(req)
				if a.Challenge(w, r, err) {
					return
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadGateway)
					return
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				fmt.Fprintf(w, "%d %s", resp.StatusCode, body)
			})
			b := a.signIn()
			challenges := a.issuer.Count(signintest.EndpointAuthorize)
			if p := b.Open(a.url + "/api"); p.Body != "200 subscriptions" {
				t.Errorf("%d %.300s, want the API's answer", p.Status, p.Body)
			}
			if n := a.issuer.Count(signintest.EndpointAuthorize) - challenges; n != 0 || a.refreshed() != 1 {
				t.Errorf("%d challenges and %d refreshes, want one refresh", n, a.refreshed())
			}
		})
	}
}

// At Entra an authentication context is asked for by a claims request, which
// leaves what else was asked for as it is, and is found in the claim acrs.
func TestEntraAuthenticationContext(t *testing.T) {
	for _, begin := range []func(*app) *signintest.Browser{(*app).signIn, (*app).browser} {
		a := newApp(t, entra(func(c *Config) {
			c.ClientCapabilities = []string{"cp1"}
			c.AuthParams = map[string][]string{"claims": {`{"userinfo":{"given_name":null}}`}}
		}))
		a.handle("/c7", Requirement{ACR: []string{"c7"}})
		a.handle("/either", Requirement{ACR: []string{"c7", "c8", "mfa"}})
		a.handle("/c9", Requirement{ACR: []string{"c9"}})
		b := begin(a)
		before := a.issuer.Count(signintest.EndpointAuthorize)
		if p := b.Open(a.url + "/c7"); p.Body != "in" {
			t.Fatalf("%d %.300s\n%s", p.Status, p.Body, a.log)
		}
		form := a.issuer.LastCall(signintest.EndpointAuthorize).Form
		if want := `{"access_token":{"xms_cc":{"values":["cp1"]}},"id_token":{"acrs":{"essential":true,"value":"c7"}},"userinfo":{"given_name":null}}`; form.Get("claims") != want || form.Has("acr_values") {
			t.Errorf("claims %s, want %s; acr_values %q", form.Get("claims"), want, form.Get("acr_values"))
		}
		if p := b.Open(a.url + "/either"); p.Body != "in" || a.issuer.Count(signintest.EndpointAuthorize) != before+1 {
			t.Errorf("what the sign-in had already: %d after %d challenges", p.Status, a.issuer.Count(signintest.EndpointAuthorize)-before)
		}
		// A tenant that does not give the context.
		a.issuer.Update(func(x *signintest.Behaviour) {
			x.EditIDToken = func(token *signintest.IDToken) { delete(token.Claims, "acrs") }
		})
		before = a.issuer.Count(signintest.EndpointAuthorize)
		if p := b.Open(a.url + "/c9"); p.Status != http.StatusForbidden || !strings.Contains(p.Body, "acr c9") {
			t.Errorf("%d %.300s", p.Status, p.Body)
		}
		if n := a.issuer.Count(signintest.EndpointAuthorize) - before; n != 1 {
			t.Errorf("%d challenges for what is not given, want 1", n)
		}
		p := b.Open(a.url + "/either")
		form = a.issuer.LastCall(signintest.EndpointAuthorize).Form
		if !strings.Contains(form.Get("claims"), `"acrs":{"essential":true,"values":["c7","c8"]}`) || form.Get("acr_values") != "mfa" {
			t.Errorf("%d; claims %s, acr_values %q", p.Status, form.Get("claims"), form.Get("acr_values"))
		}
	}
}

// Elsewhere acrs is a claim like any other, which a user may have chosen.
func TestContextsAreEntras(t *testing.T) {
	for name, claims := range map[string]map[string]any{
		"no tenant":      {"acrs": []string{"c1"}},
		"a tenant's id":  {"acrs": []string{"c1"}, "tid": someTenant},
		"one, as a text": {"acrs": "c1"},
	} {
		a := newApp(t, func(o *appOptions) {
			o.behaviour = func(b *signintest.Behaviour) {
				b.EditIDToken = func(token *signintest.IDToken) {
					delete(token.Claims, "acr")
					for n, v := range claims {
						token.Claims[n] = v
					}
				}
			}
		})
		a.handle("/c1", Requirement{ACR: []string{"c1"}})
		if p := a.browser().Open(a.url + "/c1"); p.Status != http.StatusForbidden {
			t.Errorf("%s: %d %.100s", name, p.Status, p.Body)
		}
		if form := a.issuer.LastCall(signintest.EndpointAuthorize).Form; form.Get("acr_values") != "c1" || form.Has("claims") {
			t.Errorf("%s: acr_values %q, claims %q", name, form.Get("acr_values"), form.Get("claims"))
		}
	}
}
