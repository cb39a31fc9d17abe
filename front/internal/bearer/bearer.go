// Package bearer takes access tokens of the issuer for users: JWTs of RFC
// 9068, and others by introspection (RFC 7662).
package bearer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed454743b5/signin"
)

const (
	maxToken = 16 << 10
	maxKnown = 10000 // tokens remembered

	// recheck is how long an answer of the issuer about a token holds: a token
	// that is revoked counts for so long at most.
	recheck = 30 * time.Second

	skew = time.Minute // between the issuer's clock and ours
)

// Verifier verifies tokens of one issuer. It touches the network at the first
// token only. It may be used concurrently.
type Verifier struct {
	issuer *issuer
	now    func() time.Time

	mu    sync.Mutex
	known map[[32]byte]entry // guarded by mu
}

type entry struct {
	who   *Program
	err   error
	until time.Time
}

// Program is who a token speaks for.
type Program struct {
	User     *signin.User
	audience []string
	scopes   []string
	expiry   time.Time
}

// New makes a verifier. It does not touch the network.
func New(o Options) *Verifier {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: 10 * time.Second}
	}
	return &Verifier{issuer: newIssuer(o), now: o.Now, known: map[[32]byte]entry{}}
}

// Refusal is an answer to a program (RFC 6750, 3; RFC 9470, 3).
type Refusal struct {
	Status int
	Code   string // of the error parameter; empty: none
	Params string // further ones
	Cause  error  // for the log; it quotes nothing of a token
}

func (r *Refusal) Error() string {
	if r.Cause == nil {
		return r.Code
	}
	return r.Cause.Error()
}

// Write answers with the refusal.
func (r *Refusal) Write(w http.ResponseWriter) {
	h := w.Header()
	if r.Status != http.StatusServiceUnavailable {
		challenge := "Bearer"
		if r.Code != "" {
			challenge += " error=" + strconv.Quote(r.Code) + r.Params
		}
		h.Set("WWW-Authenticate", challenge)
	} else {
		h.Set("Retry-After", "5")
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(r.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(r.Status), "status": r.Status, "error": r.Code})
}

func invalid(format string, args ...any) *Refusal {
	return &Refusal{Status: http.StatusUnauthorized, Code: "invalid_token", Cause: fmt.Errorf(format, args...)}
}

// errUnavailable is wrapped by errors that pass.
var errUnavailable = errors.New("the issuer cannot be asked")

// FromRequest returns the token of a request. An Authorization header of
// another scheme is none; two headers are an error.
func FromRequest(r *http.Request) (token string, present bool, err error) {
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return "", false, errors.New("two Authorization headers")
	}
	if len(values) == 0 || len(values[0]) < 7 || !strings.EqualFold(values[0][:7], "bearer ") {
		return "", false, nil
	}
	token = strings.TrimLeft(values[0][7:], " ")
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return "", true, errors.New("no token after Bearer, or none that can be one")
	}
	return token, true, nil
}

// Verify says who a token speaks for, if it is for one of the audience. Its
// error is a [*Refusal], or that the issuer cannot be asked.
func (v *Verifier) Verify(ctx context.Context, token string, audience []string, introspect bool) (*Program, error) {
	id := sha256.Sum256(append([]byte{b2i(introspect)}, token...))
	now := v.now()
	v.mu.Lock()
	e, ok := v.known[id]
	v.mu.Unlock()
	if !ok || !now.Before(e.until) {
		e = entry{}
		e.who, e.err = v.verify(ctx, token, introspect, now)
		if errors.Is(e.err, errUnavailable) {
			return nil, e.err
		}
		e.until = now.Add(recheck)
		v.remember(id, e, now)
	}
	switch {
	case e.err != nil:
		return nil, e.err
	case !now.Before(e.who.expiry.Add(skew)):
		return nil, invalid("the token has expired")
	case !slices.ContainsFunc(e.who.audience, func(a string) bool { return slices.Contains(audience, a) }):
		return nil, invalid("the token is for another audience")
	}
	return e.who, nil
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (v *Verifier) remember(id [32]byte, e entry, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxKnown {
		for k, old := range v.known {
			if !now.Before(old.until) {
				delete(v.known, k)
			}
		}
		if len(v.known) >= maxKnown {
			clear(v.known)
		}
	}
	v.known[id] = e
}

func (v *Verifier) verify(ctx context.Context, token string, introspect bool, now time.Time) (*Program, error) {
	raw, err := v.issuer.verifyJWT(ctx, token)
	if err == nil {
		return read(raw, v.issuer.Issuer, true, now)
	}
	if _, refused := errors.AsType[*Refusal](err); !refused || !introspect {
		return nil, err
	}
	if raw, err = v.issuer.introspect(ctx, token); err != nil {
		return nil, err
	}
	return read(raw, v.issuer.Issuer, false, now)
}

// claims are those of a token, read one by one: one of an odd type is none.
type claims map[string]json.RawMessage

func (c claims) text(name string) (s string) {
	_ = json.Unmarshal(c[name], &s)
	return s
}

func (c claims) time(name string) (t time.Time, ok bool) {
	var f float64
	if c[name] == nil || json.Unmarshal(c[name], &f) != nil || f < 1 || f > 1<<40 {
		return t, false
	}
	return time.Unix(int64(f), 0), true
}

// read checks the claims of a JWT (RFC 9068, 4) or of an introspection (RFC
// 7662, 2.2), and makes a user of them.
func read(raw []byte, issuer string, signed bool, now time.Time) (*Program, error) {
	var c claims
	if json.Unmarshal(raw, &c) != nil {
		return nil, invalid("the claims are not a JSON object")
	}
	p := &Program{audience: texts(c["aud"]), scopes: append(strings.Fields(c.text("scope")), scp(c["scp"])...)}
	_, bound := c["cnf"]
	switch iss := c.text("iss"); {
	case iss != issuer && (signed || iss != ""):
		return nil, invalid("the token is of another issuer")
	case c.text("sub") == "":
		return nil, invalid("the token names no subject")
	case len(p.audience) == 0:
		return nil, invalid("the token names no audience")
	case signed && c.text("client_id") == "":
		return nil, invalid("the token lacks client_id (RFC 9068, 2.2)")
	case bound:
		return nil, invalid("the token is bound to a key, of which a bearer shows nothing (RFC 9449, RFC 8705)")
	}
	var err error
	if p.expiry, err = c.dates(signed, now); err != nil {
		return nil, err
	}
	p.User = &signin.User{Issuer: issuer, Subject: c.text("sub"), Tenant: c.text("tid"), ObjectID: c.text("oid"), ACR: c.text("acr"), RawClaims: slices.Clone(raw)}
	p.User.AuthTime, _ = c.time("auth_time")
	return p, nil
}

// dates checks when a token is valid, and returns until when.
func (c claims) dates(signed bool, now time.Time) (time.Time, error) {
	expiry, hasExpiry := c.time("exp")
	issued, hasIssued := c.time("iat")
	notBefore, hasNotBefore := c.time("nbf")
	switch {
	case signed && (!hasExpiry || !hasIssued):
		return expiry, invalid("the token lacks exp or iat (RFC 9068, 2.2)")
	case hasExpiry && !now.Before(expiry.Add(skew)):
		return expiry, invalid("the token has expired")
	case hasIssued && issued.After(now.Add(skew)), hasNotBefore && notBefore.After(now.Add(skew)):
		return expiry, invalid("the token is not valid yet")
	case !hasExpiry:
		return now.Add(recheck), nil
	}
	return expiry, nil
}

func texts(raw json.RawMessage) (list []string) {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}
	}
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	return list
}

// scp is how Entra and Okta spell scope.
func scp(raw json.RawMessage) []string {
	var out []string
	for _, s := range texts(raw) {
		out = append(out, strings.Fields(s)...)
	}
	return out
}

// Meets reports what a token lacks of what a route requires.
func (p *Program) Meets(scopes, acr []string, maxAge time.Duration, now time.Time) error {
	for _, s := range scopes {
		if !slices.Contains(p.scopes, s) {
			return &Refusal{Status: http.StatusForbidden, Code: "insufficient_scope", Params: ", scope=" + strconv.Quote(strings.Join(scopes, " ")), Cause: errors.New("a scope is missing")}
		}
	}
	old := maxAge > 0 && (p.User.AuthTime.IsZero() || now.Sub(p.User.AuthTime) > maxAge+skew)
	if !old && (len(acr) == 0 || slices.Contains(acr, p.User.ACR)) {
		return nil
	}
	r := &Refusal{Status: http.StatusUnauthorized, Code: "insufficient_user_authentication", Cause: errors.New("the authentication is too old or too weak")}
	if len(acr) > 0 {
		r.Params = ", acr_values=" + strconv.Quote(strings.Join(acr, " "))
	}
	if maxAge > 0 {
		r.Params += fmt.Sprintf(", max_age=\"%d\"", int64(maxAge.Seconds()))
	}
	return r
}
