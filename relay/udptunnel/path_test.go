package udptunnel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/seal/sealtest"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// end is one end of a udptunnel.
type end struct {
	*udptunnel.Path
	counters  udptunnel.PathCounters
	datagrams udptunnel.DatagramCounters

	mu      sync.Mutex
	split   bool // The other end joins split datagrams.
	handle  func([]wire.Record) error
	arrived chan []byte
	failed  chan error
}

func newEnd() *end {
	e := &end{arrived: make(chan []byte, 1<<16), failed: make(chan error, 8)}
	e.handle = func(records []wire.Record) error {
		for _, r := range records {
			if r.Kind == wire.RecordDatagram {
				e.arrived <- bytes.Clone(r.Payload)
			}
		}
		return nil
	}
	return e
}

func (e *end) options(keys seal.Keys) udptunnel.PathOptions {
	return udptunnel.PathOptions{
		Keys: keys, Datagrams: &e.datagrams, Split: e.split,
		Fail: func(err error) { e.failed <- err },
		Handle: func(records []wire.Record) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.handle(records)
		},
	}
}

func (e *end) next(t testing.TB) []byte {
	t.Helper()
	return await.Receive(t, e.arrived, "datagram")
}

func datagram(payload []byte) wire.Record {
	return wire.Record{Kind: wire.RecordDatagram, Flow: 1000, Payload: payload}
}

func TestPath_CarriesDatagramsOfMixedSizesInOrder(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", ""} {
		t.Run(host, func(t *testing.T) {
			client, server := pair(t, host)
			for from, to := range map[*end]*end{client: server, server: client} {
				const n = 4000
				sent, got := 0, 0
				for got < n {
					for ; sent < n && sent < got+256; sent++ {
						size := []int{4, 200, 200, 200, 200, 1100, 1190, 33}[sent%8]
						if sent%512 < 256 {
							size = 200
						}
						payload := make([]byte, size)
						binary.BigEndian.PutUint32(payload, uint32(sent))
						if !from.Put(datagram(payload)) {
							t.Fatalf("datagram %d was not taken", sent)
						}
						if sent%5 == 0 || sent == n-1 {
							from.Flush()
						}
					}
					from.Flush()
					for ; got < sent; got++ {
						if b := to.next(t); binary.BigEndian.Uint32(b) != uint32(got) {
							t.Fatalf("datagram %d in place of %d", binary.BigEndian.Uint32(b), got)
						}
					}
				}
				if s, r := from.datagrams.Sent.Load(), to.datagrams.Received.Load(); s != n || r != n {
					t.Errorf("%d counted as sent, %d as received", s, r)
				}
			}
			if s := server.counters.Stats(); s.Forged+s.Replayed+s.Unknown+s.Unsendable != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestPath_PacketsGrowAsFarAsTheyArrive(t *testing.T) {
	client, server := pair(t, "127.0.0.1")
	await.Until(t, "longer packets", func() bool {
		client.Tick(time.Now())
		for _, e := range []*end{client, server} {
			e.Put(datagram([]byte("x")))
			e.Flush()
		}
		return client.PacketRoom() == 1452-seal.Overhead && server.PacketRoom() == client.PacketRoom()
	})
	// Without any answer the path is down; until then, lengths are not what is wrong.
	server.Close()
	client.Put(datagram([]byte("x")))
	client.Age(2 * time.Second) // The first probe without an answer.
	if client.Age(2*time.Second + wire.PathTimeout/2 + time.Millisecond); !client.Up() || client.PacketRoom() != 1452-seal.Overhead {
		t.Errorf("up: %t, packets with room for %d", client.Up(), client.PacketRoom())
	}
	if client.Age(2*time.Second + wire.PathTimeout); client.Up() {
		t.Error("up although nothing is answered")
	}
	if room := client.PacketRoom(); room != wire.PacketSize-seal.Overhead {
		t.Errorf("packets with room for %d", room)
	}
	if client.Put(datagram([]byte("x"))) {
		t.Error("a datagram was taken by a path that is down")
	}
}

func TestPath_SilentOnesStayUpAndDeafOnesDoNot(t *testing.T) {
	client, server := pair(t, "127.0.0.1")
	for age := time.Second; age < 10*time.Minute; age += time.Second {
		sent, answered := client.counters.Sent.Load(), client.counters.Received.Load()
		if client.Age(age); client.counters.Sent.Load() > sent {
			await.Until(t, "the answer", func() bool { return client.counters.Received.Load() > answered })
		}
		if !client.Up() {
			t.Fatalf("down after %v", age)
		}
	}
	if server.Age(2 * wire.Keepalive); !server.Up() {
		t.Error("the tunnel server gives up before the client's next packet is due")
	}
	if server.Age(4 * wire.Keepalive); server.Up() {
		t.Error("the tunnel server takes a client for reachable that says nothing")
	}
}

func TestPath_FullQueueDropsAndCounts(t *testing.T) {
	client, _ := pair(t, "127.0.0.1")
	taken := 0
	for range 10_000 {
		if client.Put(datagram(make([]byte, 1000))) {
			taken++
		}
	}
	if dropped := client.datagrams.Overflowed.Load(); taken == 0 || taken > udptunnel.DefaultQueue/1000 || dropped != uint64(10_000-taken) {
		t.Errorf("%d taken, %d dropped", taken, dropped)
	}
	if client.Put(datagram(make([]byte, 3000))) {
		t.Error("a datagram was taken that does not fit two packets")
	}
}

func TestPath_OtherEndsNonsenseIsToldOnce(t *testing.T) {
	errTest := errors.New("no")
	client, server := pair(t, "127.0.0.1")
	server.mu.Lock()
	server.handle = func([]wire.Record) error { return errTest }
	server.mu.Unlock()
	for range 3 {
		client.Put(datagram([]byte("x")))
		client.Flush()
	}
	if err := <-server.failed; !errors.Is(err, errTest) {
		t.Errorf("failed by %v", err)
	}
	await.Until(t, "the others", func() bool { return server.datagrams.Received.Load() == 3 })
	if len(server.failed) != 0 {
		t.Error("it is told twice")
	}
}

func TestPath_IDsAreUnique(t *testing.T) {
	_, ours, err := sealtest.Handshake(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	var e end
	socket, err := udptunnel.ListenPackets(t.Context(), "127.0.0.1:0", &e.counters)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	first, err := socket.NewPath(e.options(ours))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := socket.NewPath(e.options(ours)); err == nil {
		t.Error("a second path with the same id")
	}
	first.Close()
	if _, err := socket.NewPath(e.options(ours)); err != nil {
		t.Error(err)
	}
}

func FuzzPacket(f *testing.F) {
	theirs, ours, err := sealtest.Handshake(f, nil)
	if err != nil {
		f.Fatal(err)
	}
	var e end
	socket, err := udptunnel.ListenPackets(f.Context(), "127.0.0.1:0", &e.counters)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(socket.Close)
	f.Add([]byte("no record"), true)
	f.Add(wire.AppendRecord(nil, wire.Record{Kind: wire.RecordProbe, Flow: 1, Payload: make([]byte, 100)}), true)
	f.Add(wire.AppendRecord(wire.AppendRecord(nil, wire.Record{Kind: wire.RecordAnswer, Flow: 1}), datagram([]byte("x"))), true)
	f.Add(make([]byte, 100), false)
	head := wire.Record{Kind: wire.RecordHead, Flow: 1000, Split: 7, Payload: []byte("head ")}
	tail := wire.Record{Kind: wire.RecordTail, Flow: 1000, Split: 7, Payload: []byte("tail")}
	f.Add(wire.AppendRecord(wire.AppendRecord(nil, head), tail), true)
	f.Add(wire.AppendRecord(wire.AppendRecord(wire.AppendRecord(nil, tail), datagram([]byte("x"))), head), true)
	f.Fuzz(func(t *testing.T, content []byte, genuine bool) {
		var e end
		var got []byte
		e.failed = make(chan error, 8)
		e.handle = func(records []wire.Record) error {
			for _, r := range records {
				got = wire.AppendRecord(got, r)
			}
			return nil
		}
		p, err := socket.NewPath(e.options(ours))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if !genuine {
			p.Take(append(binary.BigEndian.AppendUint64(nil, ours.ID), content...))
			if got != nil || len(e.failed) != 0 {
				t.Fatalf("%x: records %x of nobody", content, got)
			}
			return
		}
		sealer, _ := theirs.Client()
		packet, err := sealer.Seal(append(make([]byte, seal.HeaderSize), content...))
		if err != nil {
			t.Fatal(err)
		}
		p.Take(packet)
		var want []byte
		var waiting []wire.Record
		bad := false
		for rest := content; len(rest) > 0; {
			r, next, err := wire.NextRecord(rest)
			if bad = err != nil; bad {
				break
			}
			rest = next
			switch r.Kind {
			case wire.RecordProbe, wire.RecordAnswer:
			case wire.RecordHead, wire.RecordTail:
				if waiting, r.Payload = joinedWith(waiting, r); r.Payload != nil {
					want = wire.AppendRecord(want, wire.Record{Kind: wire.RecordDatagram, Flow: r.Flow, Payload: r.Payload})
				}
			default:
				want = wire.AppendRecord(want, r)
			}
		}
		if !bytes.Equal(got, want) || bad != (len(e.failed) == 1) {
			t.Fatalf("%x: got %x, want %x; failed %d times, malformed %t", content, got, want, len(e.failed), bad)
		}
	})
}

// joinedWith is what a path does with a half: it keeps at most 32, or returns the
// payload of the datagram that is complete.
func joinedWith(waiting []wire.Record, half wire.Record) ([]wire.Record, []byte) {
	for i, other := range waiting {
		switch {
		case other.Flow != half.Flow || other.Split != half.Split:
			continue
		case other.Kind == half.Kind:
			return waiting, nil
		case other.Kind == wire.RecordHead:
			return slices.Delete(waiting, i, i+1), append(bytes.Clone(other.Payload), half.Payload...)
		default:
			return slices.Delete(waiting, i, i+1), append(bytes.Clone(half.Payload), other.Payload...)
		}
	}
	if len(waiting) == 32 {
		waiting = waiting[1:]
	}
	return append(waiting, half), nil
}

func BenchmarkPath(b *testing.B) { benchmarkPath(b, 200, 1) }

func BenchmarkPathBurst(b *testing.B) { benchmarkPath(b, 1100, 64) }

func BenchmarkPathSplit(b *testing.B) { benchmarkPath(b, 1450, 1) }

func BenchmarkPathSplitBurst(b *testing.B) { benchmarkPath(b, 1450, 64) }

// benchmarkPath sends datagrams of a size in bytes, and flushes after a burst of so
// many.
func benchmarkPath(b *testing.B, size, burst int) {
	client, server := pair(b, "127.0.0.1")
	arrived := make(chan struct{}, 1<<16)
	server.mu.Lock()
	server.handle = func(records []wire.Record) error {
		for range records {
			arrived <- struct{}{}
		}
		return nil
	}
	server.mu.Unlock()
	payload := make([]byte, size)
	lost := time.After(await.Timeout)
	b.ReportAllocs()
	inFlight, sent := 0, 0
	for b.Loop() {
		if inFlight == 256 {
			select {
			case <-arrived:
			case <-lost:
				b.Fatal("a datagram was lost")
			}
			inFlight--
		}
		client.Put(datagram(payload))
		inFlight++
		if sent++; sent%burst == 0 {
			client.Flush()
		}
	}
}
