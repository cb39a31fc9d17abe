// Package family knows what each family of issuers does otherwise than the
// specifications: how they name themselves, whose tenants they admit, which
// keys sign for whom.
package family

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

// The separate Microsoft clouds, by the host that signs users in.
const (
	GlobalCloud       = "login.microsoftonline.com"
	USGovernmentCloud = "login.microsoftonline.us"
	ChinaCloud        = "login.partner.microsoftonline.cn"
)

// entraHosts are the hosts of Entra's issuers and endpoints, with their older
// names, by cloud.
var entraHosts = map[string]string{
	"login.microsoftonline.com": GlobalCloud, "login.microsoft.com": GlobalCloud,
	"login.windows.net": GlobalCloud, "sts.windows.net": GlobalCloud,
	"login.microsoftonline.us": USGovernmentCloud, "login.usgovcloudapi.net": USGovernmentCloud,
	"login.partner.microsoftonline.cn": ChinaCloud, "login.chinacloudapi.cn": ChinaCloud,
	"sts.chinacloudapi.cn": ChinaCloud,
}

// securityTokenServices are the hosts that v1.0 tokens name as issuer. The US
// Government cloud shares the global one's.
var securityTokenServices = map[string]string{
	GlobalCloud:       "sts.windows.net",
	USGovernmentCloud: "sts.windows.net",
	ChinaCloud:        "sts.chinacloudapi.cn",
}

const (
	TenantTemplate = "{tenantid}"

	// PersonalTenant is the tenant of all personal Microsoft accounts.
	PersonalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// EntraNumber is Entra's number of an error, in the description of one.
var EntraNumber = regexp.MustCompile(`AADSTS[0-9]{1,10}`)

// GUID is how tokens name a tenant.
var GUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// Rule decides whether a token's iss and tid are acceptable. For an
// issuer that is not Entra that is one comparison.
type Rule struct {
	// forms are the issuers accepted. In each, {tenantid} stands for the
	// token's tid if the discovery document has that template.
	forms []string

	// segment is the tenant as configured: an id, a name, or common,
	// organizations or consumers; empty for other issuers.
	Segment string
	tenant  string // the one tenant, by id; empty if there may be several
	allowed []string
}

// NewRule compares the issuer configured with the one documented. They
// must be equal, except that Entra documents a template or a tenant's id
// where one configures common or the tenant's name, and its v1.0 endpoints
// document a host of their own.
func NewRule(configured, documented string, tenants []string) (Rule, error) {
	rule := Rule{forms: []string{documented}, allowed: Lowered(tenants)}
	mismatch := fmt.Errorf("the issuer calls itself %q; configure that in place of %q", text.Printable(documented, 200), configured)
	if strings.Contains(documented, TenantTemplate) {
		mismatch = fmt.Errorf("the issuer calls itself %q; configure that in place of %q, with a tenant, common, organizations or consumers where %s stands", text.Printable(documented, 200), configured, TenantTemplate)
	}

	base, segment, suffix, multi := splitTenant(configured)
	cloud, onEntra := CloudOf(configured)
	switch {
	case configured == documented && !strings.Contains(documented, TenantTemplate):
		if onEntra && GUID.MatchString(segment) {
			rule.Segment, rule.tenant = segment, segment
		}
	case multi && documented == base+TenantTemplate+suffix:
		rule.Segment = segment
	case segment == "consumers" && documented == base+PersonalTenant+suffix:
		rule.Segment, rule.tenant = segment, PersonalTenant
	case onEntra:
		tenant := TenantTemplate
		if !multi {
			if tenant = tenantIn(documented, cloud); tenant == "" || GUID.MatchString(segment) && tenant != segment {
				return Rule{}, mismatch
			}
			rule.tenant = tenant
		}
		if !slices.Contains(entraForms(cloud, tenant), documented) {
			return Rule{}, mismatch
		}
		rule.Segment = segment
	default:
		return Rule{}, mismatch
	}
	if onEntra && rule.Segment != "" {
		tenant := rule.tenant
		if tenant == "" {
			tenant = TenantTemplate
		}
		rule.forms = entraForms(cloud, tenant)
	}
	return rule, nil
}

// Names reports whether iss is this issuer, in any of its forms; of which
// tenant, the ID token says.
func (r Rule) Names(iss string) bool {
	return slices.ContainsFunc(r.forms, func(form string) bool {
		before, after, template := strings.Cut(form, TenantTemplate)
		if !template {
			return iss == form
		}
		rest, ok := strings.CutPrefix(iss, before)
		tenant, ok2 := strings.CutSuffix(rest, after)
		return ok && ok2 && (GUID.MatchString(tenant) || tenant == TenantTemplate)
	})
}

// Check judges a signed token's iss and tid. The tenant is what the token
// says, and iss must say the same.
func (r Rule) Check(iss, tid string) error {
	if r.Segment == "" && len(r.allowed) == 0 {
		if iss != r.forms[0] {
			return errors.New("iss is another issuer")
		}
		return nil
	}
	if !GUID.MatchString(tid) {
		return errors.New("tid is missing or not a tenant's id")
	}
	if !slices.ContainsFunc(r.forms, func(form string) bool {
		return iss == strings.ReplaceAll(form, TenantTemplate, tid)
	}) {
		return errors.New("iss is another issuer, or of another tenant than tid")
	}
	switch {
	case r.tenant != "" && tid != r.tenant:
		return errors.New("tid is another tenant than iss")
	case r.Segment == "organizations" && tid == PersonalTenant,
		r.Segment == "consumers" && tid != PersonalTenant,
		len(r.allowed) > 0 && !slices.Contains(r.allowed, tid):
		return ErrTenant
	}
	return nil
}

// Signs reports whether a key that names its issuers may sign for a tenant.
// Entra's common key set holds keys that are good for one tenant only, such as
// those of personal accounts; without this any of them could speak for all.
// A key names the v2.0 issuer, also when it signs v1.0 tokens.
func (r Rule) Signs(keyIssuers []string, tid string) bool {
	if r.Segment == "" || len(keyIssuers) == 0 {
		return true
	}
	tenant := cmp.Or(tid, r.tenant, TenantTemplate)
	return slices.ContainsFunc(keyIssuers, func(k string) bool {
		return slices.ContainsFunc(r.forms, func(form string) bool {
			return strings.ReplaceAll(k, TenantTemplate, tenant) == strings.ReplaceAll(form, TenantTemplate, tenant)
		})
	})
}

// ErrTenant reports a good token of a user whom the site does not admit.
var ErrTenant = errors.New("the user's tenant is not admitted")

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

// CloudOf is the Microsoft cloud that an issuer URL is in, by its host.
func CloudOf(issuer string) (string, bool) {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" {
		return "", false
	}
	cloud, ok := entraHosts[strings.ToLower(u.Host)]
	return cloud, ok
}

// entraForms are the v2.0 and v1.0 issuers of one tenant.
func entraForms(cloud, tenant string) []string {
	return []string{
		"https://" + cloud + "/" + tenant + "/v2.0",
		"https://" + securityTokenServices[cloud] + "/" + tenant + "/",
	}
}

// tenantIn returns the tenant's id in one of the forms, or nothing.
func tenantIn(documented, cloud string) string {
	_, segment, _, _ := splitTenant(documented)
	if GUID.MatchString(segment) && slices.Contains(entraForms(cloud, segment), documented) {
		return segment
	}
	return ""
}

// CheckEntraTenant is for New.
func CheckEntraTenant(issuer string) error {
	if cloud, onEntra := CloudOf(issuer); onEntra {
		base, segment, _, _ := splitTenant(issuer)
		if segment == "" || base == "https://" { // no path, or a version only
			return fmt.Errorf("%q names no tenant; want Entra(cloud, tenant), such as https://%s/contoso.onmicrosoft.com/v2.0", issuer, cloud)
		}
	}
	return nil
}

// CheckTenants is for New.
func CheckTenants(issuer string, tenants []string) error {
	for _, t := range tenants {
		if !GUID.MatchString(strings.ToLower(t)) {
			return fmt.Errorf("%q is not a tenant's id; want a GUID, as tokens name it", t)
		}
	}
	if len(tenants) == 0 {
		return nil
	}
	_, segment, _, multi := splitTenant(issuer)
	_, onEntra := CloudOf(issuer)
	if segment == "consumers" {
		segment = PersonalTenant
	}
	switch {
	case !multi && !onEntra:
		return errors.New("only Entra's issuers have tenants; want none")
	case GUID.MatchString(segment) && !slices.Contains(Lowered(tenants), segment):
		return fmt.Errorf("nobody could sign in: the Issuer's own tenant is not among them; want %q, or none", segment)
	}
	return nil
}

// Lowered is list in lower case.
func Lowered(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}

// Microsoft tells apart the two servers that do not follow the common rules.
type Microsoft string

const (
	Entra Microsoft = "Entra"
	adfs  Microsoft = "AD FS"
)

// MicrosoftAt tells by both names, so that no other issuer can have assertions
// made for Microsoft's endpoints by announcing them as its own.
func MicrosoftAt(issuer, endpoint string) Microsoft {
	i, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	e, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	switch {
	case isEntra(i) && isEntra(e):
		return Entra
	case i.Host == e.Host && isADFS(i) && isADFS(e):
		return adfs
	}
	return ""
}

func isEntra(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	_, known := entraHosts[host]
	return known || strings.HasSuffix(host, ".ciamlogin.com")
}

func isADFS(u *url.URL) bool { return u.Path == "/adfs" || strings.HasPrefix(u.Path, "/adfs/") }
