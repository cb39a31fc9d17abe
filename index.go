package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
)

// The index leads from a user, and from a session at the issuer (sid), to the
// records of theirs, for sign-outs that come without the session's cookie. Its
// keys are made with Config.Keys, so that a dump of the store names nobody.
// While keys are rotated it is written under each of them, each list sealed by
// the key that names it: a replica that knows the old key only can use that.
//
// Two invariants make a sign-out final. A record that exists stands in the
// index: it is entered before it is written, and looked for again afterwards,
// for a sign-out in between found no record to delete. And a sign-in that
// began before a sign-out does not outlast it: the sign-out leaves its time in
// the list, for those whose tokens are still under way.
const (
	indexUser = "u"
	indexSID  = "i"

	// maxIndexed bounds the sessions of one user. One more ends the oldest: a
	// session that the index had forgotten could not be signed out.
	maxIndexed = 64
)

// indexed is one list: the sessions there are, and when a sign-out last ended
// all there were.
type indexList struct {
	Sessions []indexed `json:"s,omitempty"`
	Ended    int64     `json:"e,omitempty"` // milliseconds since 1970
}

// indexed is one session in the index.
type indexed struct {
	Key     string `json:"k"`           // of its record
	Expires int64  `json:"x"`           // seconds since 1970
	SID     bool   `json:"i,omitempty"` // whether it is listed under a sid too
}

// indexPlace is where a list stands, and the key it is sealed by.
type indexPlace struct {
	name string
	ring seal.Keyring
}

// indexPlaces are the places of one value, under each key. They belong to one
// client of one issuer, whoever else shares the store and the keys.
func (a *Auth) indexPlaces(kind, value string) []indexPlace {
	places := make([]indexPlace, len(a.keys))
	for i, k := range a.keys {
		places[i] = indexPlace{k.Name(kind, string(a.party())+"\x00"+value), seal.Keyring{k}}
	}
	return places
}

func userValue(issuer, subject string) string { return issuer + "\x00" + subject }

// placesOf are all the places where a session stands.
func (a *Auth) placesOf(c idClaims) []indexPlace {
	places := a.indexPlaces(indexUser, userValue(c.Issuer, c.Subject))
	if c.SessionID != "" {
		places = append(places, a.indexPlaces(indexSID, c.SessionID)...)
	}
	return places
}

// index enters a session that began at since. It reports errStale if a
// sign-out has ended that sign-in meanwhile.
func (a *Auth) index(ctx context.Context, key string, c idClaims, expires int64, since time.Time) error {
	entry := indexed{Key: key, Expires: expires, SID: c.SessionID != ""}
	for _, p := range a.placesOf(c) {
		var stale bool
		err := a.editIndex(ctx, p, func(l *indexList) {
			if stale = since.UnixMilli() < l.Ended; stale {
				return
			}
			l.remove(func(e indexed) bool { return e.Key == key })
			l.Sessions = append(l.Sessions, entry)
		})
		if err == nil && stale {
			err = errStale
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stillIndexed reports whether no sign-out has been at a session between its
// entry and its record.
func (a *Auth) stillIndexed(ctx context.Context, key string, c idClaims) (bool, error) {
	for _, p := range a.placesOf(c) {
		sealed, err := once.ReadFresh(ctx, a.store, p.name)
		if err != nil {
			return false, err
		}
		l := p.open(sealed)
		if !slices.ContainsFunc(l.Sessions, func(e indexed) bool { return e.Key == key }) {
			return false, nil
		}
	}
	return true, nil
}

// unindexLater removes a session that has ended, without anyone waiting. What
// stays in the list would in the end push out a session that lives.
func (a *Auth) unindexLater(ctx context.Context, s *session) {
	c := idClaims{Issuer: s.user.Issuer, Subject: s.user.Subject, SessionID: s.user.sid}
	a.background(ctx, "unindex."+s.key, once.CallTimeout, func(ctx context.Context) {
		for _, p := range a.placesOf(c) {
			a.editIndex(ctx, p, func(l *indexList) {
				l.remove(func(e indexed) bool { return e.Key == s.key })
			})
		}
	})
}

// endIndexed ends the sessions that a value leads to, those under way included,
// and says how many there were. After an error some may be left.
func (a *Auth) endIndexed(ctx context.Context, kind, value string) (int, error) {
	return a.endListed(ctx, kind, value, true, func(indexed) bool { return true })
}

// endListed ends the sessions in a value's list that which picks; with underWay
// also the sign-ins that began before now.
func (a *Auth) endListed(ctx context.Context, kind, value string, underWay bool, which func(indexed) bool) (int, error) {
	ended := map[string]bool{}
	for _, p := range a.indexPlaces(kind, value) {
		// First the time, so that whoever enters the list later knows, then the
		// records, then the entries of those and no others.
		var found []indexed
		err := a.editIndex(ctx, p, func(l *indexList) {
			if underWay {
				l.Ended = a.now().UnixMilli()
			}
			found = slices.Clone(l.Sessions)
		})
		if err != nil {
			return len(ended), err
		}
		for _, e := range found {
			if !which(e) || ended[e.Key] {
				continue
			}
			if err := once.Delete(ctx, a.store, e.Key); err != nil {
				return len(ended), err
			}
			ended[e.Key] = true
		}
		err = a.editIndex(ctx, p, func(l *indexList) {
			l.remove(func(e indexed) bool { return ended[e.Key] })
		})
		if err != nil {
			return len(ended), err
		}
	}
	return len(ended), nil
}

// editIndex changes one list, as often as another replica is faster. What has
// expired goes, and if the list is too long then what has ended otherwise, and
// in the end the oldest session itself.
func (a *Auth) editIndex(ctx context.Context, p indexPlace, change func(*indexList)) error {
	for {
		old, err := once.ReadFresh(ctx, a.store, p.name)
		if err != nil {
			return err
		}
		now := a.now()
		l := p.open(old)
		l.remove(func(e indexed) bool { return e.Expires <= now.Unix() })
		change(&l)
		if err := a.shorten(ctx, &l); err != nil {
			return err
		}
		// A sign-out is remembered for as long as a sign-in may take.
		ttl := time.UnixMilli(l.Ended).Add(claimLifetime).Sub(now)
		for _, e := range l.Sessions {
			ttl = max(ttl, time.Unix(e.Expires, 0).Sub(now))
		}
		var next []byte
		if ttl > 0 {
			next = p.seal(l)
		}
		if old == nil && next == nil {
			return nil
		}
		found, swapped, err := once.Swap(ctx, a.store, p.name, old, next, max(ttl, time.Second))
		if err != nil || swapped || bytes.Equal(found, next) {
			return err
		}
	}
}

func (a *Auth) shorten(ctx context.Context, l *indexList) error {
	if len(l.Sessions) <= maxIndexed {
		return nil
	}
	var failed error
	newest := len(l.Sessions) - 1 // whose record is still to be written
	kept := l.Sessions[:0:0]
	for i, e := range l.Sessions {
		record, err := once.ReadFresh(ctx, a.store, e.Key)
		if err != nil {
			failed = err
		}
		if record != nil || err != nil || i == newest {
			kept = append(kept, e)
		}
	}
	for ; failed == nil && len(kept) > maxIndexed; kept = kept[1:] {
		failed = once.Delete(ctx, a.store, kept[0].Key)
	}
	l.Sessions = kept
	return failed
}

func (l *indexList) remove(which func(indexed) bool) {
	l.Sessions = slices.DeleteFunc(l.Sessions, which)
}

func (p indexPlace) seal(l indexList) []byte {
	plain, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return p.ring.Seal("index", nil, []byte(p.name), plain)
}

// open reads a list. One that does not open is nobody's: its name and its seal
// come from the same key.
func (p indexPlace) open(sealed []byte) indexList {
	var l indexList
	plain, err := p.ring.Open("index", nil, []byte(p.name), sealed)
	if err != nil || json.Unmarshal(plain, &l) != nil {
		return indexList{}
	}
	return l
}
