package agent

import (
	"cmp"
	"slices"
	"time"
)

// governor decides how fast an agent may send to one tunnel server so that no
// queue stands on the way. It knows only what the kernel measures anyway: how
// much arrives, and how much longer than at best it takes.
//
// Without a limit the way is the kernel's. Once a transfer has kept a queue for
// a moment, what arrives is what the way can carry, and the limit is set a
// little below that, at first by as much more as drains the queue. From there it
// creeps up until the queue shows again, which is also how a way that has become
// faster is noticed, with growing steps.
//
// A queue that stays whatever is sent is none: the way has become longer, or the
// queue is somebody else's. From then on the governor takes what it saw for the
// way's own delay. Where that proves wrong at once, it lifts its limit and rests.
type governor struct {
	limit   float64   // Bytes per second; 0: none.
	drain   float64   // The share of limit withheld until the queue is gone.
	step    float64   // The share by which limit was last raised.
	known   float64   // The most that the way carried lately,
	knownAt time.Time // and when.

	window   rates
	over     int           // Readings in a row that showed a queue,
	calm     int           // and that did not.
	settled  time.Time     // Before then what is measured is not yet the limit's doing.
	standing time.Time     // Since when the queue is to be drained; zero: it is not.
	seen     time.Duration // The shortest round trip since then.
	least    time.Duration // The way's own delay, where the path's best is too little to be true.
	resting  time.Time     // Until then.
	rest     time.Duration // How long to rest after the next queue that stays.
}

// What the governor goes by.
const (
	// paceTick is the pause between two readings.
	paceTick = 50 * time.Millisecond
	// paceCeiling is the rate above which no queue of a home is meant: what stands
	// there is a local network's or a processor's.
	paceCeiling = 125e6
	// queueLeast and queueMost bound the queue that is tolerated; between them it
	// is an eighth of the path's own delay. Below a few packets nothing is a queue.
	queueLeast   = 2 * time.Millisecond
	queueMost    = 10 * time.Millisecond
	queuePackets = 4 * 1500
	// overFirst and overNext are how many readings in a row show that a queue
	// stands, without a limit and with one.
	overFirst = 3
	overNext  = 2
	// paceBelow is the share of what the way carries that a new limit leaves.
	paceBelow = 0.97
	// drainWithin is how soon a queue shall be gone, and drainMost the greatest
	// share that is withheld for it.
	drainWithin = 200 * time.Millisecond
	drainMost   = 0.5
	// stepLeast is by how much the limit creeps up at each reading. Below what the
	// way is known to carry it may be stepBack; above stepBeyond times that, steps
	// grow by stepGrowth up to stepMost.
	stepLeast  = 0.0025
	stepBack   = 0.01
	stepMost   = 0.1
	stepBeyond = 1.02
	stepGrowth = 1.25
	// knownFor is how long the most that the way carried is believed.
	knownFor = 10 * time.Second
	// slower is the share of what it may that a transfer gets where the way has
	// become slower.
	slower = 0.9
	// patience is how long a queue may stay in spite of the limit, at least, and
	// patienceTrips in round trips.
	patience      = time.Second
	patienceTrips = 8
	// restLeast is the rest after the second queue in a row that stayed, restMost
	// the longest after several more.
	restLeast = 2 * time.Second
	restMost  = 5 * time.Minute
)

// digest is what a path's bulk transfers did between two readings.
type digest struct {
	at        time.Time
	elapsed   time.Duration
	delivered float64 // Bytes.
	// filling says that at least one transfer had more to send than was taken; the
	// rest is meaningful only then.
	filling bool
	trip    time.Duration // The shortest round trip of those transfers now,
	least   time.Duration // and that of the path at best.
}

// observe takes in a reading.
func (g *governor) observe(d digest) {
	if !d.filling || d.elapsed <= 0 {
		// Nothing fills the way, so that neither its rate nor a queue can be seen.
		g.window, g.over, g.standing = rates{}, 0, time.Time{}
		return
	}
	g.window.add(d.delivered, d.elapsed)
	g.least = min(g.least, d.trip)
	if d.at.Before(g.resting) {
		return
	}
	least := max(d.least, g.least)
	tolerated := g.tolerated(least)
	if queue := d.trip - least; queue > tolerated {
		g.over, g.calm = g.over+1, 0
		g.above(d, queue)
	} else {
		g.over, g.calm = 0, g.calm+1
		g.below(queue <= tolerated/2)
	}
}

func (g *governor) tolerated(least time.Duration) time.Duration {
	t := min(max(least/8, queueLeast), queueMost)
	if rate := g.window.rate(); rate > 0 {
		t = max(t, time.Duration(queuePackets/rate*float64(time.Second)))
	}
	return t
}

// above lowers the limit, or sets one.
func (g *governor) above(d digest, queue time.Duration) {
	rate := g.window.rate()
	switch {
	case g.limit == 0 && g.over < overFirst, g.over < overNext, rate <= 0:
		return
	case rate > paceCeiling:
		g.lift()
		return
	case g.standing.IsZero():
		g.standing, g.seen = d.at, d.trip
		g.lower(d, rate, queue)
		return
	}
	// While the queue stands, what arrives is what the way carries.
	g.known, g.limit = max(g.known, rate), max(g.limit, rate*paceBelow)
	g.seen = min(g.seen, d.trip)
	switch {
	case d.at.Before(g.settled):
	case d.at.Sub(g.standing) > max(patience, patienceTrips*d.trip):
		g.resign(d.at)
	case rate < slower*g.allowed():
		g.known = 0
		g.lower(d, rate, queue)
	}
}

// resign gives up a queue that stays.
func (g *governor) resign(at time.Time) {
	g.least = g.seen
	if g.rest > 0 {
		g.lift()
		g.resting = at.Add(g.rest)
	}
	g.rest = min(max(2*g.rest, restLeast), restMost)
}

// lower sets the limit to a little less than the way carries.
func (g *governor) lower(d digest, rate float64, queue time.Duration) {
	if rate > g.known || d.at.Sub(g.knownAt) > knownFor {
		g.known, g.knownAt = rate, d.at
	}
	g.limit = rate * paceBelow
	g.drain = min(float64(queue)/float64(drainWithin), drainMost)
	g.settled = d.at.Add(max(overNext*paceTick, 2*d.trip))
	g.window = rates{}
}

func (g *governor) lift() {
	g.limit, g.drain, g.over, g.standing = 0, 0, 0, time.Time{}
}

// below ends a drain, or lets the limit creep up.
func (g *governor) below(empty bool) {
	g.standing = time.Time{}
	switch {
	case g.limit == 0:
		return
	case g.drain > 0:
		if empty || g.calm > overNext {
			g.drain, g.rest, g.window = 0, 0, rates{}
		}
		return
	case g.window.last() < slower*g.limit:
		// It is not the limit that holds the transfers back: BBR looks for the path's
		// delay every ten seconds, and sends next to nothing while it does.
		g.window = rates{}
		return
	case g.limit < paceBelow*g.known:
		g.step = stepBack
	case g.limit < stepBeyond*g.known:
		g.step = stepLeast
	default:
		g.step = min(g.step*stepGrowth, stepMost)
	}
	if g.limit *= 1 + g.step; g.limit > paceCeiling {
		g.lift()
	}
}

// allowed is how many bytes per second all transfers together may send now; 0:
// as many as they like.
func (g *governor) allowed() float64 { return g.limit * (1 - g.drain) }

// rates are the latest readings of a rate.
type rates struct {
	delivered, seconds [8]float64
	next, held         int
}

func (r *rates) add(delivered float64, elapsed time.Duration) {
	r.delivered[r.next], r.seconds[r.next] = delivered, elapsed.Seconds()
	r.next = (r.next + 1) % len(r.delivered)
	r.held = min(r.held+1, len(r.delivered))
}

// rate is that of all readings held, in bytes per second.
func (r *rates) rate() float64 {
	var delivered, seconds float64
	for i := range r.held {
		delivered += r.delivered[i]
		seconds += r.seconds[i]
	}
	if seconds == 0 {
		return 0
	}
	return delivered / seconds
}

// last is that of the newest reading.
func (r *rates) last() float64 {
	i := (r.next + len(r.delivered) - 1) % len(r.delivered)
	if r.seconds[i] == 0 {
		return 0
	}
	return r.delivered[i] / r.seconds[i]
}

// share divides what is allowed among transfers that last sent at these rates:
// it returns the limit of each, the same for all. One that wants less than that
// leaves the rest to the others. It sorts rates.
func share(allowed float64, rates []float64) float64 {
	// A transfer is assumed to want a quarter more than it got.
	const wanted = 1.25
	slices.SortFunc(rates, cmp.Compare)
	left := allowed
	for i, rate := range rates {
		if each := left / float64(len(rates)-i); wanted*rate >= each {
			return each
		}
		left -= wanted * rate
	}
	// None wants what is left: any one may have it.
	return allowed
}
