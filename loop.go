package signin

import (
	"net/http"

	"github.com/seed454743b5/signin/internal/once"
)

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

// whyLoop looks at what the last round trip of a browser left behind. s is the
// request's session, if there is one.
func (sc *sessionCookies) whyLoop(r *http.Request, b *browser, s *session) *loopError {
	switch {
	case s != nil:
		return loopNotEnough
	case b.stale:
		return loopStale
	}
	c, err := sc.recall(r)
	switch {
	case err != nil:
		return loopUnknown
	case c.secret == nil && cookieValue(r, sc.name(sc.visits.secure(r))) != "":
		return loopOtherKeys
	case c.secret == nil:
		return loopNoCookie
	}
	sealed, err := once.ReadFresh(r.Context(), sc.store, c.key)
	switch {
	case err != nil:
		return loopUnknown
	case sealed == nil:
		return loopNoRecord
	}
	if _, err = sc.records.open(c.secret, c.key, sealed); err != nil {
		return loopOtherKeys
	}
	return loopUnknown
}
