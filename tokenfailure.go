package signin

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
)

// reasons say why the user must act, for what only the user can mend.
var reasons = map[family.Subject]Reason{
	family.OfGrant: ReasonRefused, family.OfConsent: ReasonConsent, family.OfProof: ReasonClaims,
}

// requestError is a token request that the issuer refuses for what it asks: an
// API that is not there, a scope that is none. The grant is good, and neither
// the user nor time helps.
type requestError struct{ cause error }

func (e *requestError) Error() string {
	return "signin: the issuer refuses this token request, not the user: " + e.cause.Error()
}
func (e *requestError) Unwrap() error { return e.cause }

// reasonRequest marks a refusal of that kind. Its Error says what the issuer said.
const reasonRequest Reason = "request"

// temporaryError is a token request that failed in a way that may pass.
type temporaryError struct{ cause error }

func (e *temporaryError) Error() string { return "signin: obtaining a token: " + e.cause.Error() }
func (e *temporaryError) Unwrap() error { return e.cause }

// failureShared is how long a failure that may pass is held back.
const failureShared = 250 * time.Millisecond

// shareFailure holds a shared call that failed for a moment, so that those
// who came together share its failure in place of asking one by one. Who
// comes after it asks anew, and may find the issuer well again.
func shareFailure(ctx context.Context, err error) {
	if _, passes := errors.AsType[*temporaryError](err); passes {
		once.Sleep(ctx, failureShared)
	}
}

// failure is one that may pass.
type failure struct {
	err   error
	until time.Time // when to ask again
	asked bool      // the issuer said so (Retry-After)
}

// pauseAfter is how long an issuer that failed is left alone: a second, or as
// it said.
func pauseAfter(e *oidc.TokenError, err error, now time.Time) failure {
	f := failure{err: err, until: now.Add(time.Second)}
	if e != nil && e.RetryAfter.After(f.until) {
		f.until, f.asked = e.RetryAfter, true
	}
	return f
}

// backoff remembers, in this process, until when an issuer that failed is not
// asked again. A token that still serves is then used without asking; who has
// none asks all the same, unless the issuer has forbidden it.
type backoff struct {
	mu       sync.Mutex
	failures map[string]failure // guarded by mu
}

// waiting returns the failure to wait out, nil if there is none.
func (b *backoff) waiting(key string, now time.Time) *failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.failures[key]; ok && now.Before(f.until) {
		return &f
	}
	return nil
}

func (b *backoff) set(key string, f failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == nil || len(b.failures) >= 10_000 {
		b.failures = make(map[string]failure) // forgetting costs a request each
	}
	b.failures[key] = f
}

func (b *backoff) clear(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failures, key)
}
