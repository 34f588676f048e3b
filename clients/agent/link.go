package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// linkState is what is known of a link.
type linkState int

const (
	linkDialling linkState = iota // For the first time: no verdict yet.
	linkUp
	linkDown // It is tried again.
)

// takeoverMemory is how soon after the first a second take-over of a link shows
// that there is another agent.
const takeoverMemory = time.Minute

// link keeps the link to one tunnel server, at one address.
type link struct {
	links   *links
	log     *slog.Logger
	server  uuid.UUID
	address string
	cancel  context.CancelFunc
	wake    chan struct{} // Holds one signal: there is another ticket or key.

	taken time.Time // When another link last took over. Of whoever serves.

	// Guarded by links.mu.
	state  linkState
	reason string

	mu          sync.Mutex
	ticket      string
	fingerprint string
	dialler     *relayDialler            // Of that fingerprint.
	udp         *udptunnel.ClientSession // nil: none.

	udpSessions sync.WaitGroup // Those that have ended too.
}

func newLink(l *links, s types.ClientServer, cancel context.CancelFunc) *link {
	return &link{
		links:       l,
		log:         l.log.With(slog.String("serverId", s.ID.String()), slog.String("serverAddress", s.Address)),
		server:      s.ID,
		address:     s.Address,
		cancel:      cancel,
		wake:        make(chan struct{}, 1),
		ticket:      s.Ticket,
		fingerprint: s.Fingerprint,
		dialler:     l.dialler(s),
	}
}

// renew has the next dials use another ticket and expect another key, and has
// the link dialled now if it is down: these may be why. A link that is up stays,
// and its players with it: a tunnel server that renews its certificate is the
// same one.
func (l *link) renew(s types.ClientServer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ticket == s.Ticket && l.fingerprint == s.Fingerprint {
		return
	}
	if l.fingerprint != s.Fingerprint {
		l.dialler = l.links.dialler(s)
	}
	l.ticket, l.fingerprint = s.Ticket, s.Fingerprint
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run keeps the link until ctx ends or, with a *channel.FinalError, until a
// newer agent has taken over.
func (l *link) run(ctx context.Context) error {
	options := l.links.opts.Channel
	options.MaxMessage = wire.MaxLinkMessage
	ctx, cancel := context.WithCancel(ctx)
	// Of the flows that have outlived every link.
	defer l.udpSessions.Wait()
	defer cancel()
	return channel.Keep(ctx, channel.KeepOptions{
		Dial: func(ctx context.Context) (*websocket.Conn, error) {
			select { // The ticket that it tells of is the one used now.
			case <-l.wake:
			default:
			}
			dialler, ticket := l.credentials()
			return dialler.link(ctx, ticket, l.udpSessionName())
		},
		Serve:   l.serve,
		Ended:   l.ended,
		Wake:    l.wake,
		Backoff: l.links.opts.Backoff,
		Channel: options,
	})
}

// credentials are what to dial with now.
func (l *link) credentials() (*relayDialler, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialler, l.ticket
}

// ended hears of every end that another try follows.
func (l *link) ended(err error, wait time.Duration) {
	reason := fmt.Sprintf("tunnel server %s: %s", l.address, relayReason(err))
	log := l.log.Debug // It tries every few seconds, for as long as it takes.
	if l.links.setState(l, linkDown, reason) {
		log = l.log.Warn
	}
	log("no link to the tunnel server", slog.String("reason", reason), slog.Duration("retry", wait))
}

// serve speaks the link until it ends.
func (l *link) serve(ctx context.Context, c *channel.Conn, ready func()) error {
	s := &session{link: l, life: ctx, dials: make(chan struct{}, l.links.opts.Limits.Dials)}
	ctx, cancel := context.WithCancel(ctx)
	// The session ends with the link, all its TCP players with it: a tunnel server
	// that is gone could not tell them.
	defer s.connections.Wait()
	defer cancel()
	for {
		data, err := c.Receive()
		if err != nil {
			return l.notFinal(err, time.Now())
		}
		m, err := wire.DecodeLink(data)
		if err != nil {
			return err
		}
		switch m.Type {
		case wire.LinkWelcome:
			if s.secret != "" { // It is being read by dials.
				return fmt.Errorf("%w: a second welcome", wire.ErrMalformed)
			}
			s.secret = m.Secret
			l.endOtherUDPSession(m.Carrier) // The tunnel server knows of no other.
			ready()
			l.log.Info("linked to the tunnel server")
			l.links.setState(l, linkUp, "")
		case wire.LinkDial:
			s.dial(ctx, m)
		}
	}
}

// notFinal hides from Keep what is not a tunnel server's to decide: whether the
// device or its token is dead the panel says, and this may be a tunnel server
// that has not heard of the newest ticket. Whether another agent took over the panel
// says too, while it is there. While it is not, the first word of that is not
// believed: it may have been a dial that this agent gave up, which the system had
// still to send and the tunnel server took for the newest. Who comes back has the
// link again, unless there is somebody who comes back as well.
func (l *link) notFinal(err error, now time.Time) error {
	switch {
	case websocket.IsCloseError(err, channel.CloseTokenDead, channel.CloseDeleted):
	case websocket.IsCloseError(err, channel.CloseTakenOver):
		again := !l.taken.IsZero() && now.Sub(l.taken) < takeoverMemory
		l.taken = now
		if again && !l.links.opts.Supervised() {
			return err
		}
	default:
		return err
	}
	return errors.New(relayReason(err))
}

// session is one link while it is up: its data connections.
type session struct {
	link        *link
	life        context.Context // Of the link, sessions after this one included: UDP sessions are the link's.
	secret      string
	dials       chan struct{} // Holds one token for each dial in progress.
	connections sync.WaitGroup

	mu   sync.Mutex
	open int
}

// dial opens the data connections that are asked for, as far as the limit goes.
func (s *session) dial(ctx context.Context, ask wire.LinkMessage) {
	s.mu.Lock()
	count := min(ask.Count, s.link.links.opts.Limits.DataConnections-s.open)
	s.open += max(0, count)
	s.mu.Unlock()
	for range count {
		s.connections.Go(func() {
			serve, err := s.reach(ctx, ask)
			if err != nil {
				s.ended(ask, err)
				return
			}
			// On a stack of its own: the one that opened the connection has grown to
			// twice what serving takes, and it lasts as long as its goroutine.
			s.connections.Go(func() { s.ended(ask, serve()) })
		})
	}
}

// ended notes the end of a data connection, or that there is none.
func (s *session) ended(ask wire.LinkMessage, reason error) {
	s.link.log.Debug("data connection ended", slog.String("kind", string(ask.Kind)), slog.Any("reason", reason))
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
}

// reach is connect, tried for as long as a tunnel server waits for what it has asked
// for: it does not hear of a dial that has failed, and asks for no other meanwhile.
func (s *session) reach(ctx context.Context, ask wire.LinkMessage) (serve func() error, err error) {
	retry := backoff.Exponential{Min: 50 * time.Millisecond, Max: time.Second}
	// The last try included: what comes later the tunnel server has asked for again.
	waited, cancel := context.WithTimeout(ctx, s.link.links.opts.Limits.DialTimeout)
	defer cancel()
	for dialling := ctx; ; dialling = waited {
		var refused *refusedError
		serve, err = s.connect(ctx, dialling, ask)
		if err == nil || errors.As(err, &refused) {
			return serve, err
		}
		if retry.Wait(waited) != nil {
			return nil, err
		}
	}
}

// connect opens one data connection while dialling has not ended, and returns what
// serves it until it or ctx ends.
func (s *session) connect(ctx, dialling context.Context, ask wire.LinkMessage) (serve func() error, err error) {
	select {
	case s.dials <- struct{}{}:
		defer func() { <-s.dials }()
	case <-dialling.Done():
		return nil, dialling.Err()
	}
	dialler, _ := s.link.credentials()
	if ask.Kind == wire.KindStream {
		data, err := dialler.stream(dialling, s.secret)
		return func() error { return s.serveStreams(ctx, data) }, err
	}
	ws, err := dialler.datagrams(dialling, ask.Carrier, s.secret)
	port := ask.UDP
	if dialler.proxied() {
		port = 0
	}
	return func() error {
		connections := s.link.links.counters.connections(wire.KindDatagram)
		connections.Add(1)
		defer connections.Add(-1)
		return s.serveDatagrams(ctx, ws, ask.Carrier, port)
	}, err
}

func (s *session) serveStreams(ctx context.Context, data net.Conn) error {
	counters := &s.link.links.counters
	connections := counters.connections(wire.KindStream)
	connections.Add(1)
	defer connections.Add(-1)
	conn := tcpstream.NewClient(data, &counters.streams, func(open wire.Control) (*net.TCPConn, error) {
		return s.link.links.targets.DialTCP(ctx, s.link.server, open)
	})
	// A read knows no context.
	stop := context.AfterFunc(ctx, conn.Close)
	defer stop()
	return conn.Serve()
}
