package redisstore

import (
	"bytes"
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed454743b5/signin/internal/redistest"
)

// BenchmarkStore puts each call beside the bare command it comes to, on the
// same client. Read them as ratios, from several runs (-count 6).
func BenchmarkStore(b *testing.B) {
	const keys = 1000
	ctx := context.Background()
	server := redistest.Start(b)
	s := openStore(b, server.URL())
	value := bytes.Repeat([]byte("x"), 4000)
	for i := range keys {
		mustSwap(b, s, strconv.Itoa(i), nil, string(value))
	}
	client, err := s.link.client(ctx)
	if err != nil {
		b.Fatal(err)
	}
	// As if the writes were long ago: no read goes past the copy for them.
	s.recent = recent{}
	i := 0
	nextKey := func() string {
		i++
		return strconv.Itoa(i % keys)
	}

	b.Run("bare GET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := client.Do(ctx, client.B().Get().Key("signin:"+nextKey()).Build()).AsBytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			// A key that is not in the copy: Redis forgets it is tracked, as
			// after a change.
			get := client.B().Get().Key("signin:" + nextKey())
			if _, err := untag(client.DoCache(ctx, get.Cache().ToStaticTTL(), time.Nanosecond).AsBytes()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get without copy", func(b *testing.B) {
		b.ReportAllocs()
		past := &Store{NoCopy: true}
		past.link.shared = client
		for b.Loop() {
			if _, ok, err := past.Get(ctx, nextKey()); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("bare hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := client.DoCache(ctx, client.B().Get().Key("signin:0").Cache(), copyFor).AsBytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := s.Get(ctx, "0"); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("bare SET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set := client.B().Set().Key("bare").Value(rueidis.BinaryString(value)).PxMilliseconds(3_600_000).Build()
			if err := client.Do(ctx, set).Error(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Swap", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, swapped, err := s.Swap(ctx, nextKey(), value, value, time.Hour); !swapped || err != nil {
				b.Fatal(swapped, err)
			}
		}
	})
	b.Run("Swap refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, swapped, err := s.Swap(ctx, nextKey(), nil, value, time.Hour); swapped || err != nil {
				b.Fatal(swapped, err)
			}
		}
	})
}
