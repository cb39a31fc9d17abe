package signin

import (
	"net/http"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/text"
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
