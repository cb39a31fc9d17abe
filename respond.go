package signin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/site"
)

// retryAfterDown is what a client is told when the issuer or the store fails.
const retryAfterDown = 5 * time.Second

// fail answers with a page and logs why, under one reference: id, if the
// failure belongs to a sign-in whose lines have one.
func (a *Auth) fail(w http.ResponseWriter, r *http.Request, p Page, id string, err error) {
	if id == "" {
		id = newReference()
	}
	p.Reference = id
	a.report.event(r.Context(), Event{Name: EventRejected, Reference: id, Page: p.Kind, Status: p.Status, Err: err})
	writePage(w, r, p, a.cfg.Page)
}

// unavailable is the page for a failure that is not the user's.
func (a *Auth) unavailable(again site.ReturnPath, err error) Page {
	if large, ok := errors.AsType[*oidc.TooLargeError](err); ok {
		p := newTooLargePage(large, again.String())
		p.Status = http.StatusServiceUnavailable // as for any token that cannot be had
		return p
	}
	if _, ok := errors.AsType[*oidc.Misconfigured](err); ok {
		return newPage(PageInternal, again.String())
	}
	if _, ok := errors.AsType[*once.StoreError](err); ok {
		return newUnavailablePage(PageStoreDown, again.String(), retryAfterDown)
	}
	_, issuerDown := errors.AsType[*oidc.Error](err)
	_, temporary := errors.AsType[*temporaryError](err)
	if issuerDown || temporary || errors.Is(err, context.DeadlineExceeded) {
		return newUnavailablePage(PageIssuerDown, again.String(), retryAfterDown)
	}
	return newPage(PageInternal, again.String())
}

// kind is kindOf, unless the application decides.
func (a *Auth) kind(r *http.Request) requestKind {
	if a.cfg.Navigation == nil {
		return kindOf(r)
	}
	switch {
	case !a.cfg.Navigation(r):
		return kindOther
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return kindNavigation
	default:
		return kindSubmission
	}
}

// switchAccount is a link that signs in as somebody else and leads to a page.
func (a *Auth) switchAccount(r *http.Request, to site.ReturnPath) string {
	need := &InteractionRequiredError{Reason: ReasonSignIn, Prompt: "select_account"}
	ask := a.states.sealNeed(need, to)
	return a.visits.site(r).Path(a.loginPath) + "?" + url.Values{"ask": {ask}}.Encode()
}
