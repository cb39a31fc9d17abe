package gate

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed454743b5/signin/front/internal/routes"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/front/internal/upstream"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// forwardAuth answers a proxy that asks what to do with a request: 204 with
// the user's identity, 401 or 403. With redirect=1 a browser that can follow
// gets the way to the issuer in place of the 401.
func (g *Gate) forwardAuth(w http.ResponseWriter, r *http.Request, v *visit.Visit, a asker) {
	w.Header().Set("Cache-Control", "no-store")
	if !a.trusted {
		g.deny(w, v, http.StatusForbidden, "the peer is not in trusted_proxies")
		return
	}
	redirect := r.URL.RawQuery == "redirect=1"
	asked, err := g.original(r, v, a)
	if err != nil {
		g.deny(w, v, http.StatusBadRequest, err.Error())
		return
	}
	v.Asked = asked.URL.EscapedPath()
	m := g.Config.Table.Find(asked.Method, v.Host, asked.URL)
	switch m.Found {
	case routes.Route, routes.Slash:
	case routes.Own:
		g.deny(w, v, http.StatusForbidden, "the path belongs to the front: let the proxy pass "+routes.Reserved+" on without asking")
		return
	case routes.Unclear:
		g.deny(w, v, http.StatusForbidden, m.Why)
		return
	default:
		g.deny(w, v, http.StatusForbidden, "no route")
		return
	}
	v.Route = g.Config.Routes[m.Index]
	if !redirect {
		// What a script sends is answered with 401 and never sent anywhere.
		asked.Header.Del("Sec-Fetch-Mode")
		asked.Header.Set("X-Requested-With", "XMLHttpRequest")
	}
	g.answers[m.Index].ServeHTTP(w, asked)
}

func (g *Gate) deny(w http.ResponseWriter, v *visit.Visit, status int, cause string) {
	v.Cause = cause
	http.Error(w, http.StatusText(status), status)
}

// admitted is the answer for a request that may pass. Headers that say nothing
// about this user are there, too, and empty: the proxy is to put them in place
// of what a client sent.
func (g *Gate) admitted(w http.ResponseWriter, r *http.Request) {
	v := visit.From(r.Context())
	headers := v.Route.Headers
	if headers == nil {
		headers = settings.Defaults()
	}
	for _, h := range headers {
		w.Header().Set(h.Name, "")
	}
	upstream.Identify(w.Header(), g.people, v)
	if v.Authorization == visit.Drop {
		w.Header().Del("Authorization")
	}
	w.WriteHeader(http.StatusNoContent)
}

var (
	errNoAddress  = errors.New("the proxy does not say what was asked for; want X-Original-URI or X-Forwarded-Uri")
	errTwo        = errors.New("the request has two original addresses: the proxy must overwrite what a client sends")
	errNoPath     = errors.New("the original address is not a path")
	errBadMethod  = errors.New("the original method is none")
	errBadAddress = errors.New("the original host is none")
)

// original makes the request that the proxy asks about.
func (g *Gate) original(r *http.Request, v *visit.Visit, a asker) (*http.Request, error) {
	kind, err := described(r.Header)
	switch {
	case err != nil:
		return nil, err
	case kind == "X-Forwarded-" && a.hosts > 1:
		return nil, errTwo
	case kind == "X-Original-":
		// Such a proxy says the host by Host. X-Forwarded-Host may be the
		// client's, and another host may have other rules.
		v.Host = a.host
		g.settle(r, v)
	}
	uri := r.Header.Get(kind + "Uri")
	u, err := url.ParseRequestURI(uri)
	if err != nil || !strings.HasPrefix(uri, "/") {
		return nil, errNoPath
	}
	method := r.Method
	if m, ok := r.Header[kind+"Method"]; ok {
		method = m[0]
	}
	if method == "" || strings.ContainsFunc(method, func(c rune) bool { return c < 'A' || c > 'Z' }) {
		return nil, errBadMethod
	}
	if v.Host == "" {
		return nil, errBadAddress
	}
	asked := r.Clone(r.Context())
	asked.Method, asked.URL, asked.RequestURI = method, u, uri
	asked.Body, asked.ContentLength, asked.TransferEncoding = http.NoBody, 0, nil
	forgetQuestion(asked.Header)
	return asked, nil
}

// forgetQuestion removes the headers that describe another request.
func forgetQuestion(h http.Header) {
	for name := range h {
		if f := settings.Fold(name); strings.HasPrefix(f, "x-original-") || f == "x-forwarded-uri" || f == "x-forwarded-method" {
			delete(h, name)
		}
	}
}

// described says which headers describe the request. Proxies pass on what the
// client sent, so a header that the proxy does not set is the client's: of the
// two ways to describe a request exactly one must be there, and once.
func described(h http.Header) (kind string, err error) {
	count := map[string]int{}
	for name, values := range h {
		switch f := settings.Fold(name); f {
		case "x-original-uri", "x-original-method", "x-forwarded-uri", "x-forwarded-method":
			if count[f] += len(values); count[f] > 1 {
				return "", errTwo
			}
		}
	}
	switch original, forwarded := count["x-original-uri"], count["x-forwarded-uri"]; {
	case original > 0 && forwarded > 0:
		return "", errTwo
	case original > 0:
		return "X-Original-", nil
	case forwarded > 0:
		return "X-Forwarded-", nil
	}
	return "", errNoAddress
}
