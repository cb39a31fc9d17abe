package rule

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fault reports what is wrong with a node, and what to write instead.
type Fault func(at *yaml.Node, format string, args ...any)

// Parse reads one rule. It reports every fault and then returns nil. It also
// reports rules that are well formed but admit nobody, or everybody, by what
// is most likely a slip.
func Parse(n *yaml.Node, fault Fault) Rule {
	if n.Kind != yaml.MappingNode {
		fault(n, "want public, signed-in, or one rule such as {email_domain: [example.com]}")
		return nil
	}
	fields := map[string]*yaml.Node{}
	var names []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		names = append(names, n.Content[i].Value)
		fields[n.Content[i].Value] = n.Content[i+1]
	}
	if fields["claim"] != nil {
		return parseClaim(n, fields, names, fault)
	}
	if len(names) != 1 {
		fault(n, "has %d keys; want one of claim, email_domain, tenant, subject, group, all, any, not; put several under all or any", len(names))
		return nil
	}
	parse, ok := parsers()[names[0]]
	if !ok {
		fault(n, "unknown rule %q; want claim, email_domain, tenant, subject, group, all, any or not", names[0])
		return nil
	}
	return parse(fields[names[0]], fault)
}

// parsers are those of the rules that have one key.
func parsers() map[string]func(*yaml.Node, Fault) Rule {
	return map[string]func(*yaml.Node, Fault) Rule{
		"email_domain": parseDomains,
		"tenant":       parseTenants,
		"subject": func(n *yaml.Node, fault Fault) Rule {
			if list := texts(n, "subject", fault); list != nil {
				return SubjectIs(list)
			}
			return nil
		},
		"group": func(n *yaml.Node, fault Fault) Rule {
			if list := texts(n, "group", fault); list != nil {
				return Group(list)
			}
			return nil
		},
		"not": func(n *yaml.Node, fault Fault) Rule {
			if inner := Parse(n, fault); inner != nil {
				return Not{inner}
			}
			return nil
		},
		"all": func(n *yaml.Node, fault Fault) Rule {
			if list := parseList(n, "all", fault); list != nil {
				return checkAll(n, list, fault)
			}
			return nil
		},
		"any": func(n *yaml.Node, fault Fault) Rule {
			if list := parseList(n, "any", fault); list != nil {
				return checkAny(n, list, fault)
			}
			return nil
		},
	}
}

func parseClaim(n *yaml.Node, fields map[string]*yaml.Node, names []string, fault Fault) Rule {
	c := Claim{Name: fields["claim"].Value}
	ok := true
	bad := func(at *yaml.Node, format string, args ...any) { ok = false; fault(at, format, args...) }
	if k := fields["claim"]; k.Kind != yaml.ScalarNode || k.Tag != "!!str" || !claimName(c.Name) {
		bad(k, "claim %q: want the name of a claim, such as roles or realm_access.roles; its values go under any or all", c.Name)
	}
	for _, name := range names {
		if !slices.Contains([]string{"claim", "any", "all"}, name) {
			bad(n, "unknown key %q beside claim; want any or all", name)
		}
	}
	list := fields["any"]
	if all := fields["all"]; all != nil {
		if list != nil {
			bad(n, "claim %s: has any and all; want one of them", c.Name)
		}
		list, c.All = all, true
	}
	if list == nil {
		bad(n, "claim %s: has no values and would admit nobody; want any: [VALUE, ...] or all: [VALUE, ...]", c.Name)
		return nil
	}
	c.Values = claimValues(list, c.Name, bad)
	if !ok {
		return nil
	}
	return c
}

func claimName(s string) bool {
	return s != "" && !strings.ContainsAny(s, "= \t") && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".")
}

func claimValues(list *yaml.Node, claim string, bad Fault) (out []string) {
	for _, item := range items(list) {
		switch v, err := Value(item.Value, item.Tag); {
		case item.Kind != yaml.ScalarNode || err != nil:
			bad(item, "claim %s: a value is a %s; want a string, a whole number, true or false", claim, kind(item))
		case blank(item):
			bad(item, "claim %s: a value is empty or has spaces around it", claim)
		case strings.HasPrefix(item.Value, "="):
			bad(item, "claim %s: the value %q begins with =; want the value alone", claim, item.Value)
		default:
			out = append(out, v)
		}
	}
	if len(items(list)) == 0 {
		bad(list, "claim %s: has no values and would admit nobody; want any: [VALUE, ...]", claim)
	}
	return out
}

func parseDomains(n *yaml.Node, fault Fault) Rule {
	list := texts(n, "email_domain", fault)
	var out EmailDomain
	for _, d := range list {
		lower := strings.ToLower(d)
		switch {
		case strings.Contains(d, "*"):
			fault(n, "email_domain %q: would admit everybody; want domains by name, or allow: signed-in if that is meant", d)
		case strings.HasPrefix(d, "@"):
			fault(n, "email_domain %q: want it without the @: %s", d, strings.TrimPrefix(d, "@"))
		case strings.Contains(d, "@"):
			fault(n, "email_domain %q: want a domain; single users go under subject", d)
		case strings.HasPrefix(d, "."):
			fault(n, "email_domain %q: a subdomain is another domain; want each by name", d)
		case !domain.MatchString(lower):
			fault(n, "email_domain %q: want a domain such as example.com (xn--... for international names)", d)
		default:
			out = append(out, lower)
		}
	}
	if list == nil || len(out) < len(list) {
		return nil
	}
	return out
}

func parseTenants(n *yaml.Node, fault Fault) Rule {
	list := texts(n, "tenant", fault)
	var out Tenant
	for _, id := range list {
		if lower := strings.ToLower(id); guid.MatchString(lower) {
			out = append(out, lower)
		} else {
			fault(n, "tenant %q: want a tenant's id, a GUID; its domain name does not stand in tokens", id)
		}
	}
	if list == nil || len(out) < len(list) {
		return nil
	}
	return out
}

func parseList(n *yaml.Node, name string, fault Fault) []Rule {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		fault(n, "%s: want a list of rules, at least one", name)
		return nil
	}
	var rules []Rule
	for _, item := range n.Content {
		if r := Parse(item, fault); r != nil {
			rules = append(rules, r)
		}
	}
	if len(rules) < len(n.Content) {
		return nil
	}
	return rules
}

// checkAll refuses what no user can satisfy.
func checkAll(n *yaml.Node, rules All, fault Fault) Rule {
	for i, a := range rules {
		for _, b := range rules[:i] {
			if opposite(a, b) || disjoint(a, b) {
				fault(n, "all: %q and %q hold for no user together; this would admit nobody", b, a)
				return nil
			}
		}
	}
	return rules
}

// checkAny refuses what every user satisfies.
func checkAny(n *yaml.Node, rules Any, fault Fault) Rule {
	for i, a := range rules {
		for _, b := range rules[:i] {
			na, aok := a.(Not)
			nb, bok := b.(Not)
			if opposite(a, b) || aok && bok && disjoint(na.Rule, nb.Rule) {
				fault(n, "any: %q or %q holds for every user; want allow: signed-in if that is meant", b, a)
				return nil
			}
		}
	}
	return rules
}

func opposite(a, b Rule) bool {
	na, ok := a.(Not)
	if ok && reflect.DeepEqual(na.Rule, b) {
		return true
	}
	nb, ok := b.(Not)
	return ok && reflect.DeepEqual(nb.Rule, a)
}

// disjoint reports whether two rules ask for one thing, of which a user has
// only one, to be in two lists that share nothing.
func disjoint(a, b Rule) bool {
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	var x, y []string
	switch a := a.(type) {
	case SubjectIs:
		x, y = a, b.(SubjectIs)
	case Tenant:
		x, y = a, b.(Tenant)
	case EmailDomain:
		x, y = a, b.(EmailDomain)
	default:
		return false
	}
	return !slices.ContainsFunc(x, func(s string) bool { return slices.Contains(y, s) })
}

// texts reads a list of strings, of which one may stand alone.
func texts(n *yaml.Node, name string, fault Fault) []string {
	var out []string
	list := items(n)
	for _, item := range list {
		switch {
		case item.Kind != yaml.ScalarNode || item.Tag != "!!str":
			fault(item, "%s: an item is a %s; want strings%s", name, kind(item), quoteHint(item))
		case blank(item):
			fault(item, "%s: an item is empty or has spaces around it", name)
		case strings.HasPrefix(item.Value, "="):
			fault(item, "%s: the item %q begins with =; want the value alone", name, item.Value)
		default:
			out = append(out, item.Value)
		}
	}
	if len(list) == 0 {
		fault(n, "%s: is empty and would admit nobody; want at least one", name)
	}
	if len(out) < len(list) {
		return nil
	}
	return out
}

func items(n *yaml.Node) []*yaml.Node {
	switch {
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	}
	return []*yaml.Node{n}
}

func blank(n *yaml.Node) bool {
	return n.Tag == "!!str" && (n.Value == "" || strings.TrimSpace(n.Value) != n.Value)
}

func quoteHint(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return fmt.Sprintf(`, in quotes: %q`, n.Value)
	}
	return ""
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	switch n.Tag {
	case "!!null":
		return "null"
	case "!!int", "!!float":
		return "number"
	case "!!bool":
		return "truth value"
	}
	return "string"
}
