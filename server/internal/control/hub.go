// Package control serves the control channels of one replica of the panel: it sends
// desired state to devices and receives their reports. It uses WebSockets and rows, but
// neither SQL nor HTTP handlers.
//
// Replicas share nothing but the database. A database event says that something changed
// for a device; the goroutine of the device's channel then reads the rows again and
// sends the difference from what it last sent. A lost event loses nothing: after a gap
// in events everything is read again.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server/internal/tracing"
)

const (
	// maxReads bounds concurrent reads of the desired state of tunnel servers. After a
	// lost listener every channel reads, and the rest of the panel needs database
	// connections too. What many channels read and write otherwise shares statements.
	maxReads = 3
	// Shutdown closes channels in batches of shutdownBatch, or larger ones so that there
	// are at most maxShutdownBatches, with a pause in between.
	shutdownBatch      = 200
	maxShutdownBatches = 25
	shutdownPause      = 100 * time.Millisecond
	// bufferSize is the size in bytes of a channel's read buffer, and of the write buffers
	// that the channels share. Larger messages take several reads and writes.
	bufferSize = 1 << 10
	// batch is the maximum number of devices looked up in one query.
	batch = 1000
	// lease is how long the devices of a replica that died are still shown as online.
	// It is renewed three times in that period.
	lease = 15 * time.Second
	// ticketRenewal is half the lifetime of a ticket: a client that loses the panel can
	// open links for at least that long.
	ticketRenewal = 12 * time.Hour
)

// Store is the part of the database that control uses.
type Store interface {
	Settings(ctx context.Context) (db.Settings, error)
	Listen(ctx context.Context) (<-chan db.Event, error)

	Connect(ctx context.Context, device uuid.UUID, hello db.Hello) (generation int64, err error)
	Disconnect(ctx context.Context, device uuid.UUID, generation int64, reason string) error
	Channels(ctx context.Context, devices []uuid.UUID) (map[uuid.UUID]db.Channel, error)
	ClientState(ctx context.Context, device uuid.UUID) (db.ClientState, error)
	ServerState(ctx context.Context, device uuid.UUID) (db.ServerState, error)
	SaveReports(ctx context.Context, device uuid.UUID, kind string, reports []db.Report) error
	SaveDrained(ctx context.Context, server uuid.UUID, ports []db.DrainedPort) error
	SavePlayers(ctx context.Context, server uuid.UUID, players int) error
	SaveConnections(ctx context.Context, server uuid.UUID, changes db.ConnectionChanges) error
	CutConnections(ctx context.Context, server uuid.UUID, keptOut bool) ([]int64, error)
	AddRefusals(ctx context.Context, server uuid.UUID, refusals []db.PortRefusals) error
	AddUsage(ctx context.Context, server uuid.UUID, report db.UsageReport) error
	AdvanceDrains(ctx context.Context) (more bool, err error)
	TakeProbes(ctx context.Context, device uuid.UUID) ([]db.Probe, error)
	AnswerProbe(ctx context.Context, device, id uuid.UUID, answer json.RawMessage) error

	RenewLease(ctx context.Context, replica uuid.UUID, lease time.Duration) error
	ReleaseReplica(ctx context.Context, replica uuid.UUID) error
	ReconcilePresence(ctx context.Context, replica uuid.UUID, connected func() []uuid.UUID) error
}

// Options configures a Hub.
type Options struct {
	Store Store // Required.
	// Ticket issues a ticket with which a client authenticates to a tunnel server
	// that was last connected at serverSeen. It must be safe for concurrent use.
	// Required.
	Ticket func(client, server uuid.UUID, tokenVersion int64, serverSeen time.Time) (string, error)
	// Keys returns the public keys with which tunnel servers verify tickets. Required.
	Keys func() types.JWKS
	// ReloadKeys makes Ticket and Keys use the current keys. It reports whether any
	// were revoked, in which case tickets must be replaced. Required.
	ReloadKeys func(ctx context.Context) (revoked bool, err error)
	// PanelID returns the identity of the panel, for snapshots. nil sends none.
	PanelID func() uuid.UUID
	// Caller returns the authenticated device of a request. Required.
	Caller func(ctx context.Context) (Device, bool)

	// Traces makes a span of each message. nil makes none.
	Traces *tracing.Tracer

	Logger *slog.Logger // nil is slog.Default.
	// Channel configures the liveness checks of channels.
	Channel channel.Options
	// MaxChannels is the maximum number of control channels; further ones get 503. 0 does
	// not bound.
	MaxChannels int
	// HelloTimeout bounds the wait for a device's first message. 0 is the contract's
	// 10 seconds.
	HelloTimeout time.Duration
	// Every returns a ticker; nil is time.NewTicker. Tests replace it.
	Every func(time.Duration) (ticks <-chan time.Time, stop func())
}

// Device is the device that opens a control channel, as its token identifies it.
type Device struct {
	ID           uuid.UUID
	Kind         types.DeviceKind
	TokenVersion int64
	// TokenKey is the id of the key that signed the token; empty if not known.
	TokenKey string
	// CalledFrom is the public host of a tunnel server if it is guessed from the request;
	// empty if it is not known.
	CalledFrom string
	// Address is where the request comes from; the zero Addr if it is not known.
	Address netip.Addr
}

// Hub serves the control channels of one replica.
type Hub struct {
	opts     Options
	replica  uuid.UUID
	upgrader websocket.Upgrader
	reads    chan struct{} // Semaphore of maxReads.

	// reconcile is set when the database's view of presence may be wrong.
	reconcile atomic.Bool

	stop       context.CancelFunc // Cancels the goroutines of Start.
	background sync.WaitGroup     // The goroutines of Start.
	channels   sync.WaitGroup     // Channels; grows only while not stopping.
	// newContext returns the context of a channel. It ends with that of Start, and
	// outlives the request that opens the channel.
	newContext func() (context.Context, context.CancelFunc)

	mu       sync.Mutex
	stopping bool
	off      bool                   // Tunnels are switched off.
	open     map[*session]struct{}  // All channels, from the upgrade on.
	current  map[uuid.UUID]*session // The newest channel of each device, from register on.
	online   map[uuid.UUID]int      // Number of channels that the database may show as online.
	sequence uint64                 // Number of channels accepted so far.
	opened   map[types.DeviceKind]uint64
	closed   map[Ending]uint64
}

// New returns a Hub. Call Start before it serves channels.
func New(opts Options) (*Hub, error) {
	if opts.Store == nil || opts.Ticket == nil || opts.Keys == nil || opts.ReloadKeys == nil || opts.Caller == nil {
		return nil, errors.New("control: Store, Ticket, Keys, ReloadKeys and Caller are required")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	// Devices send the pings, which halves the work for thousands of idle channels.
	opts.Channel.Lazy = true
	if opts.HelloTimeout == 0 {
		opts.HelloTimeout = defaultHelloTimeout
	}
	if opts.Every == nil {
		opts.Every = func(d time.Duration) (<-chan time.Time, func()) {
			ticker := time.NewTicker(d)
			return ticker.C, ticker.Stop
		}
	}
	return &Hub{
		opts:    opts,
		replica: uuid.New(),
		upgrader: websocket.Upgrader{
			HandshakeTimeout: opts.HelloTimeout, Error: refuse, EnableCompression: true,
			// Without sizes, each channel would keep the buffers of its request.
			ReadBufferSize: bufferSize, WriteBufferSize: bufferSize, WriteBufferPool: new(sync.Pool),
		},
		reads:   make(chan struct{}, maxReads),
		open:    map[*session]struct{}{},
		current: map[uuid.UUID]*session{},
		online:  map[uuid.UUID]int{},
		opened:  map[types.DeviceKind]uint64{},
		closed:  map[Ending]uint64{},
	}, nil
}

func (h *Hub) panelID() *uuid.UUID {
	if h.opts.PanelID == nil {
		return nil
	}
	id := h.opts.PanelID()
	return &id
}

// Start claims the replica's lease, listens for database events and starts serving
// channels. Its goroutines run until ctx ends or Shutdown is called. If Start fails,
// none are left running.
func (h *Hub) Start(ctx context.Context) error {
	ctx, h.stop = context.WithCancel(ctx)
	h.newContext = func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }
	if err := h.start(ctx); err != nil {
		h.stop()
		return err
	}
	return nil
}

// Shutdown closes every channel with code 1012, which tells devices to reconnect, and
// waits for all goroutines. It returns ctx's error if ctx ends first.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.stopping = true
	sessions := slices.Collect(maps.Keys(h.open))
	h.mu.Unlock()
	closeInBatches(ctx, sessions)
	if err := wait(ctx, &h.channels); err != nil {
		return err
	}
	// The lease is released last. A renewal after the release would restore it and
	// show devices as online for its whole duration.
	h.stop()
	if err := wait(ctx, &h.background); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	return h.opts.Store.ReleaseReplica(ctx, h.replica)
}

// closeInBatches spreads the closing of many channels over time, because their devices
// reconnect to other replicas within a quarter of a second.
func closeInBatches(ctx context.Context, sessions []*session) {
	size := max(shutdownBatch, (len(sessions)+maxShutdownBatches-1)/maxShutdownBatches)
	for i, part := range slices.Collect(slices.Chunk(sessions, size)) {
		if i > 0 {
			select {
			case <-time.After(shutdownPause):
			case <-ctx.Done(): // Close the rest at once.
			}
		}
		for _, s := range part {
			s.close(channel.CloseRestarting, restarting)
		}
	}
}

// releaseTimeout bounds the release of the lease, which otherwise runs out by itself: a
// database that stalls must not use up the time of the parts that stop after the hub.
const releaseTimeout = 2 * time.Second

// wait waits for group until ctx ends.
func wait(ctx context.Context, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
