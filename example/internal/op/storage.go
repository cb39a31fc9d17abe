package op

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

// The bounds of what the provider remembers. Beyond them the oldest goes first.
const (
	maxEntries    = 10_000
	maxSpentRT    = 64 // spent refresh tokens remembered per grant
	grantLifetime = 24 * time.Hour
)

// storage keeps authorization sessions, logout sessions and grants in memory.
// go-oidc's own storage hands out the pointers it keeps, which its handlers
// then write to without a lock, and holds a hundred of each; this one copies.
type storage struct {
	mu        sync.Mutex
	sessions  table[*goidc.AuthnSession]
	logouts   table[*goidc.LogoutSession]
	grants    table[*grantRecord]
	byCode    map[string]string // authorization code to grant id
	byRefresh map[string]string // refresh token, current or spent, to grant id
}

// grantRecord is a grant and the refresh tokens it has already used up.
type grantRecord struct {
	grant *goidc.Grant
	spent []string
}

func newStorage() *storage {
	s := &storage{
		sessions:  newTable[*goidc.AuthnSession](),
		logouts:   newTable[*goidc.LogoutSession](),
		grants:    newTable[*grantRecord](),
		byCode:    make(map[string]string),
		byRefresh: make(map[string]string),
	}
	s.grants.dropped = func(g *grantRecord) {
		delete(s.byCode, g.grant.AuthCode)
		delete(s.byRefresh, g.grant.RefreshToken)
		for _, t := range g.spent {
			delete(s.byRefresh, t)
		}
	}
	return s
}

func (s *storage) SaveSession(_ context.Context, as *goidc.AuthnSession) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions.put(as.ID, cloneSession(as), time.Unix(int64(as.ExpiresAt), 0))
	return nil
}

func (s *storage) Session(_ context.Context, id string) (*goidc.AuthnSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	as, ok := s.sessions.get(id)
	if !ok {
		return nil, goidc.ErrNotFound
	}
	return cloneSession(as), nil
}

func (s *storage) SaveLogoutSession(_ context.Context, ls *goidc.LogoutSession) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *ls
	s.logouts.put(ls.ID, &c, time.Unix(int64(ls.ExpiresAt), 0))
	return nil
}

func (s *storage) LogoutSession(_ context.Context, id string) (*goidc.LogoutSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ls, ok := s.logouts.get(id)
	if !ok {
		return nil, goidc.ErrNotFound
	}
	c := *ls
	return &c, nil
}

// SaveGrant stores the grant. A refresh token that it replaces is kept as
// spent, so that its second use can be told from an unknown one.
func (s *storage) SaveGrant(_ context.Context, grant *goidc.Grant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &grantRecord{grant: cloneGrant(grant)}
	if prev, ok := s.grants.get(grant.ID); ok {
		next.spent = prev.spent
		if old := prev.grant.RefreshToken; old != "" && old != grant.RefreshToken {
			next.spent = append(slices.Clone(prev.spent), old)
		}
		if n := len(next.spent) - maxSpentRT; n > 0 {
			for _, t := range next.spent[:n] {
				delete(s.byRefresh, t)
			}
			next.spent = next.spent[n:]
		}
	}
	s.grants.put(grant.ID, next, time.Now().Add(grantLifetime))
	if grant.AuthCode != "" {
		s.byCode[grant.AuthCode] = grant.ID
	}
	if grant.RefreshToken != "" {
		s.byRefresh[grant.RefreshToken] = grant.ID
	}
	return nil
}

func (s *storage) Grant(_ context.Context, id string) (*goidc.Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant(id)
}

func (s *storage) GrantByAuthCode(_ context.Context, code string) (*goidc.Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant(s.byCode[code])
}

// GrantByRefreshToken finds the grant of a current refresh token. A spent one
// means that two parties hold it, so the whole grant is revoked (RFC 9700,
// section 4.14.2); go-oidc itself only refuses it.
func (s *storage) GrantByRefreshToken(_ context.Context, token string) (*goidc.Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.grants.get(s.byRefresh[token])
	if !ok {
		return nil, goidc.ErrNotFound
	}
	if rec.grant.RefreshToken != token {
		rec.grant.RevokedAt = int(time.Now().Unix())
		return nil, goidc.ErrNotFound
	}
	return cloneGrant(rec.grant), nil
}

func (s *storage) grant(id string) (*goidc.Grant, error) {
	rec, ok := s.grants.get(id)
	if !ok {
		return nil, goidc.ErrNotFound
	}
	return cloneGrant(rec.grant), nil
}

func cloneSession(as *goidc.AuthnSession) *goidc.AuthnSession {
	c := *as
	c.Store = maps.Clone(as.Store)
	return &c
}

func cloneGrant(g *goidc.Grant) *goidc.Grant {
	c := *g
	c.Store = maps.Clone(g.Store)
	return &c
}

// table is a map with expiry that never holds more than maxEntries. It is not
// safe for concurrent use.
type table[T any] struct {
	entries map[string]tableEntry[T]
	dropped func(T) // called for what leaves by age, nil to ignore
}

type tableEntry[T any] struct {
	value   T
	expires time.Time
}

func newTable[T any]() table[T] {
	return table[T]{entries: make(map[string]tableEntry[T])}
}

func (t *table[T]) get(key string) (value T, ok bool) {
	e, ok := t.entries[key]
	if !ok || !time.Now().Before(e.expires) {
		return value, false
	}
	return e.value, true
}

func (t *table[T]) put(key string, value T, expires time.Time) {
	if _, ok := t.entries[key]; !ok && len(t.entries) >= maxEntries {
		t.makeRoom()
	}
	t.entries[key] = tableEntry[T]{value, expires}
}

// makeRoom removes what has expired and then a tenth of the rest, those that
// expire first, so that a full table is not searched on every insert.
func (t *table[T]) makeRoom() {
	now := time.Now()
	keys := slices.SortedFunc(maps.Keys(t.entries), func(a, b string) int {
		return t.entries[a].expires.Compare(t.entries[b].expires)
	})
	for i, key := range keys {
		if i >= maxEntries/10 && now.Before(t.entries[key].expires) {
			return
		}
		t.drop(key)
	}
}

func (t *table[T]) drop(key string) {
	if e, ok := t.entries[key]; ok {
		delete(t.entries, key)
		if t.dropped != nil {
			t.dropped(e.value)
		}
	}
}
