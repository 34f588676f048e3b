package session

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

const (
	// askPause is the pause between two requests for data connections, so that many
	// players at once make few requests for many and not many for one.
	askPause = 2 * time.Millisecond
	// askTogether is how long after the first of several requests the others expire
	// with it.
	askTogether = 100 * time.Millisecond
	// askExpiry is when data connections asked for are given up and asked for
	// again: by then the tunnel client has given up dialling them. Sooner, a
	// machine too busy for its handshakes would get twice as many to do.
	askExpiry = 10 * time.Second
	// askAgain is how long a player, or a UDP session, waits for a data connection
	// before another one is asked for beside it: the dial of one may hang in the
	// network while a new one succeeds. Further ones follow after twice the time each.
	// Tunnel clients that are too busy must not get many times the work: in a second,
	// one more is asked for, or for many players one for every againShare of them.
	askAgain   = time.Second
	againShare = 8
	// warmFor is how long after the last player's join data connections are kept
	// ready for the next.
	warmFor = 30 * time.Second
	// warmDecay is what is left of the demand after each tick.
	warmDecay = 0.7
)

// pool holds the idle stream data connections of a link and the players who wait
// for one. It asks for as many as players need and keeps a few more ready while
// players come: none when no player has come lately, up to Limits.Warm when they come
// fast.
type pool struct {
	limits Limits
	ask    func(count int)

	mu      sync.Mutex
	closed  bool
	all     map[*tcpstream.Conn]struct{}
	open    int        // Data connections of either kind, reserved ones included.
	idle    []idleConn // The one used last is last, and is used next.
	waiting queue

	asks    []ask     // The requests that are not answered yet, the oldest first.
	askedAt time.Time // When the last was made.
	later   bool      // One is about to be made by a timer.

	demand   float64 // Recent joins less finished players; decays.
	lastJoin time.Time
}

type idleConn struct {
	conn  *tcpstream.Conn
	since time.Time
}

// ask is requests for data connections that were made at about the same time.
type ask struct {
	count int // Not yet open.
	at    time.Time
}

func newPool(limits Limits, ask func(count int)) *pool {
	return &pool{limits: limits, ask: ask, all: map[*tcpstream.Conn]struct{}{}}
}

// acquire returns an idle data connection for a player of an allocation, waiting for one
// if it must, until a time and while ctx lives.
func (p *pool) acquire(ctx context.Context, until time.Time, allocation int64, source netip.Addr) (*tcpstream.Conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrNotLinked
	}
	p.demand++
	p.lastJoin = time.Now()
	if n := len(p.idle); n > 0 && p.waiting.len() == 0 {
		conn := p.idle[n-1].conn
		p.idle = slices.Delete(p.idle, n-1, n)
		p.request(p.lastJoin)
		p.mu.Unlock()
		return conn, nil
	}
	w := &waiting{
		allocation: allocation, source: source, conn: make(chan *tcpstream.Conn, 1),
		wait: askAgain, next: p.lastJoin.Add(askAgain),
	}
	if !p.waiting.add(w, p.limits.Waiting) {
		p.mu.Unlock()
		return nil, ErrTooManyWaiting
	}
	p.request(p.lastJoin)
	p.mu.Unlock()
	return p.await(ctx, until, w)
}

func (p *pool) await(ctx context.Context, until time.Time, w *waiting) (*tcpstream.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case conn, ok := <-w.conn:
		if !ok {
			return nil, w.err
		}
		return conn, nil
	case <-ctx.Done():
		return nil, p.giveUp(w)
	}
}

// giveUp stops waiting. A data connection that has just come goes to the next player.
func (p *pool) giveUp(w *waiting) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.remove(w) {
		return ErrNoDataConnection
	}
	if conn, ok := <-w.conn; ok {
		p.offer(conn)
	}
	return ErrNoDataConnection
}

// reserve counts a data connection that is about to open, unless there are too
// many; release counts it off.
func (p *pool) reserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.open >= p.limits.DataConnections {
		return false
	}
	p.open++
	return true
}

func (p *pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
}

// add takes a data connection that has just been opened, and reports whether it
// did.
func (p *pool) add(conn *tcpstream.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.all[conn] = struct{}{}
	p.answered()
	p.offer(conn)
	return true
}

// finished takes back a data connection whose player is done.
func (p *pool) finished(conn *tcpstream.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.demand = max(0, p.demand-1)
	if _, ok := p.all[conn]; ok && !p.closed {
		p.offer(conn)
	}
}

// offer gives a data connection to the player whose turn it is.
func (p *pool) offer(conn *tcpstream.Conn) {
	if w := p.waiting.next(); w != nil {
		w.conn <- conn
		return
	}
	p.idle = append(p.idle, idleConn{conn: conn, since: time.Now()})
}

// ready is how many data connections are idle.
func (p *pool) ready() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.idle))
}

// remove forgets a data connection that has ended.
func (p *pool) remove(conn *tcpstream.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, conn)
	p.idle = slices.DeleteFunc(p.idle, func(i idleConn) bool { return i.conn == conn })
}

// close refuses players from now on, those who wait too, and returns the data
// connections to close.
func (p *pool) close() []*tcpstream.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.waiting.close(ErrNotLinked)
	p.idle = nil
	all := make([]*tcpstream.Conn, 0, len(p.all))
	for conn := range p.all {
		all = append(all, conn)
	}
	return all
}

// target is how many idle data connections should be ready.
func (p *pool) target(now time.Time) int {
	if p.limits.Warm < 0 || p.lastJoin.IsZero() || now.Sub(p.lastJoin) > warmFor {
		return 0
	}
	return min(p.limits.Warm, 1+int(math.Ceil(p.demand/2)))
}

// request asks for the data connections that are missing.
func (p *pool) request(now time.Time) {
	if p.closed || p.later {
		return
	}
	missing := p.waiting.len() + p.target(now) - len(p.idle) - p.asked(now)
	if missing <= 0 {
		return
	}
	if pause := askPause - now.Sub(p.askedAt); pause > 0 {
		p.later = true
		time.AfterFunc(pause, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.later = false
			p.request(time.Now())
		})
		return
	}
	p.askFor(missing, now)
}

// askFor asks for so many data connections, or as many as there may be.
func (p *pool) askFor(count int, now time.Time) {
	count = min(count, p.limits.DataConnections-p.open-p.asked(now))
	if count <= 0 {
		return
	}
	if n := len(p.asks); n > 0 && now.Sub(p.asks[n-1].at) < askTogether {
		p.asks[n-1].count += count
	} else {
		p.asks = append(p.asks, ask{count: count, at: now})
	}
	p.askedAt = now
	p.ask(count)
}

// asked returns how many data connections have been asked for and are still to come.
func (p *pool) asked(now time.Time) int {
	p.asks = slices.DeleteFunc(p.asks, func(a ask) bool { return now.Sub(a.at) > askExpiry })
	n := 0
	for _, a := range p.asks {
		n += a.count
	}
	return n
}

// answered notes that a data connection has come that may have been asked for. It
// counts for the newest request: an older one that is still open may be lost.
func (p *pool) answered() {
	n := len(p.asks)
	if n == 0 {
		return
	}
	if p.asks[n-1].count--; p.asks[n-1].count == 0 {
		p.asks = p.asks[:n-1]
	}
}

// requestAgain asks for more data connections for players who have waited for long.
func (p *pool) requestAgain(now time.Time) {
	count, most := 0, max(1, p.waiting.len()/againShare)
	for e := p.waiting.byAge.Front(); e != nil && count < most; e = e.Next() {
		if w, ok := e.Value.(*waiting); ok && !now.Before(w.next) {
			w.wait *= 2
			w.next = now.Add(w.wait)
			count++
		}
	}
	p.askFor(count, now)
}

// tick lets the demand decay, asks for the data connections that are missing, and
// returns idle ones to retire.
func (p *pool) tick(now time.Time) []*tcpstream.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.demand *= warmDecay
	p.request(now)
	p.requestAgain(now)
	var surplus []*tcpstream.Conn
	for n := len(p.idle) - p.target(now); n > 0 && now.Sub(p.idle[0].since) > p.limits.WarmIdle; n-- {
		surplus = append(surplus, p.idle[0].conn)
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	return surplus
}
