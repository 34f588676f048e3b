package udptunnel

import (
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// ServerOptions say how the tunnel server's end of a session works.
type ServerOptions struct {
	// Packets is where sealed packets are sent and received; nil: the session has
	// none and uses data connections alone.
	Packets *PacketSocket
	// Queue is how many bytes wait for each transport; 0: [DefaultQueue].
	Queue int
	// Capacity is how many flows the tunnel client can have open; 0: any number. The
	// session does not enforce it.
	Capacity int
	// WarmIdle is how long a session without flows lives on.
	WarmIdle time.Duration
	// AskAgain is how long a data connection that the tunnel client was asked for may
	// take before another one is asked for beside it, and then another one after twice
	// the time each. AskExpiry is how long they may take in all. Required.
	AskAgain, AskExpiry time.Duration
	// Counters count what happens. Required.
	Counters *Counters
	// Go runs a function on a goroutine that the session's owner waits for.
	// Required.
	Go func(func())
}

// ServerSession is the tunnel server's end of a UDP session: the flows of one
// tunnel client and the transports that carry them. A data connection exists
// before its WebSocket does, so that the first datagrams wait in its queue. The
// session outlives data connections, and may outlive the link. Its methods may be
// called from any goroutine.
type ServerSession struct {
	session
	o        ServerOptions
	name     string
	received atomic.Bool // Records have come from the tunnel client.
	// unanswered is when the first flow was opened since records last came, in Ticks; 0:
	// none was.
	unanswered atomic.Int64

	mu        sync.RWMutex
	conn      *DataConn     // The one in use or expected.
	attached  bool          // conn has its WebSocket.
	replaced  bool          // conn is not the first.
	askedAt   time.Time     // When the tunnel client was first asked for conn.
	askNext   time.Time     // When it is asked again,
	askWait   time.Duration // and the wait after that.
	lostAt    time.Time     // When the one before was lost.
	path      *Path         // nil until the first WebSocket, or without Packets.
	candidate *Path         // An earlier path whose keys the tunnel client may have instead; nil: none.
	ended     bool
	last      uint64 // The number of the newest flow.
	flows     map[uint64]*ServerFlow
	emptyAt   time.Time // Since when there are no flows.
}

// NewServerSession makes a session. The owner must ask the tunnel client for its data
// connection, by Name.
func NewServerSession(o ServerOptions, now time.Time) *ServerSession {
	s := &ServerSession{
		session: newSession(o.Queue, o.Counters),
		o:       o,
		name:    rand.Text(),
		flows:   map[uint64]*ServerFlow{},
	}
	s.conn = s.newDataConn()
	s.asked(now)
	s.selector.Use(s.conn)
	return s
}

// Name identifies the session to the tunnel client.
func (s *ServerSession) Name() string { return s.name }

// Capacity is how many flows the tunnel client can have open, in all its sessions; 0: any
// number.
func (s *ServerSession) Capacity() int { return s.o.Capacity }

// OpenPath opens the sealed path with the keys of a data connection's TLS session,
// unless the session has one whose keys the tunnel client is known to have. With split
// the tunnel client joins split datagrams. It must be called before the upgrade is
// answered: the first packet may arrive right after.
func (s *ServerSession) OpenPath(keys seal.Keys, split bool) {
	if s.o.Packets == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.choosePath()
	if s.ended || s.path != nil && (s.received.Load() || s.path.Received()) {
		return
	}
	var out deliveries
	p, err := s.o.Packets.NewPath(PathOptions{
		Keys:      keys,
		Handle:    func(records []wire.Record) error { return s.handle(records, &out) },
		Fail:      func(error) { s.o.Go(s.End) }, // Its caller may hold a lock that End takes.
		Queue:     s.queue,
		Split:     split,
		Datagrams: &s.counters.Datagrams,
	})
	if err != nil {
		return // A path with the same random id exists: the data connection is enough.
	}
	if s.candidate != nil {
		s.candidate.Close()
	}
	// Nothing has ever come from the tunnel client: the data connection of the
	// earlier keys was lost before the client knew of it, or before it sent anything.
	s.candidate, s.path = s.path, p
	s.selector.UsePath(p)
}

// choosePath keeps of two paths the one whose keys the tunnel client has, once a
// packet has arrived on it. It is called with mu held.
func (s *ServerSession) choosePath() {
	switch {
	case s.candidate == nil || s.ended:
		return
	case s.candidate.Received():
		s.path, s.candidate = s.candidate, s.path
		s.selector.UsePath(s.path)
	case !s.path.Received():
		return
	}
	s.candidate.Close()
	s.candidate = nil
}

// Next is what the end of a data connection means for its session.
type Next int

// What may follow the end of a data connection.
const (
	SessionOver Next = iota // The session is over: the owner forgets it and calls End.
	AskAgain                // The session goes on, and the tunnel client must be asked for another data connection.
	Nothing                 // The session has another one, or has asked for it.
)

// ServeData serves a data connection until it ends, and returns what follows and
// why it ended. It takes the place of the one before.
func (s *ServerSession) ServeData(ws *websocket.Conn) (Next, error) {
	conn := s.attach()
	if conn == nil {
		return Nothing, ws.Close()
	}
	var out deliveries
	over, err := s.serveData(conn, ws, func(records []wire.Record) error { return s.handle(records, &out) })
	switch {
	case over:
		return SessionOver, err
	case s.replace(conn, time.Now()):
		return AskAgain, err
	default:
		return Nothing, err
	}
}

// attach returns the data connection for another WebSocket, or nil if the session has
// ended. If there is one with a WebSocket, the tunnel client does not have that or has
// replaced it: it opens one only where it was asked to.
func (s *ServerSession) attach() *DataConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	if s.attached {
		s.conn.Close()
		s.conn, s.replaced = s.newDataConn(), true
	}
	s.attached = true
	s.selector.Use(s.conn)
	return s.conn
}

// replace makes a new data connection in place of one that was lost, and reports
// whether it did: that may have happened already. Until its WebSocket comes,
// datagrams that cannot take the path are dropped: they would only arrive late.
func (s *ServerSession) replace(lost *DataConn, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.conn != lost {
		return false
	}
	s.selector.Leave(lost)
	lost.Close()
	s.conn, s.attached, s.replaced = s.newDataConn(), false, true
	s.lostAt = now
	s.asked(now)
	return true
}

// asked notes that the tunnel client is asked for the data connection. It is called with
// mu held.
func (s *ServerSession) asked(now time.Time) {
	s.askedAt, s.askNext, s.askWait = now, now.Add(s.o.AskAgain), 2*s.o.AskAgain
}

// Resume lets the session go on under a new link of its tunnel client, which must
// be asked for a data connection.
func (s *ServerSession) Resume(now time.Time) {
	s.mu.RLock()
	conn := s.conn
	s.mu.RUnlock()
	s.replace(conn, now)
}

// State is what a session needs from its owner.
type State int

// The states of a session.
const (
	Fine           State = iota
	NeedsDataConn        // The tunnel client must be asked for a data connection again.
	IdleTooLong          // There has been no flow for WarmIdle.
	TransportsLost       // No data connection came in time, and no packets arrive.
)

// Tick does what is due at a time and returns what the session needs. The owner
// calls it every second.
func (s *ServerSession) Tick(now time.Time) State {
	s.refusals.Store(0)
	s.mu.Lock()
	s.choosePath()
	p := s.path
	s.mu.Unlock()
	if p != nil {
		p.Tick(now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.attached && len(s.flows) == 0 && now.Sub(s.emptyAt) > s.o.WarmIdle:
		return IdleTooLong
	case s.attached:
		// What the tunnel client does not acknowledge it may not have: a data connection
		// can be lost without notice, the answer to its upgrade for example.
		since := s.unanswered.Load()
		if since == 0 || Ticks(now)-since < int64(s.o.AskAgain) || s.path != nil && s.path.Up() {
			return Fine
		}
		return s.again(now)
	case now.Sub(s.askedAt) > s.o.AskExpiry:
		if !s.replaced || now.Sub(s.lostAt) > wire.SessionGrace && (s.path == nil || !s.path.Up()) {
			return TransportsLost
		}
		s.asked(now)
		return NeedsDataConn
	default:
		return s.again(now)
	}
}

// again asks for another data connection if that is due. It is called with mu held.
func (s *ServerSession) again(now time.Time) State {
	if now.Before(s.askNext) {
		return Fine
	}
	s.askNext, s.askWait = now.Add(s.askWait), 2*s.askWait
	return NeedsDataConn
}

// Reachable reports whether sealed packets reach the tunnel client.
func (s *ServerSession) Reachable() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.path != nil && s.path.Up()
}

// Retire ends the session with a close frame on its data connection, which tells
// the tunnel client that the session is over. It waits for up to a second for a
// peer that does not read.
func (s *ServerSession) Retire() {
	s.mu.RLock()
	conn := s.conn
	s.mu.RUnlock()
	conn.Retire()
	s.End()
}

// End closes the transports and ends the flows. It does not wait and may be called
// again.
func (s *ServerSession) End() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	flows := make([]*ServerFlow, 0, len(s.flows))
	for _, f := range s.flows {
		flows = append(flows, f)
	}
	conn, paths := s.conn, []*Path{s.path, s.candidate}
	s.mu.Unlock()
	conn.Close()
	for _, p := range paths {
		if p != nil {
			p.Close()
		}
	}
	for _, f := range flows {
		f.Port.FlowEnded(f)
	}
}
