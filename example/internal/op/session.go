package op

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	sessionCookie   = "demo_op_session"
	sessionLifetime = 8 * time.Hour
)

// browserSession is one browser in which somebody has signed in here. What was
// consented to lasts as long, so that the demo can be seen again after a
// sign-out.
type browserSession struct {
	user      User
	authTime  time.Time
	steppedUp bool
	consented map[string]bool // scopes
}

func (s *browserSession) covers(scopes string) bool {
	for scope := range strings.FieldsSeq(scopes) {
		if !s.consented[scope] {
			return false
		}
	}
	return true
}

// browserSessions holds the sessions by the random value of their cookie. A
// session read from it is a copy; change one with update.
type browserSessions struct {
	mu   sync.Mutex
	byID table[browserSession]
}

func newBrowserSessions() *browserSessions {
	return &browserSessions{byID: newTable[browserSession]()}
}

func (b *browserSessions) add(s browserSession) (id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id = rand.Text()
	b.byID.put(id, s, time.Now().Add(sessionLifetime))
	return id
}

func (b *browserSessions) get(id string) (browserSession, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.byID.get(id)
	return s, ok
}

func (b *browserSessions) update(id string, change func(*browserSession)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.byID.entries[id]
	if !ok {
		return
	}
	change(&e.value)
	b.byID.entries[id] = e
}

func (b *browserSessions) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byID.drop(id)
}

// sessionID returns what the browser's cookie says, which may name nothing.
func sessionID(r *http.Request) string {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	return c.Value
}

func (p *Provider) setSessionCookie(w http.ResponseWriter, id string) {
	c := &http.Cookie{
		Name:     sessionCookie,
		Value:    id,
		Path:     "/",
		HttpOnly: true,
		Secure:   strings.HasPrefix(p.config.Issuer, "https://"),
		SameSite: http.SameSiteLaxMode,
	}
	if id == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}
