// Command bite proves that the simulation bites: it puts single faults into the
// protocol, one at a time, in a copy of the module, and says within how many
// seeds the simulation finds each. It fails if one is not found.
//
//	go run ./internal/bite [-seeds N] [-only NAME]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fault is a fault of the protocol: one piece of text in place of another.
type fault struct {
	name string
	file string
	old  string
	new  string
}

func main() {
	seeds := flag.Int("seeds", 2000, "how many seeds a fault may take to be found")
	first := flag.Uint64("seed", 1, "the first seed")
	only := flag.String("only", "", "put in this fault only")
	flag.Parse()
	if err := run(*seeds, *first, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bite:", err)
		os.Exit(1)
	}
}

func run(seeds int, first uint64, only string) error {
	dir, err := os.MkdirTemp("", "bite")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyModule(dir); err != nil {
		return err
	}
	missed := 0
	for _, f := range faults {
		if only != "" && f.name != only {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(f.file))
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		spoilt, err := f.put(string(whole))
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(spoilt), 0o600); err != nil {
			return err
		}
		start := time.Now()
		within, why, err := simulate(dir, seeds, first)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if within == 0 {
			missed++
			fmt.Printf("%-55s NOT FOUND in %d seeds, %v\n", f.name, seeds, time.Since(start).Round(time.Second))
		} else {
			fmt.Printf("%-55s %5d seeds, %v: %s\n", f.name, within, time.Since(start).Round(time.Second), why)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			return err
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d faults were not found", missed)
	}
	return nil
}

// put puts the fault into a file.
func (f fault) put(whole string) (string, error) {
	if n := strings.Count(whole, f.old); n != 1 {
		return "", fmt.Errorf("%s: the text to replace stands in %s %d times, want once:\n%s", f.name, f.file, n, f.old)
	}
	return strings.Replace(whole, f.old, f.new, 1), nil
}

var found = regexp.MustCompile(`seed \d+, the (\d+)th: (.*)`)

// simulate runs the simulation in a copy. within is 0 if it finds nothing.
func simulate(dir string, seeds int, first uint64) (within int, why string, err error) {
	cmd := exec.Command("go", "test", "-count=1", "-timeout=0", "-vet=off", "-run=^TestSimulation$", ".",
		fmt.Sprintf("-sim.seeds=%d", seeds), fmt.Sprintf("-sim.seed=%d", first), "-sim.whole")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if m := found.FindSubmatch(out); m != nil {
		_, err := fmt.Sscan(string(m[1]), &within)
		return within, string(m[2]), err
	}
	if _, failed := errors.AsType[*exec.ExitError](err); failed {
		if at := bytes.Index(out, []byte("panic: ")); at >= 0 { // a deadlock, say
			line, _, _ := bytes.Cut(out[at:], []byte("\n"))
			return seeds, string(line), nil
		}
		return 0, "", fmt.Errorf("%w\n%s", err, out)
	}
	return 0, "", err
}

// copyModule copies the module of the working directory, without the modules
// below it.
func copyModule(dir string) error {
	return filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, path)
		if !d.IsDir() {
			whole, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, whole, 0o600)
		}
		if path != "." {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if strings.HasPrefix(d.Name(), ".") || err == nil {
				return filepath.SkipDir
			}
		}
		return os.MkdirAll(to, 0o700)
	})
}
