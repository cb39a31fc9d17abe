package web

import (
	"io"
	"net/http"
	"time"
)

// MaxForm bounds a form or a query of ours; an ID token with many groups has
// 20 KB.
const MaxForm = 64 << 10

// BodyTime is how long the body of a request may take that we answer.
const BodyTime = 10 * time.Second

// BoundBody gives the body of a request that we answer a time to arrive in.
// Without it anybody could hold a connection with a form that never ends: also
// where nobody reads it, for net/http reads what a handler has left before it
// sends the answer. net/http lifts the deadline when the body has been read.
// Where w has no deadlines, [http.Server].ReadTimeout must do it.
func BoundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(BodyTime))
	}
}

// ReadForm reads the body of a request for a path of ours, under boundBody's
// deadline. One that is longer than maxCallback is a too large form for the
// caller to refuse.
func ReadForm(r *http.Request) (string, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxForm+1))
	return string(body), err
}
