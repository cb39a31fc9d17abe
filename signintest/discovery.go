package signintest

import (
	"cmp"
	"encoding/json"
	"net/http"
)

// discovery serves the document of OpenID Connect Discovery 1.0, section 3.
func (i *Issuer) discovery(w http.ResponseWriter, x *exchange) {
	url := func(e Endpoint) string { return i.urlFor(x, e) }
	methods := x.b.AuthMethods
	if methods == nil {
		methods = []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "none"}
	}
	doc := map[string]any{
		"issuer":                                i.announcedIssuer(x),
		"authorization_endpoint":                url(EndpointAuthorize),
		"token_endpoint":                        url(EndpointToken),
		"userinfo_endpoint":                     url(EndpointUserInfo),
		"jwks_uri":                              url(EndpointKeys),
		"response_types_supported":              x.b.responseTypes(),
		"response_modes_supported":              x.b.responseModes(),
		"grant_types_supported":                 []string{"authorization_code", "refresh_token", "client_credentials"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{x.b.alg()},
		"token_endpoint_auth_methods_supported": methods,
		"token_endpoint_auth_signing_alg_values_supported": []string{
			"RS256", "PS256", "ES256", "ES384", "EdDSA"},
		"code_challenge_methods_supported":     []string{"S256"},
		"scopes_supported":                     x.b.scopes(),
		"claims_parameter_supported":           true,
		"backchannel_logout_supported":         true,
		"backchannel_logout_session_supported": true,
	}
	if x.b.AnswerAlgs != nil {
		doc["authorization_signing_alg_values_supported"] = x.b.AnswerAlgs
	}
	if x.b.sendsIss() {
		doc["authorization_response_iss_parameter_supported"] = true
	}
	if !x.b.OmitRevocation && !x.b.microsoft() {
		doc["revocation_endpoint"] = url(EndpointRevocation)
	}
	if !x.b.microsoft() {
		doc["pushed_authorization_request_endpoint"] = url(EndpointPush)
	}
	if x.b.RequirePush {
		doc["require_pushed_authorization_requests"] = true
	}
	if !x.b.OmitEndSession {
		doc["end_session_endpoint"] = url(EndpointEndSession)
	}
	if _, own := x.appKeyClient(); own {
		doc["jwks_uri"] = url(EndpointKeys) + "?" + x.r.URL.RawQuery
	}
	replace(doc, x.b.DiscoveryMembers)
	if x.b.EditDiscovery != nil {
		x.b.EditDiscovery(doc)
	}
	x.writeJSON(w, doc)
}

func (b *Behaviour) responseTypes() []string {
	if b.ResponseTypes != nil {
		return b.ResponseTypes
	}
	return []string{"code", "code id_token"}
}

func (b *Behaviour) responseModes() []string {
	if b.ResponseModes != nil {
		return b.ResponseModes
	}
	return []string{"query", "fragment", "form_post", "jwt", "query.jwt", "fragment.jwt", "form_post.jwt"}
}

func (b *Behaviour) scopes() []string {
	if b.Scopes != nil {
		return b.Scopes
	}
	return []string{"openid", "profile", "email", "offline_access"}
}

// jwks serves the published keys.
func (i *Issuer) jwks(w http.ResponseWriter, x *exchange) {
	if _, err := i.key(x.b.alg()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	published := i.published()
	if client, own := x.appKeyClient(); own {
		k, err := i.ownKey(client.ID, x.b.alg())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		published = append(published, k)
	}
	keys := make([]map[string]any, len(published))
	for n, k := range published {
		keys[n] = k.JWK()
		if x.b.Entra {
			keys[n]["issuer"] = i.announcedIssuer(x)
		}
	}
	if x.b.OmitKeyIDs {
		for _, k := range keys {
			delete(k, "kid")
		}
	}
	if x.b.OddKeys {
		keys = append(OddKeys(), keys...)
	}
	doc := map[string]any{"keys": keys}
	if x.b.EditKeys != nil {
		x.b.EditKeys(doc)
	}
	x.writeJSON(w, doc)
}

// urlFor returns an endpoint's URL for the tenant a request came by.
func (i *Issuer) urlFor(x *exchange, e Endpoint) string {
	if x.b.microsoft() {
		return i.entraURL(e, x.place)
	}
	return i.plainURL(x.b, e).String()
}

// writeJSON writes a document as the issuer labels and begins it.
func (x *exchange) writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "signintest: encoding an answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	status, label := http.StatusOK, ""
	if x.call.Endpoint == EndpointToken {
		status, label = cmp.Or(x.b.TokenStatus, status), x.b.TokenType
	}
	writeLabelled(w, status, label, x.b.marked(body))
}

// marked begins a document with a byte order mark, if the issuer does.
func (b *Behaviour) marked(body []byte) []byte {
	if b.ByteOrderMark {
		return append([]byte("\xef\xbb\xbf"), body...)
	}
	return body
}

// writeLabelled writes JSON under a Content-Type, "-" for none.
func writeLabelled(w http.ResponseWriter, status int, label string, body []byte) {
	w.Header().Set("Content-Type", cmp.Or(label, "application/json"))
	if label == "-" {
		w.Header()["Content-Type"] = nil
	}
	w.WriteHeader(status)
	w.Write(body)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "signintest: encoding an answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
