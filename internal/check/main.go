// Command check is what "make all" runs, and "make test" with -root: formatting,
// vet, staticcheck, the tests of every module of the workspace under the race
// detector, and this project's own rules. It shows failures in full, everything else in one line,
// and ends with one line that counts both.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// staticcheck is run by version, so that no module has to require it.
	staticcheck = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"

	// testTimeout bounds one package's tests.
	testTimeout = "8m"
)

// direct is all that the root module may import beside the standard library.
var direct = []string{
	"github.com/coreos/go-oidc/v3",
	"github.com/go-jose/go-jose/v4",
	"github.com/gorilla/securecookie",
	"github.com/gorilla/sessions",
	"golang.org/x/oauth2",
}

func main() {
	root := flag.Bool("root", false, "the root module only, without race detector and staticcheck: it needs nothing but Go")
	flag.Parse()
	c := &checker{out: os.Stdout}
	if err := c.run(*root); err != nil {
		c.failed++
		fmt.Fprintln(c.out, "FAIL", err)
	}
	fmt.Fprintf(c.out, "%d passed, %d failed\n", c.passed, c.failed)
	if c.failed > 0 {
		os.Exit(1)
	}
}

// checker counts what passed and failed: tests one by one, every other check
// as one.
type checker struct {
	out            io.Writer
	passed, failed int
}

func (c *checker) run(root bool) error {
	modules, err := workspace()
	if err != nil {
		return err
	}
	if root {
		modules = []string{"."}
	}
	files, err := goFiles(".")
	if err != nil {
		return err
	}
	// A module that has no code yet has nothing to check, and the go command
	// would call that an error.
	modules = slices.DeleteFunc(modules, func(dir string) bool {
		empty := !slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, dir+"/") || dir == "." })
		if empty {
			fmt.Fprintf(c.out, "--   %s: no Go files\n", dir)
		}
		return empty
	})
	var patterns []string
	for _, dir := range modules {
		patterns = append(patterns, pattern(dir))
	}

	c.check("gofmt", func() error { return silent("gofmt", append([]string{"-l"}, files...)...) })
	c.check("storeys", func() error { return checkStoreys(c.out) })
	c.check("complexity", func() error { return checkComplexity(files) })
	c.check("direct dependencies", checkDependencies)
	for _, dir := range modules {
		c.check("go mod tidy "+dir, func() error { return tidy(dir, modules) })
	}
	c.check("go vet", func() error { return command(".", "go", append([]string{"vet"}, patterns...)...) })
	if !root {
		c.check("staticcheck", func() error { return command(".", "go", append([]string{"run", staticcheck}, patterns...)...) })
	}
	for _, dir := range modules {
		if err := c.test(dir, !root); err != nil {
			c.failed++
			fmt.Fprintf(c.out, "FAIL go test %s\n%v\n", pattern(dir), err)
		}
	}
	return nil
}

// tidy checks go.mod and go.sum of one module against a copy in which every
// module of the workspace is the one at hand, for no version of them need be
// published yet.
func tidy(dir string, modules []string) error {
	tmp, err := os.MkdirTemp("", "tidy")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	modfile := filepath.Join(tmp, "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, name), raw, 0o600); err != nil {
			return err
		}
	}
	for _, other := range modules {
		path, err := exec.Command("go", "mod", "edit", "-json", filepath.Join(other, "go.mod")).Output()
		if err != nil {
			return fmt.Errorf("reading %s/go.mod: %w", other, err)
		}
		var mod struct{ Module struct{ Path string } }
		if err := json.Unmarshal(path, &mod); err != nil {
			return fmt.Errorf("reading %s/go.mod: %w", other, err)
		}
		folder, err := filepath.Abs(other)
		if err != nil {
			return err
		}
		if other == dir {
			continue
		}
		if err := command(".", "go", "mod", "edit", "-replace", mod.Module.Path+"="+folder, modfile); err != nil {
			return err
		}
	}
	return command(dir, "env", "GOWORK=off", "go", "mod", "tidy", "-diff", "-modfile="+modfile)
}

func pattern(dir string) string {
	if dir == "." {
		return "./..."
	}
	return "./" + dir + "/..."
}

// check runs one check and counts it.
func (c *checker) check(name string, f func() error) {
	start := time.Now()
	if err := f(); err != nil {
		c.failed++
		fmt.Fprintf(c.out, "FAIL %s\n%v\n", name, err)
		return
	}
	c.passed++
	fmt.Fprintf(c.out, "ok   %s (%.1fs)\n", name, time.Since(start).Seconds())
}

// test runs the tests of one module and counts each. The error is what could
// not be counted.
func (c *checker) test(dir string, race bool) error {
	start := time.Now()
	// Results are never taken from the cache: the browser and the servers that
	// some tests talk to are not among what the go command looks at. Vet has
	// run already.
	args := []string{"test", "-count=1", "-vet=off", "-timeout=" + testTimeout, "-json"}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pattern(dir))...)
	if race {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	passed, failures, readErr := readTests(stdout)
	waitErr := cmd.Wait()
	c.passed += passed
	c.failed += len(failures)
	for _, f := range failures {
		fmt.Fprintf(c.out, "FAIL %s\n%s\n", f.name, f.output)
	}
	if len(failures) == 0 {
		if err := errors.Join(readErr, waitErr); err != nil {
			return fmt.Errorf("%w\n%s", err, &stderr)
		}
		fmt.Fprintf(c.out, "ok   go test %s: %d passed (%.1fs)\n", pattern(dir), passed, time.Since(start).Seconds())
	}
	return nil
}

// workspace returns the directories of the modules in go.work.
func workspace() ([]string, error) {
	out, err := exec.Command("go", "work", "edit", "-json").Output()
	if err != nil {
		return nil, fmt.Errorf("reading go.work: %w", err)
	}
	var work struct{ Use []struct{ DiskPath string } }
	if err := json.Unmarshal(out, &work); err != nil {
		return nil, fmt.Errorf("reading go.work: %w", err)
	}
	var dirs []string
	for _, use := range work.Use {
		dirs = append(dirs, filepath.ToSlash(filepath.Clean(use.DiskPath)))
	}
	if len(dirs) == 0 {
		return nil, errors.New("go.work: names no module; run this at the root of the repository")
	}
	return dirs, nil
}

// goFiles returns the Go files below root, hidden directories aside.
func goFiles(root string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") {
			files = append(files, filepath.ToSlash(path))
		}
		return nil
	})
	return files, err
}

// checkDependencies holds the root module to the four it may import, by its
// go.mod and by what its packages and their tests import indeed.
func checkDependencies() error {
	out, err := exec.Command("go", "mod", "edit", "-json", "go.mod").Output()
	if err != nil {
		return fmt.Errorf("reading go.mod: %w", err)
	}
	var mod struct {
		Module  struct{ Path string }
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return fmt.Errorf("reading go.mod: %w", err)
	}
	var errs []error
	for _, r := range mod.Require {
		if !r.Indirect && !slices.Contains(direct, r.Path) {
			errs = append(errs, fmt.Errorf("go.mod requires %s directly", r.Path))
		}
	}

	out, err = exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var pkg struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := d.Decode(&pkg); err != nil {
			return fmt.Errorf("go list: %w", err)
		}
		for _, path := range slices.Concat(pkg.Imports, pkg.TestImports, pkg.XTestImports) {
			if !mayImport(mod.Module.Path, path) {
				errs = append(errs, fmt.Errorf("%s imports %s", pkg.ImportPath, path))
			}
		}
	}
	return errors.Join(errs...)
}

func mayImport(own, path string) bool {
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(append([]string{own}, direct...), func(module string) bool {
		return path == module || strings.HasPrefix(path, module+"/")
	})
}

// command runs a command and returns its output if it fails.
func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s%w", out, err)
	}
	return nil
}

// silent runs a command that reports what is wrong and exits with zero.
func silent(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s%w", out, err)
	}
	if len(out) > 0 {
		return fmt.Errorf("%s", bytes.TrimSpace(out))
	}
	return nil
}
