package clientauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/internal/clientauth"
)

type testKeys struct {
	rsa, weak        *rsa.PrivateKey
	p224, p256       *ecdsa.PrivateKey
	p384, p521       *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
	otherRSA, other2 crypto.Signer
}

// clientKeys are made once: RSA takes its time.
var clientKeys = sync.OnceValue(func() *testKeys {
	return &testKeys{
		rsa: mustMake(rsa.GenerateKey(rand.Reader, 2048)), weak: mustMake(rsa.GenerateKey(rand.Reader, 1024)),
		p224: mustMake(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), p256: mustMake(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		p384: mustMake(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), p521: mustMake(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		ed:       ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
		otherRSA: mustMake(rsa.GenerateKey(rand.Reader, 2048)), other2: mustMake(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
	}
})

func mustMake[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// certifyClient makes a certificate for key below an authority of its own.
func certifyClient(t testing.TB, key crypto.Signer, notAfter time.Time) tls.Certificate {
	t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "app"},
		NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter,
	}
	caKey := clientKeys().p256
	caDER, err1 := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	der, err2 := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}
}

const (
	otherIssuer   = "https://issuer.example/tenant"
	otherEndpoint = "https://issuer.example/tenant/token"
	entraIssuer   = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
	entraEndpoint = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token"
)

var assertionTime = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func atOther(algs ...string) clientauth.Request {
	return clientauth.Request{
		ClientID: "app", Issuer: otherIssuer, Endpoint: otherEndpoint, SigningAlgs: algs,
		Now: func() time.Time { return assertionTime },
	}
}

func atEntra() clientauth.Request {
	in := atOther()
	in.Issuer, in.Endpoint = entraIssuer, entraEndpoint
	return in
}

// assertionParts decodes an assertion without verifying it.
func assertionParts(t testing.TB, jwt string) (header, claims map[string]any, signature []byte) {
	t.Helper()
	p := strings.Split(jwt, ".")
	if len(p) != 3 {
		t.Fatalf("assertion has %d parts", len(p))
	}
	for i, v := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(p[i])
		if err = errors.Join(err, json.Unmarshal(b, v)); err != nil {
			t.Fatal(err)
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(p[2])
	if err != nil {
		t.Fatal(err)
	}
	return header, claims, signature
}

func signAssertion(t testing.TB, c signin.Credential, in clientauth.Request) string {
	t.Helper()
	form, _ := credentialProof(t, c, in)
	return form.Get("client_assertion")
}

// verifyAssertion checks an assertion as a server would: by another implementation.
func verifyAssertion(jwt, alg, audience string, public crypto.PublicKey) error {
	v := oidc.NewVerifier("app", &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{public}}, &oidc.Config{
		ClientID: audience, SupportedSigningAlgs: []string{alg}, Now: func() time.Time { return assertionTime },
	})
	_, err := v.Verify(context.Background(), jwt)
	return err
}

func TestAssertionVerifies(t *testing.T) {
	k := clientKeys()
	for _, tc := range []struct {
		key   crypto.Signer
		alg   string
		other crypto.Signer
		size  int
	}{
		{k.rsa, "RS256", k.otherRSA, 256}, {k.rsa, "RS384", k.otherRSA, 256}, {k.rsa, "RS512", k.otherRSA, 256},
		{k.rsa, "PS256", k.otherRSA, 256}, {k.rsa, "PS384", k.otherRSA, 256}, {k.rsa, "PS512", k.otherRSA, 256},
		{k.p256, "ES256", k.other2, 64}, {k.p384, "ES384", k.p256, 96}, {k.p521, "ES512", k.p256, 132},
		{k.ed, "EdDSA", k.p256, 64},
	} {
		t.Run(tc.alg, func(t *testing.T) {
			// hsm hides the key's type, as a key outside the process would.
			c := signin.PrivateKey(signin.ClientKey{Signer: &hsm{Signer: tc.key}, ID: "k1", Algorithm: tc.alg})
			if err := clientauth.Validate(c); err != nil {
				t.Fatal(err)
			}
			for range 8 { // lengths of r and s vary from one signature to the next
				jwt := signAssertion(t, c, atOther())
				if err := verifyAssertion(jwt, tc.alg, otherIssuer, tc.key.Public()); err != nil {
					t.Fatalf("does not verify: %v", err)
				}
				header, _, signature := assertionParts(t, jwt)
				if want := map[string]any{"alg": tc.alg, "typ": "JWT", "kid": "k1"}; fmt.Sprint(header) != fmt.Sprint(want) {
					t.Errorf("header = %v, want %v", header, want)
				}
				if len(signature) != tc.size {
					t.Errorf("signature has %d bytes, want %d", len(signature), tc.size)
				}
			}
			jwt := signAssertion(t, c, atOther())
			for name, err := range map[string]error{
				"another key":      verifyAssertion(jwt, tc.alg, otherIssuer, tc.other.Public()),
				"another audience": verifyAssertion(jwt, tc.alg, otherEndpoint, tc.key.Public()),
				"altered claims":   verifyAssertion(alterSubject(t, jwt), tc.alg, otherIssuer, tc.key.Public()),
			} {
				if err == nil {
					t.Errorf("verifies with %s", name)
				}
			}
		})
	}
}

// alterSubject returns jwt with another subject and the old signature.
func alterSubject(t testing.TB, jwt string) string {
	p := strings.Split(jwt, ".")
	b, err := base64.RawURLEncoding.DecodeString(p[1])
	changed := strings.Replace(string(b), `"sub":"app"`, `"sub":"admin"`, 1)
	if err != nil || changed == string(b) {
		t.Fatalf("claims are %q, %v", b, err)
	}
	p[1] = base64.RawURLEncoding.EncodeToString([]byte(changed))
	return strings.Join(p, ".")
}

func TestAssertionClaims(t *testing.T) {
	c := signin.PrivateKey(signin.ClientKey{Signer: clientKeys().ed})
	seen := map[any]bool{}
	for range 1000 {
		_, claims, _ := assertionParts(t, signAssertion(t, c, atOther()))
		jti, _ := claims["jti"].(string)
		if b, err := base64.RawURLEncoding.DecodeString(jti); err != nil || len(b) != 16 || seen[jti] {
			t.Fatalf("jti %q: want 16 random bytes, never twice", jti)
		}
		seen[jti] = true
		delete(claims, "jti")
		issued := float64(assertionTime.Add(-10 * time.Second).Unix())
		want := map[string]any{"iss": "app", "sub": "app", "aud": otherIssuer, "iat": issued, "nbf": issued, "exp": issued + 300}
		if fmt.Sprint(claims) != fmt.Sprint(want) {
			t.Fatalf("claims = %v, want %v", claims, want)
		}
	}
}

func TestAssertionAudience(t *testing.T) {
	for _, tc := range []struct{ name, issuer, endpoint, set, want string }{
		{"common", otherIssuer, otherEndpoint, "", otherIssuer},
		{"set", otherIssuer, otherEndpoint, otherEndpoint, otherEndpoint},
		{"Entra", entraIssuer, entraEndpoint, "", entraEndpoint},
		{"Entra, several tenants", "https://login.microsoftonline.com/{tenantid}/v2.0", "https://login.microsoftonline.com/organizations/oauth2/v2.0/token", "", "https://login.microsoftonline.com/organizations/oauth2/v2.0/token"},
		{"Entra, v1 issuer", "https://sts.windows.net/t/", "https://login.microsoftonline.com/t/oauth2/token", "", "https://login.microsoftonline.com/t/oauth2/token"},
		{"US Government", "https://login.microsoftonline.us/t/v2.0", "https://login.microsoftonline.us/t/oauth2/v2.0/token", "", "https://login.microsoftonline.us/t/oauth2/v2.0/token"},
		{"China", "https://login.partner.microsoftonline.cn/t/v2.0", "https://login.partner.microsoftonline.cn/t/oauth2/v2.0/token", "", "https://login.partner.microsoftonline.cn/t/oauth2/v2.0/token"},
		{"External ID", "https://id.ciamlogin.com/t/v2.0", "https://name.ciamlogin.com/t/oauth2/v2.0/token", "", "https://name.ciamlogin.com/t/oauth2/v2.0/token"},
		{"AD FS", "https://sts.example/adfs", "https://sts.example/adfs/oauth2/token/", "", "https://sts.example/adfs/oauth2/token/"},
		{"Entra, set", entraIssuer, entraEndpoint, "api://x", "api://x"},
		// An issuer that announces somebody else's endpoint gets nothing that is good there.
		{"hostile, for Entra", "https://evil.example", entraEndpoint, "", "https://evil.example"},
		{"hostile, for AD FS", "https://evil.example/adfs", "https://sts.example/adfs/oauth2/token/", "", "https://evil.example/adfs"},
		{"hostile, like Entra", "https://login.microsoftonline.com.evil.example/t", "https://login.microsoftonline.com.evil.example/t/token", "", "https://login.microsoftonline.com.evil.example/t"},
		{"hostile, like External ID", "https://evilciamlogin.com/t", "https://evilciamlogin.com/token", "", "https://evilciamlogin.com/t"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := atOther()
			in.Issuer, in.Endpoint = tc.issuer, tc.endpoint
			_, claims, _ := assertionParts(t, signAssertion(t, signin.PrivateKey(signin.ClientKey{Signer: clientKeys().ed, Audience: tc.set}), in))
			if claims["aud"] != tc.want {
				t.Errorf("aud = %v, want %s", claims["aud"], tc.want)
			}
		})
	}
}

func TestAssertionAlgorithm(t *testing.T) {
	k := clientKeys()
	adfsAuth := atOther()
	adfsAuth.Issuer, adfsAuth.Endpoint = "https://sts.example/adfs", "https://sts.example/adfs/oauth2/token/"
	for _, tc := range []struct {
		name string
		key  crypto.Signer
		set  string
		in   clientauth.Request
		want string // an algorithm, or part of the error
	}{
		{"RSA, nothing announced", k.rsa, "", atOther(), "RS256"},
		{"RSA, both", k.rsa, "", atOther("PS256", "RS256"), "RS256"},
		{"RSA, FAPI", k.rsa, "", atOther("PS256", "ES256", "EdDSA"), "PS256"},
		{"RSA, longer only", k.rsa, "", atOther("PS512"), "PS512"},
		{"RSA, set", k.rsa, "PS384", atOther("RS256"), "PS384"},
		{"RSA, symmetric only", k.rsa, "", atOther("HS256", "none"), "the issuer announces none of them"},
		{"P-256", k.p256, "", atOther(), "ES256"},
		{"P-384", k.p384, "", atOther("ES256", "ES384"), "ES384"},
		{"P-521", k.p521, "", atOther(), "ES512"},
		{"P-384, not announced", k.p384, "", atOther("ES256"), "can sign with ES384"},
		{"P-384, not announced but set", k.p384, "ES384", atOther("ES256"), "ES384"},
		{"Ed25519", k.ed, "", atOther("RS256", "EdDSA"), "EdDSA"},
		{"Ed25519, fully specified", k.ed, "", atOther("Ed25519"), "Ed25519"},
		{"Entra", k.rsa, "", atEntra(), "PS256"},
		{"Entra, set", k.rsa, "RS256", atEntra(), "RS256"},
		{"Entra, ECDSA", k.p256, "", atEntra(), "ES256"},
		{"AD FS", k.rsa, "", adfsAuth, "RS256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			form := url.Values{}
			err := clientauth.Authenticate(t.Context(), signin.PrivateKey(signin.ClientKey{Signer: tc.key, Algorithm: tc.set}), tc.in, form, http.Header{})
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) || form.Has("client_assertion") {
					t.Errorf("error %v, want %s", err, tc.want)
				}
				return
			}
			header, _, _ := assertionParts(t, form.Get("client_assertion"))
			if header["alg"] != tc.want {
				t.Errorf("alg = %v, want %s", header["alg"], tc.want)
			}
		})
	}
}

func TestAssertionCertificate(t *testing.T) {
	cert := certifyClient(t, clientKeys().rsa, assertionTime.Add(time.Hour))
	old, thumb := sha1.Sum(cert.Certificate[0]), sha256.Sum256(cert.Certificate[0])
	x5t, x5tS256 := base64.RawURLEncoding.EncodeToString(old[:]), base64.RawURLEncoding.EncodeToString(thumb[:])
	x5c := []any{base64.StdEncoding.EncodeToString(cert.Certificate[0]), base64.StdEncoding.EncodeToString(cert.Certificate[1])}
	for _, tc := range []struct {
		name string
		c    signin.Credential
		in   clientauth.Request
		want map[string]any
	}{
		{"Entra", signin.Certificate(cert), atEntra(), map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": x5tS256}},
		{"Entra, RS256", signin.PrivateKey(signin.ClientKey{Certificate: cert, Algorithm: "RS256"}), atEntra(), map[string]any{"alg": "RS256", "typ": "JWT", "x5t": x5t}},
		{"Entra, by subject name", signin.PrivateKey(signin.ClientKey{Certificate: cert, SendChain: true}), atEntra(), map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": x5tS256, "x5c": x5c}},
		{"elsewhere", signin.Certificate(cert), atOther("RS256"), map[string]any{"alg": "RS256", "typ": "JWT", "x5t#S256": x5tS256}},
		{"signer beside it", signin.PrivateKey(signin.ClientKey{Signer: &hsm{Signer: clientKeys().rsa}, Certificate: tls.Certificate{Certificate: cert.Certificate}, ID: "k1"}), atOther(), map[string]any{"alg": "RS256", "typ": "JWT", "kid": "k1", "x5t#S256": x5tS256}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := clientauth.Validate(tc.c); err != nil {
				t.Fatal(err)
			}
			header, claims, _ := assertionParts(t, signAssertion(t, tc.c, tc.in))
			if fmt.Sprint(header) != fmt.Sprint(tc.want) {
				t.Errorf("header = %v\nwant %v", header, tc.want)
			}
			jwt := signAssertion(t, tc.c, tc.in)
			if err := verifyAssertion(jwt, tc.want["alg"].(string), claims["aud"].(string), clientKeys().rsa.Public()); err != nil {
				t.Errorf("does not verify: %v", err)
			}
		})
	}
}

func TestClientKeyFaults(t *testing.T) {
	k := clientKeys()
	cert := certifyClient(t, k.rsa, assertionTime)
	for _, tc := range []struct {
		name string
		key  signin.ClientKey
		want []string
	}{
		{"nothing", signin.ClientKey{}, []string{"ClientKey.Signer is nil"}},
		{"all at once", signin.ClientKey{SendChain: true}, []string{"ClientKey.Signer is nil", "ClientKey.SendChain without a Certificate"}},
		{"short RSA", signin.ClientKey{Signer: k.weak}, []string{"1024 bits: want 2048"}},
		{"P-224", signin.ClientKey{Signer: k.p224}, []string{"*ecdsa.PublicKey: want RSA, ECDSA on P-256"}},
		{"unknown kind", signin.ClientKey{Signer: &hsm{public: "key"}}, []string{"ClientKey.Signer has a string"}},
		{"algorithm of another key", signin.ClientKey{Signer: k.p256, Algorithm: "RS256"}, []string{`ClientKey.Algorithm "RS256" does not fit the key: want one of ES256`}},
		{"symmetric algorithm", signin.ClientKey{Signer: k.rsa, Algorithm: "HS256"}, []string{`"HS256" does not fit`}},
		{"no algorithm", signin.ClientKey{Signer: k.rsa, Algorithm: "none"}, []string{`"none" does not fit`}},
		{"certificate of another key", signin.ClientKey{Signer: k.otherRSA, Certificate: cert}, []string{"ClientKey.Certificate is for another key"}},
		{"certificate without a key", signin.ClientKey{Certificate: tls.Certificate{Certificate: cert.Certificate}}, []string{"ClientKey.Signer is nil"}},
		{"broken certificate", signin.ClientKey{Signer: k.rsa, Certificate: tls.Certificate{Certificate: [][]byte{{1, 2, 3}}}}, []string{"ClientKey.Certificate: x509"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := signin.PrivateKey(tc.key)
			err := clientauth.Validate(c)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("validateCredential = %v, want %q", err, want)
				}
			}
			form := url.Values{}
			if err := clientauth.Authenticate(t.Context(), c, atOther(), form, http.Header{}); err == nil || form.Has("client_assertion") {
				t.Errorf("authenticate = %v with form %q, want the fault and nothing sent", err, form.Encode())
			}
		})
	}
}

// hsm is a key outside the process: only Public and Sign are to be had.
type hsm struct {
	crypto.Signer
	public crypto.PublicKey
	sign   func(digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (h *hsm) Public() crypto.PublicKey {
	if h.public != nil {
		return h.public
	}
	return h.Signer.Public()
}

func (h *hsm) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h.sign != nil {
		return h.sign(digest, opts)
	}
	return h.Signer.Sign(r, digest, opts)
}

func TestSignerMisbehaves(t *testing.T) {
	type pair struct{ R, S *big.Int }
	n := elliptic.P256().Params().N
	der := func(r, s *big.Int) []byte { return mustMake(asn1.Marshal(pair{r, s})) }
	one := big.NewInt(1)
	for _, tc := range []struct {
		name string
		out  []byte
		err  error
		want string
	}{
		{"fails", nil, errors.New("token removed"), "signing an assertion: token removed"},
		{"nothing", nil, nil, "no ASN.1 signature"},
		{"raw r and s", make([]byte, 64), nil, "no ASN.1 signature"},
		{"trailing bytes", append(der(one, one), 0), nil, "no ASN.1 signature"},
		{"zero", der(big.NewInt(0), one), nil, "out of range"},
		{"negative", der(one, big.NewInt(-1)), nil, "out of range"},
		{"too large", der(n, one), nil, "out of range"},
		{"far too large", der(one, new(big.Int).Lsh(one, 4000)), nil, "out of range"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := signin.PrivateKey(signin.ClientKey{Signer: &hsm{Signer: clientKeys().p256, sign: func([]byte, crypto.SignerOpts) ([]byte, error) { return tc.out, tc.err }}})
			form := url.Values{}
			err := clientauth.Authenticate(t.Context(), c, atOther(), form, http.Header{})
			if err == nil || !strings.Contains(err.Error(), tc.want) || form.Has("client_assertion") {
				t.Fatalf("error %v, form %q; want %q and nothing sent", err, form.Encode(), tc.want)
			}
			wantTemporary(t, err)
		})
	}
	out, err := clientauth.FixedWidth(der(one, new(big.Int).Sub(n, one)), n)
	if err != nil || len(out) != 64 || !slices.Equal(out[:32], append(make([]byte, 31), 1)) {
		t.Errorf("fixedWidth = %x, %v; want both halves 32 bytes wide", out, err)
	}
}

// What an HSM is asked for must be what the algorithm's name says.
func TestSignerOptions(t *testing.T) {
	for _, tc := range []struct {
		key  crypto.Signer
		alg  string
		hash crypto.Hash
		salt int // 0: not PSS
	}{
		{clientKeys().rsa, "RS256", crypto.SHA256, 0}, {clientKeys().rsa, "RS512", crypto.SHA512, 0},
		{clientKeys().rsa, "PS256", crypto.SHA256, rsa.PSSSaltLengthEqualsHash}, {clientKeys().rsa, "PS384", crypto.SHA384, rsa.PSSSaltLengthEqualsHash},
		{clientKeys().p384, "ES384", crypto.SHA384, 0}, {clientKeys().ed, "EdDSA", 0, 0},
	} {
		asked := false
		c := signin.PrivateKey(signin.ClientKey{Algorithm: tc.alg, Signer: &hsm{Signer: tc.key, sign: func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			asked = true
			salt := 0
			if pss, ok := opts.(*rsa.PSSOptions); ok {
				salt = pss.SaltLength
			}
			if opts.HashFunc() != tc.hash || salt != tc.salt || tc.hash != 0 && len(digest) != tc.hash.Size() {
				t.Errorf("%s: asked with %v, salt %d, %d bytes", tc.alg, opts.HashFunc(), salt, len(digest))
			}
			return tc.key.Sign(rand.Reader, digest, opts)
		}}})
		credentialProof(t, c, atOther())
		if !asked {
			t.Errorf("%s: signer was not asked", tc.alg)
		}
	}
}

// A request that has ended costs no signature.
func TestAssertionCancelled(t *testing.T) {
	c := signin.PrivateKey(signin.ClientKey{Signer: &hsm{Signer: clientKeys().ed, sign: func([]byte, crypto.SignerOpts) ([]byte, error) {
		t.Error("signed for a request that has ended")
		return nil, nil
	}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := clientauth.Authenticate(ctx, c, atOther(), url.Values{}, http.Header{}); !errors.Is(err, context.Canceled) {
		t.Errorf("authenticate = %v, want context.Canceled", err)
	}
}

func TestAssertionsConcurrently(t *testing.T) {
	cert := certifyClient(t, clientKeys().p256, assertionTime.Add(time.Hour))
	c := signin.Certificate(cert)
	var wg sync.WaitGroup
	var seen sync.Map
	for range 20 {
		wg.Go(func() {
			for range 10 {
				form := url.Values{}
				if err := clientauth.Authenticate(t.Context(), c, atOther(), form, http.Header{}); err != nil {
					t.Error(err)
					return
				}
				jwt := form.Get("client_assertion")
				if err := verifyAssertion(jwt, "ES256", otherIssuer, clientKeys().p256.Public()); err != nil {
					t.Error(err)
				}
				if _, again := seen.LoadOrStore(jwt, true); again {
					t.Error("the same assertion twice")
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAssertion(b *testing.B) {
	k := clientKeys()
	for _, bc := range []struct {
		alg string
		key crypto.Signer
	}{{"RS256", k.rsa}, {"PS256", k.rsa}, {"ES256", k.p256}, {"ES384", k.p384}, {"EdDSA", k.ed}} {
		b.Run(bc.alg, func(b *testing.B) {
			c := signin.PrivateKey(signin.ClientKey{Signer: bc.key, Algorithm: bc.alg, ID: "k1"})
			form, header := url.Values{}, http.Header{}
			b.ReportAllocs()
			for b.Loop() {
				if err := clientauth.Authenticate(b.Context(), c, atOther(), form, header); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
