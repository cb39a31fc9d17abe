package signin

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/oidc"
	"github.com/seed454743b5/signin/internal/once"
)

// reasonFor says why the user must act, or nothing if a failure passes or is
// the configuration's. Any OAuth error of a 4xx answer that is not about the
// client means a dead refresh token: Dex answers invalid_request.
func reasonFor(e *oidc.TokenError, req *TokenRequest) Reason {
	if e.Passes() {
		return ""
	}
	switch e.ErrorCode {
	case "invalid_client", "unauthorized_client", "unsupported_grant_type", "unsupported_client_assertion_type":
		return ""
	case "invalid_scope", "invalid_target", "consent_required":
		return ReasonConsent
	case "interaction_required", "login_required":
		return ReasonClaims
	}
	switch e.Suberror {
	case "consent_required":
		return ReasonConsent
	case "basic_action", "additional_action", "message_only", "protection_policy_required", "client_mismatch":
		return ReasonClaims
	}
	if e.Claims != "" {
		return ReasonClaims
	}
	return ReasonRefused
}

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
