package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/internal/lograte"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
)

// Options configure a Manager.
type Options struct {
	// Targets connects players to local targets. Required.
	Targets *target.Dialer
	// OnChange is called when Reports may have changed. It must not block, and must
	// not call the Manager. May be nil.
	OnChange func()
	// Logger; nil discards.
	Logger *slog.Logger
	// Limits bound what a tunnel server can make the agent hold.
	Limits Limits
	// Channel and Backoff tune links; the zero values are for use, with waits of up to
	// 1.5 s: the players of a tunnel server that has restarted wait for its links.
	Channel channel.Options
	Backoff backoff.Exponential
	// PlainStreams lets tunnel servers with the same setting do without the
	// encryption of players' TCP bytes.
	PlainStreams bool
	// PanelConnected reports whether the panel can say that another agent of this
	// device has taken over; nil: it never can.
	PanelConnected func() bool
	// Proxy returns the HTTP proxy for a request to a tunnel server; nil:
	// http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
	// Dialer returns the dial function for connections to tunnel servers with the
	// settings of a dialer; nil: the dialer's DialContext.
	Dialer func(net.Dialer) DialFunc
	// Resolver resolves the names of tunnel servers; nil: net.DefaultResolver.
	Resolver *net.Resolver
}

// maxBackoff is the longest wait between two dials of a link. Most of those that fail
// find no tunnel server, and cost nobody more than a packet.
const maxBackoff = 1500 * time.Millisecond

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Limits bound what a tunnel server can make the agent hold. The zero value of each
// means its default.
type Limits struct {
	DataConnections int // Of one link; 0: 20,544, what a tunnel server allows and keeps warm.
	// Streams is how many stream data connections all links together may have open, which
	// tunnel servers are told. 0: as many as players may have files, one for each
	// connection to a game; see [openfiles.Share].
	Streams int
	// OpenFlows is how many UDP flows all links together can have open, which tunnel servers
	// are told. 0: seven eighths of as many as players may have files. The rest is for flows
	// that a tunnel server has replaced, and whose end the agent learns after the beginning
	// of the next.
	OpenFlows     int
	Dials         int           // Data connections of one link being opened at once; 0: 64.
	Flows         int           // UDP flows of one allocation; 0: 17,408, what a tunnel server allows and has just ended.
	DatagramQueue int           // Bytes of datagrams waiting for one data connection; 0: udptunnel.DefaultQueue.
	DialTimeout   time.Duration // Of tunnel servers; 0: 10 s.
}

func (l Limits) withDefaults() Limits {
	if l.DataConnections == 0 {
		l.DataConnections = 20_544
	}
	if l.Streams == 0 {
		if share := openfiles.Share(openfiles.Limit()); share > 0 {
			l.Streams = max(1, share/2)
		}
	}
	if l.OpenFlows == 0 {
		share := openfiles.Share(openfiles.Limit())
		l.OpenFlows = share - share/8
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

// config is what all links of a Manager share.
type config struct {
	Options
	line     *dialer.Dialer // To tunnel servers.
	counters counters
	streams  atomic.Int64     // Stream data connections that are open or being opened.
	full     *lograte.Limiter // Of lines that say that they are Limits.Streams.
}

// reserve reserves up to n stream data connections, so that files are left for everything
// else, and returns how many.
func (c *config) reserve(n int) int {
	if c.Limits.Streams == 0 {
		c.streams.Add(int64(n))
		return n
	}
	excess := c.streams.Add(int64(n)) - int64(c.Limits.Streams)
	if excess >= 0 && c.full.Allow(0) {
		c.Logger.Warn("as many data connections are open as the system lets this program have files: further players may be refused; raise the limit (ulimit -n, LimitNOFILE)",
			slog.Int("streams", c.Limits.Streams))
	}
	excess = min(max(0, excess), int64(n))
	c.streams.Add(-excess)
	return n - int(excess)
}

func newConfig(o Options) *config {
	return &config{Options: o, full: lograte.New(time.Minute), line: dialer.New(dialer.Options{
		Dial:     o.Dialer(net.Dialer{}),
		Resolver: o.Resolver,
		Timeout:  min(o.Limits.DialTimeout, connectTimeout),
	})}
}

// Manager keeps one link to each tunnel server on which the client has allocations,
// or still has players of allocations that have moved away. It is safe for
// concurrent use.
type Manager struct {
	config *config
	wake   chan struct{} // Holds one signal: the desired state has changed.
	final  chan error    // Holds the first final error of a link; one for each Run.

	mu          sync.Mutex
	servers     map[uuid.UUID]types.ClientServer
	allocations []types.ClientAllocation
	links       map[uuid.UUID]*link // By tunnel server.
}

// New returns a Manager without links.
func New(o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	if o.PanelConnected == nil {
		o.PanelConnected = func() bool { return false }
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	if o.Dialer == nil {
		o.Dialer = func(d net.Dialer) DialFunc { return d.DialContext }
	}
	if o.Backoff.Max == 0 {
		o.Backoff.Max = maxBackoff
	}
	o.Limits = o.Limits.withDefaults()
	return &Manager{
		config:  newConfig(o),
		wake:    make(chan struct{}, 1),
		servers: map[uuid.UUID]types.ClientServer{},
		links:   map[uuid.UUID]*link{},
	}
}

// Apply replaces the desired state. It does not block; Run opens and closes links
// accordingly. An empty state closes every link and disconnects its players.
func (m *Manager) Apply(servers []types.ClientServer, allocations []types.ClientAllocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	needed := map[uuid.UUID]bool{}
	for _, a := range allocations {
		needed[a.ServerID] = true
		if a.Leaving == nil {
			continue
		}
		// Players are still there: the link stays until the panel reports that none is.
		for _, server := range *a.Leaving {
			needed[server] = true
		}
	}
	m.servers = map[uuid.UUID]types.ClientServer{}
	for _, s := range servers {
		if needed[s.ID] {
			m.servers[s.ID] = s
		}
	}
	m.allocations = slices.Clone(allocations)
	m.config.Targets.SetServers(servers)
	m.config.Targets.SetAllocations(allocations)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Reports returns the current state of the allocations. It leaves out allocations
// whose tunnel server is being dialled for the first time.
func (m *Manager) Reports() []types.AllocationReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	var reports []types.AllocationReport
	for _, a := range m.allocations {
		report := types.AllocationReport{ID: a.ID, State: types.ReportReady}
		state, reason := dialling, ""
		if l := m.links[a.ServerID]; l != nil {
			state, reason = l.status()
		}
		if err := m.config.Targets.Check(a); err != nil {
			reason = err.Error()
			report.State, report.Reason = types.ReportFailed, &reason
		} else if state == dialling {
			continue
		} else if state == down {
			report.State, report.Reason = types.ReportFailed, &reason
		}
		if known, reason := m.config.Targets.State(a.ID); known != types.TargetUnknown {
			report.Target = &known
			if known == types.TargetDown {
				report.TargetReason = &reason
			}
		}
		reports = append(reports, report)
	}
	return reports
}

// Run keeps the links until ctx ends, when it returns nil, or until a tunnel server
// reports twice that a newer agent of this device took over while the panel cannot
// be asked, when it returns a *channel.FinalError. Every link and data connection
// has ended when it returns. It may be called again. A link that has ended is started
// again once Apply has been given a state without its tunnel server and then one with
// it.
func (m *Manager) Run(ctx context.Context) error {
	m.final = make(chan error, 1) // An earlier Run may have returned before it read its own.
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { m.config.Targets.Watch(ctx, m.config.OnChange) })
	for {
		m.reconcile(ctx, &running)
		select {
		case <-m.wake:
		case err := <-m.final:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// reconcile starts, updates and stops links to match the desired state.
func (m *Manager) reconcile(ctx context.Context, running *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, l := range m.links {
		s, ok := m.servers[id]
		if ok && s.Address == l.address {
			l.update(s)
			continue
		}
		l.cancel()
		delete(m.links, id)
	}
	for id, s := range m.servers {
		if m.links[id] != nil {
			continue
		}
		linkCtx, cancel := context.WithCancel(ctx)
		l := newLink(m.config, s, cancel)
		m.links[id] = l
		running.Go(func() {
			defer cancel()
			var final *channel.FinalError
			if err := l.run(linkCtx); errors.As(err, &final) {
				select {
				case m.final <- final:
				default:
				}
			}
		})
	}
}
