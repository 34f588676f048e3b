package agent

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// cutWire passes TCP connections on to a target, until it is cut: then they
// stay open and nothing passes any more, as when a cable is pulled.
type cutWire struct {
	address string
	cut     atomic.Bool

	mu   sync.Mutex
	open []net.Conn
}

func newCutWire(t *testing.T, target string) *cutWire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &cutWire{address: l.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				_ = near.Close()
				continue
			}
			w.mu.Lock()
			w.open = append(w.open, near, far)
			w.mu.Unlock()
			// A connection that was there when the wire was cut is lost for good.
			var lost atomic.Bool
			work.Go(func() { w.pass(near, far, &lost) })
			work.Go(func() { w.pass(far, near, &lost) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.sever()
		work.Wait()
	})
	return w
}

// sever ends every connection, which both ends learn of.
func (w *cutWire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}

func (w *cutWire) pass(from, to net.Conn, lost *atomic.Bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if w.cut.Load() {
			lost.Store(true)
		}
		if err != nil {
			if !lost.Load() {
				_ = to.Close()
			}
			return
		}
		if !lost.Load() {
			if _, err := to.Write(b[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
	}
}
