// Package visit carries what has been found out about one request.
package visit

import (
	"context"

	"github.com/seed454743b5/signin/front/internal/identity"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// Visit is one request, as the parts of the front tell each other about it.
// It belongs to the request's goroutine.
type Visit struct {
	Scheme, Host string // of the site, as the browser knows it
	Client       string // the address of the client nearest to a trusted proxy
	Chain        string // X-Forwarded-For for the upstream

	Route  *settings.Route  // nil: none
	Person *identity.Person // nil: nobody was asked

	// What the upstream gets beside identity headers.
	Authorization string // in place of the client's; Keep leaves that, Drop removes it
	Tokens        map[string]string

	Forwarded bool   // the upstream has been asked
	Asked     string // the path that a proxy asks about; empty: none does
	Cause     string // why it was refused, for the log
}

// What becomes of the client's Authorization header. Keep is the zero value.
const (
	Keep = ""
	Drop = "-"
)

// Site is the site's URL, without a path.
func (v *Visit) Site() string { return v.Scheme + "://" + v.Host }

type key struct{}

// Into returns a context that carries v.
func Into(ctx context.Context, v *Visit) context.Context { return context.WithValue(ctx, key{}, v) }

// From returns the visit of a request's context. It is never nil below the
// front's own handler.
func From(ctx context.Context) *Visit {
	v, _ := ctx.Value(key{}).(*Visit)
	return v
}
