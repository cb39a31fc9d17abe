package gate

import (
	"errors"
	"net/http"
	"strings"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/bearer"
	"github.com/seed454743b5/signin/front/internal/library"
	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// guard lets through to next whom a route admits.
func (g *Gate) guard(route *settings.Route, next http.Handler) http.Handler {
	if route.Public {
		return withoutUpgrade(next)
	}
	user := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := visit.From(r.Context())
		v.Person = g.people.Of(signin.UserFromContext(r.Context()))
		if g.tokens(w, r, v) {
			next.ServeHTTP(w, r)
		}
	})
	require := library.Require(g.Auth, signin.Requirement{
		Scopes: route.Scopes, ACR: route.ACR, MaxAge: route.MaxAge,
		Allow: func(u *signin.User) error { return g.people.May(g.people.Of(u), route) },
	})
	browser := g.Auth.Handler(require(user))
	return withoutUpgrade(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if route.Bearer != nil {
			token, present, err := bearer.FromRequest(r)
			if err != nil {
				g.refuse(w, r, &bearer.Refusal{Status: http.StatusBadRequest, Code: "invalid_request", Cause: err})
				return
			}
			if present {
				g.program(w, r, route, token, next)
				return
			}
		}
		// Another site may make a browser send a request with our cookie.
		if err := g.sameOrigin(r); err != nil {
			visit.From(r.Context()).Cause = err.Error()
			g.page(w, r, http.StatusForbidden)
			return
		}
		browser.ServeHTTP(w, r)
	}))
}

// program serves a request that carries an access token.
func (g *Gate) program(w http.ResponseWriter, r *http.Request, route *settings.Route, token string, next http.Handler) {
	v := visit.From(r.Context())
	audience := route.Bearer.Audience
	if len(audience) == 0 {
		audience = []string{g.Config.ClientID, v.Site()}
	}
	who, err := g.Bearer.Verify(r.Context(), token, audience, route.Bearer.Introspect || g.Config.Introspect)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	person := g.people.Of(who.User)
	if err := g.people.May(person, route); err != nil {
		g.refuse(w, r, &bearer.Refusal{Status: http.StatusForbidden, Cause: err})
		return
	}
	if err := who.Meets(route.Scopes, route.ACR, route.MaxAge, g.Now()); err != nil {
		g.refuse(w, r, err)
		return
	}
	// The token was for us. The upstream gets it only if the file says so.
	v.Person, v.Authorization = person, visit.Drop
	for i, pass := range route.Pass {
		switch pass {
		case settings.PassAccessToken:
			g.hand(v, i, pass, token)
		case settings.PassIdentityJWT:
			if !g.identityToken(w, r, v, i) {
				return
			}
		}
	}
	next.ServeHTTP(w, r)
}

// refuse answers a program.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	v := visit.From(r.Context())
	refusal, ok := errors.AsType[*bearer.Refusal](err)
	if ok {
		v.Cause = "bearer: " + refusal.Error()
	} else {
		// The error's text has addresses in it; a cause is one of few.
		v.Cause = "bearer: the issuer cannot be asked"
		g.Log.WarnContext(r.Context(), v.Cause, "err", err)
		refusal = &bearer.Refusal{Status: http.StatusServiceUnavailable}
	}
	refusal.Write(w)
}

// tokens gets what the route passes on. It reports false if it has answered
// instead.
func (g *Gate) tokens(w http.ResponseWriter, r *http.Request, v *visit.Visit) bool {
	for i, pass := range v.Route.Pass {
		if pass == settings.PassIdentityJWT {
			if !g.identityToken(w, r, v, i) {
				return false
			}
			continue
		}
		token, err := signin.TokenSource(r.Context(), v.Route.Scopes...).Token()
		if g.Auth.Challenge(w, r, err) {
			return false
		}
		value := ""
		switch {
		case err != nil:
		case pass == settings.PassIDToken:
			value, err = g.IDTokens.Get(r.Context(), token)
		default:
			value = token.AccessToken
		}
		if value == "" {
			g.unavailable(w, r, v, pass, err)
			return false
		}
		g.hand(v, i, pass, value)
	}
	return true
}

// TokenHeaders are what the tokens are called that are not Authorization.
var TokenHeaders = map[string]string{
	settings.PassAccessToken: "X-Forwarded-Access-Token",
	settings.PassIDToken:     "X-Forwarded-Id-Token",
	settings.PassIdentityJWT: "X-Forwarded-Identity-Jwt",
}

// hand gives the upstream a token: the first of a route's as Authorization,
// the others under names of their own.
func (g *Gate) hand(v *visit.Visit, i int, pass, token string) {
	if i == 0 {
		v.Authorization = "Bearer " + token
		return
	}
	if v.Tokens == nil {
		v.Tokens = map[string]string{}
	}
	v.Tokens[TokenHeaders[pass]] = token
}

func (g *Gate) identityToken(w http.ResponseWriter, r *http.Request, v *visit.Visit, i int) bool {
	_, _, path := routes.Split(v.Route.Pattern)
	token, err := g.signer.Token(v.Person, v.Site(), path, g.Now())
	if err != nil {
		g.unavailable(w, r, v, settings.PassIdentityJWT, err)
		return false
	}
	g.hand(v, i, settings.PassIdentityJWT, token)
	return true
}

func (g *Gate) unavailable(w http.ResponseWriter, r *http.Request, v *visit.Visit, what string, err error) {
	v.Cause = "no " + what
	g.Log.WarnContext(r.Context(), "a token to pass on could not be had", "what", what, "err", err)
	g.page(w, r, http.StatusBadGateway)
}

var errCrossOrigin = errors.New("a request from another origin")

// sameOrigin refuses what another site may have sent with our user's cookie.
// Opening a WebSocket is a GET, which CrossOriginProtection lets pass.
func (g *Gate) sameOrigin(r *http.Request) error {
	if err := g.cross.Check(r); err != nil {
		return errCrossOrigin
	}
	if r.Header.Get("Upgrade") == "" && r.Header.Get("Sec-WebSocket-Key") == "" {
		return nil
	}
	v := visit.From(r.Context())
	for _, origin := range r.Header["Origin"] {
		if origin != v.Site() {
			return errCrossOrigin
		}
	}
	return nil
}

// withoutUpgrade ignores upgrades to anything but a WebSocket, as a server may
// (RFC 9110, 7.8). After one to h2c the upstream would read requests that we
// have not seen, with any name in them.
func withoutUpgrade(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, ok := r.Header["Upgrade"]; ok && (len(u) != 1 || !strings.EqualFold(u[0], "websocket") || r.Method != http.MethodGet || r.ContentLength != 0) {
			delete(r.Header, "Upgrade")
			delete(r.Header, "Http2-Settings")
		}
		next.ServeHTTP(w, r)
	})
}
