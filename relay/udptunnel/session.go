package udptunnel

import (
	"errors"
	"sync/atomic"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// refusalsPerTick is how many records of unknown flows a session answers with a
// close record in one tick: a peer that ignores the answers must not fill the
// queue.
const refusalsPerTick = 256

// session is what both ends of a UDP session have in common: the transports, and
// how a flow that does not exist is refused.
type session struct {
	selector *Selector
	counters *Counters
	queue    int // Bytes that wait for each transport; 0: DefaultQueue.
	refusals atomic.Int32
}

func newSession(queue int, counters *Counters) session {
	return session{selector: NewSelector(&counters.Datagrams), counters: counters, queue: queue}
}

func (s *session) newDataConn() *DataConn {
	return NewDataConn(s.queue, &s.counters.Datagrams)
}

// serveData serves a data connection until it ends. The session is over where the
// peer ended it in order or broke the protocol; a connection that was merely lost
// is replaced.
func (s *session) serveData(conn *DataConn, ws *websocket.Conn, handle func([]wire.Record) error) (over bool, err error) {
	err = conn.Serve(ws, func(records []wire.Record) error {
		for i := range records {
			if records[i].Kind.Sealed() {
				return wire.ErrMalformed
			}
		}
		return handle(records)
	})
	over = errors.Is(err, wire.ErrMalformed) ||
		websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseProtocolError)
	return over, err
}

// refuse tells the peer that a flow does not exist, unless it was told of too many
// in this tick.
func (s *session) refuse(flow uint64) {
	if s.refusals.Add(1) <= refusalsPerTick {
		s.sendClose(flow)
	}
}

func (s *session) sendClose(flow uint64) {
	s.selector.Send(wire.Record{Kind: wire.RecordClose, Flow: flow})
}
