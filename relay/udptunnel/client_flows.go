package udptunnel

import (
	"context"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// handle acts on records that arrived together on one transport, which has its own
// memory for them. Datagrams of one flow leave together.
func (s *ClientSession) handle(records []wire.Record, in *requests) error {
	in.flows = in.flows[:0]
	defer func() { clear(in.flows) }() // Not to keep ended flows alive.
	var err error
	var last *ClientFlow
	for i := range records {
		r := &records[i]
		if r.Kind == wire.RecordOpen {
			s.openFlow(r)
			in.flows = append(in.flows, nil)
			continue
		}
		if r.Kind == wire.RecordOpened {
			err = wire.ErrMalformed // Only tunnel clients send it.
			break                   // The records before it are handled all the same.
		}
		if last == nil || last.number != r.Flow {
			last = s.find(r.Flow)
		}
		if last == nil && r.Kind == wire.RecordDatagram {
			s.counters.NoFlow.Add(1)
			s.refuse(r.Flow)
		}
		in.flows = append(in.flows, last)
	}
	now := Ticks(time.Now())
	for i, f := range in.flows {
		switch {
		case f == nil:
		case records[i].Kind == wire.RecordDatagram:
			in.gather(i, records, s.counters)
			if len(in.datagrams) > 0 {
				f.touch(now)
				f.target.Send(in.datagrams)
			}
			clear(in.datagrams) // The memory of the records is borrowed.
		default:
			f.closed.Store(true)
			f.end()
		}
	}
	return err
}

// find returns a flow, or nil if it has ended.
func (s *ClientSession) find(number uint64) *ClientFlow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows[number]
}

// openFlow opens a flow, unless it is open already, and says so to the tunnel
// server. A flow that may not be opened is refused.
func (s *ClientSession) openFlow(r *wire.Record) {
	s.mu.Lock()
	open := s.flows[r.Flow] != nil
	_, ended := s.endedNow[r.Flow]
	if !ended {
		_, ended = s.endedBefore[r.Flow]
	}
	s.mu.Unlock()
	if !open && !ended {
		open = s.startFlow(r)
	}
	if open {
		s.selector.Send(wire.Record{Kind: wire.RecordOpened, Flow: r.Flow})
	} else {
		s.refuse(r.Flow)
	}
}

// startFlow opens a flow and reports whether it is open.
func (s *ClientSession) startFlow(r *wire.Record) bool {
	target, prefix, err := s.o.Target(r)
	if err != nil {
		s.o.Logger.Debug("flow refused", slog.Int64("allocationId", r.Allocation), slog.Any("reason", err))
		return false
	}
	f := &ClientFlow{
		session: s, number: r.Flow, allocation: r.Allocation, target: target, prefix: prefix,
		idle: time.Duration(r.IdleSeconds)*time.Second + idleMargin,
	}
	f.ctx, f.end = context.WithCancel(s.ctx)
	f.touch(Ticks(time.Now()))
	s.mu.Lock()
	if s.flows[r.Flow] != nil { // Opened by the other transport at the same time.
		s.mu.Unlock()
		f.end()
		return true
	}
	if s.over || s.perAllocation[r.Allocation] >= s.o.FlowsPerAllocation {
		s.mu.Unlock()
		f.end()
		return false
	}
	s.flows[r.Flow] = f
	s.perAllocation[r.Allocation]++
	// Before the lock is released: Run waits for every flow it finds.
	s.work.Add(1)
	s.mu.Unlock()
	s.counters.Flows.Add(1)
	s.counters.FlowsOpened.Add(1)
	target.Start(f)
	context.AfterFunc(f.ctx, func() {
		defer s.work.Done()
		target.Close()
		s.removeFlow(f)
	})
	return true
}

func (s *ClientSession) removeFlow(f *ClientFlow) {
	s.mu.Lock()
	delete(s.flows, f.number)
	s.endedNow[f.number] = struct{}{}
	if s.perAllocation[f.allocation]--; s.perAllocation[f.allocation] == 0 {
		delete(s.perAllocation, f.allocation)
	}
	s.mu.Unlock()
	s.counters.Flows.Add(-1)
	if !f.closed.Load() {
		s.sendClose(f.number)
	}
}
