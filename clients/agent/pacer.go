package agent

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// pacedSocket is one connection to a tunnel server, as the pacer sees it.
type pacedSocket interface {
	// read returns what the kernel knows of it, or an error once it is closed.
	read() (reading, error)
	// limit sets how many bytes per second it sends at most; 0: no limit.
	limit(bytesPerSecond float64) error
}

// reading is what the kernel knows of a connection.
type reading struct {
	arrived uint64        // Bytes, of all that were sent.
	waiting bool          // It has more than it has sent.
	blocked time.Duration // How long, of all its life, the other end took nothing.
	trip    time.Duration // The round trip now, smoothed,
	least   time.Duration // and at best; 0: none known.
	packet  int           // The most bytes in one packet.
}

// pacer keeps the agent's transfers from filling the queue of a home's uplink,
// in which the packets of games would wait. It reads what the kernel measures of
// connections to tunnel servers, lets a governor of each tunnel server's address
// decide, and limits what sockets send. Where the system can do neither it does
// nothing.
type pacer struct {
	wake chan struct{} // Holds one signal: there is a connection.

	mu    sync.Mutex
	paths map[string]*path
}

// pacerQuiet is the pause between two readings while nothing sends much.
const pacerQuiet = 2 * paceTick

func newPacer() *pacer {
	return &pacer{wake: make(chan struct{}, 1), paths: map[string]*path{}}
}

// dialContext wraps a dial of a tunnel server: what it opens is paced until it
// is closed.
func (p *pacer) dialContext(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if c, ok := conn.(syscall.Conn); ok && canPace {
			if raw, err := c.SyscallConn(); err == nil {
				p.add(conn.RemoteAddr().String(), newPacedSocket(raw))
			}
		}
		return conn, nil
	}
}

func (p *pacer) add(address string, socket pacedSocket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paths[address] == nil {
		p.paths[address] = new(path)
	}
	p.paths[address].add(socket)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run paces until ctx ends. Nothing runs while there is no connection.
func (p *pacer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		pause := pacerQuiet
		switch connections, busy := p.tick(time.Now()); {
		case busy:
			pause = paceTick
		case connections == 0:
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
			}
		}
		timer.Reset(pause)
	}
}

// tick reads connections and limits them. It returns how many there are, and
// whether any sends much.
func (p *pacer) tick(now time.Time) (connections int, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, path := range p.paths {
		if path.tick(now) {
			busy = true
		}
		if len(path.connections) == 0 {
			delete(p.paths, address)
		}
		connections += len(path.connections)
	}
	return connections, busy
}

// path is the way to one tunnel server.
type path struct {
	governor    governor
	connections []*pacedConnection
	cursor      int // The first of the quiet connections to read next.
	least       time.Duration
	leastAt     time.Time

	// Of the last reading, kept for the memory.
	turn  []*pacedConnection
	rates []float64
}

// pacedConnection is one connection on a path.
type pacedConnection struct {
	socket  pacedSocket
	last    reading
	at      time.Time // Of last; zero: never read.
	busy    bool
	limited float64 // The limit set; 0: none.
}

const (
	// quietReadings bounds how many connections that do little are read at once.
	quietReadings = 256
	// busyBytes makes a connection one that is read every time.
	busyBytes = 16 << 10
	// packetsLeast is how many packets a second a connection may send whatever its
	// share is. The kernel sets the time of the next packet when one leaves, and a
	// higher limit later does not move it: with a share of next to nothing, for
	// which a stall of all transfers is enough, that time would be minutes away.
	packetsLeast = 10
	// leastValid is how long the best round trip of a path is believed: routes
	// change.
	leastValid = 5 * time.Minute
)

func (p *path) add(socket pacedSocket) {
	c := &pacedConnection{socket: socket}
	if r, err := socket.read(); err == nil {
		c.last.packet = r.packet
	}
	// What was learnt before holds for new connections from their first byte.
	p.limit(c, p.governor.allowed())
	p.connections = append(p.connections, c)
}

// tick reads the busy connections and some of the others, and limits those it
// has read.
func (p *path) tick(now time.Time) (busy bool) {
	d := digest{at: now}
	p.turn, p.rates = p.turn[:0], p.rates[:0]
	quiet := 0
	kept := p.connections[:0]
	for i, c := range p.connections {
		turn := i >= p.cursor && quiet < quietReadings
		if !c.busy && !turn {
			kept = append(kept, c)
			continue
		}
		if !c.busy {
			quiet++
		}
		if !p.read(c, &d) {
			continue // Closed.
		}
		kept = append(kept, c)
		p.turn = append(p.turn, c)
		busy = busy || c.busy
	}
	if p.cursor += quietReadings; p.cursor >= len(kept) {
		p.cursor = 0
	}
	clear(p.connections[len(kept):])
	p.connections = kept
	d.least = p.least
	p.governor.observe(d)
	each := share(p.governor.allowed(), p.rates)
	for _, c := range p.turn {
		p.limit(c, each)
	}
	clear(p.turn) // A closed connection is not to be held.
	return busy
}

// read takes a connection's reading into d. It returns false if it is closed.
func (p *path) read(c *pacedConnection, d *digest) bool {
	now, err := c.socket.read()
	if err != nil {
		return false
	}
	before, at := c.last, c.at
	c.last, c.at = now, d.at
	if now.least > 0 && (p.least == 0 || now.least <= p.least || d.at.Sub(p.leastAt) > leastValid) {
		p.least, p.leastAt = now.least, d.at
	}
	elapsed := d.at.Sub(at)
	delivered := float64(int64(now.arrived - before.arrived))
	wasBusy := c.busy
	c.busy = !at.IsZero() && (delivered >= busyBytes || now.waiting)
	if at.IsZero() || elapsed <= 0 || !wasBusy {
		// Its last reading is too long ago to say what it does now.
		return true
	}
	d.elapsed = elapsed
	d.delivered += delivered
	p.rates = append(p.rates, delivered/elapsed.Seconds())
	// Who waits for the other end to take more fills no queue; and round trips are
	// stale where nothing arrives.
	if now.waiting && delivered > 0 && now.blocked-before.blocked < elapsed/2 {
		if !d.filling || now.trip < d.trip {
			d.trip = now.trip
		}
		d.filling = true
	}
	return true
}

// limit sets a connection's limit, unless it has that already or nearly so.
func (p *path) limit(c *pacedConnection, to float64) {
	const near = 0.002
	if to > 0 {
		to = max(to, float64(packetsLeast*c.last.packet))
	}
	if to == c.limited || to > c.limited*(1-near) && to < c.limited*(1+near) {
		return
	}
	if c.socket.limit(to) == nil {
		c.limited = to
	}
}
