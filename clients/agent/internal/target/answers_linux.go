package target

import (
	"context"
	"net"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

// A game that receives at every address of its machine answers from the one that the
// system chooses, or from one that it has bound another socket to. A connected socket
// discards such answers. The socket of a flow to this machine is therefore not
// connected until the game's first answer shows where answers come from: from the
// target, as of nearly all games, and the socket is connected after all, which is the
// fastest; or from another address of this machine at the game's port, and it never is.

// peerState is what a flow knows of where its game answers from.
type peerState struct {
	open   bool             // The socket is not connected. Guarded by flowSocket.mu.
	target udpsock.Endpoint // Where it sends then.

	// Of the goroutine that reads.
	settled bool             // It need not look at sources.
	other   udpsock.Endpoint // Another address that the game answers from.
}

// socket returns the flow's socket of a connected one, which it takes over.
func (s *flowSocket) socket(ctx context.Context, dialled *net.UDPConn) (*udpsock.Conn, error) {
	o := udpsock.Options{ReadBuffer: udpsock.SocketBuffer} // A game may answer in bursts.
	to, ok := dialled.RemoteAddr().(*net.UDPAddr)
	local, isUDP := dialled.LocalAddr().(*net.UDPAddr)
	if !ok || !isUDP || !s.dialer.ownMachine(to.AddrPort().Addr()) {
		s.peer.settled, s.connected = true, true
		conn, err := udpsock.New(dialled, o)
		if err != nil {
			_ = dialled.Close()
		}
		return conn, err
	}
	// At the address that the system or bind has chosen for the target.
	_ = dialled.Close()
	network := "udp4"
	if local.IP.To4() == nil {
		network = "udp6"
	}
	o.Refusals = true
	conn, err := udpsock.Listen(ctx, network, (&net.UDPAddr{IP: local.IP, Zone: local.Zone}).String(), o)
	if err != nil {
		return nil, err
	}
	s.peer.open, s.peer.target = true, conn.Endpoint(to.AddrPort())
	return conn, nil
}

// answers reports whether the i-th datagram of a batch is the game's. It is called by
// the goroutine that reads.
func (s *flowSocket) answers(batch *udpsock.Batch, i int) bool {
	if s.peer.settled {
		return true
	}
	from := batch.Endpoint(i)
	switch from {
	case s.peer.target:
		if s.peer.other == (udpsock.Endpoint{}) {
			s.settle()
		}
		return true
	case s.peer.other:
		return true
	}
	source := batch.Source(i)
	if int(source.Port()) != s.allocation.LocalPort || !s.dialer.ownMachine(source.Addr()) {
		return false
	}
	s.peer.other = from
	return true
}

// settle connects the socket to the target.
func (s *flowSocket) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.conn.Connect(s.peer.target) != nil {
		return // It goes on as it is.
	}
	s.peer.open, s.peer.settled = false, true
}

// address puts the target into datagrams if the socket is not connected. It is called
// with mu held.
func (s *flowSocket) address(datagrams []udpsock.Datagram) {
	if !s.peer.open {
		return
	}
	for i := range datagrams {
		datagrams[i].To = &s.peer.target
	}
}
