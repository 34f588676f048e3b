package agent

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Snapshot is what a person wants to see of a running agent. Times are in UTC.
type Snapshot struct {
	Time    time.Time  `json:"time"`    // When it was taken.
	Version string     `json:"version"` // The agent's.
	Started time.Time  `json:"started"`
	Device  DeviceView `json:"device"`
	Panel   PanelView  `json:"panel"`
	Servers []LinkView `json:"servers"` // The tunnel servers that bring players, by address.
	Tunnels []PortView `json:"tunnels"` // The public ports, by id. Of paused ones, see PortPaused.
	Notes   []Note     `json:"notes"`   // What happened lately, the newest last.
}

// DeviceView names the device.
type DeviceView struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"` // "": not known.
}

// PanelView is the state of the connection to the panel. Players do not need it.
type PanelView struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`            // When Connected last changed.
	Reason    string    `json:"reason,omitempty"` // Why it is not connected, or stands by.
	// Standby means that another agent of the device took over; see EventStandby.
	Standby bool `json:"standby,omitempty"`
}

// LinkState is the state of the link to a tunnel server.
type LinkState string

// The states of a link.
const (
	LinkConnecting LinkState = "connecting" // For the first time.
	LinkUp         LinkState = "up"
	LinkDown       LinkState = "down" // It is connected again; Reason says why it has to be.
)

// LinkView is the state of the link to one tunnel server.
type LinkView struct {
	ID      uuid.UUID `json:"id"`
	Address string    `json:"address"` // Where agents reach it.
	State   LinkState `json:"state"`
	Since   time.Time `json:"since"` // When State last changed.
	Reason  string    `json:"reason,omitempty"`
	// RoundTripMs is the time to the tunnel server and back in milliseconds, as the system
	// measures it; 0: not known.
	RoundTripMs float64 `json:"roundTripMs,omitempty"`
	// UplinkLimit is the most bytes per second that the agent sends to it over TCP at the
	// moment, so that the uplink's queue stays short; 0: as many as it likes.
	UplinkLimit int64 `json:"uplinkLimit,omitempty"`
}

// PortState is the state of a public port.
type PortState string

// The states of a port.
const (
	PortOpen    PortState = "open"    // Players can join.
	PortNoGame  PortState = "no_game" // They can, and no game answers; TargetReason says why.
	PortOpening PortState = "opening" // The tunnel server is being connected.
	PortFailed  PortState = "failed"  // They cannot; Reason says why. The agent retries.
	// PortPaused is a port that a person has closed for a while. The agent asks the panel
	// for those, and only while somebody watches.
	PortPaused PortState = "paused"
)

// PortView is one public port and what it carries.
type PortView struct {
	EventPort
	ServerID     uuid.UUID         `json:"serverId"`
	State        PortState         `json:"state"`
	Reason       string            `json:"reason,omitempty"`
	Target       types.TargetState `json:"target"` // Whether the game answers.
	TargetReason string            `json:"targetReason,omitempty"`
	// Players are those who play now, and Joined and Refused count them since the port came
	// to this agent: of TCP connections to the game, and those that did not reach it; of
	// UDP sources that the game has answered and that spoke again.
	Players int    `json:"players"`
	Joined  uint64 `json:"joined"`
	Refused uint64 `json:"refused"`
	// FromPlayers and ToPlayers are bytes of payload in the same time, and the others bytes
	// per second lately: 0 unless somebody watches.
	FromPlayers          uint64  `json:"fromPlayers"`
	ToPlayers            uint64  `json:"toPlayers"`
	FromPlayersPerSecond float64 `json:"fromPlayersPerSecond"`
	ToPlayersPerSecond   float64 `json:"toPlayersPerSecond"`
}

// Label is the port's name, or its protocol and public address where it has none.
func (p EventPort) Label() string {
	if p.Name != "" {
		return p.Name
	}
	return string(p.Protocol) + " " + p.PublicAddress
}

// Note is something that happened, in words.
type Note struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
	// Trouble means that players notice it, or may.
	Trouble bool `json:"trouble,omitempty"`
}

// Snapshot returns the agent's state now. It may be called at any time, from any
// goroutine, and shares no memory with the agent.
func (a *Agent) Snapshot() Snapshot {
	now := time.Now().UTC()
	s := a.view.base(now)
	s.Version = a.opts.Version
	s.Device = DeviceView{ID: a.opts.Client.TokenDevice(), Name: a.opts.Name}
	s.Panel.URL = a.opts.Client.PanelURL()
	a.mu.Lock()
	d, reports := a.desired, a.reports()
	a.mu.Unlock()
	s.Servers = a.linkViews()
	states := map[int64]allocationState{}
	for _, r := range reports {
		states[r.ID] = stateOf(r)
	}
	carried := a.links.Carried()
	rates := a.view.rates(now, carried)
	s.Tunnels = []PortView{}
	for _, allocation := range d.allocationList() {
		p := PortView{EventPort: eventPort(allocation, d.servers[allocation.ServerID]), ServerID: allocation.ServerID}
		p.PublicAddresses = slices.Clone(p.PublicAddresses)
		p.describe(states[p.ID])
		p.count(carried[p.ID], rates[p.ID])
		s.Tunnels = append(s.Tunnels, p)
	}
	for _, p := range a.view.pausedPorts() {
		if _, open := d.allocations[p.ID]; !open {
			s.Tunnels = append(s.Tunnels, p)
		}
	}
	slices.SortStableFunc(s.Tunnels, func(a, b PortView) int { return int(a.ID - b.ID) })
	return s
}

// linkViews returns the links with what is known of their connections.
func (a *Agent) linkViews() []LinkView {
	paths := a.pacer.States()
	views := []LinkView{}
	for _, l := range a.links.Links() {
		v := LinkView{ID: l.Server, Address: l.Address, State: LinkConnecting, Since: l.Since.UTC(), Reason: l.Reason}
		switch path := paths[l.Remote]; {
		case l.Up:
			v.State = LinkUp
			v.RoundTripMs = float64(path.RoundTrip.Round(100*time.Microsecond)) / float64(time.Millisecond)
			v.UplinkLimit = int64(path.Limit)
		case l.Dialled:
			v.State = LinkDown
		}
		views = append(views, v)
	}
	return views
}

// describe says how the port is. The zero value of a state is that of a port of which
// nothing is known yet.
func (p *PortView) describe(s allocationState) {
	p.Reason, p.Target, p.TargetReason = s.reason, s.target.state, s.target.reason
	switch {
	case s.state == "":
		p.State, p.Target = PortOpening, types.TargetUnknown
	case s.state == types.ReportFailed:
		p.State = PortFailed
	case s.target.state == types.TargetDown:
		p.State = PortNoGame
	default:
		p.State = PortOpen
	}
}

func (p *PortView) count(c target.Carried, r rate) {
	p.Players, p.Joined, p.Refused = c.Players, c.Joined, c.Refused
	p.FromPlayers, p.ToPlayers = c.FromPlayers, c.ToPlayers
	p.FromPlayersPerSecond, p.ToPlayersPerSecond = r.from, r.to
}

const (
	// showInterval is the least time between two snapshots of a Watch, and sampleInterval
	// the time between two looks at what is counted.
	showInterval   = 250 * time.Millisecond
	sampleInterval = time.Second
)

// Watch calls show with a snapshot at once, and with another after each change, at most
// four times a second, and once a second while only counts change. It returns nil when ctx
// has ended, or after Run has returned and its last state was shown, and the error of show
// if that fails. It starts no goroutine; any number of callers may watch.
func (a *Agent) Watch(ctx context.Context, show func(Snapshot) error) error {
	defer a.view.watch()()
	a.askPaused(false)
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last Snapshot
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
		ended := a.view.isOver() // Before the snapshot, as changed: that shows what came before.
		changed := a.view.next()
		s := a.Snapshot()
		if !sameView(s, last) {
			if err := show(s); err != nil {
				return err
			}
			last = s
		}
		if ended {
			return nil
		}
		pause.Reset(showInterval)
		select {
		case <-changed:
		case <-ticker.C:
			a.askPaused(false)
		case <-ctx.Done():
			return nil
		}
	}
}

// sameView reports whether two snapshots differ in nothing but their time.
func sameView(a, b Snapshot) bool {
	a.Time = b.Time
	return reflect.DeepEqual(a, b)
}
