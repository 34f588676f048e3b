package udptunnel_test

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/wstest"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// serveDatagrams runs d over ws and yields copies of what arrives.
func serveDatagrams(t testing.TB, d *udptunnel.DataConn, ws *websocket.Conn) <-chan wire.Record {
	t.Helper()
	records := make(chan wire.Record, 4096)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Serve(ws, func(batch []wire.Record) error {
			for _, r := range batch {
				r.Payload = bytes.Clone(r.Payload)
				records <- r
			}
			return nil
		})
	}()
	t.Cleanup(func() { d.Close(); <-done })
	return records
}

func TestDatagrams_ArriveWholeAndInOrder(t *testing.T) {
	s, c := wstest.Pair(t, wstest.Options{})
	var there, here udptunnel.DatagramCounters
	sender, receiver := udptunnel.NewDataConn(8<<20, &there), udptunnel.NewDataConn(0, &here)
	records := serveDatagrams(t, receiver, c)
	serveDatagrams(t, sender, s)
	sizes := []int{0, 1, 1200, wire.MaxDatagram, 3, wire.MaxDatagram, wire.MaxDatagram, 70}
	for i := range 400 {
		payload := make([]byte, max(4, sizes[i%len(sizes)]))
		binary.BigEndian.PutUint32(payload, uint32(i))
		sender.Send(wire.Record{Kind: wire.RecordDatagram, Flow: 7, Payload: payload})
		if i%40 == 39 { // The queue is bounded: let the receiver keep up.
			for j := i - 39; j <= i; j++ {
				r := await.Receive(t, records, "record")
				if want := max(4, sizes[j%len(sizes)]); r.Flow != 7 || len(r.Payload) != want || binary.BigEndian.Uint32(r.Payload) != uint32(j) {
					t.Fatalf("datagram %d: flow %d, %d bytes, want %d", j, r.Flow, len(r.Payload), want)
				}
			}
		}
	}
	if n := there.Dropped(); n != 0 {
		t.Errorf("%d dropped", n)
	}
	if sent, got := there.Sent.Load(), here.Received.Load(); sent != 400 || got != 400 || there.SentBytes.Load() != here.ReceivedBytes.Load() {
		t.Errorf("%d datagrams counted as sent, %d as received; %d bytes and %d", sent, got, there.SentBytes.Load(), here.ReceivedBytes.Load())
	}
}

func TestDatagrams_WaitForTheirWebSocketAndShareAMessage(t *testing.T) {
	s, c := wstest.Pair(t, wstest.Options{})
	sender := udptunnel.NewDataConn(0, new(udptunnel.DatagramCounters))
	for range 100 {
		sender.Send(wire.Record{Kind: wire.RecordDatagram, Flow: 1, Payload: make([]byte, 100)})
	}
	serveDatagrams(t, sender, s)
	_ = c.SetReadDeadline(time.Now().Add(await.Timeout))
	_, message, err := c.ReadMessage()
	if err != nil || len(message) < 100*100 {
		t.Errorf("first message of %d bytes (%v), want all datagrams that waited", len(message), err)
	}
}

func TestDatagrams_FullQueueDropsAndCountsButTakesCloses(t *testing.T) {
	var counters udptunnel.DatagramCounters
	d := udptunnel.NewDataConn(10_000, &counters)
	defer d.Close()
	sent := 0
	for range 100 {
		if d.Send(wire.Record{Kind: wire.RecordDatagram, Flow: 1, Payload: make([]byte, 1000)}) {
			sent++
		}
	}
	if sent == 0 || sent > 10 || counters.Overflowed.Load() != uint64(100-sent) {
		t.Errorf("%d of 100 sent, %d dropped", sent, counters.Overflowed.Load())
	}
	if !d.Send(wire.Record{Kind: wire.RecordClose, Flow: 1}) {
		t.Error("a close was dropped")
	}
	d.Close()
	if d.Send(wire.Record{Kind: wire.RecordClose, Flow: 1}) {
		t.Error("sent after Close")
	}
	if d.Send(wire.Record{Kind: wire.RecordDatagram, Flow: 1}) || counters.Late.Load() != 1 {
		t.Errorf("after Close %d counted as late", counters.Late.Load())
	}
}

func TestDatagrams_StalledPeerNeverBlocksASender(t *testing.T) {
	s, _ := wstest.Pair(t, wstest.Options{}) // The other end reads nothing.
	var counters udptunnel.DatagramCounters
	d := udptunnel.NewDataConn(64<<10, &counters)
	serveDatagrams(t, d, s)
	for _, size := range []int{100, 5000, wire.MaxDatagram} {
		dropped := make(chan error, 1)
		before := counters.Overflowed.Load()
		go func() {
			payload := make([]byte, size)
			for counters.Overflowed.Load() == before {
				d.QueueAll([]wire.Record{{Kind: wire.RecordDatagram, Flow: 1, Payload: payload}})
				d.Flush()
			}
			dropped <- nil
		}()
		if err := await.Receive(t, dropped, "end"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDatagrams_EachSendersOwnKeepTheirOrder(t *testing.T) {
	const senders, each = 8, 2000
	s, c := wstest.Pair(t, wstest.Options{})
	d := udptunnel.NewDataConn(16<<20, new(udptunnel.DatagramCounters))
	records := serveDatagrams(t, udptunnel.NewDataConn(0, new(udptunnel.DatagramCounters)), c)
	serveDatagrams(t, d, s)
	var all sync.WaitGroup
	defer all.Wait()
	for flow := range uint64(senders) {
		all.Go(func() {
			for i := range uint32(each) {
				r := wire.Record{Kind: wire.RecordDatagram, Flow: flow, Payload: binary.BigEndian.AppendUint32(nil, i)}
				if i%16 == 0 {
					d.Send(r)
					continue
				}
				d.Queue(r)
				if i%3 == 0 || i == each-1 {
					d.Flush()
				}
			}
		})
	}
	var expected [senders]uint32
	for range senders * each {
		r := await.Receive(t, records, "record")
		if got := binary.BigEndian.Uint32(r.Payload); got != expected[r.Flow] {
			t.Fatalf("datagram %d of sender %d arrives in place of %d", got, r.Flow, expected[r.Flow])
		}
		expected[r.Flow]++
	}
}

func TestDatagrams_MalformedBatchEndsTheConnection(t *testing.T) {
	for name, message := range map[string][]byte{
		"empty": {}, "garbage": {0xff, 0xff}, "oversized": make([]byte, wire.MaxBatch+1),
	} {
		t.Run(name, func(t *testing.T) {
			s, c := wstest.Pair(t, wstest.Options{})
			served := make(chan error, 1)
			go func() {
				served <- udptunnel.NewDataConn(0, new(udptunnel.DatagramCounters)).Serve(s, func([]wire.Record) error { return nil })
			}()
			_ = c.WriteMessage(websocket.BinaryMessage, message)
			if err := await.Receive(t, served, "end"); err == nil {
				t.Error("served without an error")
			}
		})
	}
}

func BenchmarkDatagrams(b *testing.B) {
	s, c := wstest.Pair(b, wstest.Options{})
	sender, receiver := udptunnel.NewDataConn(0, new(udptunnel.DatagramCounters)), udptunnel.NewDataConn(0, new(udptunnel.DatagramCounters))
	go func() { _ = sender.Serve(s, func([]wire.Record) error { return nil }) }()
	arrived := make(chan struct{}, 1<<16)
	go func() {
		_ = receiver.Serve(c, func(batch []wire.Record) error {
			for range batch {
				arrived <- struct{}{}
			}
			return nil
		})
	}()
	payload := make([]byte, 200)
	b.ReportAllocs()
	inFlight := 0
	for b.Loop() {
		if inFlight == 256 {
			<-arrived
			inFlight--
		}
		sender.Queue(wire.Record{Kind: wire.RecordDatagram, Flow: 1, Payload: payload})
		sender.Flush()
		inFlight++
	}
	sender.Close()
	receiver.Close()
}
