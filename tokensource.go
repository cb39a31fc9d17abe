package signin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// TokenSource returns a source of access tokens that were granted all of
// scopes, for the user signed in to the request of ctx. Without scopes it is
// the token of the sign-in. It is never nil, may be used concurrently, and
// may outlive the request.
//
// Token returns a held token without I/O as long as that is not about to
// expire. Otherwise it is refreshed, once however many ask, on however many
// replicas. When only the user can help, Token fails with an
// [*InteractionRequiredError]; any other error is temporary or a mistake in
// the configuration or the arguments: two scopes in one string, say, fail
// without a request. A temporary failure is not reported while a held token
// is still valid.
//
// Extra of the token has the further members of the issuer's answer that the
// token came in, such as Salesforce's instance_url: 4 KiB each and 8 KiB in all;
// what is larger is left out. "id_token" is the newest ID token of the session (see
// [User.IDToken]). What Extra returns is shared: do not modify it.
func TokenSource(ctx context.Context, scopes ...string) oauth2.TokenSource {
	return TokenRequest{Scopes: scopes}.Source(ctx)
}

// Source returns a source for the user signed in to the request of ctx, as
// [TokenSource] does.
func (req TokenRequest) Source(ctx context.Context) oauth2.TokenSource {
	if err := req.check(); err != nil {
		return failing{err}
	}
	v := visitFrom(ctx)
	switch {
	case v == nil:
		return failing{errOutside}
	case v.source != nil:
		return v.source
	}
	return &tokenSource{ctx: ctx, v: v, req: req}
}

var errOutside = errors.New("signin: token source: the context is not of a request below Handler")

type tokenSource struct {
	ctx context.Context // of the request; oauth2.TokenSource has no other way to pass it
	v   *visit
	req TokenRequest
}

// Token implements [oauth2.TokenSource].
func (ts *tokenSource) Token() (*oauth2.Token, error) {
	if t := ts.v.atHand(ts.ctx, &ts.req); t != nil {
		return t.token(), nil
	}
	// The source may outlive its request: a WebSocket's handler does.
	t, err := ts.v.visits.tokens.acquire(context.WithoutCancel(ts.ctx), ts.v, ts.req)
	if err != nil {
		return nil, err
	}
	return t.token(), nil
}

// atHand returns what nearly every call gets: a held token that nothing has
// to be done about. If it is nil, acquire sees to the rest.
func (v *visit) atHand(ctx context.Context, req *TokenRequest) *held {
	now := v.visits.now()
	s, err := v.current(ctx, now)
	if err != nil || s == nil || req.Refresh {
		return nil
	}
	t := s.record.find(req)
	if t == nil || !t.serves(req) || !t.fresh(now, v.visits.tokens.margin) || t.due(now) {
		return nil
	}
	return t
}

// TokenInfo describes a held token without containing it.
type TokenInfo struct {
	Scopes   []string  // granted, those of OpenID Connect aside
	Resource string    // empty: the default one
	Expiry   time.Time // zero: the issuer did not say
}

// HeldTokens describes the access tokens held for the user signed in to the
// request of ctx, oldest first. It is empty if nobody is signed in. The error
// reports a store that fails.
func HeldTokens(ctx context.Context) ([]TokenInfo, error) {
	v := visitFrom(ctx)
	if v == nil || v.source != nil {
		return nil, nil
	}
	s, err := v.session(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	var infos []TokenInfo
	for _, t := range s.record.Tokens {
		infos = append(infos, TokenInfo{apiScopes(t.Scopes), t.Resource, t.token().Expiry})
	}
	return infos, nil
}

// AppTokenSource returns a source of access tokens for the application
// itself, by client credentials (RFC 6749, 4.4), for what is done in nobody's
// name. For Entra there is one scope, the API's name and /.default, such as
// "https://graph.microsoft.com/.default", and the issuer must be one tenant.
//
// There is one token for a set of scopes in this process and, through
// [Config].Store, on all replicas, where it is encrypted under [Config].Keys.
// It is renewed in the background before it expires, once however many ask.
// While it is valid a failure to renew it is not reported, and a store that
// fails only costs each replica a token of its own.
//
// Token never asks for interaction: an error is the issuer's, of which an
// [*oauth2.RetrieveError] tells more, or a temporary failure. The source is
// never nil, may be used concurrently, and needs no request.
func (a *Auth) AppTokenSource(scopes ...string) oauth2.TokenSource {
	if a.cfg.Credential == nil {
		return failing{errors.New("signin: app token: Config.Credential is nil: a public client has no tokens of its own")}
	}
	scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	if err := checkScopes(scopes); err != nil {
		return failing{fmt.Errorf("signin: app token: %w", err)}
	}
	if a.issuer.Written().Mixed(scopes) {
		return failing{fmt.Errorf("signin: app token: scopes %s belong to several APIs, and a token is for one", strings.Join(scopes, " "))}
	}
	return a.tokens.apps.source(a.tokens, scopes)
}
