package redisstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/internal/redistest"
	"github.com/seed454743b5/signin/signintest"
)

var _ signin.Store = (*Store)(nil)

// replicated is a Store that can make another like it, for TestStore.
type replicated struct {
	*Store
	open func() *Store
}

func (r replicated) Peer() signintest.Store { return r.open() }

func openStore(tb testing.TB, url string) *Store {
	tb.Helper()
	s, err := Open(url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func testContract(t *testing.T, open func() *Store) {
	signintest.TestStore(t, func(t *testing.T) signintest.Store {
		return replicated{open(), open}
	})
}

func TestStore(t *testing.T) {
	server := redistest.Start(t)
	t.Run("Open", func(t *testing.T) {
		testContract(t, func() *Store { return openStore(t, server.URL()) })
	})
	t.Run("New", func(t *testing.T) {
		testContract(t, func() *Store {
			client, err := rueidis.NewClient(rueidis.MustParseURL(server.URL()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			return New(client)
		})
	})
	t.Run("NoCopy", func(t *testing.T) {
		testContract(t, func() *Store {
			s := openStore(t, server.URL())
			s.NoCopy = true
			return s
		})
	})
	t.Run("RESP2", func(t *testing.T) { // a server that cannot track
		testContract(t, func() *Store { return openStore(t, server.URL()+"?protocol=2") })
	})
	t.Run("EveryKeyExpires", func(t *testing.T) { everyKeyExpires(t, server) })
}

func TestCluster(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	testContract(t, func() *Store { return openStore(t, nodes[0].URL()) })
	for i, node := range nodes {
		if n, _ := node.MustDo("DBSIZE").(int64); n == 0 {
			t.Errorf("node %d of the cluster holds no key: they do not spread", i)
		}
		everyKeyExpires(t, node)
	}
}

// everyKeyExpires wants a lifetime on whatever the tests have left behind.
func everyKeyExpires(t *testing.T, server *redistest.Server) {
	t.Helper()
	keys, _ := server.MustDo("KEYS", "*").([]any)
	if len(keys) == 0 {
		t.Error("the server holds no key to look at")
	}
	for _, key := range keys {
		name, _ := key.(string)
		if !strings.HasPrefix(name, defaultPrefix) {
			t.Errorf("key %q does not begin with %q", name, defaultPrefix)
		}
		if ttl, _ := server.MustDo("PTTL", name).(int64); ttl == -1 {
			t.Errorf("key %q lives for ever", name)
		}
	}
}

func TestPrefix(t *testing.T) {
	server := redistest.Start(t)
	one, two := openStore(t, server.URL()), openStore(t, server.URL())
	one.Prefix, two.Prefix = "one:", "two:"
	mustSwap(t, one, "key", nil, "value of one")
	mustSwap(t, two, "key", nil, "value of two")
	wantValue(t, one, "key", "value of one")
	wantValue(t, two, "key", "value of two")
	if n := server.MustDo("EXISTS", "one:key", "two:key"); n != int64(2) {
		t.Errorf("%v of the keys one:key and two:key exist; want both", n)
	}
}

// TestRepeatedReadsCostNothing counts what reaches the server.
func TestRepeatedReadsCostNothing(t *testing.T) {
	server := redistest.Start(t)
	writer, reader := openStore(t, server.URL()), openStore(t, server.URL())
	mustSwap(t, writer, "key", nil, "value")
	wantValue(t, reader, "key", "value")
	before := reads(t, server)
	start := time.Now()
	for range 1000 {
		wantValue(t, reader, "key", "value")
	}
	// One more for each time the copy came of age on a slow machine.
	if n, most := reads(t, server)-before, int(time.Since(start)/copyFor)+1; n > most {
		t.Errorf("1000 repeated reads asked the server %d times; want at most %d", n, most)
	}

	reader.NoCopy = true
	before = reads(t, server)
	for range 10 {
		wantValue(t, reader, "key", "value")
	}
	if n := reads(t, server) - before; n != 10 {
		t.Errorf("10 reads without a copy asked the server %d times", n)
	}
}

// reads is how many GET commands the server has had.
func reads(t *testing.T, server *redistest.Server) int {
	t.Helper()
	stats, _ := server.MustDo("INFO", "commandstats").(string)
	_, rest, ok := strings.Cut(stats, "cmdstat_get:calls=")
	if !ok {
		return 0
	}
	count, _, _ := strings.Cut(rest, ",")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatalf("reading commandstats: %v", err)
	}
	return n
}

// TestSwapIsOneScriptCall counts what Swap sends, and what it weighs.
func TestSwapIsOneScriptCall(t *testing.T) {
	server := redistest.Start(t)
	s := openStore(t, server.URL())
	one, two := bytes.Repeat([]byte("1"), 40_000), bytes.Repeat([]byte("2"), 40_000)
	mustSwap(t, s, "key", nil, string(one))
	inputBefore := stat(t, server, "stats", "total_net_input_bytes")
	before := stat(t, server, "stats", "total_commands_processed")
	for range 50 {
		mustSwap(t, s, "key", one, string(two))
		one, two = two, one
	}
	// Counted too are the two INFOs after the first reading, the three commands
	// that each of them makes inside the script, and a ping now and then.
	commands := stat(t, server, "stats", "total_commands_processed") - before
	calls, _ := server.MustDo("INFO", "commandstats").(string)
	if !strings.Contains(calls, "cmdstat_evalsha:calls=51,") || !strings.Contains(calls, "cmdstat_eval:calls=1,") {
		t.Errorf("51 swaps (%d commands) were not 51 calls by SHA and one with the script:\n%s", commands, calls)
	}
	if sent := (stat(t, server, "stats", "total_net_input_bytes") - inputBefore) / 50; sent > 41_000 {
		t.Errorf("a swap of 40,000 bytes sends %d: the old value travels too", sent)
	}
	server.MustDo("SCRIPT", "FLUSH")
	mustSwap(t, s, "key", one, "after a flush of the scripts")
}

func stat(t *testing.T, server *redistest.Server, section, name string) int {
	t.Helper()
	info, _ := server.MustDo("INFO", section).(string)
	_, rest, ok := strings.Cut(info, "\n"+name+":")
	if !ok {
		t.Fatalf("INFO %s has no %s", section, name)
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInvalidation has another replica sign out a thousand users whom this one
// has a copy of. The contract allows two seconds; on one machine it takes far
// less, without a single poll of the server.
func TestInvalidation(t *testing.T) {
	server := redistest.Start(t)
	here, there := openStore(t, server.URL()), openStore(t, server.URL())
	var took []time.Duration
	for i := range 1000 {
		key := fmt.Sprint("key.", i)
		mustSwap(t, there, key, nil, "value")
		wantValue(t, here, key, "value")
		wantValue(t, here, key, "value")
		if err := there.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		redistest.Wait(t, copyFor, "the sign-out to be seen", func() error {
			if v, ok, err := here.Get(t.Context(), key); ok || err != nil {
				return fmt.Errorf("Get = %q, %t, %v", v, ok, err)
			}
			return nil
		})
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	median, slowest := took[len(took)/2], took[len(took)-1]
	if median > 100*time.Millisecond || slowest > time.Second {
		t.Errorf("a sign-out elsewhere was seen after %v, at worst %v: by the copy's age and not by invalidation", median, slowest)
	}
	t.Logf("of 1000 sign-outs elsewhere: median %v, slowest %v", median, slowest)
}

// TestReadOwnWrites is signintest's check a thousand times over, with readers
// that keep the copy warm: the message that our own write makes the copy void
// comes after the answer to the write.
func TestReadOwnWrites(t *testing.T) {
	server := redistest.Start(t)
	s := openStore(t, server.URL())
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				_, _, _ = s.Get(ctx, "key") // for the copy it makes
			}
		})
	}
	var held []byte
	for i := range 1000 {
		next := fmt.Sprint("value ", i)
		mustSwap(t, s, "key", held, next)
		held = []byte(next)
		wantValue(t, s, "key", next)
		if i%10 == 9 {
			if err := s.Delete(ctx, "key"); err != nil {
				t.Fatal(err)
			}
			if v, ok, err := s.Get(ctx, "key"); ok || err != nil {
				t.Fatalf("Get after Delete = %q, %t, %v; want nothing", v, ok, err)
			}
			held = nil
		}
	}
	cancel()
	readers.Wait()
}

func TestRecentForgets(t *testing.T) {
	r := new(recent)
	for i := range 1000 {
		r.add(strconv.Itoa(i))
	}
	if !r.has("7") || r.has("1001") {
		t.Error("recent does not know what was added")
	}
	// Time passes: the maps are as old as if it had.
	r.swapped -= pastCopies
	r.add("next")
	if !r.has("7") || !r.has("next") {
		t.Error("recent forgets too early: a copy may be older than the write")
	}
	r.swapped -= pastCopies
	r.add("last")
	if r.has("7") || !r.has("next") || !r.has("last") {
		t.Error("recent does not forget by age")
	}
	r.last.Add(int64(-pastCopies))
	if r.has("last") {
		t.Error("recent asks the server though no copy can be older than the last write")
	}
}

func TestForeignValue(t *testing.T) {
	server := redistest.Start(t)
	s := openStore(t, server.URL())
	server.MustDo("SET", "signin:short", "not ours")
	server.MustDo("RPUSH", "signin:list", "not ours")
	for _, key := range []string{"short", "list"} {
		if v, ok, err := s.Get(t.Context(), key); err == nil {
			t.Errorf("Get of a value that is not ours = %q, %t, nil; want an error", v, ok)
		}
		if found, swapped, err := s.Swap(t.Context(), key, nil, []byte("new"), time.Hour); err == nil {
			t.Errorf("Swap of a value that is not ours = %q, %t, nil; want an error", found, swapped)
		}
	}
}

func TestOpenRefusesBadURLs(t *testing.T) {
	for _, url := range []string{"", "localhost:6379", "http://localhost:6379", "redis://user:hunter2@host:port/0", "redis://user:hunter2@host/x", "redis://user:hunter2%zz@host",
		"hunter2:@localhost:6379", "redis://user:6379/hunter2@host", "redis://user:6379/0/hunter2@host", "redis://user:1?db=hunter2@host", "redis://host?dial_timeout=hunter2"} {
		s, err := Open(url)
		if err == nil {
			s.Close()
			t.Errorf("Open(%q) succeeds", url)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open quotes the password: %v", err)
		}
	}
}

// Options that rueidis does not accept, or that are none at all, make calls
// fail. They do not end the process.
func TestBadOptions(t *testing.T) {
	t.Parallel()
	panics := func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
		panic("a bug of the caller's")
	}
	for name, s := range map[string]*Store{
		"no client":        New(nil),
		"no address":       OpenWith(rueidis.ClientOption{}),
		"bad address":      OpenWith(rueidis.ClientOption{InitAddress: []string{"\x00"}}),
		"multiplex":        OpenWith(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, PipelineMultiplex: 100}),
		"replicas":         OpenWith(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ReplicaOnly: true}),
		"sentinel refresh": OpenWith(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, Sentinel: rueidis.SentinelOption{MasterSet: "main", TopologyRefreshInterval: -1}}),
		"panic":            OpenWith(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, DialCtxFn: panics}),
		"panic of several": OpenWith(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1", "127.0.0.1:2"}, DialCtxFn: panics}),
		"panic, sentinel":  OpenWith(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, DialCtxFn: panics, Sentinel: rueidis.SentinelOption{MasterSet: "main"}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(s.Close)
			wantFailing(t, s, name)
		})
	}
}

func TestClosed(t *testing.T) {
	server := redistest.Start(t)
	unused := openStore(t, server.URL())
	unused.Close()
	if _, _, err := unused.Get(t.Context(), "key"); !errors.Is(err, errClosed) {
		t.Errorf("Get of a closed store: %v; want errClosed", err)
	}
	used := openStore(t, server.URL())
	mustSwap(t, used, "key", nil, "value")
	used.Close()
	if _, ok, err := used.Get(t.Context(), "other"); err == nil {
		t.Errorf("Get of a closed store = %t, nil; want an error", ok)
	}
}

// TestACL runs the contract as a user who may do no more than the documentation
// says, and over a user who may not track.
func TestACL(t *testing.T) {
	server := redistest.Start(t)
	server.MustDo("ACL", "SETUSER", "app", "on", ">hunter2", "~signin:*", "resetchannels", "-@all",
		"+get", "+getrange", "+set", "+del", "+exists", "+evalsha", "+eval", "+ping", "+hello", "+client")
	url := strings.Replace(server.URL(), "redis://", "redis://app:hunter2@", 1)
	testContract(t, func() *Store { return openStore(t, url) })

	server.MustDo("ACL", "SETUSER", "app", "-client|tracking")
	s := openStore(t, url)
	mustSwap(t, s, "untracked", nil, "value")
	wantValue(t, s, "untracked", "value")

	wrong := openStore(t, strings.Replace(url, "hunter2", "hunter3", 1))
	_, _, err := wrong.Get(t.Context(), "key")
	if err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("Get with a wrong password: %v; want an error that does not quote it", err)
	}
}

// TestLeaderHangsUp has the one who asks for a key give up while others wait for
// the same answer.
func TestLeaderHangsUp(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openStore(t, proxy.URL())
	mustSwap(t, openStore(t, server.URL()), "key", nil, "value")
	if _, _, err := s.Get(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}

	proxy.HoldReplies()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	before := proxy.Replies()
	wg.Go(func() {
		if _, _, err := s.Get(ctx, "key"); !errors.Is(err, context.Canceled) {
			t.Errorf("Get of the one who hangs up: %v; want context.Canceled", err)
		}
	})
	redistest.Wait(t, time.Second, "the answer to be under way", func() error {
		if proxy.Replies() == before {
			return errors.New("no answer yet")
		}
		return nil
	})
	for range 5 {
		wg.Go(func() { wantValue(t, s, "key", "value") })
	}
	cancel()
	proxy.Restore()
	wg.Wait()
}

func mustSwap(tb testing.TB, s *Store, key string, old []byte, new string) {
	tb.Helper()
	if found, swapped, err := s.Swap(context.Background(), key, old, []byte(new), time.Hour); err != nil || !swapped {
		tb.Fatalf("Swap = %.40q, %t, %v; want it to swap", found, swapped, err)
	}
}

func wantValue(tb testing.TB, s *Store, key, want string) {
	tb.Helper()
	if v, ok, err := s.Get(context.Background(), key); err != nil || !ok || string(v) != want {
		tb.Errorf("Get = %.40q, %t, %v; want %.40q", v, ok, err, want)
	}
}

// The password is in no text made of a Store.
func TestPrinted(t *testing.T) {
	const password = "correct-horse-battery"
	s, err := Open("redis://user:" + password + "@127.0.0.1:1/0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out bytes.Buffer
	for _, v := range []any{s, struct{ S any }{s}, struct{ s any }{s}, []*Store{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("s", "s", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("s", "s", v)
	}
	if strings.Contains(out.String(), password) || strings.Contains(out.String(), fmt.Sprintf("%x", password)) {
		t.Errorf("the password is in\n%s", &out)
	}
}
