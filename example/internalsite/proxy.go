package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/seed454743b5/signin"
)

// cookieName is the stem of our cookies' names, which upstream never sees.
const cookieName = "internalsite"

// proxy is a reverse proxy that says who the user is.
type proxy struct {
	upstream  *url.URL
	base      *url.URL    // what browsers call us
	header    string      // with the user's name; the others begin with it
	allow     signin.Rule // nil: anyone
	passToken bool
}

type tokenKey struct{}

func (p *proxy) handler(auth *signin.Auth, log *slog.Logger) http.Handler {
	badGateway := func(w http.ResponseWriter, r *http.Request, err error) {
		log.LogAttrs(r.Context(), slog.LevelWarn, "bad gateway", slog.Any("err", err))
		http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
	}
	reverse := &httputil.ReverseProxy{Rewrite: p.rewrite, ModifyResponse: dropOurSetCookies, ErrorHandler: badGateway}
	allow := signin.Rule(plainSubject)
	if p.allow != nil {
		allow = allow.And(p.allow)
	}
	site := auth.Require(signin.Requirement{Allow: allow}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.passToken {
			token, err := signin.TokenSource(r.Context()).Token()
			if auth.Challenge(w, r, err) {
				return
			}
			if err != nil {
				badGateway(w, r, err)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), tokenKey{}, token.AccessToken))
		}
		reverse.ServeHTTP(w, r)
	}))
	// Not a ServeMux: it would redirect //paths that upstream may know.
	return auth.Handler(http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch upgrade := r.Header.Get("Upgrade"); {
		case r.URL.Path == "/oidc/signout":
			auth.SignOut(w, r)
		case upgrade != "" && !strings.EqualFold(upgrade, "websocket"):
			// After an upgrade to h2c upstream would read requests that we
			// have not seen, with any name in them. A server may ignore one.
			r = r.Clone(r.Context())
			r.Header.Del("Upgrade")
			site.ServeHTTP(w, r)
		case upgrade != "" && r.Header.Get("Origin") != "" && r.Header.Get("Origin") != p.base.Scheme+"://"+p.base.Host:
			http.Error(w, "cross-origin WebSocket", http.StatusForbidden) // a GET, which the protection passes
		default:
			site.ServeHTTP(w, r)
		}
	})))
}

// rewrite makes the request to upstream. ReverseProxy has removed hop-by-hop
// headers before, those that Connection names included, so that a client
// cannot have ours removed.
func (p *proxy) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	p.dropForged(out.Header)
	out.Trailer = nil // headers by other means
	dropOurCookies(out.Header)
	pr.SetURL(p.upstream)
	out.URL.RawQuery = pr.In.URL.RawQuery // as it is: nothing here depends on it
	out.Host = p.base.Host                // upstream's links and origin checks are about this one
	pr.SetXForwarded()
	out.Header.Set("X-Forwarded-Proto", p.base.Scheme)
	out.Header.Set("X-Forwarded-Host", p.base.Host)

	user := signin.UserFromContext(pr.In.Context())
	out.Header.Set(p.header, headerText(user.Name()))
	out.Header.Set(p.header+"-Id", user.Subject)
	if email := verifiedEmail(user); email != "" {
		out.Header.Set(p.header+"-Email", email)
	}
	if token, ok := pr.In.Context().Value(tokenKey{}).(string); ok {
		out.Header.Set("Authorization", "Bearer "+token)
	}
}

// dropForged removes what only we may say, in every spelling that a server
// might take for it: CGI and WSGI read X_Forwarded_User as X-Forwarded-User.
func (p *proxy) dropForged(h http.Header) {
	ours := folded(p.header)
	for name := range h {
		switch n := folded(name); {
		case n == ours, n == ours+"-id", n == ours+"-email", strings.HasPrefix(n, "x-forwarded-"), n == "forwarded", n == "x-real-ip":
			delete(h, name) // not Del, which looks for the canonical spelling
		}
	}
}

func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return unicode.ToLower(r)
		}
		return '-'
	}, name)
}

// dropOurCookies leaves the others as they were sent.
func dropOurCookies(h http.Header) {
	var kept []string
	for _, line := range h["Cookie"] {
		kept = append(kept, slices.DeleteFunc(strings.Split(line, ";"), isOurCookie)...)
	}
	h.Del("Cookie")
	if rest := strings.TrimSpace(strings.Join(kept, ";")); rest != "" {
		h.Set("Cookie", rest)
	}
}

// dropOurSetCookies keeps upstream from signing anybody in or out.
func dropOurSetCookies(res *http.Response) error {
	res.Header["Set-Cookie"] = slices.DeleteFunc(res.Header["Set-Cookie"], isOurCookie)
	return nil
}

func isOurCookie(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	name = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(name)), "__host-")
	return name == cookieName || strings.HasPrefix(name, cookieName+"-")
}

// plainSubject refuses a subject that a header would not carry unchanged: two
// users must not become one. OpenID Connect Core, 2 has it in ASCII.
func plainSubject(u *signin.User) error {
	if headerText(u.Subject) != u.Subject || strings.ContainsFunc(u.Subject, func(r rune) bool { return r > unicode.MaxASCII }) {
		return errors.New("the subject cannot stand in a header")
	}
	return nil
}

// headerText drops from a name what cannot stand in a header.
func headerText(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s))
}

// verifiedEmail is the user's address, if the issuer vouches for it.
func verifiedEmail(u *signin.User) string {
	var claims map[string]any // a struct would take Email for email
	_ = u.Claims(&claims)
	email, _ := claims["email"].(string)
	_, domain, _ := strings.Cut(email, "@")
	if signin.AllowEmailDomain(domain)(u) != nil {
		return ""
	}
	return email
}
