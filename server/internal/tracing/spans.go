package tracing

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Request is a request for an operation of the contract, once it is answered.
type Request struct {
	// Operation is the operation's id. Empty makes no span, and so do the operations of
	// probes, which would be most of what a collector gets.
	Operation string
	// Route is the operation's path in the contract.
	Route string
	// Status is that of the response.
	Status int
	// ID is the request id.
	ID string
	// Began is when the request was received.
	Began time.Time
}

// probes are the operations that get no span.
var probes = map[string]bool{"getHealth": true, "getReadiness": true}

// Request makes the span of a request that is over now. The span belongs to the trace
// that the header traceparent names (W3C Trace Context), if there is one. The header
// tracestate is ignored, because it holds whatever the caller puts into it.
func (t *Tracer) Request(r *http.Request, request Request) {
	if t == nil || request.Operation == "" || probes[request.Operation] {
		return
	}
	_, span := t.tracer.Start(joined(r), request.Operation, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(request.Began),
		trace.WithAttributes(
			attribute.String("http.request.method", r.Method),
			attribute.String("http.route", request.Route),
			attribute.Int("http.response.status_code", request.Status),
			attribute.String("eclitunnel.request.id", request.ID),
		))
	if request.Status >= http.StatusInternalServerError {
		// As the semantic conventions of HTTP have it: what the caller did wrong is no error of a server.
		span.SetAttributes(attribute.String("error.type", strconv.Itoa(request.Status)))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// joined returns a context with the caller's span, if it names one.
func joined(r *http.Request) context.Context {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
	if caller := trace.SpanContextFromContext(ctx); caller.TraceState().Len() > 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, caller.WithTraceState(trace.TraceState{}))
	}
	return ctx
}

// Direction is that of a control-channel message.
type Direction string

// The directions, as the panel sees them.
const (
	Received Direction = "receive"
	Sent     Direction = "send"
)

// Outcomes of control-channel messages.
const (
	Accepted = "accepted" // Received, and handed to what stores it or acts on it.
	Refused  = "refused"  // Received, and the channel closed for it.
	Queued   = "queued"   // Handed to the channel, which sends messages in order.
	NotSent  = "not sent" // The channel has ended, or the device reads too slowly.
)

// Message is a control-channel message that was received and handled, or sent.
type Message struct {
	Direction Direction
	// Type is the message's, of those of the contract; empty is "unknown".
	Type string
	// Device is the device at the other end, and Kind its kind.
	Device uuid.UUID
	Kind   string
	// Outcome is one of the constants. Refused and NotSent are errors.
	Outcome string
	// Began is when the message was read, or handed to the channel.
	Began time.Time
}

// Message makes the span of a message that is over now. Each message is a trace of its
// own: messages carry no traceparent.
func (t *Tracer) Message(message Message) {
	if t == nil {
		return
	}
	if message.Type == "" {
		message.Type = "unknown"
	}
	kind := trace.SpanKindConsumer
	if message.Direction == Sent {
		kind = trace.SpanKindProducer
	}
	_, span := t.tracer.Start(context.Background(), string(message.Direction)+" "+message.Type, trace.WithSpanKind(kind), trace.WithTimestamp(message.Began),
		trace.WithAttributes(
			attribute.String("eclitunnel.message.type", message.Type),
			attribute.String("eclitunnel.message.direction", string(message.Direction)),
			attribute.String("eclitunnel.message.outcome", message.Outcome),
			attribute.String("eclitunnel.device.id", message.Device.String()),
			attribute.String("eclitunnel.device.kind", message.Kind),
		))
	if message.Outcome == Refused || message.Outcome == NotSent {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
