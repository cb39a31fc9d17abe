package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
)

const (
	// LogoutAge is how old a logout token may be: there may be no exp.
	LogoutAge = 5 * time.Minute

	LogoutEvent = "http://schemas.openid.net/event/backchannel-logout"
)

// LogoutToken are those of a logout token (Back-Channel Logout, 2.4).
type LogoutToken struct {
	Claims
	Sid    string                     `json:"sid"` // not loose: it decides whose session ends
	ID     string                     `json:"jti"`
	Events map[string]json.RawMessage `json:"events"`
	Nonce  json.RawMessage            `json:"nonce"`
}

// VerifyLogoutToken applies the rules of Back-Channel Logout, 2.6. Hydra
// sends neither exp nor sub; a fresh iat and the jti stand in for exp.
func (i *Issuer) VerifyLogoutToken(ctx context.Context, meta *Metadata, raw string) (*LogoutToken, error) {
	if err := checkCompact(raw); err != nil {
		return nil, fmt.Errorf("logout token: %w", err)
	}
	payload, err := meta.LogoutKeys.verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("logout token: %w", err)
	}
	t := &LogoutToken{}
	if err := DecodeExact(payload, t); err != nil {
		return nil, fmt.Errorf("logout token: claims: %w", err)
	}
	t.Alg, t.Issuer = headerString(raw, "alg"), family.Canonical(t.Issuer)
	if err := meta.Rule.Check(t.Issuer, t.Tenant, t.UserFlow); err != nil {
		return nil, fmt.Errorf("logout token: %w", err)
	}
	if err := t.checkAudience(i.ClientID, i.audiences); err != nil {
		return nil, fmt.Errorf("logout token: %w", err)
	}
	if err := t.check(headerString(raw, "typ"), i.now(), i.skew); err != nil {
		return nil, fmt.Errorf("logout token: %w", err)
	}
	return t, nil
}

// check judges what needs no key. typ is the header's.
func (t *LogoutToken) check(typ string, now time.Time, skew time.Duration) error {
	var event map[string]any
	switch {
	case typ != "" && !strings.EqualFold(typ, "JWT") && !strings.EqualFold(typ, "logout+jwt"):
		return errors.New("typ is of another kind of token")
	case t.IssuedAt == nil:
		return errors.New("iat is missing")
	case now.Add(skew).Before(t.IssuedAt.Time):
		return errors.New("iat is in the future")
	case now.Sub(t.IssuedAt.Time) > LogoutAge+skew:
		return errors.New("iat is too long ago")
	case t.Expiry != nil && !now.Before(t.Expiry.Add(skew)):
		return errors.New("expired")
	case t.NotBefore != nil && now.Add(skew).Before(t.NotBefore.Time):
		return errors.New("nbf is in the future")
	case t.Nonce != nil:
		return errors.New("nonce is present: that is an ID token")
	case json.Unmarshal(t.Events[LogoutEvent], &event) != nil || event == nil:
		return errors.New("events does not say logout")
	case t.Subject == "" && t.SessionID == "":
		return errors.New("neither sub nor sid")
	case t.ID == "" || len(t.ID) > 255:
		return errors.New("jti is missing or too long")
	}
	return nil
}
