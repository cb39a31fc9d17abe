package linear

import (
	"bytes"
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/rueidis"
	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/filestore"
	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/redisstore"
	"github.com/seed454743b5/signin/sqlstore"
	_ "modernc.org/sqlite"
)

func same(s Store, n int) []Store {
	all := make([]Store, n)
	for i := range all {
		all[i] = s
	}
	return all
}

func TestMemory(t *testing.T) {
	Check(t, same(signin.NewMemoryStore(), 6), Options{Keys: 8, Calls: 400, Timeout: time.Second, Gets: true})
}

func TestFile(t *testing.T) {
	s, err := filestore.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	Check(t, same(s, 6), Options{Keys: 8, Calls: 100, Timeout: 5 * time.Second, Gets: true})
}

func TestSQLite(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "store.db") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_txlock=immediate"
	var clients []Store
	for range 3 { // three processes
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s, err := sqlstore.New(db, sqlstore.SQLite, sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(clients) == 0 {
			if err := s.Create(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		clients = append(clients, s, s)
	}
	Check(t, clients, Options{Keys: 8, Calls: 60, Timeout: 5 * time.Second, Gets: true})
}

// Redis, through the adapter's clients at once: with copies of its own, and
// without. No connection is cut here.
func TestRedis(t *testing.T) {
	for _, noCopy := range []bool{true, false} {
		server := redistest.Start(t)
		var clients []Store
		for range 3 {
			s := redisstore.OpenWith(rueidis.ClientOption{InitAddress: []string{server.Addr()}})
			defer s.Close()
			s.NoCopy = noCopy
			clients = append(clients, s, s)
		}
		Check(t, clients, Options{Keys: 24, Calls: 250, Timeout: 2 * time.Second, Gets: noCopy})
	}
}

// blind is a store whose Swap does not compare for as long as it takes to say so.
type blind struct{ Store }

func (b blind) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	value, ok, err := b.Get(ctx, key)
	if err != nil || ok != (old != nil) || !bytes.Equal(value, old) {
		return value, false, err
	}
	time.Sleep(10 * time.Microsecond)
	if err := b.Delete(ctx, key); err != nil || new == nil {
		return nil, err == nil, err
	}
	_, _, err = b.Store.Swap(ctx, key, nil, new, ttl)
	return nil, err == nil, err
}

// The check finds a store that does not keep the contract.
func TestFinds(t *testing.T) {
	history := record(same(blind{signin.NewMemoryStore()}, 6), Options{Keys: 1, Calls: 300, Timeout: time.Second, Gets: true, Seed: 1})
	if got := judge(history); got != porcupine.Illegal {
		t.Errorf("a Swap in two steps is found %s, want %s", got, porcupine.Illegal)
	}
}
