package link_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// burster is a player who keeps datagrams in flight and checks the answers.
type burster struct {
	conn         *net.UDPConn
	port, player byte
	payload      []byte
	next         uint32
}

// burst has n datagrams answered, none of which may be lost, duplicated or mixed up
// with another flow's, nor, if ordered, overtake another.
func (b *burster) burst(n int, ordered bool) error {
	const window = 24
	first := b.next
	seen := make([]bool, n)
	for received := range n {
		for ; int(b.next-first) < min(n, received+window); b.next++ {
			binary.BigEndian.PutUint32(b.payload[1:], b.next)
			if _, err := b.conn.Write(b.payload); err != nil {
				return err
			}
		}
		got, err := linktest.NextAnswer(b.conn)
		if err != nil {
			return fmt.Errorf("player %d of port %d at %d: %w", b.player, b.port, received, err)
		}
		own := got[max(0, len(got)-len(b.payload)):] // Behind the PROXY header.
		at := int(binary.BigEndian.Uint32(own[1:]) - first)
		switch {
		case got[0] != b.port || own[0] != b.player || at >= int(b.next-first) || seen[at]:
			return fmt.Errorf("player %d of port %d gets %d bytes in place of one of %d datagrams", b.player, b.port, len(got), b.next-first)
		case ordered && at != received:
			return fmt.Errorf("player %d of port %d gets datagram %d in place of %d", b.player, b.port, at, received)
		}
		seen[at] = true
	}
	return nil
}

// Datagrams of several flows and ports share messages, packets and system calls.
func TestTunnel_BurstsOfManyFlowsAndPortsKeepApart(t *testing.T) {
	const ports, players, datagrams = 3, 4, 1000
	v2 := types.ProxyProtocolV2
	d := linktest.New(t, linktest.Options{})
	var bursters []*burster
	for p := range ports {
		configure := func(a *types.ClientAllocation) {
			if p == 0 {
				a.Options.ProxyProtocol = &v2
			}
		}
		port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, _ netip.AddrPort) []byte {
			return append([]byte{byte(p)}, payload...)
		}), configure)
		for i := range players {
			b := &burster{
				conn: linktest.DialUDP(t, []string{"127.0.0.1", "::1"}[i%2], port),
				port: byte(p), player: byte(i), payload: make([]byte, 100+i),
			}
			b.payload[0] = b.player
			bursters = append(bursters, b)
		}
	}
	burst := func(ordered bool) {
		var all sync.WaitGroup
		for _, b := range bursters {
			all.Go(func() {
				if err := b.burst(datagrams, ordered); err != nil {
					t.Errorf("%v (in order: %v): %+v", err, ordered, d.Server.Stats())
				}
			})
		}
		all.Wait()
	}
	burst(false) // Some overtake others while the path comes up.
	awaitPath(d)
	if !onPath(d, func() { burst(true) }) {
		t.Error("the datagrams took the data connection")
	}
	if n := d.Server.Stats().Flows; n != ports*players {
		t.Errorf("%d flows, want %d", n, ports*players)
	}
	if n := d.Server.Stats().DroppedDatagrams; n != 0 {
		t.Errorf("%d datagrams dropped", n)
	}
}

func TestTunnel_SilentFlowsTakeNoGoroutines(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("on other systems each takes one")
	}
	const flows = 200
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", port), []byte("first"))
	before := runtime.NumGoroutine()
	for range flows {
		linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", port), []byte("hello"))
	}
	if more := runtime.NumGoroutine() - before; more > flows/10 {
		t.Errorf("%d goroutines for %d flows", more, flows)
	}
}
