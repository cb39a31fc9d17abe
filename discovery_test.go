package signin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// TestOddDiscovery: what a sign-in can do without does not stop one. It counts
// as absent, and the log names it.
func TestOddDiscovery(t *testing.T) {
	set := func(name string, value any) func(map[string]any) {
		return func(doc map[string]any) { doc[name] = value }
	}
	for _, tc := range []struct {
		name  string
		edit  func(map[string]any)
		named string // in the log; empty: nothing to say
	}{
		{"end_session_endpoint over http", set("end_session_endpoint", "http://login.example.test/logout"), "end_session_endpoint"},
		{"end_session_endpoint relative", set("end_session_endpoint", "/logout"), "end_session_endpoint"},
		{"end_session_endpoint with a fragment", set("end_session_endpoint", "https://login.example.test/#/logout"), "end_session_endpoint"},
		{"end_session_endpoint a list", set("end_session_endpoint", []string{"https://login.example.test/logout"}), "end_session_endpoint"},
		{"end_session_endpoint endless", set("end_session_endpoint", "https://login.example.test/"+strings.Repeat("x", 5000)), "end_session_endpoint"},
		{"end_session_endpoint a script", set("end_session_endpoint", "javascript:alert(1)"), "end_session_endpoint"},
		{"end_session_endpoint null", set("end_session_endpoint", nil), ""},
		{"end_session_endpoint empty", set("end_session_endpoint", ""), ""},
		{"revocation_endpoint not available", set("revocation_endpoint", "N/A"), "revocation_endpoint"},
		{"revocation_endpoint over http", set("revocation_endpoint", "http://login.example.test/revoke"), "revocation_endpoint"},
		{"revocation_endpoint a template", set("revocation_endpoint", "https://{host}/revoke"), "revocation_endpoint"},
		{"revocation_endpoint false", set("revocation_endpoint", false), "revocation_endpoint"},
		{"authentication methods a string", set("token_endpoint_auth_methods_supported", "client_secret_post"), ""},
		{"authentication methods an object", set("token_endpoint_auth_methods_supported", map[string]any{}), "token_endpoint_auth_methods_supported"},
		{"authentication methods odd", set("token_endpoint_auth_methods_supported", []any{nil, 1, "client_secret_basic"}), ""},
		{"authentication algorithms a number", set("token_endpoint_auth_signing_alg_values_supported", 256), "token_endpoint_auth_signing_alg_values_supported"},
		{"algorithms odd", set("id_token_signing_alg_values_supported", []any{1, nil, "XX256", "none", "HS256", "RS256"}), ""},
		{"algorithms a string", set("id_token_signing_alg_values_supported", "RS256"), ""},
		{"iss announced in words", set("authorization_response_iss_parameter_supported", "yes"), "authorization_response_iss_parameter_supported"},
		{"iss announced as text", set("authorization_response_iss_parameter_supported", "true"), ""},
		{"scopes a number", set("scopes_supported", 7), "scopes_supported"},
		{"scopes empty", set("scopes_supported", []string{}), ""},
		{"response types a number", set("response_types_supported", 7), "response_types_supported"},
		{"response types empty", set("response_types_supported", []any{}), ""},
		{"response types in another order", set("response_types_supported", []string{"id_token code", "code"}), ""},
		{"response modes an object", set("response_modes_supported", map[string]any{}), "response_modes_supported"},
		{"response modes null", set("response_modes_supported", nil), ""},
		{"grants a number", set("grant_types_supported", 7), "grant_types_supported"},
		{"PKCE a boolean", set("code_challenge_methods_supported", true), "code_challenge_methods_supported"},
		{"push required in words", set("require_pushed_authorization_requests", "no"), "require_pushed_authorization_requests"},
		{"push not required, as text", set("require_pushed_authorization_requests", "false"), ""},
		{"certificate-bound tokens on offer", set("tls_client_certificate_bound_access_tokens", true), ""},
		{"request URIs registered", set("require_request_uri_registration", true), ""},
		{"what nobody reads", func(doc map[string]any) {
			for _, name := range []string{"userinfo_endpoint", "registration_endpoint", "acr_values_supported", "ui_locales_supported", "claims_supported", "Issuer", "TOKEN_ENDPOINT"} {
				doc[name] = 7
			}
		}, ""},
	} {
		for _, typ := range []string{typeHybrid, typeCode} {
			t.Run(tc.name+", "+typ, func(t *testing.T) {
				a := newApp(t, func(o *appOptions) {
					o.behaviour = func(b *signintest.Behaviour) { b.EditDiscovery = tc.edit }
					o.config = func(c *Config) { c.ResponseType = typ }
				})
				b := a.browser()
				if got := a.subject(b); got != "alice" {
					t.Fatalf("signed in as %q, want alice\n%s", got, a.log)
				}
				said := logLines(t, a, "signin: issuer failing")
				if tc.named == "" && len(said) > 0 || tc.named != "" && (len(said) != 1 || !strings.Contains(fmt.Sprint(said[0]["cause"]), tc.named)) {
					t.Errorf("the log says %v, want one line that names %q", said, tc.named)
				}
				// Whoever signs out is signed out, and goes nowhere odd.
				r := &signintest.Request{Method: http.MethodPost, URL: a.url + "/signout", From: a.url + "/", Activated: true}
				if p := b.Send(r); p.Status != http.StatusSeeOther || strings.Contains(tc.name, "end_session") && p.Header.Get("Location") != "/" {
					t.Errorf("sign-out: %d to %q", p.Status, p.Header.Get("Location"))
				}
			})
		}
	}
}

// An issuer that announces iss as text sends it: without it a code is refused.
func TestIssAnnouncedAsText(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.OmitIss = true
			b.EditDiscovery = func(doc map[string]any) { doc["authorization_response_iss_parameter_supported"] = "true" }
		}
		o.config = func(c *Config) { c.ResponseType = typeCode }
	})
	wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
}

// TestDiscoveryLabels: the document counts for what it says, not for how it is
// labelled.
func TestDiscoveryLabels(t *testing.T) {
	for name, edit := range map[string]func(*signintest.Answer){
		"no type":        func(a *signintest.Answer) { a.Header["Content-Type"] = nil },
		"text/plain":     func(a *signintest.Answer) { a.Header.Set("Content-Type", "text/plain; charset=utf-8") },
		"text/html":      func(a *signintest.Answer) { a.Header.Set("Content-Type", "text/html") },
		"JWK set":        func(a *signintest.Answer) { a.Header.Set("Content-Type", "application/jwk-set+json") },
		"no type at all": func(a *signintest.Answer) { a.Header.Set("Content-Type", "%%") },
		"byte order mark": func(a *signintest.Answer) {
			a.Body = append([]byte("\ufeff"), a.Body...)
		},
		"space around": func(a *signintest.Answer) { a.Body = []byte("\r\n " + string(a.Body) + "\n\n") },
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t)
			a.issuer.Fail(signintest.EndpointDiscovery, signintest.Fault{Edit: edit})
			a.issuer.Fail(signintest.EndpointKeys, signintest.Fault{Edit: edit})
			if got := a.subject(a.browser()); got != "alice" {
				t.Errorf("signed in as %q, want alice\n%s", got, a.log)
			}
		})
	}
}
