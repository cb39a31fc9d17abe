package bearer

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	maxDocument = 1 << 20
	maxAnswer   = 256 << 10

	// documentLife is how long the metadata and the keys are used. A key that
	// was withdrawn counts no longer than that.
	documentLife = time.Hour

	// documentRest is how long one fetch of a document keeps the next away: a
	// stranger must not be able to make us ask.
	documentRest = time.Minute

	// asking bounds the questions under way, for the same reason.
	asking = 16
)

// Options say whose tokens are verified, and how the issuer is asked about
// those that are not JWTs.
type Options struct {
	Issuer       string
	ClientID     string
	Secret       func() (string, error) // nil: the client has none
	Key          crypto.Signer          // nil: the client has none
	Client       *http.Client
	Now          func() time.Time
	discoveryURL string // for tests
}

// algorithms are those of RFC 9068, 2.1: signed, by a key that we do not have.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

type issuer struct {
	Options
	slots chan struct{}

	mu      sync.Mutex // guards what follows, and is held while it is fetched first
	meta    *metadata
	keys    *oidc.RemoteKeySet
	fetched time.Time
	tried   time.Time
}

type metadata struct {
	Issuer        string   `json:"issuer"`
	JWKS          string   `json:"jwks_uri"`
	Introspection string   `json:"introspection_endpoint"`
	Methods       []string `json:"introspection_endpoint_auth_methods_supported"`
}

func newIssuer(o Options) *issuer {
	return &issuer{Options: o, slots: make(chan struct{}, asking)}
}

// documents returns the metadata and the key set. Old ones serve while new
// ones are fetched.
func (i *issuer) documents(ctx context.Context) (*metadata, *oidc.RemoteKeySet, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.Now()
	switch {
	case i.meta != nil:
		if now.Sub(i.fetched) >= documentLife && now.Sub(i.tried) >= documentRest {
			i.tried = now
			go func() {
				if meta, err := i.discover(context.WithoutCancel(ctx)); err == nil {
					i.mu.Lock()
					defer i.mu.Unlock()
					i.take(meta, now)
				}
			}()
		}
		return i.meta, i.keys, nil
	case now.Sub(i.tried) < 2*time.Second:
		return nil, nil, errUnavailable
	}
	i.tried = now
	meta, err := i.discover(context.WithoutCancel(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	i.take(meta, now)
	return i.meta, i.keys, nil
}

// take begins to use a discovery document, and fetches its keys anew when the
// first token comes. i.mu is held.
func (i *issuer) take(meta *metadata, now time.Time) {
	client := *i.Client
	client.Transport = &resting{next: client.Transport, now: i.Now}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	// The context is the key set's, not a request's.
	i.meta, i.keys, i.fetched = meta, oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), &client), meta.JWKS), now
}

func (i *issuer) discover(ctx context.Context) (*metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	at := i.discoveryURL
	if at == "" {
		at = strings.TrimSuffix(i.Issuer, "/") + "/.well-known/openid-configuration"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	raw, err := i.do(req, maxDocument)
	if err != nil {
		return nil, err
	}
	var meta metadata
	if err := json.Unmarshal(raw, &meta); err != nil {
		return nil, errors.New("the discovery document is not JSON of the right form")
	}
	if meta.Issuer != i.Issuer {
		return nil, errors.New("the discovery document is another issuer's")
	}
	if !safe(meta.JWKS) || meta.Introspection != "" && !safe(meta.Introspection) {
		return nil, errors.New("the discovery document names an endpoint that is not https")
	}
	return &meta, nil
}

// safe admits https, and http on loopback.
func safe(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return false
	}
	host := u.Hostname()
	return u.Scheme == "https" || u.Scheme == "http" && (host == "localhost" || host == "::1" || strings.HasPrefix(host, "127."))
}

func (i *issuer) do(req *http.Request, limit int64) ([]byte, error) {
	client := *i.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	case int64(len(raw)) > limit:
		return nil, errors.New("the answer is too large")
	}
	return raw, nil
}

// verifyJWT returns the claims of a JWT access token. Its type keeps ID tokens
// out, which have the same keys and issuer (RFC 9068, 5).
func (i *issuer) verifyJWT(ctx context.Context, token string) ([]byte, error) {
	if strings.Count(token, ".") != 2 {
		return nil, invalid("the token is not a JWT")
	}
	parsed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil || len(parsed.Signatures) != 1 {
		return nil, invalid("the token is not a JWT with a signature of a known algorithm")
	}
	typ, _ := parsed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string)
	if typ = strings.ToLower(typ); typ != "at+jwt" && typ != "application/at+jwt" {
		return nil, invalid("the JWT is not an access token by its type (RFC 9068, 2.1)")
	}
	_, keys, err := i.documents(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := keys.VerifySignature(ctx, token)
	if err == nil {
		return raw, nil
	}
	if strings.Contains(err.Error(), "fetching keys") {
		return nil, fmt.Errorf("%w: its keys", errUnavailable)
	}
	return nil, invalid("the signature does not verify")
}

// resting answers from memory while the last fetch is recent, so that tokens
// with made-up keys do not lead to the issuer.
type resting struct {
	next http.RoundTripper
	now  func() time.Time

	mu   sync.Mutex
	last time.Time
	body []byte
	err  error
}

func (t *resting) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rest := documentRest; t.last.IsZero() || t.now().Sub(t.last) >= rest || t.err != nil && t.now().Sub(t.last) >= 2*time.Second {
		t.body, t.err = t.fetch(r)
		t.last = t.now()
	}
	if t.err != nil {
		return nil, t.err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(t.body))), Request: r,
	}, nil
}

func (t *resting) fetch(r *http.Request) ([]byte, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK || len(raw) > maxDocument:
		return nil, fmt.Errorf("status %d, %d bytes", resp.StatusCode, len(raw))
	}
	return raw, nil
}
