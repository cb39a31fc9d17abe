package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/site"
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

// notices are log lines for whoever runs the site, each at most once in a process:
// what makes an issuer turn users away before they come back, and what an
// issuer leaves out.
type notices struct {
	log *slog.Logger

	registration, noSID sync.Once
	withSID, withoutSID atomic.Bool // whether an ID token of either kind has come
}

// register tells what must be registered at the issuer. An issuer that knows
// another redirect URI, or no such client, shows an error page of its own, and
// nobody comes back to tell.
func (n *notices) register(ctx context.Context, c Config, here site.Site) {
	n.registration.Do(func() {
		at := func(path string) string { return text.Printable(here.URL(path), 300) }
		lines := []slog.Attr{
			slog.String("issuer", c.Issuer), slog.String("client_id", c.ClientID), slog.String("redirect_uri", at(c.CallbackPath)),
			slog.String("post_logout_redirect_uri", at(c.SignedOutPath)),
			slog.String("backchannel_logout_uri", at(sibling(c.CallbackPath, "backchannel-logout"))),
		}
		if !c.NoFrontChannelLogout {
			lines = append(lines, slog.String("frontchannel_logout_uri", at(sibling(c.CallbackPath, "frontchannel-logout"))))
		}
		n.log.LogAttrs(ctx, slog.LevelInfo, "signin: must be registered at the issuer, the redirect URI to the letter", lines...)
	})
}

// signedIn notes whether the issuer sends a sid.
func (n *notices) signedIn(id oidc.Claims) {
	if id.SessionID != "" {
		n.withSID.Store(true)
	} else {
		n.withoutSID.Store(true)
	}
}

// foundNothing tells why a front-channel logout ended no session, where that is
// known: without a sid in ID tokens there is nothing to find one by.
func (n *notices) foundNothing(ctx context.Context) {
	if n.withSID.Load() || !n.withoutSID.Load() {
		return // another site's session, or one that has ended: every day
	}
	n.noSID.Do(func() {
		n.log.LogAttrs(ctx, slog.LevelWarn, "signin: a front-channel logout found no session: the issuer sends no sid in ID tokens; "+
			"let it send one (at Entra: the optional claim sid of ID tokens, docs/entra.md), or its sign-out does not reach this site")
	})
}

// hybridCodes are what issuers answer whose registration of this client does not
// allow an ID token at the authorization endpoint.
var hybridCodes = []string{
	"unsupported_response_type", "unsupported_response_mode", "invalid_response_type", "invalid_response_mode",
	"invalid_request", "unauthorized_client", "invalid_client",
}

// hybridHint says what to set if an error answer may be about the hybrid flow.
// Issuers use codes of all kinds for that, and some only the description.
func hybridHint(c Config, code, description string) string {
	said := strings.ToLower(description)
	switch {
	case c.ResponseType != typeHybrid:
		return ""
	case code == "unsupported_response_type", strings.Contains(said, "response_type"), strings.Contains(said, "response type"),
		strings.Contains(said, "response_mode"), strings.Contains(said, "hybrid"), strings.Contains(said, "implicit"):
		return `; set ResponseType "code", or let the issuer give this client ID tokens by the hybrid flow`
	case slices.Contains(hybridCodes, code):
		return `; if the issuer does not allow this client the hybrid flow, set ResponseType "code"`
	}
	return ""
}
