package main

import (
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/seed454743b5/signin"
)

// bySettings says how this site is set for an issuer, or a browser, that takes
// no form_post. The library's own words name fields of its Config.
const bySettings = "start it with OIDC_RESPONSE_TYPE=code and OIDC_RESPONSE_MODE=query."

// setupPage writes the pages of the library. To those that a wrong setting
// leads to it adds which setting that is.
func setupPage(w http.ResponseWriter, r *http.Request, p signin.Page) {
	switch p.Kind {
	case signin.PageCallbackEmpty, signin.PageCallbackUnreadable, signin.PageIssuerError:
		p.Advice += " If you run this site, and the sign-in service answers by query only, " + bySettings
	case signin.PageNoSecureCookies:
		p.Advice = "Use another browser. If you run this site, serve it over https, or " + bySettings
	}
	p.ServeHTTP(w, r)
}

//go:embed pages/*.html
var pageFiles embed.FS

var pageFuncs = template.FuncMap{
	"value":  claimText,
	"expiry": expiryText,
}

// claimText writes a claim for a reader.
func claimText(name string, v any) string {
	switch v := v.(type) {
	case float64:
		switch name {
		case "exp", "iat", "nbf", "auth_time", "updated_at":
			return time.Unix(int64(v), 0).UTC().Format("2 January 2006, 15:04:05 UTC")
		}
		return fmt.Sprintf("%.15g", v)
	case []any:
		var list []string
		for _, e := range v {
			list = append(list, claimText("", e))
		}
		return strings.Join(list, ", ")
	default:
		return fmt.Sprint(v)
	}
}

// expiryText writes when a token expires.
func expiryText(t time.Time) string {
	switch left := time.Until(t).Round(time.Second); {
	case t.IsZero():
		return "not known"
	case left <= 0:
		return "expired"
	default:
		return fmt.Sprintf("in %s (%s)", left, t.UTC().Format("15:04:05 UTC"))
	}
}
