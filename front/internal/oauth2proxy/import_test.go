package oauth2proxy

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/front/internal/settings"
	"go.yaml.in/yaml/v3"
)

// The table has every option of the release once, and nothing else.
func TestTableIsComplete(t *testing.T) {
	f, err := os.Open("testdata/options-" + Release + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		want[s.Text()] = true
	}
	if len(want) < 150 {
		t.Fatalf("%d options", len(want))
	}
	last := ""
	for _, o := range Options {
		if !want[o.Name] {
			t.Errorf("%s: not an option, or twice", o.Name)
		}
		delete(want, o.Name)
		if o.Here == "" && o.Note == "" {
			t.Errorf("%s: neither what does it here nor why nothing does", o.Name)
		}
		if o.Name <= last {
			t.Errorf("%s: not in order", o.Name)
		}
		last = o.Name
	}
	for name := range want {
		t.Errorf("%s: missing", name)
	}
}

func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/oauth2-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), Markdown()) {
		t.Errorf("docs/oauth2-proxy.md has another table than:\n%s", Markdown())
	}
}

const keycloak = `
http_address = "0.0.0.0:4180"
reverse_proxy = true
trusted_proxy_ips = ["10.0.0.0/8"]
provider = "keycloak-oidc"
oidc_issuer_url = "https://login.example.com/realms/corp"
client_id = "wiki"
client_secret = "s3cret"
redirect_url = "https://wiki.example.com/oauth2/callback"
cookie_secret = "OQINaROshtE9TcZkNAm-5Zs2Pv3xaWytBmc5W7sPX7w="
cookie_secure = true
cookie_expire = "12h"
cookie_domains = [".example.com"]
email_domains = ["example.com", ".corp.example.com"]
allowed_groups = ["staff"]
allowed_roles = ["admin", "wiki:editor"]
scope = "openid email groups"
upstreams = ["http://127.0.0.1:9000/", "http://127.0.0.1:9001/api/", "unix:///run/app.sock#/sock/"]
skip_auth_routes = ["^/health$", "GET=^/static/", "!=^/x", "/anywhere", "^/(a|b)"]
session_store_type = "redis"
redis_connection_url = "redis://redis.internal:6379/1"
redis_password = "pw"
pass_access_token = true
skip_jwt_bearer_tokens = true
set_xauthrequest = true
prefer_email_to_user = true
htpasswd_file = "/etc/htpasswd"
ssl_insecure_skip_verify = true
insecure_oidc_skip_nonce = false
request_logging = false
nonsense = 1
`

func load(t *testing.T, text string) (*settings.Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{"front.yaml": text, "session-keys": strings.Repeat("07", 32)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := settings.Load(settings.Source{Args: []string{"-config", filepath.Join(dir, "front.yaml")}})
	return c, err
}

func TestImport(t *testing.T) {
	out, notes, err := Import([]byte(keycloak))
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, out)
	if err != nil {
		t.Fatalf("what it writes has faults:\n%v\n%s", err, out)
	}
	if c.Listen != "0.0.0.0:4180" || c.Issuer != "https://login.example.com/realms/corp" || c.ClientSecret != "s3cret" || c.BaseURL != "https://wiki.example.com" ||
		c.Store.URL != "redis://:pw@redis.internal:6379/1" || c.SessionLifetime.Hours() != 12 || c.AccessLog != "off" || len(c.TrustedProxies) != 1 {
		t.Errorf("%+v", c)
	}
	var lines []string
	for _, r := range c.Routes {
		lines = append(lines, r.Pattern+" "+r.Allows())
	}
	rule := `users for whom: verified e-mail address is in "example.com" and group is one of "staff" and (claim realm_access.roles has one of "admin" or claim resource_access.wiki.roles has one of "editor")`
	if got, want := strings.Join(lines, "\n"), "/ "+rule+"\n/api/ "+rule+"\n/sock/ "+rule+"\n/health everybody, without asking who it is\nGET /static/ everybody, without asking who it is"; got != want {
		t.Errorf("routes\n%s\nwant\n%s", got, want)
	}
	first := c.Routes[0]
	if first.Bearer == nil || first.Pass[0] != "access_token" || len(first.Headers) != 8 || c.Routes[1].Upstream.URL.String() != "http://127.0.0.1:9001" || c.Routes[2].Upstream.Path != "/run/app.sock" ||
		c.Routes[3].Upstream.URL.String() != "http://127.0.0.1:9000" {
		t.Errorf("%+v", first)
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{"nonsense: not known", "htpasswd_file: not carried over", "ssl_insecure_skip_verify: not carried over", "cookie_domains: not carried over", `email_domains ".corp.example.com"`,
		`skip_auth_routes "!=^/x"`, `skip_auth_routes "/anywhere"`, `skip_auth_routes "^/(a|b)"`, "/oidc/callback", "openssl rand -hex 32"} {
		if !strings.Contains(all, want) {
			t.Errorf("no note with %q in\n%s", want, all)
		}
	}
	for _, quiet := range []string{"cookie_secure", "insecure_oidc_skip_nonce"} {
		if strings.Contains(all, quiet) {
			t.Errorf("a note about %s, which asks for what is the case", quiet)
		}
	}
}

// Whatever is imported admits no more than before: no rule, nobody.
func TestImportFailsClosed(t *testing.T) {
	out, _, err := Import([]byte(`oidc_issuer_url = "https://a.example"` + "\nclient_id = \"x\"\nauthenticated_emails_file = \"f\"\nemail_domains = [\"*\"]\nupstreams = [\"http://127.0.0.1:1\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if c.Routes[0].Rule == nil || !strings.Contains(c.Routes[0].Rule.String(), "nobody.invalid") || !c.PublicClient {
		t.Errorf("%s", out)
	}
	if _, _, err := Import([]byte("= nonsense")); err == nil {
		t.Error("what is no TOML is accepted")
	}
}

func FuzzImport(f *testing.F) {
	f.Add(keycloak)
	f.Add("upstreams = [1, \"%\"]\nskip_auth_routes = [\"=\"]\nemail_domains = \"*\"")
	f.Fuzz(func(t *testing.T, cfg string) {
		out, _, err := Import([]byte(cfg))
		if err != nil {
			return
		}
		var doc struct {
			Routes []struct{ Path, Allow any }
		}
		if err := yaml.Unmarshal([]byte(out), &doc); err != nil || len(doc.Routes) == 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, r := range doc.Routes {
			if r.Path == nil || r.Allow == nil {
				t.Fatalf("a route without path or rule:\n%s", out)
			}
		}
	})
}
