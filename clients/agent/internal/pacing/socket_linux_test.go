package pacing

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPacer_ReadsAndLimitsSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := New()
	conn, err := p.Dialer(net.Dialer{})(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	const size = 100_000
	go func() { _, _ = conn.Write(make([]byte, size)) }()
	if _, err := io.CopyN(io.Discard, peer, size); err != nil {
		t.Fatal(err)
	}
	if len(p.paths[l.Addr().String()].connections) != 1 {
		t.Fatal("what was dialled is not paced")
	}
	socket := p.paths[l.Addr().String()].connections[0].socket
	// What the peer has read its kernel has acknowledged, or is about to.
	var r reading
	for r.delivered < size {
		if r, err = socket.read(); err != nil || t.Context().Err() != nil {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if r.backlogged || r.rtt <= 0 || r.minRTT <= 0 || r.minRTT > r.rtt {
		t.Errorf("read %+v", r)
	}
	for limit, want := range map[float64]uint32{12_345_678: 12_345_678, 0: ^uint32(0)} {
		if err := socket.limit(limit); err != nil {
			t.Fatal(err)
		}
		if got := pacingRate(t, conn.(*net.TCPConn)); got != want {
			t.Errorf("limited to %.0f, the socket has %d", limit, got)
		}
	}
	conn.Close()
	if connections, _ := p.tick(time.Now()); connections != 0 {
		t.Errorf("%d closed connections are still paced", connections)
	}
}

func pacingRate(t *testing.T, conn *net.TCPConn) uint32 {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var rate int
	var readErr error
	if err := raw.Control(func(fd uintptr) {
		rate, readErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE)
	}); err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	return uint32(rate)
}

func TestPacer_IdleConnectionsMakeNoGarbage(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := New()
	dial := p.Dialer(net.Dialer{})
	for range 20 {
		conn, err := dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	now := time.Now()
	allocated := testing.AllocsPerRun(100, func() {
		now = now.Add(idleInterval)
		if connections, _ := p.tick(now); connections != 20 {
			t.Fatalf("%d connections are read", connections)
		}
	})
	// Fewer than two for each: a pool may be emptied at any time, and is under -race.
	if allocated >= 40 {
		t.Errorf("%.0f allocations at a reading of 20 connections", allocated)
	}
}
