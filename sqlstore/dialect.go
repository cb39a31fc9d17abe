package sqlstore

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Dialect is the kind of database. The zero value is none.
type Dialect int

// The dialects. Each names the oldest version that has what its statements use.
const (
	// PostgreSQL is version 9.5 or later.
	PostgreSQL Dialect = iota + 1
	// MySQL is version 5.7 or later, or MariaDB 10.2 or later.
	MySQL
	// SQLite is version 3.24 or later.
	SQLite
)

// String is the name of the dialect.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	case SQLite:
		return "SQLite"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// statements are what a dialect says. Their arguments stand in the order in
// which the fields below list them.
type statements struct {
	schema  []string
	get     string // id; gives: why the server is unfit, whether there is a value, the value
	create  string // id, new, ttl
	renew   string // new, ttl, id; replaces an expired row. Empty: create does that too, and costs nothing if refused
	replace string // new, ttl, id, old
	remove  string // id, old
	delete  string // id
	sweep   string // none

	// answers says that create, replace and remove are queries, which give:
	// whether they did it, whether there is a value, the value. Otherwise they
	// affect one row exactly if they did it.
	answers bool

	// transient reports an error after which nothing has happened, and the
	// same statement may succeed.
	transient func(error) bool
}

// sweepEvery is how many rows a Store makes between two sweeps, and sweepRows
// how many rows a sweep removes at most. As a sweep can remove more rows than
// have been made since the last, expired rows do not pile up.
const (
	sweepEvery = 64
	sweepRows  = 256
)

const (
	defaultTable = "signin_store"

	whyReplica    = "the server is a read replica or read-only: the data source must name the primary"
	whyAutocommit = "autocommit is off: remove it from the data source"
)

// Every statement writes {now} for milliseconds since 1970 by the database's
// clock: replicas' clocks differ.

// postgreSQL: each swap is one statement, and so one round trip. One that is
// refused writes nothing and waits for no disk: those who wait for a lease ask
// often.
//
// The trap is that a statement reads by a snapshot from when it began, while it
// changes rows as they are now: it waits for whoever is changing one, and looks
// at its conditions again. So what a refused swap reads is what there was when it
// began. That is an answer, unless it is what the caller wanted to replace:
// then the row has changed since, and Swap tries again.
//
// clock_timestamp goes on while a statement waits. The index on expires serves
// only a clock that stands still.
var postgreSQL = statements{
	schema: []string{
		`CREATE TABLE IF NOT EXISTS {table} (
  id bytea PRIMARY KEY,
  value bytea NOT NULL,
  expires bigint NOT NULL
)`,
		`CREATE INDEX IF NOT EXISTS {name}_expires ON {table} (expires)`,
	},
	get: `SELECT CASE WHEN pg_is_in_recovery() THEN '` + whyReplica + `' ELSE '' END, t.id IS NOT NULL, t.value
FROM (SELECT 1) AS one LEFT JOIN {table} AS t ON t.id = $1 AND t.expires > {now}`,
	create: `WITH done AS (
  INSERT INTO {table} AS t (id, value, expires)
  SELECT $1::bytea, $2::bytea, {now} + $3::bigint
  WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE id = $1 AND expires > {now})
  ON CONFLICT (id) DO UPDATE SET value = excluded.value, expires = excluded.expires WHERE t.expires <= {now}
  RETURNING 1
)` + postgreSQLAnswer + `$1 AND t.expires > {now}`,
	replace: `WITH done AS (
  UPDATE {table} SET value = $1, expires = {now} + $2::bigint WHERE id = $3 AND value = $4 AND expires > {now}
  RETURNING 1
)` + postgreSQLAnswer + `$3 AND t.expires > {now}`,
	remove: `WITH done AS (
  DELETE FROM {table} WHERE id = $1 AND value = $2 AND expires > {now}
  RETURNING 1
)` + postgreSQLAnswer + `$1 AND t.expires > {now}`,
	delete: `DELETE FROM {table} WHERE id = $1`,
	// A row that another changes, or sweeps, is none to wait for.
	sweep: `DELETE FROM {table} WHERE id = ANY (ARRAY(
  SELECT id FROM {table} WHERE expires <= (extract(epoch FROM statement_timestamp()) * 1000)::bigint
  ORDER BY expires LIMIT {rows} FOR UPDATE SKIP LOCKED))`,
	answers: true,
	transient: func(err error) bool {
		// Under READ COMMITTED, the default, a statement waits for a row and
		// goes on. Under a stricter level it ends with 40001.
		coded, ok := errors.AsType[interface {
			error
			SQLState() string // both drivers have it
		}](err)
		return ok && (coded.SQLState() == "40001" || coded.SQLState() == "40P01")
	},
}

const postgreSQLAnswer = `
SELECT one.done, t.id IS NOT NULL, t.value
FROM (SELECT EXISTS (SELECT 1 FROM done) AS done) AS one LEFT JOIN {table} AS t ON NOT one.done AND t.id = `

// mySQL has no UPDATE that returns what it found, so that a refused swap takes
// a second statement. Each statement is its own transaction, which spares us
// the snapshot of REPEATABLE READ: a plain SELECT in a longer transaction would
// read what was there when that began, whatever others, and we, have written
// since.
//
// The driver's clientFoundRows decides whether a row counts as affected that is
// found, but stays as it is. So create changes the row that it meets: it affects
// one row if it makes one, and two if there is one. Life shorter by a millisecond
// harms nobody. It would be a write for each refusal, so Swap reads before it
// creates. replace leaves a row as it is if it comes twice in a millisecond with
// one value. Then Swap finds what it wanted to replace, and tries again.
//
// VARBINARY and BLOB compare bytes. VARCHAR would fold case and trailing blanks.
var mySQL = statements{
	schema: []string{`CREATE TABLE IF NOT EXISTS {table} (
  id VARBINARY(128) NOT NULL PRIMARY KEY,
  value MEDIUMBLOB NOT NULL,
  expires BIGINT NOT NULL,
  INDEX {name}_expires (expires)
) ENGINE = InnoDB`},
	// A later version may spell the variable's value OFF.
	get: `SELECT CASE WHEN @@session.autocommit = 0 THEN '` + whyAutocommit + `'
  WHEN CONCAT(@@global.read_only) NOT IN ('0', 'OFF') THEN '` + whyReplica + `' ELSE '' END, t.id IS NOT NULL, t.value
FROM (SELECT 1) AS one LEFT JOIN {table} AS t ON t.id = ? AND t.expires > {now}`,
	create: `INSERT INTO {table} (id, value, expires) VALUES (?, ?, {now} + ?)
ON DUPLICATE KEY UPDATE expires = expires - 1`,
	renew:   `UPDATE {table} SET value = ?, expires = {now} + ? WHERE id = ? AND expires <= {now}`,
	replace: `UPDATE {table} SET value = ?, expires = {now} + ? WHERE id = ? AND value = ? AND expires > {now}`,
	remove:  `DELETE FROM {table} WHERE id = ? AND value = ? AND expires > {now}`,
	delete:  `DELETE FROM {table} WHERE id = ?`,
	sweep:   `DELETE FROM {table} WHERE expires <= {now} ORDER BY expires LIMIT {rows}`,
	// 1213 is a deadlock, between two sweeps or in Galera. 1020 is what newer
	// versions of MariaDB say of a row that has changed since a snapshot.
	transient: says("Error 1213", "Error 1020"),
}

// sqLite: each statement is its own transaction, and takes the lock to write
// before it reads. A transaction that reads first could not write after
// another has written.
var sqLite = statements{
	schema: []string{
		`CREATE TABLE IF NOT EXISTS {table} (
  id BLOB NOT NULL PRIMARY KEY,
  value BLOB NOT NULL,
  expires INTEGER NOT NULL
)`,
		`CREATE INDEX IF NOT EXISTS {name}_expires ON {name} (expires)`,
	},
	get: `SELECT '', t.id IS NOT NULL, t.value FROM (SELECT 1) AS one LEFT JOIN {table} AS t ON t.id = ? AND t.expires > {now}`,
	create: `INSERT INTO {table} AS t (id, value, expires) VALUES (?, ?, {now} + ?)
ON CONFLICT (id) DO UPDATE SET value = excluded.value, expires = excluded.expires WHERE t.expires <= {now}`,
	replace:   `UPDATE {table} SET value = ?, expires = {now} + ? WHERE id = ? AND value = ? AND expires > {now}`,
	remove:    `DELETE FROM {table} WHERE id = ? AND value = ? AND expires > {now}`,
	delete:    `DELETE FROM {table} WHERE id = ?`,
	sweep:     `DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE expires <= {now} ORDER BY expires LIMIT {rows})`,
	transient: says("database is locked", "database table is locked", "database schema is locked"),
}

// says returns a function that looks for texts in an error. The types of the
// drivers' errors would bring the drivers with them.
func says(texts ...string) func(error) bool {
	return func(err error) bool {
		for _, text := range texts {
			if strings.Contains(err.Error(), text) {
				return true
			}
		}
		return false
	}
}

// tableName is a name that needs no quotes, after the name of a schema or not.
var tableName = regexp.MustCompile(`^(?:[A-Za-z_][A-Za-z0-9_]{0,47}\.)?([A-Za-z_][A-Za-z0-9_]{0,47})$`)

// statementsFor fills in the table's name, and the clock.
func statementsFor(dialect Dialect, table string) (statements, error) {
	var s statements
	var now string
	switch dialect {
	case PostgreSQL:
		s, now = postgreSQL, "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
	case MySQL:
		// UNIX_TIMESTAMP takes local time, of which an hour comes twice a year.
		s, now = mySQL, "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)"
	case SQLite:
		s, now = sqLite, "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
	default:
		return s, fmt.Errorf("sqlstore: unknown dialect %v", dialect)
	}
	if table == "" {
		table = defaultTable
	}
	match := tableName.FindStringSubmatch(table)
	if match == nil {
		return s, fmt.Errorf("sqlstore: the table's name %q is not made of letters, digits and _, 48 at most", table)
	}
	name := match[1]
	fill := strings.NewReplacer("{now}", now, "{table}", table, "{name}", name, "{rows}", fmt.Sprint(sweepRows)).Replace
	s.schema = append([]string(nil), s.schema...)
	for i := range s.schema {
		s.schema[i] = fill(s.schema[i])
	}
	for _, text := range []*string{&s.get, &s.create, &s.renew, &s.replace, &s.remove, &s.delete, &s.sweep} {
		*text = fill(*text)
	}
	return s, nil
}

// Schema is what [Store.Create] runs, for those who keep their schema in files:
// each statement ends with a semicolon and a line feed. An empty table means
// "signin_store". The error is an unknown dialect or a name of the table that
// New would refuse.
func Schema(dialect Dialect, table string) (string, error) {
	s, err := statementsFor(dialect, table)
	if err != nil {
		return "", err
	}
	return strings.Join(s.schema, ";\n") + ";\n", nil
}
