package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"
)

// The index leads from a user, and from a session at the issuer (sid), to the
// records of theirs, for sign-outs that come without the session's cookie. Its
// keys are made with Config.Keys, so that a dump of the store names nobody.
// While keys are rotated it is written and read under each of them, for a
// replica that knows the old key only, or has it first.
const (
	indexUser = "u"
	indexSID  = "i"

	// maxIndexed bounds the sessions of one user. One more ends the oldest: a
	// session that the index had forgotten could not be signed out.
	maxIndexed = 64
)

// indexed is one session in the index.
type indexed struct {
	Key     string `json:"k"` // of its record
	Expires int64  `json:"x"`
}

// indexNames are the keys in the store under which a value is indexed.
func (ring keyring) indexNames(kind string, value string) []string {
	names := make([]string, len(ring))
	for i, k := range ring {
		names[i] = kind + "." + encode(mac(derive(k.secret, nil, "index "+kind, 32), []byte(value))[:24])
	}
	return names
}

// indexPlaces are all the keys under which a session stands.
func (a *Auth) indexPlaces(c idClaims) []string {
	places := a.keys.indexNames(indexUser, c.Issuer+"\x00"+c.Subject)
	if c.SessionID != "" {
		places = append(places, a.keys.indexNames(indexSID, c.SessionID)...)
	}
	return places
}

// index enters a session before its record is written: an entry without a
// record does no harm, a record without an entry could not be signed out.
func (a *Auth) index(ctx context.Context, key string, c idClaims, expires int64) error {
	for _, place := range a.indexPlaces(c) {
		err := a.editIndex(ctx, place, func(entries []indexed) []indexed {
			entries = slices.DeleteFunc(entries, func(e indexed) bool { return e.Key == key })
			return append(entries, indexed{key, expires})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unindexLater removes a session that has ended, without anyone waiting. What
// the list kept of it would, the list being bounded, push out a living one.
func (a *Auth) unindexLater(ctx context.Context, s *session) {
	a.background(ctx, "unindex."+s.key, storeTimeout, func(ctx context.Context) {
		for _, place := range a.indexPlaces(idClaims{Issuer: s.user.Issuer, Subject: s.user.Subject, SessionID: s.user.sid}) {
			a.editIndex(ctx, place, func(entries []indexed) []indexed {
				return slices.DeleteFunc(entries, func(e indexed) bool { return e.Key == s.key })
			})
		}
	})
}

// editIndex changes one list, as often as another replica is faster, and
// drops what has expired.
func (a *Auth) editIndex(ctx context.Context, place string, change func([]indexed) []indexed) error {
	for {
		old, err := readFresh(ctx, a.store, place)
		if err != nil {
			return err
		}
		now := a.now()
		entries := slices.DeleteFunc(a.openIndex(place, old), func(e indexed) bool { return e.Expires <= now.Unix() })
		entries = change(entries)
		for len(entries) > maxIndexed {
			if err := a.drop(ctx, entries[0].Key); err != nil {
				return err
			}
			entries = entries[1:]
		}
		var next []byte
		ttl := time.Second
		if len(entries) > 0 {
			plain, err := json.Marshal(entries)
			if err != nil {
				return err
			}
			next = a.keys.seal("index", nil, []byte(place), plain)
			for _, e := range entries {
				ttl = max(ttl, time.Unix(e.Expires, 0).Sub(now))
			}
		}
		if old == nil && next == nil {
			return nil
		}
		found, swapped, err := swap(ctx, a.store, place, old, next, ttl)
		if err != nil || swapped || bytes.Equal(found, next) {
			return err
		}
	}
}

// openIndex reads a list. One that does not open is of no use to anybody.
func (a *Auth) openIndex(place string, sealed []byte) []indexed {
	plain, err := a.keys.open("index", nil, []byte(place), sealed)
	if err != nil {
		return nil
	}
	var entries []indexed
	if json.Unmarshal(plain, &entries) != nil {
		return nil
	}
	return entries
}

// endIndexed ends all sessions that a value leads to, and says how many
// records there were to delete. After an error some may be left.
func (a *Auth) endIndexed(ctx context.Context, kind, value string) (int, error) {
	ended := map[string]bool{}
	for _, place := range a.keys.indexNames(kind, value) {
		sealed, err := readFresh(ctx, a.store, place)
		if err != nil {
			return len(ended), err
		}
		for _, e := range a.openIndex(place, sealed) {
			if !ended[e.Key] {
				if err := a.drop(ctx, e.Key); err != nil {
					return len(ended), err
				}
				ended[e.Key] = true
			}
		}
		// Not the whole list: a session may have begun meanwhile.
		err = a.editIndex(ctx, place, func(entries []indexed) []indexed {
			return slices.DeleteFunc(entries, func(e indexed) bool { return ended[e.Key] })
		})
		if err != nil {
			return len(ended), err
		}
	}
	return len(ended), nil
}
