package signin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/signintest"
)

// signedModes are the response types and modes by which an answer comes signed.
var signedModes = []struct{ typ, mode string }{
	{typeHybrid, modeSignedForm}, {typeCode, modeSignedForm}, {typeCode, modeSignedQuery}, {typeCode, modeSigned},
}

func signedApp(t *testing.T, typ, mode string, edit ...func(*signintest.Behaviour)) *app {
	t.Helper()
	return newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			for _, f := range edit {
				f(b)
			}
		}
		o.config = func(c *Config) { c.ResponseType, c.ResponseMode = typ, mode }
	})
}

// TestSignedAnswer: an answer comes signed the way it was asked for, and the browser
// carries nothing beside it.
func TestSignedAnswer(t *testing.T) {
	for _, m := range signedModes {
		t.Run(m.typ+", "+m.mode, func(t *testing.T) {
			a := signedApp(t, m.typ, m.mode)
			if err := a.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			b := a.browser()
			r := a.toCallback(b, "/page/x?y=1")
			u, err := url.Parse(r.URL)
			if err != nil {
				t.Fatal(err)
			}
			carried := u.Query()
			if m.mode == modeSignedForm {
				carried = r.Form
			}
			if len(carried) != 1 || carried.Get("response") == "" {
				t.Errorf("the answer is %v, want response only", carried)
			}
			wantLanding(t, a, b.Send(r), "/page/x?y=1")
			if got := who(a, b); got != "alice" {
				t.Errorf("%q is signed in", got)
			}
			// The same answer again finds the session that it brought.
			wantLanding(t, a, b.Send(r), "/page/x?y=1")
			if n := a.redemptions(); n != 1 {
				t.Errorf("%d redemptions", n)
			}
		})
	}
}

// TestSignedAnswerLies: an answer that is not the issuer's word to this client, now,
// signs nobody in, ends no session, and costs no redemption.
func TestSignedAnswerLies(t *testing.T) {
	claim := func(name string, value any) func(*app, *signintest.SignedAnswer) {
		return func(_ *app, s *signintest.SignedAnswer) {
			if s.Claims[name] = value; value == nil {
				delete(s.Claims, name)
			}
		}
	}
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for _, tc := range []struct {
		name   string
		lie    func(*app, *signintest.SignedAnswer)
		status int
		kind   PageKind
	}{
		{"HS256 by the public key", func(_ *app, s *signintest.SignedAnswer) { s.Signing.Alg = "HS256" }, 400, PageTokenRejected},
		{"HS256 by the secret", func(_ *app, s *signintest.SignedAnswer) {
			s.Signing.Alg, s.Signing.Secret = "HS256", []byte("secret")
		}, 400, PageTokenRejected},
		{"no algorithm", func(_ *app, s *signintest.SignedAnswer) { s.Signing.Alg = "none" }, 400, PageTokenRejected},
		{"algorithm not announced", func(_ *app, s *signintest.SignedAnswer) { s.Signing.Alg = "PS256" }, 400, PageTokenRejected},
		{"a stranger's key", func(a *app, s *signintest.SignedAnswer) {
			key := a.issuer.ForeignKey("RS256")
			s.Signing = signintest.SignOptions{Key: &key, KeyID: a.issuer.Key().ID}
		}, 400, PageTokenRejected},
		{"the key inside", func(a *app, s *signintest.SignedAnswer) {
			key := a.issuer.ForeignKey("RS256")
			s.Signing = signintest.SignOptions{Key: &key, KeyID: a.issuer.Key().ID, Header: map[string]any{"jwk": key.JWK()}}
		}, 400, PageTokenRejected},
		{"no iss", claim("iss", nil), 400, PageTokenRejected},
		{"empty iss", claim("iss", ""), 400, PageTokenRejected},
		{"another iss", claim("iss", "https://evil.example.test"), 400, PageTokenRejected},
		{"no aud", claim("aud", nil), 400, PageTokenRejected},
		{"another client", claim("aud", "other"), 400, PageTokenRejected},
		{"another client too", claim("aud", []string{"client", "other"}), 400, PageTokenRejected},
		{"no exp", claim("exp", nil), 400, PageTokenRejected},
		{"expired", claim("exp", ago(2*time.Minute)), 400, PageTokenRejected},
		{"exp a text", claim("exp", "tomorrow"), 400, PageTokenRejected},
		{"nbf to come", claim("nbf", ago(-time.Hour)), 400, PageTokenRejected},
		{"iat to come", claim("iat", ago(-time.Hour)), 400, PageTokenRejected},
		{"no state", claim("state", nil), 400, PageCallbackState},
		{"state a number", claim("state", 7), 400, PageCallbackState},
		{"no code", claim("code", nil), 400, PageCallbackEmpty},
		{"code a list", claim("code", []string{"a", "b"}), 400, PageCallbackEmpty},
		{"huge code", claim("code", strings.Repeat("x", maxCode+1)), 400, PageCallbackEmpty},
		{"no JWT", func(_ *app, s *signintest.SignedAnswer) { s.Raw = "code=abc" }, 400, PageCallbackUnreadable},
		{"a list", func(_ *app, s *signintest.SignedAnswer) { s.Raw = "e30.W10.AAAA" }, 400, PageCallbackUnreadable},
		{"encrypted", func(_ *app, s *signintest.SignedAnswer) {
			s.Raw = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AAAA.AAAA.AAAA.AAAA"
		}, 400, PageCallbackUnreadable},
		{"JSON serialization", func(_ *app, s *signintest.SignedAnswer) { s.Raw = `{"payload":"e30","signatures":[]}` }, 400, PageCallbackUnreadable},
		{"huge", func(_ *app, s *signintest.SignedAnswer) { s.Claims["more"] = strings.Repeat("x", 70<<10) }, 413, PageCallbackTooLarge},
	} {
		for _, m := range signedModes[1:3] { // both ways
			t.Run(tc.name+", "+m.mode, func(t *testing.T) {
				// The parameter iss does not stand in for the claim.
				a := signedApp(t, m.typ, m.mode, func(b *signintest.Behaviour) { b.OmitIss = true })
				b := a.signIn()
				a.issuer.Update(func(b *signintest.Behaviour) {
					b.EditSignedAnswer = func(s *signintest.SignedAnswer) { tc.lie(a, s) }
				})
				p := b.Send(a.again(b, "/page/x"))
				wantPage(t, a, p, tc.status, tc.kind)
				wantUntouched(t, a, b, "alice", 1)
			})
		}
	}
}

// TestUnsignedAnswer: where answers are to be signed, one that is not says nothing,
// be it an error. What stands beside a signed one does not count.
func TestUnsignedAnswer(t *testing.T) {
	for _, m := range signedModes {
		t.Run(m.typ+", "+m.mode, func(t *testing.T) {
			a := signedApp(t, m.typ, m.mode)
			send := func(edit func(url.Values)) (*signintest.Browser, *signintest.Page) {
				b := a.browser()
				r := a.toCallback(b, "/page/x").Clone()
				u, err := url.Parse(r.URL)
				if err != nil {
					t.Fatal(err)
				}
				params := r.Form
				if m.mode != modeSignedForm {
					params = u.Query()
				}
				changed := url.Values{}
				for name, values := range params {
					changed[name] = append([]string(nil), values...)
				}
				edit(changed)
				if r.Form = changed; m.mode != modeSignedForm {
					u.RawQuery, r.Form = changed.Encode(), nil
					r.URL = u.String()
				}
				return b, b.Send(r)
			}
			bare := func(params url.Values) {
				claims, err := oidc.PeekAnswer(params.Get("response"))
				if err != nil {
					t.Fatal(err)
				}
				params.Del("response")
				params.Set("state", claims.Get("state"))
				params.Set("iss", a.issuer.URL())
				params.Set("code", claims.Get("code"))
			}
			for _, tc := range []struct {
				name string
				edit func(url.Values)
				kind PageKind
			}{
				{"code", bare, PageTokenRejected},
				{"error", func(p url.Values) { bare(p); p.Del("code"); p.Set("error", "access_denied") }, PageTokenRejected},
				{"error without iss", func(p url.Values) { bare(p); p.Del("code"); p.Del("iss"); p.Set("error", "access_denied") }, PageTokenRejected},
				{"empty", func(p url.Values) { p.Set("response", "") }, PageCallbackEmpty},
				{"twice", func(p url.Values) { p.Add("response", p.Get("response")) }, PageCallbackDuplicate},
			} {
				_, p := send(tc.edit)
				wantPage(t, a, p, http.StatusBadRequest, tc.kind)
			}
			if n := a.redemptions(); n != 0 {
				t.Errorf("%d redemptions", n)
			}
			b, p := send(func(p url.Values) {
				p.Set("code", "another")
				p.Set("state", "another")
				p.Set("error", "access_denied")
			})
			wantLanding(t, a, p, "/page/x")
			if got := who(a, b); got != "alice" {
				t.Errorf("%q is signed in", got)
			}
		})
	}
}

// TestSignedError: errors come signed, too, and mean what they always mean.
func TestSignedError(t *testing.T) {
	for _, m := range signedModes {
		for name, byQuery := range map[string]bool{"as asked": false, "by query": true} {
			t.Run(m.typ+", "+m.mode+", "+name, func(t *testing.T) {
				a := signedApp(t, m.typ, m.mode, func(b *signintest.Behaviour) {
					b.Refuse, b.ErrorsByQuery = &signintest.OAuthError{Code: "access_denied"}, byQuery
				})
				p := a.browser().Open(a.url + "/me")
				wantPage(t, a, p, http.StatusForbidden, PageCancelled)
			})
		}
	}
}

// TestSignedAnswerElsewhere: the state and the browser come first, as with any answer.
func TestSignedAnswerElsewhere(t *testing.T) {
	a := signedApp(t, typeCode, modeSignedQuery)
	r := a.toCallback(a.browser(), "/page/x")
	keys := a.issuer.Count(signintest.EndpointKeys)
	other := a.signIn()
	before := a.redemptions()
	wantLanding(t, a, other.Send(r), "/page/x")
	wantPage(t, a, a.browser().Send(r), http.StatusBadRequest, PageNoCookies)
	wantUntouched(t, a, other, "alice", before)
	if n := a.issuer.Count(signintest.EndpointKeys); n > keys+1 {
		t.Errorf("%d fetches of keys", n)
	}
}

// TestSignedAnswerAlgorithms: those pinned count, else those announced for answers,
// else those for ID tokens.
func TestSignedAnswerAlgorithms(t *testing.T) {
	for _, tc := range []struct {
		name      string
		announced []string
		pinned    []string
		by        string
		good      bool
	}{
		{"announced for answers", []string{"ES256", "PS256"}, nil, "ES256", true},
		{"for ID tokens only", []string{"ES256"}, nil, "RS256", false},
		{"nothing announced", nil, nil, "RS256", true},
		{"pinned", []string{"ES256"}, []string{"RS256"}, "RS256", true},
		{"not pinned", []string{"ES256", "RS256"}, []string{"RS256"}, "ES256", false},
		{"symmetric beside", []string{"HS256", "RS256"}, nil, "HS256", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newApp(t, func(o *appOptions) {
				o.behaviour = func(b *signintest.Behaviour) {
					b.AnswerAlgs = tc.announced
					b.EditSignedAnswer = func(s *signintest.SignedAnswer) { s.Signing.Alg = tc.by }
				}
				o.config = func(c *Config) {
					c.ResponseType, c.ResponseMode, c.SigningAlgorithms = typeCode, modeSignedQuery, tc.pinned
				}
			})
			if tc.by == "ES256" {
				a.issuer.Sign(map[string]any{}, signintest.SignOptions{Alg: "ES256"}) // publishes the key
			}
			p := a.browser().Open(a.url + "/me")
			if tc.good && p.Status != http.StatusOK {
				t.Errorf("%d: %s", p.Status, lastCause(a))
			}
			if !tc.good {
				wantPage(t, a, p, http.StatusBadRequest, PageTokenRejected)
			}
		})
	}
}

// TestSignedAnswerUnfit: an issuer that cannot sign answers as configured is named
// before a user is sent away.
func TestSignedAnswerUnfit(t *testing.T) {
	for name, behave := range map[string]func(*signintest.Behaviour){
		"response_modes_supported":                   func(b *signintest.Behaviour) { b.ResponseModes = []string{"query", "form_post"} },
		"authorization_signing_alg_values_supported": func(b *signintest.Behaviour) { b.AnswerAlgs = []string{"HS256"} },
	} {
		t.Run(name, func(t *testing.T) {
			a := signedApp(t, typeCode, modeSignedQuery, behave)
			if err := a.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Ready: %v, want %s in it", err, name)
			}
			wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusInternalServerError, PageInternal)
		})
	}
}

// TestSignedAnswerKeysLost: without the issuer's keys an answer is not bad.
func TestSignedAnswerKeysLost(t *testing.T) {
	a := signedApp(t, typeCode, modeSignedQuery)
	a.issuer.Fail(signintest.EndpointKeys, signintest.Fault{Status: 500})
	wantPage(t, a, a.browser().Open(a.url+"/me"), http.StatusServiceUnavailable, PageIssuerDown)
}

// FuzzPeekAnswer: whatever comes as a signed answer is read or refused, and what is
// read names each parameter once.
func FuzzPeekAnswer(f *testing.F) {
	for _, raw := range []string{"", "..", "e30.e30.", "e30.eyJzdGF0ZSI6ImEifQ.AAAA", "e30.bnVsbA.AAAA", "e30.W10.AAAA", strings.Repeat("A", 1<<17)} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		params, err := oidc.PeekAnswer(raw)
		if err != nil {
			return
		}
		if params.Get(oidc.Response) != raw {
			t.Errorf("%q became %q", raw, params.Get(oidc.Response))
		}
		for name, values := range params {
			if len(values) != 1 {
				t.Errorf("%s has %d values", name, len(values))
			}
		}
	})
}
