package sqlstore

import (
	"database/sql"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	db := new(sql.DB)
	for _, tc := range []struct {
		name    string
		db      *sql.DB
		dialect Dialect
		options Options
		err     string // empty: none
	}{
		{"no options", db, PostgreSQL, Options{}, ""},
		{"a schema", db, MySQL, Options{Table: "web.sessions_2"}, ""},
		{"no database", nil, SQLite, Options{}, "no database"},
		{"the zero dialect", db, 0, Options{}, "unknown dialect Dialect(0)"},
		{"another dialect", db, SQLite + 1, Options{}, "unknown dialect Dialect(4)"},
		{"a negative timeout", db, SQLite, Options{Timeout: -time.Second}, "negative"},
		{"a table that is an attack", db, SQLite, Options{Table: "t; DROP TABLE users"}, "name"},
		{"a quoted table", db, PostgreSQL, Options{Table: `"t"`}, "name"},
		{"a second line", db, PostgreSQL, Options{Table: "t\nu"}, "name"},
		{"a line feed at the end", db, PostgreSQL, Options{Table: "t\n"}, "name"},
		{"two dots", db, PostgreSQL, Options{Table: "a.b.c"}, "name"},
		{"a digit first", db, PostgreSQL, Options{Table: "1t"}, "name"},
		// The index's name must still fit into PostgreSQL's 63 bytes.
		{"a long table", db, PostgreSQL, Options{Table: strings.Repeat("t", 48)}, ""},
		{"a longer table", db, PostgreSQL, Options{Table: strings.Repeat("t", 49)}, "name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := New(tc.db, tc.dialect, tc.options)
			if tc.err == "" && (err != nil || s == nil) {
				t.Errorf("New = %v, %v; want a Store", s, err)
			}
			if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("New = %v, %v; want an error with %q", s, err, tc.err)
			}
		})
	}
}

// TestFilled: no statement goes out with a blank in it.
func TestFilled(t *testing.T) {
	for _, dialect := range []Dialect{PostgreSQL, MySQL, SQLite} {
		s, err := statementsFor(dialect, "web.sessions")
		if err != nil {
			t.Fatal(err)
		}
		all := append([]string{s.get, s.create, s.renew, s.replace, s.remove, s.delete, s.sweep}, s.schema...)
		for _, text := range all {
			if strings.ContainsAny(text, "{}") {
				t.Errorf("%v: %s", dialect, text)
			}
		}
		if again, _ := statementsFor(dialect, ""); strings.Contains(strings.Join(again.schema, ""), "web") {
			t.Errorf("%v: the schema of one table is that of another", dialect)
		}
	}
}
