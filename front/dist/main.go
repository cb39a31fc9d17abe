// Command dist makes what is installed of signin-front: static binaries, their
// checksums and bills of materials, the manual page and completions, and a
// container image from scratch, without a daemon. Two runs on one commit, with
// one version of Go, write the same bytes.
//
//	go run ./front/dist -out dist
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platforms are what binaries are made for.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

func main() {
	out := flag.String("out", "dist", "the folder to write to; it is emptied first")
	source := flag.String("source", "front", "the folder of the module")
	flag.Parse()
	if err := run(*source, *out, platforms); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// run makes everything for some platforms.
func run(source, out string, platforms []string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	made, err := sourceDate(source)
	if err != nil {
		return err
	}
	var names []string
	binaries := map[string]string{} // by platform
	for _, p := range platforms {
		name := "signin-front-" + strings.ReplaceAll(p, "/", "-")
		binaries[p] = filepath.Join(out, name)
		if err := build(source, p, binaries[p]); err != nil {
			return err
		}
		if err := writeBill(binaries[p], name, made); err != nil {
			return err
		}
		names = append(names, name, name+".spdx.json")
	}
	more, err := manuals(source, out)
	if err != nil {
		return err
	}
	if err := writeImage(binaries, filepath.Join(out, "signin-front-image.tar"), made); err != nil {
		return err
	}
	return checksums(out, append(append(names, more...), "signin-front-image.tar"))
}

// build makes one binary: without cgo, and without anything that says where
// and when it was made.
func build(source, platform, out string) error {
	system, arch, _ := strings.Cut(platform, "/")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/signin-front")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s: %w\n%s", platform, err, text)
	}
	return nil
}

// sourceDate is the time that everything bears: SOURCE_DATE_EPOCH, or that of
// the commit.
func sourceDate(source string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		cmd := exec.Command("git", "log", "-1", "--format=%ct")
		cmd.Dir = source
		out, err := cmd.Output()
		if err != nil {
			return time.Time{}, errors.New("neither SOURCE_DATE_EPOCH nor a commit says which time to write")
		}
		text = strings.TrimSpace(string(out))
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(n, 0).UTC(), err
}

// manuals writes what the program says about itself.
func manuals(source, out string) (names []string, err error) {
	for _, m := range []struct {
		name string
		args []string
	}{
		{"signin-front.8", []string{"man"}},
		{"signin-front.bash", []string{"completion", "bash"}},
		{"_signin-front", []string{"completion", "zsh"}},
		{"signin-front.fish", []string{"completion", "fish"}},
	} {
		cmd := exec.Command("go", append([]string{"run", "./cmd/signin-front"}, m.args...)...)
		cmd.Dir = source
		cmd.Stderr = os.Stderr
		text, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		if err := os.WriteFile(filepath.Join(out, m.name), text, 0o644); err != nil {
			return nil, err
		}
		names = append(names, m.name)
	}
	return names, nil
}

// checksums writes SHA256SUMS, as sha256sum -c reads it.
func checksums(out string, names []string) error {
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		raw, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(raw)
		b.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	}
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(b.String()), 0o644)
}
