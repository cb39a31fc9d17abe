package serve

import (
	"context"
	"hash/maphash"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/front/internal/settings"
	"github.com/seed454743b5/signin/front/internal/visit"
	"github.com/seed454743b5/signin/otelsignin"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"
)

// metrics are what /metrics shows: those of package otelsignin, and the
// front's own.
type metrics struct {
	telemetry *otelsignin.Telemetry
	page      http.Handler

	requests  metric.Float64Histogram
	refusals  metric.Int64Counter
	upstreams metric.Int64Counter
	labels    sync.Map // of label to metric.MeasurementOption

	storeUp, issuerUp atomic.Bool
	present           presence
}

type label struct {
	route, method string
	status        int
}

func newMetrics() (*metrics, error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	provider := sdk.NewMeterProvider(sdk.WithReader(exporter))
	m := &metrics{page: promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}), present: presence{seed: maphash.MakeSeed(), seen: map[uint64]int64{}}}
	if m.telemetry, err = otelsignin.New(provider, noop.NewTracerProvider()); err != nil {
		return nil, err
	}
	meter := provider.Meter("github.com/seed454743b5/signin/front")
	if m.requests, err = meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"), metric.WithDescription("Requests by route, method and status."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)); err != nil {
		return nil, err
	}
	if m.refusals, err = meter.Int64Counter("signin.front.refusals", metric.WithUnit("{request}"), metric.WithDescription("Requests refused by the front itself, by cause.")); err != nil {
		return nil, err
	}
	if m.upstreams, err = meter.Int64Counter("signin.front.upstream.errors", metric.WithUnit("{request}"), metric.WithDescription("Requests that an upstream did not answer.")); err != nil {
		return nil, err
	}
	_, err = meter.Int64ObservableGauge("signin.front.users.active", metric.WithUnit("{user}"), metric.WithDescription("Users seen within the last 15 minutes."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(m.present.count(time.Now()))
			return nil
		}))
	if err != nil {
		return nil, err
	}
	for name, up := range map[string]*atomic.Bool{"signin.front.store.up": &m.storeUp, "signin.front.issuer.up": &m.issuerUp} {
		_, err = meter.Int64ObservableGauge(name, metric.WithDescription("One if the last call succeeded."),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				n := int64(0)
				if up.Load() {
					n = 1
				}
				o.Observe(n)
				return nil
			}))
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// request counts one that has been answered. Labels are few: a method that
// HTTP does not define is counted as another.
func (m *metrics) request(r *http.Request, v *visit.Visit, status int, took time.Duration) {
	l := label{method: "_OTHER", status: status}
	switch r.Method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		l.method = r.Method
	}
	if v.Route != nil {
		l.route = v.Route.Pattern
	}
	option, ok := m.labels.Load(l)
	if !ok {
		option, _ = m.labels.LoadOrStore(l, metric.WithAttributeSet(attribute.NewSet(
			attribute.String("http.route", l.route), attribute.String("http.request.method", l.method), attribute.String("http.response.status_code", strconv.Itoa(status)))))
	}
	m.requests.Record(r.Context(), took.Seconds(), option.(metric.MeasurementOption))
	if v.Cause != "" && !v.Forwarded {
		m.refusals.Add(r.Context(), 1, metric.WithAttributes(attribute.String("cause", v.Cause)))
	}
	if v.Person != nil {
		m.present.note(v.Person.User, time.Now())
	}
}

func (m *metrics) upstream(ctx context.Context, r *settings.Route, what string) {
	m.upstreams.Add(ctx, 1, metric.WithAttributes(attribute.String("http.route", r.Pattern), attribute.String("error.type", what)))
}

// watched notes whether the store answers.
func (m *metrics) watched(s signin.Store, kind string) signin.Store {
	if kind == "memory" {
		m.storeUp.Store(true)
		return s // package signin knows it, and is faster for it
	}
	return &watchedStore{m.telemetry.Store(s, kind), &m.storeUp}
}

type watchedStore struct {
	signin.Store
	up *atomic.Bool
}

func (s *watchedStore) Get(ctx context.Context, key string) ([]byte, bool, error) {
	v, ok, err := s.Store.Get(ctx, key)
	s.up.Store(err == nil)
	return v, ok, err
}

func (s *watchedStore) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	found, swapped, err := s.Store.Swap(ctx, key, old, new, ttl)
	s.up.Store(err == nil)
	return found, swapped, err
}

// transport notes whether the issuer answers.
type transport struct {
	http.RoundTripper
	up *atomic.Bool
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	t.up.Store(err == nil && resp.StatusCode < 500)
	return resp, err
}

// presence counts users of late, by hashes that end with the process.
type presence struct {
	seed maphash.Seed
	mu   sync.Mutex
	seen map[uint64]int64 // guarded by mu; Unix time
}

const (
	presenceTime = 15 * 60
	maxPresent   = 100000
)

func (p *presence) note(u *signin.User, now time.Time) {
	h := maphash.String(p.seed, u.Issuer+"\x00"+u.Subject)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.seen[h]; ok || len(p.seen) < maxPresent {
		p.seen[h] = now.Unix()
	}
}

func (p *presence) count(now time.Time) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for h, t := range p.seen {
		if now.Unix()-t > presenceTime {
			delete(p.seen, h)
		}
	}
	return int64(len(p.seen))
}
