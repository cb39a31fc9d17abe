package signin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/seed454743b5/signin/internal/once"
)

// Credential proves to the issuer who the client is, on every token request
// (RFC 6749, section 2.3; OpenID Connect Core, section 9). Make one with
// [Secret], [SecretPost], [Certificate], [PrivateKey], [Assertion] or
// [Rotating]. A nil Credential is a public client: it sends its client_id and
// nothing else, and PKCE is what protects it.
//
// Credentials are safe for concurrent use, and print, log and marshal as their
// kind only, never as what they hold.
type Credential interface {
	// apply adds the proof to form or header, which hold none.
	apply(ctx context.Context, in clientAuth, form url.Values, header http.Header) error

	// validate returns what is wrong with the credential, without I/O.
	validate() error
}

// Secret is the client secret, sent as the issuer announces in
// token_endpoint_auth_methods_supported: HTTP Basic if that is announced or
// nothing is (RFC 8414, section 2), the request body if only that is. Use
// [SecretPost] where the announcement is wrong. To replace a secret while the
// program runs, return it from [Rotating].
func Secret(secret string) Credential {
	return &clientSecret{redacted: "signin.Secret", value: func() string { return secret }}
}

// SecretPost is [Secret], but always sent in the request body, whatever the
// issuer announces. It is for issuers that announce HTTP Basic and do not
// decode it as RFC 6749, section 2.3.1 asks, which shows with secrets that
// hold reserved characters.
func SecretPost(secret string) Credential {
	return &clientSecret{redacted: "signin.SecretPost", value: func() string { return secret }, post: true}
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
	return &assertionFunc{redacted: "signin.Assertion", f: f}
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
	return &rotating{redacted: "signin.Rotating", load: load}
}

// clientAuth is what a credential needs to know of the request it goes with.
type clientAuth struct {
	ClientID    string
	Issuer      string
	Endpoint    string           // the token endpoint
	Methods     []string         // token_endpoint_auth_methods_supported
	SigningAlgs []string         // token_endpoint_auth_signing_alg_values_supported
	Now         func() time.Time // nil: time.Now
}

func (in clientAuth) now() time.Time {
	if in.Now == nil {
		return time.Now()
	}
	return in.Now()
}

// authenticate adds the client's proof to form or header. It replaces what an
// earlier attempt left there, since a request with two proofs is refused
// (RFC 6749, section 2.3) and a rotated credential may be of another kind.
// Errors are of type *credentialError.
func authenticate(ctx context.Context, c Credential, in clientAuth, form url.Values, header http.Header) error {
	for _, name := range []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"} {
		form.Del(name)
	}
	header.Del("Authorization")
	if c == nil {
		form.Set("client_id", in.ClientID)
		return nil
	}
	if err := c.apply(ctx, in, form, header); err != nil {
		return &credentialError{err}
	}
	return nil
}

// reloadCredential is to be called when the issuer has answered invalid_client.
// It makes the next authenticate load anew, and reports false if there is
// nothing to load, so that a second attempt would be the same as the first.
//
// A refresh or a client-credentials request may then be sent once more: the
// issuer authenticates the client before it looks at the grant, so nothing was
// spent. A redemption is not sent again even so. Some servers burn the code at
// the first sight of it, and to them a second POST is a stolen code, for which
// they revoke what it gave (RFC 6749, section 4.1.2). The user starts anew, and
// finds the new credential in place.
func reloadCredential(c Credential) bool {
	r, ok := c.(interface{ refused() })
	if ok {
		r.refused()
	}
	return ok
}

// validateCredential returns what is wrong with c, without I/O. A nil c is
// right: a public client.
func validateCredential(c Credential) error {
	if c == nil {
		return nil
	}
	return c.validate()
}

// credentialError reports that the proof could not be made: nothing was sent,
// and neither the user nor a refresh token is to blame.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return e.err.Error() }

func (e *credentialError) Unwrap() error { return e.err }

// Temporary reports true: a later attempt may find the source working again.
func (e *credentialError) Temporary() bool { return true }

// redacted keeps what embeds it out of logs, error texts and JSON. Secrets
// themselves sit behind function values, so that even a dump by reflection,
// which calls no methods, shows an address.
type redacted string

func (r redacted) Format(s fmt.State, _ rune)   { io.WriteString(s, string(r)) }
func (r redacted) LogValue() slog.Value         { return slog.StringValue(string(r)) }
func (r redacted) MarshalText() ([]byte, error) { return []byte(r), nil }

type clientSecret struct {
	redacted
	value func() string
	post  bool
}

func (c *clientSecret) apply(_ context.Context, in clientAuth, form url.Values, header http.Header) error {
	if c.post || (slices.Contains(in.Methods, "client_secret_post") && !slices.Contains(in.Methods, "client_secret_basic")) {
		form.Set("client_id", in.ClientID)
		form.Set("client_secret", c.value())
		return nil
	}
	// Both halves are form-urlencoded first, or a colon in the client ID and a
	// plus or percent sign in the secret arrive as something else (RFC 6749,
	// section 2.3.1).
	pair := url.QueryEscape(in.ClientID) + ":" + url.QueryEscape(c.value())
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	return nil
}

func (c *clientSecret) validate() error {
	switch {
	case c.value() == "":
		return fmt.Errorf("%s is empty: want the client secret, or a nil Credential for a public client", c.redacted)
	case strings.ContainsFunc(c.value(), unicode.IsControl):
		return fmt.Errorf("%s holds a control character: want the secret without the line end of its file", c.redacted)
	}
	return nil
}

// maxAssertion bounds an assertion from outside. Real ones stay below 8 KB.
const maxAssertion = 64 << 10

// loadTimeout bounds one call of a function that gets a credential.
const loadTimeout = 10 * time.Second

type assertionFunc struct {
	redacted
	f func(context.Context) (string, error)
}

func (c *assertionFunc) apply(ctx context.Context, in clientAuth, form url.Values, _ http.Header) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	jwt, err := c.f(ctx)
	if err != nil {
		return fmt.Errorf("getting an assertion: %w", err)
	}
	jwt = strings.TrimSpace(jwt)
	// What is not a JWT is an error page, a path or a key: not to be sent.
	if len(jwt) > maxAssertion || strings.Count(jwt, ".") < 2 || strings.ContainsFunc(jwt, notInJWT) {
		return fmt.Errorf("getting an assertion: got %d bytes that are not a JWT", len(jwt))
	}
	setAssertion(form, in.ClientID, jwt)
	return nil
}

func notInJWT(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// setAssertion also sends client_id, which RFC 7521, section 4.2 leaves open
// and Entra requires.
func setAssertion(form url.Values, clientID, jwt string) {
	form.Set("client_id", clientID)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", jwt)
}

func (c *assertionFunc) validate() error {
	if c.f == nil {
		return fmt.Errorf("%s has no function: want one that returns a JWT", c.redacted)
	}
	return nil
}

// refused has nothing to forget: the function is called for every request. It
// is there because the next call may well return something newer.
func (c *assertionFunc) refused() {}

const (
	renewEvery  = time.Hour        // so that a rotation is seen before the old credential is withdrawn
	renewEarly  = 5 * time.Minute  // before a certificate expires
	renewPause  = time.Minute      // between loads that nothing forces
	reloadPause = 30 * time.Second // between loads that a refusal forces
)

type rotating struct {
	redacted
	load  func(context.Context) (Credential, error)
	loads once.Flights[Credential]

	mu       sync.Mutex // guards what follows
	held     Credential // nil before the first load
	renewAt  time.Time  // when held is to be loaded again
	renewing bool       // somebody waits for that already
	doubted  bool       // held has been refused and not loaded since
	forced   time.Time  // of the last load after a refusal
}

func (r *rotating) apply(ctx context.Context, in clientAuth, form url.Values, header http.Header) error {
	c, err := r.current(ctx, in.now)
	if err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	return c.apply(ctx, in, form, header)
}

func (r *rotating) validate() error {
	if r.load == nil {
		return fmt.Errorf("%s has no function: want one that returns a Credential", r.redacted)
	}
	return nil
}

func (r *rotating) refused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubted = true
}

// current returns the held credential, loading it first when that is due. Of
// many callers one waits for a renewal; all wait for what they cannot do without.
func (r *rotating) current(ctx context.Context, now func() time.Time) (Credential, error) {
	r.mu.Lock()
	if r.doubted && now().Sub(r.forced) < reloadPause {
		// Loaded a moment ago: either it is newer than what was refused, or the
		// source has nothing better and asking it each time would not help.
		r.doubted = false
	}
	held, needed := r.held, r.held == nil || r.doubted
	if !needed && (r.renewing || now().Before(r.renewAt)) {
		r.mu.Unlock()
		return held, nil
	}
	r.renewing = r.renewing || !needed
	r.mu.Unlock()

	c, err := r.loads.Do(ctx, "", loadTimeout, func(ctx context.Context) (Credential, error) {
		return r.renew(ctx, now)
	})
	if err != nil && !needed {
		return held, nil // it may well be good; if not, the issuer says so
	}
	return c, err
}

// renew loads unless another load has ended since the caller looked.
func (r *rotating) renew(ctx context.Context, now func() time.Time) (loaded Credential, err error) {
	r.mu.Lock()
	held, due := r.held, r.held == nil || r.doubted || !now().Before(r.renewAt)
	r.mu.Unlock()
	if !due {
		return held, nil
	}
	// Deferred, with an error until there is none: load may panic, and the
	// next call must try again all the same.
	err = once.ErrNoResult
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.renewing = false
		if err != nil {
			r.renewAt = now().Add(renewPause)
			return
		}
		if r.doubted {
			r.doubted, r.forced = false, now()
		}
		r.held, r.renewAt = loaded, renewal(loaded, now())
	}()
	c, err := r.load(ctx)
	if err == nil {
		err = validateLoaded(c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// validateLoaded refuses nil, which would quietly turn a confidential client
// into a public one.
func validateLoaded(c Credential) error {
	switch c.(type) {
	case nil:
		return errors.New("got a nil Credential")
	case *rotating:
		return errors.New("got another Rotating")
	}
	return c.validate()
}

// renewal is when to load c again if nothing happens. A certificate that the
// source keeps past its end is asked for once a minute.
func renewal(c Credential, loaded time.Time) time.Time {
	at := loaded.Add(renewEvery)
	if k, ok := c.(*keyCredential); ok && !k.notAfter.IsZero() {
		at = slices.MinFunc([]time.Time{at, k.notAfter.Add(-renewEarly)}, time.Time.Compare)
	}
	return slices.MaxFunc([]time.Time{at, loaded.Add(renewPause)}, time.Time.Compare)
}
