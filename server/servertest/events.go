package servertest

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// StreamEvent is an event as it is sent.
type StreamEvent struct {
	ID   string // "" if it has none.
	Name string
	Data string
	// Received is when it came.
	Received time.Time
}

// About returns the type of the event, with the name of the device or allocation that it shows, or else the id.
func (e StreamEvent) About() string {
	var event struct {
		DeviceID     *uuid.UUID        `json:"deviceId"`
		Device       *types.Device     `json:"device"`
		AllocationID *int64            `json:"allocationId"`
		Allocation   *types.Allocation `json:"allocation"`
	}
	if err := json.Unmarshal([]byte(e.Data), &event); err != nil {
		return err.Error()
	}
	switch {
	case event.Allocation != nil:
		return e.Name + " " + event.Allocation.Name
	case event.Device != nil:
		return e.Name + " " + event.Device.Name
	case event.AllocationID == nil && event.DeviceID != nil:
		return e.Name + " " + event.DeviceID.String()
	}
	return e.Name
}

// Stream is an event stream.
type Stream struct {
	// Events has the events; it is closed when the stream ends.
	Events <-chan StreamEvent
	// Status is that of the response.
	Status int

	t      testing.TB
	cancel context.CancelFunc
}

// Follow opens an event stream with a query, such as "types=device", and perhaps a position. It is closed when the
// test ends.
func (p *Panel) Follow(token, query, lastEventID string) *Stream {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/api/events?"+query, http.NoBody)
	check(p.t, "event stream", err)
	request.Header.Set("Authorization", "Bearer "+token)
	if lastEventID != "" {
		request.Header.Set("Last-Event-ID", lastEventID)
	}
	response, err := p.HTTP.Do(request) //nolint:bodyclose // The goroutine below closes it.
	check(p.t, "event stream", err)
	events := make(chan StreamEvent, 10_000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(events)
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<20)
		var event StreamEvent
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
			case "id":
				event.ID = value
			case "event":
				event.Name = value
			case "data":
				event.Data, event.Received = value, time.Now()
			case "":
				if event.Data != "" {
					events <- event
				}
				event = StreamEvent{}
			}
		}
	}()
	p.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return &Stream{Events: events, Status: response.StatusCode, t: p.t, cancel: cancel}
}

// Close ends the stream.
func (s *Stream) Close() { s.cancel() }

// Next returns the next event.
func (s *Stream) Next() StreamEvent {
	s.t.Helper()
	event := await.Receive(s.t, s.Events, "event")
	if event.Name == "" {
		s.t.Fatal("the stream has ended")
	}
	return event
}

// Want fails unless these are the next events, as About tells, and returns the last one.
func (s *Stream) Want(want ...string) StreamEvent {
	s.t.Helper()
	var last StreamEvent
	for _, w := range want {
		last = s.Next()
		if got := last.About(); got != w {
			s.t.Fatalf("the next event is %s, want %s", got, w)
		}
	}
	return last
}
