package signin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/seal"
)

// The index leads from a user, from a session at the issuer (sid), and from a
// browser where the issuer names no sid, to the records of theirs, for what a
// sign-out ends beside the session of its own cookie. Its keys are made with
// Config.Keys, so that a dump of the store names nobody. While keys are rotated
// it is written under each of them, each list sealed by the key that names it:
// a replica that knows the old key only can use that.
//
// Two invariants make a sign-out final. A record that exists stands in the
// index: it is entered before it is written. And a sign-in that began before a
// sign-out does not outlast it. For that the two do their steps in opposite
// orders:
//
//	sign-in:  enter (refused by a mark), write the record, look for a mark and for the entry
//	sign-out: leave a mark, delete the records, take out the entries
//
// A record that is written before the sign-out deletes it is gone. One that is
// written afterwards is looked for after the mark was left, and its sign-in
// deletes it. A sign-out that dies on the way leaves the entries, so that it can
// be repeated.
//
// No clock says what began before: those of two replicas differ, and one of
// ten seconds ahead would let a sign-in outlast a sign-out, or refuse one that
// began after it. The store counts the sign-outs instead. A challenge notes
// the count in its state. A sign-out raises the count first, and leaves the
// new one in the list as its mark. A sign-in whose count has not reached the
// mark is refused. So:
//
//   - a challenge before the sign-out read a lower count, and is refused;
//   - a challenge after it reads the mark or more, and is not;
//   - a challenge that read an old copy of the count is refused once. The next
//     one reads a fresh copy;
//   - a challenge that read none, since the store failed, is refused only if
//     there is a mark.
//
// Clocks only say when entries and marks are forgotten, and that is late enough
// for clocks that differ by clockMargin.
const (
	indexUser    = "u"
	indexSID     = "i"
	indexBrowser = "b" // of sessions without a sid

	// maxIndexed bounds the sessions of one user. One more ends the oldest: a
	// session that the index had forgotten could not be signed out. From
	// roomyIndex on, each sign-in looks whether one of them has ended by
	// itself, so that those do not fill the list. Either costs one call to the
	// store.
	maxIndexed = 64
	roomyIndex = maxIndexed / 4

	// clockMargin is how long an entry outlives its record. A mark outlives
	// every sign-in that it concerns by more: claimLifetime is longer than a
	// challenge and its redemption may take.
	clockMargin = 5 * time.Minute

	// editPatience is how long one edit of a list waits for another in the same
	// process. editPause and editPauseMax bound the wait of one that lost to
	// another process.
	editPatience = time.Second
	editPause    = 2 * time.Millisecond
	editPauseMax = 100 * time.Millisecond
)

// indexList is one list: the sessions there are, and the mark of the last
// sign-out that ended all there were.
type indexList struct {
	Sessions []indexed `json:"s,omitempty"`
	Mark     moment    `json:"m,omitempty"`
	Until    int64     `json:"u,omitempty"` // when Mark is forgotten; seconds since 1970
}

// indexed is one session in the index.
type indexed struct {
	Key     string `json:"k"`           // of its record
	Expires int64  `json:"x"`           // seconds since 1970
	SID     bool   `json:"i,omitempty"` // whether it is listed under a sid too
	Alg     string `json:"a,omitempty"` // of its ID token
}

// indexPlace is where a list stands, and the key it is sealed by.
type indexPlace struct {
	name string
	ring seal.Keyring
}

// places are the places of one value, under each key. They belong to one
// client of one issuer, whoever else shares the store and the keys.
func (rs *records) places(kind, value string) []indexPlace {
	places := make([]indexPlace, len(rs.keys))
	for i, k := range rs.keys {
		places[i] = indexPlace{k.Name(kind, rs.party+"\x00"+value), seal.Keyring{k}}
	}
	return places
}

func userValue(issuer, subject string) string { return issuer + "\x00" + subject }

// placesOf are all the places where a session stands. browser is the hash of
// the browser cookie that it was signed in with.
func (rs *records) placesOf(c oidc.Claims, browser []byte) []indexPlace {
	places := rs.places(indexUser, userValue(c.Issuer, c.Subject))
	switch {
	case c.SessionID != "":
		places = append(places, rs.places(indexSID, c.SessionID)...)
	case len(browser) > 0:
		places = append(places, rs.places(indexBrowser, string(browser))...)
	}
	return places
}

// enter enters a session into its places, in place of the one under the key
// instead, if that is there. It reports errStale if a sign-out has ended the
// sign-in, which began at began.
func (rs *records) enter(ctx context.Context, places []indexPlace, entry indexed, instead string, began moment) error {
	ended := map[string]bool{}
	for _, p := range places {
		var mark moment
		err := rs.edit(ctx, p, func(l *indexList) (bool, error) {
			mark = nil
			if began.before(l.Mark) {
				mark = l.Mark
				return false, nil
			}
			l.remove(func(e indexed) bool { return e.Key == entry.Key || e.Key == instead })
			l.Sessions = append(l.Sessions, entry)
			return true, rs.makeRoom(ctx, l, ended)
		})
		if err == nil && mark != nil {
			err = cmp.Or(rs.recount(ctx, p, mark), errStale)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeRoom takes sessions out of a list that has grown by one. ended says of
// those that this sign-in has looked at whether they have ended.
func (rs *records) makeRoom(ctx context.Context, l *indexList, ended map[string]bool) error {
	l.remove(func(e indexed) bool { return ended[e.Key] })
	for len(l.Sessions) > maxIndexed {
		oldest := l.Sessions[0].Key
		if err := once.Delete(ctx, rs.store, oldest); err != nil {
			return err
		}
		ended[oldest] = true
		l.Sessions = l.Sessions[1:]
	}
	if len(l.Sessions) <= roomyIndex || len(ended) > 0 {
		return nil
	}
	// Not one whose record may still be to be written.
	e := l.Sessions[rand.IntN(len(l.Sessions))]
	if time.Unix(e.Expires, 0).Sub(rs.now()) > rs.lifetime-redemptionLimit {
		return nil
	}
	record, err := once.ReadFresh(ctx, rs.store, e.Key)
	if err != nil {
		return err
	}
	ended[e.Key] = record == nil
	l.remove(func(e indexed) bool { return ended[e.Key] })
	return nil
}

// stillIndexed reports whether no sign-out has been at a session between its
// entry and its record. The sign-in began at began.
func (rs *records) stillIndexed(ctx context.Context, places []indexPlace, key string, began moment) (bool, error) {
	for _, p := range places {
		sealed, err := once.ReadFresh(ctx, rs.store, p.name)
		if err != nil {
			return false, err
		}
		l := p.open(sealed)
		if began.before(l.Mark) || !slices.ContainsFunc(l.Sessions, func(e indexed) bool { return e.Key == key }) {
			return false, nil
		}
	}
	return true, nil
}

// listed returns the sessions that a value leads to.
func (rs *records) listed(ctx context.Context, kind, value string) ([]indexed, error) {
	var all []indexed
	for _, p := range rs.places(kind, value) {
		sealed, err := once.ReadFresh(ctx, rs.store, p.name)
		if err != nil {
			return nil, err
		}
		all = append(all, p.open(sealed).Sessions...)
	}
	return all, nil
}

// unindexLater removes a session that has ended, without anyone waiting. What
// stays in the list would in the end push out a session that lives.
func (rs *records) unindexLater(ctx context.Context, s *session) {
	c := oidc.Claims{Issuer: s.user.Issuer, Subject: s.user.Subject, SessionID: s.user.sid}
	rs.chores.Go(ctx, "unindex."+s.key, once.CallTimeout, func(ctx context.Context) {
		for _, p := range rs.placesOf(c, s.record.Browser) {
			rs.edit(ctx, p, func(l *indexList) (bool, error) {
				return l.remove(func(e indexed) bool { return e.Key == s.key }), nil
			})
		}
	})
}

// endIndexed ends the sessions that a value leads to, those under way included,
// and says how many there were. After an error some may be left.
func (rs *records) endIndexed(ctx context.Context, kind, value string) (int, error) {
	return rs.endListed(ctx, kind, value, true, func(indexed) bool { return true })
}

// endListed ends the sessions in a value's list that which picks; with underWay
// also the sign-ins that began before now.
func (rs *records) endListed(ctx context.Context, kind, value string, underWay bool, which func(indexed) bool) (int, error) {
	e := rs.newEnding(kind, value, underWay, which)
	err := e.endRecords(ctx)
	if err == nil {
		err = e.settle(ctx)
	}
	return len(e.ended), err
}

// ending is one sign-out: it ends the sessions in the lists of one value.
type ending struct {
	records  *records
	places   []indexPlace
	underWay bool               // end also the sign-ins that began before
	which    func(indexed) bool // sessions to end

	ended map[string]bool // keys of the records deleted
}

func (rs *records) newEnding(kind, value string, underWay bool, which func(indexed) bool) *ending {
	return &ending{records: rs, places: rs.places(kind, value), underWay: underWay, which: which, ended: map[string]bool{}}
}

// endRecords deletes the records of the sessions that are listed. It writes
// nothing, so a store can do it that has no room left.
func (e *ending) endRecords(ctx context.Context) error {
	for _, p := range e.places {
		sealed, err := once.ReadFresh(ctx, e.records.store, p.name)
		if err != nil {
			return err
		}
		l := p.open(sealed)
		if err := e.endThose(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// endThose deletes the records of one list. It deletes also what was deleted
// before: the record of a sign-in under way may have been written since. Where
// sign-ins under way go on, an entry without a record may be of one of them.
func (e *ending) endThose(ctx context.Context, l indexList) error {
	for _, s := range l.Sessions {
		if !e.which(s) {
			continue
		}
		if !e.underWay {
			record, err := once.ReadFresh(ctx, e.records.store, s.Key)
			if err != nil {
				return err
			}
			if record == nil {
				continue
			}
		}
		if err := once.Delete(ctx, e.records.store, s.Key); err != nil {
			return err
		}
		e.ended[s.Key] = true
	}
	return nil
}

// settle leaves the mark, for the sign-ins under way, then deletes the records,
// and then takes out the entries of what has ended. It may be called again after
// an error.
func (e *ending) settle(ctx context.Context) error {
	var mark moment
	switch {
	case e.underWay:
		var err error
		if mark, err = e.records.signOuts.raise(ctx, nil); err != nil {
			return err
		}
	case len(e.ended) == 0:
		return nil
	}
	for _, p := range e.places {
		if err := e.settleList(ctx, p, mark); err != nil {
			return err
		}
	}
	return nil
}

func (e *ending) settleList(ctx context.Context, p indexPlace, mark moment) error {
	over := func(s indexed) bool { return e.ended[s.Key] }
	if e.underWay {
		var marked indexList
		err := e.records.edit(ctx, p, func(l *indexList) (bool, error) {
			l.mark(mark, e.records.now())
			marked = *l
			return true, nil
		})
		if err == nil {
			err = e.endThose(ctx, marked)
		}
		if err != nil || !slices.ContainsFunc(marked.Sessions, over) {
			return err
		}
	}
	return e.records.edit(ctx, p, func(l *indexList) (bool, error) { return l.remove(over), nil })
}

// settleLater is settle without anyone waiting, for the sign-out of the session
// under key.
func (e *ending) settleLater(ctx context.Context, key string) {
	e.records.chores.Go(ctx, "settle."+key, redemptionLimit, func(ctx context.Context) {
		if err := once.Insist(ctx, func() error { return e.settle(ctx) }); err != nil {
			e.records.report.event(ctx, Event{Name: EventStoreFailing, Err: fmt.Errorf("sign-out not settled: %w", err)})
		}
	})
}

// edit changes one list, as often as another replica is faster. change says
// whether to write the list, and may be called again with a newer one.
func (rs *records) edit(ctx context.Context, p indexPlace, change func(*indexList) (write bool, err error)) error {
	// The edits of this process take turns: those that overtake one another would
	// make work that grows with their square. The Swap alone makes an edit
	// correct, so the turn is not insisted on.
	defer rs.lists.Take(ctx, p.name, editPatience)()
	pause := editPause
	// Most lists are not there yet. If one is, the first Swap tells.
	var old []byte
	for told := false; ; told = true {
		now := rs.now()
		l := p.open(old)
		l.forget(now)
		write, err := change(&l)
		if err != nil || told && !write {
			return err
		}
		var next []byte
		ttl := l.lifetime(now)
		if write && ttl > 0 {
			next = p.seal(l)
		}
		found, swapped, err := once.Swap(ctx, rs.store, p.name, old, next, max(ttl, time.Second))
		if err != nil || swapped || bytes.Equal(found, next) {
			return err
		}
		old = found
		if !told {
			continue
		}
		if err := once.Sleep(ctx, rand.N(pause)); err != nil {
			return err
		}
		pause = min(2*pause, editPauseMax)
	}
}

// forget removes what has expired.
func (l *indexList) forget(now time.Time) {
	l.remove(func(e indexed) bool { return !now.Before(e.until()) })
	if l.Until <= now.Unix() {
		l.Mark, l.Until = nil, 0
	}
}

// lifetime is how long the list has something to say.
func (l *indexList) lifetime(now time.Time) time.Duration {
	ttl := time.Unix(l.Until, 0).Sub(now)
	for _, e := range l.Sessions {
		ttl = max(ttl, e.until().Sub(now))
	}
	return ttl
}

func (e indexed) until() time.Time { return time.Unix(e.Expires, 0).Add(clockMargin) }

// mark leaves the mark of a sign-out, for as long as a sign-in may take. Of two
// sign-outs at once the later mark stays.
func (l *indexList) mark(m moment, now time.Time) {
	if len(l.Mark) == 0 || l.Mark.before(m) {
		l.Mark = m
	}
	l.Until = max(l.Until, now.Add(claimLifetime).Unix())
}

// remove reports whether there was something to remove.
func (l *indexList) remove(which func(indexed) bool) bool {
	before := len(l.Sessions)
	l.Sessions = slices.DeleteFunc(l.Sessions, which)
	return len(l.Sessions) < before
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

// moment is a place in the order of challenges and sign-outs: the count of the
// sign-outs so far (8 bytes, big endian), after 8 random bytes that name the
// count. A store that has lost the count begins another one.
type moment []byte

const (
	countName = 8
	momentLen = countName + 8
)

// before reports whether a sign-in that began at m may have begun before the
// sign-out that left mark. What cannot be compared may have.
func (m moment) before(mark moment) bool {
	if len(mark) == 0 {
		return false // there was no sign-out
	}
	return !m.sameCount(mark) || bytes.Compare(m, mark) < 0
}

func (m moment) sameCount(other moment) bool {
	return len(m) == momentLen && len(other) == momentLen && bytes.Equal(m[:countName], other[:countName])
}

// next is m with one more sign-out, or the first of a new count.
func (m moment) next() moment {
	if len(m) != momentLen {
		return binary.BigEndian.AppendUint64(seal.Random(countName), 1)
	}
	return binary.BigEndian.AppendUint64(bytes.Clone(m[:countName]), binary.BigEndian.Uint64(m[countName:])+1)
}

// signOutCount is the count of all sign-outs at one client of one issuer. It is
// neither secret nor about anybody. A sign-in that has only begun reads it, and
// only a sign-out writes it.
type signOutCount struct {
	store Store
	key   string
}

// now is the moment at which a sign-in begins. It is nil if there was no
// sign-out for long, or if the store fails.
func (c signOutCount) now(ctx context.Context) moment {
	value, _, err := once.Get(ctx, c.store, c.key)
	if err != nil {
		return nil
	}
	return value
}

// raise returns a moment that every sign-in which began before this call is
// before, and that every later one has reached. The moment is not before least.
func (c signOutCount) raise(ctx context.Context, least moment) (moment, error) {
	old := c.now(ctx)
	for fresh := false; ; fresh = true {
		next := old.next()
		if next.sameCount(least) && next.before(least) {
			next = least
		}
		found, swapped, err := once.Swap(ctx, c.store, c.key, old, next, 2*claimLifetime)
		switch {
		case err != nil:
			return nil, err
		case swapped:
			return next, nil
		case fresh && !moment(found).before(next):
			// Another sign-out was faster, and the count has reached next. Not so
			// if old was a copy: the count may have passed next before this call.
			return next, nil
		}
		old = found
	}
}

// recount makes sure that a sign-in which begins after one was refused for
// mark is not refused for it too. It does something only if the store has lost
// the count that mark is of, or the last of it.
func (rs *records) recount(ctx context.Context, p indexPlace, mark moment) error {
	count, err := once.ReadFresh(ctx, rs.store, rs.signOuts.key)
	if err != nil || !moment(count).before(mark) {
		return err
	}
	next, err := rs.signOuts.raise(ctx, mark)
	if err != nil {
		return err
	}
	return rs.edit(ctx, p, func(l *indexList) (bool, error) {
		if !bytes.Equal(l.Mark, mark) {
			return false, nil
		}
		l.Mark = next
		return true, nil
	})
}

// checkLogoutAlg checks that a logout token is signed by the algorithm of the
// ID tokens (Back-Channel Logout, 2.6, 2). An issuer announces the algorithms
// of all its clients. Which one is ours, the sessions tell that the token
// names: at least one began with an ID token by the same.
func (rs *records) checkLogoutAlg(ctx context.Context, t *oidc.LogoutToken) error {
	var named []indexed
	if t.SessionID != "" {
		list, err := rs.listed(ctx, indexSID, t.SessionID)
		if err != nil {
			return err
		}
		named = list
	}
	if t.Subject != "" {
		list, err := rs.listed(ctx, indexUser, userValue(t.Issuer, t.Subject))
		if err != nil {
			return err
		}
		for _, e := range list {
			if t.SessionID == "" || !e.SID {
				named = append(named, e)
			}
		}
	}
	if len(named) > 0 && !slices.ContainsFunc(named, func(e indexed) bool { return e.Alg == t.Alg }) {
		return errors.New("logout token: signed by another algorithm than the session's ID token")
	}
	return nil
}

// endSID ends the sessions under a sid, and reports whether there were any.
func (rs *records) endSID(ctx context.Context, sid string) (found bool, err error) {
	for _, p := range rs.places(indexSID, sid) {
		sealed, err := once.ReadFresh(ctx, rs.store, p.name)
		if err != nil {
			return false, err
		}
		l := p.open(sealed)
		if l.forget(rs.now()); len(l.Sessions) == 0 {
			continue
		}
		n, err := rs.endIndexed(ctx, indexSID, sid)
		if n > 0 {
			rs.report.event(ctx, Event{Name: EventSignedOut})
		}
		return n > 0, err
	}
	return false, nil
}

// besides is what the user of s started beside it: two tabs that signed in at
// once made two sessions, and the cookie of one took the place of the other's.
// Of a browser without a session it is what came from that browser. Anybody can
// make up a browser cookie, so a sign-in under way does not count there: it
// would make a stranger write.
func (rs *records) besides(s *session, browser []byte) *ending {
	others := func(e indexed) bool { return s == nil || e.Key != s.key }
	switch {
	case s != nil && s.user.sid != "":
		return rs.newEnding(indexSID, s.user.sid, true, others)
	case s != nil:
		return rs.newEnding(indexBrowser, string(s.record.Browser), true, others)
	case browser != nil:
		return rs.newEnding(indexBrowser, string(browser), false, others)
	}
	return &ending{ended: map[string]bool{}} // nothing
}

// endNamed ends the sessions that a logout token names.
func (rs *records) endNamed(ctx context.Context, t *oidc.LogoutToken) error {
	if t.SessionID != "" {
		if _, err := rs.endIndexed(ctx, indexSID, t.SessionID); err != nil || t.Subject == "" {
			return err
		}
		// Beside a sid the user is meant only where their ID tokens had none. A
		// sign-in under way is another session: some issuers send this late.
		_, err := rs.endListed(ctx, indexUser, userValue(t.Issuer, t.Subject), false, func(e indexed) bool { return !e.SID })
		return err
	}
	_, err := rs.endIndexed(ctx, indexUser, userValue(t.Issuer, t.Subject))
	return err
}
