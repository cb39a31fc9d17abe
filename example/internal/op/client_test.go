package op_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/seed454743b5/signin/example/internal/op"
)

// A client that nobody could authenticate as, or anybody, is refused at once.
func TestBadClients(t *testing.T) {
	wrong, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		method goidc.AuthnMethod
		secret string
		key    crypto.PublicKey
		want   string
	}{
		"no secret":         {"", "", nil, "ClientSecret"},
		"no secret to post": {goidc.AuthnMethodSecretPost, "", nil, "ClientSecret"},
		"no key":            {goidc.AuthnMethodPrivateKeyJWT, "secret", nil, "ClientKey"},
		"unsuitable key":    {goidc.AuthnMethodPrivateKeyJWT, "", wrong.Public(), "ClientKey"},
		"public client":     {goidc.AuthnMethodNone, "secret", nil, "ClientAuth"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := op.New(op.Config{
				Issuer: "http://127.0.0.1:1", RedirectURIs: []string{"http://localhost:1/"},
				ClientID: clientID, ClientSecret: tc.secret, ClientAuth: tc.method, ClientKey: tc.key,
			})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that names %s", err, tc.want)
			}
		})
	}
}
