// Package look gives pages the site's name, colour and logo.
package look

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// Pages writes pages. It is for Config.Page of package signin, and for the
// front's own.
type Pages struct {
	brand  string // HTML above the heading
	colors *strings.Replacer
	image  bool
}

// New makes the pages of a site.
func New(site settings.Site) *Pages {
	p := &Pages{image: site.Logo.Type != ""}
	var b strings.Builder
	if p.image {
		fmt.Fprintf(&b, `<img src="data:%s;base64,%s" alt="">`, site.Logo.Type, base64.StdEncoding.EncodeToString(site.Logo.Data))
	}
	if site.Name != "" {
		b.WriteString("<span>" + html.EscapeString(site.Name) + "</span>")
	}
	if b.Len() > 0 {
		p.brand = `<p class="brand">` + b.String() + "</p>\n"
	}
	light := site.Color
	on := "#fff"
	if luminance(light) > 0.2 {
		on = "#16202c"
	}
	dark := light
	for range 8 { // until it can be read on a dark page
		if luminance(dark) >= 0.35 {
			break
		}
		dark = lighter(dark)
	}
	p.colors = strings.NewReplacer("</style>", brandStyle+
		":root { --mark: "+light+"; --on-mark: "+on+"; }\n@media (prefers-color-scheme: dark) { :root { --mark: "+dark+"; --on-mark: #0b1626; } }\n</style>")
	return p
}

const brandStyle = `.brand { display: flex; align-items: center; gap: 0.75rem; font-weight: 600; color: var(--soft); }
.brand img { height: 2.25rem; max-width: 12rem; object-fit: contain; }
`

// Page writes p, as a problem document for those who ask for one.
func (s *Pages) Page(w http.ResponseWriter, r *http.Request, p signin.Page) {
	plain := &buffer{header: w.Header()}
	p.ServeHTTP(plain, r)
	body := plain.body.Bytes()
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && len(body) > 0 {
		body = []byte(s.colors.Replace(strings.Replace(plain.body.String(), "<main>\n", "<main>\n"+s.brand, 1)))
		w.Header().Set("Content-Security-Policy", s.policy(w.Header().Get("Content-Security-Policy"), body))
	}
	w.WriteHeader(plain.status)
	_, _ = w.Write(body)
}

var styleHash = regexp.MustCompile(`'sha256-[A-Za-z0-9+/=]+'`)

// policy admits the page's one style element, which is another than before.
func (s *Pages) policy(policy string, page []byte) string {
	_, style, _ := bytes.Cut(page, []byte("<style>"))
	style, _, _ = bytes.Cut(style, []byte("</style>"))
	sum := sha256.Sum256(style)
	policy = styleHash.ReplaceAllLiteralString(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	if s.image && s.brand != "" {
		policy += "; img-src data:"
	}
	return policy
}

// buffer keeps an answer's body. The header is the real one.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }

func rgb(color string) (c [3]float64) {
	for i := range c {
		n, _ := strconv.ParseUint(color[1+2*i:3+2*i], 16, 8)
		c[i] = float64(n) / 255
	}
	return c
}

// luminance is relative luminance as WCAG 2 defines it.
func luminance(color string) float64 {
	c := rgb(color)
	for i, v := range c {
		if v <= 0.04045 {
			c[i] = v / 12.92
		} else {
			c[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2]
}

func lighter(color string) string {
	c := rgb(color)
	for i, v := range c {
		c[i] = math.Round((v + (1-v)*0.25) * 255)
	}
	return fmt.Sprintf("#%02x%02x%02x", int(c[0]), int(c[1]), int(c[2]))
}
