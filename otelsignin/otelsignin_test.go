package otelsignin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed454743b5/signin"
	"github.com/seed454743b5/signin/otelsignin"
	"github.com/seed454743b5/signin/signintest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// site is an application that is observed, its issuer and its store.
type site struct {
	t       *testing.T
	url     string
	auth    *signin.Auth
	issuer  *signintest.Issuer
	browser *signintest.Browser
	store   *fallible
	spans   *tracetest.InMemoryExporter
	metrics *metric.ManualReader
	tracer  trace.Tracer
	running sync.WaitGroup // requests, which end after their answers are read
}

// fallible notes what keys it is asked for, and fails when told to.
type fallible struct {
	signin.Store
	mu   sync.Mutex
	keys []string // guarded by mu, with what follows
	err  error
}

func (s *fallible) note(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, key)
	return s.err
}

func (s *fallible) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *fallible) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := s.note(key); err != nil {
		return nil, false, err
	}
	return s.Store.Get(ctx, key)
}

func (s *fallible) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) ([]byte, bool, error) {
	if err := s.note(key); err != nil {
		return nil, false, err
	}
	return s.Store.Swap(ctx, key, old, new, ttl)
}

func newSite(t *testing.T) *site {
	s := &site{t: t, store: &fallible{Store: signin.NewMemoryStore()}, spans: tracetest.NewInMemoryExporter(), metrics: metric.NewManualReader()}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans))
	s.tracer = tracers.Tracer("the application")
	telemetry, err := otelsignin.New(metric.NewMeterProvider(metric.WithReader(s.metrics)), tracers)
	if err != nil {
		t.Fatal(err)
	}
	net := signintest.NewNetwork(t)
	s.issuer = signintest.NewIssuer(t, &signintest.IssuerOptions{URL: "https://login.example.test", Network: net})
	s.browser = signintest.NewBrowser(t, &signintest.BrowserOptions{Network: net})
	client := net.Client()
	client.Transport = telemetry.Transport(client.Transport)
	s.auth, err = signin.New(signin.Config{
		Issuer: s.issuer.URL(), ClientID: "client", Credential: signin.Secret("secret"), BaseURL: "https://app.example.test",
		Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, HTTPClient: client, Logger: slog.New(slog.DiscardHandler),
		Observe: telemetry.Observe, Store: telemetry.Store(s.store, "redis"),
	})
	if err != nil {
		t.Fatal(err)
	}
	page := s.auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := signin.TokenRequest{Refresh: r.URL.Query().Has("refresh")}.Source(r.Context()).Token()
		if !s.auth.Challenge(w, r, err) && err == nil {
			fmt.Fprint(w, signin.UserFromContext(r.Context()).Subject)
		}
	}))
	// As otelhttp does it: each request is a span.
	s.url = net.Serve("https://app.example.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Done()
		ctx, span := s.tracer.Start(r.Context(), "request "+r.URL.Path)
		defer span.End()
		s.auth.Handler(page).ServeHTTP(w, r.WithContext(ctx))
	}))
	return s
}

func (s *site) signIn() *signintest.Page {
	s.t.Helper()
	p := s.browser.Open(s.url + "/page")
	if p.Status != http.StatusOK || p.Body != "alice" {
		s.t.Fatalf("sign-in: %d %.300s", p.Status, p.Body)
	}
	return p
}

// finished waits for all requests and what outlives them, and returns all spans.
func (s *site) finished() tracetest.SpanStubs {
	s.t.Helper()
	s.running.Wait()
	if err := s.auth.Shutdown(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return s.spans.GetSpans()
}

// point is one data point: the instrument, its attributes, and how often.
type point struct {
	name, unit string
	attrs      map[string]string
	count      uint64
	sum        float64
}

func (s *site) points() (points []point) {
	s.t.Helper()
	var data metricdata.ResourceMetrics
	if err := s.metrics.Collect(s.t.Context(), &data); err != nil {
		s.t.Fatal(err)
	}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					points = append(points, point{m.Name, m.Unit, plain(p.Attributes.ToSlice()), uint64(p.Value), 0})
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					points = append(points, point{m.Name, m.Unit, plain(p.Attributes.ToSlice()), p.Count, p.Sum})
				}
			default:
				s.t.Errorf("%s is a %T", m.Name, d)
			}
		}
	}
	return points
}

func plain(attrs []attribute.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range attrs {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}

// count adds up the points of an instrument that have all of attrs.
func (s *site) count(name string, attrs ...string) (n uint64) {
	s.t.Helper()
	for _, p := range s.points() {
		if p.name == name && hasAll(p.attrs, attrs) {
			n += p.count
		}
	}
	return n
}

func hasAll(have map[string]string, attrs []string) bool {
	for i := 0; i < len(attrs); i += 2 {
		if have[attrs[i]] != attrs[i+1] {
			return false
		}
	}
	return true
}

func (s *site) want(n uint64, name string, attrs ...string) {
	s.t.Helper()
	if got := s.count(name, attrs...); got != n {
		s.t.Errorf("%s %v is %d, want %d of\n%+v", name, attrs, got, n, s.points())
	}
}

func TestMetrics(t *testing.T) {
	s := newSite(t)
	s.signIn()
	if p := s.browser.Open(s.url + "/page?refresh"); p.Status != http.StatusOK {
		t.Fatal(p.Status)
	}
	if p := s.browser.Open(s.url + "/oidc/callback?code=x&state=y"); p.Status != http.StatusBadRequest {
		t.Fatal(p.Status)
	}
	s.want(1, "signin.events", "signin.event", "challenge", "signin.reason", "sign_in")
	s.want(1, "signin.events", "signin.event", "signed in")
	s.want(1, "signin.events", "signin.event", "refreshed")
	s.want(1, "signin.events", "signin.event", "rejected", "signin.page", "callback-state")
	s.want(4, "signin.events")
	s.want(1, "signin.event.duration", "signin.event", "signed in")
	s.want(1, "signin.event.duration", "signin.event", "refreshed")
	s.want(2, "signin.event.duration")

	host := []string{"server.address", "login.example.test", "server.port", "443"}
	s.want(2, "http.client.request.duration", append(host, "http.request.method", "POST", "http.response.status_code", "200")...)
	s.want(2, "http.client.request.duration", append(host, "http.request.method", "GET", "http.response.status_code", "200")...) // discovery, keys
	s.want(4, "http.client.request.duration")

	s.store.mu.Lock()
	calls := uint64(len(s.store.keys))
	s.store.mu.Unlock()
	deletes := s.count("db.client.operation.duration", "db.operation.name", "delete")
	s.want(calls+deletes, "db.client.operation.duration", "db.system.name", "redis")
	if s.count("db.client.operation.duration", "db.operation.name", "get", "signin.store.hit", "true") == 0 ||
		s.count("db.client.operation.duration", "db.operation.name", "swap", "signin.store.hit", "true") == 0 {
		t.Errorf("no reads and writes among %+v", s.points())
	}
	for _, p := range s.points() {
		wantUnit := "s"
		if p.name == "signin.events" {
			wantUnit = "{event}"
		}
		if p.unit != wantUnit || p.sum > 600 || p.unit == "s" && p.sum <= 0 {
			t.Errorf("%s %v: %v %s in all; want seconds, a few", p.name, p.attrs, p.sum, p.unit)
		}
	}
}

// Calls are below the request that made them, of kind client, and those of
// the token endpoint are in the trace of the callback.
func TestSpans(t *testing.T) {
	s := newSite(t)
	s.signIn()
	spans := s.finished()
	byID := map[trace.SpanID]tracetest.SpanStub{}
	for _, span := range spans {
		byID[span.SpanContext.SpanID()] = span
	}
	tokens, gets := 0, 0
	for _, span := range spans {
		attrs := plain(span.Attributes)
		switch {
		case strings.HasPrefix(span.Name, "request "):
			continue
		case span.SpanKind != trace.SpanKindClient:
			t.Errorf("%s is of kind %v", span.Name, span.SpanKind)
		case attrs["url.full"] == s.issuer.EndpointURL(signintest.EndpointToken):
			tokens++
			if parent := byID[span.Parent.SpanID()]; parent.Name != "request /oidc/callback" || span.Name != "POST" {
				t.Errorf("%s to the token endpoint is below %q", span.Name, parent.Name)
			}
		case span.Name == "get":
			gets++
			if attrs["db.system.name"] != "redis" || attrs["db.operation.name"] != "get" {
				t.Errorf("get has %v", attrs)
			}
		}
		if span.Status.Code == codes.Error {
			t.Errorf("%s ended in error: %v", span.Name, attrs)
		}
	}
	if tokens != 1 || gets == 0 {
		t.Errorf("%d spans of the token endpoint and %d of get; want 1 and some", tokens, gets)
	}

	// The two events of one sign-in share a reference, in two traces.
	var references []string
	for _, span := range spans {
		for _, e := range span.Events {
			if e.Name == "signin: challenge" || e.Name == "signin: signed in" {
				references = append(references, plain(e.Attributes)["signin.reference"])
			}
		}
	}
	if len(references) != 2 || references[0] == "" || references[0] != references[1] {
		t.Errorf("references %q, want one twice", references)
	}
}

var errStore = errors.New("key s.abc: connection refused")

func TestFailures(t *testing.T) {
	s := newSite(t)
	page := s.signIn()
	s.spans.Reset()

	s.issuer.FailNext(signintest.EndpointToken, signintest.OAuthError{Status: 503, Code: "temporarily_unavailable", Description: "for alice"}.Fault())
	s.browser.Fetch(page, "/page?refresh")
	s.issuer.FailNext(signintest.EndpointToken, signintest.Fault{Drop: true})
	s.store.fail(fmt.Errorf("redis: %w", errStore))
	s.browser.Fetch(page, "/page")
	s.store.fail(nil)

	s.want(1, "http.client.request.duration", "http.response.status_code", "503", "error.type", "503")
	s.want(1, "db.client.operation.duration", "db.operation.name", "get", "error.type", "*errors.errorString")
	s.want(1, "signin.events", "signin.event", "rejected", "signin.page", "store-unavailable")
	failed := 0
	for _, span := range s.finished() {
		if span.Status.Code != codes.Error {
			continue
		}
		failed++
		if span.Status.Description != "" || plain(span.Attributes)["error.type"] == "" {
			t.Errorf("%s failed with %q %v; want a type and no text", span.Name, span.Status.Description, plain(span.Attributes))
		}
		if _, ok := plain(span.Attributes)["signin.store.hit"]; ok {
			t.Errorf("%s failed and says whether it hit", span.Name)
		}
	}
	if failed != 2 {
		t.Errorf("%d failed spans, want 2", failed)
	}
}

// What goes out of the process says nothing of anybody and opens nothing.
func TestNoSecrets(t *testing.T) {
	s := newSite(t)
	page := s.signIn()
	s.issuer.FailNext(signintest.EndpointToken, signintest.OAuthError{Code: "invalid_grant", Description: "alice has left"}.Fault())
	s.browser.Fetch(page, "/page?refresh")
	s.store.fail(errStore)
	s.browser.Fetch(page, "/page")
	s.store.fail(nil)

	var all strings.Builder
	for _, p := range s.points() {
		fmt.Fprintln(&all, p)
	}
	for _, span := range s.finished() {
		fmt.Fprintln(&all, span.Name, plain(span.Attributes), span.Status)
		for _, e := range span.Events {
			fmt.Fprintln(&all, e.Name, plain(e.Attributes))
		}
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	secrets := slices.Concat(s.issuer.Secrets(), s.store.keys, []string{"alice", "bob", errStore.Error(), "has left", "state=", "code="})
	for _, c := range s.browser.Cookies(s.url + "/") {
		secrets = append(secrets, c.Value)
	}
	if len(secrets) < 12 {
		t.Fatalf("only %d secrets to look for", len(secrets))
	}
	for _, secret := range secrets {
		if (len(secret) > 7 || secret == "alice" || secret == "bob") && strings.Contains(all.String(), secret) {
			t.Errorf("%.12q... goes out", secret)
		}
	}
	if !strings.Contains(all.String(), "refresh refused") || !strings.Contains(all.String(), "store-unavailable") {
		t.Errorf("the failures did not happen:\n%s", &all)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransport(t *testing.T) {
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer srv.Close()
	spans := tracetest.NewInMemoryExporter()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	telemetry, err := otelsignin.New(nil, tracers)
	if err != nil {
		t.Fatal(err)
	}
	var inside []trace.SpanID // what next sees, such as a transport that traces its dialling
	next := roundTripper(func(r *http.Request) (*http.Response, error) {
		inside = append(inside, trace.SpanFromContext(r.Context()).SpanContext().SpanID())
		return http.DefaultTransport.RoundTrip(r)
	})
	client := &http.Client{Transport: telemetry.Transport(next)}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	ctx, span := tracers.Tracer("").Start(t.Context(), "outer")
	defer span.End()
	u := strings.Replace(srv.URL, "http://", "http://user:hush@", 1) + "/a%2Fb?client_secret=hush#frag"
	for _, method := range []string{http.MethodGet, "ODD"} {
		req, err := http.NewRequestWithContext(ctx, method, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	list := spans.GetSpans()
	if len(list) != 2 || list[0].Name != "GET" || list[1].Name != "_OTHER" {
		t.Fatalf("spans %v, want GET and _OTHER", list)
	}
	if len(inside) != 2 || inside[0] != list[0].SpanContext.SpanID() {
		t.Errorf("next is in span %v, want %v", inside, list[0].SpanContext.SpanID())
	}
	if full := plain(list[0].Attributes)["url.full"]; full != srv.URL+"/a%2Fb" {
		t.Errorf("url.full is %q, want neither user nor query", full)
	}
	if list[0].Parent.SpanID() != span.SpanContext().SpanID() {
		t.Errorf("the span is not below the caller's")
	}
	for name := range got {
		if strings.Contains(strings.ToLower(name), "trace") || name == "Baggage" {
			t.Errorf("the issuer is told %s", name)
		}
	}
}

// The wrapped store keeps the contract of the store.
func TestStore(t *testing.T) {
	telemetry, err := otelsignin.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	signintest.TestStore(t, func(*testing.T) signintest.Store {
		return telemetry.Store(signin.NewMemoryStore(), "memory")
	})
}

// Everything that can be observed.
func ExampleNew() {
	telemetry, err := otelsignin.New(nil, nil) // the global providers
	if err != nil {
		fmt.Println(err)
		return
	}
	store := signin.Store(signin.NewMemoryStore()) // in place of one for several replicas
	_, err = signin.New(signin.Config{
		Issuer:     "https://login.example.com",
		ClientID:   "calendar",
		BaseURL:    "https://app.example.com",
		Keys:       [][]byte{[]byte("32 random bytes, kept like a key")},
		Observe:    telemetry.Observe,
		HTTPClient: &http.Client{Transport: telemetry.Transport(nil), Timeout: 15 * time.Second},
		Store:      telemetry.Store(store, "redis"),
	})
	fmt.Println(err)
	// Output: <nil>
}
