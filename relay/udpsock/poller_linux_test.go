package udpsock_test

import (
	"net"
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

func TestPoller_TellsOfSocketsUntilTheyAreRead(t *testing.T) {
	p, err := udpsock.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	const first, second = 1, 1<<40 + 2
	l1, c1 := sockets(t, "udp4", "127.0.0.1:0")
	l2, c2 := sockets(t, "udp4", "127.0.0.1:0")
	there := map[uint64]*udpsock.Conn{first: packetConn(t, l1), second: packetConn(t, l2)}
	players := map[uint64]*net.UDPConn{first: c1, second: c2}
	for number, c := range there {
		defer players[number].Close()
		if packets, err := c.TryRead(); packets != nil || err != nil {
			t.Fatalf("read %v (%v) of nothing", packets, err)
		}
		if err := p.Add(c, number); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for number, player := range players {
			if _, err := player.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			for range 2 { // Until it is read.
				if numbers, err := p.Wait(nil); err != nil || !slices.Equal(numbers, []uint64{number}) {
					t.Fatalf("told of %v (%v), want %d", numbers, err, number)
				}
			}
			packets, err := there[number].TryRead()
			if err != nil || packets.Len() != 1 || string(packets.Data(0)) != "hello" {
				t.Fatal("the datagram does not come", err)
			}
			packets.Release()
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := p.Wait(nil)
		ended <- err
	}()
	p.Close()
	if err := await.Receive(t, ended, "end"); err == nil {
		t.Error("waited on after Close")
	}
}

func TestPoller_SaysThatItCannotWatchASocket(t *testing.T) {
	p, err := udpsock.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	defer c.Close()
	there := packetConn(t, l)
	if err := p.Add(there, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(there, 2); err == nil { // EEXIST; where there are too many, ENOSPC.
		t.Error("a socket that is not watched by that number, and no error")
	}
}
