package udptunnel

import (
	"errors"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// inbox holds records that have arrived and are not handled yet.
type inbox struct {
	records [64]wire.Record
	n       int
	joined  []*joined // The memory of those that arrived in two halves.
	now     time.Time
	probe   uint64 // The number of the probe to answer,
	probed  bool   // if there is one.
}

// receive opens a packet and adds its records to held.
func (p *Path) receive(data []byte, from *udpsock.Endpoint, now time.Time, held *inbox) {
	p.mu.Lock()
	records, newest, err := p.opener.Open(data)
	if err == nil {
		p.packetReceived(from, newest, now)
	}
	p.mu.Unlock()
	switch {
	case errors.Is(err, seal.ErrReplayed):
		p.counters.Replayed.Add(1)
		return
	case err != nil:
		p.counters.Forged.Add(1)
		return
	}
	p.counters.Received.Add(1)
	held.now = now
	for len(records) > 0 {
		r := &held.records[held.n]
		if *r, records, err = wire.NextRecord(records); err != nil {
			p.fail(err)
			return
		}
		switch r.Kind {
		case wire.RecordProbe:
			held.probe, held.probed = r.Flow, true
		case wire.RecordAnswer:
			p.mu.Lock()
			p.answered(r.Flow)
			p.mu.Unlock()
		case wire.RecordHead, wire.RecordTail:
			p.mu.Lock()
			datagram := p.halves.join(r, now)
			p.mu.Unlock()
			if datagram == nil {
				continue
			}
			*r = datagram.record()
			held.joined = append(held.joined, datagram)
			fallthrough
		default:
			if held.n++; held.n == len(held.records) {
				p.handleHeld(held)
			}
		}
	}
}

// deliver handles the records that are held, and answers the last probe.
func (p *Path) deliver(held *inbox) {
	p.handleHeld(held)
	if held.probed {
		held.probed = false
		p.answer(held.probe, held.now)
	}
}

// handleHeld handles the records that are held.
func (p *Path) handleHeld(held *inbox) {
	records := held.records[:held.n]
	held.n = 0
	if len(records) == 0 {
		return
	}
	defer held.release()
	datagrams, payload := 0, 0
	for i := range records {
		if records[i].Kind == wire.RecordDatagram {
			datagrams++
			payload += len(records[i].Payload)
		}
	}
	p.o.Datagrams.Received.Add(uint64(datagrams))
	p.o.Datagrams.ReceivedBytes.Add(uint64(payload))
	p.counters.ReceivedDatagrams.Add(uint64(datagrams))
	p.mu.Lock()
	p.state.usedAt = held.now
	p.mu.Unlock()
	if err := p.o.Handle(records); err != nil {
		p.fail(err)
	}
}

// release returns the memory of joined datagrams.
func (held *inbox) release() {
	for i, datagram := range held.joined {
		joinedPool.Put(datagram)
		held.joined[i] = nil
	}
	held.joined = held.joined[:0]
}
