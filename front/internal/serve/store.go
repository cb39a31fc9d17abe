package serve

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/filestore"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/redisstore"
	"github.com/seed454743b5/signin/sqlstore"
)

// openers opens stores by kind. A kind that is not here is a fault of the
// settings.
var openers = map[string]func(url string) (signin.Store, func() error, error){
	"memory": func(string) (signin.Store, func() error, error) {
		return signin.NewMemoryStore(), func() error { return nil }, nil
	},
	"file": func(path string) (signin.Store, func() error, error) {
		s, err := filestore.Open(path)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	},
	"redis": func(url string) (signin.Store, func() error, error) {
		s, err := redisstore.Open(url)
		if err != nil {
			return nil, nil, err
		}
		return s, func() error { s.Close(); return nil }, nil
	},
	"postgres": func(url string) (signin.Store, func() error, error) {
		return openSQL("pgx", url, sqlstore.PostgreSQL)
	},
	"mysql": func(url string) (signin.Store, func() error, error) {
		source, err := mysqlSource(url)
		if err != nil {
			return nil, nil, err
		}
		return openSQL("mysql", source, sqlstore.MySQL)
	},
	"sqlite": func(path string) (signin.Store, func() error, error) {
		return openSQL("sqlite", sqliteSource(path), sqlstore.SQLite)
	},
}

// CheckStore reports a kind of store that cannot be opened.
func CheckStore(s settings.Store) error {
	if _, ok := openers[s.Kind]; ok {
		return nil
	}
	return settings.Faults{{Text: fmt.Sprintf("store: %s is not built in; want one of %s", s.Kind, strings.Join(slices.Sorted(maps.Keys(openers)), ", "))}}
}
