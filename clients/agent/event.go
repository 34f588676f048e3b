package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// EventType says what happened.
type EventType string

// The events of an agent's life.
const (
	EventConnected        EventType = "connected"         // The panel has sent the desired state.
	EventDisconnected     EventType = "disconnected"      // The control channel ended, or could not be opened. Players stay.
	EventSwitchedOff      EventType = "switched_off"      // As disconnected, because tunnels are off. Players are cut off.
	EventAllocationReady  EventType = "allocation_ready"  // Players can come through.
	EventAllocationFailed EventType = "allocation_failed" // They cannot; Reason says why. It is retried.
	EventAllocationClosed EventType = "allocation_closed" // It is not this agent's any more.
	EventStopped          EventType = "stopped"           // Run ends; Reason is empty when it was asked to.
)

// Event is something that a person who watches the agent wants to know.
type Event struct {
	Time         time.Time  `json:"time"`
	Type         EventType  `json:"type"`
	Reason       string     `json:"reason,omitempty"`
	RetrySeconds float64    `json:"retrySeconds,omitempty"` // Until the next try to connect.
	Allocation   *EventPort `json:"allocation,omitempty"`
}

// emitter tells whoever watches, one event at a time.
type emitter struct {
	on func(Event) // May be nil.
	mu sync.Mutex
}

func (e *emitter) emit(event Event) {
	if e.on == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	event.Time = time.Now().UTC()
	e.on(event)
}

// disconnected tells of the end of a control channel, and returns why it ended.
func (e *emitter) disconnected(err error, retry time.Duration) (reason string) {
	event := Event{Type: EventDisconnected, Reason: endReason(err), RetrySeconds: retry.Seconds()}
	if channel.IsFeatureOff(err) {
		event.Type = EventSwitchedOff
	}
	e.emit(event)
	return event.Reason
}

// stopped tells that Run ends with err, and returns what Run shall return: nil
// where it was asked to end.
func (e *emitter) stopped(ctx context.Context, err error) error {
	var final *channel.FinalError
	switch {
	case errors.As(err, &final):
		e.emit(Event{Type: EventStopped, Reason: final.Reason})
		return final
	case ctx.Err() != nil:
		e.emit(Event{Type: EventStopped})
		return nil
	default:
		e.emit(Event{Type: EventStopped, Reason: err.Error()})
		return fmt.Errorf("run the agent: %w", err)
	}
}

// EventPort is the allocation that an event is about.
type EventPort struct {
	ID            int64          `json:"id"`
	Name          string         `json:"name"`
	Protocol      types.Protocol `json:"protocol"`
	PublicAddress string         `json:"publicAddress"`
	LocalAddress  string         `json:"localAddress"`
}

func eventPort(a types.ClientAllocation) EventPort {
	return EventPort{
		ID:            a.ID,
		Name:          a.Name,
		Protocol:      a.Protocol,
		PublicAddress: a.PublicAddress,
		LocalAddress:  net.JoinHostPort(a.LocalHost, strconv.Itoa(a.LocalPort)),
	}
}

// endReason says in a person's words why the control channel ended.
func endReason(err error) string {
	var closed *websocket.CloseError
	var timeout net.Error
	var unreachable *tunnel.UnreachableError
	switch {
	case channel.IsFeatureOff(err):
		return "tunnels are switched off on the panel"
	case errors.As(err, &unreachable):
		return unreachable.Error()
	case errors.As(err, &closed) && closed.Code == channel.CloseRestarting:
		return "the panel restarts"
	case errors.As(err, &closed) && closed.Code == websocket.CloseAbnormalClosure:
		return "the connection to the panel was cut"
	case errors.As(err, &closed):
		return "the panel closed the connection: " + closed.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the panel has gone silent"
	default:
		return err.Error()
	}
}
