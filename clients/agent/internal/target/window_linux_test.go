package target

import (
	"io"
	"net"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestDialer_LimitsTheWindowTowardsTheGame(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := uuid.New()
	d := NewDialer(Options{Allow: func(string, int) error { return nil }})
	d.SetAllocations([]types.ClientAllocation{{
		ID: 1, ServerID: server, Protocol: types.ProtocolTCP,
		LocalHost: "127.0.0.1", LocalPort: l.Addr().(*net.TCPAddr).Port,
	}})
	dialled, err := d.DialTCP(t.Context(), server, wire.Control{Allocation: 1})
	if err != nil {
		t.Fatal(err)
	}
	player := dialled.Conn
	defer dialled.Left()
	defer player.Close()
	game, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer game.Close()
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, player)
		read <- err
	}()
	// The window grows while the agent reads quickly.
	for range 64 {
		if _, err := game.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	window, err := sendWindow(game.(*net.TCPConn))
	if err != nil || window > 2*receiveWindow {
		t.Errorf("the game may send %d bytes ahead, want at most %d (%v)", window, 2*receiveWindow, err)
	}
	_ = game.Close()
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// sendWindow returns how many bytes the peer of c accepts.
func sendWindow(c *net.TCPConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var infoErr error
	if err := raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil {
		return 0, err
	}
	if infoErr != nil {
		return 0, infoErr
	}
	return info.Snd_wnd, nil
}
