package udptunnel_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/seal/sealtest"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	shortRoom = wire.PacketSize - seal.Overhead
	longRoom  = 1452 - seal.Overhead
)

// played is the client of a path whose other end is the test. A player's datagram leaves
// every 20 ms of a time that passes faster than it does.
type played struct {
	*end
	t      *testing.T
	server *net.UDPConn
	sealer *seal.Sealer
	opener *seal.Opener

	at      time.Duration
	rtt     time.Duration            // A probe is answered so much later.
	drop    func(packet []byte) bool // Loses packets, in both directions; nil: none.
	long    int                      // Packets of more than 1,400 bytes that were sent.
	answers []lateAnswer
}

// lateAnswer is an answer that is due at a time.
type lateAnswer struct {
	at     time.Duration
	client netip.AddrPort
	number uint64
}

func newPlayed(t *testing.T) *played {
	t.Helper()
	theirs, ours, err := sealtest.Handshake(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &played{end: newEnd(), t: t}
	p.sealer, p.opener = ours.Server()
	if p.server, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	p.split = true
	at := p.server.LocalAddr().(*net.UDPAddr).AddrPort()
	if p.Path, err = udptunnel.DialPath(t.Context(), at, p.options(theirs), &p.counters); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(p.Serve)
	t.Cleanup(func() {
		_ = p.server.Close()
		p.Close()
		serving.Wait()
	})
	return p
}

func (p *played) lost(packet []byte) bool { return p.drop != nil && p.drop(packet) }

// exchange has the path send, and receives what it sends.
func (p *played) exchange(send func(time.Duration)) {
	p.t.Helper()
	before := p.counters.Sent.Load()
	send(p.at)
	answer := lateAnswer{at: p.at + p.rtt}
	for range p.counters.Sent.Load() - before {
		b := make([]byte, 2048)
		_ = p.server.SetReadDeadline(time.Now().Add(await.Timeout))
		n, client, err := p.server.ReadFromUDPAddrPort(b)
		if err != nil {
			p.t.Fatal(err)
		}
		if n > 1400 {
			p.long++
		}
		if p.lost(b[:n]) {
			continue
		}
		records, _, err := p.opener.Open(b[:n])
		if err != nil {
			p.t.Fatal(err)
		}
		probe, _, err := wire.NextRecord(records)
		if err != nil || probe.Kind != wire.RecordProbe {
			p.t.Fatalf("record %+v, %v", probe, err)
		}
		answer.client, answer.number = client, probe.Flow
	}
	if answer.number != 0 { // Those that arrive together have one answer.
		p.answers = append(p.answers, answer)
	}
	for len(p.answers) > 0 && p.answers[0].at <= p.at {
		answer, p.answers = p.answers[0], p.answers[1:]
		packet := wire.AppendRecord(make([]byte, seal.HeaderSize), wire.Record{Kind: wire.RecordAnswer, Flow: answer.number})
		packet, err := p.sealer.Seal(wire.AppendRecord(packet, datagram([]byte("behind the answer"))))
		if err != nil {
			p.t.Fatal(err)
		}
		if !p.lost(packet) {
			_, _ = p.server.WriteToUDPAddrPort(packet, answer.client)
			p.next(p.t)
		}
	}
}

// play lets the time pass until met, which may be nil, and returns whether it was.
func (p *played) play(d time.Duration, met func() bool) bool {
	p.t.Helper()
	const step = 20 * time.Millisecond
	for end := p.at + d; p.at < end; p.at += step {
		if met != nil && met() {
			return true
		}
		p.exchange(p.Use)
		if p.at%time.Second == 0 {
			p.exchange(p.Age)
		}
	}
	return met != nil && met()
}

func (p *played) longest() bool { return p.PacketRoom() == longRoom }

func TestPath_FindsItsPacketSizeSoonAfterLoss(t *testing.T) {
	type loss func(random *rand.Rand, packet []byte) bool
	everything := func(*rand.Rand, []byte) bool { return true }
	oneIn := func(n int) loss { return func(random *rand.Rand, _ []byte) bool { return random.IntN(n) == 0 } }
	for name, test := range map[string]struct {
		loss
		d time.Duration
	}{
		"of everything for 1 s":        {everything, time.Second},
		"of everything for 3 s":        {everything, 3 * time.Second},
		"of everything for 9 s":        {everything, 9 * time.Second},
		"of every second for 10 s":     {oneIn(2), 10 * time.Second},
		"of every fifth for a minute":  {oneIn(5), time.Minute},
		"of all that are long for 2 s": {func(_ *rand.Rand, packet []byte) bool { return len(packet) > 1300 }, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlayed(t)
			if !p.play(2*time.Second, p.longest) {
				t.Fatalf("packets with room for %d before", p.PacketRoom())
			}
			random := rand.New(rand.NewPCG(3, 4))
			p.drop = func(packet []byte) bool { return test.loss(random, packet) }
			p.play(test.d, nil)
			p.drop = nil
			ended := p.at
			if !p.play(2*time.Second, func() bool { return p.Up() && p.longest() }) {
				t.Fatalf("after 2 s it is up: %t, and packets have room for %d", p.Up(), p.PacketRoom())
			}
			t.Logf("after %v", p.at-ended)
		})
	}
}

func TestPath_KeepsItsPacketSizeThroughRandomLoss(t *testing.T) {
	for _, rtt := range []time.Duration{0, 300 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			p := newPlayed(t)
			p.rtt = rtt
			p.play(5*time.Second, p.longest)
			random := rand.New(rand.NewPCG(5, 6))
			p.drop = func([]byte) bool { return random.IntN(100) < 5 }
			short, all := 0, 0
			p.play(2*time.Minute, func() bool {
				all++
				if !p.longest() {
					short++
				}
				return false
			})
			if share := float64(short) / float64(all); share > 0.01 {
				t.Errorf("packets are short for %.1f %% of the time", 100*share)
			}
		})
	}
}

func TestPath_SwallowedPacketsAreNotSentForLong(t *testing.T) {
	p := newPlayed(t)
	p.play(2*time.Second, p.longest)
	random := rand.New(rand.NewPCG(7, 8))
	// From now on the path carries 1,400 bytes at most, and loses some of the others.
	p.drop = func(packet []byte) bool { return len(packet) > 1400 || random.IntN(100) < 2 }
	changed := p.at
	if !p.play(3*time.Second, func() bool { return p.PacketRoom() == 1392-seal.Overhead }) {
		t.Fatalf("packets with room for %d after 3 s", p.PacketRoom())
	}
	t.Logf("after %v", p.at-changed)
	before := p.long
	down := 0
	p.play(10*time.Minute, func() bool {
		if !p.Up() || p.PacketRoom() > 1392-seal.Overhead {
			down++
		}
		return false
	})
	if down > 0 {
		t.Errorf("for %d steps the path is down or its packets are too long", down)
	}
	if n := p.long - before; n < 10 || n > 40 {
		t.Errorf("%d packets that are too long in 10 minutes, want some, in case the path has changed", n)
	}
}
