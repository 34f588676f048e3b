package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// session is the data connections of one link while it is up.
type session struct {
	*config
	log        *slog.Logger
	dialer     func() *serverDialer // For the tunnel server's current key.
	dialTarget func(ctx context.Context, open wire.Control) (tcpstream.Game, error)
	udpSession func(name string) (*udptunnel.ClientSession, error)

	secret string         // Of the welcome; set before the first dial.
	dials  chan struct{}  // Holds one token for each dial in progress.
	work   sync.WaitGroup // Dials and open data connections.

	mu   sync.Mutex
	open int
	// datagrams is what the dials of UDP sessions end with: the first one that succeeds
	// ends the others. nil: there is none.
	datagrams    context.Context
	endDatagrams context.CancelFunc
}

// dial opens the data connections that a message asks for, up to the limit.
func (s *session) dial(ctx context.Context, m wire.LinkMessage) {
	s.mu.Lock()
	count := max(0, min(m.Count, s.Limits.DataConnections-s.open))
	if m.Kind == wire.KindStream {
		count = s.reserve(count)
	}
	s.open += count
	s.mu.Unlock()
	for range count {
		s.work.Go(func() {
			serve, err := s.connect(ctx, m)
			if err != nil {
				s.ended(m, err)
				return
			}
			// On a new stack: that of the handshake has grown to twice what serving
			// needs, and would stay as large as long as its goroutine.
			s.work.Go(func() { s.ended(m, serve()) })
		})
	}
}

// ended records the end of a data connection, or that it could not be opened.
func (s *session) ended(m wire.LinkMessage, reason error) {
	s.log.Debug("data connection ended", slog.String("kind", string(m.Kind)), slog.Any("reason", reason))
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	if m.Kind == wire.KindStream {
		s.streams.Add(-1)
	}
}

// connect opens a data connection. It retries as long as the tunnel server waits for
// it: the tunnel server does not learn of a failed dial, and asks for few others
// meanwhile.
func (s *session) connect(ctx context.Context, m wire.LinkMessage) (serve func() error, err error) {
	retry := backoff.Exponential{Min: 50 * time.Millisecond, Max: time.Second}
	first := ctx
	if m.Kind == wire.KindDatagram {
		first = s.datagramDials(ctx)
	}
	// It bounds the retries as well: after it the tunnel server has asked again.
	bounded, cancel := context.WithTimeout(first, s.Limits.DialTimeout)
	defer cancel()
	for dialCtx := first; ; dialCtx = bounded {
		var refused *refusedError
		serve, err = s.connectOnce(ctx, dialCtx, m)
		if err == nil && m.Kind == wire.KindDatagram {
			s.endDatagramDials()
		}
		if err == nil || errors.As(err, &refused) {
			return serve, err
		}
		if retry.Wait(bounded) != nil {
			return nil, err
		}
	}
}

// datagramDials returns the context of the dials of UDP sessions. The tunnel server asks
// for a further data connection where one is slow to come, and uses one of them.
func (s *session) datagramDials(ctx context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.datagrams == nil {
		s.datagrams, s.endDatagrams = context.WithCancel(ctx)
	}
	return s.datagrams
}

// endDatagramDials ends the dials of UDP sessions that are still in progress.
func (s *session) endDatagramDials() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.datagrams != nil {
		s.endDatagrams()
		s.datagrams, s.endDatagrams = nil, nil
	}
}

// connectOnce opens a data connection until dialCtx ends. It returns what serves the
// connection until that or ctx ends.
func (s *session) connectOnce(ctx, dialCtx context.Context, m wire.LinkMessage) (serve func() error, err error) {
	select {
	case s.dials <- struct{}{}:
		defer func() { <-s.dials }()
	case <-dialCtx.Done():
		return nil, dialCtx.Err()
	}
	dialer := s.dialer()
	if m.Kind == wire.KindStream {
		data, err := dialer.stream(dialCtx, s.secret)
		return func() error { return s.serveTCP(ctx, data) }, err
	}
	ws, err := dialer.datagrams(dialCtx, m.Session, s.secret)
	port := m.UDP
	if dialer.proxied() {
		port = 0
	}
	return func() error { return s.serveUDP(ctx, ws, m.Session, port) }, err
}

// serveTCP serves a data connection for TCP players until it or ctx ends.
func (s *session) serveTCP(ctx context.Context, data net.Conn) error {
	defer count(&s.counters.tcpConnections)()
	conn := tcpstream.NewClient(data, func(open wire.Control) (tcpstream.Game, error) {
		return s.dialTarget(ctx, open)
	})
	conn.OnSilent(s.Targets.Failed)
	stop := context.AfterFunc(ctx, conn.Close) // A read knows no context.
	defer stop()
	return conn.Serve()
}

// serveUDP serves a data connection of the UDP session of that name until it or ctx
// ends. Port is where the tunnel server receives sealed packets; 0: nowhere.
func (s *session) serveUDP(ctx context.Context, ws *websocket.Conn, name string, port uint16) error {
	defer count(&s.counters.udpConnections)()
	udp, err := s.udpSession(name)
	if err != nil {
		s.log.Error("no UDP flows can be served", slog.Any("error", err))
		return ws.Close()
	}
	return udp.ServeData(ctx, ws, port)
}

// count adds one to n until the returned function is called.
func count(n *atomic.Int64) (done func()) {
	n.Add(1)
	return func() { n.Add(-1) }
}
