// Package browsertest drives pages the way a person with a browser does: it
// follows links and redirects, fills in forms, presses buttons and keeps
// cookies by the rules that matter to a sign-in (Secure on loopback, SameSite,
// the __Host- prefix).
package browsertest

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// Browser is one browser with one window. It is not safe for concurrent use.
type Browser struct {
	// Transport carries the requests. New sets one of its own.
	Transport http.RoundTripper

	// OnRequest, if set, sees each request before it is sent.
	OnRequest func(*http.Request)

	t       testing.TB
	cookies map[string]*http.Cookie // host, a space, name
	at      *url.URL                // the page in the window
}

// New returns a browser without cookies. It is closed with the test.
func New(t testing.TB) *Browser {
	tr := &http.Transport{ResponseHeaderTimeout: 20 * time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return &Browser{Transport: tr, t: t, cookies: make(map[string]*http.Cookie)}
}

// Page is an answer that is not a redirect.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Body   string
	doc    *html.Node
}

// Open types a URL into the address bar.
func (b *Browser) Open(target string) *Page {
	b.t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	b.at = nil
	return b.load(http.MethodGet, u, nil)
}

// Fetch sends a GET without following redirects, as a script or a command-line
// client with the browser's cookies would. Header fields come in pairs.
func (b *Browser) Fetch(target string, header ...string) *Page {
	b.t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	r := &http.Request{Method: http.MethodGet, URL: u, Header: make(http.Header)}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return b.roundTrip(r, u)
}

// Press presses the button that reads label on the page, after filling the
// fields of its form. A field given with no values is left out of the form.
func (b *Browser) Press(p *Page, label string, fields url.Values) *Page {
	b.t.Helper()
	form, button := p.findButton(label)
	if button == nil {
		b.t.Fatalf("browser: no button %q on %s (status %d):\n%s", label, p.URL, p.Status, p.Text())
	}
	values := formValues(form)
	if name := attr(button, "name"); name != "" {
		values.Set(name, attr(button, "value"))
	}
	for name, v := range fields {
		values[name] = v
	}
	return b.submit(p, form, values)
}

// Follow clicks the link that reads label.
func (b *Browser) Follow(p *Page, label string) *Page {
	b.t.Helper()
	for n := range p.doc.Descendants() {
		if n.Data == "a" && strings.TrimSpace(text(n)) == label {
			u, err := p.URL.Parse(attr(n, "href"))
			if err != nil {
				b.t.Fatalf("browser: %v", err)
			}
			b.at = p.URL
			return b.load(http.MethodGet, u, nil)
		}
	}
	b.t.Fatalf("browser: no link %q on %s:\n%s", label, p.URL, p.Text())
	return nil
}

func (b *Browser) submit(p *Page, form *html.Node, values url.Values) *Page {
	b.t.Helper()
	u, err := p.URL.Parse(attr(form, "action"))
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	b.at = p.URL
	if !strings.EqualFold(attr(form, "method"), "post") {
		u.RawQuery = values.Encode()
		return b.load(http.MethodGet, u, nil)
	}
	return b.load(http.MethodPost, u, values)
}

// load navigates, follows redirects, and lets a form_post page post itself.
func (b *Browser) load(method string, u *url.URL, values url.Values) *Page {
	b.t.Helper()
	initiator := b.at
	for range 20 {
		r := &http.Request{Method: method, URL: u, Header: make(http.Header)}
		r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		r.Header.Set("Sec-Fetch-Site", fetchSite(initiator, u))
		if method == http.MethodPost {
			body := values.Encode()
			r.Body = io.NopCloser(strings.NewReader(body))
			r.ContentLength = int64(len(body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", origin(initiator))
		}
		p := b.roundTrip(r, initiator)
		b.at = u
		if location := p.Header.Get("Location"); p.Status >= 300 && p.Status < 400 && location != "" {
			next, err := u.Parse(location)
			if err != nil {
				b.t.Fatalf("browser: redirect from %s: %v", u, err)
			}
			if p.Status != http.StatusTemporaryRedirect && p.Status != http.StatusPermanentRedirect {
				method, values = http.MethodGet, nil
			}
			u = next
			continue
		}
		if form := p.selfSubmitting(); form != nil {
			return b.submit(p, form, formValues(form))
		}
		return p
	}
	b.t.Fatalf("browser: more than 20 redirects, the last to %s", u)
	return nil
}

func (b *Browser) roundTrip(r *http.Request, initiator *url.URL) *Page {
	b.t.Helper()
	r = r.WithContext(b.t.Context())
	r.Host = r.URL.Host
	for _, c := range b.cookiesFor(r, initiator) {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	if b.OnRequest != nil {
		b.OnRequest(r)
	}
	resp, err := b.Transport.RoundTrip(r)
	if err != nil {
		b.t.Fatalf("browser: %s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		b.t.Fatalf("browser: %s %s: %v", r.Method, r.URL, err)
	}
	b.keep(r.URL, resp.Cookies())
	doc, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		b.t.Fatalf("browser: %s %s: %v", r.Method, r.URL, err)
	}
	return &Page{URL: r.URL, Status: resp.StatusCode, Header: resp.Header, Body: string(body), doc: doc}
}

// cookiesFor applies path, Secure and SameSite. Ports do not separate cookies.
func (b *Browser) cookiesFor(r *http.Request, initiator *url.URL) []*http.Cookie {
	crossSite := initiator != nil && initiator.Hostname() != r.URL.Hostname()
	var list []*http.Cookie
	for key, c := range b.cookies {
		host, _, _ := strings.Cut(key, " ")
		switch {
		case host != r.URL.Hostname(), !pathMatch(c.Path, r.URL.Path), c.Secure && !secure(r.URL):
		case crossSite && c.SameSite == http.SameSiteStrictMode:
		case crossSite && r.Method != http.MethodGet && c.SameSite != http.SameSiteNoneMode:
		default:
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *http.Cookie) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (b *Browser) keep(u *url.URL, cookies []*http.Cookie) {
	b.t.Helper()
	for _, c := range cookies {
		if c.SameSite == http.SameSiteNoneMode && !c.Secure {
			b.t.Errorf("browser: cookie %s from %s has SameSite=None without Secure", c.Name, u)
			continue
		}
		if strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Path != "/" || c.Domain != "") {
			b.t.Errorf("browser: cookie %s from %s breaks the rules of __Host-", c.Name, u)
			continue
		}
		if c.Secure && !secure(u) {
			b.t.Errorf("browser: Secure cookie %s from %s", c.Name, u)
			continue
		}
		key := u.Hostname() + " " + c.Name
		if c.MaxAge < 0 || !c.Expires.IsZero() && c.Expires.Before(time.Now()) {
			delete(b.cookies, key)
			continue
		}
		b.cookies[key] = c
	}
}

// Cookies returns what the browser holds for a host.
func (b *Browser) Cookies(host string) []*http.Cookie {
	var list []*http.Cookie
	for key, c := range b.cookies {
		if h, _, _ := strings.Cut(key, " "); h == host {
			list = append(list, c)
		}
	}
	return list
}

func pathMatch(cookie, request string) bool {
	return cookie == "" || cookie == "/" || request == cookie ||
		strings.HasPrefix(request, strings.TrimSuffix(cookie, "/")+"/")
}

// secure reports whether a browser takes the origin for trustworthy.
func secure(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func origin(u *url.URL) string {
	if u == nil {
		return "null"
	}
	return u.Scheme + "://" + u.Host
}

func fetchSite(initiator, target *url.URL) string {
	switch {
	case initiator == nil:
		return "none"
	case origin(initiator) == origin(target):
		return "same-origin"
	case initiator.Hostname() == target.Hostname():
		return "same-site"
	default:
		return "cross-site"
	}
}
