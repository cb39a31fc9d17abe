package redisstore_test

import (
	"crypto/tls"
	"log"
	"os"

	"github.com/redis/rueidis"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/redisstore"
)

func ExampleOpen() {
	store, err := redisstore.Open(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	config := signin.Config{Store: store}
	_ = config // ... and signin.New(config)
}

// Three nodes of a cluster, or three sentinels with their MasterSet, by TLS and
// as a user of their own. The user needs these rights and no others:
//
//	ACL SETUSER app on >password ~signin:* resetchannels -@all
//	  +get +getrange +set +del +exists +evalsha +eval +ping +hello +client
//
// and for a cluster +cluster|slots and +cluster|shards.
func ExampleOpenWith() {
	store := redisstore.OpenWith(rueidis.ClientOption{
		InitAddress: []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		TLSConfig:   &tls.Config{ServerName: "redis.internal"},
		Username:    "app",
		Password:    os.Getenv("REDIS_PASSWORD"),
	})
	store.Prefix = "intranet:"
	defer store.Close()
	config := signin.Config{Store: store}
	_ = config // ... and signin.New(config)
}
