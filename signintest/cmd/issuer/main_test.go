package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/seed454743b5/signin/signintest"
)

// start runs the command and returns the issuer's URL.
func start(t *testing.T, args ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "localhost:0"}, args...), in, io.Discard)
		in.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the command ended with %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the command printed no URL: %v", err)
	}
	return strings.TrimSpace(line)
}

func discover(t *testing.T, issuer string) (status int, doc map[string]any) {
	t.Helper()
	res, err := http.Get(strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	json.NewDecoder(res.Body).Decode(&doc)
	return res.StatusCode, doc
}

func steer(t *testing.T, issuer, what string, form url.Values) int {
	t.Helper()
	u, err := url.Parse(issuer)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.PostForm("http://"+u.Host+"/-/"+what, form)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// signIn signs a user in by hand and returns who that is.
func signIn(t *testing.T, doc map[string]any, submit url.Values, scopes ...string) string {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.FormValue("code"))
	}))
	defer app.Close()
	conf := oauth2.Config{ClientID: "shop", ClientSecret: "of the shop", RedirectURL: app.URL + "/callback", Scopes: scopes,
		Endpoint: oauth2.Endpoint{AuthURL: doc["authorization_endpoint"].(string), TokenURL: doc["token_endpoint"].(string), AuthStyle: oauth2.AuthStyleInParams}}
	browser := signintest.NewBrowser(t, nil)
	page := browser.Open(conf.AuthCodeURL("s"))
	if submit != nil {
		if page.Form() == nil {
			t.Fatalf("no login page at %s: %s", page.URL, page.Body)
		}
		page = browser.Submit(page, submit)
	}
	token, err := conf.Exchange(t.Context(), page.Body)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	claims := struct{ Sub string }{}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		t.Fatalf("no ID token")
	}
	if err := json.NewDecoder(base64.NewDecoder(base64.RawURLEncoding, strings.NewReader(parts[1]))).Decode(&claims); err != nil {
		t.Fatal(err)
	}
	return claims.Sub
}

// Every profile runs on one loopback host, and signs in.
func TestProfiles(t *testing.T) {
	for _, name := range append([]string{""}, names()...) {
		t.Run(name, func(t *testing.T) {
			issuer := start(t, "-profile", name, "-client", "shop", "-secret", "of the shop")
			status, doc := discover(t, issuer)
			if status != http.StatusOK {
				t.Fatalf("discovery: %d at %s", status, issuer)
			}
			scopes := []string{"openid"}
			if name == "b2c" {
				scopes = append(scopes, "shop") // else there is no access token
			}
			if got := signIn(t, doc, nil, scopes...); got != "alice" {
				t.Errorf("signed in as %q", got)
			}
		})
	}
}

func TestUsersAndSteering(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(users, []byte(`[{"Subject":"ada","Claims":{"name":"Ada"}},{"Subject":"grace"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := start(t, "-client", "shop", "-secret", "of the shop", "-users", users, "-login-page", "-fault", "discovery=503")
	if status, _ := discover(t, issuer); status != http.StatusServiceUnavailable {
		t.Errorf("discovery: %d, want the fault", status)
	}
	steer(t, issuer, "heal", nil)
	status, doc := discover(t, issuer)
	if status != http.StatusOK {
		t.Fatalf("healed: %d", status)
	}
	if got := signIn(t, doc, url.Values{"user": {"grace"}}, "openid"); got != "grace" {
		t.Errorf("signed in as %q, want whom the form chose", got)
	}
	steer(t, issuer, "user", url.Values{"user": {"grace"}})
	if got := signIn(t, doc, url.Values{}, "openid"); got != "grace" {
		t.Errorf("signed in as %q, want whom the test chose", got)
	}
	if got := steer(t, issuer, "next", url.Values{"fault": {"discovery=404"}}); got != http.StatusNoContent {
		t.Errorf("next: %d", got)
	}
	first, _ := discover(t, issuer)
	second, _ := discover(t, issuer)
	if first != http.StatusNotFound || second != http.StatusOK {
		t.Errorf("after one fault: %d, then %d", first, second)
	}
	if got := steer(t, issuer, "fault", url.Values{"fault": {"nowhere=404"}}); got != http.StatusBadRequest {
		t.Errorf("a fault of nothing: %d", got)
	}
	u, _ := url.Parse(issuer)
	res, err := http.Get("http://" + u.Host + "/-/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	counts := map[string]int{}
	if err := json.NewDecoder(res.Body).Decode(&counts); err != nil || counts["discovery"] != 4 || counts["token"] != 2 {
		t.Errorf("calls %v, %v", counts, err)
	}
}

func TestFaults(t *testing.T) {
	for s, good := range map[string]bool{
		"token=503": true, "any=drop": true, "keys=html": true, "api=20ms": true, "token=invalid_grant": true,
		"": false, "token": false, "token=": false, "tokens=503": false, "token=99": false, "token=-1s": false, "token=Bad Word": false,
	} {
		if _, err := parseFault(s); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-profile", "acme"}, {"-fault", "token"}, {"-users", "/nowhere.json"}, {"more"}, {"-addr", "nonsense"}, {"-no-such-flag"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
