package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/sqlstore"
)

const (
	// brief is a Timeout for tests that wait for it to pass.
	brief = 500 * time.Millisecond

	// slack is what a busy machine may add to a timeout.
	slack = 5 * time.Second
)

// servers are the dialects with a server that can be killed and cut off.
var servers = []struct {
	dialect sqlstore.Dialect
	start   func(testing.TB, ...string) *server
}{
	{sqlstore.PostgreSQL, startPostgreSQL},
	{sqlstore.MySQL, startMariaDB},
}

func mustSwap(t *testing.T, s *sqlstore.Store, key string, old []byte, new string) {
	t.Helper()
	if found, swapped, err := s.Swap(t.Context(), key, old, []byte(new), time.Hour); !swapped || err != nil {
		t.Fatalf("Swap of %s for %q = %q, %t, %v; want it to swap", key, new, found, swapped, err)
	}
}

func wantValue(t *testing.T, s *sqlstore.Store, key, want string) {
	t.Helper()
	if v, ok, err := s.Get(t.Context(), key); string(v) != want || !ok || err != nil {
		t.Errorf("Get of %s = %q, %t, %v; want %q", key, v, ok, err, want)
	}
}

// wantFailing wants every call to end with an error, within its time.
func wantFailing(t *testing.T, s *sqlstore.Store, limit time.Duration, why string) {
	t.Helper()
	ctx := t.Context()
	for name, call := range map[string]func() (any, error){
		"Get": func() (any, error) {
			v, ok, err := s.Get(ctx, "key")
			return fmt.Sprintf("%q, %t", v, ok), err
		},
		"Get of an absent key": func() (any, error) {
			v, ok, err := s.Get(ctx, "absent")
			return fmt.Sprintf("%q, %t", v, ok), err
		},
		"Swap that creates": func() (any, error) {
			found, swapped, err := s.Swap(ctx, "absent", nil, []byte("x"), time.Hour)
			return fmt.Sprintf("%q, %t", found, swapped), err
		},
		"Swap that replaces": func() (any, error) {
			found, swapped, err := s.Swap(ctx, "key", []byte("value"), []byte("value"), time.Hour)
			return fmt.Sprintf("%q, %t", found, swapped), err
		},
		"Swap that removes": func() (any, error) {
			found, swapped, err := s.Swap(ctx, "key", []byte("other"), nil, 0)
			return fmt.Sprintf("%q, %t", found, swapped), err
		},
		"Swap of nothing for nothing": func() (any, error) {
			found, swapped, err := s.Swap(ctx, "absent", nil, nil, 0)
			return fmt.Sprintf("%q, %t", found, swapped), err
		},
		"Delete": func() (any, error) { return nil, s.Delete(ctx, "absent") },
		"Ready":  func() (any, error) { return nil, s.Ready(ctx) },
	} {
		start := time.Now()
		if got, err := call(); err == nil {
			t.Errorf("%s: %s = %v, nil; want an error", why, name, got)
		}
		if took := time.Since(start); took > limit {
			t.Errorf("%s: %s took %v; want %v at most", why, name, took, limit)
		}
	}
}

func wantRecovery(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	redistest.Wait(t, 20*time.Second, "the store to recover", func() error { return s.Ready(t.Context()) })
	// A connection that died with the server may still be in the pool, and a
	// Swap that meets it fails once.
	key := fmt.Sprint("recovered.", time.Now().UnixNano())
	redistest.Wait(t, 20*time.Second, "a swap to succeed", func() error {
		found, swapped, err := s.Swap(t.Context(), key, nil, []byte("value"), time.Hour)
		if err == nil && !swapped && string(found) != "value" {
			t.Errorf("Swap after the recovery found %q", found)
		}
		return err
	})
	wantValue(t, s, key, "value")
}

// TestKilled kills the server under its clients: an error, never an absence.
// What had been acknowledged is there when it is back.
func TestKilled(t *testing.T) {
	for _, kind := range servers {
		t.Run(kind.dialect.String(), func(t *testing.T) {
			t.Parallel()
			server := kind.start(t)
			s := openStore(t, kind.dialect, server.source(), sqlstore.Options{})
			mustSwap(t, s, "key", nil, "value")
			var wg sync.WaitGroup
			for i := range 8 { // fills the pool with connections that are about to die
				wg.Go(func() { mustSwap(t, s, fmt.Sprint("other.", i), nil, "value") })
			}
			wg.Wait()
			for range 2 {
				server.kill()
				wantFailing(t, s, slack, "killed")
				server.run()
				wantRecovery(t, s)
				wantValue(t, s, "key", "value")
			}
		})
	}
}

// TestKilledAtWork kills the server while two replicas count in one key. No
// count that was acknowledged is lost, and none is made twice.
func TestKilledAtWork(t *testing.T) {
	for _, kind := range servers {
		t.Run(kind.dialect.String(), func(t *testing.T) {
			t.Parallel()
			server := kind.start(t)
			replicas := []*sqlstore.Store{
				openStore(t, kind.dialect, server.source(), sqlstore.Options{}),
				openStore(t, kind.dialect, server.source(), sqlstore.Options{}),
			}
			mustSwap(t, replicas[0], "key", nil, "-")
			var done, sure, unsure atomic.Int64
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for i, s := range replicas {
				wg.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						old, ok, err := s.Get(t.Context(), "key")
						if err != nil {
							continue
						}
						if !ok {
							t.Error("the key is gone")
							return
						}
						_, swapped, err := s.Swap(t.Context(), "key", old, fmt.Appendf(nil, "%d.%d-%s", i, n, countUp(old)), time.Hour)
						switch {
						case swapped:
							sure.Add(1)
						case err != nil:
							unsure.Add(1)
						}
						done.Add(1)
					}
				})
			}
			for range 3 {
				from := sure.Load()
				redistest.Wait(t, 20*time.Second, "some swaps", func() error {
					if sure.Load() < from+50 {
						return errors.New("too few")
					}
					return nil
				})
				server.kill()
				server.run()
			}
			close(stop)
			wg.Wait()
			v, _, err := replicas[0].Get(t.Context(), "key")
			if err != nil {
				v, _, err = replicas[0].Get(t.Context(), "key")
			}
			var n int64
			_, _ = fmt.Sscanf(string(v[strings.IndexByte(string(v), '-')+1:]), "%d", &n)
			if err != nil || n < sure.Load() || n > sure.Load()+unsure.Load() {
				t.Errorf("after %d swaps, and %d of which nobody knows, the value is %q, %v", sure.Load(), unsure.Load(), v, err)
			}
			t.Logf("%d swaps, %d unknown", sure.Load(), unsure.Load())
		})
	}
}

// countUp is the next count after that in a value.
func countUp(old []byte) string {
	_, count, _ := strings.Cut(string(old), "-")
	var n int
	_, _ = fmt.Sscanf(count, "%d", &n)
	return fmt.Sprint(n + 1)
}

// TestLostAnswer loses the connection in the middle of a Swap: before the
// server has it, and before its answer is back. Either is an error, and
// reading again tells which.
func TestLostAnswer(t *testing.T) {
	forProxied(t, func(t *testing.T, dialect sqlstore.Dialect, direct source, proxy *redistest.Proxy, proxied source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		there := openStore(t, dialect, direct, options)
		quick := options
		quick.Timeout = brief
		here := openStore(t, dialect, proxied, quick)
		mustSwap(t, here, "key", nil, "before")

		for _, tc := range []struct{ key, old, new string }{
			{"key", "before", "after"}, {"made", "", "after"}, {"key", "after", ""},
		} {
			var old, new []byte
			if tc.old != "" {
				old = []byte(tc.old)
			}
			if tc.new != "" {
				new = []byte(tc.new)
			}
			proxy.HoldReplies()
			start := time.Now()
			if found, swapped, err := here.Swap(t.Context(), tc.key, old, new, time.Hour); err == nil {
				t.Errorf("%+v: Swap whose answer is lost = %q, %t, nil; want an error", tc, found, swapped)
			}
			if took := time.Since(start); took > brief+slack {
				t.Errorf("%+v: Swap whose answer is lost took %v", tc, took)
			}
			proxy.Drop() // the answer is gone for good
			proxy.Restore()
			wantRecovery(t, here)
			// It may have arrived or not: with a driver that prepares first, the
			// answer that is lost is the one to that. Swap again, as the caller does.
			found, swapped, err := here.Swap(t.Context(), tc.key, old, new, time.Hour)
			if err != nil || !swapped && string(found) != tc.new {
				t.Errorf("%+v: Swap again = %q, %t, %v; want it to swap, or to find its own value", tc, found, swapped, err)
			}
			if v, ok, err := there.Get(t.Context(), tc.key); err != nil || string(v) != tc.new || ok != (new != nil) {
				t.Errorf("%+v: another replica reads %q, %t, %v", tc, v, ok, err)
			}
		}
		mustSwap(t, there, "last", nil, "before")
		proxy.Hold() // the server does not hear of it
		if _, _, err := here.Swap(t.Context(), "last", []byte("before"), []byte("after"), time.Hour); err == nil {
			t.Error("Swap that the server does not hear of succeeds")
		}
		proxy.Cut()
		wantFailing(t, here, slack, "cut off")
		proxy.Restore()
		wantRecovery(t, here)
		wantValue(t, here, "last", "before")
	})
}

// forProxied runs a test with a proxy before a shared server.
func forProxied(t *testing.T, test func(t *testing.T, dialect sqlstore.Dialect, direct source, proxy *redistest.Proxy, proxied source)) {
	for _, v := range []struct {
		name    string
		dialect sqlstore.Dialect
		driver  string
	}{
		{"PostgreSQL", sqlstore.PostgreSQL, "pgx"}, {"lib-pq", sqlstore.PostgreSQL, "postgres"}, {"MySQL", sqlstore.MySQL, "mysql"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			server := sharedServer(t, v.dialect)
			proxy := redistest.StartProxy(t, server.addr)
			proxied := server.url(proxy.Addr())
			proxied.driver = v.driver
			test(t, v.dialect, server.source(), proxy, proxied)
		})
	}
}

// TestDropped ends connections at moments that nobody chose, many times, while
// a caller counts. Whatever a Swap that failed has done, it has done it once.
func TestDropped(t *testing.T) {
	forProxied(t, func(t *testing.T, dialect sqlstore.Dialect, direct source, proxy *redistest.Proxy, proxied source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		there := openStore(t, dialect, direct, options)
		here := openStore(t, dialect, proxied, options)
		mustSwap(t, there, "key", nil, "0")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			tick := time.NewTicker(7 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					proxy.Drop()
				}
			}
		})
		defer wg.Wait()
		defer close(stop)
		failed := 0
		for n := 0; n < 300 || failed < 5; n++ {
			if n > 20000 {
				t.Fatalf("only %d of %d swaps lost their connection", failed, n)
			}
			old, new := fmt.Append(nil, n), fmt.Append(nil, n+1)
			found, swapped, err := here.Swap(t.Context(), "key", old, new, time.Hour)
			if swapped {
				continue
			}
			if err == nil {
				t.Fatalf("Swap of %s found %s", old, found)
			}
			failed++
			v, ok, err := there.Get(t.Context(), "key")
			if err != nil || !ok || string(v) != string(old) && string(v) != string(new) {
				t.Fatalf("after a lost Swap of %s the value is %q, %t, %v", old, v, ok, err)
			}
			if string(v) == string(old) {
				// A server may carry out what it has heard after the client is gone.
				if found, swapped, err := there.Swap(t.Context(), "key", old, new, time.Hour); err != nil || !swapped && string(found) != string(new) {
					t.Fatalf("Swap again of %s = %q, %t, %v", old, found, swapped, err)
				}
			}
		}
		t.Logf("%d connections lost in a Swap", failed)
	})
}

// TestBlackHole has callers wait for a network that swallows everything. Each
// is told in time.
func TestBlackHole(t *testing.T) {
	forProxied(t, func(t *testing.T, dialect sqlstore.Dialect, direct source, proxy *redistest.Proxy, proxied source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		openStore(t, dialect, direct, options)
		options.Timeout = brief
		here := openStore(t, dialect, proxied, options)
		late := newStore(t, proxied.open(t), dialect, options)
		mustSwap(t, here, "key", nil, "value")
		proxy.Hold()
		var wg sync.WaitGroup
		for _, s := range []*sqlstore.Store{here, late} {
			for range 20 {
				wg.Go(func() { wantFailing(t, s, brief+slack, "in a black hole") })
			}
		}
		wg.Wait()
		proxy.Drop()
		proxy.Restore()
		for _, s := range []*sqlstore.Store{here, late} {
			wantRecovery(t, s)
			wantValue(t, s, "key", "value")
		}
	})
}

// TestDeadPool: the connections of a pool die together, as when a server or a
// firewall is restarted. What may be asked again is asked again.
func TestDeadPool(t *testing.T) {
	forProxied(t, func(t *testing.T, dialect sqlstore.Dialect, direct source, proxy *redistest.Proxy, proxied source) {
		s := openStore(t, dialect, proxied, sqlstore.Options{Table: tableFor(t), Timeout: patient})
		mustSwap(t, s, "key", nil, "value")
		for i := range 10 {
			proxy.HoldReplies() // each needs a connection of its own
			var wg sync.WaitGroup
			for range 12 {
				wg.Go(func() { wantValue(t, s, "key", "value") })
			}
			redistest.Wait(t, patient, "twelve connections", func() error {
				if n := proxy.Conns(); n < 12 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			proxy.Restore()
			wg.Wait()
			proxy.Drop()
			if i%2 == 0 {
				wantValue(t, s, "key", "value")
			} else if err := s.Delete(t.Context(), "absent"); err != nil {
				t.Errorf("Delete after the connections died: %v", err)
			}
		}
	})
}

// TestReplica reads from servers that are not the primary. They would answer.
func TestReplica(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		server := startPostgreSQL(t)
		s := openStore(t, sqlstore.PostgreSQL, server.source(), sqlstore.Options{})
		mustSwap(t, s, "key", nil, "value")
		// A standby with nobody to follow lags for ever.
		server.stop()
		signal := filepath.Join(server.dir, "data", "standby.signal")
		if err := os.WriteFile(signal, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		server.run()
		db := server.open()
		if n := count(t, db, "SELECT count(*) FROM signin_store"); n != 1 {
			t.Fatalf("the standby has %d rows: this test sees nothing", n)
		}
		wantReplica(t, s)
		if _, err := db.Exec("SELECT pg_promote()"); err != nil {
			t.Fatal(err)
		}
		wantRecovery(t, s)
		wantValue(t, s, "key", "value")
	})
	t.Run("MySQL", func(t *testing.T) {
		t.Parallel()
		server := startMariaDB(t)
		db := server.open()
		mustExec(t, db, "CREATE USER app@'127.0.0.1'")
		mustExec(t, db, "GRANT SELECT, INSERT, UPDATE, DELETE ON signin.* TO app@'127.0.0.1'")
		openStore(t, sqlstore.MySQL, server.source(), sqlstore.Options{})
		app := server.source()
		app.name = strings.Replace(app.name, "root@", "app@", 1)
		s := openStore(t, sqlstore.MySQL, app, sqlstore.Options{})
		mustSwap(t, s, "key", nil, "value")
		mustExec(t, db, "SET GLOBAL read_only = 1")
		wantReplica(t, s)
		mustExec(t, db, "SET GLOBAL read_only = 0")
		wantRecovery(t, s)
		wantValue(t, s, "key", "value")
	})
}

func wantReplica(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	wantFailing(t, s, slack, "a replica")
	if _, _, err := s.Get(t.Context(), "key"); err == nil || !strings.Contains(err.Error(), "must name the primary") {
		t.Errorf("Get from a replica: %v; want an error that says so", err)
	}
}

// TestAutocommitOff: with it no write would ever be committed.
func TestAutocommitOff(t *testing.T) {
	t.Parallel()
	src := sharedServer(t, sqlstore.MySQL).source()
	options := sqlstore.Options{Table: tableFor(t)}
	openStore(t, sqlstore.MySQL, src, options)
	src.name += "&autocommit=0"
	s := newStore(t, src.open(t), sqlstore.MySQL, options)
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "autocommit") {
		t.Errorf("Ready with autocommit off: %v; want an error that says so", err)
	}
	if err := s.Create(t.Context()); err == nil {
		t.Error("Create with autocommit off succeeds")
	}
}

// TestDeadlock: MySQL ends a statement that it has chosen to break a deadlock,
// and the store tries again. A trigger says what such a statement is told.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	source := sharedServer(t, sqlstore.MySQL).source()
	table := tableFor(t)
	s := openStore(t, sqlstore.MySQL, source, sqlstore.Options{Table: table, Timeout: patient})
	db := source.open(t)
	// What a statement that fails has written to MyISAM stays.
	mustExec(t, db, "CREATE TABLE "+table+"_told (n INT) ENGINE = MyISAM")
	mustExec(t, db, "INSERT INTO "+table+"_told VALUES (0)")
	for _, event := range []string{"INSERT", "UPDATE", "DELETE"} {
		mustExec(t, db, "CREATE TRIGGER "+table+"_"+event+" BEFORE "+event+" ON "+table+` FOR EACH ROW BEGIN
  UPDATE `+table+`_told SET n = n + 1;
  IF (SELECT n % 3 FROM `+table+`_told) != 0 THEN
    SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found when trying to get lock; try restarting transaction';
  END IF;
END`)
	}
	mustSwap(t, s, "key", nil, "one")
	mustSwap(t, s, "key", []byte("one"), "two")
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	mustSwap(t, s, "key", nil, "three")
	if _, swapped, err := s.Swap(t.Context(), "key", []byte("three"), nil, 0); !swapped || err != nil {
		t.Errorf("Swap that removes = %t, %v", swapped, err)
	}
	if n := count(t, db, "SELECT n FROM "+table+"_told"); n != 15 {
		t.Errorf("the trigger has run %d times, want 15: this test sees nothing", n)
	}
}

// TestTimeout: the deadline is the store's, or the caller's if that is nearer,
// and the error says that time was up.
func TestTimeout(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		options := sqlstore.Options{Table: tableFor(t)}
		openStore(t, dialect, source, options)
		options.Timeout = brief
		s := newStore(t, source.open(t), dialect, options)
		mustSwap(t, s, "key", nil, "value")
		unlock := lock(t, dialect, source, options.Table, "key")
		start := time.Now()
		_, swapped, err := s.Swap(t.Context(), "key", []byte("value"), []byte("new"), time.Hour)
		if !errors.Is(err, context.DeadlineExceeded) || swapped {
			t.Errorf("Swap of a row that is locked = %t, %v; want a deadline exceeded", swapped, err)
		}
		if took := time.Since(start); took < brief || took > brief+slack {
			t.Errorf("Swap of a row that is locked took %v, want %v", took, brief)
		}
		unlock()
		redistest.Wait(t, slack, "the lock to end", func() error {
			_, _, err := s.Swap(t.Context(), "probe", nil, []byte("x"), time.Hour)
			return err
		})
	})
}
