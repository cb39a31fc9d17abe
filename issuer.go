package signin

import (
	"bytes"
	"context"
	"encoding/json"
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
	keyInterval      = time.Minute
	keyRetry         = time.Second // after a fetch that failed
)

// issuer is the OpenID Provider as we know it. Nothing is fetched before it
// is needed, and one fetch serves all who wait for it.
type issuer struct {
	url     string
	tenants []string
	client  *http.Client
	now     func() time.Time

	fetches once.Flights[*metadata]

	mu       sync.Mutex
	meta     *metadata // guarded by mu, with what follows
	fetched  time.Time
	failures int
	err      error
	retry    time.Time // no fetch before
}

// metadata is what we use of the discovery document (OpenID Connect
// Discovery, 3; RFC 8414, 2).
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	EndSessionEndpoint    string   `json:"end_session_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	TokenAuthMethods      []string `json:"token_endpoint_auth_methods_supported"`
	TokenAuthAlgs         []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	SigningAlgs           []string `json:"id_token_signing_alg_values_supported"`
	AnnouncesIss          bool     `json:"authorization_response_iss_parameter_supported"`

	rule issuerRule
	keys keySet

	// logoutKeys verify logout tokens, which anybody may post: what they cost
	// in fetches of keys is not taken from the sign-ins.
	logoutKeys keySet
}

func newIssuer(c Config, now func() time.Time) *issuer {
	client := *c.HTTPClient
	client.Transport = boundedTransport{cmpTransport(client.Transport)}
	// A redirect would carry a code, a refresh token or an assertion to where
	// discovery did not send us.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Jar = nil
	return &issuer{url: c.Issuer, tenants: c.Tenants, client: &client, now: now}
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
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.retry = i.now().Add(min(time.Second<<min(i.failures, 10), maxBackoff))
		i.failures++
		i.err = &issuerError{err}
		return nil, err
	}
	if i.meta != nil && i.meta.JWKSURI == meta.JWKSURI {
		meta.keys.source, meta.logoutKeys.source = i.meta.keys.source, i.meta.logoutKeys.source
	}
	i.meta, i.fetched, i.failures, i.err, i.retry = meta, i.now(), 0, nil, time.Time{}
	return meta, nil
}

func (i *issuer) discover(ctx context.Context) (*metadata, error) {
	ctx = oidc.ClientContext(ctx, i.client)
	// go-oidc compares issuers to the letter. Entra's differ from what one
	// configures by the tenant's name; newIssuerRule knows how.
	provider, err := oidc.NewProvider(oidc.InsecureIssuerURLContext(ctx, i.url), i.url)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", bounded(withoutURL(err)))
	}
	meta := &metadata{}
	if err := provider.Claims(meta); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if meta.rule, err = newIssuerRule(i.url, meta.Issuer, i.tenants); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	for _, e := range []struct {
		name, url string
		required  bool
	}{
		{"authorization_endpoint", meta.AuthorizationEndpoint, true},
		{"token_endpoint", meta.TokenEndpoint, true},
		{"jwks_uri", meta.JWKSURI, true},
		{"end_session_endpoint", meta.EndSessionEndpoint, false},
		{"revocation_endpoint", meta.RevocationEndpoint, false},
	} {
		if e.url == "" && !e.required {
			continue
		}
		if err := checkEndpointURL(e.url); err != nil {
			return nil, fmt.Errorf("discovery: %s: %w", e.name, err)
		}
	}
	algs := slices.DeleteFunc(slices.Clone(meta.SigningAlgs), func(alg string) bool {
		return !slices.Contains(asymmetric, alg)
	})
	if len(algs) == 0 {
		if len(meta.SigningAlgs) > 0 {
			return nil, errors.New("discovery: the issuer announces no asymmetric signing algorithm for ID tokens")
		}
		algs = []string{oidc.RS256} // the one every provider must have
	}
	meta.keys = keySet{newKeySource(i.client, meta.JWKSURI, i.now), algs, meta.rule}
	meta.logoutKeys = keySet{newKeySource(i.client, meta.JWKSURI, i.now), algs, meta.rule}
	return meta, nil
}

// bounded shortens an error that quotes what the issuer sent, a page maybe.
func bounded(err error) error {
	if said := err.Error(); len(said) > 300 {
		return errors.New(text.Printable(said, 300))
	}
	return err
}

// asymmetric are the signing algorithms an ID token may have. With a
// symmetric one, whoever knows a public key or the client secret could sign.
var asymmetric = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// keySet verifies what the issuer has signed, by the metadata it is part of.
type keySet struct {
	source *keySource
	algs   []string
	rule   issuerRule
}

// verify checks signature, algorithm and audience of an ID or logout token.
// What it leaves to the caller is in idtoken.go. An *[issuerError] says that
// the keys could not be had, which says nothing about the token.
func (k keySet) verify(ctx context.Context, clientID, raw string) (*oidc.IDToken, error) {
	var lost error
	v := oidc.NewVerifier("", k.source, &oidc.Config{
		ClientID: clientID, SupportedSigningAlgs: k.algs,
		SkipIssuerCheck: true, SkipExpiryCheck: true,
	})
	token, err := v.Verify(context.WithValue(ctx, keysErrorKey{}, &lost), raw)
	if lost != nil {
		return nil, &issuerError{lost}
	}
	if err != nil {
		return nil, err
	}
	var claims map[string]any // to the letter: a struct would take Tid for tid
	if err := token.Claims(&claims); err != nil {
		return nil, err
	}
	tid, _ := claims["tid"].(string)
	if !k.rule.signs(k.source.issuersOf(raw), tid) {
		return nil, errors.New("signed with a key of another tenant's issuer")
	}
	return token, nil
}

// keySource holds the issuer's keys. On a key id it does not know it fetches
// them anew, at most once a minute; the first load does not count, or a
// rotation right after a start would lock people out. Until it may fetch
// again, a token by a key it does not know may be good: the keys cannot be had.
type keySource struct {
	remote *oidc.RemoteKeySet
	next   http.RoundTripper
	now    func() time.Time

	mu       sync.Mutex
	loaded   bool // guarded by mu, with what follows
	failing  bool // the last fetch came to nothing
	notUntil time.Time
	fetches  int                 // begun
	issuers  map[string][]string // by the id of each key there is: those it names
}

var (
	errKeysUnavailable = errors.New("the issuer's keys cannot be fetched")
	errKeysRecent      = errors.New("the issuer's keys were fetched a moment ago")
)

func newKeySource(client *http.Client, url string, now func() time.Time) *keySource {
	k := &keySource{next: client.Transport, now: now}
	gated := *client
	gated.Transport = k
	if gated.Timeout == 0 || gated.Timeout > discoveryTimeout {
		gated.Timeout = discoveryTimeout // go-oidc does not end a fetch with its caller
	}
	k.remote = oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), &gated), url)
	return k
}

// RoundTrip lets a fetch of the keys through, or not yet. An answer that holds
// no keys is no answer: sign-ins wait for a better one, a token is not to blame.
func (k *keySource) RoundTrip(req *http.Request) (*http.Response, error) {
	k.mu.Lock()
	now := k.now()
	if now.Before(k.notUntil) {
		defer k.mu.Unlock()
		if k.failing || !k.loaded {
			return nil, errKeysUnavailable
		}
		return nil, errKeysRecent
	}
	k.notUntil = now.Add(keyInterval)
	k.fetches++
	k.mu.Unlock()

	resp, issuers, err := k.fetch(req)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failing = err != nil
	switch {
	case err != nil:
		k.notUntil = now.Add(keyRetry)
		return nil, errKeysUnavailable
	case !k.loaded:
		k.loaded, k.notUntil = true, time.Time{}
	}
	k.issuers = issuers
	return resp, nil
}

// fetch reads a key set whole, and what go-oidc would drop of it: Entra's keys
// name the issuer they sign for.
func (k *keySource) fetch(req *http.Request) (*http.Response, map[string][]string, error) {
	resp, err := k.next.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || len(body) > maxAnswer {
		return nil, nil, errKeysUnavailable
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil || len(set.Keys) == 0 {
		return nil, nil, errKeysUnavailable
	}
	issuers := make(map[string][]string)
	for _, raw := range set.Keys {
		var key struct {
			ID     string `json:"kid"`
			Issuer string `json:"issuer"`
		}
		if json.Unmarshal(raw, &key) != nil {
			continue
		}
		names := issuers[key.ID]
		if key.Issuer != "" {
			names = append(names, key.Issuer)
		}
		issuers[key.ID] = names
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, issuers, nil
}

// issuersOf returns the issuers that the key of a verified token signs for,
// none if it does not say.
func (k *keySource) issuersOf(raw string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.issuers[headerString(raw, "kid")]
}

// missed reports whether a token could not be verified for want of a fetch:
// none has begun since before, and its key is not among those there are. What
// names no key may be by one of those to come.
func (k *keySource) missed(raw string, before int) bool {
	kid := headerString(raw, "kid")
	k.mu.Lock()
	defer k.mu.Unlock()
	_, known := k.issuers[kid]
	return k.fetches == before && (kid == "" || !known)
}

// VerifySignature implements [oidc.KeySet]. go-oidc turns the error into
// text, so that one of ours is left where verify finds it.
func (k *keySource) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	k.mu.Lock()
	before := k.fetches
	k.mu.Unlock()
	payload, err := k.remote.VerifySignature(ctx, jwt)
	lost, ok := ctx.Value(keysErrorKey{}).(*error)
	switch {
	case err == nil || !ok:
	case errors.Is(err, errKeysUnavailable), k.missed(jwt, before):
		*lost = errKeysUnavailable
	case ctx.Err() != nil:
		*lost = ctx.Err() // nobody waited for the keys
	}
	return payload, err
}

type keysErrorKey struct{}

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
