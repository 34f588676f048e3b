package udptunnel

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// idleMargin is how much longer than the tunnel server the tunnel client keeps a
// silent flow. The tunnel server sees every datagram that arrives in either
// direction and ends flows; this ends those whose close record was lost.
const idleMargin = 10 * time.Second

// Target is where a flow leads at the tunnel client: a socket to the game.
type Target interface {
	// Start opens the target. It is called once, must not block, and ends the flow
	// where the target cannot be opened. What the game sends goes to
	// [ClientFlow.Queue].
	Start(f *ClientFlow)
	// Send passes a player's datagrams to the game, or drops and counts them. Their
	// memory is valid until it returns. It may be called from two goroutines, and
	// before the target is open.
	Send(datagrams []udpsock.Datagram)
	// Close closes the target. It is called once, after Start.
	Close()
}

// ClientFlow is one player's address talking UDP to one allocation, at the tunnel
// client. Its methods may be called from any goroutine.
type ClientFlow struct {
	session    *ClientSession
	number     uint64
	allocation int64
	target     Target
	prefix     []byte // Sent before every datagram to the target.
	idle       time.Duration
	lastUsed   atomic.Int64 // When a datagram last passed, in Ticks.
	closed     atomic.Bool  // The tunnel server closed it and need not be told.
	ctx        context.Context
	end        context.CancelFunc
}

// Number identifies the flow within its session.
func (f *ClientFlow) Number() uint64 { return f.number }

// Silence returns how long both directions have been silent at a time in [Ticks].
func (f *ClientFlow) Silence(now int64) time.Duration { return time.Duration(now - f.lastUsed.Load()) }

// Context ends with the flow.
func (f *ClientFlow) Context() context.Context { return f.ctx }

// End ends the flow. It does not wait and may be called again.
func (f *ClientFlow) End() { f.end() }

// Go runs a function on a goroutine that [ClientSession.Run] waits for. It may be
// called until the flow's target has been closed.
func (f *ClientFlow) Go(run func()) { f.session.work.Go(run) }

// Queue queues datagrams of the game for the player, or drops and counts them. The
// caller flushes afterwards, once for many flows of the session.
func (f *ClientFlow) Queue(datagrams []wire.Record) {
	f.touch(Ticks(time.Now()))
	f.session.selector.QueueAll(datagrams)
}

// Flush sends what the flows of the session have queued.
func (f *ClientFlow) Flush() { f.session.Flush() }

func (f *ClientFlow) touch(now int64) { f.lastUsed.Store(now) }

// requests are records from the tunnel server that arrived together, by flow;
// memory that is reused for the next ones.
type requests struct {
	flows     []*ClientFlow // One for each record; nil where there is none or the record is handled.
	datagrams []udpsock.Datagram
}

// gather collects the datagrams of the flow of the first-th record, in their order.
func (r *requests) gather(first int, records []wire.Record, counters *Counters) {
	r.datagrams = r.datagrams[:0]
	flow := r.flows[first]
	for i := first; i < len(r.flows); i++ {
		if r.flows[i] != flow || records[i].Kind != wire.RecordDatagram {
			continue
		}
		r.flows[i] = nil
		payload := records[i].Payload
		if len(flow.prefix)+len(payload) > wire.MaxDatagram {
			counters.TooLong.Add(1)
			continue
		}
		r.datagrams = append(r.datagrams, udpsock.Datagram{Head: flow.prefix, Data: payload})
	}
}
