package gate

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/seed454743b5/signin/front/internal/visit"
)

// Bounds on a body that arrives slowly. Uploads of users take as long as they
// take, if something arrives.
const (
	strangerTime = 15 * time.Second // and a second more for each strangerRate bytes
	strangerRate = 4 << 10
	userIdle     = time.Minute
	drainTime    = 5 * time.Second // for a body that nobody reads
)

// recorder notes what becomes of a request, and bounds what its body may cost.
type recorder struct {
	http.ResponseWriter
	visit    *visit.Visit
	request  *http.Request
	status   int
	bytes    int64
	body     *body // nil: there is none
	stranger bool  // nobody has said who sends the body
}

// Unwrap is for [http.ResponseController].
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
		if w.unread() {
			// Or the server would read on before it sends this answer.
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Hijack implements [http.Hijacker], for WebSockets.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

func (w *recorder) unread() bool {
	return w.body != nil && w.request.ProtoMajor == 1 && !w.body.atEnd()
}

// limitBody puts a bound on each reading of r's body.
func (w *recorder) limitBody(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	w.body = &body{ReadCloser: r.Body, w: w, control: http.NewResponseController(w.ResponseWriter), start: time.Now()}
	r.Body = w.body
}

// finish bounds what the server does with the rest of a body. The handler is
// about to return.
func (w *recorder) finish() {
	if w.body == nil {
		return
	}
	rest := w.unread() && w.status != http.StatusSwitchingProtocols
	w.body.mu.Lock()
	defer w.body.mu.Unlock()
	w.body.over = true
	if rest {
		_ = w.body.control.SetReadDeadline(time.Now().Add(drainTime))
	}
}

// body is a request's. The transport to the upstream may read it on a goroutine
// of its own, and go on when the handler has returned: then the deadline
// belongs to the next request, and in HTTP/2 there is nothing to set it on.
type body struct {
	io.ReadCloser
	w       *recorder
	control *http.ResponseController
	start   time.Time

	mu   sync.Mutex
	read int64 // guarded by mu, with what follows
	done bool  // to the end
	over bool  // the handler returns
}

func (b *body) atEnd() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done
}

// Read sets a deadline for itself alone: one that is left would end the
// request while its answer is awaited.
func (b *body) Read(p []byte) (int, error) {
	if !b.setDeadline(b.limit()) {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	b.read += int64(n)
	b.done = b.done || err == io.EOF
	b.mu.Unlock()
	b.setDeadline(time.Time{})
	return n, err
}

// limit is until when one reading may take.
func (b *body) limit() time.Time {
	if !b.w.stranger {
		return time.Now().Add(userIdle)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.start.Add(strangerTime + time.Duration(b.read/strangerRate)*time.Second)
}

// setDeadline reports false if the handler returns.
func (b *body) setDeadline(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		_ = b.control.SetReadDeadline(t)
	}
	return !b.over
}
