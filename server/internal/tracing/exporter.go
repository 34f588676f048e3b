package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/eclitunnel/eclitunnel/internal/lograte"
)

const (
	// failureInterval is how often a failure to send traces is logged.
	failureInterval = time.Minute
	// maxFailure bounds the text of one in bytes: it may quote the collector's response.
	maxFailure = 300
)

// exporter is an exporter whose exports can be aborted, and whose errors go to the log.
type exporter struct {
	sdk.SpanExporter
	reports *reports
	life    context.Context // Ends with abort.
	abort   context.CancelFunc
}

func newExporter(inner sdk.SpanExporter, reports *reports) *exporter {
	e := &exporter{SpanExporter: inner, reports: reports}
	e.life, e.abort = context.WithCancel(context.Background())
	return e
}

// ExportSpans sends spans, on the goroutine of the SDK, whose queue drops spans while it is full.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.reports.failed(err)
	}
	return nil
}

// reports logs what the SDK reports: failures at most once a minute, and mistakes in the
// environment. It implements logr.LogSink for the latter.
type reports struct {
	log      *slog.Logger
	failures *lograte.Limiter
}

func newReports(log *slog.Logger) *reports {
	return &reports{log: log, failures: lograte.New(failureInterval)}
}

func (r *reports) failed(err error) {
	if !r.failures.Allow(0) {
		return
	}
	r.log.Warn("traces not sent", slog.String("error", describe(err)))
}

// describe returns the text of an error without URLs, which may hold credentials.
func describe(err error) string {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	text := err.Error()
	if len(text) > maxFailure {
		text = text[:maxFailure]
	}
	return text
}

// Init implements logr.LogSink.
func (r *reports) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink. What is not an error tells operators nothing.
func (r *reports) Enabled(int) bool { return false }

// Info implements logr.LogSink.
func (r *reports) Info(int, string, ...any) {}

// Error implements logr.LogSink. The values are left out: they are those of variables,
// such as OTEL_EXPORTER_OTLP_HEADERS, which hold secrets.
func (r *reports) Error(err error, message string, _ ...any) {
	r.log.Warn("a setting of OpenTelemetry has no effect", slog.String("step", message), slog.String("error", describe(err)))
}

// WithValues implements logr.LogSink.
func (r *reports) WithValues(...any) logr.LogSink { return r }

// WithName implements logr.LogSink.
func (r *reports) WithName(string) logr.LogSink { return r }
