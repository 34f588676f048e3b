package problem_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// answer runs handler behind the middleware and returns the response and the log.
func answer(t *testing.T, r *http.Request, handler http.HandlerFunc) (response *httptest.ResponseRecorder, body types.Problem, log string) {
	t.Helper()
	var buffer bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&buffer, &slog.HandlerOptions{Level: slog.LevelInfo}))
	response = httptest.NewRecorder()
	problem.Middleware(logger)(handler).ServeHTTP(response, r)
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatalf("the body is not an error: %v", err)
	}
	return response, body, buffer.String()
}

func TestFrom_TranslatesForeignErrors(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		code   types.ErrorCode
	}{
		{db.ErrNotFound, 404, types.CodeNotFound},
		{db.ErrConflict, 409, types.CodeConflict},
		{db.ErrLoop, 409, types.CodeConflict},
		{db.ErrPortTaken, 409, types.CodePortTaken},
		{db.ErrNoPorts, 503, types.CodeNoPortsAvailable},
		{db.ErrNoServer, 503, types.CodeNoTunnelServer},
		{db.ErrBusy, 503, types.CodeUnavailable},
		{io.ErrUnexpectedEOF, 503, types.CodeUnavailable},
		{&http.MaxBytesError{Limit: 1}, 413, types.CodePayloadTooLarge},
		{context.Canceled, 503, types.CodeUnavailable},
		{context.DeadlineExceeded, 503, types.CodeUnavailable},
		{problem.Forbidden("No."), 403, types.CodeForbidden},
		{errors.New("out of luck"), 500, types.CodeInternalError},
	} {
		got := problem.From(fmt.Errorf("do something: %w", test.err))
		if got.Status != test.status || got.Code != test.code {
			t.Errorf("%v became %d %s, want %d %s", test.err, got.Status, got.Code, test.status, test.code)
		}
		if got.Message == "" {
			t.Errorf("%v has no message for people", test.err)
		}
	}
}

func TestWrite_KeepsTheCauseInTheLogUnderTheRequestID(t *testing.T) {
	cause := errors.New("password of db is hunter2")
	response, body, log := answer(t, httptest.NewRequest("GET", "/x", nil), func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, fmt.Errorf("query: %w", cause))
	})
	if response.Code != 500 || body.Error != types.CodeInternalError {
		t.Errorf("answered %d %s", response.Code, body.Error)
	}
	if strings.Contains(body.Message, "hunter2") {
		t.Errorf("the body leaks the cause: %q", body.Message)
	}
	if body.RequestID == "" || response.Header().Get(problem.RequestIDHeader) != body.RequestID {
		t.Errorf("request id is %q in the body and %q in the header", body.RequestID, response.Header().Get(problem.RequestIDHeader))
	}
	if strings.Count(log, "hunter2") != 1 || !strings.Contains(log, body.RequestID) {
		t.Errorf("the log does not have the cause once under the id:\n%s", log)
	}
}

func TestWrite_DoesNotLogClientErrors(t *testing.T) {
	_, body, log := answer(t, httptest.NewRequest("GET", "/x", nil), func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.Invalid(problem.Field("a", "is required")))
	})
	if log != "" {
		t.Errorf("logged %s", log)
	}
	if body.Details == nil || (*body.Details)[0] != problem.Field("a", "is required") {
		t.Errorf("details are %v", body.Details)
	}
}

func TestWrite_DoesNotLogFailuresAfterADisconnect(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "/x", nil).WithContext(ctx)
	_, _, log := answer(t, r, func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, r.Context().Err())
	})
	if log != "" {
		t.Errorf("logged %s", log)
	}
}

func TestWrite_RoundsRetryAfterUp(t *testing.T) {
	response, _, _ := answer(t, httptest.NewRequest("GET", "/x", nil), func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.SlowDown(1100*time.Millisecond))
	})
	if got := response.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After is %q, want 2", got)
	}
}

func TestWrite_NamesTheSchemeWhenACredentialIsMissing(t *testing.T) {
	response, _, _ := answer(t, httptest.NewRequest("GET", "/x", nil), func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.Unauthorized("Log in first."))
	})
	if got := response.Header().Get("WWW-Authenticate"); got != "Bearer" {
		t.Errorf("WWW-Authenticate is %q", got)
	}
}

func TestMiddleware_AcceptsOnlyPlainRequestIDs(t *testing.T) {
	for id, taken := range map[string]bool{
		"abc-123_X.y":             true,
		strings.Repeat("a", 64):   true,
		strings.Repeat("a", 65):   false,
		"":                        false,
		"a b":                     false,
		"a\"b":                    false,
		"käse":                    false,
		"level=ERROR\tmsg=forged": false,
	} {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header.Set(problem.RequestIDHeader, id)
		response, body, _ := answer(t, r, func(w http.ResponseWriter, r *http.Request) {
			problem.Write(w, r, problem.NotFound("No."))
		})
		inHeader := response.Header().Get(problem.RequestIDHeader)
		if inHeader != body.RequestID || (body.RequestID == id) != taken {
			t.Errorf("id %q became %q in the header, %q in the body", id, inHeader, body.RequestID)
		}
	}
}

func TestMiddleware_TurnsAPanicIntoAnInternalError(t *testing.T) {
	response, body, log := answer(t, httptest.NewRequest("GET", "/x", nil), func(http.ResponseWriter, *http.Request) {
		panic("out of luck")
	})
	if response.Code != 500 || body.Error != types.CodeInternalError || strings.Contains(body.Message, "luck") {
		t.Errorf("answered %d %+v", response.Code, body)
	}
	if !strings.Contains(log, "out of luck") {
		t.Errorf("the log lacks the panic: %s", log)
	}
}
