package oidc

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// ValidClaims returns a claims request (OpenID Connect Core, 5.5) if it is
// one, a JSON object of bounded size, else nothing.
func ValidClaims(claims string) string {
	var object map[string]json.RawMessage
	if len(claims) > MaxClaims || json.Unmarshal([]byte(claims), &object) != nil || object == nil {
		return ""
	}
	return claims
}

// WithCapabilities adds what the client is capable of to a claims request, as
// Entra reads it: {"access_token":{"xms_cc":{"values":["cp1"]}}}. What the
// request says otherwise stays. A request that is no JSON object is left as it
// is, for its sender to be told.
func WithCapabilities(claims string, capabilities []string) string {
	if len(capabilities) == 0 {
		return claims
	}
	return editClaims(claims, func(member func(string) map[string]any) {
		access := member("access_token")
		values := slices.Clone(capabilities)
		if given, ok := access["xms_cc"].(map[string]any); ok {
			list, _ := given["values"].([]any)
			for _, v := range list {
				if s, ok := v.(string); ok && !slices.Contains(values, s) {
					values = append(values, s)
				}
			}
		}
		access["xms_cc"] = map[string]any{"values": values}
	})
}

// WithContexts adds Entra's authentication contexts to a claims request, any of
// which will do. A page's Requirement is about the sign-in, so it wants them in
// the ID token; what an API asks for it judges by its access token.
func WithContexts(claims string, contexts []string, required bool) string {
	if len(contexts) == 0 {
		return claims
	}
	acrs := map[string]any{"essential": true, "values": contexts}
	if len(contexts) == 1 {
		acrs = map[string]any{"essential": true, "value": contexts[0]}
	}
	return editClaims(claims, func(member func(string) map[string]any) {
		member("id_token")["acrs"] = acrs
		if !required {
			member("access_token")["acrs"] = acrs
		}
	})
}

// editClaims changes members of a claims request.
func editClaims(claims string, edit func(member func(name string) map[string]any)) string {
	request := map[string]any{}
	if claims != "" {
		d := json.NewDecoder(strings.NewReader(claims))
		d.UseNumber() // large ones stay as they are
		if ValidClaims(claims) == "" || d.Decode(&request) != nil {
			return claims
		}
	}
	edit(func(name string) map[string]any {
		object, ok := request[name].(map[string]any)
		if !ok {
			object = map[string]any{}
			request[name] = object
		}
		return object
	})
	merged, err := json.Marshal(request)
	if err != nil {
		return claims
	}
	return string(merged)
}

// AuthContext is what Entra calls an authentication context, c1 to c99.
var AuthContext = regexp.MustCompile(`^c[1-9][0-9]?$`)

// SplitContexts tells Entra's authentication contexts, which are asked for by a
// claims request, from other classes, which acr_values carries.
func SplitContexts(acr []string) (contexts, classes []string) {
	for _, value := range acr {
		if AuthContext.MatchString(value) {
			contexts = append(contexts, value)
		} else {
			classes = append(classes, value)
		}
	}
	return contexts, classes
}
