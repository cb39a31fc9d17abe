package signin

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
)

// The authorization request has to stay short: issuers, and proxies in front
// of them, refuse a long one, and the user never hears of the site again. A
// return path that would make the state parameter too long waits in the
// browser, in a cookie of its challenge, and the state has the page without
// its query, or the start page, in case the cookie does not come back.
const (
	// shortState is how long a state parameter may be, whatever the page.
	shortState = 1500

	// Cookies ride on every request until their answer comes or they expire.
	// Many servers take 8 KB of cookies and answer more with an error page.
	maxAside      = 3    // challenges of one browser, the oldest go
	maxAsideBytes = 7000 // of all of them
)

// fit takes the return path out of a transaction that it would make too
// long, and returns it.
func (st *states) fit(tx *transaction, home string) (page string, err error) {
	page = tx.Return
	path, _, _ := strings.Cut(page, "?")
	for _, kept := range []string{page, path, home} {
		tx.Return, tx.Aside = kept, kept != page
		state, err := st.seal(tx)
		if err != nil {
			return "", err
		}
		if len(state) <= shortState {
			break
		}
	}
	return page, nil
}

// aside is where return paths wait, in the browser that sent a request.
type aside struct {
	keys   seal.Keyring
	party  []byte
	stem   string // of the cookies' names
	secure bool
	form   bool // the answer comes by form_post
}

func (st *states) aside(r *http.Request) aside {
	s := aside{keys: st.keys, party: st.party, stem: st.cookieName + "-return-", secure: st.visits.secure(r), form: st.mode == modeForm}
	if s.secure {
		s.stem = "__Host-" + s.stem
	}
	return s
}

// put keeps the return path of a challenge. Only its own answer finds it.
func (s aside) put(w http.ResponseWriter, r *http.Request, tx *transaction, page string) {
	packed := seal.Pack([]byte(page))
	for i, name := range s.names(s.key(tx)) {
		value := seal.Encode(s.keys.Seal("return", nil, s.of(tx, name), packed))
		if i == 0 {
			s.makeRoom(w, r, len(value))
		}
		c := roundTripCookie(name, value, s.secure, s.form)
		c.MaxAge = int(stateLifetime.Seconds())
		http.SetCookie(w, c)
	}
}

// fetch returns the return path of a challenge, empty if it is not there, and
// takes it out of the browser, for the answer has come.
func (s aside) fetch(w http.ResponseWriter, r *http.Request, tx *transaction) (page string) {
	for _, name := range s.names(s.key(tx)) {
		value := cookieValue(r, name)
		if value == "" || len(value) > maxCookie {
			continue
		}
		s.expire(w, name)
		sealed, err := seal.Decode(value)
		if err != nil {
			continue
		}
		packed, err := s.keys.Open("return", nil, s.of(tx, name), sealed)
		if err != nil {
			continue
		}
		if plain, err := seal.Unpack(packed); err == nil {
			page = string(plain)
		}
	}
	return page
}

// makeRoom lets the oldest go, for one more of so many bytes.
func (s aside) makeRoom(w http.ResponseWriter, r *http.Request, length int) {
	var waiting []*http.Cookie
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, s.stem) && !strings.HasSuffix(c.Name, twinSuffix) {
			waiting = append(waiting, c)
		}
	}
	// Names begin with the time.
	slices.SortFunc(waiting, func(x, y *http.Cookie) int { return strings.Compare(y.Name, x.Name) })
	for i, c := range waiting {
		if length += len(c.Value); i+1 >= maxAside || length > maxAsideBytes {
			for _, name := range s.names(strings.TrimPrefix(c.Name, s.stem)) {
				s.expire(w, name)
			}
		}
	}
}

// key tells the cookie of a challenge from others; of is what its content is
// bound to, its own name included.
func (s aside) key(tx *transaction) string {
	return fmt.Sprintf("%012x-%s", tx.Time, hex.EncodeToString(tx.ID[:4]))
}
func (s aside) of(tx *transaction, name string) []byte {
	return slices.Concat(s.party, tx.ID, []byte(name))
}

// names are the cookie's names: a twin where the browser cookie has one.
func (s aside) names(key string) []string {
	if !s.secure && s.form {
		return []string{s.stem + key, s.stem + key + twinSuffix}
	}
	return []string{s.stem + key}
}

func (s aside) expire(w http.ResponseWriter, name string) {
	site.NoStore(w)
	c := roundTripCookie(name, "", s.secure, s.form)
	c.MaxAge = -1
	http.SetCookie(w, c)
}
