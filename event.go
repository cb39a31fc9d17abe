package signin

import (
	"log/slog"
	"time"
)

// Event is one thing that happened, as it is logged and as [Config].Observe
// gets it. It holds no token, code, cookie, secret or claim beside iss and sub;
// fields that do not apply are zero.
type Event struct {
	// Name is one of the names below. More may be added.
	//
	//	challenge         a browser was sent to the issuer, for Reason and Scopes
	//	signed in         a code was redeemed; Duration is the token request's and the save's
	//	stale callback    an answer that was expired, used up or another browser's
	//	rejected          a request ended with the error page Page, because of Err
	//	refreshed         an access token was obtained; Duration is the token request's
	//	refresh failed    it was not, in a way that may pass
	//	refresh refused   it was not, and the user must act, for Reason
	//	signed out        a session was ended by its user, the issuer or an administrator
	//	id token ignored  a refreshed ID token was not used, because of Err; the session goes on
	//	session ended     a session was ended by us, because of Err
	//	store failing     the store failed where nobody was there to be told
	//	issuer failing    keys or metadata could not be fetched where nobody waited for them
	//	revoke failed     a refresh token could not be given back
	Name string

	// Reference ties the events of one sign-in together, and is what its
	// error page shows.
	Reference string

	// User has no more than Issuer and Subject.
	User *User

	Reason   Reason
	Scopes   []string
	Page     string // its Kind
	Status   int    // of the page
	Duration time.Duration

	// Err is the cause. Words of the issuer's in it are bounded, and what we sent
	// and what looks like an e-mail address is removed from them.
	Err error
}

// The names of events.
const (
	eventChallenge      = "challenge"
	eventSignedIn       = "signed in"
	eventStale          = "stale callback"
	eventRejected       = "rejected"
	eventRefreshed      = "refreshed"
	eventRefreshFailed  = "refresh failed"
	eventRefreshRefused = "refresh refused"
	eventSignedOut      = "signed out"
	eventIDTokenIgnored = "id token ignored"
	eventSessionEnded   = "session ended"
	eventStoreFailing   = "store failing"
	eventIssuerFailing  = "issuer failing"
	eventRevokeFailed   = "revoke failed"
)

func (e Event) level() slog.Level {
	switch e.Name {
	case eventRejected:
		if e.Status >= 500 {
			return slog.LevelError
		}
		return slog.LevelWarn
	case eventRefreshFailed, eventSessionEnded, eventStoreFailing, eventIssuerFailing, eventRevokeFailed:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
