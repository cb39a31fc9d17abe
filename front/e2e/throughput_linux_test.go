package e2e

import (
	"bufio"
	"flag"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin/front/internal/fronttest"
	"golang.org/x/sys/unix"
)

var full = flag.Bool("full", false, "compare with a bare reverse proxy for long, and hold the front to what it promises")

// What the front has to reach of a bare reverse proxy's requests for the same
// processor time: on a machine that has nothing else to do, and on one that
// runs other tests.
const (
	leastRatio = 0.85
	floorRatio = 0.5
)

// spent is the processor time of another process.
func spent(t *testing.T, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil { // clock_getcpuclockid(3)
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// Of one request through the front and one through httputil.ReverseProxy, in
// turns, the processor time of either server alone is compared. The front
// looks the session up, decides by a rule, sets identity headers, counts, and
// writes its access log.
func TestThroughput(t *testing.T) {
	bare := filepath.Join(filepath.Dir(binary), "bare")
	if out, err := exec.Command("go", "build", "-o", bare, "testdata/bare.go").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	body := strings.Repeat("x", 2048)
	f := fronttest.Prepare(t, fronttest.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, body)
	}, Settings: "access_log: DIR/access.log\nadmin_listen: 127.0.0.1:0\nroutes:\n  - {path: /, allow: {all: [{email_domain: [example.com]}, {claim: realm_access.roles, any: [admin]}]}, upstream: UPSTREAM}\n  - {path: /public/, allow: public, upstream: UPSTREAM}\n"})
	front := process(t, f)
	f.SignIn()
	f.SignIn() // the first page after a sign-in renews a cookie
	cookies := f.Cookies()
	cmd := exec.Command(bare, f.Behind.URL)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	load := func(host string, n int) {
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() {
				for range n / 4 {
					req, _ := http.NewRequest(http.MethodGet, "http://"+host+"/page?x=1", nil)
					req.Header.Set("Cookie", cookies)
					req.Header.Set("Accept", "text/html,application/xhtml+xml")
					req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36")
					req.Header.Set("Accept-Language", "en-GB,en;q=0.9")
					res, err := client.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					n, err := io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if err != nil || res.StatusCode != http.StatusOK || n != int64(len(body)) {
						t.Errorf("%d, %d bytes, %v", res.StatusCode, n, err)
						return
					}
				}
			})
		}
		running.Wait()
	}
	const perRound = 800
	rounds, least := 3, floorRatio
	if *full {
		rounds, least = 40, leastRatio
	}
	load(addr, perRound)
	load(f.Host, perRound)
	var times [2]time.Duration
	for range rounds {
		for i, server := range []struct {
			host string
			pid  int
		}{{addr, cmd.Process.Pid}, {f.Host, front.Process.Pid}} {
			before := spent(t, server.pid)
			load(server.host, perRound)
			times[i] += spent(t, server.pid) - before
		}
	}
	n := time.Duration(rounds * perRound)
	ratio := float64(times[0]) / float64(times[1])
	t.Logf("processor time for a request: bare %v, front %v; ratio %.2f", times[0]/n, times[1]/n, ratio)
	if ratio < least {
		t.Errorf("the front does %.2f of a bare reverse proxy's requests, want %.2f", ratio, least)
	}
}
