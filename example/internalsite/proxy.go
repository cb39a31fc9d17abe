package main

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed454743b5/signin"
)

// cookieName is the stem of our cookies' names, which upstream never sees.
const cookieName = "internalsite"

// nameHeader carries the name to show. It is not p.header, which servers take
// for a login: users may choose their names, and two may choose the same.
const nameHeader = "X-Forwarded-Preferred-Username"

// otherHeaders are set by us and carry no subject.
var otherHeaders = []string{nameHeader, "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// proxy is a reverse proxy that says who the user is.
type proxy struct {
	upstream  *url.URL
	base      *url.URL    // what browsers call us
	header    string      // with the user's subject; its copy and the address begin with it
	allow     signin.Rule // nil: anyone
	passToken bool
}

// strangersBody is how long a request body may take until we know whose it is.
const strangersBody = 10 * time.Second

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
	site := auth.Require(signin.Requirement{Allow: allow})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		reverse.ServeHTTP(w, r)
	}))
	// Not a ServeMux: it would redirect //paths that upstream may know.
	guarded := http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch upgrade := r.Header.Get("Upgrade"); {
		case r.URL.Path == "/oidc/signout":
			auth.SignOut(w, r)
		case strings.Trim(p.upstream.Path, "/") != "" && climbs(r.URL.EscapedPath()):
			http.Error(w, "the path has a segment of two dots", http.StatusBadRequest)
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
	}))
	// What upstream does not read, we do: a stranger's form that never ends
	// would hold its connection.
	return auth.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangersBody))
		}
		guarded.ServeHTTP(w, r)
	}))
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
	out.Header.Set(p.header, user.Subject)
	out.Header.Set(p.header+"-Id", user.Subject)
	// Left out whole if it would change on the way: shortened, the name of one
	// user could become the name of another.
	if name := user.Name(); fitsHeader(name) {
		out.Header.Set(nameHeader, name)
	}
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
	if !fitsHeader(u.Subject) || strings.ContainsFunc(u.Subject, func(r rune) bool { return r > unicode.MaxASCII }) {
		return errors.New("the subject cannot stand in a header")
	}
	return nil
}

// fitsHeader reports whether a header carries s unchanged and visibly.
func fitsHeader(s string) bool {
	return s != "" && s == strings.TrimSpace(s) && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// maxEncodings is how often a path may be encoded over and over. Two happen.
const maxEncodings = 4

// spellings are bytes that some servers read as a dot or a slash: the
// backslash, and UTF-8 in more bytes than it needs.
var spellings = strings.NewReplacer(`\`, "/", "\xc0\xae", ".", "\xe0\x80\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xaf", "/", "\xc1\x9c", "/")

// climbs reports whether a server might read an escaped path as one that leads
// to a parent folder, and so out of upstream's prefix. Servers differ: some
// decode twice, Tomcat ignores what follows a semicolon, Windows ignores dots
// and spaces at the end of a name.
func climbs(path string) bool {
	for range maxEncodings {
		for segment := range strings.SplitSeq(spellings.Replace(path), "/") {
			if end := strings.IndexAny(segment, ";?#\x00"); end >= 0 {
				segment = segment[:end]
			}
			if strings.HasPrefix(segment, "..") && strings.Trim(segment, ". \t\r\n") == "" {
				return true
			}
		}
		decoded := unescape(path)
		if decoded == path {
			return false
		}
		path = decoded
	}
	return true
}

// unescape decodes each %XX once, and leaves a % alone that begins none.
func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				out = append(out, b...)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
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
