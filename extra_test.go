package signin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// What a token answer says beside the token belongs to the token: Salesforce's
// instance_url is the only address its token is good at, and the ID token itself is
// what Kubernetes, AWS STS and the like want as proof. Code written for x/oauth2
// looks in Extra, on another replica and after a refresh too.
func TestTokenExtra(t *testing.T) {
	a := newApp(t, replicas(NewMemoryStore(), nil), func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.EditTokenResponse = func(c signintest.Call, body map[string]any) {
				body["instance_url"] = "https://eu1.example.test"
				if c.GrantType == "refresh_token" {
					body["instance_url"] = "https://eu2.example.test"
				}
				body["number"], body["object"] = 7, map[string]any{"a": true}
				body["one_too_large"] = strings.Repeat("x", 5<<10)
				for i := range 8 {
					body[fmt.Sprint("z", i)] = strings.Repeat("z", 3<<10)
				}
			}
		}
	})
	b := a.signIn()
	// what is there, in the order of the names asked for, and the ID token.
	page := func(query string) (extra, idToken string) {
		t.Helper()
		p := b.Open(a.url + "/token-extra?" + query + "name=instance_url&name=number&name=object&name=one_too_large&name=z0&name=z1&name=z2&name=access_token&name=refresh_token&name=id_token")
		lines := strings.Split(p.Body, "\n")
		if len(lines) != 11 {
			t.Fatalf("%d %.300q", p.Status, p.Body)
		}
		if lines[9] != lines[10] || strings.Count(lines[9], ".") != 2 {
			t.Errorf("id_token is %.30q, and IDToken %.30q", lines[9], lines[10])
		}
		return strings.Join(lines[:9], " "), lines[10]
	}
	z := strings.Repeat("z", 3<<10)
	const rest = " 7 map[a:true] <nil> "
	want := "https://eu1.example.test" + rest + z + " " + z + " <nil> <nil> <nil>"
	var signIn string
	for range 4 {
		got := ""
		if got, signIn = page(""); got != want {
			t.Errorf("after the sign-in: %.300q", got)
		}
	}
	want = strings.Replace(want, "eu1", "eu2", 1)
	for _, query := range []string{"refresh&", "", ""} {
		got, id := page(query)
		if got != want {
			t.Errorf("after a refresh: %.300q", got)
		}
		if id == signIn {
			t.Error("after a refresh the ID token is the sign-in's")
		}
	}
	if p := b.Open(a.url + "/token"); len(p.Body) < 8 {
		t.Errorf("a caller has changed the token that is held: %d %.100q", p.Status, p.Body)
	}
}
