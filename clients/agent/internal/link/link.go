package link

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
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// state is the state of a link.
type state int

const (
	dialling state = iota // For the first time: the outcome is not known.
	up
	down // It is dialled again.
)

// takeoverWindow is how soon after the first a second takeover of a link shows that
// there is another agent.
const takeoverWindow = time.Minute

// link keeps the link to one tunnel server at one address.
type link struct {
	*config
	log     *slog.Logger
	server  uuid.UUID
	address string
	cancel  context.CancelFunc
	wake    chan struct{} // Holds one signal: there is another ticket or key.

	takenOverAt time.Time // When another link last took over. Belongs to serve.
	remote      net.Addr  // The other end of the link that serve has. Set by run's Dial.

	mu          sync.Mutex
	state       state
	reason      string    // Why it is down.
	since       time.Time // When state last changed.
	linked      string    // The other end's address when it was last up.
	ticket      string
	fingerprint string
	dialer      *serverDialer            // For fingerprint.
	udp         *udptunnel.ClientSession // nil: none.

	udpSessions sync.WaitGroup // Including sessions that udp no longer holds.
}

func newLink(c *config, s types.ClientServer, cancel context.CancelFunc) *link {
	return &link{
		config:      c,
		log:         c.Logger.With(slog.String("serverId", s.ID.String()), slog.String("serverAddress", s.Address)),
		server:      s.ID,
		address:     s.Address,
		cancel:      cancel,
		wake:        make(chan struct{}, 1),
		since:       time.Now(),
		ticket:      s.Ticket,
		fingerprint: s.Fingerprint,
		dialer:      newServerDialer(c, s.Address, s.Fingerprint),
	}
}

// update sets the ticket and the key for the next dials, and dials now if the link is
// down: these may be why. A link that is up stays, and its players with it: a tunnel
// server that renews its certificate is the same tunnel server.
func (l *link) update(s types.ClientServer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ticket == s.Ticket && l.fingerprint == s.Fingerprint {
		return
	}
	if l.fingerprint != s.Fingerprint {
		l.dialer = newServerDialer(l.config, s.Address, s.Fingerprint)
	}
	l.ticket, l.fingerprint = s.Ticket, s.Fingerprint
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// status returns the link's state, and why it is down.
func (l *link) status() (state, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.reason
}

// setStatus sets the link's state and reports whether it has changed.
func (l *link) setStatus(s state, reason string) (changed bool) {
	l.mu.Lock()
	changed = l.state != s || l.reason != reason
	if l.state != s {
		l.since = time.Now()
	}
	l.state, l.reason = s, reason
	l.mu.Unlock()
	if changed {
		l.OnChange()
	}
	return changed
}

// run keeps the link until ctx ends or, with a *channel.FinalError, until a newer
// agent has taken over.
func (l *link) run(ctx context.Context) error {
	options := l.Channel
	options.MaxMessage = wire.MaxLinkMessage
	ctx, cancel := context.WithCancel(ctx)
	defer l.udpSessions.Wait() // They may outlive the last link.
	defer cancel()
	return channel.Keep(ctx, channel.KeepOptions{
		Dial: func(ctx context.Context) (*websocket.Conn, error) {
			select { // This dial uses the ticket that the signal announces.
			case <-l.wake:
			default:
			}
			dialer, ticket := l.credentials()
			ws, err := dialer.link(ctx, ticket, l.udpSessionName())
			if err == nil {
				l.remote = ws.RemoteAddr()
			}
			return ws, err
		},
		Serve:   l.serve,
		Ended:   l.ended,
		Wake:    l.wake,
		Backoff: l.Backoff,
		Channel: options,
	})
}

// credentials returns what the next dial uses.
func (l *link) credentials() (*serverDialer, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialer, l.ticket
}

// ended records the end of a link, or a failed dial, that a retry follows.
func (l *link) ended(err error, wait time.Duration) {
	text := fmt.Sprintf("tunnel server %s: %s", l.address, reason(err))
	log := l.log.Debug // It is retried every few seconds, however long the outage.
	if l.setStatus(down, text) {
		log = l.log.Warn
	}
	log("no link to the tunnel server", slog.String("reason", text), slog.Duration("retry", wait))
}

// serve handles the tunnel server's messages until the link ends.
func (l *link) serve(ctx context.Context, c *channel.Conn, ready func()) error {
	s := l.newSession(ctx)
	ctx, cancel := context.WithCancel(ctx)
	// The session ends with the link and disconnects all TCP players: a lost tunnel
	// server could not tell them.
	defer s.work.Wait()
	defer cancel()
	for {
		data, err := c.Receive()
		if err != nil {
			if s.secret == "" && ctx.Err() == nil {
				l.line.Failed(l.remote) // It was opened, and no welcome came.
			}
			return l.endReason(err, time.Now())
		}
		m, err := wire.DecodeLink(data)
		if err != nil {
			return err
		}
		switch m.Type {
		case wire.LinkWelcome:
			if s.secret != "" { // Dials read it concurrently.
				return fmt.Errorf("%w: a second welcome", wire.ErrMalformed)
			}
			s.secret = m.Secret
			l.endOtherUDPSession(m.Session) // The tunnel server knows no other.
			ready()
			l.log.Info("linked to the tunnel server")
			l.mu.Lock()
			l.linked = l.remote.String()
			l.mu.Unlock()
			l.setStatus(up, "")
		case wire.LinkDial:
			s.dial(ctx, m)
		}
	}
}

// newSession returns the session of a link that is up. Its UDP sessions end with
// linkCtx, which outlives it.
func (l *link) newSession(linkCtx context.Context) *session {
	return &session{
		config: l.config,
		log:    l.log,
		dialer: func() *serverDialer {
			dialer, _ := l.credentials()
			return dialer
		},
		dialTarget: func(ctx context.Context, open wire.Control) (tcpstream.Game, error) {
			return l.Targets.DialTCP(ctx, l.server, open)
		},
		udpSession: func(name string) (*udptunnel.ClientSession, error) { return l.udpSession(linkCtx, name) },
		dials:      make(chan struct{}, l.Limits.Dials),
	}
}

// endReason returns why a link ended, as an error that channel.Keep retries unless it
// is final. Whether the device or its token is revoked is the panel's decision alone:
// this tunnel server may not know the newest ticket. Whether another agent took over
// is the panel's decision as well while it is connected. While it is not, the first
// takeover is not believed: it may have been a dial that this agent gave up, which the
// system sent late and the tunnel server took for the newest. This agent then takes
// the link back, unless there really is another agent that does so too.
func (l *link) endReason(err error, now time.Time) error {
	switch {
	case websocket.IsCloseError(err, channel.CloseTokenDead, channel.CloseDeleted):
	case websocket.IsCloseError(err, channel.CloseTakenOver):
		again := !l.takenOverAt.IsZero() && now.Sub(l.takenOverAt) < takeoverWindow
		l.takenOverAt = now
		if again && !l.PanelConnected() {
			return err
		}
	default:
		return err
	}
	return errors.New(reason(err))
}
