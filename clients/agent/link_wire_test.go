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
}

func newCutWire(t *testing.T, target string) *cutWire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &cutWire{address: l.Addr().String()}
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
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
			mu.Lock()
			open = append(open, near, far)
			mu.Unlock()
			// A connection that was there when the wire was cut is lost for good.
			var lost atomic.Bool
			work.Go(func() { w.pass(near, far, &lost) })
			work.Go(func() { w.pass(far, near, &lost) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return w
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
