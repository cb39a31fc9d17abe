// Package sqlstore keeps the sessions of package signin in a table of
// PostgreSQL, MySQL, MariaDB or SQLite, so that any number of replicas share
// them.
//
//	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
//	store, err := sqlstore.New(db, sqlstore.PostgreSQL, sqlstore.Options{})
//	err = store.Create(ctx) // or keep sqlstore.Schema among your migrations
//	auth, err := signin.New(signin.Config{Store: store, ...})
//
// The package imports no driver: bring yours. The tests run pgx and lib/pq on
// PostgreSQL 15, go-sql-driver/mysql on MariaDB 10.11, and modernc.org/sqlite.
//
// # When to use it
//
// Use it where there is a database already, and no Redis. Each request of a
// signed-in user is a query by primary key: there is no copy in the process, so
// a sign-out counts everywhere at once. redisstore answers most requests from a
// copy. filestore serves one process on one machine.
//
// # The primary, and nothing else
//
// The data source must name the primary. A read replica answers with what was
// true some time ago: a session that has ended, or a refresh token that is
// spent. So the store asks each server that it reads from what it is, in the
// same query, and a PostgreSQL in recovery or a MySQL with read_only set is an
// error, not an answer. A replica of MySQL that lets everybody write, and a
// proxy that spreads reads over servers which do, cannot be told from a
// primary: do not use them. In a Galera cluster name one node, for the others
// lag too.
//
// With several hosts in the data source, have the driver look for the primary:
// target_session_attrs=read-write for PostgreSQL.
//
// A database that replicates after it has answered can lose, in a failover,
// what was written in the instant before. Such a session is signed in anew, and
// a refresh token spent in that instant is one the user signs in again for.
//
// # The table
//
// One table holds everything: id and value are bytes, expires is milliseconds
// since 1970 by the clock of the database. The clocks of replicas do not matter.
// What has expired is as good as gone, and is deleted by later calls: one in 64
// that make a row deletes 256 expired ones at most. Nothing runs in the
// background.
//
// The user of the database needs SELECT, INSERT, UPDATE and DELETE on the
// table. On MySQL it must not have SUPER or READ_ONLY ADMIN: it could write to
// a replica. Values are sealed and keys are hashes; a backup of the table is of
// no use without Config.Keys. A backup that is restored brings back sessions
// that have ended since: empty the table after restoring one.
//
// # Transactions
//
// Each call is one statement, or two, and each statement is its own
// transaction, whatever the isolation level. Under REPEATABLE READ and
// SERIALIZABLE PostgreSQL refuses what it would have waited for; the store then
// tries again until the call's time is up. It does the same after a deadlock,
// and with a SQLite that is locked.
//
// # Settings of the pool and the driver
//
// database/sql keeps two idle connections unless told otherwise, and makes a new
// one for every further call at a time: SetMaxIdleConns as high as
// SetMaxOpenConns. A call that finds no free connection waits, so a pool that
// the site's own queries exhaust signs nobody out but answers 503: give the
// store a pool of its own if your queries are slow.
//
// MySQL: set interpolateParams=true, which spares each call a round trip. Leave
// autocommit on. lib/pq: set binary_parameters=yes for the same reason.
//
// SQLite: one file on a local disk, for the processes of one machine. Set
// journal_mode to WAL, so that reading and writing do not wait for each other,
// and busy_timeout to a second. A database in memory serves a test that sets
// SetMaxOpenConns(1): every connection has one of its own.
//
// # Why there is no store for Memcached
//
// A store must keep what it has promised until it expires. Memcached drops what
// it likes when memory is short, silently, and has no setting that refuses to
// write instead. With a claim or a lease that is dropped goes the promise that a
// code or a refresh token is sent once, and with an index of a user's sessions
// the promise that a sign-out ends them all. Its keys are spread over servers
// by the client, so that a server which comes and goes leaves two values under
// one key. Its compare-and-swap compares a number that only a read hands out,
// so that a swap takes two steps. A restart empties it.
package sqlstore
