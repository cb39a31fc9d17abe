package signintest

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Page is what a browser got for a request: a document, a redirect, or the
// answer to a script.
type Page struct {
	// Err says why there is no answer, or why the browser stopped: the
	// connection broke, or there were more than 20 redirects. Status is 0 if
	// there was no answer at all.
	Err error

	Status int
	Header http.Header
	Body   string // at most 10 MiB

	// URL is the page's address, with the fragment, which no server sees.
	URL string

	// Sent is the request, and SentHeader the header it went out with,
	// cookies included.
	Sent       *Request
	SentHeader http.Header

	// Rejected says of each Set-Cookie line that was refused, why.
	Rejected []string

	browser *Browser
}

// Form is a form of a page.
type Form struct {
	// Action is absolute, Method upper case.
	Action, Method string
	// Fields are the values it would submit if nobody touched it. Buttons are
	// not among them.
	Fields url.Values
	// Inputs are the names of the fields a user can fill in.
	Inputs []string
}

// Location returns where a redirect leads, empty if the page is none.
func (p *Page) Location() string {
	switch p.Status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return p.resolve(p.Header.Get("Location"))
	}
	return ""
}

// Next returns the request the browser makes by itself after this page: it
// follows a redirect, or submits a self-submitting form. Nil means that the
// page waits for its user.
func (p *Page) Next() *Request {
	if l := p.Location(); l != "" {
		return p.redirected(l)
	}
	if f := p.selfSubmitting(); f != nil {
		return p.submission(f, nil)
	}
	return nil
}

// Form returns the first form, nil if there is none.
func (p *Page) Form() *Form {
	if forms := p.Forms(); len(forms) > 0 {
		return forms[0]
	}
	return nil
}

// attrs matches the attributes of a tag; a quoted value may hold ">".
const attrs = `((?:[^>"']|"[^"]*"|'[^']*')*)`

var (
	commentTag = regexp.MustCompile(`(?s)<!--.*?-->`)
	formTag    = regexp.MustCompile(`(?is)<form\b` + attrs + `>(.*?)(?:</form\s*>|$)`)
	fieldTag   = regexp.MustCompile(`(?is)<input\b` + attrs + `>|<(textarea|select)\b` + attrs + `>(.*?)</(?:textarea|select)\s*>`)
	optionTag  = regexp.MustCompile(`(?is)<option\b` + attrs + `>([^<]*)`)
	linkTag    = regexp.MustCompile(`(?is)<a\b` + attrs + `>(.*?)</a\s*>`)
	anyTag     = regexp.MustCompile(`(?s)<[^>]*>`)
	attribute  = regexp.MustCompile(`(?s)([^\s"'=/]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+)))?`)
	submits    = regexp.MustCompile(`(?is)(?:<script\b[^>]*>[^<]*|\bonload\s*=\s*(?:"[^"]*|'[^']*))\.submit\s*\(\s*\)`)
)

// Forms returns all forms of the page. It understands what OpenID Providers
// write, not all of HTML.
func (p *Page) Forms() []*Form {
	var forms []*Form
	for _, m := range formTag.FindAllStringSubmatch(p.document(), -1) {
		a := attributes(m[1])
		f := &Form{Action: p.resolve(a["action"]), Method: strings.ToUpper(a["method"]), Fields: url.Values{}}
		if f.Method == "" {
			f.Method = http.MethodGet
		}
		f.read(m[2])
		forms = append(forms, f)
	}
	return forms
}

func (f *Form) read(content string) {
	for _, m := range fieldTag.FindAllStringSubmatch(content, -1) {
		a := attributes(m[1] + m[3])
		name := a["name"]
		switch kind := strings.ToLower(m[2]); {
		case name == "":
		case kind == "textarea":
			f.Fields.Add(name, html.UnescapeString(m[4]))
			f.Inputs = append(f.Inputs, name)
		case kind == "select":
			f.choose(name, m[4])
			f.Inputs = append(f.Inputs, name)
		default:
			f.input(name, a)
		}
	}
}

func (f *Form) input(name string, a map[string]string) {
	_, checked := a["checked"]
	value, hasValue := a["value"]
	switch strings.ToLower(a["type"]) {
	case "submit", "button", "image", "reset", "file":
	case "hidden":
		f.Fields.Add(name, value)
	case "checkbox", "radio":
		if !hasValue {
			value = "on"
		}
		if checked {
			f.Fields.Add(name, value)
		}
		f.Inputs = append(f.Inputs, name)
	default:
		f.Fields.Add(name, value)
		f.Inputs = append(f.Inputs, name)
	}
}

// choose takes the selected option, else the first.
func (f *Form) choose(name, content string) {
	for n, m := range optionTag.FindAllStringSubmatch(content, -1) {
		a := attributes(m[1])
		value, ok := a["value"]
		if !ok {
			value = strings.TrimSpace(html.UnescapeString(m[2]))
		}
		if _, selected := a["selected"]; selected || n == 0 {
			f.Fields.Set(name, value)
		}
	}
}

// Link returns the absolute target of the first link whose text contains
// text, empty if there is none.
func (p *Page) Link(text string) string {
	for _, m := range linkTag.FindAllStringSubmatch(p.document(), -1) {
		if href, ok := attributes(m[1])["href"]; ok && strings.Contains(html.UnescapeString(anyTag.ReplaceAllString(m[2], "")), text) {
			return p.resolve(href)
		}
	}
	return ""
}

// document is the page's HTML, empty if it is something else.
func (p *Page) document() string {
	if !strings.Contains(p.Header.Get("Content-Type"), "html") {
		return ""
	}
	return commentTag.ReplaceAllString(p.Body, "")
}

// selfSubmitting returns the form that a script on the page submits. A form
// that somebody could fill in is left to them.
func (p *Page) selfSubmitting() *Form {
	if p.Sent == nil || p.Sent.isFetch() || !submits.MatchString(p.document()) {
		return nil
	}
	if f := p.Form(); f != nil && len(f.Inputs) == 0 {
		return f
	}
	return nil
}

func attributes(s string) map[string]string {
	out := map[string]string{}
	for _, m := range attribute.FindAllStringSubmatch(s, -1) {
		name := strings.ToLower(m[1])
		if _, twice := out[name]; !twice {
			out[name] = html.UnescapeString(m[2] + m[3] + m[4])
		}
	}
	return out
}

// resolve makes a reference absolute as a browser does (URL Standard, 4.4):
// line breaks and tabs are nothing, and \ is / before the query. Characters
// that net/url would escape stay raw.
func (p *Page) resolve(ref string) string {
	base, err := url.Parse(p.URL)
	if err != nil {
		return ref
	}
	ref = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(strings.TrimSpace(ref))
	if end := strings.IndexAny(ref, "?#"); end >= 0 {
		ref = strings.ReplaceAll(ref[:end], `\`, "/") + ref[end:]
	} else {
		ref = strings.ReplaceAll(ref, `\`, "/")
	}
	u, err := base.Parse(ref)
	if err != nil {
		return ref
	}
	raw := ref
	if strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, "//") {
		raw = origin(base) + ref
	}
	// Where nothing but escapes differs, the raw spelling is the browser's.
	if v, err := url.Parse(raw); err == nil && v.IsAbs() && v.String() == u.String() && plain(raw) {
		return raw
	}
	return u.String()
}

// plain reports whether a URL can stand in a request line as it is.
func plain(raw string) bool {
	return !strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// rawPath is the path of an absolute URL as it is spelled, empty if it cannot
// be sent so.
func rawPath(raw string) string {
	_, rest, _ := strings.Cut(raw, "://")
	start := strings.IndexAny(rest, "/?#")
	if start < 0 || rest[start] != '/' {
		return ""
	}
	path := rest[start:]
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	if !plain(path) || strings.Contains(path, `\`) {
		return ""
	}
	return path
}

// has reports whether the form knows all the names.
func (f *Form) has(values url.Values) bool {
	for name := range values {
		if !f.Fields.Has(name) && !slices.Contains(f.Inputs, name) {
			return false
		}
	}
	return true
}
