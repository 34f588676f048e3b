package target

import (
	"sync"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// socketPoller reads the sockets of one UDP session's flows, all of them with one
// goroutine: an idle flow costs none, and datagrams that arrive together leave
// together.
type socketPoller struct {
	poller *udpsock.Poller
	closed atomic.Bool

	mu    sync.Mutex
	flows map[uint64]*flowSocket // By number.
}

func newSocketPoller() (*socketPoller, error) {
	poller, err := udpsock.NewPoller()
	if err != nil {
		return nil, err
	}
	return &socketPoller{poller: poller, flows: map[uint64]*flowSocket{}}, nil
}

// close ends run.
func (p *socketPoller) close() {
	p.closed.Store(true)
	p.poller.Close()
}

func (p *socketPoller) add(s *flowSocket) error {
	number := s.flow.Number()
	p.mu.Lock()
	p.flows[number] = s
	p.mu.Unlock()
	err := p.poller.Add(s.conn, number)
	if err != nil {
		p.remove(s) // The flow may have ended, and removed it, before it was added.
	}
	return err
}

func (p *socketPoller) remove(s *flowSocket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flows, s.flow.Number())
}

// run reads the sockets until close, when it returns nil. Flush is called after
// each round of reads.
func (p *socketPoller) run(flush func()) error {
	var numbers []uint64
	var ready []*flowSocket
	records := make([]wire.Record, 0, 64)
	for {
		var err error
		if numbers, err = p.poller.Wait(numbers[:0]); err != nil {
			if p.closed.Load() {
				return nil
			}
			return err
		}
		ready = ready[:0]
		p.mu.Lock()
		for _, number := range numbers {
			if s := p.flows[number]; s != nil {
				ready = append(ready, s)
			}
		}
		p.mu.Unlock()
		for _, s := range ready {
			batch, err := s.conn.TryRead()
			switch {
			case err != nil:
				s.readFailed(err)
			case batch != nil:
				s.received(batch, records)
			}
		}
		flush()
		clear(ready) // Not to keep ended flows alive.
	}
}
