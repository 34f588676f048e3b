package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

// control is the tunnel client's end of its control channel.
type control = controlclient.Client[desired, types.ClientSnapshot, types.ClientChange]

func newControl(a *Agent) (*control, error) {
	return controlclient.New(controlclient.Options[desired, types.ClientSnapshot, types.ClientChange]{
		Dial: a.panel.dial,
		Hello: func() types.Hello {
			return types.Hello{Type: types.TypeHello, AgentVersion: a.opts.Version, Platform: a.opts.Platform}
		},
		FromSnapshot: func(m types.ClientSnapshot) (desired, error) {
			return fromSnapshot(m), checkPanel(a.opts.Client, m.PanelID)
		},
		WithChange: func(d desired, m types.ClientChange) (desired, error) { return d.with(m), nil },
		Apply: func(d desired) {
			a.apply(d)
			a.state.Save(d.snapshot())
		},
		SwitchedOff: func() {
			a.state.Save(nil) // First: a crash in between must not bring the links back.
			a.apply(desired{})
		},
		Reports: func() []types.AllocationReport {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.reports()
		},
		Probe:     a.probe,
		OnChannel: a.onChannel,
		Standby: controlclient.Standby{
			Presence: func(ctx context.Context) (controlclient.Presence, error) {
				return presence(ctx, a.opts.Client)
			},
			Begin:        a.standBy,
			StandbyTimes: a.opts.Standby,
		},
		Logger:  a.log,
		Channel: a.opts.Channel,
		Backoff: a.opts.Backoff,
	})
}

// probe answers what the panel asks for to check an allocation: only about local targets.
func (a *Agent) probe(ctx context.Context, m types.Probe) types.ProbeResult {
	if m.Subject != types.ProbeTarget || a.targets == nil {
		return types.ProbeResult{}
	}
	target := a.targets.Probe(ctx, m.AllocationID)
	return types.ProbeResult{Target: &target}
}

// runControl keeps the control channel.
func (a *Agent) runControl(ctx context.Context) error {
	err := a.control.Run(ctx)
	if controlclient.Revoked(err) {
		a.state.Save(nil)
	}
	return err
}

// runLinks keeps the links. After a takeover none is left until standBy has applied an
// empty state and the panel has sent another.
func (a *Agent) runLinks(ctx context.Context) error {
	for {
		err := a.links.Run(ctx)
		var final *channel.FinalError
		if !errors.As(err, &final) || final.Code != channel.CloseTakenOver {
			return err
		}
		// A tunnel server says so while the panel cannot be reached.
		a.control.StandBy(final.Reason)
	}
}

// standBy closes everything because another agent took over. The state is kept for a
// start while the panel cannot be reached.
func (a *Agent) standBy(reason string) {
	a.log.Info("another agent of this device took over; standing by", slog.String("reason", reason))
	a.events.standby(reason)
	a.apply(desired{})
}

// resume serves the last desired state of an earlier process.
func (a *Agent) resume() {
	if last := a.state.Load(); last != nil {
		a.apply(fromSnapshot(*last))
	}
}

// apply makes a desired state real.
func (a *Agent) apply(d desired) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.desired = d
	a.links.Apply(d.serverList(), d.allocationList())
	a.signal()
	a.askPaused(true)
}

// onChannel logs what becomes of the control channel and emits its events.
func (a *Agent) onChannel(err error, retry time.Duration) {
	a.panel.onChannel(err)
	if err == nil {
		a.log.Info("connected to the panel", slog.String("panel", a.opts.Client.PanelURL()))
		a.events.emit(Event{Type: EventConnected})
		return
	}
	reason := a.events.disconnected(err, retry)
	a.log.Info("not connected to the panel", slog.String("reason", reason), slog.Duration("retry", retry))
}

// panelDialer opens control channels. Its methods are for the goroutine of a
// controlclient.Client's Run.
type panelDialer struct {
	client *tunnel.Client
	opened net.Addr // The panel's address on the last channel, if that has brought nothing.
}

// dial opens a control channel. It translates the panel's refusals to those that
// channel.Keep knows.
func (d *panelDialer) dial(ctx context.Context) (*websocket.Conn, error) {
	d.avoid() // A failed return from standby does not call onChannel.
	ws, err := d.client.ControlChannel(ctx)
	var refusal *tunnel.Error
	switch {
	case errors.As(err, &refusal):
		return nil, controlclient.Refusal(refusal.Code, refusal.Message, refusal)
	case err != nil:
		return nil, err
	}
	d.opened = ws.RemoteAddr()
	return ws, nil
}

// onChannel records whether a channel has brought a snapshot. The next one is opened to
// another address of the panel if it has not.
func (d *panelDialer) onChannel(err error) {
	if err != nil {
		d.avoid()
	}
	d.opened = nil
}

// avoid has the next channel opened to another address if the last one has brought
// nothing.
func (d *panelDialer) avoid() {
	if d.opened != nil {
		d.client.Avoid(d.opened)
	}
	d.opened = nil
}

// presence asks the panel whether an agent of the client's device is connected.
func presence(ctx context.Context, client *tunnel.Client) (controlclient.Presence, error) {
	device, err := client.Device(ctx, client.TokenDevice())
	var refusal *tunnel.Error
	if errors.As(err, &refusal) {
		err = controlclient.Refusal(refusal.Code, refusal.Message, refusal)
	}
	seen, _ := device.LastSeenAt.Get() // The zero time if it never was.
	return controlclient.Presence{Online: device.Online, LastSeen: seen}, err
}

// errForeignPanel ends a channel whose snapshot is not of the panel that issued the
// device's token, as when a name leads to another machine for a while.
var errForeignPanel = errors.New("another panel answers at this address; the last ports are kept")

// checkPanel returns an error if a snapshot is of another panel than the token. Either
// may be of a version that does not name the panel.
func checkPanel(client *tunnel.Client, panel *types.PanelID) error {
	if issuer := client.TokenPanel(); panel != nil && issuer != uuid.Nil && issuer != *panel {
		return errForeignPanel
	}
	return nil
}
