package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// logged serves a request with handler behind the access log and returns the line
// that it logs. send makes the request to a URL.
func logged(t *testing.T, handler http.HandlerFunc, send func(url string)) string {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server := httptest.NewUnstartedServer(accessLog(logger, newLatency(), nil, handler))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	done := make(chan struct{})
	next := server.Config.Handler
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		next.ServeHTTP(w, r)
	})
	server.Start()
	defer server.Close()
	send(server.URL)
	<-done // The log is written by now.
	return log.String()
}

func TestAccessLog_RecordsTheStatus(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"implicit": {func(http.ResponseWriter, *http.Request) {}, "status=200"},
		"written":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, "status=418"},
		"after an informational one": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		}, "status=404"},
		"of a handler that panics": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			panic(http.ErrAbortHandler)
		}, "status=500"},
		"with deadlines": {func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				w.WriteHeader(http.StatusNotImplemented)
			}
		}, "status=200"},
	} {
		line := logged(t, test.handler, func(url string) {
			if resp, err := http.Get(url); err == nil { // A panic ends the connection.
				resp.Body.Close()
			}
		})
		if !strings.Contains(line, test.want) {
			t.Errorf("%s: logged %q, want %s", name, line, test.want)
		}
	}
}

func TestAccessLog_PassesWebSocketUpgrades(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		var upgrader websocket.Upgrader
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if kind, text, err := conn.ReadMessage(); err != nil || conn.WriteMessage(kind, text) != nil {
			t.Errorf("echo: %v", err)
		}
	}
	line := logged(t, echo, func(url string) {
		conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(url, "http"), nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
		defer conn.Close()
		if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
			t.Error(err)
		}
		if _, text, err := conn.ReadMessage(); err != nil || string(text) != "hello" {
			t.Errorf("read %q, %v", text, err)
		}
	})
	if !strings.Contains(line, "status=101") {
		t.Errorf("logged %q", line)
	}
}

func TestAccessLog_OffersHijackOnlyIfSupported(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Hijacker); ok {
			t.Error("it offers Hijack on a writer without it")
		}
	}
	w := httptest.NewRecorder()
	accessLog(slog.New(slog.DiscardHandler), newLatency(), nil, http.HandlerFunc(handler)).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
}
