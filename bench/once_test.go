package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/seed454743b5/signin"
)

// memory returns what a signed-in user costs when idle, in multiples of the
// payload, by name.
func memory(tb testing.TB, users int) map[string]float64 {
	result := map[string]float64{}
	payload := float64(accessLen + refreshLen + idTokenLen)
	for _, p := range peers {
		var prepare func() any
		switch p.name {
		case "floor", "scs in memory", "MSAL Go in memory", "MSAL Go with an accessor":
			prepare = func() any { h, _ := p.prepare(tb, users); return h }
		case "signin":
			// Without a request: what has been opened is let go after a while.
			i := newIssuer(tb, issuerURL, "ES256")
			prepare = func() any { a := newApplication(tb, i); a.signInAll(users); i.codes = nil; return a }
		default:
			continue
		}
		before := heap()
		kept := prepare()
		result[p.name] = float64(heap()-before) / float64(users) / payload
		runtime.KeepAlive(kept)
	}
	return result
}

// direct is a callback that calls go-oidc and oauth2, with the checks of
// OpenID Connect Core for hybrid sign-in, and keeps nothing.
type direct struct {
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	ctx      context.Context // with the issuer's client
	nonce    string
	pkce     string
}

func newDirect(tb testing.TB, i *issuer) *direct {
	ctx := oidc.ClientContext(context.Background(), i.client())
	provider, err := oidc.NewProvider(ctx, i.url)
	if err != nil {
		tb.Fatal(err)
	}
	return &direct{
		oauth: oauth2.Config{ClientID: "client", ClientSecret: "secret", RedirectURL: appURL + "/oidc/callback", Endpoint: oauth2.Endpoint{
			AuthURL: i.url + "/authorize", TokenURL: i.url + "/token", AuthStyle: oauth2.AuthStyleInParams,
		}},
		verifier: provider.Verifier(&oidc.Config{ClientID: "client"}),
		ctx:      ctx, nonce: text(43), pkce: text(43),
	}
}

func (d *direct) challenge(tb testing.TB, i *issuer) *http.Request {
	location := d.oauth.AuthCodeURL(text(43), oidc.Nonce(d.nonce), oauth2.S256ChallengeOption(d.pkce), oauth2.SetAuthURLParam("response_type", "code id_token"))
	params := i.authorize(tb, location, "user")
	r := httptest.NewRequest(http.MethodPost, appURL+"/oidc/callback", strings.NewReader(params.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func (d *direct) callback(r *http.Request) error {
	front, err := d.verifier.Verify(d.ctx, r.FormValue("id_token"))
	if err != nil {
		return err
	}
	var claims struct {
		CodeHash string `json:"c_hash"`
	}
	if err := front.Claims(&claims); err != nil {
		return err
	}
	code := r.FormValue("code")
	token, err := d.oauth.Exchange(d.ctx, code, oauth2.VerifierOption(d.pkce))
	if err != nil {
		return err
	}
	raw, _ := token.Extra("id_token").(string)
	back, err := d.verifier.Verify(d.ctx, raw)
	if err != nil {
		return err
	}
	if front.Nonce != d.nonce || back.Nonce != d.nonce || claims.CodeHash != halfHash(code) || front.Subject != back.Subject {
		return errors.New("not the answer")
	}
	return back.VerifyAccessToken(token.AccessToken)
}

// callbacks returns how much more processor time our callback takes than the
// direct one, how long ours takes in nanoseconds, and how many token requests
// it makes.
func callbacks(tb testing.TB, passes, each int) (ratio, ours, requests float64) {
	i := newIssuer(tb, issuerURL, "RS256")
	a := newApplication(tb, i, func(c *signin.Config) { c.ResponseType, c.ResponseMode = "", "" })
	d := newDirect(tb, i)
	a.signIn("user")
	if err := d.callback(d.challenge(tb, i)); err != nil {
		tb.Fatal(err)
	}
	var ratios, times []float64
	before := i.tokenRequests.Load()
	for pass := range passes {
		var theirs, mine []*http.Request
		for n := range each {
			theirs = append(theirs, d.challenge(tb, i))
			mine = append(mine, a.challenge(fmt.Sprintf("user%d-%d", pass, n)))
		}
		runtime.GC()
		start := spent()
		for _, r := range theirs {
			if err := d.callback(r); err != nil {
				tb.Fatal(err)
			}
		}
		middle := spent()
		for _, r := range mine {
			w := &discard{header: http.Header{}}
			if a.handler.ServeHTTP(w, r); w.status != http.StatusSeeOther {
				tb.Fatalf("callback: status %d, want 303", w.status)
			}
		}
		end := spent()
		ratios = append(ratios, float64(end-middle)/float64(middle-start))
		times = append(times, float64(end-middle)/float64(each))
	}
	return median(ratios), median(times), float64(i.tokenRequests.Load()-before)/float64(passes*each) - 1 // one is the direct callback's
}

// stampede sends callers at once, all with one expired token, and returns how
// many token requests that made and how many callers failed.
func stampede(tb testing.TB, name string, singleUse bool, callers int) (requests, failed int64) {
	i := newIssuer(tb, issuerURL, "ES256")
	var call func() error
	switch name {
	case "signin":
		i.lifetime = 0
		a := newApplication(tb, i)
		r := httptest.NewRequest(http.MethodGet, appURL+"/work", nil)
		r.Header.Set("Cookie", a.signIn("user"))
		call = func() error {
			w := httptest.NewRecorder()
			a.handler.ServeHTTP(w, r.Clone(context.Background()))
			if w.Code != http.StatusNoContent {
				return errors.New(w.Body.String())
			}
			return nil
		}
	case "oauth2 by hand":
		d := newDirect(tb, i)
		session := &oauth2.Token{AccessToken: text(accessLen), RefreshToken: "user." + text(refreshLen), Expiry: time.Now().Add(-time.Hour)}
		call = func() error {
			_, err := d.oauth.TokenSource(d.ctx, session).Token() // the session's token, as each request reads it
			return err
		}
	case "MSAL Go in memory":
		m := newMSAL(tb, 0)
		i = m.issuer
		i.lifetime = time.Minute // MSAL takes that for expired
		m.signIn(tb, "user")
		r := httptest.NewRequest(http.MethodGet, appURL+"/work", nil)
		r.Header.Set("Cookie", m.cookies()[0])
		call = func() error {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			if w.Code != http.StatusNoContent {
				return errors.New("refused")
			}
			return nil
		}
	}
	i.singleUse, i.latency = singleUse, 100*time.Millisecond
	before := i.tokenRequests.Load()
	var failures atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if call() != nil {
				failures.Add(1)
			}
		})
	}
	all.Wait()
	return i.tokenRequests.Load() - before, failures.Load()
}
