package signin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// A key that the issuer has withdrawn stops counting within an hour, for ID
// tokens as for logout tokens, also where nobody signed in meanwhile.
func TestWithdrawnKey(t *testing.T) {
	a := newApp(t)
	a.signIn() // loads the keys
	stolen := a.issuer.Key()
	a.issuer.RotateKey()
	a.issuer.RetireKeys()
	for _, later := range []time.Duration{time.Hour, 24 * time.Hour, 30 * 24 * time.Hour} {
		a.clock.advance(later)
		a.issuer.Update(func(b *signintest.Behaviour) {
			b.EditIDToken = func(it *signintest.IDToken) { it.Signing.Key = &stolen }
		})
		if got := a.subject(a.browser()); got == "alice" {
			t.Errorf("%v after the key was withdrawn an ID token signed by it still signs in", later)
		}
	}
}

func TestWithdrawnKeyOfLogoutTokens(t *testing.T) {
	a := newApp(t)
	b := a.signIn()
	// A good logout token loads the keys for logout tokens.
	a.logoutPost(t, a.issuer.Sign(a.issuer.LogoutToken("bob", ""), signintest.SignOptions{}))
	stolen := a.issuer.Key()
	a.issuer.RotateKey()
	a.issuer.RetireKeys()
	a.clock.advance(11 * time.Hour)
	a.signIn() // fetches the keys for ID tokens, not those for logout tokens
	raw := a.issuer.Sign(a.issuer.LogoutToken("alice", ""), signintest.SignOptions{Key: &stolen})
	if got := a.logoutPost(t, raw).StatusCode; got == http.StatusOK || !a.signedIn(b) {
		t.Errorf("a logout token by a key withdrawn 11 hours ago: %d; alice signed in afterwards: %t", got, a.signedIn(b))
	}
}

// While newer keys cannot be had the old ones serve. The log says so, and the
// issuer is asked once a minute at most.
func TestOldKeysServe(t *testing.T) {
	hang := make(chan struct{})
	for name, fault := range map[string]signintest.Fault{
		"500":      {Status: http.StatusInternalServerError},
		"HTML":     signintest.HTMLFault(http.StatusOK),
		"no keys":  signintest.JSONFault(http.StatusOK, map[string]any{"keys": []any{}}),
		"odd keys": signintest.JSONFault(http.StatusOK, map[string]any{"keys": []any{map[string]any{"kty": "oct"}}}),
		"hanging":  {Hang: hang},
	} {
		t.Run(name, func(t *testing.T) {
			var a *app
			a = newApp(t, func(o *appOptions) {
				o.config = func(c *Config) {
					c.Observe = func(ctx context.Context, e Event) {
						if e.Name == EventIssuerFailing { // an observer may ask who is there, and whether we are ready
							a.Ready(ctx)
							a.Auth.issuer.Meta.Keys.Source.Current(ctx)
						}
					}
				}
			})
			a.signIn()
			a.clock.advance(oidc.KeyAge - time.Second)
			before := a.issuer.Count(signintest.EndpointKeys)
			a.signIn()
			if n := a.issuer.Count(signintest.EndpointKeys) - before; n != 0 {
				t.Errorf("%d fetches of keys that are not an hour old", n)
			}
			a.issuer.Fail(signintest.EndpointKeys, fault)
			a.clock.advance(time.Second)
			for range 3 {
				a.signIn()
			}
			if n := a.issuer.Count(signintest.EndpointKeys) - before; n != 1 {
				t.Errorf("%d fetches within a minute, want 1", n)
			}
			if name == "hanging" {
				close(hang)
				meta, err := a.Auth.issuer.Metadata(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := meta.Keys.Source.Fetches.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else if !strings.Contains(a.log.String(), "keys older than an hour serve") {
				t.Errorf("the log does not say that old keys serve:\n%s", a.log)
			}
			a.issuer.Heal()
			a.issuer.RotateKey()
			a.issuer.RetireKeys()
			a.clock.advance(oidc.KeyInterval)
			a.signIn()
			if n := a.issuer.Count(signintest.EndpointKeys) - before; n != 2 {
				t.Errorf("%d fetches once they succeed again, want 2", n)
			}
		})
	}
}

// An RSA key that can be factored is nobody's, whatever the issuer says.
func TestShortKeys(t *testing.T) {
	a := newApp(t)
	for _, bits := range []int{1024, 2047} {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		weak := signintest.Key{ID: fmt.Sprint("weak", bits), Alg: "RS256", Private: private}
		a.issuer.Update(func(b *signintest.Behaviour) {
			b.EditKeys = func(set map[string]any) {
				set["keys"] = append(set["keys"].([]map[string]any), weak.JWK())
			}
			b.EditIDToken = func(it *signintest.IDToken) { it.Signing.Key = &weak }
		})
		a.clock.advance(oidc.KeyAge)
		wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
		if cause := lastCause(a); !strings.Contains(cause, fmt.Sprintf("%d bits", bits)) {
			t.Errorf("refused because of %q, want the %d bits", cause, bits)
		}
		if got := a.logoutPost(t, a.issuer.Sign(a.issuer.LogoutToken("alice", ""), signintest.SignOptions{Key: &weak})).StatusCode; got != http.StatusBadRequest {
			t.Errorf("a logout token by a key of %d bits: %d, want 400", bits, got)
		}
	}
}

// Odd keys cost nobody the set: not those beside the key that signs, and not
// odd members of that key itself.
func TestOddKeys(t *testing.T) {
	each := func(edit func(map[string]any)) func(map[string]any) {
		return func(set map[string]any) {
			for _, k := range set["keys"].([]map[string]any) {
				edit(k)
			}
		}
	}
	set := func(name string, value any) func(map[string]any) {
		return each(func(k map[string]any) { k[name] = value })
	}
	drop := func(names ...string) func(map[string]any) {
		return each(func(k map[string]any) {
			for _, n := range names {
				delete(k, n)
			}
		})
	}
	cases := map[string]func(map[string]any){
		"no kid":                    drop("kid"),
		"no kid, use and alg":       drop("kid", "use", "alg"),
		"kid null":                  set("kid", nil),
		"kid empty":                 set("kid", ""),
		"negative serial number":    set("x5c", []string{signintest.NegativeSerial()}),
		"certificates that are odd": each(func(k map[string]any) { k["x5c"], k["x5t"], k["x5t#S256"], k["x5u"] = 1, []int{1}, "%", "::" }),
		"alg a number":              set("alg", 256),
		"alg unknown":               set("alg", "RSA"),
		"use a list":                set("use", []string{"sig"}),
		"use empty":                 set("use", ""),
		"key_ops a string":          set("key_ops", "verify"),
		"key_ops verify":            set("key_ops", []string{"verify"}),
		"ext and more":              each(func(k map[string]any) { k["ext"], k["exp"], k["nbf"] = 1, "x", []int{} }),
		"private members empty":     each(func(k map[string]any) { k["d"], k["p"] = nil, "" }),
		"every odd key before it": func(set map[string]any) {
			set["keys"] = append(signintest.OddKeys(), set["keys"].([]map[string]any)...)
		},
		"every odd key after it": func(set map[string]any) {
			set["keys"] = append(set["keys"].([]map[string]any), signintest.OddKeys()...)
		},
		"each key twice": func(set map[string]any) {
			keys := set["keys"].([]map[string]any)
			set["keys"] = append(keys, keys...)
		},
		"another key under the same kid": func(set map[string]any) {
			keys := set["keys"].([]map[string]any)
			for _, odd := range signintest.OddKeys() {
				odd = maps.Clone(odd)
				odd["kid"] = keys[0]["kid"]
				set["keys"] = append([]map[string]any{odd}, set["keys"].([]map[string]any)...)
			}
		},
		"what is no key": func(set map[string]any) {
			keys := []any{nil, 1, "key", []any{}, map[string]any{"kid": map[string]any{}}}
			for _, k := range set["keys"].([]map[string]any) {
				keys = append(keys, k)
			}
			set["keys"], set["Keys"] = keys, []any{}
		},
	}
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		for name, edit := range cases {
			t.Run(alg+"/"+name, func(t *testing.T) {
				a := newApp(t, func(o *appOptions) {
					o.behaviour = func(b *signintest.Behaviour) { b.Alg, b.EditKeys = alg, edit }
				})
				b := a.browser()
				if got := a.subject(b); got != "alice" {
					t.Fatalf("signed in as %q, want alice; %s", got, lastCause(a))
				}
				raw := a.issuer.Sign(a.issuer.LogoutToken("alice", ""), signintest.SignOptions{})
				if got := a.logoutPost(t, raw).StatusCode; got != http.StatusOK || a.signedIn(b) {
					t.Errorf("a logout token: %d, want 200; %s", got, lastCause(a))
				}
				// A foreign key gains nothing from what is odd.
				foreign := a.issuer.ForeignKey(alg)
				a.issuer.Update(func(b *signintest.Behaviour) {
					b.EditIDToken = func(it *signintest.IDToken) { it.Signing.Key, it.Signing.KeyID = &foreign, "unknown" }
				})
				a.letFetchKeys()
				wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusBadRequest, PageTokenRejected)
			})
		}
	}
}

// A kid is a hint (RFC 7515, 4.1.4): a token without one is tried with every
// key, and a kid that is a number in the set is known by its digits.
func TestKeyIDs(t *testing.T) {
	for name, edit := range map[string]func(*signintest.Behaviour){
		"token without kid": func(b *signintest.Behaviour) {
			b.EditIDToken = func(it *signintest.IDToken) { it.Signing.Header = map[string]any{"kid": nil} }
		},
		"a number in the set": func(b *signintest.Behaviour) {
			b.EditKeys = func(set map[string]any) { set["keys"].([]map[string]any)[0]["kid"] = 7 }
			b.EditIDToken = func(it *signintest.IDToken) { it.Signing.KeyID = "7" }
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.behaviour = edit })
			if got := a.subject(a.browser()); got != "alice" {
				t.Errorf("signed in as %q, want alice; %s", got, lastCause(a))
			}
		})
	}
}

// A set of keys without kid does not hide a rotation: a token by a key that is
// not among them leads to a fetch.
func TestRotationWithoutKeyIDs(t *testing.T) {
	a := newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditKeys = func(set map[string]any) {
				for _, k := range set["keys"].([]map[string]any) {
					delete(k, "kid")
				}
			}
		}
	})
	a.signIn()
	a.issuer.RotateKey()
	a.issuer.RetireKeys()
	if got := a.subject(a.browser()); got != "alice" {
		t.Errorf("signed in as %q, want alice; %s", got, lastCause(a))
	}
	if n := a.issuer.Count(signintest.EndpointKeys); n != 2 {
		t.Errorf("%d fetches of keys, want 2", n)
	}
}

// TestUnusableKeys: what cannot be used counts for nobody, and the log says why.
func TestUnusableKeys(t *testing.T) {
	for name, tc := range map[string]struct {
		member string
		value  any
		want   string
	}{
		"for encryption":        {"use", "enc", "not sig"},
		"an encrypting alg":     {"alg", "RSA-OAEP", "for encryption"},
		"operations":            {"key_ops", []string{"decrypt"}, "key_ops"},
		"private half":          {"d", "AQAB", "private half"},
		"a factor":              {"p", "AQAB", "private half"},
		"even modulus":          {"n", seal.Encode(bytes.Repeat([]byte{0xfe}, 256)), "n or e"},
		"exponent 1":            {"e", "AQ", "n or e"},
		"exponent of 2 GiB":     {"e", "AQAAAAE", "n or e"},
		"modulus of 20000 bits": {"n", seal.Encode(bytes.Repeat([]byte{0xff}, 2500)), "or less"},
		"kty a list":            {"kty", []string{"RSA"}, "kty"},
		"kty in small letters":  {"kty", "rsa", "kty"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditKeys = func(set map[string]any) { set["keys"].([]map[string]any)[0][tc.member] = tc.value }
				}
			})
			if p := a.browser().Open(a.url + "/me"); p.Status != http.StatusServiceUnavailable {
				t.Errorf("%d, want 503", p.Status)
			}
			if cause := lastCause(a); !strings.Contains(cause, tc.want) {
				t.Errorf("refused because of %q, want %q in it", cause, tc.want)
			}
		})
	}
}

// Of keys that cannot be fetched the log says where and why, the page nothing.
func TestKeysCause(t *testing.T) {
	private := httptest.NewUnstartedServer(http.NotFoundHandler())
	private.Config.ErrorLog = log.New(io.Discard, "", 0)
	private.StartTLS()
	defer private.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	plain.Close()
	for name, tc := range map[string]struct {
		uri   string
		fault *signintest.Fault
		want  string
	}{
		"not found":         {uri: "https://login.example.test/nowhere", want: "https://login.example.test/nowhere: status 404"},
		"unknown authority": {uri: private.URL + "/keys", want: "certificate"},
		"refused":           {uri: plain.URL + "/keys", want: "refused"},
		"redirect":          {fault: &signintest.Fault{Redirect: "https://evil.example/"}, want: "status 307"},
		"HTML":              {fault: new(signintest.HTMLFault(200)), want: "not a JSON Web Key Set"},
		"endless":           {fault: &signintest.Fault{Body: `{"keys":[`, Endless: true}, want: "over 1 MiB"},
		"no keys":           {fault: new(signintest.JSONFault(200, map[string]any{"keys": []any{}})), want: "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					b.EditDiscovery = func(d map[string]any) {
						if tc.uri != "" {
							d["jwks_uri"] = tc.uri
						}
					}
				}
			})
			if tc.fault != nil {
				a.issuer.Fail(signintest.EndpointKeys, *tc.fault)
			}
			p := a.browser().Open(a.url + "/me")
			if p.Status != http.StatusServiceUnavailable || strings.Contains(p.Body, "keys") {
				t.Errorf("%d %.300s, want 503", p.Status, p.Body)
			}
			if cause := lastCause(a); !strings.Contains(cause, tc.want) || len(cause) > 700 {
				t.Errorf("the log says %q, want %q in it", cause, tc.want)
			}
		})
	}
}

// TestKeySetEncodings: numbers come padded, in the other alphabet of base64, and
// with zeros too many or too few.
func TestKeySetEncodings(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := signintest.Key{ID: "k", Alg: "ES256", Private: key}.JWK()
	want, err := oidc.ParseSigningKey(mustJSON(t, good))
	if err != nil {
		t.Fatal(err)
	}
	x, err := seal.Decode(good["x"].(string))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"padded":       good["x"].(string) + "=",
		"base64":       strings.NewReplacer("-", "+", "_", "/").Replace(good["x"].(string)),
		"more zeros":   seal.Encode(append([]byte{0, 0}, x...)),
		"fewer zeros":  seal.Encode([]byte(strings.TrimLeft(string(x), "\x00"))),
		"as it should": good["x"].(string),
	} {
		k := maps.Clone(good)
		k["x"] = value
		got, err := oidc.ParseSigningKey(mustJSON(t, k))
		if err != nil || !want.Public.(*ecdsa.PublicKey).Equal(got.Public) {
			t.Errorf("%s: %v, want the same key", name, err)
		}
	}
}

// TestManyKeys: a set is read up to a bound.
func TestManyKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]any, 5*oidc.MaxKeys)
	for i := range list {
		list[i] = signintest.Key{ID: fmt.Sprint(i), Alg: "ES256", Private: key}.JWK()
	}
	set, err := oidc.ParseKeySet(mustJSON(t, map[string]any{"keys": list}))
	if err != nil || len(set.Keys) != oidc.MaxKeys {
		t.Errorf("%d keys, %v; want %d", len(set.Keys), err, oidc.MaxKeys)
	}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzKeySet: whatever an issuer publishes, a key that is read can be tried,
// and none is short.
func FuzzKeySet(f *testing.F) {
	token := strings.Join([]string{seal.Encode([]byte(`{"alg":"RS256","kid":"k"}`)), seal.Encode([]byte(`{}`)), seal.Encode(make([]byte, 256))}, ".")
	f.Add(mustJSON(f, map[string]any{"keys": signintest.OddKeys()}))
	f.Add([]byte("\ufeff{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" + seal.Encode(make([]byte, 32)) + "\"}]}"))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		set, err := oidc.ParseKeySet(body)
		if err != nil {
			return
		}
		if len(set.Keys) == 0 || len(set.Keys) > oidc.MaxKeys {
			t.Fatalf("%d keys", len(set.Keys))
		}
		for _, k := range set.Keys {
			if public, ok := k.Public.(*rsa.PublicKey); ok && public.N.BitLen() < oidc.MinRSABits {
				t.Errorf("an RSA key of %d bits", public.N.BitLen())
			}
		}
		if _, _, err := set.Verify(token, oidc.Asymmetric); err == nil {
			t.Error("a signature of zeros verifies")
		}
	})
}
