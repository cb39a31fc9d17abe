package signin

import (
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"log/slog"

	"github.com/seed454743b5/signin/internal/clientauth"
)

// Credential proves to the issuer who the client is, on every token request
// (RFC 6749, section 2.3; OpenID Connect Core, section 9). Make one with
// [Secret], [SecretPost], [Certificate], [PrivateKey], [Assertion] or
// [Rotating]. A nil Credential is a public client: it sends its client_id and
// nothing else, and PKCE is what protects it.
//
// Credentials are safe for concurrent use, and print, log and marshal as their
// kind only, never as what they hold.
type Credential interface{ clientauth.Method }

// Secret is the client secret, sent as the issuer announces in
// token_endpoint_auth_methods_supported: HTTP Basic if that is announced or
// nothing is (RFC 8414, section 2), the request body if only that is. Use
// [SecretPost] where the announcement is wrong. To replace a secret while the
// program runs, return it from [Rotating].
func Secret(secret string) Credential {
	return clientauth.NewSecret(secret, false)
}

// SecretPost is [Secret], but always sent in the request body, whatever the
// issuer announces. It is for issuers that announce HTTP Basic and do not
// decode it as RFC 6749, section 2.3.1 asks, which shows with secrets that
// hold reserved characters.
func SecretPost(secret string) Credential {
	return clientauth.NewSecret(secret, true)
}

// Assertion is a signed JWT (RFC 7523, section 2.2) from elsewhere: a federated
// credential, a managed identity, a vault that signs without handing out its
// key. The function is called for every token request and must be safe for
// concurrent use; it caches what is expensive. White space around the result
// is dropped, so it may return a file as it was read. An error from it fails
// the token request and counts as temporary: nobody is signed out.
//
// If the function signs for itself, iss and sub are the client ID, aud is one
// string (the token endpoint for Entra, in general the issuer), jti is fresh,
// and the life is some minutes.
func Assertion(f func(ctx context.Context) (string, error)) Credential {
	return clientauth.NewAssertion(f)
}

// Rotating is a credential that is replaced while the program runs: load reads
// it from a file or a vault.
//
//	signin.Rotating(func(ctx context.Context) (signin.Credential, error) {
//		cert, err := tls.LoadX509KeyPair("client.crt", "client.key")
//		return signin.Certificate(cert), err
//	})
//
// load runs at the first token request, again an hour later or when the
// certificate is about to expire, and at once when the issuer has refused the
// client (at most twice a minute). Calls do not overlap. load must honour its
// context, which is not the request's and ends after ten seconds. If it fails,
// a credential that has not been refused stays in use, and load is tried again
// after a minute; without one the token request fails and counts as temporary.
// load must not return nil or another Rotating.
func Rotating(load func(ctx context.Context) (Credential, error)) Credential {
	if load == nil {
		return clientauth.NewRotating(nil)
	}
	return clientauth.NewRotating(func(ctx context.Context) (clientauth.Method, error) { return load(ctx) })
}

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
func (k ClientKey) Format(s fmt.State, verb rune) {
	clientauth.Redacted("signin.ClientKey").Format(s, verb)
}

// LogValue is the type's name only.
func (k ClientKey) LogValue() slog.Value { return clientauth.Redacted("signin.ClientKey").LogValue() }

// MarshalText is the type's name only.
func (k ClientKey) MarshalText() ([]byte, error) {
	return clientauth.Redacted("signin.ClientKey").MarshalText()
}

// Certificate is a client certificate and its key, as tls.LoadX509KeyPair and
// tls.X509KeyPair return it: short for [PrivateKey] of a [ClientKey] with only
// a Certificate. To replace it while the program runs, return it from
// [Rotating].
func Certificate(cert tls.Certificate) Credential {
	return clientauth.NewKey("signin.Certificate", clientauth.Key{Certificate: cert})
}

// PrivateKey signs a fresh assertion for every token request: iss and sub are
// the client ID, jti is 128 random bits, and it lives for five minutes. What is
// wrong with k is reported by [New].
func PrivateKey(k ClientKey) Credential {
	return clientauth.NewKey("signin.PrivateKey", clientauth.Key(k))
}
