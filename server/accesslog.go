package server

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// accessLog writes a line for each request once it is answered: what changes
// something at info, the rest at debug. The path is logged without its query,
// which holds device codes; headers, which hold tokens, not at all. How long each
// took goes to latency, whatever is logged.
func accessLog(logger *slog.Logger, latency latency, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		level := slog.LevelDebug
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			level = slog.LevelInfo
		}
		started := time.Now()
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		ctx, who := auth.Recording(r.Context())
		ctx, operation := validate.Recording(ctx)
		defer func() {
			took := time.Since(started)
			latency.observe(*operation, recorder.status, took)
			logger.LogAttrs(ctx, level, "request",
				slog.String("requestId", w.Header().Get(problem.RequestIDHeader)),
				slog.String("method", r.Method),
				slog.String("path", r.URL.Path),
				slog.Int("status", recorder.status),
				slog.Duration("duration", took),
				callerAttr(who))
		}()
		next.ServeHTTP(recorder, r.WithContext(ctx))
	})
}

// callerAttr names who made a request; an empty attribute, which is not printed,
// where that is nobody known.
func callerAttr(p *auth.Principal) slog.Attr {
	switch p.Kind() {
	case auth.KindUser:
		return slog.Int64("userId", p.User.ID)
	case auth.KindDevice:
		return slog.String("deviceId", p.Device.ID.String())
	default:
		return slog.Attr{}
	}
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find deadlines and flushing.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack is what a WebSocket's upgrade asks for by its interface.
func (w *statusRecorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status = http.StatusSwitchingProtocols
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
