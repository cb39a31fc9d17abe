package signin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/web"
)

// login starts a sign-in: for a link in an answer that could not redirect, for
// a person, or for a third party (OpenID Connect Core, 4).
//
//	ask                               a link of ours, sealed
//	return                            a page of this site
//	iss, login_hint, target_link_uri  a third party's
func (a *Auth) login(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		a.loginByGet(w, r)
		return
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		a.fail(w, r, newPage(PageCallbackMethod, a.visits.site(r).Path("/")), "", errors.New("login: method"))
		return
	}
	need, to, err := a.asked(r, r.URL.Query())
	if err != nil {
		a.fail(w, r, newPage(PageCallbackUnreadable, a.visits.site(r).Path("/")), "", err)
		return
	}
	signsIn := need.Reason == ReasonSignIn || need.Reason == ReasonRefused
	if signsIn && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		// Another site must not put a user who is signed in into an account of
		// its choice (login_hint), or into none: the page that it means will do.
		s, err := a.visits.sessionFor(r)
		if err != nil {
			a.fail(w, r, a.unavailable(to, err), "", err)
			return
		}
		if s != nil && !s.record.dead(a.now()) {
			site.RedirectWithin(w, to)
			return
		}
	}
	need.chosen = !need.tried // what came back to try was no link's
	a.challenge(w, r, need, to)
}

// loginByGet answers a POST, which OpenID Connect Core, 4 allows: with the same
// by GET, for the session cookie does not arrive with another site's POST.
func (a *Auth) loginByGet(w http.ResponseWriter, r *http.Request) {
	home := a.visits.site(r).Path("/")
	body, err := web.ReadForm(r)
	if err != nil || len(body) > web.MaxForm {
		a.fail(w, r, newPage(PageCallbackTooLarge, home), "", errors.New("login: form too large or cut off"))
		return
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		a.fail(w, r, newPage(PageCallbackUnreadable, home), "", errors.New("login: form does not parse"))
		return
	}
	same := url.Values{}
	for _, name := range []string{"ask", "return", "iss", "login_hint", "target_link_uri"} {
		if form.Has(name) {
			same.Set(name, form.Get(name))
		}
	}
	site.RedirectWithin(w, site.NewReturnPath(a.visits.site(r).Path(a.loginPath)+"?"+same.Encode()))
}

// asked says what a link to the login path asks for. Nothing in it is trusted
// but what we sealed: the rest chooses a page of ours, and whom to suggest.
func (a *Auth) asked(r *http.Request, params url.Values) (*InteractionRequiredError, site.ReturnPath, error) {
	if raw := params.Get("ask"); raw != "" && len(raw) <= maxState {
		if asked, err := a.states.openAsk(raw); err == nil {
			if asked.Bare {
				asked.Return = a.visits.sites.Resolve(a.visits.entered(r), a.loginPath, asked.Return)
			}
			asked.Need.tried, asked.Need.required, asked.Need.flow = asked.Tried, asked.Required, asked.Flow
			return &asked.Need, site.NewReturnPath(asked.Return), nil
		}
	}
	need, home := &InteractionRequiredError{Reason: ReasonSignIn}, site.NewReturnPath(a.visits.site(r).Path("/"))
	switch {
	case params.Has("return"):
		return need, site.NewReturnPath(params.Get("return")), nil
	case !params.Has("iss"):
		return need, home, nil
	}
	// Another issuer's initiation must not lead to ours: the user would prove
	// to one who they are for what another asked.
	if iss := params.Get("iss"); iss != a.cfg.Issuer {
		meta, err := a.issuer.Metadata(r.Context())
		if err != nil || !meta.Rule.Names(iss) {
			return nil, site.ReturnPath{}, errors.New("login: initiated for another issuer")
		}
	}
	if hint := params.Get("login_hint"); len(hint) <= 1024 {
		need.LoginHint = hint
	}
	to := home
	if target, ok := a.visits.site(r).PathOf(params.Get("target_link_uri")); ok {
		to = site.NewReturnPath(target)
	}
	return need, to, nil
}

// askURL is a link that starts a sign-in for need and comes back to a page.
func (a *Auth) askURL(r *http.Request, need *InteractionRequiredError, to site.ReturnPath) string {
	return a.visits.site(r).Path(a.loginPath) + "?" + url.Values{"ask": {a.states.sealNeed(need, to)}}.Encode()
}

// UserFlow sends a browser through another user flow (policy) of the same
// registration at Azure AD B2C, such as one that edits the profile:
//
//	mux.Handle("GET /profile/edit", auth.UserFlow("B2C_1_edit_profile", "/profile"))
//
// The flow itself signs nobody in: no token comes of its answer. After it the
// browser signs in by the flow of [Config].Issuer, which brings the changed claims
// and, as a rule, asks nothing, and lands on page, a path of this site. A user
// who leaves the flow lands there at once. With another issuer, or a flow whose
// name does not begin with B2C_1, each request gets 500 and a log line.
func (a *Auth) UserFlow(flow, page string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := site.NewReturnPath(a.visits.site(r).Path(page))
		if err := family.CheckFlow(a.cfg.Issuer, flow); err != nil {
			a.fail(w, r, newPage(PageInternal, to.String()), "", fmt.Errorf("UserFlow: %w", err))
			return
		}
		a.challenge(w, r, &InteractionRequiredError{Reason: ReasonSignIn, chosen: true, flow: flow}, to)
	})
}

// afterFlow goes on when a user flow beside the sign-in's has ended. Nothing in
// its answer is believed, so nothing in it is checked but the state: whoever comes
// out of it signs in.
func (a *Auth) afterFlow(w http.ResponseWriter, r *http.Request, tx *transaction, b *browser, left bool) {
	to := site.NewReturnPath(tx.Return)
	b.tripped(tx, a.now(), false)
	if left {
		a.browsers.write(w, r, b)
		site.RedirectWithin(w, to)
		return
	}
	// The session's cookie does not come with a form_post. The flow's state names it.
	var s *session
	if secret, err := a.keys.Open("extend", b.secret, tx.ID, tx.Session); err == nil {
		err := once.Insist(r.Context(), func() (err error) {
			s, err = a.records.fresh(r.Context(), secret)
			return err
		})
		if err != nil {
			a.fail(w, r, a.unavailable(to, err), tx.id(), err)
			return
		}
	}
	a.challengeSession(w, r, b, s, &InteractionRequiredError{Reason: ReasonSignIn, chosen: s != nil}, to)
}
