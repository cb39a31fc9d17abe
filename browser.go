package signin

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"hash/maphash"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
	"github.com/seed454743b5/signin/internal/web"
)

const (
	// loopTrips is how many round trips without progress make a loop.
	loopTrips  = 3
	loopWindow = time.Minute
)

// browser is what one small cookie tells of the browser: 32 random bytes that
// tie challenges to it, and how often it went to the issuer and back for one
// thing. One cookie serves all tabs, and nothing is stored for a sign-in that
// has only begun.
type browser struct {
	secret []byte
	key    *seal.Key // that the cookie was tagged with; nil: there was none
	need   string    // what the trips below were for
	trips  int       // completed without progress
	since  int64     // when the first of them was
	stale  bool      // whether the last came back with an answer that was none any more
	asked  bool      // whether Recognize has tried
	moved  int64     // when it was sent to BaseURL's host; zero: not lately
}

// browserCookies read and write the browser cookie.
type browserCookies struct {
	visits *visits
	keys   seal.Keyring
	party  []byte
	mode   string // Config.ResponseMode

	secureBrowser []string // its names under https
	plainBrowser  []string // and over http
}

// read returns the browser that sent r, or nil if it sent no cookie of
// ours.
func (bc *browserCookies) read(r *http.Request) *browser {
	for _, name := range bc.names(bc.visits.secure(r)) {
		tagged := cookieValue(r, name)
		if len(tagged) > 200 {
			continue
		}
		value, key := untagged(bc.keys, bc.party, name, tagged)
		if key == nil {
			continue
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r != '.' && !text.IsTokenRune(r) }) {
			continue // net/http would drop a part of it where it is written again
		}
		value, asked := strings.CutSuffix(value, ".s")
		parts := strings.Split(value, ".")
		secret, err := seal.Decode(parts[0])
		if err != nil || len(secret) != secretLen {
			continue
		}
		b := &browser{secret: secret, key: key, asked: asked}
		if moved, ok := strings.CutPrefix(parts[len(parts)-1], "m"); ok && (len(parts) == 2 || len(parts) == 5) {
			b.moved, _ = strconv.ParseInt(moved, 10, 64)
			parts = parts[:len(parts)-1]
		}
		if len(parts) == 4 {
			b.need = parts[1]
			parts[2], b.stale = strings.CutSuffix(parts[2], staleMark)
			b.trips, _ = strconv.Atoi(parts[2])
			b.since, _ = strconv.ParseInt(parts[3], 10, 64)
		}
		return b
	}
	return nil
}

// cookieTag ties a cookie's value to its name and to us. Who shares the host
// name, as the ports of localhost do, can set a cookie of any name: it must
// not be able to make one of ours, nor to use one's value for another.
func cookieTag(k seal.Key, party []byte, name, value string) string {
	return seal.Encode(seal.MAC(k.Subkey(party, "cookie tag", 32), []byte(name), []byte{0}, []byte(value))[:12])
}

// untagged returns the value that was tagged under name, and with which of the
// keys; nil if with none.
func untagged(ring seal.Keyring, party []byte, name, tagged string) (string, *seal.Key) {
	i := strings.LastIndexByte(tagged, '.')
	if i < 0 {
		return "", nil
	}
	for n, k := range ring {
		if hmac.Equal([]byte(tagged[i+1:]), []byte(cookieTag(k, party, name, tagged[:i]))) {
			return tagged[:i], &ring[n]
		}
	}
	return "", nil
}

// write sets the cookie. SameSite=None because a form_post is a
// cross-site POST, on which a Lax cookie does not arrive.
func (bc *browserCookies) write(w http.ResponseWriter, r *http.Request, b *browser) {
	value := seal.Encode(b.secret)
	if b.trips > 0 {
		value += "." + b.need + "." + strconv.Itoa(b.trips)
		if b.stale {
			value += staleMark
		}
		value += "." + strconv.FormatInt(b.since, 10)
	}
	if b.moved != 0 {
		value += ".m" + strconv.FormatInt(b.moved, 10)
	}
	if b.asked {
		value += ".s"
	}
	// With the key that it came with: a replica may lack our first, and would
	// count no trips if it could not read what we write.
	key := cmp.Or(b.key, &bc.keys[0])
	secure := bc.visits.secure(r)
	site.NoStore(w)
	for _, name := range bc.names(secure) {
		tagged := value + "." + cookieTag(*key, bc.party, name, value)
		http.SetCookie(w, roundTripCookie(name, tagged, secure, oidc.AnswersByForm(bc.mode)))
	}
}

// serve is write in an answer of next. A cookie that an answer of
// ours sets there meanwhile stands: a challenge is tied to it.
func (bc *browserCookies) serve(next http.Handler, w http.ResponseWriter, r *http.Request, b *browser) {
	ours := bc.names(bc.visits.secure(r))[0] + "="
	late := web.NewLateCookie(w, func() {
		if !slices.ContainsFunc(w.Header()["Set-Cookie"], func(c string) bool { return strings.HasPrefix(c, ours) }) {
			bc.write(w, r, b)
		}
	})
	next.ServeHTTP(late, r)
	late.Settle() // next need not have written anything
}

// roundTripCookie is a cookie that has to come back with the issuer's answer.
func roundTripCookie(name, value string, secure, form bool) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode}
	if form && !strings.HasSuffix(name, twinSuffix) {
		// On loopback most browsers take a Secure cookie over http too.
		c.SameSite, c.Secure = http.SameSiteNoneMode, true
	}
	return c
}

const (
	browserSuffix = "-browser"
	staleMark     = "x"
	twinSuffix    = "-lax"
)

// names are the cookie's names. Over plain http, which is loopback,
// a twin without Secure serves clients that do not trust loopback; it arrives
// where issuer and application share a host name.
func (bc *browserCookies) names(secure bool) []string {
	if secure {
		return bc.secureBrowser
	}
	return bc.plainBrowser
}

func plainBrowserCookies(c Config) []string {
	if oidc.AnswersByForm(c.ResponseMode) {
		return []string{c.CookieName + browserSuffix, c.CookieName + browserSuffix + twinSuffix}
	}
	return []string{c.CookieName + browserSuffix}
}

// hash is what the state parameter holds of the browser.
func (b *browser) hash() []byte {
	sum := sha256.Sum256(b.secret)
	return sum[:16]
}

// nonce and verifier belong to one challenge of this browser. They need not
// be stored: who lacks the cookie cannot make them, and the issuer learns
// only the nonce and the verifier's hash before the redemption.
func (b *browser) nonce(id []byte) string {
	return seal.Encode(seal.MAC(b.secret, []byte("nonce"), id))
}
func (b *browser) verifier(id []byte) string {
	return seal.Encode(seal.MAC(b.secret, []byte("pkce"), id))
}

// looping reports whether the last trips for need came to nothing.
func (b *browser) looping(need string, now time.Time) bool {
	return b.need == need && b.trips >= loopTrips && now.Sub(time.Unix(b.since, 0)) < loopWindow
}

// tripped counts the completed round trip of a challenge. Challenges that
// began side by side, in the tabs of a restored browser, began with the same
// count and together make one trip: a loop goes round one after the other.
//
// A trip that began with another cookie does not count. Another site can make
// a visitor's browser post an answer to a challenge of its own, as often as it
// likes, and must not bring the visitor to the page about loops. No loop goes
// round that way: the next challenge is bound to the cookie that came.
func (b *browser) tripped(tx *transaction, now time.Time, stale bool) {
	if tx.Need == "" || !bytes.Equal(tx.Browser, b.hash()) {
		return
	}
	began := tx.Trips
	if b.need != tx.Need || now.Sub(time.Unix(b.since, 0)) >= loopWindow || b.since > now.Unix() {
		b.need, b.trips, b.since = tx.Need, 0, now.Unix()
		began = 0
	}
	b.trips = max(b.trips, min(began+1, loopTrips))
	b.stale = stale
}

// tripsFor is the count that a challenge for need begins with.
func (b *browser) tripsFor(need string) int {
	if b.need != need {
		return 0
	}
	return b.trips
}

func (b *browser) progressed() { b.need, b.trips, b.since, b.stale = "", 0, 0, false }

// needOf names what a challenge is for, so that trips for one thing are not
// counted against another.
func needOf(parts ...string) string {
	var all bytes.Buffer
	for _, p := range parts {
		all.WriteString(p)
		all.WriteByte(0)
	}
	sum := sha256.Sum256(all.Bytes())
	return seal.Encode(sum[:6])
}

// movedFor is how long a browser is not sent to BaseURL's host again. It only
// has to cover the way there.
const movedFor = 10 * time.Second

// moves counts how often each client without a cookie has been sent to
// BaseURL's host. Many users may look alike, so it takes more than one time,
// and less than the 20 at which browsers give up.
type moves struct {
	mu    sync.Mutex
	seed  maphash.Seed   // guarded by mu, with what follows
	since time.Time      // when counts was begun
	count map[uint64]int // forgotten after movedFor
}

const (
	maxMoves   = 4
	maxClients = 4096 // remembered at most
)

func (m *moves) tooMany(r *http.Request, now time.Time) bool {
	peer, _, _ := net.SplitHostPort(r.RemoteAddr)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.count == nil || now.Sub(m.since).Abs() >= movedFor || len(m.count) >= maxClients {
		m.seed, m.since, m.count = maphash.MakeSeed(), now, map[uint64]int{}
	}
	client := maphash.Comparable(m.seed, [5]string{peer, r.Header.Get("X-Forwarded-For"), r.UserAgent(), r.Host, r.RequestURI})
	m.count[client]++
	return m.count[client] > maxMoves
}

// errNoSecureCookie: a form_post from another site brings no cookie but a
// SameSite=None one, which has to be Secure. Over plain http, which is loopback,
// some browsers keep no Secure cookie; Safari is one. There nobody can sign in,
// and after a visit to the issuer all that could be said is that no cookie came.
var errNoSecureCookie = errors.New(`over plain http the browser keeps no Secure cookie, which the issuer's form_post needs: serve the site over https, or set ResponseType "code" and ResponseMode "query"`)

// keeping is what a request tells of the browser's Secure cookies.
type keeping int

const (
	keepsEnough keeping = iota // or nothing is known against it
	keepsUnsure                // to be tried
	keepsNoSecure
	keepsNone
)

// keeps judges whether the browser cookie, which has two names, can come back
// with the issuer's form. The second is a twin without Secure: where only that
// one was kept, it cannot.
func keeps(r *http.Request, names []string, need *InteractionRequiredError) keeping {
	switch {
	case cookieValue(r, names[0]) != "":
		return keepsEnough
	case cookieValue(r, names[1]) != "":
		return keepsNoSecure
	case need.tried:
		return keepsNone
	case isSafari(r.UserAgent()) && r.Method == http.MethodGet && !need.silent:
		return keepsUnsure
	}
	return keepsEnough
}

// crossesSites reports whether a page of the issuer's and the application are
// two sites. Scheme and host name make a site here; ports do not.
func crossesSites(endpoint string, here site.Site) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Scheme != here.Scheme || !strings.EqualFold(u.Hostname(), site.Hostname(here.Host)))
}

// isSafari reports whether a User-Agent is that of a browser by WebKit.
// Chromium's says all that Safari's does, and more.
func isSafari(agent string) bool {
	return strings.Contains(agent, "AppleWebKit/") && !strings.Contains(agent, "Chrome/") && !strings.Contains(agent, "Chromium/")
}
