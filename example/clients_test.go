package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
	"golang.org/x/oauth2"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/example/internal/op"
)

const otherAPI = "https://other.example/"

// described is a token without the token.
type described struct {
	Name   string // a hash
	Aud    any
	Scopes []string
}

func describe(token string) described {
	sum := sha256.Sum256([]byte(token))
	d := described{Name: fmt.Sprintf("%x", sum[:6])}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var claims struct {
		Aud   any    `json:"aud"`
		Scope string `json:"scope"`
	}
	_ = json.Unmarshal(payload, &claims)
	d.Aud, d.Scopes = claims.Aud, strings.Fields(claims.Scope)
	return d
}

// tokenSite has one page that gets the token asked for in its query, and one
// that gets the vault with it.
func tokenSite(auth *signin.Auth, network wire) http.Handler {
	request := func(r *http.Request) signin.TokenRequest {
		q := r.URL.Query()
		return signin.TokenRequest{Scopes: strings.Fields(q.Get("scope")), Resource: q.Get("resource")}
	}
	mux := http.NewServeMux()
	page := func(pattern string, f func(*http.Request) (any, error)) {
		mux.Handle(pattern, auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			if auth.Challenge(w, r, err) {
				return
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			_ = json.NewEncoder(w).Encode(v)
		})))
	}
	page("GET /me", func(r *http.Request) (any, error) {
		return map[string]string{"sub": signin.UserFromContext(r.Context()).Subject}, nil
	})
	page("GET /token", func(r *http.Request) (any, error) {
		token, err := request(r).Source(r.Context()).Token()
		if err != nil {
			return nil, err
		}
		return describe(token.AccessToken), nil
	})
	page("GET /vault", func(r *http.Request) (any, error) {
		client := &http.Client{Transport: &signin.Transport{Base: network, Request: request(r)}}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, labAPI+"/vault", nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.Status + " " + string(b), err
	})
	mux.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /signout", auth.SignOut)
	return mux
}

func (l *lab) token(query string) described {
	l.t.Helper()
	p := l.browser.Fetch(labSite + "/token?" + query)
	var d described
	if err := json.Unmarshal([]byte(p.Body), &d); p.Status != http.StatusOK || err != nil {
		l.t.Fatalf("token %s: status %d: %s, %v", query, p.Status, p.Body, err)
	}
	return d
}

// One refresh token, the newest, gets tokens for all scopes and resources that
// were granted, each once. A session that is extended keeps the tokens it has,
// and gets by without the user what the extension covers.
func TestScopesAndResources(t *testing.T) {
	o := labOptions{site: tokenSite, config: func(c *signin.Config) { c.Scopes = []string{"mail.read", "calendars.read"} }}
	inLab(t, o, func(t *testing.T, l *lab) {
		l.signIn()
		if d := l.token(""); !slices.Contains(d.Scopes, "mail.read") || !slices.Contains(d.Scopes, "calendars.read") {
			t.Errorf("the sign-in's token: %+v", d)
		}
		if l.token("scope=mail.read").Name != l.token("scope=calendars.read+mail.read").Name {
			t.Error("what one token covers was got twice")
		}
		l.expect()

		ours := "scope=mail.read&resource=" + url.QueryEscape(labAPI)
		theirs := "scope=calendars.read&resource=" + url.QueryEscape(otherAPI)
		first := l.token(ours)
		l.expect("refresh_token")
		second := l.token(theirs)
		l.expect("refresh_token")
		if first.Aud != labAPI || second.Aud != otherAPI {
			t.Errorf("audiences %v and %v", first.Aud, second.Aud)
		}
		if again := l.token(ours); again.Name != first.Name {
			t.Error("the token for one resource went for the other's")
		}
		l.expect()

		// More scopes: the session is extended, and what it holds stays.
		p := l.browser.Open(labSite + "/token?scope=files.read")
		l.expect("refresh_token") // the silent attempt
		if p = l.browser.Press(p, "Allow", nil); p.Status != http.StatusOK {
			t.Fatalf("after the consent: status %d: %s", p.Status, p.Text())
		}
		l.expect("authorization_code")
		if l.token(ours).Name != first.Name || l.token(theirs).Name != second.Name {
			t.Error("the extension lost tokens that were held")
		}
		l.expect()
		l.token("scope=files.read&resource=" + url.QueryEscape(labAPI))
		l.expect("refresh_token")
		l.rotation()
		l.challenges(2)
	})
}

// A claims challenge that the refresh token can meet does not reach the user.
func TestClaimsChallengeMetSilently(t *testing.T) {
	inLab(t, labOptions{site: tokenSite}, func(t *testing.T, l *lab) {
		l.signIn()
		query := "?resource=" + url.QueryEscape(labAPI)
		weak := l.token(query[1:])
		l.expect("refresh_token")
		p := l.browser.Open(labSite + "/vault")
		l.expect("refresh_token")
		at(t, l.browser.Press(p, "Confirm", url.Values{"code": {op.Code}}), labSite+"/vault")
		l.expect("authorization_code")
		l.challenges(2)

		// The token for the resource is still the one of before the step.
		if l.token(query[1:]).Name != weak.Name {
			t.Fatal("the token for the resource was replaced: nothing to test")
		}
		l.expect()
		for range 2 {
			if p := l.browser.Open(labSite + "/vault" + query); p.Status != http.StatusOK || !strings.Contains(p.Body, "behind the milk") {
				t.Errorf("status %d at %s: %s", p.Status, p.URL, p.Body)
			}
		}
		l.expect("refresh_token")
		l.challenges(2)
		l.rotation()
	})
}

// The application's own token is had once, by client credentials, and renewed
// in the background before it expires.
func TestAppTokens(t *testing.T) {
	inLab(t, labOptions{op: func(c *op.Config) { c.AccessTokenLifetime = time.Hour }}, func(t *testing.T, l *lab) {
		source := l.auth.AppTokenSource("files.read", "mail.read")
		get := func() string {
			token, err := source.Token()
			if err != nil {
				t.Error(err)
				return ""
			}
			return token.AccessToken
		}
		release := l.hold()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { get() })
		}
		synctest.Wait()
		l.expect("client_credentials")
		release()
		wg.Wait()

		first := get()
		if doc := callAPI(l, "", first); !strings.Contains(doc, `"id":"lab"`) || !strings.Contains(doc, `"files.read"`) {
			t.Errorf("the API saw %s", doc)
		}
		if token, err := l.auth.AppTokenSource("mail.read", "files.read").Token(); err != nil || token.AccessToken != first {
			t.Errorf("the same scopes in another order: another token, %v", err)
		}
		pass(54 * time.Minute)
		get()
		l.expect()
		pass(2 * time.Minute)
		if get() != first {
			t.Error("who asked waited for the renewal")
		}
		synctest.Wait()
		l.expect("client_credentials")
		if get() == first {
			t.Error("the renewed token is not handed out")
		}
		l.expect()

		_, err := l.auth.AppTokenSource("no.such.scope").Token()
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || refused.ErrorCode != "invalid_scope" {
			t.Errorf("a scope that does not exist: %v", err)
		}
		l.expect("client_credentials")
		l.browser.Open(labSite)
	})
}

// Every way for the client to say who it is, at every request that asks.
func TestClientAuthentication(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		method     goidc.AuthnMethod
		key        crypto.Signer
		credential signin.Credential
		alg        string
	}{
		"secret, basic":          {goidc.AuthnMethodSecretBasic, nil, signin.Secret("top-secret"), ""},
		"secret, as announced":   {goidc.AuthnMethodSecretPost, nil, signin.Secret("top-secret"), ""},
		"secret, post":           {goidc.AuthnMethodSecretPost, nil, signin.SecretPost("top-secret"), ""},
		"private key, RS256":     {goidc.AuthnMethodPrivateKeyJWT, rsaKey, signin.PrivateKey(signin.ClientKey{Signer: rsaKey}), "RS256"},
		"private key, PS256":     {goidc.AuthnMethodPrivateKeyJWT, rsaKey, signin.PrivateKey(signin.ClientKey{Signer: rsaKey, Algorithm: "PS256"}), "PS256"},
		"private key, ES256":     {goidc.AuthnMethodPrivateKeyJWT, ecKey, signin.PrivateKey(signin.ClientKey{Signer: ecKey}), "ES256"},
		"private key, token URL": {goidc.AuthnMethodPrivateKeyJWT, ecKey, signin.PrivateKey(signin.ClientKey{Signer: ecKey, Audience: labIssuer + "/token"}), "ES256"},
	} {
		t.Run(name, func(t *testing.T) {
			o := labOptions{
				op: func(c *op.Config) {
					c.ClientAuth = tc.method
					if tc.key != nil {
						c.ClientSecret, c.ClientKey = "", tc.key.Public()
					}
				},
				config: func(c *signin.Config) { c.Credential = tc.credential },
			}
			inLab(t, o, func(t *testing.T, l *lab) {
				l.signIn()
				pass(6 * time.Minute)
				apiSays(t, l.browser.Fetch(labSite+"/api"))
				l.expect("refresh_token")
				if _, err := l.auth.AppTokenSource("mail.read").Token(); err != nil {
					t.Error(err)
				}
				l.expect("client_credentials")
				at(t, l.browser.Press(l.browser.Open(labSite), "Sign out", nil), labSite+"/")
				synctest.Wait()
				requests := append(l.seen("/token"), l.seen("/revoke")...)
				if len(requests) != 4 {
					t.Errorf("%d requests of the client's, want 3 for tokens and a revocation", len(requests))
				}
				ids := make(map[any]bool)
				for _, c := range requests {
					if c.status != http.StatusOK {
						t.Errorf("%s %s: status %d", c.path, c.form.Get("grant_type"), c.status)
					}
					checkProof(t, c, tc.method, tc.alg, ids)
				}
			})
		})
	}
}

// checkProof checks that a request has the one proof it should have.
func checkProof(t *testing.T, c call, method goidc.AuthnMethod, alg string, ids map[any]bool) {
	t.Helper()
	basic, secret, assertion := c.header.Get("Authorization") != "", c.form.Has("client_secret"), c.form.Get("client_assertion")
	if basic != (method == goidc.AuthnMethodSecretBasic) || secret != (method == goidc.AuthnMethodSecretPost) || (assertion != "") != (alg != "") {
		t.Errorf("%s: basic %t, secret in the form %t, assertion %t", c.path, basic, secret, assertion != "")
	}
	if assertion == "" {
		return
	}
	head, _, _ := strings.Cut(assertion, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || !strings.Contains(string(b), `"alg":"`+alg+`"`) {
		t.Errorf("header %s, %v; want %s", b, err, alg)
	}
	claims := jwtClaims(t, assertion)
	life, _ := claims["exp"].(float64)
	iat, _ := claims["iat"].(float64)
	if life -= iat; claims["iss"] != "lab" || claims["sub"] != "lab" || life <= 0 || life > 300 {
		t.Errorf("assertion %v", claims)
	}
	if id := claims["jti"]; id == nil || ids[id] {
		t.Errorf("jti %v is not fresh", id)
	} else {
		ids[id] = true
	}
}

// A client with the wrong key is refused, and the user's code is not sent
// again. An assertion that somebody has seen is of no use to them.
func TestWrongAndReplayedAssertions(t *testing.T) {
	right, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key crypto.Signer) labOptions {
		return labOptions{
			op: func(c *op.Config) {
				c.ClientAuth, c.ClientKey = goidc.AuthnMethodPrivateKeyJWT, right.Public()
			},
			config: func(c *signin.Config) { c.Credential = signin.PrivateKey(signin.ClientKey{Signer: key}) },
		}
	}
	inLab(t, with(wrong), func(t *testing.T, l *lab) {
		p := signIn(t, l.browser, labSite+"/me")
		if p.Status < 500 || !strings.HasPrefix(p.URL.String(), labSite) {
			t.Errorf("at %s, status %d: %s", p.URL, p.Status, p.Text())
		}
		l.expect("authorization_code")
		if c := l.last("/token"); c.status != http.StatusUnauthorized {
			t.Errorf("the provider answered %d", c.status)
		}
	})
	inLab(t, with(right), func(t *testing.T, l *lab) {
		if _, err := l.auth.AppTokenSource("mail.read").Token(); err != nil {
			t.Fatal(err)
		}
		l.expect("client_credentials")
		seen := l.last("/token").form
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, labIssuer+"/token", strings.NewReader(seen.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := l.wire.RoundTrip(r)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("an assertion sent twice: %v, %v", resp, err)
		}
		l.expect("client_credentials")
		l.browser.Open(labSite)
	})
}
