package control

import (
	"errors"
	"maps"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// Ending is how a control channel ended.
type Ending string

// How control channels end. The first group is by the panel's word, the second
// is not.
const (
	EndTokenDead  Ending = "token_dead"
	EndDeleted    Ending = "deleted"
	EndTakenOver  Ending = "taken_over"
	EndFeatureOff Ending = "feature_off"
	EndRestarting Ending = "restarting"
	EndViolation  Ending = "violation" // The device sent what it may not, or no hello.
	EndDatabase   Ending = "database"  // The database could not be told of the device.

	EndLeft Ending = "left" // The device closed it in good order.
	EndSlow Ending = "slow" // The device did not read.
	EndLost Ending = "lost" // It was cut, or fell silent.
)

// Endings lists every Ending.
var Endings = [...]Ending{
	EndTokenDead, EndDeleted, EndTakenOver, EndFeatureOff, EndRestarting, EndViolation, EndDatabase,
	EndLeft, EndSlow, EndLost,
}

// Stats are counts of a Hub's control channels, now or since it was made.
type Stats struct {
	Online map[types.DeviceKind]int    // Devices with a control channel here, by kind.
	Opened map[types.DeviceKind]uint64 // Control channels ever taken, by kind.
	Closed map[Ending]uint64           // Control channels ever ended.
}

// Stats returns counts. It may be called at any time.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	online := map[types.DeviceKind]int{}
	for _, s := range h.current {
		online[s.kind]++
	}
	return Stats{Online: online, Opened: maps.Clone(h.opened), Closed: maps.Clone(h.closed)}
}

// howEnded is called once the session is over.
func (s *session) howEnded() Ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.code {
	case 0: // Not by our word.
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
	case errors.Is(s.gone, channel.ErrSlow):
		return EndSlow
	case websocket.IsCloseError(s.gone, websocket.CloseNormalClosure, websocket.CloseGoingAway):
		return EndLeft
	default:
		return EndLost
	}
}
