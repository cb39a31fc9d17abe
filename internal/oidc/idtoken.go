package oidc

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
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/text"
)

// MaxIDToken bounds what we parse of one, and leaves room in a store's value
// for the other tokens. An ID token with many groups has 20 KB.
const MaxIDToken = 40 << 10

// IDToken is an ID token that has passed every check.
type IDToken struct {
	raw string
	Claims
}

// Raw is the token as it came.
func (t *IDToken) Raw() string { return t.raw }

// Claims are the claims we look at (OpenID Connect Core, 2; Entra's tid and
// oid; sid of OpenID Connect Front-Channel Logout, 3). The loose ones are only
// handed on unless somebody asks for them, who then misses them.
type Claims struct {
	Issuer    string       `json:"iss"`
	Subject   string       `json:"sub"`
	Audience  Audience     `json:"aud"`
	Expiry    *NumericDate `json:"exp"`
	NotBefore *NumericDate `json:"nbf"`
	IssuedAt  *NumericDate `json:"iat"`
	AuthTime  *NumericDate `json:"auth_time" loose:"true"`
	Nonce     string       `json:"nonce"`
	AuthParty *string      `json:"azp"`
	CodeHash  string       `json:"c_hash"`
	TokenHash string       `json:"at_hash"`
	ACR       string       `json:"acr" loose:"true"`
	Contexts  Audience     `json:"acrs" loose:"true"` // Entra's authentication contexts
	Tenant    string       `json:"tid" loose:"true"`
	ObjectID  string       `json:"oid" loose:"true"`
	SessionID string       `json:"sid" loose:"true"`
	UserFlow  string       `json:"tfp" loose:"true"` // Azure AD B2C

	Alg string // of the header
}

// NumericDate is seconds since 1970, with or without a fraction.
type NumericDate struct{ time.Time }

func (d *NumericDate) UnmarshalJSON(b []byte) error {
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

// Audience is one name or a list of them.
type Audience []string

func (a *Audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = Audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// Expectation is what an ID token must answer to. Empty fields ask nothing.
type Expectation struct {
	Nonce       string    // of the challenge; required in every token it led to
	Code        string    // whose c_hash the token must have, if it has one
	Front       bool      // arrived through the browser: c_hash is mandatory
	AccessToken string    // whose at_hash the token must have if it has one
	MaxAge      *int64    // seconds, asked for; then auth_time is required
	Challenged  time.Time // when
}

// VerifyIDToken applies every rule of OpenID Connect Core 3.1.3.7, 3.3.2.11,
// 3.3.2.12 and 3.3.3.6 that concerns one token. An *[issuerError] says that
// the issuer's keys could not be had; any other error, that the token is bad.
func (i *Issuer) VerifyIDToken(ctx context.Context, meta *Metadata, raw string, want Expectation) (*IDToken, error) {
	if err := checkCompact(raw); err != nil {
		return nil, err
	}
	payload, err := meta.Keys.verify(ctx, raw)
	if _, lost := errors.AsType[*Error](err); lost {
		// A token that no key could save is bad, and the issuer is not to blame.
		if _, bad := i.judge(meta, raw, ClaimsOf(raw), want); bad != nil {
			return nil, bad
		}
	}
	if err != nil {
		return nil, err
	}
	return i.judge(meta, raw, payload, want)
}

// judge applies the rules that need no key.
func (i *Issuer) judge(meta *Metadata, raw string, payload []byte, want Expectation) (*IDToken, error) {
	t := &IDToken{raw: raw}
	if err := DecodeExact(payload, &t.Claims); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	t.Alg, t.Issuer = headerString(raw, "alg"), family.Canonical(t.Issuer)
	if err := meta.Rule.Check(t.Issuer, t.Tenant, t.UserFlow); err != nil {
		return nil, err
	}
	if err := t.checkAudience(i.ClientID, i.audiences); err != nil {
		return nil, err
	}
	if err := t.CheckTimes(i.now(), i.skew); err != nil {
		return nil, err
	}
	if err := t.CheckAuthTime(want, i.skew); err != nil {
		return nil, err
	}
	if err := t.checkSubject(); err != nil {
		return nil, err
	}
	if err := t.checkBound(want); err != nil {
		return nil, err
	}
	return t, nil
}

// checkSubject admits a sub that names one user.
func (c *Claims) checkSubject() error {
	// Core, 2: at most 255 ASCII characters. encoding/json writes U+FFFD for
	// whatever is no text, so that two such users would become one.
	if c.Subject == "" || len(c.Subject) > 255 || strings.ContainsRune(c.Subject, utf8.RuneError) {
		return errors.New("sub is missing, too long, or not text")
	}
	if family.Nobody(c.Subject) {
		return errors.New("sub is nobody's, the same for all users: let the user flow send the object id as sub")
	}
	return nil
}

// checkBound checks that the token belongs to the challenge, the code and the
// access token that it came with (Core, 3.1.3.7, 11; 3.3.2.10 and 3.3.2.11).
func (c *Claims) checkBound(want Expectation) error {
	if want.Nonce != "" && subtle.ConstantTimeCompare([]byte(c.Nonce), []byte(want.Nonce)) != 1 {
		return errors.New("nonce is not the challenge's")
	}
	if want.Code != "" && (want.Front || c.CodeHash != "") {
		if err := VerifyHash(c.Alg, c.CodeHash, want.Code); err != nil {
			return fmt.Errorf("c_hash: %w", err)
		}
	}
	if want.AccessToken != "" && c.TokenHash != "" {
		if err := VerifyHash(c.Alg, c.TokenHash, want.AccessToken); err != nil {
			return fmt.Errorf("at_hash: %w", err)
		}
	}
	return nil
}

// checkCompact admits the compact serialization only (Core, 2; RFC 7515, 3.1),
// to the letter. go-jose takes JSON too, and drops spaces, so that it and we
// could read two things in one token.
func checkCompact(raw string) error { return checkCompactWithin(raw, MaxIDToken) }

func checkCompactWithin(raw string, limit int) error {
	switch {
	case raw == "":
		return errors.New("there is none")
	case len(raw) > limit:
		return errors.New("too long")
	case strings.Count(raw, ".") == 4 && headerString(raw, "enc") != "":
		return errors.New("encrypted, which this client does not read; register it at the issuer for signed tokens only")
	case strings.Count(raw, ".") != 2 || strings.ContainsFunc(raw, func(r rune) bool { return r != '.' && !text.IsTokenRune(r) }):
		return errors.New("not in compact serialization")
	}
	return nil
}

// checkAudience checks that the token is for us, and the authorized party
// (Core with errata 2, 3.1.3.7, 3 to 5). Beside us only those may be meant that
// we trust, or to whom the token says that we are the party it was issued to.
func (c *Claims) checkAudience(clientID string, trusted []string) error {
	stranger := func(name string) bool { return name != clientID && !slices.Contains(trusted, name) }
	switch {
	case !slices.Contains(c.Audience, clientID):
		return errors.New("aud is another client")
	case c.AuthParty == nil && slices.ContainsFunc(c.Audience, stranger):
		return errors.New("aud names others beside the client, without azp, and Config.Audiences does not list them")
	case c.AuthParty != nil && *c.AuthParty != clientID:
		return errors.New("azp is another client")
	}
	return nil
}

// CheckTimes checks exp, nbf, iat and auth_time with one allowance for clocks
// that differ. An auth_time to come would pass for a recent sign-in until then.
func (c *Claims) CheckTimes(now time.Time, skew time.Duration) error {
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
	case c.AuthTime != nil && now.Add(skew).Before(c.AuthTime.Time):
		return errors.New("auth_time is in the future")
	}
	return nil
}

// CheckAuthTime checks that the user proved who they are when max_age said
// (Core, 3.1.3.7, 13). The age counts from the challenge: how long the user
// then took is no fault of theirs.
func (c *Claims) CheckAuthTime(want Expectation, skew time.Duration) error {
	switch {
	case want.MaxAge == nil:
		return nil
	case c.AuthTime == nil:
		return fmt.Errorf("%w is missing or not a time, and max_age was asked for", ErrAuthTime)
	case c.AuthTime.Add(time.Duration(*want.MaxAge)*time.Second + skew).Before(want.Challenged):
		return fmt.Errorf("%w is longer ago than max_age", ErrAuthTime)
	}
	return nil
}

var ErrAuthTime = errors.New("auth_time")

// SameUser checks that two tokens speak of one user (Core, 3.3.3.6 and 12.2).
func SameUser(a, b Claims) error {
	if a.Issuer != b.Issuer || a.Subject != b.Subject {
		return errors.New("iss or sub differ between two ID tokens")
	}
	return nil
}

// VerifyHash checks a c_hash or at_hash claim against the value it covers:
// the left half of the value's hash, by the hash of the token's own
// algorithm (Core, 3.3.2.11).
func VerifyHash(alg, claim, value string) error {
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
	if subtle.ConstantTimeCompare([]byte(claim), []byte(seal.Encode(sum[:len(sum)/2]))) != 1 {
		return errors.New("missing or not the value's")
	}
	return nil
}

// headerString returns a member of a token's header, empty if there is none or
// it is no string.
func headerString(raw, name string) string {
	head, _, _ := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return ""
	}
	var header map[string]any // to the letter, as go-jose reads it
	if json.Unmarshal(b, &header) != nil {
		return ""
	}
	s, _ := header[name].(string)
	return s
}

// DecodeClaims reads a token that has been verified.
func DecodeClaims(raw string, c *Claims) error {
	err := DecodeExact(ClaimsOf(raw), c)
	c.Alg, c.Issuer = headerString(raw, "alg"), family.Canonical(c.Issuer)
	return err
}

// DecodeExact decodes JSON into a struct by the names of its members to the
// letter. encoding/json would take "Sub" for sub, and some issuers let an
// administrator, or a user, add claims of any other name. A member of another
// type than its field is an error that names it, or counts as absent where the
// field has the tag loose.
func DecodeExact(payload []byte, into any) error {
	_, err := decodeNaming(payload, into)
	return err
}

// decodeNaming is decodeExact that names the loose members that are odd.
func decodeNaming(payload []byte, into any) (odd []error, err error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return nil, err
	}
	err = setMembers(all, reflect.ValueOf(into).Elem(), &odd)
	return odd, err
}

func setMembers(all map[string]json.RawMessage, fields reflect.Value, odd *[]error) error {
	for i := range fields.NumField() {
		f := fields.Type().Field(i)
		if f.Anonymous {
			if err := setMembers(all, fields.Field(i), odd); err != nil {
				return err
			}
			continue
		}
		name := f.Tag.Get("json")
		raw, ok := all[name]
		if !ok || name == "" {
			continue
		}
		err := json.Unmarshal(raw, fields.Field(i).Addr().Interface())
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case err == nil:
		case f.Tag.Get("loose") != "":
			fields.Field(i).SetZero()
			*odd = append(*odd, err)
		default:
			return err
		}
	}
	return nil
}

// ClaimsOf returns the payload of a token that has been verified, as JSON.
func ClaimsOf(raw string) json.RawMessage {
	_, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil
	}
	return b
}
