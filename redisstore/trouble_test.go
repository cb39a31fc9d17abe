package redisstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed454743b5/signin/internal/redistest"
)

// recovery is how soon after Redis is back a call must succeed.
const recovery = time.Second

// wantFailing makes every kind of call and wants an error from each: what fails
// must not look like what is absent.
func wantFailing(t *testing.T, s *Store, why string) {
	t.Helper()
	ctx := t.Context()
	if v, ok, err := s.Get(ctx, "absent"); err == nil {
		t.Errorf("%s: Get = %q, %t, nil; want an error", why, v, ok)
	}
	if found, swapped, err := s.Swap(ctx, "key", []byte("x"), []byte("y"), time.Hour); err == nil {
		t.Errorf("%s: Swap = %q, %t, nil; want an error", why, found, swapped)
	}
	if err := s.Delete(ctx, "absent"); err == nil {
		t.Errorf("%s: Delete = nil; want an error", why)
	}
	if err := s.Ready(ctx); err == nil {
		t.Errorf("%s: Ready = nil; want an error", why)
	}
}

func wantRecovery(t *testing.T, s *Store) {
	t.Helper()
	redistest.Wait(t, recovery, "the store to recover", func() error { return s.Ready(t.Context()) })
	if _, _, err := s.Get(t.Context(), "absent"); err != nil {
		t.Errorf("Get after the recovery: %v", err)
	}
	key := fmt.Sprint("recovered.", time.Now().UnixNano())
	mustSwap(t, s, key, nil, "value")
	wantValue(t, s, key, "value")
}

func TestDownAtStart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	s := openStore(t, server.URL())
	wantFailing(t, s, "refused")
	server.Run()
	wantRecovery(t, s)
}

// TestRefused: while Redis refuses connections, a call costs next to nothing.
// By itself rueidis tries a read again and again for most of a second.
func TestRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var dials atomic.Int64
	s := OpenWith(rueidis.ClientOption{InitAddress: []string{server.Addr()}, DialCtxFn: func(ctx context.Context, address string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		dials.Add(1)
		return d.DialContext(ctx, "tcp", address)
	}})
	t.Cleanup(s.Close)
	for _, when := range []string{"before the first call", "later"} {
		server.Kill()
		dials.Store(0)
		start := time.Now()
		const calls = 200
		for range calls / 4 {
			wantFailing(t, s, when)
		}
		took := time.Since(start)
		// A busy machine aside, all of it takes a few milliseconds.
		if took > calls*50*time.Millisecond {
			t.Errorf("%s: %d calls took %v", when, calls, took)
		}
		if n, most := dials.Load(), 2+int64(took/refusedFor); n > most {
			t.Errorf("%s: %d attempts to connect in %v, want at most %d", when, n, took, most)
		}
		server.Run()
		// Nothing is read that the next round would find in the copy.
		redistest.Wait(t, recovery, "the store to recover", func() error { return s.Ready(t.Context()) })
	}
}

// TestSecondTry: a read that meets a connection that has just died is made
// again, once and at once.
func TestSecondTry(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	// With several connections the second try may meet another dead one.
	s := OpenWith(rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, PipelineMultiplex: -1})
	t.Cleanup(s.Close)
	mustSwap(t, s, "key", nil, "value")
	for range 20 {
		connectAll(t, s)
		proxy.Drop()
		if _, _, err := s.Get(t.Context(), "other"); err != nil {
			t.Errorf("Get after the connections died: %v", err)
		}
		if _, _, err := s.Get(t.Context(), "key"); err != nil {
			t.Errorf("Get past the copy: %v", err)
		}
	}
	for attempts, want := range map[int]time.Duration{1: 0, 2: -1, 3: -1} {
		if got := retryOnce(attempts, rueidis.Completed{}, nil); got != want {
			t.Errorf("after attempt %d: %v, want %v", attempts, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openStore(t, proxy.URL())
	mustSwap(t, s, "key", nil, "value")
	for range 3 {
		proxy.Cut()
		wantFailing(t, s, "cut off")
		proxy.Restore()
		wantRecovery(t, s)
		wantValue(t, s, "key", "value")
	}
}

func TestRestartEmpty(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openStore(t, server.URL())
	mustSwap(t, s, "key", nil, "value")
	wantValue(t, s, "key", "value")
	server.Kill()
	wantFailing(t, s, "killed")
	server.Run()
	wantRecovery(t, s)
	if v, ok, err := s.Get(t.Context(), "key"); ok || err != nil {
		t.Errorf("Get after a restart = %q, %t, %v; want nothing, and no copy from before", v, ok, err)
	}
	if found, swapped, err := s.Swap(t.Context(), "key", []byte("value"), []byte("back"), time.Hour); swapped || found != nil || err != nil {
		t.Errorf("Swap of what the restart lost = %q, %t, %v; want nil, false, nil", found, swapped, err)
	}
}

// TestPause freezes the server, as a slow disk, a swapping host or a stalled
// network does, for longer than every deadline.
func TestPause(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openStore(t, server.URL())
	mustSwap(t, s, "key", nil, "value")
	server.Pause()
	wantFailing(t, s, "paused") // takes some seconds by itself
	server.Resume()
	wantRecovery(t, s)
	wantValue(t, s, "key", "value")
}

// TestBlackHole has many callers wait for a network that swallows everything.
// Each must be told in time, and none may stay behind.
func TestBlackHole(t *testing.T) { // not parallel: it counts goroutines
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openStore(t, proxy.URL())
	mustSwap(t, s, "key", nil, "value")
	before := goroutines()
	proxy.Hold()

	var wg sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	for wave := range 3 {
		for i := range 200 {
			wg.Go(func() {
				start := time.Now()
				key := fmt.Sprint(wave, ".", i)
				var err error
				if i%2 == 0 {
					_, _, err = s.Get(t.Context(), key)
				} else {
					_, _, err = s.Swap(t.Context(), key, nil, []byte("v"), time.Hour)
				}
				if err == nil {
					t.Error("a call through a black hole succeeds")
				}
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, time.Since(start))
			})
		}
		wg.Wait()
	}
	// Twice the deadline, and what a busy machine adds.
	if slowest > 2*defaultTimeout+time.Second {
		t.Errorf("a call through a black hole took %v; want about %v, at most twice that", slowest, defaultTimeout)
	}
	t.Logf("slowest of 600 calls: %v", slowest)

	// One that starts in the hole, too.
	late := openStore(t, proxy.URL())
	if _, _, err := late.Get(t.Context(), "key"); err == nil {
		t.Error("a first call through a black hole succeeds")
	}
	// The hole lasts, and nothing waits in it but a ping.
	redistest.Wait(t, 4*time.Second, "the goroutines of the black hole to end", func() error {
		if n := goroutines(); n > before+10 {
			return fmt.Errorf("%d goroutines; there were %d", n, before)
		}
		return nil
	})
	proxy.Restore()
	wantRecovery(t, s)
	wantRecovery(t, late)
}

// goroutines counts those that run rueidis or this package, the test's own
// aside: the proxy has some too.
func goroutines() (n int) {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		if bytes.Contains(stack, []byte("rueidis.")) || bytes.Contains(stack, []byte("redisstore.(*")) {
			n++
		}
	}
	return n
}

// TestCutOffServesTwoSeconds is the bound on a sign-out that cannot be
// announced: this replica's network swallows everything while another one
// signs the user out.
func TestCutOffServesTwoSeconds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	here, there := openStore(t, proxy.URL()), openStore(t, server.URL())
	mustSwap(t, there, "key", nil, "value")
	wantValue(t, here, "key", "value")

	proxy.Hold()
	cut := time.Now()
	if err := there.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	served := 0
	redistest.Wait(t, 2*copyFor+2*defaultTimeout, "the copy to come of age", func() error {
		asked := time.Since(cut)
		v, ok, err := here.Get(t.Context(), "key")
		switch {
		case err != nil:
			return nil
		case !ok:
			t.Error("a store that cannot be reached says that there is nothing")
			return nil
		case asked > copyFor:
			t.Errorf("the copy %q is still served %v after the cut; want %v at most", v, asked, copyFor)
			return nil
		}
		served++
		return errors.New("still served")
	})
	if served == 0 {
		t.Error("the copy was not served at all: this test sees nothing")
	}
	proxy.Restore()
	wantRecovery(t, here)
	if v, ok, err := here.Get(t.Context(), "key"); ok || err != nil {
		t.Errorf("Get after the recovery = %q, %t, %v; want nothing", v, ok, err)
	}
}

// TestSilentLoss loses what is sent, for longer than it takes to notice.
func TestSilentLoss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s, late := openStore(t, proxy.URL()), openStore(t, proxy.URL())
	mustSwap(t, s, "key", nil, "value")
	connectAll(t, s)
	proxy.Lose()
	wantFailing(t, s, "losing everything") // takes some seconds by itself
	for start := time.Now(); time.Since(start) < 3*time.Second; {
		if _, _, err := late.Get(t.Context(), "key"); err == nil {
			t.Error("a call succeeds though all is lost")
		}
	}
	proxy.Restore()
	// A connection that was being made has lost its first words: it must run
	// into its timeout before another is made.
	for _, s := range []*Store{s, late} {
		redistest.Wait(t, defaultTimeout+2*recovery, "the store to recover", func() error { return s.Ready(t.Context()) })
		wantValue(t, s, "key", "value")
	}
}

// connectAll has the client open all its connections: it takes one of a few at
// random for each call.
func connectAll(t *testing.T, s *Store) {
	t.Helper()
	for range 200 {
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openStore(t, proxy.URL())
	mustSwap(t, s, "key", nil, "value")
	proxy.Delay(100 * time.Millisecond)
	found, swapped, err := s.Swap(t.Context(), "key", nil, []byte("x"), time.Hour)
	if string(found) != "value" || swapped || err != nil {
		t.Errorf("Swap over a slow network = %q, %t, %v; want the value found", found, swapped, err)
	}
	proxy.Delay(time.Second)
	wantFailing(t, s, "slower than the deadline")
	proxy.Restore()
	wantRecovery(t, s)
}

// TestLostAnswer loses the answer to a Swap that Redis has carried out. The
// caller finds out by reading, past any copy.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openStore(t, proxy.URL())
	mustSwap(t, s, "key", nil, "before")
	mustSwap(t, s, "other", nil, "value")
	wantValue(t, s, "key", "before")
	connectAll(t, s)

	proxy.HoldReplies()
	_, swapped, err := s.Swap(t.Context(), "key", []byte("before"), []byte("after"), time.Hour)
	if err == nil {
		t.Fatalf("Swap whose answer is lost = %t, nil; want an error", swapped)
	}
	wantValue(t, openStore(t, server.URL()), "key", "after")
	proxy.Drop() // the answer is gone for good
	proxy.Restore()
	redistest.Wait(t, recovery, "the store to recover", func() error { return s.Ready(t.Context()) })
	wantValue(t, s, "key", "after")
	if found, swapped, err := s.Swap(t.Context(), "key", []byte("before"), []byte("after"), time.Hour); swapped || string(found) != "after" || err != nil {
		t.Errorf("Swap again = %q, %t, %v; want one's own bytes found", found, swapped, err)
	}
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	s := openStore(t, server.URL())
	value := bytes.Repeat([]byte("x"), 60_000)
	mustSwap(t, s, "key", nil, string(value))
	server.MustDo("CONFIG", "SET", "maxmemory", "1mb")

	for range 2 { // by SHA and, after a flush, with the script
		_, swapped, err := s.Swap(t.Context(), "new", nil, value, time.Hour)
		if err == nil || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("Swap in a full Redis = %t, %v; want its OOM error", swapped, err)
		}
		server.MustDo("SCRIPT", "FLUSH")
	}
	wantValue(t, s, "key", string(value))
	if _, ok, err := s.Get(t.Context(), "new"); ok || err != nil {
		t.Errorf("Get of what was refused = %t, %v; want nothing", ok, err)
	}
	// Signing out must work in a full Redis, and is what makes room.
	if found, swapped, err := s.Swap(t.Context(), "key", value, nil, 0); !swapped || err != nil {
		t.Errorf("Swap for nothing in a full Redis = %.20q, %t, %v; want it to delete", found, swapped, err)
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete in a full Redis: %v", err)
	}
	server.MustDo("CONFIG", "SET", "maxmemory", "0")
	wantRecovery(t, s)
}

// TestReadOnly is a master that has been demoted under its clients.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--replica-serve-stale-data", "no")
	s := openStore(t, server.URL())
	mustSwap(t, s, "key", nil, "value")
	_, port, _ := net.SplitHostPort(server.Addr())
	server.MustDo("REPLICAOF", "127.0.0.1", port) // of itself: no master will answer
	wantFailing(t, s, "demoted")
	server.MustDo("REPLICAOF", "NO", "ONE")
	wantRecovery(t, s)
	wantValue(t, s, "key", "value")
}

// TestSentinelFailover kills the master and goes on with its replica.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	r := redistest.StartReplicated(t)
	s := openStore(t, r.Sentinel.URL()+"?master_set="+r.Name)
	mustSwap(t, s, "key", nil, "value")
	wantValue(t, s, "key", "value")
	redistest.Wait(t, 5*time.Second, "the replica to have the value", func() error {
		if n, err := r.Replica.Do("EXISTS", "signin:key"); n != int64(1) {
			return fmt.Errorf("EXISTS = %v, %v", n, err)
		}
		return nil
	})
	r.Master.Kill()
	if found, swapped, err := s.Swap(t.Context(), "key", nil, []byte("x"), time.Hour); err == nil {
		t.Errorf("Swap with a dead master = %q, %t, nil; want an error", found, swapped)
	}
	redistest.Wait(t, 30*time.Second, "the replica to be promoted", func() error {
		_, _, err := s.Swap(t.Context(), "probe", nil, []byte("x"), time.Hour)
		return err
	})
	wantValue(t, s, "key", "value")
	wantRecovery(t, s)
}

// TestClusterNodeDown loses one node of three: its keys fail, the others' do
// not, and nothing is taken for absent.
func TestClusterNodeDown(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3, "--cluster-require-full-coverage", "no")
	s := openStore(t, nodes[0].URL())
	var keys []string
	for i := range 60 {
		keys = append(keys, fmt.Sprint("key.", i))
		mustSwap(t, s, keys[i], nil, "value")
	}
	nodes[2].Kill()
	failed, fine := 0, 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			found, swapped, err := s.Swap(t.Context(), key, nil, []byte("x"), time.Hour)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed++
			case !swapped && string(found) == "value":
				fine++
			default:
				t.Errorf("with a node down Swap of %s = %q, %t, nil", key, found, swapped)
			}
		})
	}
	wg.Wait()
	if failed == 0 || fine == 0 {
		t.Errorf("with one node of three down %d calls fail and %d succeed; want some of both", failed, fine)
	}
	nodes[2].Run() // it remembers its slots, and has lost its keys
	redistest.Wait(t, 10*time.Second, "the cluster to be whole", func() error {
		for _, key := range keys {
			if _, _, err := s.Get(t.Context(), key); err != nil {
				return err
			}
		}
		return nil
	})
}
