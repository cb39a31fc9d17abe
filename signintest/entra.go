package signintest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// consumers is the tenant of personal Microsoft accounts, the same for all.
const consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"

// entraPaths are the endpoints below /{tenant}, as Entra ID lays them out.
var entraPaths = map[Endpoint]string{
	EndpointDiscovery:  "/v2.0/.well-known/openid-configuration",
	EndpointKeys:       "/discovery/v2.0/keys",
	EndpointAuthorize:  "/oauth2/v2.0/authorize",
	EndpointToken:      "/oauth2/v2.0/token",
	EndpointRevocation: "/oauth2/v2.0/revoke",
	EndpointEndSession: "/oauth2/v2.0/logout",
	EndpointUserInfo:   "/oidc/userinfo",
	EndpointAPI:        "/api",
}

// entraPath returns an endpoint's path below the tenant. Version 1 is version
// 2 without the "v2.0".
func entraPath(e Endpoint, v1 bool) string {
	if v1 {
		return strings.Replace(entraPaths[e], "/v2.0", "", 1)
	}
	return entraPaths[e]
}

// place is where in an issuer of many tenants a request arrives.
type place struct {
	prefix string // of the path, from the slash
	tenant string
	policy string // B2C
	v1     bool   // Entra: the endpoints without v2.0
}

// splitPath takes a path apart into the place and what follows.
func (b *Behaviour) splitPath(path string) (place, string) {
	var p place
	rest := strings.TrimPrefix(path, "/")
	next := func() (segment string) {
		segment, rest, _ = strings.Cut(rest, "/")
		p.prefix += "/" + segment
		return segment
	}
	p.tenant = next()
	if b.B2C {
		if p.tenant == "tfp" {
			p.tenant = next()
		}
		p.policy = next()
	}
	return p, "/" + rest
}

// placeOf is the place that the issuer's own URL names.
func (i *Issuer) placeOf(b *Behaviour) place {
	p, rest := b.splitPath(i.url.Path)
	p.v1 = b.Entra && !strings.HasPrefix(rest, "/v2.0")
	return p
}

func (i *Issuer) entraURL(e Endpoint, p place) string {
	u := *i.url
	u.Path = p.prefix + entraPath(e, p.v1)
	return u.String()
}

func (i *Issuer) entraRoute(x *exchange) (Endpoint, bool) {
	p, rest := x.b.splitPath(x.r.URL.Path)
	if p.tenant == "" || x.b.B2C && p.policy == "" {
		return "", false
	}
	x.place = p
	for _, v1 := range []bool{false, x.b.Entra} {
		for e := range entraPaths {
			p := entraPath(e, v1)
			if rest == p || e == EndpointAPI && strings.HasPrefix(rest, p+"/") {
				x.v1 = v1
				return e, true
			}
		}
	}
	return "", false
}

// announcedIssuer is the issuer in the discovery document. Entra's for several
// tenants names none of them.
func (i *Issuer) announcedIssuer(x *exchange) string {
	tenant := x.b.tenantID(x.tenant)
	switch {
	case x.b.IssuerName != "":
		return i.named(x.b.IssuerName, x.place, tenant)
	case !x.b.Entra:
		return i.URL()
	}
	switch tenant {
	case "common", "organizations":
		tenant = "{tenantid}"
	case "consumers":
		tenant = consumers
	}
	return i.entraIssuer(tenant, x.v1)
}

// entraIssuer is the issuer of a tenant. That of version 1 is another host,
// with a slash at its end.
func (i *Issuer) entraIssuer(tenant string, v1 bool) string {
	if v1 {
		return "https://sts.windows.net/" + tenant + "/"
	}
	return i.url.Scheme + "://" + i.url.Host + "/" + tenant + "/v2.0"
}

// tokenIssuer is the issuer in tokens: Entra's names the tenant signed in to.
func (i *Issuer) tokenIssuer(b *Behaviour, g *grant) string {
	switch {
	case b.TokenIssuer != "":
		return i.named(b.TokenIssuer, g.place, g.tenantID())
	case b.IssuerName != "":
		return i.named(b.IssuerName, g.place, g.tenantID())
	case !b.Entra:
		return i.URL()
	}
	return i.entraIssuer(g.tenantID(), g.v1)
}

// name is what the issuer calls itself at its own URL.
func (i *Issuer) name(b *Behaviour) string {
	if b.IssuerName == "" {
		return i.URL()
	}
	p := i.placeOf(b)
	return i.named(b.IssuerName, p, b.tenantID(p.tenant))
}

// named writes an issuer's name for a place.
func (i *Issuer) named(template string, p place, tenantID string) string {
	return strings.NewReplacer("{origin}", origin(i.url), "{tenantid}", tenantID, "{policy}", p.policy).Replace(template)
}

// tenantID is the tenant a user has signed in to: their own, unless the path
// named another, where they are a guest.
func (g *grant) tenantID() string {
	switch g.tenant {
	case "common", "organizations", "":
		return g.user.TenantID
	case "consumers":
		return consumers
	}
	return g.tenant
}

// microsoftClaims are what Entra and B2C add to ID tokens. A guest has an object ID
// of its own in the host tenant.
func (g *grant) microsoftClaims(b *Behaviour) map[string]any {
	if b.B2C {
		return map[string]any{"tfp": g.policy, "oid": g.user.ObjectID, "ver": "1.0"}
	}
	tid, oid, ver := g.tenantID(), g.user.ObjectID, "2.0"
	if tid != g.user.TenantID {
		h := sha256.Sum256([]byte(oid + "@" + tid))
		oid = fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	if g.v1 {
		ver = "1.0"
	}
	claims := map[string]any{"tid": tid, "oid": oid, "ver": ver}
	if len(g.idACRs) > 0 {
		claims["acrs"] = g.idACRs
	}
	return claims
}

// clientInfo names the user's home account, as Entra sends it to those who
// ask with client_info=1.
func (u User) clientInfo() string {
	body, err := json.Marshal(map[string]string{"uid": u.ObjectID, "utid": u.TenantID})
	if err != nil {
		panic("signintest: encoding client_info: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(body)
}
