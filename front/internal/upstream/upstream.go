// Package upstream passes requests on to the servers behind.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/seed454743b5/signin/front/internal/identity"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/front/internal/visit"
)

// Upstreams makes handlers for routes, which share what they can.
type Upstreams struct {
	Config  *settings.Config
	People  *identity.People
	Forged  *identity.Forged
	Cookies identity.Cookies
	Log     *slog.Logger

	// Failed writes the answer for an upstream that does not give one, with
	// status 502 or 504.
	Failed func(w http.ResponseWriter, r *http.Request, status int)

	// Observe counts a failure, by what failed.
	Observe func(ctx context.Context, r *settings.Route, what string)

	closers []func()
}

// Handler returns what serves a route once its user may pass.
func (u *Upstreams) Handler(r *settings.Route) (http.Handler, error) {
	switch r.Upstream.Kind {
	case settings.KindFile:
		h, closeFiles, err := newFiles(r)
		u.closers = append(u.closers, closeFiles)
		return h, err
	case settings.KindHTTP, settings.KindUnix:
		return u.proxy(r), nil
	}
	return nil, nil
}

// Close drops idle connections and closes folders. No request may be under
// way.
func (u *Upstreams) Close() {
	for _, closeIt := range u.closers {
		closeIt()
	}
}

func (u *Upstreams) proxy(r *settings.Route) http.Handler {
	target := r.Upstream.URL
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: u.Config.UpstreamTimeout,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // what the client accepts is passed on
		// Headers of an answer count for our memory.
		MaxResponseHeaderBytes: 256 << 10,
	}
	if r.Upstream.CA != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(r.Upstream.CA)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if r.Upstream.Kind == settings.KindUnix {
		target = &url.URL{Scheme: "http", Host: "unix"}
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, "unix", r.Upstream.Path)
		}
	}
	u.closers = append(u.closers, transport.CloseIdleConnections)
	p := &proxy{Upstreams: u, route: r, target: target}
	reverse := &httputil.ReverseProxy{
		Rewrite: p.rewrite, Transport: transport, ModifyResponse: p.modify, ErrorHandler: p.failed,
		BufferPool: &buffers, ErrorLog: slog.NewLogLogger(u.Log.Handler(), slog.LevelWarn),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reverse.ServeHTTP(&hints{w, u.Cookies}, r) })
}

// hints takes our cookies out of an upstream's early hints (RFC 8297), of which
// modify hears nothing. In what follows them the cookies are package signin's.
type hints struct {
	http.ResponseWriter
	cookies identity.Cookies
}

func (h *hints) WriteHeader(status int) {
	if status < 200 {
		h.cookies.StripSet(h.Header())
	}
	h.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (h *hints) Unwrap() http.ResponseWriter { return h.ResponseWriter }

type proxy struct {
	*Upstreams
	route  *settings.Route
	target *url.URL
}

// rewrite makes the request to the upstream. ReverseProxy has removed
// hop-by-hop headers before, those that Connection names included, so that a
// client cannot have ours removed.
func (p *proxy) rewrite(pr *httputil.ProxyRequest) {
	out, v := pr.Out, visit.From(pr.In.Context())
	v.Forwarded = true
	p.Forged.Strip(out.Header)
	p.Cookies.Strip(out.Header)
	out.Trailer = nil // headers by other means
	pr.SetURL(p.target)
	out.URL.RawQuery = pr.In.URL.RawQuery // as it came: nothing here depends on it
	out.Host = v.Host                     // the upstream's links and origin checks are about this one
	h := out.Header
	h["X-Forwarded-For"] = []string{v.Chain}
	h["X-Forwarded-Proto"] = []string{v.Scheme}
	h["X-Forwarded-Host"] = []string{v.Host}
	Identify(h, p.People, v)
}

// Identify writes who the user is and what goes with it.
func Identify(h http.Header, people *identity.People, v *visit.Visit) {
	if v.Person != nil {
		people.Describe(h, v.Person, v.Route)
	}
	switch v.Authorization {
	case visit.Keep:
	case visit.Drop:
		delete(h, "Authorization")
	default:
		h["Authorization"] = []string{v.Authorization}
	}
	for name, token := range v.Tokens {
		h[name] = []string{token}
	}
}

// modify keeps an upstream from signing anybody in or out.
func (p *proxy) modify(res *http.Response) error {
	p.Cookies.StripSet(res.Header)
	return nil
}

func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	v := visit.From(r.Context())
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		v.Cause = "the client went away"
		return
	}
	status, what := http.StatusBadGateway, "unreachable"
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		status, what = http.StatusGatewayTimeout, "timeout"
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		status, what = http.StatusRequestEntityTooLarge, "too large"
	}
	v.Cause = "upstream " + what
	p.Observe(r.Context(), p.route, what)
	p.Log.LogAttrs(r.Context(), slog.LevelWarn, "upstream failed", slog.String("route", p.route.Pattern), slog.String("what", what), slog.Any("err", err))
	p.Failed(w, r, status)
}

// buffers are for answers on their way through.
var buffers pool

type pool struct{ p sync.Pool }

func (b *pool) Get() []byte {
	if v, ok := b.p.Get().(*[]byte); ok {
		return *v
	}
	return make([]byte, 32<<10)
}

func (b *pool) Put(buf []byte) { b.p.Put(&buf) }
