package routes

import (
	"errors"
	"net/url"
	"path"
	"slices"
	"strings"
)

var (
	errDots    = errors.New("the path has a . or .. segment, in some spelling")
	errControl = errors.New("the path has a control character or an overlong one")
	errMany    = errors.New("the path has too many readings")
)

// maxOdd bounds a path that is not plain: all its readings are looked at.
const maxOdd = 8 << 10

// plain reports whether every server reads an escaped path alike.
func plain(p string) bool {
	if !strings.HasPrefix(p, "/") {
		return false
	}
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_~!$&'()*+,:=@", c) >= 0:
		case c == '/':
			if i > 0 && p[i-1] == '/' {
				return false
			}
		case c == '.':
			// a segment that begins with a dot is looked at closely
			if p[i-1] == '/' {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// readings returns how servers may read an escaped path, each clean and
// escaped again. The first is ServeMux's.
func readings(escaped string) ([]string, error) {
	switch {
	case !strings.HasPrefix(escaped, "/"):
		return nil, errors.New("the path does not begin with a slash")
	case len(escaped) > maxOdd:
		return nil, errMany
	}
	literal := escaped
	for strings.Contains(literal, "//") { // a server that knows empty segments
		literal = strings.ReplaceAll(literal, "//", "/\x00/")
	}
	all := []string{cleanPath(escaped), literal}
	todo := []string{escaped}
	seen := map[string]bool{escaped: true}
	next := func(p string) {
		if !strings.HasPrefix(p, "/") {
			p = "/" + p
		}
		if !seen[p] {
			seen[p] = true
			todo = append(todo, p)
		}
	}
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		if len(seen) > maxTries {
			return nil, errMany
		}
		if err := check(p); err != nil {
			return nil, err
		}
		all = append(all, escape(cleanPath(p)))
		if decoded, err := url.PathUnescape(p); err == nil {
			next(decoded) // once, and by the next round twice, as some do
		}
		next(strings.ReplaceAll(p, `\`, "/"))
		next(withoutParameters(p))
		if i := strings.IndexAny(p, "?#"); i >= 0 { // only encoded ones get here
			next(p[:i])
		}
		if rest, ok := strings.CutPrefix(p, "//"); ok { // read as //host/path
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				next(rest[i:])
			} else {
				next("/")
			}
		}
	}
	slices.Sort(all[2:])
	return append(all[:2], slices.Compact(all[2:])...), nil
}

// check refuses what no browser sends: it resolves dot segments itself, also
// encoded ones.
func check(p string) error {
	for i := 0; i < len(p); i++ {
		if p[i] < ' ' || p[i] == 0x7f || p[i] == 0xc0 || p[i] == 0xc1 {
			return errControl
		}
	}
	for segment := range strings.SplitSeq(strings.ReplaceAll(p, `\`, "/"), "/") {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return errDots
		}
	}
	return nil
}

// withoutParameters drops ;parameters from each segment, as Java's servers do.
func withoutParameters(p string) string {
	if !strings.Contains(p, ";") {
		return p
	}
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

// cleanPath joins doubled slashes; dot segments have been refused.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// escape makes what has been decoded a path to match again. What is escaped
// already stays.
func escape(p string) string {
	if _, err := url.PathUnescape(p); err == nil && !strings.ContainsAny(p, "?# ") {
		return p
	}
	return (&url.URL{Path: p}).EscapedPath()
}
