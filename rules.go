package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/internal/family"
)

// Rule decides whether a signed-in user may pass; its error says why not, for
// the log. It is what [Requirement].Allow takes. The ready ones fail closed:
// what the issuer did not say, or said in another form than expected, denies.
//
//	Allow: signin.AllowTenant(contoso).And(
//		signin.AllowClaim("roles", "Reader").Or(signin.AllowClaim("roles", "Admin"))),
//
// Their errors name claims and never quote one. A nil Rule in And or Or
// denies. Rules may be used concurrently.
type Rule func(*User) error

// And returns a rule that admits whom both r and other admit.
func (r Rule) And(other Rule) Rule {
	return func(u *User) error {
		if err := r.check(u); err != nil {
			return err
		}
		return other.check(u)
	}
}

// Or returns a rule that admits whom r or other admits. Other is asked only
// if r denies.
func (r Rule) Or(other Rule) Rule {
	return func(u *User) error {
		err := r.check(u)
		if err == nil {
			return nil
		}
		if second := other.check(u); second != nil {
			return fmt.Errorf("%w, and %w", err, second)
		}
		return nil
	}
}

func (r Rule) check(u *User) error {
	if r == nil {
		return errors.New("the rule is nil")
	}
	return r(u)
}

// AllowEmailDomain admits users whose verified e-mail address is in one of
// the domains, without regard to ASCII case. A subdomain is another domain.
// Names of internationalized domains are written as in DNS: xn--bcher-kva.example.
// Without domains it admits nobody.
//
// The email claim must hold one plain ASCII address, and email_verified must
// be true, or "true" as some issuers write it. Microsoft Entra ID sends no email_verified, and its users can write
// another's address into theirs: there xms_edov must be true, an optional
// claim to be added to the application's registration together with email.
//
// An address says less than it seems to: it may be left over from another
// employer, or forward elsewhere. Where the issuer is the organisation's own,
// [AllowTenant] or [AllowClaim] says more.
func AllowEmailDomain(domains ...string) Rule {
	var admitted []string
	for _, d := range domains {
		if admitted = append(admitted, lowerASCII(d)); !plainDomain(lowerASCII(d)) {
			return denyAll(fmt.Errorf("AllowEmailDomain: %q is not a domain; want one such as example.com", d))
		}
	}
	return func(u *User) error {
		claims, err := ruleClaims(u)
		if err != nil {
			return err
		}
		domain, err := verifiedDomain(u, claims)
		if err != nil {
			return err
		}
		if !slices.Contains(admitted, domain) {
			return errors.New("the e-mail address is in another domain")
		}
		return nil
	}
}

// verifiedDomain returns the domain of a user's e-mail address in lower case.
func verifiedDomain(u *User, claims map[string]any) (string, error) {
	address, ok := claims["email"].(string)
	if !ok {
		return "", errors.New("claim email is missing or not a string")
	}
	verified, said := claims["email_verified"]
	if said && verified != true && verified != "true" {
		return "", errors.New("the e-mail address is not verified: email_verified is not true")
	}
	if _, onEntra := family.CloudOf(u.Issuer); onEntra {
		// An email_verified from Entra would be some tenant's own mapping of
		// claims. xms_edov is documented as a boolean and also seen as "1".
		if edov := claims["xms_edov"]; edov != true && edov != "1" {
			return "", errors.New("the e-mail address is not verified: xms_edov is not true")
		}
	} else if !said {
		return "", errors.New("the e-mail address is not verified: email_verified is missing")
	}
	// ASCII first: folding would make the Kelvin sign a k. More than one @,
	// and two readers take two domains.
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || len(address) > 254 || strings.ContainsFunc(local, notVisibleASCII) {
		return "", errors.New("claim email is not one plain address")
	}
	domain = lowerASCII(domain)
	if !plainDomain(domain) {
		return "", errors.New("claim email is not one plain address")
	}
	return domain, nil
}

func notVisibleASCII(r rune) bool { return r <= ' ' || r >= 0x7f }

// lowerASCII is strings.ToLower without Unicode's surprises.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// plainDomain reports whether s is dot-separated labels of lower-case
// letters, digits and hyphens.
func plainDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
		}) {
			return false
		}
	}
	return true
}

// AllowClaim admits users whose ID token has a claim with at least one of the
// values: roles, groups, or whatever the issuer calls it. The claim is a
// string or a list of strings, compared exactly, case included; one string is
// one value, spaces and all. A claim that is missing, or anything else than
// that, denies. Without values it admits nobody.
//
// A claim inside another is named by its path, with dots:
// "realm_access.roles" (Keycloak). Names may have dots themselves, as
// "https://example.com/roles" has. A name that can be read in two ways, both
// of which are there, denies. Where the roles are the names of an object's
// members, and each of those is an object (ZITADEL), the names are the values.
//
// Microsoft Entra ID leaves the groups of a user with many of them out of the
// token, and says only where to ask for them. That denies with an error that
// says so: assign app roles, or let the registration emit only the groups
// assigned to the application.
//
// At a multi-tenant issuer each tenant's administrator hands out roles as
// they like. There, add [AllowTenant] or [Config].Tenants.
func AllowClaim(name string, values ...string) Rule {
	values = slices.Clone(values)
	return func(u *User) error {
		claims, err := ruleClaims(u)
		if err != nil {
			return err
		}
		found := atPath(claims, name, 0)
		switch first, _, _ := strings.Cut(name, "."); {
		case len(found) == 0 && (elsewhere(claims, name) || elsewhere(claims, first)):
			return fmt.Errorf("claim %q has too many values for the token and was left out (overage): what the user has cannot be told", name)
		case len(found) == 0:
			return fmt.Errorf("claim %q is missing", name)
		case len(found) > 1:
			return fmt.Errorf("claim %q is there twice: once by that name and once inside another claim", name)
		}
		has, ok := stringsOf(found[0])
		if !ok {
			return fmt.Errorf("claim %q is neither a string nor a list of strings", name)
		}
		if !slices.ContainsFunc(has, func(s string) bool { return slices.Contains(values, s) }) {
			return fmt.Errorf("claim %q has none of the values admitted", name)
		}
		return nil
	}
}

// maxPath bounds the objects that a claim's path descends.
const maxPath = 8

// atPath returns what a name can mean: the member of that name, and what the
// rest of it means inside the members that its first parts name.
func atPath(object map[string]any, name string, depth int) []any {
	var found []any
	if v, ok := object[name]; ok {
		found = append(found, v)
	}
	for i, r := range name {
		if r != '.' || depth == maxPath {
			continue
		}
		if inner, ok := object[name[:i]].(map[string]any); ok {
			found = append(found, atPath(inner, name[i+1:], depth+1)...)
		}
	}
	return found
}

// stringsOf returns a string, or a list of nothing else, as a list. Of an
// object of objects it returns the names.
func stringsOf(claim any) ([]string, bool) {
	switch c := claim.(type) {
	case string:
		return []string{c}, true
	case []any:
		list := make([]string, 0, len(c))
		for _, e := range c {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			list = append(list, s)
		}
		return list, true
	case map[string]any:
		list := make([]string, 0, len(c))
		for name, v := range c {
			if inner, ok := v.(map[string]any); !ok || len(inner) == 0 {
				return nil, false
			}
			list = append(list, name)
		}
		return list, len(list) > 0
	}
	return nil, false
}

// elsewhere reports whether the issuer left a claim out of the token for its
// size: as a distributed claim (OpenID Connect Core, 5.6.2), or in Entra's
// short form for tokens that pass through a URL.
func elsewhere(claims map[string]any, name string) bool {
	names, _ := claims["_claim_names"].(map[string]any)
	if _, ok := names[name]; ok {
		return true
	}
	has, ok := claims["hasgroups"]
	return ok && name == "groups" && has != false && has != "false"
}

// AllowTenant admits users who signed in to one of the Entra tenants, by id:
// those whose tid claim names it, guests of the tenant included, whom
// [User.Guest] tells. Without ids it admits nobody.
//
// To keep other tenants out of the whole application, set [Config].Tenants.
func AllowTenant(ids ...string) Rule {
	admitted := family.Lowered(ids)
	for _, id := range admitted {
		if !family.GUID.MatchString(id) {
			return denyAll(fmt.Errorf("AllowTenant: %q is not a tenant's id; want a GUID, as tokens name it", id))
		}
	}
	return func(u *User) error {
		switch {
		case u == nil:
			return errNoUser
		case u.Tenant == "":
			return errors.New("the user is of no tenant")
		case !slices.Contains(admitted, u.Tenant):
			return errors.New("the user is of another tenant")
		}
		return nil
	}
}

var errNoUser = errors.New("nobody is signed in")

// ruleClaims decodes a user's claims by their exact names: a struct's fields
// would take Email for email.
func ruleClaims(u *User) (map[string]any, error) {
	if u == nil {
		return nil, errNoUser
	}
	if len(u.RawClaims) == 0 {
		return nil, errors.New("the user has no claims")
	}
	var claims map[string]any
	if err := json.Unmarshal(u.RawClaims, &claims); err != nil {
		return nil, errors.New("the user's claims cannot be read")
	}
	return claims, nil
}

// denyAll is a rule that was made of what cannot be meant. New cannot report
// it, so every refusal does.
func denyAll(err error) Rule { return func(*User) error { return err } }
