package signin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	discoveryTimeout = 10 * time.Second
	discoveryAge     = 24 * time.Hour
	maxBackoff       = 30 * time.Second
)

// issuer is the OpenID Provider as we know it. Nothing is fetched before it
// is needed, and one fetch serves all who wait for it.
type issuer struct {
	url        string
	tenants    []string
	algorithms []string // pinned
	client     *http.Client

	// Who we are to it, of Config.
	clientID     string
	credential   Credential
	audiences    []string
	capabilities []string
	skew         time.Duration

	now    func() time.Time
	report func(context.Context, error) // of a failure that nobody waits for

	fetches once.Flights[*metadata]

	mu       sync.Mutex
	meta     *metadata // guarded by mu, with what follows
	fetched  time.Time
	failures int
	err      error
	retry    time.Time // no fetch before
}

func newIssuer(c Config, now func() time.Time, report func(context.Context, error)) *issuer {
	client := *c.HTTPClient
	client.Transport = boundedTransport{cmpTransport(client.Transport)}
	// A redirect would carry a code, a refresh token or an assertion to where
	// discovery did not send us.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Jar = nil
	return &issuer{
		url: c.Issuer, tenants: c.Tenants, algorithms: c.SigningAlgorithms, client: &client,
		clientID: c.ClientID, credential: c.Credential, audiences: c.Audiences, capabilities: c.ClientCapabilities, skew: c.ClockSkew,
		now: now, report: report,
	}
}

func cmpTransport(t http.RoundTripper) http.RoundTripper {
	if t == nil {
		return http.DefaultTransport
	}
	return t
}

// metadata returns the issuer's metadata, fetching it when there is none yet.
// After a failure it fails at once until the backoff is over.
func (i *issuer) metadata(ctx context.Context) (*metadata, error) {
	i.mu.Lock()
	meta, err, now := i.meta, i.err, i.now()
	stale := now.Sub(i.fetched) > discoveryAge
	wait := now.Before(i.retry)
	i.mu.Unlock()

	switch {
	case meta != nil && stale && !wait:
		// What we have still serves; what comes back serves the next.
		i.fetches.Start(ctx, "", discoveryTimeout, i.fetch)
		return meta, nil
	case meta != nil:
		return meta, nil
	case wait:
		return nil, err
	}
	meta, err = i.fetches.Do(ctx, "", discoveryTimeout, i.fetch)
	if err != nil {
		return nil, &issuerError{err}
	}
	return meta, nil
}

func (i *issuer) fetch(ctx context.Context) (*metadata, error) {
	meta, err := i.discover(ctx)
	if old := i.settle(meta, err); old && err != nil {
		i.report(ctx, fmt.Errorf("metadata older than a day serves: %w", err))
	}
	return meta, err
}

// settle takes in what a fetch came to, and reports whether there was metadata
// before it.
func (i *issuer) settle(meta *metadata, err error) (old bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	old = i.meta != nil
	if err != nil {
		i.retry = i.now().Add(min(time.Second<<min(i.failures, 10), maxBackoff))
		i.failures++
		i.err = &issuerError{err}
		return old
	}
	if i.meta != nil && i.meta.JWKSURI == meta.JWKSURI {
		meta.keys.source, meta.logoutKeys.source = i.meta.keys.source, i.meta.logoutKeys.source
	}
	i.meta, i.fetched, i.failures, i.err, i.retry = meta, i.now(), 0, nil, time.Time{}
	return old
}

func (i *issuer) newKeySource(url string) *keySource {
	return &keySource{url: url, client: i.client, now: i.now, report: i.report}
}

// bounded is an error whose text can stand in a line: it may quote what the
// issuer sent, a page maybe.
func bounded(err error) error {
	said := err.Error()
	if line := text.Printable(said, 300); line != said {
		return errors.New(line)
	}
	return err
}

// signingAlgs are the algorithms that tokens may be signed with: those that
// were pinned, else those that the issuer announces.
func signingAlgs(pinned, announced []string) ([]string, error) {
	if len(pinned) > 0 {
		return pinned, nil
	}
	if len(announced) == 0 {
		return []string{oidc.RS256}, nil // the one that every provider must have
	}
	algs := slices.DeleteFunc(slices.Clone(announced), func(alg string) bool {
		return !slices.Contains(asymmetric, alg)
	})
	if len(algs) == 0 {
		return nil, errors.New("the issuer announces no asymmetric signing algorithm for ID tokens")
	}
	return algs, nil
}

// asymmetric are the signing algorithms an ID token may have. With a
// symmetric one, whoever knows a public key or the client secret could sign.
var asymmetric = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// boundedTransport ends an endless answer.
type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer+1), resp.Body}
	return resp, nil
}

// issuerError reports an issuer that cannot be reached or does not make
// sense. It passes by itself, so it is a 503 and not the user's fault.
type issuerError struct{ cause error }

func (e *issuerError) Error() string { return "signin: issuer: " + e.cause.Error() }
func (e *issuerError) Unwrap() error { return e.cause }
