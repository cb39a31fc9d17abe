package op

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/luikyv/go-oidc/pkg/goidc"
)

// hintKey is the context key for the subject of a verified id_token_hint.
type hintKey struct{}

// logoutHint verifies id_token_hint before go-oidc sees it and takes it out of
// the request. go-oidc refuses one that has expired, so that a sign-out later
// than the ID token's few minutes would end on an error page, although
// RP-Initiated Logout 1.0, section 2, asks to accept it.
func (p *Provider) logoutHint(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			p.showError(w, r, http.StatusBadRequest)
			return
		}
		hint := r.Form.Get("id_token_hint")
		if hint == "" {
			next.ServeHTTP(w, r)
			return
		}
		subject, ok := p.verifyHint(hint)
		if !ok {
			p.showError(w, r, http.StatusBadRequest)
			return
		}
		r = r.Clone(context.WithValue(r.Context(), hintKey{}, subject))
		for _, form := range []url.Values{r.Form, r.PostForm} {
			form.Del("id_token_hint")
		}
		// go-oidc would have taken the client from the hint.
		query := r.URL.Query()
		query.Del("id_token_hint")
		if !query.Has("client_id") {
			query.Set("client_id", p.config.ClientID)
		}
		if !r.PostForm.Has("client_id") {
			r.PostForm.Set("client_id", p.config.ClientID)
		}
		r.URL.RawQuery = query.Encode()
		next.ServeHTTP(w, r)
	})
}

// verifyHint checks everything about an ID token but its age.
func (p *Provider) verifyHint(hint string) (subject string, ok bool) {
	jws, err := jose.ParseSignedCompact(hint, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return "", false
	}
	payload, err := jws.Verify(&p.key.PublicKey)
	if err != nil {
		return "", false
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", false
	}
	return claims.Subject, claims.Issuer == p.config.Issuer && claims.Audience == p.config.ClientID
}

func setupLogout(*http.Request, *goidc.LogoutSession) bool { return true }

// logout ends the browser's session here. A site that proves with an ID token
// that it signed this user in is believed; otherwise the user is asked, since
// any page can send a browser here.
func (p *Provider) logout(w http.ResponseWriter, r *http.Request, ls *goidc.LogoutSession) (goidc.Status, error) {
	id := sessionID(r)
	session, known := p.sessions.get(id)
	subject, _ := r.Context().Value(hintKey{}).(string)
	confirmed := r.Method == http.MethodPost && r.PathValue("callback") != ""
	if known && subject != session.user.Subject && !confirmed {
		return goidc.StatusPending, p.pages.Render(w, http.StatusOK, "logout", map[string]any{
			"Action": "/logout/" + url.PathEscape(ls.ID),
			"User":   session.user,
		})
	}
	if confirmed && r.PostFormValue("action") != "logout" {
		return goidc.StatusPending, p.pages.Render(w, http.StatusOK, "stillin", map[string]any{"User": session.user, "Site": p.site()})
	}
	p.sessions.remove(id)
	p.setSessionCookie(w, "")
	return goidc.StatusSuccess, nil
}

func (p *Provider) site() string {
	return siteOf(slices.Concat(p.config.PostLogoutRedirectURIs, p.config.RedirectURIs)[0])
}

// loggedOut is the end of a sign-out that names no page to go back to.
func (p *Provider) loggedOut(w http.ResponseWriter, _ *http.Request, _ *goidc.LogoutSession) error {
	return p.pages.Render(w, http.StatusOK, "loggedout", map[string]any{"Site": p.site()})
}

func (p *Provider) showError(w http.ResponseWriter, r *http.Request, status int) {
	_ = p.renderError(w, r, goidc.NewError(goidc.ErrorCodeInvalidRequest, "invalid request").WithStatusCode(status))
}
