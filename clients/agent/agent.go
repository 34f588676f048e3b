// Package agent runs an enrolled device, as a library. An [Agent] is a tunnel client:
// it keeps the control channel to the panel, and assembles links to tunnel servers,
// local targets, pacing of the uplink and the files on disk, each in a package below
// it. A [TunnelServer] is the tunnel server of package relay on a machine of its own.
//
// The panel decides what is served, and the tunnel servers bring the players. The two
// are independent: while the panel cannot be reached, links and players stay, and only
// the panel changes what is served.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/pacing"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

// Options configure an Agent.
type Options struct {
	// Client sends requests to the panel with the device's token. Required.
	Client *tunnel.Client
	// Name is what snapshots call the device; may be "".
	Name string
	// Allow lists the local hosts that may be dialled besides this machine, and
	// AllowPorts the ports of this machine that may be; none: all. See
	// [ParseAllowList].
	Allow, AllowPorts []string
	// StateFile keeps the last desired state, tickets included, for a start while
	// the panel cannot be reached; "" keeps nothing.
	StateFile string
	// Logger; nil discards.
	Logger *slog.Logger
	// Version is the agent's version and Platform its system, as the panel shows
	// them; "": "unknown", and the system it was built for.
	Version, Platform string
	// OnEvent is called with one event at a time, in order. It must not block for
	// long. May be nil.
	OnEvent func(Event)
	// PlainStreams lets tunnel servers with the same setting do without the
	// encryption of players' TCP bytes.
	PlainStreams bool
	// OneAddress has games on the loopback see all players at one address, instead of
	// each player at an address of 127.0.0.0/8 that is derived from the player's.
	OneAddress bool
	// Metrics holds the agent's metrics while it runs, those of one agent at a time.
	// nil: none.
	Metrics prometheus.Registerer
	// Channel and Backoff tune the control channel, and Standby the return after
	// another agent took over; the zero values are for use.
	Channel channel.Options
	Backoff backoff.Exponential
	Standby controlclient.StandbyTimes
}

// dataPlane applies a desired state to links, and reports on it.
type dataPlane interface {
	Apply(servers []types.ClientServer, allocations []types.ClientAllocation)
	Reports() []types.AllocationReport
	Links() []link.Link
	Carried() map[int64]target.Carried
	Run(ctx context.Context) error
}

// Agent is one tunnel client.
type Agent struct {
	opts    Options
	log     *slog.Logger
	links   dataPlane
	targets *target.Dialer // nil in tests that have no local targets.
	control *control
	panel   panelDialer
	pacer   *pacing.Pacer
	state   *store.State[types.ClientSnapshot]
	events  emitter
	metrics prometheus.Collector
	changed chan struct{} // Holds one signal: reports or desired state may differ.
	played  chan struct{} // Holds one signal: players have come, gone or been refused.
	view    *view
	missing map[int64]bool // Allocations that were noted to have no game. Guarded by events.

	// mu is taken by control's Reports: control is not called with it held.
	mu      sync.Mutex
	desired desired
	shown   map[int64]shownAllocation // Reported to OnEvent.
}

// New makes an agent.
func New(o Options) (*Agent, error) {
	if o.Client == nil {
		return nil, errors.New("agent: no client")
	}
	allow, err := ParseAllowList(o.Allow, o.AllowPorts)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Version, o.Platform = describe(o.Version, o.Platform)
	a, err := newAgent(o)
	if err != nil {
		return nil, err
	}
	targets := target.NewDialer(target.Options{
		Allow: allow.Check, AllowAddress: allow.CheckAddress, WatchAllow: allow.Watch,
		Logger: o.Logger, OneAddress: o.OneAddress, OnPlayers: a.playerChange,
	})
	links := link.New(link.Options{
		Targets: targets, Dialer: a.pacer.Dialer, Logger: o.Logger, OnChange: a.signal,
		PlainStreams: o.PlainStreams, PanelConnected: a.control.Connected,
	})
	a.links, a.targets, a.metrics = links, targets, metrics{control: a.control, links: links, targets: targets}
	return a, nil
}

func newAgent(o Options) (*Agent, error) {
	a := &Agent{
		opts:    o,
		log:     o.Logger,
		panel:   panelDialer{client: o.Client},
		pacer:   pacing.New(),
		state:   store.NewState[types.ClientSnapshot](o.StateFile, o.Logger),
		changed: make(chan struct{}, 1),
		played:  make(chan struct{}, 1),
		view:    newView(),
		missing: map[int64]bool{},
	}
	a.events = emitter{on: func(e Event) {
		a.noteEvent(e)
		if o.OnEvent != nil {
			o.OnEvent(e)
		}
	}}
	var err error
	a.control, err = newControl(a)
	return a, err
}

// describe fills in the defaults of what the panel shows of this program.
func describe(version, platform string) (string, string) {
	if version == "" {
		version = "unknown"
	}
	if platform == "" {
		platform = runtime.GOOS + "/" + runtime.GOARCH
	}
	return version, platform
}

// Run serves until ctx ends, when it returns nil, or until the agent must not
// reconnect by itself, when it returns a [*channel.FinalError]: the token is revoked or
// the device is deleted. After a newer agent of the device took over, it serves nothing
// and stands by until that one has been gone for a minute. All connections are closed
// when it returns. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if registry := a.opts.Metrics; registry != nil {
		if err := registry.Register(a.metrics); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		defer registry.Unregister(a.metrics)
	}
	stop := a.state.Start()
	defer stop()
	defer a.view.end()
	a.resume()
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return a.runLinks(inner) })
	group.Go(func() error { a.pacer.Run(inner); return nil })
	group.Go(func() error { return a.runControl(inner) })
	group.Go(func() error { return a.report(inner) })
	group.Go(func() error { a.notePlayers(inner); return nil })
	group.Go(func() error { a.watchPaused(inner); return nil })
	return a.events.stopped(ctx, group.Wait())
}

// signal has the reports compared with those sent. It does not block.
func (a *Agent) signal() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}
