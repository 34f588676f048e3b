package udptunnel

import (
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// openFlow numbers a flow and queues its announcement with its first datagram. The
// caller flushes. It reports whether the session took both, and counts the datagram
// otherwise.
func (s *ServerSession) openFlow(f *ServerFlow, payload []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		s.counters.Datagrams.Late.Add(1)
		return false
	}
	number := s.last + 1
	f.open.Flow = number
	if !s.selector.Queue(f.open, wire.Record{Kind: wire.RecordDatagram, Flow: number, Payload: payload}) {
		return false
	}
	if now := time.Now(); s.unanswered.CompareAndSwap(0, Ticks(now)) && s.attached {
		s.asked(now) // Should the data connection turn out to be lost.
	}
	f.session, f.number = s, number
	s.last = number
	s.flows[number] = f
	s.counters.Flows.Add(1)
	s.counters.FlowsOpened.Add(1)
	return true
}

// closeFlow forgets a flow and tells the tunnel client.
func (s *ServerSession) closeFlow(f *ServerFlow) {
	s.mu.Lock()
	delete(s.flows, f.number)
	if len(s.flows) == 0 {
		s.emptyAt = time.Now()
	}
	s.mu.Unlock()
	s.counters.Flows.Add(-1)
	s.sendClose(f.number)
}

// handle acts on records that arrived together on one transport, which has its own
// memory for them. Datagrams that leave by the same port leave together.
func (s *ServerSession) handle(records []wire.Record, out *deliveries) error {
	if !s.received.Load() {
		s.received.Store(true)
	}
	if s.unanswered.Load() != 0 {
		s.unanswered.Store(0)
	}
	out.flows = out.flows[:0]
	s.mu.RLock()
	for i := range records {
		out.flows = append(out.flows, s.flows[records[i].Flow])
	}
	s.mu.RUnlock()
	for i, f := range out.flows {
		if f != nil {
			f.known.Store(true)
			continue
		}
		switch records[i].Kind {
		case wire.RecordDatagram:
			s.counters.NoFlow.Add(1)
			s.refuse(records[i].Flow)
		case wire.RecordOpened: // Our close arrived before the open.
			s.refuse(records[i].Flow)
		}
	}
	now := Ticks(time.Now())
	for i, f := range out.flows {
		switch kind := records[i].Kind; {
		case kind == wire.RecordOpen:
			return wire.ErrMalformed // Only tunnel servers open flows.
		case f == nil:
		case kind == wire.RecordDatagram:
			port := out.gather(i, records, now)
			if len(out.datagrams) > 0 {
				port.Deliver(out.datagrams)
			}
			clear(out.datagrams) // The memory of the records is borrowed.
		case kind == wire.RecordClose:
			f.Port.FlowEnded(f)
		}
	}
	clear(out.flows) // Not to keep ended flows alive.
	return nil
}
