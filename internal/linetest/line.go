package linetest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Line is a slow line to an address.
type Line struct {
	Address string // What dials it reaches the other end.

	passed atomic.Int64
	dead   chan struct{}
	over   chan struct{} // Closed when the test ends.
	once   sync.Once
}

// Slow returns a line that carries so many bytes per second in each direction of a
// connection, and holds few of them. The test's end closes it.
func Slow(t testing.TB, to string, rate int) *Line {
	t.Helper()
	l := &Line{dead: make(chan struct{}), over: make(chan struct{})}
	port := Listen(t, "127.0.0.1", 0, func(near net.Conn) {
		far, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
		if err != nil {
			return
		}
		defer far.Close()
		ended := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			// Without these, a whole snapshot fits the buffers and leaves at once. With
			// smaller ones, the system pauses between segments of the loopback.
			_ = way[0].(*net.TCPConn).SetReadBuffer(32 << 10)
			_ = way[1].(*net.TCPConn).SetWriteBuffer(32 << 10)
			go func() {
				l.carry(way[0], way[1], rate)
				ended <- struct{}{}
			}()
		}
		<-ended
		_ = near.Close()
		_ = far.Close()
		<-ended
	})
	l.Address = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
	t.Cleanup(func() { // Before the listener's.
		l.Cut()
		close(l.over)
	})
	return l
}

// Passed returns the number of bytes that the line has carried.
func (l *Line) Passed() int { return int(l.passed.Load()) }

// Cut makes the line carry nothing more. Its ends are not notified.
func (l *Line) Cut() { l.once.Do(func() { close(l.dead) }) }

func (l *Line) carry(from, to net.Conn, rate int) {
	const step = 20 * time.Millisecond
	ticks := time.NewTicker(step)
	defer ticks.Stop()
	b := make([]byte, max(1, rate*int(step)/int(time.Second)))
	for {
		n, err := from.Read(b)
		select {
		case <-l.dead:
			<-l.over
			return
		case <-ticks.C:
		}
		if err != nil {
			return
		}
		l.passed.Add(int64(n)) // Before the other end can have received it.
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
