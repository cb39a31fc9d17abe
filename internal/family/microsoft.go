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
	BleuCloud         = "login.sovcloud-identity.fr"
	DelosCloud        = "login.sovcloud-identity.de"
	GovSGCloud        = "login.sovcloud-identity.sg"
)

// entraHosts are the hosts of Entra's issuers and endpoints, with their older
// names, by cloud.
var entraHosts = map[string]string{
	"login.microsoftonline.com": GlobalCloud, "login.microsoft.com": GlobalCloud,
	"login.windows.net": GlobalCloud, "sts.windows.net": GlobalCloud,
	"login.microsoftonline.us": USGovernmentCloud, "login.usgovcloudapi.net": USGovernmentCloud,
	"login.partner.microsoftonline.cn": ChinaCloud, "login.chinacloudapi.cn": ChinaCloud,
	"sts.chinacloudapi.cn":       ChinaCloud,
	"login.sovcloud-identity.fr": BleuCloud,
	"login.sovcloud-identity.de": DelosCloud,
	"login.sovcloud-identity.sg": GovSGCloud,
}

// securityTokenServices are the hosts that v1.0 tokens name as issuer. The US
// Government cloud shares the global one's; the clouds of 2025 have no v1.0
// issuer that is documented.
var securityTokenServices = map[string]string{
	GlobalCloud:       "sts.windows.net",
	USGovernmentCloud: "sts.windows.net",
	ChinaCloud:        "sts.chinacloudapi.cn",
}

// PersonalTenant is the tenant of all personal Microsoft accounts.
const PersonalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// Google is Google's issuer.
const Google = "https://accounts.google.com"

// GUID is how tokens name a tenant.
var GUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// isEntra recognises Entra's hosts, and any other that documents itself as
// Entra does for several tenants.
func isEntra(configured, documented string) bool {
	_, onEntra := CloudOf(configured)
	return onEntra || documentsTenants(configured, documented)
}

func documentsTenants(configured, documented string) bool {
	base, segment, suffix, multi := splitTenant(configured)
	return multi && (documented == base+TenantTemplate+suffix ||
		segment == "consumers" && documented == base+PersonalTenant+suffix)
}

func entraRule(configured, documented string) (Rule, bool) {
	base, segment, suffix, multi := splitTenant(configured)
	cloud, onEntra := CloudOf(configured)
	rule := Rule{forms: []string{documented}}
	switch {
	case configured == documented && !strings.Contains(documented, TenantTemplate):
		if onEntra && GUID.MatchString(segment) {
			rule.segment, rule.tenant = segment, segment
		}
	case multi && documented == base+TenantTemplate+suffix:
		rule.segment = segment
	case segment == "consumers" && documented == base+PersonalTenant+suffix:
		rule.segment, rule.tenant = segment, PersonalTenant
	case onEntra:
		var ok bool
		if rule.tenant, ok = documentedTenant(documented, cloud, segment, multi); !ok {
			return Rule{}, false
		}
		rule.segment = segment
	default:
		return Rule{}, false
	}
	if onEntra && rule.segment != "" {
		rule.forms = entraForms(cloud, cmp.Or(rule.tenant, TenantTemplate))
	}
	return rule, true
}

// documentedTenant is the tenant that an Entra document is of, empty if it is of
// several, and whether that goes with the one configured.
func documentedTenant(documented, cloud, segment string, multi bool) (tenant string, ok bool) {
	if !multi {
		if tenant = tenantIn(documented, cloud); tenant == "" || GUID.MatchString(segment) && tenant != segment {
			return "", false
		}
	}
	return tenant, slices.Contains(entraForms(cloud, cmp.Or(tenant, TenantTemplate)), documented)
}

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
	forms := []string{"https://" + cloud + "/" + tenant + "/v2.0"}
	if sts := securityTokenServices[cloud]; sts != "" {
		forms = append(forms, "https://"+sts+"/"+tenant+"/")
	}
	return forms
}

// tenantIn returns the tenant's id in one of the forms, or nothing.
func tenantIn(documented, cloud string) string {
	_, segment, _, _ := splitTenant(documented)
	if GUID.MatchString(segment) && slices.Contains(entraForms(cloud, segment), documented) {
		return segment
	}
	return ""
}

func checkEntra(issuer string) error {
	cloud, _ := CloudOf(issuer)
	if namesNoTenant(issuer) {
		return fmt.Errorf("%q names no tenant; want Entra(cloud, tenant), such as https://%s/contoso.onmicrosoft.com/v2.0", issuer, cloud)
	}
	return nil
}

// namesNoTenant reports a Microsoft issuer without path, or with a version only.
func namesNoTenant(issuer string) bool {
	base, segment, _, _ := splitTenant(issuer)
	return segment == "" || base == "https://"
}

const externalIDHosts = ".ciamlogin.com"

// isExternalID recognises the hosts of External ID, and any other that
// documents itself as one of them: a domain of the customer's own.
func isExternalID(configured, documented string) bool {
	return strings.HasSuffix(hostOf(configured), externalIDHosts) || strings.HasSuffix(hostOf(documented), externalIDHosts)
}

func checkExternalID(issuer string) error {
	if namesNoTenant(issuer) {
		return fmt.Errorf("%q names no tenant; want ExternalID(host, tenant), such as https://contoso.ciamlogin.com/contoso.onmicrosoft.com/v2.0", issuer)
	}
	return nil
}

// externalIDRule admits https://ID.ciamlogin.com/ID/v2.0 or the host
// configured, with the tenant's id. Under a domain of the customer's own nothing
// but that id ties the configuration to the tenant, so it must be configured.
func externalIDRule(configured, documented string) (Rule, bool) {
	_, segment, _, _ := splitTenant(configured)
	_, tenant, suffix, _ := splitTenant(documented)
	own := !strings.HasSuffix(hostOf(configured), externalIDHosts)
	switch {
	case !GUID.MatchString(tenant), suffix != "/v2.0",
		GUID.MatchString(segment) && segment != tenant,
		own && segment != tenant:
		return Rule{}, false
	}
	for _, host := range []string{tenant + externalIDHosts, hostOf(configured)} {
		if documented == "https://"+host+"/"+tenant+"/v2.0" {
			return Rule{forms: []string{documented}, signers: entraForms(GlobalCloud, tenant), segment: segment, tenant: tenant}, true
		}
	}
	return Rule{}, false
}

// isB2C recognises Azure AD B2C by its hosts, or by a user flow in the path: it
// may have a domain of the customer's own. The names of all flows begin alike.
func isB2C(configured, _ string) bool {
	_, flow := b2cParts(configured)
	return flow != "" || strings.HasSuffix(hostOf(configured), ".b2clogin.com")
}

func checkB2C(issuer string) error {
	if tenant, flow := b2cParts(issuer); tenant == "" || flow == "" {
		return fmt.Errorf("%q names no user flow; want B2C(host, tenant, flow), such as https://contoso.b2clogin.com/contoso.onmicrosoft.com/B2C_1_signin/v2.0", issuer)
	}
	return nil
}

// b2cParts are tenant and user flow of https://HOST/[tfp/]TENANT/FLOW/v2.0, in
// lower case.
func b2cParts(issuer string) (tenant, flow string) {
	u, err := url.Parse(strings.ToLower(issuer))
	if err != nil {
		return "", ""
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) > 0 && parts[0] == "tfp" {
		parts = parts[1:]
	}
	if len(parts) != 3 || !strings.HasPrefix(parts[1], "b2c_1") || parts[2] != "v2.0" {
		return "", ""
	}
	return parts[0], parts[1]
}

// b2cRule admits both forms that a user flow can be set to: with the tenant
// alone, or with tfp and the flow. Both are on the host configured.
func b2cRule(configured, documented string) (Rule, bool) {
	tenant, flow := b2cParts(configured)
	rule := Rule{forms: []string{documented}, flow: flow}
	if configured == documented {
		return rule, true
	}
	d, err := url.Parse(documented)
	if err != nil || flow == "" || d.Scheme != "https" || strings.ToLower(d.Host) != hostOf(configured) {
		return Rule{}, false
	}
	parts := strings.Split(strings.Trim(strings.ToLower(d.Path), "/"), "/")
	var id string
	switch {
	case len(parts) == 2 && parts[1] == "v2.0":
		id = parts[0]
	case len(parts) == 4 && parts[0] == "tfp" && parts[2] == flow && parts[3] == "v2.0":
		id = parts[1]
	}
	return rule, GUID.MatchString(id) && (!GUID.MatchString(tenant) || tenant == id)
}

func checkGoogle(issuer string) error {
	if issuer != Google {
		return fmt.Errorf("%q is not how Google spells it; want %q", issuer, Google)
	}
	return nil
}

// hostOf is the host of an https URL, in lower case.
func hostOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" {
		return ""
	}
	return strings.ToLower(u.Host)
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
	if segment == "consumers" {
		segment = PersonalTenant
	}
	switch {
	case !multi && !Of(issuer, "").ClientInfo:
		return errors.New("only Entra's issuers have tenants; want none")
	case GUID.MatchString(segment) && !slices.Contains(Lowered(tenants), segment):
		return fmt.Errorf("nobody could sign in: the Issuer's own tenant is not among them; want %q, or none", segment)
	}
	return nil
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
	case ofMicrosoft(i) && ofMicrosoft(e):
		return Entra
	case i.Host == e.Host && isADFS(i) && isADFS(e):
		return adfs
	}
	return ""
}

func ofMicrosoft(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	_, known := entraHosts[host]
	return known || strings.HasSuffix(host, externalIDHosts)
}

func isADFS(u *url.URL) bool { return u.Path == "/adfs" || strings.HasPrefix(u.Path, "/adfs/") }

var flowName = regexp.MustCompile(`^[Bb]2[Cc]_1[Aa]?_[A-Za-z0-9_-]{1,100}$`)

// CheckFlow says what is wrong with a user flow beside the one configured.
func CheckFlow(issuer, flow string) error {
	if _, own := b2cParts(issuer); own == "" {
		return errors.New("only an Issuer of Azure AD B2C with a user flow, as B2C makes it, has others")
	}
	if !flowName.MatchString(flow) {
		return fmt.Errorf("%q is not a user flow's name; want one such as B2C_1_edit_profile", text.Printable(flow, 100))
	}
	return nil
}

// FlowEndpoint is an endpoint of the user flow configured, for another flow.
func FlowEndpoint(issuer, endpoint, flow string) (string, error) {
	_, own := b2cParts(issuer)
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	parts := strings.Split(u.Path, "/")
	i := slices.IndexFunc(parts, func(p string) bool { return strings.EqualFold(p, own) })
	q := u.Query()
	switch {
	case own != "" && i >= 0:
		parts[i] = flow
		u.Path, u.RawPath = strings.Join(parts, "/"), ""
	case own != "" && strings.EqualFold(q.Get("p"), own):
		q.Set("p", flow)
		u.RawQuery = q.Encode()
	default:
		return "", fmt.Errorf("the authorization endpoint does not name the user flow %q, so it cannot name %q", own, flow)
	}
	return u.String(), nil
}
