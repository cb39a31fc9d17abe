package signintest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
)

// OddKeys returns keys, by what is odd about them, as published by issuers
// beside the keys that sign. None of them may cost a client the set
// (RFC 7517, section 5):
//
//	b.EditKeys = func(set map[string]any) {
//		set["keys"] = append(signintest.OddKeys(), set["keys"].([]map[string]any)...)
//	}
//
// The list is new at each call. Some of the keys have no kid, so that they are
// candidates for every token.
func OddKeys() []map[string]any {
	odd := []map[string]any{
		{"kty": "EC", "crv": "secp256k1", "use": "sig", "kid": "secp256k1",
			"x": "XIrQk3n4AhaRFKvFPCbxH2oFzsdgWUIhPU1eWQmzTNk", "y": "VgpnhJlyBFVBsJ9jGLkzJn8fUrXlXcmnEWcWvPXb0Lo"},
		{"kty": "AKP", "alg": "ML-DSA-44", "kid": "post-quantum", "pub": "AAAA"},
		{"kty": "OKP", "crv": "X25519", "use": "enc", "kid": "x25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"},
		{"kty": "OKP", "crv": "Ed448", "kid": "ed448", "x": "AAAA"},
		{"kty": "oct", "kid": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
		{"kty": "EC", "crv": "P-256", "kid": "off the curve", "x": "AQ", "y": "AQ"},
		{"kty": "EC", "crv": "P-256", "kid": "half a point", "x": "AQ"},
		{"kty": "RSA", "kid": "no modulus", "e": "AQAB"},
		{"kty": "RSA", "kid": "not base64", "n": "%%%", "e": "AQAB"},
		{"kty": "RSA", "kid": "a number for n", "n": 5, "e": "AQAB"},
		{"kty": []string{"RSA"}, "kid": "a list for kty"},
		{"kid": "nothing else"},
		{"kty": nil, "kid": nil},
		{},
	}
	rsa, ec := oddKey("RS256"), oddKey("ES256")
	for _, edit := range []map[string]any{
		{"kid": "for encryption", "use": "enc", "alg": "RSA-OAEP-256"},
		{"kid": "operations of encryption", "key_ops": []string{"wrapKey"}, "use": nil},
		{"kid": "an unknown algorithm", "alg": "XX256"},
		{"kid": "a number for alg", "alg": 256},
		{"kid": "use a list", "use": []string{"sig"}},
		{"kid": "certificates that are none", "x5c": []string{"AAAA"}, "x5t": 1, "x5u": "::"},
		{"kid": "private members", "d": "AQAB", "p": "AQAB", "q": "AQAB"},
		{"kid": 7},
		{"kid": nil},
	} {
		for _, key := range []map[string]any{rsa, ec} {
			key = maps.Clone(key)
			maps.Copy(key, edit)
			maps.DeleteFunc(key, func(_ string, v any) bool { return v == nil })
			odd = append(odd, key)
		}
	}
	negative := maps.Clone(ec)
	negative["kid"], negative["x5c"] = "a negative serial number", []string{NegativeSerial()}
	return append(odd, negative, negative, maps.Clone(negative)) // twice over
}

func oddKey(alg string) map[string]any {
	private, err := keyPool.get(alg)
	if err != nil {
		panic("signintest: making a key: " + err.Error())
	}
	return Key{ID: "odd", Alg: alg, Private: private}.JWK()
}

// NegativeSerial returns a certificate for the member x5c of a key whose
// serial number is negative, as WSO2 publishes. crypto/x509 does not parse it.
func NegativeSerial() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("signintest: making a key: " + err.Error())
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(0x01234567), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic("signintest: making a certificate: " + err.Error())
	}
	der = slices.Clone(der)
	der[strings.Index(string(der), "\x02\x04\x01\x23\x45\x67")+2] = 0x81 // the sign bit
	return base64.StdEncoding.EncodeToString(der)
}
