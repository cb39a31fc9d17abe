package signin

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

const navigationAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

// servePage answers one request with p; accept "" leaves the header out.
func servePage(p Page, method, accept string, custom func(http.ResponseWriter, *http.Request, Page)) *http.Response {
	r := httptest.NewRequest(method, "https://app.example/mail", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	writePage(w, r, p, custom)
	return w.Result()
}

func readBody(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// element is a start tag and the text directly inside it.
type element struct {
	name, text string
	attrs      map[string]string
}

// parseHTML returns the elements in order, and fails the test if a tag is
// never closed or closes another: page.html keeps to the HTML that is XML, too,
// but for meta.
func parseHTML(t testing.TB, body string) []element {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(body))
	d.AutoClose = []string{"meta"}
	d.Entity = xml.HTMLEntity
	d.Strict = false
	var all []element
	var open []int
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("parsing HTML: %v\n%s", err, body)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attrs: map[string]string{}}
			for _, a := range token.Attr {
				e.attrs[a.Name.Local] = a.Value
			}
			open = append(open, len(all))
			all = append(all, e)
		case xml.CharData:
			if len(open) > 0 {
				all[open[len(open)-1]].text += string(token)
			}
		case xml.EndElement:
			if len(open) == 0 || all[open[len(open)-1]].name != token.Name.Local {
				t.Fatalf("</%s> closes nothing\n%s", token.Name.Local, body)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Fatalf("<%s> is not closed\n%s", all[open[len(open)-1]].name, body)
	}
	return all
}

// named returns the elements of one name.
func named(all []element, name string) []element {
	return slices.DeleteFunc(slices.Clone(all), func(e element) bool { return e.name != name })
}

// samplePage fills every field a kind may have.
func samplePage(kind PageKind) Page {
	p := newPage(kind, "/mail?folder=in&n=1")
	p.Reference = "abcd-2345"
	switch kind {
	case PageIssuerError, PageCancelled, PageConsentRefused:
		p = newIssuerErrorPage(kind, "AADSTS65004: User declined to consent to access the app.", "/mail?folder=in&n=1")
	case PageIssuerDown, PageStoreDown:
		p = newUnavailablePage(kind, "/mail?folder=in&n=1", 5*time.Second)
	case PageForbidden:
		p = newForbiddenPage("ada@example.com", "/switch")
	}
	p.Reference = "abcd-2345"
	return p
}

func TestPageHTML(t *testing.T) {
	allowed := []string{
		"html", "head", "meta", "title", "style", "body", "main", "h1", "p", "figure", "figcaption", "blockquote",
		"ul", "li", "a", "form", "button", "dl", "div", "dt", "dd", "bdi", "code",
	}
	for _, kind := range slices.Sorted(maps.Keys(pageWords)) {
		t.Run(string(kind), func(t *testing.T) {
			p := samplePage(kind)
			p.problem = false
			res := servePage(p, "GET", navigationAccept, nil)
			body := readBody(t, res)
			if !strings.HasPrefix(body, "<!DOCTYPE html>\n") {
				t.Errorf("starts with %.20q; want the HTML5 doctype", body)
			}
			all := parseHTML(t, body)
			for _, e := range all {
				if !slices.Contains(allowed, e.name) {
					t.Errorf("has a <%s>", e.name)
				}
				for a := range e.attrs {
					if a == "style" || strings.HasPrefix(a, "on") {
						t.Errorf("<%s> has the attribute %s, which the policy forbids", e.name, a)
					}
				}
			}
			for name, want := range map[string]string{"h1": p.Title, "title": p.Title, "main": "", "body": ""} {
				if got := named(all, name); len(got) != 1 || !strings.Contains(got[0].text, want) {
					t.Errorf("<%s> = %v; want one with %q", name, got, want)
				}
			}
			if got := all[0].attrs["lang"]; got != "en" {
				t.Errorf("lang = %q, want en", got)
			}
			text := strings.Join(slices.Collect(func(yield func(string) bool) {
				for _, e := range all {
					if !yield(e.text) {
						return
					}
				}
			}), "\n")
			for _, want := range []string{p.Text, p.Advice, p.Quote, p.User, p.Reference, p.Actions[0].Label} {
				if !strings.Contains(text, want) {
					t.Errorf("does not show %q", want)
				}
			}
			action := append(named(all, "a"), named(all, "form")...)
			if len(action) != 1 || action[0].attrs["href"]+action[0].attrs["action"] != p.Actions[0].URL {
				t.Errorf("actions = %v; want one that leads to %s", action, p.Actions[0].URL)
			}
			if post := p.Actions[0].Method == "POST"; post != (action[0].attrs["method"] == "post") {
				t.Errorf("action = %v; want POST: %t", action[0], post)
			}
		})
	}
}

func TestPageHeaders(t *testing.T) {
	for kind := range pageWords {
		for _, accept := range []string{navigationAccept, "application/json"} {
			res := servePage(samplePage(kind), "GET", accept, nil)
			for name, want := range map[string]string{
				"Cache-Control":          "no-store",
				"X-Content-Type-Options": "nosniff",
				"Referrer-Policy":        "no-referrer",
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s, %s: %s = %q, want %q", kind, accept, name, got, want)
				}
			}
			if got, want := res.StatusCode, pageWords[kind].status; got != want {
				t.Errorf("%s, %s: status %d, want %d", kind, accept, got, want)
			}
			want := ""
			if kind == PageIssuerDown || kind == PageStoreDown {
				want = "5"
			}
			if got := res.Header.Get("Retry-After"); got != want {
				t.Errorf("%s, %s: Retry-After = %q, want %q", kind, accept, got, want)
			}
			if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none';") ||
				!strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") {
				t.Errorf("%s, %s: policy %q", kind, accept, csp)
			}
		}
	}
}

func TestPagePolicyNamesTheStyle(t *testing.T) {
	res := servePage(samplePage(PageLoop), "GET", navigationAccept, nil)
	csp, body := res.Header.Get("Content-Security-Policy"), readBody(t, res)
	m := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(body, -1)
	if len(m) != 1 {
		t.Fatalf("%d style elements, want 1", len(m))
	}
	sum := sha256.Sum256([]byte(m[0][1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	if csp != want {
		t.Errorf("policy = %q\nwant %q", csp, want)
	}
}

// A sign-out form's answer is a redirect to the issuer, which Chromium holds
// against form-action.
func TestPagePolicyLetsSignOutLeave(t *testing.T) {
	csp := servePage(samplePage(PageSignOut), "GET", navigationAccept, nil).Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "; form-action 'self' https: http://localhost:* http://127.0.0.1:*;") {
		t.Errorf("policy = %q", csp)
	}
}

func TestPageRetryAfterRoundsUp(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Millisecond: "1", time.Second: "1", 1500 * time.Millisecond: "2", 0: "", -time.Second: ""} {
		res := servePage(newUnavailablePage(PageStoreDown, "/", d), "GET", "", nil)
		if got := res.Header.Get("Retry-After"); got != want {
			t.Errorf("Retry-After for %v = %q, want %q", d, got, want)
		}
	}
}

func TestPageProblem(t *testing.T) {
	for kind, words := range pageWords {
		for _, accept := range []string{"application/json", "application/problem+json, */*"} {
			p := samplePage(kind)
			res := servePage(p, "POST", accept, nil)
			if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("%s: Content-Type = %q", kind, got)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(readBody(t, res)), &got); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			want := map[string]any{
				"type":      "https://pkg.go.dev/github.com/seed454743b5/signin?kind=" + string(kind) + "#Page",
				"title":     words.title,
				"status":    float64(words.status),
				"detail":    words.text,
				"reference": "abcd-2345",
			}
			for name, value := range map[string]string{"advice": words.advice, "issuer_says": p.Quote, "user": p.User, "login": p.Login} {
				if value != "" {
					want[name] = value
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: problem = %v\nwant %v", kind, got, want)
			}
		}
	}
}

func TestPageLogin(t *testing.T) {
	for kind := range pageWords {
		want := ""
		if pageWords[kind].status == http.StatusUnauthorized {
			want = "/mail"
		}
		if got := newPage(kind, "/mail").Login; got != want {
			t.Errorf("%s: Login = %q, want %q", kind, got, want)
		}
	}
}

func TestPageHead(t *testing.T) {
	for kind := range pageWords {
		for _, accept := range []string{navigationAccept, "application/json"} {
			get, head := servePage(samplePage(kind), "GET", accept, nil), servePage(samplePage(kind), "HEAD", accept, nil)
			if body := readBody(t, head); body != "" {
				t.Errorf("%s, %s: HEAD has the body %.40q", kind, accept, body)
			}
			if head.StatusCode != get.StatusCode || !maps.EqualFunc(head.Header, get.Header, slices.Equal) {
				t.Errorf("%s, %s: HEAD %d %v\nGET %d %v", kind, accept, head.StatusCode, head.Header, get.StatusCode, get.Header)
			}
		}
	}
}

func TestPageWhoGetsAProblem(t *testing.T) {
	for _, tc := range []struct {
		name, accept, mode, requestedWith string
		want                              bool
	}{
		{"navigation", navigationAccept, "navigate", "", false},
		{"navigation without Fetch Metadata", navigationAccept, "", "", false},
		{"nothing said", "", "", "", false},
		{"anything, from a terminal", "*/*", "", "", false},
		{"JSON", "application/json", "", "", true},
		{"problem", "application/problem+json", "", "", true},
		{"axios", "application/json, text/plain, */*", "cors", "", true},
		{"HTML before JSON", "text/html, application/json;q=0.9", "", "", false},
		{"JSON before HTML", "text/html;q=0.5, application/json", "", "", true},
		{"HTML refused", "text/html;q=0, application/json;q=0.1", "", "", true},
		{"JSON as good as HTML", "text/html, application/json", "", "", true},
		{"JSON refused", "application/json;q=0, */*", "", "", false},
		{"case and space", "  Application/JSON ; Q=1 ", "", "", true},
		{"broken ranges", ";;, q=, application/json;q=x, /", "", "", false},
		{"fetch", "*/*", "cors", "", true},
		{"fetch of HTML", "text/html", "same-origin", "", false},
		{"image", "image/avif,*/*;q=0.8", "no-cors", "", true},
		{"event source", "text/event-stream", "cors", "", true},
		{"XMLHttpRequest of old", "*/*", "", "XMLHttpRequest", true},
		{"too many ranges", strings.Repeat("a/b,", 60) + "application/json", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "https://app.example/", nil)
			for name, value := range map[string]string{"Accept": tc.accept, "Sec-Fetch-Mode": tc.mode, "X-Requested-With": tc.requestedWith} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			w := httptest.NewRecorder()
			writePage(w, r, newPage(PageLoop, "/"), nil)
			if got := w.Header().Get("Content-Type") == "application/problem+json"; got != tc.want {
				t.Errorf("Content-Type = %q; want a problem: %t", w.Header().Get("Content-Type"), tc.want)
			}
		})
	}
	res := servePage(newPage(PageSignInRequired, "/login"), "GET", navigationAccept, nil)
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("sign-in-required: Content-Type = %q; want a problem whatever Accept says", got)
	}
}

func TestPageCustom(t *testing.T) {
	var got []Page
	custom := func(w http.ResponseWriter, r *http.Request, p Page) {
		got = append(got, p)
		w.WriteHeader(p.Status)
		io.WriteString(w, "ours")
	}
	p := newUnavailablePage(PageIssuerDown, "javascript:alert(1)", time.Second)
	p.Quote = "a\u202eb" + strings.Repeat("c", 400)
	res := servePage(p, "GET", navigationAccept, custom)
	if body := readBody(t, res); body != "ours" || res.StatusCode != 503 {
		t.Errorf("%d %q; want the application's page", res.StatusCode, body)
	}
	if h := res.Header; h.Get("Retry-After") != "1" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Security-Policy") != "" {
		t.Errorf("header %v; want ours, but for the policy", h)
	}
	if len(got) != 1 || len(got[0].Actions) != 0 || utf8.RuneCountInString(got[0].Quote) != maxQuote || strings.Contains(got[0].Quote, "\u202e") {
		t.Errorf("page = %+v; want it cleaned", got)
	}
	res = servePage(p, "GET", "application/json", custom)
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" || len(got) != 1 {
		t.Errorf("Content-Type %q, %d calls; want our problem document for a script", ct, len(got))
	}
	servePage(newPage(PageSignInRequired, "/login"), "GET", navigationAccept, custom)
	if len(got) != 1 {
		t.Error("the application's page was asked for what only a script can have asked")
	}
}

func TestPageZero(t *testing.T) {
	res := servePage(Page{}, "GET", navigationAccept, nil)
	if all := parseHTML(t, readBody(t, res)); res.StatusCode != 200 || all[0].attrs["lang"] != "en" || len(named(all, "a")) != 0 {
		t.Errorf("%d %v; want an empty page in English", res.StatusCode, all)
	}
}

func TestPageUserIsCleaned(t *testing.T) {
	p := newForbiddenPage("ada\u202e"+strings.Repeat("<", 200), "/switch")
	all := parseHTML(t, readBody(t, servePage(p, "GET", navigationAccept, nil)))
	if got, want := named(all, "bdi")[0].text, "ada"+strings.Repeat("<", maxUser-4)+"…"; got != want {
		t.Errorf("user = %q, want %q", got, want)
	}
}

func TestPageDropsTheHandlersHeaders(t *testing.T) {
	w := httptest.NewRecorder()
	for _, name := range []string{"Content-Length", "Content-Disposition", "Etag", "Last-Modified", "Expires"} {
		w.Header().Set(name, "1")
	}
	writePage(w, httptest.NewRequest("GET", "/", nil), newPage(PageLoop, "/"), nil)
	for _, name := range []string{"Content-Length", "Content-Disposition", "Etag", "Last-Modified", "Expires"} {
		if got := w.Header().Get(name); got != "" {
			t.Errorf("%s = %q; want it gone", name, got)
		}
	}
}

func TestPageURLs(t *testing.T) {
	for _, tc := range []struct {
		url  string
		want bool
	}{
		{"/", true},
		{"/a/b?c=d&e=%2F%2F#f", true},
		{"https://login.example/x?y=z", true},
		{"http://localhost:8080/", true},
		{"", false},
		{"mail", false},
		{"?a", false},
		{"javascript:alert(1)", false},
		{"JaVaScRiPt:alert(1)", false},
		{" javascript:alert(1)", false},
		{"java\tscript:alert(1)", false},
		{"data:text/html,x", false},
		{"vbscript:x", false},
		{"//evil.example/", false},
		{`/\evil.example`, false},
		{"/\t/evil.example", false},
		{"/\n/evil.example", false},
		{"https:evil.example", false},
		{"https:///x", false},
		{"https://app.example@evil.example/", false},
		{"file:///etc/passwd", false},
		{"/\xff", false},
		{"/%zz", false},
	} {
		for _, kind := range []PageKind{PageSignOut, PageSessionEnded} {
			p := newPage(kind, tc.url)
			for _, accept := range []string{navigationAccept, "application/json"} {
				body := readBody(t, servePage(p, "GET", accept, nil))
				has := strings.Contains(body, "<a ") || strings.Contains(body, "<form ") || strings.Contains(body, `"login"`)
				if want := tc.want && (accept == navigationAccept || p.Login != ""); has != want {
					t.Errorf("%s with %q as %s: has a link: %t, want %t", kind, tc.url, accept, has, want)
				}
				if strings.Contains(strings.ToLower(body), "script:") || strings.Contains(body, "ZgotmplZ") {
					t.Errorf("%s with %q as %s: %s", kind, tc.url, accept, body)
				}
			}
		}
	}
}

func TestPlainText(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "Access denied.", "Access denied."},
		{"empty", "", ""},
		{"spaces", "  a \r\n\t b\u2028c\u00a0 ", "a b c"},
		{"control", "a\x00\x1b[31mb\x7f", "a[31mb"},
		{"bidi", "\u202eevil\u202c \u2066x\u2069\u200f", "evil x"},
		{"zero width", "a\u200b\u200d\ufeffb", "ab"},
		{"tags", "a\U000e0041b", "ab"},
		{"not UTF-8", "a\xffb\xc3", "ab"},
		{"other scripts", "Zugriff verweigert: العربية, 日本語, é", "Zugriff verweigert: العربية, 日本語, é"},
		{"towers", "e" + strings.Repeat("\u0301", 50) + "x", "e\u0301\u0301\u0301x"},
		{"accents", strings.Repeat("e\u0301", 5), strings.Repeat("e\u0301", 5)},
		{"beyond what is looked at", strings.Repeat("\u200b", 1000) + "x", ""},
		{"just fits", strings.Repeat("é", 300), strings.Repeat("é", 300)},
		{"too long", strings.Repeat("é", 301), strings.Repeat("é", 299) + "…"},
		{"nothing to see", strings.Repeat("\u200b", 5000), ""},
		{"a megabyte", strings.Repeat("a b ", 1<<18), strings.Repeat("a b ", 74) + "a b…"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := plainText(tc.in, maxQuote); got != tc.want {
				t.Errorf("plainText = %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzPageQuote: whatever an issuer says, or somebody in its name, it is some
// text in one blockquote and one JSON string.
func FuzzPageQuote(f *testing.F) {
	for _, s := range []string{
		"denied", "<script>alert(1)</script>", "</blockquote></main><form action=//evil.example>", "{{.Title}}", "&lt;b&gt;",
		"\u202e\u2066", "\"' onclick=x", "<!--", "]]>", "</style><style>*{}</style>", "\xff\x00", strings.Repeat("<", 1<<20),
	} {
		f.Add(s)
	}
	names := func(all []element) (s []string) {
		for _, e := range all {
			s = append(s, e.name)
		}
		return s
	}
	want := names(parseHTML(f, readBody(f, servePage(newIssuerErrorPage(PageIssuerError, "denied", "/"), "GET", navigationAccept, nil))))
	f.Fuzz(func(t *testing.T, s string) {
		p := newIssuerErrorPage(PageIssuerError, s, "/")
		quote := plainText(s, maxQuote)
		if again := plainText(quote, maxQuote); again != quote {
			t.Errorf("plainText(%q) = %q: not settled", quote, again)
		}
		if n := utf8.RuneCountInString(quote); n > maxQuote || !utf8.ValidString(quote) {
			t.Errorf("plainText: %d runes, %q", n, quote)
		}
		for _, r := range quote {
			if unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) || unicode.IsSpace(r) && r != ' ' {
				t.Errorf("plainText left %U", r)
			}
		}
		body := readBody(t, servePage(p, "GET", navigationAccept, nil))
		all := parseHTML(t, body)
		if quote == "" {
			if len(named(all, "blockquote")) != 0 {
				t.Error("quotes nothing")
			}
			return
		}
		if got := names(all); !slices.Equal(got, want) {
			t.Errorf("elements = %v, want %v", got, want)
		}
		if got := named(all, "blockquote"); len(got) != 1 || got[0].text != quote {
			t.Errorf("blockquote = %q, want %q", got, quote)
		}
		if len(body) > 16<<10 {
			t.Errorf("page of %d bytes", len(body))
		}
		var problem struct {
			Quote string `json:"issuer_says"`
		}
		raw := readBody(t, servePage(p, "GET", "application/json", nil))
		if err := json.Unmarshal([]byte(raw), &problem); err != nil || problem.Quote != quote || strings.Contains(raw, "<") {
			t.Errorf("problem = %s, %v; want %q", raw, err, quote)
		}
	})
}

func TestPageWords(t *testing.T) {
	for kind, words := range pageWords {
		if words.status == 0 || words.title == "" || words.text == "" || words.label == "" {
			t.Errorf("%s: %+v; want status, title, text and label", kind, words)
		}
		for _, s := range []string{words.text, words.advice} {
			if s != "" && !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q does not end as a sentence", kind, s)
			}
		}
	}
}

func TestNewReference(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		ref := newReference()
		if !regexp.MustCompile(`^[a-z2-7]{4}-[a-z2-7]{4}$`).MatchString(ref) || seen[ref] {
			t.Fatalf("newReference() = %q", ref)
		}
		seen[ref] = true
	}
}

// TestPageContrast holds every pair of colours that meet against WCAG 2.2,
// 1.4.3 (text) and 1.4.11 (edges of controls), level AA, in both themes.
func TestPageContrast(t *testing.T) {
	themes := regexp.MustCompile(`:root \{[^}]*\}`).FindAllString(pageSource, -1)
	if len(themes) != 2 {
		t.Fatalf("%d themes, want light and dark", len(themes))
	}
	for i, theme := range []string{"light", "dark"} {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]+);`).FindAllStringSubmatch(themes[i], -1) {
			colour[m[1]] = luminance(t, m[2])
		}
		for _, pair := range []struct {
			front, back string
			min         float64
		}{
			{"ink", "card", 4.5}, {"ink", "tint", 4.5}, {"soft", "card", 4.5}, {"soft", "tint", 4.5},
			{"mark", "card", 4.5}, {"on-mark", "mark", 4.5},
		} {
			front, okFront := colour[pair.front]
			back, okBack := colour[pair.back]
			if got := (max(front, back) + 0.05) / (min(front, back) + 0.05); !okFront || !okBack || got < pair.min {
				t.Errorf("%s: %s on %s has contrast %.2f, want %.1f", theme, pair.front, pair.back, got, pair.min)
			}
		}
	}
}

// luminance is the relative luminance of WCAG 2.2 of an rgb or rrggbb colour.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = fmt.Sprintf("%c%[1]c%c%[2]c%c%[3]c", hex[0], hex[1], hex[2])
	}
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(v) / 255
		if c <= 0.04045 {
			sum += weight * c / 12.92
		} else {
			sum += weight * math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return sum
}
