package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/seed454743b5/signin/example/internal/op"
)

// ByProvider asks the embedded provider.
func ByProvider(p *op.Provider) Verifier {
	return func(ctx context.Context, raw string) (*Token, error) {
		info, err := p.Introspect(ctx, raw)
		if err != nil {
			return nil, err
		}
		if !info.IsActive || info.Issuer != p.Issuer() {
			return nil, ErrInvalidToken
		}
		t := &Token{
			Subject:  info.Subject,
			Scopes:   strings.Fields(info.Scopes),
			Audience: info.ResourceAudiences,
			Expires:  time.Unix(int64(info.ExpiresAt), 0),
		}
		t.Name, _ = info.AdditionalClaims["name"].(string)
		t.Username, _ = info.AdditionalClaims["preferred_username"].(string)
		t.Email, _ = info.AdditionalClaims["email"].(string)
		contexts, _ := info.AdditionalClaims["acrs"].([]any)
		for _, c := range contexts {
			if s, ok := c.(string); ok {
				t.Contexts = append(t.Contexts, s)
			}
		}
		return t, nil
	}
}

// ByIssuer checks tokens of any issuer: a JWT by the issuer's keys, any other
// by asking the issuer's userinfo endpoint, which tells nothing of scopes. The
// issuer is discovered when the first token arrives.
func ByIssuer(issuer string, client *http.Client) Verifier {
	v := &issuerVerifier{issuer: issuer, client: client}
	return v.verify
}

type issuerVerifier struct {
	issuer string
	client *http.Client

	mu       sync.Mutex
	provider *oidc.Provider // nil until discovered
}

func (v *issuerVerifier) discover(ctx context.Context) (*oidc.Provider, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.provider == nil {
		p, err := oidc.NewProvider(ctx, v.issuer)
		if err != nil {
			return nil, fmt.Errorf("api: discovering the issuer: %w", err)
		}
		v.provider = p
	}
	return v.provider, nil
}

func (v *issuerVerifier) verify(ctx context.Context, raw string) (*Token, error) {
	ctx = oidc.ClientContext(ctx, v.client)
	provider, err := v.discover(ctx)
	if err != nil {
		return nil, err
	}
	if strings.Count(raw, ".") == 2 {
		if t, err := fromJWT(ctx, provider, raw); err == nil {
			return t, nil
		}
	}
	return v.fromUserInfo(ctx, provider, raw)
}

// fromJWT reads an access token in the form of RFC 9068, whose scopes Entra ID
// calls scp.
func fromJWT(ctx context.Context, provider *oidc.Provider, raw string) (*Token, error) {
	jwt, err := provider.VerifierContext(ctx, &oidc.Config{SkipClientIDCheck: true}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	var c struct {
		Scope    scopeList `json:"scope"`
		Scp      scopeList `json:"scp"`
		Nonce    *string   `json:"nonce"`
		Name     string    `json:"name"`
		Username string    `json:"preferred_username"`
		Email    string    `json:"email"`
		ACRs     []string  `json:"acrs"`
	}
	if err := jwt.Claims(&c); err != nil {
		return nil, err
	}
	// An ID token has the same signer. It has a nonce and no scope.
	if c.Nonce != nil || len(c.Scope)+len(c.Scp) == 0 {
		return nil, errors.New("api: not an access token")
	}
	return &Token{
		Subject: jwt.Subject, Name: c.Name, Username: c.Username, Email: c.Email,
		Scopes: append(c.Scope, c.Scp...), Contexts: c.ACRs, Expires: jwt.Expiry,
	}, nil
}

// scopeList reads scopes in either form that issuers write them in.
type scopeList []string

func (l *scopeList) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*l = strings.Fields(s)
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// fromUserInfo believes the issuer about a token that only the issuer can read
// (OpenID Connect Core, section 5.3). An issuer that fails is an error of its
// own: it must not make a good token look bad.
func (v *issuerVerifier) fromUserInfo(ctx context.Context, provider *oidc.Provider, raw string) (*Token, error) {
	endpoint := provider.UserInfoEndpoint()
	if endpoint == "" {
		return nil, ErrInvalidToken
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return nil, fmt.Errorf("api: asking userinfo: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	resp, err := v.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("api: asking userinfo: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return nil, fmt.Errorf("api: asking userinfo: status %d", resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return nil, ErrInvalidToken
	}
	var c struct {
		Subject  string `json:"sub"`
		Name     string `json:"name"`
		Username string `json:"preferred_username"`
		Email    string `json:"email"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&c); err != nil || c.Subject == "" {
		return nil, errors.New("api: asking userinfo: not a userinfo document")
	}
	return &Token{Subject: c.Subject, Name: c.Name, Username: c.Username, Email: c.Email}, nil
}
