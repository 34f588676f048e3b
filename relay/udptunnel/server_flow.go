package udptunnel

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// PublicPort is the public port of a UDP allocation, as its flows see it. Its
// methods may be called from any goroutine.
type PublicPort interface {
	// Deliver sends datagrams to players of the port. Their memory is valid until
	// it returns.
	Deliver(datagrams []udpsock.Datagram)
	// MayAnswer reports whether a datagram of so many bytes may be delivered to the
	// player of a flow that is not proven. One that may not is dropped: the port has
	// counted it.
	MayAnswer(f *ServerFlow, bytes int) bool
	// FlowEnded notes that a flow has ended in its session. The port must call
	// [ServerFlow.Close], once, unless it has already.
	FlowEnded(f *ServerFlow)
}

// Limit bounds the datagrams of one direction of a flow. Any goroutine may call it.
type Limit interface {
	// Admit reports whether a datagram with so many bytes of payload may pass now.
	// Otherwise it is dropped, and the limit counts it.
	Admit(bytes int) bool
}

// ServerFlow is one player's address talking UDP to one allocation, at the tunnel
// server. The exported fields are set before [ServerSession.Open] and not changed
// after it.
type ServerFlow struct {
	Port   PublicPort
	Source netip.AddrPort   // The player.
	Local  netip.Addr       // The local address that the player reached; invalid where unknown.
	To     udpsock.Endpoint // The player, answered from Local.
	Idle   time.Duration    // The silence of both directions that ends the flow.

	// Upload and Download bound the datagrams from the player after the first, and to
	// the player; nil: no bound.
	Upload, Download Limit
	// Meter counts the datagrams that the limits admit, the first too; nil: nothing does.
	Meter *meter.Meter

	session  *ServerSession
	number   uint64
	open     wire.Record  // Announces the flow to the tunnel client.
	known    atomic.Bool  // The tunnel client has the announcement.
	lastUsed atomic.Int64 // When a datagram last passed, in Ticks.
	answered atomic.Bool  // A datagram of the game was delivered.
	proven   atomic.Bool  // The player has spoken since.
}

// Touch notes that a datagram passes at a time in [Ticks].
func (f *ServerFlow) Touch(now int64) { f.lastUsed.Store(now) }

// Silence returns how long both directions have been silent at a time in [Ticks].
func (f *ServerFlow) Silence(now int64) time.Duration { return time.Duration(now - f.lastUsed.Load()) }

// Answered reports whether the game has ever answered the player.
func (f *ServerFlow) Answered() bool { return f.answered.Load() }

// Prove notes that the player has spoken after an answer.
func (f *ServerFlow) Prove() { f.proven.Store(true) }

// Proven reports whether Prove was called.
func (f *ServerFlow) Proven() bool { return f.proven.Load() }

// Close removes the flow from its session and tells the tunnel client. It must not
// be called with a lock held that [PublicPort] takes.
func (f *ServerFlow) Close() { f.session.closeFlow(f) }

// PlayerDatagrams are datagrams of players that were read together: those for one
// session leave together. The zero value is ready to use, and is reused for the
// next ones. One goroutine uses it.
type PlayerDatagrams struct {
	flows   []*ServerFlow
	records []wire.Record
	queued  *ServerSession // Has records that are not flushed yet.
}

// Open opens a flow with its first datagram and reports whether the session took
// both. A datagram that it did not take is counted. Allocation and Destination are
// those of the announcement; see [wire.Record].
func (d *PlayerDatagrams) Open(s *ServerSession, f *ServerFlow, allocation int64, destination netip.AddrPort, payload []byte) bool {
	f.open = wire.Record{
		Kind:        wire.RecordOpen,
		Allocation:  allocation,
		IdleSeconds: int(f.Idle / time.Second),
		Source:      f.Source,
		Destination: destination,
	}
	if !s.openFlow(f, payload) {
		return false
	}
	f.Meter.UploadDatagram(len(payload))
	d.queued = s
	return true
}

// Add adds a datagram of an open flow, unless its limit drops it. The payload must be
// valid until Send returns.
func (d *PlayerDatagrams) Add(f *ServerFlow, payload []byte) {
	if f.Upload != nil && !f.Upload.Admit(len(payload)) {
		return
	}
	f.Meter.UploadDatagram(len(payload))
	datagram := wire.Record{Kind: wire.RecordDatagram, Flow: f.number, Payload: payload}
	if !f.known.Load() { // The announcement may have been lost.
		f.session.selector.Queue(f.open, datagram)
		d.queued = f.session
		return
	}
	d.flows = append(d.flows, f)
	d.records = append(d.records, datagram)
}

// Send sends what was added since the last Send. The caller must hold no lock that
// others need.
func (d *PlayerDatagrams) Send() {
	// All have one session, unless the tunnel client has just linked again.
	for i := 0; i < len(d.flows); {
		first, s := i, d.flows[i].session
		for i++; i < len(d.flows) && d.flows[i].session == s; i++ {
		}
		s.selector.QueueAll(d.records[first:i])
		s.selector.Flush()
		if s == d.queued {
			d.queued = nil
		}
	}
	if d.queued != nil {
		d.queued.selector.Flush()
		d.queued = nil
	}
	clear(d.flows)   // Not to keep ended flows alive,
	clear(d.records) // nor borrowed memory.
	d.flows, d.records = d.flows[:0], d.records[:0]
}

// deliveries are datagrams for players that arrived together, by flow; memory that
// is reused for the next ones.
type deliveries struct {
	flows     []*ServerFlow // One for each record; nil where the flow is unknown or the record handled.
	datagrams []udpsock.Datagram
}

// gather collects the datagrams from the first-th record on that leave by the port
// of that record's flow and that its limit admits. The order of each flow's datagrams is
// kept.
func (d *deliveries) gather(first int, records []wire.Record, now int64) PublicPort {
	port := d.flows[first].Port
	d.datagrams = d.datagrams[:0]
	for i := first; i < len(records); i++ {
		f := d.flows[i]
		if f == nil || f.Port != port || records[i].Kind != wire.RecordDatagram {
			continue
		}
		d.flows[i] = nil
		if !f.proven.Load() {
			if !port.MayAnswer(f, len(records[i].Payload)) {
				continue
			}
			f.answered.Store(true)
		}
		f.Touch(now)
		if f.Download == nil || f.Download.Admit(len(records[i].Payload)) {
			f.Meter.DownloadDatagram(len(records[i].Payload))
			d.datagrams = append(d.datagrams, udpsock.Datagram{To: &f.To, Data: records[i].Payload})
		}
	}
	return port
}
