package signintest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// TokenInfo is what the issuer knows about an access or refresh token it has
// handed out. Tokens are opaque; their owner is known to the issuer alone.
type TokenInfo struct {
	// Token is the token itself.
	Token string
	// Refresh tells a refresh token from an access token.
	Refresh bool
	// Subject is the user it speaks for; for client credentials the client ID.
	Subject string
	// ClientID is whom it was given to.
	ClientID string
	// SessionID is the sid of the sign-in it comes from.
	SessionID string
	// Scopes, Resources and Audience are what it is good for. Audience is that
	// of the "audience" parameter some issuers know.
	Scopes, Resources, Audience []string
	// Claims is the claims parameter it was asked for with, as sent.
	Claims string
	// ACR and AuthTime are those of the sign-in it comes from.
	ACR      string
	AuthTime time.Time
	// Issued and Expiry are by the issuer's clock. Refresh tokens do not
	// expire.
	Issued, Expiry time.Time
	// Active is false if it has expired, been revoked, or been spent.
	Active bool
}

// token is a token that was handed out.
type token struct {
	TokenInfo
	grant   *grant // nil for client credentials
	refresh bool

	spent, revoked bool // guarded by Issuer.mu
}

func (i *Issuer) issueCode(g *grant) string {
	code := random("code_")
	i.mu.Lock()
	defer i.mu.Unlock()
	i.codes[code] = g
	i.secrets = append(i.secrets, code)
	i.grants = append(i.grants, g)
	key := consent{g.clientID, g.user.Subject}
	if i.consents[key] == nil {
		i.consents[key] = map[string]bool{}
	}
	for _, s := range g.scopes {
		i.consents[key][i.behaviour.Load().meaning(s)] = true
	}
	return code
}

// issueTokens makes an access token and, if it is to be, a refresh token.
func (i *Issuer) issueTokens(b *Behaviour, is *issue) (access, refresh string) {
	now := b.now()
	info := TokenInfo{
		Token: random("at_"), Subject: is.clientID, ClientID: is.clientID,
		Scopes: is.scopes, Resources: is.resources, Audience: is.audience, Claims: is.claims,
		Issued: now, Expiry: now.Add(b.accessTokenLifetime()),
	}
	if g := is.grant; g != nil {
		info.Subject, info.SessionID = g.user.Subject, g.session.sid
		info.ACR, info.AuthTime = g.acr, g.session.authTime
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens[info.Token] = &token{TokenInfo: info, grant: is.grant}
	i.secrets = append(i.secrets, info.Token)
	if !is.refresh {
		return info.Token, ""
	}
	long := info
	long.Token, long.Refresh, long.Expiry = random("rt_"), true, time.Time{}
	long.Scopes = is.grant.scopes
	i.tokens[long.Token] = &token{TokenInfo: long, grant: is.grant, refresh: true}
	i.secrets = append(i.secrets, long.Token)
	return info.Token, long.Token
}

// TokenInfo tells what an access or refresh token is. It reports false for a
// token the issuer has not handed out.
func (i *Issuer) TokenInfo(raw string) (TokenInfo, bool) {
	now := i.behaviour.Load().now()
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.tokens[raw]
	if t == nil {
		return TokenInfo{}, false
	}
	return i.info(t, now), true
}

// info is the state of a token. The caller holds mu.
func (i *Issuer) info(t *token, now time.Time) TokenInfo {
	info := t.TokenInfo
	rotated := t.spent && i.behaviour.Load().RefreshTokens == RefreshRotate
	info.Active = !t.revoked && !rotated && (t.grant == nil || !t.grant.revoked) && (t.refresh || now.Before(t.Expiry))
	return info
}

// Tokens lists the tokens handed out for a subject, or for everybody if it is
// empty, in the order of their issue.
func (i *Issuer) Tokens(subject string) []TokenInfo {
	now := i.behaviour.Load().now()
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []TokenInfo
	for _, raw := range i.secrets {
		if t := i.tokens[raw]; t != nil && (subject == "" || t.Subject == subject) {
			all = append(all, i.info(t, now))
		}
	}
	return all
}

// RevokeGrants makes all tokens of a user worthless, refresh tokens too, as an
// administrator or a change of password does. An empty subject means all users.
func (i *Issuer) RevokeGrants(subject string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, g := range i.grants {
		if subject == "" || g.user.Subject == subject {
			g.revoked = true
		}
	}
}

// RevokeAccessTokens makes the access tokens of a user worthless, and leaves
// the refresh tokens. An empty subject means everybody.
func (i *Issuer) RevokeAccessTokens(subject string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range i.tokens {
		if !t.refresh && (subject == "" || t.Subject == subject) {
			t.revoked = true
		}
	}
}

// revocation serves RFC 7009. A refresh token takes its whole grant along.
func (i *Issuer) revocation(w http.ResponseWriter, x *exchange) {
	client, oerr := i.authenticate(x)
	if oerr != nil {
		x.writeError(w, *oerr)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.tokens[x.call.Form.Get("token")]
	switch {
	case x.call.Form.Get("token") == "":
		x.writeError(w, OAuthError{Code: "invalid_request", Description: "token is missing"})
	case t == nil: // section 2.2: an unknown token is as good as revoked
	case t.ClientID != client.ID:
		x.writeError(w, OAuthError{Code: "unauthorized_client", Description: "the token is another client's"})
	case t.refresh:
		t.grant.revoked = true
	default:
		t.revoked = true
	}
}

// bearer returns the token of an Authorization header.
func bearer(r *http.Request) string {
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return raw
}

// api is a resource server. It tells whose token it got. The query parameter
// "need" names scopes without which it answers 403 insufficient_scope.
func (i *Issuer) api(w http.ResponseWriter, x *exchange) {
	t := x.call.Token
	if !t.Active || t.Refresh {
		i.refuseToken(w, x)
		return
	}
	for _, need := range strings.Fields(x.r.URL.Query().Get("need")) {
		if !slices.Contains(t.Scopes, need) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_scope", scope="%s"`, need))
			writeJSON(w, http.StatusForbidden, map[string]string{"error": "insufficient_scope"})
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"sub": t.Subject, "client_id": t.ClientID, "scope": strings.Join(t.Scopes, " "),
		"resource": t.Resources, "audience": t.Audience, "claims": t.Claims,
		"method": x.call.Method, "url": x.call.URL, "body": string(x.call.Body),
	})
}

// userInfo serves OpenID Connect Core, section 5.3. A token for a resource is
// not for it.
func (i *Issuer) userInfo(w http.ResponseWriter, x *exchange) {
	t := x.call.Token
	user, ok := x.b.user(t.Subject)
	if !t.Active || t.Refresh || !ok || user.Subject != t.Subject || len(t.Resources) > 0 {
		i.refuseToken(w, x)
		return
	}
	claims := x.b.claimsOf(user)
	claims["sub"] = user.Subject
	writeJSON(w, http.StatusOK, claims)
}

// refuseToken answers as RFC 6750, section 3.1 says: without an error code to
// those who sent no token at all.
func (i *Issuer) refuseToken(w http.ResponseWriter, x *exchange) {
	if bearer(x.r) == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		writeJSON(w, http.StatusUnauthorized, map[string]string{})
		return
	}
	f := InvalidToken()
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(f.Status)
	w.Write([]byte(f.Body))
}
