package udptunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// rememberTicks is for how many seconds at least, and up to twice as many, the
// number of an ended flow is remembered: a packet of it may still be on its way.
const rememberTicks = 10

// ClientOptions say how the tunnel client's end of a session works.
type ClientOptions struct {
	// Target returns where the flow of an open record leads, and the bytes to put
	// before each of its datagrams. An error refuses the flow. Required.
	Target func(open *wire.Record) (target Target, prefix []byte, err error)
	// FlowsPerAllocation is how many flows one allocation may have.
	FlowsPerAllocation int
	// Queue is how many bytes wait for each transport; 0: [DefaultQueue].
	Queue int
	// Counters count what happens. Required.
	Counters *Counters
	// Logger; required.
	Logger *slog.Logger
}

// ClientSession is the tunnel client's end of a UDP session: flows to local targets
// and the transports that carry them. It outlives data connections and links: a
// change of this machine's address takes those, and no player. Its methods may be
// called from any goroutine.
type ClientSession struct {
	session
	o    ClientOptions
	name string
	ctx  context.Context // Ends with the session, whose own it is.
	end  context.CancelFunc
	work sync.WaitGroup

	mu            sync.Mutex
	over          bool      // No further work may begin.
	conn          *DataConn // nil: there is none now.
	lostAt        time.Time // When the last data connection was lost, while there is none.
	path          *Path
	flows         map[uint64]*ClientFlow
	perAllocation map[int64]int
	endedNow      map[uint64]struct{} // Numbers of flows that ended lately,
	endedBefore   map[uint64]struct{} // and before that.
}

// NewClientSession makes the session of a name that the tunnel server gave. The
// caller must call Run.
func NewClientSession(ctx context.Context, name string, o ClientOptions) *ClientSession {
	s := &ClientSession{
		session:       newSession(o.Queue, o.Counters),
		o:             o,
		name:          name,
		lostAt:        time.Now(),
		flows:         map[uint64]*ClientFlow{},
		perAllocation: map[int64]int{},
		endedNow:      map[uint64]struct{}{},
	}
	s.ctx, s.end = context.WithCancel(ctx)
	return s
}

// Name is the session's name.
func (s *ClientSession) Name() string { return s.name }

// Ended reports whether the session has ended, though Run may not have returned.
func (s *ClientSession) Ended() bool { return s.ctx.Err() != nil }

// Context ends with the session.
func (s *ClientSession) Context() context.Context { return s.ctx }

// End ends the session. It does not wait and may be called again.
func (s *ClientSession) End() { s.end() }

// Flush sends what flows have queued.
func (s *ClientSession) Flush() { s.selector.Flush() }

// Run keeps the session until its context ends or the session is over. All flows
// and transports have ended when it returns.
func (s *ClientSession) Run() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for tick := 1; !s.Ended(); tick++ {
		select {
		case <-s.ctx.Done():
		case now := <-ticker.C:
			s.tick(now, tick%rememberTicks == 0)
		}
	}
	s.mu.Lock()
	s.over = true
	conn, p := s.conn, s.path
	s.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	if p != nil {
		p.Close()
	}
	s.work.Wait()
}

// tick ends the flows on which both directions have been silent, and the session
// once it has had no transport for too long.
func (s *ClientSession) tick(now time.Time, forget bool) {
	ticks := Ticks(now)
	s.mu.Lock()
	for _, f := range s.flows {
		if f.Silence(ticks) > f.idle {
			f.end()
		}
	}
	if forget {
		s.endedNow, s.endedBefore = map[uint64]struct{}{}, s.endedNow
	}
	p := s.path
	lost := s.conn == nil && now.Sub(s.lostAt) > wire.SessionGrace
	s.mu.Unlock()
	s.refusals.Store(0)
	if p != nil {
		p.Tick(now)
	}
	if lost && (p == nil || !p.Up()) {
		s.end()
	}
}

// ServeData serves a data connection of the session until it or ctx ends, and
// returns why it ended. It takes the place of the one before. Port is the UDP port
// at which the tunnel server takes sealed packets; 0: it takes none.
func (s *ClientSession) ServeData(ctx context.Context, ws *websocket.Conn, port uint16) error {
	conn := s.newDataConn()
	if !s.attach(conn) {
		return ws.Close()
	}
	defer s.work.Done()
	stop := context.AfterFunc(ctx, conn.Close) // A WebSocket read knows no context.
	defer stop()
	if port != 0 {
		s.openPath(ws, port)
	}
	var in requests
	over, err := s.serveData(conn, ws, func(records []wire.Record) error { return s.handle(records, &in) })
	s.detach(conn)
	if over {
		s.end()
	}
	return err
}

// attach uses a data connection in place of the one before, and reports whether it
// did. It counts as work until the caller says that it is done.
func (s *ClientSession) attach(conn *DataConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.work.Add(1)
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn = conn
	s.selector.Use(conn)
	return true
}

func (s *ClientSession) detach(conn *DataConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.selector.Leave(conn)
	if s.conn == conn {
		s.conn, s.lostAt = nil, time.Now()
	}
}

// openPath opens the sealed path with the keys of the session's first data
// connection.
func (s *ClientSession) openPath(ws *websocket.Conn, port uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path != nil || s.over {
		return
	}
	p, err := s.dialPath(ws, port)
	if err != nil {
		s.o.Logger.Debug("no sealed packets to the tunnel server", slog.Any("error", err))
		return
	}
	s.path = p
	s.selector.UsePath(p)
	s.work.Go(p.Serve)
	p.Tick(time.Now())
}

func (s *ClientSession) dialPath(ws *websocket.Conn, port uint16) (*Path, error) {
	encrypted, isTLS := ws.NetConn().(interface{ ConnectionState() tls.ConnectionState })
	reached, isTCP := ws.RemoteAddr().(*net.TCPAddr)
	if !isTLS || !isTCP {
		return nil, errors.New("the data connection is not TLS over TCP")
	}
	state := encrypted.ConnectionState()
	export := seal.Export
	ratchet := ws.Subprotocol() == wire.SubprotocolRatchet
	if ratchet {
		export = seal.ExportRatchet
	}
	keys, err := export(&state)
	if err != nil {
		return nil, err
	}
	var in requests
	server := netip.AddrPortFrom(reached.AddrPort().Addr(), port)
	return DialPath(s.ctx, server, PathOptions{
		Keys:   keys,
		Handle: func(records []wire.Record) error { return s.handle(records, &in) },
		Fail: func(err error) {
			s.o.Logger.Warn("malformed packet from the tunnel server", slog.Any("error", err))
			s.end()
		},
		Queue:     s.queue,
		Split:     ratchet || ws.Subprotocol() == wire.SubprotocolSplit,
		Datagrams: &s.counters.Datagrams,
	}, &s.counters.Paths)
}
