package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// tokenLifetime is short: a token is made for one request.
const tokenLifetime = time.Minute

// Signer makes the front's own tokens, by which an upstream can see that a
// request came through here. Its keys are derived from the session keys, so
// that replicas share them and they rotate together: the first signs, all are
// in the key set. It may be used concurrently.
type Signer struct {
	signer jose.Signer
	keys   []byte // the key set, as JSON
}

// NewSigner derives the keys.
func NewSigner(sessionKeys [][]byte) (*Signer, error) {
	s := &Signer{}
	var set jose.JSONWebKeySet
	for i, secret := range sessionKeys {
		key, err := deriveKey(secret)
		if err != nil {
			return nil, err
		}
		public := jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.ES256), Use: "sig"}
		print, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, err
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(print)
		set.Keys = append(set.Keys, public)
		if i > 0 {
			continue
		}
		private := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: public.KeyID}}
		if s.signer, err = jose.NewSigner(private, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
			return nil, err
		}
	}
	var err error
	s.keys, err = json.Marshal(set)
	return s, err
}

// deriveKey tries again in the one case in 2^32 that a value is no key.
func deriveKey(secret []byte) (*ecdsa.PrivateKey, error) {
	for i := 0; ; i++ {
		raw, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("signin-front identity token, ES256, %d", i), 32)
		if err != nil {
			return nil, err
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err == nil || i > 8 {
			return key, err
		}
	}
}

// Keys is the key set as JSON (RFC 7517, 5).
func (s *Signer) Keys() []byte { return s.keys }

// claims of a token. The audience is the site, and the route below it: an
// upstream that shares its host with others compares the longer one.
type claims struct {
	Issuer   string           `json:"iss"`
	Subject  string           `json:"sub"`
	Audience jwt.Audience     `json:"aud"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	Expiry   *jwt.NumericDate `json:"exp"`
	IDP      string           `json:"idp"` // subjects are unique there
	Username string           `json:"preferred_username,omitempty"`
	Name     string           `json:"name,omitempty"`
	Email    string           `json:"email,omitempty"`
	Verified bool             `json:"email_verified,omitempty"`
	Groups   []string         `json:"groups,omitempty"`
}

// Token is a token about a person for a route of the site.
func (s *Signer) Token(person *Person, site, path string, now time.Time) (string, error) {
	c := claims{
		Issuer: site, Subject: person.User.Subject, Audience: jwt.Audience{site},
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(tokenLifetime)), IDP: person.User.Issuer,
		Username: person.Text("preferred_username"), Name: person.Text("name"), Email: person.Email(),
		Groups: person.List(person.Groups),
	}
	c.Verified = c.Email != ""
	if path != "/" {
		c.Audience = append(c.Audience, site+path)
	}
	return jwt.Signed(s.signer).Claims(c).Serialize()
}
