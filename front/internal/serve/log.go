package serve

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/seed454743b5/signin/front/internal/visit"
)

// accessLog writes a line of JSON for each request. A path and a query may
// hold secrets; the query is never written.
type accessLog struct {
	stdout io.Writer

	mu   sync.RWMutex
	name string       // guarded by mu, with what follows
	file *os.File     // nil: stdout or off
	log  *slog.Logger // nil: off
}

// open begins to write to another place, or to the same anew.
func (a *accessLog) open(name string) error {
	var file *os.File
	var log *slog.Logger
	switch name {
	case "off":
	case "stdout":
		log = slog.New(slog.NewJSONHandler(a.stdout, nil))
	default:
		var err error
		if file, err = os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640); err != nil {
			return err
		}
		log = slog.New(slog.NewJSONHandler(file, nil))
	}
	a.mu.Lock()
	old := a.file
	a.name, a.file, a.log = name, file, log
	a.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

func (a *accessLog) close() { _ = a.open("off") }

const maxLogged = 2048

func (a *accessLog) request(r *http.Request, v *visit.Visit, status int, bytes int64, took time.Duration) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.log == nil {
		return
	}
	path := r.URL.EscapedPath()
	attrs := make([]slog.Attr, 0, 14)
	attrs = append(attrs,
		slog.String("method", bounded(r.Method, 32)), slog.String("host", v.Host), slog.String("path", bounded(path, maxLogged)),
		slog.Int("status", status), slog.Int64("bytes", bytes), slog.Float64("ms", float64(took.Microseconds())/1000),
		slog.String("client", v.Client), slog.String("proto", r.Proto))
	if v.Asked != "" {
		attrs = append(attrs, slog.String("asked", bounded(v.Asked, maxLogged)))
	}
	if v.Person != nil {
		attrs = append(attrs, slog.String("sub", v.Person.User.Subject))
	}
	if v.Route != nil {
		attrs = append(attrs, slog.String("route", v.Route.Pattern))
	}
	if v.Cause != "" {
		attrs = append(attrs, slog.String("cause", v.Cause))
	}
	if status == 0 {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	a.log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}

func bounded(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
