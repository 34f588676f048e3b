package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// errNotServed reports an allocation that is not, or no longer, this client's on
// the tunnel server that named it.
var errNotServed = errors.New("no such allocation on this tunnel server")

// DefaultTimeout bounds the dial of a local target.
const DefaultTimeout = 10 * time.Second

// Options configure a Dialer.
type Options struct {
	// Allow returns nil for a local host and port that may be dialled, otherwise an
	// error whose message tells people why not. Required.
	Allow func(host string, port int) error
	// AllowAddress does the same for an address of a host that Allow permits, before
	// each connection; nil: all are permitted.
	AllowAddress func(to netip.AddrPort) error
	// WatchAllow calls changed, until ctx ends, when Allow may return something else for
	// a host; nil: it never does.
	WatchAllow func(ctx context.Context, changed func())
	// Timeout bounds one dial; 0: DefaultTimeout.
	Timeout time.Duration
	// Resolver resolves local hosts; nil: net.DefaultResolver.
	Resolver *net.Resolver
	// Interfaces returns the addresses of this machine; nil: net.InterfaceAddrs.
	Interfaces func() ([]net.Addr, error)
	// OneAddress has games on the loopback see all players at the address that the
	// system chooses, instead of each at one of their own in 127.0.0.0/8.
	OneAddress bool
	// Files is how many files this process may have open: see [openfiles.Budget]; 0:
	// what the system says.
	Files int
	// OnPlayers is called when Players of an allocation's Carried may have changed. It
	// must not block, and must not call the Dialer. May be nil.
	OnPlayers func()
	// Logger; nil discards.
	Logger *slog.Logger
}

// Dialer connects players to the local targets of the client's allocations. It is
// safe for concurrent use.
type Dialer struct {
	allow    func(host string, port int) error
	allowTo  func(to netip.AddrPort) error
	watch    func(ctx context.Context, changed func())
	dialer   *dialer.Dialer
	log      *slog.Logger
	counters counters
	own      *ownAddresses
	sources  *loopbackSources // nil: the system chooses.
	files    *openfiles.Budget
	flows    openFlows
	hops     hops
	shared   sync.Once // Guards what is said once about games that see one address,
	unbound  sync.Once // and about a system that has no other one.
	health   health

	mu          sync.Mutex
	allocations map[int64]types.ClientAllocation
	conditions  map[int64]*condition // Of the targets of allocations.
	looped      map[int64]string     // By allocation: the target that is said to lead back.
	servers     map[uuid.UUID]types.ClientServer
	public      map[publicEnd]int64 // Where players reach the allocations.
	traffic     traffic
}

// NewDialer returns a Dialer without allocations.
func NewDialer(o Options) *Dialer {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Files == 0 {
		o.Files = openfiles.Limit()
	}
	files := openfiles.NewBudget(o.Files, o.Logger)
	d := &Dialer{
		files:       files,
		flows:       openFlows{files: files},
		allow:       o.Allow,
		allowTo:     o.AllowAddress,
		watch:       o.WatchAllow,
		log:         o.Logger,
		own:         newOwnAddresses(),
		allocations: map[int64]types.ClientAllocation{},
		conditions:  map[int64]*condition{},
		looped:      map[int64]string{},
		health:      newHealth(),
		traffic:     traffic{onPlayers: o.OnPlayers, carried: map[int64]*carried{}},
	}
	if d.allowTo == nil {
		d.allowTo = func(netip.AddrPort) error { return nil }
	}
	d.dialer = dialer.New(dialer.Options{Dial: d.dialAllowed, Resolver: o.Resolver, Timeout: o.Timeout})
	if o.Interfaces != nil {
		d.own.interfaces = o.Interfaces
	}
	if !o.OneAddress {
		d.sources = newLoopbackSources()
	}
	return d
}

// Check returns nil if an allocation's local target may be dialled, otherwise an error
// whose message tells people why not.
func (d *Dialer) Check(a types.ClientAllocation) error {
	if err := d.allow(a.LocalHost, a.LocalPort); err != nil {
		return err
	}
	if d.leadsBack(a, netip.Addr{}) != nil {
		return errLoop
	}
	return nil
}

// SetAllocations replaces the allocations that players may be connected to.
func (d *Dialer) SetAllocations(allocations []types.ClientAllocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.allocations)
	for _, a := range allocations {
		d.allocations[a.ID] = a
	}
	d.traffic.keep(d.allocations)
	d.setConditions()
	d.setPublic()
	for id, said := range d.looped {
		if a, ok := d.allocations[id]; !ok || said != address(a) {
			clear(d.looped) // It is not known which loops this one was a part of.
			break
		}
	}
}

// find returns an allocation for a player of a tunnel server: one that is placed
// there, or one that has moved away, since the tunnel server may have accepted a
// player before it learned of the move. It fails if the client has no such
// allocation, or if its local target is not allowed.
func (d *Dialer) find(server uuid.UUID, id int64, protocol types.Protocol) (types.ClientAllocation, error) {
	d.mu.Lock()
	a, ok := d.allocations[id]
	d.mu.Unlock()
	if !ok || a.Protocol != protocol || a.ServerID != server && (a.Leaving == nil || !slices.Contains(*a.Leaving, server)) {
		return a, errNotServed
	}
	err := d.Check(a)
	if errors.Is(err, errLoop) {
		d.sayLoop(a, d.leadsBack(a, netip.Addr{}))
	}
	return a, err
}

// DialTCP connects a player of a tunnel server to the local target of an allocation,
// and sends the PROXY protocol header that the allocation asks for. If it succeeds, the
// caller calls Left once the connection has ended: the address that the game sees is
// that player's until then.
func (d *Dialer) DialTCP(ctx context.Context, server uuid.UUID, open wire.Control) (game tcpstream.Game, err error) {
	a, err := d.find(server, open.Allocation, types.ProtocolTCP)
	if err != nil {
		d.log.Debug("player refused", slog.Int64("allocationId", open.Allocation), slog.Any("reason", err))
		d.traffic.refused(open.Allocation)
		return tcpstream.Game{}, err
	}
	counted := d.traffic.enter(a.ID)
	defer func() {
		if err != nil {
			d.traffic.refused(a.ID)
			d.traffic.leave(counted)
		}
	}()
	header, err := proxyHeader(a, open.Source, open.Destination)
	if err != nil {
		d.log.Warn("player refused", slog.Int64("allocationId", a.ID), slog.Any("reason", err))
		return tcpstream.Game{}, err
	}
	if err := d.checkLoop(a, open.Source); err != nil {
		return tcpstream.Game{}, err
	}
	if !d.files.Take(a.ID, tcpFiles) {
		return tcpstream.Game{}, errFiles
	}
	source, release := d.source(a, open.Source.Addr())
	forget := func() {}
	leave := func() {
		forget()
		release()
		d.files.Give(a.ID, tcpFiles)
	}
	defer func() {
		if err != nil {
			leave()
		}
	}()
	conn, err := d.connect(ctx, a, source)
	if err != nil {
		return tcpstream.Game{}, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return tcpstream.Game{}, fmt.Errorf("dial %s: got a %T", conn.RemoteAddr(), conn)
	}
	if local, ok := tcp.LocalAddr().(*net.TCPAddr); ok {
		forget = d.hops.add(a, local.AddrPort(), open.Source)
	}
	if len(header) > 0 {
		// It fits the buffer of any new connection: this does not wait for the game.
		if _, err := tcp.Write(header); err != nil {
			tcpstream.Reset(tcp)
			return tcpstream.Game{}, err
		}
	}
	d.traffic.join(counted)
	return tcpstream.Game{Conn: tcp, Counters: &counted.Counters, Left: func() {
		leave()
		d.traffic.part(counted)
		d.traffic.leave(counted)
	}}, nil
}

// connect opens a socket to an allocation's local target, from source if that is valid
// and the target is on the loopback of IPv4.
func (d *Dialer) connect(ctx context.Context, a types.ClientAllocation, source netip.Addr) (net.Conn, error) {
	conn, err := d.dialer.DialContext(withSource(ctx, a, source), string(a.Protocol), address(a))
	if err != nil && ctx.Err() == nil {
		d.counters.dialFailures.Add(1)
	}
	if ctx.Err() == nil && !errors.Is(err, errLoop) && (err != nil || a.Protocol == types.ProtocolTCP) {
		// An open UDP socket does not show that the target is reachable.
		d.reached(a, err)
	}
	return conn, err
}

// dialAllowed connects to one address if that may be dialled for the allocation of ctx.
func (d *Dialer) dialAllowed(ctx context.Context, network, address string) (net.Conn, error) {
	if to, err := netip.ParseAddrPort(address); err == nil {
		if err := d.allowTo(to); err != nil {
			return nil, err
		}
		a := allocationOf(ctx)
		if through := d.leadsBack(a, to.Addr()); through != nil {
			d.sayLoop(a, through)
			return nil, errLoop
		}
	}
	return d.dialFrom(ctx, network, address)
}

// Failed records that a local target ended a connection before it sent anything, as a
// container's port does where its game does not listen on that IP version. If the name
// has other addresses, the next player gets another one.
func (d *Dialer) Failed(remote net.Addr) { d.dialer.Failed(remote) }

func address(a types.ClientAllocation) string {
	return net.JoinHostPort(a.LocalHost, strconv.Itoa(a.LocalPort))
}
