package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// lossPlayers play at a time, each with a datagram every lossInterval: that
	// of a game with 50 a second.
	lossPlayers  = 8
	lossInterval = 20 * time.Millisecond
	lossFor      = 5 * time.Second
	// lossNoise is by how much two runs on a busy machine may differ. A segment
	// that TCP has lost costs 200 ms and more.
	lossNoise = 10 * time.Millisecond
)

// play has players play for a while, with datagrams of 100 bytes or of the sizes
// given, and returns the 99th percentile of their round trips, and the share of
// datagrams that did not come back.
func (a *apart) play(t *testing.T, sizes ...int) (p99 time.Duration, lost float64) {
	t.Helper()
	if sizes == nil {
		sizes = []int{100}
	}
	const each = int(lossFor / lossInterval)
	var mu sync.Mutex
	var times []time.Duration
	var all sync.WaitGroup
	base := time.Now()
	for i := range lossPlayers {
		player, err := net.Dial("udp", a.public)
		if err != nil {
			t.Fatal(err)
		}
		defer player.Close()
		_ = player.SetReadDeadline(time.Now().Add(lossFor + 2*time.Second))
		all.Go(func() {
			time.Sleep(time.Duration(i) * lossInterval / lossPlayers)
			b := make([]byte, sizes[i%len(sizes)])
			for range each {
				binary.BigEndian.PutUint64(b, uint64(time.Since(base)))
				_, _ = player.Write(b)
				time.Sleep(lossInterval)
			}
		})
		all.Go(func() {
			b := make([]byte, 2048)
			for range each {
				if _, err := player.Read(b); err != nil {
					return // Those that are missing were lost.
				}
				mu.Lock()
				times = append(times, time.Since(base)-time.Duration(binary.BigEndian.Uint64(b)))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(times) == 0 {
		t.Fatal("nothing comes back")
	}
	slices.Sort(times)
	return times[len(times)*99/100], 1 - float64(len(times))/float64(lossPlayers*each)
}

// newApartWithPlayer is an apart and a player whom its game has answered.
func newApartWithPlayer(t *testing.T) (*apart, net.Conn) {
	t.Helper()
	a := newApart(t)
	player, err := net.Dial("udp", a.public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { player.Close() })
	askPacket(t, player, "hello")
	return a, player
}

func TestLoss_NoDatagramWaitsBehindALostOne(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	a, player := newApartWithPlayer(t)
	clean, _ := a.play(t)
	t.Logf("no loss: p99 %v", clean)
	for _, perMille := range []int{10, 30} {
		a.home.rules(fmt.Sprintf("numgen random mod 1000 < %d drop", perMille))
		p99, lost := a.play(t)
		t.Logf("%.0f %% lost each way: p99 %v, %.2f of that without loss; %.1f %% of round trips lost",
			float64(perMille)/10, p99, float64(p99)/float64(clean), 100*lost)
		if p99 > clean*3/2+lossNoise {
			t.Errorf("datagrams wait behind lost ones")
		}
		if lost > 4*float64(perMille)/1000 {
			t.Errorf("%.1f %% of round trips are lost", 100*lost)
		}
	}
	// The same with no UDP between the two machines, to see what it is for.
	a.home.rules("meta l4proto udp drop")
	askPacket(t, player, "over TCP")
	a.play(t) // Until all players have finished.
	a.home.rules("meta l4proto udp drop", "numgen random mod 1000 < 30 drop")
	p99, _ := a.play(t)
	t.Logf("3 %% lost each way, without UDP: p99 %v, %.2f of that without loss", p99, float64(p99)/float64(clean))
}

// The largest datagrams that a player's network carries take two packets, each of which
// may be lost.
func TestLoss_NoLargeDatagramWaitsBehindALostOne(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	a, _ := newApartWithPlayer(t)
	sizes := []int{1400, 1415, 1450, 1472}
	clean, overrun := a.play(t, sizes...)
	t.Logf("no loss: p99 %v; %.1f %% of round trips lost by the machine's other load", clean, 100*overrun)
	a.home.rules("numgen random mod 1000 < 20 drop")
	p99, lost := a.play(t, sizes...)
	t.Logf("2 %% lost each way: p99 %v; %.1f %% of round trips lost", p99, 100*lost)
	if p99 > clean*3/2+lossNoise {
		t.Errorf("datagrams wait behind lost ones")
	}
	if lost > 8*0.02+2*overrun {
		t.Errorf("%.1f %% of round trips are lost", 100*lost)
	}
	// A second without any packet, and then none is lost.
	a.home.rules("meta l4proto udp drop")
	time.Sleep(time.Second) // The loss itself.
	a.home.rules()
	a.play(t, sizes...) // Until what TCP has retransmitted is through.
	a.home.rules("numgen random mod 1000 < 20 drop")
	if p99, _ = a.play(t, sizes...); p99 > clean*3/2+lossNoise {
		t.Errorf("seconds after a loss of everything datagrams wait behind lost ones: p99 %v", p99)
	}
}

func TestLoss_NewAddressOfAHomeEndsNoFlow(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	a, player := newApartWithPlayer(t)
	a.play(t) // Until packets travel.
	askPacket(t, player, "before")
	port := a.at()
	a.home.move(movedTo)
	moved := time.Now()
	askPacket(t, player, "after")
	t.Logf("a player is answered %v after the move", time.Since(moved))
	// Until the agent has been missed and is back: what it had over TCP is gone.
	for text := 0; time.Since(moved) < 20*time.Second; text++ {
		asked := time.Now()
		askPacket(t, player, fmt.Sprint("later ", text))
		if took := time.Since(asked); took > 2*time.Second {
			t.Errorf("%v after the move a player waited %v", time.Since(moved), took)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if got := a.at(); got != port {
		t.Errorf("the game sees the player at port %d and not %d: the flow ended", got, port)
	}
}
