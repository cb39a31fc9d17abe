// Package identity says to the server behind who the user is: by headers, and
// by a signed token of the front's own.
package identity

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/rule"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// Person is a user with what has been worked out of their claims. Claims do
// not change, so neither do verdicts and headers.
type Person struct {
	*rule.Subject
	routes []seen // by index of the route
}

type seen struct {
	verdict atomic.Int32 // a rule.Verdict plus one; zero: not asked yet
	lines   atomic.Pointer[[]line]
}

type line struct {
	name  string
	value []string
}

// People remembers the users of late, so that their claims are read once and
// not at each request. It may be used concurrently.
type People struct {
	c *settings.Config

	mu  sync.RWMutex
	all map[*signin.User]*Person // guarded by mu
}

// maxPeople bounds the memory. At the bound all are forgotten, which costs
// each of them one reading.
const maxPeople = 10000

// NewPeople makes the memory for the routes of c.
func NewPeople(c *settings.Config) *People {
	return &People{c: c, all: map[*signin.User]*Person{}}
}

// Of returns what is known of a user. Package signin hands out the same *User
// for as long as it remembers the session, and never modifies one.
func (p *People) Of(u *signin.User) *Person {
	p.mu.RLock()
	person := p.all[u]
	p.mu.RUnlock()
	if person != nil {
		return person
	}
	person = p.Once(u)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= maxPeople {
		clear(p.all)
	}
	p.all[u] = person
	return person
}

// Once is Of for a user who will not come back under this pointer.
func (p *People) Once(u *signin.User) *Person {
	return &Person{Subject: rule.Of(u, p.c.GroupsClaim), routes: make([]seen, len(p.c.Routes))}
}

var (
	errSubject = errors.New("the subject cannot stand in a header unchanged")
	errDenied  = errors.New("the route's rule does not hold for the user")
	errUnknown = errors.New("the issuer did not say what the route's rule needs to know: a claim is missing, of another form, or was too large for the token")
)

// May decides whether a user may pass a route. The error says why not, for the
// log, and quotes no claim.
func (p *People) May(person *Person, r *settings.Route) error {
	if !plainSubject(person.User.Subject) {
		return errSubject
	}
	if r.Rule == nil {
		return nil
	}
	known := &person.routes[r.Index].verdict
	verdict := rule.Verdict(known.Load() - 1)
	if verdict < 0 {
		verdict = r.Rule.Judge(person.Subject)
		known.Store(int32(verdict) + 1)
	}
	switch verdict {
	case rule.Yes:
		return nil
	case rule.No:
		return errDenied
	}
	return errUnknown
}

// plainSubject reports whether a subject is what OpenID Connect Core, 2 has it
// be, so that a header carries it unchanged: two users must not become one.
func plainSubject(s string) bool {
	return s != "" && len(s) <= 1024 && !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, " ") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

// Describe adds the route's identity headers to h. The caller has removed
// what the client sent under these names.
func (p *People) Describe(h http.Header, person *Person, r *settings.Route) {
	slot := &person.routes[r.Index].lines
	lines := slot.Load()
	if lines == nil {
		made := p.lines(person, r)
		lines = &made
		slot.Store(lines)
	}
	for _, l := range *lines {
		h[l.name] = l.value
	}
}

func (p *People) lines(person *Person, r *settings.Route) []line {
	headers := r.Headers
	if headers == nil {
		headers = settings.Defaults()
	}
	var lines []line
	for _, header := range headers {
		if v := p.value(person, header.Source); v != "" {
			lines = append(lines, line{http.CanonicalHeaderKey(header.Name), []string{v}})
		}
	}
	return lines
}

// value is what a header says. Empty means that the header is left out.
func (p *People) value(person *Person, source string) string {
	u := person.User
	switch source {
	case settings.SourceSubject:
		return u.Subject // checked by May
	case settings.SourceIssuer:
		return u.Issuer
	case settings.SourceTenant:
		return u.Tenant
	case settings.SourceEmail:
		return person.Email() // plain ASCII, or it is not verified
	case settings.SourceName:
		return p.encode(person.Text("name"))
	case settings.SourceUsername:
		return p.encode(person.Text("preferred_username"))
	case settings.SourceGroups:
		return p.join(person.List(p.c.GroupsClaim))
	}
	return p.join(person.List(strings.TrimPrefix(source, "claim:")))
}

// join makes a list of which each item comes out again: a comma within one is
// encoded.
func (p *People) join(list []string) string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if e := p.encode(s); e != "" {
			out = append(out, strings.ReplaceAll(e, ",", "%2C"))
		}
	}
	return strings.Join(out, ",")
}

func (p *People) encode(s string) string {
	return Encode(s, p.c.HeaderEncoding == settings.EncodePercent)
}

// Encode makes text that can stand in a header, and that is different for
// different texts: what cannot be seen is percent-encoded and not dropped, for
// names are chosen by their users and one must not look like another's. With
// ascii, so is whatever is not ASCII.
func Encode(s string, ascii bool) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] > ' ' && s[i] < 0x7f && s[i] != '%'
	}
	if plain {
		return s
	}
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i, n := 0, 0; i < len(s); i += n {
		var r rune
		r, n = utf8.DecodeRuneInString(s[i:])
		atEdge := i == 0 || i+n == len(s)
		switch {
		case r == utf8.RuneError && n == 1, r == '%', r == ' ' && atEdge, r > 0x7e && ascii, !unicode.IsPrint(r):
			for _, b := range []byte(s[i : i+n]) {
				out.WriteByte('%')
				out.WriteByte(digits[b>>4])
				out.WriteByte(digits[b&15])
			}
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
