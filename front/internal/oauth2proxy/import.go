// Package oauth2proxy makes settings of the front out of oauth2-proxy's.
package oauth2proxy

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
)

// Import reads an oauth2-proxy.cfg and writes the settings that do the same,
// with notes about what could not be carried over and what else has to be
// done. In doubt the result admits fewer people than before, never more.
func Import(cfg []byte) (out string, notes []string, err error) {
	im := &importer{values: map[string]any{}}
	var raw map[string]any
	if err := toml.Unmarshal(cfg, &raw); err != nil {
		return "", nil, fmt.Errorf("not TOML: %w", err)
	}
	for name, v := range raw {
		im.values[canonical(name)] = v
	}
	im.unknown()
	im.addresses()
	im.client()
	im.sessions()
	im.more()
	im.routes()
	for _, name := range im.names() {
		if o, ok := find(name); ok && !im.used[name] && o.Here == "" && !im.harmless(name) {
			im.note("%s: not carried over: %s", name, o.Note)
		} else if ok && !im.used[name] && o.Here != "" {
			im.note("%s: not carried over by itself; see %s: %s", name, o.Here, o.Note)
		}
	}
	body, err := yaml.Marshal(im.root)
	if err != nil {
		return "", nil, err
	}
	return "# Made from oauth2-proxy's settings. See docs/oauth2-proxy.md for what differs.\n" + string(body), im.notes, nil
}

// canonical is the file's spelling of a name: some write it as the flag.
func canonical(name string) string {
	name = strings.ReplaceAll(name, "-", "_")
	if _, ok := find(name); ok {
		return name
	}
	if _, ok := find(name + "s"); ok {
		return name + "s"
	}
	return name
}

type importer struct {
	values map[string]any
	used   map[string]bool
	root   yaml.Node // a mapping, in the order it is written
	notes  []string
}

func (im *importer) note(format string, args ...any) {
	im.notes = append(im.notes, fmt.Sprintf(format, args...))
}

func (im *importer) names() []string {
	var names []string
	for name := range im.values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (im *importer) unknown() {
	im.used = map[string]bool{}
	for _, name := range im.names() {
		if _, ok := find(name); !ok {
			im.note("%s: not known in oauth2-proxy %s", name, Release)
			im.used[name] = true
		}
	}
}

// harmless reports whether a value that has nothing here asks for what is the
// case anyway.
func (im *importer) harmless(name string) bool {
	v := im.values[name]
	want, ok := map[string]any{
		"pass_host_header": true, "proxy_websockets": true, "cookie_httponly": true, "cookie_secure": true, "skip_provider_button": true,
		"skip_auth_strip_headers": true, "code_challenge_method": "S256", "force_code_challenge_method": "S256", "cookie_path": "/", "cookie_samesite": "lax",
		"insecure_oidc_allow_unverified_email": false, "insecure_oidc_skip_issuer_verification": false, "insecure_oidc_skip_nonce": false,
		"ssl_insecure_skip_verify": false, "redis_insecure_skip_tls_verify": false, "skip_oidc_discovery": false, "auth_logging": true, "standard_logging": true,
		"tls_min_version": "TLS1.2", "skip_auth_preflight": false, "disable_keep_alives": false, "show_debug_on_error": false, "pass_basic_auth": true, "set_basic_auth": false,
	}[name]
	return ok && v == want
}

func (im *importer) text(name string) string {
	im.used[name] = true
	switch v := im.values[name].(type) {
	case string:
		return v
	case []any:
		if len(v) == 1 {
			s, _ := v[0].(string)
			return s
		}
	}
	return ""
}

func (im *importer) list(name string) (out []string) {
	im.used[name] = true
	switch v := im.values[name].(type) {
	case string:
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	case []any:
		for _, e := range v {
			if s, ok := e.(string); ok && s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func (im *importer) truth(name string) bool {
	im.used[name] = true
	v, _ := im.values[name].(bool)
	return v
}

// set writes one setting.
func (im *importer) set(name string, v any) {
	im.root.Kind = yaml.MappingNode
	var node yaml.Node
	if node.Encode(v) == nil {
		if list, ok := v.([]string); ok && len(list) < 8 {
			node.Style = yaml.FlowStyle
		}
		im.root.Content = append(im.root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, &node)
	}
}

func (im *importer) addresses() {
	listen := strings.TrimPrefix(strings.TrimPrefix(im.text("http_address"), "http://"), "tcp://")
	if listen == "" {
		listen = "127.0.0.1:4180"
	}
	cert, key := im.text("tls_cert_file"), im.text("tls_key_file")
	if cert != "" {
		if listen = im.text("https_address"); listen == "" {
			listen = ":443"
		}
	}
	if p, ok := strings.CutPrefix(listen, "unix://"); ok {
		listen = "unix:" + p
	}
	if strings.HasPrefix(listen, "fd:") {
		im.note("http_address %s: systemd hands sockets over without a setting", listen)
	} else {
		im.set("listen", listen)
	}
	if m := im.text("metrics_address"); m != "" {
		if strings.HasPrefix(m, ":") {
			m = "127.0.0.1" + m
			im.note("metrics_address: on loopback only now, for it also serves /healthz and /readyz; change admin_listen if others ask")
		}
		im.set("admin_listen", m)
	}
	if u, err := url.Parse(im.text("redirect_url")); err == nil && u.Host != "" {
		im.set("base_url", u.Scheme+"://"+u.Host)
	}
	im.note("at the issuer, register the redirect URI https://HOST/oidc/callback and the post-logout redirect URI https://HOST/oidc/signed-out; in a proxy that asks, /oauth2/auth is /oidc/auth now")
	proxies := im.list("trusted_proxy_ips")
	if im.truth("reverse_proxy") && len(proxies) == 0 {
		im.note("reverse_proxy: it believed everybody's X-Forwarded headers; write the proxy's addresses into trusted_proxies")
	}
	if len(proxies) > 0 {
		im.set("trusted_proxies", proxies)
	}
	if cert != "" {
		im.set("tls", map[string]string{"cert_file": cert, "key_file": key})
	}
}

func (im *importer) client() {
	issuer := im.text("oidc_issuer_url")
	provider := im.text("provider")
	if provider == "" {
		provider = "google"
	}
	if issuer == "" {
		tenant := im.text("azure_tenant")
		if tenant == "" {
			tenant = "common"
		}
		issuer = map[string]string{"google": "https://accounts.google.com", "gitlab": "https://gitlab.com", "azure": "https://login.microsoftonline.com/" + tenant + "/v2.0", "login.gov": "https://secure.login.gov/"}[provider]
	} else {
		im.used["azure_tenant"] = true
	}
	if issuer == "" {
		im.note("provider %s: %s; write the issuer's URL into issuer", provider, noProvider)
	}
	im.set("issuer", issuer)
	im.set("client_id", im.text("client_id"))
	key := im.text("jwt_key_file")
	if im.text("jwt_key") != "" {
		key = "client-key.pem"
		im.note("jwt_key: write the key into client-key.pem")
	}
	switch secret, file := im.text("client_secret"), im.text("client_secret_file"); {
	case key != "":
		im.set("client_key_file", key)
	case file != "":
		im.set("client_secret_file", file)
	case secret != "":
		im.set("client_secret", secret)
	default:
		im.set("public_client", true)
	}
	if scope := im.text("scope"); scope != "" {
		im.set("scopes", strings.Fields(scope))
	}
	if mode := im.text("auth_request_response_mode"); mode != "" {
		im.set("response_mode", mode)
		if mode == "query" {
			im.set("response_type", "code")
		}
	}
	if prompt := im.text("prompt"); prompt != "" {
		im.set("prompt", prompt)
		im.used["approval_prompt"] = true
	}
}

func (im *importer) sessions() {
	expire := im.text("cookie_expire")
	if expire == "" {
		expire = "168h"
	}
	im.set("session_lifetime", expire)
	im.text("cookie_secret")
	im.text("cookie_secret_file")
	im.set("session_keys_file", "session-keys")
	im.note("cookie_secret: keys have another form; make one: openssl rand -hex 32 > session-keys. Everybody signs in once more")
	if im.text("session_store_type") != "redis" {
		im.set("store", "memory")
		im.note("session_store_type cookie: sessions are in memory now, so a restart signs everybody out; store: file:PATH or redis://... keeps them")
		return
	}
	main := im.text("redis_connection_url")
	var more []string
	if im.truth("redis_use_sentinel") {
		more = im.list("redis_sentinel_connection_urls")
	}
	if im.truth("redis_use_cluster") {
		more = im.list("redis_cluster_connection_urls")
	}
	if len(more) > 0 {
		main, more = more[0], more[1:]
	}
	u, err := url.Parse(main)
	if err != nil || u.Host == "" {
		im.note("redis_connection_url: is not a URL; write store: redis://HOST:PORT")
		return
	}
	query := url.Values{}
	for _, s := range more {
		if other, err := url.Parse(s); err == nil {
			query.Add("addr", other.Host)
		}
	}
	if im.truth("redis_use_sentinel") {
		query.Set("master_set", im.text("redis_sentinel_master_name"))
	}
	if user, password := im.text("redis_username"), im.text("redis_password"); password != "" {
		u.User = url.UserPassword(user, password)
	}
	if len(query) > 0 {
		u.RawQuery = query.Encode()
	}
	im.set("store", u.String())
}

func (im *importer) more() {
	if claim := im.text("oidc_groups_claim"); claim != "" && claim != "groups" {
		im.set("groups_claim", claim)
	}
	if d := im.text("upstream_timeout"); d != "" {
		im.set("upstream_timeout", d)
	}
	logging, said := im.values["request_logging"].(bool)
	im.used["request_logging"] = true
	switch file := im.text("logging_filename"); {
	case said && !logging:
		im.set("access_log", "off")
	case file != "":
		im.set("access_log", file)
	}
	if logo := im.text("custom_sign_in_logo"); logo != "" && logo != "-" && !strings.Contains(logo, "://") {
		im.set("site", map[string]string{"logo": logo})
	}
	if name := im.text("cookie_name"); name != "" {
		im.note("cookie_name: not carried over; no other program sees the names")
	}
	if claim := im.text("oidc_email_claim"); claim != "" && claim != "email" {
		im.note("oidc_email_claim %s: rules read email, which the issuer has to vouch for by email_verified; a header can have claim:%s", claim, claim)
	}
	if claim := im.text("user_id_claim"); claim != "" && claim != "email" {
		im.note("user_id_claim %s: X-Forwarded-User is the subject now; headers: {X-Forwarded-User: claim:%s}", claim, claim)
	}
}
