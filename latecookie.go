package signin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// lateCookie sets the browser cookie in an answer of the application, when its
// headers are known: a cache that shares a public page would give one browser's
// cookie to all. There the cookie waits for another page. This is the one place
// where a ResponseWriter of the application is wrapped, for one answer to a
// browser that has no cookie or has just signed in.
type lateCookie struct {
	http.ResponseWriter
	write func() // the cookie; nil: done
}

func (w *lateCookie) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.settle()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *lateCookie) Write(b []byte) (int, error) {
	w.settle()
	return w.ResponseWriter.Write(b)
}

// ReadFrom implements [io.ReaderFrom], so that files still go by sendfile.
func (w *lateCookie) ReadFrom(r io.Reader) (int64, error) {
	w.settle()
	return io.Copy(w.ResponseWriter, r)
}

func (w *lateCookie) FlushError() error {
	w.settle()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *lateCookie) Flush() { _ = w.FlushError() }

// Hijack implements [http.Hijacker].
func (w *lateCookie) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.write = nil
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is for [http.ResponseController].
func (w *lateCookie) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *lateCookie) settle() {
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
