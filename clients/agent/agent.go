// Package agent is what runs on an enrolled machine, as a library. An [Agent] is
// a tunnel client: the control channel to the panel, the links to tunnel servers,
// and the forwarding to local targets. A [TunnelServer] is the tunnel server of
// package relay on a machine of its own.
//
// The panel says what shall be served and the tunnel servers bring the players.
// The two are independent: with the panel away, links and players stay as they
// are, and only a word from the panel changes what is served.
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

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// Options say for whom an agent works and what it may reach.
type Options struct {
	// Client talks to the panel with the device's token. Required.
	Client *tunnel.Client
	// Allow lists the local hosts beside the loopback that may be dialled; see
	// [ParseAllowList].
	Allow []string
	// StateFile keeps what the panel last wanted, tickets included, so that a
	// start that finds the panel away serves it; "" keeps nothing.
	StateFile string
	// Logger; nil discards.
	Logger *slog.Logger
	// Version is the agent's own and Platform its system, as the panel shows
	// them; "" are "unknown" and the system it was built for.
	Version, Platform string
	// OnEvent hears of one event at a time, in order. It must not block for
	// long. May be nil.
	OnEvent func(Event)
	// PlainStreams lets tunnel servers that are told the same do without the
	// encryption of players' TCP bytes.
	PlainStreams bool
	// Metrics is given the agent's metrics for as long as it runs. It may hold
	// those of one agent at a time. nil: none.
	Metrics prometheus.Registerer
	// Channel and Backoff tune the control channel; the zero values are for use.
	Channel channel.Options
	Backoff backoff.Exponential
}

// dataPlane is what the agent needs of its links.
type dataPlane interface {
	Apply(servers []types.ClientServer, allocations []types.ClientAllocation)
	Reports() []types.AllocationReport
	Run(ctx context.Context) error
}

// Agent is one tunnel client.
type Agent struct {
	opts    Options
	log     *slog.Logger
	links   dataPlane
	control *control
	state   *store.State[types.ClientSnapshot]
	events  emitter
	metrics prometheus.Collector
	changed chan struct{} // Holds one signal: reports or desired state may differ.

	// mu is taken by control's Reports: control is not called with it held.
	mu      sync.Mutex
	desired desired
	shown   map[int64]shownAllocation // What OnEvent was told.
}

// New makes an agent.
func New(o Options) (*Agent, error) {
	if o.Client == nil {
		return nil, errors.New("agent: no client")
	}
	allow, err := ParseAllowList(o.Allow)
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
	links := newLinks(linkOptions{
		Allow: allow.Check, Logger: o.Logger, OnChange: a.signal, PlainStreams: o.PlainStreams, Supervised: a.control.Connected,
	})
	a.links, a.metrics = links, metrics{links: links, control: a.control}
	return a, nil
}

func newAgent(o Options) (*Agent, error) {
	a := &Agent{
		opts:    o,
		log:     o.Logger,
		state:   store.NewState[types.ClientSnapshot](o.StateFile, o.Logger),
		events:  emitter{on: o.OnEvent},
		changed: make(chan struct{}, 1),
	}
	var err error
	a.control, err = newControl(a)
	return a, err
}

// describe fills in what the panel is told of this program.
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
// go on by itself, when it returns a [*channel.FinalError]: the token is dead,
// the device is deleted, or a newer agent took over. All connections are closed
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
	a.resume()
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return a.links.Run(inner) })
	group.Go(func() error { return a.runControl(inner) })
	group.Go(func() error { return a.report(inner) })
	return a.events.stopped(ctx, group.Wait())
}

// signal has the reports looked at. It never blocks.
func (a *Agent) signal() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}
