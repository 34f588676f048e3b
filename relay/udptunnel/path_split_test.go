package udptunnel_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/seal/sealtest"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// largeSizes are around what one packet carries, at the least packet size and at the
// largest, and up to what two carry at the least.
var largeSizes = []int{1190, 1200, 1400, 1414, 1415, 1416, 1472, 1500, 2000, 2340}

// numbered is a datagram's content, which its number determines.
func numbered(number uint32, size int) []byte {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(uint32(i)*7 + number)
	}
	binary.BigEndian.PutUint32(payload, number)
	return payload
}

// grow sends datagrams until both ends use the longest packets.
func grow(t testing.TB, client, server *end) {
	t.Helper()
	await.Until(t, "longer packets", func() bool {
		client.Tick(time.Now())
		for _, e := range []*end{client, server} {
			e.Put(datagram([]byte("x")))
			e.Flush()
			for len(e.arrived) > 0 {
				<-e.arrived
			}
		}
		return client.PacketRoom() == 1452-seal.Overhead && server.PacketRoom() == client.PacketRoom()
	})
	await.Until(t, "what is on its way", func() bool {
		return client.datagrams.Sent.Load() == server.datagrams.Received.Load() && server.datagrams.Sent.Load() == client.datagrams.Received.Load()
	})
	for _, e := range []*end{client, server} {
		for len(e.arrived) > 0 {
			<-e.arrived
		}
	}
}

func TestPath_SplitsLargeDatagramsAndKeepsTheirOrder(t *testing.T) {
	for _, packets := range []string{"shortest", "longest"} {
		t.Run(packets+" packets", func(t *testing.T) {
			client, server := pair(t, "127.0.0.1")
			if packets == "longest" {
				grow(t, client, server)
			}
			for from, to := range map[*end]*end{client: server, server: client} {
				sent, received := from.datagrams.Sent.Load(), to.datagrams.Received.Load()
				const n = 3000
				for first := 0; first < n; first += 100 {
					for i := first; i < first+100; i++ {
						size := largeSizes[i%len(largeSizes)]
						if i%3 == 0 {
							size = 4 + i%200
						}
						if !from.Put(datagram(numbered(uint32(i), size))) {
							t.Fatalf("datagram %d of %d bytes was not taken", i, size)
						}
						if i%7 == 0 {
							from.Flush()
						}
					}
					from.Flush()
					for i := first; i < first+100; i++ {
						b := to.next(t)
						if got := binary.BigEndian.Uint32(b); got != uint32(i) || !bytes.Equal(b, numbered(got, len(b))) {
							t.Fatalf("datagram %d in place of %d, or not as it was sent", got, i)
						}
					}
				}
				if s, r := from.datagrams.Sent.Load()-sent, to.datagrams.Received.Load()-received; s != n || r != n {
					t.Errorf("%d counted as sent, %d as received", s, r)
				}
			}
		})
	}
}

func TestPath_SplitsABurstIntoFewPacketsOfOneLength(t *testing.T) {
	client, server := pair(t, "127.0.0.1")
	grow(t, client, server)
	before := client.counters.Sent.Load()
	const n = 100
	for i := range n {
		client.Put(datagram(numbered(uint32(i), 1450)))
	}
	client.Flush()
	for range n {
		server.next(t)
	}
	// Each has 1,455 bytes with its header, and some bytes more for each half.
	if packets := client.counters.Sent.Load() - before; packets > n*1.1 {
		t.Errorf("%d packets for %d datagrams of 1,450 bytes", packets, n)
	}
}

func TestPath_SplitsForNoOtherEndThatDoesNotJoin(t *testing.T) {
	client, server := newEnd(), newEnd()
	server.split = true // The client joins, and the server does not.
	connect(t, "127.0.0.1", nil, client, server)
	for _, size := range largeSizes[5:] {
		if client.Put(datagram(make([]byte, size))) {
			t.Errorf("%d bytes were taken for an end that joins nothing", size)
		}
		if !server.Put(datagram(make([]byte, size))) {
			t.Errorf("%d bytes were not taken for an end that joins", size)
		}
		server.Flush()
		if b := client.next(t); len(b) != size {
			t.Errorf("%d bytes arrive as %d", size, len(b))
		}
	}
	for _, size := range []int{2800, 9000, wire.MaxDatagram} {
		if server.Put(datagram(make([]byte, size))) {
			t.Errorf("%d bytes were taken, which two packets do not carry", size)
		}
	}
	if n := server.datagrams.Received.Load() + client.datagrams.Overflowed.Load() + server.datagrams.Overflowed.Load(); n != 0 {
		t.Errorf("%d datagrams arrived or count as dropped", n)
	}
}

func TestPath_LostHalfLosesItsDatagramAlone(t *testing.T) {
	client, server, over := newEnd(), newEnd(), new(line)
	client.split, server.split = true, true
	connect(t, "127.0.0.1", over, client, server)
	random := rand.New(rand.NewPCG(1, 2))
	over.lose(func([]byte) bool { return random.IntN(100) < 5 })
	const n = 1000
	arrived, last := 0, -1
	for i := range n {
		client.Put(datagram(numbered(uint32(i), largeSizes[i%len(largeSizes)])))
		client.Flush()
		if i%20 < 19 { // A socket's buffer takes as many.
			continue
		}
		await.Until(t, "all that is not lost", func() bool {
			client.Put(datagram(numbered(uint32(n+i), 10)))
			client.Flush()
			for len(server.arrived) > 0 {
				b := <-server.arrived
				number := int(binary.BigEndian.Uint32(b))
				switch {
				case !bytes.Equal(b, numbered(uint32(number), len(b))):
					t.Fatalf("datagram %d of %d bytes is not as it was sent", number, len(b))
				case number == n+i:
					return true
				case number >= n: // Of an earlier wait.
					continue
				case number <= last:
					t.Fatalf("datagram %d after %d", number, last)
				}
				last = number
				arrived++
			}
			return false
		})
	}
	// One in 20 packets is lost, and half of the datagrams take two.
	if share := float64(arrived) / n; share < 0.89 || share > 0.96 {
		t.Errorf("%.1f %% arrived, want about 92.6 %%", 100*share)
	}
}

// joining is one end that is given packets one at a time.
type joining struct {
	*end
	t      *testing.T
	sealer *seal.Sealer
}

func newJoining(t *testing.T) *joining {
	t.Helper()
	theirs, ours, err := sealtest.Handshake(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	j := &joining{end: newEnd(), t: t}
	socket, err := udptunnel.ListenPackets(t.Context(), "127.0.0.1:0", &j.counters)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	if j.Path, err = socket.NewPath(j.options(ours)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	j.sealer, _ = theirs.Client()
	return j
}

// take has a packet of records arrive and returns the datagrams that are handled.
func (j *joining) take(records ...wire.Record) []string {
	j.t.Helper()
	content := make([]byte, seal.HeaderSize)
	for _, r := range records {
		content = wire.AppendRecord(content, r)
	}
	packet, err := j.sealer.Seal(content)
	if err != nil {
		j.t.Fatal(err)
	}
	j.Take(packet)
	var got []string
	for len(j.arrived) > 0 {
		got = append(got, string(<-j.arrived))
	}
	return got
}

func half(kind wire.RecordKind, flow, split uint64) wire.Record {
	text := "head"
	if kind == wire.RecordTail {
		text = "tail"
	}
	return wire.Record{Kind: kind, Flow: flow, Split: split, Payload: fmt.Appendf(nil, "%s %d %d ", text, flow, split)}
}

func (j *joining) want(got []string, want ...string) {
	j.t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		j.t.Errorf("handled %q, want %q", got, want)
	}
}

func TestPath_JoinsHalvesInWhateverOrderTheyArrive(t *testing.T) {
	const head, tail = wire.RecordHead, wire.RecordTail
	j := newJoining(t)
	j.want(j.take(half(head, 1, 1)))
	j.want(j.take(half(tail, 1, 1), datagram([]byte("next"))), "head 1 1 tail 1 1 ", "next")
	j.want(j.take(half(tail, 1, 2)))
	j.want(j.take(datagram([]byte("between"))), "between")
	j.want(j.take(half(head, 1, 2)), "head 1 2 tail 1 2 ")
	// The same half twice, and those of different flows and datagrams, are no whole.
	j.want(j.take(half(head, 1, 3), half(head, 1, 3), half(tail, 2, 3), half(tail, 1, 4)))
	j.want(j.take(half(tail, 1, 3), half(head, 1, 4), half(head, 2, 3)), "head 1 3 tail 1 3 ", "head 1 4 tail 1 4 ", "head 2 3 tail 2 3 ")
	// More in a packet than are handled at a time.
	var many []wire.Record
	var want []string
	for split := range uint64(40) {
		many = append(many, half(head, 9, split), half(tail, 9, split), datagram([]byte("x")))
		want = append(want, fmt.Sprintf("head 9 %d tail 9 %[1]d ", split), "x")
	}
	j.want(j.take(many...), want...)
	if len(j.failed) != 0 {
		t.Errorf("it failed: %v", <-j.failed)
	}
}

func TestPath_HoldsFewHalvesAndNotForLong(t *testing.T) {
	const head, tail, held = wire.RecordHead, wire.RecordTail, 32
	j := newJoining(t)
	for split := range uint64(held + 1) {
		j.want(j.take(half(head, 1, split)))
	}
	j.want(j.take(half(tail, 1, 0)))                       // Its head was the oldest; it takes the place of the next.
	j.want(j.take(half(tail, 1, 2)), "head 1 2 tail 1 2 ") // Still there,
	j.want(j.take(half(tail, 1, held)), fmt.Sprintf("head 1 %d tail 1 %[1]d ", held))
	j.Age(900 * time.Millisecond)
	j.want(j.take(half(tail, 1, 3)), "head 1 3 tail 1 3 ")
	j.Age(1100 * time.Millisecond)
	j.want(j.take(half(tail, 1, 4)))
	if allocated := testing.AllocsPerRun(100, func() { j.Age(time.Hour) }); allocated != 0 {
		t.Errorf("%v allocations for a tick", allocated)
	}
}

func TestPath_MalformedHalvesAreRefused(t *testing.T) {
	for name, records := range map[string][]byte{
		"empty":    {byte(wire.RecordHead), 1, 1, 0},
		"cut":      {byte(wire.RecordTail), 1, 1, 9, 'x'},
		"too long": append([]byte{byte(wire.RecordTail), 1, 1, 0xdd, 0x0b}, make([]byte, wire.MaxHalf+1)...),
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoining(t)
			packet, err := j.sealer.Seal(append(make([]byte, seal.HeaderSize), records...))
			if err != nil {
				t.Fatal(err)
			}
			j.Take(packet)
			if len(j.failed) != 1 || len(j.arrived) != 0 {
				t.Errorf("failed %d times, %d datagrams", len(j.failed), len(j.arrived))
			}
		})
	}
}
