package signintest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// BrowserOptions choose what a [Browser] does differently. Nil, or the zero
// value, is Chromium with an empty cookie jar.
type BrowserOptions struct {
	// Network resolves host names. Nil reaches only localhost and loopback
	// addresses.
	Network *Network

	// StrictSecure refuses Secure cookies over http on loopback too, as Safari
	// does, and sends Safari's User-Agent. Chromium allows them there.
	StrictSecure bool

	// NoCookies refuses all cookies.
	NoCookies bool

	// Site returns the registrable domain of a host name: what it has in
	// common with those it is same-site with. Nil takes the whole host name,
	// so that two hosts are always cross-site; ports never matter.
	Site func(host string) string

	// Now is the clock by which cookies expire. Nil means time.Now.
	Now func() time.Time

	// UserAgent replaces the browser's own.
	UserAgent string

	// Transport, if not nil, carries the browser's requests in place of Network:
	// a test in a testing/synctest bubble answers them without a connection.
	Transport http.RoundTripper
}

// Browser is an HTTP client that acts as Chromium does where sign-in is
// concerned: cookies, redirects, forms, and the headers that say where a
// request comes from. It runs no scripts but the one that submits a form on
// load.
//
// Each [Page] is a tab of its own: tabs share nothing but the cookies. A
// Browser may be used from several goroutines. It only ever connects to loopback,
// and so trusts every certificate.
type Browser struct {
	options   BrowserOptions
	jar       *jar
	transport http.RoundTripper
}

// ErrTooManyRedirects is the [Page.Err] of a page that leads on and on.
var ErrTooManyRedirects = errors.New("signintest: more than 20 redirects")

const (
	maxRedirects = 20
	maxPage      = 10 << 20
)

// NewBrowser starts a browser with no cookies. It ends with the test.
func NewBrowser(tb testing.TB, options *BrowserOptions) *Browser {
	tb.Helper()
	b := &Browser{}
	if options != nil {
		b.options = *options
	}
	if b.options.Network == nil && b.options.Transport == nil {
		b.options.Network = NewNetwork(tb)
	}
	if b.options.Site == nil {
		b.options.Site = func(host string) string { return host }
	}
	if b.options.Now == nil {
		b.options.Now = time.Now
	}
	b.jar = b.newJar()
	if b.transport = b.options.Transport; b.transport != nil {
		return b
	}
	// Certificates of httptest servers are nobody's; nothing leaves loopback.
	transport := b.options.Network.transport(&tls.Config{InsecureSkipVerify: true})
	tb.Cleanup(transport.CloseIdleConnections)
	b.transport = transport
	return b
}

func (b *Browser) newJar() *jar {
	return &jar{refuses: b.options.NoCookies, strictSecure: b.options.StrictSecure, site: b.options.Site, now: b.options.Now}
}

// Clone returns a browser with a copy of this one's cookies, as a thief or a
// backup has them.
func (b *Browser) Clone() *Browser {
	c := &Browser{options: b.options, transport: b.transport}
	c.jar = c.newJar()
	b.jar.copyInto(c.jar)
	return c
}

// Restart forgets the cookies that end with the browser session.
func (b *Browser) Restart() { b.jar.dropSession() }

// Open opens a URL in a new tab, as if typed into the address bar, and
// returns the page it settles on: one that neither redirects nor submits
// itself.
func (b *Browser) Open(url string) *Page {
	return b.Follow(&Request{Method: http.MethodGet, URL: url, Activated: true})
}

// Follow sends a request and what follows from it, until a page settles.
func (b *Browser) Follow(r *Request) *Page {
	page, _ := b.FollowUntil(r, func(*Request) bool { return false })
	return page
}

// OpenUntil is Open that stops before it sends the first request that stop
// accepts, and returns that request. A test can so take the callback out of
// the browser's hands: send it late, changed, or many times.
// Without such a request it returns the page it settles on.
func (b *Browser) OpenUntil(url string, stop func(*Request) bool) (*Page, *Request) {
	return b.FollowUntil(&Request{Method: http.MethodGet, URL: url, Activated: true}, stop)
}

// FollowUntil is Follow that stops as OpenUntil does. The page is the last
// one seen, nil if stop accepts the very first request.
func (b *Browser) FollowUntil(r *Request, stop func(*Request) bool) (*Page, *Request) {
	var page *Page
	for range maxRedirects + 1 {
		if stop(r) {
			return page, r
		}
		page = b.Send(r)
		if r = page.Next(); page.Err != nil || r == nil {
			return page, nil
		}
	}
	page.Err = ErrTooManyRedirects
	return page, nil
}

// To returns a stop function for requests to a path, whatever the host.
func To(path string) func(*Request) bool {
	return func(r *Request) bool {
		u, err := url.Parse(r.URL)
		return err == nil && u.Path == path
	}
}

// Click follows a link on a page; ref may be relative. It returns the page
// that settles.
func (b *Browser) Click(from *Page, ref string) *Page {
	return b.Follow(&Request{Method: http.MethodGet, URL: from.resolve(ref), From: from.URL, Activated: true,
		noReferrer: from.noReferrer()})
}

// Submit fills in a form and submits it: the first form of the page that has
// all fields named in values, else the first form. A page without a form gives
// a Page with Err set. It returns the page that settles.
func (b *Browser) Submit(from *Page, values url.Values) *Page {
	forms := from.Forms()
	if len(forms) == 0 {
		return &Page{Err: fmt.Errorf("signintest: %s has no form to submit", from.URL), URL: from.URL, browser: b}
	}
	form := forms[0]
	if n := slices.IndexFunc(forms, func(f *Form) bool { return f.has(values) }); n >= 0 {
		form = forms[n]
	}
	r := from.submission(form, values)
	r.Activated = true
	return b.Follow(r)
}

// Fetch requests a URL as a script on a page does, with fetch and its
// credentials: "include". The answer is returned as it is: redirects are not
// followed.
func (b *Browser) Fetch(from *Page, ref string) *Page {
	return b.Send(&Request{Method: http.MethodGet, URL: from.resolve(ref), From: from.URL, Mode: "cors", Dest: "empty"})
}

// Cookies returns the cookies that a request from the address bar to url
// would carry, in their order.
func (b *Browser) Cookies(rawURL string) []*http.Cookie {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil
	}
	return b.jar.get(u, fromSameSite)
}

// Cookie returns the value of the cookie that would be sent to url under a
// name.
func (b *Browser) Cookie(rawURL, name string) (value string, ok bool) {
	for _, c := range b.Cookies(rawURL) {
		if c.Name == name {
			return c.Value, true
		}
	}
	return "", false
}

// SetCookie stores a cookie as if a page at url had set it. The error says
// which rule forbids it.
func (b *Browser) SetCookie(rawURL string, c *http.Cookie) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("signintest: setting a cookie: %w", err)
	}
	if err := b.jar.set(u, c.String(), fromSameSite); err != nil {
		return fmt.Errorf("signintest: setting a cookie: %w", err)
	}
	return nil
}

// ClearCookies forgets all cookies.
func (b *Browser) ClearCookies() { b.jar.clear() }

// Send makes one request and follows nothing.
func (b *Browser) Send(r *Request) *Page { return b.SendContext(context.Background(), r) }

// SendContext is Send for a user who may give up: cancelling ctx closes the
// connection.
func (b *Browser) SendContext(ctx context.Context, r *Request) *Page {
	page := &Page{URL: r.URL, Sent: r, browser: b, Header: http.Header{}}
	u, err := url.Parse(r.URL)
	if err != nil {
		page.Err = fmt.Errorf("signintest: request: %w", err)
		return page
	}
	req, err := http.NewRequestWithContext(ctx, r.method(), u.String(), strings.NewReader(r.body()))
	if err != nil {
		page.Err = fmt.Errorf("signintest: request: %w", err)
		return page
	}
	if raw := rawPath(r.URL); raw != u.EscapedPath() && strings.HasPrefix(raw, "/") && !strings.HasPrefix(raw, "//") {
		req.URL.Opaque = raw
	}
	from := r.reach(b, u)
	req.Header = r.headers(b, u)
	if cookies := b.jar.header(u, from); cookies != "" {
		req.Header.Set("Cookie", cookies)
	}
	maps.Copy(req.Header, r.Header)
	if host := r.Header.Get("Host"); host != "" {
		req.Host = host
	}
	page.SentHeader = req.Header.Clone()
	res, err := b.transport.RoundTrip(req)
	if err != nil {
		page.Err = fmt.Errorf("signintest: %s %s: %w", r.method(), u.Redacted(), err)
		return page
	}
	defer res.Body.Close()
	page.Status, page.Header = res.StatusCode, res.Header
	for _, line := range res.Header.Values("Set-Cookie") {
		if err := b.jar.set(u, line, r.settingReach(from)); err != nil {
			name, _, _ := strings.Cut(line, "=")
			page.Rejected = append(page.Rejected, name+": "+err.Error())
		}
	}
	content, err := io.ReadAll(io.LimitReader(res.Body, maxPage))
	page.Body = string(content)
	if err != nil {
		page.Err = fmt.Errorf("signintest: reading %s: %w", u.Redacted(), err)
	}
	return page
}
