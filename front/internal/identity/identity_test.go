package identity

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/settings"
)

func config(t *testing.T, encoding string, rs ...*settings.Route) *settings.Config {
	t.Helper()
	var patterns []string
	for i, r := range rs {
		r.Index = i
		patterns = append(patterns, r.Pattern)
	}
	table, faults := routes.New(patterns)
	if faults != nil {
		t.Fatal(faults)
	}
	return &settings.Config{GroupsClaim: "groups", HeaderEncoding: encoding, Routes: rs, Table: table}
}

func TestEncode(t *testing.T) {
	for s, want := range map[string][2]string{
		"alice":        {"alice", "alice"},
		"Alice Ä.":     {"Alice Ä.", "Alice %C3%84."},
		" a ":          {"%20a%20", "%20a%20"},
		"al\u200bice":  {"al%E2%80%8Bice", "al%E2%80%8Bice"},
		"a\r\nX: y":    {"a%0D%0AX: y", "a%0D%0AX: y"},
		"100%":         {"100%25", "100%25"},
		"\xff":         {"%FF", "%FF"},
		"\u202eevil":   {"%E2%80%AEevil", "%E2%80%AEevil"},
		"a\u00a0b":     {"a%C2%A0b", "a%C2%A0b"},
		"":             {"", ""},
		"%E2%80%8B":    {"%25E2%2580%258B", "%25E2%2580%258B"},
		"日本":           {"日本", "%E6%97%A5%E6%9C%AC"},
		"\x7f":         {"%7F", "%7F"},
		"a\ufffdb\xc3": {"a\ufffdb%C3", "a%EF%BF%BDb%C3"},
	} {
		if got := Encode(s, false); got != want[0] {
			t.Errorf("%q: %q, want %q", s, got, want[0])
		}
		if got := Encode(s, true); got != want[1] {
			t.Errorf("%q in ASCII: %q, want %q", s, got, want[1])
		}
	}
}

// Two names that differ still do in a header, and a header is one line.
func FuzzEncode(f *testing.F) {
	f.Add("alice", "al\u200bice")
	f.Add("a%", "a%25")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, ascii := range []bool{false, true} {
			x, y := Encode(a, ascii), Encode(b, ascii)
			if a != b && x == y {
				t.Fatalf("%q and %q are both %q", a, b, x)
			}
			if strings.ContainsFunc(x, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.TrimSpace(x) != x {
				t.Fatalf("%q is %q", a, x)
			}
		}
	})
}

func TestDescribe(t *testing.T) {
	plain := &settings.Route{Pattern: "/"}
	other := &settings.Route{Pattern: "/x/", Headers: []settings.Header{{Name: "X-WEBAUTH-USER", Source: "email"}, {Name: "X-Role", Source: "claim:realm.roles"}, {Name: "X-No", Source: "tenant"}}}
	nothing := &settings.Route{Pattern: "/y/", Headers: []settings.Header{}}
	people := NewPeople(config(t, settings.EncodeUTF8, plain, other, nothing))
	u := &signin.User{Issuer: "https://login.example.com", Subject: "1001", RawClaims: []byte(`{"preferred_username": "al\u200bice", "email": "a@example.com",
		"email_verified": true, "groups": ["a,b", "c", "d e", ""], "realm": {"roles": ["x"]}}`)}
	got := http.Header{}
	people.Describe(got, people.Of(u), plain)
	for name, want := range map[string]string{"X-Forwarded-User": "1001", "X-Forwarded-Preferred-Username": "al%E2%80%8Bice", "X-Forwarded-Email": "a@example.com", "X-Forwarded-Groups": "a%2Cb,c,d e"} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Get(name), want)
		}
	}
	got = http.Header{}
	people.Describe(got, people.Of(u), other)
	if len(got) != 2 || got.Get("X-WEBAUTH-USER") != "a@example.com" || got.Get("X-Role") != "x" {
		t.Errorf("%v", got)
	}
	got = http.Header{}
	people.Describe(got, people.Of(u), nothing)
	unverified := &signin.User{Subject: "2", RawClaims: []byte(`{"email": "a@example.com", "email_verified": false}`)}
	people.Describe(got, people.Of(unverified), other)
	if len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestSubjects(t *testing.T) {
	r := &settings.Route{Pattern: "/"}
	people := NewPeople(config(t, settings.EncodeUTF8, r))
	for s, want := range map[string]bool{"1001": true, "auth0|1": true, "a b": true, "": false, " a": false, "ä": false, "a\u200b": false, "a\n": false, "a\x7f": false} {
		if err := people.May(people.Of(&signin.User{Subject: s}), r); (err == nil) != want {
			t.Errorf("subject %q: %v", s, err)
		}
	}
}

func TestStrip(t *testing.T) {
	f := NewForged(config(t, "", &settings.Route{Pattern: "GET /", Headers: []settings.Header{{Name: "X-WEBAUTH-USER", Source: "email"}}}))
	keep := http.Header{"Accept": {"x"}, "X-Forward": {"x"}, "X-Webauth": {"x"}, "Authorization": {"x"}, "X-Forwarded": {"x"}}
	h := keep.Clone()
	for _, name := range []string{"X-Forwarded-User", "x-forwarded-user", "X_Forwarded_User", "X.Forwarded~For", "X_WEBAUTH-user", "Remote_User", "FORWARDED", "X-Real-Ip",
		"X-Rewrite-Url", "X-Original-Url", "X-Http-Method-Override", "X-Forwarded-" + strings.Repeat("x", 100)} {
		h[name] = []string{"forged"}
	}
	f.Strip(h)
	if len(h) != len(keep) {
		t.Errorf("left %v", h)
	}
	for name := range keep {
		if h[name] == nil {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestCookies(t *testing.T) {
	c := NewCookies("signin-front")
	for sent, want := range map[string]string{
		"a=1; __Host-signin-front=x; b=\"2\"": `a=1; b="2"`, "signin-front-browser-lax=x": "", "SIGNIN-FRONT =x;odd;  c=3": "odd;  c=3", "my-signin-front=1": "my-signin-front=1",
		"__Secure-signin-front=1; d=4": "d=4",
	} {
		h := http.Header{"Cookie": {sent}}
		c.Strip(h)
		if h.Get("Cookie") != want {
			t.Errorf("of %q is left %q, want %q", sent, h.Get("Cookie"), want)
		}
	}
	h := http.Header{"Set-Cookie": {"__Host-signin-front=; Path=/", "x=1", " signin-front-browser=1"}}
	if c.StripSet(h); len(h["Set-Cookie"]) != 1 || h.Get("Set-Cookie") != "x=1" {
		t.Errorf("%v", h)
	}
}

func TestToken(t *testing.T) {
	people := NewPeople(config(t, "", &settings.Route{Pattern: "/"}))
	alice := people.Of(&signin.User{Issuer: "https://login.example.com", Subject: "1001", RawClaims: []byte(`{"groups": ["a,b"], "email": "a@example.com", "email_verified": true}`)})
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	first, err := NewSigner([][]byte{one})
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := NewSigner([][]byte{two, one})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	raw, err := first.Token(alice, "https://wiki.example.com", "/admin/", now)
	if err != nil {
		t.Fatal(err)
	}
	// A replica that has rotated already publishes the key.
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(rotated.Keys(), &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%d keys", len(set.Keys))
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var got claims
	if err := token.Claims(set, &got); err != nil {
		t.Fatal(err)
	}
	if got.Subject != "1001" || got.Issuer != "https://wiki.example.com" || got.Groups[0] != "a,b" || !got.Verified ||
		strings.Join(got.Audience, " ") != "https://wiki.example.com https://wiki.example.com/admin/" || got.Expiry.Time().Sub(now) > time.Minute {
		t.Errorf("%+v", got)
	}
	if bytes.Contains(rotated.Keys(), []byte(`"d"`)) {
		t.Error("the key set holds a private key")
	}
}
