package signin

import (
	"bytes"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
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
	s := aside{keys: st.keys, party: st.party, stem: st.cookieName + "-return-", secure: st.visits.secure(r), form: oidc.AnswersByForm(st.mode)}
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

// askedFor names the scopes of a challenge for the log.
func (t *transaction) askedFor() string {
	if len(t.Scopes) == 0 {
		return "asked for the scopes of Config only"
	}
	return "asked for scopes " + strings.Join(t.Scopes, " ")
}

// maxState bounds the state parameter we read: a return path of 2 KB and the
// rest, sealed and encoded, with room.
const maxState = 8192

// transaction is what a challenge must remember until its callback. It
// travels as the state parameter, sealed.
type transaction struct {
	ID          []byte   `json:"i"`
	Time        int64    `json:"t"`           // it began; milliseconds since 1970
	Moment      moment   `json:"e,omitempty"` // it began, in the order of sign-outs
	Return      string   `json:"p"`
	Bare        bool     `json:"q,omitempty"` // Return may lack the site's prefix
	Aside       bool     `json:"w,omitempty"` // the whole of Return waits in a cookie
	Browser     []byte   `json:"b"`
	Redirect    string   `json:"u"`
	Session     []byte   `json:"s,omitempty"` // to extend, sealed once more
	Need        string   `json:"n,omitempty"` // for the loop breaker; empty: not counted
	Trips       int      `json:"l,omitempty"` // made for it before
	Scopes      []string `json:"c,omitempty"` // asked for beside the sign-in's
	Resource    string   `json:"r,omitempty"`
	MaxAge      *int64   `json:"m,omitempty"` // seconds
	ACR         []string `json:"a,omitempty"`
	Required    bool     `json:"v,omitempty"` // MaxAge and ACR are a page's Requirement
	Interactive bool     `json:"k,omitempty"` // adds to a session, and is no sign-in
	Silent      bool     `json:"z,omitempty"` // by Recognize: nobody asked for it
	Flow        string   `json:"f,omitempty"` // another user flow, which signs nobody in
	Host        string   `json:"h,omitempty"` // that the browser used, if not BaseURL's
	Agent       []byte   `json:"g,omitempty"` // a hash of User-Agent
}

func (t *transaction) began() time.Time { return time.UnixMilli(t.Time) }

// id is what the log lines of one sign-in and its error page share. It is
// made like newReference, to be read out over a telephone.
func (t *transaction) id() string {
	s := strings.ToLower(base32.StdEncoding.EncodeToString(t.ID[:5]))
	return s[:4] + "-" + s[4:]
}

// states seal what travels: the state parameter, links of ours, and return
// paths that wait in the browser.
type states struct {
	visits     *visits
	keys       seal.Keyring
	party      []byte
	cookieName string // Config.CookieName
	mode       string // Config.ResponseMode
	now        func() time.Time
}

// seal returns the state parameter of a transaction. It is good for this
// client at this issuer only: an Auth beside this one may have the same keys,
// and a code of the one's issuer must not be sent to the other's (mix-up;
// RFC 9700, 4.4).
func (st *states) seal(tx *transaction) (string, error) {
	state := seal.Encode(st.keys.Seal("state", nil, st.party, compactJSON(tx)))
	if len(state) > maxState {
		// If only the callback found out, the user would have been away in vain.
		return "", &argumentError{fmt.Errorf("challenge: scopes, resource and ACR make a state parameter of %d bytes: want %d at most", len(state), maxState)}
	}
	return state, nil
}

// open returns the transaction in a state parameter of ours, whether or
// not it is still good for anything.
func (st *states) open(raw string) (*transaction, error) {
	if raw == "" || len(raw) > maxState {
		return nil, seal.ErrUnsealed
	}
	sealed, err := seal.Decode(raw)
	if err != nil {
		return nil, seal.ErrUnsealed
	}
	plain, err := st.keys.Open("state", nil, st.party, sealed)
	if err != nil {
		return nil, err
	}
	tx := &transaction{}
	if err := json.Unmarshal(plain, tx); err != nil || len(tx.ID) != 16 {
		return nil, seal.ErrUnsealed
	}
	return tx, nil
}

// An ask is a need in a link, for who could not be redirected. It is sealed,
// so that nobody can make a link of ours that asks for what no handler did.
type ask struct {
	Time   int64                    `json:"t"`
	Return string                   `json:"p"`
	Bare   bool                     `json:"q,omitempty"` // as a transaction's
	Need   InteractionRequiredError `json:"n"`

	// Of Need, which keeps them from JSON.
	Tried    bool   `json:"o,omitempty"`
	Required bool   `json:"v,omitempty"`
	Flow     string `json:"f,omitempty"`
}

// sealNeed returns what openAsk opens. A link that is too long for that loses
// the page's query, and if need be all but the page: the page asks again.
func (st *states) sealNeed(need *InteractionRequiredError, to site.ReturnPath) string {
	n := *need
	n.Cause = nil
	whole := ask{Time: st.now().Unix(), Return: to.String(), Bare: to.Bare, Need: n, Tried: n.tried, Required: n.required, Flow: n.flow}
	short, plain := whole, whole
	short.Return, _, _ = strings.Cut(whole.Return, "?")
	plain.Need = InteractionRequiredError{Reason: ReasonSignIn}
	var sealed string
	for _, asked := range []ask{whole, short, plain} {
		sealed = seal.Encode(st.keys.Seal("ask", nil, st.party, compactJSON(asked)))
		if len(sealed) <= maxState {
			break
		}
	}
	return sealed
}

func (st *states) openAsk(raw string) (*ask, error) {
	sealed, err := seal.Decode(raw)
	if err != nil {
		return nil, err
	}
	plain, err := st.keys.Open("ask", nil, st.party, sealed)
	if err != nil {
		return nil, err
	}
	asked := &ask{}
	if err := json.Unmarshal(plain, asked); err != nil {
		return nil, err
	}
	if age := st.now().Sub(time.Unix(asked.Time, 0)); age > stateLifetime {
		// What was missing then need not be any more; the page will say. Which
		// page it was still holds.
		asked.Need = InteractionRequiredError{Reason: ReasonSignIn}
	}
	return asked, nil
}

// compactJSON is json.Marshal for what travels in a URL: to escape HTML would
// make six bytes of each & in a return path. It is for strings and numbers.
func compactJSON(v any) []byte {
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // not for strings and numbers
	}
	return bytes.TrimSuffix(plain.Bytes(), []byte{'\n'})
}
