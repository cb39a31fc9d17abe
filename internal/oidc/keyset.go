package oidc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/seed454743b5/signin/internal/text"
)

const (
	// MaxKeys bounds what a token without kid is tried with. Entra's largest
	// set has about twenty.
	MaxKeys = 100

	// A shorter RSA key can be factored; a longer one only costs time.
	MinRSABits = 2048
	maxRSABits = 16384
)

// keySet is the keys of a JSON Web Key Set (RFC 7517) that can have signed a
// token. It is made of the members that a signature needs and no others: an
// odd certificate or an unknown kind of key costs that key at most. It is
// never modified.
type keySet struct {
	Keys []signingKey
	odd  map[string]error // why a key is not used, by kid
}

// signingKey is one of them.
type signingKey struct {
	id     string           // kid; empty: may be any token's (RFC 7517, 4.5)
	issuer string           // Entra: the issuer it signs for; else empty
	Public crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// ParseKeySet reads a key set. It fails if no key in it can be used.
func ParseKeySet(body []byte) (*keySet, error) {
	var members map[string]json.RawMessage
	var list []json.RawMessage
	if json.Unmarshal(withoutMark(body), &members) != nil || json.Unmarshal(members["keys"], &list) != nil {
		return nil, errors.New("the answer is not a JSON Web Key Set")
	}
	set := &keySet{odd: map[string]error{}}
	var first error
	for i, raw := range list {
		if len(set.Keys) == MaxKeys {
			break
		}
		key, err := ParseSigningKey(raw)
		if err == nil {
			set.Keys = append(set.Keys, key)
			continue
		}
		if set.odd[key.id] = err; first == nil {
			first = fmt.Errorf("key %d of %d: %w", i+1, len(list), err)
		}
	}
	switch {
	case len(list) == 0:
		return nil, errors.New("the key set is empty")
	case len(set.Keys) == 0:
		return nil, fmt.Errorf("no key of the set can be used: %w", first)
	}
	return set, nil
}

// ParseSigningKey reads one key (RFC 7517, 4; RFC 7518, 6; RFC 8037, 2). The
// id is there even if the key cannot be used.
func ParseSigningKey(raw json.RawMessage) (signingKey, error) {
	var m jwkMembers
	if json.Unmarshal(raw, &m) != nil || m == nil {
		return signingKey{}, errors.New("not a JSON object")
	}
	key := signingKey{id: m.id("kid"), issuer: m.id("issuer")}
	err := m.checkUse()
	if err != nil {
		return key, err
	}
	switch kty := m.str("kty"); kty {
	case "RSA":
		key.Public, err = m.rsa()
	case "EC":
		key.Public, err = m.ec()
	case "OKP":
		key.Public, err = m.okp()
	default:
		err = fmt.Errorf("kty %q is not a kind of key that signs tokens", text.Printable(kty, 20))
	}
	return key, err
}

// jwkMembers are the members of a JSON Web Key, by their names to the letter.
type jwkMembers map[string]json.RawMessage

// text returns a member that is a string, else nothing.
func (m jwkMembers) str(name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return s
}

// id returns a member that names something: a string, or what stands in its
// place, a number mostly, as it is written.
func (m jwkMembers) id(name string) string {
	var s string
	if raw := m[name]; json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	return s
}

// checkUse refuses keys that are published for something else, and those that
// everybody can sign with.
func (m jwkMembers) checkUse() error {
	if use := m.str("use"); use != "" && use != "sig" {
		return fmt.Errorf("use is %q, not sig", text.Printable(use, 20))
	}
	var ops []string
	if json.Unmarshal(m["key_ops"], &ops) == nil && len(ops) > 0 && !slices.Contains(ops, "verify") && !slices.Contains(ops, "sign") {
		return errors.New("key_ops has neither verify nor sign")
	}
	if alg := m.str("alg"); strings.HasPrefix(alg, "RSA1_5") || strings.HasPrefix(alg, "RSA-OAEP") || strings.HasPrefix(alg, "ECDH-ES") {
		return fmt.Errorf("alg %s is for encryption", text.Printable(alg, 20))
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi"} {
		if m.str(private) != "" {
			return errors.New("its private half is published: anybody could sign with it")
		}
	}
	return nil
}

func (m jwkMembers) rsa() (crypto.PublicKey, error) {
	n, e := m.number("n"), m.number("e")
	switch {
	case n == nil || e == nil:
		return nil, errors.New("n or e is missing or not base64url")
	case n.BitLen() < MinRSABits:
		return nil, fmt.Errorf("an RSA key of %d bits; want %d or more", n.BitLen(), MinRSABits)
	case n.BitLen() > maxRSABits:
		return nil, fmt.Errorf("an RSA key of %d bits; want %d or less", n.BitLen(), maxRSABits)
	case n.Bit(0) == 0 || e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0:
		return nil, errors.New("n or e is not that of an RSA key")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// curves are those of ECDSA by the algorithm that signs with each.
var curves = map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}

func (m jwkMembers) ec() (crypto.PublicKey, error) {
	crv, x, y := m.str("crv"), m.number("x"), m.number("y")
	for _, curve := range curves {
		if curve.Params().Name != crv {
			continue
		}
		size := (curve.Params().BitSize + 7) / 8
		if x == nil || y == nil || x.BitLen() > 8*size || y.BitLen() > 8*size {
			return nil, errors.New("x or y is missing, too long, or not base64url")
		}
		point := make([]byte, 1+2*size)
		point[0] = 4 // uncompressed
		x.FillBytes(point[1 : 1+size])
		y.FillBytes(point[1+size:])
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return nil, errors.New("x and y are not a point of the curve")
		}
		return key, nil
	}
	return nil, fmt.Errorf("crv %q is not a curve that signs tokens", text.Printable(crv, 20))
}

func (m jwkMembers) okp() (crypto.PublicKey, error) {
	crv, x := m.str("crv"), m.bytes("x")
	switch {
	case crv != "Ed25519":
		return nil, fmt.Errorf("crv %q is not a curve that signs tokens", text.Printable(crv, 20))
	case len(x) != ed25519.PublicKeySize:
		return nil, errors.New("x is missing, of another length, or not base64url")
	}
	return ed25519.PublicKey(x), nil
}

// bytes decodes base64url, and base64 as some issuers send it.
func (m jwkMembers) bytes(name string) []byte {
	text := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(m.str(name), "="))
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}

func (m jwkMembers) number(name string) *big.Int {
	b := m.bytes(name)
	if len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

// Verify returns the payload of a token that one of the keys has signed, and
// the issuers that this key names. algs are the algorithms admitted.
func (s *keySet) Verify(raw string, algs []string) (payload []byte, issuers []string, err error) {
	admitted := make([]jose.SignatureAlgorithm, len(algs))
	for i, alg := range algs {
		admitted[i] = jose.SignatureAlgorithm(alg)
	}
	jws, err := jose.ParseSignedCompact(raw, admitted)
	if err != nil {
		return nil, nil, err
	}
	alg, kid := headerString(raw, "alg"), headerString(raw, "kid")
	for _, k := range s.Keys {
		if (kid != "" && k.id != "" && k.id != kid) || !k.signs(alg) {
			continue
		}
		if payload, err := jws.Verify(k.Public); err == nil {
			return payload, s.issuersOf(k), nil
		}
	}
	switch err := s.odd[kid]; {
	case err != nil:
		return nil, nil, fmt.Errorf("the signature is not by a key that can be used; one of that kid cannot: %w", err)
	case !s.knows(kid):
		return nil, nil, errors.New("signed by a key that the issuer does not publish")
	}
	return nil, nil, errors.New("the signature is not by the issuer's key")
}

// signs reports whether a key is of the kind that an algorithm needs.
func (k signingKey) signs(alg string) bool {
	switch public := k.Public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return curves[alg] == public.Curve
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// knows reports whether the set has a key of that id, of use or not.
func (s *keySet) knows(kid string) bool {
	return kid != "" && (s.odd[kid] != nil || slices.ContainsFunc(s.Keys, func(k signingKey) bool { return k.id == kid }))
}

// issuersOf returns the issuers that a key names. Sets list one key several
// times, for one issuer each.
func (s *keySet) issuersOf(key signingKey) []string {
	var issuers []string
	for _, k := range s.Keys {
		if p, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool }); ok && k.issuer != "" && p.Equal(key.Public) {
			issuers = append(issuers, k.issuer)
		}
	}
	return issuers
}

// withoutMark drops a byte order mark, which some servers put before JSON.
func withoutMark(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\ufeff")) }
