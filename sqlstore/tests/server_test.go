// Package tests has the tests of sqlstore: on real servers of PostgreSQL and
// MariaDB, which it starts on free loopback ports, and on files of SQLite.
//
// It is a module of its own. In sqlstore's go.mod the drivers would raise the
// versions of those that a site uses, and modernc.org/sqlite works with one
// version of modernc.org/libc alone.
package tests

import (
	"bytes"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed454743b5/signin/internal/redistest"
)

// startTimeout bounds how long a server may take to answer or to end.
const startTimeout = 60 * time.Second

// server is one server process, with everything in one directory.
type server struct {
	tb   testing.TB
	dir  string
	addr string
	argv []string
	// url is the data source for a server at addr.
	url func(addr string) source

	mu   sync.Mutex // guards cmd and done
	cmd  *exec.Cmd  // nil: stopped
	done chan struct{}
}

// source is what sql.Open takes.
type source struct{ driver, name string }

func (s source) open(tb testing.TB) *sql.DB {
	tb.Helper()
	db, err := sql.Open(s.driver, s.name)
	if err != nil {
		tb.Fatal(err)
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	tb.Cleanup(func() { db.Close() })
	return db
}

// startPostgreSQL runs a PostgreSQL with further settings, each "name=value",
// until the test ends.
func startPostgreSQL(tb testing.TB, settings ...string) *server {
	tb.Helper()
	bin := postgreSQLBin(tb)
	dir := serverDir(tb)
	mustRun(tb, nil, filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
	addr := freeAddr(tb)
	_, port, _ := net.SplitHostPort(addr)
	argv := []string{filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), "-p", port}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=16MB", "max_connections=200",
	}, settings...) {
		argv = append(argv, "-c", setting)
	}
	return start(tb, &server{dir: dir, addr: addr, argv: argv, url: pgxSource})
}

func pgxSource(addr string) source {
	return source{"pgx", "postgres://postgres@" + addr + "/postgres?sslmode=disable"}
}

// postgreSQLBin finds the programs: Debian has them in no PATH.
func postgreSQLBin(tb testing.TB) string {
	tb.Helper()
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		tb.Fatal("these tests run a real PostgreSQL. Install it, on Debian and Ubuntu by: apt-get install postgresql")
	}
	return filepath.Dir(found[len(found)-1])
}

// startMariaDB runs a MariaDB with further options, until the test ends.
func startMariaDB(tb testing.TB, options ...string) *server {
	tb.Helper()
	program, err := exec.LookPath("mariadbd")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mariadbd"); err != nil {
			tb.Fatal("these tests run a real MariaDB. Install it, on Debian and Ubuntu by: apt-get install mariadb-server-core")
		}
	}
	dir := serverDir(tb)
	data := filepath.Join(dir, "data")
	mustRun(tb, nil, "mkdir", data)
	argv := []string{
		program, "--no-defaults", "--datadir=" + data, "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=2",
	}
	mustRun(tb, bootstrap(tb), append(argv, "--bootstrap")...)
	addr := freeAddr(tb)
	_, port, _ := net.SplitHostPort(addr)
	argv = append(argv, "--bind-address=127.0.0.1", "--port="+port, "--socket="+filepath.Join(dir, "socket"), "--pid-file="+filepath.Join(dir, "pid"), "--skip-name-resolve")
	return start(tb, &server{dir: dir, addr: addr, argv: append(argv, options...), url: mySQLSource})
}

func mySQLSource(addr string) source {
	return source{"mysql", "root@tcp(" + addr + ")/signin?interpolateParams=true"}
}

// bootstrap makes the server's own tables and a database for us.
func bootstrap(tb testing.TB) []byte {
	tb.Helper()
	text := []byte("create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\n")
	for _, name := range []string{"system_tables", "performance_tables", "system_tables_data"} {
		found, _ := filepath.Glob("/usr/share/m*/m*_" + name + ".sql")
		if len(found) == 0 {
			tb.Fatalf("MariaDB's %s.sql is not below /usr/share", name)
		}
		part, err := os.ReadFile(found[0])
		if err != nil {
			tb.Fatal(err)
		}
		text = append(text, part...)
	}
	return append(text, "\ncreate database signin;\n"...)
}

// unprivileged has a process of root's run as nobody: PostgreSQL refuses root.
func unprivileged() *syscall.SysProcAttr {
	const nobody = 65534
	attr := new(syscall.SysProcAttr)
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return attr
}

// serverDir makes a directory that belongs to the server's account. It is not
// below TempDir, whose name may be too long for a socket.
func serverDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "sqlstore")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if c := unprivileged().Credential; c != nil {
		if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func mustRun(tb testing.TB, stdin []byte, argv ...string) {
	tb.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = unprivileged()
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", argv[0], err, out)
	}
}

func start(tb testing.TB, s *server) *server {
	tb.Helper()
	s.tb = tb
	tb.Cleanup(s.kill)
	s.run()
	return s
}

// run starts the server, the first time or again, on the same port and with
// what it has kept.
func (s *server) run() {
	s.tb.Helper()
	ended := s.launch()
	db := s.open()
	redistest.Wait(s.tb, startTimeout, "the server to answer", func() error {
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			// Memory that PostgreSQL's children have shared goes with the last.
			if !bytes.Contains(log, []byte("is still in use")) {
				s.tb.Fatalf("%s ended at once: %s", s.argv[0], log)
			}
			ended = s.launch()
		default:
		}
		return db.Ping()
	})
}

// launch starts the process. The channel is closed when it has ended.
func (s *server) launch() <-chan struct{} {
	s.tb.Helper()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.SysProcAttr = unprivileged()
	endWithParent(cmd.SysProcAttr)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.tb.Fatalf("starting %s: %v", s.argv[0], err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // a killed server has a status of no interest
		close(done)
	}()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	return done
}

func (s *server) source() source { return s.url(s.addr) }

func (s *server) open() *sql.DB { return s.source().open(s.tb) }

// kill ends the server and its children as kill -9 does, and waits until it is
// gone. PostgreSQL has a child for each connection, which lives on for a moment.
func (s *server) kill() {
	s.end(func(p *os.Process) {
		_ = p.Signal(syscall.SIGSTOP) // it makes no more of them
		for _, child := range children(p.Pid) {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = p.Kill()
	})
}

// stop asks the server to end, and not to wait for its clients.
func (s *server) stop() {
	s.end(func(p *os.Process) { _ = p.Signal(syscall.SIGINT) })
}

func (s *server) end(how func(*os.Process)) {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	how(cmd.Process)
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		_ = cmd.Process.Kill()
		<-done
		s.tb.Errorf("%s does not end", s.argv[0])
	}
}

// children are the processes that one has made.
func children(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name in parentheses may hold anything.
		var state string
		var pid, of int
		_, _ = fmt.Sscan(string(stat), &pid)
		_, _ = fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &of)
		if of == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("finding a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sqliteSource is a new file of SQLite, with settings "&_pragma=..." or none.
func sqliteSource(tb testing.TB, settings ...string) source {
	tb.Helper()
	return source{"sqlite", "file:" + filepath.Join(tb.TempDir(), "sessions.db") + "?" + strings.Join(settings, "&")}
}

// mustExec runs a statement that must succeed.
func mustExec(tb testing.TB, db interface {
	Exec(string, ...any) (sql.Result, error)
}, statement string, args ...any) {
	tb.Helper()
	if _, err := db.Exec(statement, args...); err != nil {
		tb.Fatalf("%.60s: %v", statement, err)
	}
}

// count is the number that a query gives.
func count(tb testing.TB, db *sql.DB, query string, args ...any) (n int) {
	tb.Helper()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		tb.Fatal(fmt.Errorf("%.60s: %w", query, err))
	}
	return n
}
