package signin

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/seed454743b5/signin/signintest"
)

// profileTest is what a site meets at a provider.
type profileTest struct {
	profile string
	issuer  string // configured; empty: the profile's own
	config  func(*Config)
	behave  func(*signintest.Behaviour)

	scopes    string // that a sign-in asks for
	noRefresh bool   // no refresh token is given
	other     string // another scope, asked for later; "-" where there is none
	silent    bool   // which needs no visit to the issuer
	left      string // where a sign-out leads first; empty: nowhere but the site's own page
}

// At each provider a user signs in, gets a fresh token when the old one has
// expired, gets one for another scope, and signs out.
func TestProfiles(t *testing.T) {
	const orders = "api://orders/Read"
	appleKey, appleConfig := apple(t)
	google := func(b *signintest.Behaviour) { b.TokenIssuer = "" } // the other of its names
	for _, tc := range []profileTest{
		{profile: "adfs", config: func(c *Config) { c.Scopes = []string{"openid", "profile"} },
			scopes: "openid profile", other: "user_impersonation", left: "https://adfs.contoso.example/adfs/oauth2/logout"},
		{profile: "apple", config: appleConfig, behave: func(b *signintest.Behaviour) {
			b.Clients[0].Secret, b.Clients[0].SecretKeys = "", []crypto.PublicKey{appleKey}
		}, scopes: "openid name email", other: "-"},
		{profile: "auth0", behave: func(b *signintest.Behaviour) { // a tenant of today
			b.OmitEndSession, b.LogoutParameter, b.Endpoints[signintest.EndpointEndSession] = false, "", "/oidc/logout"
		}, scopes: "openid profile offline_access", other: "read:orders", left: "https://contoso.eu.auth0.com/oidc/logout"},
		{profile: "entra", scopes: "openid profile offline_access", other: orders, left: "https://login.microsoftonline.com/"},
		{profile: "entra", config: func(c *Config) { c.Scopes = []string{"User.Read"} }, scopes: "openid profile offline_access User.Read",
			behave: func(b *signintest.Behaviour) { b.Consented = []string{orders} }, other: orders, silent: true, left: "https://login.microsoftonline.com/"},
		{profile: "externalid", issuer: "https://" + signintest.ProfileTenant + ".ciamlogin.com/" + signintest.ProfileTenant + "/v2.0",
			scopes: "openid profile offline_access", other: orders, left: "https://" + signintest.ProfileTenant + ".ciamlogin.com/"},
		{profile: "externalid", scopes: "openid profile offline_access", other: orders, left: "https://contoso.ciamlogin.com/"},
		{profile: "externalid", issuer: ExternalID("login.contoso.example", signintest.ProfileTenant),
			scopes: "openid profile offline_access", other: orders, left: "https://login.contoso.example/"},
		{profile: "b2c", config: func(c *Config) { c.Scopes = []string{"https://contoso.onmicrosoft.com/api/read"} },
			scopes: "openid profile offline_access https://contoso.onmicrosoft.com/api/read", other: "https://contoso.onmicrosoft.com/orders/read",
			behave: func(b *signintest.Behaviour) { b.Consented = []string{"https://contoso.onmicrosoft.com/orders/read"} }, // an administrator's consent
			silent: true, left: "https://contoso.b2clogin.com/"},
		{profile: "cognito", config: func(c *Config) { c.ResponseType, c.ResponseMode = "code", "query" },
			scopes: "openid profile", other: "-", left: "https://contoso.auth.eu-west-1.amazoncognito.com/logout"},
		{profile: "google", scopes: "openid profile", other: "https://www.googleapis.com/auth/calendar"},
		{profile: "keycloak", scopes: "openid profile", other: "orders", left: "https://sso.example.test/realms/acme/"},
		{profile: "google", config: func(c *Config) { c.Scopes = []string{"openid", "email"} }, behave: google,
			scopes: "openid email", noRefresh: true, other: "https://www.googleapis.com/auth/calendar"},
		{profile: "google", config: func(c *Config) {
			c.Scopes, c.AuthParams, c.Prompt = []string{"openid"}, url.Values{"access_type": {"offline"}}, "consent"
		}, behave: google, scopes: "openid", other: "https://www.googleapis.com/auth/calendar"},
		{profile: "keycloak", config: func(c *Config) { c.Scopes = []string{"openid", "profile"} },
			scopes: "openid profile", other: "orders", left: "https://sso.example.test/realms/acme/"},
		{profile: "okta", scopes: "openid profile offline_access", other: "orders", left: "https://contoso.okta.com/oauth2/default/v1/logout"},
	} {
		name := tc.profile
		if tc.config != nil {
			name += ", configured"
		}
		t.Run(name, func(t *testing.T) { tc.run(t) })
	}
}

// apple is a client whose secret is a JWT that it signs itself.
func apple(t *testing.T) (crypto.PublicKey, func(*Config)) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "team"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: "TEAM", Subject: "client", Audience: jwt.Audience{"https://appleid.apple.com"},
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(24 * time.Hour)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return key.Public(), func(c *Config) {
		c.Credential, c.Scopes = SecretPost(secret), []string{"openid", "name", "email"}
	}
}

func (tc profileTest) run(t *testing.T) {
	profiles := signintest.Profiles()
	profile := profiles[slices.IndexFunc(profiles, func(p signintest.Profile) bool { return p.Name == tc.profile })]
	a := newApp(t, func(o *appOptions) {
		o.issuerURL, o.config = cmp.Or(tc.issuer, profile.URL), tc.config
		o.behaviour = func(b *signintest.Behaviour) {
			profile.Behaviour(b)
			if tc.behave != nil {
				tc.behave(b)
			}
		}
	})
	b := a.browser()
	if got := a.subject(b); got != "alice" {
		t.Fatalf("signed in as %s\n%s", got, a.log)
	}
	if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("scope"); got != tc.scopes {
		t.Errorf("asked for %q, want %q", got, tc.scopes)
	}
	if !tc.noRefresh {
		a.clock.advance(65 * time.Minute)
		before, visits := a.refreshed(), a.issuer.Count(signintest.EndpointAuthorize)
		if p := b.Open(a.url + "/token"); p.Status != http.StatusOK || a.refreshed() != before+1 || a.issuer.Count(signintest.EndpointAuthorize) != visits {
			t.Errorf("an hour later: %d after %d refreshes and %d visits to the issuer, want one refresh: %.200s\n%s", p.Status,
				a.refreshed()-before, a.issuer.Count(signintest.EndpointAuthorize)-visits, p.Body, a.log)
		}
	}
	if tc.other != "-" {
		visits := a.issuer.Count(signintest.EndpointAuthorize)
		p := b.Open(a.url + "/token?scope=" + url.QueryEscape(tc.other))
		info, _ := a.issuer.TokenInfo(p.Body)
		if p.Status != http.StatusOK || !slices.Contains(info.Scopes, tc.other) {
			t.Errorf("scope %s: %d with scopes %v: %.200s\n%s", tc.other, p.Status, info.Scopes, p.Body, a.log)
		}
		if away := a.issuer.Count(signintest.EndpointAuthorize) > visits; away == tc.silent {
			t.Errorf("scope %s: sent to the issuer %t", tc.other, away)
		}
	}
	tc.signOut(a, b)
}

// signOut leaves the provider too, where there is a way, and comes back.
func (tc profileTest) signOut(a *app, b *signintest.Browser) {
	a.t.Helper()
	p := b.Send(&signintest.Request{Method: http.MethodPost, URL: a.url + "/signout", Form: url.Values{}, From: a.url + "/", Activated: true})
	if to := p.Location(); tc.left == "" && !strings.HasPrefix(to, a.url) || !strings.HasPrefix(to, tc.left) {
		a.t.Errorf("the sign-out leads to %.120s, want %s", to, tc.left)
	}
	if p = b.Follow(p.Next()); p.Status != http.StatusOK || !strings.HasPrefix(p.URL, a.url) {
		a.t.Errorf("after the sign-out: %d at %.200s: %.100s", p.Status, p.URL, p.Body)
	}
	if got := a.status(b); got != http.StatusUnauthorized {
		a.t.Errorf("still signed in: %d", got)
	}
}
