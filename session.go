package signin

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
)

const (
	// rereadAfter is how old a session read by a request may be before its
	// token sources read it again: they may outlive the request.
	rereadAfter = 2 * time.Second

	// maxCookie bounds what we look at of a cookie.
	maxCookie = 4096
)

// load reads the session that a request's cookie names. An unreadable cookie,
// or one whose record is gone, is nobody; a failing store is an error.
func (sc *sessionCookies) load(ctx context.Context, r *http.Request) (*session, error) {
	c, err := sc.recall(r)
	if err != nil || c.secret == nil {
		return nil, err
	}
	secret, key, known := c.secret, c.key, c.known
	sealed, ok, err := sc.records.getKnown(ctx, key, known)
	if err != nil {
		return nil, err
	}
	if !ok {
		sc.records.opened.forget(key)
		return nil, nil
	}
	s := known
	if s == nil || !seal.Same(s.sealed, sealed) {
		if s, err = sc.records.open(secret, key, sealed); err != nil {
			return nil, nil // made with a dropped key
		}
		s.cookie = c.name
		sc.records.opened.locate(s)
	}
	if !c.found || s != known {
		sc.records.opened.put(c.cookie, s)
	}
	now := sc.now()
	if sc.records.remaining(s.record, now) <= 0 {
		sc.records.opened.forget(key)
		return nil, nil
	}
	sc.records.touch(ctx, s, now)
	return s, nil
}

// sessionCookies read and write the cookie that names a session: the 32 bytes
// that are the only key to its record.
type sessionCookies struct {
	visits   *visits
	records  *records
	store    Store
	sessions sessions.Store // where the bytes are
	own      sessions.Store // Config.Sessions; nil: the cookie is ours
	now      func() time.Time

	secureCookie, plainCookie string // its name under https and over http
	lifetime                  time.Duration
}

func newSessionCookies(c Config, keys seal.Keyring, party []byte, vs *visits, rs *records) *sessionCookies {
	sc := &sessionCookies{
		visits: vs, records: rs, store: rs.store, sessions: c.Sessions, own: c.Sessions, now: rs.now,
		secureCookie: "__Host-" + c.CookieName, plainCookie: c.CookieName, lifetime: c.SessionLifetime,
	}
	if sc.sessions == nil {
		sc.sessions = newCookieStore(keys, party, c.SessionLifetime)
	}
	return sc
}

// recalled is what a request's cookie is known to lead to.
type recalled struct {
	name   string // of the cookie
	cookie string // its value, if it is our own
	secret []byte // nil: nobody
	key    string
	known  *session // opened before, or nil
	found  bool     // by this very cookie
}

// recall reads a request's cookie. A value that has been opened once need not be
// opened again. The store stays the judge of whether its session exists.
func (sc *sessionCookies) recall(r *http.Request) (c recalled, err error) {
	c.name = sc.name(sc.visits.secure(r))
	if sc.own == nil {
		if c.cookie = cookieValue(r, c.name); c.cookie == "" || len(c.cookie) > maxCookie {
			return recalled{}, nil
		}
		// Under the name that it is sealed for, and no other.
		if c.known = sc.records.opened.byCookie(c.cookie); c.known != nil && c.known.cookie == c.name {
			c.secret, c.key, c.found = c.known.secret, c.known.key, true
			return c, nil
		}
	}
	if c.secret, err = sc.read(r); err != nil || c.secret == nil {
		return recalled{}, err
	}
	c.key = seal.StoreKey("s", c.secret)
	c.known = sc.records.opened.byKey(c.key)
	c.found = c.known != nil && c.cookie == ""
	return c, nil
}

// read returns the 32 bytes in the session cookie, nil if there are
// none, and an error if a gorilla store of the application's fails.
func (sc *sessionCookies) read(r *http.Request) ([]byte, error) {
	name := sc.name(sc.visits.secure(r))
	if own, ok := sc.sessions.(*sessions.CookieStore); ok && sc.own == nil {
		// Not by way of r.Cookie, which passes over what we would not: opened
		// would remember the session of one value under another.
		values := map[any]any{}
		if securecookie.DecodeMulti(name, cookieValue(r, name), &values, own.Codecs...) != nil {
			return nil, nil
		}
		return ownSecret(values), nil
	}
	// New, not Get: gorilla's registry would keep the request's first answer.
	gs, err := sc.sessions.New(r, name)
	if err != nil {
		var cookie securecookie.Error
		if errors.As(err, &cookie) && !cookie.IsInternal() || errors.Is(err, fs.ErrNotExist) || errors.Is(err, http.ErrNoCookie) {
			return nil, nil
		}
		return nil, once.Failed(err)
	}
	if gs.IsNew {
		return nil, nil
	}
	return ownSecret(gs.Values), nil
}

func ownSecret(values map[any]any) []byte {
	if secret, _ := values[secretField].([]byte); len(secret) == secretLen {
		return secret
	}
	return nil
}

// write sets the session cookie.
func (sc *sessionCookies) write(w http.ResponseWriter, r *http.Request, secret []byte) error {
	// Without the request's cookies, so that a store with ids of its own makes
	// a new one: an id that was there before the sign-in may be an attacker's.
	bare := r.Clone(r.Context())
	bare.Header.Del("Cookie")
	secure := sc.visits.secure(r)
	gs, err := sc.sessions.New(bare, sc.name(secure))
	if err != nil {
		return once.Failed(err)
	}
	// A copy: securecookie encrypts in place, and the copies of a callback, which
	// all write the cookie of one redemption, share the original.
	gs.Values[secretField] = bytes.Clone(secret)
	sc.setOptions(gs, secure)
	site.NoStore(w)
	if err := sc.sessions.Save(bare, w, gs); err != nil {
		return once.Failed(err)
	}
	return nil
}

// clear removes the session cookie, and what a gorilla store keeps.
func (sc *sessionCookies) clear(w http.ResponseWriter, r *http.Request) error {
	secure := sc.visits.secure(r)
	gs, err := sc.sessions.New(r, sc.name(secure))
	if gs == nil {
		return once.Failed(err)
	}
	clear(gs.Values)
	gs.Values[secretField] = []byte{}
	sc.setOptions(gs, secure)
	gs.Options.MaxAge = -1
	site.NoStore(w)
	if err := sc.sessions.Save(r, w, gs); err != nil {
		return once.Failed(err)
	}
	return nil
}

func (sc *sessionCookies) setOptions(gs *sessions.Session, secure bool) {
	if gs.Options == nil { // a store may leave it to its caller
		gs.Options = &sessions.Options{Path: "/", HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode, MaxAge: int(sc.lifetime.Seconds())}
	}
	if sc.own == nil {
		gs.Options.Secure = secure
	}
}

// secretField is where a gorilla session holds the 32 bytes.
const secretField = "signin"

// newCookieStore is the default: 32 bytes in a cookie, sealed by
// securecookie under each key. An application for other people may have the
// same keys, and must not take this one's cookie.
func newCookieStore(keys seal.Keyring, party []byte, lifetime time.Duration) *sessions.CookieStore {
	store := &sessions.CookieStore{Options: &sessions.Options{
		Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
	}}
	for _, k := range keys {
		codec := securecookie.New(k.Subkey(party, "cookie mac", 32), k.Subkey(party, "cookie", 32))
		store.Codecs = append(store.Codecs, codec.SetSerializer(secretOnly{}))
	}
	store.MaxAge(int(lifetime.Seconds()))
	return store
}

// secretOnly serializes a gorilla session as its 32 bytes: gob would make the
// cookie three times as long.
type secretOnly struct{}

func (secretOnly) Serialize(src any) ([]byte, error) {
	values, _ := src.(map[any]any)
	secret, ok := values[secretField].([]byte)
	if !ok {
		return nil, errors.New("signin: not a session of ours")
	}
	return secret, nil
}

func (secretOnly) Deserialize(src []byte, dst any) error {
	values, ok := dst.(*map[any]any)
	if !ok {
		return errors.New("signin: not a session of ours")
	}
	*values = map[any]any{secretField: src}
	return nil
}

// name is the name of the session cookie. The __Host- prefix keeps
// other hosts of the domain from setting it.
func (sc *sessionCookies) name(secure bool) string {
	if secure {
		return sc.secureCookie
	}
	return sc.plainCookie
}

// cookieValue is r.Cookie without its allocations.
func cookieValue(r *http.Request, name string) string {
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			n, v, ok := strings.Cut(strings.TrimLeft(pair, " \t"), "=")
			if ok && n == name {
				return strings.Trim(strings.TrimRight(v, " \t"), `"`)
			}
		}
	}
	return ""
}

// whyLoop looks at what the last round trip of a browser left behind. s is the
// request's session, if there is one.
func (sc *sessionCookies) whyLoop(r *http.Request, b *browser, s *session) *loopError {
	switch {
	case s != nil:
		return loopNotEnough
	case b.stale:
		return loopStale
	}
	c, err := sc.recall(r)
	switch {
	case err != nil:
		return loopUnknown
	case c.secret == nil && cookieValue(r, sc.name(sc.visits.secure(r))) != "":
		return loopOtherKeys
	case c.secret == nil:
		return loopNoCookie
	}
	sealed, err := once.ReadFresh(r.Context(), sc.store, c.key)
	switch {
	case err != nil:
		return loopUnknown
	case sealed == nil:
		return loopNoRecord
	}
	if _, err = sc.records.open(c.secret, c.key, sealed); err != nil {
		return loopOtherKeys
	}
	return loopUnknown
}
