// Package api is the small API that the demo site calls in place of Microsoft
// Graph. Its paths and documents are Graph's, so that the site's code serves
// both.
//
//	GET  /me                                any valid token
//	POST /me/sendMail                       scope mail.send
//	GET  /me/mailFolders/SentItems/messages scope mail.read
//	GET  /me/vault                          a token of a sign-in with a second step
package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrInvalidToken is what a [Verifier] returns for a token that is malformed,
// expired, revoked, or another issuer's.
var ErrInvalidToken = errors.New("api: invalid token")

// Token is what an access token says.
type Token struct {
	Subject  string
	Name     string
	Username string
	Email    string
	Scopes   []string
	Contexts []string  // authentication contexts (acrs) that the user satisfied
	Audience []string  // empty if the token was issued for no API in particular
	Expires  time.Time // zero if the issuer does not tell
}

// A Verifier checks signature, issuer and lifetime of an access token. Any
// error but ErrInvalidToken means that it could not tell.
type Verifier func(ctx context.Context, token string) (*Token, error)

// Config describes an API.
type Config struct {
	// Verify checks tokens. Required.
	Verify Verifier

	// Resource is the API's own name in a token's audience. A token for other
	// audiences is refused. Empty does not look at audiences.
	Resource string

	// VaultContext is the authentication context that /me/vault demands by a
	// claims challenge. Empty switches /me/vault off.
	VaultContext string

	// Logger takes what goes wrong. Nil discards it.
	Logger *slog.Logger
}

const (
	scopeSend = "mail.send"
	scopeRead = "mail.read"
	maxBody   = 64 << 10
)

type server struct {
	config Config
	log    *slog.Logger
	outbox *outbox
}

// New returns the API's handler. It is safe for concurrent use.
func New(c Config) (http.Handler, error) {
	if c.Verify == nil {
		return nil, errors.New("api: bad config: Verify is nil")
	}
	s := &server{config: c, log: c.Logger, outbox: newOutbox()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", s.allow("", s.me))
	mux.HandleFunc("POST /me/sendMail", s.allow(scopeSend, s.sendMail))
	mux.HandleFunc("GET /me/mailFolders/SentItems/messages", s.allow(scopeRead, s.sentItems))
	if c.VaultContext != "" {
		mux.HandleFunc("GET /me/vault", s.allow("", s.vault))
	}
	return mux, nil
}

// allow lets a request through that carries a valid token for this API with
// the scope (RFC 6750).
func (s *server) allow(scope string, next func(http.ResponseWriter, *http.Request, *Token)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || raw == "" {
			refuse(w, http.StatusUnauthorized, "Bearer", "missing_token", "The request carries no access token.")
			return
		}
		token, err := s.config.Verify(r.Context(), strings.TrimSpace(raw))
		switch {
		case errors.Is(err, ErrInvalidToken):
			refuse(w, http.StatusUnauthorized, `Bearer error="invalid_token"`, "invalid_token", "The access token is not valid here.")
		case err != nil:
			s.log.LogAttrs(r.Context(), slog.LevelError, "could not check a token", slog.Any("err", err))
			w.Header().Set("Retry-After", "5")
			refuse(w, http.StatusServiceUnavailable, "", "unavailable", "The access token could not be checked.")
		case !s.forUs(token):
			refuse(w, http.StatusUnauthorized, `Bearer error="invalid_token"`, "invalid_token", "The access token is meant for another API.")
		case scope != "" && !slices.Contains(token.Scopes, scope):
			refuse(w, http.StatusForbidden, `Bearer error="insufficient_scope", scope=`+strconv.Quote(scope),
				"insufficient_scope", "The access token lacks the scope "+scope+".")
		default:
			next(w, r, token)
		}
	}
}

func (s *server) forUs(t *Token) bool {
	return s.config.Resource == "" || len(t.Audience) == 0 || slices.Contains(t.Audience, s.config.Resource)
}

func (s *server) me(w http.ResponseWriter, _ *http.Request, t *Token) {
	reply(w, http.StatusOK, struct {
		ID       string     `json:"id"`
		Name     string     `json:"displayName,omitempty"`
		Username string     `json:"userPrincipalName,omitempty"`
		Email    string     `json:"mail,omitempty"`
		Scopes   []string   `json:"scopes"`
		Audience []string   `json:"audience,omitempty"`
		Expires  *time.Time `json:"expires,omitempty"`
	}{t.Subject, t.Name, t.Username, t.Email, t.Scopes, t.Audience, timeOrNil(t.Expires)})
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// vault holds something for which a password is not enough. What is missing it
// says in a claims challenge, as Entra ID's conditional access does.
func (s *server) vault(w http.ResponseWriter, _ *http.Request, t *Token) {
	if slices.Contains(t.Contexts, s.config.VaultContext) {
		reply(w, http.StatusOK, map[string]string{"secret": "The cake is in the fridge, behind the milk."})
		return
	}
	claims, err := json.Marshal(map[string]any{
		"access_token": map[string]any{
			"acrs": map[string]any{"essential": true, "value": s.config.VaultContext},
		},
	})
	if err != nil {
		refuse(w, http.StatusInternalServerError, "", "internal_error", "Something went wrong.")
		return
	}
	refuse(w, http.StatusUnauthorized,
		`Bearer realm="", error="insufficient_claims", claims="`+base64.StdEncoding.EncodeToString(claims)+`"`,
		"insufficient_claims", "The vault asks for a second step.")
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse answers with Graph's error document.
func refuse(w http.ResponseWriter, status int, challenge, code, message string) {
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	type detail struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	reply(w, status, map[string]detail{"error": {code, message}})
}
