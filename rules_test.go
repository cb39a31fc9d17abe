package signin

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

const (
	contoso  = "aaaaaaaa-0000-4000-8000-000000000001"
	fabrikam = "bbbbbbbb-0000-4000-8000-000000000002"

	contosoIssuer = "https://login.microsoftonline.com/" + contoso + "/v2.0"
)

// ruleUser is a user with claims as the issuer wrote them.
func ruleUser(issuer, claims string) *User {
	u := &User{Issuer: issuer, Subject: "s", RawClaims: json.RawMessage(claims)}
	var c struct {
		Tenant string `json:"tid"`
	}
	_ = json.Unmarshal(u.RawClaims, &c)
	u.Tenant = c.Tenant
	return u
}

type ruleCase struct {
	name   string
	claims string
	issuer string
	want   string // what the refusal says; empty admits
}

func checkRule(t *testing.T, rule Rule, cases []ruleCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if tc.issuer == "" {
				tc.issuer = "https://login.example.test"
			}
			err := rule(ruleUser(tc.issuer, tc.claims))
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("%s: denied, %v; want admitted", tc.claims, err)
			case tc.want != "" && err == nil:
				t.Errorf("%s: admitted; want denied, %s", tc.claims, tc.want)
			case tc.want != "" && !strings.Contains(err.Error(), tc.want):
				t.Errorf("%s: denied, %v; want %s", tc.claims, err, tc.want)
			}
		})
	}
}

func TestAllowEmailDomain(t *testing.T) {
	const (
		other      = "another domain"
		unplain    = "not one plain address"
		unverified = "not verified"
		missing    = "missing or not a string"
	)
	checkRule(t, AllowEmailDomain("example.com", "Bank.Example"), []ruleCase{
		{name: "verified", claims: `{"email":"alice@example.com","email_verified":true}`},
		{name: "case of the token", claims: `{"email":"Alice@EXAMPLE.com","email_verified":true}`},
		{name: "case of the rule", claims: `{"email":"alice@bank.example","email_verified":true}`},
		{name: "odd but one address", claims: `{"email":"a.b+c%d=e@example.com","email_verified":true}`},

		{name: "other domain", claims: `{"email":"alice@evil.example","email_verified":true}`, want: other},
		{name: "subdomain", claims: `{"email":"alice@sub.example.com","email_verified":true}`, want: other},
		{name: "longer name", claims: `{"email":"alice@notexample.com","email_verified":true}`, want: other},
		{name: "domain as a prefix", claims: `{"email":"alice@example.com.evil.example","email_verified":true}`, want: other},

		{name: "unverified", claims: `{"email":"alice@example.com","email_verified":false}`, want: unverified},
		{name: "not said", claims: `{"email":"alice@example.com"}`, want: unverified},
		{name: "null", claims: `{"email":"alice@example.com","email_verified":null}`, want: unverified},
		{name: "a string", claims: `{"email":"alice@example.com","email_verified":"true"}`},
		{name: "the string false", claims: `{"email":"alice@example.com","email_verified":"false"}`, want: unverified},
		{name: "an empty string", claims: `{"email":"alice@example.com","email_verified":""}`, want: unverified},
		{name: "a string by another case", claims: `{"email":"alice@example.com","email_verified":"True"}`, want: unverified},
		{name: "a list", claims: `{"email":"alice@example.com","email_verified":[true]}`, want: unverified},
		{name: "a number", claims: `{"email":"alice@example.com","email_verified":1}`, want: unverified},
		{name: "another claim by case", claims: `{"email":"alice@example.com","EMAIL_VERIFIED":true}`, want: unverified},
		{name: "xms_edov of a stranger", claims: `{"email":"alice@example.com","xms_edov":true}`, want: unverified},

		{name: "no claims", claims: `{}`, want: missing},
		{name: "null claims", claims: `null`, want: missing},
		{name: "broken claims", claims: `{"email":"alice@example.com","email_verified":true`, want: "cannot be read"},
		{name: "a list", claims: `{"email":["alice@example.com"],"email_verified":true}`, want: missing},
		{name: "claim by case", claims: `{"Email":"alice@example.com","email_verified":true}`, want: missing},

		{name: "empty", claims: `{"email":"","email_verified":true}`, want: unplain},
		{name: "no @", claims: `{"email":"example.com","email_verified":true}`, want: unplain},
		{name: "no local part", claims: `{"email":"@example.com","email_verified":true}`, want: unplain},
		{name: "no domain", claims: `{"email":"alice@","email_verified":true}`, want: unplain},
		{name: "two @, ours last", claims: `{"email":"alice@evil.example@example.com","email_verified":true}`, want: unplain},
		{name: "two @, ours first", claims: `{"email":"alice@example.com@evil.example","email_verified":true}`, want: unplain},
		{name: "two addresses", claims: `{"email":"x@evil.example,y@example.com","email_verified":true}`, want: unplain},
		{name: "angle brackets", claims: `{"email":"<alice@example.com>","email_verified":true}`, want: unplain},
		{name: "space", claims: `{"email":"alice@example.com ","email_verified":true}`, want: unplain},
		{name: "space before", claims: `{"email":" alice@example.com","email_verified":true}`, want: unplain},
		{name: "newline", claims: `{"email":"x@evil.example\ny@example.com","email_verified":true}`, want: unplain},
		{name: "NUL", claims: `{"email":"alice@example.com\u0000.evil.example","email_verified":true}`, want: unplain},
		{name: "root dot", claims: `{"email":"alice@example.com.","email_verified":true}`, want: unplain},
		{name: "Kelvin sign", claims: `{"email":"alice@ban\u212a.example","email_verified":true}`, want: unplain},
		{name: "full-width", claims: `{"email":"alice@ｅxample.com","email_verified":true}`, want: unplain},
		{name: "full-width @", claims: `{"email":"alice＠example.com","email_verified":true}`, want: unplain},
		{name: "zero-width", claims: `{"email":"alice@exam\u200bple.com","email_verified":true}`, want: unplain},
		{name: "unicode local part", claims: `{"email":"älice@example.com","email_verified":true}`, want: unplain},
		{name: "endless", claims: `{"email":"` + strings.Repeat("a", 300) + `@example.com","email_verified":true}`, want: unplain},

		{name: "Entra, verified owner", issuer: contosoIssuer, claims: `{"email":"alice@example.com","xms_edov":true}`},
		{name: "Entra, as text", issuer: contosoIssuer, claims: `{"email":"alice@example.com","xms_edov":"1"}`},
		{name: "Entra, both", issuer: contosoIssuer, claims: `{"email":"alice@example.com","xms_edov":true,"email_verified":true}`},
		{name: "Entra, not said", issuer: contosoIssuer, claims: `{"email":"alice@example.com"}`, want: unverified},
		{name: "Entra, false", issuer: contosoIssuer, claims: `{"email":"alice@example.com","xms_edov":false}`, want: unverified},
		{name: "Entra, zero", issuer: contosoIssuer, claims: `{"email":"alice@example.com","xms_edov":"0"}`, want: unverified},
		{name: "Entra, a tenant's own claim", issuer: contosoIssuer, claims: `{"email":"alice@example.com","email_verified":true}`, want: unverified},
		{name: "Entra, contradiction", issuer: contosoIssuer, claims: `{"email":"alice@example.com","xms_edov":true,"email_verified":false}`, want: unverified},
		{name: "Entra v1.0", issuer: "https://sts.windows.net/" + contoso + "/", claims: `{"email":"alice@example.com","email_verified":true}`, want: unverified},
	})
}

func TestAllowClaim(t *testing.T) {
	const none, shape, missing, overage = "none of the values", "neither a string nor a list", "is missing", "overage"
	checkRule(t, AllowClaim("groups", "admins", "writers"), []ruleCase{
		{name: "string", claims: `{"groups":"admins"}`},
		{name: "list", claims: `{"groups":["readers","writers"]}`},
		{name: "other string", claims: `{"groups":"readers"}`, want: none},
		{name: "other list", claims: `{"groups":["readers"]}`, want: none},
		{name: "empty list", claims: `{"groups":[]}`, want: none},
		{name: "empty string", claims: `{"groups":""}`, want: none},
		{name: "case", claims: `{"groups":["Admins"]}`, want: none},
		{name: "part", claims: `{"groups":"admins writers"}`, want: none},
		{name: "missing", claims: `{}`, want: missing},
		{name: "by case", claims: `{"Groups":["admins"]}`, want: missing},
		{name: "null", claims: `{"groups":null}`, want: shape},
		{name: "number", claims: `{"groups":1}`, want: shape},
		{name: "true", claims: `{"groups":true}`, want: shape},
		{name: "object", claims: `{"groups":{"admins":true}}`, want: shape},
		{name: "mixed list", claims: `{"groups":["admins",1]}`, want: shape},
		{name: "nested list", claims: `{"groups":[["admins"]]}`, want: shape},
		{name: "overage", claims: `{"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"https://graph.microsoft.com/v1.0/users/x/getMemberObjects"}}}`, want: overage},
		{name: "hasgroups", claims: `{"hasgroups":true}`, want: overage},
		{name: "hasgroups as text", claims: `{"hasgroups":"true"}`, want: overage},
		{name: "has no groups", claims: `{"hasgroups":false}`, want: missing},
		{name: "overage of another claim", claims: `{"_claim_names":{"wids":"src1"}}`, want: missing},
	})
	checkRule(t, AllowClaim("roles", "Admin"), []ruleCase{
		{name: "roles beside a groups overage", claims: `{"roles":["Admin"],"hasgroups":true}`},
		{name: "hasgroups says nothing of roles", claims: `{"hasgroups":true}`, want: missing},
	})
}

// A claim inside another is named by its path, and fails as closed as any.
func TestAllowClaimInside(t *testing.T) {
	const none, shape, missing, twice, overage = "none of the values", "neither a string nor a list", "is missing", "twice", "overage"
	checkRule(t, AllowClaim("realm_access.roles", "admin"), []ruleCase{
		{name: "list", claims: `{"realm_access":{"roles":["user","admin"]}}`},
		{name: "string", claims: `{"realm_access":{"roles":"admin"}}`},
		{name: "by its own name", claims: `{"realm_access.roles":["admin"]}`},
		{name: "others", claims: `{"realm_access":{"roles":["user"]}}`, want: none},
		{name: "empty", claims: `{"realm_access":{"roles":[]}}`, want: none},
		{name: "missing", claims: `{"realm_access":{}}`, want: missing},
		{name: "none", claims: `{}`, want: missing},
		{name: "outer null", claims: `{"realm_access":null}`, want: missing},
		{name: "outer string", claims: `{"realm_access":"roles"}`, want: missing},
		{name: "outer list", claims: `{"realm_access":[{"roles":["admin"]}]}`, want: missing},
		{name: "by case", claims: `{"Realm_access":{"roles":["admin"]},"realm_access":{"Roles":["admin"]}}`, want: missing},
		{name: "at the top", claims: `{"roles":["admin"]}`, want: missing},
		{name: "inner null", claims: `{"realm_access":{"roles":null}}`, want: shape},
		{name: "inner true", claims: `{"realm_access":{"roles":true}}`, want: shape},
		{name: "inner flags", claims: `{"realm_access":{"roles":{"admin":true}}}`, want: shape},
		{name: "mixed", claims: `{"realm_access":{"roles":["admin",1]}}`, want: shape},
		{name: "both ways", claims: `{"realm_access.roles":["admin"],"realm_access":{"roles":["user"]}}`, want: twice},
		{name: "overage", claims: `{"_claim_names":{"realm_access":"src1"}}`, want: overage},
	})
	checkRule(t, AllowClaim("https://example.com/roles", "admin"), []ruleCase{
		{name: "dots in the name", claims: `{"https://example.com/roles":["admin"]}`},
		{name: "a part of the name", claims: `{"https://example":{"com/roles":["admin"]}}`},
		{name: "missing", claims: `{"roles":["admin"]}`, want: missing},
	})
	checkRule(t, AllowClaim("resource_access.my.client.roles", "admin"), []ruleCase{
		{name: "dots inside the path", claims: `{"resource_access":{"my.client":{"roles":["admin"]},"other":{"roles":["user"]}}}`},
		{name: "another client's", claims: `{"resource_access":{"my":{"roles":["admin"]}}}`, want: missing},
	})
	checkRule(t, AllowClaim("urn:zitadel:iam:org:project:roles", "admin"), []ruleCase{
		{name: "names of an object", claims: `{"urn:zitadel:iam:org:project:roles":{"user":{"1":"a.example"},"admin":{"1":"a.example"}}}`},
		{name: "other names", claims: `{"urn:zitadel:iam:org:project:roles":{"user":{"1":"a.example"}}}`, want: none},
		{name: "flags", claims: `{"urn:zitadel:iam:org:project:roles":{"admin":false}}`, want: shape},
		{name: "nothing granted", claims: `{"urn:zitadel:iam:org:project:roles":{"admin":{}}}`, want: shape},
		{name: "one of them odd", claims: `{"urn:zitadel:iam:org:project:roles":{"admin":{"1":"a"},"user":null}}`, want: shape},
		{name: "no names", claims: `{"urn:zitadel:iam:org:project:roles":{}}`, want: shape},
	})
	deep := strings.Repeat("a.", 40) + "a"
	checkRule(t, AllowClaim(deep, "x"), []ruleCase{
		{name: "deep", claims: strings.Repeat(`{"a":`, 41) + `"x"` + strings.Repeat("}", 41), want: missing},
	})
}

func TestAllowTenant(t *testing.T) {
	checkRule(t, AllowTenant(strings.ToUpper(contoso)), []ruleCase{
		{name: "the tenant", claims: `{"tid":"` + contoso + `"}`},
		{name: "another", claims: `{"tid":"` + fabrikam + `"}`, want: "another tenant"},
		{name: "none", claims: `{}`, want: "no tenant"},
	})
}

// A rule made of nothing, or of what cannot be meant, admits nobody.
func TestRulesThatAdmitNobody(t *testing.T) {
	everything := ruleUser(contosoIssuer, `{"email":"alice@example.com","xms_edov":true,"groups":["","admins"],"tid":"`+contoso+`","hasgroups":false}`)
	for name, rule := range map[string]Rule{
		"no domains":       AllowEmailDomain(),
		"empty domain":     AllowEmailDomain("example.com", ""),
		"domain with @":    AllowEmailDomain("example.com", "@example.com"),
		"wildcard":         AllowEmailDomain("example.com", "*.com"),
		"Kelvin sign":      AllowEmailDomain("example.com", "ban\u212a.example"),
		"no values":        AllowClaim("groups"),
		"no claim":         AllowClaim("", "admins"),
		"no tenants":       AllowTenant(),
		"tenant by name":   AllowTenant(contoso, "contoso.com"),
		"empty tenant":     AllowTenant(contoso, ""),
		"nil and":          Rule(nil).And(AllowTenant(contoso)),
		"and nil":          AllowTenant(contoso).And(nil),
		"nil or":           Rule(nil).Or(AllowTenant(fabrikam)),
		"or nil":           AllowTenant(fabrikam).Or(nil),
		"one of both":      AllowTenant(contoso).And(AllowTenant(fabrikam)),
		"the other one":    AllowTenant(fabrikam).And(AllowTenant(contoso)),
		"neither":          AllowTenant(fabrikam).Or(AllowClaim("groups", "x")),
		"and below an or":  AllowTenant(fabrikam).Or(AllowTenant(contoso).And(AllowClaim("groups", "x"))),
		"an or, and false": AllowTenant(fabrikam).Or(AllowTenant(contoso)).And(AllowClaim("groups", "x")),
	} {
		if err := rule(everything); err == nil {
			t.Errorf("%s: admitted", name)
		} else if strings.Contains(err.Error(), "alice") {
			t.Errorf("%s: the error quotes the user: %v", name, err)
		}
	}
	for name, rule := range map[string]Rule{
		"domain": AllowEmailDomain("example.com"), "claim": AllowClaim("groups", "admins"), "tenant": AllowTenant(contoso),
		"and": AllowTenant(contoso).And(AllowClaim("groups", "admins")),
		"or":  AllowTenant(fabrikam).Or(AllowEmailDomain("example.com")),
	} {
		if err := rule(everything); err != nil {
			t.Errorf("%s: %v; the rule must be one that can admit", name, err)
		}
		if rule(nil) == nil {
			t.Errorf("%s: admitted nobody", name)
		}
		if rule(&User{}) == nil {
			t.Errorf("%s: admitted a user without claims", name)
		}
	}
}

// Both reasons stay in reach of who branches on them.
func TestRuleErrors(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	deny := func(err error) Rule { return func(*User) error { return err } }
	if err := deny(one).Or(deny(two))(&User{}); !errors.Is(err, one) || !errors.Is(err, two) {
		t.Errorf("Or: %v; want both reasons", err)
	}
	if err := deny(one).And(deny(two))(&User{}); !errors.Is(err, one) || errors.Is(err, two) {
		t.Errorf("And: %v; want the first reason", err)
	}
}

// editors may open /editors; everyone may open /me.
func newAppWithRule(t *testing.T, allow func(*User) error) (a *app, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	a = newApp(t, func(o *appOptions) {
		o.behaviour = func(b *signintest.Behaviour) {
			b.Users = []signintest.User{
				{Subject: "alice", Claims: map[string]any{"name": "Alice A.", "preferred_username": "alice", "roles": []string{"Reader"}}},
				{Subject: "bob", Claims: map[string]any{"name": "Bob B.", "preferred_username": "bob", "roles": []string{"Editor"}}},
			}
		}
		o.config = func(c *Config) { c.NameClaim = "name" }
	})
	counted := func(u *User) error {
		if asked.Add(1); u == nil {
			t.Error("Allow was asked about nobody")
		}
		return allow(u)
	}
	a.mux.Handle("/editors", a.Require(Requirement{Allow: counted})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("for editors, " + UserFromContext(r.Context()).Subject))
	})))
	return a, asked
}

// A refusal says who is signed in and leads to another account, and does not
// say why.
func TestForbiddenPage(t *testing.T) {
	a, asked := newAppWithRule(t, AllowClaim("roles", "Editor"))
	b := a.browser()

	start := b.Open(a.url + "/")
	if p := b.Fetch(start, "/editors"); p.Status != http.StatusUnauthorized || asked.Load() != 0 {
		t.Fatalf("nobody: %d, Allow asked %d times; want 401 and 0", p.Status, asked.Load())
	}
	p := b.Open(a.url + "/editors?x=1")
	if p.Status != http.StatusForbidden || !strings.Contains(p.Body, "Alice A.") {
		t.Fatalf("alice: %d, want 403 with her name\n%s", p.Status, p.Body)
	}
	if strings.Contains(p.Body, "roles") || strings.Contains(p.Body, "for editors") {
		t.Errorf("the page says why, or what it guards:\n%s", p.Body)
	}
	if !strings.Contains(a.log.String(), `claim \"roles\" has none of the values admitted`) {
		t.Errorf("the log does not say why:\n%s", a.log)
	}
	if got := a.subject(b); got != "alice" {
		t.Errorf("a refusal ended the session: %s", got)
	}

	// The user who comes back is chosen at the issuer, by its account picker.
	a.issuer.Update(func(b *signintest.Behaviour) { b.User = "bob" })
	link := p.Link("another account")
	if link == "" {
		t.Fatalf("no link to another account:\n%s", p.Body)
	}
	p = b.Click(p, link)
	call := a.issuer.LastCall(signintest.EndpointAuthorize).Form
	if call.Get("prompt") != "select_account" {
		t.Errorf("prompt %q, want select_account", call.Get("prompt"))
	}
	if call.Has("login_hint") {
		t.Errorf("login_hint suggests the account that is to be left")
	}
	if p.Status != http.StatusOK || p.Body != "for editors, bob" || p.URL != a.url+"/editors?x=1" {
		t.Errorf("after switching: %d %s %s; want bob on the page asked for", p.Status, p.URL, p.Body)
	}
	if a.redemptions() != 2 {
		t.Errorf("%d redemptions, want 2", a.redemptions())
	}
}

func TestForbiddenForScripts(t *testing.T) {
	a, asked := newAppWithRule(t, func(*User) error { return errors.New("reason for the log") })
	b := a.signIn()
	page := b.Open(a.url + "/")
	p := b.Fetch(page, "/editors")
	var problem struct {
		Status                      int
		Title, Type, Detail, Advice string
		User, Login, Reference      string
	}
	if err := json.Unmarshal([]byte(p.Body), &problem); err != nil {
		t.Fatalf("%v: %s", err, p.Body)
	}
	if p.Status != http.StatusForbidden || problem.Status != http.StatusForbidden || p.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %s %d, want a 403 problem document", p.Status, p.Header.Get("Content-Type"), problem.Status)
	}
	if problem.User != "Alice A." || problem.Reference == "" || problem.Title == "" {
		t.Errorf("%+v: want who is signed in, a title and a reference", problem)
	}
	if strings.Contains(p.Body, "reason for the log") {
		t.Errorf("the rule's error went to the browser: %s", p.Body)
	}
	line := logLine(t, a, "signin: rejected")
	if line["ref"] != problem.Reference || !strings.Contains(line["cause"].(string), "reason for the log") {
		t.Errorf("the log says %v; want the reason under reference %s", line, problem.Reference)
	}
	if p.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("403 with WWW-Authenticate %q: no sign-in helps", p.Header.Get("WWW-Authenticate"))
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("Allow was asked %d times, want once", n)
	}
	if login, err := url.Parse(problem.Login); err != nil || problem.Login != "" && login.Query().Get("ask") == "" {
		t.Errorf("login is %q", problem.Login)
	}
}

// logLine returns the last line of the log with a message.
func logLine(t *testing.T, a *app, msg string) map[string]any {
	t.Helper()
	lines := logLines(t, a, msg)
	if len(lines) == 0 {
		t.Fatalf("no line %q in the log:\n%s", msg, a.log)
	}
	return lines[len(lines)-1]
}

func logLines(t *testing.T, a *app, msg string) (lines []map[string]any) {
	t.Helper()
	for raw := range bytes.Lines([]byte(a.log.String())) {
		var line map[string]any
		if err := json.Unmarshal(raw, &line); err != nil {
			t.Fatalf("a line of the log is not JSON: %v: %s", err, raw)
		}
		if line["msg"] == msg {
			lines = append(lines, line)
		}
	}
	return lines
}
