package serve

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // driver pgx
	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/sqlstore"
	_ "modernc.org/sqlite" // driver sqlite
)

// connections to a database, at most; all are kept.
const maxConnections = 20

// openSQL opens a database. It does not connect: a database that is down when
// the front starts is a store that fails, which passes.
func openSQL(driver, source string, dialect sqlstore.Dialect) (signin.Store, func() error, error) {
	db, err := sql.Open(driver, source)
	if err != nil {
		// The error may quote the source, which has a password in it.
		return nil, nil, errors.New("store: the database's URL cannot be used")
	}
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	db.SetConnMaxLifetime(30 * time.Minute)
	s, err := sqlstore.New(db, dialect, sqlstore.Options{})
	if err != nil {
		return nil, nil, err
	}
	return &created{Store: s}, db.Close, nil
}

// mysqlSource turns a URL into what the driver takes.
func mysqlSource(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || len(u.Path) < 2 {
		return "", errors.New("store: want mysql://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	c := mysql.NewConfig()
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.Net, c.Addr, c.DBName = "tcp", u.Host, u.Path[1:]
	if u.Port() == "" {
		c.Addr += ":3306"
	}
	c.InterpolateParams = true // spares each call a round trip
	c.TLSConfig = u.Query().Get("tls")
	return c.FormatDSN(), nil
}

// sqliteSource has readers and the writer not wait for each other.
func sqliteSource(path string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(1000)"
}

// created makes the table before the first call that finds the database.
type created struct {
	*sqlstore.Store

	mu   sync.Mutex
	done bool // guarded by mu
}

func (s *created) ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	err := s.Create(ctx)
	s.done = err == nil
	return err
}

func (s *created) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := s.ready(ctx); err != nil {
		return nil, false, err
	}
	return s.Store.Get(ctx, key)
}

func (s *created) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	if err := s.ready(ctx); err != nil {
		return nil, false, err
	}
	return s.Store.Swap(ctx, key, old, new, ttl)
}

func (s *created) Delete(ctx context.Context, key string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}
