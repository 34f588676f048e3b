package pacing

import (
	"time"
)

// governor decides how fast an agent may send to one tunnel server so that no
// queue stands on the path. Its only input is what the kernel measures anyway:
// how much is delivered, and by how much the round trip exceeds its minimum.
//
// Without a limit the kernel's congestion control decides. Once a transfer has
// kept a queue for a few readings, the delivery rate is the path's capacity; the
// limit is set slightly below it, and at first lower still so that the queue
// drains. From there the limit rises until the queue returns, in growing steps,
// which is also how a path that has become faster is noticed.
//
// A queue that stays at any sending rate is not ours: the path has become longer,
// or other traffic fills it. The governor then takes the shortest round trip it
// saw as the path's own delay. If the next queue stays as well, it removes its
// limit and pauses.
type governor struct {
	limit      float64   // Bytes per second; 0: none.
	drain      float64   // The share of limit withheld until the queue is gone.
	step       float64   // The share by which limit was last raised.
	capacity   float64   // The highest recent delivery rate,
	capacityAt time.Time // and when it was measured.

	window     rateWindow
	over       int           // Consecutive readings that showed a queue,
	clear      int           // and that did not.
	settled    time.Time     // Before then, readings do not reflect the current limit yet.
	drainSince time.Time     // When draining began; zero: not draining.
	drainRTT   time.Duration // The shortest round trip since then.
	minRTT     time.Duration // The path's own delay, where the measured minimum is out of date.
	pausedTill time.Time
	pause      time.Duration // The length of the pause after the next queue that stays.
}

const (
	// tickInterval is the time between two readings.
	tickInterval = 50 * time.Millisecond
	// maxPacedRate is the rate above which nothing is limited: a queue there
	// belongs to a local network or a processor, not to a home uplink.
	maxPacedRate = 125e6
	// minTolerance and maxTolerance bound the queue that is tolerated; between
	// them it is an eighth of the path's own delay. A few packets are no queue.
	minTolerance     = 2 * time.Millisecond
	maxTolerance     = 10 * time.Millisecond
	tolerancePackets = 4 * 1500
	// overUnlimited and overLimited are how many consecutive readings show that a
	// queue stands, without a limit and with one.
	overUnlimited = 3
	overLimited   = 2
	// headroom is the share of the path's capacity that a new limit leaves.
	headroom = 0.97
	// drainWithin is how soon a queue should be gone, and maxDrain the greatest
	// share that is withheld for it.
	drainWithin = 200 * time.Millisecond
	maxDrain    = 0.5
	// minStep is by how much the limit rises at each reading, and recoveryStep
	// while it is below the known capacity. Above probeBeyond times that capacity,
	// steps grow by stepGrowth up to maxStep.
	minStep      = 0.0025
	recoveryStep = 0.01
	maxStep      = 0.1
	probeBeyond  = 1.02
	stepGrowth   = 1.25
	// capacityLifetime is how long the highest delivery rate counts as known.
	capacityLifetime = 10 * time.Second
	// slowdown is the share of the allowed rate below which the path, and not the
	// limit, holds a transfer back.
	slowdown = 0.9
	// minPatience is how long a queue may stay in spite of the limit, at least,
	// and patienceTrips the same in round trips.
	minPatience   = time.Second
	patienceTrips = 8
	// minPause is the pause after the second queue in a row that stayed, maxPause
	// the longest after more of them.
	minPause = 2 * time.Second
	maxPause = 5 * time.Minute
)

// sample is what the transfers of a path did between two readings.
type sample struct {
	at        time.Time
	elapsed   time.Duration
	delivered float64 // Bytes.
	// saturating reports that at least one transfer had more to send than the path
	// took; the round trips are meaningful only then.
	saturating bool
	rtt        time.Duration // The shortest round trip of those transfers now,
	minRTT     time.Duration // and the path's minimum.
}

// observe adds a sample and adjusts the limit.
func (g *governor) observe(s sample) {
	if !s.saturating || s.elapsed <= 0 {
		// Nothing fills the path, so neither its capacity nor a queue can be seen.
		g.window, g.over, g.drainSince = rateWindow{}, 0, time.Time{}
		return
	}
	g.window.add(s.delivered, s.elapsed)
	g.minRTT = min(g.minRTT, s.rtt)
	if s.at.Before(g.pausedTill) {
		return
	}
	minRTT := max(s.minRTT, g.minRTT)
	tolerated := g.tolerated(minRTT)
	if queue := s.rtt - minRTT; queue > tolerated {
		g.over, g.clear = g.over+1, 0
		g.queued(s, queue)
	} else {
		g.over, g.clear = 0, g.clear+1
		g.unqueued(queue <= tolerated/2)
	}
}

func (g *governor) tolerated(minRTT time.Duration) time.Duration {
	t := min(max(minRTT/8, minTolerance), maxTolerance)
	if rate := g.window.rate(); rate > 0 {
		t = max(t, time.Duration(tolerancePackets/rate*float64(time.Second)))
	}
	return t
}

// queued handles a reading that shows a queue: it lowers the limit, or sets one.
func (g *governor) queued(s sample, queue time.Duration) {
	rate := g.window.rate()
	switch {
	case g.limit == 0 && g.over < overUnlimited, g.over < overLimited, rate <= 0:
		return
	case rate > maxPacedRate:
		g.unlimit()
		return
	case g.drainSince.IsZero():
		g.drainSince, g.drainRTT = s.at, s.rtt
		g.lower(s, rate, queue)
		return
	}
	// While the queue stands, the delivery rate is the path's capacity.
	g.capacity, g.limit = max(g.capacity, rate), max(g.limit, rate*headroom)
	g.drainRTT = min(g.drainRTT, s.rtt)
	switch {
	case s.at.Before(g.settled):
	case s.at.Sub(g.drainSince) > max(minPatience, patienceTrips*s.rtt):
		g.acceptQueue(s.at)
	case rate < slowdown*g.allowed():
		g.capacity = 0
		g.lower(s, rate, queue)
	}
}

// acceptQueue takes a queue that stays for the path's own delay.
func (g *governor) acceptQueue(at time.Time) {
	g.minRTT = g.drainRTT
	if g.pause > 0 {
		g.unlimit()
		g.pausedTill = at.Add(g.pause)
	}
	g.pause = min(max(2*g.pause, minPause), maxPause)
}

// lower sets the limit slightly below the path's capacity.
func (g *governor) lower(s sample, rate float64, queue time.Duration) {
	if rate > g.capacity || s.at.Sub(g.capacityAt) > capacityLifetime {
		g.capacity, g.capacityAt = rate, s.at
	}
	g.limit = rate * headroom
	g.drain = min(float64(queue)/float64(drainWithin), maxDrain)
	g.settled = s.at.Add(max(overLimited*tickInterval, 2*s.rtt))
	g.window = rateWindow{}
}

func (g *governor) unlimit() {
	g.limit, g.drain, g.over, g.drainSince = 0, 0, 0, time.Time{}
}

// unqueued handles a reading that shows no queue: it ends a drain, or raises the
// limit.
func (g *governor) unqueued(empty bool) {
	g.drainSince = time.Time{}
	switch {
	case g.limit == 0:
		return
	case g.drain > 0:
		if empty || g.clear > overLimited {
			g.drain, g.pause, g.window = 0, 0, rateWindow{}
		}
		return
	case g.window.last() < slowdown*g.limit:
		// The limit does not hold the transfers back: BBR probes the path's minimum
		// round trip every ten seconds and sends next to nothing meanwhile.
		g.window = rateWindow{}
		return
	case g.limit < headroom*g.capacity:
		g.step = recoveryStep
	case g.limit < probeBeyond*g.capacity:
		g.step = minStep
	default:
		g.step = min(g.step*stepGrowth, maxStep)
	}
	if g.limit *= 1 + g.step; g.limit > maxPacedRate {
		g.unlimit()
	}
}

// allowed is how many bytes per second all transfers together may send now; 0:
// no limit.
func (g *governor) allowed() float64 { return g.limit * (1 - g.drain) }

// rateWindow holds the latest readings of a rate.
type rateWindow struct {
	delivered, seconds [8]float64
	next, held         int
}

func (w *rateWindow) add(delivered float64, elapsed time.Duration) {
	w.delivered[w.next], w.seconds[w.next] = delivered, elapsed.Seconds()
	w.next = (w.next + 1) % len(w.delivered)
	w.held = min(w.held+1, len(w.delivered))
}

// rate is the mean rate of all readings held, in bytes per second.
func (w *rateWindow) rate() float64 {
	var delivered, seconds float64
	for i := range w.held {
		delivered += w.delivered[i]
		seconds += w.seconds[i]
	}
	if seconds == 0 {
		return 0
	}
	return delivered / seconds
}

// last is the rate of the newest reading.
func (w *rateWindow) last() float64 {
	i := (w.next + len(w.delivered) - 1) % len(w.delivered)
	if w.seconds[i] == 0 {
		return 0
	}
	return w.delivered[i] / w.seconds[i]
}
