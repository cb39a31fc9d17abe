package otelsignin

import (
	"context"
	"time"

	"github.com/seed454743b5/signin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
	"go.opentelemetry.io/otel/trace"
)

// Store returns next with a span and a latency for each call. System says
// what next is, in the words of the convention for db.system.name: "redis",
// "postgresql". The attribute signin.store.hit says whether Get found a value
// and whether Swap swapped.
func (t *Telemetry) Store(next signin.Store, system string) signin.Store {
	return &store{t, next, system}
}

type store struct {
	*Telemetry
	next   signin.Store
	system string
}

func (s *store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	ctx, end := s.begin(ctx, "get")
	value, ok, err = s.next.Get(ctx, key)
	end(err, hitKey.Bool(ok))
	return value, ok, err
}

func (s *store) Swap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (found []byte, swapped bool, err error) {
	ctx, end := s.begin(ctx, "swap")
	found, swapped, err = s.next.Swap(ctx, key, old, new, ttl)
	end(err, hitKey.Bool(swapped))
	return found, swapped, err
}

func (s *store) Delete(ctx context.Context, key string) error {
	ctx, end := s.begin(ctx, "delete")
	err := s.next.Delete(ctx, key)
	end(err)
	return err
}

// begin starts a call. What it returns ends it; hit counts only without an
// error.
func (s *store) begin(ctx context.Context, operation string) (context.Context, func(error, ...attribute.KeyValue)) {
	ctx, span := s.tracer.Start(ctx, operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.DBSystemNameKey.String(s.system), semconv.DBOperationName(operation),
	))
	start := time.Now()
	return ctx, func(err error, hit ...attribute.KeyValue) {
		attrs := hit
		if err != nil {
			attrs = []attribute.KeyValue{semconv.ErrorType(err)}
			span.SetStatus(codes.Error, "")
		}
		span.SetAttributes(attrs...)
		span.End()
		s.calls.Record(ctx, time.Since(start).Seconds(), dbconv.SystemNameAttr(s.system), append(attrs, semconv.DBOperationName(operation))...)
	}
}
