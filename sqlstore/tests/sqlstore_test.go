package tests

import (
	"database/sql"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/signintest"
	"github.com/seed454743b5/signin/sqlstore"
)

var _ signin.Store = (*sqlstore.Store)(nil)

// patient is a Timeout that no busy machine exceeds, for tests of what is
// answered, not when.
const patient = 30 * time.Second

// shared are servers that serve many tests, each with a table of its own.
var shared struct {
	mu       sync.Mutex
	servers  map[sqlstore.Dialect]*server
	cleanups []func()
}

// forAll stands for all tests: what it cleans up waits until they have run.
type forAll struct{ testing.TB }

func (f forAll) Cleanup(fn func()) { shared.cleanups = append(shared.cleanups, fn) }

func TestMain(m *testing.M) {
	// The driver prints each connection that dies: here they die on purpose.
	_ = mysql.SetLogger(log.New(io.Discard, "", 0))
	code := m.Run()
	for i := len(shared.cleanups) - 1; i >= 0; i-- {
		shared.cleanups[i]()
	}
	os.Exit(code)
}

// server returns the shared one.
func sharedServer(tb testing.TB, dialect sqlstore.Dialect) *server {
	tb.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if s := shared.servers[dialect]; s != nil {
		return s
	}
	var s *server
	switch dialect {
	case sqlstore.PostgreSQL:
		s = startPostgreSQL(forAll{tb})
	case sqlstore.MySQL:
		s = startMariaDB(forAll{tb})
	}
	if shared.servers == nil {
		shared.servers = make(map[sqlstore.Dialect]*server)
	}
	shared.servers[dialect] = s
	return s
}

// variants are the databases, drivers and settings under which the contract is
// kept. A setting follows the data source's name.
var variants = []struct {
	name    string
	dialect sqlstore.Dialect
	driver  string
	setting string
}{
	{"PostgreSQL", sqlstore.PostgreSQL, "pgx", ""},
	{"PostgreSQL/lib-pq", sqlstore.PostgreSQL, "postgres", ""},
	{"PostgreSQL/simple protocol", sqlstore.PostgreSQL, "pgx", "&default_query_exec_mode=simple_protocol"},
	{"PostgreSQL/repeatable read", sqlstore.PostgreSQL, "pgx", "&default_transaction_isolation=repeatable%20read"},
	{"PostgreSQL/serializable", sqlstore.PostgreSQL, "pgx", "&default_transaction_isolation=serializable"},
	{"MySQL", sqlstore.MySQL, "mysql", ""},
	{"MySQL/prepared", sqlstore.MySQL, "mysql", "&interpolateParams=false"},
	{"MySQL/found rows", sqlstore.MySQL, "mysql", "&clientFoundRows=true"},
	{"MySQL/read committed", sqlstore.MySQL, "mysql", "&tx_isolation=%27READ-COMMITTED%27"},
	{"MySQL/serializable", sqlstore.MySQL, "mysql", "&tx_isolation=%27SERIALIZABLE%27"},
	{"MySQL/lenient", sqlstore.MySQL, "mysql", "&sql_mode=%27ANSI%27&time_zone=%27%2B02:00%27"},
	{"SQLite", sqlstore.SQLite, "sqlite", ""},
	{"SQLite/WAL", sqlstore.SQLite, "sqlite", "_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(1000)"},
}

// forVariants runs a test under each variant.
func forVariants(t *testing.T, test func(t *testing.T, dialect sqlstore.Dialect, source source)) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			if v.dialect == sqlstore.SQLite {
				test(t, v.dialect, sqliteSource(t, v.setting))
				return
			}
			src := sharedServer(t, v.dialect).source()
			src.driver = v.driver
			src.name += v.setting
			test(t, v.dialect, src)
		})
	}
}

// forDialects runs a test once for each dialect.
func forDialects(t *testing.T, test func(t *testing.T, dialect sqlstore.Dialect, source source)) {
	for _, dialect := range []sqlstore.Dialect{sqlstore.PostgreSQL, sqlstore.MySQL, sqlstore.SQLite} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			if dialect == sqlstore.SQLite {
				test(t, dialect, sqliteSource(t))
				return
			}
			test(t, dialect, sharedServer(t, dialect).source())
		})
	}
}

// tables are the names that tableFor has given, by test.
var tables struct {
	mu    sync.Mutex
	names map[testing.TB]string
}

// tableFor is the name of the test's own table in a shared database.
func tableFor(t testing.TB) string {
	tables.mu.Lock()
	defer tables.mu.Unlock()
	if tables.names == nil {
		tables.names = make(map[testing.TB]string)
	}
	if tables.names[t] == "" {
		tables.names[t] = fmt.Sprintf("sessions_%d", len(tables.names))
	}
	return tables.names[t]
}

func newStore(t *testing.T, db *sql.DB, dialect sqlstore.Dialect, options sqlstore.Options) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.New(db, dialect, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openStore is a replica with connections and a table of its own.
func openStore(t *testing.T, dialect sqlstore.Dialect, source source, options sqlstore.Options) *sqlstore.Store {
	t.Helper()
	s := newStore(t, source.open(t), dialect, options)
	if err := s.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// replicated is a Store that can make another like it, for TestStore.
type replicated struct {
	*sqlstore.Store
	open func() *sqlstore.Store
}

func (r replicated) Peer() signintest.Store { return r.open() }

func TestStore(t *testing.T) {
	forVariants(t, func(t *testing.T, dialect sqlstore.Dialect, source source) {
		options := sqlstore.Options{Table: tableFor(t), Timeout: patient}
		signintest.TestStore(t, func(t *testing.T) signintest.Store {
			open := func() *sqlstore.Store { return openStore(t, dialect, source, options) }
			return replicated{open(), open}
		})
	})
}
