package signin

import (
	"encoding/json"
	"slices"
	"strings"
)

// validClaims returns a claims request (OpenID Connect Core, 5.5) if it is
// one, a JSON object of bounded size, else nothing.
func validClaims(claims string) string {
	var object map[string]json.RawMessage
	if len(claims) > maxClaims || json.Unmarshal([]byte(claims), &object) != nil || object == nil {
		return ""
	}
	return claims
}

// withCapabilities adds what the client is capable of to a claims request, as
// Entra reads it: {"access_token":{"xms_cc":{"values":["cp1"]}}}. What the
// request says otherwise stays. A request that is no JSON object is left as it
// is, for its sender to be told.
func withCapabilities(claims string, capabilities []string) string {
	if len(capabilities) == 0 {
		return claims
	}
	request, access := map[string]any{}, map[string]any{}
	if claims != "" {
		d := json.NewDecoder(strings.NewReader(claims))
		d.UseNumber() // large ones stay as they are
		if validClaims(claims) == "" || d.Decode(&request) != nil {
			return claims
		}
	}
	if given, ok := request["access_token"].(map[string]any); ok {
		access = given
	}
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
	request["access_token"] = access
	merged, err := json.Marshal(request)
	if err != nil {
		return claims
	}
	return string(merged)
}
