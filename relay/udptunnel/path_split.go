package udptunnel

import (
	"slices"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// maxHalfOverhead is how many bytes a half is shorter than its record, at most: the
	// kind, flow, number and length.
	maxHalfOverhead = 1 + 10 + 10 + 2
	// maxHalves is how many halves a path holds that wait for their counterpart. Packets
	// that are reordered are few.
	maxHalves = 32
	// halfTimeout is how long a half waits for its counterpart, until the next Tick.
	halfTimeout = time.Second
)

// fits reports whether records of a size, in bytes, fit into a packet of a budget, or
// into two if they end with a datagram.
func (p *Path) fits(size, budget int) bool {
	return size <= budget || p.o.Split && size <= 2*(budget-maxHalfOverhead)
}

// splitLocked queues records that take two packets and end with a datagram, which it
// splits. It fills the first packet: those of a burst then have one length, as
// segmentation by the kernel needs it, and are as few as possible.
func (p *Path) splitLocked(records []wire.Record, size, budget int) outcome {
	others, datagram := records[:len(records)-1], &records[len(records)-1]
	half := wire.Record{Kind: wire.RecordHead, Flow: datagram.Flow, Split: p.splits}
	tail := budget - wire.EncodedSize(&half) - 1 // The length of the payload takes two bytes.
	head := tail - (size - wire.EncodedSize(datagram))
	first, added := p.lastLocked(), 1
	if first == nil || head <= first.size() || head-first.size()+tail < len(datagram.Payload) {
		first, added = nil, 2
	}
	if (len(p.queue)+added-1)*packetRoom >= p.o.Queue {
		return dropped
	}
	if first == nil {
		first = p.addLocked()
	}
	middle := head - first.size()
	for i := range others {
		first.append(&others[i])
	}
	half.Payload = datagram.Payload[:middle]
	first.append(&half)
	half.Kind, half.Payload = wire.RecordTail, datagram.Payload[middle:]
	p.addLocked().append(&half)
	p.splits++
	return taken
}

// halves are the halves of datagrams whose counterpart has not arrived, the oldest
// first.
type halves []*joined

// joined is a split datagram of which one half has arrived, or both.
type joined struct {
	flow, split uint64
	kind        wire.RecordKind // Of the half that arrived first,
	at          time.Time       // and when it did.
	begin, end  int             // The payload's place in data. The halves meet in its middle.
	data        [2 * wire.MaxHalf]byte
}

var joinedPool = sync.Pool{New: func() any { return new(joined) }}

// join keeps a half, or returns the datagram that it completes, which the caller returns
// to joinedPool.
func (h *halves) join(r *wire.Record, now time.Time) *joined {
	for i, d := range *h {
		if d.flow != r.Flow || d.split != r.Split {
			continue
		}
		if d.kind == r.Kind {
			return nil
		}
		*h = slices.Delete(*h, i, i+1)
		d.add(r)
		return d
	}
	if len(*h) == maxHalves {
		h.drop(1)
	}
	d := joinedPool.Get().(*joined)
	d.flow, d.split, d.kind, d.at = r.Flow, r.Split, r.Kind, now
	d.begin, d.end = wire.MaxHalf, wire.MaxHalf
	d.add(r)
	*h = append(*h, d)
	return nil
}

// expire drops the halves that have waited for too long.
func (h *halves) expire(now time.Time) {
	n := 0
	for n < len(*h) && now.Sub((*h)[n].at) > halfTimeout {
		n++
	}
	h.drop(n)
}

// drop drops the oldest halves.
func (h *halves) drop(n int) {
	for _, d := range (*h)[:n] {
		joinedPool.Put(d)
	}
	*h = slices.Delete(*h, 0, n)
}

// add adds a half, before or behind the middle.
func (d *joined) add(r *wire.Record) {
	if r.Kind == wire.RecordHead {
		d.begin -= copy(d.data[wire.MaxHalf-len(r.Payload):], r.Payload)
	} else {
		d.end += copy(d.data[wire.MaxHalf:], r.Payload)
	}
}

// record returns the datagram as if it had arrived whole.
func (d *joined) record() wire.Record {
	return wire.Record{Kind: wire.RecordDatagram, Flow: d.flow, Payload: d.data[d.begin:d.end]}
}
