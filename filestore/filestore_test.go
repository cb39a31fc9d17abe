package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/signintest"
)

var _ signin.Store = (*Store)(nil)

// clockedStore is a Store whose clock a test moves.
type clockedStore struct {
	*Store
	offset *atomic.Int64
}

func (s clockedStore) Advance(d time.Duration) { s.offset.Add(int64(d)) }

func open(tb testing.TB, path string) clockedStore {
	tb.Helper()
	s, err := Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() }) // again, for tests that close it themselves
	c := clockedStore{s, new(atomic.Int64)}
	s.now = func() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }
	return c
}

func TestStore(t *testing.T) {
	t.Run("Clocked", func(t *testing.T) {
		signintest.TestStore(t, func(t *testing.T) signintest.Store {
			return open(t, filepath.Join(t.TempDir(), "sessions.db"))
		})
	})
	t.Run("RealTime", func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
		signintest.TestStore(t, func(t *testing.T) signintest.Store { return s.Store })
	})
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	mustSwap(t, s, "short", nil, "short", time.Minute)
	mustSwap(t, s, "long", nil, "long", time.Hour)
	mustSwap(t, s, "deleted", nil, "deleted", time.Hour)
	if err := s.Delete(t.Context(), "deleted"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), "long"); err == nil {
		t.Error("Get of a closed store = nil error")
	}
	if _, _, err := s.Swap(t.Context(), "long", []byte("long"), []byte("x"), time.Hour); err == nil {
		t.Error("Swap of a closed store = nil error")
	}
	if err := s.Delete(t.Context(), "long"); err == nil {
		t.Error("Delete of a closed store = nil error")
	}

	s = open(t, path)
	s.Advance(time.Minute)
	for key, want := range map[string]string{"short": "", "long": "long", "deleted": ""} {
		if v, ok, err := s.Get(t.Context(), key); string(v) != want || ok != (want != "") || err != nil {
			t.Errorf("after a restart Get(%s) = %q, %t, %v; want %q", key, v, ok, err, want)
		}
	}
}

func TestFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	open(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the file's mode is %o; want 600", mode)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "missing", "sessions.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open in a directory that is missing: %v; want os.ErrNotExist", err)
	}
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(garbage); err == nil {
		t.Error("Open of a file that is no database succeeds")
	}
	path := filepath.Join(dir, "sessions.db")
	open(t, path)
	start := time.Now()
	if _, err := Open(path); !errors.Is(err, bolterrors.ErrTimeout) {
		t.Errorf("Open of a file that is open: %v; want ErrTimeout", err)
	}
	if took := time.Since(start); took > 10*lockWait {
		t.Errorf("Open of a file that is open took %v; want about %v", took, lockWait)
	}
}

// TestSweep keeps a site going for a simulated week and looks at what its file
// holds: expired sessions must not pile up.
func TestSweep(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	s.db.NoSync = true // thousands of writes one by one; nothing is killed here
	const perHour, hours = 20, 7 * 24
	for hour := range hours {
		for i := range perHour {
			mustSwap(t, s, fmt.Sprintf("%x.%d.%d", (hour*perHour+i)*7919%997, hour, i), nil, "session", 12*time.Hour)
		}
		s.Advance(time.Hour)
	}
	var held int
	if err := s.db.View(func(tx *bbolt.Tx) error {
		held = tx.Bucket(bucketName).Stats().KeyN
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// Twelve hours' worth live. A round of the sweep takes held/8 writes, in
	// which as many at most have expired.
	if live := 12 * perHour; held > live*3/2 {
		t.Errorf("of %d sessions, %d of them live, the file holds %d", perHour*hours, live, held)
	}
}

// TestGroupCommit has many writers share few fsyncs.
func TestGroupCommit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	before := s.db.Stats()
	const writers, writes = 50, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range writes {
				mustSwap(t, s, fmt.Sprintf("%d.%d", w, i), nil, "value", time.Hour)
			}
		})
	}
	wg.Wait()
	after := s.db.Stats()
	stats := after.Sub(&before)
	if n := stats.TxStats.GetWrite(); n > writers*writes {
		t.Errorf("%d writers made %d page writes for %d values: they do not share", writers, n, writers*writes)
	}
}

const (
	childEnv     = "FILESTORE_TEST_CHILD"
	childWriters = 4
)

// TestMain runs the process that TestKill kills.
func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeUntilKilled has some writers count up a key each, and prints every count
// that was acknowledged.
func writeUntilKilled(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range childWriters {
		go func() {
			key := fmt.Sprint("writer.", w)
			held, _, err := s.Get(context.Background(), key)
			for err == nil {
				next := make([]byte, 3000) // several pages for each write
				if held != nil {
					copy(next, held)
				}
				n := binary.BigEndian.Uint64(next) + 1
				binary.BigEndian.PutUint64(next, n)
				var swapped bool
				if _, swapped, err = s.Swap(context.Background(), key, held, next, time.Hour); err == nil && !swapped {
					err = errors.New("somebody else writes")
				}
				if err == nil {
					_, err = fmt.Println(w, n)
				}
				held = next
			}
			failed <- err
		}()
	}
	return <-failed
}

// TestKill kills a process in the middle of its writes, again and again, and
// wants every write that it has acknowledged, each whole.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	var acknowledged [childWriters]uint64
	for round := range 8 {
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), childEnv+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines, count := bufio.NewReader(out), 0
		for {
			var w int
			var n uint64
			if _, err := fmt.Fscanln(lines, &w, &n); err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("reading from the process: %v", err)
				}
				break
			}
			if n <= acknowledged[w] {
				t.Errorf("round %d: writer %d acknowledges %d after %d", round, w, n, acknowledged[w])
			}
			acknowledged[w] = n
			if count++; count == 40+17*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || count < 40 {
			t.Fatalf("round %d: the process ended after %d writes with %v; want it killed", round, count, err)
		}
		checkCounts(t, path, round, acknowledged)
	}
}

func checkCounts(t *testing.T, path string, round int, acknowledged [childWriters]uint64) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatalf("round %d: open after a kill: %v", round, err)
	}
	defer s.Close()
	for w, want := range acknowledged {
		v, ok, err := s.Get(t.Context(), "writer."+strconv.Itoa(w))
		if err != nil || !ok || len(v) != 3000 {
			t.Errorf("round %d: writer %d: Get = %d bytes, %t, %v", round, w, len(v), ok, err)
			continue
		}
		// One more may be on the disk, whose acknowledgement was cut off.
		if n := binary.BigEndian.Uint64(v); n < want || n > want+1 {
			t.Errorf("round %d: writer %d was told that %d is kept; the file has %d", round, w, want, n)
		}
	}
	if err := s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("round %d: %v", round, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestSecondProcess holds the file in one process and opens it in another.
func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	open(t, path)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), childEnv+"="+path)
	start := time.Now()
	out, err := child.CombinedOutput()
	if err == nil || time.Since(start) > 10*lockWait {
		t.Errorf("the second process ended after %v with %v; want it to fail after about %v", time.Since(start), err, lockWait)
	}
	if want := "another process has it open"; !bytes.Contains(out, []byte(want)) {
		t.Errorf("the second process says %q; want %q in it", out, want)
	}
}

func mustSwap(tb testing.TB, s signin.Store, key string, old []byte, new string, ttl time.Duration) {
	tb.Helper()
	if found, swapped, err := s.Swap(context.Background(), key, old, []byte(new), ttl); err != nil || !swapped {
		tb.Errorf("Swap %s = %q, %t, %v; want it to swap", key, found, swapped, err)
	}
}

func BenchmarkGet(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "sessions.db"))
	mustSwap(b, s, "key", nil, string(make([]byte, 4000)), time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := s.Get(context.Background(), "key"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkSwap(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "sessions.db"))
	value := make([]byte, 4000)
	mustSwap(b, s, "key", nil, string(value), time.Hour)
	for b.Loop() {
		if _, swapped, err := s.Swap(context.Background(), "key", value, value, time.Hour); !swapped || err != nil {
			b.Fatal(swapped, err)
		}
	}
}
