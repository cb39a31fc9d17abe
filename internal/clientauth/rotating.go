package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/seed454743b5/signin/internal/once"
)

// NewRotating is a method that load replaces while the program runs.
func NewRotating(load func(ctx context.Context) (Method, error)) Method {
	return &rotating{Redacted: "signin.Rotating", load: load}
}

const (
	renewEvery  = time.Hour        // so that a rotation is seen before the old credential is withdrawn
	renewEarly  = 5 * time.Minute  // before a certificate expires
	renewPause  = time.Minute      // between loads that nothing forces
	reloadPause = 30 * time.Second // between loads that a refusal forces
)

type rotating struct {
	Redacted
	load  func(context.Context) (Method, error)
	loads once.Flights[Method]

	mu       sync.Mutex // guards what follows
	held     Method     // nil before the first load
	renewAt  time.Time  // when held is to be loaded again
	renewing bool       // somebody waits for that already
	doubted  bool       // held has been refused and not loaded since
	forced   time.Time  // of the last load after a refusal
}

func (r *rotating) Apply(ctx context.Context, in Request, form url.Values, header http.Header) error {
	c, err := r.current(ctx, in.now)
	if err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	return c.Apply(ctx, in, form, header)
}

func (r *rotating) Validate() error {
	if r.load == nil {
		return fmt.Errorf("%s has no function: want one that returns a Credential", r.Redacted)
	}
	return nil
}

func (r *rotating) refused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubted = true
}

// current returns the held credential, loading it first when that is due. Of
// many callers one waits for a renewal; all wait for what they cannot do without.
func (r *rotating) current(ctx context.Context, now func() time.Time) (Method, error) {
	r.mu.Lock()
	if r.doubted && now().Sub(r.forced) < reloadPause {
		// Loaded a moment ago: either it is newer than what was refused, or the
		// source has nothing better and asking it each time would not help.
		r.doubted = false
	}
	held, needed := r.held, r.held == nil || r.doubted
	if !needed && (r.renewing || now().Before(r.renewAt)) {
		r.mu.Unlock()
		return held, nil
	}
	r.renewing = r.renewing || !needed
	r.mu.Unlock()

	c, err := r.loads.Do(ctx, "", loadTimeout, func(ctx context.Context) (Method, error) {
		return r.renew(ctx, now)
	})
	if err != nil && !needed {
		return held, nil // it may well be good; if not, the issuer says so
	}
	return c, err
}

// renew loads unless another load has ended since the caller looked.
func (r *rotating) renew(ctx context.Context, now func() time.Time) (loaded Method, err error) {
	r.mu.Lock()
	held, due := r.held, r.held == nil || r.doubted || !now().Before(r.renewAt)
	r.mu.Unlock()
	if !due {
		return held, nil
	}
	// Deferred, with an error until there is none: load may panic, and the
	// next call must try again all the same.
	err = once.ErrNoResult
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.renewing = false
		if err != nil {
			r.renewAt = now().Add(renewPause)
			return
		}
		if r.doubted {
			r.doubted, r.forced = false, now()
		}
		r.held, r.renewAt = loaded, renewal(loaded, now())
	}()
	c, err := r.load(ctx)
	if err == nil {
		err = validateLoaded(c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// validateLoaded refuses nil, which would quietly turn a confidential client
// into a public one.
func validateLoaded(c Method) error {
	switch c.(type) {
	case nil:
		return errors.New("got a nil Credential")
	case *rotating:
		return errors.New("got another Rotating")
	}
	return c.Validate()
}

// renewal is when to load c again if nothing happens. A certificate that the
// source keeps past its end is asked for once a minute.
func renewal(c Method, loaded time.Time) time.Time {
	at := loaded.Add(renewEvery)
	if k, ok := c.(*keyCredential); ok && !k.notAfter.IsZero() {
		at = slices.MinFunc([]time.Time{at, k.notAfter.Add(-renewEarly)}, time.Time.Compare)
	}
	return slices.MaxFunc([]time.Time{at, loaded.Add(renewPause)}, time.Time.Compare)
}
