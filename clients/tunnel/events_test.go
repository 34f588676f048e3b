package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// eventPanel is a panel whose streams are scripted: one text for each request, after
// which the stream ends, but for the last, which stays open. A text that begins with {
// is a refusal.
type eventPanel struct {
	*httptest.Server
	requests chan *http.Request
}

func serveEvents(t *testing.T, streams ...string) (*eventPanel, *tunnel.Client, *[]time.Duration) {
	t.Helper()
	p := &eventPanel{requests: make(chan *http.Request, len(streams)+1)}
	count := 0
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := streams[min(count, len(streams)-1)]
		count++
		p.requests <- r
		if text[0] == '{' {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, text)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		fmt.Fprint(w, text)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		if count == len(streams) {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(p.Close)
	var waits []time.Duration
	c := newClient(t, tunnel.Options{PanelURL: p.URL, Token: func() string { return "secret" }, Wait: func(ctx context.Context, d time.Duration) error {
		waits = append(waits, d)
		return ctx.Err()
	}})
	return p, c, &waits
}

// take returns the first n events.
func take(t *testing.T, c *tunnel.Client, o tunnel.EventOptions, n int) (events []tunnel.Event) {
	t.Helper()
	for e, err := range c.Events(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		if events = append(events, e); len(events) == n {
			break
		}
	}
	return events
}

func TestEvents_ContinueBehindTheLastOneWhenTheStreamBreaks(t *testing.T) {
	p, c, waits := serveEvents(t,
		"retry: 4000\n\nid: 1\nevent: ready\ndata: {\"type\":\"ready\"}\n\n: heartbeat\n\nid: 2\r\nevent: allocation.deleted\r\ndata: {\"type\":\"allocation.deleted\",\r\ndata: \"allocationId\":42}\r\n\r\nid: 3\nevent: usage\ndata: {\"cut",
		"id: 3\nevent: resync\ndata: {\"type\":\"resync\"}\n\n",
	)
	events := take(t, c, tunnel.EventOptions{Types: []string{"device", "allocation"}, After: "0"}, 3)
	var kinds, ids []string
	for _, e := range events {
		kinds, ids = append(kinds, e.Type), append(ids, e.ID)
	}
	if !slices.Equal(kinds, []string{tunnel.EventReady, "allocation.deleted", tunnel.EventResync}) || !slices.Equal(ids, []string{"1", "2", "3"}) {
		t.Errorf("events are %v with ids %v", kinds, ids)
	}
	var deleted struct{ AllocationID int64 }
	if err := events[1].Decode(&deleted); err != nil || deleted.AllocationID != 42 {
		t.Errorf("%+v, %v", deleted, err)
	}
	for i, after := range []string{"0", "2"} {
		r := <-p.requests
		if r.Header.Get("Last-Event-ID") != after || r.URL.Query().Get("types") != "device,allocation" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("request %d: %s, %v", i, r.URL, r.Header)
		}
	}
	if len(*waits) != 1 || (*waits)[0] < 2*time.Second || (*waits)[0] > 4*time.Second {
		t.Errorf("it waits %v, and the panel said 4 s", *waits)
	}
}

func TestEvents_EndWithTheSession(t *testing.T) {
	_, c, _ := serveEvents(t, "id: 1\nevent: ready\ndata: {}\n\n", `{"error":"unauthorized","message":"No.","requestId":"r1"}`)
	var last error
	count := 0
	for _, err := range c.Events(t.Context(), tunnel.EventOptions{}) {
		if last = err; err == nil {
			count++
		}
	}
	if count != 1 || !tunnel.HasCode(last, types.CodeUnauthorized) {
		t.Errorf("%d events, then %v", count, last)
	}
}

func TestEvents_EndWithTheirContext(t *testing.T) {
	_, c, _ := serveEvents(t, "id: 1\nevent: ready\ndata: {}\n\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.Events(ctx, tunnel.EventOptions{}) {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("it ends with %v", last)
	}
}

func TestEvents_OfWhatIsNoPanelFail(t *testing.T) {
	s := serve(t, answer{status: 404, body: "<html>"})
	for _, err := range s.client(t, "").Events(t.Context(), tunnel.EventOptions{}) {
		if !errors.As(err, new(*tunnel.UnreachableError)) {
			t.Errorf("it ends with %v", err)
		}
	}
	if len(s.requests()) != 1 {
		t.Errorf("it asked %d times", len(s.requests()))
	}
}
