// Package shaping divides a bandwidth among players.
//
// A [Shaper] is one direction of an allocation, a [Share] one player's part of it. In
// come numbers of bytes that are about to pass; out goes whether they may: a stream
// waits for it ([Share.Wait]), a datagram is passed or dropped at once ([Share.Admit]).
// No bytes are held here. The package starts no goroutine; a Shaper has one timer,
// which runs while a stream waits.
//
// The rate of all players is divided as fair queueing does (Demers, Keshav and Shenker
// 1989; Parekh and Gallager 1993): as if all players with a backlog were served at the
// same time and speed. The progress of such service, in bytes for each of them, is the
// virtual time. A share is over with what it has passed at its finish in virtual time,
// and has a backlog until then. Hence:
//
//   - A player who takes less than a fair share has no backlog, and nobody else's to
//     wait for: of what passes ahead of the rate, a part is reserved for such players.
//   - Of the others, those with the least backlog come first.
//   - What passes ahead of the rate is bounded, whoever takes it: [Rates] hold however
//     many players come and go.
package shaping

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// burst is how much passes at once after a pause, as a time at the rate.
	burst = 20 * time.Millisecond
	// chunkTime is how much of a stream passes at once, as a time at the rate; with
	// many players it is less, so that each comes about every roundTime.
	chunkTime = 5 * time.Millisecond
	roundTime = 20 * time.Millisecond
	// minChunk is the least of that, in bytes: about a packet.
	minChunk = 1500
	// minBurst is the least burst, in bytes.
	minBurst = 2 * minChunk
	// catchUp is how much of the time at which something could pass, but this process
	// came too late for it, is made up for; it is while something has waited or been
	// refused within pressure.
	catchUp  = 200 * time.Millisecond
	pressure = 500 * time.Millisecond
	// greed is the ratio of a player's backlog to what is left of the burst at which
	// the player takes no more of it.
	greed = 4
	// maxReserve is how much more than the burst may pass ahead of the rate for players
	// with less than a fair share, as a time at the rate.
	maxReserve = 100 * time.Millisecond
	// maxLead is how far a player may be ahead of a fair share, as a time at it: one who
	// was alone need not wait for longer when many come.
	maxLead = 100 * time.Millisecond
	// minPause is the least time until waiting streams are looked at without another
	// cause.
	minPause = time.Millisecond
)

// Rates are bounds in bits per second; 0: no bound.
type Rates struct {
	All    int64 // Of all players together.
	Player int64 // Of each player.
}

// Shaper divides a bandwidth among shares. Its methods may be called from any
// goroutine.
type Shaper struct {
	start  time.Time
	active atomic.Bool // There is a rate.

	mu         sync.Mutex
	rates      Rates
	all        bucket
	virtual    float64
	owed       float64       // Bytes that have passed for shares without a backlog, served before it.
	backlogged queue         // Shares with a backlog,
	crowd      int           // at least half of how many there have been within a second,
	counted    time.Duration // which were last as many then.
	waiting    queue         // Shares whose stream waits for the rate of all.
	resting    queue         // Shares whose stream waits for their own rate.
	timer      *time.Timer
	armed      bool // The timer runs.
}

// New makes a Shaper without bounds.
func New() *Shaper {
	return &Shaper{
		start:      time.Now(),
		backlogged: queue{order: backlogOrder}, waiting: queue{order: turnOrder}, resting: queue{order: restOrder},
	}
}

// Join adds a player. A share whose stream may wait is closed when the player leaves; one
// of datagrams need not be.
func (s *Shaper) Join() *Share { return &Share{shaper: s} }

// SetRates changes the bounds. Streams that wait go on by the new ones.
func (s *Shaper) SetRates(r Rates) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r == s.rates {
		return
	}
	s.advance(s.now())
	s.rates = r
	s.active.Store(r != Rates{})
	s.owed = 0
	s.all.setRate(r.All)
	// Backlogs were short of the old rate's time, and may be hours of the new one's.
	for s.backlogged.len() > 0 {
		p := s.backlogged.first()
		s.backlogged.remove(p)
		p.finish = s.virtual
	}
	for s.waiting.len() > 0 {
		p := s.waiting.first()
		s.waiting.remove(p)
		p.own.level -= p.want
		p.wake() // It asks again.
	}
	for s.resting.len() > 0 {
		p := s.resting.first()
		s.resting.remove(p)
		p.wake()
	}
	s.arm(s.now())
}

func (s *Shaper) now() time.Duration { return time.Since(s.start) }

// advance brings the virtual time, and what has passed ahead of the rate, up to a time.
func (s *Shaper) advance(now time.Duration) {
	if s.waiting.len() > 0 {
		s.all.press(now)
	}
	work := s.all.advance(now)
	owed := min(work, s.owed)
	work, s.owed = work-owed, s.owed-owed
	for s.backlogged.len() > 0 {
		p, n := s.backlogged.first(), float64(s.backlogged.len())
		need := (p.finish - s.virtual) * n
		if need > work {
			s.virtual += work / n
			return
		}
		work -= need
		s.virtual = p.finish
		s.backlogged.remove(p)
	}
}

// finish is when a share is over with bytes more, in virtual time. What it has left of
// its fair share lately counts.
func (s *Shaper) finish(p *Share, bytes float64) float64 {
	credit := max(minBurst, s.all.rate*roundTime.Seconds()/float64(max(1, s.crowd)))
	return max(p.finish, s.virtual-credit) + bytes
}

// charge notes that a share is to pass bytes, with which it is over at finish.
func (s *Shaper) charge(p *Share, bytes, finish float64) {
	s.backlogged.remove(p)
	s.owed += max(0, min(bytes, s.virtual-(finish-bytes)))
	if p.finish = finish; finish > s.virtual {
		s.backlogged.add(p)
	}
	s.count()
}

// count notes how many players have a backlog. Those who wait have none at times.
func (s *Shaper) count() {
	switch n := s.backlogged.len(); {
	case n >= 2*s.crowd:
		s.crowd, s.counted = n, s.all.at
		s.limitLeads()
	case n >= s.crowd:
		s.counted = s.all.at
	case s.all.at-s.counted > time.Second:
		s.crowd, s.counted = max(n, s.crowd/2), s.all.at
	}
}

// limitLeads takes off the shares' leads what exceeds maxLead.
func (s *Shaper) limitLeads() {
	most := s.virtual + max(minBurst, s.all.rate*maxLead.Seconds()/float64(s.crowd))
	for _, p := range s.backlogged.shares {
		p.finish = min(p.finish, most) // It changes no order.
	}
}

// fits reports whether bytes may pass whose share is over with them at finish. For
// those of players who have taken less than a fair share there is a reserve.
func (s *Shaper) fits(bytes, finish, reserve float64) bool {
	left := s.all.depth() - s.all.level
	if left > 0 && finish-s.virtual <= greed*left {
		return true
	}
	return finish <= s.virtual && bytes <= left+reserve || s.all.level <= 0 && s.backlogged.len() == 0
}

// streamReserve is the reserve for streams, which can wait a little. Those that wait
// leave half of it to those that come.
func (s *Shaper) streamReserve(waits bool) float64 {
	if waits {
		return s.all.depth() / 4
	}
	return s.all.depth() / 2
}

// datagramReserve is the reserve for datagrams, which cannot: among many players one
// packet of each may be ahead of the rate.
func (s *Shaper) datagramReserve() float64 {
	packets := float64(minChunk * s.backlogged.len())
	return max(s.all.depth(), min(packets, s.all.rate*maxReserve.Seconds()))
}

// chunk is how many bytes of a stream should pass at once.
func (s *Shaper) chunk() int {
	n := float64(math.MaxInt32)
	if rate := s.all.rate; rate > 0 {
		n = min(n, rate*chunkTime.Seconds(), rate*roundTime.Seconds()/float64(max(1, s.crowd, s.backlogged.len())))
	}
	if rate := float64(s.rates.Player) / 8; rate > 0 {
		n = min(n, rate*chunkTime.Seconds())
	}
	return int(max(n, minChunk))
}

// request asks for a share's stream to pass bytes. Those who wait come first.
func (s *Shaper) request(p *Share, bytes int, now time.Duration) {
	s.run(now)
	p.want, p.granted = float64(bytes), false
	p.own.setRate(s.rates.Player)
	p.own.advance(now)
	if delay := p.own.delay(p.want); delay > 0 {
		p.own.press(now)
		p.rest = now + delay
		s.resting.add(p)
	} else {
		s.enter(p)
	}
	if !p.granted {
		s.run(now)
	}
}

// enter lets a stream that its player's own rate permits pass, or wait for its turn.
func (s *Shaper) enter(p *Share) {
	p.own.level += p.want
	if s.all.rate == 0 {
		s.pass(p)
		return
	}
	p.enter()
	s.charge(p, p.want, s.finish(p, p.want))
	if p.finish <= s.virtual && s.fits(p.want, p.finish, s.streamReserve(false)) {
		s.pass(p)
		return
	}
	s.waiting.add(p)
}

// pass lets a stream pass what it has asked for.
func (s *Shaper) pass(p *Share) {
	s.all.level += p.want
	p.granted = true
	p.wake()
}

// run lets the waiting streams pass that may at a time, and sets the timer for the
// others.
func (s *Shaper) run(now time.Duration) {
	s.advance(now)
	for s.resting.len() > 0 && s.resting.first().rest <= now {
		p := s.resting.first()
		s.resting.remove(p)
		p.own.press(now)
		p.own.advance(now)
		s.enter(p)
	}
	for s.waiting.len() > 0 {
		p := s.waiting.first()
		if !s.fits(p.want, p.finish, s.streamReserve(true)) {
			break
		}
		s.waiting.remove(p)
		s.pass(p)
	}
	s.arm(now)
}

// arm sets the timer for the next stream that waits, if any does.
func (s *Shaper) arm(now time.Duration) {
	pause := time.Duration(math.MaxInt64)
	if s.resting.len() > 0 {
		pause = s.resting.first().rest - now
	}
	if s.waiting.len() > 0 {
		pause = min(pause, s.turn())
	}
	switch pause = max(pause, minPause); {
	case pause == math.MaxInt64:
		if s.armed {
			s.timer.Stop()
		}
		s.armed = false
		return
	case s.timer == nil:
		s.timer = time.AfterFunc(pause, s.expire)
	default:
		s.timer.Reset(pause)
	}
	s.armed = true
}

// turn is how long it takes until the first waiting stream may pass, if nothing else
// changes.
func (s *Shaper) turn() time.Duration {
	p, rate := s.waiting.first(), s.all.rate
	left, ahead := s.all.depth()-s.all.level, p.finish-s.virtual
	fair := rate / float64(max(1, s.backlogged.len()))
	of := max(-left/rate, (ahead-greed*left)/(fair+greed*rate))
	reserved := max((p.want-left-s.streamReserve(true))/rate, ahead/fair)
	return time.Duration(min(of, reserved, time.Minute.Seconds()) * float64(time.Second))
}

func (s *Shaper) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run(s.now())
}
