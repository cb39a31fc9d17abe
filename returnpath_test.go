package signin

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReturnPath(t *testing.T) {
	long := "/p?" + strings.Repeat("q", maxReturnPath-3)
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
		{"/.hidden/..a", "/.hidden/..a"},
		{long, long},
		{long + "q", "/p"},
		{"/" + strings.Repeat("p", maxReturnPath), "/"},

		{"", "/"},
		{"mail", "/"},
		{"?a", "/"},
		{"//evil.example/x", "/"},
		{"///evil.example/x", "/"},
		{`/\evil.example`, "/"},
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
		{"https://evil.example", "/"},
		{"https:/evil.example", "/"},
		{"javascript:alert(1)", "/"},
		{"data:text/html,x", "/"},
	} {
		if got := newReturnPath(tc.in).String(); got != tc.want {
			t.Errorf("newReturnPath(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
	if got := (returnPath{}).String(); got != "/" {
		t.Errorf("the zero value is %q, want the root", got)
	}
}

// TestRedirectWithin: the bytes that go out are those that were checked.
func TestRedirectWithin(t *testing.T) {
	const path = `/a"<>|{}^` + "`" + `b?c="d'&e=<f>`
	w := httptest.NewRecorder()
	redirectWithin(w, newReturnPath(path))
	if got := w.Header().Get("Location"); w.Code != 303 || got != path {
		t.Errorf("%d to %q, want 303 to %q", w.Code, got, path)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", got)
	}
}
