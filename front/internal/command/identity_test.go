package command_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/seed454743b5/signin/front/internal/fronttest"
)

// checkIdentity verifies a token of the front as an upstream would, by the key
// set at /oidc/keys.
func checkIdentity(t *testing.T, f *fronttest.Front, raw, path string) {
	t.Helper()
	res, body := f.Answer("GET /oidc/keys HTTP/1.1\nHost: HOST\n\n")
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &set); err != nil || res.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%v %s", err, body)
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	var got struct {
		jwt.Claims
		Groups []string `json:"groups"`
		IDP    string   `json:"idp"`
	}
	if err := token.Claims(set, &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(jwt.Expected{Issuer: f.URL, Subject: "1001", AnyAudience: jwt.Audience{f.URL + path}, Time: time.Now()}); err != nil {
		t.Errorf("%v of %+v", err, got)
	}
	if got.Expiry.Time().After(time.Now().Add(time.Minute)) || got.IDP != f.Issuer.URL() || len(got.Groups) != 2 {
		t.Errorf("%+v", got)
	}
}
