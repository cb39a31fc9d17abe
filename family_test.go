package signin

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/signintest"
)

// TestOwnSigningKey: an Entra application with a signing key of its own finds it
// where Microsoft documents it, and only there.
func TestOwnSigningKey(t *testing.T) {
	for _, issuer := range []string{Entra(EntraGlobal, contoso), Entra(EntraGlobal, "organizations")} {
		a := newApp(t, entraApp(issuer, nil), func(o *appOptions) {
			next := o.behaviour
			o.behaviour = func(b *signintest.Behaviour) {
				next(b)
				b.Clients[0].OwnKey = true
			}
		})
		if _, p := a.signInAs("carol"); p.Status != http.StatusOK {
			t.Errorf("%s: %d, want the user signed in\n%s", issuer, p.Status, a.log)
		}
		if got := a.issuer.LastCall(signintest.EndpointDiscovery).URL; !strings.HasSuffix(got, "?appid=client") {
			t.Errorf("discovery was asked at %s", got)
		}
	}
	// Nobody else is asked a question that they do not know.
	a := newApp(t)
	a.signIn()
	if got := a.issuer.LastCall(signintest.EndpointDiscovery).URL; strings.Contains(got, "appid") {
		t.Errorf("discovery was asked at %s", got)
	}
}

// TestB2CUserFlow: a user flow calls itself by the tenant's id, which no URL of
// its document is.
func TestB2CUserFlow(t *testing.T) {
	const host = "contoso.b2clogin.com"
	plain := "https://" + host + "/" + contoso + "/v2.0/"
	for _, tc := range []struct {
		name, issuer, iss, tfp string
		want                   int
	}{
		{"by id", B2C(host, contoso, "B2C_1_signin"), plain, "B2C_1_signin", 200},
		{"by name", B2C(host, "contoso.onmicrosoft.com", "b2c_1_signin"), plain, "B2C_1_signin", 200},
		{"by its own form", B2C(host, contoso, "b2c_1_signin"), "https://" + host + "/tfp/" + contoso + "/b2c_1_signin/v2.0/", "B2C_1_signin", 200},
		{"without tfp", B2C(host, contoso, "b2c_1_signin"), plain, "", 200},
		{"a domain of one's own", B2C("login.contoso.example", contoso, "B2C_1A_signin"), "https://login.contoso.example/" + contoso + "/v2.0/", "B2C_1A_signin", 200},
		{"another tenant", B2C(host, fabrikam, "b2c_1_signin"), plain, "B2C_1_signin", 503},
		{"a token of another flow", B2C(host, contoso, "b2c_1_signin"), plain, "B2C_1_reset", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.issuerURL = tc.issuer
				o.behaviour = func(b *signintest.Behaviour) {
					b.OmitIss = true
					b.EditDiscovery = func(d map[string]any) { d["issuer"], d["scopes_supported"] = tc.iss, []string{"openid"} }
					b.EditIDToken = func(tok *signintest.IDToken) {
						if tok.Claims["iss"] = tc.iss; tc.tfp != "" {
							tok.Claims["tfp"] = tc.tfp
						}
					}
				}
			})
			p := a.browser().Open(a.url + "/me")
			if p.Status != tc.want || p.Status == 200 && !strings.Contains(p.Body, tc.iss) {
				t.Errorf("%d %.200s, want %d\n%s", p.Status, p.Body, tc.want, a.log)
			}
			// It knows more scopes than it announces.
			if p.Status == http.StatusOK {
				if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("scope"); got != "openid profile offline_access" {
					t.Errorf("scope %q", got)
				}
			}
		})
	}
}

// TestExternalID: External ID calls itself by the tenant's id, whatever host one
// signs in at.
func TestExternalID(t *testing.T) {
	for _, tc := range []struct {
		name, issuer string
		want         int
	}{
		{"by name", ExternalID("contoso.ciamlogin.com", "contoso.onmicrosoft.com"), 200},
		{"by id", ExternalID("contoso.ciamlogin.com", contoso), 200},
		{"a domain of one's own", ExternalID("login.contoso.example", contoso), 200},
		{"another tenant", ExternalID("login.contoso.example", fabrikam), 503},
		{"a domain of one's own, by name", ExternalID("login.contoso.example", "contoso.onmicrosoft.com"), 503},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.issuerURL = tc.issuer
				o.behaviour = func(b *signintest.Behaviour) {
					b.OmitIss = true
					b.EditDiscovery = func(d map[string]any) { d["issuer"] = ciam(contoso) }
					b.EditIDToken = func(tok *signintest.IDToken) {
						tok.Claims["iss"], tok.Claims["tid"], tok.Claims["oid"] = ciam(contoso), contoso, "c0000000-0000-0000-0000-000000000000"
					}
				}
			})
			p := a.browser().Open(a.url + "/me")
			if p.Status != tc.want {
				t.Fatalf("%d %.200s, want %d\n%s", p.Status, p.Body, tc.want, a.log)
			}
			if p.Status != http.StatusOK {
				return
			}
			if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("client_info"); got != "1" {
				t.Error("client_info was not asked for: the home account is unknown")
			}
			if got := a.issuer.LastCall(signintest.EndpointDiscovery).URL; !strings.HasSuffix(got, "?appid=client") {
				t.Errorf("discovery was last asked at %s", got)
			}
		})
	}
}

// TestGoogleNames: Google documents two iss for its tokens. A user is one user
// by either, in a session that is opened again, too.
func TestGoogleNames(t *testing.T) {
	for _, iss := range []string{Google, "accounts.google.com"} {
		a := newApp(t, func(o *appOptions) {
			o.issuerURL = Google
			o.behaviour = func(b *signintest.Behaviour) {
				b.OmitIss = true
				b.EditIDToken = func(tok *signintest.IDToken) { tok.Claims["iss"] = iss }
				b.EditDiscovery = func(d map[string]any) { d["scopes_supported"] = []string{"openid", "email", "profile"} }
			}
		})
		b := a.signIn()
		if p := b.Open(a.url + "/me"); !strings.Contains(p.Body, `"iss":"https://accounts.google.com"`) {
			t.Errorf("%s: %.200s", iss, p.Body)
		}
		q := a.issuer.LastCall(signintest.EndpointAuthorize).Form
		if q.Get("scope") != "openid profile" || q.Get("access_type") != "offline" {
			t.Errorf("scope %q, access_type %q", q.Get("scope"), q.Get("access_type"))
		}
		if err := a.SignOutUser(t.Context(), Google, "alice"); err != nil {
			t.Fatal(err)
		}
		if got := a.status(b); got != http.StatusUnauthorized {
			t.Errorf("%s: after the sign-out of the user: %d", iss, got)
		}
	}
	// Whoever is not Google does not get away with its name.
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.OmitIss = true
			b.EditIDToken = func(tok *signintest.IDToken) { tok.Claims["iss"] = "accounts.google.com" }
		}
	})
	wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
}

// TestNobody: a sub that everybody gets signs nobody in, and the log names it.
func TestNobody(t *testing.T) {
	for _, sub := range []string{"Not supported currently. Use oid claim.", "Not supported currently. Use oid claim", "not supported currently"} {
		a := newApp(t, func(o *appOptions) {
			o.issuerURL = "https://contoso.b2clogin.com/tfp/" + contoso + "/b2c_1_signin/v2.0/"
			o.behaviour = func(b *signintest.Behaviour) {
				b.OmitIss = true
				b.EditIDToken = func(tok *signintest.IDToken) { tok.Claims["sub"], tok.Claims["oid"] = sub, "oid-of-"+tok.User.Subject }
			}
		})
		wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
		if !strings.Contains(a.log.String(), "sub is nobody's") {
			t.Errorf("the log does not name the cause:\n%s", a.log)
		}
	}
}

// TestDefaultScopes: what nobody named is asked for only where it is known and
// does no harm.
func TestDefaultScopes(t *testing.T) {
	const realm = "https://sso.example.test/realms/acme"
	all := []string{"openid", "profile", "email", "offline_access"}
	for _, tc := range []struct {
		name, issuer string
		announced    []string // nil: nothing
		scopes       []string // of Config
		asked        string
	}{
		{"announced without it", "", []string{"openid", "profile", "email"}, nil, "openid profile"},
		{"announced without profile either", "", []string{"openid", "email", "name"}, nil, "openid"},
		{"announced", "", all, nil, "openid profile offline_access"},
		{"nothing announced", "", nil, nil, "openid profile offline_access"},
		{"an empty list", "", []string{}, nil, "openid profile offline_access"},
		{"named all the same", "", []string{"openid", "profile"}, []string{"offline_access"}, "openid profile offline_access"},
		{"exactly these", "", []string{"openid"}, []string{"openid", "profile", "offline_access"}, "openid profile offline_access"},
		{"with an API's", "", []string{"openid", "profile"}, []string{"read"}, "openid profile read"},
		{"Keycloak", realm, all, nil, "openid profile"},
		{"Keycloak below a path", "https://sso.example.test/auth/realms/acme", all, nil, "openid profile"},
		{"Keycloak, named", realm, all, []string{"offline_access"}, "openid profile offline_access"},
		{"Cognito", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc", []string{"openid", "email", "phone", "profile"}, nil, "openid profile"},
		{"Apple", "https://appleid.apple.com", []string{"openid", "email", "name"}, nil, "openid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				if tc.issuer != "" {
					o.issuerURL = tc.issuer
				}
				o.behaviour = func(b *signintest.Behaviour) {
					b.RefreshAlways = true
					b.EditDiscovery = func(d map[string]any) {
						if delete(d, "scopes_supported"); tc.announced != nil {
							d["scopes_supported"] = tc.announced
						}
					}
				}
				o.config = func(c *Config) { c.Scopes = tc.scopes }
			})
			b := a.signIn()
			if got := a.issuer.LastCall(signintest.EndpointAuthorize).Form.Get("scope"); got != tc.asked {
				t.Errorf("asked for %q, want %q", got, tc.asked)
			}
			// Nor does a refresh ask for it.
			b.Open(a.url + "/token?scope=more")
			for _, c := range a.issuer.Calls(signintest.EndpointToken) {
				for _, s := range strings.Fields(c.Form.Get("scope")) {
					if s != "more" && !slices.Contains(strings.Fields(tc.asked), s) {
						t.Errorf("a token request asks for %q", c.Form.Get("scope"))
					}
				}
			}
		})
	}
}

// TestUnfitIssuer: what cannot come to a sign-in is told by name before a user
// is sent away, and it is no failure that passes. Mended, it works without a restart.
func TestUnfitIssuer(t *testing.T) {
	for _, tc := range []struct {
		name, member string
		value        any
		code         bool // ResponseType "code"
		named        string
	}{
		{"no hybrid", "response_types_supported", []string{"code", "token"}, false, `set ResponseType "code"`},
		{"no code", "response_types_supported", []string{"id_token"}, true, `lacks "code"`},
		{"no form_post", "response_modes_supported", []string{"query", "fragment"}, false, `ResponseMode "query"`},
		{"signed answers only", "response_modes_supported", []string{"jwt", "form_post.jwt"}, true, `lacks "form_post"`},
		{"plain PKCE only", "code_challenge_methods_supported", []string{"plain"}, false, `lacks "S256"`},
		{"no codes", "grant_types_supported", []string{"implicit", "client_credentials"}, false, `lacks "authorization_code"`},
		{"signed requests", "require_signed_request_object", true, false, "require_signed_request_object"},
		{"certificates only", "token_endpoint_auth_methods_supported", []string{"tls_client_auth", "self_signed_tls_client_auth"}, false, "client certificate"},
		{"no secrets", "token_endpoint_auth_methods_supported", []string{"private_key_jwt", "tls_client_auth"}, false, "takes no client secret"},
		{"symmetric keys only", "id_token_signing_alg_values_supported", []string{"HS256"}, false, "HS256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditDiscovery = func(d map[string]any) { d[tc.member] = tc.value }
				}
				o.config = func(c *Config) {
					if tc.code {
						c.ResponseType = typeCode
					}
				}
			})
			a.mux.Handle("GET /greet", a.Recognize(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })))
			b := a.browser()
			wantPage(t, a, b.Open(a.url+"/me"), http.StatusInternalServerError, PageInternal)
			if n := a.issuer.Count(signintest.EndpointAuthorize); n != 0 {
				t.Errorf("%d users were sent away", n)
			}
			for range 2 { // pages for everybody stay up
				if p := b.Open(a.url + "/greet"); p.Body != "hello" {
					t.Errorf("a public page: %d %.100s", p.Status, p.Body)
				}
			}
			err := a.Ready(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.named) || !strings.Contains(err.Error(), tc.member) || !strings.Contains(err.Error(), oidc.WellKnown) {
				t.Errorf("Ready: %v, want %s and %s in it", err, tc.member, tc.named)
			}
			if !strings.Contains(lastCause(a), tc.member) {
				t.Errorf("the log says %q", lastCause(a))
			}
			a.issuer.Update(func(b *signintest.Behaviour) { b.EditDiscovery = nil })
			a.clock.advance(2 * oidc.MaxBackoff)
			_ = a.Ready(t.Context()) // begins to ask again
			if err := a.Auth.issuer.Fetches.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := a.subject(a.browser()); got != "alice" {
				t.Errorf("mended: %s", got)
			}
		})
	}
}

// Whoever is signed in already goes on while the issuer has come to require more.
func TestUnfitLater(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	a.Auth.issuer.Meta.Unfit = &oidc.Misconfigured{Cause: errors.New("it requires more now")}
	a.clock.advance(2 * time.Hour)
	if p := b.Open(a.url + "/token"); p.Status != http.StatusOK || a.refreshed() != 1 {
		t.Errorf("a refresh: %d %.200s", p.Status, p.Body)
	}
}

// Apple takes a hybrid request though it announces code alone.
func TestAppleHybrid(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.issuerURL = "https://appleid.apple.com"
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditDiscovery = func(d map[string]any) { d["response_types_supported"] = []string{"code"} }
		}
	})
	a.signIn()
}

// TestDiscoveryURL: a document that stands elsewhere must name the issuer all
// the same.
func TestDiscoveryURL(t *testing.T) {
	for _, tc := range []struct {
		name, issuer string
		want         int
	}{
		{"its issuer", "https://login.example.test", 200},
		{"another issuer", "https://login.example.test/realm", 503},
		{"a slash", "https://login.example.test/", 503},
	} {
		a := newApp(t, func(o *appOptions) {
			o.config = func(c *Config) {
				c.Issuer, c.DiscoveryURL = tc.issuer, "https://elsewhere.example.test/oidc.json?tenant=1"
			}
		})
		var asked string
		a.net.Serve("https://elsewhere.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.URL.RequestURI()
			resp, err := a.net.Client().Get("https://login.example.test" + oidc.WellKnown)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.Copy(w, resp.Body)
		}))
		p := a.browser().Open(a.url + "/me")
		if p.Status != tc.want || asked != "/oidc.json?tenant=1" {
			t.Errorf("%s: %d %.200s after asking %s, want %d\n%s", tc.name, p.Status, p.Body, asked, tc.want, a.log)
		}
	}
}

// TestEndpoints: an issuer without discovery.
func TestEndpoints(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) { b.OmitIss = true }
		o.config = func(c *Config) {
			c.Endpoints = Endpoints{
				Authorization: "https://login.example.test/authorize", Token: "https://login.example.test/token",
				Keys: "https://login.example.test/keys", EndSession: "https://login.example.test/logout",
			}
		}
	})
	for name, got := range map[signintest.Endpoint]string{
		signintest.EndpointAuthorize: a.cfg.Endpoints.Authorization, signintest.EndpointToken: a.cfg.Endpoints.Token,
		signintest.EndpointKeys: a.cfg.Endpoints.Keys, signintest.EndpointEndSession: a.cfg.Endpoints.EndSession,
	} {
		if want := a.issuer.EndpointURL(name); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	b := a.signIn()
	if n := a.issuer.Count(signintest.EndpointDiscovery); n != 0 {
		t.Errorf("discovery was asked %d times", n)
	}
	r := &signintest.Request{Method: http.MethodPost, URL: a.url + "/signout", From: a.url + "/", Activated: true}
	if p := b.Send(r); !strings.HasPrefix(p.Location(), a.cfg.Endpoints.EndSession) {
		t.Errorf("signed out to %s", p.Location())
	}
}

func TestIssuerConfig(t *testing.T) {
	good := Endpoints{Authorization: "https://l.example/a", Token: "https://l.example/t", Keys: "https://l.example/k"}
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string // empty: fine
	}{
		{"Google with a slash", func(c *Config) { c.Issuer = Google + "/" }, `want "https://accounts.google.com"`},
		{"External ID without a tenant", func(c *Config) { c.Issuer = "https://contoso.ciamlogin.com/v2.0" }, "want ExternalID("},
		{"B2C without a flow", func(c *Config) { c.Issuer = "https://contoso.b2clogin.com/" + contoso + "/v2.0/" }, "want B2C("},
		{"B2C by its own name, with DiscoveryURL", func(c *Config) {
			c.Issuer = "https://contoso.b2clogin.com/" + contoso + "/v2.0/"
			c.DiscoveryURL = "https://contoso.b2clogin.com/" + contoso + "/v2.0/.well-known/openid-configuration?p=b2c_1_signin"
		}, ""},
		{"AD FS", func(c *Config) { c.Issuer = ADFS("fs.example.com") }, ""},
		{"DiscoveryURL over http", func(c *Config) { c.DiscoveryURL = "http://login.example.com/x" }, "DiscoveryURL: want https"},
		{"DiscoveryURL a path", func(c *Config) { c.DiscoveryURL = "/x" }, "DiscoveryURL:"},
		{"Endpoints", func(c *Config) { c.Endpoints = good }, ""},
		{"Endpoints and DiscoveryURL", func(c *Config) { c.Endpoints, c.DiscoveryURL = good, "https://l.example/d" }, "not both"},
		{"Endpoints without keys", func(c *Config) { c.Endpoints = Endpoints{Authorization: good.Authorization, Token: good.Token} }, "Endpoints.Keys: empty"},
		{"Endpoints without token endpoint", func(c *Config) { c.Endpoints = Endpoints{Authorization: good.Authorization, Keys: good.Keys} }, "Endpoints.Token: empty"},
		{"Endpoints over http", func(c *Config) { c.Endpoints = good; c.Endpoints.Revocation = "http://l.example/r" }, "Endpoints.Revocation: want https"},
		{"tenants at B2C", func(c *Config) {
			c.Issuer, c.Tenants = B2C("contoso.b2clogin.com", contoso, "b2c_1_x"), []string{contoso}
		}, "only Entra's issuers have tenants"},
		{"tenants at External ID", func(c *Config) {
			c.Issuer, c.Tenants = ExternalID("contoso.ciamlogin.com", contoso), []string{fabrikam}
		}, "nobody could sign in"},
	} {
		c := goodConfig()
		tc.edit(&c)
		_, err := New(c)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	for want, got := range map[string]string{
		"https://contoso.ciamlogin.com/contoso.onmicrosoft.com/v2.0": ExternalID("contoso.ciamlogin.com", "contoso.onmicrosoft.com"),
		"https://h.example/a%2Fb/c%3Fd/v2.0":                         B2C("h.example", "a/b", "c?d"),
		"https://fs.example.com/adfs":                                ADFS("fs.example.com"),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Every issuer is of the family that it looks like, and of no other.
func TestFamilies(t *testing.T) {
	want := map[string]string{
		Entra(EntraGlobal, "common"): "Microsoft Entra ID", Entra(EntraGovSG, contoso): "Microsoft Entra ID",
		ExternalID("contoso.ciamlogin.com", contoso): "Microsoft Entra External ID", ADFS("fs.example.com"): "AD FS",
		B2C("login.contoso.example", contoso, "B2C_1_x"): "Azure AD B2C", Google: "Google",
		"https://sso.example.test/realms/acme":                         "Keycloak",
		"https://contoso.eu.auth0.com/":                                "Auth0",
		"https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_x": "Amazon Cognito",
		"https://appleid.apple.com":                                    "Apple",
		"https://login.example.com":                                    "", "https://accounts.google.com.evil.example": "",
		"https://ciamlogin.com.evil.example/x": "", "https://evilauth0.com/": "", "https://cognito-idp.evil.example/": "",
		"https://login.microsoftonline.com.evil.example/" + contoso + "/v2.0": "",
	}
	for _, issuer := range slices.Sorted(maps.Keys(want)) {
		if got := family.Of(issuer, "").Name; got != want[issuer] {
			t.Errorf("%s is of the family %q, want %q", issuer, got, want[issuer])
		}
	}
}

// TestLeave: a sign-out ends the session at the issuer, by the parameters that it
// knows, and comes back.
func TestLeave(t *testing.T) {
	const back = "https://app.example.test/"
	for _, tc := range []struct {
		name, issuer string
		announced    string // end_session_endpoint
		want         string // of the URL
		param        string
	}{
		{"Cognito", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc", "https://contoso.auth.eu-west-1.amazoncognito.com/logout",
			"https://contoso.auth.eu-west-1.amazoncognito.com/logout", "logout_uri"},
		{"Auth0 before 2022", "https://contoso.eu.auth0.com/", "", "https://contoso.eu.auth0.com/v2/logout", "returnTo"},
		{"Auth0", "https://contoso.eu.auth0.com/", "https://contoso.eu.auth0.com/oidc/logout", "https://contoso.eu.auth0.com/oidc/logout", "post_logout_redirect_uri"},
		{"anybody", "https://login.example.test", "https://login.example.test/bye?x=1", "https://login.example.test/bye", "post_logout_redirect_uri"},
		{"Google", Google, "", "", ""},
	} {
		a := newApp(t, func(o *appOptions) {
			o.issuerURL = tc.issuer
			o.behaviour = func(b *signintest.Behaviour) {
				b.OmitIss = true
				b.EditDiscovery = func(d map[string]any) {
					if d["end_session_endpoint"] = tc.announced; tc.announced == "" {
						delete(d, "end_session_endpoint")
					}
				}
			}
		})
		p := a.signIn().Send(&signintest.Request{Method: http.MethodPost, URL: a.url + "/signout", From: a.url + "/", Activated: true})
		u, err := url.Parse(p.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if tc.want == "" {
			if u.String() != "/" {
				t.Errorf("%s: sent to %s, want the site's own page", tc.name, u)
			}
			continue
		}
		if got := u.Scheme + "://" + u.Host + u.Path; got != tc.want || q.Get(tc.param) != back || q.Get("client_id") != "client" {
			t.Errorf("%s: sent to %.200s, want %s with %s", tc.name, u, tc.want, tc.param)
		}
		if tc.param != "post_logout_redirect_uri" && len(q) != 2 {
			t.Errorf("%s: %v has parameters that nobody knows there", tc.name, slices.Sorted(maps.Keys(q)))
		}
	}
}
