package signintest

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// The limits of Chromium.
const (
	maxCookieSize    = 4096
	maxCookiesOnSite = 180
	maxCookieAge     = 400 * 24 * time.Hour
)

// jar keeps cookies by the rules of RFC 6265bis as Chromium has them.
type jar struct {
	// refuses takes no cookie at all.
	refuses bool

	// strictSecure refuses Secure cookies on http, loopback or not.
	strictSecure bool
	site         func(host string) string
	now          func() time.Time

	mu      sync.Mutex
	cookies []stored
	created int
}

type stored struct {
	name, value  string
	quoted       bool
	domain, path string
	hostOnly     bool
	secure       bool
	sameSite     http.SameSite
	expires      time.Time // zero: with the browser
	created      int       // order
}

// reach says from where a request comes, for SameSite.
type reach int

const (
	fromSameSite   reach = iota // or from the address bar
	fromNavigation              // top-level, cross-site, by a safe method
	fromCrossSite
)

// trustworthy reports whether a URL may see Secure cookies.
func (j *jar) trustworthy(u *url.URL) bool {
	return u.Scheme == "https" || !j.strictSecure && isLoopback(u.Hostname())
}

// sameSite compares schemeful sites: scheme and registrable domain. Ports do
// not count.
func (j *jar) sameSite(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && j.site(a.Hostname()) == j.site(b.Hostname())
}

// expiry is when a cookie ends; zero: with the browser.
func expiry(c *http.Cookie, now time.Time) time.Time {
	limit := now.Add(maxCookieAge)
	switch {
	case c.MaxAge < 0:
		return now
	case c.MaxAge > 0:
		return now.Add(min(time.Duration(c.MaxAge)*time.Second, maxCookieAge))
	case c.Expires.After(limit):
		return limit
	}
	return c.Expires
}

// set stores a cookie that an answer from u asks to store, or says why not.
// A cross-site subresource may only set SameSite=None cookies.
func (j *jar) set(u *url.URL, line string, from reach) error {
	if len(line) > 2*maxCookieSize {
		return errors.New("the cookie is too long")
	}
	c, err := http.ParseSetCookie(line)
	if err != nil {
		return err
	}
	host := strings.ToLower(u.Hostname())
	s := stored{name: c.Name, value: c.Value, quoted: c.Quoted, domain: host, hostOnly: true, path: c.Path,
		secure: c.Secure, sameSite: c.SameSite}
	if c.Domain != "" {
		domain := strings.ToLower(strings.TrimPrefix(c.Domain, "."))
		if !domainMatch(host, domain) {
			return fmt.Errorf("the domain %q is not that of the host", c.Domain)
		}
		// A public suffix is good for the host itself alone.
		if domain != host && !strings.Contains(domain, ".") {
			return fmt.Errorf("the domain %q is a public suffix", c.Domain)
		}
		s.domain, s.hostOnly = domain, isLoopback(host) || !strings.Contains(domain, ".")
	}
	if !strings.HasPrefix(s.path, "/") {
		s.path = defaultPath(u.Path)
	}
	if s.sameSite != http.SameSiteNoneMode && s.sameSite != http.SameSiteStrictMode {
		s.sameSite = http.SameSiteLaxMode
	}
	if err := j.allowed(u, s, c, from); err != nil {
		return err
	}
	now := j.now()
	s.expires = expiry(c, now)
	return j.store(u, s, now)
}

// allowed checks what a cookie's attributes and name demand.
func (j *jar) allowed(u *url.URL, s stored, c *http.Cookie, from reach) error {
	name := strings.ToLower(s.name)
	switch {
	case j.refuses:
		return errors.New("the browser takes no cookies")
	case len(s.name)+len(s.value) > maxCookieSize:
		return errors.New("the cookie is too long")
	case s.secure && !j.trustworthy(u):
		return errors.New("a Secure cookie from an insecure origin")
	case strings.HasPrefix(name, "__secure-") && !s.secure:
		return errors.New("a __Secure- cookie without Secure")
	case strings.HasPrefix(name, "__host-") && (!s.secure || c.Domain != "" || c.Path != "/"):
		return errors.New("a __Host- cookie needs Secure, Path=/ and no Domain")
	case s.sameSite == http.SameSiteNoneMode && !s.secure:
		return errors.New("a SameSite=None cookie without Secure")
	case from == fromCrossSite && s.sameSite != http.SameSiteNoneMode:
		return errors.New("a cross-site answer sets a cookie that is not SameSite=None")
	}
	return nil
}

func (j *jar) store(u *url.URL, s stored, now time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.expire(now)
	if !s.secure && !j.trustworthy(u) && slices.ContainsFunc(j.cookies, func(o stored) bool {
		return o.secure && o.name == s.name && (domainMatch(o.domain, s.domain) || domainMatch(s.domain, o.domain)) &&
			pathMatch(s.path, o.path)
	}) {
		return errors.New("an insecure origin overwrites a Secure cookie")
	}
	j.created++
	s.created = j.created
	same := func(o stored) bool {
		return o.name == s.name && o.domain == s.domain && o.path == s.path && o.hostOnly == s.hostOnly
	}
	if n := slices.IndexFunc(j.cookies, same); n >= 0 {
		s.created = j.cookies[n].created
		j.cookies = slices.Delete(j.cookies, n, n+1)
	}
	if !s.expires.IsZero() && !s.expires.After(now) {
		return nil
	}
	j.cookies = append(j.cookies, s)
	j.evict(s.domain)
	return nil
}

// evict drops the oldest cookies of a domain that has too many.
func (j *jar) evict(domain string) {
	n := 0
	for _, c := range j.cookies {
		if c.domain == domain {
			n++
		}
	}
	j.cookies = slices.DeleteFunc(j.cookies, func(c stored) bool {
		if n <= maxCookiesOnSite || c.domain != domain {
			return false
		}
		n--
		return true
	})
}

func (j *jar) expire(now time.Time) {
	j.cookies = slices.DeleteFunc(j.cookies, func(c stored) bool {
		return !c.expires.IsZero() && !c.expires.After(now)
	})
}

// get returns the cookies that ride on a request, longest path first.
func (j *jar) get(u *url.URL, from reach) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.expire(j.now())
	host, path := strings.ToLower(u.Hostname()), cmp.Or(u.Path, "/")
	var match []stored
	for _, c := range j.cookies {
		switch {
		case c.hostOnly && c.domain != host, !domainMatch(host, c.domain), !pathMatch(path, c.path):
		case c.secure && !j.trustworthy(u):
		case c.sameSite == http.SameSiteStrictMode && from != fromSameSite:
		case c.sameSite == http.SameSiteLaxMode && from == fromCrossSite:
		default:
			match = append(match, c)
		}
	}
	slices.SortStableFunc(match, func(a, b stored) int {
		return cmp.Or(cmp.Compare(len(b.path), len(a.path)), cmp.Compare(a.created, b.created))
	})
	out := make([]*http.Cookie, len(match))
	for n, c := range match {
		out[n] = &http.Cookie{Name: c.name, Value: c.value, Quoted: c.quoted, Path: c.path, Secure: c.secure,
			SameSite: c.sameSite, Expires: c.expires}
		if !c.hostOnly {
			out[n].Domain = c.domain
		}
	}
	return out
}

// header is the Cookie header of a request. Values go back byte by byte.
func (j *jar) header(u *url.URL, from reach) string {
	var pairs []string
	for _, c := range j.get(u, from) {
		if c.Quoted {
			c.Value = `"` + c.Value + `"`
		}
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

func (j *jar) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cookies = nil
}

func (j *jar) copyInto(other *jar) {
	j.mu.Lock()
	defer j.mu.Unlock()
	other.cookies, other.created = slices.Clone(j.cookies), j.created
}

// dropSession forgets the cookies that do not outlive the browser.
func (j *jar) dropSession() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cookies = slices.DeleteFunc(j.cookies, func(c stored) bool { return c.expires.IsZero() })
}

// domainMatch is RFC 6265, section 5.1.3. Addresses only match themselves.
func domainMatch(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain) && !isAddress(host)
}

func isAddress(host string) bool {
	return strings.Trim(host, "0123456789.") == "" || strings.Contains(host, ":")
}

// defaultPath is RFC 6265, section 5.1.4.
func defaultPath(path string) string {
	if n := strings.LastIndexByte(path, '/'); n > 0 {
		return path[:n]
	}
	return "/"
}

// pathMatch is RFC 6265, section 5.1.4.
func pathMatch(path, cookie string) bool {
	rest, ok := strings.CutPrefix(path, cookie)
	return ok && (rest == "" || strings.HasSuffix(cookie, "/") || rest[0] == '/')
}
