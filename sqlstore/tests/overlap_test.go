package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/sqlstore"
)

// lock has another connection change the row under key in a transaction that
// it leaves open, until unlock is called. SQLite locks the file.
func lock(t *testing.T, dialect sqlstore.Dialect, source source, table, key string) (unlock func()) {
	t.Helper()
	tx := begin(t, dialect, source)
	mustExec(t, tx, "UPDATE "+table+" SET expires = expires + 1 WHERE id = "+quoted(dialect, key))
	return func() { tx.end(t, "ROLLBACK") }
}

// transaction is one that its connection is told of by statements: SQLite's
// must take the lock to write at its start.
type transaction struct{ conn *sql.Conn }

func begin(t *testing.T, dialect sqlstore.Dialect, source source) transaction {
	t.Helper()
	conn, err := source.open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx := transaction{conn}
	statement := "BEGIN"
	if dialect == sqlstore.SQLite {
		statement = "BEGIN IMMEDIATE"
	}
	mustExec(t, tx, statement)
	return tx
}

func (tx transaction) Exec(statement string, args ...any) (sql.Result, error) {
	return tx.conn.ExecContext(context.Background(), statement, args...)
}

func (tx transaction) end(t *testing.T, how string) {
	t.Helper()
	mustExec(t, tx, how)
	_ = tx.conn.Close()
}

// quoted is a literal for bytes.
func quoted(dialect sqlstore.Dialect, text string) string {
	if dialect == sqlstore.PostgreSQL {
		return fmt.Sprintf(`'\x%x'::bytea`, text)
	}
	return fmt.Sprintf("x'%x'", text)
}

// waiting waits until a statement about the table waits for a lock.
func waiting(t *testing.T, dialect sqlstore.Dialect, db *sql.DB, table string) {
	t.Helper()
	if dialect == sqlstore.SQLite {
		return // nobody can see who asks for a lock again and again
	}
	redistest.Wait(t, patient, "the swap to wait", func() error {
		if dialect == sqlstore.PostgreSQL {
			if count(t, db, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1", "%"+table+"%") > 0 {
				return nil
			}
			return errors.New("nobody waits")
		}
		// The tables of information_schema show what they showed before to one
		// who asks ten times a second.
		var kind, name, status string
		if err := db.QueryRow("SHOW ENGINE INNODB STATUS").Scan(&kind, &name, &status); err != nil {
			return err
		}
		for transaction := range strings.SplitSeq(status, "---TRANSACTION") {
			if strings.Contains(transaction, "LOCK WAIT") && strings.Contains(transaction, table) {
				return nil
			}
		}
		return errors.New("nobody waits")
	})
}

// TestOverlap begins a Swap while another transaction has changed the row and
// not yet committed: what the Swap first sees is old when its turn comes. It
// must decide by what is there then, and say what that is.
func TestOverlap(t *testing.T) {
	for _, tc := range []struct {
		name    string
		before  string // the value; empty: none
		other   string // what the other does
		how     string // how it ends
		old     string // Swap's; empty: nil
		swapped bool
		found   string
	}{
		{"changed from what is wanted", "one", "value = two", "COMMIT", "one", false, "two"},
		{"changed and taken back", "one", "value = two", "ROLLBACK", "one", true, ""},
		{"expired", "one", "expires", "COMMIT", "one", false, ""},
		{"removed", "one", "delete", "COMMIT", "one", false, ""},
		{"made under one who creates", "", "insert", "COMMIT", "", false, "two"},
		{"made and taken back under one who creates", "", "insert", "ROLLBACK", "", true, ""},
		{"an expired one renewed", "expired", "value = two", "COMMIT", "", false, "two"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
				db := source.open(t)
				for _, remove := range []bool{false, true} {
					table := fmt.Sprintf("%s_%t", tableFor(t), remove)
					s := openStore(t, dialect, source, sqlstore.Options{Table: table, Timeout: patient})
					where := " WHERE id = " + quoted(dialect, "key")
					if tc.before != "" {
						mustSwap(t, s, "key", nil, tc.before)
					}
					if tc.before == "expired" {
						mustExec(t, db, "UPDATE "+table+" SET expires = 1")
					}
					tx := begin(t, dialect, source)
					switch tc.other {
					case "value = two":
						mustExec(t, tx, "UPDATE "+table+" SET value = "+quoted(dialect, "two")+", expires = 9999999999999"+where)
					case "expires":
						mustExec(t, tx, "UPDATE "+table+" SET expires = 1"+where)
					case "delete":
						mustExec(t, tx, "DELETE FROM "+table+where)
					case "insert":
						mustExec(t, tx, "INSERT INTO "+table+" (id, value, expires) VALUES ("+quoted(dialect, "key")+", "+quoted(dialect, "two")+", 9999999999999)")
					}
					var old, new []byte
					if tc.old != "" {
						old = []byte(tc.old)
					}
					if !remove {
						new = []byte("new")
					} else if old == nil {
						tx.end(t, tc.how)
						continue // nil for nil only reads, and waits for nobody
					}
					var found []byte
					var swapped bool
					var err error
					var wg sync.WaitGroup
					wg.Go(func() { found, swapped, err = s.Swap(t.Context(), "key", old, new, time.Hour) })
					waiting(t, dialect, db, table)
					tx.end(t, tc.how)
					wg.Wait()
					if swapped != tc.swapped || string(found) != tc.found || err != nil {
						t.Errorf("Swap of %q for %q = %q, %t, %v; want %q, %t", old, new, found, swapped, err, tc.found, tc.swapped)
					}
				}
			})
		})
	}
}

// TestNobodyWaits: what another has not committed is not there. A swap that is
// refused does not wait for it, and writes nothing.
func TestNobodyWaits(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		if dialect == sqlstore.SQLite {
			source.name += "_pragma=journal_mode(WAL)"
		}
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		s := openStore(t, dialect, source, options)
		mustSwap(t, s, "key", nil, "value")
		unlock := lock(t, dialect, source, options.Table, "key")
		defer unlock()
		wantValue(t, s, "key", "value")
		if dialect == sqlstore.SQLite {
			return // there a swap waits for all others
		}
		found, swapped, err := s.Swap(t.Context(), "key", nil, []byte("new"), time.Hour)
		if string(found) != "value" || swapped || err != nil {
			t.Errorf("Swap that is refused to create = %q, %t, %v", found, swapped, err)
		}
		if dialect == sqlstore.MySQL {
			return // there an UPDATE waits for a row before it looks at it
		}
		found, swapped, err = s.Swap(t.Context(), "key", []byte("other"), []byte("new"), time.Hour)
		if string(found) != "value" || swapped || err != nil {
			t.Errorf("Swap that is refused to replace = %q, %t, %v", found, swapped, err)
		}
	})
}

// TestNeverFindsOld: two replicas change a value to and fro while others are
// refused. A refusal that finds what the caller wanted to replace is no answer.
func TestNeverFindsOld(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		replicas := []*sqlstore.Store{openStore(t, dialect, source, options), openStore(t, dialect, source, options)}
		states := [][]byte{nil, []byte("a"), []byte("b")}
		rounds := 400
		if dialect == sqlstore.SQLite {
			rounds = 60 // each write is an fsync
		}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				s := replicas[i%2]
				for n := range rounds {
					old, new := states[(n+i)%3], states[(n+i+1)%3]
					found, swapped, err := s.Swap(t.Context(), "key", old, new, time.Hour)
					switch {
					case err != nil:
						t.Errorf("Swap: %v", err)
						return
					case !swapped && (found == nil) == (old == nil) && string(found) == string(old):
						t.Errorf("Swap of %q is refused, and finds it", old)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestOneStatement: in PostgreSQL each call is one statement, refused or not.
func TestOneStatement(t *testing.T) {
	t.Parallel()
	server := sharedServer(t, sqlstore.PostgreSQL)
	config, err := pgx.ParseConfig(server.source().name)
	if err != nil {
		t.Fatal(err)
	}
	tracer := new(tracer)
	config.Tracer = tracer
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { db.Close() })
	s := newStore(t, db, sqlstore.PostgreSQL, sqlstore.Options{Table: tableFor(t), Timeout: patient})
	if err := s.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSwap(t, s, "first", nil, "sweeps")
	for _, tc := range []struct {
		name     string
		old, new []byte
		swapped  bool
	}{
		{"creates", nil, []byte("one"), true},
		{"is refused to create", nil, []byte("two"), false},
		{"replaces", []byte("one"), []byte("two"), true},
		{"is refused to replace", []byte("one"), []byte("three"), false},
		{"is refused to remove", []byte("one"), nil, false},
		{"removes", []byte("two"), nil, true},
		{"replaces nothing", []byte("one"), []byte("two"), false},
		{"removes nothing", []byte("one"), nil, false},
		{"leaves nothing", nil, nil, true},
	} {
		before := tracer.count()
		_, swapped, err := s.Swap(t.Context(), "key", tc.old, tc.new, time.Hour)
		if n := tracer.count() - before; n != 1 || swapped != tc.swapped || err != nil {
			t.Errorf("a Swap that %s takes %d statements, and returns %t, %v", tc.name, n, swapped, err)
		}
	}
	before := tracer.count()
	if _, _, err := s.Get(t.Context(), "key"); err != nil || tracer.count()-before != 1 {
		t.Errorf("Get takes %d statements, and returns %v", tracer.count()-before, err)
	}
}

// tracer counts statements.
type tracer struct {
	mu sync.Mutex
	n  int
}

func (tr *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.n++
	return ctx
}

func (tr *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (tr *tracer) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.n
}
