//go:build !linux

package agent

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

func (p *socketPoller) add(l *localFlow) error {
	l.flow.Go(func() {
		records := make([]wire.Record, 0, 1)
		for {
			batch, err := l.conn.Read()
			if err == nil {
				l.received(batch, records)
				l.flow.Flush()
			} else if !l.readFailed(err) {
				return
			}
		}
	})
	return nil
}

func (p *socketPoller) remove(*localFlow) {}
