package tests

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/sqlstore"
)

// TestCreate has many replicas make the table at the same time.
func TestCreate(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		for round := range 5 {
			options := sqlstore.Options{Table: fmt.Sprint(tableFor(t), "_", round), Timeout: patient}
			var wg sync.WaitGroup
			for range 6 {
				s := newStore(t, source.open(t), dialect, options)
				wg.Go(func() {
					if err := s.Create(t.Context()); err != nil {
						t.Errorf("Create: %v", err)
					}
				})
			}
			wg.Wait()
		}
	})
}

// TestNoTable: a table that is not there is an error that names it, and no
// absence.
func TestNoTable(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		s := newStore(t, source.open(t), dialect, sqlstore.Options{Table: tableFor(t), Timeout: patient})
		wantFailing(t, s, patient, "without a table")
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), tableFor(t)) {
			t.Errorf("Ready without a table: %v; want its name in the error", err)
		}
	})
}

// TestSchema runs the text of Schema as a migration would.
func TestSchema(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		db := source.open(t)
		for range 2 { // it may run again
			schema, err := sqlstore.Schema(dialect, options.Table)
			if err != nil {
				t.Fatal(err)
			}
			for statement := range strings.SplitSeq(strings.TrimSpace(schema), ";\n") {
				mustExec(t, db, strings.TrimSuffix(statement, ";"))
			}
		}
		mustSwap(t, newStore(t, db, dialect, options), "key", nil, "value")
	})
}

// TestFewRights: whoever only reads and writes the table finds it made.
func TestFewRights(t *testing.T) {
	t.Parallel()
	server := sharedServer(t, sqlstore.PostgreSQL)
	options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
	openStore(t, sqlstore.PostgreSQL, server.source(), options)
	db := server.open()
	role := "app_" + options.Table
	mustExec(t, db, "CREATE ROLE "+role+" LOGIN")
	mustExec(t, db, "GRANT SELECT, INSERT, UPDATE, DELETE ON "+options.Table+" TO "+role)
	app := server.source()
	app.name = strings.Replace(app.name, "postgres@", role+"@", 1)
	s := openStore(t, sqlstore.PostgreSQL, app, options)
	mustSwap(t, s, "key", nil, "value")
	if err := newStore(t, app.open(t), sqlstore.PostgreSQL, sqlstore.Options{Table: options.Table + "_2"}).Create(t.Context()); err == nil {
		t.Error("a user without the right to make a table makes one: this test sees nothing")
	}
}

// TestTables: stores with different tables have nothing in common.
func TestTables(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		one := openStore(t, dialect, source, sqlstore.Options{Table: tableFor(t) + "_1", Timeout: patient})
		two := openStore(t, dialect, source, sqlstore.Options{Table: tableFor(t) + "_2", Timeout: patient})
		mustSwap(t, one, "key", nil, "one")
		mustSwap(t, two, "key", nil, "two")
		wantValue(t, one, "key", "one")
	})
}

// TestLongKey: a database that is not strict would cut it.
func TestLongKey(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		s := openStore(t, dialect, source, sqlstore.Options{Table: tableFor(t), Timeout: patient})
		for _, key := range []string{"", strings.Repeat("k", 129)} {
			if _, _, err := s.Swap(t.Context(), key, nil, []byte("x"), time.Hour); err == nil {
				t.Errorf("Swap of a key of %d bytes succeeds", len(key))
			}
			if _, _, err := s.Get(t.Context(), key); err == nil {
				t.Errorf("Get of a key of %d bytes succeeds", len(key))
			}
			if err := s.Delete(t.Context(), key); err == nil {
				t.Errorf("Delete of a key of %d bytes succeeds", len(key))
			}
		}
	})
}

// TestSameAgain renews a value faster than the clock of the database moves.
func TestSameAgain(t *testing.T) {
	forVariants(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		s := openStore(t, dialect, source, sqlstore.Options{Table: tableFor(t), Timeout: patient})
		mustSwap(t, s, "key", nil, "value")
		for range 60 {
			mustSwap(t, s, "key", []byte("value"), "value")
		}
	})
}

// TestSweep: what has expired goes, in portions, and nothing else does.
func TestSweep(t *testing.T) {
	forDialects(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		table := tableFor(t)
		s := openStore(t, dialect, source, sqlstore.Options{Table: table, Timeout: patient})
		db := source.open(t)
		expired := func() int { return count(t, db, "SELECT count(*) FROM "+table+" WHERE expires < 1000") }
		fill := func(n int) {
			values := make([]string, n)
			for i := range values {
				values[i] = fmt.Sprintf("(%s, %s, %d)", quoted(dialect, fmt.Sprint("old.", i)), quoted(dialect, "x"), i%1000)
			}
			mustExec(t, db, "INSERT INTO "+table+" VALUES "+strings.Join(values, ", "))
		}
		made := 0
		create := func() {
			mustSwap(t, s, fmt.Sprint("live.", made), nil, "value")
			made++
		}

		fill(1000)
		create() // the first: a process that never makes 64 rows sweeps too
		if n := expired(); n != 1000-256 {
			t.Errorf("after a sweep %d rows of 1000 are there; want %d", n, 1000-256)
		}
		for range 63 {
			create()
		}
		if n := expired(); n != 1000-256 {
			t.Errorf("after 63 more rows %d of 1000 are there; want no sweep", n)
		}
		for range 3 * 64 {
			create()
		}
		if n := expired(); n != 0 {
			t.Errorf("after four sweeps %d rows of 1000 are there; want none", n)
		}
		if n := count(t, db, "SELECT count(*) FROM "+table); n != made {
			t.Errorf("of %d rows that live %d are there", made, n)
		}
	})
}

// TestSweepWaitsForNobody: whoever holds a row that has expired does not hold up
// a sign-in.
func TestSweepWaitsForNobody(t *testing.T) {
	t.Parallel()
	source := sharedServer(t, sqlstore.PostgreSQL).source()
	table := tableFor(t)
	s := openStore(t, sqlstore.PostgreSQL, source, sqlstore.Options{Table: table, Timeout: patient})
	db := source.open(t)
	mustExec(t, db, "INSERT INTO "+table+" VALUES ('held', 'x', 1), ('free', 'x', 2)")
	unlock := lock(t, sqlstore.PostgreSQL, source, table, "held")
	start := time.Now()
	mustSwap(t, s, "key", nil, "value")
	if took := time.Since(start); took > patient/2 {
		t.Errorf("Swap took %v", took)
	}
	unlock()
	if n := count(t, db, "SELECT count(*) FROM "+table+" WHERE id = 'free'"); n != 0 {
		t.Error("the sweep has left what it could remove")
	}
}

// TestSweepAtWork sweeps while others make rows, and renew those that expired:
// nobody waits for ever, and no row that was renewed goes.
func TestSweepAtWork(t *testing.T) {
	for _, v := range servers {
		t.Run(v.dialect.String(), func(t *testing.T) {
			t.Parallel()
			source := sharedServer(t, v.dialect).source()
			options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
			var wg sync.WaitGroup
			for replica := range 2 {
				s := openStore(t, v.dialect, source, options)
				for worker := range 4 {
					wg.Go(func() {
						for n := range 150 {
							key := fmt.Sprint(replica, ".", worker, ".", n)
							if _, swapped, err := s.Swap(t.Context(), key, nil, []byte("brief"), time.Nanosecond); !swapped || err != nil {
								t.Errorf("Swap that creates = %t, %v", swapped, err)
								return
							}
							again := fmt.Sprint(replica, ".", worker, ".", max(0, n-20))
							found, swapped, err := s.Swap(t.Context(), again, nil, []byte("long"), time.Hour)
							if err != nil || !swapped && string(found) == "" {
								t.Errorf("Swap that renews = %q, %t, %v", found, swapped, err)
								return
							}
							if !swapped {
								continue // it was not quite gone
							}
							if v, ok, err := s.Get(t.Context(), again); string(v) != "long" || !ok || err != nil {
								t.Errorf("Get of what was renewed = %q, %t, %v", v, ok, err)
							}
						}
					})
				}
			}
			wg.Wait()
		})
	}
}
