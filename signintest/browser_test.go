package signintest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// seen is what a server saw of a request, in one line.
func seen(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	h := r.Header
	fmt.Fprintf(w, "%s %s site=%s mode=%s dest=%s user=%s origin=%s referer=%s cookie=%s form=%s",
		r.Method, r.URL.Path, h.Get("Sec-Fetch-Site"), h.Get("Sec-Fetch-Mode"), h.Get("Sec-Fetch-Dest"), h.Get("Sec-Fetch-User"),
		h.Get("Origin"), h.Get("Referer"), h.Get("Cookie"), r.PostForm.Encode())
}

const (
	appURL = "https://app.example.test"
	opURL  = "https://login.example.test"
)

// twoSites is an application with cookies of each kind, and an issuer, on
// different sites.
func twoSites(t *testing.T) (*Network, *Browser) {
	t.Helper()
	n := NewNetwork(t)
	app := http.NewServeMux()
	app.HandleFunc("/", seen)
	app.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range []string{"lax=1; SameSite=Lax", "none=1; SameSite=None; Secure", "strict=1; SameSite=Strict", "unset=1"} {
			w.Header().Add("Set-Cookie", c+"; Path=/")
		}
	})
	app.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, opURL+"/authorize", http.StatusSeeOther)
	})
	app.HandleFunc("/callback303", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/done", http.StatusSeeOther) })
	app.HandleFunc("/callback307", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/done", http.StatusTemporaryRedirect)
	})
	op := http.NewServeMux()
	op.HandleFunc("/", seen)
	form := func(action string) string {
		return `<body onload="document.getElementById('f').submit()"><form id=f method=POST action="` + action + `"><input type=hidden name=code value="1&amp;2"></form>`
	}
	op.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.FormValue("quiet") != "" {
			w.Header().Set("Referrer-Policy", "no-referrer")
		}
		to := r.FormValue("to")
		if to == "" {
			to = "/callback"
		}
		io.WriteString(w, form(appURL+to))
	})
	op.HandleFunc("/bounce", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, appURL+"/bounced", http.StatusTemporaryRedirect)
	})
	n.Serve(appURL, app)
	n.Serve(opURL, op)
	b := NewBrowser(t, &BrowserOptions{Network: n})
	if page := b.Open(appURL + "/set"); page.Err != nil || len(page.Rejected) != 0 {
		t.Fatalf("setting cookies: %v %v", page.Err, page.Rejected)
	}
	return n, b
}

func TestBrowserHeaders(t *testing.T) {
	_, b := twoSites(t)
	app, op := b.Open(appURL+"/"), b.Open(opURL+"/")
	all, lax, none := "lax=1; none=1; strict=1; unset=1", "lax=1; none=1; unset=1", "none=1"
	for _, tc := range []struct {
		name string
		page *Page
		want string
	}{
		{"typed", app, "GET / site=none mode=navigate dest=document user=?1 origin= referer= cookie=" + all},
		{"link on the site", b.Click(app, "/x"), "GET /x site=same-origin mode=navigate dest=document user=?1 origin= referer=" + appURL + "/ cookie=" + all},
		{"link from another site", b.Click(op, appURL+"/x"), "GET /x site=cross-site mode=navigate dest=document user=?1 origin= referer=" + opURL + "/ cookie=" + lax},
		{"form_post", b.Open(opURL + "/authorize"), "POST /callback site=cross-site mode=navigate dest=document user= origin=" + opURL +
			" referer=" + opURL + "/ cookie=" + none + " form=code=1%262"},
		{"form_post without referrer", b.Open(opURL + "/authorize?quiet=1"), "POST /callback site=cross-site mode=navigate dest=document user= origin=null referer= cookie=" + none},
		{"303 after form_post", b.Open(opURL + "/authorize?to=/callback303"), "GET /done site=cross-site mode=navigate dest=document user= origin= referer=" + opURL + "/ cookie=" + lax},
		{"307 after form_post", b.Open(opURL + "/authorize?to=/callback307"), "POST /done site=cross-site mode=navigate dest=document user= origin=" + opURL + " referer=" + opURL + "/ cookie=" + none + " form=code=1%262"},
		{"typed, redirected", b.Open(opURL + "/bounce"), "GET /bounced site=none mode=navigate dest=document user=?1 origin= referer= cookie=" + all},
		{"link, redirected away and back", b.Click(app, opURL+"/bounce"), "GET /bounced site=cross-site mode=navigate dest=document user=?1 origin= referer=" + appURL + "/ cookie=" + all},
		{"post, redirected away and back", b.Follow(&Request{Method: "POST", URL: opURL + "/bounce", From: appURL + "/", Form: url.Values{}}),
			"POST /bounced site=cross-site mode=navigate dest=document user= origin=null referer=" + appURL + "/ cookie=" + all},
		{"fetch", b.Fetch(app, "/x"), "GET /x site=same-origin mode=cors dest=empty user= origin= referer=" + appURL + "/ cookie=" + all},
		{"fetch from another site", b.Fetch(op, appURL+"/x"), "GET /x site=cross-site mode=cors dest=empty user= origin=" + opURL + " referer=" + opURL + "/ cookie=" + none},
		{"image on another site", b.Send(&Request{URL: appURL + "/x", From: op.URL, Mode: "no-cors", Dest: "image"}), "GET /x site=cross-site mode=no-cors dest=image user= origin= referer=" + opURL + "/ cookie=" + none},
		{"frame on another site", b.Send(&Request{URL: appURL + "/x", From: op.URL, Dest: "iframe"}), "GET /x site=cross-site mode=navigate dest=iframe user= origin= referer=" + opURL + "/ cookie=" + none},
		{"websocket", b.Send(&Request{URL: appURL + "/x", From: app.URL, Mode: "websocket"}), "GET /x site= mode= dest= user= origin=" + appURL},
		{"own header", b.Send(&Request{URL: appURL + "/x", Header: http.Header{"Sec-Fetch-Site": {"forged"}}}), "GET /x site=forged mode=navigate"},
	} {
		if tc.page.Err != nil || !strings.HasPrefix(tc.page.Body, tc.want) {
			t.Errorf("%s:\n got %s %v\nwant %s", tc.name, tc.page.Body, tc.page.Err, tc.want)
		}
	}
	page := b.Send(&Request{URL: appURL + "/x", Header: http.Header{"Host": {"evil.example"}}})
	if page.Status != http.StatusOK || page.SentHeader.Get("Host") != "evil.example" {
		t.Errorf("a forged Host: %d %v", page.Status, page.Err)
	}
}

// TestBrowserSameSiteOption: what counts as a site is the test's to say.
func TestBrowserSameSiteOption(t *testing.T) {
	n, _ := twoSites(t)
	b := NewBrowser(t, &BrowserOptions{Network: n, Site: func(string) string { return "example.test" }})
	b.Open(appURL + "/set")
	if page := b.Fetch(b.Open(opURL+"/"), appURL+"/x"); !strings.Contains(page.Body, "site=same-site ") || !strings.Contains(page.Body, "strict=1") {
		t.Errorf("on one site: %s", page.Body)
	}
}

// TestCrossSiteAnswersSetNoCookies: a fetch from another site cannot plant a
// Lax cookie, a navigation can.
func TestCrossSiteAnswersSetNoCookies(t *testing.T) {
	_, b := twoSites(t)
	b.ClearCookies()
	page := b.Fetch(b.Open(opURL+"/"), appURL+"/set")
	if _, ok := b.Cookie(appURL, "lax"); ok || len(page.Rejected) != 3 {
		t.Errorf("after a cross-site fetch: %v, rejected %v", b.Cookies(appURL), page.Rejected)
	}
	b.Follow(&Request{Method: "POST", URL: appURL + "/set", From: opURL + "/", Form: url.Values{}})
	if len(b.Cookies(appURL)) != 4 {
		t.Errorf("after a cross-site POST navigation: %v", b.Cookies(appURL))
	}
}

func TestRedirects(t *testing.T) {
	var status int
	mux := http.NewServeMux()
	mux.HandleFunc("/end", seen)
	mux.HandleFunc("/go", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/end")
		w.WriteHeader(status)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusSeeOther) })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	b := NewBrowser(t, nil)
	for _, tc := range []struct {
		status       int
		method, want string
	}{
		{301, "POST", "GET"}, {302, "POST", "GET"}, {303, "POST", "GET"}, {307, "POST", "POST"}, {308, "POST", "POST"},
		{302, "PUT", "PUT"}, {303, "PUT", "GET"}, {303, "HEAD", "HEAD"}, {303, "GET", "GET"},
	} {
		status = tc.status
		page := b.Follow(&Request{Method: tc.method, URL: srv.URL + "/go#there", Form: url.Values{"a": {"b"}}})
		if page.Sent.Method != tc.want || (page.Sent.Form != nil) != (tc.want == tc.method && tc.status != 303) && tc.method != "GET" && tc.method != "HEAD" {
			t.Errorf("%s answered %d becomes %s %v, want %s", tc.method, tc.status, page.Sent.Method, page.Sent.Form, tc.want)
		}
		if page.URL != srv.URL+"/end#there" {
			t.Errorf("ended at %s", page.URL)
		}
	}
	if page := b.Open(srv.URL + "/loop"); !errors.Is(page.Err, ErrTooManyRedirects) {
		t.Errorf("a loop: %v", page.Err)
	}
}

// TestStopAndReplay takes a callback out of the browser's hands, changes it and
// sends it many times at once.
func TestStopAndReplay(t *testing.T) {
	_, b := twoSites(t)
	page, callback := b.OpenUntil(appURL+"/login", To("/callback"))
	if callback == nil || page.URL != opURL+"/authorize" || callback.Form.Get("code") != "1&2" {
		t.Fatalf("stopped at %+v, %+v", page, callback)
	}
	changed := callback.Clone()
	changed.Form.Set("code", "other")
	if page := b.Follow(changed); !strings.HasSuffix(page.Body, "form=code=other") {
		t.Errorf("changed: %s", page.Body)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if page := b.Send(callback); !strings.HasSuffix(page.Body, "form=code=1%262") {
				t.Errorf("replayed: %s %v", page.Body, page.Err)
			}
		})
	}
	wg.Wait()
	if page, r := b.OpenUntil(appURL+"/x", To("/callback")); r != nil || page.Status != http.StatusOK {
		t.Errorf("nothing to stop at: %+v", r)
	}
	if page, r := b.OpenUntil(appURL+"/callback", To("/callback")); r == nil || page != nil {
		t.Errorf("stopped before the first: %v", page)
	}
}

const loginPage = `<!DOCTYPE html><html><body>
<!-- <form action="/trap"><input name=trap></form> -->
<form action="/search"><input name=q></form>
<FORM class='x > y' METHOD='post' action='login?x=1&amp;y=2'>
 <input type="hidden" name="csrf" value="a&quot;b>c">
 <input name=user value=preset><input type=password name="pass" required>
 <input type=checkbox name=remember checked><input type=checkbox name=no value=1>
 <input type=radio name=r value=1><input type=radio name=r value=2 checked>
 <select name=lang><option value=de>Deutsch<option value=en selected>English</select>
 <select name="first"><option>One</option><option>Two</option></select>
 <textarea name=text>a &lt; b</textarea>
 <button type=submit name=action value=cancel>Cancel</button><input type=submit name=s value=Go>
</FORM><a class="b" href="/again?a=1&amp;b=2">Please <b>try again</b></a></body></html>`

func TestForms(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", seen)
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, loginPage)
	})
	mux.HandleFunc("/text", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, loginPage)
	})
	srv := httptest.NewTLSServer(mux) // with a certificate nobody knows
	defer srv.Close()
	b := NewBrowser(t, nil)
	page := b.Open(srv.URL + "/page")
	forms := page.Forms()
	if len(forms) != 2 || page.Form().Action != srv.URL+"/search" || page.Form().Method != "GET" {
		t.Fatalf("forms: %+v", forms)
	}
	f := forms[1]
	want := url.Values{"csrf": {`a"b>c`}, "user": {"preset"}, "pass": {""}, "remember": {"on"}, "r": {"2"},
		"lang": {"en"}, "first": {"One"}, "text": {"a < b"}}
	if f.Method != "POST" || f.Action != srv.URL+"/login?x=1&y=2" || f.Fields.Encode() != want.Encode() {
		t.Errorf("login form: %+v", f)
	}
	if slices.Contains(f.Inputs, "csrf") || !slices.Contains(f.Inputs, "pass") {
		t.Errorf("inputs: %v", f.Inputs)
	}
	sent := b.Submit(page, url.Values{"user": {"alice"}, "pass": {"p"}})
	want.Set("user", "alice")
	want.Set("pass", "p")
	if !strings.HasPrefix(sent.Body, "POST /login site=same-origin mode=navigate dest=document user=?1 origin="+srv.URL) ||
		!strings.HasSuffix(sent.Body, "form="+want.Encode()) {
		t.Errorf("submitted: %s %v", sent.Body, sent.Err)
	}
	if sent := b.Submit(page, url.Values{"q": {"x y"}}); sent.URL != srv.URL+"/search?q=x+y" {
		t.Errorf("a GET form leads to %s", sent.URL)
	}
	if link := page.Link("try again"); link != srv.URL+"/again?a=1&b=2" || page.Link("nothing") != "" {
		t.Errorf("link: %q", link)
	}
	text := b.Open(srv.URL + "/text")
	if text.Form() != nil || text.Link("again") != "" || b.Submit(text, nil).Err == nil {
		t.Error("plain text has a form")
	}
}

func TestSelfSubmitting(t *testing.T) {
	post := func(body string) *Page {
		return &Page{Body: body, URL: "https://a.test/", Header: http.Header{"Content-Type": {"text/html"}}, Sent: &Request{URL: "https://a.test/"}}
	}
	const hidden, visible = `<form method=post><input type=hidden name=a></form>`, `<form method=post><input name=a></form>`
	for body, want := range map[string]bool{
		`<body onload="javascript:document.forms[0].submit()">` + hidden:                      true,
		`<body onload='document.forms["f"].submit()'>` + hidden:                               true,
		hidden + `<script nonce="x">document.forms[0].submit();</script>`:                     true,
		hidden + `<script>window.onload = function() { document.forms[0].submit() }</script>`: true,
		hidden: false,
		visible + `<script>document.forms[0].submit()</script>`: false,
		`<!-- <script>f.submit()</script> -->` + hidden:         false,
		hidden + `<p>call f.submit() to go on</p>`:              false,
		`<script>document.forms[0].submit()</script>`:           false,
	} {
		if got := post(body).Next() != nil; got != want {
			t.Errorf("%s: goes on by itself: %v, want %v", body, got, want)
		}
	}
}

func TestBrowserErrors(t *testing.T) {
	b := NewBrowser(t, nil)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, u := range []string{"://", gone.URL, "https://www.example.com/", "http://192.0.2.1/"} {
		if page := b.Open(u); page.Err == nil || page.Status != 0 {
			t.Errorf("%s: %d %v", u, page.Status, page.Err)
		}
	}
	if page := b.Open("https://www.example.com/"); !strings.Contains(page.Err.Error(), "not in the test's network") {
		t.Errorf("outside: %v", page.Err)
	}
	if b.Cookies("://") != nil || b.SetCookie("://", &http.Cookie{Name: "a"}) == nil {
		t.Error("cookies of no URL")
	}
}

func TestNetwork(t *testing.T) {
	n := NewNetwork(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	for _, u := range []string{"https://app.example.test", "https://app.example.test:8443", "http://app.example.test", "https://localhost", "http://127.0.0.1"} {
		served := n.Serve(u+"/base", h)
		res, err := n.Client().Get(served)
		if err != nil {
			t.Errorf("%s: %v", u, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if got := must(url.Parse(served)); got.Host != string(body) || got.Path != "/base" {
			t.Errorf("%s is served as %s, and sees itself as %s", u, served, body)
		}
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	n.Map("http://mapped.example.test", srv.Listener.Addr().String())
	if page := NewBrowser(t, &BrowserOptions{Network: n}).Open("http://mapped.example.test/"); page.Body != "mapped.example.test" {
		t.Errorf("mapped: %s %v", page.Body, page.Err)
	}
	if _, err := NewNetwork(t).Client().Get("https://app.example.test"); err == nil {
		t.Error("a host is known in another network")
	}
}

// A browser sends some characters as they stand, and takes \ in a path for /.
func TestRawCharacters(t *testing.T) {
	net := NewNetwork(t)
	var asked []string
	site := net.Serve("https://app.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI+" "+r.Referer())
		if to := r.Header.Get("X-To"); to != "" {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusSeeOther)
		}
	}))
	evil := net.Serve("https://evil.example", http.NotFoundHandler())
	b := NewBrowser(t, &BrowserOptions{Network: net})
	const raw = `/a|b%2Fc^[d]?path=C:\temp&100%&%zz`
	if p := b.Send(&Request{URL: site + raw, From: site + raw}); p.Err != nil || p.Status != http.StatusOK {
		t.Fatal(p.Status, p.Err)
	}
	if want := raw + " " + site + raw; len(asked) != 1 || asked[0] != want {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	for _, tc := range []struct{ to, want string }{
		{raw, site + raw},
		{site + raw, site + raw},
		{`/\evil.example/x`, evil + "/x"},
		{"/\t/evil.example/x", evil + "/x"},
		{`/?\evil.example/x`, site + `/?\evil.example/x`},
		{"/a/../b", site + "/b"},
	} {
		p := b.Send(&Request{URL: site, Header: http.Header{"X-To": {tc.to}}})
		if got := p.Location(); got != tc.want {
			t.Errorf("%q leads to %q, want %q", tc.to, got, tc.want)
		}
	}
}
