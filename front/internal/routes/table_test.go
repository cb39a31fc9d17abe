package routes

import (
	"net/url"
	"strings"
	"testing"
)

func newTable(t *testing.T, patterns ...string) *Table {
	t.Helper()
	table, faults := New(patterns)
	for _, err := range faults {
		if err != nil {
			t.Fatal(err)
		}
	}
	return table
}

func TestFind(t *testing.T) {
	site := newTable(t, "/", "/admin/", "/public/", "GET /report", "POST /report", "wiki.example.com/", "/files/{name}/raw")
	for _, tc := range []struct {
		method, host, path string
		want               Found
		index              int
	}{
		{"GET", "a", "/", Route, 0},
		{"GET", "a", "/x/y.html", Route, 0},
		{"GET", "a", "/.well-known/x", Route, 0},
		{"GET", "a", "/x//y", Route, 0},
		{"GET", "a", "/x%2Fy", Route, 0},
		{"GET", "a", "/x%20y;v=1", Route, 0},
		{"GET", "a", "/%e4", Route, 0},
		{"GET", "a", "/admin/x", Route, 1},
		{"GET", "a", "/admin//x", Route, 1},
		{"GET", "a", "/admin/x%2fy", Route, 1},
		{"GET", "a", "/admin", Slash, 1},
		{"GET", "a", "/public/a", Route, 2},
		{"GET", "a", "/report", Route, 3},
		{"HEAD", "a", "/report", Route, 3},
		{"POST", "a", "/report", Route, 4},
		{"PUT", "a", "/report", Route, 0},
		{"GET", "wiki.example.com", "/admin/", Route, 5},
		{"GET", "WIKI.example.com:8443", "/admin/", Route, 5},
		{"GET", "a", "/files/x/raw", Route, 6},
		{"GET", "a", "/oidc/callback", Own, 0},
		{"GET", "wiki.example.com", "/oidc/x", Own, 0},
		{"GET", "a", "/oidc", Own, 0},
		// What one server takes for one route and another for another.
		{"GET", "a", "//admin/", Unclear, 0},
		{"GET", "a", "/x/../admin/", Unclear, 0},
		{"GET", "a", "/public/..;/admin/", Unclear, 0},
		{"GET", "a", "/public/%2e%2e/admin/", Unclear, 0},
		{"GET", "a", "/public/%252e%252e/admin/", Unclear, 0},
		{"GET", "a", "/public/..%2fadmin/", Unclear, 0},
		{"GET", "a", "/public/..%5cadmin/", Unclear, 0},
		{"GET", "a", `/public/..\admin/`, Unclear, 0},
		{"GET", "a", "/public/.", Unclear, 0},
		{"GET", "a", "/admin%2fx", Unclear, 0},
		{"GET", "a", "/%61dmin%252fx", Unclear, 0},
		{"GET", "a", "/admin;v=1/x", Unclear, 0},
		{"GET", "a", "/admin%3bv/x", Unclear, 0},
		{"GET", "a", "/report%3Fx", Unclear, 0},
		{"GET", "a", "/report%23x", Unclear, 0},
		{"GET", "a", "//public/admin/x", Unclear, 0}, // read as //host/path
		{"GET", "a", "//evil/public/x", Unclear, 0},
		{"GET", "a", "/x%00", Unclear, 0},
		{"GET", "a", "/x%0d%0ay", Unclear, 0},
		{"GET", "a", "/public%c0%afx", Unclear, 0},
		{"GET", "a", "//oidc/auth", Unclear, 0},
		{"GET", "a", "/oidc%2fauth", Unclear, 0},
		{"GET", "a", "*", Unclear, 0},
		{"GET", "a", "/x/" + strings.Repeat("a", 20000), Route, 0},
		{"GET", "a", "/x/" + strings.Repeat(";a", 10000), Unclear, 0},
	} {
		u, err := url.ParseRequestURI(tc.path)
		if err != nil {
			u = &url.URL{Path: tc.path}
		}
		got := site.Find(tc.method, tc.host, u)
		if got.Found != tc.want || got.Found == Route && got.Index != tc.index {
			t.Errorf("%s %s %s: %+v, want %d, %d", tc.method, tc.host, tc.path, got, tc.want, tc.index)
		}
	}
	few := newTable(t, "GET /a", "/b/")
	for p, want := range map[string]Found{"/a": Method, "/c": None, "/b": Slash, "/": None} {
		if got := few.Find("POST", "a", &url.URL{Path: p}); got.Found != want {
			t.Errorf("POST %s: %+v, want %d", p, got, want)
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, p := range []string{"", "x", "get /", "GET", "/a b", "/oidc/", "/oidc", "/oidc/x", "Host.example/", "h:80/", "/a//b", "/a/../b", "/a%2f", "/{", "/{a}/{a}", "* /"} {
		if _, faults := New([]string{p}); faults == nil {
			t.Errorf("%q is accepted", p)
		} else if strings.ContainsAny(faults[0].Error(), "\n") {
			t.Errorf("%q: %v has several lines", p, faults[0])
		}
	}
	_, faults := New([]string{"/a", "/b", "/a", "GET /{x}/", "/{y}/"})
	if len(faults) != 5 || faults[0] != nil || faults[1] != nil || faults[2] == nil || faults[4] != nil {
		t.Errorf("%v", faults)
	}
}

// Whatever the path, its route is that of every way to clean it up.
func FuzzFind(f *testing.F) {
	for _, s := range []string{"/", "/admin", "//admin/", "/public/..;/admin/", "/a%252fb", "/%5c..%2f", "/x;/y", "/admin/%2e"} {
		f.Add(s)
	}
	site, _ := New([]string{"/", "/admin/", "/public/"})
	f.Fuzz(func(t *testing.T, p string) {
		u, err := url.ParseRequestURI(p)
		if err != nil || u.Host != "" {
			return
		}
		m := site.Find("GET", "a", u)
		if m.Found != Route || m.Index == 1 {
			return
		}
		for range 3 {
			for _, q := range []string{p, strings.ReplaceAll(p, `\`, "/"), withoutParameters(p)} {
				q, _, _ = strings.Cut(q, "?")
				if clean := cleanPath(q); strings.HasPrefix(clean, "/admin/") {
					t.Fatalf("%q may be read as %q and has route %d", p, clean, m.Index)
				}
			}
			q, err := url.PathUnescape(p)
			if err != nil {
				return
			}
			p = q
		}
	})
}
