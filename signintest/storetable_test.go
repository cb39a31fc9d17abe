package signintest_test

import (
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// TestExampleStore keeps the example honest.
func TestExampleStore(t *testing.T) {
	signintest.TestStore(t, func(t *testing.T) signintest.Store {
		return &table{rows: make(map[string]row)}
	})
}
