package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

var (
	errOff     = errors.New("tunnels are switched off")
	errClosing = errors.New("the tunnel server is closing")
	errUnknown = errors.New("the tunnel client has nothing here")
	errVersion = errors.New("the ticket is of another token")
	errNewer   = errors.New("the ticket is of a token not heard of yet")
)

// newsGrace is how long a ticket that is ahead of the desired state is held: the
// panel tells both ends of an allocation at once, and the tunnel client may be
// the faster one.
const newsGrace = 2 * time.Second

// link is a tunnel client that is connected. Its data connections live and die
// with it, and TCP players with those: the link is what notices that a tunnel
// client is gone, and a data connection to one that is gone would keep a player
// hanging until the kernel gives up on it. Its UDP session may outlive it: see
// detached.
type link struct {
	server  *Server
	client  uuid.UUID
	version int64
	channel *channel.Conn
	resumes string // The name of the UDP session to resume, or "".
	secret  secretHash
	pool    *pool

	mu    sync.Mutex
	ended bool
	udp   *udptunnel.ServerSession
}

func newLink(s *Server, t ticket, resumes string, c *channel.Conn) *link {
	l := &link{server: s, client: t.client, version: t.version, channel: c, resumes: resumes}
	l.pool = newPool(s.limits, func(n int) { l.dial(wire.KindStream, n) })
	return l
}

// admit says whether a ticket fits the desired state, and gives the news that
// may be on its way a moment to arrive.
func (s *Server) admit(ctx context.Context, t ticket) error {
	ctx, cancel := context.WithTimeout(ctx, newsGrace)
	defer cancel()
	for {
		s.mu.Lock()
		err, news := s.admitsLocked(t), s.news
		s.mu.Unlock()
		if !errors.Is(err, errUnknown) && !errors.Is(err, errNewer) {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return err
		}
	}
}

func (s *Server) admitsLocked(t ticket) error {
	version, ok := s.clients[t.client]
	switch {
	case s.closing:
		return errClosing
	case s.off:
		return errOff
	case !ok:
		return errUnknown
	case version < t.version:
		return errNewer
	case version != t.version:
		return errVersion
	}
	return nil
}

// enlist welcomes l, makes it the link of its tunnel client and ends the one
// before.
func (s *Server) enlist(l *link, secret string, hash secretHash) error {
	s.mu.Lock()
	// Again: the desired state may have changed since the ticket was looked at.
	if err := s.admitsLocked(ticket{client: l.client, version: l.version}); err != nil {
		s.mu.Unlock()
		return err
	}
	before := s.linked[l.client]
	// The UDP session of the link before, in one step with taking its place: were it
	// detached in between, nobody would resume it.
	kept := s.takeDetachedLocked(l.client)
	if before != nil {
		kept = before.takeUDPSession()
	}
	welcome := wire.LinkMessage{Type: wire.LinkWelcome, Secret: secret}
	resumed := kept != nil && kept.Name() == l.resumes
	if resumed {
		l.udp = kept
		welcome.Carrier = kept.Name()
	}
	// Before anybody finds the link: a player who waits would have it ask for a
	// data connection, and a client that is asked before it is welcomed has no
	// secret to open one with. An error ends the link where it is served.
	_ = l.channel.Send(welcome)
	l.secret = hash
	s.linked[l.client] = l
	s.secrets[hash] = l
	s.mu.Unlock()
	switch {
	case resumed:
		kept.Resume(time.Now())
		l.dialDatagrams(kept)
	case kept != nil:
		kept.End() // The tunnel client has started anew: its old flows lead nowhere.
	}
	if before != nil {
		before.end(channel.CloseTakenOver, "a newer link of this tunnel client took over")
	}
	return nil
}

// delist forgets l, which may have been replaced long ago. With keep its UDP
// session is kept for the tunnel client's next link.
func (s *Server) delist(l *link, keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, l.secret)
	if s.linked[l.client] != l {
		return
	}
	delete(s.linked, l.client)
	if keep && s.admitsLocked(ticket{client: l.client, version: l.version}) == nil {
		if udp := l.takeUDPSession(); udp != nil {
			s.detached[l.client] = detached{session: udp, version: l.version, since: time.Now()}
		}
	}
}

// takeUDPSession takes the link's UDP session from it, and returns it or nil. The
// link makes no other.
func (l *link) takeUDPSession() *udptunnel.ServerSession {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	udp := l.udp
	l.udp = nil
	return udp
}

// serve speaks the link until it ends.
func (l *link) serve(from string) {
	s := l.server
	log := s.log.With(slog.String("deviceId", l.client.String()), slog.String("from", from))
	defer l.channel.Wait()
	secret, hash := newSecret()
	if err := s.enlist(l, secret, hash); err != nil {
		code := channel.CloseTokenDead
		switch {
		case errors.Is(err, errClosing):
			code = channel.CloseRestarting
		case errors.Is(err, errOff):
			code = channel.CloseFeatureOff
		case errors.Is(err, errUnknown):
			code = channel.CloseDeleted
		}
		l.channel.Close(code, err.Error())
		return
	}
	log.Info("tunnel client linked")
	var err error
	for err == nil {
		var data []byte
		if data, err = l.channel.Receive(); err == nil {
			// There is nothing that a client of this version has to say.
			_, err = wire.DecodeLink(data)
		}
	}
	log.Info("tunnel client gone", slog.Any("reason", err))
	// One that says goodbye, or does not keep to the protocol, is not coming back
	// with its flows. One that has only been lost may, from another address.
	var goodbye *websocket.CloseError
	lost := !errors.Is(err, wire.ErrMalformed) && (!errors.As(err, &goodbye) || goodbye.Code == websocket.CloseAbnormalClosure)
	l.close(websocket.CloseNormalClosure, "", lost)
}

// end closes the link, its data connections, its players and its flows. It does
// not wait, and only the first reason counts.
func (l *link) end(code int, reason string) { l.close(code, reason, false) }

// close closes the link, its data connections and its players. With keep its flows
// wait for the next link.
func (l *link) close(code int, reason string, keep bool) {
	l.channel.Close(code, reason)
	// Before the data connections: no further one may come.
	l.server.delist(l, keep)
	udp := l.takeUDPSession()
	for _, conn := range l.pool.close() {
		conn.Close()
	}
	if udp != nil {
		udp.End()
	}
}

// dial asks the tunnel client for data connections.
func (l *link) dial(kind wire.Kind, count int) {
	// An error means that the link has ended, and whoever waits with it.
	_ = l.channel.Send(wire.LinkMessage{Type: wire.LinkDial, Kind: kind, Count: count})
}

// dialDatagrams asks the tunnel client for a UDP session's data connection.
func (l *link) dialDatagrams(udp *udptunnel.ServerSession) {
	m := wire.LinkMessage{Type: wire.LinkDial, Kind: wire.KindDatagram, Count: 1, Carrier: udp.Name()}
	if l.server.packets != nil {
		m.UDP = uint16(l.server.opts.AdvertisedPort)
	}
	_ = l.channel.Send(m) // As in dial.
}

// serveStreams serves a stream data connection.
func (l *link) serveStreams(ws *websocket.Conn) {
	data := ws.NetConn()
	if ws.Subprotocol() == wire.SubprotocolPlain {
		var err error
		if data, err = tcpstream.LeaveTLS(data); err != nil {
			l.server.log.Warn("data connection dropped", slog.String("deviceId", l.client.String()), slog.Any("error", err))
			_ = ws.Close()
			return
		}
	}
	conn := tcpstream.NewServer(data, &l.server.counters.streams)
	if !l.pool.add(conn) {
		conn.Close()
	}
	err := conn.Serve()
	l.pool.remove(conn)
	l.server.log.Debug("data connection ended", slog.String("deviceId", l.client.String()), slog.Any("reason", err))
}

// udpSessionNamed returns the link's UDP session if it has that name, or nil.
func (l *link) udpSessionNamed(name string) *udptunnel.ServerSession {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.udp == nil || l.udp.Name() != name {
		return nil
	}
	return l.udp
}

// serveDatagrams serves a data connection of a UDP session.
func (l *link) serveDatagrams(ws *websocket.Conn, udp *udptunnel.ServerSession) {
	next, err := udp.ServeData(ws)
	l.server.log.Debug("datagram data connection ended", slog.String("deviceId", l.client.String()), slog.Any("reason", err))
	switch next {
	case udptunnel.SessionOver:
		l.dropUDPSession(udp)
	case udptunnel.AskAgain:
		if l.udpSessionNamed(udp.Name()) != nil { // Otherwise its next link asks.
			l.dialDatagrams(udp)
		}
	}
}

// udpSession returns the link's UDP session, and asks for its data connection if it
// is new. It is nil if the link has ended.
func (l *link) udpSession() *udptunnel.ServerSession {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	if l.udp == nil {
		l.udp = udptunnel.NewServerSession(udptunnel.ServerOptions{
			Packets:   l.server.packets,
			Queue:     l.server.limits.DatagramQueue,
			WarmIdle:  l.server.limits.WarmIdle,
			AskExpiry: askExpiry,
			Counters:  &l.server.counters.udp,
			Go:        l.server.work.Go,
		}, time.Now())
		l.dialDatagrams(l.udp)
	}
	return l.udp
}

// dropUDPSession ends a UDP session; the next flow makes another.
func (l *link) dropUDPSession(udp *udptunnel.ServerSession) {
	l.forgetUDPSession(udp)
	udp.End()
}

func (l *link) forgetUDPSession(udp *udptunnel.ServerSession) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.udp == udp {
		l.udp = nil
	}
}

// tend closes what has been idle for too long.
func (l *link) tend(now time.Time) {
	// Apart: to one whose peer does not read, a close frame takes a second, which
	// nobody else's links and ports are to wait for.
	for _, conn := range l.pool.tend(now) {
		l.server.work.Go(conn.Retire)
	}
	l.mu.Lock()
	udp := l.udp
	l.mu.Unlock()
	if udp == nil {
		return
	}
	switch udp.Tick(now) {
	case udptunnel.NeedsDataConn:
		l.dialDatagrams(udp)
	case udptunnel.IdleTooLong:
		l.forgetUDPSession(udp) // First: a flow that opens meanwhile would end with it.
		l.server.work.Go(udp.Retire)
	case udptunnel.TransportsLost:
		l.dropUDPSession(udp)
	case udptunnel.Fine:
	}
}
