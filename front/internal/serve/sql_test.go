package serve

import (
	"path/filepath"
	"testing"

	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/signintest"
)

func TestMySQLSource(t *testing.T) {
	for raw, want := range map[string]string{
		"mysql://u:p%40w@db.example.com/signin":             "u:p@w@tcp(db.example.com:3306)/signin?interpolateParams=true",
		"mysql://u:p@127.0.0.1:3307/signin?tls=true":        "u:p@tcp(127.0.0.1:3307)/signin?interpolateParams=true&tls=true",
		"mysql://u@[::1]:3307/signin?allowAllFiles=true&x=": "u@tcp([::1]:3307)/signin?interpolateParams=true",
		"mysql://u:p@db.example.com":                        "",
	} {
		got, err := mysqlSource(raw)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q %v, want %q", raw, got, err, want)
		}
	}
}

// Every kind of store opens without a connection, and has a name in the check.
func TestOpeners(t *testing.T) {
	dir := t.TempDir()
	for kind, source := range map[string]string{
		"memory": "", "file": filepath.Join(dir, "file"), "sqlite": filepath.Join(dir, "a b?.db"), "redis": "redis://127.0.0.1:1",
		"postgres": "postgres://u:p@127.0.0.1:1/x", "mysql": "mysql://u:p@127.0.0.1:1/x",
	} {
		if err := CheckStore(settings.Store{Kind: kind}); err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		store, closeStore, err := openers[kind](source)
		if err != nil || store == nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if err := closeStore(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestSQLite(t *testing.T) {
	signintest.TestStore(t, func(t *testing.T) signintest.Store {
		store, closeStore, err := openers["sqlite"](filepath.Join(t.TempDir(), "sessions.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeStore() })
		return store
	})
}
