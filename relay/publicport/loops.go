package publicport

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// loopPause is the least time between two log lines about one allocation: a tunnel
// that leads to itself is tried as often as its players try.
const loopPause = time.Minute

// loops says which allocations have players refused, since they seem to be the tunnel
// clients' own connections. It is safe for concurrent use.
type loops struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[int64]time.Time // By allocation.
}

// say logs that a player was refused, once a minute for an allocation.
func (l *loops) say(allocation int64, player netip.AddrPort) {
	l.mu.Lock()
	now := time.Now()
	for id, at := range l.said {
		if now.Sub(at) >= loopPause {
			delete(l.said, id)
		}
	}
	_, said := l.said[allocation]
	if !said {
		l.said[allocation] = now
	}
	l.mu.Unlock()
	if !said {
		l.log.Warn("players from a tunnel client's own address are refused: the game has answered none of those before; does the allocation's local target lead back to its public port?",
			slog.Int64("allocationId", allocation), slog.String("player", player.String()))
	}
}
