package signin

import (
	"net/http"

	"github.com/seed454743b5/signin/internal/seal"
)

// Recognize signs in, without asking them anything, visitors whom the issuer
// knows already (prompt=none; OpenID Connect Core, 3.1.2.1). It is for pages
// that serve everybody and greet those they know.
//
// It tries once in a browser session, at the second navigation: the first
// sets the browser cookie, so that a client that keeps no cookies, a crawler
// say, is never sent anywhere. Whoever is not recognised, or has signed out,
// sees the page as it is; so does everybody while the issuer or the store
// fails. The first answer sets a cookie, unless next lets caches share it
// (Cache-Control: public): such a page recognises those only whom another page
// has given the cookie.
func (a *Auth) Recognize(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := a.visits.of(r.Context())
		if v == nil || a.kind(r) != kindNavigation || r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		if s, err := v.session(r.Context()); s != nil || err != nil {
			next.ServeHTTP(w, r)
			return
		}
		b := a.browsers.read(r)
		switch {
		case b == nil:
			a.browsers.serve(next, w, r, &browser{secret: seal.Random(secretLen)})
			return
		case !b.asked && a.ready(r):
			b.asked = true
			boundBody(w, r)
			need := &InteractionRequiredError{Reason: ReasonSignIn, Prompt: "none", silent: true}
			a.challengeBrowser(w, r, b, need, a.returnTo(r))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ready reports whether a challenge can begin.
func (a *Auth) ready(r *http.Request) bool {
	if a.visits.site(r).Fault() != nil {
		return false
	}
	meta, err := a.issuer.Metadata(r.Context())
	return err == nil && meta.Unfit == nil
}
