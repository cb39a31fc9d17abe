package settings

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed454743b5/signin/front/internal/routes"
	"go.yaml.in/yaml/v3"
)

// check reports what is missing, and what does not go together.
func (l *loader) check(c *Config) {
	l.checkAddresses(c)
	l.checkClient(c)
	l.checkKeys(c)
	l.checkTLS(c)
	l.checkLook(c)
	l.checkRoutes(c)
}

// at makes faults say where a setting stands.
func (l *loader) at(name string) *yaml.Node {
	l.now, l.prefix = l.values[name], name+": "
	return l.now.node
}

func (l *loader) checkAddresses(c *Config) {
	l.checkListen("listen", c.Listen)
	l.checkListen("admin_listen", c.AdminListen)
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") {
		l.fault(l.at("admin_listen"), "is the same as listen; want another, which the public does not reach")
	}
	if c.BaseURL != "" {
		c.BaseURL = strings.TrimSuffix(c.BaseURL, "/")
		l.checkBaseURL(c.BaseURL)
	}
}

func (l *loader) checkListen(name, addr string) {
	if p, ok := strings.CutPrefix(addr, "unix:"); addr == "" || ok && p != "" {
		return
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		l.fault(l.at(name), "%q: want HOST:PORT or unix:PATH", addr)
	}
}

func (l *loader) checkBaseURL(raw string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		l.fault(l.at("base_url"), "want the site's URL such as https://wiki.example.com")
	case u.Path != "":
		l.fault(l.at("base_url"), "want it without a path; routes have paths")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		l.fault(l.at("base_url"), "want https://%s; plain http is for loopback only", u.Host)
	case u.Host != strings.ToLower(u.Host):
		l.fault(l.at("base_url"), "want the host in lower case")
	}
}

func (l *loader) checkClient(c *Config) {
	if c.Issuer == "" {
		l.wrong("issuer: missing; want the OpenID Provider's URL")
	}
	if c.ClientID == "" {
		l.wrong("client_id: missing; want the id that the issuer gave this site")
	}
	l.checkSecretFile(c)
	secret := c.ClientSecret != "" || c.ClientSecretFile != ""
	switch {
	case secret && c.ClientKeyFile != "":
		l.fault(l.at("client_key_file"), "beside a client secret; want one of them")
	case c.PublicClient && (secret || c.ClientKeyFile != ""):
		l.fault(l.at("public_client"), "beside a client secret or key; want one of them")
	case !c.PublicClient && !secret && c.ClientKeyFile == "":
		l.prefix, l.now = "", value{}
		l.wrong("client_secret: missing; want client_secret_file, client_key_file, or public_client: true if the issuer gave this site none")
	}
	if c.ClientKeyFile != "" {
		if _, err := ReadKey(c.ClientKeyFile); err != nil {
			l.fault(l.at("client_key_file"), "%s: %s", c.ClientKeyFile, cause(err))
		}
	}
}

func (l *loader) checkSecretFile(c *Config) {
	if c.ClientSecretFile == "" {
		return
	}
	if c.ClientSecret != "" {
		l.fault(l.at("client_secret"), "beside client_secret_file; want one of them")
	}
	secret, err := secretFile(c.ClientSecretFile)
	switch {
	case err != nil:
		l.fault(l.at("client_secret_file"), "%s: %s", c.ClientSecretFile, cause(err))
	case secret == "":
		l.fault(l.at("client_secret_file"), "%s: is empty", c.ClientSecretFile)
	}
}

func (l *loader) checkKeys(c *Config) {
	name, keys := "session_keys", c.sessionKeys
	if c.sessionKeysFile != "" {
		if len(keys) > 0 {
			l.fault(l.at(name), "beside session_keys_file; want one of them")
		}
		name = "session_keys_file"
		raw, err := secretFile(c.sessionKeysFile)
		if err != nil {
			l.fault(l.at(name), "%s: %s", c.sessionKeysFile, cause(err))
			return
		}
		keys = strings.Fields(strings.ReplaceAll(raw, ",", " "))
	}
	if len(keys) == 0 {
		if _, said := l.values[name]; said {
			l.fault(l.at(name), "has no key in it; make one with: openssl rand -hex 32")
		} else if c.Store.Kind != "memory" && c.Store.Kind != "" {
			l.fault(l.at("store"), "keeps sessions across restarts, which needs session_keys or session_keys_file; make a key with: openssl rand -hex 32")
		}
		return
	}
	for i, s := range keys {
		key, err := hex.DecodeString(s)
		switch {
		case err != nil || len(key) != 32: // not quoted: it is a secret
			l.fault(l.at(name), "key %d is not 64 hexadecimal digits; make one with: openssl rand -hex 32", i+1)
		case bytes.Equal(key, make([]byte, 32)):
			l.fault(l.at(name), "key %d is all zeros; make one with: openssl rand -hex 32", i+1)
		case slices.ContainsFunc(c.SessionKeys, func(k []byte) bool { return bytes.Equal(k, key) }):
			l.fault(l.at(name), "key %d stands twice", i+1)
		}
		c.SessionKeys = append(c.SessionKeys, key)
	}
}

// RandomKey is for a front without session keys: a restart signs everyone out.
func RandomKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return key
}

func (l *loader) checkTLS(c *Config) {
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		l.wrong("tls: want both cert_file and key_file")
	} else if c.TLS.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile); err != nil {
			l.fault(l.at("tls.cert_file"), "cannot be used: %s", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	if c.Autocert.Cache == "" {
		if c.Autocert.Email != "" || c.Autocert.Directory != "" || c.Autocert.CA != "" {
			l.wrong("autocert: want cache, a folder to keep certificates in")
		}
		return
	}
	if c.TLS.CertFile != "" {
		l.fault(l.at("autocert.cache"), "beside tls; want one of them")
	}
	if len(c.Hosts()) == 0 {
		l.fault(l.at("autocert.cache"), "needs base_url, or routes with a host, to know which certificates to get")
	}
	if c.Autocert.CA != "" {
		if pem, err := os.ReadFile(c.Autocert.CA); err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
			l.fault(l.at("autocert.ca_file"), "%s: want a file of PEM certificates", c.Autocert.CA)
		}
	}
}

// Hosts are the names this site is known by, those that are no addresses.
func (c *Config) Hosts() []string {
	var hosts []string
	add := func(host string) {
		if host != "" && net.ParseIP(host) == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	if u, err := url.Parse(c.BaseURL); err == nil {
		add(u.Hostname())
	}
	for _, r := range c.Routes {
		_, host, _ := routes.Split(r.Pattern)
		add(host)
	}
	return hosts
}

var hexColor = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

func (l *loader) checkLook(c *Config) {
	if !hexColor.MatchString(c.Site.Color) {
		l.fault(l.at("site.color"), "%q: want a colour such as \"#1a56c4\", in quotes", c.Site.Color)
	}
	if len(c.Site.Name) > 100 {
		l.fault(l.at("site.name"), "want 100 bytes at most")
	}
	if c.HeaderEncoding != EncodeUTF8 && c.HeaderEncoding != EncodePercent {
		l.fault(l.at("header_encoding"), "%q: want utf-8 or percent", c.HeaderEncoding)
	}
	if c.GroupsClaim == "" {
		l.fault(l.at("groups_claim"), "is empty; want the name of a claim")
	}
}

func (l *loader) checkRoutes(c *Config) {
	n := l.at("routes")
	if len(c.Routes) == 0 {
		if n == nil {
			l.prefix = ""
			l.wrong("routes: missing; want at least one, such as - {path: /, allow: signed-in, upstream: http://127.0.0.1:9000}")
		} else if n.Kind == yaml.SequenceNode {
			l.fault(n, "is empty; want at least one")
		}
		return
	}
	l.checkPatterns(c, n)
	l.prefix = ""
	for i, r := range c.Routes {
		if r.Bearer != nil && (r.Bearer.Introspect || c.Introspect) && c.PublicClient {
			l.fault(item(n, i), "routes[%d]: introspection needs a client secret or key, and public_client has neither", i)
		}
	}
	forwardOnly := !slices.ContainsFunc(c.Routes, func(r *Route) bool { return r.Upstream.Kind != KindNone })
	if forwardOnly && len(l.faults) == 0 && len(c.TrustedProxies) == 0 && !strings.HasPrefix(c.Listen, "unix:") {
		l.fault(n, "routes: no route has an upstream, so all is for forward authentication, and trusted_proxies names nobody who may ask; want an upstream, or trusted_proxies")
	}
}

// item is a route's node.
func item(n *yaml.Node, i int) *yaml.Node {
	if n.Kind == yaml.SequenceNode && i < len(n.Content) {
		return n.Content[i]
	}
	return n
}

// checkPatterns makes the table of routes.
func (l *loader) checkPatterns(c *Config, n *yaml.Node) {
	patterns := make([]string, len(c.Routes))
	for i, r := range c.Routes {
		patterns[i] = r.Pattern
	}
	table, faults := routes.New(patterns)
	for i, err := range faults {
		if err != nil && patterns[i] != "" {
			l.prefix = "routes[" + strconv.Itoa(i) + "].path: "
			l.fault(item(n, i), "%s", err.Error())
		}
	}
	c.Table = table
	base, err := url.Parse(c.BaseURL)
	if c.BaseURL == "" || err != nil {
		return
	}
	for i, p := range patterns {
		if _, host, _ := routes.Split(p); host != "" && host != base.Hostname() {
			l.prefix = "routes[" + strconv.Itoa(i) + "].path: "
			l.fault(item(n, i), "the host %s is not base_url's; with several hosts leave base_url out, and set trusted_proxies if a proxy is in front", host)
		}
	}
}
