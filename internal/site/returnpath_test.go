package site

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestReturnPath(t *testing.T) {
	long := "/p?" + strings.Repeat("q", MaxReturnPath-3)
	for _, tc := range []struct{ in, want string }{
		{"/", "/"},
		{"/mail", "/mail"},
		{"/mail?a=b&c=%2F%2Fevil.example", "/mail?a=b&c=%2F%2Fevil.example"},
		{"/mail?next=https://evil.example/", "/mail?next=https://evil.example/"},
		{"/mail#part", "/mail"},
		{"/a//b", "/a//b"},
		{"/a;b:c@d", "/a;b:c@d"},
		{"/%E2%82%AC", "/%E2%82%AC"},
		{"/?", "/?"},
		{"/...", "/..."},
		{`/files?path=C:\temp\x`, `/files?path=C:\temp\x`},
		{`/?\evil.example`, `/?\evil.example`},
		{`/a|b[c]^d?e=f|g[h]^{i}"<>%zz&100%`, `/a|b[c]^d?e=f|g[h]^{i}"<>%zz&100%`},
		{"/.hidden/..a", "/.hidden/..a"},
		{long, long},
		{long + "q", "/p"},
		{"/" + strings.Repeat("p", MaxReturnPath), "/"},

		{"", "/"},
		{"mail", "/"},
		{"?a", "/"},
		{"//evil.example/x", "/"},
		{"///evil.example/x", "/"},
		{`/\evil.example`, "/"},
		{`/\evil.example?a`, "/"},
		{`/a\b?c=\d`, "/"},
		{`/#\evil.example?`, "/"},
		{`\/evil.example`, "/"},
		{`/a\..\..\evil.example`, "/"},
		{"/\t/evil.example", "/"},
		{"/\n/evil.example", "/"},
		{"\t//evil.example", "/"},
		{" //evil.example", "/"},
		{"/ /evil.example", "/"},
		{"/\x00/evil.example", "/"},
		{"/a\r\nSet-Cookie: a=b", "/"},
		{"/\u2028", "/"},
		{"/é", "/"},
		{"/\x7f", "/"},
		{"/\xff", "/"},
		{"/%zz", "/"},
		{"/./evil.example", "/"},
		{"/.//evil.example", "/"},
		{"/a/..//evil.example", "/"},
		{"/%2e//evil.example", "/"},
		{"/a/.%2E//evil.example", "/"},
		{"/a/%2E%2e", "/"},
		// What net/url makes of these is no path of this site's.
		{`/%2f"`, "/"},
		{`/%2Fevil.example/"`, "/"},
		{"/%2f%2fevil.example/|", "/"},
		{"/%2fevil.example/^?q", "/"},
		{"/%2fevil.example/`{}<>", "/"},
		{`/%2e%2f/evil.example/"`, "/"},
		{`/a%2f..%2f/evil.example/"`, "/"},
		{`/a%2f%2e%2E%2f%2fevil.example"`, "/"},
		// These it reads as they stand, or as a page of this site.
		{"/%2fevil.example", "/%2fevil.example"},
		{`/a%2fb"`, `/a%2fb"`},
		{`/a|b?c=%2f"`, `/a|b?c=%2f"`},
		{"https://evil.example", "/"},
		{"https:/evil.example", "/"},
		{"javascript:alert(1)", "/"},
		{"data:text/html,x", "/"},
	} {
		if got := NewReturnPath(tc.in).String(); got != tc.want {
			t.Errorf("newReturnPath(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
	if got := (ReturnPath{}).String(); got != "/" {
		t.Errorf("the zero value is %q, want the root", got)
	}
}

// TestReturnPathReread: a proxy that parses Location with net/url and writes it
// again leads to the same host.
func TestReturnPathReread(t *testing.T) {
	// Every character that may stand raw in a path, behind an escaped slash.
	for c := byte('!'); c < 0x7f; c++ {
		in := "/%2fevil.example/" + string(c)
		u, err := url.Parse(NewReturnPath(in).String())
		if err != nil {
			t.Fatal(err)
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != "" {
			t.Errorf("%q is read as %q, which leads to host %q, %v", in, u, again.Host, err)
		}
	}
}

// TestRedirectWithin: the bytes that go out are those that were checked.
func TestRedirectWithin(t *testing.T) {
	const path = `/a"<>|{}^` + "`" + `b?c="d'&e=<f>`
	w := httptest.NewRecorder()
	RedirectWithin(w, NewReturnPath(path))
	if got := w.Header().Get("Location"); w.Code != 303 || got != path {
		t.Errorf("%d to %q, want 303 to %q", w.Code, got, path)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", got)
	}
}
