package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/seed454743b5/signin/internal/family"
	"github.com/seed454743b5/signin/internal/once"
	"github.com/seed454743b5/signin/internal/text"
)

const (
	// KeyInterval is how often a key id that nobody knows may lead to a fetch,
	// and keyRetry how soon one that failed is repeated.
	KeyInterval = time.Minute
	KeyRetry    = time.Second

	// KeyAge is how old the keys may become: a key that the issuer has
	// withdrawn must stop counting. keyPatience is how long a token waits for
	// newer ones. After that the old keys serve, and the fetch goes on.
	KeyAge      = time.Hour
	keyPatience = 2 * time.Second
)

// TokenVerifier verifies what the issuer has signed, by the metadata it is
// part of.
type TokenVerifier struct {
	Source *keySource
	Algs   []string // admitted
	rule   family.Rule
}

// verify checks signature and algorithm of an ID or logout token and returns
// its payload. What it leaves to the caller is in idtoken.go. An
// *[issuerError] says that the keys could not be had, which says nothing about
// the token.
func (v TokenVerifier) verify(ctx context.Context, raw string) ([]byte, error) {
	check := &signatureCheck{source: v.Source, algs: v.Algs}
	_, err := oidc.NewVerifier("", check, &oidc.Config{
		SupportedSigningAlgs: v.Algs,
		SkipClientIDCheck:    true, SkipIssuerCheck: true, SkipExpiryCheck: true,
	}).Verify(ctx, raw)
	if check.lost != nil {
		return nil, &Error{check.lost}
	}
	if err != nil {
		return nil, err
	}
	var c struct {
		Tenant string `json:"tid" loose:"true"`
	}
	if err := DecodeExact(check.payload, &c); err != nil {
		return nil, err
	}
	if !v.rule.Signs(check.issuers, c.Tenant) {
		return nil, errors.New("signed with a key of another tenant's issuer")
	}
	return check.payload, nil
}

// signatureCheck is one token on its way through go-oidc. It implements
// [oidc.KeySet] and keeps what go-oidc would turn into text or drop.
type signatureCheck struct {
	source *keySource
	algs   []string

	payload []byte
	issuers []string // that the key names
	lost    error    // why the keys could not be had
}

// VerifySignature implements [oidc.KeySet]. It shows go-oidc no claim: that
// decodes a dozen of them whether they decide anything or not, and one of an
// odd type would cost the whole token.
func (c *signatureCheck) VerifySignature(ctx context.Context, raw string) (_ []byte, err error) {
	set, err := c.source.Current(ctx)
	if err != nil {
		c.lost = err
		return nil, err
	}
	if c.payload, c.issuers, err = set.Verify(raw, c.algs); err == nil {
		return []byte("{}"), nil
	}
	newer, lost := c.source.newerThan(ctx, set)
	switch {
	case errors.Is(lost, ErrKeysRecent) && set.knows(headerString(raw, "kid")):
		return nil, err // by a key that we have
	case lost != nil:
		c.lost = lost
		return nil, lost
	}
	if c.payload, c.issuers, err = newer.Verify(raw, c.algs); err != nil {
		return nil, err
	}
	return []byte("{}"), nil
}

// keySource holds the issuer's keys. On a key id it does not know it fetches
// them anew, at most once a minute; the first load does not count, or a
// rotation right after a start would lock people out. Until it may fetch
// again, a token by a key it does not know may be good: the keys cannot be had.
type keySource struct {
	url    string
	client *http.Client
	now    func() time.Time
	report func(context.Context, error) // of a failure that nobody waits for

	Fetches once.Flights[*keySet]

	Mu       sync.Mutex
	set      *keySet   // guarded by mu, with what follows; nil before the first load
	loaded   time.Time // when set was fetched
	begun    time.Time // the latest fetch
	NotUntil time.Time // no fetch for an unknown key before
	count    int       // of fetches
	running  *once.Flight[*keySet]
	err      error // of the latest fetch
}

// ErrKeysRecent reports a token by a key that nobody knows, so soon after a fetch
// that there is no other. Either the issuer has a new key, or somebody has made
// the token up.
var ErrKeysRecent = errors.New("the issuer's keys were fetched a moment ago, and the token's is not among them")

// Current returns the keys. It fetches them if there are none, and newer ones
// if they are old; while that fails the old ones serve.
func (k *keySource) Current(ctx context.Context) (*keySet, error) {
	k.Mu.Lock()
	set, now := k.set, k.now()
	var newer *once.Flight[*keySet]
	if set != nil && now.Sub(k.loaded) >= KeyAge && now.Sub(k.begun) >= KeyInterval {
		newer = k.begin(ctx)
	}
	k.Mu.Unlock()
	switch {
	case set == nil:
		return k.newerThan(ctx, nil)
	case newer != nil:
		ctx, cancel := context.WithTimeout(ctx, keyPatience)
		defer cancel()
		if set, err := newer.Wait(ctx); err == nil {
			return set, nil
		}
	}
	return set, nil
}

// newerThan returns keys that were fetched after set, by a fetch if that is
// allowed. The error says why there are none.
func (k *keySource) newerThan(ctx context.Context, set *keySet) (*keySet, error) {
	newer, running, err := k.seek(ctx, set)
	if running != nil {
		return running.Wait(ctx)
	}
	return newer, err
}

// seek is newerThan without waiting.
func (k *keySource) seek(ctx context.Context, set *keySet) (*keySet, *once.Flight[*keySet], error) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	switch {
	case k.set != set:
		return k.set, nil, nil
	case k.running != nil || !k.now().Before(k.NotUntil):
		return nil, k.begin(ctx), nil
	case k.err != nil:
		return nil, nil, k.err
	}
	return nil, nil, ErrKeysRecent
}

// begin starts a fetch, or joins the one that is under way. The caller holds mu.
func (k *keySource) begin(ctx context.Context) *once.Flight[*keySet] {
	if k.running == nil {
		k.count++
		k.begun = k.now()
		// A name of its own: what ends now must not be taken for what begins.
		k.running = k.Fetches.Start(ctx, strconv.Itoa(k.count), discoveryTimeout, k.fetch)
	}
	return k.running
}

// fetch is one fetch. What it comes to is there before it ends.
func (k *keySource) fetch(ctx context.Context) (set *keySet, err error) {
	err = once.ErrNoResult
	defer func() {
		if old := k.settle(set, err); old && err != nil {
			k.report(ctx, fmt.Errorf("keys older than an hour serve: %w", err))
		}
	}()
	body, err := getBounded(ctx, k.client, k.url)
	if err == nil {
		set, err = ParseKeySet(body)
	}
	if err != nil {
		err = fmt.Errorf("the issuer's keys cannot be fetched from %s: %w", text.Printable(k.url, 200), bounded(err))
	}
	return set, err
}

// settle takes in what a fetch came to, and reports whether old keys were there
// before it.
func (k *keySource) settle(set *keySet, err error) (old bool) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	old = k.set != nil && k.begun.Sub(k.loaded) >= KeyAge
	k.running, k.err = nil, err
	if err != nil {
		k.NotUntil = k.begun.Add(KeyRetry)
		return old
	}
	if k.set != nil { // the first load does not count
		k.NotUntil = k.begun.Add(KeyInterval)
	}
	k.set, k.loaded = set, k.begun
	return old
}
