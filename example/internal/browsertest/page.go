package browsertest

import (
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// Text returns what a reader sees, with runs of white space made one space.
func (p *Page) Text() string {
	return strings.Join(strings.Fields(text(p.doc)), " ")
}

// Title returns the page's title.
func (p *Page) Title() string {
	for n := range p.doc.Descendants() {
		if n.Data == "title" {
			return text(n)
		}
	}
	return ""
}

// Field returns the current value of the field with this name, and whether
// there is one.
func (p *Page) Field(name string) (string, bool) {
	for n := range p.doc.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" {
			if v := formValues(n); v.Has(name) {
				return v.Get(name), true
			}
		}
	}
	return "", false
}

// HasButton reports whether the page has a button that reads label.
func (p *Page) HasButton(label string) bool {
	_, button := p.findButton(label)
	return button != nil
}

func (p *Page) findButton(label string) (form, button *html.Node) {
	for f := range p.doc.Descendants() {
		if f.Type != html.ElementNode || f.Data != "form" {
			continue
		}
		for n := range f.Descendants() {
			if n.Type == html.ElementNode && n.Data == "button" && strings.TrimSpace(text(n)) == label {
				return f, n
			}
		}
	}
	return nil, nil
}

// selfSubmitting returns the form of a page that posts it with a script.
func (p *Page) selfSubmitting() *html.Node {
	for n := range p.doc.Descendants() {
		if n.Data == "body" && strings.Contains(attr(n, "onload"), ".submit()") {
			for f := range n.Descendants() {
				if f.Data == "form" {
					return f
				}
			}
		}
	}
	return nil
}

// formValues are the successful controls of a form, without its buttons.
func formValues(form *html.Node) url.Values {
	values := make(url.Values)
	for n := range form.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		name := attr(n, "name")
		if name == "" {
			continue
		}
		switch n.Data {
		case "textarea":
			values.Add(name, text(n))
		case "input":
			if t := attr(n, "type"); (t == "checkbox" || t == "radio") && !hasAttr(n, "checked") {
				continue
			}
			values.Add(name, attr(n, "value"))
		}
	}
	return values
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func hasAttr(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode && (d.Parent == nil || d.Parent.Data != "style" && d.Parent.Data != "script") {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}
