package udptunnel

import (
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// outcome is what happened to records.
type outcome int

const (
	unfit   outcome = iota // They do not fit into packets, or the path is down: use another transport.
	taken                  // They are queued.
	dropped                // The queue is full.
)

// put queues records that belong together.
func (p *Path) put(records []wire.Record) outcome {
	if !p.up.Load() {
		return unfit
	}
	size, payload, datagrams := 0, 0, 0
	for i := range records {
		size += wire.EncodedSize(&records[i])
		if records[i].Kind == wire.RecordDatagram {
			payload += len(records[i].Payload)
			datagrams++
		}
	}
	budget := int(p.budget.Load())
	if !p.fits(size, budget) {
		return unfit
	}
	p.queueMu.Lock()
	done := p.putLocked(records, size, budget)
	p.queueMu.Unlock()
	switch done {
	case taken:
		p.o.Datagrams.Sent.Add(uint64(datagrams))
		p.o.Datagrams.SentBytes.Add(uint64(payload))
		p.counters.SentDatagrams.Add(uint64(datagrams))
	case dropped:
		p.o.Datagrams.Overflowed.Add(uint64(datagrams))
	}
	return done
}

// putAll queues datagrams that are independent of each other. Those that do not fit
// into packets go to other; all of them do if the path has just closed.
func (p *Path) putAll(datagrams []wire.Record, other func(*wire.Record)) {
	budget := int(p.budget.Load())
	sent, payload, overflowed := 0, 0, 0
	p.queueMu.Lock()
	if p.closed {
		budget = 0
	}
	for i := range datagrams {
		d := datagrams[i : i+1]
		size := wire.EncodedSize(&d[0])
		if !p.fits(size, budget) {
			continue
		}
		if p.putLocked(d, size, budget) == taken {
			sent++
			payload += len(d[0].Payload)
		} else {
			overflowed++
		}
	}
	p.queueMu.Unlock()
	p.o.Datagrams.Sent.Add(uint64(sent))
	p.o.Datagrams.SentBytes.Add(uint64(payload))
	p.counters.SentDatagrams.Add(uint64(sent))
	p.o.Datagrams.Overflowed.Add(uint64(overflowed))
	if sent+overflowed == len(datagrams) {
		return
	}
	for i := range datagrams {
		if !p.fits(wire.EncodedSize(&datagrams[i]), budget) {
			other(&datagrams[i])
		}
	}
}

// putLocked queues records that fit.
func (p *Path) putLocked(records []wire.Record, size, budget int) outcome {
	if p.closed {
		return unfit
	}
	if size > budget {
		return p.splitLocked(records, size, budget)
	}
	last := p.lastLocked()
	if last == nil || last.size()+size > budget {
		if len(p.queue)*packetRoom >= p.o.Queue {
			return dropped
		}
		last = p.addLocked()
	}
	for i := range records {
		last.append(&records[i])
	}
	return taken
}

// lastLocked returns the last packet of the queue, or nil.
func (p *Path) lastLocked() *packet {
	if n := len(p.queue); n > 0 {
		return p.queue[n-1]
	}
	return nil
}

// addLocked adds an empty packet to the queue.
func (p *Path) addLocked() *packet {
	last := newPacket()
	p.queue = append(p.queue, last)
	return last
}

// Flush sends what is queued.
func (p *Path) Flush() {
	p.queueMu.Lock()
	empty := len(p.queue) == 0
	p.queueMu.Unlock()
	if empty && !p.eager.Load() {
		return
	}
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	p.queueMu.Lock()
	p.queue, p.list = p.list[:0], p.queue
	p.queueMu.Unlock()
	p.transmit(time.Now(), len(p.list) > 0)
}

// transmit seals and sends the packets of list and the probes that are due. Used says
// that records of players are among them. It is called with sendMu held.
func (p *Path) transmit(now time.Time, used bool) {
	p.mu.Lock()
	var probes duePackets
	var known bool
	p.ratchet(now)
	probes, p.to, known = p.due(now, used)
	p.mu.Unlock()
	if known {
		for _, number := range [...]uint64{probes.short, probes.current, probes.larger} {
			if number != 0 {
				p.list = append(p.list, probePacket(number, sizes[probeSize(number)]))
			}
		}
	}
	if !known || len(p.list) == 0 {
		release(p.list)
		return
	}
	unsent, why := p.write()
	// If one packet was too long, it is a probe of a larger size where there is one.
	if udpsock.IsTooLong(why) && (unsent > 1 || probes.larger == 0) {
		p.mu.Lock()
		p.shrink()
		p.mu.Unlock()
	}
}

// write seals the packets of list and sends them to p.to. It returns how many were not
// sent, and why. It is called with sendMu held.
func (p *Path) write() (unsent int, why error) {
	defer release(p.list)
	p.out = p.out[:0]
	for _, packet := range p.list {
		sealed, err := p.sealer.Seal(packet.data[:packet.n])
		if err != nil {
			p.fail(err)
			return 0, nil
		}
		packet.n = len(sealed)
		p.out = append(p.out, udpsock.Datagram{To: &p.to, Data: packet.data[:packet.n]})
	}
	unsent, why = p.socket.conn.TryWrite(p.out)
	clear(p.out)
	p.counters.Sent.Add(uint64(len(p.list) - unsent))
	p.counters.Unsendable.Add(uint64(unsent))
	return unsent, why
}

// probePacket makes the packet of the probe of a number. It has a size in bytes, or no
// padding if that is challengeSize.
func probePacket(number uint64, size int) *packet {
	packet := newPacket()
	r := wire.Record{Kind: wire.RecordProbe, Flow: number}
	if size > challengeSize {
		// The length prefix of the padding takes two bytes; that of no padding takes one.
		r.Payload = padding[:size-seal.Overhead-wire.EncodedSize(&r)-1]
	}
	packet.append(&r)
	return packet
}

var padding [packetRoom]byte

// answer answers a probe and sends the probes that are due.
func (p *Path) answer(number uint64, now time.Time) {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	packet := newPacket()
	packet.append(&wire.Record{Kind: wire.RecordAnswer, Flow: number})
	p.list = append(p.list[:0], packet)
	p.transmit(now, false)
}
