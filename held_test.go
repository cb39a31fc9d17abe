package signin

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
)

func TestTokenCovers(t *testing.T) {
	for _, tc := range []struct {
		granted, asked, need []string
		want                 bool
	}{
		{nil, nil, nil, true},
		{nil, nil, []string{"openid", "offline_access"}, true},
		{nil, nil, []string{"openid", "email"}, false},
		{nil, nil, []string{"profile"}, false},
		{nil, []string{"email"}, []string{"email"}, false},
		{[]string{"profile", "email"}, nil, []string{"openid", "email", "profile"}, true},
		{[]string{"https://www.googleapis.com/auth/userinfo.email"}, nil, []string{"email"}, true},
		{[]string{"https://www.googleapis.com/auth/userinfo.email"}, nil, []string{"profile"}, false},
		{[]string{"https://www.googleapis.com/auth/userinfo.a"}, nil, []string{"a"}, false},
		{[]string{"a", "b"}, nil, []string{"b"}, true},
		{[]string{"a"}, nil, []string{"a", "b"}, false},
		{[]string{"A"}, nil, []string{"a"}, false},
		{[]string{"ab"}, nil, []string{"a"}, false},
		{[]string{"https://graph.microsoft.com/User.Read"}, nil, []string{"User.Read"}, false}, // Entra's alone
		{[]string{"User.Read"}, nil, []string{"https://other.example/User.Read"}, false},
		{[]string{"User.Read"}, []string{"https://graph.microsoft.com/.default"}, []string{"https://graph.microsoft.com/.default"}, true},
		{[]string{"User.Read"}, []string{"api://x/a"}, []string{"api://x/.default"}, false},
		{nil, []string{"a"}, []string{"a"}, false},
	} {
		if got := (&held{Scopes: tc.granted, Asked: tc.asked}).covers(tc.need); got != tc.want {
			t.Errorf("granted %q, asked %q: covers %q is %t", tc.granted, tc.asked, tc.need, got)
		}
	}
}

// Entra answers in a spelling of its own; other issuers' scopes have case.
func TestTokenScopeSpelling(t *testing.T) {
	answer := &oidc.Answer{AccessToken: "x", Scope: oidc.ScopeValue{"openid", "User.Read", "Mail.Send"}}
	asked := []string{"openid", "user.read", "https://graph.microsoft.com/mail.send"}
	entra := &tokens{issuer: oidc.New(oidc.Config{Issuer: Entra(EntraGlobal, "common"), HTTPClient: http.DefaultClient})}
	if got := entra.newHeld(answer, asked, ""); !got.covers(asked) || !got.covers([]string{"user.read"}) || !got.covers([]string{"https://graph.microsoft.com/User.Read"}) {
		t.Errorf("Entra granted %q", got.Scopes)
	}
	other := &tokens{issuer: oidc.New(oidc.Config{Issuer: "https://issuer.example", HTTPClient: http.DefaultClient})}
	if got := other.newHeld(answer, asked, ""); got.covers([]string{"user.read"}) {
		t.Errorf("granted %q", got.Scopes)
	}
}

func TestTokenFind(t *testing.T) {
	r := &record{Tokens: []held{
		{Access: "old", Scopes: []string{"a"}, Default: true, Expires: 10},
		{Access: "new", Scopes: []string{"a", "b"}, Expires: 20},
		{Access: "x", Scopes: []string{"a"}, Resource: "x", Expires: 30},
	}}
	for _, tc := range []struct {
		req  TokenRequest
		want string
	}{
		{TokenRequest{}, "old"},
		{TokenRequest{Scopes: []string{"a"}}, "new"},
		{TokenRequest{Resource: "x"}, "x"},
		{TokenRequest{Resource: "x", Scopes: []string{"b"}}, ""},
		{TokenRequest{Resource: "y"}, ""},
		{TokenRequest{Scopes: []string{"c"}}, ""},
	} {
		got := ""
		if h := r.find(&tc.req); h != nil {
			got = h.Access
		}
		if got != tc.want {
			t.Errorf("find(%+v) = %q, want %q", tc.req, got, tc.want)
		}
	}
}

// What a session holds stays of a size that a store takes; the newest stay.
func TestTokenRecordBounded(t *testing.T) {
	for _, size := range []int{100, 5000, oidc.MaxAccessToken} {
		r := &record{IDToken: strings.Repeat("i", oidc.MaxIDToken)}
		for i := range 50 {
			scope := strings.Repeat("s", i+1)
			r.add(held{Access: strings.Repeat("a", size), Scopes: []string{scope}, Asked: []string{scope}}, strings.Repeat("r", 1000))
			for range 20 {
				r.refuse(refusal{Key: []byte{byte(i)}, Claims: strings.Repeat("c", i*100)})
			}
			if last := r.Tokens[len(r.Tokens)-1]; last.Scopes[0] != scope {
				t.Fatal("the newest token is gone")
			}
		}
		rs := &records{keys: seal.New([][]byte{make([]byte, 32)})}
		if n := len(rs.seal(make([]byte, 32), "key", r)); n > 256<<10 || len(r.Tokens) > maxHeld {
			t.Errorf("a record of %d bytes with %d tokens", n, len(r.Tokens))
		}
		if size == 100 && len(r.Tokens) != maxHeld {
			t.Errorf("%d small tokens held, want %d", len(r.Tokens), maxHeld)
		}
	}
}

func TestTokenDefaultStays(t *testing.T) {
	r := &record{}
	r.hold(held{Access: "sign-in", Default: true})
	r.hold(held{Access: "c", Scopes: []string{"c"}})
	r.hold(held{Access: "c d", Scopes: []string{"c", "d"}})
	r.hold(held{Access: "x", Resource: "x"})
	names := func() (all []string) {
		for _, h := range r.Tokens {
			all = append(all, h.Access)
		}
		return all
	}
	if got := names(); !slices.Equal(got, []string{"sign-in", "c d", "x"}) {
		t.Errorf("held: %q", got)
	}
	r.hold(held{Access: "refreshed", Default: true})
	if got := names(); !slices.Equal(got, []string{"c d", "x", "refreshed"}) {
		t.Errorf("held: %q", got)
	}
}

func TestTokenFresh(t *testing.T) {
	at := func(sec int64) time.Time { return time.Unix(sec, 0) }
	long := &held{Obtained: 0, Expires: 3600}
	short := &held{Obtained: 0, Expires: 300}
	for _, tc := range []struct {
		t     *held
		now   int64
		fresh bool
		valid bool
	}{
		{long, 3299, true, true}, {long, 3300, false, true}, {long, 3599, false, true}, {long, 3600, false, false},
		{short, 239, true, true}, {short, 240, false, true}, {short, 300, false, false},
		{&held{}, 1 << 40, true, true},
		{&held{Obtained: 5, Expires: 5}, 5, false, false},
	} {
		if f, v := tc.t.fresh(at(tc.now), 5*time.Minute), tc.t.valid(at(tc.now)); f != tc.fresh || v != tc.valid {
			t.Errorf("expires %d at %d: fresh %t, valid %t", tc.t.Expires, tc.now, f, v)
		}
	}
}
