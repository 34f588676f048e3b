package target

import (
	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// FlowSockets are the local sockets of one UDP session's flows. Its methods are safe
// for concurrent use.
type FlowSockets struct {
	dialer *Dialer
	server uuid.UUID
	poller *socketPoller
}

// NewFlowSockets returns the sockets of a UDP session with a tunnel server. The
// caller must call Run, and Close once the session's flows have ended or are ending.
func (d *Dialer) NewFlowSockets(server uuid.UUID) (*FlowSockets, error) {
	poller, err := newSocketPoller()
	if err != nil {
		return nil, err
	}
	return &FlowSockets{dialer: d, server: server, poller: poller}, nil
}

// Target returns the local end of the flow that a tunnel server opens, and the PROXY
// protocol header to send before each of its datagrams. It fails if the tunnel server
// may not bring players to that allocation.
func (s *FlowSockets) Target(open *wire.Record) (udptunnel.Target, []byte, error) {
	a, err := s.dialer.find(s.server, open.Allocation, types.ProtocolUDP)
	if err != nil {
		return nil, nil, err
	}
	header, err := proxyHeader(a, open.Source, open.Destination)
	if err != nil {
		return nil, nil, err
	}
	return &flowSocket{dialer: s.dialer, allocation: a, player: open.Source, poller: s.poller}, header, nil
}

// Run reads the sockets until Close, when it returns nil, or until the system fails
// to wait for them. It calls flush after each round of reads. It may be called once.
func (s *FlowSockets) Run(flush func()) error { return s.poller.run(flush) }

// Close ends Run. It closes no socket: flows close theirs. It may be called once.
func (s *FlowSockets) Close() { s.poller.close() }
