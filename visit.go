package signin

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/site"
	"golang.org/x/oauth2"
)

// site, isSecure and requestPath are those of [sites] for a request that a
// handler has.
func (vs *visits) site(r *http.Request) site.Site { return vs.sites.Of(vs.entered(r)) }

func (vs *visits) secure(r *http.Request) bool { return vs.sites.IsSecure(vs.entered(r)) }

func (vs *visits) requestPath(r *http.Request) string {
	page, _ := vs.sites.Page(vs.entered(r))
	return page
}

// entered is a request as it came to Handler. What http.StripPrefix takes off
// further in is the application's own affair: the callback is not there.
func (vs *visits) entered(r *http.Request) *http.Request {
	if v := vs.of(r.Context()); v != nil && v.r != nil {
		return v.r
	}
	return r
}

// visits are those of one Auth: where its site is, and how a session is read.
type visits struct {
	sites  site.Sites
	tokens *tokens
	load   func(context.Context, *http.Request) (*session, error)
	now    func() time.Time
}

// visit is what Handler puts into a request's context. It is that context
// itself, for every request pays for one. Nothing is read before somebody
// asks, so that public pages and assets cost nothing and stay up when the
// store does not.
type visit struct {
	context.Context // of the request as it came to Handler

	visits *visits
	r      *http.Request

	// For NewContext.
	user   *User
	source oauth2.TokenSource

	mu   sync.Mutex
	s    *session // guarded by mu, with what follows
	err  error
	read time.Time
}

type (
	visitKey struct{}                 // of the innermost visit
	authKey  struct{ visits *visits } // of the innermost visit of one Auth
)

// Value implements [context.Context].
func (v *visit) Value(key any) any {
	switch key := key.(type) {
	case visitKey:
		return v
	case authKey:
		if v.source != nil {
			return nil // NewContext's hides the real ones
		}
		if v.visits == key.visits {
			return v
		}
	}
	return v.Context.Value(key)
}

func visitFrom(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// of returns the visit of one Auth, which need not be the innermost.
func (vs *visits) of(ctx context.Context) *visit {
	v, _ := ctx.Value(authKey{vs}).(*visit)
	return v
}

// madeUp returns the visit of NewContext if that is the innermost.
func madeUp(ctx context.Context) *visit {
	if v := visitFrom(ctx); v != nil && v.source != nil {
		return v
	}
	return nil
}

// session returns the request's session, or nil. It is read once.
func (v *visit) session(ctx context.Context) (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read.IsZero() {
		v.load(ctx, v.visits.now())
	}
	return v.s, v.err
}

// current is session for a token source, which may outlive its request: it
// does not end with ctx, and what was read long ago is read again.
func (v *visit) current(ctx context.Context, now time.Time) (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read.IsZero() || now.Sub(v.read) > rereadAfter {
		v.load(context.WithoutCancel(ctx), now)
	}
	return v.s, v.err
}

// load reads the session; v.mu is held.
func (v *visit) load(ctx context.Context, now time.Time) {
	v.s, v.err = v.visits.load(ctx, v.r)
	v.read = now
	if v.err != nil && ctx.Err() != nil {
		v.read = time.Time{} // one impatient caller does not speak for the request
	}
}

// renew replaces what has been read by what a refresh made of it.
func (v *visit) renew(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.s, v.err, v.read = s, nil, v.visits.now()
}

// UserFromContext returns who is signed in. Nil is nobody, or a store that fails:
// [LookupUser] tells the two apart. Below [Auth.RequireUser] neither happens. The
// record is read at the first call of a request.
func UserFromContext(ctx context.Context) *User {
	u, _ := LookupUser(ctx)
	return u
}

// LookupUser returns who is signed in, and nil without an error if nobody is.
// The error reports a store that fails: who is signed in is not known then,
// and the page should say 503, not "signed out".
func LookupUser(ctx context.Context) (*User, error) {
	v := visitFrom(ctx)
	if v == nil {
		return nil, nil
	}
	if v.source != nil {
		return v.user, nil
	}
	s, err := v.session(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	return s.user, nil
}

// NewContext returns a context in which user is signed in and every
// [TokenSource] is source, for tests of handlers. Nil values stand for
// nobody and for a source that asks for a sign-in.
//
// It is good for handlers below [Auth.Handler], too, which leaves it as it
// is, and below [Auth.RequireUser] and [Auth.Require]: nobody is challenged,
// and a user must meet the [Requirement]. A required scope counts as granted
// if source returns a token.
func NewContext(ctx context.Context, user *User, source oauth2.TokenSource) context.Context {
	if source == nil {
		source = failing{&InteractionRequiredError{Reason: ReasonSignIn}}
	}
	return &visit{Context: ctx, user: user, source: source}
}

// sessionFor is the session of a request, wherever the request is: below
// Handler, or at a path of ours.
func (vs *visits) sessionFor(r *http.Request) (*session, error) {
	if v := vs.of(r.Context()); v != nil {
		return v.session(r.Context())
	}
	return vs.load(r.Context(), r)
}
