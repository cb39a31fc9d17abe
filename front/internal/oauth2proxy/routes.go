package oauth2proxy

import (
	"net/url"
	"regexp"
	"strings"
)

// route is one of the result's.
type route struct {
	Path     string            `yaml:"path"`
	Allow    any               `yaml:"allow"`
	Upstream string            `yaml:"upstream,omitempty"`
	Require  map[string]any    `yaml:"require,omitempty"`
	Headers  map[string]string `yaml:"headers,omitempty"`
	Pass     []string          `yaml:"pass,omitempty,flow"`
	Bearer   bool              `yaml:"bearer,omitempty"`
}

func (im *importer) routes() {
	proto := route{Allow: im.allow(), Headers: im.headers(), Pass: im.pass(), Bearer: im.truth("skip_jwt_bearer_tokens")}
	if proto.Bearer {
		im.note("skip_jwt_bearer_tokens: access tokens by RFC 9068 are taken (typ at+jwt), ID tokens are not; introspect: true asks the issuer about others")
	}
	if acr := strings.Fields(im.text("acr_values")); len(acr) > 0 {
		proto.Require = map[string]any{"acr": acr}
	}
	var all []route
	for _, s := range im.list("upstreams") {
		r := proto
		ok := false
		if r.Path, r.Upstream, ok = im.upstream(s); ok {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		r := proto
		r.Path = "/"
		all = append(all, r)
		im.note("no upstream: the route is for a proxy that asks at /oidc/auth; trusted_proxies has to name it")
	}
	for _, name := range []string{"skip_auth_routes", "skip_auth_regex"} {
		for _, s := range im.list(name) {
			all = im.public(all, name, s)
		}
	}
	im.set("routes", all)
}

func (im *importer) upstream(s string) (path, upstream string, ok bool) {
	u, err := url.Parse(s)
	if err != nil {
		im.note("upstreams: %q is not a URL", s)
		return "", "", false
	}
	path = u.Path
	switch u.Scheme {
	case "http", "https":
		upstream = u.Scheme + "://" + u.Host
	case "unix":
		path, upstream = u.Fragment, "unix:"+u.Path
	case "file":
		if path = u.Fragment; path == "" {
			path = u.Path
		}
		upstream = "file:" + u.Path
	default:
		im.note("upstreams: %q: there is no such upstream here", s)
		return "", "", false
	}
	if path == "" {
		path = "/"
	}
	return path, upstream, true
}

// allow makes the rule: whoever fails one part is refused, as before.
func (im *importer) allow() any {
	var rules []map[string]any
	var domains []string
	anybody := false
	for _, d := range im.list("email_domains") {
		switch {
		case d == "*":
			anybody = true
		case strings.HasPrefix(d, ".") || strings.HasPrefix(d, "*."):
			im.note("email_domains %q: subdomains are named one by one here", d)
		default:
			domains = append(domains, d)
		}
	}
	if f := im.text("authenticated_emails_file"); f != "" {
		o, _ := find("authenticated_emails_file")
		im.note("authenticated_emails_file: not carried over: %s", o.Note)
		anybody = false
	}
	if !anybody {
		if len(domains) == 0 {
			im.note("no email_domains that could be carried over: the rule admits nobody until you write one")
			domains = []string{"nobody.invalid"}
		}
		rules = append(rules, map[string]any{"email_domain": domains})
	}
	if groups := append(im.list("allowed_groups"), im.list("keycloak_groups")...); len(groups) > 0 {
		rules = append(rules, map[string]any{"group": groups})
	}
	if groups := im.list("gitlab_groups"); len(groups) > 0 {
		rules = append(rules, map[string]any{"claim": "groups_direct", "any": groups})
	}
	if tenants := im.list("entra_id_allowed_tenants"); len(tenants) > 0 {
		rules = append(rules, map[string]any{"tenant": tenants})
	}
	if r := im.roles(); r != nil {
		rules = append(rules, r)
	}
	switch len(rules) {
	case 0:
		return "signed-in"
	case 1:
		return rules[0]
	}
	return map[string]any{"all": rules}
}

// roles are Keycloak's: of the realm, or of a client as CLIENT:ROLE.
func (im *importer) roles() map[string]any {
	byClaim := map[string][]string{}
	var claims []string
	for _, role := range im.list("allowed_roles") {
		claim := "realm_access.roles"
		if client, r, ok := strings.Cut(role, ":"); ok {
			claim, role = "resource_access."+client+".roles", r
		}
		if byClaim[claim] == nil {
			claims = append(claims, claim)
		}
		byClaim[claim] = append(byClaim[claim], role)
	}
	var rules []map[string]any
	for _, claim := range claims {
		rules = append(rules, map[string]any{"claim": claim, "any": byClaim[claim]})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	}
	return map[string]any{"any": rules}
}

func (im *importer) headers() map[string]string {
	user := "subject"
	if im.truth("prefer_email_to_user") {
		user = "email"
	}
	pass, said := im.values["pass_user_headers"].(bool)
	im.used["pass_user_headers"] = true
	headers := map[string]string{}
	if !said || pass {
		headers = map[string]string{"X-Forwarded-User": user, "X-Forwarded-Email": "email", "X-Forwarded-Preferred-Username": "preferred_username", "X-Forwarded-Groups": "groups"}
	}
	if im.truth("set_xauthrequest") {
		for name, source := range map[string]string{"User": user, "Email": "email", "Preferred-Username": "preferred_username", "Groups": "groups"} {
			headers["X-Auth-Request-"+name] = source
		}
	} else if (!said || pass) && user == "subject" {
		return nil // what is sent by itself
	}
	return headers
}

func (im *importer) pass() []string {
	var pass []string
	if im.truth("pass_authorization_header") || im.truth("set_authorization_header") {
		pass = append(pass, "id_token")
	}
	if im.truth("pass_access_token") {
		pass = append(pass, "access_token")
		if len(pass) == 1 {
			im.note("pass_access_token: the token arrives as Authorization: Bearer in place of X-Forwarded-Access-Token")
		}
	}
	return pass
}

var plainRegex = regexp.MustCompile(`^\^(/[A-Za-z0-9/_~-]*)(\$|\.\*|\.\*\$)?$`)

// public adds a route that needs no sign-in, if its regular expression is no
// more than a path.
func (im *importer) public(all []route, name, s string) []route {
	method, expr, ok := strings.Cut(s, "=")
	if !ok {
		method, expr = "", s
	}
	m := plainRegex.FindStringSubmatch(expr)
	if m == nil || strings.HasSuffix(method, "!") {
		im.note("%s %q: not carried over; write a route with allow: public for the paths that are meant", name, s)
		return all
	}
	path, exact := m[1], m[2] == "$"
	if !exact && !strings.HasSuffix(path, "/") {
		im.note("%s %q: it was also public for every path that begins so; now for %s alone", name, s, path)
	}
	if method != "" {
		path = strings.ToUpper(method) + " " + path
	}
	r := route{Path: path, Allow: "public"}
	best := 0
	for _, other := range all {
		if strings.HasPrefix(m[1], other.Path) && len(other.Path) >= best && other.Allow != any("public") {
			r.Upstream, best = other.Upstream, len(other.Path)
		}
	}
	return append(all, r)
}
