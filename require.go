package signin

import (
	"net/http"
	"slices"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
)

// strongEnough reports whether the sign-in was recent and strong enough.
func (a *Auth) strongEnough(u *User, need Requirement) bool {
	if need.MaxAge > 0 && (u.AuthTime.IsZero() || a.now().Sub(u.AuthTime) > need.MaxAge+a.cfg.ClockSkew) {
		return false
	}
	return meetsACR(u, need.ACR)
}

// meetsACR reports whether the sign-in had one of the authentication context
// classes asked for, if any were.
func meetsACR(u *User, asked []string) bool {
	return len(asked) == 0 || slices.Contains(asked, u.ACR) ||
		slices.ContainsFunc(u.contexts, func(c string) bool { return oidc.AuthContext.MatchString(c) && slices.Contains(asked, c) })
}

// unmet is what a completed round trip did not bring though it was asked for.
// A second one would bring no more.
type unmet byte

// They stand in the store for the copies of a callback.
const (
	unmetNothing unmet = iota
	unmetScopes
	unmetACR
)

func positive(d time.Duration) *time.Duration {
	if d <= 0 {
		return nil
	}
	return &d
}

// serveSettled serves next to a user who is signed in, and forgets the round
// trips at whose end that is. Only a young session can have any, so that older
// ones pay nothing.
func (a *Auth) serveSettled(next http.Handler, w http.ResponseWriter, r *http.Request, s *session, now time.Time) {
	if now.Sub(time.Unix(s.record.Created, 0)) <= loopWindow && a.kind(r) == kindNavigation {
		if b := a.browsers.read(r); b != nil && b.need == loopSignIn && b.trips > 0 {
			b.progressed()
			a.browsers.serve(next, w, r, b)
			return
		}
	}
	next.ServeHTTP(w, r)
}
