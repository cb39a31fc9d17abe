// Package gate decides about requests: what they are for, whether who sends
// them may pass, and what the server behind is told about them.
package gate

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/bearer"
	"github.com/seed454743b5/signin/front/internal/identity"
	"github.com/seed454743b5/signin/front/internal/library"
	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/front/internal/upstream"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// Options are what a gate is made of.
type Options struct {
	Config   *settings.Config
	Auth     *signin.Auth
	Bearer   *bearer.Verifier  // nil if no route needs one
	IDTokens *library.IDTokens // nil if no route passes one on
	Keys     [][]byte          // session keys
	Log      *slog.Logger
	Pages    func(w http.ResponseWriter, r *http.Request, p signin.Page)
	Observe  func(ctx context.Context, r *settings.Route, what string) // an upstream that failed
	Done     func(r *http.Request, v *visit.Visit, status int, bytes int64, took time.Duration)
	Now      func() time.Time
}

// Gate serves one configuration. Several may be in use while a reload is
// under way. It may be used concurrently.
type Gate struct {
	Options
	people    *identity.People
	signer    *identity.Signer
	upstreams *upstream.Upstreams
	sites     []http.Handler // by route: guarded, then the upstream
	answers   []http.Handler // by route: guarded, then 204
	own       http.Handler
	cross     *http.CrossOriginProtection
}

// New makes a gate.
func New(o Options) (*Gate, error) {
	g := &Gate{Options: o, people: identity.NewPeople(o.Config), cross: http.NewCrossOriginProtection()}
	if o.Config.BaseURL != "" {
		// A proxy in front need not pass on the host that the browser asked for.
		if err := g.cross.AddTrustedOrigin(o.Config.BaseURL); err != nil {
			return nil, err
		}
	}
	var err error
	if g.signer, err = identity.NewSigner(o.Keys); err != nil {
		return nil, err
	}
	g.upstreams = &upstream.Upstreams{
		Config: o.Config, People: g.people, Forged: identity.NewForged(o.Config), Cookies: identity.NewCookies(o.Config.CookieName),
		Log: o.Log, Failed: g.badGateway, Observe: o.Observe,
	}
	for _, r := range o.Config.Routes {
		site, err := g.upstreams.Handler(r)
		if err != nil {
			return nil, err
		}
		if site == nil {
			site = http.HandlerFunc(g.noUpstream)
		}
		g.sites = append(g.sites, g.guard(r, site))
		g.answers = append(g.answers, g.guard(r, http.HandlerFunc(g.admitted)))
	}
	g.own = o.Auth.Handler(g.ownPages())
	return g, nil
}

// Close drops idle connections to upstreams. No request may be under way.
func (g *Gate) Close() { g.upstreams.Close() }

// ServeHTTP implements [http.Handler].
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit.Visit{}
	rec := &recorder{ResponseWriter: w, visit: v, request: r, stranger: true}
	start := g.Now()
	defer func() {
		rec.finish()
		g.Done(rec.request, v, rec.status, rec.bytes, g.Now().Sub(start))
	}()
	asker := g.enter(r, v)
	r = r.WithContext(visit.Into(r.Context(), v))
	rec.request = r
	closeUnclear(w, r)
	rec.limitBody(r)
	if r.URL.Path == routes.Reserved+"auth" && r.URL.RawPath == "" {
		g.forwardAuth(rec, r, v, asker)
		return
	}
	switch m := g.Config.Table.Find(r.Method, v.Host, r.URL); m.Found {
	case routes.Own:
		g.own.ServeHTTP(rec, r)
	case routes.Route:
		v.Route = g.Config.Routes[m.Index]
		rec.stranger = v.Route.Public
		g.sites[m.Index].ServeHTTP(rec, r)
	case routes.Slash:
		to := r.URL.EscapedPath() + "/"
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to)
		rec.WriteHeader(http.StatusTemporaryRedirect)
	case routes.Method:
		v.Cause = "method"
		w.Header().Set("Allow", m.Allow)
		g.page(rec, r, http.StatusMethodNotAllowed)
	case routes.Unclear:
		v.Cause = m.Why
		g.page(rec, r, http.StatusBadRequest)
	default:
		v.Cause = "no route"
		g.page(rec, r, http.StatusNotFound)
	}
}

// closeUnclear ends a connection after a request whose length two servers
// might see differently (RFC 9112, 6.1): net/http hides a Content-Length beside
// chunks, and ignores chunks in HTTP/1.0. What follows on the connection could
// then be the rest of a body to one and a request to the other.
func closeUnclear(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0) {
		w.Header().Set("Connection", "close")
	}
}

func (g *Gate) noUpstream(w http.ResponseWriter, r *http.Request) {
	visit.From(r.Context()).Cause = "the route is for forward authentication only"
	g.page(w, r, http.StatusNotFound)
}

func (g *Gate) badGateway(w http.ResponseWriter, r *http.Request, status int) { g.page(w, r, status) }
