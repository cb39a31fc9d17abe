// Package text makes texts from outside fit to be logged and shown.
package text

import (
	"regexp"
	"strings"
	"unicode"
)

// Printable bounds a text from outside and drops what could forge a line.
func Printable(text string, limit int) string {
	var b strings.Builder
	for _, r := range text {
		if limit--; limit < 0 {
			b.WriteString("...")
			break
		}
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Clean bounds a text of the issuer's and removes from it what we sent and who
// it is about: an issuer that echoes a code or a refresh token, or names the
// user, must not get that into our log.
func Clean(text string, sent []string, limit int) string {
	for _, v := range sent {
		if len(v) >= 8 {
			text = strings.ReplaceAll(text, v, "[removed]")
		}
	}
	return Printable(address.ReplaceAllString(text, "[removed]"), limit)
}

// address is what issuers put into error texts to name a user.
var address = regexp.MustCompile(`[^\s'"<>()]+@[^\s'"<>()]+`)

// IsTokenRune reports whether r may stand in a token of ours: a cookie's name, a
// parameter's, base64url.
func IsTokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}
