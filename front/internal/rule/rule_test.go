package rule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed454743b5/signin"
	"go.yaml.in/yaml/v3"
)

const contoso = "aaaaaaaa-0000-4000-8000-000000000001"

func parse(t *testing.T, text string) (Rule, []string) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	var faults []string
	r := Parse(doc.Content[0], func(_ *yaml.Node, format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) })
	return r, faults
}

func TestJudge(t *testing.T) {
	alice := &signin.User{Issuer: "https://login.example.com", Subject: "1001", Tenant: contoso, RawClaims: []byte(`{
		"email": "alice@example.com", "email_verified": true, "roles": ["Reader", "Editor"], "one": "a b", "admin": true, "level": 12345678901234567,
		"groups": ["staff", "a,b"], "realm_access": {"roles": ["admin"]}, "resource_access": {"my.client": {"roles": ["x"]}},
		"https://example.com/roles": ["ns"], "odd": {"a": 1}, "mixed": ["a", {"b": 1}], "empty": [], "null": null}`)}
	few := &signin.User{Issuer: "https://login.example.com", Subject: "1002", RawClaims: []byte(`{"email": "bob@example.com", "email_verified": false,
		"_claim_names": {"roles": "src1"}, "hasgroups": true}`)}
	none := &signin.User{Subject: "x"}
	for text, want := range map[string][3]Verdict{ // alice, few, none
		`{claim: roles, any: [Admin, Reader]}`:                               {Yes, Unknown, No},
		`{claim: roles, any: [Admin]}`:                                       {No, Unknown, No},
		`{claim: roles, any: reader}`:                                        {No, Unknown, No},
		`{claim: roles, all: [Reader, Editor]}`:                              {Yes, Unknown, No},
		`{claim: roles, all: [Reader, Admin]}`:                               {No, Unknown, No},
		`{claim: one, any: [a]}`:                                             {No, No, No},
		`{claim: one, any: ["a b"]}`:                                         {Yes, No, No},
		`{claim: admin, any: [true]}`:                                        {Yes, No, No},
		`{claim: admin, any: ["true"]}`:                                      {No, No, No},
		`{claim: level, any: [12345678901234567]}`:                           {Yes, No, No},
		`{claim: level, any: [12345678901234568]}`:                           {No, No, No},
		`{claim: realm_access.roles, any: [admin]}`:                          {Yes, No, No},
		`{claim: resource_access.my.client.roles, any: [x]}`:                 {Yes, No, No},
		`{claim: https://example.com/roles, any: [ns]}`:                      {Yes, No, No},
		`{claim: odd, any: [a]}`:                                             {Unknown, No, No},
		`{claim: mixed, any: [a]}`:                                           {Unknown, No, No},
		`{claim: empty, any: [a]}`:                                           {No, No, No},
		`{claim: "null", any: [a]}`:                                          {Unknown, No, No},
		`{group: [staff]}`:                                                   {Yes, Unknown, No},
		`{group: [a]}`:                                                       {No, Unknown, No},
		`{email_domain: [EXAMPLE.com]}`:                                      {Yes, Unknown, Unknown},
		`{email_domain: [example.org]}`:                                      {No, Unknown, Unknown},
		`{email_domain: [sub.example.com]}`:                                  {No, Unknown, Unknown},
		`{tenant: [` + strings.ToUpper(contoso) + `]}`:                       {Yes, Unknown, Unknown},
		`{subject: ["1001"]}`:                                                {Yes, No, No},
		`{not: {subject: ["1001"]}}`:                                         {No, Yes, Yes},
		`{not: {group: [staff]}}`:                                            {No, Unknown, Yes},
		`{not: {group: [banned]}}`:                                           {Yes, Unknown, Yes},
		`{not: {claim: odd, any: [banned]}}`:                                 {Unknown, Yes, Yes},
		`{not: {email_domain: [evil.example]}}`:                              {Yes, Unknown, Unknown},
		`{not: {not: {group: [staff]}}}`:                                     {Yes, Unknown, No},
		`{all: [{group: [staff]}, {subject: ["1001"]}]}`:                     {Yes, No, No},
		`{all: [{group: [staff]}, {subject: ["1001", "1002"]}]}`:             {Yes, Unknown, No},
		`{any: [{group: [staff]}, {subject: ["1002"]}]}`:                     {Yes, Yes, No},
		`{any: [{group: [other]}, {subject: ["1003"]}]}`:                     {No, Unknown, No},
		`{all: [{email_domain: [example.com]}, {not: {subject: ["1001"]}}]}`: {No, Unknown, Unknown},
	} {
		r, faults := parse(t, text)
		if r == nil {
			t.Errorf("%s: %q", text, faults)
			continue
		}
		for i, u := range []*signin.User{alice, few, none} {
			if got := r.Judge(Of(u, "groups")); got != want[i] {
				t.Errorf("%s of user %d: %d, want %d (%s)", text, i, got, want[i], r)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{all: [{email_domain: [example.com]}, {not: {subject: ["1001"]}}]}`)
	f.Add(`{claim: a.b, any: [1, true, "x"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var doc yaml.Node
		if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) == 0 || strings.ContainsAny(text, "&*") {
			return
		}
		faults := 0
		r := Parse(doc.Content[0], func(*yaml.Node, string, ...any) { faults++ })
		if (r == nil) != (faults > 0) {
			t.Fatalf("%v with %d faults", r, faults)
		}
		// Whoever says nothing about themselves is admitted by a "not" only.
		if r != nil && !strings.Contains(text, "not") && r.Judge(Of(&signin.User{Subject: "\x00"}, "groups")) == Yes {
			t.Fatalf("%s admits nobody in particular", r)
		}
	})
}
