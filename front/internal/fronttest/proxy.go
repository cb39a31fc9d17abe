package fronttest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/seed454743b5/signin/signintest"
)

// SignInBy signs in by a page of the front's own.
func (f *Front) SignInBy(path string) *signintest.Page {
	f.T.Helper()
	p := f.Browser.Open(f.URL + path)
	if p.Status != http.StatusOK {
		f.T.Fatalf("sign-in: %d %s %v %.300s\n%s", p.Status, p.URL, p.Err, p.Body, f.Log)
	}
	return p
}

// NewProxy runs a proxy that asks the front about each request, as Traefik's
// forwardAuth does: what is not 2xx is the answer to the client, and below
// /oidc/ the front answers itself. The kind's header says how it describes the
// request.
func NewProxy(t testing.TB, f *Front, kind string) *httptest.Server {
	t.Helper()
	target, err := url.Parse("http://" + f.Host)
	if err != nil {
		t.Fatal(err)
	}
	own := &httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(target)
		pr.Out.Host = pr.In.Host
		pr.SetXForwarded()
	}}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/oidc/") {
			own.ServeHTTP(w, r)
			return
		}
		ask, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), http.MethodGet, "http://"+f.Host+"/oidc/auth?redirect=1", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for name, values := range r.Header {
			if name != "Connection" {
				ask.Header[name] = values
			}
		}
		ask.Host = r.Host
		ask.Header.Set("X-Forwarded-Proto", "http")
		if strings.HasPrefix(kind, "X-Original") {
			ask.Header.Set("X-Original-URI", r.RequestURI)
			ask.Header.Set("X-Original-Method", r.Method)
		} else {
			ask.Header.Set("X-Forwarded-Uri", r.RequestURI)
			ask.Header.Set("X-Forwarded-Method", r.Method)
			ask.Header.Set("X-Forwarded-Host", r.Host)
			ask.Host = f.Host
		}
		res, err := client.Do(ask)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		if res.StatusCode/100 != 2 {
			for name, values := range res.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(res.StatusCode)
			_, _ = io.Copy(w, res.Body)
			return
		}
		fmt.Fprint(w, "passed "+res.Header.Get("X-Forwarded-User"))
	}))
	t.Cleanup(server.Close)
	return server
}
