package signin

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/signintest"
)

// TestTimeClaims: the allowance counts in either direction and to the second,
// and is the same for every claim.
func TestTimeClaims(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, skew := range []time.Duration{0, time.Minute, 10 * time.Minute} {
		s := int64(skew.Seconds())
		for _, tc := range []struct {
			name  string
			claim string
			value string
			ok    bool
		}{
			{"exp, last moment", "exp", fmt.Sprint(now.Unix() - s + 1), true},
			{"exp, over", "exp", fmt.Sprint(now.Unix() - s), false},
			{"exp, over by a fraction", "exp", fmt.Sprintf("%d.999", now.Unix()-s), false},
			{"exp, year 36000", "exp", "1073741824000", true},
			{"exp, beyond", "exp", "1.2e12", false},
			{"exp, missing", "exp", "null", false},
			{"nbf, first moment", "nbf", fmt.Sprint(now.Unix() + s), true},
			{"nbf, too early", "nbf", fmt.Sprint(now.Unix() + s + 1), false},
			{"nbf, missing", "nbf", "null", true},
			{"iat, first moment", "iat", fmt.Sprint(now.Unix() + s), true},
			{"iat, to come", "iat", fmt.Sprint(now.Unix() + s + 1), false},
			{"iat, long ago", "iat", "1", true},
			{"iat, missing", "iat", "null", false},
			{"auth_time, first moment", "auth_time", fmt.Sprint(now.Unix() + s), true},
			{"auth_time, to come", "auth_time", fmt.Sprint(now.Unix() + s + 1), false},
			{"auth_time, missing", "auth_time", "null", true},
			{"auth_time, negative zero", "auth_time", "-0", true},
			{"iat, negative", "iat", "-0.5", false},
			{"iat, a string", "iat", `"1"`, false},
			{"iat, no number", "iat", "{}", false},
			{"exp, a list", "exp", "[1900000000]", false},
		} {
			raw := map[string]json.RawMessage{"exp": json.RawMessage(fmt.Sprint(now.Unix() + 3600)), "iat": json.RawMessage(fmt.Sprint(now.Unix()))}
			raw[tc.claim] = json.RawMessage(tc.value)
			payload, err := json.Marshal(raw)
			if err != nil {
				t.Fatal(err)
			}
			var c oidc.Claims
			if err = oidc.DecodeExact(payload, &c); err == nil {
				err = c.CheckTimes(now, skew)
			}
			if (err == nil) != tc.ok {
				t.Errorf("skew %v, %s: %v, want it accepted: %t", skew, tc.name, err, tc.ok)
			}
		}
	}
}

// TestAuthTime: the age counts from the challenge, and max_age=0 is a wish for
// a new sign-in.
func TestAuthTime(t *testing.T) {
	challenged := time.Unix(1_800_000_000, 0)
	const skew = time.Minute
	for _, tc := range []struct {
		name   string
		maxAge *int64
		age    int64 // at the challenge; negative: after it
		ok     bool
	}{
		{"not asked", nil, 1 << 30, true},
		{"at the edge", new(int64(300)), 360, true},
		{"beyond the edge", new(int64(300)), 361, false},
		{"zero, signed in for it", new(int64(0)), -5, true},
		{"zero, within the allowance", new(int64(0)), 60, true},
		{"zero, signed in before", new(int64(0)), 61, false},
		{"the user took an hour", new(int64(300)), -3600, true},
	} {
		c := oidc.Claims{AuthTime: &oidc.NumericDate{Time: challenged.Add(-time.Duration(tc.age) * time.Second)}}
		want := oidc.Expectation{MaxAge: tc.maxAge, Challenged: challenged}
		if err := c.CheckAuthTime(want, skew); (err == nil) != tc.ok {
			t.Errorf("%s: %v, want it accepted: %t", tc.name, err, tc.ok)
		}
		c.AuthTime = nil
		if err := c.CheckAuthTime(want, skew); (err == nil) != (tc.maxAge == nil) {
			t.Errorf("%s, auth_time missing: %v", tc.name, err)
		}
	}
}

// TestHalfHash compares with the example of OpenID Connect Core, A.4, and with
// the hash of every algorithm.
func TestHalfHash(t *testing.T) {
	const code = "Qcb0Orv1zh30vL1MPRsbm-diHiMwcLyZvn1arpZv-Jxf_11jnpEX3Tgfvk"
	if err := oidc.VerifyHash("RS256", "LDktKdoQak3Pk0cnXxCltA", code); err != nil {
		t.Errorf("the specification's example: %v", err)
	}
	for _, alg := range oidc.Asymmetric {
		for _, other := range oidc.Asymmetric {
			hash := signintest.HalfHash(other, code)
			same := signintest.HalfHash(alg, code) == hash
			if err := oidc.VerifyHash(alg, hash, code); (err == nil) != same {
				t.Errorf("%s with the hash of %s: %v", alg, other, err)
			}
		}
		for _, claim := range []string{"", "LDktKdoQak3Pk0cnXxCltA=", signintest.HalfHash(alg, code)[1:], signintest.HalfHash(alg, code+"x")} {
			if oidc.VerifyHash(alg, claim, code) == nil {
				t.Errorf("%s accepts %q", alg, claim)
			}
		}
	}
	for _, alg := range []string{"", "none", "RS257", "HS1"} {
		if oidc.VerifyHash(alg, signintest.HalfHash("RS256", code), code) == nil {
			t.Errorf("alg %q has a hash", alg)
		}
	}
}

// TestClaimNames: names count to the letter, and of two the last does.
func TestClaimNames(t *testing.T) {
	var c oidc.Claims
	payload := `{"sub":"first","SUB":"x","ſub":"x","sub":"alice","Sub":"x","iss":"i","aud":"c","azp":null,"nonce":"n","NONCE":"x","at_hash":"h","AT_HASH":"x","extra":{"sub":"x"}}`
	if err := oidc.DecodeExact([]byte(payload), &c); err != nil {
		t.Fatal(err)
	}
	if c.Subject != "alice" || c.Issuer != "i" || len(c.Audience) != 1 || c.Audience[0] != "c" || c.AuthParty != nil || c.Nonce != "n" || c.TokenHash != "h" {
		t.Errorf("decoded %+v", c)
	}
	for _, bad := range []string{"", "null null", "[]", `"sub"`, `{"sub":{}}`, `{"aud":{}}`, `{"aud":[1]}`, `{"exp":"1"}`, `{`} {
		if err := oidc.DecodeExact([]byte(bad), new(oidc.Claims)); err == nil {
			t.Errorf("decoded %s", bad)
		}
	}
	// What decides nothing counts as absent.
	for _, odd := range []string{`{"acr":1}`, `{"auth_time":"1"}`, `{"auth_time":[1]}`, `{"tid":{}}`, `{"oid":7}`, `{"sid":[]}`} {
		c := oidc.Claims{}
		if err := oidc.DecodeExact([]byte(odd), &c); err != nil || !reflect.ValueOf(c).IsZero() {
			t.Errorf("decoded %s as %+v, %v; want nothing", odd, c, err)
		}
	}
}

// TestRefusalsAreSilent: the error of a token that is refused says why, not
// what was in it.
func TestRefusalsAreSilent(t *testing.T) {
	a := newApp(t)
	meta, err := a.Auth.issuer.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const private = "private-0123456789"
	for name, edit := range map[string]func(map[string]any){
		"nonce":  func(c map[string]any) { c["nonce"] = private },
		"sub":    func(c map[string]any) { c["sub"] = strings.Repeat(private, 20) },
		"sub[]":  func(c map[string]any) { c["sub"] = []string{private} },
		"iss":    func(c map[string]any) { c["iss"] = private },
		"azp":    func(c map[string]any) { c["azp"] = private },
		"c_hash": func(c map[string]any) { c["c_hash"] = private },
		"iat":    func(c map[string]any) { c["iat"] = []string{private} },
		"aud":    func(c map[string]any) { c["aud"] = private },
	} {
		now := time.Now().Unix()
		claims := map[string]any{"iss": a.issuer.URL(), "sub": "alice", "aud": "client", "iat": now, "exp": now + 60, "nonce": "n"}
		edit(claims)
		raw := a.issuer.Sign(claims, signintest.SignOptions{})
		_, err := a.Auth.issuer.VerifyIDToken(t.Context(), meta, raw, oidc.Expectation{Nonce: "n", Code: "code", Front: true})
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for part := range strings.SplitSeq(raw, ".") {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error holds a part of the token", name)
			}
		}
		if strings.Contains(err.Error(), private) {
			t.Errorf("%s: the error holds the claim: %v", name, err)
		}
	}
}
