//go:build !linux

package agent

import "github.com/eclitunnel/eclitunnel/relay/wire"

// ears hear what local targets send to the flows of one carrier, with a
// goroutine for each.
type ears struct{}

func (*ears) open(*flows) error { return nil }

func (*ears) close() {}

func (*ears) add(f *flow) error {
	f.flows.work.Go(func() {
		records := make([]wire.Record, 0, 1)
		for {
			packets, err := f.packets.Read()
			if err == nil {
				f.hear(packets, records)
				f.flows.ways.Flush()
			} else if !f.unheard(err) {
				f.end()
				return
			}
		}
	})
	return nil
}
