package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadTests(t *testing.T) {
	for _, tc := range []struct {
		name   string
		events string
		passed int
		failed []string // name: the start of its output
		err    bool
	}{
		{name: "nothing"},
		{
			name: "subtests count beside their parent",
			events: `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/x"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"=== RUN   TestA/x\n"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"    a_test.go:3: bad\n"}
{"Action":"fail","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA/y"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"ExampleA"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p"}`,
			passed: 2,
			failed: []string{"p TestA (fail): ", "p TestA/x (fail):     a_test.go:3: bad\n"},
		},
		{
			name:   "package without tests",
			events: `{"Action":"output","Package":"p","Output":"? p [no test files]\n"}` + "\n" + `{"Action":"skip","Package":"p"}`,
		},
		{
			name:   "skipped test",
			events: `{"Action":"skip","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"pass","Package":"p"}`,
			failed: []string{"p TestA (skip): "},
		},
		{
			name:   "test that took the process down",
			events: `{"Action":"run","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}`,
			failed: []string{"p TestA (never ended): "},
		},
		{
			name:   "package that fails after its tests",
			events: `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"output","Package":"p","Output":"leak\n"}` + "\n" + `{"Action":"fail","Package":"p"}`,
			passed: 1,
			failed: []string{"p: leak\n"},
		},
		{
			name: "one broken build, two packages",
			events: `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: broken\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"q"}
{"Action":"fail","Package":"q","FailedBuild":"q"}`,
			failed: []string{"p: q.go:1: broken\n", "q: "},
		},
		{
			name:   "output that ends early",
			events: `{"Action":"start","Package":"p"}` + "\n" + `{"Action":`,
			failed: []string{"p: "},
			err:    true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			passed, failures, err := readTests(strings.NewReader(tc.events))
			if passed != tc.passed || (err != nil) != tc.err {
				t.Errorf("passed %d, error %v; want %d, an error: %t", passed, err, tc.passed, tc.err)
			}
			var got []string
			for _, f := range failures {
				got = append(got, f.name+": "+f.output)
			}
			if strings.Join(got, "|") != strings.Join(tc.failed, "|") {
				t.Errorf("failures = %q\nwant %q", got, tc.failed)
			}
		})
	}
}

func TestMayImport(t *testing.T) {
	for path, want := range map[string]bool{
		"net/http":                          true,
		"golang.org/x/oauth2/jws":           true,
		"github.com/coreos/go-oidc/v3/oidc": true,
		"example.com/own/signintest":        true,
		"golang.org/x/oauth2x":              false,
		"golang.org/x/crypto/hkdf":          false,
		"github.com/gorilla/mux":            false,
	} {
		if got := mayImport("example.com/own", path); got != want {
			t.Errorf("mayImport(%s) = %t, want %t", path, got, want)
		}
	}
}

// A decision with too many ways is named; a table is not one.
func TestComplexity(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("package p\nfunc f(a int) int {\n"+body+"\nreturn 0\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	many := write("many.go", strings.Repeat("if a > 1 && a < 9 { return 2 }\n", 8))
	table := write("table.go", "switch {\n"+strings.Repeat("case a > 1: return 3\n", 40)+"}")
	err := checkComplexity([]string{many, table})
	if err == nil || !strings.Contains(err.Error(), "many.go") || strings.Contains(err.Error(), "table.go") {
		t.Errorf("checkComplexity: %v; want many.go and nothing else", err)
	}
}

// Uses run down, every file stands somewhere, and what depends on itself in a
// circle is found whole.
func TestStoreys(t *testing.T) {
	h := &house{uses: map[string]map[string]string{
		"errors.go": {"middleware.go": "Auth"}, "middleware.go": {"login.go": "login"}, "login.go": {"middleware.go": "Auth", "errors.go": "Reason"},
		"stray.go": {}, "store.go": {},
	}, methodFiles: map[string]bool{"store.go": true}}
	faults := strings.Join(h.upward(), "\n")
	for _, want := range []string{"errors.go (vocabulary) uses Auth of middleware.go (face)", "stray.go stands in no storey", "store.go has methods of Auth"} {
		if !strings.Contains(faults, want) {
			t.Errorf("not reported: %s\n%s", want, faults)
		}
	}
	if strings.Contains(faults, "login.go (face)") {
		t.Errorf("a use that runs down is reported: %s", faults)
	}
	if got := strings.Join(h.knot(), " "); got != "errors.go login.go middleware.go" {
		t.Errorf("knot = %s", got)
	}
}

func TestGoFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.go", "b.txt", ".hidden/c.go", "d/e.go"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := goFiles(dir)
	want := filepath.ToSlash(dir) + "/a.go " + filepath.ToSlash(dir) + "/d/e.go"
	if got := strings.Join(files, " "); err != nil || got != want {
		t.Errorf("goFiles = %s, %v; want %s", got, err, want)
	}
}
