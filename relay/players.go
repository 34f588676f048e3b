package relay

import (
	"context"
	"errors"
	"net"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/session"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// players passes players of public ports to tunnel clients: it is what public ports
// know of those.
type players struct{ *session.Clients }

// Carry implements [publicport.Clients].
func (p players) Carry(ctx context.Context, client uuid.UUID, player *net.TCPConn, open wire.Control, o tcpstream.CarryOptions) publicport.Refusal {
	err := p.Clients.Carry(ctx, client, player, open, o)
	switch {
	case err == nil:
		return publicport.NotRefused
	case errors.Is(err, session.ErrNotLinked):
		return publicport.RefusedNoLink
	case errors.Is(err, session.ErrTooManyWaiting):
		return publicport.RefusedWaiting
	default:
		return publicport.RefusedNoDataConnection
	}
}
