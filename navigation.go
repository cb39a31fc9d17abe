package signin

import (
	"net/http"
	"strings"
)

// requestKind is what a browser, or another client, can do with an answer.
type requestKind int

const (
	// kindOther cannot follow a redirect to a sign-in page: fetch, XHR,
	// WebSocket, EventSource, prefetch, frames, images, API clients.
	kindOther requestKind = iota

	// kindNavigation replaces the page by what it gets.
	kindNavigation

	// kindSubmission is a navigation with a body, which a redirect would lose.
	kindSubmission
)

// kindOf judges a request by what browsers say of it (Fetch Metadata), and
// where they say nothing by what it accepts. In doubt it is kindOther: a 401
// where a redirect would have done is a nuisance, a redirect where it cannot
// be followed breaks pages in ways that are hard to see.
func kindOf(r *http.Request) requestKind {
	h := r.Header
	if h.Get("Upgrade") != "" || // a WebSocket handshake has no Sec-Fetch headers
		h.Get("X-Requested-With") == "XMLHttpRequest" ||
		containsFold(h.Get("Sec-Purpose"), "prefetch") || // prerender too: "prefetch;prerender"
		containsFold(h.Get("Purpose"), "prefetch") ||
		containsFold(h.Get("X-Moz"), "prefetch") {
		return kindOther
	}
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		if mode != "navigate" {
			return kindOther
		}
		switch h.Get("Sec-Fetch-Dest") {
		case "", "document", "empty": // empty: behind a service worker
		default: // the issuer's page does not work in a frame
			return kindOther
		}
	} else if html, problem := acceptance(h.Values("Accept")); html == 0 || html < problem {
		return kindOther // */* is what scripts say
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return kindNavigation
	case http.MethodPost:
		return kindSubmission
	}
	return kindOther
}

func containsFold(s, sub string) bool {
	return strings.Contains(strings.ToLower(s), sub)
}
