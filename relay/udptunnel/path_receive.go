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
	// challenge says that an address may have to be challenged.
	challenge bool
}

// receive opens a packet and adds its records to held.
func (p *Path) receive(data []byte, from *udpsock.Endpoint, now time.Time, held *inbox) {
	p.mu.Lock()
	records, newest, err := p.opener.Open(data)
	unvalidated := err == nil && p.packetReceived(from, len(data), newest, now)
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
	held.challenge = held.challenge || unvalidated
	for len(records) > 0 {
		r := &held.records[held.n]
		if *r, records, err = wire.NextRecord(records); err != nil {
			p.fail(err)
			return
		}
		switch r.Kind {
		case wire.RecordProbe:
			held.probe, held.probed = r.Flow, true
			if unvalidated {
				p.probedFrom(from, r.Flow, now)
			}
		case wire.RecordAnswer:
			p.answerReceived(from, r.Flow, now, held)
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

// probedFrom notes the probe of an address that is not validated: the client must not
// wait for its next one if the address proves to be the client's.
func (p *Path) probedFrom(from *udpsock.Endpoint, number uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.state.candidate(from, now); c != nil {
		c.probe, c.probed = number, true
	}
}

// answerReceived acts on the answer to a probe.
func (p *Path) answerReceived(from *udpsock.Endpoint, number uint64, now time.Time, held *inbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, validated := p.validate(from, number, now)
	switch {
	case !validated:
		p.answered(from, number)
	case c.probed && !held.probed:
		held.probe, held.probed = c.probe, true
	}
}

// deliver handles the records that are held, answers the last probe, and challenges
// addresses that are not validated.
func (p *Path) deliver(held *inbox) {
	p.handleHeld(held)
	if held.challenge {
		held.challenge = false
		p.challenge(held.now)
	}
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
