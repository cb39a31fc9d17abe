package signintest

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// model is a store that keeps the contract as far as nothing in it is bent. A
// test bends one thing and sees whether TestStore notices.
type model struct {
	*modelData
	bend bend

	mu     sync.Mutex
	copies map[string][]byte // what Get has seen, for bends of a copy
}

type modelData struct {
	mu   sync.Mutex
	now  time.Time
	rows map[string]modelRow
}

type modelRow struct {
	value   []byte
	expires time.Time
}

// bend holds what a broken store does differently. A nil field is right.
type bend struct {
	key      func(string) string
	value    func([]byte) []byte // applied to what is kept
	equal    func(current, old []byte) bool
	ttl      func(time.Duration) time.Duration
	keepTTL  func(current, new []byte) bool // true: the old lifetime goes on
	found    func(current, old []byte) []byte
	written  func(swapped bool) bool
	absent   func() ([]byte, bool, error)
	removed  func() error // Delete of an absent key
	delete   func(rows map[string]modelRow, key string)
	alive    func(now, expires time.Time) bool // as Swap sees it
	ctx      func(ctx context.Context) error
	lenient  bool // a nil old matches anything
	strict   bool // an empty old is a nil old, an empty new a nil new
	racy     bool // not one atomic step
	inPlace  bool // writes into bytes handed out
	copyMine bool // Get's copy outlives one's own writes
	copyPeer bool // Get's copy outlives another's writes
}

func newModel(b bend) *model {
	return &model{
		modelData: &modelData{now: time.Now(), rows: make(map[string]modelRow)},
		bend:      b,
		copies:    make(map[string][]byte),
	}
}

func (m *model) Advance(d time.Duration) {
	m.modelData.mu.Lock()
	defer m.modelData.mu.Unlock()
	m.now = m.now.Add(d)
}

func (m *model) Peer() Store {
	return &model{modelData: m.modelData, bend: m.bend, copies: make(map[string][]byte)}
}

// load returns what is under key, as long as it lives.
func (m *model) load(key string, alive func(now, expires time.Time) bool) ([]byte, bool) {
	m.modelData.mu.Lock()
	defer m.modelData.mu.Unlock()
	r, ok := m.rows[key]
	if !ok || !alive(m.now, r.expires) {
		return nil, false
	}
	return r.value, true
}

func (m *model) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if m.bend.key != nil {
		key = m.bend.key(key)
	}
	if err := ctx.Err(); err != nil {
		if m.bend.ctx != nil {
			err = m.bend.ctx(ctx)
		}
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.copies[key]; ok {
		return v, true, nil
	}
	v, ok := m.load(key, modelAlive)
	if !ok && m.bend.absent != nil {
		return m.bend.absent()
	}
	if ok && (m.bend.copyMine || m.bend.copyPeer) {
		m.copies[key] = v
	}
	return v, ok, nil
}

func (m *model) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	b := m.bend
	if b.key != nil {
		key = b.key(key)
	}
	if err := ctx.Err(); err != nil {
		if b.ctx != nil {
			err = b.ctx(ctx)
		}
		return nil, false, err
	}
	if b.strict && len(old) == 0 {
		old = nil
	}
	if b.strict && len(new) == 0 {
		new = nil
	}
	if b.ttl != nil {
		ttl = b.ttl(ttl)
	}
	if new != nil && ttl <= 0 {
		return nil, false, errors.New("no ttl")
	}
	if !b.copyMine {
		defer m.forget(key)
	}
	if !b.racy {
		swapping.Lock()
		defer swapping.Unlock()
	}
	alive := modelAlive
	if b.alive != nil {
		alive = b.alive
	}
	current, ok := m.load(key, alive)
	if b.racy {
		runtime.Gosched()
	}
	equal := bytes.Equal
	if b.equal != nil {
		equal = b.equal
	}
	swapped := ok == (old != nil) && (!ok || equal(current, old)) || b.lenient && old == nil
	if swapped || b.written != nil && b.written(swapped) {
		m.store(key, new, ttl)
	}
	if swapped {
		return nil, true, nil
	}
	if b.found != nil {
		return b.found(current, old), false, nil
	}
	return current, false, nil
}

// swapping makes Swap one atomic step, across peers too.
var swapping sync.Mutex

func (m *model) store(key string, new []byte, ttl time.Duration) {
	m.modelData.mu.Lock()
	defer m.modelData.mu.Unlock()
	if new == nil {
		delete(m.rows, key)
		return
	}
	if m.bend.value != nil {
		new = m.bend.value(new)
	}
	r, ok := m.rows[key]
	expires := m.now.Add(ttl)
	if ok && m.bend.keepTTL != nil && m.bend.keepTTL(r.value, new) {
		expires = r.expires
	}
	if ok && m.bend.inPlace && len(new) == len(r.value) {
		copy(r.value, new)
		new = r.value
	}
	if !m.bend.inPlace {
		new = bytes.Clone(new)
	}
	m.rows[key] = modelRow{new, expires}
}

func (m *model) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.copies, key)
}

func (m *model) Delete(ctx context.Context, key string) error {
	if m.bend.key != nil {
		key = m.bend.key(key)
	}
	if err := ctx.Err(); err != nil {
		if m.bend.ctx != nil {
			err = m.bend.ctx(ctx)
		}
		return err
	}
	if !m.bend.copyMine {
		defer m.forget(key)
	}
	m.modelData.mu.Lock()
	defer m.modelData.mu.Unlock()
	if _, ok := m.rows[key]; !ok && m.bend.removed != nil {
		return m.bend.removed()
	}
	if m.bend.delete != nil {
		m.bend.delete(m.rows, key)
		return nil
	}
	delete(m.rows, key)
	return nil
}

func modelAlive(now, expires time.Time) bool { return now.Before(expires) }

func TestStoreModel(t *testing.T) {
	TestStore(t, func(t *testing.T) Store { return newModel(bend{}) })
}

// TestTestStore bends the model in every way a store has been seen or feared to
// be wrong, and wants the check that is there for it to say so.
func TestTestStore(t *testing.T) {
	for _, tc := range []struct {
		name  string
		check string
		bend  bend
	}{
		{"absence is an error", "Absent", bend{absent: func() ([]byte, bool, error) { return nil, false, errors.New("no rows") }}},
		{"absence is an empty value", "Absent", bend{absent: func() ([]byte, bool, error) { return []byte{}, true, nil }}},
		{"removing what is absent is an error", "Absent", bend{removed: func() error { return errors.New("no rows") }}},
		{"a refused swap writes", "Absent", bend{written: func(bool) bool { return true }}},
		{"a nil old overwrites", "Create", bend{lenient: true}},
		{"found is missing", "Create", bend{found: func(current, old []byte) []byte { return nil }}},
		{"found is the old the caller gave", "Replace", bend{found: func(current, old []byte) []byte { return old }}},
		{"old is ignored", "Replace", bend{equal: func(current, old []byte) bool { return true }}},
		{"old may be a prefix", "Replace", bend{equal: bytes.HasPrefix}},
		{"old may be longer", "Replace", bend{equal: func(current, old []byte) bool { return bytes.HasPrefix(old, current) }}},
		{"old is compared by length", "Replace", bend{equal: func(current, old []byte) bool { return len(current) == len(old) }}},
		{"old is compared without case", "Replace", bend{equal: bytes.EqualFold}},
		{"trailing spaces do not count", "Replace", bend{equal: func(current, old []byte) bool {
			return bytes.Equal(bytes.TrimRight(current, " "), bytes.TrimRight(old, " "))
		}}},
		{"Delete does nothing", "Remove", bend{delete: func(map[string]modelRow, string) {}}},
		{"Delete empties the table", "Remove", bend{delete: func(rows map[string]modelRow, _ string) { clear(rows) }}},
		{"Delete takes a prefix", "Keys", bend{delete: func(rows map[string]modelRow, key string) {
			for k := range rows {
				if strings.HasPrefix(k, key) {
					delete(rows, k)
				}
			}
		}}},
		{"Delete leaves an empty value", "Remove", bend{delete: func(rows map[string]modelRow, key string) {
			rows[key] = modelRow{[]byte{}, rows[key].expires}
		}}},
		{"empty is nil", "Values", bend{strict: true}},
		{"values are text", "Values", bend{value: func(v []byte) []byte { return bytes.ToValidUTF8(v, []byte("?")) }}},
		{"values end at a zero byte", "Values", bend{value: func(v []byte) []byte { v, _, _ = bytes.Cut(v, []byte{0}); return append([]byte{}, v...) }}},
		{"values are trimmed", "Values", bend{value: func(v []byte) []byte { return append([]byte{}, bytes.TrimSpace(v)...) }}},
		{"values are cut at 65535 bytes", "Values", bend{value: func(v []byte) []byte { return v[:min(len(v), 65535)] }}},
		{"old is compared in its first 4 KB", "Values", bend{equal: func(current, old []byte) bool {
			return bytes.Equal(current[:min(len(current), 4096)], old[:min(len(old), 4096)])
		}}},
		{"keys fold case", "Keys", bend{key: strings.ToLower}},
		{"keys are cut at 127 bytes", "Keys", bend{key: func(k string) string { return k[:min(len(k), 127)] }}},
		{"keys lose a leading dot", "Keys", bend{key: func(k string) string { return strings.TrimPrefix(k, ".") }}},
		{"keys lose trailing dots", "Keys", bend{key: func(k string) string { return strings.TrimRight(k, ".") }}},
		{"keys are LIKE patterns", "Keys", bend{key: func(k string) string { return strings.ReplaceAll(k, "_", "x") }}},
		{"keys are file names", "Keys", bend{key: func(k string) string { return strings.ReplaceAll(k, "..", ".") }}},
		{"bytes handed out are reused", "Isolation", bend{inPlace: true}},
		{"nothing expires", "Expiry", bend{ttl: func(time.Duration) time.Duration { return 1e6 * time.Hour }}},
		{"lifetimes are cut short", "Expiry", bend{ttl: func(d time.Duration) time.Duration { return d / 2 }}},
		{"lifetimes run twice as long", "Expiry", bend{ttl: func(d time.Duration) time.Duration { return 2 * d }}},
		{"a year is too long", "Expiry", bend{ttl: func(d time.Duration) time.Duration {
			if d > 30*24*time.Hour { // memcached reads more as a date
				return 0
			}
			return d
		}}},
		{"an expired key still counts for Swap", "Expiry", bend{alive: func(now, expires time.Time) bool { return true }}},
		{"a swap keeps the old lifetime", "Renewal", bend{keepTTL: func(current, new []byte) bool { return true }}},
		{"a swap for the same value keeps the old lifetime", "Renewal", bend{keepTTL: bytes.Equal}},
		{"a ttl of zero is for ever", "NoLifetime", bend{ttl: func(d time.Duration) time.Duration {
			if d == 0 {
				return 1e6 * time.Hour
			}
			return d
		}}},
		{"a negative ttl is for ever", "NoLifetime", bend{ttl: func(d time.Duration) time.Duration {
			if d < 0 {
				return 1e6 * time.Hour
			}
			return d
		}}},
		{"short lifetimes round down to an error", "NoLifetime", bend{ttl: func(d time.Duration) time.Duration { return d.Truncate(time.Second) }}},
		{"a cancelled call finds nothing", "Cancelled", bend{ctx: func(context.Context) error { return nil }}},
		{"a cancelled call hides its cause", "Cancelled", bend{ctx: func(context.Context) error { return errors.New("boom") }}},
		{"a copy outlives one's own write", "ReadOwnWrites", bend{copyMine: true}},
		{"Swap is two steps", "OneWinner", bend{racy: true}},
		{"Swap is two steps", "NoLostUpdate", bend{racy: true}},
		{"all keys are one", "ManyKeys", bend{key: func(string) string { return "key" }}},
		{"a copy outlives another's write", "PeerSees", bend{copyPeer: true}},
		{"Swap is two steps", "PeerRace", bend{racy: true}},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range storeChecks {
				if c.name != tc.check {
					continue
				}
				// A race need not show the first time.
				for range 200 {
					if errs := checkStore(t.Context(), newModel(tc.bend), c.check); len(errs) > 0 {
						t.Logf("found: %v", errs[0])
						return
					}
					if !tc.bend.racy {
						break
					}
				}
			}
			t.Errorf("the check %s does not notice that %s", tc.check, tc.name)
		})
	}
}

// TestStoreWaits has the checks of time run by the real clock, as for a server.
func TestStoreWaits(t *testing.T) {
	for _, c := range storeChecks {
		switch c.name {
		case "Expiry", "Renewal", "NoLifetime":
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				for _, err := range checkStore(t.Context(), &realTime{rows: make(map[string]modelRow)}, c.check) {
					t.Error(err)
				}
			})
		}
	}
}

// realTime is a store whose clock nobody can move.
type realTime struct {
	mu   sync.Mutex
	rows map[string]modelRow
}

func (r *realTime) Get(_ context.Context, key string) ([]byte, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row, ok := r.rows[key]
	if !ok || !time.Now().Before(row.expires) {
		return nil, false, nil
	}
	return row.value, true, nil
}

func (r *realTime) Swap(_ context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row, ok := r.rows[key]
	if ok = ok && time.Now().Before(row.expires); !ok {
		row.value = nil
	}
	if ok != (old != nil) || !bytes.Equal(row.value, old) {
		return row.value, false, nil
	}
	if delete(r.rows, key); new != nil && ttl > 0 {
		r.rows[key] = modelRow{new, time.Now().Add(ttl)}
	}
	return nil, true, nil
}

func (r *realTime) Delete(_ context.Context, key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rows, key)
	return nil
}
