package linetest

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// HelloFilter is a middlebox before an address that lets no connection pass whose TLS
// hello is larger than one packet.
type HelloFilter struct {
	Address string // What dials it reaches the other end.

	filtered, passed atomic.Int64
	off              atomic.Bool
}

// maxHello is the largest hello that passes, in bytes with the header of its record.
const maxHello = 1400

// FilterHellos starts a filter that resets what it does not let pass, or else swallows
// it. The test's end closes it.
func FilterHellos(t testing.TB, to string, reset bool) *HelloFilter {
	t.Helper()
	f := new(HelloFilter)
	port := Listen(t, "127.0.0.1", 0, func(near net.Conn) {
		header := make([]byte, 5)
		if _, err := io.ReadFull(near, header); err != nil {
			return
		}
		if !f.off.Load() && len(header)+int(binary.BigEndian.Uint16(header[3:])) > maxHello {
			f.filtered.Add(1)
			if reset {
				_ = near.(*net.TCPConn).SetLinger(0)
				return
			}
			Silent(near)
			return
		}
		f.passed.Add(1)
		far, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
		if err != nil {
			return
		}
		_, _ = far.Write(header)
		var copies sync.WaitGroup
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			copies.Go(func() {
				_, _ = io.Copy(way[1], way[0])
				_ = near.Close()
				_ = far.Close()
			})
		}
		copies.Wait()
	})
	f.Address = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
	return f
}

// Filtered and Passed return the number of connections that it did not let pass, and
// that it did.
func (f *HelloFilter) Filtered() int { return int(f.filtered.Load()) }
func (f *HelloFilter) Passed() int   { return int(f.passed.Load()) }

// Off makes it let everything pass.
func (f *HelloFilter) Off() { f.off.Store(true) }
