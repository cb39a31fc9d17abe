package signin

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/faulty"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/signintest"
)

// member edits one member of a token answer.
func member(name string, value any) func(*signintest.Answer) {
	return func(a *signintest.Answer) {
		all := answerMembers(a)
		all[name] = value
		a.Body, _ = json.Marshal(all)
	}
}

func answerMembers(a *signintest.Answer) map[string]any {
	all := map[string]any{}
	if err := json.Unmarshal(a.Body, &all); err != nil {
		panic(err)
	}
	return all
}

// refreshFirst writes the refresh token, and what follows after it.
func refreshFirst(a *signintest.Answer, rest string) {
	a.Body = fmt.Appendf(nil, `{"refresh_token":%q,"token_type":"Bearer",%s`, answerMembers(a)["refresh_token"], rest)
}

// signsIn says that an answer does for a sign-in.
const signsIn = ""

// spoiltAnswers are answers of the token endpoint to a refresh that cannot be
// used, each with a refresh token that can.
var spoiltAnswers = []struct {
	name string
	page PageKind // at a sign-in
	edit func(*signintest.Answer)
}{
	{"access token too large", PageAnswerTooLarge, member("access_token", strings.Repeat("a", oidc.MaxAccessToken+1))},
	{"scopes too large", PageAnswerTooLarge, member("scope", strings.Repeat("a ", oidc.MaxScope))},
	{"no access token", signsIn, member("access_token", "")},
	{"access token a number", signsIn, member("access_token", 17)},
	{"not a bearer token", PageRedeemUnreachable, member("token_type", "mac")},
	{"token type a list", PageRedeemUnreachable, member("token_type", []string{"Bearer"})},
	{"status 203, by a proxy that changes answers", PageRedeemRefused, func(a *signintest.Answer) { a.Status = http.StatusNonAuthoritativeInfo }},
	{"status 202", PageRedeemRefused, func(a *signintest.Answer) { a.Status = http.StatusAccepted }},
	{"an error beside the tokens", PageRedeemRefused, member("error", "server_error")},
	{"status 203, cut off", PageRedeemUnreachable, func(a *signintest.Answer) {
		refreshFirst(a, `"access_token":"at_`)
		a.Status, a.Cut = http.StatusNonAuthoritativeInfo, true
	}},
	{"cut off", PageRedeemUnreachable, func(a *signintest.Answer) {
		refreshFirst(a, `"access_token":"at_`)
		a.Cut = true
	}},
	{"no end of the JSON", PageRedeemUnreachable, func(a *signintest.Answer) { refreshFirst(a, `"access_token":"at_1"`) }},
	{"over 1 MiB", PageRedeemUnreachable, func(a *signintest.Answer) {
		refreshFirst(a, `"access_token":"`+strings.Repeat("a", 2<<20)+`"}`)
	}},
}

// A refresh token that was rotated is never lost: the issuer ends the grant of a
// client that sends the old one.
func TestSpoiltAnswerKeepsRefreshToken(t *testing.T) {
	for _, tc := range spoiltAnswers {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.behaviour = single })
			b := a.signIn()
			page := b.Open(a.url + "/")
			a.clock.advance(2 * time.Hour)
			for range 2 {
				a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Edit: tc.edit})
				if p := b.Fetch(page, "/token"); p.Status != http.StatusBadGateway || a.leaks(p) {
					t.Fatalf("a spoilt answer: %d %.300s, want 502", p.Status, p.Body)
				}
			}
			p := b.Fetch(page, "/token")
			if info, _ := a.issuer.TokenInfo(p.Body); p.Status != http.StatusOK || !info.Active {
				t.Errorf("afterwards: %d %.300s", p.Status, p.Body)
			}
			if n := a.refreshed(); n != 3 {
				t.Errorf("%d refreshes, want 3", n)
			}
			if n := a.issuer.Count(signintest.EndpointRevocation); n != 0 {
				t.Errorf("%d revocations, want none", n)
			}
		})
	}
}

// The store fails while such an answer comes: the refresh token is kept in hand,
// and no other replica sends the old one.
func TestSpoiltAnswerStoreFails(t *testing.T) {
	newLab(t, labOptions{replicas: 2, behaviour: single}, func(l *lab) {
		cookies := l.signIn("alice")
		l.pass(2 * time.Hour)
		l.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Edit: func(a *signintest.Answer) {
			l.store.Set(func(_ context.Context, op, key string) error {
				if op == "swap" && strings.HasPrefix(key, sessionKeys) {
					return faulty.ErrDown
				}
				return nil
			})
			member("access_token", "")(a)
		}})
		if _, err := l.replicas[0].token(cookies, TokenRequest{}); err == nil {
			t.Error("a token out of nowhere")
		}
		if _, err := l.replicas[1].token(cookies, TokenRequest{}); err == nil {
			t.Error("a token out of nowhere")
		}
		l.refreshes(1)
		l.store.Set(nil)
		l.pass(10 * time.Second)
		l.mustToken(1, cookies, TokenRequest{})
		l.refreshes(1)
	})
}

// A sign-in that comes to nothing gives its refresh token back.
func TestSpoiltAnswerAtSignIn(t *testing.T) {
	second := func(edit func(*signintest.IDToken)) func(*signintest.Behaviour) {
		return func(b *signintest.Behaviour) {
			b.EditIDToken = func(t *signintest.IDToken) {
				if t.Channel == signintest.BackChannel {
					edit(t)
				}
			}
		}
	}
	type row struct {
		name      string
		page      PageKind
		edit      func(*signintest.Answer)
		behaviour func(*signintest.Behaviour)
	}
	rows := []row{
		{"another user's ID token", PageTokenRejected, nil, second(func(t *signintest.IDToken) { t.Claims["sub"] = "bob" })},
		{"expired ID token", PageTokenRejected, nil, second(func(t *signintest.IDToken) { t.Claims["exp"] = 1 })},
		{"no ID token", PageTokenRejected, nil, second(func(t *signintest.IDToken) { t.Omit = true })},
		{"ID token too large", PageAnswerTooLarge, nil, second(func(t *signintest.IDToken) {
			t.Claims["groups"] = strings.Repeat("g", oidc.MaxIDToken)
		})},
	}
	for _, tc := range spoiltAnswers {
		if tc.page == signsIn {
			continue
		}
		rows = append(rows, row{tc.name, tc.page, tc.edit, nil})
	}
	for _, tc := range rows {
		t.Run(tc.name, func(t *testing.T) {
			var refresh string
			a, o, _ := newObservedApp(t, func(o *appOptions) { o.behaviour = tc.behaviour })
			a.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Edit: func(answer *signintest.Answer) {
				refresh = fmt.Sprint(answerMembers(answer)["refresh_token"])
				if tc.edit != nil {
					tc.edit(answer)
				}
			}})
			b := a.browser()
			p := b.Open(a.url + "/me")
			if e := o.one(t, EventRejected); e.Page != tc.page || p.Status != e.Status || p.Status < 400 || a.leaks(p) {
				t.Errorf("%d %q, want %q\n%.300s", p.Status, e.Page, tc.page, p.Body)
			}
			a.issuer.Await(signintest.EndpointRevocation, 1)
			if got := a.issuer.LastCall(signintest.EndpointRevocation).Form.Get("token"); got != refresh || refresh == "" {
				t.Errorf("revoked %.8s, want %.8s", got, refresh)
			}
		})
	}
}

// Users with many roles have access tokens of any size up to 64 KiB. Above that
// the page and the log say what is too large, by how much.
func TestLargeAccessToken(t *testing.T) {
	edit := func(size int) func(*signintest.Behaviour) {
		return func(b *signintest.Behaviour) {
			b.EditIDToken = func(t *signintest.IDToken) { delete(t.Claims, "at_hash") }
			b.EditTokenResponse = func(call signintest.Call, body map[string]any) {
				body["access_token"] = call.GrantType[:1] + strings.Repeat("t", size-1)
			}
		}
	}
	for _, size := range []int{20 << 10, oidc.MaxAccessToken} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			a := newApp(t, func(o *appOptions) { o.behaviour = edit(size) })
			b := a.signIn()
			first := b.Open(a.url + "/token")
			if first.Status != http.StatusOK || len(first.Body) != size || first.Body[0] != 'a' {
				t.Fatalf("%d, a token of %d bytes", first.Status, len(first.Body))
			}
			a.clock.advance(2 * time.Hour)
			if p := b.Open(a.url + "/token"); p.Status != http.StatusOK || len(p.Body) != size || p.Body[0] != 'r' {
				t.Errorf("refreshed: %d, a token of %d bytes", p.Status, len(p.Body))
			}
			if got := a.subject(b); got != "alice" {
				t.Error(got)
			}
		})
	}
	says := func(t *testing.T, a *app, p *signintest.Page, status int) {
		t.Helper()
		for _, text := range []string{p.Body, a.log.String()} {
			if !strings.Contains(text, "access token is too large: 65537 bytes, and the limit is 65536") {
				t.Errorf("want the size and the limit:\n%s", text)
			}
		}
		if p.Status != status || strings.Contains(p.Body, "could not reach") || strings.Contains(p.Body, "cannot reach") {
			t.Errorf("%d, want %d, and nothing about the network:\n%s", p.Status, status, p.Body)
		}
	}
	t.Run("too large at sign-in", func(t *testing.T) {
		a := newApp(t, func(o *appOptions) { o.behaviour = edit(oidc.MaxAccessToken + 1) })
		says(t, a, a.browser().Open(a.url+"/me"), http.StatusBadGateway)
	})
	t.Run("too large later", func(t *testing.T) {
		a := newApp(t, func(o *appOptions) { o.behaviour = single })
		a.mux.Handle("GET /scoped", a.Require(Requirement{Resource: "https://api.example"})(http.NotFoundHandler()))
		b := a.signIn()
		a.issuer.Update(edit(oidc.MaxAccessToken + 1))
		says(t, a, b.Open(a.url+"/scoped"), http.StatusServiceUnavailable)
		if got := a.subject(b); got != "alice" {
			t.Error(got)
		}
	})
}

func TestRefreshTokenIn(t *testing.T) {
	for body, want := range map[string]string{
		`{"refresh_token":"r"}`: "r",
		`{"access_token":{"refresh_token":"x"},"refresh_token":"r`: "",
		`{"a":{"refresh_token":"x"},"refresh_token":"r",`:          "r",
		`{"a":[1,{"b":null}],"refresh_token":"r","b":tru`:          "r",
		`{"Refresh_Token":"x"}`:                                    "",
		`{"refresh_token":17,"b":1}`:                               "",
		`{"refresh_token":["x"]}`:                                  "",
		`{"refresh_token":"a","refresh_token":"b"}`:                "b",
		`["refresh_token","x"]`:                                    "",
		`"refresh_token"`:                                          "",
		`<html>{"refresh_token":"x"}`:                              "",
		``:                                                         "",
		`{"refresh_token":"` + strings.Repeat("r", oidc.MaxRefreshToken+1) + `"}`: "",
	} {
		if got := oidc.RefreshTokenIn([]byte(body)); got != want {
			t.Errorf("%.60s: %q, want %q", body, got, want)
		}
	}
}

// A record of the largest parts, incompressible as far as ASCII goes, fits into a
// value of a store.
func TestLargestRecord(t *testing.T) {
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + rand.IntN('~'-'!'))
		}
		return string(b)
	}
	scopes := strings.Fields(strings.Repeat("s ", oidc.MaxScope/2))
	r := &record{IDToken: text(oidc.MaxIDToken), Hint: text(maxHint), HomeAccount: text(1024)}
	for i := range 20 {
		r.renew(held{Access: text(oidc.MaxAccessToken), Scopes: scopes, Asked: scopes, Resource: fmt.Sprint(i)}, r.Refresh, text(oidc.MaxRefreshToken))
		for range maxRefusals {
			r.refuse(refusal{Key: []byte(text(8)), Claims: text(maxRefusalClaims)})
		}
		rs := &records{keys: seal.New([][]byte{make([]byte, 32)})}
		if n := len(rs.seal(make([]byte, 32), "key", r)); n > 256<<10 || len(r.Tokens) == 0 {
			t.Fatalf("a record of %d bytes with %d tokens", n, len(r.Tokens))
		}
	}
}

// At a sign-out the issuer gets the newest ID token that has passed every check
// as the hint; who the user is stays the sign-in's word.
func TestNewestHint(t *testing.T) {
	refreshed := func(edit func(*signintest.IDToken)) func(*signintest.Behaviour) {
		return func(b *signintest.Behaviour) {
			b.EditIDToken = func(t *signintest.IDToken) {
				if t.Channel == signintest.RefreshChannel {
					edit(t)
				}
			}
		}
	}
	for _, tc := range []struct {
		name   string
		edit   func(*signintest.IDToken)
		newest bool
	}{
		{"good", func(t *signintest.IDToken) { t.Claims["name"] = "Another" }, true},
		{"expired", func(t *signintest.IDToken) { t.Claims["exp"] = 1 }, false},
		{"other auth_time", func(t *signintest.IDToken) { t.Claims["auth_time"] = 1 }, false},
		{"unsigned", func(t *signintest.IDToken) { t.Signing.Alg = "none" }, false},
		{"none", func(t *signintest.IDToken) { t.Omit = true }, false},
		{"too large for a URL", func(t *signintest.IDToken) { t.Claims["groups"] = strings.Repeat("g", maxHint) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var sent []string // ID tokens, by the token endpoint
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					refreshed(tc.edit)(b)
					b.NewestHintOnly = tc.newest
					b.EditTokenResponse = func(_ signintest.Call, body map[string]any) {
						raw, _ := body["id_token"].(string)
						sent = append(sent, raw)
					}
				}
			})
			b := a.signIn()
			for range 2 {
				a.clock.advance(2 * time.Hour)
				if p := b.Open(a.url + "/token"); p.Status != http.StatusOK {
					t.Fatalf("refresh: %d %.300s", p.Status, p.Body)
				}
			}
			var me map[string]string
			if p := b.Open(a.url + "/me"); json.Unmarshal([]byte(p.Body), &me) != nil || me["name"] != "alice@example.test" {
				t.Errorf("the user is now %s", p.Body)
			}
			p := b.Submit(b.Open(a.url+"/signout"), nil)
			want := sent[0]
			if tc.newest {
				want = sent[2]
			}
			if got := a.issuer.LastCall(signintest.EndpointEndSession).Form.Get("id_token_hint"); got != want || len(sent) != 3 {
				t.Errorf("id_token_hint is number %d of %d ID tokens", slices.Index(sent, got), len(sent))
			}
			if p.Status != http.StatusOK || p.Body != "public" {
				t.Errorf("after sign-out: %d %.300s", p.Status, p.Body)
			}
		})
	}
}
