package signintest

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// graphNames are the names of Microsoft Graph, in all clouds. A scope without
// an API is one of Graph's.
var graphNames = []string{
	"https://graph.microsoft.com", "https://graph.microsoft.us", "https://dod-graph.microsoft.us",
	"https://microsoftgraph.chinacloudapi.cn", "https://graph.svc.sovcloud.fr", "https://graph.svc.sovcloud.de",
	"https://graph.svc.sovcloud.sg", "00000003-0000-0000-c000-000000000000",
}

// API is an API that Entra ID issues access tokens for. Each scope belongs to
// one: that before the scope's last slash, in any letter case.
type API struct {
	// ID is how a scope names the API: api://orders, https://orders.example.test,
	// or an application's id.
	ID string

	// Names are further names of the same API.
	Names []string

	// Scopes are the scopes that the API has, without its ID. Nil means any.
	Scopes []string

	// Granted says how a token answer spells the scopes.
	Granted Spelling
}

// Spelling says how Entra spells granted scopes of an API.
type Spelling int

const (
	// SpellUsual spells scopes of Microsoft Graph without the API, and others
	// as they were asked for.
	SpellUsual Spelling = iota
	// SpellShort leaves the API out.
	SpellShort
	// SpellLong puts the API's ID before each scope.
	SpellLong
)

// reserved reports whether a scope is about the sign-in and not about an API.
func reserved(scope string) bool {
	return slices.Contains([]string{"openid", "profile", "email", "offline_access"}, scope)
}

// splitScope cuts a scope of Entra's into API and name.
func splitScope(scope string) (api, name string) {
	if n := strings.LastIndexByte(scope, '/'); n >= 0 {
		return scope[:n], scope[n+1:]
	}
	return graphNames[0], scope
}

// api finds an API by one of its names. All are known if none are listed, and
// Microsoft Graph is known in any case.
func (b *Behaviour) api(name string) (API, bool) {
	same := func(other string) bool { return strings.EqualFold(name, other) }
	graph := slices.ContainsFunc(graphNames, same)
	for _, a := range b.APIs {
		names := append([]string{a.ID}, a.Names...)
		if slices.ContainsFunc(names, same) || graph && slices.ContainsFunc(graphNames, func(g string) bool { return strings.EqualFold(g, a.ID) }) {
			return a, true
		}
	}
	if graph {
		return API{ID: graphNames[0]}, true
	}
	return API{ID: name}, b.APIs == nil
}

// meaning is a scope in the one spelling that consents are kept in.
func (b *Behaviour) meaning(scope string) string {
	if !b.Entra || reserved(scope) {
		return scope
	}
	name, scope := splitScope(scope)
	a, _ := b.api(name)
	if slices.Contains(graphNames, strings.ToLower(a.ID)) {
		a.ID = graphNames[0]
	}
	return strings.ToLower(a.ID + "/" + scope)
}

// apisOf are the APIs of some scopes.
func (b *Behaviour) apisOf(scopes []string) []string {
	var apis []string
	for _, s := range scopes {
		if reserved(s) {
			continue
		}
		if api, _ := splitScope(b.meaning(s)); !slices.Contains(apis, api) {
			apis = append(apis, api)
		}
	}
	return apis
}

// entraError is an error as Entra words it.
func entraError(code, number, text string) *OAuthError {
	var n int
	_ = json.Unmarshal([]byte(number), &n) // our own digits
	return &OAuthError{Code: code, Description: "AADSTS" + number + ": " + text, Extra: map[string]any{"error_codes": []int{n}}}
}

// checkScopes refuses scopes that Entra does not know, and /.default beside
// others. The scopes may be of several APIs.
func (b *Behaviour) checkScopes(scopes []string) *OAuthError {
	defaults, others := 0, 0
	for _, s := range scopes {
		if reserved(s) {
			continue
		}
		name, scope := splitScope(s)
		a, ok := b.api(name)
		switch {
		case !ok:
			return entraError("invalid_resource", "500011", "The resource principal named "+name+" was not found in the tenant.")
		case scope == ".default":
			defaults++
			continue
		case a.Scopes != nil && !slices.ContainsFunc(a.Scopes, func(known string) bool { return strings.EqualFold(known, scope) }):
			return entraError("invalid_client", "650053", "The application asked for scope '"+scope+"' that doesn't exist on the resource '"+a.ID+"'.")
		}
		others++
	}
	if defaults > 0 && others > 0 {
		return entraError("invalid_scope", "70011", "The provided value for the input parameter 'scope' is not valid. .default scope can't be combined with resource-specific scopes.")
	}
	return nil
}

// oneAPI narrows a token request to one API, as Entra does: to that of the
// scopes asked for, else to that of the grant.
func (i *Issuer) oneAPI(x *exchange, is *issue) *OAuthError {
	if !x.b.Entra || x.v1 {
		return nil
	}
	if x.call.Form.Has("resource") {
		return entraError("invalid_request", "901002", "The 'resource' request parameter isn't supported.")
	}
	g, asked := is.grant, strings.Fields(x.call.Form.Get("scope"))
	if e := x.b.checkScopes(asked); e != nil {
		return e
	}
	apis := x.b.apisOf(asked)
	switch {
	case len(apis) > 1:
		return entraError("invalid_request", "28000", "Provided value for the input parameter scope is not valid because it contains more than one resource.")
	case g == nil:
		return x.b.appScope(asked)
	case len(apis) == 0 && g.api == "" && len(x.b.apisOf(g.scopes)) > 1:
		return entraError("invalid_request", "28003", "Provided value for the input parameter scope cannot be empty when requesting an access token using the provided authorization code.")
	}
	api := g.api
	switch {
	case len(apis) == 1:
		api = apis[0]
		if e := i.give(x.b, is, asked); e != nil {
			return e
		}
	case api == "":
		api = append(x.b.apisOf(g.scopes), graphNames[0])[0]
	default:
		is.scopes = slices.DeleteFunc(slices.Clone(g.scopes), func(s string) bool {
			return !reserved(s) && !slices.Equal(x.b.apisOf([]string{s}), []string{api})
		})
	}
	g.api = cmp.Or(g.api, api)
	if api != graphNames[0] {
		is.resources = []string{api}
	}
	return nil
}

// give puts the scopes asked for into the token, if the user has consented.
func (i *Issuer) give(b *Behaviour, is *issue, asked []string) *OAuthError {
	missing := func(s string) bool { return !i.consented(b, is.grant, s) }
	is.scopes = slices.Clone(asked)
	if b.GrantScopes != nil {
		// What a user refuses is not given, though asked for.
		is.scopes = slices.DeleteFunc(is.scopes, missing)
	}
	if n := slices.IndexFunc(is.scopes, missing); n >= 0 {
		return b.missingConsent(is.scopes[n])
	}
	return nil
}

// appScope refuses what an application cannot ask for itself: it has what an
// administrator gave it, of one API.
func (b *Behaviour) appScope(asked []string) *OAuthError {
	if len(asked) != 1 || !strings.HasSuffix(asked[0], "/.default") {
		return entraError("invalid_scope", "1002012", "The provided value for scope "+strings.Join(asked, " ")+" is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).")
	}
	return nil
}

// grantedScope is the member scope of a token answer. Entra leaves out
// offline_access, and of a token for another API than Graph all that is about
// the sign-in.
func (b *Behaviour) grantedScope(is *issue) string {
	scopes := is.scopes
	if is.channel == BackChannel && b.Entra && is.grant != nil {
		for _, s := range is.grant.scopes { // of the sign-in, whatever API was asked for
			if reserved(s) && !slices.Contains(scopes, s) {
				scopes = append(slices.Clone(scopes), s)
			}
		}
	}
	if !b.Entra {
		scopes = slices.Clone(scopes)
		for n, s := range scopes {
			scopes[n] = cmp.Or(b.GrantedNames[s], s)
		}
		return strings.Join(scopes, " ")
	}
	var granted []string
	for _, s := range scopes {
		switch {
		case !reserved(s):
			granted = append(granted, b.spelled(s))
		case s != "offline_access" && len(is.resources) == 0:
			granted = append(granted, s)
		}
	}
	return strings.Join(granted, " ")
}

func (b *Behaviour) spelled(scope string) string {
	name, short := splitScope(scope)
	a, _ := b.api(name)
	switch {
	case a.Granted == SpellLong:
		return a.ID + "/" + short
	case a.Granted == SpellShort, slices.Contains(graphNames, strings.ToLower(a.ID)):
		return short
	}
	return scope
}

// acrs are the authentication contexts that a claims request wants in a token
// (OpenID Connect Core, section 5.5, as Conditional Access uses it).
func acrs(claims, token string) []string {
	var request map[string]map[string]*struct {
		Value  string
		Values []string
	}
	if json.Unmarshal([]byte(claims), &request) != nil || request[token]["acrs"] == nil {
		return nil
	}
	asked := request[token]["acrs"]
	if asked.Value != "" {
		return []string{asked.Value}
	}
	return asked.Values
}

// stepUp refuses a token with an authentication context that the user has not
// shown at the sign-in.
func (is *issue) stepUp(x *exchange) *OAuthError {
	if !x.b.Entra || is.grant == nil {
		return nil
	}
	for _, c := range acrs(x.call.Form.Get("claims"), "access_token") {
		if !slices.Contains(is.grant.acrs, c) {
			e := entraError("interaction_required", "50076", "Due to a configuration change made by your administrator, you must use multi-factor authentication.")
			e.Extra["suberror"], e.Extra["claims"] = "basic_action", x.call.Form.Get("claims")
			return e
		}
	}
	return nil
}
