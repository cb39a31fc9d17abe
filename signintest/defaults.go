package signintest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

func defaultBehaviour() *Behaviour {
	account := func(subject, name, object string) User {
		return User{
			Subject: subject,
			Claims: map[string]any{
				"name":               name,
				"preferred_username": subject + "@example.test",
				"email":              subject + "@example.test",
				"email_verified":     true,
			},
			TenantID: "11111111-1111-1111-1111-111111111111",
			ObjectID: object,
		}
	}
	return &Behaviour{
		Clients: []Client{{ID: "client", Secret: "secret"}},
		Users: []User{
			account("alice", "Alice Example", "aaaaaaaa-0000-0000-0000-000000000001"),
			account("bob", "Bob Example", "bbbbbbbb-0000-0000-0000-000000000002"),
		},
	}
}

// clone returns a copy whose slices and maps are its own, so that Update never
// touches what a request is reading.
func (b *Behaviour) clone() *Behaviour {
	c := *b
	c.AuthMethods = slices.Clone(b.AuthMethods)
	c.Consented = slices.Clone(b.Consented)
	c.APIs = slices.Clone(b.APIs)
	c.APIScopes = slices.Clone(b.APIScopes)
	c.GrantedNames = maps.Clone(b.GrantedNames)
	c.Scopes = slices.Clone(b.Scopes)
	c.ResponseTypes = slices.Clone(b.ResponseTypes)
	c.ResponseModes = slices.Clone(b.ResponseModes)
	c.Audiences = slices.Clone(b.Audiences)
	c.FormPostScopes = slices.Clone(b.FormPostScopes)
	c.Tenants = maps.Clone(b.Tenants)
	c.Endpoints = maps.Clone(b.Endpoints)
	c.DiscoveryMembers = maps.Clone(b.DiscoveryMembers)
	c.IDTokenClaims = maps.Clone(b.IDTokenClaims)
	c.TokenMembers = maps.Clone(b.TokenMembers)
	c.PushMembers = maps.Clone(b.PushMembers)
	c.Resources = slices.Clone(b.Resources)
	c.Clients = slices.Clone(b.Clients)
	for n := range c.Clients {
		c.Clients[n].PublicKeys = slices.Clone(c.Clients[n].PublicKeys)
		c.Clients[n].SecretKeys = slices.Clone(c.Clients[n].SecretKeys)
		c.Clients[n].RedirectURIs = slices.Clone(c.Clients[n].RedirectURIs)
		c.Clients[n].PostLogoutRedirectURIs = slices.Clone(c.Clients[n].PostLogoutRedirectURIs)
	}
	c.Users = slices.Clone(b.Users)
	for n := range c.Users {
		c.Users[n].Claims = maps.Clone(c.Users[n].Claims)
	}
	if b.Refuse != nil {
		c.Refuse = new(*b.Refuse)
	}
	if b.InvalidGrant != nil {
		c.InvalidGrant = new(*b.InvalidGrant)
	}
	return &c
}

func (b *Behaviour) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now()
}

// sendsIss reports whether RFC 9207 is announced and done. Microsoft does not.
func (b *Behaviour) sendsIss() bool { return !b.OmitIss && !b.microsoft() }

// microsoft reports whether URLs name tenants.
func (b *Behaviour) microsoft() bool { return b.Entra || b.B2C }

// tenantID is the id of the tenant that a URL names, by name or by id.
func (b *Behaviour) tenantID(tenant string) string {
	return cmp.Or(b.Tenants[strings.ToLower(tenant)], tenant)
}

// claimsOf are a user's claims as the issuer spells them.
func (b *Behaviour) claimsOf(u User) map[string]any {
	claims := map[string]any{}
	for name, v := range u.Claims {
		if truth, ok := v.(bool); ok && b.StringBooleans {
			v = strconv.FormatBool(truth)
		}
		claims[name] = v
	}
	return claims
}

// replace puts members into a document, and takes away those that are nil.
func replace(document, members map[string]any) {
	for name, v := range members {
		if document[name] = v; v == nil {
			delete(document, name)
		}
	}
}

func (b *Behaviour) alg() string {
	if b.Alg != "" {
		return b.Alg
	}
	return "RS256"
}

func (b *Behaviour) client(id string) (Client, bool) {
	for _, c := range b.Clients {
		if c.ID == id {
			return c, true
		}
	}
	return Client{}, false
}

// user chooses who signs in.
func (b *Behaviour) user(hint string) (User, bool) {
	for _, u := range b.Users {
		if hint != "" && (u.Subject == hint || u.Claims["preferred_username"] == hint || u.Claims["email"] == hint) {
			return u, true
		}
	}
	for _, u := range b.Users {
		if b.User == "" || u.Subject == b.User {
			return u, true
		}
	}
	return User{}, false
}

func (b *Behaviour) accessTokenLifetime() time.Duration {
	if b.AccessTokenLifetime != 0 {
		return b.AccessTokenLifetime
	}
	return time.Hour
}

func (b *Behaviour) idTokenLifetime() time.Duration {
	if b.IDTokenLifetime != 0 {
		return b.IDTokenLifetime
	}
	return time.Hour
}
