package oidc

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTokenLifetimes(t *testing.T) {
	for in, want := range map[string]Seconds{
		`3600`: {time.Hour, true}, `"3600"`: {time.Hour, true}, `3599.7`: {3599 * time.Second, true},
		`0`: {0, true}, `-1`: {0, true}, `1e300`: {100 * 365 * 24 * time.Hour, true}, `"inf"`: {100 * 365 * 24 * time.Hour, true},
		`null`: {}, `""`: {}, `"soon"`: {}, `"NaN"`: {}, `{}`: {}, `[1]`: {}, `true`: {},
	} {
		var answer Answer
		if err := json.Unmarshal([]byte(`{"refresh_token":"r","expires_in":`+in+`,"refresh_token":"r"}`), &answer); err != nil || answer.ExpiresIn != want || answer.RefreshToken != "r" {
			t.Errorf("expires_in %s: %+v, %v; want %+v", in, answer.ExpiresIn, err, want)
		}
	}
}
