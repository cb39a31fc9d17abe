package serve

import (
	"context"
	"net/http"
	"time"
)

// admin serves what is nobody's business but the operator's.
func (f *front) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, `{"status":"alive"}`) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		if f.stopped.Load() {
			answer(w, http.StatusServiceUnavailable, `{"status":"stopping"}`)
			return
		}
		if err := f.now.Load().auth.Ready(ctx); err != nil {
			f.log.WarnContext(ctx, "not ready", "err", err)
			answer(w, http.StatusServiceUnavailable, `{"status":"not ready"}`)
			return
		}
		answer(w, http.StatusOK, `{"status":"ready"}`)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		// Asks issuer and store, so that the gauges speak of now.
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		_ = f.now.Load().auth.Ready(ctx)
		f.metrics.page.ServeHTTP(w, r)
	})
	return mux
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body + "\n"))
}
