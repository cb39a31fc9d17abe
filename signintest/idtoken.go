package signintest

import (
	"crypto/rand"
	"maps"
	"time"
)

// Channel says on which way an ID token travels.
type Channel int

const (
	// FrontChannel tokens come with the authorization response, through the
	// browser.
	FrontChannel Channel = iota
	// BackChannel tokens come with the redemption of a code.
	BackChannel
	// RefreshChannel tokens come with a refresh.
	RefreshChannel
)

// String returns "front", "back" or "refresh".
func (c Channel) String() string {
	return [...]string{"front", "back", "refresh"}[c]
}

// IDToken is an ID token about to be signed and sent.
type IDToken struct {
	// Channel is how it travels.
	Channel Channel

	// User is whom it speaks of, and ClientID whom it is for. Read only.
	User     User
	ClientID string

	// Code and AccessToken are what c_hash and at_hash cover; each is empty
	// where there is none.
	Code, AccessToken string

	// Claims are signed. All may be changed, added and deleted.
	Claims map[string]any

	// Signing chooses key and algorithm. c_hash and at_hash have been made
	// with the hash of Behaviour.Alg.
	Signing SignOptions

	// Raw, if not empty, is sent as it is, in place of the signed token.
	Raw string

	// Omit sends no ID token at all.
	Omit bool
}

// idClaims are the claims of an ID token, before a test edits them.
func (i *Issuer) idClaims(x *exchange, g *grant, channel Channel, code, accessToken string) map[string]any {
	now := x.b.now()
	claims := map[string]any{
		"iss":       i.tokenIssuer(x.b, g),
		"sub":       g.user.Subject,
		"aud":       g.clientID,
		"iat":       now.Unix(),
		"exp":       now.Add(x.b.idTokenLifetime()).Unix(),
		"auth_time": g.session.authTime.Unix(),
		"sid":       g.session.sid,
	}
	if g.nonce != "" && channel != RefreshChannel {
		claims["nonce"] = g.nonce
	}
	if g.acr != "" {
		claims["acr"] = g.acr
	}
	if code != "" {
		claims["c_hash"] = HalfHash(x.b.alg(), code)
	}
	if accessToken != "" {
		claims["at_hash"] = HalfHash(x.b.alg(), accessToken)
	}
	if x.b.microsoft() {
		maps.Copy(claims, g.microsoftClaims(x.b))
	}
	if x.b.OmitSID {
		delete(claims, "sid")
	}
	if x.b.RefreshMovesAuthTime && channel == RefreshChannel {
		claims["auth_time"] = now.Unix()
	}
	if !x.b.ClaimsInUserInfo {
		maps.Copy(claims, x.b.claimsOf(g.user))
	}
	replace(claims, x.b.IDTokenClaims)
	return claims
}

// issueIDToken makes the ID token of a grant. It is empty if the test omits it.
func (i *Issuer) issueIDToken(x *exchange, g *grant, channel Channel, code, accessToken string) (string, error) {
	t := &IDToken{Channel: channel, User: g.user, ClientID: g.clientID, Code: code, AccessToken: accessToken,
		Claims: i.idClaims(x, g, channel, code, accessToken)}
	if client, _ := x.b.client(g.clientID); x.b.Entra && client.OwnKey {
		own, err := i.ownKey(client.ID, x.b.alg())
		if err != nil {
			return "", err
		}
		t.Signing.Key = &own
	}
	if x.b.EditIDToken != nil {
		x.b.EditIDToken(t)
	}
	if t.Omit {
		return "", nil
	}
	raw, err := i.encode(x.b, g, t)
	if err != nil {
		return "", err
	}
	i.remember(raw)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.newest[g.session.sid] = raw
	return raw, nil
}

// encode makes the token that is sent.
func (i *Issuer) encode(b *Behaviour, g *grant, t *IDToken) (string, error) {
	switch {
	case t.Raw != "":
		return t.Raw, nil
	case b.RepeatIDToken && t.Channel == RefreshChannel:
		return i.NewestIDToken(g.session.sid), nil
	case b.EncryptIDTokens:
		return unreadable(), nil
	case t.Signing.Alg == "" && t.Signing.Key == nil:
		t.Signing.Alg = b.alg()
	}
	return i.sign(t.Claims, t.Signing)
}

// LogoutToken returns the claims of a good logout token (OpenID Connect
// Back-Channel Logout 1.0, section 2.4) for the first client, to be edited and
// signed:
//
//	claims := issuer.LogoutToken("alice", "")
//	raw := issuer.Sign(claims, signintest.SignOptions{Header: map[string]any{"typ": "logout+jwt"}})
//
// An empty subject or sid is left out.
func (i *Issuer) LogoutToken(subject, sid string) map[string]any {
	b := i.behaviour.Load()
	now := b.now()
	claims := map[string]any{
		"iss":    i.name(b),
		"iat":    now.Unix(),
		"exp":    now.Add(2 * time.Minute).Unix(),
		"jti":    rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	if len(b.Clients) > 0 {
		claims["aud"] = b.Clients[0].ID
	}
	if subject != "" {
		claims["sub"] = subject
	}
	if sid != "" {
		claims["sid"] = sid
	}
	return claims
}
