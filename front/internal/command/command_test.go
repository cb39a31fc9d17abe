package command_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/front/internal/command"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// run runs a command that ends by itself.
func run(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = command.Run(t.Context(), command.Process{Args: args, Environ: environ, Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &err, ReadFile: os.ReadFile})
	return code, out.String(), err.String()
}

func settingsFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "front.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const example = `base_url: https://wiki.example.com
issuer: https://login.example.invalid
client_id: front
client_secret: secret
routes:
  - {path: /, allow: {all: [{email_domain: [example.com]}, {not: {subject: ["1001"]}}]}, upstream: "http://127.0.0.1:9000", require: {scopes: [a], acr: [gold], max_age: 1h}, pass: [access_token], bearer: true}
  - {path: /public/, allow: public, upstream: "http://127.0.0.1:9000"}
  - {path: GET /only, allow: signed-in, upstream: "http://127.0.0.1:9000", headers: {X-User: email}}
  - {path: wiki.example.com/only, allow: signed-in}
`

// Check needs no network: the issuer's name does not exist.
func TestCheck(t *testing.T) {
	file := settingsFile(t, example)
	if code, out, _ := run(t, nil, "check", "-config", file); code != 0 || !strings.Contains(out, "no fault; 4 route(s)") {
		t.Errorf("%d %s", code, out)
	}
	if code, _, _ := run(t, []string{"FRONT_CONFIG=" + file}, "check"); code != 0 {
		t.Errorf("by the environment: %d", code)
	}
	code, _, stderr := run(t, []string{"FRONT_NONSENSE=1"}, "check", "-config", settingsFile(t, example+"store: mongodb://127.0.0.1/x\nsession_keys: ['"+strings.Repeat("07", 32)+"']\nresponse_type: token\nprompt: none\n"), "-nonsense")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"FRONT_NONSENSE: unknown", "-nonsense: unknown"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
	code, _, stderr = run(t, nil, "check", "-config", settingsFile(t, example+"store: mongodb://127.0.0.1/x\nsession_keys: ['"+strings.Repeat("07", 32)+"']\nresponse_type: token\nprompt: none\ncookie_name: __x\n"))
	for _, want := range []string{"store: mongodb is not built in", "response_type", "prompt", "cookie_name", "4 fault(s)"} {
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%d, no %q in\n%s", code, want, stderr)
		}
	}
	if code, _, stderr := run(t, nil, "check", "-config", "/nonexistent/front.yaml"); code != 1 || !strings.Contains(stderr, "/nonexistent/front.yaml: no such file") {
		t.Errorf("%d %s", code, stderr)
	}
	if code, _, _ := run(t, nil, "nonsense"); code != 2 {
		t.Errorf("unknown command: %d", code)
	}
}

func TestExplain(t *testing.T) {
	file := settingsFile(t, example)
	for request, wants := range map[string][]string{
		"GET /x?y":                              {"routes[0], /", `verified e-mail address is in "example.com" and not (subject is one of "1001")`, "scopes are granted: a", "class gold", "no older than 1h", "front or the site's URL", "Authorization: Bearer access_token", "http://127.0.0.1:9000", "X-Forwarded-User: subject"},
		"get https://wiki.example.com/public/x": {"routes[1], /public/", "everybody, without asking"},
		"GET /public":                           {"307", "routes[1]"},
		"GET /only":                             {"routes[3], wiki.example.com/only", "none: for forward authentication only"},
		"GET https://other.example.com/only":    {"routes[2], GET /only", "X-User: email"},
		"GET /public/../only":                   {"400", ". or .. segment"},
		"GET /public%2fx":                       {"400", "different routes"},
		"GET /oidc/callback":                    {"the front itself"},
		"/x":                                    {"GET /x", "routes[0]"},
	} {
		code, out, stderr := run(t, nil, append([]string{"explain", "-config", file}, strings.Fields(request)...)...)
		for _, want := range wants {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%s: %d, no %q in\n%s%s", request, code, want, out, stderr)
			}
		}
	}
	if code, _, _ := run(t, nil, "explain", "-config", file); code != 2 {
		t.Errorf("without a request: %d", code)
	}
}

// The manual, the help and the completions have every setting.
func TestManuals(t *testing.T) {
	for _, args := range [][]string{{"man"}, {"help"}, {"-h"}, {"completion", "bash"}, {"completion", "zsh"}, {"completion", "fish"}} {
		code, out, _ := run(t, nil, args...)
		if code != 0 {
			t.Errorf("%v: %d", args, code)
		}
		plain := strings.ReplaceAll(out, `\-`, "-")
		for _, s := range settings.Table() {
			if !strings.Contains(plain, s.Flag()) {
				t.Errorf("%v: nothing about %s", args, s.Flag())
			}
			if args[0] == "man" && (!strings.Contains(plain, s.Env()) || !strings.Contains(plain, s.Doc)) {
				t.Errorf("man: not all about %s", s.Name)
			}
		}
	}
	if code, _, _ := run(t, nil, "completion", "tcsh"); code != 2 {
		t.Errorf("another shell: %d", code)
	}
	_, script, _ := run(t, nil, "completion", "bash")
	complete := func(words ...string) string {
		cmd := exec.Command("bash", "-c", script+"\nCOMP_WORDS=("+strings.Join(words, " ")+")\nCOMP_CWORD="+string(rune('0'+len(words)-1))+"\n_signin_front\nprintf '%s\\n' \"${COMPREPLY[@]}\"")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if got := complete("signin-front", "-client-s"); got != "-client-secret\n-client-secret-file\n" {
		t.Errorf("completes to %q", got)
	}
	if got := complete("signin-front", "ch"); got != "check\n" {
		t.Errorf("completes to %q", got)
	}
}

func TestImport(t *testing.T) {
	file := settingsFile(t, "provider = \"oidc\"\noidc_issuer_url = \"https://login.example.com\"\nclient_id = \"x\"\nclient_secret = \"y\"\nemail_domains = [\"example.com\"]\nupstreams = [\"http://127.0.0.1:1\"]\nhtpasswd_file = \"f\"\n")
	code, out, stderr := run(t, nil, "import", file)
	if code != 0 || !strings.Contains(out, "issuer: https://login.example.com") || !strings.Contains(stderr, "htpasswd_file") {
		t.Errorf("%d\n%s\n%s", code, out, stderr)
	}
	if code, _, _ := run(t, nil, "import", "/nonexistent"); code != 1 {
		t.Errorf("%d", code)
	}
}
