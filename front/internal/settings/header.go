package settings

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// headers reads which headers say what about the user.
func (l *loader) headers(n *yaml.Node) []Header {
	out := []Header{} // not nil: none is an answer
	if n.Kind != yaml.MappingNode {
		l.fault(n, "want {NAME: subject, ...}")
		return out
	}
	for k, v := range l.fields(n) {
		if why := badHeader(k.Value); why != "" {
			l.fault(k, "%s: %s", k.Value, why)
		}
		if slices.ContainsFunc(out, func(h Header) bool { return Fold(h.Name) == Fold(k.Value) }) {
			l.fault(k, "%s: servers take this for the same name as another here", k.Value)
		}
		source := l.text(v)
		switch {
		case slices.Contains([]string{SourceSubject, SourceUsername, SourceName, SourceEmail, SourceGroups, SourceTenant, SourceIssuer}, source):
		case strings.HasPrefix(source, claimSource) && len(source) > len(claimSource):
		default:
			l.fault(v, "%s: %q is not known; want subject, preferred_username, name, email, groups, tenant, issuer, or claim:NAME", k.Value, source)
		}
		out = append(out, Header{k.Value, source})
	}
	slices.SortFunc(out, func(a, b Header) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// badHeader says why a header cannot carry an identity, or nothing.
func badHeader(name string) string {
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}):
		return "want letters, digits and hyphens"
	case strings.Contains(name, "_"):
		return "want hyphens: many servers drop names with an underscore"
	}
	lower := strings.ToLower(name)
	if slices.Contains(protocolHeaders, lower) {
		return "belongs to HTTP or to the front itself; want a name of its own, such as X-Forwarded-User"
	}
	for _, p := range []string{"sec-", "proxy-", "content-", "accept", "if-", "access-control-", "x-original-", "x-rewrite-", "cf-", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto", "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-ssl", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-path"} {
		if strings.HasPrefix(lower, p) {
			return "belongs to HTTP or to the front itself; want a name of its own, such as X-Forwarded-User"
		}
	}
	return ""
}

var protocolHeaders = strings.Fields(`age allow authorization cache-control clear-site-data connection cookie date early-data etag expect expires
	forwarded from host http2-settings keep-alive last-event-id last-modified link location max-forwards origin pragma priority range referer
	retry-after server set-cookie strict-transport-security te traceparent tracestate trailer transfer-encoding upgrade
	upgrade-insecure-requests user-agent vary via warning www-authenticate x-accel-redirect x-csrf-token x-http-method x-http-method-override
	x-method-override x-real-ip x-request-id x-requested-with x-sendfile`)

// Fold makes one name of all that a server may take for it: CGI and WSGI read
// X_Forwarded_User as X-Forwarded-User.
func Fold(name string) string {
	plain := true
	for i := 0; i < len(name) && plain; i++ {
		c := name[i]
		plain = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
	}
	if plain {
		return name
	}
	out := make([]byte, len(name))
	for i := range len(name) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			out[i] = c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			out[i] = c
		default:
			out[i] = '-'
		}
	}
	return string(out)
}
