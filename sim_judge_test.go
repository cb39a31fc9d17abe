package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/signintest"
)

// The bounds that the judge holds the library to. They are repeated here, and
// not taken from the code: a change there is to be seen.
const (
	simStale     = 3 * time.Second // an unchanged lease is not taken over before
	simCopyFor   = 2 * time.Second // a replica that is cut off serves its copy
	simLongest   = 45 * time.Second
	simTroubled  = 6 * time.Second // trouble that explains a takeover is not older
	simStateLife = 10 * time.Minute
	simAhead     = 40 * time.Second // by which clocks may differ, and then some
)

// simJudge knows all that happens in a world, and what must not. docs/protocol.md
// names its rules.
type simJudge struct {
	w *simWorld

	mu        sync.Mutex
	found     []string // guarded by mu, with what follows
	sessions  map[string]*simSession
	nonces    map[string]time.Time // when the challenge was answered
	states    map[string]int       // how often each has come back
	outs      []*simOut
	sent      map[string][]*simSent // by code or refresh token
	families  map[string]*simFamily // by refresh token
	takeovers map[string][]time.Time
	abandoned map[string]bool // owners of leases that may never know that they have one
}

// simSession is a record, by its key.
type simSession struct {
	key, user, sid string
	secret         []byte
	browser        *simBrowser
	created        time.Time
	deleted        bool
	replaced       bool // by a sign-in that began with its cookie
}

// simOut is one sign-out.
type simOut struct {
	user       string      // all of this user, if set
	sid        string      // all of this session at the issuer, if set
	key        string      // this session, if set
	browser    *simBrowser // who signed out
	start, ack time.Time   // ack is zero until it was acknowledged
}

// simSent is one token request.
type simSent struct {
	grant, token string
	r            *simReplica
	key, lease   string
	ready, at    time.Time  // when the lease was proved, and when it was on the wire
	acted        bool       // by the issuer
	family       *simFamily // of what it has brought
	failed       bool       // the client has been told so, and may send it again
	late         bool       // the client does not wait any more
}

// simFamily is a refresh token and what it was rotated to.
type simFamily struct {
	causes  []string // for which its loss is nobody's fault
	senders []*simReplica
}

func newSimJudge(w *simWorld) *simJudge {
	return &simJudge{
		w: w, sessions: map[string]*simSession{}, nonces: map[string]time.Time{}, states: map[string]int{},
		sent: map[string][]*simSent{}, families: map[string]*simFamily{}, takeovers: map[string][]time.Time{}, abandoned: map[string]bool{},
	}
}

func (j *simJudge) violation(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.violated(format, args...)
}

// violated is violation for who holds mu.
func (j *simJudge) violated(format string, args ...any) {
	text := fmt.Sprintf("%v: ", time.Since(j.w.began)) + fmt.Sprintf(format, args...)
	j.w.note("JUDGE %s", text)
	if len(j.found) < 20 {
		j.found = append(j.found, text)
	}
}

// written is told of each write before it is done. The store is locked.
func (j *simJudge) written(r *simReplica, key string, prev *simValue, new []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.w.note("  replica %d writes %.8s: %.30q", r.number, key, new)
	switch {
	case strings.HasPrefix(key, "s."):
		s := j.session(key)
		switch {
		case prev == nil && s.deleted:
			j.violated("a session came back after it was deleted")
		case prev == nil:
			s.created = time.Now()
		case new == nil:
			s.deleted = true
		}
	case strings.HasPrefix(key, "l."), strings.HasPrefix(key, "c."):
		if prev == nil || !simOtherOwner(prev.bytes, new) {
			return
		}
		j.takeovers[key] = append(j.takeovers[key], time.Now())
		if age := time.Since(prev.written); age < simStale {
			j.violated("a lease was taken over %v after its last beat", age)
		}
		if !j.abandoned[string(prev.bytes[:17])] && !prev.by.troubledWithin(time.Since(prev.written)+simTroubled) {
			j.violated("a lease was taken over from replica %d, which had no trouble", prev.by.number)
		}
	}
}

// leases is told how a Swap has ended that may have taken a lease, or ended one.
// After an error its owner need not know that there is one, and does not beat.
func (j *simJudge) leases(old, new []byte, err error) {
	isLease := func(v []byte) bool { return len(v) == 25 && v[0] == once.LeaseMark }
	j.mu.Lock()
	defer j.mu.Unlock()
	switch first := isLease(new) && bytes.Equal(new[17:], make([]byte, 8)); {
	case isLease(new) && err == nil:
		delete(j.abandoned, string(new[:17]))
	case isLease(new) && first:
		j.abandoned[string(new[:17])] = true
	case !isLease(new) && isLease(old): // what arrives now of its beats is nobody's
		j.abandoned[string(old[:17])] = true
	}
}

// simOtherOwner reports whether both values are leases, and of two owners.
func simOtherOwner(a, b []byte) bool {
	return len(a) == 25 && len(b) == 25 && a[0] == once.LeaseMark && b[0] == once.LeaseMark && !bytes.Equal(a[:17], b[:17])
}

func (j *simJudge) session(key string) *simSession {
	s := j.sessions[key]
	if s == nil {
		s = &simSession{key: key}
		j.sessions[key] = s
	}
	return s
}

// replaces is told of a sign-in that ends a record.
func (j *simJudge) replaces(key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.session(key).replaced = true
}

// knows is told which secret leads to a record.
func (j *simJudge) knows(key string, secret []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.session(key).secret = secret
}

// ready is told of a request that is about to be written: whatever must be
// proved has been. For a token request it returns what is known of it.
func (j *simJudge) ready(r *simReplica, ctx context.Context, path string, form url.Values) *simSent {
	v := j.w.visitOf(ctx)
	switch {
	case strings.HasSuffix(path, "/revoke"):
		j.revokes(v, form.Get("token"))
		return nil
	case !strings.HasSuffix(path, "/token"):
		return nil
	}
	s := &simSent{grant: form.Get("grant_type"), r: r, key: v.key, lease: v.lease, ready: time.Now()}
	switch s.grant {
	case "authorization_code":
		s.token = form.Get("code")
		s.lease = v.claim
		if v.claim != "" && j.w.store.peek(v.claim) == nil && !j.w.store.lostSince(v.claim, j.w.began) {
			j.violation("a code is sent without a claim")
		}
	case "refresh_token":
		s.token = form.Get("refresh_token")
		lease := j.w.store.peek(v.lease)
		switch {
		case v.lease == "" || j.w.store.lostSince(v.lease, time.Now().Add(-simTroubled)):
		case lease == nil:
			j.violation("replica %d sends a refresh token without a lease", r.number)
		case lease.by != r:
			j.violation("replica %d sends a refresh token under the lease of replica %d", r.number, lease.by.number)
		}
	}
	return s
}

// sends is told of a token request that is on the wire.
func (j *simJudge) sends(s *simSent) {
	if s == nil {
		return
	}
	s.at = time.Now()
	lostClaim := j.w.store.lostKind("c.", j.w.began)
	lost := s.key == "" || j.w.store.lostSince(s.key, j.w.began) || j.w.store.lostSince(s.lease, j.w.began)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.w.note("  replica %d sends %s %.9s", s.r.number, s.grant, s.token)
	for _, before := range j.sent[s.token] {
		if s.grant == "authorization_code" {
			before.family.lost("its code was sent twice")
		}
		if before.failed {
			continue
		}
		switch s.grant {
		case "authorization_code":
			if !lostClaim {
				j.violated("a code was sent twice, by replicas %d and %d", before.r.number, s.r.number)
			}
		case "refresh_token":
			if !lost && !j.takenOver(s.lease, before.ready, time.Now()) {
				j.violated("a refresh token was sent twice, by replicas %d and %d", before.r.number, s.r.number)
			}
		}
	}
	j.sent[s.token] = append(j.sent[s.token], s)
	if f := j.families[s.token]; f != nil {
		f.senders = append(f.senders, s.r)
	}
}

// takenOver reports whether a lease was taken over in a time. mu is held.
func (j *simJudge) takenOver(lease string, from, to time.Time) bool {
	return slices.ContainsFunc(j.takeovers[lease], func(t time.Time) bool { return !t.Before(from) && !t.After(to) })
}

// acted is told of what the issuer has done.
func (j *simJudge) acted(s *simSent, resp *http.Response) {
	body, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if s.late { // it may be a second use by now
		j.families[s.token].lost("the issuer acted when nobody waited any more")
	}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Refresh == "" {
		return
	}
	j.w.note("  the issuer acts on %.9s: %.9s", s.token, answer.Refresh)
	s.acted = true
	f := j.families[s.token]
	if f == nil {
		f = &simFamily{}
	}
	if !slices.Contains(f.senders, s.r) {
		f.senders = append(f.senders, s.r)
	}
	if s.late {
		f.lost("the issuer acted when nobody waited any more")
	}
	s.family = f
	j.families[answer.Refresh] = f
}

// spoilt is told what the adversary did to a family.
func (j *simJudge) spoilt(s *simSent, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s.family == nil {
		s.family = j.families[s.token]
	}
	s.family.lost(why)
}

func (f *simFamily) lost(why string) {
	if f != nil {
		f.causes = append(f.causes, why)
	}
}

func (j *simJudge) unanswered(s *simSent) { j.fails(s, false, "the issuer's answer was lost") }

func (j *simJudge) answered(s *simSent, status int) {
	if status/100 != 2 {
		j.fails(s, status/100 == 4, "the issuer acted and said that it had not")
	}
}

// fails is told of a client that believes its request to have failed. Of a code
// nobody may believe that but if the issuer has refused it.
func (j *simJudge) fails(s *simSent, refused bool, why string) {
	if s == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s.failed = refused || s.grant == "refresh_token"
	s.late = true
	if s.acted {
		s.family.lost(why)
	}
}

// revokes is told of a refresh token that is given back. No session may have it.
func (j *simJudge) revokes(v *simVisit, refresh string) {
	s := j.open(v.key)
	j.mu.Lock()
	defer j.mu.Unlock()
	if s != nil && j.excuse(j.sessions[v.key]) == "" && s.record.Refresh == refresh {
		j.violated("the refresh token of a session that lives is given back")
	}
}

// open opens a record as no replica does.
func (j *simJudge) open(key string) *session {
	v := j.w.store.peek(key)
	j.mu.Lock()
	s := j.sessions[key]
	j.mu.Unlock()
	if v == nil || s == nil || s.secret == nil {
		return nil
	}
	opened, err := j.w.replica(0).auth.records.open(s.secret, key, v.bytes)
	if err != nil {
		j.violation("a record does not open: %v", err)
		return nil
	}
	return opened
}

// excuse is a cause for a session to have ended. mu is held.
func (j *simJudge) excuse(s *simSession) string {
	if s.replaced {
		return "replaced"
	}
	for _, o := range j.outs {
		switch {
		case o.key == s.key, o.user != "" && o.user == s.user, o.sid != "" && (o.sid == s.sid || s.sid == ""),
			o.browser != nil && o.browser == s.browser, o.browser != nil && s.browser == nil:
			return "signed out"
		}
	}
	return ""
}

// simAsked is a request of a browser to a replica.
type simAsked struct {
	b     *simBrowser
	r     *simReplica
	v     *simVisit
	path  string
	state string
	start time.Time
	out   *simOut
	first bool // a state that comes for the first time
}

func (j *simJudge) asks(b *simBrowser, r *simReplica, v *simVisit, in *http.Request, body []byte) *simAsked {
	a := &simAsked{b: b, r: r, v: v, path: in.URL.Path, start: time.Now()}
	there := v.key != "" && j.w.store.peek(v.key) != nil
	j.mu.Lock()
	defer j.mu.Unlock()
	if v.key != "" {
		s := j.session(v.key)
		s.browser, s.user = b, b.user
	}
	switch a.path {
	case "/oidc/callback":
		form := in.URL.Query()
		if in.Method == http.MethodPost {
			form, _ = url.ParseQuery(string(body))
		}
		a.state = form.Get("state")
		j.states[a.state]++
		a.first = j.states[a.state] == 1
		tx, err := r.auth.states.open(a.state)
		if err != nil {
			j.violated("a state does not open: %v", err)
			break
		}
		v.claim = simClaimKey(tx)
		// Of two tabs at once in a browser without cookies, one loses its own.
		if cookie := r.auth.browsers.read(in); cookie == nil || !bytes.Equal(cookie.hash(), tx.Browser) {
			a.first = false
		}
	case "/signout":
		a.out = &simOut{key: v.key, browser: b, start: time.Now()}
		// Of a session that has ended already its sid is not known any more.
		if there {
			a.out.sid = j.session(v.key).sid
		}
		j.outs = append(j.outs, a.out)
	}
	return a
}

// left is told of a user who did not wait any longer.
func (j *simJudge) left(a *simAsked) { j.bound(a, "no answer") }

func (j *simJudge) bound(a *simAsked, what string) {
	if took := time.Since(a.start) - a.r.asleep(a.start); took > simLongest {
		j.violation("%s: %s after %v", a.path, what, took)
	}
}

// got is told of each answer of the application's.
func (j *simJudge) got(a *simAsked, resp *http.Response) {
	j.bound(a, "answered")
	if resp.StatusCode >= 500 && j.w.calm(a.start) && (a.path != "/oidc/callback" || a.first) {
		j.violation("%s: %d without any trouble", a.path, resp.StatusCode)
	}
	to, _ := url.Parse(resp.Header.Get("Location"))
	challenged := to != nil && strings.HasSuffix(to.Path, "/authorize")
	if challenged {
		j.mu.Lock()
		j.nonces[to.Query().Get("nonce")] = time.Now()
		j.mu.Unlock()
	}
	switch a.path {
	case "/oidc/callback":
		j.callback(a, resp)
	case "/signout":
		if resp.StatusCode == http.StatusSeeOther {
			j.mu.Lock()
			a.out.ack = time.Now()
			j.mu.Unlock()
		}
	case "/page", "/fresh", "/more":
		switch {
		case challenged, resp.StatusCode == http.StatusUnauthorized:
			j.asked(a)
		case resp.StatusCode == http.StatusOK:
			j.page(a, resp)
		}
	}
}

// callback judges a sign-in that came to nothing when nothing was wrong.
func (j *simJudge) callback(a *simAsked, resp *http.Response) {
	if !a.first {
		return
	}
	done := false
	for _, c := range resp.Cookies() {
		done = done || c.Name == a.r.auth.sess.secureCookie && c.MaxAge >= 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	begun := time.Now().Add(-simStateLife)
	if done || j.states[a.state] > 1 || !j.w.calm(begun) || slices.ContainsFunc(j.outs, func(o *simOut) bool { return o.start.After(begun) }) {
		return
	}
	for _, other := range j.sessions {
		if other.replaced && other.browser == a.b {
			return // of two sign-ins at once in one browser the first ended what the second was to extend
		}
	}
	j.violated("a sign-in came to nothing without cause: %d", resp.StatusCode)
}

// asked judges an answer that asks for a sign-in.
func (j *simJudge) asked(a *simAsked) {
	if a.v.key == "" {
		j.cookieGone(a)
		return
	}
	if j.w.store.lostSince(a.v.key, j.w.began) {
		return
	}
	s := j.open(a.v.key)
	lost := j.w.store.lostSince(a.v.lease, j.w.began)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch known := j.sessions[a.v.key]; {
	case j.excuse(known) != "":
	case known.created.IsZero():
		j.violated("%s: a cookie leads to no record", a.path)
	case s == nil:
		j.violated("%s of %s: asked to sign in, and the record is gone without cause", a.path, a.b.user)
	case a.path == "/more", lost:
	default:
		if why := j.lossOf(s.record.Refresh, a.v.lease); why == "" {
			j.violated("%s of %s: asked to sign in, and the grant is lost without cause", a.path, a.b.user)
		}
	}
}

// lossOf is a cause for which a grant may be lost. mu is held.
func (j *simJudge) lossOf(refresh, lease string) string {
	f := j.families[refresh]
	switch {
	case f == nil:
		return "it is none that we know"
	case len(f.causes) > 0:
		return f.causes[0]
	case len(j.takeovers[lease]) > 0:
		return "a lease was taken over"
	case slices.ContainsFunc(f.senders, (*simReplica).dead):
		return "a replica was killed"
	}
	return ""
}

// cookieGone judges a browser that was signed in and has no cookie any more.
func (j *simJudge) cookieGone(a *simAsked) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	if a.v.ghost || a.b.seen.IsZero() || a.start.Before(a.b.shown.Add(10*time.Millisecond)) {
		return
	}
	for _, o := range j.outs {
		// A request may be on its way when the cookie goes.
		if o.browser == a.b && (o.ack.IsZero() || o.ack.After(a.b.seen.Add(-10*time.Millisecond))) {
			return
		}
	}
	j.violated("%s: the session cookie of %s is gone", a.path, a.b.user)
}

// page judges what a user is shown.
func (j *simJudge) page(a *simAsked, resp *http.Response) {
	body, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var p simPage
	if err := json.Unmarshal(body, &p); err != nil {
		return // a page of the library's own
	}
	if p.User != a.b.user {
		j.violation("%s sees the page of %s", a.b.user, p.User)
	}
	if p.Token != "" {
		t, ok := j.w.issuer.TokenInfo(p.Token)
		switch {
		case !ok || t.Refresh || t.Subject != a.b.user:
			j.violation("%s got a token of %q", a.b.user, t.Subject)
		case a.start.Sub(t.Expiry) > simAhead:
			j.violation("%s got a token that expired %v before", a.b.user, a.start.Sub(t.Expiry))
		}
	}
	lost := false
	for _, kind := range []string{"u.", "i.", "b.", "o."} {
		lost = lost || j.w.store.lostKind(kind, j.w.began)
	}
	undone := j.w.store.lostAt(a.v.key)
	j.mu.Lock()
	defer j.mu.Unlock()
	if a.v.key == "" {
		j.violated("%s: a page of %s for no cookie", a.path, p.User)
		return
	}
	s := j.session(a.v.key)
	s.sid = p.SID
	challenged, known := j.nonces[p.Nonce]
	if !known {
		j.violated("a session of an unknown challenge")
	}
	for _, o := range j.outs {
		if o.key != s.key && lost {
			continue // the index, or the count of the sign-outs
		}
		if o.key != "" && o.key != s.key && j.session(o.key).replaced {
			continue // it had ended already, and the sign-out could not know what took its place
		}
		if undone.After(o.start) {
			continue // a failover has undone it
		}
		if o.ack.IsZero() || a.start.Before(o.ack.Add(simCopyFor)) {
			continue
		}
		before := s.created.Before(o.start) || challenged.Before(o.start)
		if o.key == s.key || before && (o.user != "" && o.user == p.User || o.sid != "" && o.sid == p.SID) {
			j.violated("%s: %s is served by replica %d, %v after the sign-out was acknowledged", a.path, p.User, a.r.number, a.start.Sub(o.ack))
		}
	}
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	if !a.v.ghost && a.start.After(a.b.seen) {
		a.b.seen, a.b.shown = a.start, time.Now()
	}
}

// end looks at what is left a minute after the last trouble.
func (j *simJudge) end() {
	j.grants()
	var users sync.WaitGroup
	for n, b := range j.w.browsers {
		users.Go(func() { j.well(n, b) })
	}
	users.Wait()
	j.values()
	j.grants()
}

// well sees to it that a user is served, and with a token that works.
func (j *simJudge) well(n int, b *simBrowser) {
	for tries := range 3 {
		v := &simVisit{step: 1<<20 + 10*n + tries}
		b.do(v, &signintest.Request{URL: simURL("/page"), Activated: true})
		page := b.do(v, &signintest.Request{URL: simURL("/fresh"), Activated: true})
		var p simPage
		if page.Status == http.StatusOK && json.Unmarshal([]byte(page.Body), &p) == nil && p.Token != "" {
			if t, _ := j.w.issuer.TokenInfo(p.Token); t.Active {
				return
			}
		}
		time.Sleep(simHealing / 3)
	}
	j.violation("%s is not served a minute after the last trouble", b.user)
}

// grants looks whether what the issuer rotated last is in the store.
func (j *simJudge) grants() {
	j.mu.Lock()
	var all []*simSession
	for _, s := range j.sessions {
		all = append(all, s)
	}
	j.mu.Unlock()
	for _, known := range all {
		s := j.open(known.key)
		if s == nil || j.w.store.lostSince(known.key, j.w.began) {
			continue
		}
		lease := simLeaseKey(known.secret)
		lost := j.w.store.lostSince(lease, j.w.began)
		t, _ := j.w.issuer.TokenInfo(s.record.Refresh)
		j.mu.Lock()
		if !t.Active && !lost && j.excuse(known) == "" && j.lossOf(s.record.Refresh, lease) == "" {
			j.violated("the refresh token in the store of %s is not the issuer's last", known.user)
		}
		j.mu.Unlock()
		j.indexed(known, s)
	}
}

// indexed looks whether a record stands in the index.
func (j *simJudge) indexed(known *simSession, s *session) {
	rs := j.w.replica(0).auth.records
	c := oidc.Claims{Issuer: s.user.Issuer, Subject: s.user.Subject, SessionID: s.user.sid}
	for _, p := range rs.placesOf(c, s.record.Browser) {
		var l indexList
		if v := j.w.store.peek(p.name); v != nil {
			l = p.open(v.bytes)
		}
		in := slices.ContainsFunc(l.Sessions, func(e indexed) bool { return e.Key == known.key })
		if !in && !j.w.store.lostSince(p.name, j.w.began) {
			j.violation("a session of %s does not stand in the index", known.user)
		}
	}
}

// values looks at what the store holds, and for how long.
func (j *simJudge) values() {
	longest := map[string]time.Duration{
		"s.": 101 * time.Hour, "l.": 25 * time.Hour, "c.": 90 * time.Minute, "o.": 180 * time.Minute,
		"u.": 101 * time.Hour, "i.": 101 * time.Hour, "b.": 101 * time.Hour, "j.": 15 * time.Minute,
	}
	s := j.w.store
	calm := j.w.calm(j.w.began)
	s.mu.Lock()
	counts := map[string]int{}
	var odd []string
	for key, v := range s.values {
		kind, left := key[:2], time.Until(v.expires)
		if left <= 0 {
			continue
		}
		counts[kind]++
		if left > longest[kind] {
			odd = append(odd, fmt.Sprintf("the store holds a value of kind %s for %v", kind, left))
		}
		if kind == "l." && calm {
			odd = append(odd, "a lease is left though nothing was wrong")
		}
	}
	s.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	slices.Sort(odd)
	for _, o := range odd {
		j.violated("%s", o)
	}
	if n := counts["c."]; n > len(j.states) {
		j.violated("%d claims for %d sign-ins", n, len(j.states))
	}
	// A record that arrives late is one more, and nobody has its secret.
	if n := counts["s."]; n > len(j.states) && calm {
		j.violated("%d sessions for %d sign-ins", n, len(j.states))
	}
}
