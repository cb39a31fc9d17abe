package signin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// claim sets one claim of an ID token.
func claim(name string, value any) func(*signintest.Issuer, *signintest.IDToken) {
	return func(_ *signintest.Issuer, t *signintest.IDToken) { t.Claims[name] = value }
}

// without drops one.
func without(name string) func(*signintest.Issuer, *signintest.IDToken) {
	return func(_ *signintest.Issuer, t *signintest.IDToken) { delete(t.Claims, name) }
}

// claims sets several.
func claims(all map[string]any) func(*signintest.Issuer, *signintest.IDToken) {
	return func(_ *signintest.Issuer, t *signintest.IDToken) { maps.Copy(t.Claims, all) }
}

// from sets a time claim to so many seconds from now.
func from(name string, seconds float64) func(*signintest.Issuer, *signintest.IDToken) {
	return func(_ *signintest.Issuer, t *signintest.IDToken) {
		t.Claims[name] = float64(time.Now().Unix()) + seconds
	}
}

// signing changes how a token is signed.
func signing(f func(*signintest.Issuer, *signintest.SignOptions)) func(*signintest.Issuer, *signintest.IDToken) {
	return func(i *signintest.Issuer, t *signintest.IDToken) { f(i, &t.Signing) }
}

// rewritten changes the bytes of a token that is signed as it should be.
func rewritten(f func(header, payload, signature string) string) func(*signintest.Issuer, *signintest.IDToken) {
	return func(i *signintest.Issuer, t *signintest.IDToken) {
		parts := strings.Split(i.Sign(t.Claims, t.Signing), ".")
		t.Raw = f(parts[0], parts[1], parts[2])
	}
}

const (
	onFront = 1 << iota
	onBack
	onBoth = onFront | onBack
)

// attacks are the lies an ID token can tell. Each must be refused on every
// channel it is told on.
var attacks = []struct {
	name string
	on   int
	edit func(*signintest.Issuer, *signintest.IDToken)
}{
	{"missing", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) { t.Omit = true }},
	{"encrypted", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) {
		t.Raw = seal.Encode([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM"}`)) + ".a2V5.aXY.dGV4dA.dGFn"
	}},
	{"no token at all", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) { t.Raw = "null" }},

	{"alg none", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) { o.Alg = "none" })},
	{"alg nOnE", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) {
		o.Alg, o.Header = "none", map[string]any{"alg": "nOnE"}
	})},
	{"alg missing", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) { o.Header = map[string]any{"alg": nil} })},
	{"HS256 with the public key", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) { o.Alg = "HS256" })},
	{"HS256 with the client secret", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) {
		o.Alg, o.Secret = "HS256", []byte("secret")
	})},
	{"unknown kid", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) { o.KeyID = "nobody" })},
	{"foreign key", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) { o.Key = new(i.ForeignKey("RS256")) })},
	{"foreign key under a known kid", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
		o.Key, o.KeyID = new(i.ForeignKey("RS256")), i.Key().ID
	})},
	{"foreign key without kid", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
		o.Key, o.Header = new(i.ForeignKey("RS256")), map[string]any{"kid": nil}
	})},
	{"embedded jwk", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
		k := i.ForeignKey("RS256")
		o.Key, o.Header = &k, map[string]any{"kid": nil, "jwk": k.JWK()}
	})},
	{"embedded jwk under a known kid", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
		k := i.ForeignKey("RS256")
		o.Key, o.KeyID, o.Header = &k, i.Key().ID, map[string]any{"jwk": k.JWK()}
	})},
	{"alg that is not announced", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
		o.Key, o.Alg = new(i.Key()), "RS512"
	})},
	{"padding that is not announced", onBoth, signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
		o.Key, o.Alg = new(i.Key()), "PS256"
	})},
	{"unknown critical header", onBoth, signing(func(_ *signintest.Issuer, o *signintest.SignOptions) {
		o.Header = map[string]any{"crit": []string{"exp"}, "exp": 1}
	})},

	{"altered payload", onBoth, rewritten(func(h, p, s string) string { return h + "." + seal.Encode([]byte(`{"sub":"bob"}`)) + "." + s })},
	{"no signature", onBoth, rewritten(func(h, p, _ string) string { return h + "." + p + "." })},
	{"two parts", onBoth, rewritten(func(h, p, _ string) string { return h + "." + p })},
	{"four parts", onBoth, rewritten(func(h, p, s string) string { return h + "." + p + "." + s + "." + s })},
	{"spaces inside", onBoth, rewritten(func(h, p, s string) string { return h + ". " + p + "." + s })},
	{"a line break at the end", onBoth, rewritten(func(h, p, s string) string { return h + "." + p + "." + s + "\n" })},
	{"padded", onBoth, rewritten(func(h, p, s string) string { return h + "." + p + "." + s + "==" })},
	{"flattened JSON", onBoth, rewritten(func(h, p, s string) string {
		return fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, p, h, s)
	})},
	{"several signatures", onBoth, rewritten(func(h, p, s string) string {
		return fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q},{"protected":%q,"signature":%q}]}`, p, h, s, h, s)
	})},
	{"over 40 KB", onFront, claim("groups", strings.Repeat("g", 32<<10))},

	{"iss missing", onBoth, without("iss")},
	{"iss of another issuer", onBoth, claim("iss", "https://evil.example.test")},
	{"iss with a trailing slash", onBoth, claim("iss", "https://login.example.test/")},
	{"iss in capitals", onBoth, claim("iss", "https://LOGIN.example.test")},
	{"iss a number", onBoth, claim("iss", 1)},
	{"iss null", onBoth, claim("iss", nil)},
	{"iss by another case", onBoth, claims(map[string]any{"iss": "https://evil.example.test", "Iss": "https://login.example.test", "iſs": "https://login.example.test"})},

	{"aud missing", onBoth, without("aud")},
	{"aud of another client", onBoth, claim("aud", "other")},
	{"aud that begins like ours", onBoth, claim("aud", "client2")},
	{"aud an empty list", onBoth, claim("aud", []string{})},
	{"aud a list of others", onBoth, claims(map[string]any{"aud": []string{"one", "two"}, "azp": "client"})},
	{"aud a list of lists", onBoth, claim("aud", [][]string{{"client"}})},
	{"aud by another case", onBoth, claims(map[string]any{"aud": "other", "Aud": "client", "auD": "client"})},
	{"two audiences and no azp", onBoth, claim("aud", []string{"client", "api"})},
	{"a trusted audience and another", onBoth, claim("aud", []string{"client", "trusted", "api"})},
	{"a trusted audience without the client", onBoth, claim("aud", []string{"trusted"})},
	{"a trusted audience and its azp", onBoth, claims(map[string]any{"aud": []string{"client", "trusted"}, "azp": "trusted"})},
	{"azp of another client", onBoth, claim("azp", "other")},
	{"two audiences and the other's azp", onBoth, claims(map[string]any{"aud": []string{"client", "other"}, "azp": "other"})},
	{"azp empty", onBoth, claim("azp", "")},
	{"azp a list", onBoth, claim("azp", []string{"client"})},

	{"exp missing", onBoth, without("exp")},
	{"exp null", onBoth, claim("exp", nil)},
	{"exp past the allowance", onBoth, from("exp", -61)},
	{"exp a string", onBoth, claim("exp", fmt.Sprint(time.Now().Unix()+3600))},
	{"exp huge", onBoth, claim("exp", 1e300)},
	{"exp beyond any float", onBoth, claim("exp", json.RawMessage("1e999"))},
	{"exp negative", onBoth, claim("exp", -1)},
	{"exp zero", onBoth, claim("exp", 0)},
	{"exp true", onBoth, claim("exp", true)},
	{"exp by another case", onBoth, claims(map[string]any{"exp": 1, "Exp": time.Now().Unix() + 3600, "eXp": time.Now().Unix() + 3600})},
	{"nbf beyond the allowance", onBoth, from("nbf", 75)},
	{"nbf a string", onBoth, claim("nbf", "0")},
	{"iat missing", onBoth, without("iat")},
	{"iat beyond the allowance", onBoth, from("iat", 75)},
	{"iat a string", onBoth, claim("iat", fmt.Sprint(time.Now().Unix()))},
	{"iat negative", onBoth, claim("iat", -5)},
	{"iat in milliseconds", onBoth, claim("iat", time.Now().UnixMilli())},
	{"auth_time to come", onBoth, from("auth_time", 75)},

	{"sub missing", onBoth, without("sub")},
	{"sub empty", onBoth, claim("sub", "")},
	{"sub null", onBoth, claim("sub", nil)},
	{"sub a number", onBoth, claim("sub", 7)},
	{"sub a list", onBoth, claim("sub", []string{"alice"})},
	{"sub of 256 characters", onBoth, claim("sub", strings.Repeat("s", 256))},
	{"sub that is no text", onBoth, claim("sub", json.RawMessage(`"alice\ud800"`))},
	{"sub by another case", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) {
		delete(t.Claims, "sub")
		t.Claims["Sub"] = "alice"
	}},
	{"sub of another user than the first token's", onBack, claim("sub", "bob")},

	{"nonce missing", onBoth, without("nonce")},
	{"nonce empty", onBoth, claim("nonce", "")},
	{"nonce another", onBoth, claim("nonce", seal.Encode(make([]byte, 32)))},
	{"nonce a list", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) { t.Claims["nonce"] = []any{t.Claims["nonce"]} }},
	{"nonce by another case", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) {
		t.Claims["Nonce"], t.Claims["noncE"] = t.Claims["nonce"], t.Claims["nonce"]
		t.Claims["nonce"] = "another"
	}},

	{"c_hash missing", onFront, without("c_hash")},
	{"c_hash empty", onFront, claim("c_hash", "")},
	{"c_hash null", onFront, claim("c_hash", nil)},
	{"c_hash of another code", onBoth, claim("c_hash", signintest.HalfHash("RS256", "another"))},
	{"c_hash a number", onBoth, claim("c_hash", 1)},
	{"c_hash by another hash", onBoth, func(_ *signintest.Issuer, t *signintest.IDToken) {
		t.Claims["c_hash"] = signintest.HalfHash("RS512", t.Code)
	}},
	{"at_hash of another token", onBack, claim("at_hash", signintest.HalfHash("RS256", "another"))},
	{"at_hash a number", onBack, claim("at_hash", 1)},
	{"at_hash by another hash", onBack, func(_ *signintest.Issuer, t *signintest.IDToken) {
		t.Claims["at_hash"] = signintest.HalfHash("RS384", t.AccessToken)
	}},
}

// channels are the ways an ID token can come.
var channels = []struct {
	name, typ string
	channel   signintest.Channel
	on        int
	requests  int // to the token endpoint, if the token is bad
}{
	{"hybrid, front", typeHybrid, signintest.FrontChannel, onFront, 0},
	{"hybrid, back", typeHybrid, signintest.BackChannel, onBack, 1},
	{"code, back", typeCode, signintest.BackChannel, onBack, 1},
}

// TestIDTokenAttacks: a lie in an ID token signs nobody in, costs no token
// request if it was told on the front channel, and is explained to nobody but
// the log.
func TestIDTokenAttacks(t *testing.T) {
	for _, ch := range channels {
		t.Run(ch.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.ResponseType, c.Audiences = ch.typ, []string{"trusted"} }
			})
			a.issuer.Key() // published, so that the attacks need not
			b := a.browser()
			for _, attack := range attacks {
				if attack.on&ch.on == 0 || ch.typ == typeCode && strings.Contains(attack.name, "first token") {
					continue
				}
				t.Run(attack.name, func(t *testing.T) {
					a.letFetchKeys() // or an unknown key id would not be the token's fault
					a.issuer.ForgetCalls()
					a.issuer.Update(func(behaviour *signintest.Behaviour) {
						behaviour.EditIDToken = func(token *signintest.IDToken) {
							if token.Channel == ch.channel {
								attack.edit(a.issuer, token)
							}
						}
					})
					b.ClearCookies()
					p := b.Open(a.url + "/page/x")
					wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
					wantSignedOut(t, a, b)
					if n := a.redemptions(); n != ch.requests {
						t.Errorf("%d token requests, want %d", n, ch.requests)
					}
					cause, _ := strings.CutPrefix(lastCause(a), "signin: callback: id token, ")
					if cause == "" || strings.Contains(p.Body, cause) {
						t.Errorf("cause %q: want it in the log, and not on the page", cause)
					}
				})
			}
		})
	}
}

// TestIDTokenVariants: what the specification allows is not refused.
func TestIDTokenVariants(t *testing.T) {
	now := time.Now().Unix()
	variants := []struct {
		name string
		edit func(*signintest.Issuer, *signintest.IDToken)
	}{
		{"aud a list of one", claim("aud", []string{"client"})},
		{"the client twice", claim("aud", []string{"client", "client"})},
		{"a trusted audience and no azp", claim("aud", []string{"client", "https://identity.example.org/"})},
		{"several trusted audiences", claim("aud", []string{"https://identity.example.org/", "client", "second", "client"})},
		{"two audiences with azp", claims(map[string]any{"aud": []string{"api", "client"}, "azp": "client"})},
		{"one audience with azp", claim("azp", "client")},
		{"azp null", claim("azp", nil)},
		{"no hashes in the second token", func(_ *signintest.Issuer, t *signintest.IDToken) {
			if t.Channel == signintest.BackChannel {
				delete(t.Claims, "at_hash")
				delete(t.Claims, "c_hash")
			}
		}},
		{"exp within the allowance", from("exp", -45)},
		{"nbf within the allowance", from("nbf", 45)},
		{"iat within the allowance", from("iat", 45)},
		{"auth_time within the allowance", from("auth_time", 45)},
		{"nbf zero", claim("nbf", 0)},
		{"fractions of seconds", claims(map[string]any{"exp": float64(now) + 3600.5, "iat": float64(now) - 0.25, "nbf": float64(now) - 0.75, "auth_time": float64(now) - 1.5})},
		{"exponents", claims(map[string]any{"exp": json.RawMessage("4e9"), "iat": json.RawMessage("1.7e9")})},
		{"no auth_time, no sid", func(_ *signintest.Issuer, t *signintest.IDToken) {
			delete(t.Claims, "auth_time")
			delete(t.Claims, "sid")
		}},
		{"no kid", signing(func(_ *signintest.Issuer, o *signintest.SignOptions) { o.Header = map[string]any{"kid": nil} })},
		{"another jwk that is not looked at", signing(func(i *signintest.Issuer, o *signintest.SignOptions) {
			o.Header = map[string]any{"jwk": i.ForeignKey("RS256").JWK()}
		})},
		{"names that differ by case", claims(map[string]any{"SUB": "bob", "Nonce": "x", "ACR": 1, "Azp": "other", "TID": 7, "SID": "S-1-5-21", "C_hash": 0})},
		{"distributed claims", claims(map[string]any{"_claim_names": map[string]string{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://graph.example.test/groups"}}})},
		{"acr a number", claim("acr", 1)},
		{"acr a list", claim("acr", []string{"loa2"})},
		{"auth_time a string", claim("auth_time", "1")},
		{"auth_time in milliseconds", claim("auth_time", now*1000)},
		{"auth_time negative", claim("auth_time", -1)},
		{"sid a number", claim("sid", 7)},
		{"tid and oid lists", claims(map[string]any{"tid": []string{"t"}, "oid": []int{1}})},
		{"claims that go-oidc would decode", claims(map[string]any{"_claim_names": 1, "_claim_sources": "x", "Exp": "x", "Nonce": 1, "email": 1})},
		{"distributed claims without a source", claims(map[string]any{"_claim_names": map[string]any{"groups": "src1", "roles": 1}})},
		{"20 KB of groups", claim("groups", strings.Split(strings.Repeat("0b1c2d3e ", 1800), " "))},
	}
	for _, typ := range []string{typeHybrid, typeCode} {
		t.Run(typ, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) {
					c.ResponseType, c.Audiences = typ, []string{"https://identity.example.org/", "second"}
				}
			})
			b := a.browser()
			for _, v := range variants {
				t.Run(v.name, func(t *testing.T) {
					a.issuer.Update(func(behaviour *signintest.Behaviour) {
						behaviour.EditIDToken = func(token *signintest.IDToken) { v.edit(a.issuer, token) }
					})
					b.ClearCookies()
					if got := a.subject(b); got != "alice" {
						t.Errorf("signed in as %q, want alice; %s", got, lastCause(a))
					}
				})
			}
			a.issuer.Update(func(behaviour *signintest.Behaviour) { behaviour.EditIDToken = nil })
			long := strings.Repeat("s", 255)
			a.issuer.Update(func(behaviour *signintest.Behaviour) {
				behaviour.Users = []signintest.User{{Subject: long}}
			})
			b.ClearCookies()
			if got := a.subject(b); got != long {
				t.Errorf("a sub of 255 characters: %q, want it to be let in", got)
			}
		})
	}
}

// TestIDTokenAlgorithms: each algorithm announced is accepted, with hashes of
// its own, and no hash of another algorithm's is.
func TestIDTokenAlgorithms(t *testing.T) {
	for _, alg := range oidc.Asymmetric {
		t.Run(alg, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) { b.Alg = alg }
			})
			if got := a.subject(a.browser()); got != "alice" {
				t.Fatalf("signed in as %q, want alice; %s", got, lastCause(a))
			}
			other := map[bool]string{true: "RS512", false: "RS256"}[strings.HasSuffix(alg, "256")]
			for _, channel := range []signintest.Channel{signintest.FrontChannel, signintest.BackChannel} {
				a.issuer.Update(func(b *signintest.Behaviour) {
					b.EditIDToken = func(token *signintest.IDToken) {
						switch {
						case token.Channel != channel:
						case channel == signintest.FrontChannel:
							token.Claims["c_hash"] = signintest.HalfHash(other, token.Code)
						default:
							token.Claims["at_hash"] = signintest.HalfHash(other, token.AccessToken)
						}
					}
				})
				wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
			}
		})
	}
}

// TestIDTokenOfAnotherChallenge: what was made for one challenge of a browser
// does not answer another of the same browser.
func TestIDTokenOfAnotherChallenge(t *testing.T) {
	a := newApp(t)
	b := a.browser()
	one, two := a.toCallback(b, "/page/1"), a.toCallback(b, "/page/2")

	p := b.Send(edited(two, "id_token", one.Form.Get("id_token")))
	wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
	// A code injected with its own ID token, both good, into another state.
	swapped := edited(edited(two, "id_token", one.Form.Get("id_token")), "code", one.Form.Get("code"))
	wantPage(t, a, b.Send(swapped), http.StatusBadRequest, PageTokenRejected)
	if cause := lastCause(a); !strings.Contains(cause, "nonce") {
		t.Errorf("refused because of %q, want the nonce", cause)
	}
	wantPage(t, a, b.Send(edited(two, "code", one.Form.Get("code"))), http.StatusBadRequest, PageTokenRejected)
	if cause := lastCause(a); !strings.Contains(cause, "c_hash") {
		t.Errorf("refused because of %q, want c_hash", cause)
	}
	if a.redemptions() != 0 {
		t.Errorf("%d token requests, want 0", a.redemptions())
	}
	for _, r := range []*signintest.Request{two, one} {
		if p := b.Follow(r); p.Status != http.StatusOK || !strings.HasPrefix(p.Body, "page /page/") {
			t.Errorf("the untouched answer: %d %.300s", p.Status, p.Body)
		}
	}
}

// TestCodeOfAnotherChallenge: without an ID token in front PKCE finds out.
func TestCodeOfAnotherChallenge(t *testing.T) {
	a := newApp(t, func(o *appOptions) { o.config = func(c *Config) { c.ResponseType = typeCode } })
	b := a.browser()
	one, two := a.toCallback(b, "/page/1"), a.toCallback(b, "/page/2")
	wantPage(t, a, b.Send(edited(two, "code", one.Form.Get("code"))), http.StatusBadGateway, PageRedeemRefused)
	wantSignedOut(t, a, b)
	if !strings.Contains(lastCause(a), "code_verifier") {
		t.Errorf("refused because of %q, want code_verifier", lastCause(a))
	}
}

// TestMaxAge: auth_time is checked when max_age was asked, on both channels.
func TestMaxAge(t *testing.T) {
	for _, ch := range channels {
		t.Run(ch.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.config = func(c *Config) { c.ResponseType, c.MaxAge = ch.typ, 5*time.Minute }
			})
			for _, tc := range []struct {
				name string
				edit func(*signintest.Issuer, *signintest.IDToken)
				ok   bool
			}{
				{"missing", without("auth_time"), false},
				{"null", claim("auth_time", nil), false},
				{"a string", claim("auth_time", fmt.Sprint(time.Now().Unix())), false},
				{"in milliseconds", claim("auth_time", time.Now().UnixMilli()), false},
				{"zero", claim("auth_time", 0), false},
				{"too old", from("auth_time", -300-75), false},
				{"as old as may be, within the allowance", from("auth_time", -300-45), true},
				{"fresh", from("auth_time", 0), true},
			} {
				a.issuer.ForgetCalls()
				a.issuer.Update(func(b *signintest.Behaviour) {
					b.EditIDToken = func(token *signintest.IDToken) {
						if token.Channel == ch.channel {
							tc.edit(a.issuer, token)
						}
					}
				})
				b := a.browser()
				p := b.Open(a.url + "/page/x")
				if tc.ok {
					if p.Status != http.StatusOK {
						t.Errorf("%s: %d, want 200; %s", tc.name, p.Status, lastCause(a))
					}
					continue
				}
				wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
				if n := a.redemptions(); n != ch.requests {
					t.Errorf("%s: %d token requests, want %d", tc.name, n, ch.requests)
				}
			}
		})
	}
}

// TestIssuerDiffersBetweenTokens: two forms of one issuer are each good, but
// not one in front and the other behind.
func TestIssuerDiffersBetweenTokens(t *testing.T) {
	const tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	v1 := "https://sts.windows.net/" + tenant + "/"
	v2 := "https://login.microsoftonline.com/" + tenant + "/v2.0"
	for _, tc := range []struct {
		front, back string
		ok          bool
	}{{v2, v2, true}, {v1, v1, true}, {v2, v1, false}, {v1, v2, false}} {
		a := newApp(t, func(o *appOptions) {
			o.issuerURL = "https://login.microsoftonline.com/" + tenant + "/v2.0"
			o.behaviour = func(b *signintest.Behaviour) {
				b.Entra = true
				b.EditIDToken = func(token *signintest.IDToken) {
					token.Claims["tid"] = tenant
					token.Claims["iss"] = map[signintest.Channel]string{signintest.FrontChannel: tc.front, signintest.BackChannel: tc.back}[token.Channel]
				}
			}
		})
		p := a.browser().Open(a.url + "/me")
		if tc.ok && p.Status != http.StatusOK {
			t.Errorf("%s: %d; %s", tc.front, p.Status, lastCause(a))
		} else if !tc.ok {
			wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
			if !strings.Contains(lastCause(a), "iss or sub differ") {
				t.Errorf("refused because of %q", lastCause(a))
			}
		}
	}
}

// lastCause is why the latest request was refused, by the log.
func lastCause(a *app) string {
	lines := strings.Split(strings.TrimSpace(a.log.String()), "\n")
	for _, line := range slices.Backward(lines) {
		var entry struct{ Msg, Cause string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "signin: rejected" {
			return entry.Cause
		}
	}
	return ""
}
