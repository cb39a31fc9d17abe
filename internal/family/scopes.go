package family

import (
	"slices"
	"strings"
)

// Scopes says how an issuer writes scopes, as one row of the table below. The zero
// value is an issuer whose scopes name no API, and whose tokens are for all of
// them (RFC 6749, 3.3). A token that is kept remembers the name of its row.
type Scopes string

const (
	plainScopes   Scopes = ""
	entraScopes   Scopes = "entra"
	entraV1Scopes Scopes = "entra1"
	b2cScopes     Scopes = "b2c"
)

// scopeRow is what one family of issuers does.
type scopeRow struct {
	// apis says that a scope belongs to the API before its last slash, or to
	// home, and that one token request names scopes of one API only.
	apis bool
	home string

	// once says that an authorization request, too, names one API only.
	once bool

	// folded says that the case of letters tells no scopes apart.
	folded bool
}

var scopeRows = map[Scopes]scopeRow{
	plainScopes: {},
	// The v1.0 endpoints take the API in the parameter resource.
	entraV1Scopes: {folded: true, home: graph},
	entraScopes:   {folded: true, apis: true, home: graph},
	b2cScopes:     {folded: true, apis: true, once: true},
}

// graph is how Microsoft Graph is named, and graphs in which other ways: by cloud,
// and by its application id.
const graph = "https://graph.microsoft.com"

var graphs = []string{
	graph, "https://graph.microsoft.us", "https://dod-graph.microsoft.us",
	"https://microsoftgraph.chinacloudapi.cn",
	"https://graph.svc.sovcloud.fr", "https://graph.svc.sovcloud.de", "https://graph.svc.sovcloud.sg",
	"00000003-0000-0000-c000-000000000000",
}

// google is what Google puts before email and profile when it grants them.
const google = "https://www.googleapis.com/auth/userinfo."

// ScopesOf returns the row of an issuer by its name in the configuration and, if
// it has been read, in the discovery document.
func ScopesOf(configured, documented string) Scopes {
	written := Of(configured, documented).written
	if written == entraScopes && !strings.HasSuffix(strings.TrimSuffix(configured, "/"), "/v2.0") {
		return entraV1Scopes
	}
	return written
}

// Reserved reports whether a scope is one of OpenID Connect's that a sign-in
// asks for. Reserved scopes belong to no API and go along with every request.
func Reserved(scope string) bool {
	return Protocol(scope) || scope == "profile" || scope == "email"
}

// Protocol reports whether a scope asks for an ID token or a refresh token. It
// gives access to nothing, and issuers need not name it among what they grant.
func Protocol(scope string) bool { return scope == "openid" || scope == "offline_access" }

// PerAPI reports whether a token is for one API, so that a token request has to
// name it by scopes.
func (f Scopes) PerAPI() bool { return scopeRows[f].apis }

// split cuts a scope into its API and its name there. The API is home, where the
// scope names none.
func (row scopeRow) split(scope string) (api, name string) {
	if i := strings.LastIndexByte(scope, '/'); i >= 0 {
		return scope[:i], scope[i+1:]
	}
	if row.home == "" {
		// A client ID alone is a scope of Azure AD B2C's: the client's own API.
		return scope, ""
	}
	return row.home, scope
}

// byDefault is the name of a scope that stands for all that is granted of an API.
const byDefault = ".default"

func isDefault(scope string) bool { return strings.HasSuffix(scope, "/"+byDefault) }

func sameAPI(a, b string) bool {
	return strings.EqualFold(a, b) || isGraph(a) && isGraph(b)
}

func isGraph(api string) bool {
	return slices.ContainsFunc(graphs, func(g string) bool { return strings.EqualFold(g, api) })
}

// API is the API that a token for scopes is for, named as the first of its scopes
// names it. It is home's if they are all reserved, and empty where a token is
// for all APIs.
func (f Scopes) API(scopes []string) string {
	row := scopeRows[f]
	if !row.apis {
		return ""
	}
	for _, s := range scopes {
		if !Reserved(s) {
			api, _ := row.split(s)
			return api
		}
	}
	return row.home
}

// SameAPI reports whether tokens for two lists of scopes are for the same API.
func (f Scopes) SameAPI(a, b []string) bool { return sameAPI(f.API(a), f.API(b)) }

// Same reports whether two scopes mean the same, however they are spelled.
func (f Scopes) Same(a, b string) bool {
	switch row := scopeRows[f]; {
	case a == b:
		return true
	case Reserved(a) || Reserved(b):
		return isLong(a, b) || isLong(b, a)
	case !row.folded:
		return false
	default:
		api, name := row.split(a)
		other, same := row.split(b)
		return sameAPI(api, other) && strings.EqualFold(name, same)
	}
}

// isLong reports whether long is how Google spells a reserved scope.
func isLong(long, scope string) bool {
	rest, ok := strings.CutPrefix(long, google)
	return ok && rest == scope
}

// Granted reports whether the scopes that a token was granted, in answer to a
// request for asked, contain one. A token for another API than home's names no
// reserved scope, and .default is granted as what it stands for.
func (f Scopes) Granted(granted, asked []string, scope string) bool {
	if slices.Contains(granted, scope) {
		return true
	}
	same := func(g string) bool { return f.Same(g, scope) }
	return slices.ContainsFunc(granted, same) || isDefault(scope) && slices.ContainsFunc(asked, same)
}

// Elsewhere reports whether scopes are of another API than home's, whose tokens
// name no reserved scope.
func (f Scopes) Elsewhere(scopes []string) bool {
	row := scopeRows[f]
	return row.apis && !sameAPI(f.API(scopes), row.home)
}

// Spelled spells granted scopes as they were asked for. A token is for one API,
// that of asked, so a scope of the same name is the one asked for, by whatever name
// the issuer calls the API; and one that names no API is of that one.
func (f Scopes) Spelled(granted, asked []string) []string {
	row := scopeRows[f]
	out := slices.Clone(granted)
	if !row.folded {
		return out
	}
	api := f.API(asked)
	for i, g := range out {
		if Reserved(g) {
			continue
		}
		_, name := row.split(g)
		short := !strings.Contains(g, "/")
		if short {
			name = g
		}
		n := slices.IndexFunc(asked, func(s string) bool {
			_, wanted := row.split(s)
			return !Reserved(s) && (f.Same(g, s) || row.apis && strings.EqualFold(name, wanted))
		})
		switch {
		case n >= 0:
			out[i] = asked[n]
		case short && row.apis && api != "" && !sameAPI(api, row.home):
			out[i] = api + "/" + g
		}
	}
	return out
}

// Mixed reports whether scopes are of several APIs, so that no token is for all.
func (f Scopes) Mixed(scopes []string) bool {
	if !f.PerAPI() {
		return false
	}
	row, first := scopeRows[f], f.API(scopes)
	return slices.ContainsFunc(scopes, func(s string) bool {
		api, _ := row.split(s)
		return !Reserved(s) && !sameAPI(api, first)
	})
}

// ByAPI splits scopes into lists that one token can be for each, in the order in
// which they name APIs. The reserved ones are in each list.
func (f Scopes) ByAPI(scopes []string) [][]string {
	if !f.Mixed(scopes) {
		return [][]string{scopes}
	}
	var lists [][]string
	for left := slices.DeleteFunc(slices.Clone(scopes), Reserved); len(left) > 0; {
		first := left[:1:1]
		lists = append(lists, f.Of(scopes, first))
		left = slices.DeleteFunc(slices.Clone(left), func(s string) bool { return f.SameAPI([]string{s}, first) })
	}
	return lists
}

// firstOf is the first scope that is not reserved.
func firstOf(scopes []string) []string {
	for _, s := range scopes {
		if !Reserved(s) {
			return []string{s}
		}
	}
	return nil
}

// Of returns those scopes that a token for the API of like is for, and the
// reserved ones. It is nil where all that is left are reserved scopes, which are
// for another API.
func (f Scopes) Of(scopes, like []string) []string {
	if !f.PerAPI() {
		return scopes
	}
	list := slices.DeleteFunc(slices.Clone(scopes), func(s string) bool {
		return !Reserved(s) && !f.SameAPI([]string{s}, like)
	})
	if !f.SameAPI(list, like) {
		return nil
	}
	return list
}

// Told returns those of scopes of which a token that was asked for by asked says
// whether they were granted: those that were asked for.
func (f Scopes) Told(scopes, asked []string) []string {
	if !f.PerAPI() {
		return scopes
	}
	told := slices.DeleteFunc(slices.Clone(scopes), func(s string) bool {
		return !slices.ContainsFunc(asked, func(a string) bool { return f.Same(a, s) })
	})
	return f.Of(told, asked)
}

// OneAPI returns what one token request may name of scopes: those of the first
// one's API, and the reserved ones.
func (f Scopes) OneAPI(scopes []string) []string { return f.alone(f.Of(scopes, scopes)) }

// Together returns what one authorization request may name of both lists, each
// scope once. Where not all can be named, the first list goes first.
func (f Scopes) Together(first, second []string) []string {
	var all []string
	for _, s := range slices.Concat(first, second) {
		if !slices.ContainsFunc(all, func(other string) bool { return f.Same(s, other) }) {
			all = append(all, s)
		}
	}
	if row := scopeRows[f]; row.once {
		return f.OneAPI(all)
	}
	return f.alone(all)
}

// alone drops what cannot stand beside .default, which stands for all of its API
// and admits no other scope (AADSTS70011). Of .default and another the first counts.
func (f Scopes) alone(scopes []string) []string {
	first := firstOf(scopes)
	if !f.PerAPI() || first == nil {
		return scopes
	}
	return slices.DeleteFunc(slices.Clone(scopes), func(s string) bool {
		return !Reserved(s) && s != first[0] && (isDefault(s) || isDefault(first[0]))
	})
}
