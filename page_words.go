package signin

import (
	"net/http"
	"time"
)

// The kinds of [Page].
const (
	pageCallbackUnreadable = "callback-unreadable" // form or query that does not parse
	pageCallbackEmpty      = "callback-empty"      // neither code nor error: answered by fragment, or opened by hand
	pageCallbackState      = "callback-state"      // state missing, altered, or sealed by other keys
	pageCallbackDuplicate  = "callback-duplicate"
	pageCallbackTooLarge   = "callback-too-large"
	pageCallbackMethod     = "callback-method"
	pageNoCookies          = "no-cookies"
	pageNoSecureCookies    = "no-secure-cookies"
	pageCancelled          = "cancelled"
	pageConsentRefused     = "consent-refused"
	pageIssuerError        = "issuer-error"
	pageTokenRejected      = "token-rejected"
	pageRedeemRefused      = "redeem-refused"
	pageRedeemUnreachable  = "redeem-unreachable"
	pageRedeemTimeout      = "redeem-timeout"
	pageAnswerTooLarge     = "answer-too-large"
	pageLoop               = "loop"
	pageIssuerDown         = "issuer-unavailable"
	pageStoreDown          = "store-unavailable"
	pageInternal           = "internal-error"
	pageSignInRequired     = "sign-in-required"
	pageMoreRequired       = "more-required"
	pageSessionEnded       = "session-ended"
	pagePermissionNeeded   = "permission-needed"
	pageForbidden          = "forbidden"
	pageAccountRefused     = "account-refused"
	pageSignedOut          = "signed-out"
	pageStillSignedIn      = "still-signed-in"
	pageSignOut            = "sign-out"
	pageSignOutRefused     = "sign-out-refused"
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
var pageWords = map[string]struct {
	status              int
	title, text, advice string
	label               string
}{
	pageCallbackUnreadable: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The answer of the sign-in service could not be read.",
		adviceTellUs, tryAgain,
	},
	pageCallbackEmpty: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The sign-in service sent you back here without an answer, or this page was opened by itself.",
		adviceTellUs, tryAgain,
	},
	pageCallbackState: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The answer of the sign-in service belongs to no sign-in that this site started, or it was changed on its way here. This also happens if the sign-in page was opened from a bookmark.",
		"Please try again. Nothing else has changed: if you were signed in, you still are.", tryAgain,
	},
	pageCallbackDuplicate: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The answer of the sign-in service said the same thing more than once, so that nobody can tell which one is meant. It was not used.",
		adviceTellUs, tryAgain,
	},
	pageCallbackTooLarge: {
		http.StatusRequestEntityTooLarge, "Sign-in was not completed",
		"Your browser sent more data than any sign-in needs, so it was not read.",
		"Delete the cookies of this site, then try again.", tryAgain,
	},
	pageCallbackMethod: {
		http.StatusMethodNotAllowed, "Sign-in was not completed",
		"This address only takes the answer of the sign-in service, in the way the service sends it.",
		"Go back to the site and sign in from there.", tryAgain,
	},
	pageNoCookies: {
		http.StatusBadRequest, "Your browser sent no cookie",
		"To sign you in, this site puts a cookie in your browser and looks for it when you come back. It was not there: your browser blocks cookies or has deleted them, or you began somewhere else: in another browser, in a private window, or with a bookmark of the sign-in page.",
		"Try again from here. If this page comes back, allow cookies for this site, also those called third-party or cross-site.", tryAgain,
	},
	pageNoSecureCookies: {
		http.StatusBadRequest, "This browser cannot sign in here",
		"This site is open without https, as a site under development is. Your browser does not keep the kind of cookie that the sign-in needs there.",
		"Use another browser. If you run this site, serve it over https, or set ResponseType to code and ResponseMode to query.", tryAgain,
	},
	pageCancelled: {
		http.StatusForbidden, "Sign-in was cancelled",
		"Signing in was stopped before it was finished. Nothing has changed.",
		"If you did not mean to stop, try again.", tryAgain,
	},
	pageConsentRefused: {
		http.StatusForbidden, "Permission was not given",
		"This site asked to act for you, and you or your organisation did not allow it. What you were about to do does not work without that.",
		"You can try again and agree, or ask your administrator to agree for you.", tryAgain,
	},
	pageIssuerError: {
		http.StatusBadRequest, "The sign-in service reported an error",
		"The sign-in service could not do what this site asked.",
		adviceTellUs, tryAgain,
	},
	pageTokenRejected: {
		http.StatusBadRequest, "Sign-in was not completed",
		"The sign-in service named a user, but its word did not pass our checks. To be safe, nobody was signed in.",
		adviceTellUs, tryAgain,
	},
	pageRedeemRefused: {
		http.StatusBadGateway, "Sign-in was not completed",
		"The sign-in service let you in, but then refused to tell this site who you are.",
		adviceTellUs, tryAgain,
	},
	pageRedeemUnreachable: {
		http.StatusBadGateway, "Sign-in was not completed",
		"You were let in, but then this site could not reach the sign-in service to ask who you are.",
		"Wait a moment, then try again.", tryAgain,
	},
	pageRedeemTimeout: {
		http.StatusGatewayTimeout, "Sign-in was not completed",
		"You were let in, but then the sign-in service took too long to tell this site who you are.",
		"Wait a moment, then try again.", tryAgain,
	},
	pageAnswerTooLarge: {
		http.StatusBadGateway, "The sign-in service sent too much",
		"What the sign-in service tells about you is more than this site can hold.",
		"To try again will not help. Tell the people who run this site, and give them the reference below.", tryAgain,
	},
	pageLoop: {
		http.StatusForbidden, "Sign-in keeps failing",
		"You have been to the sign-in service and back several times within a minute, and each time this site did not get what it needs. We stopped here, or it would go on for ever.",
		"Check that your browser accepts and keeps cookies for this site, and that the date and time of your device are right. Then try again. If it still fails, tell the people who run this site, and give them the reference below.", tryAgain,
	},
	pageIssuerDown: {
		http.StatusServiceUnavailable, "Sign-in is not available right now",
		"This site cannot reach the sign-in service. You have done nothing wrong.",
		"Wait a moment, then try again.", tryAgain,
	},
	pageStoreDown: {
		http.StatusServiceUnavailable, "This page is not available right now",
		"This site cannot look up your session at the moment. If you were signed in, you still are.",
		"Wait a moment, then try again.", tryAgain,
	},
	pageInternal: {
		http.StatusInternalServerError, "Something went wrong",
		"This site could not do what you asked, for a reason of its own.",
		adviceTellUs, tryAgain,
	},
	pageSignInRequired: {
		http.StatusUnauthorized, "Sign-in required",
		"Nobody is signed in, or the session has ended.",
		"Open the sign-in page, then send the request again.", signInAgain,
	},
	pageMoreRequired: {
		http.StatusUnauthorized, "One more step is needed",
		"You are signed in, but this needs you to allow more, or to prove again who you are.",
		"Open the page below, then send the request again.", "Continue",
	},
	pageSessionEnded: {
		http.StatusUnauthorized, "Your session ended while you were typing",
		"What you sent was not processed, because nobody is signed in any more.",
		"Go back in your browser and copy what you typed. Then sign in again, and send it once more.", signInAgain,
	},
	pagePermissionNeeded: {
		http.StatusUnauthorized, "One more step is needed",
		"What you sent was not processed: it needs you to confirm it with the sign-in service first.",
		"Go back in your browser and copy what you typed. Then continue here, and send it once more.", "Continue",
	},
	pageForbidden: {
		http.StatusForbidden, "You have no access to this page",
		"You are signed in, but this page is not open to your account.",
		"Use another account, or ask the people who run this site for access.", "Use another account",
	},
	pageAccountRefused: {
		http.StatusForbidden, "This account cannot be used here",
		"You signed in with an account that this site does not admit, for example one of another organisation. You are not signed in here with it.",
		"If you have another account, use that one.", "Use another account",
	},
	pageSignedOut: {
		http.StatusOK, "You are signed out",
		"Your session on this site has ended.",
		"On a device that others use, too, close the browser as well.", signInAgain,
	},
	pageStillSignedIn: {
		http.StatusOK, "You are still signed in",
		"Your session on this site has not ended.",
		"If you want to sign out, go to the site and do it there.", "Go to the site",
	},
	pageSignOut: {
		http.StatusOK, "Sign out?",
		"This ends your session on this site.",
		"", "Sign out",
	},
	pageSignOutRefused: {
		http.StatusForbidden, "You are still signed in",
		"Another site tried to sign you out of this one. We did not let it.",
		"If you do want to sign out, do it here.", "Sign out",
	},
}

// newPage returns the page of a kind. The URL is where its one action leads,
// by GET, or by POST where the action is to sign out; empty leaves it out. For
// the kinds whose action is to sign in, it is also [Page.Login].
func newPage(kind, actionURL string) Page {
	words := pageWords[kind]
	p := Page{
		Kind:   kind,
		Status: words.status,
		Lang:   pageLang,
		Title:  words.title, Text: words.text, Advice: words.advice,
		QuoteLabel: pageQuoteLabel, UserLabel: pageUserLabel, ReferenceLabel: pageReferenceLabel,
		problem: kind == pageSignInRequired || kind == pageMoreRequired,
	}
	if actionURL != "" {
		p.Actions = []PageAction{{Label: words.label, URL: actionURL}}
	}
	switch kind {
	case pageSignInRequired, pageMoreRequired, pageSessionEnded, pagePermissionNeeded:
		p.Login = actionURL
	case pageSignOut, pageSignOutRefused:
		for i := range p.Actions {
			p.Actions[i].Method = http.MethodPost
		}
	}
	return p
}

// newIssuerErrorPage quotes the issuer's error_description, which may be
// anything at all.
func newIssuerErrorPage(kind, description, actionURL string) Page {
	p := newPage(kind, actionURL)
	p.Quote = description
	return p
}

// newTooLargePage says which part of the issuer's answer is too large, by how
// much: whoever runs the site can do something about it.
func newTooLargePage(err *tooLargeError, actionURL string) Page {
	p := newPage(pageAnswerTooLarge, actionURL)
	p.Text += " In its answer, " + err.Error() + "."
	return p
}

// newUnavailablePage asks the browser to come back after retry.
func newUnavailablePage(kind, actionURL string, retry time.Duration) Page {
	p := newPage(kind, actionURL)
	p.RetryAfter = retry
	return p
}

// newForbiddenPage says who is signed in, for whoever has two accounts often
// does not know.
func newForbiddenPage(user, switchURL string) Page {
	p := newPage(pageForbidden, switchURL)
	p.User = user
	return p
}
