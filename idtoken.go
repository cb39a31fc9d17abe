package signin

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math"
	"strings"
	"time"
)

// idToken is an ID token that has passed every check.
type idToken struct {
	raw string
	idClaims
}

// idClaims are the claims we look at (OpenID Connect Core, 2; Entra's tid and
// oid; sid of OpenID Connect Front-Channel Logout, 3).
type idClaims struct {
	Issuer    string       `json:"iss"`
	Subject   string       `json:"sub"`
	Expiry    *numericDate `json:"exp"`
	NotBefore *numericDate `json:"nbf"`
	IssuedAt  *numericDate `json:"iat"`
	AuthTime  *numericDate `json:"auth_time"`
	Nonce     string       `json:"nonce"`
	AuthParty *string      `json:"azp"`
	CodeHash  string       `json:"c_hash"`
	TokenHash string       `json:"at_hash"`
	ACR       string       `json:"acr"`
	Tenant    string       `json:"tid"`
	ObjectID  string       `json:"oid"`
	SessionID string       `json:"sid"`
}

// numericDate is seconds since 1970, with or without a fraction.
type numericDate struct{ time.Time }

func (d *numericDate) UnmarshalJSON(b []byte) error {
	var n float64
	if err := json.Unmarshal(b, &n); err != nil {
		return errors.New("time claim is not a number")
	}
	// Outside, the conversion to int64 is undefined.
	if math.IsNaN(n) || n < 0 || n > 1<<40 {
		return errors.New("time claim is out of range")
	}
	d.Time = time.Unix(int64(n), 0)
	return nil
}

// expectation is what an ID token must answer to. Empty fields ask nothing.
type expectation struct {
	nonce       string    // of the challenge; required in every token it led to
	code        string    // whose c_hash the token must have, if it has one
	front       bool      // arrived through the browser: c_hash is mandatory
	accessToken string    // whose at_hash the token must have if it has one
	maxAge      *int64    // seconds, asked for; then auth_time is required
	challenged  time.Time // when
}

// verifyIDToken applies every rule of OpenID Connect Core 3.1.3.7, 3.3.2.11,
// 3.3.2.12 and 3.3.3.6 that concerns one token. An *[issuerError] says that
// the issuer's keys could not be had; any other error, that the token is bad.
func (a *Auth) verifyIDToken(ctx context.Context, meta *metadata, raw string, want expectation) (*idToken, error) {
	verified, err := meta.keys.verify(ctx, a.cfg.ClientID, raw)
	if err != nil {
		return nil, err
	}
	t := &idToken{raw: raw}
	if err := verified.Claims(&t.idClaims); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if err := meta.rule.check(t.Issuer, t.Tenant); err != nil {
		return nil, err
	}
	if err := t.checkAudience(verified.Audience, a.cfg.ClientID); err != nil {
		return nil, err
	}
	if err := t.checkTimes(a.now(), a.cfg.ClockSkew); err != nil {
		return nil, err
	}
	if err := t.checkAuthTime(want, a.cfg.ClockSkew); err != nil {
		return nil, err
	}
	// Core, 2: at most 255 ASCII characters.
	if t.Subject == "" || len(t.Subject) > 255 {
		return nil, errors.New("sub is missing or too long")
	}
	if want.nonce != "" && subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(want.nonce)) != 1 {
		return nil, errors.New("nonce is not the challenge's")
	}
	alg := headerAlg(raw)
	if want.code != "" && (want.front || t.CodeHash != "") {
		if err := verifyHash(alg, t.CodeHash, want.code); err != nil {
			return nil, fmt.Errorf("c_hash: %w", err)
		}
	}
	if want.accessToken != "" && t.TokenHash != "" {
		if err := verifyHash(alg, t.TokenHash, want.accessToken); err != nil {
			return nil, fmt.Errorf("at_hash: %w", err)
		}
	}
	return t, nil
}

// checkAudience checks the authorized party; that we are in the audience has
// been checked with the signature (Core, 3.1.3.7, 3 to 5).
func (c *idClaims) checkAudience(audience []string, clientID string) error {
	if c.AuthParty == nil && len(audience) > 1 {
		return errors.New("several audiences and no azp")
	}
	if c.AuthParty != nil && *c.AuthParty != clientID {
		return errors.New("azp is another client")
	}
	return nil
}

// checkTimes checks exp, nbf and iat with one allowance for clocks that
// differ.
func (c *idClaims) checkTimes(now time.Time, skew time.Duration) error {
	switch {
	case c.Expiry == nil:
		return errors.New("exp is missing")
	case !now.Before(c.Expiry.Add(skew)):
		return errors.New("expired")
	case c.NotBefore != nil && now.Add(skew).Before(c.NotBefore.Time):
		return errors.New("nbf is in the future")
	case c.IssuedAt == nil:
		return errors.New("iat is missing")
	case now.Add(skew).Before(c.IssuedAt.Time):
		return errors.New("iat is in the future")
	}
	return nil
}

// checkAuthTime checks that the user proved who they are when max_age said
// (Core, 3.1.3.7, 13). The age counts from the challenge: how long the user
// then took is no fault of theirs.
func (c *idClaims) checkAuthTime(want expectation, skew time.Duration) error {
	switch {
	case want.maxAge == nil:
		return nil
	case c.AuthTime == nil:
		return errors.New("max_age was asked for and auth_time is missing")
	case c.AuthTime.Add(time.Duration(*want.maxAge)*time.Second + skew).Before(want.challenged):
		return errors.New("auth_time is longer ago than max_age")
	}
	return nil
}

// sameUser checks that two tokens speak of one user (Core, 3.3.3.6 and 12.2).
func sameUser(a, b idClaims) error {
	if a.Issuer != b.Issuer || a.Subject != b.Subject {
		return errors.New("iss or sub differ between two ID tokens")
	}
	return nil
}

// verifyHash checks a c_hash or at_hash claim against the value it covers:
// the left half of the value's hash, by the hash of the token's own
// algorithm (Core, 3.3.2.11).
func verifyHash(alg, claim, value string) error {
	var h hash.Hash
	switch {
	case strings.HasSuffix(alg, "256"):
		h = sha256.New()
	case strings.HasSuffix(alg, "384"):
		h = sha512.New384()
	case strings.HasSuffix(alg, "512"), alg == "EdDSA": // Ed25519 uses SHA-512
		h = sha512.New()
	default:
		return errors.New("unknown algorithm")
	}
	h.Write([]byte(value))
	sum := h.Sum(nil)
	if subtle.ConstantTimeCompare([]byte(claim), []byte(encode(sum[:len(sum)/2]))) != 1 {
		return errors.New("missing or not the value's")
	}
	return nil
}

// headerAlg returns the alg of a token that has been verified.
func headerAlg(raw string) string {
	head, _, _ := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return ""
	}
	var header struct {
		Alg string `json:"alg"`
	}
	if json.Unmarshal(b, &header) != nil {
		return ""
	}
	return header.Alg
}

func decodeClaims(raw string, c *idClaims) error { return json.Unmarshal(claimsOf(raw), c) }

// claimsOf returns the payload of a token that has been verified, as JSON.
func claimsOf(raw string) json.RawMessage {
	_, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil
	}
	return b
}
