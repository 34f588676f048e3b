package problem

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// RequestIDHeader carries the request id in both directions.
const RequestIDHeader = "X-Request-Id"

// maxRequestID is the maximum length of a request id from the caller. The id is part
// of every log line.
const maxRequestID = 64

type contextKey struct{}

// request is the part of a request's context that Write uses.
type request struct {
	id  string
	log *slog.Logger
}

// Middleware gives every request an id: the caller's X-Request-Id if it is safe to
// log, otherwise a new one. The id is part of the context, the response header and
// every error body. A panic in next becomes an internal error.
func Middleware(log *slog.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := r.Header.Get(RequestIDHeader)
			if !plain(id) {
				id = rand.Text()
			}
			w.Header().Set(RequestIDHeader, id)
			r = r.WithContext(context.WithValue(r.Context(), contextKey{}, request{id: id, log: log}))
			defer func() {
				switch v := recover(); v {
				case nil:
				case http.ErrAbortHandler:
					panic(v)
				default:
					Write(w, r, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
}

// plain reports whether an id consists of characters that are safe in headers and
// logs.
func plain(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Write responds to r with err, translated by From. If the status is 500 or above it
// logs the cause, so the caller must not log it too.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	e := From(err)
	req, ok := r.Context().Value(contextKey{}).(request)
	if !ok {
		req = request{id: rand.Text(), log: slog.Default()}
	}
	logCause(r, req, e)

	body := types.Problem{Error: e.Code, Message: e.Message, RequestID: req.id}
	if len(e.Details) > 0 {
		body.Details = &e.Details
	}
	body.Quota = e.Quota
	header := w.Header()
	header.Set("Content-Type", "application/json")
	// RFC 8288, to the page of package web.
	header.Add("Link", "</errors#"+string(e.Code)+`>; rel="help"`)
	if e.Status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	w.WriteHeader(e.Status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		// The caller disconnected.
		req.log.DebugContext(r.Context(), "error response not sent", slog.String("requestId", req.id), slog.Any("error", err))
	}
}

// Log logs the cause of a failed request as Write does, for a response that is no error
// body.
func Log(r *http.Request, err error) {
	if req, ok := r.Context().Value(contextKey{}).(request); ok {
		logCause(r, req, From(err))
	}
}

func logCause(r *http.Request, req request, e *Error) {
	if e.Status < http.StatusInternalServerError || e.Cause == nil {
		return
	}
	level := slog.LevelError
	switch {
	case errors.Is(r.Context().Err(), context.Canceled):
		// The caller disconnected, which canceled the work in progress.
		level = slog.LevelDebug
	case e.Status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	}
	req.log.LogAttrs(r.Context(), level, "request failed",
		slog.String("requestId", req.id),
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
		slog.Int("status", e.Status),
		slog.Any("error", e.Cause))
}
