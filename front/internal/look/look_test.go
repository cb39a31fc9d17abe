package look

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/settings"
)

func show(site settings.Site, accept string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept", accept)
	New(site).Page(w, r, signin.Page{Kind: "x", Status: http.StatusBadGateway, Title: "Title", Text: "Text"})
	return w
}

func TestPage(t *testing.T) {
	w := show(settings.Site{Name: "<Wiki>", Color: "#102030", Logo: settings.Logo{Type: "image/svg+xml", Data: []byte("<svg/>")}}, "text/html")
	body, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	if w.Code != http.StatusBadGateway || !strings.Contains(body, "&lt;Wiki&gt;") || !strings.Contains(body, `<img src="data:image/svg+xml;base64,PHN2Zy8+" alt="">`) ||
		!strings.Contains(body, "--mark: #102030") || strings.Index(body, `class="brand"`) > strings.Index(body, "<h1>") {
		t.Errorf("%d\n%s", w.Code, body)
	}
	_, style, _ := strings.Cut(body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	if !strings.Contains(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || !strings.Contains(policy, "img-src data:") || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy %s", policy)
	}
	w = show(settings.Site{Color: "#1a56c4"}, "application/json")
	if w.Header().Get("Content-Type") != "application/problem+json" || !strings.Contains(w.Body.String(), `"status":502`) {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
}

// What is written on a button, and a link on the page, can be read (WCAG 2.1, 1.4.3).
func TestContrast(t *testing.T) {
	ratio := func(a, b string) float64 {
		x, y := luminance(a), luminance(b)
		return (max(x, y) + 0.05) / (min(x, y) + 0.05)
	}
	for _, color := range []string{"#000000", "#1a56c4", "#c41a1a", "#ffcc00", "#ffffff", "#808080", "#00ff00", "#0000ff"} {
		body := show(settings.Site{Color: color}, "text/html").Body.String()
		_, css, _ := strings.Cut(body, "object-fit: contain; }\n")
		var found []string
		for _, part := range strings.Split(css, ": #")[1:] {
			hex, _, _ := strings.Cut(part, ";")
			if hex == "fff" {
				hex = "ffffff"
			}
			found = append(found, "#"+hex)
		}
		if len(found) != 4 {
			t.Fatalf("%v in %s", found, css)
		}
		if got := ratio(found[0], found[1]); got < 4 {
			t.Errorf("%s: a button's text has contrast %.1f in light", color, got)
		}
		if got := ratio(found[2], found[3]); got < 4.5 {
			t.Errorf("%s: a button's text has contrast %.1f in dark", color, got)
		}
	}
}
