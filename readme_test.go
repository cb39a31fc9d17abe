package signin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The program in the README is what people copy: it builds, and it is short.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, _, ok := strings.Cut(program, "```")
	if !ok || !strings.HasPrefix(program, "package main") {
		t.Fatal("README.md does not begin with a program")
	}
	code := 0
	for line := range strings.Lines(program) {
		if strings.TrimSpace(line) != "" {
			code++
		}
	}
	if code >= 30 {
		t.Errorf("the program has %d lines, want under 30", code)
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
}
