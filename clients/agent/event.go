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

// EventType is the type of an event.
type EventType string

// The types of events.
const (
	EventConnected        EventType = "connected"         // The panel has sent the desired state.
	EventDisconnected     EventType = "disconnected"      // The control channel ended, or could not be opened. Players stay.
	EventSwitchedOff      EventType = "switched_off"      // As disconnected, because tunnels are switched off. Players are disconnected.
	EventStandby          EventType = "standby"           // Another agent of the device took over. Nothing is served until that one has been gone for a minute.
	EventAllocationReady  EventType = "allocation_ready"  // Players can join.
	EventAllocationFailed EventType = "allocation_failed" // They cannot; Reason says why. The agent retries.
	EventAllocationTarget EventType = "allocation_target" // Whether the game can be reached has changed: Target, and Reason if it is down.
	EventAllocationClosed EventType = "allocation_closed" // It no longer belongs to this agent.
	EventPublicHost       EventType = "public_host"       // A tunnel server's public host, after it has connected for the first time and when it has changed.
	EventStopped          EventType = "stopped"           // Run returns; Reason is empty if its context ended.
)

// Event is a change that a person who watches the agent wants to know.
type Event struct {
	Time         time.Time         `json:"time"`
	Type         EventType         `json:"type"`
	Reason       string            `json:"reason,omitempty"`
	RetrySeconds float64           `json:"retrySeconds,omitempty"` // Until the next attempt to connect.
	Allocation   *EventPort        `json:"allocation,omitempty"`
	Target       types.TargetState `json:"target,omitempty"` // Of EventAllocationTarget.

	Host *types.ServerHost `json:"host,omitempty"`
}

// emitter calls a function with one event at a time.
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

// disconnected reports the end of a control channel, and returns why it ended.
func (e *emitter) disconnected(err error, retry time.Duration) (reason string) {
	event := Event{Type: EventDisconnected, Reason: endReason(err), RetrySeconds: retry.Seconds()}
	if channel.IsFeatureOff(err) {
		event.Type = EventSwitchedOff
	}
	e.emit(event)
	return event.Reason
}

// stopped reports that Run ends with err, and returns what Run returns: nil if its
// context ended.
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

// standby reports that another process of the device took over.
func (e *emitter) standby(reason string) {
	e.emit(Event{Type: EventStandby, Reason: reason})
}

// EventPort is the allocation that an event concerns.
type EventPort struct {
	ID            int64          `json:"id"`
	Name          string         `json:"name"`
	Protocol      types.Protocol `json:"protocol"`
	PublicAddress string         `json:"publicAddress"`
	LocalAddress  string         `json:"localAddress"`
	// PublicAddresses are the IP addresses of the host in PublicAddress, without ports; nil if
	// none is known.
	PublicAddresses []string `json:"publicAddresses,omitempty"`
}

func eventPort(a types.ClientAllocation, server types.ClientServer) EventPort {
	var addresses []string
	if server.PublicAddresses != nil {
		addresses = *server.PublicAddresses
	}
	return EventPort{
		ID:            a.ID,
		Name:          a.Name,
		Protocol:      a.Protocol,
		PublicAddress: a.PublicAddress,
		LocalAddress:  net.JoinHostPort(a.LocalHost, strconv.Itoa(a.LocalPort)),

		PublicAddresses: addresses,
	}
}

// endReason describes for people why the control channel ended.
func endReason(err error) string {
	var closed *websocket.CloseError
	var timeout net.Error
	var unreachable *tunnel.UnreachableError
	switch {
	case channel.IsFeatureOff(err):
		return "tunnels are switched off on the panel"
	case tunnel.HasCode(err, types.CodeUnknownDevice):
		return "the panel does not know this device now; the enrollment is kept"
	case errors.As(err, &unreachable):
		return unreachable.Error()
	case errors.As(err, &closed) && closed.Code == channel.CloseRestarting:
		return "the panel restarts"
	case channel.Lost(err):
		return "connection lost"
	case errors.As(err, &closed):
		return "the panel closed the connection: " + closed.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the panel has gone silent"
	default:
		return err.Error()
	}
}
