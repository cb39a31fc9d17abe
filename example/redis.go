package main

import (
	"fmt"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/redisstore"
)

// openStore returns the store that a REDIS_URL names, and how to close it. An
// empty URL means this process's memory.
func openStore(redisURL string) (signin.Store, func(), error) {
	if redisURL == "" {
		return nil, func() {}, nil
	}
	store, err := redisstore.Open(redisURL)
	if err != nil {
		return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return store, store.Close, nil
}
