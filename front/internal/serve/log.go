package serve

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/seed454743b5/signin/front/internal/visit"
)

// accessLog writes a line of JSON for each request. A path and a query may
// hold secrets; the query is never written.
type accessLog struct {
	stdout io.Writer

	mu    sync.RWMutex
	file  *os.File // guarded by mu, with what follows; nil: stdout or off
	lines *batch   // nil: off
}

// open begins to write to another place, or to the same anew.
func (a *accessLog) open(name string) error {
	var file *os.File
	var lines *batch
	switch name {
	case "off":
	case "stdout":
		lines = &batch{w: a.stdout}
	default:
		var err error
		if file, err = os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640); err != nil {
			return err
		}
		lines = &batch{w: file}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lines != nil {
		a.lines.Flush()
	}
	if a.file != nil {
		a.file.Close()
	}
	a.file, a.lines = file, lines
	return nil
}

func (a *accessLog) close() { _ = a.open("off") }

const maxLogged = 2048

// request writes one line. It is written by hand, for every request pays for
// it: package slog would cost as much as deciding about the request.
func (a *accessLog) request(r *http.Request, v *visit.Visit, status int, bytes int64, took time.Duration) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.lines == nil {
		return
	}
	a.lines.append(func(b []byte) []byte {
		b = append(b, `{"time":"`...)
		b = time.Now().AppendFormat(b, time.RFC3339Nano)
		b = append(b, `","level":"INFO","msg":"request"`...)
		b = appendText(b, "method", r.Method, 32)
		b = appendText(b, "host", v.Host, 255)
		b = appendText(b, "path", r.URL.EscapedPath(), maxLogged)
		b = append(b, `,"status":`...)
		b = strconv.AppendInt(b, int64(status), 10)
		b = append(b, `,"bytes":`...)
		b = strconv.AppendInt(b, bytes, 10)
		b = append(b, `,"ms":`...)
		b = strconv.AppendFloat(b, float64(took.Microseconds())/1000, 'f', 3, 64)
		b = appendText(b, "client", v.Client, 64)
		b = appendText(b, "proto", r.Proto, 16)
		b = appendText(b, "asked", v.Asked, maxLogged)
		if v.Person != nil {
			b = appendText(b, "sub", v.Person.User.Subject, 1024)
		}
		if v.Route != nil {
			b = appendText(b, "route", v.Route.Pattern, 1024)
		}
		b = appendText(b, "cause", v.Cause, 1024)
		if status == 0 {
			b = append(b, `,"aborted":true`...)
		}
		return append(b, "}\n"...)
	})
}

// appendText adds a member, unless it is empty.
func appendText(b []byte, name, s string, limit int) []byte {
	if s == "" {
		return b
	}
	s = s[:min(len(s), limit)]
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	for i := range len(s) {
		const digits = "0123456789abcdef"
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f: // what is logged is ASCII; anything else is shown byte by byte
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
