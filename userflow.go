package signin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/site"
)

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

// authorizeAt is the authorization endpoint of a challenge.
func (a *Auth) authorizeAt(meta *oidc.Metadata, need *InteractionRequiredError) (*url.URL, error) {
	endpoint := meta.AuthorizationEndpoint
	if need.flow != "" {
		var err error
		if endpoint, err = family.FlowEndpoint(a.cfg.Issuer, endpoint, need.flow); err != nil {
			return nil, &oidc.Misconfigured{Cause: err}
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, oidc.Failed(err)
	}
	return u, nil
}

// errForgotten reports that the user has asked for a password reset, which a
// flow of its own does.
var errForgotten = errors.New("the user has forgotten their password")

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
