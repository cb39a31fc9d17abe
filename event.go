package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/text"
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
	EventStale          EventName = "stale callback"   // an answer that was expired, used up or another browser's, or of an expired page of the issuer's
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
		// Anybody can make up a token by a key that nobody knows.
		if e.Status >= 500 && !errors.Is(e.Err, oidc.ErrKeysRecent) {
			return slog.LevelError
		}
		return slog.LevelWarn
	case EventRefreshFailed, EventSessionEnded, EventStoreFailing, EventIssuerFailing, EventRevokeFailed:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// reporter tells the log, and the application if it wants to know, what
// happens.
type reporter struct {
	log     *slog.Logger
	observe func(context.Context, Event) // nil: nobody else wants to know
}

// event logs one thing that happened, under a name that does not change, and
// tells Config.Observe.
func (rep *reporter) event(ctx context.Context, e Event) {
	// Observe keeps what it gets for as long as it likes, and may modify it.
	e.Scopes = slices.Clone(e.Scopes)
	if e.User != nil {
		e.User = &User{Issuer: e.User.Issuer, Subject: e.User.Subject}
	}
	attrs := make([]slog.Attr, 0, 8)
	add := func(set bool, attr slog.Attr) {
		if set {
			attrs = append(attrs, attr)
		}
	}
	add(e.Reference != "", slog.String("ref", e.Reference))
	add(e.User != nil, slog.Any("user", e.User))
	add(e.Reason != "", slog.String("reason", string(e.Reason)))
	add(len(e.Scopes) > 0, slog.Any("scopes", e.Scopes))
	add(e.Page != "", slog.String("page", string(e.Page)))
	add(e.Duration > 0, slog.Duration("took", e.Duration))
	if e.Err != nil {
		// Bounded: parts of it may be the issuer's words.
		attrs = append(attrs, slog.String("cause", text.Printable(e.Err.Error(), 500)))
	}
	rep.log.LogAttrs(ctx, e.level(), "signin: "+string(e.Name), attrs...)
	if rep.observe != nil {
		rep.observe(ctx, e)
	}
}

// panicked logs a panic of what the application gave us, with its place: the
// error that a caller gets has no more than its value.
func (rep *reporter) panicked(ctx context.Context, value any, stack []byte) {
	rep.log.LogAttrs(ctx, slog.LevelError, "signin: panic",
		slog.String("value", text.Printable(fmt.Sprint(value), 300)), slog.String("stack", string(stack)))
}
