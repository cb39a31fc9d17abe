package signintest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash.New
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Key is a signing key of an issuer.
type Key struct {
	// ID is the kid.
	ID string
	// Alg is the algorithm it is published for.
	Alg string
	// Private is the key itself.
	Private crypto.Signer
}

// SignOptions choose how a token is signed. The zero value signs with the
// issuer's newest key for its algorithm.
type SignOptions struct {
	// Alg is the algorithm, also in the header. Empty means that of Key, else
	// that of [Behaviour]. "none" makes an unsigned token with an empty
	// signature; HS256, HS384 and HS512 use Secret.
	Alg string

	// Key signs in place of the issuer's own. See [Issuer.ForeignKey].
	Key *Key

	// KeyID is the kid in the header. Empty means that of the key.
	KeyID string

	// Secret is the key of HS256 and its kin. Nil means the issuer's public
	// key as PKIX, DER encoded: the classic confusion of algorithms.
	Secret []byte

	// Header members are added or replaced; a nil value removes one, so
	// {"kid": nil} makes a token without kid.
	Header map[string]any
}

var hashes = map[string]crypto.Hash{
	"RS256": crypto.SHA256, "PS256": crypto.SHA256, "ES256": crypto.SHA256, "HS256": crypto.SHA256,
	"RS384": crypto.SHA384, "PS384": crypto.SHA384, "ES384": crypto.SHA384, "HS384": crypto.SHA384,
	"RS512": crypto.SHA512, "PS512": crypto.SHA512, "ES512": crypto.SHA512, "HS512": crypto.SHA512,
	"EdDSA": crypto.SHA512, // for c_hash and at_hash; Ed25519 signs without
}

// HalfHash returns the left half of the hash of a value, as c_hash and
// at_hash carry it (OpenID Connect Core, 3.3.2.11), by the hash of alg. An unknown alg
// uses SHA-256.
func HalfHash(alg, value string) string {
	hash, ok := hashes[alg]
	if !ok {
		hash = crypto.SHA256
	}
	h := hash.New()
	h.Write([]byte(value))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// Sign signs any claims as the issuer, for tokens that no endpoint gives out.
// It fails the test if the options make no sense, and so must be called from
// the test's own goroutine.
func (i *Issuer) Sign(claims map[string]any, o SignOptions) string {
	i.tb.Helper()
	token, err := i.sign(claims, o)
	if err != nil {
		i.tb.Fatalf("signintest: signing a token: %v", err)
	}
	i.remember(token)
	return token
}

func (i *Issuer) sign(claims map[string]any, o SignOptions) (string, error) {
	alg := o.Alg
	if alg == "" && o.Key != nil {
		alg = o.Key.Alg
	}
	if alg == "" {
		alg = i.behaviour.Load().alg()
	}
	key := o.Key
	if key == nil {
		signingAlg := alg
		if alg == "none" || strings.HasPrefix(alg, "HS") {
			signingAlg = i.behaviour.Load().alg()
		}
		k, err := i.key(signingAlg)
		if err != nil {
			return "", err
		}
		key = &k
	}
	header := map[string]any{"alg": alg, "typ": "JWT", "kid": key.ID}
	if o.KeyID != "" {
		header["kid"] = o.KeyID
	}
	for k, v := range o.Header {
		if header[k] = v; v == nil {
			delete(header, k)
		}
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("encoding the header: %w", err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the claims: %w", err)
	}
	input := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	signature, err := signature(alg, *key, o.Secret, input)
	if err != nil {
		return "", err
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func signature(alg string, key Key, secret []byte, input string) ([]byte, error) {
	if alg == "none" {
		return nil, nil
	}
	hash, ok := hashes[alg]
	if !ok {
		return nil, fmt.Errorf("unknown algorithm %q", alg)
	}
	if strings.HasPrefix(alg, "HS") {
		if secret == nil {
			var err error
			if secret, err = x509.MarshalPKIXPublicKey(key.Private.Public()); err != nil {
				return nil, err
			}
		}
		mac := hmac.New(hash.New, secret)
		mac.Write([]byte(input))
		return mac.Sum(nil), nil
	}
	h := hash.New()
	h.Write([]byte(input))
	digest := h.Sum(nil)
	switch k := key.Private.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			return k.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
		}
		return k.Sign(rand.Reader, digest, hash)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			return nil, err
		}
		size := (k.Params().BitSize + 7) / 8
		out := make([]byte, 2*size)
		r.FillBytes(out[:size])
		s.FillBytes(out[size:])
		return out, nil
	case ed25519.PrivateKey:
		return ed25519.Sign(k, []byte(input)), nil
	}
	return nil, fmt.Errorf("a %T cannot sign %s", key.Private, alg)
}

// jwt is a token taken apart. Nothing about it is verified.
type jwt struct {
	header, claims map[string]any
	input          string
	signature      []byte
}

func parseJWT(token string) (*jwt, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("signintest: not a compact JWT")
	}
	t := &jwt{input: parts[0] + "." + parts[1]}
	for n, into := range []*map[string]any{&t.header, &t.claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[n])
		if err != nil {
			return nil, fmt.Errorf("signintest: decoding a JWT: %w", err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return nil, fmt.Errorf("signintest: decoding a JWT: %w", err)
		}
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, fmt.Errorf("signintest: decoding a JWT: %w", err)
	}
	return t, nil
}

// verify checks the signature with one public key.
func (t *jwt) verify(public crypto.PublicKey) bool {
	alg, _ := t.header["alg"].(string)
	hash, ok := hashes[alg]
	if !ok || len(alg) != 5 {
		return false
	}
	h := hash.New()
	h.Write([]byte(t.input))
	digest := h.Sum(nil)
	switch k := public.(type) {
	case *rsa.PublicKey:
		switch alg[:2] {
		case "PS":
			return rsa.VerifyPSS(k, hash, digest, t.signature, nil) == nil
		case "RS":
			return rsa.VerifyPKCS1v15(k, hash, digest, t.signature) == nil
		}
	case *ecdsa.PublicKey:
		size := (k.Params().BitSize + 7) / 8
		if alg[:2] != "ES" || len(t.signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(t.signature[:size]), new(big.Int).SetBytes(t.signature[size:])
		return ecdsa.Verify(k, digest, r, s)
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(k, []byte(t.input), t.signature)
	}
	return false
}

// unreadable is a token that looks encrypted (RFC 7516, section 3.1). Nobody has its
// key.
func unreadable() string {
	part := func(n int) string {
		b := make([]byte, n)
		rand.Read(b)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RSA-OAEP-256","enc":"A256GCM","cty":"JWT"}`))
	return strings.Join([]string{header, part(256), part(12), part(400), part(16)}, ".")
}
