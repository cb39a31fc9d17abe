package signin

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"golang.org/x/oauth2"
)

const (
	// maxHeld bounds the tokens of a session, and maxRecord what it holds in
	// all, so that a store takes it. The oldest token goes first: it can be had
	// again.
	maxHeld   = 16
	maxRecord = 192 << 10

	// maxRefusals bounds what is remembered of refusals, and refusalAge for
	// how long: the user may have mended it elsewhere.
	maxRefusals = 8
	refusalAge  = 5 * time.Minute

	// maxRefusalClaims bounds what a refusal remembers of the issuer's claims, and
	// maxRefusalError what it remembers of the issuer's words.
	maxRefusalClaims = 512
	maxRefusalError  = 200
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
	Claims   []byte   `json:"q,omitempty"` // hash of the claims request it answers
	Params   []byte   `json:"p,omitempty"` // hash of TokenRequest.Params

	Written family.Scopes `json:"w,omitempty"` // how the issuer writes scopes

	Extra json.RawMessage `json:"e,omitempty"` // further members of the answer

	made *oauth2.Token // what callers get copies of; nil: not made yet
}

// covers reports whether all scopes were granted, openid and offline_access
// aside. At an issuer whose tokens are for one API each, profile and email
// stand for something at one of them only.
func (t *held) covers(scopes []string) bool {
	for _, s := range scopes {
		if family.Protocol(s) || t.Written.Granted(t.Scopes, t.Asked, s) ||
			family.Reserved(s) && t.Written.Elsewhere(scopes) {
			continue
		}
		return false
	}
	return true
}

// meets reports whether the token is what was asked for: the default one, or
// one with the scopes.
func (t *held) meets(req *TokenRequest) bool {
	switch {
	case t.Access == "", t.Resource != req.Resource, !bytes.Equal(t.Params, paramsHash(req.Params)):
		return false
	case len(req.Scopes) == 0 && req.Resource == "":
		return t.Default
	}
	return t.covers(req.Scopes)
}

// serves reports whether a token that meets req need not be replaced for it:
// it is not the one rejected, and it answers the claims asked for. Who names
// no token that was refused wants a new one for their claims.
func (t *held) serves(req *TokenRequest) bool {
	return t.Access != req.reject &&
		(req.Claims == "" || req.reject != "" && bytes.Equal(t.Claims, shortHash(req.Claims)))
}

// shortHash is enough of a hash to know a value again that nobody gains by
// forging. Of nothing it is nil.
func shortHash(value string) []byte {
	if value == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(value))
	return sum[:8]
}

// paramsHash names the Params of a request. Nearly all requests have none.
func paramsHash(params url.Values) []byte {
	if len(params) == 0 {
		return nil
	}
	return shortHash(params.Encode())
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

// token is a copy of the token for one caller, who may modify it.
func (t *held) token() *oauth2.Token {
	made := t.made
	if made == nil {
		made = t.make("")
	}
	return new(*made)
}

// make makes what token copies, so that a caller pays for no more than a copy.
// idToken is the newest ID token of the session, for an API that takes that;
// empty leaves it out.
func (t *held) make(idToken string) *oauth2.Token {
	token := &oauth2.Token{AccessToken: t.Access, TokenType: "Bearer"}
	if t.Expires != 0 {
		token.Expiry = time.Unix(t.Expires, 0)
	}
	var extra map[string]any
	if t.Extra != nil && json.Unmarshal(t.Extra, &extra) != nil {
		extra = nil
	}
	if idToken != "" {
		if extra == nil {
			extra = make(map[string]any, 1)
		}
		extra["id_token"] = idToken
	}
	if extra == nil {
		return token
	}
	return token.WithExtra(extra)
}

// makeTokens makes what callers get of the tokens of a record.
func (r *record) makeTokens() {
	for i := range r.Tokens {
		r.Tokens[i].made = r.Tokens[i].make(r.hint())
	}
}

// madeSize is about what a made token takes in memory, beside its strings.
const madeSize = 450

// find returns the token that serves a request, whether or not it is still
// good, or nil.
func (r *record) find(req *TokenRequest) *held {
	var best *held
	for i := range r.Tokens {
		t := &r.Tokens[i]
		if !t.meets(req) {
			continue
		}
		if best == nil || t.better(best, req) {
			best = t
		}
	}
	return best
}

// better reports whether a token is to be preferred to another that meets the
// same request: one that was rejected comes last, whenever it expires.
func (t *held) better(other *held, req *TokenRequest) bool {
	if serves := t.serves(req); serves != other.serves(req) {
		return serves
	}
	if t.Expires == other.Expires || t.Expires == 0 || other.Expires == 0 {
		return t.Obtained >= other.Obtained
	}
	return t.Expires > other.Expires
}

// add takes in what a sign-in returned. An old refresh token stays if none
// came (RFC 6749, 6).
func (r *record) add(t held, refresh string) {
	var claims oidc.Claims
	if refresh != "" && oidc.DecodeClaims(r.IDToken, &claims) == nil {
		r.Origin = newOrigin(claims)
	}
	r.renew(t, r.Refresh, refresh)
}

// renew takes in what the refresh token sent was exchanged for. If another
// has come in its place meanwhile, that is from a sign-in: the newest wins.
func (r *record) renew(t held, sent, refresh string) {
	r.hold(t)
	r.rotate(sent, refresh)
}

// rotate takes in a refresh token without anything that came beside it.
func (r *record) rotate(sent, refresh string) {
	if refresh != "" && refresh != r.Refresh && r.Refresh == sent {
		r.Refresh = refresh
		r.Refusals = nil // they were for the old one
	}
	r.trim()
}

// origin is what a refreshed ID token must have in common with the sign-in
// that its refresh token is from (OpenID Connect Core, 12.2). That need not be
// the latest: not every sign-in brings a refresh token.
type origin struct {
	Nonce    []byte `json:"n,omitempty"` // hash
	AuthTime int64  `json:"a,omitempty"`
}

func newOrigin(c oidc.Claims) *origin {
	o := &origin{Nonce: shortHash(c.Nonce)}
	if c.AuthTime != nil {
		o.AuthTime = c.AuthTime.Unix()
	}
	return o
}

// hold keeps a token. Those that it covers go: some issuers end them with the
// refresh. One that serves a request for no scopes goes only for another.
func (r *record) hold(t held) {
	if t.Access == "" {
		return
	}
	r.Tokens = slices.DeleteFunc(r.Tokens, func(old held) bool {
		return old.Resource == t.Resource && bytes.Equal(old.Params, t.Params) && t.covers(old.Scopes) && (t.Default || !old.Default)
	})
	r.Tokens = append(r.Tokens, t)
}

// trim drops the oldest tokens until the record is of a size to be stored.
func (r *record) trim() {
	size := len(r.IDToken) + len(r.Hint) + len(r.Refresh) + len(r.UserInfo) + len(r.Own)
	keep := len(r.Tokens)
	for ; keep > 0 && len(r.Tokens)-keep < maxHeld; keep-- {
		if size += r.Tokens[keep-1].size(); size > maxRecord && keep < len(r.Tokens) {
			break
		}
	}
	r.Tokens = slices.Delete(r.Tokens, 0, keep)
}

// size is about what the token takes in a record.
func (t *held) size() int {
	n := len(t.Access) + len(t.Resource) + len(t.Extra) + 100
	for _, s := range slices.Concat(t.Scopes, t.Asked) {
		n += len(s) + 3
	}
	return n
}

// refusal remembers that the issuer wants the user, or refuses a request for what
// it asks, so that it is not asked again on each request.
type refusal struct {
	Key    []byte `json:"k"` // hash of the refresh token and what was asked
	Reason Reason `json:"r"`
	Claims string `json:"c,omitempty"` // what would satisfy the issuer
	Error  string `json:"e,omitempty"` // what it said, with reasonRequest
	Time   int64  `json:"t"`
}

// refusalKeys are a refusal of the refresh token itself, and one of what was
// asked with it.
func refusalKeys(refresh string, req *TokenRequest) (dead, asked []byte) {
	first := sha256.Sum256([]byte(refresh))
	dead = first[:8]
	what := []string{refresh, req.Resource, req.Claims, req.Params.Encode()}
	sum := sha256.Sum256([]byte(strings.Join(append(what, slices.Sorted(slices.Values(req.Scopes))...), "\x00")))
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
	if len(r.Refusals) == 0 {
		return false // as nearly always; a hash costs more than the rest of a request
	}
	key, _ := refusalKeys(r.Refresh, &TokenRequest{})
	if !slices.ContainsFunc(r.Refusals, func(f refusal) bool { return slices.Equal(f.Key, key) }) {
		return false
	}
	return !slices.ContainsFunc(r.Tokens, func(t held) bool { return t.valid(now) })
}

func (r *record) refuse(f refusal) {
	if len(f.Claims) > maxRefusalClaims {
		f.Claims = ""
	}
	r.Refusals = slices.DeleteFunc(r.Refusals, func(old refusal) bool { return slices.Equal(old.Key, f.Key) })
	r.Refusals = append(r.Refusals, f)
	if extra := len(r.Refusals) - maxRefusals; extra > 0 {
		r.Refusals = slices.Delete(r.Refusals, 0, extra)
	}
}

// accessScopes are the scopes that a token can be found by.
func accessScopes(scopes []string) []string { return scopesBut(scopes, family.Protocol) }

// apiScopes are the scopes of APIs.
func apiScopes(scopes []string) []string { return scopesBut(scopes, family.Reserved) }

// scopesBut returns the scopes that are not of a kind, each once.
func scopesBut(scopes []string, kind func(string) bool) []string {
	var out []string
	for _, s := range scopes {
		if !kind(s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// maxHint bounds an ID token that travels in a URL.
const maxHint = 4 << 10
