package signin

import (
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
)

// movedFor is how long a browser is not sent to BaseURL's host again. It only
// has to cover the way there.
const movedFor = 10 * time.Second

// moveHost sends a browser that came under another host name than BaseURL's
// to the same page under BaseURL's, and reports whether it did. From here its
// challenge would come to nothing: the answer arrives where BaseURL is, and the
// browser cookie would be here.
//
// To us a proxy that rewrites Host looks the same. It would send the browser
// round for ever, so each is sent once: the browser cookie remembers it, and
// those that keep no cookie are counted.
func (a *Auth) moveHost(w http.ResponseWriter, r *http.Request, b *browser, need *InteractionRequiredError, to site.ReturnPath) bool {
	host := a.visits.sites.Elsewhere(a.visits.entered(r))
	if host == "" || r.Method != http.MethodGet || r.UserAgent() == "" { // every browser has one
		return false
	}
	now := a.now()
	names := []slog.Attr{slog.String("host", text.Printable(host, 100)), slog.String("base", a.visits.sites.Fixed.Host)}
	if since := now.Sub(time.Unix(b.moved, 0)); since >= 0 && since < movedFor || a.browsers.read(r) == nil && a.moves.tooMany(r, now) {
		b.moved = 0
		a.hostWarning.Do(func() {
			a.report.log.LogAttrs(r.Context(), slog.LevelWarn, "signin: a proxy seems to rewrite Host: let it keep Host, or send X-Forwarded-Host and be in TrustedProxies", names...)
		})
		return false
	}
	page := to.String()
	if need.chosen {
		page = a.askURL(r, need, to) // the page itself may ask for less
	}
	b.moved = now.Unix()
	a.browsers.write(w, r, b)
	a.report.log.LogAttrs(r.Context(), slog.LevelInfo, "signin: sent to BaseURL's host", names...)
	w.Header().Set("Location", a.visits.sites.Fixed.Origin()+page)
	w.WriteHeader(http.StatusSeeOther)
	return true
}

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
