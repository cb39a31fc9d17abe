package oauth2proxy

import "strings"

// Release is the release of oauth2-proxy that the table is about.
const Release = "7.15.3"

// Option is one of oauth2-proxy's options, as its file spells it.
type Option struct {
	Name string
	Here string // what does the same here; empty: nothing does
	Note string // what differs, or why there is nothing
}

// Reasons that several options share.
const (
	byDiscovery = "endpoints and keys come from the issuer's discovery document"
	noProvider  = "the issuer must be an OpenID Provider; this provider speaks OAuth 2.0 only. Put Dex or Keycloak in between"
	noGoogle    = "groups have to be in the ID token; Google leaves them out. Put an issuer that knows groups in between"
	noPassword  = "there is no second way in besides the issuer"
	always      = "always so"
	noLogFile   = "lines are JSON; rotate files with logrotate and SIGHUP"
	ownCookies  = "cookies are __Host-, Secure, HttpOnly and Lax, for one host, and small; sessions are in the store"
	noInsecure  = "left out on purpose: it would let in tokens that prove nothing"
)

// Options are all there are in the release.
var Options = []Option{
	{"acr_values", "routes[].require.acr", "one of them must be met, or the user is asked once more, then refused"},
	{"allow_query_semicolons", "", "the query reaches the upstream as it came"},
	{"allowed_groups", "routes[].allow: {group: [...]}", ""},
	{"allowed_roles", "routes[].allow: {claim: realm_access.roles, any: [...]}", "of a client: resource_access.CLIENT.roles"},
	{"api_routes", "", "scripts get 401 by what browsers say of a request, on every route"},
	{"approval_prompt", "prompt", ""},
	{"auth_logging", "", "events of sign-ins are always logged, to standard error"},
	{"auth_logging_format", "", noLogFile},
	{"auth_request_response_mode", "response_mode", ""},
	{"authenticated_emails_file", "", "write rules: {subject: [...]}, {group: [...]} or {email_domain: [...]}; an address may pass to somebody else"},
	{"azure_graph_group_field", "", "groups come from the ID token; assign groups or app roles to the application"},
	{"azure_tenant", "issuer", "https://login.microsoftonline.com/TENANT/v2.0"},
	{"backend_logout_url", "", "POST /oidc/signout also signs out at the issuer, by its discovery document"},
	{"banner", "", "there is no sign-in page of the front's own"},
	{"basic_auth_password", "", "an upstream can verify pass: [identity_jwt] by the keys at /oidc/keys"},
	{"bearer_token_login_fallback", "", "a bad token is answered with 401, never with a redirect"},
	{"bitbucket_repository", "", noProvider},
	{"bitbucket_team", "", noProvider},
	{"client_id", "client_id", ""},
	{"client_secret", "client_secret", ""},
	{"client_secret_file", "client_secret_file", "a line break at the end does no harm"},
	{"code_challenge_method", "", always + ": S256"},
	{"cookie_csrf_expire", "", "a sign-in may take an hour"},
	{"cookie_csrf_per_request", "", "one small cookie serves all tabs"},
	{"cookie_csrf_per_request_limit", "", "one small cookie serves all tabs"},
	{"cookie_csrf_samesite", "", ownCookies},
	{"cookie_domains", "", "each host signs in by itself, silently at the issuer: a cookie for a whole domain goes to every server below it"},
	{"cookie_expire", "session_lifetime", ""},
	{"cookie_httponly", "", always},
	{"cookie_name", "cookie_name", "names begin with __Host-; there is seldom a reason to change the stem"},
	{"cookie_path", "", ownCookies},
	{"cookie_refresh", "", "tokens are renewed when an upstream needs them; idle_timeout ends unused sessions"},
	{"cookie_samesite", "", ownCookies},
	{"cookie_secret", "session_keys", "a key of another form: openssl rand -hex 32. Everybody signs in once more"},
	{"cookie_secret_file", "session_keys_file", "a key of another form: openssl rand -hex 32. Everybody signs in once more"},
	{"cookie_secure", "", always + ", but on http loopback"},
	{"custom_sign_in_logo", "site.logo", "on the front's pages; there is no sign-in page"},
	{"custom_templates_dir", "site", "name, colour and logo"},
	{"disable_keep_alives", "", "connections to upstreams are kept"},
	{"display_htpasswd_form", "", noPassword},
	{"email_domains", "routes[].allow: {email_domain: [...]}", "* is allow: signed-in; subdomains are named one by one; the issuer must vouch for the address"},
	{"encode_state", "", "the state is sealed and encoded"},
	{"entra_id_allowed_tenants", "routes[].allow: {tenant: [...]}", ""},
	{"entra_id_federated_token_auth", "", "use client_key_file or a secret"},
	{"errors_to_info_log", "", noLogFile},
	{"exclude_logging_paths", "", "filter the JSON lines by path"},
	{"extra_jwt_issuers", "", "programs have tokens of the one issuer"},
	{"flush_interval", "", "events and streams are flushed at once"},
	{"footer", "", "there is no sign-in page of the front's own"},
	{"force_code_challenge_method", "", always + ": S256"},
	{"force_https", "", "let what listens on port 80 redirect"},
	{"force_json_errors", "", "errors are JSON to those who ask for JSON, and to scripts"},
	{"gcp_healthchecks", "admin_listen", "/healthz and /readyz"},
	{"github_org", "", noProvider},
	{"github_repo", "", noProvider},
	{"github_team", "", noProvider},
	{"github_token", "", noProvider},
	{"github_users", "", noProvider},
	{"gitlab_groups", "routes[].allow: {claim: groups_direct, any: [...]}", "GitLab's ID tokens have groups_direct"},
	{"gitlab_projects", "", "projects do not stand in ID tokens"},
	{"google_admin_api_user_scope", "", noGoogle},
	{"google_admin_email", "", noGoogle},
	{"google_group", "", noGoogle},
	{"google_groups", "", noGoogle},
	{"google_service_account_json", "", noGoogle},
	{"google_target_principal", "", noGoogle},
	{"google_use_application_default_credentials", "", noGoogle},
	{"google_use_organization_id", "", noGoogle},
	{"htpasswd_file", "", noPassword},
	{"htpasswd_user_groups", "", noPassword},
	{"http_address", "listen", "fd: is systemd's socket activation, without a setting"},
	{"https_address", "listen", "with tls"},
	{"insecure_oidc_allow_unverified_email", "", noInsecure},
	{"insecure_oidc_skip_issuer_verification", "", noInsecure + ". Entra's several tenants work without it"},
	{"insecure_oidc_skip_nonce", "", noInsecure},
	{"jwt_key", "client_key_file", "in a file"},
	{"jwt_key_file", "client_key_file", ""},
	{"keycloak_groups", "routes[].allow: {group: [...]}", ""},
	{"logging_compress", "", noLogFile},
	{"logging_filename", "access_log", noLogFile},
	{"logging_local_time", "", noLogFile},
	{"logging_max_age", "", noLogFile},
	{"logging_max_backups", "", noLogFile},
	{"logging_max_size", "", noLogFile},
	{"login_url", "", byDiscovery},
	{"metrics_address", "admin_listen", "/metrics, beside /healthz and /readyz"},
	{"metrics_secure_address", "", "keep admin_listen on loopback or a private network"},
	{"metrics_tls_cert_file", "", "keep admin_listen on loopback or a private network"},
	{"metrics_tls_key_file", "", "keep admin_listen on loopback or a private network"},
	{"oidc_audience_claims", "", "the audience is aud, as OpenID Connect has it"},
	{"oidc_email_claim", "routes[].headers", "rules read email and email_verified; a header can have any claim: claim:NAME"},
	{"oidc_enabled_signing_algs", "", "what the issuer announces, symmetric ones aside"},
	{"oidc_extra_audiences", "routes[].bearer.audience", "for programs' tokens; an ID token is for client_id"},
	{"oidc_groups_claim", "groups_claim", "dots descend"},
	{"oidc_issuer_url", "issuer", ""},
	{"oidc_jwks_url", "", byDiscovery},
	{"oidc_public_key_files", "", byDiscovery},
	{"pass_access_token", "routes[].pass: [access_token]", "as Authorization: Bearer; oauth2-proxy says X-Forwarded-Access-Token"},
	{"pass_authorization_header", "routes[].pass: [id_token]", "as Authorization: Bearer"},
	{"pass_basic_auth", "", "identity is in headers of its own; a client's own Authorization passes as it is"},
	{"pass_host_header", "", always + ": the upstream gets the site's host"},
	{"pass_user_headers", "routes[].headers", always + ", with headers: {} for none"},
	{"ping_path", "admin_listen", "/healthz"},
	{"ping_user_agent", "admin_listen", "/healthz"},
	{"prefer_email_to_user", "routes[].headers: {X-Forwarded-User: email}", ""},
	{"profile_url", "", byDiscovery},
	{"prompt", "prompt", ""},
	{"provider", "issuer", "any OpenID Provider, by its issuer URL"},
	{"provider_ca_files", "", "the environment variable SSL_CERT_FILE"},
	{"provider_display_name", "", "there is no sign-in page of the front's own"},
	{"proxy_prefix", "", always + ": /oidc"},
	{"proxy_websockets", "", always + ", from the site's own origin"},
	{"pubjwk_url", "", byDiscovery},
	{"ready_path", "admin_listen", "/readyz"},
	{"real_client_ip_header", "trusted_proxies", "X-Forwarded-For, from trusted proxies"},
	{"redeem_url", "", byDiscovery},
	{"redirect_url", "base_url", "without the path. The callback is /oidc/callback"},
	{"redis_ca_path", "", "the environment variable SSL_CERT_FILE"},
	{"redis_cluster_connection_urls", "store", "redis://HOST:PORT?addr=HOST:PORT&..."},
	{"redis_connection_idle_timeout", "", "connections are watched and made anew"},
	{"redis_connection_url", "store", ""},
	{"redis_insecure_skip_tls_verify", "", noInsecure},
	{"redis_password", "store", "in the URL"},
	{"redis_sentinel_connection_urls", "store", "redis://HOST:PORT?addr=HOST:PORT&master_set=NAME"},
	{"redis_sentinel_master_name", "store", "?master_set=NAME"},
	{"redis_sentinel_password", "", "sentinels are asked without a password of their own"},
	{"redis_use_cluster", "store", "several ?addr="},
	{"redis_use_sentinel", "store", "?master_set=NAME"},
	{"redis_username", "store", "in the URL"},
	{"relative_redirect_url", "", "leave base_url out, and the host is the request's"},
	{"request_id_header", "", "sign-ins have a reference that stands on error pages and in the log"},
	{"request_logging", "access_log", "off, or where to"},
	{"request_logging_format", "", noLogFile},
	{"resource", "", "not sent"},
	{"reverse_proxy", "trusted_proxies", "names whom to believe"},
	{"scope", "scopes", ""},
	{"session_cookie_minimal", "", "no token is ever in a cookie"},
	{"session_store_type", "store", "sessions are in memory, a file, Redis or SQL, never in the cookie"},
	{"set_authorization_header", "routes[].pass: [id_token]", "in the answer of /oidc/auth, too"},
	{"set_basic_auth", "", "identity is in headers of its own"},
	{"set_xauthrequest", "routes[].headers", "{X-Auth-Request-User: subject, X-Auth-Request-Email: email, ...}"},
	{"show_debug_on_error", "", "the reference on an error page stands in the log"},
	{"signature_key", "routes[].pass: [identity_jwt]", "a signed token, verified by the keys at /oidc/keys"},
	{"silence_ping_logging", "", always},
	{"skip_auth_preflight", "", "write a public route for OPTIONS where a path needs it"},
	{"skip_auth_regex", "routes[]: allow: public", "paths in place of regular expressions"},
	{"skip_auth_routes", "routes[]: allow: public", "paths in place of regular expressions"},
	{"skip_auth_strip_headers", "", always + ", in every spelling"},
	{"skip_claims_from_profile_url", "", "claims come from the ID token"},
	{"skip_jwt_bearer_tokens", "routes[].bearer", "access tokens of RFC 9068; an ID token is none"},
	{"skip_oidc_discovery", "", byDiscovery},
	{"skip_provider_button", "", always + ": there is no sign-in page of the front's own"},
	{"ssl_insecure_skip_verify", "", noInsecure},
	{"ssl_upstream_insecure_skip_verify", "routes[].upstream_ca", "trust the upstream's own authority in place of everybody"},
	{"standard_logging", "", "events are always logged, to standard error"},
	{"standard_logging_format", "", noLogFile},
	{"tls_cert_file", "tls.cert_file", "read again when it changes"},
	{"tls_cipher_suites", "", "those of Go, TLS 1.2 and later"},
	{"tls_key_file", "tls.key_file", ""},
	{"tls_min_version", "", always + ": TLS 1.2"},
	{"trusted_ips", "", "an address is no identity; write a public route, or let programs bring tokens"},
	{"trusted_proxy_ips", "trusted_proxies", ""},
	{"upstream_timeout", "upstream_timeout", ""},
	{"upstreams", "routes[]", "path and upstream"},
	{"use_system_trust_store", "", "the environment variable SSL_CERT_FILE"},
	{"user_id_claim", "routes[].headers", "claim:NAME"},
	{"validate_url", "", byDiscovery},
	{"whitelist_domains", "", "after sign-in a browser comes back to the host it began at, and to no other"},
}

func find(name string) (Option, bool) {
	for _, o := range Options {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

// Markdown is the table as it stands in the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| oauth2-proxy | here | remark |\n|---|---|---|\n")
	for _, o := range Options {
		here := "–"
		if o.Here != "" {
			here = "`" + o.Here + "`"
		}
		b.WriteString("| `" + o.Name + "` | " + here + " | " + o.Note + " |\n")
	}
	return b.String()
}
