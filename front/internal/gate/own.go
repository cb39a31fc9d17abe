package gate

import (
	"encoding/json"
	"net/http"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// ownPages are the front's own, beside those of package signin.
func (g *Gate) ownPages() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := visit.From(r.Context())
		switch r.URL.EscapedPath() {
		case routes.Reserved + "signout":
			g.Auth.SignOut(w, r)
		case routes.Reserved + "user":
			g.user(w, r)
		case routes.Reserved + "keys":
			if !reading(w, r) {
				return
			}
			w.Header().Set("Content-Type", "application/jwk-set+json")
			w.Header().Set("Cache-Control", "public, max-age=300")
			_, _ = w.Write(g.signer.Keys())
		default:
			v.Cause = "no page of the front"
			g.page(w, r, http.StatusNotFound)
		}
	})
}

// reading lets GET and HEAD pass.
func reading(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	return false
}

// user says who is signed in.
func (g *Gate) user(w http.ResponseWriter, r *http.Request) {
	if !reading(w, r) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	answer := func(status int, body any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	u, err := signin.LookupUser(r.Context())
	switch {
	case err != nil:
		visit.From(r.Context()).Cause = "store"
		h.Set("Retry-After", "5")
		answer(http.StatusServiceUnavailable, map[string]string{"error": "unavailable"})
	case u == nil:
		h.Set("WWW-Authenticate", "Bearer")
		answer(http.StatusUnauthorized, map[string]string{"error": "signed_out", "login": routes.Reserved + "login"})
	default:
		person := g.people.Of(u)
		visit.From(r.Context()).Person = person
		answer(http.StatusOK, struct {
			Subject  string   `json:"sub"`
			Name     string   `json:"name"`
			Issuer   string   `json:"issuer"`
			Username string   `json:"preferred_username,omitempty"`
			Email    string   `json:"email,omitempty"` // verified
			Groups   []string `json:"groups,omitempty"`

			Claims json.RawMessage `json:"claims,omitempty"` // the user's own, for the site's scripts
		}{u.Subject, u.Name(), u.Issuer, person.Text("preferred_username"), person.Email(), person.List(person.Groups), u.RawClaims})
	}
}

// words for the front's own pages, by status.
var words = map[int][2]string{
	http.StatusBadRequest:            {"This address cannot be used", "It may be read in more than one way, so it leads nowhere here."},
	http.StatusForbidden:             {"This came from another site", "A page of another site has sent this request, so it was not carried out."},
	http.StatusNotFound:              {"There is no such page", "Nothing is served at this address."},
	http.StatusMethodNotAllowed:      {"This cannot be done here", "The page does not take requests of this kind."},
	http.StatusRequestEntityTooLarge: {"This is too large", "The site behind does not take as much."},
	http.StatusBadGateway:            {"The site behind does not answer", "The site that should show this page cannot be reached. Your sign-in is not the cause."},
	http.StatusGatewayTimeout:        {"The site behind takes too long", "It has not begun to answer in time."},
}

// page answers with one of the front's own pages, in the look of the others.
func (g *Gate) page(w http.ResponseWriter, r *http.Request, status int) {
	p := signin.Page{Kind: signin.PageKind("front-" + kinds[status]), Status: status, Title: words[status][0], Text: words[status][1]}
	if status == http.StatusBadGateway || status == http.StatusGatewayTimeout {
		p.Advice = "Try again in a moment. If it stays so, tell whoever looks after the site."
	}
	g.Pages(w, r, p)
}

var kinds = map[int]string{
	http.StatusBadRequest: "bad-address", http.StatusForbidden: "cross-origin", http.StatusNotFound: "not-found", http.StatusMethodNotAllowed: "method",
	http.StatusRequestEntityTooLarge: "too-large", http.StatusBadGateway: "bad-gateway", http.StatusGatewayTimeout: "gateway-timeout",
}
