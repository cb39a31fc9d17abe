package signin

import (
	"log/slog"
	"time"
)

// Event is one thing that happened, as it is logged and as [Config].Observe
// gets it. It holds no token, code, cookie, secret or claim beside iss and sub;
// fields that do not apply are zero.
type Event struct {
	// Name says what happened.
	Name EventName

	// Reference ties the events of one sign-in together, and is what its
	// error page shows.
	Reference string

	// User has no more than Issuer and Subject.
	User *User

	Reason   Reason
	Scopes   []string
	Page     PageKind
	Status   int // of the page
	Duration time.Duration

	// Err is the cause. Words of the issuer's in it are bounded, and what we sent
	// and what looks like an e-mail address is removed from them.
	Err error
}

// An EventName names a kind of [Event]. The values do not change between
// versions; more may be added.
type EventName string

// The names of events.
const (
	EventChallenge      EventName = "challenge"        // a browser was sent to the issuer, for Reason and Scopes
	EventSignedIn       EventName = "signed in"        // a code was redeemed; Duration is the token request's and the save's
	EventStale          EventName = "stale callback"   // an answer that was expired, used up or another browser's
	EventRejected       EventName = "rejected"         // a request ended with the error page Page, because of Err
	EventRefreshed      EventName = "refreshed"        // an access token was obtained; Duration is the token request's
	EventRefreshFailed  EventName = "refresh failed"   // it was not, in a way that may pass
	EventRefreshRefused EventName = "refresh refused"  // it was not, and the user must act, for Reason
	EventSignedOut      EventName = "signed out"       // a session was ended by its user, the issuer or an administrator
	EventIDTokenIgnored EventName = "id token ignored" // a refreshed ID token was not used, because of Err; the session goes on
	EventSessionEnded   EventName = "session ended"    // a session was ended by us, because of Err
	EventStoreFailing   EventName = "store failing"    // the store failed where nobody was there to be told
	EventIssuerFailing  EventName = "issuer failing"   // keys or metadata could not be fetched where nobody waited for them
	EventRevokeFailed   EventName = "revoke failed"    // a refresh token could not be given back
)

func (e Event) level() slog.Level {
	switch e.Name {
	case EventRejected:
		if e.Status >= 500 {
			return slog.LevelError
		}
		return slog.LevelWarn
	case EventRefreshFailed, EventSessionEnded, EventStoreFailing, EventIssuerFailing, EventRevokeFailed:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
