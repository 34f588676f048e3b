package relay

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/session"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// players passes players of public ports to tunnel clients: it is what public ports
// know of those.
type players struct{ *session.Clients }

// Carry implements [publicport.Clients].
func (p players) Carry(ctx context.Context, client uuid.UUID, player *tcpstream.Player) publicport.Refusal {
	err := p.Clients.Carry(ctx, client, player)
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
