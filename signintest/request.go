package signintest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Request is something a browser is about to send. A test may change it,
// send it again, or make its own.
type Request struct {
	// Method is GET if empty.
	Method string

	// URL is absolute.
	URL string

	// Form, if not nil, is sent as an application/x-www-form-urlencoded body.
	Form url.Values

	// Body is sent as it is if Form is nil; give its Content-Type in Header.
	Body string

	// Header is added last, and replaces what the browser would send. "Host"
	// changes the Host header, not where the request goes.
	Header http.Header

	// From is the URL of the page that makes the request. Empty means the
	// address bar.
	From string

	// Activated says that the user made it: typed, clicked, pressed Enter.
	Activated bool

	// Mode and Dest are those of the Fetch standard. Empty means "navigate"
	// and "document". Others: "cors" or "no-cors" with "empty" or "image",
	// "same-origin", and "navigate" with "iframe", which is no top-level
	// navigation. A mode of "websocket" sends no Sec-Fetch headers.
	Mode, Dest string

	chain      []string // URLs that redirected to here
	noReferrer bool
}

// Clone returns a copy that can be changed alone.
func (r *Request) Clone() *Request {
	c := *r
	c.Form = maps.Clone(r.Form)
	for k, v := range c.Form {
		c.Form[k] = slices.Clone(v)
	}
	c.Header = r.Header.Clone()
	c.chain = slices.Clone(r.chain)
	return &c
}

func (r *Request) method() string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

func (r *Request) body() string {
	if r.Form != nil {
		return r.Form.Encode()
	}
	return r.Body
}

func (r *Request) mode() string {
	if r.Mode == "" {
		return "navigate"
	}
	return r.Mode
}

func (r *Request) dest() string {
	if r.Dest == "" {
		return "document"
	}
	return r.Dest
}

func (r *Request) isFetch() bool { return r.mode() != "navigate" }

func (r *Request) topLevel() bool { return r.mode() == "navigate" && r.dest() == "document" }

func (r *Request) safe() bool { return r.method() == http.MethodGet || r.method() == http.MethodHead }

// reach says which SameSite cookies ride along. Chromium compares the target
// with the page that started it all, and not with what redirected in between.
func (r *Request) reach(b *Browser, to *url.URL) reach {
	from, err := url.Parse(r.From)
	switch {
	case r.From == "" || err == nil && b.jar.sameSite(from, to):
		return fromSameSite
	case r.topLevel() && r.safe():
		return fromNavigation
	}
	return fromCrossSite
}

// settingReach is reach for the answer's cookies: a top-level navigation may
// set any, by whatever method it came.
func (r *Request) settingReach(from reach) reach {
	if r.topLevel() {
		return fromSameSite
	}
	return from
}

// headers are what the browser adds.
func (r *Request) headers(b *Browser, to *url.URL) http.Header {
	h := http.Header{
		"User-Agent":      {b.userAgent()},
		"Accept":          {"*/*"},
		"Accept-Language": {"en-US,en;q=0.9"},
	}
	if r.mode() == "navigate" {
		h.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8")
		h.Set("Upgrade-Insecure-Requests", "1")
	}
	if r.Form != nil {
		h.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if origin := r.origin(to); origin != "" {
		h.Set("Origin", origin)
	}
	if referer := r.referer(to); referer != "" {
		h.Set("Referer", referer)
	}
	if r.mode() == "websocket" || to.Scheme != "https" && !isLoopback(to.Hostname()) {
		return h // Sec-Fetch headers go to trustworthy origins only
	}
	h.Set("Sec-Fetch-Site", r.fetchSite(b, to))
	h.Set("Sec-Fetch-Mode", r.mode())
	h.Set("Sec-Fetch-Dest", r.dest())
	if r.mode() == "navigate" && r.Activated {
		h.Set("Sec-Fetch-User", "?1")
	}
	return h
}

func (b *Browser) userAgent() string {
	switch {
	case b.options.UserAgent != "":
		return b.options.UserAgent
	case b.options.StrictSecure:
		return "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"
	}
	return "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
}

// fetchSite is the worst relation between the page that started it and any
// hop since. The address bar is nobody's page.
func (r *Request) fetchSite(b *Browser, to *url.URL) string {
	from, err := url.Parse(r.From)
	if r.From == "" || err != nil {
		return "none"
	}
	site := "same-origin"
	for _, hop := range append(slices.Clone(r.chain), to.String()) {
		u, err := url.Parse(hop)
		switch {
		case err != nil || !b.jar.sameSite(from, u):
			return "cross-site"
		case origin(from) != origin(u):
			site = "same-site"
		}
	}
	return site
}

// origin is what Origin says: on everything that is not GET or HEAD, and on
// cross-origin fetches. It is "null" once a request has been redirected across
// two origins, when the page hides its address, and from https to http.
func (r *Request) origin(to *url.URL) string {
	if r.mode() != "websocket" && r.safe() && (r.mode() != "cors" || r.sameOrigin(to)) {
		return ""
	}
	if r.From == "" {
		if r.safe() {
			return ""
		}
		return "null"
	}
	from, err := url.Parse(r.From)
	if err != nil {
		return "null"
	}
	if r.mode() == "navigate" && (r.noReferrer || from.Scheme == "https" && to.Scheme == "http") {
		return "null"
	}
	if r.tainted(from, to) {
		return "null"
	}
	return origin(from)
}

// tainted reports whether the request was redirected across two origins (Fetch
// standard, "redirect-tainted origin").
func (r *Request) tainted(from, to *url.URL) bool {
	hops := append(slices.Clone(r.chain), to.String())
	for n, hop := range hops[1:] {
		last, err1 := url.Parse(hops[n])
		next, err2 := url.Parse(hop)
		if err1 != nil || err2 != nil || origin(next) != origin(last) && origin(from) != origin(last) {
			return true
		}
	}
	return false
}

func (r *Request) sameOrigin(to *url.URL) bool {
	from, err := url.Parse(r.From)
	return err == nil && origin(from) == origin(to)
}

// referer follows the default policy, strict-origin-when-cross-origin.
func (r *Request) referer(to *url.URL) string {
	from, err := url.Parse(r.From)
	if r.From == "" || err != nil || r.noReferrer || from.Scheme == "https" && to.Scheme == "http" {
		return ""
	}
	if origin(from) != origin(to) {
		return origin(from) + "/"
	}
	if raw, _, _ := strings.Cut(r.From, "#"); plain(raw) && from.User == nil && from.Path != "" {
		return raw
	}
	from.Fragment, from.User = "", nil
	return from.String()
}

func origin(u *url.URL) string {
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

func (p *Page) noReferrer() bool { return p.Header.Get("Referrer-Policy") == "no-referrer" }

// redirected is the request that follows a redirect. The fragment goes along
// if the new URL has none of its own.
func (p *Page) redirected(location string) *Request {
	r := p.Sent.Clone()
	r.chain = append(r.chain, p.Sent.URL)
	if !strings.Contains(location, "#") {
		if _, fragment, ok := strings.Cut(p.URL, "#"); ok {
			location += "#" + fragment
		}
	}
	r.URL = location
	becomesGet := p.Status == http.StatusSeeOther && r.method() != http.MethodHead ||
		(p.Status == http.StatusMovedPermanently || p.Status == http.StatusFound) && r.method() == http.MethodPost
	if becomesGet {
		r.Method, r.Form, r.Body = http.MethodGet, nil, ""
		r.Header.Del("Content-Type")
	}
	return r
}

// submission is the request that submits a form, with values in place of its
// own.
func (p *Page) submission(f *Form, values url.Values) *Request {
	fields := maps.Clone(f.Fields)
	maps.Copy(fields, values)
	r := &Request{Method: f.Method, URL: f.Action, Form: fields, From: p.URL, noReferrer: p.noReferrer()}
	if f.Method == http.MethodGet {
		action, _, _ := strings.Cut(f.Action, "#")
		action, _, _ = strings.Cut(action, "?")
		r.URL, r.Form = action+"?"+fields.Encode(), nil
	}
	return r
}
