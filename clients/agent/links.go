package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/pacing"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// linkOptions say how links are made.
type linkOptions struct {
	// Allow returns nil for a local host that may be dialled, otherwise an error
	// whose message says for people why not. Required.
	Allow func(host string) error
	// OnChange is called when Reports may have changed. It must not block or
	// call back. May be nil.
	OnChange func()
	// Logger; nil discards.
	Logger *slog.Logger
	// Limits bound what a tunnel server can make the agent hold.
	Limits linkLimits
	// Channel and Backoff tune links; the zero values are for use.
	Channel channel.Options
	Backoff backoff.Exponential
	// PlainStreams lets tunnel servers that are told the same do without the
	// encryption of players' TCP bytes.
	PlainStreams bool
	// Supervised reports whether the panel is there to say that another agent of
	// this device has taken over; nil: it never is.
	Supervised func() bool
	// Resolver resolves local hosts; nil: net.DefaultResolver.
	Resolver *net.Resolver
	// Proxy is asked for the HTTP proxy to reach a tunnel server through; nil:
	// http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
}

// linkLimits bound what a tunnel server can make the agent hold. The zero value
// of each means its default.
type linkLimits struct {
	DataConnections int           // Of one link; 0: 16,448, what a tunnel server allows and keeps warm.
	Dials           int           // Data connections of one link being opened at once; 0: 64.
	Flows           int           // UDP flows of one allocation; 0: 17,408, what a tunnel server allows and has just ended.
	DatagramQueue   int           // Bytes of datagrams waiting for one data connection; 0: udptunnel.DefaultQueue.
	DialTimeout     time.Duration // Of tunnel servers and local targets; 0: 10 s.
}

func (l linkLimits) withDefaults() linkLimits {
	if l.DataConnections == 0 {
		l.DataConnections = 16_448
	}
	if l.Dials == 0 {
		l.Dials = 64
	}
	if l.Flows == 0 {
		l.Flows = 17_408
	}
	if l.DialTimeout == 0 {
		l.DialTimeout = 10 * time.Second
	}
	return l
}

// links keeps one link to each tunnel server on which the client has
// allocations, or has players of allocations that have moved away.
type links struct {
	opts    linkOptions
	log     *slog.Logger
	targets *target.Dialer
	wake    chan struct{} // Holds one signal: the desired state has changed.
	final   chan error    // Holds the first end that is for good.

	counters counters
	pacer    *pacing.Pacer

	mu          sync.Mutex
	servers     map[uuid.UUID]types.ClientServer
	allocations []types.ClientAllocation
	running     map[uuid.UUID]*link
}

func newLinks(o linkOptions) *links {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	if o.Supervised == nil {
		o.Supervised = func() bool { return false }
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	o.Limits = o.Limits.withDefaults()
	l := &links{
		opts:    o,
		log:     o.Logger,
		wake:    make(chan struct{}, 1),
		final:   make(chan error, 1),
		servers: map[uuid.UUID]types.ClientServer{},
		running: map[uuid.UUID]*link{},
		pacer:   pacing.New(),
	}
	l.targets = target.NewDialer(target.Options{Allow: o.Allow, Timeout: o.Limits.DialTimeout, Resolver: o.Resolver, Logger: o.Logger})
	return l
}

// Apply replaces the desired state. It never blocks; Run makes it real. Nothing
// desired closes every link, and with it its players.
func (l *links) Apply(servers []types.ClientServer, allocations []types.ClientAllocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	needed := map[uuid.UUID]bool{}
	for _, a := range allocations {
		needed[a.ServerID] = true
		// Players are still there: the link stays until the panel says that none is.
		if a.Leaving != nil {
			for _, server := range *a.Leaving {
				needed[server] = true
			}
		}
	}
	l.servers = map[uuid.UUID]types.ClientServer{}
	for _, s := range servers {
		if needed[s.ID] {
			l.servers[s.ID] = s
		}
	}
	l.allocations = slices.Clone(allocations)
	l.targets.SetAllocations(allocations)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Reports returns what is true of the allocations now. An allocation whose
// tunnel server is being dialled for the first time is not among them.
func (l *links) Reports() []types.AllocationReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	var reports []types.AllocationReport
	for _, a := range l.allocations {
		report := types.AllocationReport{ID: a.ID, State: types.ReportReady}
		link := l.running[a.ServerID]
		if err := l.opts.Allow(a.LocalHost); err != nil {
			reason := err.Error()
			report.State, report.Reason = types.ReportFailed, &reason
		} else if link == nil || link.state == linkDialling {
			continue
		} else if link.state == linkDown {
			reason := link.reason
			report.State, report.Reason = types.ReportFailed, &reason
		}
		reports = append(reports, report)
	}
	return reports
}

// Run keeps the links until ctx ends, when it returns nil, or until a tunnel
// server says twice that a newer agent of this device took over, with no panel there
// to say so, when it returns a *channel.FinalError. Every link and data connection
// has ended when it returns. It may be called once.
func (l *links) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { l.pacer.Run(ctx) })
	for {
		l.reconcile(ctx, &running)
		select {
		case <-l.wake:
		case err := <-l.final:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// reconcile starts, renews and stops links until they are the desired ones.
func (l *links) reconcile(ctx context.Context, running *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, link := range l.running {
		s, ok := l.servers[id]
		if ok && s.Address == link.address {
			link.renew(s)
			continue
		}
		link.cancel()
		delete(l.running, id)
	}
	for id, s := range l.servers {
		if l.running[id] != nil {
			continue
		}
		linkCtx, cancel := context.WithCancel(ctx)
		link := newLink(l, s, cancel)
		l.running[id] = link
		running.Go(func() {
			defer cancel()
			var final *channel.FinalError
			if err := link.run(linkCtx); errors.As(err, &final) {
				select {
				case l.final <- final:
				default:
				}
			}
		})
	}
}

func (l *links) dialler(s types.ClientServer) *relayDialler {
	d := newRelayDialler(s.Address, s.Fingerprint, l.opts.Proxy, l.opts.Limits.DialTimeout, l.pacer)
	d.plain = l.opts.PlainStreams
	return d
}

// setState notes what has become of a link, and reports whether that is news.
func (l *links) setState(link *link, state linkState, reason string) (changed bool) {
	l.mu.Lock()
	changed = link.state != state || link.reason != reason
	link.state, link.reason = state, reason
	l.mu.Unlock()
	if changed {
		l.opts.OnChange()
	}
	return changed
}
