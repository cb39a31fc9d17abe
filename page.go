package signin

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
	"github.com/seed454743b5/signin/internal/web"
)

// Page is what a person is told when a request ends with us and not with the
// application: that something went wrong, and what to do about it. It holds
// nothing secret. A field that does not apply is empty.
//
// As an [http.Handler] it writes itself with the built-in design, so that
// [Config.Page] may change its words, to another language say, and no more:
//
//	Page: func(w http.ResponseWriter, r *http.Request, p signin.Page) {
//		if p.Kind == signin.PageSignedOut {
//			p.Lang, p.Title, p.Text, p.Advice = "de", "Abgemeldet", "Sie sind abgemeldet.", ""
//		}
//		p.ServeHTTP(w, r)
//	}
type Page struct {
	// Kind names the occasion.
	Kind PageKind

	// Status is the HTTP status. Zero means 200.
	Status int

	// RetryAfter, if positive, is sent as Retry-After, in whole seconds.
	RetryAfter time.Duration

	// Lang is the language of the words, a BCP 47 tag. Empty means "en".
	Lang string

	// Title is the heading; Text says what happened and Advice what to do, each
	// in a sentence or two that a user understands.
	Title, Text, Advice string

	// Quote is what the issuer said for itself (error_description), under the
	// heading QuoteLabel. Whoever can send the browser here can write it, so it
	// is plain text, cleaned of control characters and at most 300 runes long,
	// and must be escaped like any other.
	Quote, QuoteLabel string

	// User is the name of who is signed in, as [User.Name] has it, cleaned
	// like Quote, under the heading UserLabel.
	User, UserLabel string

	// Reference is a short random id that stands in the log, too, under the
	// heading ReferenceLabel.
	Reference, ReferenceLabel string

	// Actions are what the user may do next, the likeliest first.
	Actions []PageAction

	// Login is where signing in begins, for a script that can open a window.
	Login string

	// problem says that only a script can have asked: a problem document,
	// whatever Accept says.
	problem bool
}

// PageAction is a link or a button of a [Page].
type PageAction struct {
	// Label is the text, URL where it leads: an absolute path of this site or
	// an http or https URL.
	Label, URL string

	// Method is "POST" for a form with one button. Empty means a link.
	Method string
}

// maxQuote and maxUser are in runes. Ten times as many bytes are looked at.
const (
	maxQuote = 300
	maxUser  = 100
)

//go:embed page.html
var pageSource string

var (
	pageTemplate = template.Must(template.New("page").Parse(pageSource))
	pageStyle    = styleHash(pageSource)
)

// styleHash names the one style element that may apply (CSP Level 3, 2.3.1).
// A hash, unlike a nonce, leaves nothing for a page to reveal.
func styleHash(source string) string {
	_, source, _ = strings.Cut(source, "<style>")
	source, _, _ = strings.Cut(source, "</style>")
	sum := sha256.Sum256([]byte(source))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// writePage answers with p: a problem document for who asks for JSON or is a
// script, else HTML, by custom (Config.Page) if it is not nil.
func writePage(w http.ResponseWriter, r *http.Request, p Page, custom func(http.ResponseWriter, *http.Request, Page)) {
	if custom == nil || p.problem || wantsProblem(r) {
		p.ServeHTTP(w, r)
		return
	}
	p = p.checked()
	p.writeHeader(w)
	custom(w, r, p)
}

// ServeHTTP writes p as HTML, or as a problem document (RFC 9457) if the
// request asks for JSON or comes from a script. A HEAD request gets no body.
// What cannot be shown safely is left out: an action whose URL is no path of
// this site and no http or https URL, a Quote beyond its bounds.
func (p Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p = p.checked()
	p.writeHeader(w)
	h := w.Header()
	var body bytes.Buffer
	if p.problem || wantsProblem(r) {
		h.Set("Content-Type", "application/problem+json")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		p.renderProblem(&body)
	} else {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", p.policy())
		// Everything in p is a string or an int and the buffer takes it all,
		// so this fails for a fault in the template only, which tests find.
		if err := pageTemplate.Execute(&body, p); err != nil {
			http.Error(w, p.Title, p.Status)
			return
		}
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		w.Write(body.Bytes())
	}
}

// policy is the Content-Security-Policy of the HTML. Chromium holds form-action
// against every redirect that follows the form, too, and a sign-out goes on to
// the issuer and wherever that leads; 'self' alone would stop it halfway.
func (p Page) policy() string {
	formAction := "'self'"
	for _, a := range p.Actions {
		if a.Method == http.MethodPost {
			formAction = "'self' https: http://localhost:* http://127.0.0.1:*"
		}
	}
	return "default-src 'none'; style-src " + pageStyle + "; form-action " + formAction +
		"; base-uri 'none'; frame-ancestors 'none'"
}

// writeHeader sets what holds for every rendering, the application's included.
func (p Page) writeHeader(w http.ResponseWriter) {
	h := w.Header()
	// A handler that challenges late may have described another answer already.
	for _, name := range []string{"Content-Length", "Content-Disposition", "Etag", "Last-Modified", "Expires"} {
		h.Del(name)
	}
	site.NoStore(w)
	h.Set("X-Content-Type-Options", "nosniff")
	// The URL of a callback holds the code, if the mode is query.
	h.Set("Referrer-Policy", "no-referrer")
	if p.RetryAfter > 0 {
		seconds := (p.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
}

// checked returns p without what is unsafe to show.
func (p Page) checked() Page {
	if p.Status == 0 {
		p.Status = http.StatusOK
	}
	p.Lang = cmp.Or(p.Lang, pageLang)
	p.Quote = plainText(p.Quote, maxQuote)
	p.User = plainText(p.User, maxUser)
	if !safePageURL(p.Login) {
		p.Login = ""
	}
	var actions []PageAction
	for _, a := range p.Actions {
		if safePageURL(a.URL) {
			actions = append(actions, a)
		}
	}
	p.Actions = actions
	return p
}

// safePageURL reports whether a browser takes u for a page of this site or of
// a web server: not for a script, and not for another host by //.
func safePageURL(u string) bool {
	parsed, err := url.Parse(u)
	path, _, _ := strings.Cut(u, "?") // where browsers take \ for /
	if err != nil || strings.Contains(path, `\`) || strings.ContainsFunc(u, func(r rune) bool { return r <= ' ' || r == utf8.RuneError }) {
		return false
	}
	if parsed.Scheme == "https" || parsed.Scheme == "http" {
		return parsed.Host != "" && parsed.User == nil
	}
	return parsed.Scheme == "" && strings.HasPrefix(u, "/") && !strings.HasPrefix(u, "//")
}

// plainText returns at most n runes of s that can be seen and cannot disturb
// what stands beside them: no control, bidi or zero-width characters, no
// towers of accents, and no run of spaces.
func plainText(s string, n int) string {
	cut := len(s) > 10*n
	if cut {
		s = s[:10*n]
	}
	var out []rune
	space, marks := false, 0
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = true
			continue
		case unicode.Is(unicode.C, r) || r == utf8.RuneError:
			continue
		case unicode.Is(unicode.M, r):
			if marks++; marks > 3 {
				continue
			}
		default:
			marks = 0
		}
		if space && len(out) > 0 {
			out = append(out, ' ')
		}
		space = false
		if out = append(out, r); len(out) > n {
			cut = true
			break
		}
	}
	if cut && len(out) > 0 {
		return string(out[:min(len(out), n-1)]) + "…"
	}
	return string(out)
}

// problemType leads to the documentation of the kinds.
const problemType = "https://pkg.go.dev/github.com/seed454743b5/signin?kind="

// renderProblem writes p as a problem document. Its members say what the page
// says, and login where a script sends its user (RFC 9457, 3.2).
func (p Page) renderProblem(body *bytes.Buffer) {
	problem := struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail,omitempty"`
		Advice    string `json:"advice,omitempty"`
		Quote     string `json:"issuer_says,omitempty"`
		User      string `json:"user,omitempty"`
		Login     string `json:"login,omitempty"`
		Reference string `json:"reference,omitempty"`
	}{problemType + url.QueryEscape(string(p.Kind)) + "#Page", p.Title, p.Status, p.Text, p.Advice, p.Quote, p.User, p.Login, p.Reference}
	// Strings and an int into a buffer: this cannot fail.
	json.NewEncoder(body).Encode(problem)
}

// wantsProblem reports whether the request prefers a problem document: Accept
// says so, or it names neither HTML nor JSON and a script sent the request.
func wantsProblem(r *http.Request) bool {
	html, problem := web.Acceptance(r.Header.Values("Accept"))
	if html > 0 || problem > 0 {
		return problem >= html
	}
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "", "navigate", "nested-navigate":
		return r.Header.Get("X-Requested-With") != ""
	}
	return true
}

// newReference returns an id that a person can read out on the telephone: 40
// random bits, enough to find one line in a log.
func newReference() string {
	s := strings.ToLower(rand.Text()[:8])
	return s[:4] + "-" + s[4:]
}

// loopError is why round trips come to nothing, as far as the last of them
// tells: for the log, and for the page.
type loopError struct{ cause, text, advice string }

func (e *loopError) Error() string {
	return "sign-in completed three times in a minute and came to nothing: " + e.cause
}

const adviceOperator = "You have done nothing wrong. Tell the people who run this site, and give them the reference below. "

var (
	loopNoCookie = &loopError{
		"the session cookie did not come back",
		"Your browser did not send back the cookie that says who is signed in.",
		"Check that your browser accepts and keeps cookies for this site, and that the date and time of your device are right. Then try again. If it still fails, tell the people who run this site, and give them the reference below.",
	}
	loopNoRecord = &loopError{
		"the session cookie came back and opens under our keys, but this replica's store has no record of the session: do all replicas share one store?",
		"Your browser did send back the cookie that says who is signed in, but this server knows nothing of that session.",
		adviceOperator + "They should check: do all replicas share one store?",
	}
	loopOtherKeys = &loopError{
		"the session cookie came back and does not open under our keys, or its record does not: do all replicas have the same Config.Keys?",
		"Your browser did send back the cookie that says who is signed in, but this server cannot open it.",
		adviceOperator + "They should check: do all replicas have the same keys?",
	}
	loopStale = &loopError{
		"the issuer's answers came too late to be used, what they belong to had been used or signed out, or the issuer's page had expired: do the clocks of all replicas agree?",
		"The answer of the sign-in service could not be used any more when it arrived.",
		adviceOperator + "They should check: do the clocks of all servers agree?",
	}
	loopNotEnough = &loopError{
		"somebody is signed in, and the issuer did not give what the page needs, or the page asks for a sign-in all the same",
		"You are signed in, but the page still asks for more than the sign-in service gave.",
		adviceTellUs,
	}
	loopUnknown = &loopError{
		"no session was found, and why cannot be told",
		"", adviceTellUs,
	}
)

// A PageKind names the occasion of a [Page]. The values do not change between
// versions. More may be added, so an unknown kind deserves its own Title and
// Text.
type PageKind string

// The kinds of [Page].
const (
	PageCallbackUnreadable PageKind = "callback-unreadable" // form or query that does not parse
	PageCallbackEmpty      PageKind = "callback-empty"      // neither code nor error: answered by fragment, or opened by hand
	PageCallbackState      PageKind = "callback-state"      // state missing, altered, or sealed by other keys
	PageCallbackDuplicate  PageKind = "callback-duplicate"  // a parameter occurs twice
	PageCallbackTooLarge   PageKind = "callback-too-large"  // form, query or cookies beyond their bounds
	PageCallbackMethod     PageKind = "callback-method"     // a method that a path of ours does not take
	PageNoCookies          PageKind = "no-cookies"          // the browser cookie did not come back
	PageNoSecureCookies    PageKind = "no-secure-cookies"   // plain http on loopback, in a browser that keeps no Secure cookie there
	PageCancelled          PageKind = "cancelled"           // the user turned back at the issuer
	PageForgotPassword     PageKind = "forgot-password"     // the user asked for a password reset that the issuer leaves to the site
	PageConsentRefused     PageKind = "consent-refused"     // scopes were asked for and not granted
	PageStepUpRefused      PageKind = "step-up-refused"     // the issuer did not meet a Requirement's ACR
	PageIssuerError        PageKind = "issuer-error"        // the issuer answered with another error
	PageTokenRejected      PageKind = "token-rejected"      // an ID token did not pass its checks
	PageRedeemRefused      PageKind = "redeem-refused"      // the issuer refused the code
	PageRedeemUnreachable  PageKind = "redeem-unreachable"  // the token endpoint could not be reached
	PageRedeemTimeout      PageKind = "redeem-timeout"      // the token endpoint took too long
	PageAnswerTooLarge     PageKind = "answer-too-large"    // the issuer's tokens are larger than a session can hold
	PageLoop               PageKind = "loop"                // sign-in completed again and again without progress; Text and Advice differ by cause
	PageIssuerDown         PageKind = "issuer-unavailable"  // 503: the issuer does not answer
	PageStoreDown          PageKind = "store-unavailable"   // 503: the store does not answer
	PageInternal           PageKind = "internal-error"      // a mistake in the application or its configuration
	PageSignInRequired     PageKind = "sign-in-required"    // 401: for what cannot follow a redirect
	PageMoreRequired       PageKind = "more-required"       // 401: consent or step-up, for what cannot follow a redirect
	PageSessionEnded       PageKind = "session-ended"       // 401: a form was posted without a session
	PagePermissionNeeded   PageKind = "permission-needed"   // 401: a form was posted that needs consent or step-up
	PageForbidden          PageKind = "forbidden"           // 403: Requirement.Allow refuses
	PageAccountRefused     PageKind = "account-refused"     // 403: the user's tenant is not admitted, or the issuer refuses the user
	PageSignInRefused      PageKind = "sign-in-refused"     // 403: Config.OnSignIn refuses
	PageSignInUnfinished   PageKind = "sign-in-unfinished"  // 503: Config.OnSignIn or userinfo failed in a way that may pass; a reload goes on
	PageSignedOut          PageKind = "signed-out"          // after a sign-out
	PageStillSignedIn      PageKind = "still-signed-in"     // the signed-out page, opened by a user who is signed in
	PageSignOut            PageKind = "sign-out"            // asks before signing out
	PageSignOutRefused     PageKind = "sign-out-refused"    // the sign-out came from another site
)

// Whatever a page says stands below, so that it can be read, and translated,
// in one go.
const (
	pageLang           = "en"
	pageQuoteLabel     = "The sign-in service said"
	pageUserLabel      = "Signed in as"
	pageReferenceLabel = "Reference"

	tryAgain    = "Try again"
	signInAgain = "Sign in again"

	adviceTellUs = "Please try again. If it happens again, tell the people who run this site, and give them the reference below."
)

// pageWords has one entry for each kind. label names the one action of a kind
// that has one.
var pageWords = map[PageKind]struct {
	status              int
	title, text, advice string
	label               string
}{
	PageCallbackUnreadable: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The answer of the sign-in service could not be read.",
		adviceTellUs, tryAgain,
	},
	PageCallbackEmpty: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The sign-in service sent you back here without an answer, or this page was opened by itself.",
		adviceTellUs, tryAgain,
	},
	PageCallbackState: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The answer of the sign-in service belongs to no sign-in that this site started, or it was changed on its way here. This also happens if the sign-in page was opened from a bookmark.",
		"Please try again. Nothing else has changed: if you were signed in, you still are.", tryAgain,
	},
	PageCallbackDuplicate: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The answer of the sign-in service said the same thing more than once, so that nobody can tell which one is meant. It was not used.",
		adviceTellUs, tryAgain,
	},
	PageCallbackTooLarge: {
		http.StatusRequestEntityTooLarge, "Sign-in was not completed",
		"Your browser sent more data than any sign-in needs, so it was not read.",
		"Delete the cookies of this site, then try again.", tryAgain,
	},
	PageCallbackMethod: {
		http.StatusMethodNotAllowed, "Sign-in was not completed",
		"This address only takes the answer of the sign-in service, in the way the service sends it.",
		"Go back to the site and sign in from there.", tryAgain,
	},
	PageNoCookies: {
		http.StatusBadRequest, "Your browser sent no cookie",
		"To sign you in, this site puts a cookie in your browser and looks for it when you come back. It was not there: your browser blocks cookies or has deleted them, or you began somewhere else: in another browser, in a private window, or with a bookmark of the sign-in page.",
		"Try again from here. If this page comes back, allow cookies for this site, also those called third-party or cross-site.", tryAgain,
	},
	PageNoSecureCookies: {
		http.StatusBadRequest, "This browser cannot sign in here",
		"This site is open without https, as a site under development is. Your browser does not keep the kind of cookie that the sign-in needs there.",
		"Use another browser. If you run this site, serve it over https, or set ResponseType to code and ResponseMode to query.", tryAgain,
	},
	PageCancelled: {
		http.StatusForbidden, "Sign-in was cancelled",
		"Signing in was stopped before it was finished. Nothing has changed.",
		"If you did not mean to stop, try again.", tryAgain,
	},
	PageForgotPassword: {
		http.StatusForbidden, "Your password was not reset",
		"You told the sign-in service that you have forgotten your password. This site cannot reset it. Nothing has changed.",
		"If you remember it, try again. Otherwise ask the people who run this site how to reset it.", tryAgain,
	},
	PageConsentRefused: {
		http.StatusForbidden, "Permission was not given",
		"This site asked to act for you, and you or your organisation did not allow it. What you were about to do does not work without that.",
		"You can try again and agree, or ask your administrator to agree for you.", tryAgain,
	},
	PageIssuerError: {
		http.StatusBadRequest, "The sign-in service reported an error",
		"The sign-in service could not do what this site asked.",
		adviceTellUs, tryAgain,
	},
	PageTokenRejected: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The sign-in service named a user, but its word did not pass our checks. To be safe, nobody was signed in.",
		adviceTellUs, tryAgain,
	},
	PageRedeemRefused: {
		http.StatusBadGateway, "Sign-in was not completed",
		"The sign-in service let you in, but then refused to tell this site who you are.",
		adviceTellUs, tryAgain,
	},
	PageRedeemUnreachable: {
		http.StatusBadGateway, "Sign-in was not completed",
		"You were let in, but then this site could not reach the sign-in service to ask who you are.",
		"Wait a moment, then try again.", tryAgain,
	},
	PageRedeemTimeout: {
		http.StatusGatewayTimeout, "Sign-in was not completed",
		"You were let in, but then the sign-in service took too long to tell this site who you are.",
		"Wait a moment, then try again.", tryAgain,
	},
	PageAnswerTooLarge: {
		http.StatusBadGateway, "The sign-in service sent too much",
		"What the sign-in service tells about you is more than this site can hold.",
		"To try again will not help. Tell the people who run this site, and give them the reference below.", tryAgain,
	},
	PageLoop: {
		http.StatusForbidden, "Sign-in keeps failing",
		"You have been to the sign-in service and back several times within a minute, and each time this site did not get what it needs. We stopped here, or it would go on for ever.",
		adviceTellUs, tryAgain,
	},
	PageStepUpRefused: {
		http.StatusForbidden, "This sign-in is not enough",
		"The page that you asked for needs a stronger sign-in than the sign-in service gave.",
		"Try again if the sign-in service lets you choose another way to sign in. Otherwise tell the people who run this site, and give them the reference below.", tryAgain,
	},
	PageIssuerDown: {
		http.StatusServiceUnavailable, "Sign-in is not available right now",
		"This site cannot reach the sign-in service. You have done nothing wrong.",
		"Wait a moment, then try again.", tryAgain,
	},
	PageStoreDown: {
		http.StatusServiceUnavailable, "This page is not available right now",
		"This site cannot look up your session at the moment. If you were signed in, you still are.",
		"Wait a moment, then try again.", tryAgain,
	},
	PageInternal: {
		http.StatusInternalServerError, "Something went wrong",
		"This site could not do what you asked, for a reason of its own.",
		adviceTellUs, tryAgain,
	},
	PageSignInRequired: {
		http.StatusUnauthorized, "Sign-in required",
		"Nobody is signed in, or the session has ended.",
		"Open the sign-in page, then send the request again.", signInAgain,
	},
	PageMoreRequired: {
		http.StatusUnauthorized, "One more step is needed",
		"You are signed in, but this needs you to allow more, or to prove again who you are.",
		"Open the page below, then send the request again.", "Continue",
	},
	PageSessionEnded: {
		http.StatusUnauthorized, "Your session ended while you were typing",
		"What you sent was not processed, because nobody is signed in any more.",
		"Go back in your browser and copy what you typed. Then sign in again, and send it once more.", signInAgain,
	},
	PagePermissionNeeded: {
		http.StatusUnauthorized, "One more step is needed",
		"What you sent was not processed: it needs you to confirm it with the sign-in service first.",
		"Go back in your browser and copy what you typed. Then continue here, and send it once more.", "Continue",
	},
	PageForbidden: {
		http.StatusForbidden, "You have no access to this page",
		"You are signed in, but this page is not open to your account.",
		"Use another account, or ask the people who run this site for access.", "Use another account",
	},
	PageAccountRefused: {
		http.StatusForbidden, "This account cannot be used here",
		"You signed in with an account that this site does not admit, for example one of another organisation. You are not signed in here with it.",
		"If you have another account, use that one.", "Use another account",
	},
	PageSignInRefused: {
		http.StatusForbidden, "This account cannot be used here",
		"You signed in, but this site does not admit the account. You are not signed in here with it.",
		"If you have another account, use that one.", "Use another account",
	},
	PageSignInUnfinished: {
		http.StatusServiceUnavailable, "Sign-in is not finished yet",
		"You signed in, but this site could not finish its part just now.",
		"Reload this page in a moment: you need not enter anything again.", signInAgain,
	},
	PageSignedOut: {
		http.StatusOK, "You are signed out",
		"Your session on this site has ended.",
		"On a device that others use, too, close the browser as well.", signInAgain,
	},
	PageStillSignedIn: {
		http.StatusOK, "You are still signed in",
		"Your session on this site has not ended.",
		"If you want to sign out, go to the site and do it there.", "Go to the site",
	},
	PageSignOut: {
		http.StatusOK, "Sign out?",
		"This ends your session on this site.",
		"", "Sign out",
	},
	PageSignOutRefused: {
		http.StatusForbidden, "You are still signed in",
		"Another site tried to sign you out of this one. We did not let it.",
		"If you do want to sign out, do it here.", "Sign out",
	},
}

// newPage returns the page of a kind. The URL is where its one action leads,
// by GET, or by POST where the action is to sign out; empty leaves it out. For
// the kinds whose action is to sign in, it is also [Page.Login].
func newPage(kind PageKind, actionURL string) Page {
	words := pageWords[kind]
	p := Page{
		Kind:   kind,
		Status: words.status,
		Lang:   pageLang,
		Title:  words.title, Text: words.text, Advice: words.advice,
		QuoteLabel: pageQuoteLabel, UserLabel: pageUserLabel, ReferenceLabel: pageReferenceLabel,
		problem: kind == PageSignInRequired || kind == PageMoreRequired,
	}
	if actionURL != "" {
		p.Actions = []PageAction{{Label: words.label, URL: actionURL}}
	}
	switch kind {
	case PageSignInRequired, PageMoreRequired, PageSessionEnded, PagePermissionNeeded:
		p.Login = actionURL
	case PageSignOut, PageSignOutRefused:
		for i := range p.Actions {
			p.Actions[i].Method = http.MethodPost
		}
	}
	return p
}

// newIssuerErrorPage quotes the issuer's error_description, which may be
// anything at all.
func newIssuerErrorPage(kind PageKind, description, actionURL string) Page {
	p := newPage(kind, actionURL)
	p.Quote = description
	return p
}

// newRefusedPage says why, in the application's words.
func newRefusedPage(words, actionURL string) Page {
	p := newPage(PageSignInRefused, actionURL)
	if words = plainText(words, maxQuote); words != "" {
		p.Text = words
	}
	return p
}

// newTooLargePage says which part of the issuer's answer is too large, by how
// much: whoever runs the site can do something about it.
func newTooLargePage(err *oidc.TooLargeError, actionURL string) Page {
	p := newPage(PageAnswerTooLarge, actionURL)
	p.Text += " In its answer, " + err.Error() + "."
	return p
}

// newUnavailablePage asks the browser to come back after retry.
func newUnavailablePage(kind PageKind, actionURL string, retry time.Duration) Page {
	p := newPage(kind, actionURL)
	p.RetryAfter = retry
	return p
}

// newLoopPage says what is known of the cause.
func newLoopPage(cause *loopError, actionURL string) Page {
	p := newPage(PageLoop, actionURL)
	p.Text += " " + cause.text
	p.Advice = cause.advice
	return p
}

// newStepUpPage names what is missing in the words of the protocol, for the
// people who run the site.
func newStepUpPage(missing, actionURL string) Page {
	p := newPage(PageStepUpRefused, actionURL)
	p.Text += " It was asked for " + text.Printable(missing, 200) + "."
	return p
}

// newForbiddenPage says who is signed in, for whoever has two accounts often
// does not know.
func newForbiddenPage(user, switchURL string) Page {
	p := newPage(PageForbidden, switchURL)
	p.User = user
	return p
}
