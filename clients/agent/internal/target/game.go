package target

import (
	"context"
	"net"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/gameping"
)

// Probe asks the game at an allocation's local target for its status, over TCP and UDP, as
// the panel asks for to check the allocation. It dials nothing that players would not be
// connected to, over the allocation's own protocol.
func (d *Dialer) Probe(ctx context.Context, id int64) types.ProbedTarget {
	d.mu.Lock()
	a, ok := d.allocations[id]
	d.mu.Unlock()
	if !ok {
		return types.ProbedTarget{Allowed: true}
	}
	if err := d.Check(a); err != nil {
		reason := err.Error()
		return types.ProbedTarget{Reason: &reason}
	}
	state, _ := d.State(id)
	waiting := state == types.TargetUp
	probed := types.ProbedTarget{Allowed: true, Waiting: &waiting}
	tcp, udp := make(chan types.ProbeReply, 1), make(chan types.ProbeReply, 1)
	go func() { tcp <- d.probeGame(ctx, a, types.ProtocolTCP) }()
	go func() { udp <- d.probeGame(ctx, a, types.ProtocolUDP) }()
	overTCP, overUDP := <-tcp, <-udp
	probed.TCP, probed.UDP = &overTCP, &overUDP
	return probed
}

// probeGame asks over one protocol, which may be the one that the allocation does not have.
func (d *Dialer) probeGame(ctx context.Context, a types.ClientAllocation, protocol types.Protocol) types.ProbeReply {
	if !d.files.Take(a.ID, udpFiles) {
		reason := errFiles.Error()
		return types.ProbeReply{State: types.ProbeUnreachable, Reason: &reason}
	}
	defer d.files.Give(a.ID, udpFiles)
	own := a.Protocol == protocol
	a.Protocol = protocol
	var header []byte
	if own {
		header, _ = probeHeader(a)
	}
	return gameping.Probe(ctx, string(protocol), address(a), gameping.Options{
		Header: header,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.dialer.DialContext(withSource(ctx, a, noPlayer), network, address)
		},
	}).Contract()
}
