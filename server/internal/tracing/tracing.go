// Package tracing sends traces of API requests and of control-channel messages to a
// collector, by OTLP over HTTP. It is the only package that knows OpenTelemetry.
//
// A span is made when what it describes is over, with the times of its begin and its end:
// by then it is known which operation a request was for, and nothing is kept for those
// that get no span. A stream is over, as a span, once its response has begun.
//
// Spans hold ids, names of the contract and outcomes. They hold no query, no path with
// its parameters, no header, no body, and nobody's address, name or email.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// DefaultService is the name of the service in traces, unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES gives another.
	DefaultService = "eclitunneld"
	// flushTimeout bounds the export of what is left at the end. exportGrace is the time
	// within which an export then notices that it was canceled.
	flushTimeout = 4500 * time.Millisecond
	exportGrace  = 500 * time.Millisecond
)

// Options configures a Tracer. Where spans go, how they are sampled, and what else the
// standard variables of OpenTelemetry set, its SDK reads from the environment.
type Options struct {
	Version string       // That of the panel, an attribute of the service.
	Logger  *slog.Logger // nil is slog.Default.
}

// Tracer makes spans and sends them. A nil Tracer makes none. It is safe for concurrent
// use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	exporter *exporter
}

// New returns a Tracer, whose goroutines run until Shutdown. It does not wait for the
// collector. A process has one at a time: what the SDK reports goes to the log of the
// newest.
func New(ctx context.Context, opts Options) (*Tracer, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	reports := newReports(opts.Logger)
	// Before anything reads the environment: these report its mistakes.
	otel.SetLogger(logr.New(reports))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(reports.failed))
	service, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", DefaultService), attribute.String("service.version", opts.Version)),
		resource.WithFromEnv(), // The last one wins.
	)
	if err != nil {
		// What could be read of it is used.
		reports.failed(fmt.Errorf("read the attributes of the service: %w", err))
	}
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("configure the exporter of traces: %w", err)
	}
	exporter := newExporter(client, reports)
	provider := sdk.NewTracerProvider(sdk.WithResource(service), sdk.WithBatcher(exporter))
	return &Tracer{
		provider: provider,
		tracer:   provider.Tracer("github.com/eclitunnel/eclitunnel/server"),
		exporter: exporter,
	}, nil
}

// Shutdown sends the spans that are left, for at most 5 seconds and until ctx ends, and
// then drops the rest. Spans that end later are dropped.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	flush, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	// The SDK's goroutine does not end with the context of its shutdown, but with its export.
	defer context.AfterFunc(flush, t.exporter.abort)()
	wait, cancelWait := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout+exportGrace)
	defer cancelWait()
	if err := t.provider.Shutdown(wait); err != nil {
		t.exporter.reports.failed(err) // A collector that is away must not fail the panel's exit.
	}
	return nil
}
