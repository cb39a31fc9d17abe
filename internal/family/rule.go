package family

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/internal/text"
)

// TenantTemplate stands for the tenant's id in what Entra documents for several.
const TenantTemplate = "{tenantid}"

// Rule decides whether a token's iss, tid and tfp are acceptable. For most
// issuers that is one comparison.
type Rule struct {
	// Family is never nil.
	Family *Family

	// forms are the issuers accepted. In each, {tenantid} stands for the
	// token's tid if the discovery document has that template.
	forms []string

	// signers are further issuers that a key may name which signs for this one.
	signers []string

	// segment is the tenant as configured: an id, a name, or common,
	// organizations or consumers; empty where tokens name none.
	segment string
	tenant  string // the one tenant, by id; empty if there may be several
	flow    string // Azure AD B2C: the user flow; empty elsewhere
	allowed []string
}

// NewRule compares the issuer configured with the one documented. They
// must be equal, except where a family names itself otherwise: Entra documents a
// template or a tenant's id where one configures common or the tenant's name,
// External ID a host of its own, Azure AD B2C no user flow.
func NewRule(configured, documented string, tenants []string) (Rule, error) {
	family := Of(configured, documented)
	rule, ok := Rule{forms: []string{documented}}, configured == documented && !strings.Contains(documented, TenantTemplate)
	if family.rule != nil {
		rule, ok = family.rule(configured, documented)
	}
	if !ok {
		return Rule{}, mismatch(configured, documented)
	}
	rule.Family, rule.allowed = family, Lowered(tenants)
	return rule, nil
}

func mismatch(configured, documented string) error {
	advice := ""
	switch {
	case strings.Contains(documented, TenantTemplate):
		advice = ", with a tenant, common, organizations or consumers where " + TenantTemplate + " stands"
	case isExternalID("", documented):
		advice = ", or the tenant's id in its path"
	}
	return fmt.Errorf("the issuer calls itself %q; configure that in place of %q%s", text.Printable(documented, 200), configured, advice)
}

// Names reports whether iss is this issuer, in any of its forms; of which
// tenant, the ID token says.
func (r Rule) Names(iss string) bool {
	iss = Canonical(iss)
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

// Check judges a signed token's iss, tid and tfp. The tenant is what the token
// says, and iss must say the same.
func (r Rule) Check(iss, tid, tfp string) error {
	if r.segment == "" && len(r.allowed) == 0 {
		switch {
		case !slices.Contains(r.forms, Canonical(iss)):
			return errors.New("iss is another issuer")
		case r.flow != "" && tfp != "" && !strings.EqualFold(tfp, r.flow):
			return errors.New("tfp is another user flow than the one configured")
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
	case r.segment == "organizations" && tid == PersonalTenant,
		r.segment == "consumers" && tid != PersonalTenant,
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
	if r.segment == "" || len(keyIssuers) == 0 {
		return true
	}
	tenant := cmp.Or(tid, r.tenant, TenantTemplate)
	return slices.ContainsFunc(keyIssuers, func(k string) bool {
		return slices.ContainsFunc(slices.Concat(r.forms, r.signers), func(form string) bool {
			return strings.ReplaceAll(k, TenantTemplate, tenant) == strings.ReplaceAll(form, TenantTemplate, tenant)
		})
	})
}

// ErrTenant reports a good token of a user whom the site does not admit.
var ErrTenant = errors.New("the user's tenant is not admitted")

// Lowered is list in lower case.
func Lowered(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}
