package signin

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed454743b5/signin/internal/site"
)

// Page is what a person is told when a request ends with us and not with the
// application: that something went wrong, and what to do about it. It holds
// nothing secret. A field that does not apply is empty.
//
// As an [http.Handler] it writes itself with the built-in design, so that
// [Config.Page] may change its words, to another language say, and no more:
//
//	Page: func(w http.ResponseWriter, r *http.Request, p signin.Page) {
//		if p.Kind == signin.PageSignedOut {
//			p.Lang, p.Title, p.Text, p.Advice = "de", "Abgemeldet", "Sie sind abgemeldet.", ""
//		}
//		p.ServeHTTP(w, r)
//	}
type Page struct {
	// Kind names the occasion.
	Kind PageKind

	// Status is the HTTP status. Zero means 200.
	Status int

	// RetryAfter, if positive, is sent as Retry-After, in whole seconds.
	RetryAfter time.Duration

	// Lang is the language of the words, a BCP 47 tag. Empty means "en".
	Lang string

	// Title is the heading; Text says what happened and Advice what to do, each
	// in a sentence or two that a user understands.
	Title, Text, Advice string

	// Quote is what the issuer said for itself (error_description), under the
	// heading QuoteLabel. Whoever can send the browser here can write it, so it
	// is plain text, cleaned of control characters and at most 300 runes long,
	// and must be escaped like any other.
	Quote, QuoteLabel string

	// User is the name of who is signed in, as [User.Name] has it, cleaned
	// like Quote, under the heading UserLabel.
	User, UserLabel string

	// Reference is a short random id that stands in the log, too, under the
	// heading ReferenceLabel.
	Reference, ReferenceLabel string

	// Actions are what the user may do next, the likeliest first.
	Actions []PageAction

	// Login is where signing in begins, for a script that can open a window.
	Login string

	// problem says that only a script can have asked: a problem document,
	// whatever Accept says.
	problem bool
}

// PageAction is a link or a button of a [Page].
type PageAction struct {
	// Label is the text, URL where it leads: an absolute path of this site or
	// an http or https URL.
	Label, URL string

	// Method is "POST" for a form with one button. Empty means a link.
	Method string
}

// maxQuote and maxUser are in runes. Ten times as many bytes are looked at.
const (
	maxQuote = 300
	maxUser  = 100
)

//go:embed page.html
var pageSource string

var (
	pageTemplate = template.Must(template.New("page").Parse(pageSource))
	pageStyle    = styleHash(pageSource)
)

// styleHash names the one style element that may apply (CSP Level 3, 2.3.1).
// A hash, unlike a nonce, leaves nothing for a page to reveal.
func styleHash(source string) string {
	_, source, _ = strings.Cut(source, "<style>")
	source, _, _ = strings.Cut(source, "</style>")
	sum := sha256.Sum256([]byte(source))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// writePage answers with p: a problem document for who asks for JSON or is a
// script, else HTML, by custom (Config.Page) if it is not nil.
func writePage(w http.ResponseWriter, r *http.Request, p Page, custom func(http.ResponseWriter, *http.Request, Page)) {
	if custom == nil || p.problem || wantsProblem(r) {
		p.ServeHTTP(w, r)
		return
	}
	p = p.checked()
	p.writeHeader(w)
	custom(w, r, p)
}

// ServeHTTP writes p as HTML, or as a problem document (RFC 9457) if the
// request asks for JSON or comes from a script. A HEAD request gets no body.
// What cannot be shown safely is left out: an action whose URL is no path of
// this site and no http or https URL, a Quote beyond its bounds.
func (p Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p = p.checked()
	p.writeHeader(w)
	h := w.Header()
	var body bytes.Buffer
	if p.problem || wantsProblem(r) {
		h.Set("Content-Type", "application/problem+json")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		p.renderProblem(&body)
	} else {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", p.policy())
		// Everything in p is a string or an int and the buffer takes it all,
		// so this fails for a fault in the template only, which tests find.
		if err := pageTemplate.Execute(&body, p); err != nil {
			http.Error(w, p.Title, p.Status)
			return
		}
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		w.Write(body.Bytes())
	}
}

// policy is the Content-Security-Policy of the HTML. Chromium holds form-action
// against every redirect that follows the form, too, and a sign-out goes on to
// the issuer and wherever that leads; 'self' alone would stop it halfway.
func (p Page) policy() string {
	formAction := "'self'"
	for _, a := range p.Actions {
		if a.Method == http.MethodPost {
			formAction = "'self' https: http://localhost:* http://127.0.0.1:*"
		}
	}
	return "default-src 'none'; style-src " + pageStyle + "; form-action " + formAction +
		"; base-uri 'none'; frame-ancestors 'none'"
}

// writeHeader sets what holds for every rendering, the application's included.
func (p Page) writeHeader(w http.ResponseWriter) {
	h := w.Header()
	// A handler that challenges late may have described another answer already.
	for _, name := range []string{"Content-Length", "Content-Disposition", "Etag", "Last-Modified", "Expires"} {
		h.Del(name)
	}
	site.NoStore(w)
	h.Set("X-Content-Type-Options", "nosniff")
	// The URL of a callback holds the code, if the mode is query.
	h.Set("Referrer-Policy", "no-referrer")
	if p.RetryAfter > 0 {
		seconds := (p.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
}

// checked returns p without what is unsafe to show.
func (p Page) checked() Page {
	if p.Status == 0 {
		p.Status = http.StatusOK
	}
	setDefault(&p.Lang, pageLang)
	p.Quote = plainText(p.Quote, maxQuote)
	p.User = plainText(p.User, maxUser)
	if !safePageURL(p.Login) {
		p.Login = ""
	}
	var actions []PageAction
	for _, a := range p.Actions {
		if safePageURL(a.URL) {
			actions = append(actions, a)
		}
	}
	p.Actions = actions
	return p
}

// safePageURL reports whether a browser takes u for a page of this site or of
// a web server: not for a script, and not for another host by //.
func safePageURL(u string) bool {
	parsed, err := url.Parse(u)
	path, _, _ := strings.Cut(u, "?") // where browsers take \ for /
	if err != nil || strings.Contains(path, `\`) || strings.ContainsFunc(u, func(r rune) bool { return r <= ' ' || r == utf8.RuneError }) {
		return false
	}
	if parsed.Scheme == "https" || parsed.Scheme == "http" {
		return parsed.Host != "" && parsed.User == nil
	}
	return parsed.Scheme == "" && strings.HasPrefix(u, "/") && !strings.HasPrefix(u, "//")
}

// plainText returns at most n runes of s that can be seen and cannot disturb
// what stands beside them: no control, bidi or zero-width characters, no
// towers of accents, and no run of spaces.
func plainText(s string, n int) string {
	cut := len(s) > 10*n
	if cut {
		s = s[:10*n]
	}
	var out []rune
	space, marks := false, 0
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = true
			continue
		case unicode.Is(unicode.C, r) || r == utf8.RuneError:
			continue
		case unicode.Is(unicode.M, r):
			if marks++; marks > 3 {
				continue
			}
		default:
			marks = 0
		}
		if space && len(out) > 0 {
			out = append(out, ' ')
		}
		space = false
		if out = append(out, r); len(out) > n {
			cut = true
			break
		}
	}
	if cut && len(out) > 0 {
		return string(out[:min(len(out), n-1)]) + "…"
	}
	return string(out)
}

// problemType leads to the documentation of the kinds.
const problemType = "https://pkg.go.dev/github.com/seed454743b5/signin?kind="

// renderProblem writes p as a problem document. Its members say what the page
// says, and login where a script sends its user (RFC 9457, 3.2).
func (p Page) renderProblem(body *bytes.Buffer) {
	problem := struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail,omitempty"`
		Advice    string `json:"advice,omitempty"`
		Quote     string `json:"issuer_says,omitempty"`
		User      string `json:"user,omitempty"`
		Login     string `json:"login,omitempty"`
		Reference string `json:"reference,omitempty"`
	}{problemType + url.QueryEscape(string(p.Kind)) + "#Page", p.Title, p.Status, p.Text, p.Advice, p.Quote, p.User, p.Login, p.Reference}
	// Strings and an int into a buffer: this cannot fail.
	json.NewEncoder(body).Encode(problem)
}

// wantsProblem reports whether the request prefers a problem document: Accept
// says so, or it names neither HTML nor JSON and a script sent the request.
func wantsProblem(r *http.Request) bool {
	html, problem := acceptance(r.Header.Values("Accept"))
	if html > 0 || problem > 0 {
		return problem >= html
	}
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "", "navigate", "nested-navigate":
		return r.Header.Get("X-Requested-With") != ""
	}
	return true
}

// acceptance returns the weight of HTML and of JSON (RFC 9110, 12.5.1), zero
// for what is not named. Wildcards name nothing.
func acceptance(accept []string) (html, problem float64) {
	const maxRanges = 50
	ranges := strings.SplitN(strings.Join(accept, ","), ",", maxRanges+1)
	for _, part := range ranges[:min(len(ranges), maxRanges)] {
		mediaType, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil {
				continue
			}
		}
		switch mediaType {
		case "text/html", "application/xhtml+xml":
			html = max(html, q)
		case "application/json", "application/problem+json":
			problem = max(problem, q)
		}
	}
	return html, problem
}

// newReference returns an id that a person can read out on the telephone: 40
// random bits, enough to find one line in a log.
func newReference() string {
	s := strings.ToLower(rand.Text()[:8])
	return s[:4] + "-" + s[4:]
}
