package publicport

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// firstAnswer is the size, in bytes, of a first answer that is not counted for its
	// port: as long as flows may open, players may join, whatever others have sent.
	firstAnswer = 1500
	// unprovenSeconds is how many seconds' worth of answers may go at once.
	unprovenSeconds = 4
)

// unprovenBytes bounds the bytes that go to players of a port whose flows are not
// proven: the game's answers to somebody who forges its address go to whoever has that.
// Server lists stay far below: they ask every few seconds, for up to some 10 kB. It is
// safe for concurrent use.
type unprovenBytes struct {
	mu        sync.Mutex
	all       *rate.Limiter
	perSource *sources.Rates
}

func newUnprovenBytes(l Limits) *unprovenBytes {
	burst := func(perSecond int) int { return max(unprovenSeconds*perSecond, wire.MaxDatagram) }
	return &unprovenBytes{
		all:       rate.NewLimiter(rate.Limit(l.UnprovenBytes), burst(l.UnprovenBytes)),
		perSource: sources.NewRates(float64(l.UnprovenBytesPerSource), burst(l.UnprovenBytesPerSource)),
	}
}

// take reports whether so many bytes may go to a player, first if they are the first for
// their flow, and counts them.
func (u *unprovenBytes) take(player netip.Addr, bytes int, first bool, now time.Time) bool {
	counted := !first || bytes > firstAnswer
	u.mu.Lock()
	defer u.mu.Unlock()
	if counted && u.all.TokensAt(now) < float64(bytes) || !u.perSource.AllowN(player, bytes, now) {
		return false
	}
	return !counted || u.all.AllowN(now, bytes)
}
