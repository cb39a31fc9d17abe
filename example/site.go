package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/seed454743b5/signin"
)

// home is public. It greets whoever is signed in, and says so if that cannot
// be told.
func (s *site) home(w http.ResponseWriter, r *http.Request) {
	_, err := signin.LookupUser(r.Context())
	s.show(w, r, http.StatusOK, "home", values{"Unknown": err != nil})
}

// me shows who is signed in, to people and to programs.
func (s *site) me(w http.ResponseWriter, r *http.Request) {
	user := signin.UserFromContext(r.Context())
	var claims map[string]any
	if err := user.Claims(&claims); err != nil {
		s.fail(w, r, http.StatusInternalServerError, err)
		return
	}
	if !wantsJSON(r) {
		s.show(w, r, http.StatusOK, "me", values{"Claims": claims})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"sub": user.Subject, "name": user.Name(), "issuer": user.Issuer, "claims": claims,
	})
}

// callAPI calls the API in the user's name and passes its answer on. With
// ?scope=a+b the token is asked for those scopes, and the user for consent
// where it is missing.
func (s *site) callAPI(w http.ResponseWriter, r *http.Request) {
	answer, err := s.api.read(r.Context(), askedScopes(r)...)
	if s.auth.Challenge(w, r, err) {
		return
	}
	if err != nil {
		s.fail(w, r, http.StatusBadGateway, err)
		return
	}
	if r.URL.Query().Get("view") == "page" {
		s.show(w, r, http.StatusOK, "api", values{"Answer": answer})
		return
	}
	answer.copyTo(w)
}

// tokens lists the tokens held for the user. With ?scope=a+b it first gets one
// more.
func (s *site) tokens(w http.ResponseWriter, r *http.Request) {
	if scopes := askedScopes(r); len(scopes) > 0 {
		_, err := signin.TokenSource(r.Context(), scopes...).Token()
		if s.auth.Challenge(w, r, err) {
			return
		}
		if err != nil {
			s.fail(w, r, http.StatusBadGateway, err)
			return
		}
		http.Redirect(w, r, "/tokens", http.StatusSeeOther)
		return
	}
	held, err := signin.HeldTokens(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, err)
		return
	}
	s.show(w, r, http.StatusOK, "tokens", values{"Tokens": held})
}

// vault shows what the API gives only after a second step. The API asks for
// it with a claims challenge. signin.Transport looks whether a new token will
// do, and makes an error of it that Challenge understands if it will not.
func (s *site) vault(w http.ResponseWriter, r *http.Request) {
	if !s.api.demo {
		s.notFound(w, r)
		return
	}
	answer, err := s.api.vault(r.Context())
	if s.auth.Challenge(w, r, err) {
		return
	}
	if err != nil {
		s.fail(w, r, http.StatusBadGateway, err)
		return
	}
	s.show(w, r, http.StatusOK, "vault", values{"Answer": answer})
}

func (s *site) notFound(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusNotFound, "error", values{"Status": http.StatusNotFound})
}

func (s *site) healthz(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

func (s *site) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := s.auth.Ready(ctx); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "not ready", slog.Any("err", err))
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

// askedScopes are the scopes in the query: ?scope=a+b.
func askedScopes(r *http.Request) []string {
	return strings.Fields(r.URL.Query().Get("scope"))
}

func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// values are what a page shows.
type values map[string]any

func (s *site) show(w http.ResponseWriter, r *http.Request, status int, page string, v values) {
	if v == nil {
		v = values{}
	}
	v["User"] = signin.UserFromContext(r.Context())
	v["Path"] = r.URL.Path
	v["Demo"] = s.api.demo
	if err := s.pages.Render(w, status, page, v); err != nil {
		s.log.LogAttrs(r.Context(), slog.LevelError, "page failed", slog.String("page", page), slog.Any("err", err))
	}
}

// fail answers with a page that says what happened in a few fixed words. The
// cause is for the log.
func (s *site) fail(w http.ResponseWriter, r *http.Request, status int, err error) {
	s.log.LogAttrs(r.Context(), slog.LevelWarn, "request failed", slog.String("path", r.URL.Path), slog.Int("status", status), slog.Any("err", err))
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	s.show(w, r, status, "error", values{"Status": status})
}
