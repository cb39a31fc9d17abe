package signintest

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// leeway is how far a client's clock may be off.
const leeway = 10 * time.Second

// assertionLife is the longest a client assertion may live.
const assertionLife = 5 * time.Minute

func (c Client) public() bool {
	return c.Secret == "" && c.SecretKeys == nil && c.PublicKeys == nil && c.VerifyAssertion == nil
}

// authenticate checks the client of a token or revocation request.
func (i *Issuer) authenticate(x *exchange) (Client, *OAuthError) {
	refuse := func(description string) (Client, *OAuthError) {
		return Client{}, &OAuthError{Status: http.StatusUnauthorized, Code: "invalid_client", Description: description}
	}
	call := x.call
	if call.badClient != "" {
		return refuse(call.badClient)
	}
	client, ok := x.b.client(call.ClientID)
	if !ok {
		return refuse("unknown client")
	}
	if client.AuthMethod != "" && client.AuthMethod != call.AuthMethod {
		return refuse("the client is registered for " + client.AuthMethod)
	}
	switch call.AuthMethod {
	case "client_secret_basic", "client_secret_post":
		if id := call.Form.Get("client_id"); id != "" && id != client.ID {
			return refuse("client_id is not that of the credentials")
		}
		if err := i.checkSecret(x, client); err != nil {
			return refuse(err.Error())
		}
	case "private_key_jwt":
		if err := i.checkAssertion(x, client); err != nil {
			return refuse(err.Error())
		}
	case "none":
		if !client.public() {
			return refuse("the client has not authenticated")
		}
	default:
		return Client{}, &OAuthError{Code: "invalid_request", Description: "several client authentication methods at once"}
	}
	return client, nil
}

// checkAssertion checks a client assertion (RFC 7523, section 3, and OpenID
// Connect Core, section 9).
func (i *Issuer) checkAssertion(x *exchange, client Client) error {
	if t := x.call.Form.Get("client_assertion_type"); t != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return fmt.Errorf("client_assertion_type is %q", t)
	}
	if client.VerifyAssertion != nil {
		return client.VerifyAssertion(x.call.assertion)
	}
	token, err := parseJWT(x.call.assertion)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(client.PublicKeys, token.verify) {
		return fmt.Errorf("no key of the client verifies the assertion")
	}
	audiences := []any{token.claims["aud"]}
	if several, ok := token.claims["aud"].([]any); ok {
		audiences = several
	}
	now := x.b.now()
	exp, hasExp := claimTime(token.claims, "exp")
	nbf, hasNbf := claimTime(token.claims, "nbf")
	iat, hasIat := claimTime(token.claims, "iat")
	jti, _ := token.claims["jti"].(string)
	switch {
	case token.claims["iss"] != client.ID || token.claims["sub"] != client.ID:
		return fmt.Errorf("iss and sub of the assertion are not the client")
	case !slices.Contains(audiences, any(i.urlFor(x, EndpointToken))) && !slices.Contains(audiences, any(i.announcedIssuer(x))):
		return fmt.Errorf("aud of the assertion is not this issuer")
	case !hasExp || !exp.After(now.Add(-leeway)):
		return fmt.Errorf("the assertion has expired")
	case exp.After(now.Add(assertionLife + leeway)):
		return fmt.Errorf("the assertion lives longer than %v", assertionLife)
	case hasNbf && nbf.After(now.Add(leeway)), hasIat && iat.After(now.Add(leeway)):
		return fmt.Errorf("the assertion is from the future")
	case jti == "":
		return fmt.Errorf("the assertion has no jti")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if key := client.ID + " " + jti; !i.jtis[key] {
		i.jtis[key] = true
		return nil
	}
	return fmt.Errorf("the assertion has been used")
}

func claimTime(claims map[string]any, name string) (time.Time, bool) {
	seconds, ok := claims[name].(float64)
	return time.Unix(int64(seconds), 0), ok
}

// secretLife is the longest that a client secret that is a JWT may live.
const secretLife = 15777000 * time.Second

// checkSecret checks a client secret.
func (i *Issuer) checkSecret(x *exchange, client Client) error {
	if client.SecretKeys != nil {
		return i.checkSecretJWT(x, client)
	}
	if client.Secret == "" || subtle.ConstantTimeCompare([]byte(client.Secret), []byte(x.call.secret)) != 1 {
		return fmt.Errorf("wrong secret")
	}
	return nil
}

// checkSecretJWT checks a client secret that is a JWT, as Apple wants it: of the
// client (sub), for the issuer (aud), with an end (exp).
func (i *Issuer) checkSecretJWT(x *exchange, client Client) error {
	token, err := parseJWT(x.call.secret)
	if err != nil || !slices.ContainsFunc(client.SecretKeys, token.verify) {
		return fmt.Errorf("the secret is not a JWT of the client's")
	}
	exp, ok := claimTime(token.claims, "exp")
	now := x.b.now()
	switch {
	case token.claims["sub"] != client.ID || token.claims["iss"] == nil:
		return fmt.Errorf("sub of the secret is not the client, or iss is missing")
	case token.claims["aud"] != i.announcedIssuer(x):
		return fmt.Errorf("aud of the secret is not this issuer")
	case !ok || !exp.After(now) || exp.After(now.Add(secretLife+leeway)):
		return fmt.Errorf("the secret has expired, or lives longer than six months")
	}
	return nil
}
