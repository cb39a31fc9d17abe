package bench

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	full       = flag.Bool("full", false, "measure at every size, and print the table")
	passesFlag = flag.Int("passes", 31, "how often everything is measured")
	only       = flag.String("only", "", "peers to measure beside the floor: a regular expression")
	sizes      = flag.String("users", "1,100,10000,100000", "numbers of users")
)

// TestTable prints the table. Without -full it only shows that everything it
// measures works.
func TestTable(t *testing.T) {
	out := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	defer out.Flush()
	users, passes, block := []int{1, 20}, 1, time.Millisecond
	if *full {
		users, passes, block = nil, *passesFlag, 5*time.Millisecond
		for s := range strings.SplitSeq(*sizes, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				t.Fatalf("-users %q: want numbers, comma separated", *sizes)
			}
			users = append(users, n)
		}
	}
	cookie := newApplication(t, newIssuer(t, issuerURL, "ES256")).signIn("user")
	fmt.Fprintf(out, "SESSION COOKIE: %d bytes\n", len(cookie))

	few, many := 50, 8
	if *full {
		few, many = 5000, 100
	}
	kept := memory(t, few)
	fmt.Fprintf(out, "\nIDLE MEMORY of a user, beside the payload of %d bytes\n", accessLen+refreshLen+idTokenLen)
	for _, p := range peers {
		if ratio, ok := kept[p.name]; ok {
			fmt.Fprintf(out, "%s\t%.2fx\n", p.name, ratio)
		}
	}
	ratio, ours, requests := callbacks(t, min(passes, 11), many)
	fmt.Fprintf(out, "\nCALLBACK, beside go-oidc and oauth2 (RSA)\n")
	fmt.Fprintf(out, "signin\t%.2fx (%.0f us)\t%.0f token request\n", ratio, ours/1000, requests)

	fmt.Fprintf(out, "\nSTAMPEDE of 100 requests, one expired token\ttoken requests\tfailed\tsingle-use: requests\tfailed\n")
	for _, name := range []string{"signin", "oauth2 by hand", "MSAL Go in memory"} {
		requests, failed := stampede(t, name, false, 100)
		requests1, failed1 := stampede(t, name, true, 100)
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\n", name, requests, failed, requests1, failed1)
	}
	figures := inRedis(t, min(passes, 15), block)
	fmt.Fprintf(out, "\nREDIS, a record of 4 KB\n")
	fmt.Fprintf(out, "hit of the copy, beside rueidis\t%.2fx\nmiss, beside a bare GET\t%.2fx\n", figures.hit, figures.miss)
	fmt.Fprintf(out, "request with a hit, beside floor\t%.2fx\t%.3f commands each\n\n", figures.request, figures.trips)
	if *full {
		hotPath(t, out, users, passes, block)
	}
}

// hotPath is a request with a token that is valid.
func hotPath(t *testing.T, out *tabwriter.Writer, users []int, passes int, block time.Duration) {
	all := map[string]map[int]*contestant{}
	var order []*contestant
	for _, n := range users {
		for _, p := range peers {
			if n > p.max || p.name != "floor" && p.name != "bare handler" && !regexp.MustCompile(*only).MatchString(p.name) {
				continue
			}
			h, cookies := p.prepare(t, n)
			c := &contestant{name: p.name, users: n, serve: serve(t, h, cookies)}
			if all[p.name] == nil {
				all[p.name] = map[int]*contestant{}
			}
			all[p.name][n] = c
			order = append(order, c)
		}
	}
	runtime.GC()
	race(order, passes, block)

	fmt.Fprintf(out, "HOT PATH, beside floor\t")
	for _, n := range users {
		fmt.Fprintf(out, "%d users\t", n)
	}
	fmt.Fprintf(out, "growth\tallocs\tbytes above bare\n")
	last := users[len(users)-1]
	first := users[min(1, len(users)-1)]
	bareAllocs, bareBytes := all["bare handler"][first].allocations()
	for _, p := range peers {
		fmt.Fprintf(out, "%s\t", p.name)
		for _, n := range users {
			c := all[p.name][n]
			if c == nil {
				fmt.Fprintf(out, "-\t")
				continue
			}
			fmt.Fprintf(out, "%.2fx (%.2f us)\t", c.ratio(all["floor"][n]), c.median()/1000)
		}
		if c := all[p.name][last]; c != nil {
			fmt.Fprintf(out, "%.1fx\t", c.ratio(all[p.name][first]))
		} else {
			fmt.Fprintf(out, "-\t")
		}
		if c := all[p.name][first]; c != nil {
			allocs, bytes := c.allocations()
			fmt.Fprintf(out, "%.0f\t%.0f\n", allocs-bareAllocs, bytes-bareBytes)
		} else {
			fmt.Fprintln(out)
		}
	}
}

// TestGoals holds signin to those of its goals that are counts, and so the
// same on any machine.
func TestGoals(t *testing.T) {
	a := newApplication(t, newIssuer(t, issuerURL, "ES256"))
	cookie := a.signIn("user")
	if len(cookie) > 200 {
		t.Errorf("the session cookie has %d bytes, want 200 at most", len(cookie))
	}
	if got := memory(t, 200)["signin"]; got > 1.2 {
		t.Errorf("an idle user takes %.2f times the payload, want 1.20 at most", got)
	}
	for _, singleUse := range []bool{false, true} {
		if requests, failed := stampede(t, "signin", singleUse, 100); requests != 1 || failed != 0 {
			t.Errorf("stampede, single use %t: %d token requests, %d failed; want 1, 0", singleUse, requests, failed)
		}
	}
	if _, _, requests := callbacks(t, 1, 2); requests != 1 {
		t.Errorf("%v token requests for a callback, want 1", requests)
	}
}
