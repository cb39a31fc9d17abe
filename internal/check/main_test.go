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

func TestCheckLengths(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, lines := range map[string]int{"a.go": maxLines, "a_test.go": maxTestLines, "b.go": maxLines + 1, "b_test.go": maxTestLines + 1} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Repeat("\n", lines)), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	err := checkLengths(files)
	if err == nil {
		t.Fatal("no error for two files that are too long")
	}
	for name, want := range map[string]bool{"a.go": false, "a_test.go": false, "b.go": true, "b_test.go": true} {
		if got := strings.Contains(err.Error(), string(filepath.Separator)+name+":"); got != want {
			t.Errorf("reports %s: %t, want %t: %v", name, got, want, err)
		}
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
