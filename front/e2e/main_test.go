// Package e2e runs the front as it is installed: a process of its own, behind
// nginx and Caddy, with Redis behind it, started by systemd's protocol. It
// needs those programs and fails without them.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"github.com/seed454743b5/signin/signintest"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "signin-front-e2e-")
	if err == nil {
		binary = filepath.Join(dir, "signin-front")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, "../cmd/signin-front").CombinedOutput(); err != nil {
			err = fmt.Errorf("building: %w\n%s", err, out)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// process runs what Prepare has prepared, as a process, and waits until it
// serves.
func process(t *testing.T, f *fronttest.Front, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary, "-config", f.File)
	cmd.Env = append(os.Environ(), env...)
	return start(t, f, cmd)
}

func start(t *testing.T, f *fronttest.Front, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	cmd.Stdout, cmd.Stderr = f.Access, f.Log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(fronttest.Patience):
			t.Error("the front does not end")
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	f.Serving()
	return cmd
}

// other runs another program in the foreground, and kills it at the end.
func other(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: this test runs a real %s; on Debian: apt-get install %s", err, name, name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", name, &out)
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(fronttest.Patience); ; {
		if res, err := http.Get("http://" + addr + "/ready-to-test"); err == nil {
			res.Body.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", name, &out)
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen at %s", name, addr)
		}
	}
}

// page is a browser's page, which must be what a test wants.
func page(t *testing.T, p *signintest.Page, status int, body string) {
	t.Helper()
	if p.Err != nil || p.Status != status || body != "" && p.Body != body {
		t.Errorf("%s: %d %v %.300s, want %d %s", p.URL, p.Status, p.Err, p.Body, status, body)
	}
}
