package publicport

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/lograte"
)

// loopPause is the least time between two log lines about one allocation: a tunnel
// that leads to itself is tried as often as its players try.
const loopPause = time.Minute

// loops says which allocations have players refused, since they seem to be the tunnel
// clients' own connections. It is safe for concurrent use.
type loops struct {
	log   *slog.Logger
	lines *lograte.Limiter // By allocation.
}

// say logs that a player was refused, once a minute for an allocation.
func (l *loops) say(allocation int64, player netip.AddrPort) {
	if l.lines.Allow(allocation) {
		l.log.Warn("players from a tunnel client's own address are refused: the game has answered none of those before; does the allocation's local target lead back to its public port?",
			slog.Int64("allocationId", allocation), slog.String("player", player.String()))
	}
}
