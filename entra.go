package signin

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/internal/text"
)

// A Cloud is one of the separate Microsoft clouds, each with hosts, tenants
// and accounts of its own.
type Cloud string

// The clouds there are, by the host that signs users in.
const (
	Global       Cloud = "login.microsoftonline.com"
	USGovernment Cloud = "login.microsoftonline.us"
	China        Cloud = "login.partner.microsoftonline.cn"
)

// Entra returns the issuer of a Microsoft Entra ID tenant for [Config].Issuer:
// Entra(Global, "contoso.onmicrosoft.com"). The tenant is an id, a domain
// name, or one of "organizations" (any work or school account), "consumers"
// (personal accounts) and "common" (both); those three are narrowed by
// [Config].Tenants.
func Entra(cloud Cloud, tenant string) string {
	return "https://" + string(cloud) + "/" + url.PathEscape(tenant) + "/v2.0"
}

// entraHosts are the hosts of Entra's issuers and endpoints, with their older
// names, by cloud.
var entraHosts = map[string]Cloud{
	"login.microsoftonline.com": Global, "login.microsoft.com": Global,
	"login.windows.net": Global, "sts.windows.net": Global,
	"login.microsoftonline.us": USGovernment, "login.usgovcloudapi.net": USGovernment,
	"login.partner.microsoftonline.cn": China, "login.chinacloudapi.cn": China,
	"sts.chinacloudapi.cn": China,
}

// securityTokenServices are the hosts that v1.0 tokens name as issuer. The US
// Government cloud shares the global one's.
var securityTokenServices = map[Cloud]string{
	Global:       "sts.windows.net",
	USGovernment: "sts.windows.net",
	China:        "sts.chinacloudapi.cn",
}

const (
	tenantTemplate = "{tenantid}"

	// personalTenant is the tenant of all personal Microsoft accounts.
	personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// entraNumber is Entra's number of an error, in the description of one.
var entraNumber = regexp.MustCompile(`AADSTS[0-9]{1,10}`)

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// issuerRule decides whether a token's iss and tid are acceptable. For an
// issuer that is not Entra that is one comparison.
type issuerRule struct {
	// forms are the issuers accepted. In each, {tenantid} stands for the
	// token's tid if the discovery document has that template.
	forms []string

	// segment is the tenant as configured: an id, a name, or common,
	// organizations or consumers; empty for other issuers.
	segment string
	tenant  string // the one tenant, by id; empty if there may be several
	allowed []string
}

// newIssuerRule compares the issuer configured with the one documented. They
// must be equal, except that Entra documents a template or a tenant's id
// where one configures common or the tenant's name, and its v1.0 endpoints
// document a host of their own.
func newIssuerRule(configured, documented string, tenants []string) (issuerRule, error) {
	rule := issuerRule{forms: []string{documented}, allowed: lowered(tenants)}
	mismatch := fmt.Errorf("the issuer calls itself %q; configure that in place of %q", text.Printable(documented, 200), configured)
	if strings.Contains(documented, tenantTemplate) {
		mismatch = fmt.Errorf("the issuer calls itself %q; configure that in place of %q, with a tenant, common, organizations or consumers where %s stands", text.Printable(documented, 200), configured, tenantTemplate)
	}

	base, segment, suffix, multi := splitTenant(configured)
	cloud, onEntra := cloudOf(configured)
	switch {
	case configured == documented && !strings.Contains(documented, tenantTemplate):
		if onEntra && guid.MatchString(segment) {
			rule.segment, rule.tenant = segment, segment
		}
	case multi && documented == base+tenantTemplate+suffix:
		rule.segment = segment
	case segment == "consumers" && documented == base+personalTenant+suffix:
		rule.segment, rule.tenant = segment, personalTenant
	case onEntra:
		tenant := tenantTemplate
		if !multi {
			if tenant = tenantIn(documented, cloud); tenant == "" || guid.MatchString(segment) && tenant != segment {
				return issuerRule{}, mismatch
			}
			rule.tenant = tenant
		}
		if !slices.Contains(entraForms(cloud, tenant), documented) {
			return issuerRule{}, mismatch
		}
		rule.segment = segment
	default:
		return issuerRule{}, mismatch
	}
	if onEntra && rule.segment != "" {
		tenant := rule.tenant
		if tenant == "" {
			tenant = tenantTemplate
		}
		rule.forms = entraForms(cloud, tenant)
	}
	return rule, nil
}

// names reports whether iss is this issuer, in any of its forms; of which
// tenant, the ID token says.
func (r issuerRule) names(iss string) bool {
	return slices.ContainsFunc(r.forms, func(form string) bool {
		before, after, template := strings.Cut(form, tenantTemplate)
		if !template {
			return iss == form
		}
		rest, ok := strings.CutPrefix(iss, before)
		tenant, ok2 := strings.CutSuffix(rest, after)
		return ok && ok2 && (guid.MatchString(tenant) || tenant == tenantTemplate)
	})
}

// check judges a signed token's iss and tid. The tenant is what the token
// says, and iss must say the same.
func (r issuerRule) check(iss, tid string) error {
	if r.segment == "" && len(r.allowed) == 0 {
		if iss != r.forms[0] {
			return errors.New("iss is another issuer")
		}
		return nil
	}
	if !guid.MatchString(tid) {
		return errors.New("tid is missing or not a tenant's id")
	}
	if !slices.ContainsFunc(r.forms, func(form string) bool {
		return iss == strings.ReplaceAll(form, tenantTemplate, tid)
	}) {
		return errors.New("iss is another issuer, or of another tenant than tid")
	}
	switch {
	case r.tenant != "" && tid != r.tenant:
		return errors.New("tid is another tenant than iss")
	case r.segment == "organizations" && tid == personalTenant,
		r.segment == "consumers" && tid != personalTenant,
		len(r.allowed) > 0 && !slices.Contains(r.allowed, tid):
		return errTenant
	}
	return nil
}

// signs reports whether a key that names its issuers may sign for a tenant.
// Entra's common key set holds keys that are good for one tenant only, such as
// those of personal accounts; without this any of them could speak for all.
// A key names the v2.0 issuer, also when it signs v1.0 tokens.
func (r issuerRule) signs(keyIssuers []string, tid string) bool {
	if r.segment == "" || len(keyIssuers) == 0 {
		return true
	}
	tenant := cmp.Or(tid, r.tenant, tenantTemplate)
	return slices.ContainsFunc(keyIssuers, func(k string) bool {
		return slices.ContainsFunc(r.forms, func(form string) bool {
			return strings.ReplaceAll(k, tenantTemplate, tenant) == strings.ReplaceAll(form, tenantTemplate, tenant)
		})
	})
}

var errTenant = errors.New("the user's tenant is not admitted")

// splitTenant cuts https://host/tenant/v2.0 at the tenant, and says whether
// that stands for several. The tenant is the last segment but a version.
func splitTenant(issuer string) (base, segment, suffix string, multi bool) {
	trimmed := strings.TrimSuffix(issuer, "/")
	suffix = issuer[len(trimmed):]
	if rest, ok := strings.CutSuffix(trimmed, "/v2.0"); ok {
		trimmed, suffix = rest, "/v2.0"+suffix
	}
	i := strings.LastIndexByte(trimmed, '/') + 1
	segment = strings.ToLower(trimmed[i:])
	return trimmed[:i], segment, suffix, slices.Contains([]string{"common", "organizations", "consumers"}, segment)
}

func cloudOf(issuer string) (Cloud, bool) {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" {
		return "", false
	}
	cloud, ok := entraHosts[strings.ToLower(u.Host)]
	return cloud, ok
}

// entraForms are the v2.0 and v1.0 issuers of one tenant.
func entraForms(cloud Cloud, tenant string) []string {
	return []string{
		"https://" + string(cloud) + "/" + tenant + "/v2.0",
		"https://" + securityTokenServices[cloud] + "/" + tenant + "/",
	}
}

// tenantIn returns the tenant's id in one of the forms, or nothing.
func tenantIn(documented string, cloud Cloud) string {
	_, segment, _, _ := splitTenant(documented)
	if guid.MatchString(segment) && slices.Contains(entraForms(cloud, segment), documented) {
		return segment
	}
	return ""
}

// checkEntraTenant is for New.
func checkEntraTenant(issuer string) error {
	if cloud, onEntra := cloudOf(issuer); onEntra {
		base, segment, _, _ := splitTenant(issuer)
		if segment == "" || base == "https://" { // no path, or a version only
			return fmt.Errorf("%q names no tenant; want Entra(cloud, tenant), such as https://%s/contoso.onmicrosoft.com/v2.0", issuer, cloud)
		}
	}
	return nil
}

// checkTenants is for New.
func checkTenants(issuer string, tenants []string) error {
	for _, t := range tenants {
		if !guid.MatchString(strings.ToLower(t)) {
			return fmt.Errorf("%q is not a tenant's id; want a GUID, as tokens name it", t)
		}
	}
	if len(tenants) == 0 {
		return nil
	}
	_, segment, _, multi := splitTenant(issuer)
	_, onEntra := cloudOf(issuer)
	if segment == "consumers" {
		segment = personalTenant
	}
	switch {
	case !multi && !onEntra:
		return errors.New("only Entra's issuers have tenants; want none")
	case guid.MatchString(segment) && !slices.Contains(lowered(tenants), segment):
		return fmt.Errorf("nobody could sign in: the Issuer's own tenant is not among them; want %q, or none", segment)
	}
	return nil
}

func lowered(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}
