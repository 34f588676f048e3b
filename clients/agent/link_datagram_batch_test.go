package agent

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Datagrams of several flows and ports share messages and system calls.
func TestTunnel_BurstsOfManyFlowsAndPortsKeepApart(t *testing.T) {
	const ports, players, datagrams, window = 3, 4, 2000, 24
	v2 := types.ProxyProtocolV2
	d := newDataPlane(t, dataPlaneOptions{})
	var all sync.WaitGroup
	for p := range ports {
		configure := func(a *types.ClientAllocation) {
			if p == 0 {
				a.Options.ProxyProtocol = &v2
			}
		}
		port := d.publish(types.ProtocolUDP, datagramGame(t, 0, func(payload []byte, _ netip.AddrPort) []byte {
			return append([]byte{byte(p)}, payload...)
		}), configure)
		for i := range players {
			player := playDatagrams(t, []string{"127.0.0.1", "::1"}[i%2], port)
			all.Go(func() {
				payload := make([]byte, 100+i)
				payload[0] = byte(i)
				// Not their order: some overtake others as the path comes up.
				heard := make(map[uint32]bool, datagrams)
				for sent, received := uint32(0), uint32(0); received < datagrams; received++ {
					for ; sent < datagrams && sent < received+window; sent++ {
						binary.BigEndian.PutUint32(payload[1:], sent)
						if _, err := player.Write(payload); err != nil {
							t.Error(err)
							return
						}
					}
					got, err := nextAnswer(player)
					if err != nil {
						t.Errorf("player %d of port %d at %d: %v", i, p, received, err)
						return
					}
					own := got[len(got)-len(payload):] // What the PROXY header follows.
					number := binary.BigEndian.Uint32(own[1:])
					if got[0] != byte(p) || own[0] != byte(i) || number >= sent || heard[number] {
						t.Errorf("player %d of port %d gets %d bytes in place of one of %d datagrams", i, p, len(got), sent)
						return
					}
					heard[number] = true
				}
			})
		}
	}
	all.Wait()
	if n := d.server.Stats().Flows; n != ports*players {
		t.Errorf("%d flows, want %d", n, ports*players)
	}
	if n := d.server.Stats().DroppedDatagrams; n != 0 {
		t.Errorf("%d datagrams dropped", n)
	}
}

func TestTunnel_SilentFlowsTakeNoGoroutines(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere each takes one")
	}
	const flows = 200
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), nil)
	ask(t, playDatagrams(t, "127.0.0.1", port), []byte("first"))
	before := runtime.NumGoroutine()
	for range flows {
		ask(t, playDatagrams(t, "127.0.0.1", port), []byte("hello"))
	}
	if more := runtime.NumGoroutine() - before; more > flows/10 {
		t.Errorf("%d goroutines for %d flows", more, flows)
	}
}
