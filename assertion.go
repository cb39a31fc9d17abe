package signin

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
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/seal"
)

// ClientKey is the private key of a client that authenticates by
// private_key_jwt (OpenID Connect Core, section 9; RFC 7523), and what its
// assertions say. Give it to [PrivateKey].
type ClientKey struct {
	// Signer signs: a key in memory, or one in an HSM or a vault. RSA of at
	// least 2048 bits, ECDSA on P-256, P-384 or P-521, or Ed25519. It must be
	// safe for concurrent use. Nil: Certificate.PrivateKey.
	Signer crypto.Signer

	// ID is the key's kid at the issuer. Empty: no kid is sent, which is right
	// with a certificate and at an issuer that knows one key of this client.
	ID string

	// Certificate is the certificate registered at the issuer, leaf first, and
	// names the key in the assertion by thumbprint: x5t#S256, or x5t where
	// Microsoft expects that (RFC 7515, section 4.1). The zero value: none.
	// Its dates are not checked here; the issuer judges them.
	Certificate tls.Certificate

	// SendChain adds the certificate and its chain as x5c, for issuers that
	// trust a subject name and an authority in place of one certificate.
	SendChain bool

	// Algorithm is the JWS algorithm. Empty: PS256 at Entra with an RSA key;
	// elsewhere the first that fits the key and that the issuer announces, RS256
	// before PS256; RS256 or the curve's own if it announces none. Set it when
	// the client is registered for one, or when an HSM cannot do PSS.
	Algorithm string

	// Audience is the sole aud of the assertions. Empty: the issuer, or for
	// Entra and AD FS the token endpoint, as Microsoft documents. Set it to
	// its URL for another issuer that insists on that.
	Audience string
}

// Format prints the type's name only.
func (k ClientKey) Format(s fmt.State, verb rune) { redacted("signin.ClientKey").Format(s, verb) }

// LogValue is the type's name only.
func (k ClientKey) LogValue() slog.Value { return redacted("signin.ClientKey").LogValue() }

// MarshalText is the type's name only.
func (k ClientKey) MarshalText() ([]byte, error) { return redacted("signin.ClientKey").MarshalText() }

// Certificate is a client certificate and its key, as tls.LoadX509KeyPair and
// tls.X509KeyPair return it: short for [PrivateKey] of a [ClientKey] with only
// a Certificate. To replace it while the program runs, return it from
// [Rotating].
func Certificate(cert tls.Certificate) Credential {
	c := newKeyCredential(ClientKey{Certificate: cert})
	c.redacted = "signin.Certificate"
	return c
}

// PrivateKey signs a fresh assertion for every token request: iss and sub are
// the client ID, jti is 128 random bits, and it lives for five minutes. What is
// wrong with k is reported by [New].
func PrivateKey(k ClientKey) Credential { return newKeyCredential(k) }

// keyCredential holds what all assertions of one key share. The signer sits
// behind a function value for the reason given at redacted.
type keyCredential struct {
	redacted
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

func newKeyCredential(k ClientKey) *keyCredential {
	c := &keyCredential{redacted: "signin.PrivateKey", id: k.ID, algorithm: k.Algorithm, audience: k.Audience}
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
func (k ClientKey) resolve() (crypto.Signer, *x509.Certificate, error) {
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

func (c *keyCredential) validate() error { return c.fault }

func (c *keyCredential) apply(ctx context.Context, in clientAuth, form url.Values, _ http.Header) error {
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

func (c *keyCredential) assertion(in clientAuth) (string, error) {
	at := microsoftAt(in.Issuer, in.Endpoint)
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
func (c *keyCredential) audienceFor(at microsoft, in clientAuth) string {
	switch {
	case c.audience != "":
		return c.audience
	case at != "":
		return in.Endpoint
	}
	return in.Issuer
}

func (c *keyCredential) choose(at microsoft, announced []string) (string, error) {
	fit := algorithmsFor(c.public)
	switch {
	case c.algorithm != "":
		return c.algorithm, nil
	case at == entra && slices.Contains(fit, "PS256"):
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

// microsoft tells apart the two servers that do not follow the common rules.
type microsoft string

const (
	entra microsoft = "Entra"
	adfs  microsoft = "AD FS"
)

// microsoftAt tells by both names, so that no other issuer can have assertions
// made for Microsoft's endpoints by announcing them as its own.
func microsoftAt(issuer, endpoint string) microsoft {
	i, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	e, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	switch {
	case isEntra(i) && isEntra(e):
		return entra
	case i.Host == e.Host && isADFS(i) && isADFS(e):
		return adfs
	}
	return ""
}

func isEntra(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	_, known := entraHosts[host]
	return known || strings.HasSuffix(host, ".ciamlogin.com")
}

func isADFS(u *url.URL) bool { return u.Path == "/adfs" || strings.HasPrefix(u.Path, "/adfs/") }
