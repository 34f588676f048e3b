package agent

import (
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// gathered are records that came together, and the flows that they belong to;
// memory that is used again for the next ones.
type gathered struct {
	flows []*flow // One for each record, nil where there is none or it is done with.
	out   []udpsock.Outgoing
}

// handle acts on records that came together, by either way: each has a gathered
// of its own. The datagrams among them that are of one flow leave together.
func (f *flows) handle(records []wire.Record, g *gathered) error {
	g.flows = g.flows[:0]
	defer func() { clear(g.flows) }() // Not to keep alive what ends meanwhile.
	var err error
	var last *flow
	for i := range records {
		r := &records[i]
		if r.Kind == wire.RecordOpen {
			f.start(r)
			g.flows = append(g.flows, nil)
			continue
		}
		if r.Kind == wire.RecordOpened {
			err = wire.ErrMalformed // It is for tunnel servers.
			break                   // Those before it are handled, as if they had come alone.
		}
		if last == nil || last.number != r.Flow {
			last = f.find(r.Flow)
		}
		if last == nil && r.Kind == wire.RecordDatagram {
			f.counters().drop(dropNoFlow)
			f.refuseLate(r.Flow)
		}
		g.flows = append(g.flows, last)
	}
	for i, flow := range g.flows {
		switch {
		case flow == nil:
		case records[i].Kind == wire.RecordDatagram:
			g.gather(i, records)
			if len(g.out) > 0 {
				flow.send(g.out)
			}
			clear(g.out) // The records' memory is borrowed.
		default:
			flow.told.Store(true)
			flow.end()
		}
	}
	return err
}

// find returns a flow, or nil if it has ended.
func (f *flows) find(number uint64) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open[number]
}

// gather takes the datagrams of the first-th record's flow, in their order.
func (g *gathered) gather(first int, records []wire.Record) {
	g.out = g.out[:0]
	flow := g.flows[first]
	for i := first; i < len(g.flows); i++ {
		if g.flows[i] != flow || records[i].Kind != wire.RecordDatagram {
			continue
		}
		g.flows[i] = nil
		payload := records[i].Payload
		if len(flow.header)+len(payload) > wire.MaxDatagram {
			flow.drop(dropTooLong)
			continue
		}
		g.out = append(g.out, udpsock.Outgoing{Head: flow.header, Data: payload})
	}
}
