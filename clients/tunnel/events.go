package tunnel

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	eventsPath = "/api/events"
	// eventsIdle is how long a stream may be silent. The panel sends a comment every 15
	// seconds.
	eventsIdle = 45 * time.Second
	// eventsRetry is the pause before a stream is opened again, until the panel names
	// another, and maxEventsRetry the longest.
	eventsRetry    = time.Second
	maxEventsRetry = 30 * time.Second
)

// Types of events that are about the stream itself.
const (
	// EventReady is the first event of a stream: what is read after it is current but for
	// the events that follow.
	EventReady = "ready"
	// EventResync means that events are missing: read everything again. Those that follow
	// continue from there.
	EventResync = "resync"
)

// Event is an event of [Client.Events].
type Event struct {
	// ID is the event's position, for EventOptions.After.
	ID string
	// Type is what happened, such as allocation.updated. A panel of a later version may
	// send types that this version does not know.
	Type string
	// Data is the event in JSON, as the contract's schema LiveEvent describes it.
	Data json.RawMessage
}

// Decode decodes the event into value, a pointer to the contract's type of such events; see
// [Event.Value], which chooses the type.
func (e Event) Decode(value any) error {
	if err := json.Unmarshal(e.Data, value); err != nil {
		return fmt.Errorf("decode event %s: %w", e.Type, err)
	}
	return nil
}

// EventOptions say which events [Client.Events] returns. The zero value is all, from now on.
type EventOptions struct {
	// Types are the beginnings of types to return: device, allocation, connection and
	// usage. nil is all.
	// EventReady and EventResync always come.
	Types []string
	// After is the ID of the last event that the caller has seen. "" is none: events begin
	// now. Where the panel does not have them any more, the first is EventResync.
	After string
}

// Events returns what changes among the devices, allocations and connections that the
// caller may see, as it happens. The stream is opened again when it breaks or falls
// silent, after a second at first and up to half a minute later, and continues behind the
// last event: none is missing or comes twice, but for what EventResync announces.
//
// The sequence ends when the caller leaves the loop, or after an error: ctx has ended, the
// panel refuses the stream (an [*Error], such as unauthorized when the session has ended),
// or at the first attempt there is no panel at that address (an [*UnreachableError]).
func (c *Client) Events(ctx context.Context, o EventOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s := &stream{sender: c.sender, types: o.Types, after: o.After, retry: eventsRetry}
		for {
			left, err := s.follow(ctx, func(e Event) bool { return yield(e, nil) })
			if left {
				return
			}
			if err == nil || s.again(err) {
				err = s.sender.wait(ctx, s.pause(err))
			}
			if ctx.Err() != nil {
				err = fmt.Errorf("events of %s: %w", c.panel, ctx.Err())
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// stream is a sequence of events over several requests.
type stream struct {
	sender   *sender
	types    []string
	after    string        // The last position.
	retry    time.Duration // As the panel says.
	failures int           // Requests in sequence that brought no event.
	opened   bool          // There was a stream.
}

// again reports whether a stream is opened again after an error.
func (s *stream) again(err error) bool {
	var unreachable *UnreachableError
	if errors.As(err, &unreachable) {
		return s.opened || unreachable.transient
	}
	return HasCode(err, types.CodeUnavailable) || HasCode(err, types.CodeRateLimited) || HasCode(err, types.CodeInternalError)
}

// pause returns how long to wait until the stream is opened again.
func (s *stream) pause(err error) time.Duration {
	delay := min(s.retry<<min(s.failures, 10), maxEventsRetry)
	s.failures++
	// Half of it is random, so that many clients do not return at once.
	delay = delay/2 + time.Duration(s.sender.random()*float64(delay/2))
	var answer *Error
	if errors.As(err, &answer) {
		return max(delay, answer.RetryAfter)
	}
	return delay
}

// follow opens the stream and calls next with its events until it ends, or until next
// returns false, when left is true.
func (s *stream) follow(ctx context.Context, next func(Event) bool) (left bool, err error) {
	request, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(eventsIdle, cancel)
	defer idle.Stop()
	resp, err := s.open(request)
	if err != nil {
		return false, err
	}
	// What is left of the stream is of no use.
	defer func() { _ = resp.Body.Close() }()
	s.opened = true
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxBody)
	var e Event
	for lines.Scan() {
		idle.Reset(eventsIdle)
		if line := lines.Text(); line != "" {
			s.field(&e, line)
			continue
		}
		if e.ID != "" {
			s.after = e.ID
		}
		if len(e.Data) > 0 {
			s.failures = 0
			if !next(e) {
				return true, nil
			}
		}
		e = Event{}
	}
	// Whatever ended the stream, the next one continues behind the last whole event.
	return false, nil
}

// field takes a line of an event (WHATWG HTML, section "Server-sent events").
func (s *stream) field(e *Event, line string) {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch name {
	case "id":
		e.ID = value
	case "event":
		e.Type = value
	case "data":
		if e.Data != nil {
			e.Data = append(e.Data, '\n')
		}
		e.Data = append(e.Data, value...)
	case "retry":
		if ms, err := strconv.Atoi(value); err == nil && ms > 0 {
			s.retry = min(time.Duration(ms)*time.Millisecond, maxEventsRetry)
		}
	}
}

// open requests the stream. It returns an answer only if that is one.
func (s *stream) open(ctx context.Context) (*http.Response, error) {
	query := url.Values{}
	if len(s.types) > 0 {
		query.Set("types", strings.Join(s.types, ","))
	}
	address := s.sender.panel + eventsPath
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	lineCtx, attempt := s.sender.line.Begin(ctx, s.sender.panel)
	req, err := http.NewRequestWithContext(lineCtx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("request events: %w", err)
	}
	req.Header.Set("Accept", "text/event-stream, application/json")
	req.Header.Set("User-Agent", s.sender.userAgent)
	if s.after != "" {
		req.Header.Set("Last-Event-ID", s.after)
	}
	if token := s.sender.token(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	from := s.sender.http
	if attempt.Classic(true) {
		from = s.sender.classic
	}
	endless := *from
	endless.Timeout = 0 // It would end the stream.
	resp, err := endless.Do(req)
	attempt.End(err)
	if err != nil {
		return nil, unreachable(s.sender.panel, err)
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && media == "text/event-stream" && resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	// ReadAll's error leaves a body that is no answer of a panel.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	_ = resp.Body.Close() // It was read to its end.
	return nil, answerError(s.sender.panel, resp, body)
}
