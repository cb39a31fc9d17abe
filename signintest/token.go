package signintest

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// grant is what a user has given to a client, by one authorization request.
type grant struct {
	clientID     string
	user         User
	scopes       []string
	resources    []string
	audience     []string
	nonce        string
	claims       string
	acr          string
	session      session
	clientInfo   bool
	acrs         []string // Entra: authentication contexts shown
	idACRs       []string // those that the ID token names
	api          string   // Entra: that of the first token; guarded by Issuer.mu
	refreshToken bool     // is to be given
	place
	redirectURI string
	challenge   string // PKCE
	codeExpiry  time.Time

	// Guarded by Issuer.mu.
	codeSpent bool
	revoked   bool
}

// issue is what a token answer will hold.
type issue struct {
	grant     *grant // nil for client credentials
	clientID  string
	scopes    []string
	resources []string
	audience  []string
	claims    string
	refresh   bool // give a refresh token
	channel   Channel
}

// serveToken serves the token endpoint (RFC 6749, section 3.2).
func (i *Issuer) serveToken(w http.ResponseWriter, x *exchange) {
	w.Header().Set("Cache-Control", "no-store")
	if x.call.Method != http.MethodPost {
		http.Error(w, "signintest: the token endpoint wants POST", http.StatusMethodNotAllowed)
		return
	}
	if name := duplicate(x.call.Form); name != "" {
		x.writeError(w, OAuthError{Code: "invalid_request", Description: name + " is given twice"})
		return
	}
	client, oerr := i.authenticate(x)
	if oerr != nil {
		x.writeError(w, *oerr)
		return
	}
	var is *issue
	switch x.call.GrantType {
	case "authorization_code":
		is, oerr = i.redeem(x, client)
	case "refresh_token":
		is, oerr = i.refresh(x, client)
	case "client_credentials":
		is, oerr = i.clientCredentials(x, client)
	default:
		oerr = &OAuthError{Code: "unsupported_grant_type"}
	}
	if oerr != nil {
		x.writeError(w, *oerr)
		return
	}
	body, err := i.tokenBody(x, is)
	if err != nil {
		x.writeError(w, OAuthError{Status: http.StatusInternalServerError, Code: "server_error", Description: err.Error()})
		return
	}
	x.writeJSON(w, body)
}

func (x *exchange) writeError(w http.ResponseWriter, e OAuthError) {
	if other := x.b.InvalidGrant; other != nil && e.Code == "invalid_grant" {
		description := cmp.Or(other.Description, e.Description)
		e = *other
		e.Description = description
	}
	f := e.Fault()
	maps.Copy(w.Header(), f.Header)
	writeLabelled(w, f.Status, x.b.ErrorType, x.b.marked([]byte(f.Body)))
}

func invalidGrant(description string) *OAuthError {
	return &OAuthError{Code: "invalid_grant", Description: description}
}

// redeem exchanges a code. A code that comes twice revokes what it has brought
// (RFC 6749, section 4.1.2).
func (i *Issuer) redeem(x *exchange, client Client) (*issue, *OAuthError) {
	f := x.call.Form
	i.mu.Lock()
	defer i.mu.Unlock()
	g := i.codes[f.Get("code")]
	switch {
	case g == nil:
		return nil, invalidGrant("unknown code")
	case g.clientID != client.ID:
		return nil, invalidGrant("the code is another client's")
	case g.codeSpent:
		g.revoked = true
		return nil, invalidGrant("the code has been used")
	case x.b.now().After(g.codeExpiry):
		return nil, invalidGrant("the code has expired")
	case g.redirectURI != f.Get("redirect_uri"):
		return nil, invalidGrant("redirect_uri is not that of the authorization request")
	}
	verifier := f.Get("code_verifier")
	sum := sha256.Sum256([]byte(verifier))
	derived := base64.RawURLEncoding.EncodeToString(sum[:])
	if g.challenge != "" && subtle.ConstantTimeCompare([]byte(derived), []byte(g.challenge)) != 1 {
		return nil, invalidGrant("code_verifier does not match")
	}
	if g.challenge != "" && (len(verifier) < 43 || len(verifier) > 128) {
		return nil, invalidGrant("code_verifier has not 43 to 128 characters") // RFC 7636, section 4.1
	}
	if g.challenge == "" && verifier != "" {
		return nil, invalidGrant("code_verifier without code_challenge")
	}
	is := &issue{grant: g, clientID: client.ID, scopes: g.scopes, resources: g.resources, audience: g.audience,
		claims: g.claims, channel: BackChannel}
	if oerr := i.oneAPI(x, is); oerr != nil {
		return nil, oerr
	}
	if oerr := is.aim(x); oerr != nil {
		return nil, oerr
	}
	g.codeSpent = true
	is.refresh = g.refreshToken
	return is, nil
}

// refresh serves RFC 6749, section 6.
func (i *Issuer) refresh(x *exchange, client Client) (*issue, *OAuthError) {
	f := x.call.Form
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.tokens[f.Get("refresh_token")]
	switch {
	case t == nil || !t.refresh:
		return nil, invalidGrant("unknown refresh token")
	case t.grant.clientID != client.ID:
		return nil, invalidGrant("the refresh token is another client's")
	case t.spent && x.b.RefreshTokens == RefreshRotate:
		t.grant.revoked = true
		return nil, invalidGrant("the refresh token has been used")
	case t.grant.revoked || t.revoked:
		return nil, invalidGrant("the refresh token has been revoked")
	}
	g := t.grant
	is := &issue{grant: g, clientID: client.ID, scopes: g.scopes, resources: g.resources, audience: g.audience,
		claims: g.claims, channel: RefreshChannel, refresh: x.b.RefreshTokens != RefreshKeep}
	if oerr := i.oneAPI(x, is); oerr != nil {
		return nil, oerr
	}
	if oerr := i.narrow(x.b, is, strings.Fields(f.Get("scope"))); oerr != nil {
		return nil, oerr
	}
	if oerr := is.aim(x); oerr != nil {
		return nil, oerr
	}
	t.spent = true
	if x.b.RefreshEndsAccess {
		for _, other := range i.tokens {
			if other.grant == g && !other.refresh {
				other.revoked = true
			}
		}
	}
	return is, nil
}

// narrow makes a refresh one for the scopes asked for, if any.
func (i *Issuer) narrow(b *Behaviour, is *issue, asked []string) *OAuthError {
	if len(asked) == 0 {
		return nil
	}
	for _, s := range asked {
		if !i.consented(b, is.grant, s) {
			return b.missingConsent(s)
		}
	}
	is.scopes = asked
	if b.RefreshNarrows {
		is.grant.scopes = asked
	}
	return nil
}

// consented reports whether a refresh may ask for a scope. The caller holds mu.
func (i *Issuer) consented(b *Behaviour, g *grant, scope string) bool {
	if reserved(scope) {
		return true
	}
	if b.RefreshNarrows {
		return slices.Contains(g.scopes, scope)
	}
	given := i.consents[consent{g.clientID, g.user.Subject}]
	meaning := b.meaning(scope)
	if api, ok := strings.CutSuffix(meaning, "/.default"); ok && b.Entra {
		for s := range given { // what has been consented to, of that API
			if a, _ := splitScope(s); a == api {
				return true
			}
		}
	}
	return given[meaning] || slices.ContainsFunc(b.Consented, func(s string) bool { return b.meaning(s) == meaning })
}

func (b *Behaviour) missingConsent(scope string) *OAuthError {
	if b.Entra {
		e := entraError("invalid_grant", "65001", "no consent for "+scope)
		e.Extra["suberror"] = "consent_required"
		return e
	}
	return &OAuthError{Code: "invalid_scope", Description: "no consent for " + scope}
}

func (i *Issuer) clientCredentials(x *exchange, client Client) (*issue, *OAuthError) {
	if client.public() {
		return nil, &OAuthError{Code: "unauthorized_client", Description: "a public client has no tokens of its own"}
	}
	is := &issue{clientID: client.ID, scopes: strings.Fields(x.call.Form.Get("scope"))}
	if x.b.GrantScopes != nil {
		is.scopes = x.b.GrantScopes(slices.Clone(is.scopes))
	}
	if oerr := i.oneAPI(x, is); oerr != nil {
		return nil, oerr
	}
	if oerr := is.aim(x); oerr != nil {
		return nil, oerr
	}
	return is, nil
}

// aim takes over what a token request asks for beside scopes.
func (is *issue) aim(x *exchange) *OAuthError {
	f := x.call.Form
	if r := f["resource"]; len(r) > 0 {
		is.resources = r
	}
	if a := f["audience"]; len(a) > 0 {
		is.audience = a
	}
	if c := f.Get("claims"); c != "" {
		is.claims = c
	}
	if !x.b.knowResources(is.resources) {
		return &OAuthError{Code: "invalid_target"}
	}
	return is.stepUp(x)
}

func (b *Behaviour) knowResources(asked []string) bool {
	return b.Resources == nil || !slices.ContainsFunc(asked, func(r string) bool { return !slices.Contains(b.Resources, r) })
}

// tokenBody makes the tokens and the answer that carries them.
func (i *Issuer) tokenBody(x *exchange, is *issue) (map[string]any, error) {
	access, refresh := i.issueTokens(x.b, is)
	if x.b.OmitAccessToken || x.b.B2C && !is.b2cAccess() {
		access = ""
	}
	body := x.b.accessMembers(access)
	if !x.b.OmitScope {
		body["scope"] = x.b.grantedScope(is)
	}
	if refresh != "" {
		body["refresh_token"] = refresh
	}
	g := is.grant
	if g != nil && !(is.channel == RefreshChannel && x.b.OmitRefreshedIDToken) {
		raw, err := i.issueIDToken(x, g, is.channel, "", access)
		if err != nil {
			return nil, err
		}
		if raw != "" {
			body["id_token"] = raw
		}
	}
	if g != nil && g.sendsClientInfo(x) {
		body["client_info"] = g.user.clientInfo()
	}
	replace(body, x.b.TokenMembers)
	if x.b.EditTokenResponse != nil {
		x.b.EditTokenResponse(*x.call, body)
	}
	return body, nil
}

// sendsClientInfo reports whether a token answer names the home account.
func (g *grant) sendsClientInfo(x *exchange) bool {
	return x.b.microsoft() && (g.clientInfo || x.call.Form.Get("client_info") == "1")
}

// accessMembers are what a token answer says of its access token, if there is one.
func (b *Behaviour) accessMembers(access string) map[string]any {
	body := map[string]any{"token_type": "Bearer"}
	if access == "" {
		body["id_token_expires_in"] = int64(b.idTokenLifetime() / time.Second)
		return body
	}
	body["access_token"] = access
	seconds := int64(b.accessTokenLifetime() / time.Second)
	if !b.OmitExpiresIn {
		body["expires_in"] = seconds
		if b.ExpiresIn != nil {
			body["expires_in"] = b.ExpiresIn(seconds)
		}
	}
	if b.RefreshIn > 0 {
		body["refresh_in"] = int64(b.RefreshIn / time.Second)
	}
	return body
}
