// Package agent is the tunnel client as a library: the control channel to the
// panel, the links to tunnel servers, and the forwarding to local targets.
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
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/channel"
)

// maxControlMessage bounds one message of the panel. A snapshot spends about
// 300 bytes on an allocation, so that it holds every port of a tunnel server.
const maxControlMessage = 32 << 20

// Options say for whom an agent works and what it may reach.
type Options struct {
	// Client talks to the panel with the device's token. Required.
	Client *tunnel.Client
	// Allow lists the local hosts beside the loopback that may be dialled; see
	// [ParseAllowList].
	Allow []string
	// Logger; nil discards.
	Logger *slog.Logger
	// Version is the agent's own and Platform its system, as the panel shows
	// them; "" are "unknown" and the system it was built for.
	Version, Platform string
	// OnEvent hears of one event at a time, in order. It must not block for
	// long. May be nil.
	OnEvent func(Event)
	// Channel and Backoff tune the control channel; the zero values are for use.
	Channel channel.Options
	Backoff channel.Backoff
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
	changed chan struct{} // Holds one signal: reports or desired state may differ.

	// mu makes one step of applying a desired state and of reporting on one, so
	// that a report never names a revision that was not applied.
	mu      sync.Mutex
	desired desired
	conn    *channel.Conn             // nil until it has sent a snapshot.
	sent    map[int64]allocationState // What conn was told.
	shown   map[int64]shownAllocation // What OnEvent was told.

	eventMu sync.Mutex
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
	if o.Version == "" {
		o.Version = "unknown"
	}
	if o.Platform == "" {
		o.Platform = runtime.GOOS + "/" + runtime.GOARCH
	}
	if o.Channel.MaxMessage == 0 {
		o.Channel.MaxMessage = maxControlMessage
	}
	a := newAgent(o)
	a.links = newLinks(linkOptions{Allow: allow.Check, Logger: o.Logger, OnChange: a.signal})
	return a, nil
}

func newAgent(o Options) *Agent {
	return &Agent{opts: o, log: o.Logger, changed: make(chan struct{}, 1)}
}

// Run serves until ctx ends, when it returns nil, or until the agent must not
// go on by itself, when it returns a [*channel.FinalError]: the token is dead,
// the device is deleted, or a newer agent took over. All connections are closed
// when it returns. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return a.links.Run(inner) })
	group.Go(func() error { return a.control(inner) })
	group.Go(func() error { return a.report(inner) })
	err := group.Wait()
	var final *channel.FinalError
	switch {
	case errors.As(err, &final):
		a.emit(Event{Type: EventStopped, Reason: final.Reason})
		return final
	case ctx.Err() != nil:
		a.emit(Event{Type: EventStopped})
		return nil
	default:
		a.emit(Event{Type: EventStopped, Reason: err.Error()})
		return fmt.Errorf("run the agent: %w", err)
	}
}

// signal has the reports looked at. It never blocks.
func (a *Agent) signal() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *Agent) emit(e Event) {
	if a.opts.OnEvent == nil {
		return
	}
	a.eventMu.Lock()
	defer a.eventMu.Unlock()
	e.Time = time.Now().UTC()
	a.opts.OnEvent(e)
}
