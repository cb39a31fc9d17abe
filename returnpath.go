package signin

import (
	"net/http"
	"net/url"
	"strings"
)

// maxReturnPath is how long a return path may be before it loses its query.
const maxReturnPath = 2048

// returnPath is a path and query on this site. Only newReturnPath makes one,
// and nothing else of a caller's or a client's reaches a Location header. Its
// zero value is the root.
type returnPath struct {
	value string
	bare  bool // the site's prefix may be missing; see [sites.page]
}

// newReturnPath returns s if a browser resolves it to a page of the same
// origin, the root otherwise. Browsers read \ in a path as /, drop tabs and
// newlines, and take // for the start of another host; so does a %5C or %2F
// once some server has decoded it, but that is another request's path, not a
// host. In a query \ is a character like others, and browsers send it raw.
func newReturnPath(s string) returnPath {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return returnPath{}
	}
	path, _, _ := strings.Cut(s, "?")
	if strings.Contains(path, `\`) {
		return returnPath{}
	}
	for i := range len(s) {
		// net/http would escape what is not ASCII; we want to know the bytes
		// that go out.
		if s[i] <= ' ' || s[i] >= 0x7f {
			return returnPath{}
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil {
		return returnPath{}
	}
	// Where a path holds a raw character that should be escaped, net/url
	// decodes the whole path and escapes it anew: /%2fevil.example/" becomes
	// //evil.example/%22. A proxy that reads Location so would send the browser
	// to another host, so that reading has to be safe as well.
	read := u.EscapedPath()
	// A dot segment could leave // at the start: /.//evil.example.
	if strings.HasPrefix(read, "//") || hasDotSegment(read) {
		return returnPath{}
	}
	s, _, _ = strings.Cut(s, "#")
	if len(s) > maxReturnPath {
		s, _, _ = strings.Cut(s, "?")
	}
	if len(s) > maxReturnPath {
		return returnPath{}
	}
	return returnPath{value: s}
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

func (p returnPath) String() string {
	if p.value == "" {
		return "/"
	}
	return p.value
}

// redirectWithin sends the browser to a page of this site, by GET.
func redirectWithin(w http.ResponseWriter, p returnPath) {
	noStore(w)
	w.Header().Set("Location", p.String())
	w.WriteHeader(http.StatusSeeOther)
}

// noStore keeps an answer that sets a cookie or depends on one out of caches.
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
}
