package signin

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
)

const (
	maxAuthHeader     = 16 << 10 // of all WWW-Authenticate lines
	maxAuthChallenges = 16
	maxAuthParams     = 32 // of one challenge
)

// authChallenge is one challenge of a WWW-Authenticate header (RFC 9110,
// 11.6.1). Names are in lower case. A token68 is not kept.
type authChallenge struct {
	scheme string
	params map[string]string
}

// bearerChallenge returns the Bearer challenge that says most of what would
// help: the first with claims, else with a step-up, else with an error. It is
// nil if there is none.
func bearerChallenge(h http.Header) *authChallenge {
	var best *authChallenge
	weight := 0
	for _, c := range parseChallenges(h.Values("WWW-Authenticate")) {
		says := 0
		switch {
		case c.scheme != "bearer":
		case c.claims() != "":
			says = 3
		case c.asksStepUp():
			says = 2
		case c.params["error"] != "":
			says = 1
		}
		if says > weight {
			best, weight = &c, says
		}
	}
	return best
}

// claims is the claims request of a challenge, or nothing if it has none. It
// travels in base64 of either alphabet, or as it is.
func (c *authChallenge) claims() string {
	given := c.params["claims"]
	raw := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(given, "="))
	plain, err := base64.RawStdEncoding.DecodeString(raw)
	if err != nil {
		return oidc.ValidClaims(given)
	}
	return oidc.ValidClaims(string(plain))
}

// asksStepUp reports whether the challenge carries what a sign-in has to be
// like (RFC 9470, 3).
func (c *authChallenge) asksStepUp() bool {
	return c.params["acr_values"] != "" || c.params["max_age"] != ""
}

// stepUp is what an insufficient_user_authentication challenge asks for (RFC
// 9470, 3). Without any of it, a fresh sign-in is all that can be meant.
func (c *authChallenge) stepUp(need *InteractionRequiredError) {
	for _, acr := range strings.Fields(c.params["acr_values"]) {
		if validScope(acr) && len(need.ACR) < 16 {
			need.ACR = append(need.ACR, acr)
		}
	}
	if n, err := strconv.ParseUint(c.params["max_age"], 10, 31); err == nil {
		need.MaxAge = new(time.Duration(n) * time.Second)
	}
	if len(need.ACR) == 0 && need.MaxAge == nil {
		need.Prompt = "login"
	}
}

// parseChallenges reads as many challenges as are well formed. In each line
// it stops at the first that is not: where the next begins is then a guess.
func parseChallenges(lines []string) []authChallenge {
	var all []authChallenge
	size := 0
	for _, line := range lines {
		if size += len(line); size > maxAuthHeader {
			break
		}
		p := authParser{rest: line}
		for len(all) < maxAuthChallenges {
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

func (p *authParser) challenge() (authChallenge, bool) {
	p.commas()
	c := authChallenge{scheme: strings.ToLower(p.token()), params: map[string]string{}}
	if c.scheme == "" {
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
		_, twice := c.params[name]
		p.space()
		if !ok || twice || len(c.params) == maxAuthParams || p.rest != "" && p.rest[0] != ',' {
			return c, false
		}
		c.params[name] = value
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
