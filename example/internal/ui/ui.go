// Package ui renders the pages of the demo site and of its OpenID Provider:
// one layout, one stylesheet, no script.
package ui

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed layout.html style.css
var files embed.FS

// Pages is a set of parsed pages. It is safe for concurrent use.
type Pages struct {
	pages map[string]*template.Template
	csp   string
}

// Parse reads the pages in dir of fsys. Each file defines the templates
// "title", "header" and "content" of the layout, except that a file called
// common.html is shared by all. Forms may only lead to formTargets (CSP source
// expressions) and to the page's own origin; Chromium holds the redirects that
// follow a form to the same list.
func Parse(fsys fs.FS, dir string, funcs template.FuncMap, formTargets ...string) (*Pages, error) {
	names, err := fs.Glob(fsys, path.Join(dir, "*.html"))
	if err != nil {
		return nil, fmt.Errorf("ui: listing pages: %w", err)
	}
	base, err := template.New("layout.html").Funcs(funcs).ParseFS(files, "layout.html")
	if err != nil {
		return nil, fmt.Errorf("ui: parsing the layout: %w", err)
	}
	if common := path.Join(dir, "common.html"); exists(fsys, common) {
		if base, err = base.ParseFS(fsys, common); err != nil {
			return nil, fmt.Errorf("ui: parsing %s: %w", common, err)
		}
	}
	p := &Pages{pages: make(map[string]*template.Template), csp: policy(formTargets)}
	for _, name := range names {
		page, err := template.Must(base.Clone()).ParseFS(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("ui: parsing %s: %w", name, err)
		}
		p.pages[strings.TrimSuffix(path.Base(name), ".html")] = page
	}
	return p, nil
}

func exists(fsys fs.FS, name string) bool {
	_, err := fs.Stat(fsys, name)
	return err == nil
}

// policy is the Content-Security-Policy of every page. The icon is an empty
// data URL, so that no browser asks for one.
func policy(formTargets []string) string {
	return "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action " +
		strings.Join(append([]string{"'self'"}, formTargets...), " ")
}

// Render writes the named page. A page that fails while it renders becomes a
// 500 without content: half a page could be taken for a whole one.
func (p *Pages) Render(w http.ResponseWriter, status int, name string, data any) error {
	page, ok := p.pages[name]
	if !ok {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return fmt.Errorf("ui: no page %q", name)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return fmt.Errorf("ui: rendering %s: %w", name, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.csp)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// Style serves the stylesheet.
func Style(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=300")
	http.ServeFileFS(w, r, files, "style.css")
}
