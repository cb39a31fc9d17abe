package otelsignin

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"
)

// Transport returns next with a span and a latency for each request, until
// the answer's header is there. It is for the Transport of
// [signin.Config].HTTPClient. Nil means [http.DefaultTransport].
func (t *Telemetry) Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{t, next}
}

type transport struct {
	*Telemetry
	next http.RoundTripper
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	method, port := knownMethod(req.Method), portOf(req.URL)
	ctx, span := t.tracer.Start(req.Context(), method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(method), semconv.ServerAddress(req.URL.Hostname()), semconv.ServerPort(port),
		semconv.URLFull(publicURL(req.URL)),
	))
	defer span.End()
	start := time.Now()
	res, err := t.next.RoundTrip(req.WithContext(ctx))

	var attrs []attribute.KeyValue
	switch {
	case err != nil:
		attrs = append(attrs, semconv.ErrorType(err))
	default:
		attrs = append(attrs, semconv.HTTPResponseStatusCode(res.StatusCode))
		if res.StatusCode >= 400 {
			attrs = append(attrs, semconv.ErrorTypeKey.String(strconv.Itoa(res.StatusCode)))
		}
	}
	if err != nil || res.StatusCode >= 400 {
		span.SetStatus(codes.Error, "")
	}
	span.SetAttributes(attrs...)
	t.requests.Record(ctx, time.Since(start).Seconds(), httpconv.RequestMethodAttr(method), req.URL.Hostname(), port, attrs...)
	return res, err
}

// CloseIdleConnections makes that of [http.Client] work.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// publicURL leaves out what may be a secret or a user's: all of a URL that
// configuration and discovery do not fix.
func publicURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// knownMethod keeps the number of values small, as the convention asks.
func knownMethod(method string) string {
	switch {
	case method == "":
		return http.MethodGet
	case slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodHead}, method):
		return method
	}
	return "_OTHER"
}

func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}
