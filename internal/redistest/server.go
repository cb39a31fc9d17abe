// Package redistest runs real Redis servers for tests, and a proxy that makes
// trouble between them and their client.
//
// The servers listen on free loopback ports, keep nothing on disk, and are
// stopped by the test's Cleanup. The program is redis-server, or what the
// environment variable REDIS_SERVER names: valkey-server, for one.
package redistest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds how long a server or a cluster may take to answer.
const startTimeout = 20 * time.Second

// Server is one redis-server process. Its methods fail the test it was started
// for rather than return an error, except Do.
type Server struct {
	tb   testing.TB
	dir  string
	addr string
	conf string // a sentinel's configuration file; empty: an ordinary server
	args []string

	mu   sync.Mutex // guards cmd and done
	cmd  *exec.Cmd  // nil: stopped
	done chan struct{}
}

// Start runs a server with further arguments, such as "--maxmemory", "10mb",
// waits until it answers, and stops it when the test ends. It fails the test if
// redis-server is not installed: a test that skips itself proves nothing.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, dir: tb.TempDir(), addr: freeAddr(tb), args: args}
	tb.Cleanup(s.Kill)
	s.Run()
	return s
}

// Addr is host:port.
func (s *Server) Addr() string { return s.addr }

// URL is a redis:// URL for Addr.
func (s *Server) URL() string { return "redis://" + s.addr }

// Run starts the server again after Stop or Kill, on the same port and empty.
func (s *Server) Run() {
	s.tb.Helper()
	program := cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server")
	path, err := exec.LookPath(program)
	if err != nil {
		s.tb.Fatalf("%v: these tests run a real Redis. Install it, on Debian and Ubuntu by: apt-get install redis-server", err)
	}
	_, port, _ := net.SplitHostPort(s.addr)
	args := []string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--logfile", filepath.Join(s.dir, "log"), "--daemonize", "no"}
	if s.conf != "" {
		args = append([]string{s.conf}, append(args, "--sentinel")...)
	} else {
		args = append(args, "--save", "", "--appendonly", "no")
	}
	cmd := exec.Command(path, append(args, s.args...)...)
	if err := cmd.Start(); err != nil {
		s.tb.Fatalf("starting %s: %v", program, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // a killed server has a status of no interest
		close(done)
	}()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()

	Wait(s.tb, startTimeout, "redis-server to answer", func() error {
		select {
		case <-done:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.tb.Fatalf("redis-server ended at once: %s", log)
		default:
		}
		_, err := s.Do("PING")
		return err
	})
}

// Kill stops the server as kill -9 does, and waits until it is gone.
func (s *Server) Kill() { s.stop(syscall.SIGKILL) }

// Stop asks the server to end and waits until it has.
func (s *Server) Stop() { s.stop(syscall.SIGTERM) }

func (s *Server) stop(sig syscall.Signal) {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig) // an error means that it has ended already
	_ = cmd.Process.Signal(syscall.SIGCONT)
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		_ = cmd.Process.Kill()
		<-done
	}
}

// Pause freezes the process: connections stay open and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.tb.Fatal("redis-server is not running")
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("signal %v to redis-server: %v", sig, err)
	}
}

// Do sends one command on a connection of its own. The answer is a string, an
// int64, nil, or a []any of these; an error answer is the error.
func (s *Server) Do(args ...string) (any, error) {
	conn, err := net.DialTimeout("tcp", s.addr, 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return nil, err
	}
	return readReply(bufio.NewReader(conn))
}

// MustDo is Do for a command that must succeed.
func (s *Server) MustDo(args ...string) any {
	s.tb.Helper()
	v, err := s.Do(args...)
	if err != nil {
		s.tb.Fatalf("redis %s: %v", args[0], err)
	}
	return v
}

// readReply reads one RESP2 reply.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty reply")
	}
	rest := line[1:]
	switch line[0] {
	case '+':
		return rest, nil
	case '-':
		return nil, errors.New(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	}
	n, err := strconv.Atoi(rest)
	switch {
	case err != nil:
		return nil, err
	case n < 0:
		return nil, nil
	case line[0] == '$':
		b := make([]byte, n+2)
		for read := 0; read < len(b); {
			k, err := r.Read(b[read:])
			if err != nil {
				return nil, err
			}
			read += k
		}
		return string(b[:n]), nil
	case line[0] == '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("unknown reply %q", line)
}

// Wait asks check every few milliseconds until it returns nil, and fails the
// test with its last error if that takes longer than limit.
func Wait(tb testing.TB, limit time.Duration, what string, check func() error) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("waited %v for %s: %v", limit, what, err)
		}
		<-tick.C
	}
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("finding a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}
