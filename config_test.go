package signin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/family"
)

func goodConfig() Config {
	return Config{
		Issuer: "https://login.example.com", ClientID: "client", Credential: Secret("secret"),
		BaseURL: "https://app.example.com", Keys: [][]byte{bytes.Repeat([]byte{7}, 32)},
	}
}

// configFaults are mistakes, and what New says about each: the field, and what
// to write instead.
var configFaults = []struct {
	name  string
	spoil func(*Config)
	want  []string
}{
	{"PAR by another name", func(c *Config) { c.PAR = "Always" }, []string{`PAR "Always": want "auto", "always" or "never"`}},
	{"PAR without its endpoint", func(c *Config) {
		c.PAR, c.Endpoints = PARAlways, Endpoints{Authorization: "https://l.example/a", Token: "https://l.example/t", Keys: "https://l.example/k"}
	}, []string{"Endpoints.PushedRequest: empty"}},
	{"no issuer", func(c *Config) { c.Issuer = "" }, []string{"Issuer: empty", "https URL"}},
	{"an issuer without scheme", func(c *Config) { c.Issuer = "login.example.com" }, []string{`Issuer: "login.example.com" is not a URL`, "https://"}},
	{"an issuer by http", func(c *Config) { c.Issuer = "http://login.example.com" }, []string{"Issuer: want https://login.example.com", "loopback"}},
	{"an issuer with a query", func(c *Config) { c.Issuer = "https://login.example.com/?a=b" }, []string{"Issuer: want a URL without user, query or fragment"}},
	{"an issuer with a password", func(c *Config) { c.Issuer = "https://u:hunter22@login.example.com/" }, []string{"Issuer: want a URL without user"}},
	{"an issuer's discovery document", func(c *Config) { c.Issuer = "https://login.example.com/x/.well-known/openid-configuration" }, []string{"Issuer:", "discovery document", `want the issuer's, "https://login.example.com/x"`}},
	{"Entra without a tenant", func(c *Config) { c.Issuer = Entra(EntraGlobal, "") }, []string{"Issuer:", "names no tenant", "https://login.microsoftonline.com/contoso.onmicrosoft.com/v2.0"}},
	{"Entra's host and a version", func(c *Config) { c.Issuer = "https://login.microsoftonline.us/v2.0" }, []string{"Issuer:", "names no tenant", "https://login.microsoftonline.us/"}},
	{"Entra's host", func(c *Config) { c.Issuer = "https://login.microsoftonline.com/" }, []string{"Issuer:", "names no tenant"}},
	{"a template", func(c *Config) { c.Issuer = "https://login.microsoftonline.com/{tenantid}/v2.0" }, []string{"Issuer:", "template", "common"}},
	{"no client", func(c *Config) { c.ClientID = "" }, []string{"ClientID: empty; want the id"}},
	{"an empty secret", func(c *Config) { c.Credential = Secret("") }, []string{"Credential:"}},
	{"a base without scheme", func(c *Config) { c.BaseURL = "app.example.com" }, []string{"BaseURL: want scheme, host", "https://app.example.com"}},
	{"a base by http", func(c *Config) { c.BaseURL = "http://app.example.com" }, []string{"BaseURL: want https://app.example.com; plain http is for loopback only"}},
	{"a base by http, query", func(c *Config) { c.BaseURL, c.ResponseType, c.ResponseMode = "http://app.example.com", "code", "query" }, []string{"BaseURL: want https://app.example.com"}},
	{"a base that is the callback", func(c *Config) { c.BaseURL = "https://app.example.com/crm/oidc/callback" }, []string{"BaseURL: want it without CallbackPath, /oidc/callback"}},
	{"a base with a query", func(c *Config) { c.BaseURL = "https://app.example.com/?x" }, []string{"BaseURL: want scheme"}},
	{"a base with doubled slashes", func(c *Config) { c.BaseURL = "https://app.example.com/a//b" }, []string{"BaseURL: want a clean path"}},
	{"a base with dots", func(c *Config) { c.BaseURL = "https://app.example.com/a/../b/" }, []string{"BaseURL: want a clean path"}},
	{"a proxy that is none", func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), {}} }, []string{"TrustedProxies[1]", "10.0.0.0/8"}},
	{"no keys", func(c *Config) { c.Keys = nil }, []string{"Keys: none; want at least one key of 32"}},
	{"a short key", func(c *Config) { c.Keys = append(c.Keys, make([]byte, 16)) }, []string{"Keys[1]: 16 bytes; want 32"}},
	{"a zero key", func(c *Config) { c.Keys = append(c.Keys, make([]byte, 32)) }, []string{"Keys[1]: all zero; want 32 random bytes"}},
	{"a key twice", func(c *Config) { c.Keys = append(c.Keys, bytes.Repeat([]byte{8}, 32), c.Keys[0]) }, []string{"Keys[2]: the same as Keys[0]"}},
	{"response type", func(c *Config) { c.ResponseType = "token" }, []string{`ResponseType "token": want "code id_token" or "code"`}},
	{"response mode", func(c *Config) { c.ResponseMode = "fragment" }, []string{`ResponseMode "fragment": want "form_post" or "query"`}},
	{"hybrid by query", func(c *Config) { c.ResponseMode = "query" }, []string{`ResponseMode "query": want "form_post"`, "must not stand in a URL"}},
	{"callback path", func(c *Config) { c.CallbackPath = "oidc/callback" }, []string{`CallbackPath "oidc/callback": want an absolute path`}},
	{"callback path elsewhere", func(c *Config) { c.CallbackPath = "//evil.example/callback" }, []string{`CallbackPath "//evil.example/callback"`}},
	{"callback path with a query", func(c *Config) { c.CallbackPath = "/callback?x" }, []string{`CallbackPath "/callback?x"`}},
	{"callback at the root", func(c *Config) { c.CallbackPath = "/" }, []string{`CallbackPath "/": want a path that ends in a name`}},
	{"callback under the name of another path", func(c *Config) { c.CallbackPath = "/oidc/login" }, []string{`CallbackPath "/oidc/login": login is another path of ours`}},
	{"callback under the name of the signed-out page", func(c *Config) { c.CallbackPath = "/oidc/signed-out" }, []string{`CallbackPath "/oidc/signed-out": signed-out is another path of ours`}},
	{"signed-out path", func(c *Config) { c.SignedOutPath = "https://evil.example/" }, []string{`SignedOutPath "https://evil.example/": want an absolute path`}},
	{"state in AuthParams", func(c *Config) { c.AuthParams = url.Values{"state": {"x"}} }, []string{`AuthParams: "state" is set by this package`}},
	{"nonce in AuthParams", func(c *Config) { c.AuthParams = url.Values{"nonce": {""}} }, []string{`AuthParams: "nonce"`}},
	{"prompt none", func(c *Config) { c.Prompt = "none" }, []string{`Prompt "none"`, "Recognize"}},
	{"two scopes in one", func(c *Config) { c.Scopes = []string{"Mail.Read Mail.Send"} }, []string{`Scopes: "Mail.Read Mail.Send" is not a scope; want one scope in each element`}},
	{"cookie name", func(c *Config) { c.CookieName = "my session" }, []string{`CookieName "my session": want letters`}},
	{"cookie name with a prefix", func(c *Config) { c.CookieName = "__Host-x" }, []string{`CookieName "__Host-x"`}},
	{"session lifetime", func(c *Config) { c.SessionLifetime = -time.Hour }, []string{"SessionLifetime -1h0m0s: want zero or more"}},
	{"idle timeout", func(c *Config) { c.IdleTimeout = -1 }, []string{"IdleTimeout -1ns: want"}},
	{"expiry margin", func(c *Config) { c.ExpiryMargin = -1 }, []string{"ExpiryMargin -1ns: want"}},
	{"memory", func(c *Config) { c.MemoryBytes = -1 }, []string{"MemoryBytes -1: want zero or more"}},
	{"memory of another store", func(c *Config) { c.MemoryBytes, c.Store = 1<<20, NewMemoryStore() }, []string{"MemoryBytes 1048576: want MaxBytes"}},
	{"max age", func(c *Config) { c.MaxAge = -1 }, []string{"MaxAge -1ns: want"}},
	{"max age in milliseconds", func(c *Config) { c.MaxAge = 300 }, []string{"MaxAge 300ns: want a second or more"}},
	{"idle for longer than a session", func(c *Config) { c.IdleTimeout = 24 * time.Hour }, []string{"IdleTimeout 24h0m0s: want SessionLifetime, 12h0m0s, or less"}},
	{"clock skew below zero", func(c *Config) { c.ClockSkew = -1 }, []string{"ClockSkew -1ns: want"}},
	{"clock skew", func(c *Config) { c.ClockSkew = time.Hour }, []string{"ClockSkew 1h0m0s: want 10 minutes or less"}},
	{"an empty audience", func(c *Config) { c.Audiences = []string{"api", ""} }, []string{"Audiences: one is empty"}},
	{"a symmetric algorithm", func(c *Config) { c.SigningAlgorithms = []string{"PS256", "HS256"} }, []string{`SigningAlgorithms: "HS256": want RS256, `}},
	{"an algorithm by another case", func(c *Config) { c.SigningAlgorithms = []string{"rs256"} }, []string{`SigningAlgorithms: "rs256"`}},
	{"no signature", func(c *Config) { c.SigningAlgorithms = []string{"none"} }, []string{`SigningAlgorithms: "none"`}},
	{"a tenant by name", func(c *Config) { c.Issuer, c.Tenants = Entra(EntraGlobal, "common"), []string{"contoso.com"} }, []string{`Tenants: "contoso.com" is not a tenant's id; want a GUID`}},
	{"tenants elsewhere", func(c *Config) { c.Tenants = []string{contoso} }, []string{"Tenants: only Entra's issuers have tenants"}},
	{"tenants without the issuer's own", func(c *Config) { c.Issuer, c.Tenants = Entra(EntraGlobal, contoso), []string{fabrikam} }, []string{"Tenants: nobody could sign in", contoso}},
	{"tenants without personal accounts", func(c *Config) { c.Issuer, c.Tenants = Entra(EntraGlobal, "consumers"), []string{fabrikam} }, []string{"Tenants: nobody could sign in", family.PersonalTenant}},
}

func TestConfigFaults(t *testing.T) {
	if _, err := New(goodConfig()); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for _, tc := range configFaults {
		t.Run(tc.name, func(t *testing.T) {
			c := goodConfig()
			tc.spoil(&c)
			a, err := New(c)
			if err == nil || a != nil {
				t.Fatalf("New accepted it (error %v)", err)
			}
			if !strings.HasPrefix(err.Error(), "signin: bad config: ") || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("%q: want one fault", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			for _, secret := range []string{"hunter22", string(goodConfig().Keys[0])} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q holds a secret", err)
				}
			}
		})
	}
}

// Whoever sets up a site mends everything in one go.
func TestConfigFaultsAtOnce(t *testing.T) {
	_, err := New(Config{
		Credential: Secret(""), BaseURL: "http://app.example.com/", TrustedProxies: make([]netip.Prefix, 1), Scopes: []string{"a b"},
		Keys: [][]byte{nil}, ResponseType: "x", CallbackPath: "x", SignedOutPath: "x", AuthParams: url.Values{"scope": nil}, CookieName: "=",
		SessionLifetime: -1, IdleTimeout: -1, ClockSkew: -1, ExpiryMargin: -1, MaxAge: -1, MemoryBytes: -1, Tenants: []string{"x"}, SigningAlgorithms: []string{""}, Audiences: []string{""},
	})
	if err == nil {
		t.Fatal("New accepted it")
	}
	for _, field := range []string{
		"Issuer", "ClientID", "Credential", "BaseURL", "TrustedProxies", "Scopes", "Keys[0]", "ResponseType", "CallbackPath",
		"SignedOutPath", "AuthParams", "CookieName", "SessionLifetime", "IdleTimeout", "ClockSkew", "ExpiryMargin", "MaxAge", "MemoryBytes", "Tenants", "SigningAlgorithms", "Audiences",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in\n%v", field, err)
		}
	}
}

func TestConfigAccepts(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"nothing optional":         func(c *Config) { c.BaseURL, c.Credential = "", nil },
		"loopback by http":         func(c *Config) { c.Issuer, c.BaseURL = "http://localhost:8080/", "http://127.0.0.1:9090" },
		"a base with a path":       func(c *Config) { c.BaseURL = "https://app.example.com/crm/" },
		"an issuer with a slash":   func(c *Config) { c.Issuer = "https://login.example.com/" },
		"code by query":            func(c *Config) { c.ResponseType, c.ResponseMode = "code", "query" },
		"several keys":             func(c *Config) { c.Keys = append(c.Keys, bytes.Repeat([]byte{8}, 32)) },
		"idle for a session":       func(c *Config) { c.IdleTimeout = 12 * time.Hour },
		"a prompt of the issuer's": func(c *Config) { c.Prompt = "create" },
		"tenants of common": func(c *Config) {
			c.Issuer, c.Tenants = Entra(EntraGlobal, "common"), []string{strings.ToUpper(contoso)}
		},
		"tenants of one":           func(c *Config) { c.Issuer, c.Tenants = Entra(EntraChina, contoso), []string{contoso, fabrikam} },
		"tenants of a domain name": func(c *Config) { c.Issuer, c.Tenants = Entra(EntraGlobal, "contoso.com"), []string{contoso} },
		"the demo's two-level URI": func(c *Config) { c.CallbackPath, c.SignedOutPath = "/auth/signin/done", "/bye" },
	} {
		c := goodConfig()
		change(&c)
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	a, err := New(goodConfig())
	if err != nil {
		t.Fatal(err)
	}
	c := a.cfg
	if c.ResponseType != "code id_token" || c.ResponseMode != "form_post" || c.CookieName != "signin" || c.CallbackPath != "/oidc/callback" ||
		c.SignedOutPath != "/" || c.SessionLifetime != 12*time.Hour || c.IdleTimeout != 0 || c.ClockSkew != time.Minute ||
		c.ExpiryMargin != 5*time.Minute || c.MaxAge != 0 || c.Store == nil || c.Logger == nil || c.HTTPClient == nil || c.HTTPClient.Timeout != 15*time.Second {
		t.Errorf("defaults: %+v", c)
	}
	if got := strings.Join(c.Scopes, " "); got != "openid profile offline_access" {
		t.Errorf("scopes %q", got)
	}
	for given, want := range map[string]string{
		"Mail.Read":        "openid profile offline_access Mail.Read",
		"openid":           "openid",
		"email openid":     "email openid",
		"openid Mail.Read": "openid Mail.Read",
	} {
		c := goodConfig()
		c.Scopes = strings.Fields(given)
		if a, err := New(c); err != nil || strings.Join(a.cfg.Scopes, " ") != want {
			t.Errorf("Scopes %q: %v, %v; want %q", given, a.cfg.Scopes, err, want)
		}
	}
}

// What is changed after New has no effect.
func TestConfigIsCopied(t *testing.T) {
	c := goodConfig()
	c.Issuer = Entra(EntraGlobal, "common")
	c.Scopes = []string{"openid", "Mail.Read"}
	c.AuthParams = url.Values{"ui_locales": {"de"}}
	c.Tenants = []string{contoso}
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	c.HTTPClient = &http.Client{}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	sealed := a.keys.Seal("test", nil, nil, []byte("x"))
	c.Scopes[1], c.Tenants[0] = "changed", "changed"
	c.TrustedProxies[0] = netip.Prefix{}
	c.AuthParams.Set("state", "changed")
	clear(c.Keys[0])
	if slices.Contains(a.cfg.Scopes, "changed") || slices.Contains(a.cfg.Tenants, "changed") || slices.Contains(a.issuer.Tenants, "changed") ||
		a.cfg.AuthParams.Has("state") || !a.cfg.TrustedProxies[0].IsValid() {
		t.Errorf("%+v", a.cfg)
	}
	if _, err := a.keys.Open("test", nil, nil, sealed); err != nil {
		t.Error("the keys changed")
	}
}

// No key and no secret is in any text made of a Config or an Auth, wherever it
// stands. Only a Config in an unexported field is out of our reach: its Keys
// are a plain field, and fmt calls no methods there.
func TestConfigPrinted(t *testing.T) {
	c := goodConfig()
	key, secret := []byte("key-key-key-key-key-key-key-key."), "correct-horse-battery"
	c.Keys, c.Credential = [][]byte{key}, Secret(secret)
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	leaks := []string{
		secret, string(key[:8]), hex.EncodeToString(key[:8]), strings.ToUpper(hex.EncodeToString(key[:8])), base64.StdEncoding.EncodeToString(key)[:16],
		strings.Trim(fmt.Sprint(key[:8]), "[]"), strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", key[:8]), "[]byte"), "{}"),
	}
	type site struct {
		Config *Config
		Auth   *Auth
	}
	type embedding struct{ Config }
	type hidden struct{ auth *Auth }
	copied := reflect.ValueOf(a).Elem().Interface() // as fmt.Print(*a)
	for _, v := range []any{c, &c, a, copied, site{&c, a}, []Config{c}, map[string]any{"c": c, "a": a}, embedding{c}, hidden{a}, &hidden{a}, a.cfg, a.keys} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("v", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("v", "v", v)
		if encoded, err := json.Marshal(v); err != nil {
			t.Errorf("%T: json.Marshal: %v", v, err)
		} else {
			out.Write(encoded)
		}
		for _, leak := range leaks {
			if strings.Contains(out.String(), leak) {
				t.Errorf("a %T shows %q in\n%.2000s", v, leak, &out)
			}
		}
	}
	if got := fmt.Sprint(c, a); got != "signin.Config signin.Auth" {
		t.Errorf("printed as %q, want the names", got)
	}
}
