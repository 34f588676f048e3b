package udpsock_test

import (
	"net"
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

func TestPoller_ReportsSocketsUntilTheyAreRead(t *testing.T) {
	p, err := udpsock.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	const first, second = 1, 1<<40 + 2
	l1, c1 := sockets(t, "udp4", "127.0.0.1:0")
	l2, c2 := sockets(t, "udp4", "127.0.0.1:0")
	there := map[uint64]*udpsock.Conn{first: open(t, l1), second: open(t, l2)}
	players := map[uint64]*net.UDPConn{first: c1, second: c2}
	for number, c := range there {
		defer players[number].Close()
		if batch, err := c.TryRead(); batch != nil || err != nil {
			t.Fatalf("read %v (%v) of nothing", batch, err)
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
					t.Fatalf("reported %v (%v), want %d", numbers, err, number)
				}
			}
			batch, err := there[number].TryRead()
			if err != nil || batch.Len() != 1 || string(batch.Data(0)) != "hello" {
				t.Fatal("the datagram does not arrive", err)
			}
			batch.Release()
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := p.Wait(nil)
		ended <- err
	}()
	p.Close()
	if err := await.Receive(t, ended, "end"); err == nil {
		t.Error("Wait returned no error after Close")
	}
}

func TestPoller_AddReportsFailure(t *testing.T) {
	p, err := udpsock.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	defer c.Close()
	there := open(t, l)
	if err := p.Add(there, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(there, 2); err == nil { // EEXIST; where there are too many, ENOSPC.
		t.Error("added a socket twice without an error")
	}
}
