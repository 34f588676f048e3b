package server

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/felixge/httpsnoop"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/tracing"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// accessLog logs each request once it has been answered: at debug level if its
// method is GET, HEAD or OPTIONS, at info level otherwise. It logs the path without the
// query, which holds device codes, and no headers, which hold tokens. The caller is
// named by its address and its id; a login by the account too, also if it fails. It
// records the duration of every request in latency, whatever the log level, and makes its
// span with traces: when a stream begins, and when any other request has been answered.
func accessLog(logger *slog.Logger, latency latency, traces *tracing.Tracer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		level := slog.LevelDebug
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
			level = slog.LevelInfo
		}
		ctx, record := auth.Recording(r.Context())
		ctx, operation := validate.Recording(ctx)
		response := httpsnoop.Metrics{Code: http.StatusOK}
		began := time.Now()
		traced := sync.OnceFunc(func() {
			traces.Request(r, tracing.Request{
				Operation: operation.ID, Route: operation.Path, Status: response.Code,
				ID: w.Header().Get(problem.RequestIDHeader), Began: began,
			})
		})
		// Deferred, because a handler that panics has been answered too.
		defer func() {
			traced()
			latency.observe(operation.ID, response.Code, response.Duration)
			logger.LogAttrs(ctx, level, "request",
				slog.String("requestId", w.Header().Get(problem.RequestIDHeader)),
				slog.String("method", r.Method),
				slog.String("path", r.URL.Path),
				slog.Int("status", response.Code),
				slog.Duration("duration", response.Duration),
				addressAttr(record.Address), callerAttr(record.Principal), keyAttr(record.Principal), accountAttr(record.Account))
		}()
		response.CaptureMetrics(recordStart(w, &response.Code, traced), func(w http.ResponseWriter) {
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	})
}

// recordStart returns w with a Flush method that calls started, since what is flushed before
// its end is a stream, and with a Hijack method that sets status to 101. A
// WebSocket upgrade writes its status line to the hijacked connection itself, so
// w never sees it.
func recordStart(w http.ResponseWriter, status *int, started func()) http.ResponseWriter {
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		Flush: func(flush httpsnoop.FlushFunc) httpsnoop.FlushFunc {
			return func() {
				flush()
				started()
			}
		},
		Hijack: func(hijack httpsnoop.HijackFunc) httpsnoop.HijackFunc {
			return func() (net.Conn, *bufio.ReadWriter, error) {
				conn, buffered, err := hijack()
				if err == nil {
					*status = http.StatusSwitchingProtocols
				}
				return conn, buffered, err
			}
		},
	})
}

// callerAttr identifies the caller of a request. It returns an empty attribute,
// which handlers omit, for an anonymous caller.
func callerAttr(p auth.Principal) slog.Attr {
	switch p.Kind() {
	case auth.KindUser:
		return slog.Int64("userId", p.User.ID)
	case auth.KindDevice:
		return slog.String("deviceId", p.Device.ID.String())
	case auth.KindOrganisation:
		return slog.Int64("organisationId", *p.Key.OrganisationID)
	default:
		return slog.Attr{}
	}
}

// keyAttr identifies the API key of a request by its id, or by its name if it is another
// service's. It returns an empty attribute if the request had none.
func keyAttr(p auth.Principal) slog.Attr {
	switch {
	case p.Key == nil:
		return slog.Attr{}
	case p.Key.ID == 0:
		return slog.String("key", p.Key.Name)
	}
	return slog.Int64("keyId", p.Key.ID)
}

func addressAttr(address netip.Addr) slog.Attr {
	if !address.IsValid() {
		return slog.Attr{}
	}
	return slog.String("address", address.String())
}

func accountAttr(email string) slog.Attr {
	if email == "" {
		return slog.Attr{}
	}
	return slog.String("account", email)
}
