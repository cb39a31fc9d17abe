package op

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

//go:embed pages/*.html
var pageFiles embed.FS

// renderError answers a request that cannot be answered at the client.
func (p *Provider) renderError(w http.ResponseWriter, _ *http.Request, err error) error {
	status, text := http.StatusInternalServerError, "internal error"
	var e goidc.Error
	if errors.As(err, &e) {
		status, text = e.StatusCode(), e.Description
	}
	return p.pages.Render(w, status, "error", map[string]any{"Text": text, "Site": p.site()})
}

// onload is the script of go-oidc's form_post page.
const onload = "javascript:document.forms[0].submit()"

// formPost completes go-oidc's form_post page, which has neither a title nor a
// button, so that a browser without scripts shows it empty, and gives it a
// policy under which nothing else can run or be sent elsewhere.
func formPost(next http.Handler, clientOrigins []string) http.Handler {
	sum := sha256.Sum256([]byte(onload))
	policy := "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; " +
		"script-src 'unsafe-hashes' 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; " +
		"form-action " + strings.Join(clientOrigins, " ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := &bufferedPage{header: w.Header()}
		next.ServeHTTP(page, r)
		body := page.body.Bytes()
		if bytes.Contains(body, []byte(`id="auth-response"`)) && bytes.Contains(body, []byte(onload)) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Content-Security-Policy", policy)
			w.Header().Set("Referrer-Policy", "no-referrer")
			body = complete(body)
		}
		if page.status != 0 {
			w.WriteHeader(page.status)
		}
		_, _ = w.Write(body)
	})
}

// complete adds a head, and a button for browsers without scripts.
func complete(page []byte) []byte {
	const head = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Back to the site</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css"></head>`
	const button = `<noscript><main><section class="card"><h1>One more step</h1><p>Without scripts your browser waits for you here.</p><button>Continue to the site</button></section></main></noscript>
	  </form>`
	page = bytes.Replace(page, []byte("<html>"), []byte(head), 1)
	return bytes.Replace(page, []byte("</form>"), []byte(button), 1)
}

// bufferedPage holds back a response until it is known what it is.
type bufferedPage struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (p *bufferedPage) Header() http.Header         { return p.header }
func (p *bufferedPage) Write(b []byte) (int, error) { return p.body.Write(b) }
func (p *bufferedPage) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
	}
}
