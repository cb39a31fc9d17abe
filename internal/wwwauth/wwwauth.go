// Package wwwauth reads the challenges of an API: WWW-Authenticate headers (RFC
// 9110, 11.6.1).
package wwwauth

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/seed454743b5/signin/internal/oidc"
)

const (
	MaxAuthHeader     = 16 << 10 // of all WWW-Authenticate lines
	MaxAuthChallenges = 16
	maxAuthParams     = 32 // of one challenge
)

// Challenge is one challenge of a WWW-Authenticate header (RFC 9110,
// 11.6.1). Names are in lower case. A token68 is not kept.
type Challenge struct {
	Scheme string
	Params map[string]string
}

// Bearer returns the Bearer challenge that says most of what would
// help: the first with claims, else with a step-up, else with an error. It is
// nil if there is none.
func Bearer(h http.Header) *Challenge {
	var best *Challenge
	weight := 0
	for _, c := range Parse(h.Values("WWW-Authenticate")) {
		says := 0
		switch {
		case c.Scheme != "bearer":
		case c.Claims() != "":
			says = 3
		case c.AsksStepUp():
			says = 2
		case c.Params["error"] != "":
			says = 1
		}
		if says > weight {
			best, weight = &c, says
		}
	}
	return best
}

// Claims is the claims request of a challenge, or nothing if it has none. It
// travels in base64 of either alphabet, or as it is.
func (c *Challenge) Claims() string {
	given := c.Params["claims"]
	raw := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(given, "="))
	plain, err := base64.RawStdEncoding.DecodeString(raw)
	if err != nil {
		return oidc.ValidClaims(given)
	}
	return oidc.ValidClaims(string(plain))
}

// AsksStepUp reports whether the challenge carries what a sign-in has to be
// like (RFC 9470, 3).
func (c *Challenge) AsksStepUp() bool {
	return c.Params["acr_values"] != "" || c.Params["max_age"] != ""
}

// Parse reads as many challenges as are well formed. In each line
// it stops at the first that is not: where the next begins is then a guess.
func Parse(lines []string) []Challenge {
	var all []Challenge
	size := 0
	for _, line := range lines {
		if size += len(line); size > MaxAuthHeader {
			break
		}
		p := authParser{rest: line}
		for len(all) < MaxAuthChallenges {
			c, ok := p.challenge()
			if !ok {
				break
			}
			all = append(all, c)
		}
	}
	return all
}

// authParser reads the grammar of RFC 9110, 11.6.1. Commas stand between
// challenges and between parameters alike: what follows one is a parameter if
// it is a name and an equals sign, else the scheme of the next challenge.
type authParser struct{ rest string }

func (p *authParser) challenge() (Challenge, bool) {
	p.commas()
	c := Challenge{Scheme: strings.ToLower(p.token()), Params: map[string]string{}}
	if c.Scheme == "" {
		return c, false
	}
	if p.rest == "" || p.rest[0] == ',' {
		return c, true
	}
	if p.rest[0] != ' ' {
		return c, false
	}
	p.space()
	if p.token68() {
		return c, true
	}
	for {
		before := p.rest
		p.commas()
		if p.rest == "" {
			return c, true
		}
		name := strings.ToLower(p.token())
		p.space()
		if name == "" || !p.skip('=') {
			// The scheme of the next challenge, or nothing we know.
			p.rest = before
			return c, strings.HasPrefix(strings.TrimLeft(before, " \t"), ",")
		}
		p.space()
		value, ok := p.value()
		_, twice := c.Params[name]
		p.space()
		if !ok || twice || len(c.Params) == maxAuthParams || p.rest != "" && p.rest[0] != ',' {
			return c, false
		}
		c.Params[name] = value
	}
}

// commas skips what may stand between the elements of a list.
func (p *authParser) commas() { p.rest = strings.TrimLeft(p.rest, ", \t") }

func (p *authParser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

func (p *authParser) skip(b byte) bool {
	if p.rest == "" || p.rest[0] != b {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *authParser) token() string {
	n := 0
	for n < len(p.rest) && isTokenByte(p.rest[n]) {
		n++
	}
	token := p.rest[:n]
	p.rest = p.rest[n:]
	return token
}

// token68 skips one, if it ends where a challenge ends.
func (p *authParser) token68() bool {
	n := 0
	for n < len(p.rest) && (isAlphanumeric(p.rest[n]) || strings.IndexByte("-._~+/", p.rest[n]) >= 0) {
		n++
	}
	if n == 0 {
		return false
	}
	rest := strings.TrimLeft(strings.TrimLeft(p.rest[n:], "="), " \t")
	if rest != "" && rest[0] != ',' {
		return false
	}
	p.rest = rest
	return true
}

// value is a token or a quoted string.
func (p *authParser) value() (string, bool) {
	if !p.skip('"') {
		v := p.token()
		return v, v != ""
	}
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\':
			if i++; i == len(p.rest) || p.rest[i] < ' ' && p.rest[i] != '\t' || p.rest[i] == 0x7f {
				return "", false
			}
			b.WriteByte(p.rest[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false // it does not end
}

// isTokenByte reports tchar (RFC 9110, 5.6.2).
func isTokenByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
