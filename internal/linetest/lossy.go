package linetest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Fate is what a lossy line does with a connection.
type Fate int

// The fates of a connection. Neither end is told that something is lost.
const (
	Passed     Fate = iota
	Lost            // Nothing passes.
	AnswerLost      // After the far end's answer to the near end's TLS hello, nothing passes back.
)

// Lossy starts a line to an address that loses connections, and returns the address to
// dial instead. Fate is called with the number of each connection, from 1, and may be
// called concurrently. The test's end closes the line.
func Lossy(t testing.TB, to string, fate func(connection int) Fate) string {
	t.Helper()
	var connections atomic.Int64
	port := Listen(t, "127.0.0.1", 0, func(near net.Conn) {
		f := fate(int(connections.Add(1)))
		if f == Lost {
			Silent(near)
			return
		}
		far, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
		if err != nil {
			return
		}
		defer far.Close()
		var lost atomic.Bool // What the far end sends, its end included.
		var back sync.WaitGroup
		defer back.Wait()
		back.Go(func() {
			carry(far, near, func() bool { return !lost.Load() })
			if !lost.Load() {
				_ = near.Close()
			}
		})
		reads := 0
		carry(near, far, func() bool {
			reads++
			lost.Store(f == AnswerLost && reads > 1)
			return true
		})
		_ = far.Close()
		Silent(near)
	})
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
}

// carry copies what pass lets through until either end fails.
func carry(from, to net.Conn, pass func() bool) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if !pass() {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
