package signin

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
)

// User is who signed in, as the issuer said at that moment. The pair of Issuer
// and Subject is the only identity: names and e-mail addresses change hands.
// A User may be used concurrently and is shared by requests: do not modify it.
type User struct {
	Issuer  string // iss
	Subject string // sub: unique at Issuer, never reassigned

	Tenant   string // tid: the Entra tenant signed in to; else empty
	ObjectID string // oid: the user's object in that tenant; else empty

	// HomeAccount is uid.utid of Entra's client_info: the account in the
	// tenant that owns it. It is the same wherever the user is a guest. Empty
	// for other issuers.
	HomeAccount string

	// AuthTime is when the user last proved who they are (auth_time), and ACR
	// how (acr). Zero if the issuer did not say.
	AuthTime time.Time
	ACR      string

	// RawClaims are the claims of the ID token, as JSON; see [User.Claims].
	// They are personal data. A test may make some up.
	RawClaims json.RawMessage

	sid       string
	nameClaim string
	contexts  []string // acrs: Entra's authentication contexts
}

func newUser(t oidc.Claims, raw, homeAccount, nameClaim string) *User {
	u := &User{
		Issuer: t.Issuer, Subject: t.Subject, Tenant: t.Tenant, ObjectID: t.ObjectID,
		HomeAccount: homeAccount, ACR: t.ACR, sid: t.SessionID,
		RawClaims: oidc.ClaimsOf(raw), nameClaim: nameClaim,
	}
	// Only Entra's, whose issuers name the tenant: elsewhere a user may be able
	// to choose what stands in a claim of that name.
	if len(t.Contexts) > 0 && family.GUID.MatchString(t.Tenant) && strings.Contains(t.Issuer, "/"+t.Tenant+"/") {
		u.contexts = t.Contexts
	}
	if t.AuthTime != nil {
		u.AuthTime = t.AuthTime.Time
	}
	return u
}

// Name returns a name to greet the user with: the claim that
// [Config].NameClaim names, or the first there is of preferred_username,
// name, email and sub. Users may be able to choose it: never decide by it.
func (u *User) Name() string {
	var claims map[string]any
	if u.Claims(&claims) != nil {
		return u.Subject
	}
	for _, c := range []string{u.nameClaim, "preferred_username", "name", "email"} {
		if s, ok := claims[c].(string); ok && c != "" && s != "" {
			return s
		}
	}
	return u.Subject
}

// Claims decodes the claims of the user's ID token into v, as
// [json.Unmarshal] does.
func (u *User) Claims(v any) error {
	if len(u.RawClaims) == 0 {
		return errors.New("signin: user has no claims")
	}
	return json.Unmarshal(u.RawClaims, v)
}

// Guest reports whether the user's home is another Entra tenant than the one
// signed in to. It is false for issuers that do not tell.
func (u *User) Guest() bool {
	_, home, ok := strings.Cut(u.HomeAccount, ".")
	return ok && u.Tenant != "" && home != u.Tenant
}

// LogValue keeps claims, which are personal data, out of logs.
func (u *User) LogValue() slog.Value {
	if u == nil {
		return slog.StringValue("nobody")
	}
	return slog.GroupValue(slog.String("iss", u.Issuer), slog.String("sub", u.Subject))
}

// loginHint is what the issuer recognises the user by.
func (u *User) loginHint() string {
	var claims struct {
		Hint     string `json:"login_hint"` // Entra: opaque, made for this
		Username string `json:"preferred_username"`
		Email    string `json:"email"`
	}
	u.Claims(&claims)
	for _, hint := range []string{claims.Hint, claims.Username, claims.Email} {
		if hint != "" && len(hint) <= 1024 {
			return hint
		}
	}
	return ""
}
