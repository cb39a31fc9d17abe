package bench

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"testing"
	"time"
)

// contestant is one way to do the work, for a number of users.
type contestant struct {
	name  string
	users int
	serve func(user int)
	wall  bool // measure by the wall: it waits for somebody

	ops   int       // in one block
	times []float64 // nanoseconds for one operation, by pass
}

// race lets contestants take turns, passes times, each for about block at a
// time. What slows the machine down so meets them all alike.
func race(contestants []*contestant, passes int, block time.Duration) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range contestants {
		// Operations that take long are few, so the first estimate will do.
		for c.ops = 1; ; c.ops *= 4 {
			if t := c.run(random, c.ops) * float64(c.ops); t > float64(block/4) {
				c.ops = max(1, int(float64(c.ops)*float64(block)/t))
				break
			}
		}
	}
	for pass := range passes {
		for i := range contestants {
			c := contestants[(i+pass)%len(contestants)]
			c.times = append(c.times, c.run(random, c.ops))
		}
	}
}

var epoch = time.Now()

// run does n operations for users taken at random, and returns how many
// nanoseconds one took.
func (c *contestant) run(random *rand.Rand, n int) float64 {
	clock := spent
	if c.wall {
		clock = func() time.Duration { return time.Since(epoch) }
	}
	start := clock()
	for range n {
		c.serve(random.IntN(c.users))
	}
	return float64(clock()-start) / float64(n)
}

// ratio is the median of c's times beside those of base in the same passes.
func (c *contestant) ratio(base *contestant) float64 {
	ratios := make([]float64, len(c.times))
	for i := range ratios {
		ratios[i] = c.times[i] / base.times[i]
	}
	return median(ratios)
}

func (c *contestant) median() float64 { return median(c.times) }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// allocations is what one operation allocates.
func (c *contestant) allocations() (count, bytes float64) {
	const ops = 2000
	random := rand.New(rand.NewPCG(3, 4))
	c.run(random, 100)
	var before, after runtime.MemStats
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // nobody else allocates
	runtime.ReadMemStats(&before)
	c.run(random, ops)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / ops, float64(after.TotalAlloc-before.TotalAlloc) / ops
}

// heap is what is reachable.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // sync.Pool lets go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// serve sends requests with the cookies of users to h. It fails the test
// unless each is answered with 204.
func serve(tb testing.TB, h http.Handler, cookies []string) func(user int) {
	r := httptest.NewRequest(http.MethodGet, appURL+"/work", nil)
	line := make([]string, 1)
	r.Header["Cookie"] = line
	w := &discard{header: http.Header{}}
	return func(user int) {
		line[0] = cookies[user]
		clear(w.header)
		w.status = http.StatusOK
		h.ServeHTTP(w, r)
		if w.status != http.StatusNoContent {
			tb.Fatalf("status %d, want 204", w.status)
		}
	}
}

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
