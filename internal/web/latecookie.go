package web

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// LateCookie sets the browser cookie in an answer of the application, when its
// headers are known: a cache that shares a public page would give one browser's
// cookie to all. There the cookie waits for another page. This is the one place
// where a ResponseWriter of the application is wrapped, for one answer to a
// browser that has no cookie or has just signed in.
type LateCookie struct {
	http.ResponseWriter
	write func() // the cookie; nil: done
}

// NewLateCookie returns w with a cookie that write sets.
func NewLateCookie(w http.ResponseWriter, write func()) *LateCookie {
	return &LateCookie{w, write}
}

func (w *LateCookie) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.Settle()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *LateCookie) Write(b []byte) (int, error) {
	w.Settle()
	return w.ResponseWriter.Write(b)
}

// ReadFrom implements [io.ReaderFrom], so that files still go by sendfile.
func (w *LateCookie) ReadFrom(r io.Reader) (int64, error) {
	w.Settle()
	return io.Copy(w.ResponseWriter, r)
}

func (w *LateCookie) FlushError() error {
	w.Settle()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *LateCookie) Flush() { _ = w.FlushError() }

// Hijack implements [http.Hijacker].
func (w *LateCookie) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.write = nil
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is for [http.ResponseController].
func (w *LateCookie) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *LateCookie) Settle() {
	if w.write != nil && !shareable(w.Header()) {
		w.write()
	}
	w.write = nil
}

// shareable reports whether the application lets caches keep an answer for
// others (RFC 9111, 3): it says more than no-store, private or no-cache.
func shareable(h http.Header) bool {
	directives := strings.FieldsFunc(strings.ToLower(strings.Join(h.Values("Cache-Control"), ",")), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	kept := func(name string) bool {
		return slices.ContainsFunc(directives, func(d string) bool { return d == name || strings.HasPrefix(d, name+"=") })
	}
	if kept("public") || kept("s-maxage") {
		return true
	}
	return kept("max-age") && !kept("private") && !kept("no-store")
}
