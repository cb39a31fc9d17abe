package chromium

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// requesters are the ways in which a page asks for something without leaving.
// Each gets the URL in the variable url.
var requesters = []struct {
	name, script string
	fetch        string // Sec-Fetch-Mode and -Dest, as Chromium sends them
}{
	{"fetch", `fetch(url)`, "cors empty"},
	{"fetch with credentials", `fetch(url, {credentials: "include", headers: {Accept: "text/html"}})`, "cors empty"},
	{"fetch no-cors", `fetch(url, {mode: "no-cors"})`, "no-cors empty"},
	{"fetch same-origin", `fetch(url, {mode: "same-origin"})`, "same-origin empty"},
	{"fetch POST", `fetch(url.replace("/me", "/mail"), {method: "POST", body: "to=x"})`, "cors empty"},
	{"XHR", `{const x = new XMLHttpRequest(); x.open("GET", url); x.send()}`, "cors empty"},
	{"EventSource", `new EventSource(url)`, "cors empty"},
	{"WebSocket", `new WebSocket(url.replace("http", "ws"))`, "websocket"},
	{"iframe", `document.body.append(Object.assign(document.createElement("iframe"), {src: url}))`, "navigate iframe"},
	{"image", `new Image().src = url`, "no-cors image"},
	{"script", `document.body.append(Object.assign(document.createElement("script"), {src: url}))`, "no-cors script"},
	{"style", `document.body.append(Object.assign(document.createElement("link"), {rel: "stylesheet", href: url}))`, "no-cors style"},
	{"object", `document.body.append(Object.assign(document.createElement("object"), {data: url}))`, "navigate object"},
	{"link prefetch", `document.head.append(Object.assign(document.createElement("link"), {rel: "prefetch", href: url}))`, "no-cors empty"},
	{"speculative prefetch", `document.head.append(Object.assign(document.createElement("script"), {type: "speculationrules", textContent: JSON.stringify({prefetch: [{source: "list", urls: [url], eagerness: "immediate"}]})}))`, "navigate document"},
	{"prerender", `document.head.append(Object.assign(document.createElement("script"), {type: "speculationrules", textContent: JSON.stringify({prerender: [{source: "list", urls: [url], eagerness: "immediate"}]})}))`, "navigate document"},
	{"beacon", `navigator.sendBeacon(url.replace("/me", "/mail"), "x")`, "no-cors empty"},
}

// Nobody is signed in. Whatever cannot follow a redirect to a sign-in page
// gets 401, and the issuer hears of none of it.
func TestScriptsGet401(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	d.page("/test/blank", "<h1>blank</h1><body>")
	p := newProfile(t)
	for i, r := range requesters {
		t.Run(r.name, func(t *testing.T) {
			b := p.first.in(t)
			b.open(d.url + "/test/blank")
			b.heading("blank")
			query := fmt.Sprintf("?n=%d", i)
			eval[bool](b, `{const url = `+quoted(d.url+"/me"+query)+"; "+r.script+`}; true`)
			find := func() (exchange, bool) {
				for _, e := range d.requests("") {
					if strings.HasSuffix(e.URI, query) {
						return e, true
					}
				}
				return exchange{}, false
			}
			b.waitFor("the request", func() bool { _, ok := find(); return ok })
			e, _ := find()
			t.Log(e)
			got := strings.TrimSpace(e.Header.Get("Sec-Fetch-Mode") + " " + e.Header.Get("Sec-Fetch-Dest"))
			if got != r.fetch && !(r.fetch == "websocket" && e.Header.Get("Upgrade") == "websocket") {
				t.Errorf("Chromium sent %q, want %q", got, r.fetch)
			}
			if e.Status != http.StatusUnauthorized || e.Answer.Get("WWW-Authenticate") == "" || e.Answer.Get("Location") != "" {
				t.Errorf("%v, WWW-Authenticate %q, Location %q; want 401 and no redirect", e, e.Answer.Get("WWW-Authenticate"), e.Answer.Get("Location"))
			}
			if n := d.issuer.Count(signintest.EndpointAuthorize); n != 0 {
				t.Errorf("%d requests reached the issuer, want none", n)
			}
			if len(e.Answer["Set-Cookie"]) != 0 {
				t.Errorf("a refused script set %q", e.Answer["Set-Cookie"])
			}
		})
	}
}

// The 401 names a URL that a script can open in a window. It signs in and
// comes back to the page that the script was on.
func TestScriptSignsInByWindow(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	d.page("/test/app", "<h1>app</h1>")
	b := newProfile(t).first
	b.open(d.url + "/test/app?a=1&b=2")
	b.heading("app")
	type answer struct {
		Status int
		Type   string
		Body   string
	}
	refused := eval[answer](b, `fetch("/api").then(async r => ({Status: r.status, Type: r.headers.get("Content-Type"), Body: await r.text()}))`)
	var problem struct {
		Status int
		Login  string
	}
	if err := json.Unmarshal([]byte(refused.Body), &problem); err != nil || refused.Status != http.StatusUnauthorized || problem.Status != refused.Status || refused.Type != "application/problem+json" {
		t.Fatalf("fetch got %+v, %v; want a problem document", refused, err)
	}
	eval[bool](b, `window.before = true, location.href = `+quoted(problem.Login)+`, true`)
	// The way leads back to where it began: it is another document then.
	b.wait("the page anew", `!window.before && location.href === `+quoted(d.url+"/test/app?a=1&b=2")+` && document.readyState === "complete"`)
	b.at(d.url+"/test/app?a=1&b=2", "app")
	if status := eval[int](b, `fetch("/me").then(r => r.status)`); status != http.StatusOK {
		t.Errorf("fetch after the sign-in: status %d", status)
	}
}

// Behind a service worker that passes everything on, a navigation says
// dest=empty, and the callback too. Signing in works all the same.
func TestServiceWorker(t *testing.T) {
	t.Parallel()
	d := startDemoAt(t)
	d.page("/test/register", "<h1>register</h1>")
	d.mux.HandleFunc("GET /test/worker.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		w.Header().Set("Service-Worker-Allowed", "/")
		fmt.Fprint(w, `
			addEventListener("install", () => skipWaiting());
			addEventListener("activate", e => e.waitUntil(clients.claim()));
			addEventListener("fetch", e => e.respondWith(fetch(e.request)));`)
	})
	b := newProfile(t).first
	b.open(d.url + "/test/register")
	b.heading("register")
	eval[bool](b, `navigator.serviceWorker.register("/test/worker.js", {scope: "/"}).then(() => navigator.serviceWorker.ready).then(() => true)`)
	b.wait("a worker in control", `navigator.serviceWorker.controller`)

	b.open(d.url + "/me")
	b.at(d.url+"/me", signedIn)
	for _, e := range append(d.requests("/me"), d.requests("/oidc/callback")...) {
		t.Log(e)
		if got := e.Header.Get("Sec-Fetch-Mode") + " " + e.Header.Get("Sec-Fetch-Dest"); got != "navigate empty" {
			t.Errorf("%v did not pass the worker", e)
		}
	}
	// The site's own pages let no script fetch anything.
	b.open(d.url + "/test/register")
	b.heading("register")
	if status := eval[int](b, `fetch("/me").then(r => r.status)`); status != http.StatusOK {
		t.Errorf("fetch by the worker, signed in: status %d", status)
	}
	b.open(d.url + "/me")
	b.at(d.url+"/me", signedIn)
	b.press("Sign out")
	b.at(d.url+"/", "Sign in and call an API")
	visits := d.issuer.Count(signintest.EndpointAuthorize)
	b.open(d.url + "/test/register")
	b.heading("register")
	if status := eval[int](b, `fetch("/me").then(r => r.status)`); status != http.StatusUnauthorized {
		t.Errorf("fetch by the worker, signed out: status %d", status)
	}
	if n := d.issuer.Count(signintest.EndpointAuthorize); n != visits {
		t.Errorf("a script's request reached the issuer")
	}
}
