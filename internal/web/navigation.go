// Package web is what HTTP and browsers ask of any handler of ours: what a request
// can do with an answer, bodies that end, cookies that no cache shares.
package web

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Kind is what a browser, or another client, can do with an answer.
type Kind int

const (
	// Other cannot follow a redirect to a sign-in page: fetch, XHR,
	// WebSocket, EventSource, prefetch, frames, images, API clients.
	Other Kind = iota

	// Navigation replaces the page by what it gets.
	Navigation

	// Submission is a navigation with a body, which a redirect would lose.
	Submission
)

// KindOf judges a request by what browsers say of it (Fetch Metadata), and
// where they say nothing by what it accepts. In doubt it is kindOther: a 401
// where a redirect would have done is a nuisance, a redirect where it cannot
// be followed breaks pages in ways that are hard to see.
func KindOf(r *http.Request) Kind {
	h := r.Header
	if h.Get("Upgrade") != "" || // a WebSocket handshake has no Sec-Fetch headers
		h.Get("X-Requested-With") == "XMLHttpRequest" ||
		containsFold(h.Get("Sec-Purpose"), "prefetch") || // prerender too: "prefetch;prerender"
		containsFold(h.Get("Purpose"), "prefetch") ||
		containsFold(h.Get("X-Moz"), "prefetch") {
		return Other
	}
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		if mode != "navigate" {
			return Other
		}
		switch h.Get("Sec-Fetch-Dest") {
		case "", "document", "empty": // empty: behind a service worker
		default: // the issuer's page does not work in a frame
			return Other
		}
	} else if html, problem := Acceptance(h.Values("Accept")); html == 0 || html < problem {
		return Other // */* is what scripts say
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return Navigation
	case http.MethodPost:
		return Submission
	}
	return Other
}

func containsFold(s, sub string) bool {
	return strings.Contains(strings.ToLower(s), sub)
}

// Acceptance returns the weight of HTML and of JSON (RFC 9110, 12.5.1), zero
// for what is not named. Wildcards name nothing.
func Acceptance(accept []string) (html, problem float64) {
	const maxRanges = 50
	ranges := strings.SplitN(strings.Join(accept, ","), ",", maxRanges+1)
	for _, part := range ranges[:min(len(ranges), maxRanges)] {
		mediaType, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil {
				continue
			}
		}
		switch mediaType {
		case "text/html", "application/xhtml+xml":
			html = max(html, q)
		case "application/json", "application/problem+json":
			problem = max(problem, q)
		}
	}
	return html, problem
}
