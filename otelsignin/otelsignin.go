// Package otelsignin tells OpenTelemetry what package signin does: metrics
// from its events, and spans and latencies of its calls to the issuer and to
// the store.
//
//	telemetry, err := otelsignin.New(nil, nil)
//	auth, err := signin.New(signin.Config{
//		Observe:    telemetry.Observe,
//		HTTPClient: &http.Client{Transport: telemetry.Transport(nil), Timeout: 15 * time.Second},
//		Store:      telemetry.Store(store, "redis"),
//		...
//	})
//
// # Metrics
//
//	signin.events                  counter    signin.event, signin.reason, signin.page
//	signin.event.duration          histogram  signin.event; only those that take time: signed in, refreshed
//	http.client.request.duration   histogram  by the semantic conventions for HTTP
//	db.client.operation.duration   histogram  by those for databases; also signin.store.hit
//
// The values of signin.event, signin.reason and signin.page are those of
// [signin.Event] and few. "rejected" by signin.page is the one to alert on,
// with "store failing" and "refresh failed" by signin.event.
//
// # Spans
//
// One for each request to the issuer and each call of the store, of kind
// client. Events are added to the span that runs, with signin.reference, the
// id that error pages show and log lines carry.
//
// A request that several wait for, such as a refresh, is in the trace of who
// came first. The issuer's keys are fetched for all, in no trace.
//
// # What is left out
//
// No attribute holds a token, a code, a key of the store, a user, or a part
// of a query or body. Of errors only the type is told, for their text may be
// the issuer's. Trace context is not sent to the issuer.
package otelsignin

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed454743b5/signin"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/seed454743b5/signin/otelsignin"

// The attributes that have no semantic convention.
const (
	eventKey     = attribute.Key("signin.event")
	reasonKey    = attribute.Key("signin.reason")
	pageKey      = attribute.Key("signin.page")
	referenceKey = attribute.Key("signin.reference")
	hitKey       = attribute.Key("signin.store.hit")
)

// Telemetry holds the instruments. Its methods may be used concurrently. Make
// one with [New].
type Telemetry struct {
	tracer    trace.Tracer
	events    metric.Int64Counter
	durations metric.Float64Histogram
	requests  httpconv.ClientRequestDuration
	calls     dbconv.ClientOperationDuration
}

// New makes the instruments. A nil provider is the global one, as [otel] has
// it. The error is a meter provider's that refuses an instrument.
func New(meters metric.MeterProvider, tracers trace.TracerProvider) (*Telemetry, error) {
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	meter := meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	t := &Telemetry{tracer: tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))}
	var errs [4]error
	t.events, errs[0] = meter.Int64Counter("signin.events",
		metric.WithUnit("{event}"), metric.WithDescription("What happened while users signed in."))
	t.durations, errs[1] = meter.Float64Histogram("signin.event.duration",
		metric.WithUnit("s"), metric.WithDescription("How long redemptions and refreshes took."),
		metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
	t.requests, errs[2] = httpconv.NewClientRequestDuration(meter)
	// The boundaries are the convention's advice.
	t.calls, errs[3] = dbconv.NewClientOperationDuration(meter,
		metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("otelsignin: making instruments: %w", err)
	}
	return t, nil
}

// Observe counts an event, and adds it to the span that runs. It is for
// [signin.Config].Observe.
func (t *Telemetry) Observe(ctx context.Context, e signin.Event) {
	attrs := []attribute.KeyValue{eventKey.String(string(e.Name))}
	if e.Duration > 0 {
		t.durations.Record(ctx, e.Duration.Seconds(), metric.WithAttributes(attrs...))
	}
	if e.Reason != "" {
		attrs = append(attrs, reasonKey.String(string(e.Reason)))
	}
	if e.Page != "" {
		attrs = append(attrs, pageKey.String(string(e.Page)))
	}
	t.events.Add(ctx, 1, metric.WithAttributes(attrs...))

	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		if e.Reference != "" {
			attrs = append(attrs, referenceKey.String(e.Reference))
		}
		if e.Err != nil {
			attrs = append(attrs, semconv.ErrorType(e.Err))
		}
		span.AddEvent("signin: "+string(e.Name), trace.WithAttributes(attrs...))
	}
}
