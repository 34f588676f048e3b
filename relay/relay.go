// Package relay is the tunnel server: it owns public ports, takes players on
// them, and passes their traffic to tunnel clients over data connections.
//
// What it serves it is told over its control channel, and it keeps no other
// state. With the control channel away everything goes on as it was: players
// stay, new players join, and tunnel clients come back with their tickets. The
// same holds for the next process where this one's state is kept for it, which
// is its owner's to do: see Options.Keep.
//
//	control.go   the control channel: desired state in, status out
//	ports.go     desired state -> open ports; stream.go and datagram.go are those
//	listener.go  takes links and data connections; strangers.go bounds who has shown nothing
//	link.go      a tunnel client: its pool (TCP) and its UDP session
//	detached.go  UDP sessions between two links of their tunnel client
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// tick is how often what has become due is looked for: idle flows, idle data
// connections, ports to try again.
const tick = time.Second

// Options say who a tunnel server is and where it listens.
type Options struct {
	// ID is its device id: tickets must name it. Required.
	ID uuid.UUID
	// Dial opens its control channel. An error wrapping channel.ErrFeatureOff
	// closes all ports until a later try succeeds, a *channel.FinalError ends
	// Run, any other is retried and changes nothing. Required.
	Dial func(ctx context.Context) (*websocket.Conn, error)
	// Listener takes links and data connections; TLS is added to it. Run closes
	// it. Required. Run also takes sealed packets on the UDP port of the same
	// address and number; where it cannot have that, it logs so and does without.
	Listener net.Listener
	// AdvertisedPort is the port at which tunnel clients reach the Listener, and
	// for UDP too; 0: its own.
	AdvertisedPort int
	// Certificate is served on the Listener until Renew; nil: a key made by New.
	Certificate *tls.Certificate
	// Keep is handed what is to be served, each time the panel has changed it,
	// and nil once that is nothing for good: tunnels are switched off, or the
	// device's token is dead. It is called by one goroutine, holds up what comes
	// next, and must not change what it is handed. nil: nothing is kept.
	Keep func(*types.ServerSnapshot)
	// Last is what Keep was last handed, by a process before this one. It is
	// served until the panel says more; nil: nothing.
	Last *types.ServerSnapshot
	// PlainStreams lets tunnel clients that are told the same do without the
	// encryption of their players' TCP bytes. Links and datagrams keep theirs.
	PlainStreams bool
	// BindHost is the address to which public ports are bound; "": all, IPv4
	// and IPv6.
	BindHost string
	// Version and Platform describe this program to the panel.
	Version, Platform string
	// OnChannel hears that the panel has sent the desired state on a new control
	// channel (nil), and of every end or failed try, with the wait until the
	// next. It must not block. May be nil.
	OnChannel func(err error, retry time.Duration)
	// Limits bound what peers can make it hold.
	Limits Limits
	// Channel tunes the control channel and links, Backoff the control
	// channel's reconnects; the zero values are for use.
	Channel channel.Options
	Backoff backoff.Exponential
	// Logger; nil discards.
	Logger *slog.Logger
	// Metrics is given the tunnel server's metrics for as long as it runs. It may
	// hold those of one tunnel server at a time. nil: none.
	Metrics prometheus.Registerer
	// Now is the clock that tickets are held against; nil: time.Now.
	Now func() time.Time
}

// Server is one tunnel server.
type Server struct {
	opts     Options
	log      *slog.Logger
	limits   Limits
	identity identity
	tickets  *ticketVerifier
	ports    *ports
	control  *control

	// packets takes sealed packets; nil where its port could not be had. It is set
	// before anything else runs.
	packets *udptunnel.PacketSocket

	work sync.WaitGroup // Every goroutine of ports, links and data connections.

	counters counters

	mu       sync.Mutex
	closing  bool
	off      bool                // The feature is off, as far as is known.
	clients  map[uuid.UUID]int64 // Token versions, by the desired state.
	news     chan struct{}       // Closed, and replaced, when clients is.
	linked   map[uuid.UUID]*link
	secrets  map[secretHash]*link
	detached map[uuid.UUID]detached
}

// New makes a tunnel server.
func New(o Options) (*Server, error) {
	if o.Dial == nil || o.Listener == nil || o.ID == uuid.Nil {
		return nil, errors.New("relay: ID, Dial and Listener are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Keep == nil {
		o.Keep = func(*types.ServerSnapshot) {}
	}
	if o.OnChannel == nil {
		o.OnChannel = func(error, time.Duration) {}
	}
	if o.AdvertisedPort == 0 {
		if a, ok := o.Listener.Addr().(*net.TCPAddr); ok {
			o.AdvertisedPort = a.Port
		}
	}
	s := &Server{
		opts:     o,
		log:      o.Logger.With(slog.String("serverId", o.ID.String())),
		limits:   o.Limits.withDefaults(),
		tickets:  newTicketVerifier(o.ID, o.Now),
		clients:  map[uuid.UUID]int64{},
		news:     make(chan struct{}),
		linked:   map[uuid.UUID]*link{},
		secrets:  map[secretHash]*link{},
		detached: map[uuid.UUID]detached{},
	}
	if o.Certificate == nil {
		made, err := SelfSigned()
		if err != nil {
			return nil, err
		}
		o.Certificate = &made
	}
	var err error
	if s.identity.served, err = newKeyed(*o.Certificate); err != nil {
		return nil, err
	}
	s.control = newControl(s)
	s.ports = newPorts(s.openPort, s.control.report, s.log)
	return s, nil
}

// Fingerprint is the fingerprint of the key that links and data connections are
// taken with, as in types.RelayEndpoint.
func (s *Server) Fingerprint() string { return s.identity.now().fingerprint }

// Renew has the Listener serve another certificate. One for the same key is
// served from the next handshake on. Another key the panel hears of first, over
// a new control channel, and it is served once the panel has answered there:
// tunnel clients accept no key but the one that the panel names. An error leaves
// everything as it was.
func (s *Server) Renew(c tls.Certificate) error {
	next, err := newKeyed(c)
	if err != nil {
		return err
	}
	if !s.identity.renew(next) {
		s.control.reconnect("the tunnel server has another key")
	}
	return nil
}

// Run serves until ctx ends, when it returns nil, or until the control channel
// is closed for good, when it returns the *channel.FinalError. All it started
// has ended when it returns. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	if registry := s.opts.Metrics; registry != nil {
		if err := registry.Register(metrics{s}); err != nil {
			return errors.Join(fmt.Errorf("register metrics: %w", err), s.opts.Listener.Close())
		}
		defer registry.Unregister(metrics{s})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.listenPackets(ctx)
	// Before the listener: a tunnel client that comes at once is not refused.
	s.control.resume(s.opts.Last)
	listener := s.newListener()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := listener.serve(); err != nil {
			// No tunnel client could come back: better to end and be started again.
			cancel(err)
		}
	}()
	var tending sync.WaitGroup
	tending.Go(func() { s.tend(ctx) })

	err := s.control.run(ctx)

	cancel(nil)
	tending.Wait()
	// Ports before links: a player taken now would be spliced into a link that
	// is closing.
	s.ports.close()
	// Links before the listener: their data connections end with them, while an
	// agent that dials one more is still told 401 rather than left in a backlog.
	s.mu.Lock()
	s.closing = true // No further link.
	s.mu.Unlock()
	s.closeLinks(channel.CloseRestarting, "the tunnel server restarts")
	s.endDetached(func(uuid.UUID, detached) bool { return true })
	listener.close()
	<-served
	listener.wait()
	if s.packets != nil {
		s.packets.Close() // It is read by one of those waited for.
	}
	s.work.Wait()
	if err == nil {
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
			err = cause
		}
	}
	return err
}

// tend does what becomes due with time.
func (s *Server) tend(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.ports.tend(now)
			s.control.reportPlayers(now)
			for _, l := range s.allLinks() {
				l.tend(now)
			}
			s.tickDetached(now)
		}
	}
}

// applyClients makes the clients of a desired state the ones that may be
// linked, and closes the links of others.
func (s *Server) applyClients(clients map[uuid.UUID]int64) {
	s.mu.Lock()
	s.off = false
	s.clients = clients
	close(s.news)
	s.news = make(chan struct{})
	var dead, deleted []*link
	for id, l := range s.linked {
		if version, ok := clients[id]; !ok {
			deleted = append(deleted, l)
		} else if version != l.version {
			dead = append(dead, l)
		}
	}
	s.mu.Unlock()
	for _, l := range dead {
		l.end(channel.CloseTokenDead, "the device's token was replaced")
	}
	for _, l := range deleted {
		l.end(channel.CloseDeleted, "the device is not served here any more")
	}
	s.endDetached(func(id uuid.UUID, o detached) bool {
		version, ok := clients[id]
		return !ok || version != o.version
	})
}

// suspend closes all ports and links because tunnels are switched off. The next
// snapshot brings them back.
func (s *Server) suspend() {
	s.mu.Lock()
	was := s.off
	s.off = true
	s.mu.Unlock()
	if was {
		return
	}
	s.log.Info("tunnels are switched off: closing all ports")
	s.opts.Keep(nil) // First: a crash in between must not bring them back.
	s.ports.apply(map[int64]types.ServerAllocation{})
	s.closeLinks(channel.CloseFeatureOff, "tunnels are switched off")
	s.endDetached(func(uuid.UUID, detached) bool { return true })
}

// closeLinks ends every link.
func (s *Server) closeLinks(code int, reason string) {
	for _, l := range s.allLinks() {
		l.end(code, reason)
	}
}

func (s *Server) allLinks() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*link, 0, len(s.linked))
	for _, l := range s.linked {
		all = append(all, l)
	}
	return all
}

// link returns the link of a tunnel client, or nil.
func (s *Server) link(client uuid.UUID) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.linked[client]
}

// openPort opens an allocation's public port.
func (s *Server) openPort(a types.ServerAllocation) (publicPort, error) {
	if a.Protocol == types.ProtocolUDP {
		return s.openDatagramPort(a)
	}
	return s.openStreamPort(a)
}
