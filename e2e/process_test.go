package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
)

// replica is one process of the demo site.
type replica struct {
	t     *testing.T
	name  string
	addr  string
	url   string
	env   []string
	proxy *redistest.Proxy // between it and Redis
	log   *buffer

	mu   sync.Mutex // guards cmd and done
	cmd  *exec.Cmd  // nil: not running
	done chan struct{}
}

// start runs the process, also again, and waits until it serves.
func (r *replica) start() {
	r.t.Helper()
	cmd := exec.Command(siteBinary)
	cmd.Env = r.env
	cmd.Stdout, cmd.Stderr = io.Discard, r.log
	if err := cmd.Start(); err != nil {
		r.t.Fatalf("starting replica %s: %v", r.name, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	r.mu.Lock()
	r.cmd, r.done = cmd, done
	r.mu.Unlock()
	redistest.Wait(r.t, 30*time.Second, "replica "+r.name+" to serve", func() error {
		select {
		case <-done:
			r.t.Fatalf("replica %s ended at once: %s", r.name, r.log.String())
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/healthz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
}

// kill is kill -9, by process id.
func (r *replica) kill() { r.end(syscall.SIGKILL) }

// stop asks the process to end and waits until it has.
func (r *replica) stop() { r.end(syscall.SIGTERM) }

func (r *replica) end(sig syscall.Signal) {
	r.mu.Lock()
	cmd, done := r.cmd, r.done
	r.cmd = nil
	r.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig) // it may have ended by itself
	limit := time.NewTimer(40 * time.Second)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		r.t.Errorf("replica %s does not end", r.name)
		_ = cmd.Process.Kill()
		<-done
	}
}

func (r *replica) running() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cmd != nil
}

// front is the public URL: a proxy that hands requests to the replicas in
// turn, as a load balancer without affinity does.
type front struct {
	url string

	mu   sync.Mutex // guards what follows
	all  []*replica
	out  *replica // of turn, as its readiness probe says
	next int
}

func newFront(t *testing.T) *front {
	f := &front{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			if target, err := url.Parse(f.pick()); err == nil {
				r.SetURL(target)
			}
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprint("front: ", err), http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *front) add(r *replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, r)
}

// avoid takes a replica out of turn, nil none.
func (f *front) avoid(r *replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out = r
}

func (f *front) pick() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range f.all {
		f.next++
		if r := f.all[f.next%len(f.all)]; r.running() && r != f.out {
			return r.url
		}
	}
	return ""
}

// freeAddr is a loopback address that nobody listened on a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
