package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// control keeps the control channel.
func (a *Agent) control(ctx context.Context) error {
	err := channel.Keep(ctx, channel.KeepOptions{
		Dial:    a.dial,
		Serve:   a.serve,
		Ended:   a.ended,
		Backoff: a.opts.Backoff,
		Channel: a.opts.Channel,
	})
	var final *channel.FinalError
	if errors.As(err, &final) && final.Code != channel.CloseTakenOver {
		a.state.save(nil) // The one that took over may keep it in the same file.
	}
	return err
}

// resume serves what the panel said before this start.
func (a *Agent) resume() {
	last := a.state.load()
	if last == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.desired = fromSnapshot(*last)
	a.links.Apply(a.desired.serverList(), a.desired.allocationList())
	a.signal()
}

func (a *Agent) dial(ctx context.Context) (*websocket.Conn, error) {
	return dialPanel(ctx, a.opts.Client)
}

// dialPanel opens a control channel, and says of a refusal what it means to
// channel.Keep.
func dialPanel(ctx context.Context, client *tunnel.Client) (*websocket.Conn, error) {
	ws, err := client.ControlChannel(ctx)
	var refusal *tunnel.Error
	if !errors.As(err, &refusal) {
		return ws, err
	}
	if refusal.Code == types.CodeFeatureDisabled {
		return nil, fmt.Errorf("%w: %w", channel.ErrFeatureOff, refusal)
	}
	// Only the panel's own word is final: a proxy that answers 404 while the
	// panel moves is an UnreachableError.
	switch refusal.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, &channel.FinalError{Code: channel.CloseTokenDead, Reason: refusal.Message}
	case http.StatusNotFound:
		return nil, &channel.FinalError{Code: channel.CloseDeleted, Reason: refusal.Message}
	default:
		return nil, refusal
	}
}

// serve speaks one control channel.
func (a *Agent) serve(_ context.Context, c *channel.Conn, ready func()) error {
	defer a.detach()
	err := c.Send(types.Hello{Type: types.TypeHello, AgentVersion: a.opts.Version, Platform: a.opts.Platform})
	if err != nil {
		return err
	}
	connected, awaiting := false, true // Awaiting a snapshot: hello asks for one.
	var state desired
	for {
		message, err := receive(c)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case types.ClientSnapshot:
			if !connected {
				ready()
				a.log.Info("connected to the panel", slog.String("panel", a.opts.Client.PanelURL()))
				a.events.emit(Event{Type: EventConnected})
			}
			connected, awaiting = true, false
			state = fromSnapshot(m)
			a.apply(c, state)
		case types.ClientChange:
			if awaiting {
				continue // The snapshot will hold it.
			}
			if m.Revision == state.revision+1 {
				state = state.with(m)
				a.apply(c, state)
				continue
			}
			a.log.Warn("a revision was missed", slog.Int64("have", state.revision), slog.Int64("got", m.Revision))
			awaiting = true
			if err := c.Send(types.ResyncRequest{Type: types.TypeResync}); err != nil {
				return err
			}
		default:
			a.log.Warn("the panel sent a message that is not for a tunnel client", slog.Any("type", m))
		}
	}
}

func receive(c *channel.Conn) (any, error) {
	data, err := c.Receive()
	if err != nil {
		return nil, err
	}
	return decode(data)
}

// decode returns a snapshot, a change, or the type of a message that a tunnel
// client has no use for, such as one of a later panel's.
func decode(data []byte) (any, error) {
	var message types.ControlMessage
	if err := json.Unmarshal(data, &message); err != nil {
		return nil, fmt.Errorf("decode a control message: %w", err)
	}
	kind, err := message.Discriminator()
	if err != nil {
		return nil, fmt.Errorf("decode a control message: %w", err)
	}
	var value any
	switch kind {
	case string(types.TypeClientSnapshot):
		value, err = message.AsClientSnapshot()
	case string(types.TypeClientChange):
		value, err = message.AsClientChange()
	default:
		value = kind
	}
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	return value, nil
}

// apply makes a desired state real and has it reported on c.
func (a *Agent) apply(c *channel.Conn, state desired) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != c {
		// The panel has forgotten what the channel before was told.
		a.conn, a.sent = c, nil
		a.connects++
	}
	for id, allocation := range state.allocations {
		if before, ok := a.desired.allocations[id]; ok && before.ServerID != allocation.ServerID {
			delete(a.sent, id) // What was told of it was about the other tunnel server.
		}
	}
	a.desired = state
	a.links.Apply(a.desired.serverList(), a.desired.allocationList())
	a.state.save(a.desired.snapshot())
	a.signal()
}

// detach stops reporting: the channel ends. The desired state stays.
func (a *Agent) detach() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = nil
}

// attached reports whether there is a channel that has sent a snapshot.
func (a *Agent) attached() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conn != nil
}

// ended hears of every end of a channel that another try follows.
func (a *Agent) ended(err error, wait time.Duration) {
	if channel.IsFeatureOff(err) {
		a.state.save(nil)
		a.mu.Lock()
		a.desired = desired{}
		a.links.Apply(nil, nil)
		a.mu.Unlock()
		a.signal()
	}
	reason := a.events.disconnected(err, wait)
	a.log.Info("not connected to the panel", slog.String("reason", reason), slog.Duration("retry", wait))
}
