package bearer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// introspect asks the issuer about a token (RFC 7662) and returns its claims.
func (i *issuer) introspect(ctx context.Context, token string) ([]byte, error) {
	meta, _, err := i.documents(ctx)
	switch {
	case err != nil:
		return nil, err
	case meta.Introspection == "":
		return nil, invalid("the issuer announces no introspection endpoint")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return nil, errUnavailable
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
	if err := i.authenticate(meta, form, header); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, meta.Introspection, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	req.Header = header
	raw, err := i.do(req, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("%w: introspection: %w", errUnavailable, err)
	}
	var answer map[string]any
	if json.Unmarshal(raw, &answer) != nil {
		return nil, fmt.Errorf("%w: introspection: not a JSON object", errUnavailable)
	}
	if answer["active"] != true {
		return nil, invalid("the issuer says that the token is not active")
	}
	if kind, ok := answer["token_type"].(string); ok && !slices.Contains([]string{"bearer", "access_token"}, strings.ToLower(kind)) {
		return nil, invalid("the token is not a bearer token")
	}
	return raw, nil
}

// authenticate says who we are: by secret, in the header unless the issuer
// announces the body only, or by private_key_jwt.
func (i *issuer) authenticate(meta *metadata, form url.Values, header http.Header) error {
	switch {
	case i.Key != nil:
		assertion, err := i.assertion()
		if err != nil {
			return err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
		form.Set("client_id", i.ClientID)
		return nil
	case i.Secret == nil:
		return errors.New("the client has neither secret nor key")
	}
	secret, err := i.Secret()
	if err != nil {
		return err
	}
	if len(meta.Methods) > 0 && !slices.Contains(meta.Methods, "client_secret_basic") && slices.Contains(meta.Methods, "client_secret_post") {
		form.Set("client_id", i.ClientID)
		form.Set("client_secret", secret)
		return nil
	}
	r := http.Request{Header: header}
	r.SetBasicAuth(url.QueryEscape(i.ClientID), url.QueryEscape(secret)) // RFC 6749, 2.3.1
	return nil
}

func (i *issuer) assertion() (string, error) {
	alg, err := algorithm(i.Key)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: i.Key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	now := i.Now()
	return jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: i.ClientID, Subject: i.ClientID, Audience: jwt.Audience{i.Issuer}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(2 * time.Minute)),
	}).Serialize()
}

func algorithm(key crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return jose.RS256, nil
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
	}
	return "", errors.New("a key of this kind cannot sign an assertion")
}
