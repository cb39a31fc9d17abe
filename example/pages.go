package main

import (
	"embed"
	"fmt"
	"html/template"
	"strings"
	"time"
)

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
