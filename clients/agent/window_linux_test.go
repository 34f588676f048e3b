package agent

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestTunnel_WindowTowardsTheGameIsBounded(t *testing.T) {
	type window struct {
		bytes uint32
		err   error
	}
	joined := make(chan window, 1)
	local := game(t, "127.0.0.1", func(c *net.TCPConn) {
		defer close(joined)
		// The window grows while the agent reads quickly.
		for range 64 {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				joined <- window{err: err}
				return
			}
		}
		raw, err := c.SyscallConn()
		if err != nil {
			joined <- window{err: err}
			return
		}
		var w window
		if err := raw.Control(func(fd uintptr) {
			var info *unix.TCPInfo
			if info, w.err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); w.err == nil {
				w.bytes = info.Snd_wnd
			}
		}); err != nil {
			w.err = err
		}
		joined <- w
	})
	d := newDataPlane(t, dataPlaneOptions{})
	player := d.join(d.publish(types.ProtocolTCP, local, nil))
	if _, err := io.Copy(io.Discard, player); err != nil {
		t.Fatal(err)
	}
	if w := <-joined; w.err != nil || w.bytes > 2*gameWindow {
		t.Errorf("the game may send %d bytes ahead, want at most %d (%v)", w.bytes, 2*gameWindow, w.err)
	}
}
