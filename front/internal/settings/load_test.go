package settings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// good is what a newcomer writes.
const good = `base_url: https://wiki.example.com
issuer: https://login.example.com
client_id: front
client_secret: s3cret-value
routes:
  - {path: /, allow: signed-in, upstream: "http://127.0.0.1:9000"}
`

func write(t *testing.T, name, body string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t *testing.T, body string, environ []string, args ...string) (*Config, []string) {
	t.Helper()
	c, _, err := Load(Source{Args: append([]string{"-config", write(t, "front.yaml", body)}, args...), Environ: environ})
	var faults Faults
	var lines []string
	if errors.As(err, &faults) {
		for _, f := range faults {
			lines = append(lines, f.Error())
			if strings.Contains(f.Error(), "s3cret") {
				t.Errorf("a fault quotes a secret: %v", f)
			}
		}
	}
	return c, lines
}

func TestNewcomer(t *testing.T) {
	c, faults := load(t, good, nil)
	if faults != nil {
		t.Fatal(faults)
	}
	if c.Listen != "127.0.0.1:8080" || c.Store.Kind != "memory" || c.SessionLifetime != 12*time.Hour || c.AccessLog != "stdout" ||
		!slices.Equal(c.Scopes, []string{"openid", "profile", "email", "offline_access"}) || c.ResponseType != "code id_token" || c.AdminListen != "" {
		t.Errorf("defaults are %+v", c)
	}
}

// The contract's own example, and its further names.
func TestContract(t *testing.T) {
	dir := t.TempDir()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.MarshalPKCS8PrivateKey(key)
	for name, body := range map[string]string{
		"secret": "s3cret", "keys": strings.Repeat("07", 32) + "\n" + strings.Repeat("08", 32) + "\n", "logo.svg": "<svg/>",
		"key.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "front.yaml")
	err := os.WriteFile(file, []byte(`
listen: 127.0.0.1:8080
admin_listen: 127.0.0.1:8081
base_url: https://wiki.example.com
trusted_proxies: [127.0.0.1/32]
issuer: https://login.example.com
client_id: front
client_secret_file: secret
scopes: [openid, profile, email, offline_access]
response_type: code id_token
response_mode: form_post
session_keys_file: keys
session_lifetime: 12h
store: memory
site: {name: Wiki, color: "#1a56c4", logo: logo.svg}
routes:
  - path: /public/
    allow: public
    upstream: http://127.0.0.1:9000
  - path: /admin/
    allow: {claim: realm_access.roles, any: [admin]}
    upstream: http://127.0.0.1:9001
    headers: {X-WEBAUTH-USER: email, Remote-User: subject}
  - path: /
    allow: {all: [{email_domain: [example.com]}, {not: {subject: ["1001"]}}]}
    require: {scopes: [mail.read], acr: [gold], max_age: 1h}
    upstream: http://127.0.0.1:9000
    pass: [access_token]
    bearer: true
  - {path: /api/, allow: signed-in, upstream: "unix:/run/app.sock", bearer: {audience: [api]}, introspect: true}
  - {path: /files/, allow: signed-in, upstream: "file:."}
access_log: off
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c, rest, err := Load(Source{Args: []string{"check", "-config", file, "-client-id=other", "-introspect"},
		Environ: []string{"FRONT_SCOPES=openid", "FRONT_CLIENT_ID=third", "OIDC_PROMPT=consent", "PATH=/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rest, []string{"check"}) || c.ClientID != "other" || !slices.Equal(c.Scopes, []string{"openid"}) || c.Prompt != "consent" || !c.Introspect {
		t.Errorf("%v %+v", rest, c)
	}
	if len(c.SessionKeys) != 2 || c.SessionKeys[1][0] != 8 || c.Site.Logo.Type != "image/svg+xml" || len(c.TrustedProxies) != 1 {
		t.Errorf("%+v", c)
	}
	last := c.Routes[2]
	if last.Pattern != "/" || last.MaxAge != time.Hour || last.Bearer == nil || last.Rule.String() != `verified e-mail address is in "example.com" and not (subject is one of "1001")` {
		t.Errorf("%+v", last)
	}
	if h := c.Routes[1].Headers; len(h) != 2 || h[0] != (Header{"Remote-User", "subject"}) {
		t.Errorf("%v", h)
	}
	if c.Routes[4].Upstream.Path != dir || c.Routes[3].Bearer.Audience[0] != "api" || !c.Routes[3].Bearer.Introspect {
		t.Errorf("%+v %+v", c.Routes[3], c.Routes[4])
	}
}

// Without any file, by the demo site's variables.
func TestDemoVariables(t *testing.T) {
	c, _, err := Load(Source{Environ: []string{
		"ADDR=127.0.0.1:0", "BASE_URL=http://localhost:1", "OIDC_ISSUER=http://127.0.0.1:2", "OIDC_CLIENT_ID=client", "OIDC_CLIENT_SECRET=s",
		"OIDC_SCOPES=openid email", "OIDC_RESPONSE_TYPE=code", "OIDC_RESPONSE_MODE=query", "OIDC_PROMPT=login",
		"SESSION_KEY=" + strings.Repeat("07", 32) + "," + strings.Repeat("08", 32), "REDIS_URL=redis://:pw@127.0.0.1:6379/1",
		`FRONT_ROUTES=[{path: /, allow: signed-in, upstream: "http://127.0.0.1:3"}]`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:0" || c.Issuer != "http://127.0.0.1:2" || len(c.SessionKeys) != 2 || c.Store != (Store{"redis", "redis://:pw@127.0.0.1:6379/1"}) ||
		c.ResponseMode != "query" || len(c.Routes) != 1 || c.BaseURL != "http://localhost:1" || c.Prompt != "login" {
		t.Errorf("%+v", c)
	}
	// FRONT_ wins over them.
	c, _ = load(t, good, []string{"OIDC_CLIENT_ID=a", "FRONT_CLIENT_ID=b", "OIDC_CLIENT_SECRET=x"})
	if c == nil || c.ClientID != "b" || c.ClientSecret != "x" {
		t.Errorf("%+v", c)
	}
}

func TestDemoClientAuth(t *testing.T) {
	file := good[:strings.Index(good, "client_secret")] + good[strings.Index(good, "routes"):]
	if c, faults := load(t, file, []string{"OIDC_CLIENT_AUTH=none", "OIDC_PAR=auto", "OIDC_DPOP=0"}); c == nil || !c.PublicClient {
		t.Errorf("none: %q", faults)
	}
	if c, faults := load(t, file, []string{"OIDC_CLIENT_AUTH=secret", "OIDC_CLIENT_SECRET=x", "OIDC_CLIENT_KEY=/nonexistent"}); c == nil || c.ClientSecret != "x" {
		t.Errorf("secret: %q", faults)
	}
}

// route is good with another route.
func route(s string) string {
	return good[:strings.Index(good, "  - {")] + "  - " + s + "\n"
}

func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		body string
		args []string
		env  []string
		want string // in the one fault there is
	}{
		"unknown name":        {body: good + "isuer: x\n", want: `front.yaml:7: unknown name "isuer"; is issuer meant?`},
		"unknown inner name":  {body: good + "site: {nam: x}\n", want: `unknown name "site.nam"; is site.name meant?`},
		"unknown flag":        {body: good, args: []string{"-client_id", "x"}, want: "-client_id: unknown flag; is client-id meant?"},
		"unknown variable":    {body: good, env: []string{"FRONT_ISSUR=x"}, want: "FRONT_ISSUR: unknown variable; is FRONT_ISSUER meant?"},
		"flag without value":  {body: good, args: []string{"-issuer"}, want: "-issuer: needs a value"},
		"twice":               {body: good + "issuer: x\n", want: `"issuer" stands twice`},
		"not YAML":            {body: "issuer: [", want: "is not YAML"},
		"a list":              {body: good + "issuer2: [a]\n", want: "unknown name"},
		"no issuer":           {body: strings.Replace(good, "issuer", "prompt", 1), want: "issuer: missing"},
		"no client":           {body: strings.Replace(good, "client_id", "prompt", 1), want: "client_id: missing"},
		"no secret":           {body: strings.Replace(good, "client_secret", "prompt", 1), want: "public_client: true"},
		"secret and public":   {body: good + "public_client: true\n", want: "public_client: beside a client secret"},
		"two secrets":         {body: good + "client_secret_file: /etc/passwd\n", want: "client_secret"},
		"no secret file":      {body: strings.Replace(good, "client_secret: s3cret-value", "client_secret_file: /nonexistent", 1), want: "client_secret_file: "},
		"no key file":         {body: strings.Replace(good, "client_secret: s3cret-value", "client_key_file: /dev/null", 1), want: "client_key_file: "},
		"bad URL":             {body: strings.Replace(good, "https://wiki.example.com", "wiki.example.com", 1), want: "base_url: want the site's URL"},
		"plain http":          {body: strings.Replace(good, "https://wiki", "http://wiki", 1), want: "base_url: want https://"},
		"base path":           {body: strings.Replace(good, "wiki.example.com", "example.com/wiki", 1), want: "base_url: want it without a path"},
		"listen":              {body: good + "listen: '8080'\n", want: "listen: "},
		"same listen":         {body: good + "admin_listen: 127.0.0.1:8080\n", want: "admin_listen: is the same as listen"},
		"trusts all":          {body: good + "trusted_proxies: [0.0.0.0/0]\n", want: "trusts everybody"},
		"prefix":              {body: good + "trusted_proxies: [10.0.0.1/8]\n", want: "10.0.0.0/8"},
		"no prefix":           {body: good + "trusted_proxies: [proxy]\n", want: "not an address range"},
		"time":                {body: good + "session_lifetime: 12\n", want: "is not a time"},
		"negative time":       {body: good + "session_lifetime: -12h\n", want: "more than nothing"},
		"keys":                {body: good + "session_keys: [abc]\n", want: "64 hexadecimal digits"},
		"zero key":            {body: good + "session_keys: ['" + strings.Repeat("0", 64) + "']\n", want: "all zeros"},
		"keys without keys":   {body: good + "session_keys: []\n", want: "has no key in it"},
		"store without keys":  {body: good + "store: redis://127.0.0.1\n", want: "needs session_keys"},
		"store":               {body: good + "store: redis\n", want: "store: want memory"},
		"half TLS":            {body: good + "tls: {cert_file: /dev/null}\n", want: "tls: want both"},
		"TLS files":           {body: good + "tls: {cert_file: /dev/null, key_file: /dev/null}\n", want: "tls.cert_file: cannot be used"},
		"colour":              {body: good + "site: {color: blue}\n", want: `"#1a56c4"`},
		"logo":                {body: good + "site: {logo: logo.gif}\n", want: "site.logo"},
		"boolean":             {body: good + "introspect: yes\n", want: "true or false"},
		"no routes":           {body: good[:strings.Index(good, "routes")], want: "routes: missing"},
		"empty routes":        {body: route("")[:strings.Index(good, "  - {")-1] + " []\n", want: "routes: is empty"},
		"no allow":            {body: route(`{path: /, upstream: "http://127.0.0.1:1"}`), want: "allow: missing"},
		"allow true":          {body: route(`{path: /, allow: true, upstream: "http://127.0.0.1:1"}`), want: `"true": want public, signed-in`},
		"allow anyone":        {body: route(`{path: /, allow: anyone, upstream: "http://127.0.0.1:1"}`), want: "want public, signed-in"},
		"allow null":          {body: route(`{path: /, allow: , upstream: "http://127.0.0.1:1"}`), want: "want public"},
		"no path":             {body: route(`{allow: public, upstream: "http://127.0.0.1:1"}`), want: "path: missing"},
		"own path":            {body: route(`{path: /oidc/x, allow: public, upstream: "http://127.0.0.1:1"}`), want: "belongs to signin-front"},
		"other host":          {body: route(`{path: other.example.com/, allow: public, upstream: "http://127.0.0.1:1"}`), want: "is not base_url's"},
		"same path":           {body: route("{path: /, allow: public, upstream: 'http://127.0.0.1:1'}\n  - {path: /, allow: public, upstream: 'http://127.0.0.1:1'}"), want: "routes[1].path: \"/\" conflicts with"},
		"upstream":            {body: route(`{path: /, allow: public, upstream: "127.0.0.1:9000"}`), want: "want an http or https URL"},
		"upstream by ftp":     {body: route(`{path: /, allow: public, upstream: "ftp://127.0.0.1"}`), want: "want an http or https URL"},
		"no folder":           {body: route(`{path: /, allow: public, upstream: "file:/nonexistent"}`), want: "/nonexistent"},
		"forward only":        {body: route(`{path: /, allow: signed-in}`), want: "nobody who may ask"},
		"star":                {body: route(`{path: /, allow: {email_domain: ["*"]}, upstream: "http://127.0.0.1:1"}`), want: "would admit everybody"},
		"at":                  {body: route(`{path: /, allow: {email_domain: ["@corp.com"]}, upstream: "http://127.0.0.1:1"}`), want: "without the @: corp.com"},
		"no values":           {body: route(`{path: /, allow: {claim: roles}, upstream: "http://127.0.0.1:1"}`), want: "would admit nobody"},
		"empty values":        {body: route(`{path: /, allow: {claim: roles, any: []}, upstream: "http://127.0.0.1:1"}`), want: "would admit nobody"},
		"empty value":         {body: route(`{path: /, allow: {claim: roles, any: ["a", ""]}, upstream: "http://127.0.0.1:1"}`), want: "empty or has spaces"},
		"flag's syntax":       {body: route(`{path: /, allow: {claim: roles, any: ["=x"]}, upstream: "http://127.0.0.1:1"}`), want: "begins with ="},
		"claim=value":         {body: route(`{path: /, allow: {claim: roles=x, any: ["x"]}, upstream: "http://127.0.0.1:1"}`), want: "want the name of a claim"},
		"empty group":         {body: route(`{path: /, allow: {group: [""]}, upstream: "http://127.0.0.1:1"}`), want: "an item is empty"},
		"no group":            {body: route(`{path: /, allow: {group: []}, upstream: "http://127.0.0.1:1"}`), want: "would admit nobody"},
		"number":              {body: route(`{path: /, allow: {subject: [1001]}, upstream: "http://127.0.0.1:1"}`), want: `in quotes: "1001"`},
		"tenant":              {body: route(`{path: /, allow: {tenant: [contoso.com]}, upstream: "http://127.0.0.1:1"}`), want: "a GUID"},
		"two rules":           {body: route(`{path: /, allow: {tenant: [x], group: [y]}, upstream: "http://127.0.0.1:1"}`), want: "want one of"},
		"unknown rule":        {body: route(`{path: /, allow: {role: [x]}, upstream: "http://127.0.0.1:1"}`), want: `unknown rule "role"`},
		"nobody":              {body: route(`{path: /, allow: {all: [{subject: [a]}, {subject: [b]}]}, upstream: "http://127.0.0.1:1"}`), want: "would admit nobody"},
		"nobody either":       {body: route(`{path: /, allow: {all: [{group: [a]}, {not: {group: [a]}}]}, upstream: "http://127.0.0.1:1"}`), want: "would admit nobody"},
		"everybody":           {body: route(`{path: /, allow: {any: [{group: [a]}, {not: {group: [a]}}]}, upstream: "http://127.0.0.1:1"}`), want: "holds for every user"},
		"everybody either":    {body: route(`{path: /, allow: {any: [{not: {subject: [a]}}, {not: {subject: [b]}}]}, upstream: "http://127.0.0.1:1"}`), want: "holds for every user"},
		"header Host":         {body: route(`{path: /, allow: signed-in, headers: {Host: email}, upstream: "http://127.0.0.1:1"}`), want: "belongs to HTTP"},
		"header Cookie":       {body: route(`{path: /, allow: signed-in, headers: {cookie: email}, upstream: "http://127.0.0.1:1"}`), want: "belongs to HTTP"},
		"header Connection":   {body: route(`{path: /, allow: signed-in, headers: {Connection: email}, upstream: "http://127.0.0.1:1"}`), want: "belongs to HTTP"},
		"header by proxies":   {body: route(`{path: /, allow: signed-in, headers: {X-Forwarded-For: email}, upstream: "http://127.0.0.1:1"}`), want: "belongs to HTTP"},
		"header underscore":   {body: route(`{path: /, allow: signed-in, headers: {X_User: email}, upstream: "http://127.0.0.1:1"}`), want: "hyphens"},
		"header space":        {body: route(`{path: /, allow: signed-in, headers: {"X User": email}, upstream: "http://127.0.0.1:1"}`), want: "hyphens"},
		"header twice":        {body: route(`{path: /, allow: signed-in, headers: {X-User: email, x-user: name}, upstream: "http://127.0.0.1:1"}`), want: "same name"},
		"header source":       {body: route(`{path: /, allow: signed-in, headers: {X-User: mail}, upstream: "http://127.0.0.1:1"}`), want: `"mail" is not known`},
		"pass":                {body: route(`{path: /, allow: signed-in, pass: [refresh_token], upstream: "http://127.0.0.1:1"}`), want: "want access_token"},
		"pass in clear":       {body: route(`{path: /, allow: signed-in, pass: [access_token], upstream: "http://wiki.internal"}`), want: "in clear"},
		"public and pass":     {body: route(`{path: /, allow: public, pass: [access_token], upstream: "http://127.0.0.1:1"}`), want: "of no use"},
		"public and bearer":   {body: route(`{path: /, allow: public, bearer: true, upstream: "http://127.0.0.1:1"}`), want: "of no use"},
		"require":             {body: route(`{path: /, allow: signed-in, require: {scope: [a]}, upstream: "http://127.0.0.1:1"}`), want: `unknown name "scope"`},
		"bearer audience":     {body: route(`{path: /, allow: signed-in, bearer: {audience: []}, upstream: "http://127.0.0.1:1"}`), want: "is empty"},
		"unknown route name":  {body: route(`{path: /, allow: signed-in, upsteam: "http://127.0.0.1:1", upstream: "http://127.0.0.1:1"}`), want: `unknown name "upsteam"`},
		"CA with plain http":  {body: route(`{path: /, allow: signed-in, upstream_ca: /dev/null, upstream: "https://127.0.0.1:1"}`), want: "no PEM certificate"},
		"introspect, no use":  {body: route(`{path: /, allow: signed-in, introspect: true, upstream: "http://127.0.0.1:1"}`), want: "beside bearer only"},
		"introspect, public":  {body: strings.Replace(route(`{path: /, allow: signed-in, bearer: true, introspect: true, upstream: "http://127.0.0.1:1"}`), "client_secret: s3cret-value", "public_client: true", 1), want: "needs a client secret"},
		"DPoP":                {body: good, env: []string{"OIDC_DPOP=1"}, want: "OIDC_DPOP: not built in"},
		"mTLS":                {body: good, env: []string{"OIDC_CLIENT_AUTH=tls"}, want: "OIDC_CLIENT_AUTH: \"tls\": not built in"},
		"wildcards and files": {body: route(`{path: "/{x}/", allow: signed-in, upstream: "file:."}`), want: "no wildcards"},
	} {
		t.Run(name, func(t *testing.T) {
			_, faults := load(t, tc.body, tc.env, tc.args...)
			if len(faults) != 1 || !strings.Contains(faults[0], tc.want) {
				t.Errorf("faults %q, want one with %q", faults, tc.want)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, faults := load(t, "listen: x\nnonsense: 1\nroutes:\n  - {path: /}\n  - {allow: true}\n", []string{"FRONT_NONSENSE=1"}, "-nonsense", "-session-lifetime", "soon")
	all := strings.Join(faults, "\n")
	for _, want := range []string{"listen:", `"nonsense"`, "FRONT_NONSENSE", "-nonsense", "-session-lifetime", "issuer:", "client_id:", "client_secret:", "routes[0].allow", "routes[1].allow", "routes[1].path"} {
		if !strings.Contains(all, want) {
			t.Errorf("no fault about %s in\n%s", want, all)
		}
	}
}

func TestTableHasEveryNameOnce(t *testing.T) {
	for spelling, of := range map[string]func(Setting) string{"file": func(s Setting) string { return s.Name }, "flag": Setting.Flag, "env": Setting.Env} {
		seen := map[string]bool{}
		for _, s := range Table() {
			if seen[of(s)] {
				t.Errorf("%s: %s stands twice", spelling, of(s))
			}
			seen[of(s)] = true
			if s.Doc == "" || strings.HasSuffix(s.Doc, ".") {
				t.Errorf("%s: doc %q", s.Name, s.Doc)
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(good)
	f.Add("routes: &a [*a]")
	f.Add("a: &a {b: *a}\nroutes: [{<<: *a}]")
	f.Fuzz(func(t *testing.T, body string) {
		Load(Source{Environ: []string{"FRONT_ROUTES=" + body}})
		_, _, _ = Load(Source{Args: []string{"-routes", body, "-scopes", body}})
	})
}
