package settings

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Setting is one name, in the file, as a flag and in the environment.
type Setting struct {
	Name    string // as in the file; a dot is a step into a mapping
	Arg     string // what stands for the value in a help text; empty: true or false
	Default string // as a person would write it; empty: none
	Doc     string // one sentence, without a full stop

	demo string // the name that the library's demo site gives it in the environment
	set  func(l *loader, c *Config, n *yaml.Node)
	path bool // the value is a path; in a file it is relative to that file
}

// Flag is the setting's name on the command line, without a hyphen in front.
func (s Setting) Flag() string { return strings.NewReplacer("_", "-", ".", "-").Replace(s.Name) }

// Env is the setting's name in the environment.
func (s Setting) Env() string {
	return "FRONT_" + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "_"))
}

// Table returns all settings. It is the one place that names them: the file,
// the flags, the environment, the manual and the completion come from it.
func Table() []Setting {
	return []Setting{
		{Name: "listen", Arg: "ADDR", Default: "127.0.0.1:8080", demo: "ADDR", set: text(func(c *Config) *string { return &c.Listen }),
			Doc: "Where to serve: HOST:PORT or unix:PATH; not used if systemd hands over a socket"},
		{Name: "admin_listen", Arg: "ADDR", set: text(func(c *Config) *string { return &c.AdminListen }),
			Doc: "Where to serve GET /healthz, /readyz and /metrics; unset, none of them is served"},
		{Name: "base_url", Arg: "URL", demo: "BASE_URL", set: text(func(c *Config) *string { return &c.BaseURL }),
			Doc: "The site's URL as browsers see it; unset, taken from each request, through trusted_proxies"},
		{Name: "trusted_proxies", Arg: "CIDRS", set: (*loader).prefixes,
			Doc: "The peers whose X-Forwarded headers are believed and that may ask /oidc/auth"},
		{Name: "tls.cert_file", Arg: "FILE", path: true, set: text(func(c *Config) *string { return &c.TLS.CertFile }),
			Doc: "PEM certificate, leaf first; read again when the file changes"},
		{Name: "tls.key_file", Arg: "FILE", path: true, set: text(func(c *Config) *string { return &c.TLS.KeyFile }),
			Doc: "PEM key of the certificate"},
		{Name: "autocert.cache", Arg: "DIR", path: true, set: text(func(c *Config) *string { return &c.Autocert.Cache }),
			Doc: "Get certificates by ACME for the hosts of base_url and routes, and keep them in this folder"},
		{Name: "autocert.email", Arg: "ADDR", set: text(func(c *Config) *string { return &c.Autocert.Email }),
			Doc: "Whom the certificate authority may write to"},
		{Name: "autocert.directory", Arg: "URL", set: text(func(c *Config) *string { return &c.Autocert.Directory }),
			Doc: "ACME directory of another authority than Let's Encrypt"},
		{Name: "autocert.ca_file", Arg: "FILE", path: true, set: text(func(c *Config) *string { return &c.Autocert.CA }),
			Doc: "PEM certificates that vouch for the ACME directory's own TLS"},

		{Name: "issuer", Arg: "URL", demo: "OIDC_ISSUER", set: text(func(c *Config) *string { return &c.Issuer }),
			Doc: "The OpenID Provider, as its discovery document spells it; required"},
		{Name: "client_id", Arg: "ID", demo: "OIDC_CLIENT_ID", set: text(func(c *Config) *string { return &c.ClientID }),
			Doc: "What the issuer calls this site; required"},
		{Name: "client_secret", Arg: "SECRET", demo: "OIDC_CLIENT_SECRET", set: text(func(c *Config) *string { return &c.ClientSecret }),
			Doc: "The client secret; better in client_secret_file"},
		{Name: "client_secret_file", Arg: "FILE", path: true, set: text(func(c *Config) *string { return &c.ClientSecretFile }),
			Doc: "A file with the client secret; read again when the issuer refuses it"},
		{Name: "client_key_file", Arg: "FILE", path: true, demo: "OIDC_CLIENT_KEY", set: text(func(c *Config) *string { return &c.ClientKeyFile }),
			Doc: "PEM private key: the client authenticates by private_key_jwt"},
		{Name: "public_client", set: truth(func(c *Config) *bool { return &c.PublicClient }),
			Doc: "There is neither secret nor key; PKCE is all"},
		{Name: "scopes", Arg: "SCOPES", Default: "openid profile email offline_access", demo: "OIDC_SCOPES", set: list(func(c *Config) *[]string { return &c.Scopes }),
			Doc: "What to ask for at sign-in"},
		{Name: "response_type", Arg: "TYPE", Default: "code id_token", demo: "OIDC_RESPONSE_TYPE", set: text(func(c *Config) *string { return &c.ResponseType }),
			Doc: "code id_token, or code"},
		{Name: "response_mode", Arg: "MODE", Default: "form_post", demo: "OIDC_RESPONSE_MODE", set: text(func(c *Config) *string { return &c.ResponseMode }),
			Doc: "form_post, or query with response_type code"},
		{Name: "prompt", Arg: "PROMPT", demo: "OIDC_PROMPT", set: text(func(c *Config) *string { return &c.Prompt }),
			Doc: "Sent with every sign-in, such as select_account"},

		{Name: "session_keys", Arg: "HEX", demo: "SESSION_KEY", set: list(func(c *Config) *[]string { return &c.sessionKeys }),
			Doc: "Keys of 64 hexadecimal digits: the first seals, all open; unset, random at each start"},
		{Name: "session_keys_file", Arg: "FILE", path: true, set: text(func(c *Config) *string { return &c.sessionKeysFile }),
			Doc: "A file with the session keys, one a line"},
		{Name: "session_lifetime", Arg: "TIME", Default: "12h", set: duration(func(c *Config) *Duration { return (*Duration)(&c.SessionLifetime) }),
			Doc: "Ends a session, used or not"},
		{Name: "idle_timeout", Arg: "TIME", set: duration(func(c *Config) *Duration { return (*Duration)(&c.IdleTimeout) }),
			Doc: "Ends a session that has not been used for so long"},
		{Name: "cookie_name", Arg: "NAME", Default: "signin-front", set: text(func(c *Config) *string { return &c.CookieName }),
			Doc: "The stem of the cookies' names, which no upstream sees"},
		{Name: "store", Arg: "URL", Default: "memory", demo: "REDIS_URL", set: (*loader).store,
			Doc: "Where sessions live: memory, file:PATH, sqlite:PATH, redis://HOST, postgres://HOST/DB or mysql://HOST/DB"},

		{Name: "groups_claim", Arg: "NAME", Default: "groups", set: text(func(c *Config) *string { return &c.GroupsClaim }),
			Doc: "The claim with the user's groups; dots descend"},
		{Name: "header_encoding", Arg: "CODE", Default: EncodeUTF8, set: text(func(c *Config) *string { return &c.HeaderEncoding }),
			Doc: "How names stand in headers: utf-8, or percent for ASCII only"},
		{Name: "introspect", set: truth(func(c *Config) *bool { return &c.Introspect }),
			Doc: "On routes with bearer, ask the issuer about tokens that are not JWTs of RFC 9068"},
		{Name: "routes", Arg: "YAML", set: (*loader).routes,
			Doc: "What leads where, and who may pass; required"},

		{Name: "site.name", Arg: "NAME", set: text(func(c *Config) *string { return &c.Site.Name }),
			Doc: "The site's name on the front's own pages"},
		{Name: "site.color", Arg: "#RRGGBB", Default: "#1a56c4", set: text(func(c *Config) *string { return &c.Site.Color }),
			Doc: "The colour of buttons and links there"},
		{Name: "site.logo", Arg: "FILE", path: true, set: (*loader).logo,
			Doc: "An SVG, PNG, JPEG or WebP image there, of at most 64 KB"},
		{Name: "access_log", Arg: "WHERE", Default: "stdout", set: text(func(c *Config) *string { return &c.AccessLog }), path: true,
			Doc: "Where a line of JSON for each request goes: stdout, off, or a file, opened again on SIGHUP"},
		{Name: "upstream_timeout", Arg: "TIME", Default: "5m", set: duration(func(c *Config) *Duration { return (*Duration)(&c.UpstreamTimeout) }),
			Doc: "How long an upstream may take to begin its answer"},
		{Name: "shutdown_timeout", Arg: "TIME", Default: "20s", set: duration(func(c *Config) *Duration { return (*Duration)(&c.ShutdownTimeout) }),
			Doc: "How long requests under way may take once the front is told to stop"},
	}
}

// find returns the setting of a name in one of the three spellings.
func find(spelling func(Setting) string, name string) (Setting, bool) {
	for _, s := range Table() {
		if spelling(s) == name {
			return s, true
		}
	}
	return Setting{}, false
}
