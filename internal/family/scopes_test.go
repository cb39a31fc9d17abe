package family

import (
	"slices"
	"strings"
	"testing"
)

const (
	entra   = "https://login.microsoftonline.com/organizations/v2.0"
	devOps  = "499b84ac-1321-427f-aa17-267ca6975798"
	signIns = "openid profile offline_access"
)

func fields(s string) []string { return strings.Fields(s) }

func TestScopesOf(t *testing.T) {
	const tenant = "11111111-1111-1111-1111-111111111111"
	for _, tc := range []struct {
		configured, documented string
		want                   Scopes
	}{
		{entra, "", entraScopes},
		{"https://login.microsoftonline.us/contoso.com/v2.0/", "", entraScopes},
		{"https://login.partner.microsoftonline.cn/common/v2.0", "", entraScopes},
		{"https://login.sovcloud-identity.fr/common/v2.0", "", entraScopes},
		{"https://contoso.ciamlogin.com/" + tenant + "/v2.0", "", entraScopes},
		{"https://login.contoso.example/" + tenant + "/v2.0", "", plainScopes},
		{"https://login.contoso.example/" + tenant + "/v2.0", "https://" + tenant + ".ciamlogin.com/" + tenant + "/v2.0", entraScopes},
		{"https://login.microsoftonline.com/contoso.com", "", entraV1Scopes},
		{"https://sts.windows.net/" + tenant + "/", "", entraV1Scopes},
		{"https://contoso.b2clogin.com/tfp/contoso.onmicrosoft.com/b2c_1_signin/v2.0/", "", b2cScopes},
		{"https://login.contoso.example/" + tenant + "/B2C_1_signin/v2.0", "", b2cScopes},
		{"https://login.microsoftonline.com.evil.example/contoso/v2.0", "", plainScopes},
		{"https://accounts.google.com", "", plainScopes},
		{"https://issuer.example/v2.0", "https://issuer.example/v2.0", plainScopes},
		{"%", "", plainScopes},
	} {
		if got := ScopesOf(tc.configured, tc.documented); got != tc.want {
			t.Errorf("%s, called %s: %q, want %q", tc.configured, tc.documented, got, tc.want)
		}
	}
}

// Two spellings of one scope, and scopes that only look alike.
func TestSameScope(t *testing.T) {
	for _, tc := range []struct {
		at   Scopes
		a, b string
		want bool
	}{
		{entraScopes, "User.Read", "user.read", true},
		{entraScopes, "User.Read", "https://graph.microsoft.com/User.Read", true},
		{entraScopes, "https://graph.microsoft.us/User.Read", "https://dod-graph.microsoft.us/user.read", true},
		{entraScopes, "Mail.Read", "https://microsoftgraph.chinacloudapi.cn/Mail.Read", true},
		{entraScopes, "Mail.Read", "00000003-0000-0000-c000-000000000000/Mail.Read", true},
		{entraScopes, "API://Orders/read", "api://orders/Read", true},
		{entraScopes, "Read", "api://orders/Read", false},
		{entraScopes, "api://mail/Read", "api://orders/Read", false},
		{entraScopes, "https://graph.microsoft.com.evil.example/User.Read", "User.Read", false},
		{entraScopes, "email", "Email", false},
		{entraScopes, "email", "https://graph.microsoft.com/email", false},
		{entraV1Scopes, "User.Read", "https://graph.microsoft.com/user.read", true},
		{b2cScopes, "https://contoso.onmicrosoft.com/app/Read", "https://contoso.onmicrosoft.com/app/read", true},
		{b2cScopes, "https://contoso.onmicrosoft.com/app/read", "https://contoso.onmicrosoft.com/other/read", false},
		{plainScopes, "a", "a", true},
		{plainScopes, "a", "A", false},
		{plainScopes, "User.Read", "https://graph.microsoft.com/User.Read", false},
		{plainScopes, "email", "https://www.googleapis.com/auth/userinfo.email", true},
		{plainScopes, "a", "https://www.googleapis.com/auth/userinfo.a", false},
	} {
		if tc.at.Same(tc.a, tc.b) != tc.want || tc.at.Same(tc.b, tc.a) != tc.want {
			t.Errorf("%q: %s and %s the same: %t", tc.at, tc.a, tc.b, !tc.want)
		}
	}
}

// What one token request and one authorization request may name.
func TestScopesOfOneRequest(t *testing.T) {
	for _, tc := range []struct {
		at            Scopes
		first, second string
		together      string
		one           string // of together
	}{
		{plainScopes, "openid a", "a b/.default c/d", "openid a b/.default c/d", "openid a b/.default c/d"},
		{entraScopes, signIns + " User.Read", "api://orders/Read", signIns + " User.Read api://orders/Read", signIns + " User.Read"},
		{entraScopes, "api://orders/Read", signIns + " User.Read", "api://orders/Read " + signIns + " User.Read", "api://orders/Read " + signIns},
		{entraScopes, signIns + " User.Read", "https://graph.microsoft.com/user.read Mail.Read", signIns + " User.Read Mail.Read", signIns + " User.Read Mail.Read"},
		{entraScopes, signIns, "api://orders/Read", signIns + " api://orders/Read", signIns + " api://orders/Read"},
		{entraScopes, signIns, "", signIns, signIns},
		{entraScopes, signIns + " User.Read", "https://graph.microsoft.com/.default", signIns + " User.Read", signIns + " User.Read"},
		{entraScopes, "api://orders/.default", signIns + " User.Read api://orders/Read", "api://orders/.default " + signIns, "api://orders/.default " + signIns},
		{entraScopes, "api://orders/.default", "api://other/.default", "api://orders/.default", "api://orders/.default"},
		{b2cScopes, signIns + " https://contoso/a/Read", "https://contoso/b/Read", signIns + " https://contoso/a/Read", signIns + " https://contoso/a/Read"},
		{b2cScopes, signIns, "client https://contoso/b/Read", signIns + " client", signIns + " client"},
	} {
		got := tc.at.Together(fields(tc.first), fields(tc.second))
		if !slices.Equal(got, fields(tc.together)) {
			t.Errorf("%q: %s and %s together: %s, want %s", tc.at, tc.first, tc.second, got, tc.together)
		}
		if one := tc.at.OneAPI(got); !slices.Equal(one, fields(tc.one)) {
			t.Errorf("%q: of one API: %s, want %s", tc.at, one, tc.one)
		}
	}
}

func TestScopesByAPI(t *testing.T) {
	const mixed = "email User.Read api://orders/Read https://graph.microsoft.us/Mail.Read"
	if got := plainScopes.ByAPI(fields(mixed)); len(got) != 1 || plainScopes.Mixed(fields(mixed)) {
		t.Errorf("an ordinary issuer: %q", got)
	}
	got := entraScopes.ByAPI(fields(mixed))
	want := [][]string{fields("email User.Read https://graph.microsoft.us/Mail.Read"), fields("email api://orders/Read")}
	if !slices.EqualFunc(got, want, slices.Equal) || !entraScopes.Mixed(fields(mixed)) {
		t.Errorf("Entra: %q, want %q", got, want)
	}
	for _, list := range want {
		if entraScopes.Mixed(list) || !slices.EqualFunc(entraScopes.ByAPI(list), [][]string{list}, slices.Equal) {
			t.Errorf("%q are of one API", list)
		}
	}
}

// A token says nothing about scopes that it was not asked for.
func TestToldScopes(t *testing.T) {
	for _, tc := range []struct {
		at                  Scopes
		scopes, asked, told string
	}{
		{entraScopes, "email User.Read", "openid email api://orders/Read", ""},
		{entraScopes, "email api://orders/Read User.Read", "openid email api://orders/Read", "email api://orders/Read"},
		{entraScopes, "email user.read", "openid email User.Read", "email user.read"},
		{entraScopes, "User.Read", "openid https://graph.microsoft.com/.default", ""},
		{plainScopes, "a b", "a", "a b"},
	} {
		if got := tc.at.Told(fields(tc.scopes), fields(tc.asked)); !slices.Equal(got, fields(tc.told)) {
			t.Errorf("%q: of %s, a token for %s tells %q, want %q", tc.at, tc.scopes, tc.asked, got, tc.told)
		}
	}
}

// Granted scopes count by what they mean. A token is for the API asked for, so a
// name alone is a name there.
func TestSpelledScopes(t *testing.T) {
	for _, tc := range []struct {
		at                 Scopes
		asked, answer, out string
	}{
		{entraScopes, "openid user.read", "openid profile User.Read Mail.Read", "openid profile user.read Mail.Read"},
		{entraScopes, "https://graph.microsoft.us/Mail.Read", "Mail.Read", "https://graph.microsoft.us/Mail.Read"},
		{entraScopes, "Mail.Read", "https://microsoftgraph.chinacloudapi.cn/Mail.Read", "Mail.Read"},
		{entraScopes, devOps + "/user_impersonation", "user_impersonation vso.code", devOps + "/user_impersonation " + devOps + "/vso.code"},
		{entraScopes, "https://mail.example/Send", "api://mail/Send api://mail/Read", "https://mail.example/Send api://mail/Read"},
		{entraScopes, "api://orders/Write", "api://orders/Read", "api://orders/Read"},
		{entraScopes, "api://orders/.default", "Read", "api://orders/Read"},
		{entraV1Scopes, "user.read", "User.Read", "user.read"},
		{plainScopes, "user.read", "User.Read", "User.Read"},
		{plainScopes, "https://api.example/read", "read", "read"},
	} {
		if got := tc.at.Spelled(fields(tc.answer), fields(tc.asked)); !slices.Equal(got, fields(tc.out)) {
			t.Errorf("%q: asked %s, answered %s: %s, want %s", tc.at, tc.asked, tc.answer, got, tc.out)
		}
	}
}
