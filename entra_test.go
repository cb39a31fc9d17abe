package signin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/signintest"
)

// Issuers as Microsoft documents them: v2.0 tokens name the host one signs in
// at, v1.0 tokens a token service, which the US Government cloud shares with
// the global one.
const (
	global = "https://login.microsoftonline.com/"
	usGov  = "https://login.microsoftonline.us/"
	china  = "https://login.partner.microsoftonline.cn/"
	sts    = "https://sts.windows.net/"
	stsCN  = "https://sts.chinacloudapi.cn/"
	bleu   = "https://login.sovcloud-identity.fr/"
	b2c    = "https://contoso.b2clogin.com/"
)

// ciam is how External ID calls a tenant, whatever host one signs in at.
func ciam(tenant string) string { return "https://" + tenant + ".ciamlogin.com/" + tenant + "/v2.0" }

func TestIssuerRule(t *testing.T) {
	const tmpl = family.TenantTemplate
	type token struct{ iss, tid string }
	v1, v2 := func(host, tenant string) token { return token{host + tenant + "/", tenant} },
		func(host, tenant string) token { return token{host + tenant + "/v2.0", tenant} }
	for _, tc := range []struct {
		name                   string
		configured, documented string
		tenants                []string
		good, refused          []token // refused: the tenant is not admitted
		bad                    []token // another issuer, or lies
	}{
		{
			name: "an ordinary issuer", configured: "https://login.example.com", documented: "https://login.example.com",
			good: []token{{"https://login.example.com", ""}, {"https://login.example.com", "whatever"}},
			bad:  []token{{"https://login.example.com/", ""}, {"https://evil.example", ""}, {"", ""}},
		},
		{
			name: "single tenant by id", configured: global + contoso + "/v2.0", documented: global + contoso + "/v2.0",
			good: []token{v2(global, contoso), v1(sts, contoso)},
			bad: []token{v2(global, fabrikam), v1(sts, fabrikam), {global + contoso + "/v2.0", fabrikam}, {global + contoso + "/v2.0", ""},
				v2(usGov, contoso), v2(china, contoso), v1(global, contoso), {global + fabrikam + "/v2.0", contoso}},
		},
		{
			name: "single tenant by id in capitals", configured: global + strings.ToUpper(fabrikam) + "/v2.0", documented: global + fabrikam + "/v2.0",
			good: []token{v2(global, fabrikam)}, bad: []token{v2(global, contoso), {global + fabrikam + "/v2.0", strings.ToUpper(fabrikam)}},
		},
		{
			name: "single tenant by domain name", configured: global + "contoso.onmicrosoft.com/v2.0", documented: global + contoso + "/v2.0",
			good: []token{v2(global, contoso), v1(sts, contoso)}, bad: []token{v2(global, fabrikam), {global + "contoso.onmicrosoft.com/v2.0", contoso}},
		},
		{
			name: "single tenant, v1.0", configured: global + contoso, documented: sts + contoso + "/",
			good: []token{v1(sts, contoso), v2(global, contoso)}, bad: []token{v1(sts, fabrikam), {sts + contoso, contoso}},
		},
		{
			name: "single tenant, by the token service", configured: sts + contoso + "/", documented: sts + contoso + "/",
			good: []token{v1(sts, contoso)}, bad: []token{v1(sts, fabrikam)},
		},
		{
			name: "common", configured: global + "common/v2.0", documented: global + tmpl + "/v2.0",
			good: []token{v2(global, contoso), v2(global, fabrikam), v2(global, family.PersonalTenant), v1(sts, contoso)},
			bad: []token{{global + contoso + "/v2.0", fabrikam}, {global + tmpl + "/v2.0", tmpl}, {global + "common/v2.0", "common"}, {global + contoso + "/v2.0", ""},
				{"https://evil.example/" + contoso + "/v2.0", contoso}, v2(usGov, contoso), {global + contoso + "/v2.0/", contoso},
				{global + contoso + "/v2.0", contoso + "/"}, {global + "x/" + contoso + "/v2.0", "x/" + contoso}},
		},
		{
			name: "common, v1.0, with a slash", configured: global + "common/", documented: sts + tmpl + "/",
			good: []token{v1(sts, contoso), v2(global, contoso)}, bad: []token{{sts + contoso + "/", fabrikam}},
		},
		{
			name: "common under an older name", configured: "https://login.windows.net/common", documented: sts + tmpl + "/",
			good: []token{v1(sts, contoso)}, bad: []token{v2("https://login.windows.net/", contoso)},
		},
		{
			name: "organizations", configured: global + "organizations/v2.0", documented: global + tmpl + "/v2.0",
			good: []token{v2(global, contoso), v2(global, fabrikam)}, refused: []token{v2(global, family.PersonalTenant)},
		},
		{
			name: "consumers, as documented", configured: global + "consumers/v2.0", documented: global + family.PersonalTenant + "/v2.0",
			good: []token{v2(global, family.PersonalTenant)}, bad: []token{v2(global, contoso), {global + family.PersonalTenant + "/v2.0", contoso}},
		},
		{
			name: "consumers, with the template", configured: global + "consumers/v2.0", documented: global + tmpl + "/v2.0",
			good: []token{v2(global, family.PersonalTenant)}, refused: []token{v2(global, contoso)},
		},
		{
			name: "an allow-list", configured: global + "common/v2.0", documented: global + tmpl + "/v2.0",
			tenants: []string{strings.ToUpper(contoso), family.PersonalTenant},
			good:    []token{v2(global, contoso), v1(sts, contoso), v2(global, family.PersonalTenant)}, refused: []token{v2(global, fabrikam), v1(sts, fabrikam)},
			bad: []token{{global + contoso + "/v2.0", fabrikam}, {global + fabrikam + "/v2.0", contoso}},
		},
		{
			name: "an allow-list does not open organizations to personal accounts", configured: global + "organizations/v2.0", documented: global + tmpl + "/v2.0",
			tenants: []string{contoso, family.PersonalTenant}, good: []token{v2(global, contoso)}, refused: []token{v2(global, family.PersonalTenant)},
		},
		{
			name: "US Government", configured: usGov + "organizations/v2.0", documented: usGov + tmpl + "/v2.0",
			good: []token{v2(usGov, contoso), v1(sts, contoso)}, bad: []token{v2(global, contoso), v2(china, contoso), v1(stsCN, contoso)},
		},
		{
			name: "China", configured: china + contoso + "/v2.0", documented: china + contoso + "/v2.0",
			good: []token{v2(china, contoso), v1(stsCN, contoso)}, bad: []token{v2(global, contoso), v1(sts, contoso)},
		},
		{
			name: "France's cloud", configured: bleu + "organizations/v2.0", documented: bleu + tmpl + "/v2.0",
			good: []token{v2(bleu, contoso)}, bad: []token{v2(global, contoso), v2("https://login.sovcloud-identity.de/", contoso), v1(sts, contoso)},
		},
		{
			name: "Germany's cloud, by domain name", configured: "https://login.sovcloud-identity.de/contoso.onsovcloud.de/v2.0",
			documented: "https://login.sovcloud-identity.de/" + contoso + "/v2.0",
			good:       []token{v2("https://login.sovcloud-identity.de/", contoso)}, bad: []token{v2("https://login.sovcloud-identity.de/", fabrikam), v1(sts, contoso)},
		},
		{
			name: "External ID, by name", configured: "https://contoso.ciamlogin.com/contoso.onmicrosoft.com/v2.0", documented: ciam(contoso),
			good: []token{{ciam(contoso), contoso}}, bad: []token{{ciam(contoso), ""}, {ciam(contoso), fabrikam}, {ciam(fabrikam), fabrikam}, v2(global, contoso)},
		},
		{
			name: "External ID under a domain of its own", configured: "https://login.contoso.example/" + contoso + "/v2.0", documented: ciam(contoso),
			good: []token{{ciam(contoso), contoso}}, bad: []token{{"https://login.contoso.example/" + contoso + "/v2.0", contoso}, v2(global, contoso)},
		},
		{
			name: "External ID that names the host", configured: "https://contoso.ciamlogin.com/" + contoso + "/v2.0", documented: "https://contoso.ciamlogin.com/" + contoso + "/v2.0",
			good: []token{{"https://contoso.ciamlogin.com/" + contoso + "/v2.0", contoso}}, bad: []token{{ciam(contoso), contoso}},
		},
		{
			name: "a user flow of B2C", configured: b2c + "contoso.onmicrosoft.com/B2C_1_signin/v2.0", documented: b2c + contoso + "/v2.0/",
			good: []token{{b2c + contoso + "/v2.0/", ""}}, bad: []token{{b2c + contoso + "/v2.0", ""}, {b2c + fabrikam + "/v2.0/", ""}, v2(global, contoso)},
		},
		{
			name: "a user flow that names itself", configured: b2c + contoso + "/b2c_1a_signin/v2.0", documented: b2c + "tfp/" + contoso + "/b2c_1a_signin/v2.0/",
			good: []token{{b2c + "tfp/" + contoso + "/b2c_1a_signin/v2.0/", ""}}, bad: []token{{b2c + contoso + "/v2.0/", ""}, {b2c + "tfp/" + contoso + "/b2c_1a_reset/v2.0/", ""}},
		},
		{
			name: "Google", configured: Google, documented: Google,
			good: []token{{Google, ""}, {"accounts.google.com", ""}}, bad: []token{{"http://accounts.google.com", ""}, {"accounts.google.com.evil.example", ""}, {Google + "/", ""}},
		},
		{
			name: "who is not Google", configured: "https://login.example.com", documented: "https://login.example.com",
			good: []token{{"https://login.example.com", ""}}, bad: []token{{"accounts.google.com", ""}, {"login.example.com", ""}},
		},
		{
			name: "one tenant on a host that merely looks like Entra's", configured: "https://login.microsoftonline.com.evil.example/" + contoso + "/v2.0",
			documented: "https://login.microsoftonline.com.evil.example/" + contoso + "/v2.0",
			good:       []token{{"https://login.microsoftonline.com.evil.example/" + contoso + "/v2.0", ""}}, bad: []token{v2(global, contoso), v1(sts, contoso)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rule, err := family.NewRule(tc.configured, tc.documented, tc.tenants)
			if err != nil {
				t.Fatal(err)
			}
			for _, tok := range tc.good {
				if err := rule.Check(tok.iss, tok.tid, ""); err != nil {
					t.Errorf("iss %s, tid %s: %v, want it accepted", tok.iss, tok.tid, err)
				}
			}
			for _, tok := range tc.refused {
				if err := rule.Check(tok.iss, tok.tid, ""); !errors.Is(err, family.ErrTenant) {
					t.Errorf("iss %s, tid %s: %v, want the tenant refused", tok.iss, tok.tid, err)
				}
			}
			for _, tok := range tc.bad {
				if err := rule.Check(tok.iss, tok.tid, ""); err == nil || errors.Is(err, family.ErrTenant) {
					t.Errorf("iss %s, tid %s: %v, want another issuer", tok.iss, tok.tid, err)
				}
			}
		})
	}
}

func TestIssuerMismatch(t *testing.T) {
	for _, tc := range []struct{ name, configured, documented string }{
		{"another host", "https://login.example.com", "https://evil.example"},
		{"a slash", "https://login.example.com", "https://login.example.com/"},
		{"another tenant", global + contoso + "/v2.0", global + fabrikam + "/v2.0"},
		{"another cloud", global + contoso + "/v2.0", usGov + contoso + "/v2.0"},
		{"a template for one tenant", global + contoso + "/v2.0", global + family.TenantTemplate + "/v2.0"},
		{"a tenant for all", global + "common/v2.0", global + contoso + "/v2.0"},
		{"a name for a name", global + "contoso.com/v2.0", global + "fabrikam.com/v2.0"},
		{"a lookalike with a template", "https://login.microsoftonline.com.evil.example/common/v2.0", global + family.TenantTemplate + "/v2.0"},
		{"another subdomain", "https://evil.login.microsoftonline.com/common/v2.0", global + family.TenantTemplate + "/v2.0"},
		{"another port", "https://login.microsoftonline.com:8443/common/v2.0", global + family.TenantTemplate + "/v2.0"},
		{"plain http", "http://login.microsoftonline.com/common/v2.0", global + family.TenantTemplate + "/v2.0"},
		{"a template where none was configured", global + family.TenantTemplate + "/v2.0", global + family.TenantTemplate + "/v2.0"},
		{"a domain name documented for v1.0", global + "contoso.com", sts + "contoso.com/"},
		{"another tenant of External ID", "https://login.contoso.example/" + contoso + "/v2.0", ciam(fabrikam)},
		{"External ID under a domain, by name", "https://login.contoso.example/contoso.onmicrosoft.com/v2.0", ciam(contoso)},
		{"External ID of two tenants", "https://contoso.ciamlogin.com/contoso.onmicrosoft.com/v2.0", "https://" + contoso + ".ciamlogin.com/" + fabrikam + "/v2.0"},
		{"External ID that is Entra", "https://contoso.ciamlogin.com/" + contoso + "/v2.0", global + contoso + "/v2.0"},
		{"a host like External ID's", "https://login.contoso.example/" + contoso + "/v2.0", "https://" + contoso + ".evil-ciamlogin.com/" + contoso + "/v2.0"},
		{"another tenant of B2C", b2c + contoso + "/b2c_1_signin/v2.0", b2c + fabrikam + "/v2.0/"},
		{"another host of B2C", b2c + contoso + "/b2c_1_signin/v2.0", "https://fabrikam.b2clogin.com/" + contoso + "/v2.0/"},
		{"another user flow", b2c + contoso + "/b2c_1_signin/v2.0", b2c + "tfp/" + contoso + "/b2c_1_reset/v2.0/"},
		{"a user flow by name only", b2c + "contoso.onmicrosoft.com/b2c_1_signin/v2.0", b2c + "contoso.onmicrosoft.com/v2.0/"},
		{"Google without https", "https://accounts.google.com", "accounts.google.com"},
		{"nothing", "https://login.example.com", ""},
	} {
		if rule, err := family.NewRule(tc.configured, tc.documented, nil); err == nil {
			t.Errorf("%s: %s was accepted for %s: %+v", tc.name, tc.documented, tc.configured, rule)
		} else if tc.documented != "" && !strings.Contains(err.Error(), tc.documented) {
			t.Errorf("%s: %v does not say what the issuer calls itself", tc.name, err)
		}
	}
}

func TestKeyIssuers(t *testing.T) {
	rule := func(configured, documented string) family.Rule {
		r, err := family.NewRule(configured, documented, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	common := rule(global+"common/v2.0", global+family.TenantTemplate+"/v2.0")
	single := rule(global+contoso+"/v2.0", global+contoso+"/v2.0")
	other := rule("https://login.example.com", "https://login.example.com")
	for _, tc := range []struct {
		name string
		rule family.Rule
		keys []string
		tid  string
		want bool
	}{
		{"a key for all", common, []string{global + family.TenantTemplate + "/v2.0"}, contoso, true},
		{"a key that does not say", common, nil, contoso, true},
		{"the key of personal accounts, for one", common, []string{global + family.PersonalTenant + "/v2.0"}, family.PersonalTenant, true},
		{"the key of personal accounts, for a company", common, []string{global + family.PersonalTenant + "/v2.0"}, contoso, false},
		{"a key of another cloud", common, []string{usGov + family.TenantTemplate + "/v2.0"}, contoso, false},
		{"one key under two issuers", common, []string{global + family.PersonalTenant + "/v2.0", global + family.TenantTemplate + "/v2.0"}, contoso, true},
		{"single tenant, a key for all", single, []string{global + family.TenantTemplate + "/v2.0"}, contoso, true},
		{"single tenant, its own key", single, []string{global + contoso + "/v2.0"}, contoso, true},
		{"single tenant, another's key", single, []string{global + fabrikam + "/v2.0"}, contoso, false},
		{"single tenant, a token without tid", single, []string{global + fabrikam + "/v2.0"}, "", false},
		{"not Entra", other, []string{"https://whatever.example"}, "", true},
	} {
		if got := tc.rule.Signs(tc.keys, tc.tid); got != tc.want {
			t.Errorf("%s: %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestEntra(t *testing.T) {
	for _, tc := range []struct {
		cloud        Cloud
		tenant, want string
	}{
		{EntraGlobal, contoso, global + contoso + "/v2.0"},
		{EntraUSGovernment, "organizations", usGov + "organizations/v2.0"},
		{EntraChina, "contoso.partner.onmschina.cn", china + "contoso.partner.onmschina.cn/v2.0"},
		{EntraBleu, contoso, bleu + contoso + "/v2.0"},
		{EntraDelos, contoso, "https://login.sovcloud-identity.de/" + contoso + "/v2.0"},
		{EntraGovSG, contoso, "https://login.sovcloud-identity.sg/" + contoso + "/v2.0"},
		{EntraGlobal, "a/../b", global + "a%2F..%2Fb/v2.0"},
	} {
		if got := Entra(tc.cloud, tc.tenant); got != tc.want {
			t.Errorf("%s, want %s", got, tc.want)
		}
	}
}

// entraApp is an application at Entra ID. Carol works at contoso, dave at
// fabrikam, and erin has a personal account.
func entraApp(url string, edit func(*Config)) func(*appOptions) {
	return func(o *appOptions) {
		o.issuerURL = url
		o.behaviour = func(b *signintest.Behaviour) {
			b.Entra = true
			b.Users = []signintest.User{
				{Subject: "carol", TenantID: contoso, ObjectID: "c0000000-0000-0000-0000-000000000000"},
				{Subject: "dave", TenantID: fabrikam, ObjectID: "d0000000-0000-0000-0000-000000000000"},
				{Subject: "erin", TenantID: family.PersonalTenant, ObjectID: "00000000-0000-0000-e000-000000000000"},
			}
		}
		o.config = edit
	}
}

func (a *app) signInAs(user string) (*signintest.Browser, *signintest.Page) {
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = user })
	b := a.browser()
	return b, b.Open(a.url + "/me")
}

func TestEntraSignIn(t *testing.T) {
	const refusedPage = "This account cannot be used here"
	for _, tc := range []struct {
		name    string
		issuer  string
		tenants []string
		in, out []string
	}{
		{"organizations", Entra(EntraGlobal, "organizations"), nil, []string{"carol", "dave"}, []string{"erin"}},
		{"common", Entra(EntraGlobal, "common"), nil, []string{"carol", "dave", "erin"}, nil},
		{"common with an allow-list", Entra(EntraGlobal, "common"), []string{contoso}, []string{"carol"}, []string{"dave", "erin"}},
		{"consumers", Entra(EntraGlobal, "consumers"), nil, []string{"erin"}, nil},
		{"US Government", Entra(EntraUSGovernment, "organizations"), nil, []string{"carol"}, nil},
		{"China", Entra(EntraChina, contoso), nil, []string{"carol"}, nil},
		{"France", Entra(EntraBleu, "organizations"), nil, []string{"carol"}, nil},
		{"Germany", Entra(EntraDelos, contoso), nil, []string{"carol"}, nil},
		{"Singapore", Entra(EntraGovSG, contoso), nil, []string{"carol"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, entraApp(tc.issuer, func(c *Config) { c.Tenants = tc.tenants }))
			for _, user := range tc.in {
				_, p := a.signInAs(user)
				var me map[string]string
				if p.Status != http.StatusOK || json.Unmarshal([]byte(p.Body), &me) != nil || me["sub"] != user {
					t.Fatalf("%s: %d %.300s\n%s", user, p.Status, p.Body, a.log)
				}
				if !strings.Contains(me["iss"], me["tid"]) || me["home"] == "" || !strings.HasSuffix(me["home"], "."+me["tid"]) {
					t.Errorf("%s: %v", user, me)
				}
			}
			if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("client_info"); got != "1" {
				t.Errorf("client_info %q", got)
			}
			for _, user := range tc.out {
				before := a.redemptions()
				b, p := a.signInAs(user)
				if p.Status != http.StatusForbidden || !strings.Contains(p.Body, refusedPage) {
					t.Errorf("%s: %d %.300s, want the page about the account", user, p.Status, p.Body)
				}
				if a.redemptions() != before {
					t.Errorf("%s: the code was redeemed", user)
				}
				if got := a.status(b); got != http.StatusUnauthorized {
					t.Errorf("%s is signed in: %d", user, got)
				}
				// The page lets them choose another account.
				a.issuer.Update(func(b *signintest.Behaviour) { b.User = tc.in[0] })
				if p = b.Click(p, p.Link("Use another account")); p.Status != http.StatusOK || p.URL != a.url+"/me" {
					t.Errorf("with another account: %d at %s", p.Status, p.URL)
				}
				if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("prompt"); got != "select_account" {
					t.Errorf("prompt %q", got)
				}
			}
		})
	}
}

// A guest signs in to another tenant than their own.
func TestEntraGuest(t *testing.T) {
	a := newApp(t, entraApp(Entra(EntraGlobal, contoso), nil))
	a.mux.Handle("GET /guest", a.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]bool{"guest": UserFromContext(r.Context()).Guest()})
	})))
	for user, want := range map[string]string{"carol": `{"guest":false}`, "dave": `{"guest":true}`} {
		b, p := a.signInAs(user)
		var me map[string]string
		if json.Unmarshal([]byte(p.Body), &me) != nil || me["tid"] != contoso {
			t.Fatalf("%s: %d %.300s", user, p.Status, p.Body)
		}
		if got := strings.TrimSpace(b.Open(a.url + "/guest").Body); got != want {
			t.Errorf("%s at home in %s: %s, want %s", user, me["home"], got, want)
		}
	}
}

// What a token says of its tenant must agree with itself, and with its key.
func TestEntraLies(t *testing.T) {
	for name, lie := range map[string]func(*signintest.Behaviour){
		"tid of another tenant": func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) { token.Claims["tid"] = fabrikam }
		},
		"iss of another tenant": func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) { token.Claims["iss"] = global + fabrikam + "/v2.0" }
		},
		"no tid": func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) { delete(token.Claims, "tid") }
		},
		"Tid": func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) {
				token.Claims["Tid"] = token.Claims["tid"]
				delete(token.Claims, "tid")
			}
		},
		"the template": func(b *signintest.Behaviour) {
			b.EditIDToken = func(token *signintest.IDToken) {
				token.Claims["iss"], token.Claims["tid"] = global+family.TenantTemplate+"/v2.0", family.TenantTemplate
			}
		},
		"a key for personal accounts": func(b *signintest.Behaviour) {
			b.EditKeys = func(document map[string]any) {
				for _, key := range document["keys"].([]map[string]any) {
					key["issuer"] = global + family.PersonalTenant + "/v2.0"
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, entraApp(Entra(EntraGlobal, "organizations"), nil))
			a.issuer.Update(lie)
			b, p := a.signInAs("carol")
			if p.Status != http.StatusBadRequest || a.redemptions() != 0 {
				t.Errorf("%d after %d redemptions, want 400 after none: %.200s", p.Status, a.redemptions(), p.Body)
			}
			if got := a.status(b); got != http.StatusUnauthorized {
				t.Errorf("signed in: %d", got)
			}
		})
	}
}
