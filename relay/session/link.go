package session

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// link is one tunnel client while it is linked. Its data connections end with it,
// and TCP players with those: the link is what detects that a tunnel client is gone,
// and a data connection to one that is gone would keep a player hanging until the
// kernel gives up on it. Its UDP session may outlive it: see detached.
type link struct {
	registry      *registry
	client        uuid.UUID
	version       int64      // Of its token.
	from          netip.Addr // See peerAddress.
	channel       *channel.Conn
	resumes       string // The name of the UDP session to resume, or "".
	secret        secretHash
	pool          *pool
	packetPort    uint16 // The UDP port for sealed packets that clients are told; 0: none.
	newUDPSession func() *udptunnel.ServerSession
	streams       *tcpstream.Counters
	work          *sync.WaitGroup
	log           *slog.Logger

	mu    sync.Mutex
	ended bool
	udp   *udptunnel.ServerSession
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

// serve serves the link until it ends.
func (l *link) serve(from string) {
	log := l.log.With(slog.String("from", from))
	defer l.channel.Wait()
	secret, hash := newSecret()
	if err := l.registry.enlist(l, secret, hash); err != nil {
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
			// A client of this version has nothing to say.
			_, err = wire.DecodeLink(data)
		}
	}
	log.Info("tunnel client gone", slog.Any("reason", err))
	// A client that closes in order, or breaks the protocol, does not come back with
	// its flows. One that was merely lost may, from another address.
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
	l.registry.delist(l, keep)
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
	// An error means that the link has ended, which ends every wait as well.
	_ = l.channel.Send(wire.LinkMessage{Type: wire.LinkDial, Kind: kind, Count: count})
}

// dialDatagrams asks the tunnel client for a UDP session's data connection.
func (l *link) dialDatagrams(udp *udptunnel.ServerSession) {
	m := wire.LinkMessage{Type: wire.LinkDial, Kind: wire.KindDatagram, Count: 1, Session: udp.Name(), UDP: l.packetPort}
	_ = l.channel.Send(m) // As in dial.
}

// serveStreams serves a stream data connection.
func (l *link) serveStreams(ws *websocket.Conn) {
	data := ws.NetConn()
	if ws.Subprotocol() == wire.SubprotocolPlain {
		var err error
		if data, err = tcpstream.LeaveTLS(data); err != nil {
			l.log.Warn("data connection dropped", slog.Any("error", err))
			_ = ws.Close()
			return
		}
	}
	conn := tcpstream.NewServer(data, l.streams)
	if !l.pool.add(conn) {
		conn.Close()
	}
	err := conn.Serve()
	l.pool.remove(conn)
	l.log.Debug("data connection ended", slog.Any("reason", err))
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
	l.log.Debug("datagram data connection ended", slog.Any("reason", err))
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
		l.udp = l.newUDPSession()
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

// tick closes what has been idle for too long.
func (l *link) tick(now time.Time) {
	// Concurrently: a close frame to a peer that does not read takes a second, which
	// no other link or port must wait for.
	for _, conn := range l.pool.tick(now) {
		l.work.Go(conn.Retire)
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
		l.work.Go(udp.Retire)
	case udptunnel.TransportsLost:
		l.dropUDPSession(udp)
	case udptunnel.Fine:
	}
}
