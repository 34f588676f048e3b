package agent

import (
	"sync"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// socketPoller reads the sockets of one UDP session's flows, all of them with one
// goroutine: a silent flow costs none, and what comes to many at once leaves
// together.
type socketPoller struct {
	poller *udpsock.Poller
	closed atomic.Bool

	mu    sync.Mutex
	flows map[uint64]*localFlow // By number.
}

func newSocketPoller() (*socketPoller, error) {
	poller, err := udpsock.NewPoller()
	if err != nil {
		return nil, err
	}
	return &socketPoller{poller: poller, flows: map[uint64]*localFlow{}}, nil
}

// close ends run.
func (p *socketPoller) close() {
	p.closed.Store(true)
	p.poller.Close()
}

func (p *socketPoller) add(l *localFlow) error {
	number := l.flow.Number()
	p.mu.Lock()
	p.flows[number] = l
	p.mu.Unlock()
	return p.poller.Add(l.conn, number)
}

func (p *socketPoller) remove(l *localFlow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flows, l.flow.Number())
}

// run reads the sockets until close, when it returns nil. Flush is called after
// each round of reads.
func (p *socketPoller) run(flush func()) error {
	var numbers []uint64
	var ready []*localFlow
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
			if l := p.flows[number]; l != nil {
				ready = append(ready, l)
			}
		}
		p.mu.Unlock()
		for _, l := range ready {
			batch, err := l.conn.TryRead()
			switch {
			case err != nil:
				l.readFailed(err)
			case batch != nil:
				l.received(batch, records)
			}
		}
		flush()
		clear(ready) // Not to keep ended flows alive.
	}
}
