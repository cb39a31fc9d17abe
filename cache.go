package signin

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

const (
	// maxHeld bounds the tokens of a session. The oldest goes first: it can be
	// had again.
	maxHeld = 16

	// maxRefusals bounds what is remembered of refusals, and refusalAge for
	// how long: the user may have mended it elsewhere.
	maxRefusals = 8
	refusalAge  = 5 * time.Minute
)

// held is one access token of a session. Times are seconds since 1970.
type held struct {
	Access   string   `json:"a"`
	Scopes   []string `json:"s,omitempty"` // granted
	Asked    []string `json:"k,omitempty"` // asked for
	Resource string   `json:"r,omitempty"`
	Obtained int64    `json:"o"`
	Expires  int64    `json:"x,omitempty"` // 0: the issuer did not say
	Renew    int64    `json:"n,omitempty"` // refresh_in: renew from then on
	Default  bool     `json:"d,omitempty"` // serves a request for no scopes
}

// newHeld is the token of an answer to a request for asked. An answer without
// scope grants what was asked for (RFC 6749, 5.1).
func (a *Auth) newHeld(answer *tokenAnswer, asked []string, resource string) held {
	t := held{Access: answer.AccessToken, Asked: unreserved(asked), Resource: resource, Obtained: answer.received.Unix()}
	t.Scopes = t.Asked
	if answer.Scope != nil && strings.TrimSpace(*answer.Scope) != "" {
		t.Scopes = unreserved(strings.Fields(*answer.Scope))
	}
	if answer.ExpiresIn.present {
		t.Expires = answer.received.Add(answer.ExpiresIn.Duration).Unix()
	}
	if answer.RefreshIn.present && answer.RefreshIn.Duration > 0 {
		t.Renew = answer.received.Add(answer.RefreshIn.Duration).Unix()
	}
	return t
}

// covers reports whether all scopes were granted, reserved ones aside. Entra
// spells Microsoft Graph's scopes with or without its URL, and answers a
// request for .default with what that stands for.
func (t *held) covers(scopes []string) bool {
	for _, s := range scopes {
		if isReserved(s) || slices.Contains(t.Scopes, s) {
			continue
		}
		if slices.Contains(t.Scopes, "https://graph.microsoft.com/"+s) ||
			(strings.HasSuffix(s, "/.default") && slices.Contains(t.Asked, s)) {
			continue
		}
		return false
	}
	return true
}

// valid reports whether the token has not expired.
func (t *held) valid(now time.Time) bool {
	return t.Expires == 0 || now.Unix() < t.Expires
}

// fresh reports whether the token need not be renewed yet: it is renewed
// margin before its expiry, but lives at least four fifths of its lifetime.
func (t *held) fresh(now time.Time, margin time.Duration) bool {
	if t.Expires == 0 {
		return true
	}
	margin = min(margin, time.Duration(t.Expires-t.Obtained)*time.Second/5)
	return now.Before(time.Unix(t.Expires, 0).Add(-margin))
}

// due reports whether the issuer wants the token renewed though it serves.
func (t *held) due(now time.Time) bool { return t.Renew != 0 && now.Unix() >= t.Renew }

func (t *held) token() *oauth2.Token {
	token := &oauth2.Token{AccessToken: t.Access, TokenType: "Bearer"}
	if t.Expires != 0 {
		token.Expiry = time.Unix(t.Expires, 0)
	}
	return token
}

// find returns the token that serves a request, whether or not it is still
// good, or nil.
func (r *record) find(req *TokenRequest) *held {
	var best *held
	for i := range r.Tokens {
		t := &r.Tokens[i]
		if t.Resource != req.Resource {
			continue
		}
		if len(req.Scopes) == 0 && req.Resource == "" {
			if !t.Default {
				continue
			}
		} else if !t.covers(req.Scopes) {
			continue
		}
		if best == nil || laterToken(t, best) {
			best = t
		}
	}
	return best
}

func laterToken(a, b *held) bool {
	if a.Expires == 0 || b.Expires == 0 {
		return a.Obtained > b.Obtained
	}
	return a.Expires > b.Expires
}

// add takes in what a token request returned. The tokens that the new one
// covers go: some issuers end them with the refresh. An old refresh token
// stays if none came (RFC 6749, 6).
func (r *record) add(t held, refresh string) {
	r.Tokens = slices.DeleteFunc(r.Tokens, func(old held) bool {
		return old.Resource == t.Resource && t.covers(old.Scopes)
	})
	r.Tokens = append(r.Tokens, t)
	if extra := len(r.Tokens) - maxHeld; extra > 0 {
		r.Tokens = slices.Delete(r.Tokens, 0, extra)
	}
	if refresh != "" && refresh != r.Refresh {
		r.Refresh = refresh
		r.Refusals = nil // they were for the old one
	}
}

// refusal remembers that the issuer wants the user, so that it is not asked
// again on each request.
type refusal struct {
	Key    []byte `json:"k"` // hash of the refresh token and what was asked
	Reason Reason `json:"r"`
	Claims string `json:"c,omitempty"` // what would satisfy the issuer
	Time   int64  `json:"t"`
}

// refusalKeys are a refusal of the refresh token itself, and one of what was
// asked with it.
func refusalKeys(refresh string, req *TokenRequest) (dead, asked []byte) {
	sum := sha256.Sum256([]byte(refresh))
	dead = sum[:8]
	sum = sha256.Sum256([]byte(strings.Join(append([]string{refresh, req.Resource, req.Claims}, slices.Sorted(slices.Values(req.Scopes))...), "\x00")))
	return dead, sum[:8]
}

func (r *record) refused(req *TokenRequest, now time.Time) *refusal {
	dead, asked := refusalKeys(r.Refresh, req)
	for i, f := range r.Refusals {
		if slices.Equal(f.Key, dead) || slices.Equal(f.Key, asked) && now.Sub(time.Unix(f.Time, 0)) < refusalAge {
			return &r.Refusals[i]
		}
	}
	return nil
}

// dead reports whether the issuer no longer honours the session: its refresh
// token was refused and no access token is left. The session ends at the next
// page that needs a user.
func (r *record) dead(now time.Time) bool {
	key, _ := refusalKeys(r.Refresh, &TokenRequest{})
	if len(r.Refusals) == 0 || !slices.ContainsFunc(r.Refusals, func(f refusal) bool { return slices.Equal(f.Key, key) }) {
		return false
	}
	return !slices.ContainsFunc(r.Tokens, func(t held) bool { return t.valid(now) })
}

func (r *record) refuse(f refusal) {
	r.Refusals = slices.DeleteFunc(r.Refusals, func(old refusal) bool { return slices.Equal(old.Key, f.Key) })
	r.Refusals = append(r.Refusals, f)
	if extra := len(r.Refusals) - maxRefusals; extra > 0 {
		r.Refusals = slices.Delete(r.Refusals, 0, extra)
	}
}

func unreserved(scopes []string) []string {
	var out []string
	for _, s := range scopes {
		if !isReserved(s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
