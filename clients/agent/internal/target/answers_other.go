//go:build !linux

package target

import (
	"context"
	"net"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

// peerState is empty: on this system a flow's socket is connected to its target, and
// answers from other addresses are not received.
type peerState struct{}

// socket returns the flow's socket of a connected one, which it takes over.
func (s *flowSocket) socket(_ context.Context, dialled *net.UDPConn) (*udpsock.Conn, error) {
	s.connected = true
	// A game may answer in bursts.
	conn, err := udpsock.New(dialled, udpsock.Options{ReadBuffer: udpsock.SocketBuffer})
	if err != nil {
		_ = dialled.Close()
	}
	return conn, err
}

// answers returns true: the system has discarded what is not the game's.
func (s *flowSocket) answers(*udpsock.Batch, int) bool { return true }

// address does nothing: the socket is connected.
func (s *flowSocket) address([]udpsock.Datagram) {}
