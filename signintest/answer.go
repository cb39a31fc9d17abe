package signintest

import (
	"net/http"
	"net/http/httptest"
	"strconv"
)

// Answer is an answer of the issuer's as it goes out. See [Fault].Edit.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte

	// Cut closes the connection after Body, as if more were to follow.
	Cut bool
}

// record serves a request into an answer.
func record(serve func(http.ResponseWriter)) *Answer {
	r := httptest.NewRecorder()
	serve(r)
	return &Answer{Status: r.Code, Header: r.Header(), Body: r.Body.Bytes()}
}

func (a *Answer) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range a.Header {
		h[name] = values
	}
	if a.Cut {
		h.Set("Content-Length", strconv.Itoa(len(a.Body)+1))
	}
	w.WriteHeader(a.Status)
	w.Write(a.Body)
	if a.Cut {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}
