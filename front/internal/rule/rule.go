// Package rule decides by a user's claims who may pass.
//
// A rule knows three answers. Yes and no speak for themselves. Unknown means
// that the issuer did not say, or said in a form that cannot be read. Only yes
// admits, and the opposite of unknown is unknown: a rule that keeps the banned
// out keeps out, too, a user whose groups did not fit into the token.
package rule

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed454743b5/signin"
)

// Verdict is a rule's answer about one user.
type Verdict int

// The zero value admits nobody.
const (
	Unknown Verdict = iota
	No
	Yes
)

// Rule is one of the types of this package. Rules are immutable.
type Rule interface {
	// Judge says whether the rule holds for a user.
	Judge(*Subject) Verdict

	// String is the rule in the words of the file, for a person.
	String() string
}

// Subject is a user as rules see one. Make it with [Of].
type Subject struct {
	User   *signin.User
	Claims map[string]any
	Groups string // the name of the claim with the user's groups
}

// Of decodes a user's claims once. Groups is the name of the claim that
// [Group] reads. Claims that cannot be read are none.
func Of(u *signin.User, groups string) *Subject {
	s := &Subject{User: u, Groups: groups}
	d := json.NewDecoder(strings.NewReader(string(u.RawClaims)))
	d.UseNumber() // 64-bit ids stay exact
	if d.Decode(&s.Claims) != nil {
		s.Claims = nil
	}
	return s
}

// Email is the user's address if the issuer vouches for it, else empty.
func (s *Subject) Email() string {
	email, _ := s.Claims["email"].(string)
	_, domain, _ := strings.Cut(email, "@")
	if signin.AllowEmailDomain(domain)(s.User) != nil {
		return ""
	}
	return email
}

// Text is a claim that is a string, else empty.
func (s *Subject) Text(name string) string {
	v, _ := s.find(name)
	text, _ := v.(string)
	return text
}

// List is a claim that is a string or a list of strings, else nothing.
func (s *Subject) List(name string) []string {
	v, _ := s.find(name)
	list, ok := values(v)
	if !ok {
		return nil
	}
	var texts []string
	for _, e := range list {
		if text, ok := strings.CutPrefix(e, stringMark); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// find looks a claim up by its name, and else takes dots in the name for steps
// down. Names with dots of their own are tried first, for they are common:
// https://example.com/roles, resource_access.my.client.roles.
func (s *Subject) find(name string) (any, bool) { return descend(s.Claims, name) }

func descend(m map[string]any, name string) (any, bool) {
	if v, ok := m[name]; ok {
		return v, true
	}
	for i := len(name) - 1; i > 0; i-- {
		if name[i] != '.' {
			continue
		}
		if inner, ok := m[name[:i]].(map[string]any); ok {
			if v, ok := descend(inner, name[i+1:]); ok {
				return v, true
			}
		}
	}
	return nil, false
}

// leftOut reports whether the issuer left a claim out of the token for its
// size (OpenID Connect Core, 5.6.2; Entra's hasgroups).
func (s *Subject) leftOut(name string) bool {
	elsewhere, _ := s.Claims["_claim_names"].(map[string]any)
	if _, ok := elsewhere[name]; ok {
		return true
	}
	has, ok := s.Claims["hasgroups"]
	return ok && name == "groups" && has != false && has != "false"
}

// Values are compared with their type: the string "true" is not true.
const (
	stringMark = "s:"
	boolMark   = "b:"
	numberMark = "n:"
)

// Value is a claim's value as the file writes it, ready to compare.
func Value(text, tag string) (string, error) {
	switch tag {
	case "!!str":
		return stringMark + text, nil
	case "!!bool":
		return boolMark + strings.ToLower(text), nil
	case "!!int":
		n, err := strconv.ParseInt(text, 0, 64)
		return numberMark + strconv.FormatInt(n, 10), err
	}
	return "", errors.New("want a string, a whole number, true or false")
}

func values(claim any) ([]string, bool) {
	list, ok := claim.([]any)
	if !ok {
		list = []any{claim}
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		switch e := e.(type) {
		case string:
			out = append(out, stringMark+e)
		case bool:
			out = append(out, boolMark+strconv.FormatBool(e))
		case json.Number:
			out = append(out, numberMark+e.String())
		default:
			return nil, false
		}
	}
	return out, true
}

// Claim holds for users whose claim has one of the values, or all of them.
type Claim struct {
	Name   string
	Values []string // as Value makes them
	All    bool
}

// Judge implements [Rule]. A claim that is missing has no value, unless the
// issuer says that it is elsewhere.
func (c Claim) Judge(s *Subject) Verdict {
	claim, ok := s.find(c.Name)
	if !ok {
		if s.leftOut(c.Name) {
			return Unknown
		}
		return No
	}
	has, ok := values(claim)
	if !ok {
		return Unknown
	}
	holds := func(want string) bool { return slices.Contains(has, want) }
	if c.All {
		return answer(!slices.ContainsFunc(c.Values, func(v string) bool { return !holds(v) }))
	}
	return answer(slices.ContainsFunc(c.Values, holds))
}

func (c Claim) String() string {
	shown := make([]string, len(c.Values))
	for i, v := range c.Values {
		if text, ok := strings.CutPrefix(v, stringMark); ok {
			shown[i] = strconv.Quote(text)
		} else {
			shown[i] = v[len(boolMark):]
		}
	}
	if c.All {
		return fmt.Sprintf("claim %s has all of %s", c.Name, strings.Join(shown, ", "))
	}
	return fmt.Sprintf("claim %s has one of %s", c.Name, strings.Join(shown, ", "))
}

// Group holds for members of one of the groups.
type Group []string

// Judge implements [Rule].
func (g Group) Judge(s *Subject) Verdict {
	marked := make([]string, len(g))
	for i, name := range g {
		marked[i] = stringMark + name
	}
	return Claim{Name: s.Groups, Values: marked}.Judge(s)
}

func (g Group) String() string { return "group is one of " + quoted(g) }

// SubjectIs holds for the users with these subjects at the issuer.
type SubjectIs []string

// Judge implements [Rule].
func (l SubjectIs) Judge(s *Subject) Verdict { return answer(slices.Contains(l, s.User.Subject)) }

func (l SubjectIs) String() string { return "subject is one of " + quoted(l) }

// Tenant holds for users who signed in to one of these Entra tenants, in lower
// case.
type Tenant []string

// Judge implements [Rule].
func (l Tenant) Judge(s *Subject) Verdict {
	if s.User.Tenant == "" {
		return Unknown
	}
	return answer(signin.AllowTenant(l...)(s.User) == nil)
}

func (l Tenant) String() string { return "tenant is one of " + quoted(l) }

// EmailDomain holds for verified addresses in one of these domains.
type EmailDomain []string

// Judge implements [Rule].
func (l EmailDomain) Judge(s *Subject) Verdict {
	if s.Email() == "" {
		return Unknown
	}
	return answer(signin.AllowEmailDomain(l...)(s.User) == nil)
}

func (l EmailDomain) String() string { return "verified e-mail address is in " + quoted(l) }

// All holds if every rule does.
type All []Rule

// Judge implements [Rule].
func (l All) Judge(s *Subject) Verdict {
	verdict := Yes
	for _, r := range l {
		switch r.Judge(s) {
		case No:
			return No
		case Unknown:
			verdict = Unknown
		}
	}
	return verdict
}

func (l All) String() string { return joined(l, " and ") }

// Any holds if one rule does.
type Any []Rule

// Judge implements [Rule].
func (l Any) Judge(s *Subject) Verdict {
	verdict := No
	for _, r := range l {
		switch r.Judge(s) {
		case Yes:
			return Yes
		case Unknown:
			verdict = Unknown
		}
	}
	return verdict
}

func (l Any) String() string { return joined(l, " or ") }

// Not holds if its rule does not.
type Not struct{ Rule Rule }

// Judge implements [Rule].
func (n Not) Judge(s *Subject) Verdict {
	switch n.Rule.Judge(s) {
	case Yes:
		return No
	case No:
		return Yes
	}
	return Unknown
}

func (n Not) String() string { return "not (" + n.Rule.String() + ")" }

func answer(holds bool) Verdict {
	if holds {
		return Yes
	}
	return No
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return strings.Join(out, ", ")
}

func joined(rules []Rule, word string) string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.String()
		switch r.(type) {
		case All, Any:
			out[i] = "(" + out[i] + ")"
		}
	}
	return strings.Join(out, word)
}

var (
	guid   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	domain = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)
)
