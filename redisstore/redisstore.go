// Package redisstore keeps the sessions of package signin in Redis or Valkey,
// so that any number of replicas share them.
//
//	store, err := redisstore.Open(os.Getenv("REDIS_URL"))
//	auth, err := signin.New(signin.Config{Store: store, ...})
//
// # What it asks of Redis
//
// Version 6 or later; 7.0 is what the tests run. A single server, Sentinel and
// Cluster all serve: each call concerns one key. Set maxmemory-policy to
// noeviction. Under any other policy a full Redis may evict a claim or a lease,
// and with it the promise that a code or a refresh token is sent once. A full
// Redis that refuses to write is answered with 503 and recovers.
//
// Redis replicates after it has answered. What was written in the instant
// before a failover can be lost: such a session is signed in anew, and a
// refresh token spent in that instant is one the user signs in again for.
//
// Reads must come from the primary, so do not set SendToReplicas or ReplicaOnly
// in a client's options.
//
// # The copy
//
// Get answers from a copy in this process where it can. Redis tells the client
// of every change to what the copy holds (server-assisted client-side caching),
// on the connection it has open anyway: within milliseconds, without polling.
// No copy is served for more than two seconds, so that is how long a replica
// that is cut off from Redis, and does not know it yet, can take a user for
// signed in who has signed out elsewhere. A value that expires is seen to be
// gone when Redis says so, within those two seconds too. NoCopy turns the copy
// off.
//
// With a server that cannot track, by its age or by its rules of access, every
// Get asks the server.
package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const (
	defaultPrefix  = "signin:"
	defaultTimeout = time.Second

	// copyFor is how long a copy is served.
	copyFor = 2 * time.Second

	// tagSize is the length of the SHA-256 sum that precedes every value.
	tagSize = sha256.Size
)

// Store is a signin.Store in Redis. Make one with [Open], [OpenWith] or [New].
// Its methods are safe for concurrent use. Each key lives as long as the ttl it
// was written with; none lives for ever.
type Store struct {
	// Prefix begins the name of every key. Empty means "signin:". Sites that
	// share a Redis need different ones, or their Config.Keys must differ. Do
	// not use braces: in a cluster they would send every key to one node. Set
	// it before the first use.
	Prefix string

	// Timeout bounds each call, connecting included. Zero means one second.
	// While the connection is being established or is choked, a call may take
	// up to twice as long. Set it before the first use.
	Timeout time.Duration

	// NoCopy makes every Get ask Redis, at the cost of a round trip for each
	// request. Set it before the first use.
	NoCopy bool

	link   link
	recent recent
}

// swap compares and sets in one step. Each value is kept behind its SHA-256
// sum, so that the old one is compared by 32 bytes, and neither travels nor is
// handed to Lua: a third of the server's time for a record of 4 KB.
//
// KEYS[1] the key; ARGV[1] the sum of old, or empty for none; ARGV[2] new
// behind its sum, or empty to delete; ARGV[3] milliseconds to live.
// It returns 1, or what is there, or nil.
var swap = rueidis.NewLuaScript(`
local held = redis.call('GETRANGE', KEYS[1], 0, 31)
if held ~= ARGV[1] then
  return redis.call('GET', KEYS[1])
end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif held ~= '' then
  redis.call('DEL', KEYS[1])
end
return 1`)

// Get implements signin.Store. See the package documentation for the copy it
// may answer from.
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	p := s.patience(ctx)
	defer p.end()
	client, err := s.link.client(p)
	if err != nil {
		return nil, false, fmt.Errorf("redisstore: get: %w", err)
	}
	get := client.B().Get().Key(s.name(key))
	var result rueidis.RedisResult
	if s.NoCopy || s.recent.has(key) {
		result = client.Do(p, get.Build())
	} else {
		result = client.DoCache(p, get.Cache().ToStaticTTL(), copyFor)
	}
	if value, err = untag(result.AsBytes()); err != nil {
		return nil, false, fmt.Errorf("redisstore: get: %w", err)
	}
	return value, value != nil, nil
}

// Swap implements signin.Store, by one script call. A ttl is rounded up to
// whole milliseconds.
func (s *Store) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	if new != nil && ttl <= 0 {
		return nil, false, errors.New("redisstore: swap: ttl of a value must be positive")
	}
	var oldSum string
	if old != nil {
		sum := sha256.Sum256(old)
		oldSum = string(sum[:])
	}
	var tagged strings.Builder
	if new != nil {
		sum := sha256.Sum256(new)
		tagged.Grow(tagSize + len(new))
		tagged.Write(sum[:])
		tagged.Write(new)
	}
	millis := (max(ttl, 1)-1)/time.Millisecond + 1

	p := s.patience(ctx)
	defer p.end()
	client, err := s.link.client(p)
	if err != nil {
		return nil, false, fmt.Errorf("redisstore: swap: %w", err)
	}
	// Whatever comes of it, no copy made before this may be served after it.
	defer s.recent.add(key)
	result := swap.Exec(p, client, []string{s.name(key)}, []string{oldSum, tagged.String(), strconv.FormatInt(int64(millis), 10)})
	if message, err := result.ToMessage(); err == nil && message.IsInt64() {
		return nil, true, nil
	}
	if found, err = untag(result.AsBytes()); err != nil {
		return nil, false, fmt.Errorf("redisstore: swap: %w", err)
	}
	return found, false, nil
}

// Delete implements signin.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	p := s.patience(ctx)
	defer p.end()
	client, err := s.link.client(p)
	if err != nil {
		return fmt.Errorf("redisstore: delete: %w", err)
	}
	defer s.recent.add(key)
	if err := client.Do(p, client.B().Del().Key(s.name(key)).Build()).Error(); err != nil {
		return fmt.Errorf("redisstore: delete: %w", err)
	}
	return nil
}

// Ready reports whether Redis answers, for a readiness probe. In a cluster it
// asks a node chosen at random.
func (s *Store) Ready(ctx context.Context) error {
	p := s.patience(ctx)
	defer p.end()
	client, err := s.link.client(p)
	if err != nil {
		return fmt.Errorf("redisstore: %w", err)
	}
	// A read of a key that does not exist says more than PING: that the server
	// has loaded its data and that we may read them.
	err = client.Do(p, client.B().Exists().Key(s.name("ready."+rand.Text())).Build()).Error()
	if err != nil {
		return fmt.Errorf("redisstore: %w", err)
	}
	return nil
}

// Close ends the connections of a Store made by [Open] or [OpenWith]. A client
// given to [New] is its owner's to close. It waits for calls under way.
func (s *Store) Close() {
	s.link.close()
}

func (s *Store) name(key string) string {
	return cmp.Or(s.Prefix, defaultPrefix) + key
}

// untag takes the sum from the front of what Redis returned: nil if that was
// nothing.
func untag(tagged []byte, err error) ([]byte, error) {
	switch {
	case rueidis.IsRedisNil(err):
		return nil, nil
	case err != nil:
		return nil, err
	case len(tagged) < tagSize:
		return nil, errors.New("the key holds a value that is not ours")
	}
	return tagged[tagSize:len(tagged):len(tagged)], nil
}
