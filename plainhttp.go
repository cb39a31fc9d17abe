package signin

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/site"
)

// A form_post from another site brings no cookie but a SameSite=None one,
// which has to be Secure. Over plain http, which is loopback, some browsers
// keep no Secure cookie; Safari is one. There nobody can sign in, and after a
// visit to the issuer all that could be said is that no cookie came.

var errNoSecureCookie = errors.New(`over plain http the browser keeps no Secure cookie, which the issuer's form_post needs: serve the site over https, or set ResponseType "code" and ResponseMode "query"`)

// keeping is what a request tells of the browser's Secure cookies.
type keeping int

const (
	keepsEnough keeping = iota // or nothing is known against it
	keepsUnsure                // to be tried
	keepsNoSecure
	keepsNone
)

// keeps judges whether the browser cookie, which has two names, can come back
// with the issuer's form. The second is a twin without Secure: where only that
// one was kept, it cannot.
func keeps(r *http.Request, names []string, need *InteractionRequiredError) keeping {
	switch {
	case cookieValue(r, names[0]) != "":
		return keepsEnough
	case cookieValue(r, names[1]) != "":
		return keepsNoSecure
	case need.tried:
		return keepsNone
	case isSafari(r.UserAgent()) && r.Method == http.MethodGet && !need.silent:
		return keepsUnsure
	}
	return keepsEnough
}

// crossesSites reports whether a page of the issuer's and the application are
// two sites. Scheme and host name make a site here; ports do not.
func crossesSites(endpoint string, here site.Site) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Scheme != here.Scheme || !strings.EqualFold(u.Hostname(), site.Hostname(here.Host)))
}

// canAnswer answers a challenge whose end would come to nothing in this
// browser, and reports false. A browser that may be such a one is sent to our
// login path with a cookie, to see whether it keeps it.
func (a *Auth) canAnswer(w http.ResponseWriter, r *http.Request, b *browser, meta *oidc.Metadata, need *InteractionRequiredError, to site.ReturnPath) bool {
	if a.visits.secure(r) || a.cfg.ResponseMode != modeForm || !crossesSites(meta.AuthorizationEndpoint, a.visits.site(r)) {
		return true
	}
	again := a.askURL(r, need, to)
	switch keeps(r, a.browsers.names(false), need) {
	case keepsUnsure:
		try := *need
		try.tried = true
		a.browsers.write(w, r, b)
		w.Header().Set("Location", a.askURL(r, &try, to))
		w.WriteHeader(http.StatusSeeOther)
	case keepsNoSecure:
		a.fail(w, r, newPage(PageNoSecureCookies, again), "", errNoSecureCookie)
	case keepsNone:
		a.fail(w, r, newPage(PageNoCookies, again), "", errors.New("the browser sent back no cookie that this site has just set"))
	default:
		return true
	}
	return false
}

// isSafari reports whether a User-Agent is that of a browser by WebKit.
// Chromium's says all that Safari's does, and more.
func isSafari(agent string) bool {
	return strings.Contains(agent, "AppleWebKit/") && !strings.Contains(agent, "Chrome/") && !strings.Contains(agent, "Chromium/")
}
