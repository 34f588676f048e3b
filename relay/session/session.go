// Package session keeps the tunnel clients that are linked to a tunnel server.
//
// In come connections to one TCP listener, which become links or data connections,
// and sealed packets on the UDP port of the same number; the desired state says
// which tunnel clients may link. Out go TCP players, by [Clients.Carry], and UDP
// flows, in the session that [Clients.UDPSession] returns. [Clients] owns every
// goroutine: one for each link and data connection. All have ended when Wait
// returns.
//
//	listener.go         accepts links and data connections
//	unauthenticated.go  bounds the connections that have shown no ticket or secret
//	known.go            the sources of linked tunnel clients, which have room of their own
//	ticket.go           verifies tickets with the panel's public keys
//	identity.go         the key and certificate that tunnel clients are shown
//	registry.go         which tunnel clients may link, and which are linked
//	detached.go         UDP sessions between two links of their tunnel client
//	link.go             one tunnel client while it is linked
//	pool.go             its idle data connections, and the players who wait for one
//	queue.go            whose turn it is of these, by turns.go
package session

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Options say where tunnel clients arrive.
type Options struct {
	// ID is the tunnel server's device id: tickets must name it. Required.
	ID uuid.UUID
	// Listener accepts links and data connections; TLS is added to it. Close closes
	// it. Required.
	Listener net.Listener
	// AdvertisedPort is the port at which tunnel clients reach Listener, and for UDP
	// too. Required.
	AdvertisedPort int
	// Certificate is served on Listener until [Identity.Renew]. Required.
	Certificate tls.Certificate
	// PlainStreams lets tunnel clients that are configured alike leave players' TCP
	// bytes unencrypted. Links and datagrams stay encrypted.
	PlainStreams bool
	// Limits bound what tunnel clients can make the tunnel server hold.
	Limits Limits
	// Channel tunes links; the zero value is for use.
	Channel channel.Options
	// Now is the clock that tickets are held against; nil: time.Now.
	Now func() time.Time
	// Logger; nil discards.
	Logger *slog.Logger
}

// Clients are the tunnel clients of one tunnel server. Its methods may be called
// from any goroutine.
type Clients struct {
	// Identity is what tunnel clients are shown.
	Identity *Identity

	o        Options
	log      *slog.Logger
	limits   Limits
	tickets  *ticketVerifier
	registry *registry
	listener *listener
	packets  *udptunnel.PacketSocket // nil where its port could not be opened.
	counters counters
	work     sync.WaitGroup // Links, data connections and what they start.
}

// New makes Clients that none may link to yet.
func New(o Options) (*Clients, error) {
	if o.Listener == nil || o.ID == uuid.Nil || o.AdvertisedPort == 0 {
		return nil, errors.New("session: ID, Listener and AdvertisedPort are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	identity, err := newIdentity(o.Certificate)
	if err != nil {
		return nil, err
	}
	c := &Clients{
		Identity: identity,
		o:        o,
		log:      o.Logger,
		limits:   o.Limits.withDefaults(),
		tickets:  newTicketVerifier(o.ID, o.Now),
		registry: newRegistry(),
	}
	c.listener = newListener(listenerOptions{
		channel:      o.Channel,
		plainStreams: o.PlainStreams,
		limits:       c.limits,
		identity:     identity,
		tickets:      c.tickets,
		registry:     c.registry,
		newLink:      c.newLink,
		counters:     &c.counters,
		work:         &c.work,
		log:          c.log,
	})
	return c, nil
}

// OpenPacketPort opens the UDP port for sealed packets, of the listener's address
// and number. It is called before anything else. Where the port cannot be opened it
// is logged, and datagrams take data connections.
func (c *Clients) OpenPacketPort(ctx context.Context) {
	address := c.o.Listener.Addr().String()
	socket, err := udptunnel.ListenPackets(ctx, address, &c.counters.udp.Paths)
	if err != nil {
		c.log.Warn("no UDP port for sealed packets: datagrams take data connections",
			slog.String("address", address), slog.Any("error", err))
		return
	}
	c.packets = socket
	c.work.Go(socket.Serve)
}

// Serve accepts tunnel clients until Close, when it returns nil, or until the
// listener fails.
func (c *Clients) Serve() error { return c.listener.serve(c.o.Listener) }

// Close refuses further links, ends all links and closes the listener. It does not
// wait.
func (c *Clients) Close() {
	// Links before the listener: their data connections end with them, while an
	// agent that dials another one is answered 401 and not left in a backlog.
	c.registry.close()
	c.registry.endAll(channel.CloseRestarting, "the tunnel server is restarting")
	c.listener.close()
}

// Wait waits, after Close and after Serve has returned, for everything to end.
func (c *Clients) Wait() {
	c.listener.wait()
	if c.packets != nil {
		c.packets.Close() // One of the goroutines waited for reads it.
	}
	c.work.Wait()
}

// SetKeys replaces the panel's public keys, which tickets are verified with. An
// error leaves the keys as they were.
func (c *Clients) SetKeys(keys types.JWKS) error { return c.tickets.setKeys(keys) }

// Allow makes the given tunnel clients, by their token versions, the ones that may
// be linked, and ends the links of others. The map must not change afterwards.
func (c *Clients) Allow(clients map[uuid.UUID]int64) { c.registry.allow(clients) }

// Suspend refuses all tunnel clients until Allow. It reports whether they were not
// suspended already. Links go on until EndLinks.
func (c *Clients) Suspend() bool { return c.registry.suspend() }

// EndLinks ends all links. Their tunnel clients are told the reason, and come back
// later.
func (c *Clients) EndLinks(reason string) {
	c.registry.endAll(channel.CloseFeatureOff, reason)
}

// Tick does what is due at a time. It is called every second.
func (c *Clients) Tick(now time.Time) {
	for _, l := range c.registry.all() {
		l.tick(now)
	}
	c.registry.tickDetached(now)
}

// Errors of Carry.
var (
	// ErrNotLinked means that the tunnel client is not linked, or no longer.
	ErrNotLinked = errors.New("the tunnel client is not linked")
	// ErrTooManyWaiting means that Limits.Waiting players wait for the tunnel client, none
	// of whom gives way, or that the player gave way to one of an allocation or a source
	// with fewer.
	ErrTooManyWaiting = errors.New("too many players wait for the tunnel client")
	// ErrNoDataConnection means that the tunnel client opened no data connection in
	// time.
	ErrNoDataConnection = errors.New("the tunnel client opens no data connection")
)

// Carry carries a TCP player over a data connection of a tunnel client until the
// player or the game ends it. It waits for a data connection for Limits.JoinWait at
// most and while ctx lives. With an error the player is untouched and the caller's
// to close; without one its connection is closed.
func (c *Clients) Carry(ctx context.Context, client uuid.UUID, player *tcpstream.Player) error {
	l := c.registry.link(client)
	if l == nil {
		return ErrNotLinked
	}
	until := time.Now().Add(c.limits.JoinWait)
	for {
		conn, err := l.pool.acquire(ctx, until, player.Open.Allocation, player.Open.Source.Addr())
		if errors.Is(err, ErrNotLinked) {
			// A link that was as good as dead, until the tunnel client came back.
			if newer := c.registry.link(client); newer != nil && newer != l {
				l = newer
				continue
			}
		}
		if err != nil {
			return err
		}
		err = conn.Carry(player)
		if errors.Is(err, tcpstream.ErrUnused) {
			continue // It had died while idle.
		}
		if err == nil {
			l.pool.finished(conn)
		}
		return nil
	}
}

// AtClient reports whether a player, who reached the local address, comes from the
// address of a linked tunnel client. An invalid local address is unknown.
func (c *Clients) AtClient(player, local netip.Addr) bool {
	return c.registry.linkedFrom(peerAddress(player, local))
}

// Capacity returns how many TCP players a tunnel client can carry at the same time; 0: it
// is not linked.
func (c *Clients) Capacity(client uuid.UUID) int {
	l := c.registry.link(client)
	if l == nil {
		return 0
	}
	return l.pool.limits.DataConnections
}

// RoundTrip returns the round trip to a tunnel client, by the pings on its link; 0: it is
// not known.
func (c *Clients) RoundTrip(client uuid.UUID) time.Duration {
	l := c.registry.link(client)
	if l == nil {
		return 0
	}
	return l.channel.RoundTrip()
}

// UDPSession returns the session in which a tunnel client's flows are opened, or
// nil where the client cannot be reached.
func (c *Clients) UDPSession(client uuid.UUID) *udptunnel.ServerSession {
	l, detached := c.registry.find(client)
	switch {
	case l != nil:
		return l.udpSession()
	case detached != nil && detached.Reachable():
		return detached
	default:
		return nil
	}
}

// capacity is what a tunnel client can have open on all its links. The zero value of each
// means any number.
type capacity struct{ streams, flows int }

// newLink makes the link of a tunnel client whose ticket was accepted.
func (c *Clients) newLink(t ticket, from netip.Addr, resumes string, can capacity, conn *channel.Conn) *link {
	limits := c.limits
	if can.streams > 0 {
		limits.DataConnections = min(limits.DataConnections, can.streams+1) // One is for datagrams.
	}
	l := &link{
		registry: c.registry,
		client:   t.client,
		version:  t.version,
		from:     from,
		channel:  conn,
		resumes:  resumes,
		streams:  &c.counters.streams,
		work:     &c.work,
		log:      c.log.With(slog.String("deviceId", t.client.String())),
	}
	if c.packets != nil {
		l.packetPort = uint16(c.o.AdvertisedPort)
	}
	l.pool = newPool(limits, func(n int) { l.dial(wire.KindStream, n) })
	l.newUDPSession = func() *udptunnel.ServerSession {
		return udptunnel.NewServerSession(udptunnel.ServerOptions{
			Packets:   c.packets,
			Queue:     c.limits.DatagramQueue,
			Capacity:  can.flows,
			WarmIdle:  c.limits.WarmIdle,
			AskAgain:  askAgain,
			AskExpiry: askExpiry,
			Counters:  &c.counters.udp,
			Go:        c.work.Go,
		}, time.Now())
	}
	return l
}
