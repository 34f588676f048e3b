package agent

import (
	"log/slog"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// ears hear what local targets send to the flows of one carrier, all of
// them with one goroutine: a silent flow costs none, and what comes to many at
// once leaves together.
type ears struct{ poller *udpsock.Poller }

func (e *ears) open(f *flows) error {
	var err error
	if e.poller, err = udpsock.NewPoller(); err != nil {
		return err
	}
	f.work.Go(func() { e.listen(f) })
	return nil
}

func (e *ears) close() { e.poller.Close() }

func (e *ears) add(f *flow) error { return e.poller.Add(f.packets, f.number) }

func (e *ears) listen(f *flows) {
	var numbers []uint64
	var flows []*flow
	records := make([]wire.Record, 0, 64)
	for {
		var err error
		if numbers, err = e.poller.Wait(numbers[:0]); err != nil {
			if f.ctx.Err() == nil {
				f.link.log.Error("wait for local targets", slog.Any("error", err))
				f.end()
			}
			return
		}
		flows = flows[:0]
		f.mu.Lock()
		for _, number := range numbers {
			if flow := f.open[number]; flow != nil {
				flows = append(flows, flow)
			}
		}
		f.mu.Unlock()
		for _, flow := range flows {
			packets, err := flow.packets.TryRead()
			switch {
			case err != nil && !flow.unheard(err):
				flow.end()
			case packets != nil:
				flow.hear(packets, records)
			}
		}
		f.ways.Flush()
		clear(flows) // Not to keep alive what ends meanwhile.
	}
}
