package bench

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The payload of a session: what has to be kept for one user.
const (
	accessLen  = 1500
	refreshLen = 1024
	idTokenLen = 1455
	groups     = 17 // group ids in an ID token, which make it about as long
)

// issuer is an OpenID Provider without sockets: it is the transport of its
// clients. What it signs is signed before anybody's time is taken.
type issuer struct {
	url    string
	key    crypto.Signer
	signer jose.Signer
	keys   []byte // JSON Web Key Set

	// lifetime is that of access tokens, latency how long the token endpoint
	// takes. With singleUse a refresh token serves once.
	lifetime  time.Duration
	latency   time.Duration
	singleUse bool

	tokenRequests atomic.Int64
	refused       atomic.Int64

	mu    sync.Mutex        // guards what follows
	codes map[string][]byte // the answers that codes will be redeemed for
	spent map[string]bool   // refresh tokens
}

const issuerURL = "https://login.example.com"

func newIssuer(tb testing.TB, url string, alg jose.SignatureAlgorithm) *issuer {
	tb.Helper()
	i := &issuer{url: url, lifetime: time.Hour, codes: map[string][]byte{}, spent: map[string]bool{}}
	var err error
	if alg == jose.RS256 {
		i.key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	private := jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: i.key, KeyID: "1"}}
	if i.signer, err = jose.NewSigner(private, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
		tb.Fatal(err)
	}
	i.keys, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: i.key.Public(), KeyID: "1", Algorithm: string(alg), Use: "sig"},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func (i *issuer) client() *http.Client { return &http.Client{Transport: i} }

// RoundTrip implements http.RoundTripper.
func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		return respond(r, http.StatusOK, mustJSON(map[string]any{
			"issuer":                                i.url,
			"authorization_endpoint":                i.url + "/authorize",
			"token_endpoint":                        i.url + "/token",
			"jwks_uri":                              i.url + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
		})), nil
	case strings.HasSuffix(r.URL.Path, "/keys"):
		return respond(r, http.StatusOK, i.keys), nil
	case strings.HasSuffix(r.URL.Path, "/token"):
		return i.token(r)
	}
	return respond(r, http.StatusNotFound, []byte("{}")), nil
}

func (i *issuer) token(r *http.Request) (*http.Response, error) {
	i.tokenRequests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	if i.latency > 0 {
		timer := time.NewTimer(i.latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	var answer []byte
	if code := form.Get("code"); code != "" {
		i.mu.Lock()
		answer = i.codes[code]
		delete(i.codes, code)
		i.mu.Unlock()
	} else {
		answer = i.refresh(form.Get("refresh_token"))
	}
	if answer == nil {
		i.refused.Add(1)
		return respond(r, http.StatusBadRequest, []byte(`{"error":"invalid_grant"}`)), nil
	}
	return respond(r, http.StatusOK, answer), nil
}

func (i *issuer) refresh(token string) []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.spent[token] {
		return nil
	}
	i.spent[token] = i.singleUse
	subject, _, _ := strings.Cut(token, ".")
	// An hour, whatever the first token lived.
	return mustJSON(i.answer(subject, "", time.Hour))
}

// answer is one of the token endpoint, without ID token.
func (i *issuer) answer(subject, scope string, lifetime time.Duration) map[string]any {
	refresh := subject + "."
	answer := map[string]any{
		"access_token":  text(accessLen),
		"refresh_token": refresh + text(refreshLen-len(refresh)),
		"token_type":    "Bearer",
		"expires_in":    int(lifetime.Seconds()),
		"client_info":   base64.RawURLEncoding.EncodeToString(mustJSON(map[string]string{"uid": subject, "utid": "tenant"})),
	}
	if scope != "" {
		answer["scope"] = scope
	}
	return answer
}

// authorize does what the user does at the issuer: it turns an authorization
// request into the parameters of the callback.
func (i *issuer) authorize(tb testing.TB, location, subject string) url.Values {
	tb.Helper()
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, i.url+"/authorize?") {
		tb.Fatalf("not an authorization request: %q, %v", location, err)
	}
	q := u.Query()
	code := text(43)
	answer := i.answer(subject, q.Get("scope"), i.lifetime)
	answer["id_token"] = i.idToken(tb, subject, q.Get("client_id"), q.Get("nonce"), map[string]any{
		"at_hash": halfHash(answer["access_token"].(string)),
	})
	i.mu.Lock()
	i.codes[code] = mustJSON(answer)
	i.mu.Unlock()
	params := url.Values{"code": {code}, "state": {q.Get("state")}}
	if strings.Contains(q.Get("response_type"), "id_token") {
		params.Set("id_token", i.idToken(tb, subject, q.Get("client_id"), q.Get("nonce"), map[string]any{"c_hash": halfHash(code)}))
	}
	return params
}

func (i *issuer) idToken(tb testing.TB, subject, clientID, nonce string, more map[string]any) string {
	tb.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": i.url, "sub": subject, "aud": clientID, "iat": now, "exp": now + 3600, "nonce": nonce,
		"sid": "s-" + subject, "name": "User " + subject, "preferred_username": subject + "@example.com",
	}
	for name, value := range more {
		claims[name] = value
	}
	var ids []string
	for range groups {
		id := make([]byte, 16)
		rand.Read(id)
		h := hex.EncodeToString(id)
		ids = append(ids, fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:]))
	}
	claims["groups"] = ids
	signed, err := i.signer.Sign(mustJSON(claims))
	if err != nil {
		tb.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// halfHash is c_hash and at_hash (OpenID Connect Core, 3.3.2.11).
func halfHash(value string) string {
	sum := sha256.Sum256([]byte(value))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// text returns n characters that look like a token: they do not compress but
// for what base64 adds.
func text(n int) string {
	b := make([]byte, (n+3)/4*3)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}

func respond(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps, strings and numbers only
	}
	return b
}
