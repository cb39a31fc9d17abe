package site

import (
	"net/http"
	"net/url"
	"strings"
)

// MaxReturnPath is how long a return path may be before it loses its query.
const MaxReturnPath = 2048

// ReturnPath is a path and query on this site. Only newReturnPath makes one,
// and nothing else of a caller's or a client's reaches a Location header. Its
// zero value is the root.
type ReturnPath struct {
	value string
	Bare  bool // the site's prefix may be missing; see [sites.page]
}

// NewReturnPath returns s if a browser resolves it to a page of the same
// origin, the root otherwise. Browsers read \ in a path as /, drop tabs and
// newlines, and take // for the start of another host; so does a %5C or %2F
// once some server has decoded it, but that is another request's path, not a
// host. In a query \ is a character like others, and browsers send it raw.
func NewReturnPath(s string) ReturnPath {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return ReturnPath{}
	}
	path, _, _ := strings.Cut(s, "?")
	if strings.Contains(path, `\`) {
		return ReturnPath{}
	}
	for i := range len(s) {
		// net/http would escape what is not ASCII; we want to know the bytes
		// that go out.
		if s[i] <= ' ' || s[i] >= 0x7f {
			return ReturnPath{}
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil {
		return ReturnPath{}
	}
	// Where a path holds a raw character that should be escaped, net/url
	// decodes the whole path and escapes it anew: /%2fevil.example/" becomes
	// //evil.example/%22. A proxy that reads Location so would send the browser
	// to another host, so that reading has to be safe as well.
	read := u.EscapedPath()
	// A dot segment could leave // at the start: /.//evil.example.
	if strings.HasPrefix(read, "//") || hasDotSegment(read) {
		return ReturnPath{}
	}
	s, _, _ = strings.Cut(s, "#")
	if len(s) > MaxReturnPath {
		s, _, _ = strings.Cut(s, "?")
	}
	if len(s) > MaxReturnPath {
		return ReturnPath{}
	}
	return ReturnPath{value: s}
}

func hasDotSegment(escaped string) bool {
	for seg := range strings.SplitSeq(escaped, "/") {
		switch strings.ReplaceAll(strings.ToLower(seg), "%2e", ".") {
		case ".", "..":
			return true
		}
	}
	return false
}

func (p ReturnPath) String() string {
	if p.value == "" {
		return "/"
	}
	return p.value
}

// RedirectWithin sends the browser to a page of this site, by GET.
func RedirectWithin(w http.ResponseWriter, p ReturnPath) {
	NoStore(w)
	w.Header().Set("Location", p.String())
	w.WriteHeader(http.StatusSeeOther)
}

// NoStore keeps an answer that sets a cookie or depends on one out of caches.
func NoStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
}
