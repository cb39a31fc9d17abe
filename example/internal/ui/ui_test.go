package ui_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/seed454743b5/signin/example/internal/ui"
)

func page(content string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(`{{define "title"}}T{{end}}{{define "header"}}H{{end}}{{define "content"}}` + content + `{{end}}`)}
}

func TestRender(t *testing.T) {
	pages, err := ui.Parse(fstest.MapFS{
		"p/good.html": page(`<p>{{.}}</p>`),
		"p/bad.html":  page(`before {{.Nothing}} after`),
	}, "p", nil, "https://issuer.example")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := pages.Render(w, http.StatusTeapot, "good", "<script>"); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusTeapot || !strings.Contains(w.Body.String(), "<p>&lt;script&gt;</p>") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.HasSuffix(csp, "form-action 'self' https://issuer.example") || strings.Contains(csp, "script-src") {
		t.Errorf("Content-Security-Policy: %q", csp)
	}
	if cc := w.Header().Get("Cache-Control"); cc != "no-store" {
		t.Errorf("Cache-Control: %q", cc)
	}
	for _, name := range []string{"bad", "missing"} {
		w := httptest.NewRecorder()
		if err := pages.Render(w, http.StatusOK, name, "x"); err == nil || w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "before") {
			t.Errorf("page %s: %v, status %d: %s; want an error and a 500 without content", name, err, w.Code, w.Body)
		}
	}
}
