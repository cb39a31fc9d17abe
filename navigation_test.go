package signin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/internal/web"
	"github.com/seed454743b5/signin/signintest"
)

const htmlAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

// requestKinds are requests as clients send them, and what each can do with
// an answer.
var requestKinds = []struct {
	name   string
	method string // empty: GET
	header string // one "Name: value" a line
	want   web.Kind
}{
	{"navigation", "", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\nAccept: " + htmlAccept, web.Navigation},
	{"navigation, HEAD", "HEAD", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\nAccept: " + htmlAccept, web.Navigation},
	{"navigation behind a service worker", "", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: empty\nAccept: " + htmlAccept, web.Navigation},
	{"navigation in an app's web view", "", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\nX-Requested-With: com.example.app\nAccept: " + htmlAccept, web.Navigation},
	{"navigation of an old browser", "", "Accept: " + htmlAccept, web.Navigation},
	{"navigation that asks to upgrade to https", "", "Upgrade-Insecure-Requests: 1\nAccept: " + htmlAccept, web.Navigation},
	{"text browser", "", "Accept: text/html, text/plain, */*;q=0.01", web.Navigation},
	{"form", "POST", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\nAccept: " + htmlAccept, web.Submission},
	{"form of an old browser", "POST", "Accept: " + htmlAccept, web.Submission},
	{"form behind a service worker", "POST", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: empty\nAccept: " + htmlAccept, web.Submission},

	{"fetch, cors", "", "Sec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\nAccept: */*", web.Other},
	{"fetch, same-origin", "", "Sec-Fetch-Mode: same-origin\nSec-Fetch-Dest: empty\nAccept: */*", web.Other},
	{"fetch, no-cors", "", "Sec-Fetch-Mode: no-cors\nSec-Fetch-Dest: empty\nAccept: */*", web.Other},
	{"fetch of HTML", "", "Sec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\nAccept: text/html", web.Other},
	{"fetch, POST", "POST", "Sec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\nAccept: */*", web.Other},
	{"XHR", "", "X-Requested-With: XMLHttpRequest\nAccept: application/json, text/javascript, */*; q=0.01", web.Other},
	{"XHR for HTML, old browser", "", "X-Requested-With: XMLHttpRequest\nAccept: text/html, */*; q=0.01", web.Other},
	{"EventSource", "", "Sec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\nAccept: text/event-stream", web.Other},
	{"EventSource of an old browser", "", "Accept: text/event-stream", web.Other},
	{"WebSocket", "", "Upgrade: websocket\nConnection: Upgrade\nAccept: " + htmlAccept, web.Other},
	{"WebSocket with Fetch Metadata", "", "Upgrade: websocket\nSec-Fetch-Mode: websocket\nSec-Fetch-Dest: websocket", web.Other},
	{"prefetch", "", "Sec-Purpose: prefetch\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\nAccept: " + htmlAccept, web.Other},
	{"prefetch by proxy", "", "Sec-Purpose: prefetch;anonymous-client-ip\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: empty\nAccept: " + htmlAccept, web.Other},
	{"prerender", "", "Sec-Purpose: prefetch;prerender\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\nAccept: " + htmlAccept, web.Other},
	{"prefetch, as Safari says it", "", "Purpose: prefetch\nAccept: " + htmlAccept, web.Other},
	{"prefetch, as Firefox said it", "", "X-Moz: prefetch\nAccept: " + htmlAccept, web.Other},
	{"image", "", "Sec-Fetch-Mode: no-cors\nSec-Fetch-Dest: image\nAccept: image/avif,image/webp,*/*;q=0.8", web.Other},
	{"image, old browser", "", "Accept: image/webp,*/*;q=0.8", web.Other},
	{"script", "", "Sec-Fetch-Mode: no-cors\nSec-Fetch-Dest: script\nAccept: */*", web.Other},
	{"frame", "", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: iframe\nAccept: " + htmlAccept, web.Other},
	{"old frame", "", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: frame\nAccept: " + htmlAccept, web.Other},
	{"object", "", "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: object\nAccept: " + htmlAccept, web.Other},
	{"curl", "", "Accept: */*", web.Other},
	{"curl -I", "HEAD", "Accept: */*", web.Other},
	{"no headers at all", "", "", web.Other},
	{"API client", "", "Accept: application/json", web.Other},
	{"API client that would take HTML", "", "Accept: application/json, text/html;q=0.5", web.Other},
	{"client that refuses HTML", "", "Accept: text/html;q=0.0, text/plain", web.Other},
	{"gRPC-web", "POST", "Sec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\nContent-Type: application/grpc-web+proto\nX-Grpc-Web: 1\nAccept: application/grpc-web+proto", web.Other},
	{"gRPC-web outside a browser", "POST", "Content-Type: application/grpc-web-text\nAccept: */*", web.Other},
	{"preflight", "OPTIONS", "Sec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\nAccess-Control-Request-Method: GET", web.Other},
	{"OPTIONS", "OPTIONS", "Accept: " + htmlAccept, web.Other},
	{"PUT", "PUT", "Accept: " + htmlAccept, web.Other},
	{"DELETE", "DELETE", "Accept: */*", web.Other},
}

func headerOf(lines string) http.Header {
	h := http.Header{}
	for line := range strings.SplitSeq(lines, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h.Add(name, value)
		}
	}
	return h
}

func TestKindOf(t *testing.T) {
	for _, tc := range requestKinds {
		method := tc.method
		if method == "" {
			method = http.MethodGet
		}
		r := httptest.NewRequest(method, "https://app.example.test/me", nil)
		r.Header = headerOf(tc.header)
		if got := web.KindOf(r); got != tc.want {
			t.Errorf("%s: kind %d, want %d", tc.name, got, tc.want)
		}
	}
}

// The same through the front door: who cannot follow a redirect gets none, and
// no request of theirs reaches the issuer.
func TestWhoGetsARedirect(t *testing.T) {
	a := newApp(t)
	client := a.net.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, tc := range requestKinds {
		r, err := http.NewRequest(tc.method, a.url+"/page/x?q=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = headerOf(tc.header)
		res, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		var problem struct{ Type, Title, Login string }
		decoded := json.NewDecoder(res.Body).Decode(&problem)
		res.Body.Close()
		content := res.Header.Get("Content-Type")
		switch tc.want {
		case web.Navigation:
			if res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(res.Header.Get("Location"), a.issuer.EndpointURL(signintest.EndpointAuthorize)+"?") {
				t.Errorf("%s: %d to %.60q, want 303 to the issuer", tc.name, res.StatusCode, res.Header.Get("Location"))
			}
		case web.Submission:
			if res.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(content, "text/html") || res.Header.Get("Location") != "" {
				t.Errorf("%s: %d %s, want a 401 page", tc.name, res.StatusCode, content)
			}
		default:
			if res.StatusCode != http.StatusUnauthorized || content != "application/problem+json" || res.Header.Get("Location") != "" || len(res.Cookies()) > 0 {
				t.Errorf("%s: %d %s, cookies %v; want 401 with a problem document and nothing else", tc.name, res.StatusCode, content, res.Cookies())
			}
			if tc.method != http.MethodHead && (decoded != nil || !strings.HasPrefix(problem.Login, "/oidc/login?ask=")) {
				t.Errorf("%s: %v, login %q", tc.name, decoded, problem.Login)
			}
		}
		if res.StatusCode == http.StatusUnauthorized && res.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: WWW-Authenticate %q", tc.name, res.Header.Get("WWW-Authenticate"))
		}
		if res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", tc.name, res.Header.Get("Cache-Control"))
		}
	}
	if n := a.issuer.Count(signintest.EndpointAuthorize); n != 0 {
		t.Errorf("%d requests to the authorization endpoint", n)
	}
}
