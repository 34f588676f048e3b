package pacing

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// socket is one connection to a tunnel server.
type socket interface {
	// read returns what the kernel has measured, or an error once it is closed.
	read() (reading, error)
	// limit sets the most bytes per second that it sends; 0: no limit.
	limit(bytesPerSecond float64) error
}

// reading is what the kernel has measured of a connection.
type reading struct {
	delivered       uint64        // Bytes acknowledged since it was opened.
	backlogged      bool          // More is written than is sent.
	receiverLimited time.Duration // How long in all the receiver's window was closed.
	rtt             time.Duration // The current round trip, smoothed,
	minRTT          time.Duration // and the minimum; 0: none measured.
	packet          int           // The most bytes in one packet.
}

// Pacer limits what connections to tunnel servers send to a rate that leaves no
// standing queue. It is safe for concurrent use.
type Pacer struct {
	wake chan struct{} // Holds one signal: a connection was added.

	mu    sync.Mutex
	paths map[string]*networkPath // By the address of the tunnel server, or of the proxy.
}

// idleInterval is the time between two readings while nothing sends much.
const idleInterval = 2 * tickInterval

// New returns a pacer. Nothing is paced before Run.
func New() *Pacer {
	return &Pacer{wake: make(chan struct{}, 1), paths: map[string]*networkPath{}}
}

// Dialer returns the DialContext of a dialer with the congestion control that is
// best for an uplink, where the kernel has it, and whose TCP connections are paced
// until they are closed. It replaces d.Control.
func (p *Pacer) Dialer(d net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	d.Control = setCongestionControl
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if c, ok := conn.(syscall.Conn); ok && supported {
			if raw, err := c.SyscallConn(); err == nil {
				p.add(conn.RemoteAddr().String(), newSocket(raw))
			}
		}
		return conn, nil
	}
}

func (p *Pacer) add(address string, s socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paths[address] == nil {
		p.paths[address] = new(networkPath)
	}
	p.paths[address].add(s)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run paces until ctx ends. It sleeps while there is no connection. It may be
// called once.
func (p *Pacer) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		pause := idleInterval
		switch connections, busy := p.tick(time.Now()); {
		case busy:
			pause = tickInterval
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
// whether any of them sends much.
func (p *Pacer) tick(now time.Time) (connections int, busy bool) {
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
