//go:build !linux

package target

import "github.com/eclitunnel/eclitunnel/relay/wire"

// socketPoller reads the sockets of one UDP session's flows, each with a goroutine
// of its own.
type socketPoller struct{ closed chan struct{} }

func newSocketPoller() (*socketPoller, error) {
	return &socketPoller{closed: make(chan struct{})}, nil
}

// close ends run.
func (p *socketPoller) close() { close(p.closed) }

// run waits for close and returns nil.
func (p *socketPoller) run(func()) error {
	<-p.closed
	return nil
}

func (p *socketPoller) add(s *flowSocket) error {
	s.flow.Go(func() {
		records := make([]wire.Record, 0, 1)
		for {
			batch, err := s.conn.Read()
			if err == nil {
				s.received(batch, records)
				s.flow.Flush()
			} else if !s.readFailed(err) {
				return
			}
		}
	})
	return nil
}

func (p *socketPoller) remove(*flowSocket) {}
