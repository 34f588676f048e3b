package agent

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
	proxyproto "github.com/pires/go-proxyproto"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// errNotServed means that a tunnel server named an allocation that is not, or
// not any more, the client's on that tunnel server.
var errNotServed = errors.New("no such allocation on this tunnel server")

// targets are the local programs that players are brought to.
type targets struct {
	allow    func(host string) error
	dialer   net.Dialer
	log      *slog.Logger
	counters *counters

	mu          sync.Mutex
	allocations map[int64]types.ClientAllocation
	down        map[int64]bool // Those that could not be reached when last tried.
}

func newTargets(allow func(string) error, timeout time.Duration, log *slog.Logger, counters *counters) *targets {
	return &targets{
		allow:       allow,
		dialer:      net.Dialer{Timeout: timeout, Control: boundWindow},
		log:         log,
		counters:    counters,
		allocations: map[int64]types.ClientAllocation{},
		down:        map[int64]bool{},
	}
}

func (t *targets) set(allocations []types.ClientAllocation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.allocations)
	for _, a := range allocations {
		t.allocations[a.ID] = a
	}
	for id := range t.down {
		if _, ok := t.allocations[id]; !ok {
			delete(t.down, id)
		}
	}
}

// leaving are the tunnel servers that an allocation has moved away from and that
// players may still be on.
func leaving(a types.ClientAllocation) []uuid.UUID {
	if a.Leaving == nil {
		return nil
	}
	return *a.Leaving
}

// find returns an allocation that a tunnel server may bring players to: the one it
// is on, or one it has left, which may have taken a player before it heard of that.
func (t *targets) find(server uuid.UUID, id int64, protocol types.Protocol) (types.ClientAllocation, error) {
	t.mu.Lock()
	a, ok := t.allocations[id]
	t.mu.Unlock()
	if !ok || a.Protocol != protocol || a.ServerID != server && !slices.Contains(leaving(a), server) {
		return a, errNotServed
	}
	return a, t.allow(a.LocalHost)
}

// dial brings a player to an allocation's local target, and tells the target
// who it is where the allocation asks for it.
func (t *targets) dial(ctx context.Context, server uuid.UUID, open wire.Control) (*net.TCPConn, error) {
	a, err := t.find(server, open.Allocation, types.ProtocolTCP)
	if err != nil {
		t.log.Debug("player refused", slog.Int64("allocationId", open.Allocation), slog.Any("reason", err))
		return nil, err
	}
	header, err := proxyHeader(a, open.Source, open.Destination)
	if err != nil {
		t.log.Warn("player refused", slog.Int64("allocationId", a.ID), slog.Any("reason", err))
		return nil, err
	}
	conn, err := t.connect(ctx, a)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("dial %s: got a %T", conn.RemoteAddr(), conn)
	}
	if len(header) > 0 {
		// It fits any new connection's buffer: this does not wait for the game.
		if _, err := tcp.Write(header); err != nil {
			tcpstream.Reset(tcp)
			return nil, err
		}
	}
	return tcp, nil
}

// connect opens a socket to an allocation's local target.
func (t *targets) connect(ctx context.Context, a types.ClientAllocation) (net.Conn, error) {
	conn, err := t.open(ctx, a)
	if err != nil && ctx.Err() == nil {
		t.counters.targetFailures.Add(1)
	}
	if ctx.Err() == nil && (err != nil || a.Protocol == types.ProtocolTCP) {
		// That a UDP socket could be opened says nothing of the target.
		t.reached(a, err)
	}
	return conn, err
}

// open dials. Of a name with addresses of both families TCP finds out which one
// answers; UDP cannot, and would take IPv6, as localhost has it on most systems,
// where a game that takes IPv4 alone would never hear of its players. One that takes
// both does so at the IPv4 address too.
func (t *targets) open(ctx context.Context, a types.ClientAllocation) (net.Conn, error) {
	if a.Protocol == types.ProtocolUDP {
		if conn, err := t.dialer.DialContext(ctx, "udp4", localAddress(a)); err == nil {
			return conn, nil
		}
	}
	return t.dialer.DialContext(ctx, string(a.Protocol), localAddress(a))
}

// reached notes whether a local target could be reached, and says so when that
// has changed.
func (t *targets) reached(a types.ClientAllocation, err error) {
	t.mu.Lock()
	_, current := t.allocations[a.ID]
	changed := current && t.down[a.ID] != (err != nil)
	if changed {
		t.down[a.ID] = err != nil
	}
	t.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		t.log.Warn("local target cannot be reached: its players are refused",
			slog.Int64("allocationId", a.ID), slog.String("target", localAddress(a)), slog.String("reason", relayReason(err)))
	default:
		t.log.Info("local target can be reached again",
			slog.Int64("allocationId", a.ID), slog.String("target", localAddress(a)))
	}
}

func localAddress(a types.ClientAllocation) string {
	return net.JoinHostPort(a.LocalHost, strconv.Itoa(a.LocalPort))
}

// proxyHeader returns the PROXY protocol header of an allocation's player, or
// nothing if it does not ask for one. Version 1 knows TCP only.
// See https://www.haproxy.org/download/2.3/doc/proxy-protocol.txt.
func proxyHeader(a types.ClientAllocation, source, destination netip.AddrPort) ([]byte, error) {
	var version byte
	switch p := a.Options.ProxyProtocol; {
	case p == nil || *p == types.ProxyProtocolNone:
		return nil, nil
	case *p == types.ProxyProtocolV1 && a.Protocol == types.ProtocolTCP:
		version = 1
	case *p == types.ProxyProtocolV2:
		version = 2
	default:
		return nil, fmt.Errorf("PROXY protocol %s over %s", *p, a.Protocol)
	}
	var from, to net.Addr = net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(destination)
	if a.Protocol == types.ProtocolUDP {
		from, to = net.UDPAddrFromAddrPort(source), net.UDPAddrFromAddrPort(destination)
	}
	header, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	if err != nil {
		return nil, fmt.Errorf("PROXY header for %s: %w", source, err)
	}
	return header, nil
}
