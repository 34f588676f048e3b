package control

import (
	"errors"
	"maps"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// Ending is the reason for which a control channel ended.
type Ending string

// The panel ends a channel for the reasons of the first group, and not for those of
// the second.
const (
	EndTokenDead  Ending = "token_dead"
	EndDeleted    Ending = "deleted"
	EndTakenOver  Ending = "taken_over"
	EndFeatureOff Ending = "feature_off"
	EndRestarting Ending = "restarting"
	EndViolation  Ending = "violation" // The device violated the protocol or sent no hello.
	EndDatabase   Ending = "database"  // The connection could not be stored.

	EndLeft Ending = "left" // The device closed the channel.
	EndSlow Ending = "slow" // The device did not read.
	EndLost Ending = "lost" // The connection broke or timed out.
)

// Endings lists every Ending.
var Endings = [...]Ending{
	EndTokenDead, EndDeleted, EndTakenOver, EndFeatureOff, EndRestarting, EndViolation, EndDatabase,
	EndLeft, EndSlow, EndLost,
}

// Stats counts a Hub's control channels.
type Stats struct {
	Online map[types.DeviceKind]int    // Devices connected to this hub now, by kind.
	Opened map[types.DeviceKind]uint64 // Channels opened since the hub was created, by kind.
	Closed map[Ending]uint64           // Channels ended since the hub was created, by reason.
}

// Stats returns the current counts.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	online := map[types.DeviceKind]int{}
	for _, s := range h.current {
		online[s.kind]++
	}
	return Stats{Online: online, Opened: maps.Clone(h.opened), Closed: maps.Clone(h.closed)}
}

// ending returns why the session ended. It must have ended.
func (s *session) ending() Ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.closeCode {
	case 0: // Not ended by the panel.
	case channel.CloseTokenDead:
		return EndTokenDead
	case channel.CloseDeleted:
		return EndDeleted
	case channel.CloseTakenOver:
		return EndTakenOver
	case channel.CloseFeatureOff:
		return EndFeatureOff
	case channel.CloseRestarting:
		return EndRestarting
	case websocket.CloseTryAgainLater:
		return EndDatabase
	default:
		return EndViolation
	}
	switch {
	case errors.Is(s.readErr, channel.ErrSlow):
		return EndSlow
	case websocket.IsCloseError(s.readErr, websocket.CloseNormalClosure, websocket.CloseGoingAway):
		return EndLeft
	default:
		return EndLost
	}
}

// reason returns why a device was disconnected, as the contract names it; "" if no person needs to know.
func (e Ending) reason() string {
	switch e {
	case EndTokenDead:
		return "token_revoked"
	case EndFeatureOff:
		return "feature_disabled"
	case EndRestarting, EndDatabase:
		return db.ReplicaStopped
	case EndViolation:
		return "protocol_error"
	case EndLeft, EndSlow, EndLost:
		return string(e)
	default: // Deleted, or replaced by another connection.
		return ""
	}
}
