package signin

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/site"
	"github.com/seed454743b5/signin/internal/text"
)

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
