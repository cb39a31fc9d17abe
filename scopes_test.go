package signin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/signintest"
)

const (
	ordersRead  = "api://orders/Read"
	ordersWrite = "api://orders/Write"
	ordersAll   = "api://orders/.default"
)

// apiSite is a site at Entra, which refuses token requests for several APIs. Its
// page /orders needs scopes of two, and carol signs in to it.
func apiSite(t *testing.T, siteScopes []string, behave func(*signintest.Behaviour)) *app {
	t.Helper()
	a := newApp(t, entraApp(Entra(EntraGlobal, contoso), func(c *Config) { c.Scopes = siteScopes }), func(o *appOptions) {
		entra := o.behaviour
		o.behaviour = func(b *signintest.Behaviour) {
			entra(b)
			b.User = "carol"
			if behave != nil {
				behave(b)
			}
		}
	})
	a.mux.Handle("/orders", a.Require(Requirement{Scopes: []string{"Mail.Read", ordersRead}})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, scope := range []string{"mail.read", ordersRead} {
			token, err := TokenSource(r.Context(), scope).Token()
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			w.Write([]byte(token.AccessToken + " "))
		}
	})))
	return a
}

// oneAPIEach checks that no token request of carol's was refused, and so that each
// named scopes of one API.
func (a *app) oneAPIEach() {
	a.t.Helper()
	for _, c := range a.issuer.Calls(signintest.EndpointToken) {
		apis := map[string]bool{}
		for _, s := range strings.Fields(c.Form.Get("scope")) {
			if i := strings.LastIndexByte(s, '/'); i >= 0 {
				apis[s[:i]] = true
			} else if !slices.Contains([]string{"openid", "profile", "email", "offline_access"}, s) {
				apis["https://graph.microsoft.com"] = true
			}
		}
		if len(apis) > 1 || c.Form.Get("scope") == "" {
			a.t.Errorf("a token request (%s) for scope %q, want that of one API", c.GrantType, c.Form.Get("scope"))
		}
	}
}

// scopesOf are the scopes of the token that a page shows, the sign-in's aside; or
// what the page says instead.
func (a *app) scopesOf(p *signintest.Page) string {
	info, ok := a.issuer.TokenInfo(strings.TrimSpace(p.Body))
	if p.Status != http.StatusOK || !ok || !info.Active {
		return fmt.Sprintf("%.100s", p.Body)
	}
	api := slices.DeleteFunc(slices.Clone(info.Scopes), func(s string) bool {
		return s == "openid" || s == "profile" || s == "email" || s == "offline_access"
	})
	return strings.Join(api, " ")
}

// Whatever APIs the site and the page name, one trip signs in, each token
// request is for one API, and the other's token comes without the user.
func TestScopesOfSeveralAPIs(t *testing.T) {
	get := func(scopes ...string) string { return "/token?" + url.Values{"scope": scopes}.Encode() }
	for _, tc := range []struct {
		name  string
		site  []string
		page  string
		trips int
		want  string // scopes of the page's token
		none  string // of a token for no scopes, afterwards
	}{
		{"one API", []string{"User.Read"}, get(), 1, "User.Read", "User.Read"},
		{"none", nil, get(), 1, "", ""},
		{"the page's is another", []string{"User.Read"}, get(ordersRead), 1, ordersRead, "User.Read"},
		{"the page alone names one", nil, get(ordersRead), 1, ordersRead, ""},
		{"the site's are of two", []string{"User.Read", ordersRead}, get(), 1, "User.Read", "User.Read"},
		{"the site's are of two, the second asked for", []string{"User.Read", ordersRead}, get(ordersRead), 1, ordersRead, "User.Read"},
		{"the site's first is no Graph's", []string{ordersRead, "User.Read"}, get("email", "user.read"), 1, "user.read", ordersRead},
		{"more of the same", []string{"User.Read"}, get("https://graph.microsoft.com/Mail.Read"), 1, "User.Read https://graph.microsoft.com/Mail.Read", "User.Read https://graph.microsoft.com/Mail.Read"},
		{"email, and another API", []string{"User.Read"}, get("email", ordersRead), 1, ordersRead, "User.Read"},
		{"all of the site's API", []string{"User.Read"}, get("https://graph.microsoft.com/.default"), 1, "https://graph.microsoft.com/.default", "User.Read"},
		{"all of another API", []string{"User.Read"}, get(ordersAll), 2, ordersAll, "User.Read"},
		{"the site's .default, and another API", []string{"https://graph.microsoft.com/.default"}, get(ordersRead), 2, ordersRead, "https://graph.microsoft.com/.default"},
		{"the site's .default, and one of it", []string{"https://graph.microsoft.com/.default"}, get("User.Read"), 2, "User.Read", "https://graph.microsoft.com/.default"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := apiSite(t, tc.site, func(b *signintest.Behaviour) { b.Consented = []string{"https://graph.microsoft.com/.default"} })
			b := a.browser()
			p := b.Open(a.url + tc.page)
			if got := a.scopesOf(p); p.Status != http.StatusOK || got != tc.want {
				t.Errorf("%d, a token for %q, want %q; %s", p.Status, got, tc.want, lastCause(a))
			}
			for range 2 { // now, and when all tokens have expired
				if got := a.scopesOf(b.Open(a.url + get())); got != tc.none {
					t.Errorf("a token for no scopes is for %q, want %q", got, tc.none)
				}
				if p := b.Open(a.url + tc.page); p.Status != http.StatusOK {
					t.Errorf("again: %d %.200s", p.Status, p.Body)
				}
				a.clock.advance(2 * time.Hour)
			}
			if n := a.issuer.Count(signintest.EndpointAuthorize); n != tc.trips {
				t.Errorf("%d visits to the issuer, want %d", n, tc.trips)
			}
			a.oneAPIEach()
		})
	}
}

// A page that needs two APIs has both after one trip, and when the tokens have
// expired without any.
func TestRequireScopesOfTwoAPIs(t *testing.T) {
	for name, already := range map[string]bool{"nobody signed in": false, "somebody signed in": true} {
		t.Run(name, func(t *testing.T) {
			a := apiSite(t, []string{"User.Read"}, nil)
			b := a.browser()
			trips := 1
			if already {
				b.Open(a.url + "/me")
				trips++
			}
			for range 3 {
				p := b.Open(a.url + "/orders")
				tokens := strings.Fields(p.Body)
				if p.Status != http.StatusOK || len(tokens) != 2 {
					t.Fatalf("%d %.300s; %s", p.Status, p.Body, lastCause(a))
				}
				mail, _ := a.issuer.TokenInfo(tokens[0])
				orders, _ := a.issuer.TokenInfo(tokens[1])
				if !mail.Active || !orders.Active || !slices.Contains(mail.Scopes, "Mail.Read") || !slices.Contains(orders.Scopes, ordersRead) {
					t.Errorf("tokens for %q and %q", mail.Scopes, orders.Scopes)
				}
				a.clock.advance(2 * time.Hour)
			}
			if n := a.issuer.Count(signintest.EndpointAuthorize); n != trips {
				t.Errorf("%d visits to the issuer, want %d", n, trips)
			}
			a.oneAPIEach()
		})
	}
}

// No token is for two APIs: to ask for one is a mistake in the program, and
// nothing is sent because of it.
func TestTokenOfTwoAPIs(t *testing.T) {
	a := apiSite(t, []string{"User.Read"}, nil)
	b := a.browser()
	b.Open(a.url + "/me")
	before := a.issuer.Count(signintest.EndpointToken)
	p := b.Open(a.url + "/token?scope=User.Read&scope=" + ordersRead)
	if p.Status != http.StatusBadGateway || !strings.Contains(p.Body, "several APIs") {
		t.Errorf("%d %.300s, want an error that names the mistake", p.Status, p.Body)
	}
	_, err := a.AppTokenSource("https://graph.microsoft.com/.default", ordersAll).Token()
	if err == nil || !strings.Contains(err.Error(), "several APIs") {
		t.Errorf("the application's own: %v", err)
	}
	if n := a.issuer.Count(signintest.EndpointToken) - before; n != 0 {
		t.Errorf("%d token requests, want none", n)
	}
	if token, err := a.AppTokenSource(ordersAll).Token(); err != nil || token.AccessToken == "" {
		t.Errorf("the application's own for one API: %v", err)
	}
}

// Entra spells what it grants its own way, and a refusal is still a refusal.
func TestGrantedScopesSpelled(t *testing.T) {
	const devOps = "499b84ac-1321-427f-aa17-267ca6975798"
	for _, tc := range []struct {
		cloud  Cloud
		asked  string
		answer string // empty: as the issuer spells it
		want   int
	}{
		{EntraGlobal, devOps + "/user_impersonation", "", http.StatusOK},
		{EntraGlobal, "https://app.vssps.visualstudio.com/user_impersonation", "", http.StatusOK},
		{EntraGlobal, "https://mail.example.test/Send", "", http.StatusOK}, // granted as api://mail/Send
		{EntraUSGovernment, "https://graph.microsoft.us/Mail.Read", "Mail.Read", http.StatusOK},
		{EntraUSGovernment, "https://dod-graph.microsoft.us/Mail.Read", "https://graph.microsoft.us/Mail.Read", http.StatusOK},
		{EntraChina, "Mail.Read", "https://microsoftgraph.chinacloudapi.cn/Mail.Read", http.StatusOK},
		{EntraGlobal, "https://graph.microsoft.com/mail.read", "Mail.Read", http.StatusOK},
		{EntraGlobal, "00000003-0000-0000-c000-000000000000/Mail.Read", "Mail.Read", http.StatusOK},
		{EntraGlobal, "API://Orders/read", "api://orders/Read", http.StatusOK},
		{EntraGlobal, ordersWrite, ordersRead, http.StatusForbidden},
		{EntraGlobal, ordersWrite, "Read", http.StatusForbidden},
		{EntraGlobal, "Mail.Send", "Mail.Read", http.StatusForbidden},
	} {
		t.Run(tc.asked+" as "+tc.answer, func(t *testing.T) {
			a := newApp(t, entraApp(Entra(tc.cloud, contoso), nil))
			a.issuer.Update(func(b *signintest.Behaviour) {
				b.User = "carol"
				b.APIs = []signintest.API{
					{ID: "api://orders"},
					{ID: devOps, Names: []string{"https://app.vssps.visualstudio.com"}, Granted: signintest.SpellShort},
					{ID: "api://mail", Names: []string{"https://mail.example.test"}, Granted: signintest.SpellLong},
				}
				b.EditTokenResponse = func(c signintest.Call, body map[string]any) {
					if strings.Contains(c.Form.Get("scope"), tc.asked) && tc.answer != "" {
						body["scope"] = "openid profile " + tc.answer
					}
				}
			})
			b := a.browser()
			b.Open(a.url + "/me")
			page := a.url + "/token?scope=" + url.QueryEscape(tc.asked)
			if p := b.Open(page); p.Status != tc.want {
				t.Fatalf("%d, want %d; %s", p.Status, tc.want, lastCause(a))
			}
			if tc.want != http.StatusOK {
				return
			}
			before := a.issuer.Count(signintest.EndpointToken)
			if p := b.Open(page); p.Status != http.StatusOK || a.issuer.Count(signintest.EndpointToken) != before {
				t.Errorf("the token is not found again: %d", p.Status)
			}
		})
	}
}

// The family of an issuer at a domain of the customer's own shows in what it calls
// itself, and the rules about APIs hold there, too.
func TestScopesAtOwnDomain(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = ExternalID("login.contoso.example", signintest.ProfileTenant)
		o.behaviour = signintest.ExternalID
		o.config = func(c *Config) { c.Scopes = []string{"User.Read"} }
	})
	b := a.browser()
	for range 2 {
		if got := a.scopesOf(b.Open(a.url + "/token?scope=" + ordersRead)); got != ordersRead {
			t.Errorf("a token for %q; %s", got, lastCause(a))
		}
		if got := a.scopesOf(b.Open(a.url + "/token")); got != "User.Read" {
			t.Errorf("a token for no scopes is for %q", got)
		}
		a.clock.advance(2 * time.Hour)
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 1 {
		t.Errorf("%d visits to the issuer, want 1", n)
	}
	a.oneAPIEach()
}

// A user flow of Azure AD B2C refuses scopes of two APIs before anybody signs in.
func TestScopesAtB2C(t *testing.T) {
	const read, other = "https://contoso.onmicrosoft.com/orders/read", "https://contoso.onmicrosoft.com/mail/read"
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = "https://contoso.b2clogin.com/tfp/" + contoso + "/b2c_1_signin/v2.0/"
		o.behaviour = func(b *signintest.Behaviour) {
			signintest.B2C(b)
			b.IssuerName = ""
			b.Consented = []string{other}
		}
		o.config = func(c *Config) { c.Scopes = []string{read} }
	})
	b := a.browser()
	if p := b.Open(a.url + "/token?scope=" + url.QueryEscape(other)); a.scopesOf(p) != other {
		t.Errorf("%d %.300s; %s", p.Status, a.scopesOf(p), lastCause(a))
	}
	if got := a.scopesOf(b.Open(a.url + "/token")); got != read {
		t.Errorf("a token for no scopes is for %q", got)
	}
}

// A scope that the issuer does not know, or that would do harm there, is asked for
// by default neither at the sign-in nor at a refresh, nor where a refresh has
// brought less than was granted before and names the rest.
func TestNamedScopesHeedDiscovery(t *testing.T) {
	for name, behave := range map[string]func(*signintest.Behaviour){
		"not announced": func(b *signintest.Behaviour) {
			b.Scopes, b.RefreshAlways = []string{"openid", "profile", "api.read", "Mail.Read"}, true
		},
		"an offline session": signintest.Keycloak,
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.issuerURL, o.behaviour = "https://sso.example.test/realms/acme", behave
			})
			b := a.signIn()
			for range 3 {
				for _, scope := range []string{"api.read", "Mail.Read"} {
					if p := b.Open(a.url + "/token?scope=" + scope); p.Status != http.StatusOK {
						t.Fatalf("%d %.300s; %s", p.Status, p.Body, lastCause(a))
					}
				}
				a.clock.advance(2 * time.Hour)
			}
			named := false
			for _, c := range slices.Concat(a.issuer.Calls(signintest.EndpointAuthorize), a.issuer.Calls(signintest.EndpointToken)) {
				scope := c.Form.Get("scope")
				named = named || c.GrantType == "refresh_token" && scope != ""
				if strings.Contains(scope, "offline_access") {
					t.Errorf("%s %s asks for %q", c.Endpoint, c.GrantType, scope)
				}
			}
			if !named {
				t.Error("no refresh has named scopes: this test shows nothing")
			}
		})
	}
}
