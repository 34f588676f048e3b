// Package control holds the live control channels of one replica of the panel:
// desired state goes down to devices, what is true comes up from them. It knows
// WebSockets and rows, not SQL and not HTTP handlers.
//
// Replicas share nothing but the database. Its events say that something
// changed for a device; the channel's own goroutine then reads the rows again
// and sends what differs from what it last sent. Nothing is lost with an event:
// after a gap in events everything is read again.
package control

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

const (
	// maxReads bounds the states read at once: after a lost listener every
	// channel reads, and the rest of the panel needs connections too.
	maxReads = 8
	// maxConnects bounds the devices noted as connected at once. Together with
	// maxReads it is less than the pool of connections has.
	maxConnects = 4
	// handOverStep channels are closed at a time, or more so that there are no more
	// than handOverSteps, with a pause between.
	handOverStep  = 200
	handOverSteps = 25
	handOverPause = 100 * time.Millisecond
	// batch bounds the devices looked up in one query.
	batch = 1000
	// lease is how long a replica that is gone still counts; it is renewed
	// three times in that.
	lease = 15 * time.Second
	// ticketRenewal is half of a ticket's life: a client that loses the panel
	// can open links for at least that long.
	ticketRenewal = 12 * time.Hour
)

// Store is what control needs of the database.
type Store interface {
	Settings(ctx context.Context) (db.Settings, error)
	Listen(ctx context.Context) (<-chan db.Event, error)

	Connect(ctx context.Context, device uuid.UUID, hello db.Hello) (generation int64, err error)
	Disconnect(ctx context.Context, device uuid.UUID, generation int64) error
	Channels(ctx context.Context, devices []uuid.UUID) (map[uuid.UUID]db.Channel, error)
	ClientState(ctx context.Context, device uuid.UUID) (db.ClientState, error)
	ServerState(ctx context.Context, device uuid.UUID) (db.ServerState, error)
	SaveReports(ctx context.Context, device uuid.UUID, kind string, reports []db.Report) error
	SaveDrained(ctx context.Context, server uuid.UUID, ports []db.DrainedPort) error
	SavePlayers(ctx context.Context, server uuid.UUID, players int) error
	AdvanceDrains(ctx context.Context) (more bool, err error)

	RenewLease(ctx context.Context, replica uuid.UUID, lease time.Duration) error
	ReleaseReplica(ctx context.Context, replica uuid.UUID) error
	ReconcilePresence(ctx context.Context, replica uuid.UUID, connected func() []uuid.UUID) error
}

// Options say what a Hub works with.
type Options struct {
	Store Store // Required.
	// Ticket signs a ticket with which a client proves itself to a tunnel
	// server that was last seen connected at a time. Required; called from many
	// goroutines.
	Ticket func(client, server uuid.UUID, tokenVersion int64, serverSeen time.Time) (string, error)
	// Keys are the public keys that tunnel servers verify tickets with. Required.
	Keys func() types.JWKS
	// ReloadKeys has Ticket and Keys work with the keys that there are now. It
	// reports whether some were revoked, so that tickets have to be replaced.
	// Required.
	ReloadKeys func(ctx context.Context) (revoked bool, err error)
	// Caller is the device that the request's credential stands for. Required.
	Caller func(ctx context.Context) (Device, bool)

	Logger *slog.Logger // nil: slog.Default().
	// Channel tunes the channels' liveness.
	Channel channel.Options
	// HelloTimeout bounds the wait for a device's first message; 0: 10 s, the
	// contract's.
	HelloTimeout time.Duration
	// Every ticks until stop is called; nil: time.NewTicker. Tests move time by it.
	Every func(time.Duration) (ticks <-chan time.Time, stop func())
}

// Device is who opens a control channel, as its token says.
type Device struct {
	ID           uuid.UUID
	Kind         types.DeviceKind
	TokenVersion int64
	// TokenKey is the id of the key that signed the token; empty where not known.
	TokenKey string
}

// Hub is the control channels of one replica.
type Hub struct {
	opts     Options
	replica  uuid.UUID
	upgrader websocket.Upgrader
	reads    chan struct{} // A slot for each state being read.
	connects chan struct{} // A slot for each device being connected.

	// reconcile is set when presence may differ from what the database says.
	reconcile atomic.Bool

	stop       context.CancelFunc // Ends what Start has started.
	background sync.WaitGroup     // What Start has started.
	handlers   sync.WaitGroup     // Channels; grows only while not stopping.

	mu       sync.Mutex
	stopping bool
	off      bool                   // Tunnels are switched off.
	open     map[*session]struct{}  // From the upgrade on.
	current  map[uuid.UUID]*session // The newest of each device, from register on.
	online   map[uuid.UUID]int      // Channels that the database may call online.
	arrivals uint64
	opened   map[types.DeviceKind]uint64
	closed   map[Ending]uint64
}

// New makes a Hub, which serves once it has been started.
func New(opts Options) (*Hub, error) {
	if opts.Store == nil || opts.Ticket == nil || opts.Keys == nil || opts.ReloadKeys == nil || opts.Caller == nil {
		return nil, errors.New("control: Store, Ticket, Keys, ReloadKeys and Caller are required")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	// Devices ping; that is half of what keeps thousands of idle channels alive.
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
		opts:     opts,
		replica:  uuid.New(),
		upgrader: websocket.Upgrader{HandshakeTimeout: opts.HelloTimeout, Error: refuse},
		reads:    make(chan struct{}, maxReads),
		connects: make(chan struct{}, maxConnects),
		open:     map[*session]struct{}{},
		current:  map[uuid.UUID]*session{},
		online:   map[uuid.UUID]int{},
		opened:   map[types.DeviceKind]uint64{},
		closed:   map[Ending]uint64{},
	}, nil
}

// Start claims the replica's lease, listens to the database and begins to serve
// channels. What it starts lives until ctx ends or Shutdown. On an error nothing
// is left running.
func (h *Hub) Start(ctx context.Context) error {
	ctx, h.stop = context.WithCancel(ctx)
	if err := h.start(ctx); err != nil {
		h.stop()
		return err
	}
	return nil
}

// Shutdown closes every channel with 1012, so that devices come back soon, and
// waits for all goroutines. It returns early with ctx's error when ctx ends.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.stopping = true
	sessions := slices.Collect(maps.Keys(h.open))
	h.mu.Unlock()
	handOver(ctx, sessions)
	if err := wait(ctx, &h.handlers); err != nil {
		return err
	}
	// The lease goes last: renewed after its release it would come back and
	// show devices online for its whole length.
	h.stop()
	if err := wait(ctx, &h.background); err != nil {
		return err
	}
	return h.opts.Store.ReleaseReplica(ctx, h.replica)
}

// handOver closes channels in steps where there are many: their devices are at
// the other replicas' doors within a quarter of a second.
func handOver(ctx context.Context, sessions []*session) {
	size := max(handOverStep, (len(sessions)+handOverSteps-1)/handOverSteps)
	for i, part := range slices.Collect(slices.Chunk(sessions, size)) {
		if i > 0 {
			select {
			case <-time.After(handOverPause):
			case <-ctx.Done(): // The rest follow at once.
			}
		}
		for _, s := range part {
			s.close(channel.CloseRestarting, restarting)
		}
	}
}

// wait is Wait with an end.
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
