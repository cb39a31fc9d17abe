package op

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
	"github.com/luikyv/go-oidc/pkg/provider"
)

func (c *Config) validateClient() error {
	switch c.ClientAuth {
	case "", goidc.AuthnMethodSecretBasic, goidc.AuthnMethodSecretPost:
		if c.ClientID == "" || c.ClientSecret == "" {
			return errors.New("ClientID, ClientSecret: want both")
		}
	case goidc.AuthnMethodPrivateKeyJWT:
		if c.ClientID == "" || len(algorithmsOf(c.ClientKey)) == 0 {
			return errors.New("ClientID, ClientKey: want both, the key RSA or on P-256")
		}
	default:
		return fmt.Errorf("ClientAuth %q: want client_secret_basic, client_secret_post or private_key_jwt", c.ClientAuth)
	}
	return nil
}

// algorithmsOf are the algorithms a client may sign with, none for a key that
// will not do.
func algorithmsOf(key crypto.PublicKey) []goidc.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return []goidc.SignatureAlgorithm{goidc.RS256, goidc.PS256}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return []goidc.SignatureAlgorithm{goidc.ES256}
		}
	}
	return nil
}

func (p *Provider) clientAuthn() provider.Option {
	switch p.config.ClientAuth {
	case goidc.AuthnMethodSecretPost:
		return provider.WithSecretPostAuthn()
	case goidc.AuthnMethodPrivateKeyJWT:
		algs := algorithmsOf(p.config.ClientKey)
		return provider.WithPrivateKeyJWTAuthn(algs[0], algs[1:]...)
	default:
		return provider.WithSecretBasicAuthn()
	}
}

// clientJWKS is the client's key once for each algorithm: for an assertion
// without kid go-oidc looks the key up by its alg.
func (p *Provider) clientJWKS() *goidc.JSONWebKeySet {
	var set goidc.JSONWebKeySet
	for _, alg := range algorithmsOf(p.config.ClientKey) {
		set.Keys = append(set.Keys, goidc.JSONWebKey{Key: p.config.ClientKey, Algorithm: string(alg), Use: string(goidc.KeyUsageSignature)})
	}
	if set.Keys == nil {
		return nil
	}
	return &set
}

func (p *Provider) client() *goidc.Client {
	ids := make([]string, 0, len(scopes))
	for _, s := range scopes {
		ids = append(ids, s.id)
	}
	return &goidc.Client{
		ID:     p.config.ClientID,
		Secret: p.config.ClientSecret,
		ClientMeta: goidc.ClientMeta{
			Name:         "signin demo",
			RedirectURIs: p.config.RedirectURIs,
			// go-oidc counts "code id_token" as implicit.
			GrantTypes: []goidc.GrantType{
				goidc.GrantAuthorizationCode, goidc.GrantImplicit, goidc.GrantRefreshToken, goidc.GrantClientCredentials,
			},
			ResponseTypes:              []goidc.ResponseType{goidc.ResponseTypeCode, goidc.ResponseTypeCodeAndIDToken},
			ScopeIDs:                   strings.Join(ids, " "),
			TokenAuthnMethod:           p.config.ClientAuth,
			TokenRevocationAuthnMethod: p.config.ClientAuth,
			JWKS:                       p.clientJWKS(),
			PostLogoutRedirectURIs:     p.config.PostLogoutRedirectURIs,
		},
	}
}

// seenIDs remembers the jti of client assertions, for none counts twice.
type seenIDs struct {
	mu   sync.Mutex
	seen table[struct{}]
}

func newSeenIDs() *seenIDs { return &seenIDs{seen: newTable[struct{}]()} }

// jtiLifetime is longer than go-oidc lets an assertion live.
const jtiLifetime = 15 * time.Minute

func (s *seenIDs) consume(_ context.Context, jti string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.seen.get(jti); seen {
		return errors.New("an assertion with this jti has been used")
	}
	s.seen.put(jti, struct{}{}, time.Now().Add(jtiLifetime))
	return nil
}
