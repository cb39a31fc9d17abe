package bench

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/redisstore"
)

// redisFigures are what it costs to read a record of 4 KB.
type redisFigures struct {
	hit     float64 // of the copy in this process, beside a bare hit of rueidis
	miss    float64 // beside a bare GET, by the wall
	request float64 // a signed-in request with a hit, beside floor
	trips   float64 // commands that Redis had for each request with a hit
}

func inRedis(tb testing.TB, passes int, block time.Duration) redisFigures {
	ctx := context.Background()
	server := redistest.Start(tb)
	option, err := rueidis.ParseURL(server.URL())
	if err != nil {
		tb.Fatal(err)
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)

	// Each store asks past its copies what it wrote itself a moment ago, so the
	// one that writes is not the one that is measured.
	writer, copying, asking := redisstore.New(client), redisstore.New(client), redisstore.New(client)
	asking.NoCopy = true
	if _, swapped, err := writer.Swap(ctx, "key", nil, bytes.Repeat([]byte("x"), 4000), time.Hour); err != nil || !swapped {
		tb.Fatal(swapped, err)
	}
	get := func(s *redisstore.Store) func(int) {
		return func(int) {
			if _, ok, err := s.Get(ctx, "key"); err != nil || !ok {
				tb.Fatal(ok, err)
			}
		}
	}
	bare := func(copied bool) func(int) {
		return func(int) {
			result := rueidis.RedisResult{}
			if command := client.B().Get().Key("signin:key"); copied {
				result = client.DoCache(ctx, command.Cache(), 2*time.Second)
			} else {
				result = client.Do(ctx, command.Build())
			}
			if _, err := result.AsBytes(); err != nil {
				tb.Fatal(err)
			}
		}
	}
	i := newIssuer(tb, issuerURL, "ES256")
	before := newApplication(tb, i, func(c *signin.Config) { c.Store, c.Keys = writer, [][]byte{bytes.Repeat([]byte{7}, 32)} })
	cookies := before.signInAll(10)
	after := newApplication(tb, i, func(c *signin.Config) { c.Store, c.Keys = copying, [][]byte{bytes.Repeat([]byte{7}, 32)} })
	request := serve(tb, after.handler, cookies)
	f := newFloor(workOnFloor)
	var floorCookies []string
	for range cookies {
		floorCookies = append(floorCookies, f.signIn(newTokens()))
	}

	hits := []*contestant{
		{name: "bare hit", users: 1, serve: bare(true)},
		{name: "hit", users: 1, serve: get(copying)},
		{name: "floor", users: 10, serve: serve(tb, f, floorCookies)},
		{name: "request", users: 10, serve: request},
	}
	misses := []*contestant{
		{name: "bare GET", users: 1, serve: bare(false), wall: true},
		{name: "miss", users: 1, serve: get(asking), wall: true},
	}
	race(hits, passes, block)
	race(misses, passes, block)

	const requests = 1000
	asked := commands(tb, server)
	for n := range requests {
		request(n % len(cookies))
	}
	asked = commands(tb, server) - asked - 1 // for the question itself
	return redisFigures{hits[1].ratio(hits[0]), misses[1].ratio(misses[0]), hits[3].ratio(hits[2]), float64(asked) / requests}
}

// commands is how many the server has executed.
func commands(tb testing.TB, s *redistest.Server) int {
	text, _ := s.MustDo("INFO", "stats").(string)
	_, rest, _ := strings.Cut(text, "total_commands_processed:")
	n, _, _ := strings.Cut(rest, "\r\n")
	count, err := strconv.Atoi(n)
	if err != nil {
		tb.Fatal(fmt.Errorf("INFO stats: %w", err))
	}
	return count
}
