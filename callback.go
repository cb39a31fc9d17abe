package signin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/seal"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
	"github.com/seed454743b5/signin/internal/web"
)

const (
	maxCallbackVar = 32       // parameters
	maxCookies     = 64 << 10 // of all cookies
	maxCode        = 8 << 10

	// callbackWait is how long a browser waits for its redemption, and
	// once.Patience if it is the store that holds it up. What takes longer goes
	// on, and a reload of the callback joins it.
	callbackWait = 20 * time.Second
)

// errUnknown reports that the issuer does not know, or would not say, whom
// [Auth.Recognize] wanted to greet. Nobody asked for it, so nobody is told.
var errUnknown = errors.New("the issuer knows nobody there")

// callback takes the issuer's answer.
func (a *Auth) callback(w http.ResponseWriter, r *http.Request) {
	home := a.visits.site(r).Path(a.loginPath)
	params, err := readAnswer(r, home)
	if err == nil {
		params, err = peekAnswer(a.cfg, params, home)
	}
	if err != nil {
		if r.Method != http.MethodGet && r.Method != http.MethodPost {
			w.Header().Set("Allow", "GET, POST")
		}
		a.rejected(w, r, nil, err)
		return
	}
	b := a.browsers.read(r)
	tx, err := a.checkState(w, r, params, b, home)
	if err == nil && tx.Flow != "" {
		a.afterFlow(w, r, tx, b, params.Has("error"))
		return
	}
	if err == nil {
		var done *redeemed
		if done, err = a.answered(r, params, tx, b); err == nil {
			a.land(w, r, tx, b, done)
			return
		}
	}
	if errors.Is(err, errUnknown) {
		site.RedirectWithin(w, site.NewReturnPath(tx.Return))
		return
	}
	if errors.Is(err, errForgotten) {
		need := &InteractionRequiredError{Reason: ReasonSignIn, flow: a.cfg.PasswordResetFlow}
		a.challengeSession(w, r, b, nil, need, site.NewReturnPath(tx.Return))
		return
	}
	if errors.Is(err, errStale) {
		if b != nil {
			b.tripped(tx, a.now(), true)
			a.browsers.write(w, r, b)
		}
		a.report.event(r.Context(), Event{Name: EventStale, Reference: tx.id(), Err: err})
		site.RedirectWithin(w, site.NewReturnPath(tx.Return))
		return
	}
	if r.Context().Err() == context.Canceled {
		return // the browser has gone; what was begun is finished without it
	}
	a.rejected(w, r, tx, err)
}

// readAnswer checks method, type and size, and that no parameter is doubled
// (RFC 6749, 3.1): two readers could each take another one of them.
func readAnswer(r *http.Request, home string) (url.Values, error) {
	cookies := 0
	for _, line := range r.Header["Cookie"] {
		cookies += len(line)
	}
	if cookies > maxCookies {
		page := newPage(PageCallbackTooLarge, home)
		page.Status = http.StatusRequestHeaderFieldsTooLarge
		return nil, &rejection{page, errors.New("too many cookies")}
	}
	var raw string
	switch r.Method {
	case http.MethodGet:
		raw = r.URL.RawQuery
	case http.MethodPost:
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
			return nil, reject(PageCallbackUnreadable, home, "not a form")
		}
		var err error
		if raw, err = web.ReadForm(r); err != nil {
			return nil, reject(PageCallbackUnreadable, home, "body cannot be read")
		}
	default:
		return nil, reject(PageCallbackMethod, home, "method "+text.Printable(r.Method, 20))
	}
	if len(raw) > web.MaxForm || strings.Count(raw, "&") >= maxCallbackVar {
		return nil, reject(PageCallbackTooLarge, home, "answer too large")
	}
	params, err := url.ParseQuery(raw)
	if err != nil {
		return nil, reject(PageCallbackUnreadable, home, "answer does not parse")
	}
	for _, values := range params {
		if len(values) > 1 {
			return nil, reject(PageCallbackDuplicate, home, "a parameter occurs twice")
		}
	}
	return params, nil
}

// peekAnswer returns the parameters in a signed answer, before its signature is
// looked at: the state among them is sealed by us. Nothing else of the answer is
// read.
func peekAnswer(c Config, params url.Values, home string) (url.Values, error) {
	raw := params.Get(oidc.Response)
	if raw == "" || !oidc.SignsAnswers(c.ResponseMode) {
		return params, nil
	}
	params, err := oidc.PeekAnswer(raw)
	if err != nil {
		return nil, &rejection{newPage(PageCallbackUnreadable, home), err}
	}
	return params, nil
}

// checkState finds the challenge that params answer. With errStale, and where
// no cookie came, it still returns the transaction, for the page it names.
func (a *Auth) checkState(w http.ResponseWriter, r *http.Request, params url.Values, b *browser, home string) (*transaction, error) {
	if !params.Has("state") && !params.Has("code") && !params.Has("error") && !params.Has("id_token") {
		return nil, reject(PageCallbackEmpty, home, "no parameters: the issuer answered by fragment, or the page was opened by hand")
	}
	tx, err := a.states.open(params.Get("state"))
	switch {
	case err != nil && b == nil:
		return nil, reject(PageNoCookies, home, "no browser cookie, and no state of ours")
	case err != nil:
		return nil, reject(PageCallbackState, home, "state is missing, altered, or sealed by other keys")
	}
	a.restoreReturn(w, r, tx)
	age := a.now().Sub(tx.began())
	if b == nil {
		return tx, a.withoutCookie(r, tx, age)
	}
	if age > stateLifetime || age < -clockMargin || subtle.ConstantTimeCompare(tx.Browser, b.hash()) != 1 {
		return tx, errStale
	}
	return tx, nil
}

// restoreReturn completes the return path of an authentic answer by what the
// browser kept and by how the answer came.
func (a *Auth) restoreReturn(w http.ResponseWriter, r *http.Request, tx *transaction) {
	if tx.Aside {
		page := a.states.aside(r).fetch(w, r, tx)
		if page == "" {
			a.report.log.LogAttrs(r.Context(), slog.LevelInfo, "signin: return path lost its query", slog.String("ref", tx.id()))
			page = tx.Return
		}
		tx.Return = page
	}
	if tx.Bare && tx.Return != a.visits.site(r).Path("/") {
		tx.Return = a.visits.sites.Resolve(a.visits.entered(r), a.cfg.CallbackPath, tx.Return)
	}
}

// withoutCookie says what an authentic answer means that came without a
// browser cookie. A state from long ago is a bookmark's, and one that another
// program was given an office document's: neither says that the browser
// refuses cookies, and its user goes to the page that the state names. Else a
// page has to say so, for in a browser that does refuse them nothing can count
// the visits to the issuer.
func (a *Auth) withoutCookie(r *http.Request, tx *transaction, age time.Duration) error {
	if age > stateLifetime || !bytes.Equal(tx.Agent, agentHash(r)) {
		return errStale
	}
	cause := "no browser cookie: cookies are blocked or were deleted, or the answer came to another browser than the one that asked"
	switch {
	case tx.Host != "":
		cause = "no browser cookie: the sign-in began under the host " + tx.Host + ", and BaseURL's is " + a.visits.sites.Fixed.Host
	case !a.visits.secure(r) && oidc.AnswersByForm(a.cfg.ResponseMode):
		cause += "; or " + errNoSecureCookie.Error()
	}
	return reject(PageNoCookies, tx.Return, cause)
}

// answered checks what came with an authentic state, and redeems the code.
func (a *Auth) answered(r *http.Request, params url.Values, tx *transaction, b *browser) (*redeemed, error) {
	again := tx.Return
	params, meta, err := a.authentic(r, params, tx)
	if err != nil {
		return nil, err
	}
	code := params.Get("code")
	if code == "" || len(code) > maxCode {
		return nil, reject(PageCallbackEmpty, again, "no code in the answer")
	}
	var front *oidc.IDToken
	if a.cfg.ResponseType == typeHybrid {
		if params.Get("id_token") == "" {
			return nil, reject(PageTokenRejected, again, "no id_token in the answer: the issuer does not do the hybrid flow for this client; enable it there or set ResponseType \"code\"")
		}
		want := a.redeemer.expect(tx, b)
		want.Front, want.Code = true, code
		if front, err = a.issuer.VerifyIDToken(r.Context(), meta, params.Get("id_token"), want); err != nil {
			return nil, tx.rejected("front channel", err)
		}
	}
	// The browser waits for a while; the redemption, once begun, is finished.
	ctx, cancel := context.WithTimeout(r.Context(), callbackWait)
	defer cancel()
	done, err := a.redeemer.flights.Do(ctx, string(tx.ID), redemptionLimit, func(ctx context.Context) (*redeemed, error) {
		return a.redeemer.redeemOnce(ctx, meta, &arrival{tx, b, code, front, furtherFields(params), r})
	})
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		if err := a.redeemer.overdue(tx); err != nil {
			return nil, err
		}
		// Issuer or store? The page should blame the right one.
		if _, _, storeErr := a.records.get(context.WithoutCancel(ctx), seal.StoreKey("c", tx.ID)); storeErr != nil {
			return nil, storeErr
		}
	}
	return done, err
}

// answerFields are the parameters of an answer that the protocol reads. The others
// are further fields.
var answerFields = []string{"code", "state", "iss", "id_token", "access_token", "token_type", "expires_in", "response"}

// furtherFields are the fields of an answer that the protocol does not read.
func furtherFields(params url.Values) url.Values {
	further := cloneParams(params)
	for _, name := range answerFields {
		further.Del(name)
	}
	return further
}

// authentic returns what the issuer has answered, if it came the way asked for, is
// signed if that was asked for, and is no refusal.
func (a *Auth) authentic(r *http.Request, params url.Values, tx *transaction) (url.Values, *oidc.Metadata, error) {
	again, refused := tx.Return, params.Has("error")
	if !refused && (r.Method == http.MethodPost) != oidc.AnswersByForm(a.cfg.ResponseMode) {
		// A code that was asked for by form_post and comes in a URL has been
		// written into histories and logs. Of errors some issuers tell by GET,
		// however they were asked.
		return nil, nil, reject(PageCallbackUnreadable, again, "the answer came another way than asked: "+r.Method+wayHint(a.cfg))
	}
	if oidc.SignsAnswers(a.cfg.ResponseMode) {
		meta, err := a.issuer.Metadata(r.Context())
		if err != nil {
			return nil, nil, err
		}
		if params, err = a.issuer.VerifyAnswer(r.Context(), meta, params.Get(oidc.Response)); err != nil {
			if _, ok := errors.AsType[*oidc.Error](err); ok {
				return nil, nil, err
			}
			return nil, nil, &rejection{newPage(PageTokenRejected, again), errors.New(text.Printable(err.Error(), 300))}
		}
	}
	switch {
	case refused && tx.Silent:
		return nil, nil, errUnknown
	case refused && !params.Has("iss"):
		return nil, nil, a.issuerRefusal(params, tx)
	}
	meta, err := a.issuer.Metadata(r.Context())
	if err != nil {
		return nil, nil, err
	}
	if err := a.checkIss(meta, params); err != nil {
		return nil, nil, &rejection{newPage(PageTokenRejected, again), err}
	}
	if refused {
		return nil, nil, a.issuerRefusal(params, tx)
	}
	return params, meta, nil
}

// wayHint says what to set for an issuer that does not do as asked.
func wayHint(c Config) string {
	if c.ResponseMode != modeForm {
		return ""
	}
	return `; for an issuer that answers by query only, set ResponseType "code" and ResponseMode "query"`
}

// checkIss guards against an answer of another issuer's (RFC 9207, 2.4). A
// hybrid answer may lack iss though it is announced: its ID token has it.
func (a *Auth) checkIss(meta *oidc.Metadata, params url.Values) error {
	if !params.Has("iss") {
		if meta.AnnouncesIss && a.cfg.ResponseType == typeCode {
			return errors.New("iss is missing from the answer though the issuer announces it")
		}
		return nil
	}
	if !meta.Rule.Names(params.Get("iss")) {
		return errors.New("iss of the answer is another issuer")
	}
	return nil
}

// refusalPages are the pages for what an error answer speaks of. Of anything
// else the page says that the issuer reported an error.
var refusalPages = map[family.Subject]PageKind{
	family.OfConsent: PageConsentRefused, family.Unmet: PageStepUpRefused, family.Cancelled: PageCancelled,
	family.Refused: PageAccountRefused, family.Forgotten: PageForgotPassword,
}

// issuerRefusal is an error answer of the issuer's (OpenID Connect Core,
// 3.1.2.6). Its text is the issuer's, or anybody's: it is shown as a quote.
func (a *Auth) issuerRefusal(params url.Values, tx *transaction) error {
	f := family.Failure{
		Written: a.issuer.Written(), Code: text.Printable(params.Get("error"), 60), Description: params.Get("error_description"),
		Asks: tx.Interactive && len(tx.Scopes) > 0,
	}
	subject := f.Subject()
	cause := strings.TrimSpace("the issuer answered with error " + f.Code + " " + f.Number())
	switch {
	case subject == family.Expired:
		// Whoever signed in in another tab meanwhile finds the page they asked for, and
		// anybody else starts anew.
		return fmt.Errorf("%w: %s", errStale, cause)
	case subject == family.Forgotten && a.cfg.PasswordResetFlow != "":
		return errForgotten
	case subject == family.OfConsent:
		cause += "; " + tx.askedFor()
	case refusalPages[subject] == "":
		cause += hybridHint(a.cfg, f.Code, f.Description)
	}
	if f.Description != "" {
		cause += "; it says: " + text.Clean(f.Description, sentWith(params), 300)
	}
	kind := cmp.Or(refusalPages[subject], PageIssuerError)
	return &rejection{newIssuerErrorPage(kind, f.Description, tx.Return), errors.New(cause)}
}

// sentWith are the parameters of an answer that must not be logged, should its
// description repeat them.
func sentWith(params url.Values) (values []string) {
	for name, v := range params {
		if name != "error" && name != "error_description" {
			values = append(values, v...)
		}
	}
	return values
}

// land ends a sign-in: cookie and redirect.
func (a *Auth) land(w http.ResponseWriter, r *http.Request, tx *transaction, b *browser, done *redeemed) {
	if done.secret != nil {
		if err := a.sess.write(w, r, done.secret); err != nil {
			a.fail(w, r, a.unavailable(site.NewReturnPath(tx.Return), err), tx.id(), err)
			return
		}
	}
	b.tripped(tx, a.now(), false)
	a.browsers.write(w, r, b)
	switch done.unmet {
	case unmetScopes:
		a.fail(w, r, newPage(PageConsentRefused, tx.Return), tx.id(), errors.New("not all was granted; "+tx.askedFor()))
	case unmetACR:
		missing := "acr " + strings.Join(tx.ACR, " ")
		a.fail(w, r, newStepUpPage(missing, tx.Return), tx.id(), errors.New("the issuer did not meet what the page requires: "+missing))
	default:
		site.RedirectWithin(w, site.NewReturnPath(tx.Return))
	}
}

// rejected answers a callback that failed. The running session is untouched.
func (a *Auth) rejected(w http.ResponseWriter, r *http.Request, tx *transaction, err error) {
	id, to := "", site.ReturnPath{}
	if tx != nil {
		id, to = tx.id(), site.NewReturnPath(tx.Return)
	}
	if rej, ok := errors.AsType[*rejection](err); ok {
		page := rej.page // others who wait for the same redemption have it too
		switch page.Kind {
		case PageAccountRefused, PageSignInRefused:
			// The page asked for would only get the same account again.
			words, quote := page.Text, page.Quote
			page = newIssuerErrorPage(page.Kind, quote, a.switchAccount(r, to))
			page.Text = words
		}
		a.fail(w, r, page, id, err)
		return
	}
	a.fail(w, r, a.unavailable(to, err), id, err)
}
