package signin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

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

	// RawClaims are the user's claims, as JSON; see [User.Claims]. They are
	// personal data. A test may make some up.
	RawClaims json.RawMessage

	idToken   string
	sid       string
	nameClaim string
	contexts  []string // acrs: Entra's authentication contexts
}

// newUser returns the user whom an ID token with the claims t names. raw are all
// claims there are.
func newUser(t oidc.Claims, raw json.RawMessage, homeAccount, nameClaim string) *User {
	u := &User{
		Issuer: t.Issuer, Subject: t.Subject, Tenant: t.Tenant, ObjectID: t.ObjectID,
		HomeAccount: homeAccount, ACR: t.ACR, sid: t.SessionID,
		RawClaims: raw, nameClaim: nameClaim,
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

// Claims decodes the user's claims into v, as [json.Unmarshal] does: those that
// [Config].OnSignIn has set, those of the ID token of the sign-in, and, of what
// these do not have, those of userinfo if [Config].Userinfo asks for it.
func (u *User) Claims(v any) error {
	if len(u.RawClaims) == 0 {
		return errors.New("signin: user has no claims")
	}
	return json.Unmarshal(u.RawClaims, v)
}

// IDToken returns the newest ID token of the user, as the issuer signed it: that of
// the sign-in, or one of up to 4 KiB that a refresh has brought. It is empty for a
// user whom a test has made up.
//
// Rarely does one need it. It tells this application who signed in, and an API
// wants an access token ([TokenSource]). A few services take ID tokens as bearer
// tokens all the same: Kubernetes, and the token services of clouds. Whoever gets
// it can be this user there until it expires, so send it to nobody else.
func (u *User) IDToken() string { return u.idToken }

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

// SignIn is what a sign-in brought, for [Config].OnSignIn. All of it has passed
// every check, but for Form: the browser has carried that, and its user can write
// there what they like. Nothing of it may be kept after OnSignIn returns but User
// and what is read from it.
type SignIn struct {
	// User is who signed in.
	User *User

	// Extends says that a session of the same user goes on, after consent or a
	// step-up.
	Extends bool

	// Claims become claims of the user ([User.Claims]), for as long as the
	// session lasts, and rules read them like any other. They take the place of the
	// ID token's of the same name. What identifies a user or a sign-in, such as
	// sub or acr, cannot be set. Values are those that [json.Marshal] takes, 16 KiB
	// in all. It is never nil, and holds what the session has where Extends is set.
	Claims map[string]any

	// IDToken is the ID token of the token endpoint, as the issuer signed it, and
	// FrontClaims are the claims of the one that the browser brought. The latter is
	// nil with ResponseType "code".
	IDToken     string
	FrontClaims json.RawMessage

	// UserInfo are the claims of userinfo; nil if there are none.
	UserInfo json.RawMessage

	// Form are further fields of the issuer's answer, such as Apple's user, which
	// tells the name once in a lifetime. The user can forge them.
	Form url.Values

	// Tokens has the access token of this sign-in, for a first call of an API. Its
	// Extra has further fields of the token endpoint's answer. It cannot renew.
	Tokens oauth2.TokenSource

	// Request is the one that brought the answer, without body and query.
	Request *http.Request
}

// maxOwnClaims bounds what OnSignIn sets, in bytes of JSON.
const maxOwnClaims = 16 << 10

// protocolClaims say who somebody is and how they signed in. Nothing but the ID
// token has a say in them.
var protocolClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "at_hash", "c_hash", "s_hash", "auth_time", "acr", "amr",
	"sid", "events", "acrs", "tid", "oid", "tfp",
}

// ownClaims are the claims that OnSignIn has set, as JSON; nil if there are none.
func ownClaims(set map[string]any) (json.RawMessage, error) {
	if len(set) == 0 {
		return nil, nil
	}
	for _, name := range protocolClaims {
		if _, ok := set[name]; ok {
			return nil, fmt.Errorf("claim %s is the issuer's to set", name)
		}
	}
	own, err := json.Marshal(set)
	switch {
	case err != nil:
		return nil, fmt.Errorf("claims that are no JSON: %w", err)
	case len(own) > maxOwnClaims:
		return nil, fmt.Errorf("claims of %d bytes, and the limit is %d", len(own), maxOwnClaims)
	}
	return own, nil
}

// vouchers say of another claim that it has been verified. They are worth
// nothing beside another value than they came with.
var vouchers = map[string][]string{
	"email": {"email_verified", "xms_edov"}, "phone_number": {"phone_number_verified"},
}

// mergeClaims lays claims over others. A value and what vouches for it come from
// one of the two, or a verified address of one would vouch for another's.
func mergeClaims(under, over json.RawMessage) json.RawMessage {
	var merged, top map[string]json.RawMessage
	if json.Unmarshal(under, &merged) != nil || merged == nil {
		return over
	}
	if json.Unmarshal(over, &top) != nil {
		return under
	}
	for name, by := range vouchers {
		value, told := top[name]
		if told && !bytes.Equal(value, merged[name]) {
			for _, voucher := range by {
				delete(merged, voucher)
			}
		}
		vouched := slices.ContainsFunc(by, func(voucher string) bool { return top[voucher] != nil })
		if vouched && !told {
			delete(merged, name)
		}
	}
	maps.Copy(merged, top)
	all, err := json.Marshal(merged)
	if err != nil {
		panic(err) // each member has been read as JSON
	}
	return all
}
