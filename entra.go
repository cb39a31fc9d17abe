package signin

import (
	"net/url"

	"github.com/seed454743b5/signin/internal/family"
)

// A Cloud is one of the separate Microsoft clouds, each with hosts, tenants
// and accounts of its own.
type Cloud string

// The clouds there are, by the host that signs users in.
const (
	EntraGlobal       Cloud = family.GlobalCloud
	EntraUSGovernment Cloud = family.USGovernmentCloud
	EntraChina        Cloud = family.ChinaCloud
)

// Entra returns the issuer of a Microsoft Entra ID tenant for [Config].Issuer:
// Entra(EntraGlobal, "contoso.onmicrosoft.com"). The tenant is an id, a domain
// name, or one of "organizations" (any work or school account), "consumers"
// (personal accounts) and "common" (both); those three are narrowed by
// [Config].Tenants.
func Entra(cloud Cloud, tenant string) string {
	return "https://" + string(cloud) + "/" + url.PathEscape(tenant) + "/v2.0"
}
