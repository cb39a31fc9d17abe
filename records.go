package signin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
)

// errStale reports an authentic answer that is good for nothing any more:
// expired, used up, another browser's, or of a page of the issuer's that expired.
// Its user goes to the page it names and is signed in there already, or starts
// anew.
var errStale = errors.New("state is expired, used up, or another browser's")

// record is what the store keeps of a session, sealed: identity and tokens.
// Times are seconds since 1970.
type record struct {
	Created     int64     `json:"c"`
	Expires     int64     `json:"x"`
	Seen        int64     `json:"s"`
	Tokens      []held    `json:"t,omitempty"`
	Refusals    []refusal `json:"f,omitempty"`
	IDToken     string    `json:"i"`
	HomeAccount string    `json:"h,omitempty"`

	UserInfo json.RawMessage `json:"u,omitempty"` // claims of userinfo
	Own      json.RawMessage `json:"w,omitempty"` // claims that OnSignIn has set

	Hint    string  `json:"y,omitempty"` // the newest ID token, if it is not IDToken
	Refresh string  `json:"r,omitempty"`
	Origin  *origin `json:"o,omitempty"` // of Refresh
	Browser []byte  `json:"b,omitempty"` // hash of the browser cookie at the sign-in
}

// records create, change, open and end the sessions there are, and keep the
// index that leads to them.
type records struct {
	store    Store
	keys     seal.Keyring
	party    string     // of whom the records are: issuer and client
	opened   *opened    // in this process
	lists    once.Turns // at the lists of the index
	signOuts signOutCount
	chores   *once.Chores
	report   *reporter
	now      func() time.Time

	lifetime, idle time.Duration // of Config; idle is zero if there is no limit
	nameClaim      string
	scopes         []string // those of Config.Scopes that tokens are found by
}

// session is a record as it stood at one moment. It is never modified, but for
// used.
type session struct {
	secret []byte // the 32 bytes of the cookie
	cookie string // the name of the cookie that it was opened by
	key    string // in the store
	sealed []byte // as read from the store
	place  place  // there, if the store is in this process
	record *record
	user   *User

	size int64         // in memory, but for what is the store's
	used atomic.Uint32 // when last, for opened
}

// sessionOverhead is what an opened session costs beside its strings: its
// structs, the slots of the maps that find it, what memory is rounded up by.
const sessionOverhead = 1200

func (rs *records) open(secret []byte, key string, sealed []byte) (*session, error) {
	packed, err := rs.keys.Open("record", secret, rs.data(key), sealed)
	if err != nil {
		return nil, err
	}
	plain, err := seal.Unpack(packed)
	if err != nil {
		return nil, err
	}
	// One piece of memory, token included: what a request looks at is close
	// together. Among many sessions, nothing costs it more than main memory.
	o := &struct {
		session session
		record  record
		tokens  [1]held
	}{}
	s, r := &o.session, &o.record
	r.Tokens = o.tokens[:0]
	if err := json.Unmarshal(plain, r); err != nil {
		return nil, seal.ErrUnsealed
	}
	for i, t := range r.Tokens {
		if slices.Equal(t.Scopes, rs.scopes) {
			r.Tokens[i].Scopes = rs.scopes // nearly every session has them
		}
	}
	claims := oidc.Claims{}
	if err := oidc.DecodeClaims(r.IDToken, &claims); err != nil {
		return nil, seal.ErrUnsealed
	}
	*s = session{
		secret: secret, key: key, sealed: sealed, record: r,
		user: rs.userOf(claims, r),
	}
	r.makeTokens()
	s.size = int64(sessionOverhead + len(plain) + len(s.user.RawClaims) + madeSize*len(r.Tokens))
	for _, t := range r.Tokens {
		s.size += int64(2 * len(t.Extra))
	}
	return s, nil
}

func (rs *records) seal(secret []byte, key string, r *record) []byte {
	plain, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return rs.keys.Seal("record", secret, rs.data(key), seal.Pack(plain))
}

// data binds a record to its place, and to our client at our issuer: an
// application for other people may have the same keys and store.
func (rs *records) data(key string) []byte { return append(append([]byte(rs.party), 0), key...) }

// alive reports whether a record has neither expired nor been idle too long.
func (rs *records) alive(r *record) bool { return rs.remaining(r, rs.now()) > 0 }

// remaining is how long a record may still be kept.
func (rs *records) remaining(r *record, now time.Time) time.Duration {
	left := time.Unix(r.Expires, 0).Sub(now)
	if idle := rs.idle; idle > 0 {
		left = min(left, time.Unix(r.Seen, 0).Add(idle).Sub(now))
	}
	return left
}

// fresh reads a session past any copy. It is nil if there is none.
func (rs *records) fresh(ctx context.Context, secret []byte) (*session, error) {
	key := seal.StoreKey("s", secret)
	sealed, err := once.ReadFresh(ctx, rs.store, key)
	if err != nil || sealed == nil {
		return nil, err
	}
	s, err := rs.open(secret, key, sealed)
	if err != nil || !rs.alive(s.record) {
		return nil, nil
	}
	return s, nil
}

// errSessionEnded reports a session that is not in the store any more.
var errSessionEnded = errors.New("the session has ended")

// update replaces the record of a session by what change makes of it, until
// the Swap succeeds: what others have written meanwhile is changed, not lost.
// change gets a copy that it may modify. While the store fails update tries
// again, until ctx ends. It reports errSessionEnded if there is no record.
func (rs *records) update(ctx context.Context, s *session, change func(*record)) (*session, error) {
	for {
		next := s.record.clone()
		change(next)
		// The same bytes each time: after an error they may be there already.
		written := rs.seal(s.secret, s.key, next)
		var found []byte
		var swapped bool
		err := once.Insist(ctx, func() (err error) {
			found, swapped, err = once.Swap(ctx, rs.store, s.key, s.sealed, written, max(rs.remaining(next, rs.now()), time.Second))
			return err
		})
		switch {
		case err != nil:
			return nil, err
		case swapped, bytes.Equal(found, written):
			return rs.open(s.secret, s.key, written)
		case found == nil:
			return nil, errSessionEnded
		}
		if s, err = rs.open(s.secret, s.key, found); err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
	}
}

// create writes the record of a sign-in that began at began, trying again
// while the store fails. It reports errStale if a sign-out was faster.
func (rs *records) create(ctx context.Context, r *record, began moment) (*session, error) {
	var claims oidc.Claims
	if err := oidc.DecodeClaims(r.IDToken, &claims); err != nil {
		return nil, err
	}
	s := &session{record: r, user: rs.userOf(claims, r)}
	places := rs.placesOf(claims, r.Browser)
	entry := indexed{Expires: r.Expires, SID: claims.SessionID != "", Alg: claims.Alg}
	err := once.Insist(ctx, func() error {
		// A new secret for each attempt. A Swap without an answer may yet arrive,
		// perhaps after a sign-out has deleted the record: then nobody has the
		// secret of the one that it brings back.
		instead := entry.Key
		s.secret = seal.Random(secretLen)
		s.key = seal.StoreKey("s", s.secret)
		s.sealed = rs.seal(s.secret, s.key, r)
		entry.Key = s.key
		if err := rs.enter(ctx, places, entry, instead, began); err != nil {
			return err
		}
		return rs.write(ctx, s)
	})
	if err != nil {
		return nil, err
	}
	var there bool
	err = once.Insist(ctx, func() (err error) {
		there, err = rs.stillIndexed(ctx, places, s.key, began)
		return err
	})
	if err == nil && !there {
		err = cmp.Or(once.Insist(ctx, func() error { return once.Delete(ctx, rs.store, s.key) }), errStale)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// write writes a record under a key that is written once only.
func (rs *records) write(ctx context.Context, s *session) error {
	found, swapped, err := once.Swap(ctx, rs.store, s.key, nil, s.sealed, rs.remaining(s.record, rs.now()))
	if err != nil {
		readErr := once.Insist(ctx, func() (err error) {
			found, err = once.ReadFresh(ctx, rs.store, s.key)
			return err
		})
		if readErr != nil || found == nil {
			return err
		}
	}
	if !swapped && !bytes.Equal(found, s.sealed) {
		return errors.New("the store holds another record under a new key")
	}
	return nil
}

// userOf is the user of a record whose ID token has the claims t.
func (rs *records) userOf(t oidc.Claims, r *record) *User {
	raw := oidc.ClaimsOf(r.IDToken)
	if r.UserInfo != nil {
		raw = mergeClaims(r.UserInfo, raw)
	}
	if r.Own != nil {
		raw = mergeClaims(raw, r.Own)
	}
	u := newUser(t, raw, r.HomeAccount, rs.nameClaim)
	u.idToken = r.hint()
	return u
}

// hint is the newest ID token of the session. Some issuers know no other at
// sign-out, and some have removed the key of an older one by then.
func (r *record) hint() string { return cmp.Or(r.Hint, r.IDToken) }

func (r *record) clone() *record {
	c := *r
	c.Tokens = append([]held(nil), r.Tokens...)
	c.Refusals = append([]refusal(nil), r.Refusals...)
	return &c
}

// getKnown is get of a record that may be known: in a store in this process
// it need not be looked for again.
func (rs *records) getKnown(ctx context.Context, key string, known *session) ([]byte, bool, error) {
	if known != nil && known.place != nil {
		if sealed, ok := known.place.read(); ok {
			return sealed, true, nil
		}
	}
	return rs.get(ctx, key)
}

// get is one bounded Get. A store in this process needs no bound.
func (rs *records) get(ctx context.Context, key string) ([]byte, bool, error) {
	if rs.opened.near != nil {
		value, ok, err := rs.store.Get(ctx, key)
		return value, ok, once.Failed(err)
	}
	return once.Get(ctx, rs.store, key)
}

// touch keeps an idle timeout at bay, without holding the request up.
func (rs *records) touch(ctx context.Context, s *session, now time.Time) {
	idle := rs.idle
	if idle == 0 || now.Sub(time.Unix(s.record.Seen, 0)) < idle/10 {
		return
	}
	rs.chores.Go(ctx, "touch."+s.key, once.CallTimeout, func(ctx context.Context) {
		rs.update(ctx, s, func(r *record) { r.Seen = max(r.Seen, rs.now().Unix()) })
	})
}

const (
	// secretLen is that of what a session cookie, or a browser cookie, holds.
	secretLen = 32

	// stateLifetime is how long a challenge may take: the user may have to
	// find a phone, or lunch.
	stateLifetime = time.Hour

	// redemptionLimit is how long tokens in hand are offered to a store that
	// fails.
	redemptionLimit = 10 * time.Minute

	// claimLifetime keeps the claim on a state for as long as the state could
	// be presented, and then some.
	claimLifetime = stateLifetime + 30*time.Minute
)
