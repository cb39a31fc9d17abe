// Package library is the one place that knows how package signin spells what
// the front needs of it.
package library

import (
	"context"
	"net/http"

	"github.com/seed454743b5/signin"
)

// Require is [signin.Auth.Require].
func Require(a *signin.Auth, need signin.Requirement) func(http.Handler) http.Handler {
	return a.Require(need)
}

// Close waits for what is under way.
func Close(ctx context.Context, a *signin.Auth) error { return a.Shutdown(ctx) }
