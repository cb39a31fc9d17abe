package clientauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // a name for a certificate, not a protection
	"crypto/sha256"
	_ "crypto/sha512" // for crypto.Hash.New
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/seal"
)

// Key is signin.ClientKey, whose documentation holds.
type Key struct {
	Signer      crypto.Signer
	ID          string
	Certificate tls.Certificate
	SendChain   bool
	Algorithm   string
	Audience    string
}

// keyCredential holds what all assertions of one key share. The signer sits
// behind a function value for the reason given at Redacted.
type keyCredential struct {
	Redacted
	signer    func() crypto.Signer
	public    crypto.PublicKey
	id        string
	algorithm string
	audience  string
	x5t       string
	x5tS256   string
	x5c       []string
	notAfter  time.Time // of the certificate; zero without one
	fault     error     // what validate returns
}

// NewKey signs a fresh assertion for every request. Kind is what it prints as.
func NewKey(kind Redacted, k Key) Method {
	c := &keyCredential{Redacted: kind, id: k.ID, algorithm: k.Algorithm, audience: k.Audience}
	signer, leaf, err := k.resolve()
	if err != nil {
		c.fault = err
		return c
	}
	c.signer = func() crypto.Signer { return signer }
	c.public = signer.Public()
	if leaf != nil {
		old, thumb := sha1.Sum(leaf.Raw), sha256.Sum256(leaf.Raw)
		c.x5t, c.x5tS256 = seal.Encode(old[:]), seal.Encode(thumb[:])
		c.notAfter = leaf.NotAfter
	}
	if k.SendChain {
		for _, der := range k.Certificate.Certificate {
			c.x5c = append(c.x5c, base64.StdEncoding.EncodeToString(der)) // not base64url: RFC 7515, section 4.1.6
		}
	}
	return c
}

// resolve returns the key and the leaf certificate, or all that is wrong.
func (k Key) resolve() (crypto.Signer, *x509.Certificate, error) {
	var errs []error
	signer := k.Signer
	if signer == nil {
		signer, _ = k.Certificate.PrivateKey.(crypto.Signer)
	}
	var public crypto.PublicKey
	if signer == nil {
		errs = append(errs, errors.New("ClientKey.Signer is nil: want a key, or a Certificate with a PrivateKey that is a crypto.Signer"))
	} else {
		public = signer.Public()
		errs = append(errs, checkKey(public, k.Algorithm))
	}
	var leaf *x509.Certificate
	if len(k.Certificate.Certificate) > 0 {
		var err error
		leaf, err = x509.ParseCertificate(k.Certificate.Certificate[0])
		if err != nil {
			errs = append(errs, fmt.Errorf("ClientKey.Certificate: %w", err))
		} else if pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); public != nil && (!ok || !pub.Equal(public)) {
			errs = append(errs, errors.New("ClientKey.Certificate is for another key: want the one that belongs to the private key"))
		}
	} else if k.SendChain {
		errs = append(errs, errors.New("ClientKey.SendChain without a Certificate: want the chain, leaf first"))
	}
	return signer, leaf, errors.Join(errs...)
}

func checkKey(public crypto.PublicKey, algorithm string) error {
	fit := algorithmsFor(public)
	if len(fit) == 0 {
		return fmt.Errorf("ClientKey.Signer has a %T: want RSA, ECDSA on P-256, P-384 or P-521, or Ed25519", public)
	}
	if k, ok := public.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		return fmt.Errorf("ClientKey.Signer has %d bits: want 2048 or more (RFC 7518, section 3.3)", k.N.BitLen())
	}
	if algorithm != "" && !slices.Contains(fit, algorithm) {
		return fmt.Errorf("ClientKey.Algorithm %q does not fit the key: want one of %s", algorithm, strings.Join(fit, ", "))
	}
	return nil
}

// algorithmsFor lists what a key can sign with, best liked first: RS256 leads
// for RSA because it is what clients are registered with (RFC 7518, section
// 3.1; OpenID Connect Discovery, section 3). Nil for keys that do not serve.
func algorithmsFor(public crypto.PublicKey) []string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return []string{"RS256", "PS256", "RS384", "PS384", "RS512", "PS512"}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA", "Ed25519"} // the second name is RFC 9864's
	}
	return nil
}

func (c *keyCredential) Validate() error { return c.fault }

func (c *keyCredential) Apply(ctx context.Context, in Request, form url.Values, _ http.Header) error {
	if c.fault != nil {
		return c.fault
	}
	if err := ctx.Err(); err != nil {
		return err // a signature may cost a round trip to an HSM
	}
	jwt, err := c.assertion(in)
	if err != nil {
		return fmt.Errorf("signing an assertion: %w", err)
	}
	setAssertion(form, in.ClientID, jwt)
	return nil
}

const (
	assertionLife = 5 * time.Minute

	// assertionAge is how old an assertion is when made, since servers whose
	// clock is a little behind ours may refuse one from the future.
	assertionAge = 10 * time.Second
)

type assertionHeader struct {
	Algorithm string   `json:"alg"`
	Type      string   `json:"typ"`
	KeyID     string   `json:"kid,omitempty"`
	X5T       string   `json:"x5t,omitempty"`
	X5TS256   string   `json:"x5t#S256,omitempty"`
	X5C       []string `json:"x5c,omitempty"`
}

type assertionClaims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"` // a string: servers refuse several, and some an array of one
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

func (c *keyCredential) assertion(in Request) (string, error) {
	at := family.MicrosoftAt(in.Issuer, in.Endpoint)
	alg, err := c.choose(at, in.SigningAlgs)
	if err != nil {
		return "", err
	}
	header := assertionHeader{Algorithm: alg, Type: "JWT", KeyID: c.id, X5TS256: c.x5tS256, X5C: c.x5c}
	if at != "" && strings.HasPrefix(alg, "RS") {
		// Microsoft pairs RS256 with the SHA-1 thumbprint, and AD FS knows no other.
		header.X5T, header.X5TS256 = c.x5t, ""
	}
	issued := in.now().Add(-assertionAge)
	claims := assertionClaims{
		Issuer: in.ClientID, Subject: in.ClientID, Audience: c.audienceFor(at, in), ID: seal.Encode(seal.Random(16)),
		IssuedAt: issued.Unix(), NotBefore: issued.Unix(), Expires: issued.Add(assertionLife).Unix(),
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	p, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := seal.Encode(h) + "." + seal.Encode(p)
	signature, err := c.sign(alg, []byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + seal.Encode(signature), nil
}

// audienceFor names the issuer and nothing else. With the token endpoint in aud
// a malicious issuer that announces an honest one's endpoint could collect
// assertions good there (draft-ietf-oauth-rfc7523bis; the same change is in the
// drafts of OpenID Connect Core after errata set 2). Microsoft documents its
// token endpoint, so there the issuer must be Microsoft's too.
func (c *keyCredential) audienceFor(at family.Microsoft, in Request) string {
	switch {
	case c.audience != "":
		return c.audience
	case at != "":
		return in.Endpoint
	}
	return in.Issuer
}

func (c *keyCredential) choose(at family.Microsoft, announced []string) (string, error) {
	fit := algorithmsFor(c.public)
	switch {
	case c.algorithm != "":
		return c.algorithm, nil
	case at == family.Entra && slices.Contains(fit, "PS256"):
		return "PS256", nil // documented, not announced
	case len(announced) == 0:
		return fit[0], nil
	}
	for _, alg := range fit {
		if slices.Contains(announced, alg) {
			return alg, nil
		}
	}
	return "", fmt.Errorf("the key can sign with %s, the issuer announces none of them; set ClientKey.Algorithm if it takes one all the same", strings.Join(fit, ", "))
}

// sign makes a JWS signature (RFC 7518, section 3; RFC 8037).
func (c *keyCredential) sign(alg string, input []byte) ([]byte, error) {
	signer := c.signer()
	if _, ok := c.public.(ed25519.PublicKey); ok {
		return signer.Sign(rand.Reader, input, crypto.Hash(0))
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	h := hash.New()
	h.Write(input)
	var opts crypto.SignerOpts = hash
	if strings.HasPrefix(alg, "PS") {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	signature, err := signer.Sign(rand.Reader, h.Sum(nil), opts)
	if err != nil {
		return nil, err
	}
	if k, ok := c.public.(*ecdsa.PublicKey); ok {
		return fixedWidth(signature, k.Curve.Params().N)
	}
	return signature, nil
}

// fixedWidth turns an ASN.1 signature into r || s, each as wide as the order n
// (RFC 7518, section 3.4). A signer outside this process is not trusted to
// return well-formed numbers.
func fixedWidth(der []byte, n *big.Int) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) > 0 {
		return nil, errors.New("the signer returned no ASN.1 signature")
	}
	for _, v := range []*big.Int{sig.R, sig.S} {
		if v.Sign() <= 0 || v.Cmp(n) >= 0 {
			return nil, errors.New("the signer returned a signature out of range")
		}
	}
	width := (n.BitLen() + 7) / 8
	out := make([]byte, 2*width)
	sig.R.FillBytes(out[:width])
	sig.S.FillBytes(out[width:])
	return out, nil
}
