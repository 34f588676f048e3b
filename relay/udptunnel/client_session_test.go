package udptunnel_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/wstest"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// fakeTarget is a local target that keeps what it is sent.
type fakeTarget struct {
	started  chan *udptunnel.ClientFlow
	received chan string
	closed   chan struct{}
}

func newFakeTarget() *fakeTarget {
	return &fakeTarget{started: make(chan *udptunnel.ClientFlow, 1), received: make(chan string, 64), closed: make(chan struct{})}
}

func (t *fakeTarget) Start(f *udptunnel.ClientFlow) { t.started <- f }

func (t *fakeTarget) Send(datagrams []udpsock.Datagram) {
	for i := range datagrams {
		t.received <- string(datagrams[i].Head) + string(datagrams[i].Data)
	}
}

func (t *fakeTarget) Close() { close(t.closed) }

// clientTest is a tunnel client's session whose tunnel server is the test.
type clientTest struct {
	session  *udptunnel.ClientSession
	counters udptunnel.Counters
	server   *udptunnel.DataConn
	records  <-chan wire.Record // From the session.
	targets  chan *fakeTarget   // Of allocation 1, as flows open; all others are refused.
}

func newClientTest(t *testing.T) *clientTest {
	c := &clientTest{targets: make(chan *fakeTarget, 1024)}
	ctx, cancel := context.WithCancel(context.Background())
	c.session = udptunnel.NewClientSession(ctx, "S", udptunnel.ClientOptions{
		Target: func(open *wire.Record) (udptunnel.Target, []byte, error) {
			if open.Allocation != 1 {
				return nil, nil, errors.New("no such allocation")
			}
			target := newFakeTarget()
			c.targets <- target
			return target, []byte("prefix "), nil
		},
		FlowsPerAllocation: 2,
		Counters:           &c.counters,
		Logger:             slog.New(slog.DiscardHandler),
	})
	server, client := wstest.Pair(t, wstest.Options{})
	var serving sync.WaitGroup
	serving.Go(c.session.Run)
	serving.Go(func() { _ = c.session.ServeData(ctx, client, 0) })
	c.server = udptunnel.NewDataConn(8<<20, new(udptunnel.DatagramCounters))
	c.records = serveDatagrams(t, c.server, server)
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		if n := c.counters.Flows.Load(); n != 0 {
			t.Errorf("%d flows are open after the session's end", n)
		}
	})
	return c
}

func openRecord(flow uint64, allocation int64) wire.Record {
	player := netip.MustParseAddrPort("203.0.113.9:50123")
	return wire.Record{Kind: wire.RecordOpen, Flow: flow, Allocation: allocation, IdleSeconds: 60, Source: player, Destination: player}
}

// next returns the session's next record, which must be of a kind and flow.
func (c *clientTest) next(t *testing.T, kind wire.RecordKind, flow uint64) wire.Record {
	t.Helper()
	r := await.Receive(t, c.records, "record")
	if r.Kind != kind || r.Flow != flow {
		t.Fatalf("record of kind %d for flow %d, want kind %d for flow %d", r.Kind, r.Flow, kind, flow)
	}
	return r
}

func TestClientSession_CarriesAFlowBothWays(t *testing.T) {
	c := newClientTest(t)
	c.server.Send(openRecord(1, 1), wire.Record{Kind: wire.RecordDatagram, Flow: 1, Payload: []byte("hello")})
	c.next(t, wire.RecordOpened, 1)
	target := await.Receive(t, c.targets, "target")
	flow := await.Receive(t, target.started, "start")
	if got := await.Receive(t, target.received, "datagram"); got != "prefix hello" {
		t.Errorf("the target got %q", got)
	}
	flow.Queue([]wire.Record{{Kind: wire.RecordDatagram, Flow: flow.Number(), Payload: []byte("answer")}})
	flow.Flush()
	if r := c.next(t, wire.RecordDatagram, 1); string(r.Payload) != "answer" {
		t.Errorf("the player gets %q", r.Payload)
	}
	c.server.Send(wire.Record{Kind: wire.RecordClose, Flow: 1})
	await.Receive(t, target.closed, "end of the target")
}

func TestClientSession_RefusesAnEndedFlowHoweverManyItHasRefused(t *testing.T) {
	c := newClientTest(t)
	c.server.Send(openRecord(1, 1))
	c.next(t, wire.RecordOpened, 1)
	target := await.Receive(t, c.targets, "target")
	await.Receive(t, target.started, "start").End()
	c.next(t, wire.RecordClose, 1)
	// More refusals than are answered in a tick.
	for range 2000 {
		c.server.Send(openRecord(1<<60, 2))
	}
	c.server.Send(openRecord(1, 1))
	c.server.Send(openRecord(2, 1)) // Handled after all of these.
	await.Receive(t, c.targets, "target of the next flow")
	select {
	case <-c.targets:
		t.Error("an ended flow was opened again")
	default:
	}
}

func TestClientSession_RefusalsDoNotFillTheQueue(t *testing.T) {
	c := newClientTest(t)
	c.server.Send(openRecord(1, 1))
	c.next(t, wire.RecordOpened, 1)
	flow := await.Receive(t, await.Receive(t, c.targets, "target").started, "start")
	const refused = 100_000
	for range refused / 100 {
		batch := make([]wire.Record, 100)
		for i := range batch {
			batch[i] = openRecord(1<<60, 2)
		}
		await.Until(t, "space in the test's own queue", func() bool { return c.server.Send(batch...) })
	}
	flow.Queue([]wire.Record{{Kind: wire.RecordDatagram, Flow: 1, Payload: []byte("x")}})
	flow.Flush()
	closes := 0
	for {
		r := await.Receive(t, c.records, "datagram behind the refusals")
		if r.Kind == wire.RecordDatagram {
			break
		}
		closes++
	}
	if closes > refused/10 {
		t.Errorf("%d refusals were answered", closes)
	}
	if n := c.counters.Datagrams.Dropped(); n != 0 {
		t.Errorf("%d datagrams dropped", n)
	}
}

func TestClientSession_BoundsTheFlowsOfAnAllocation(t *testing.T) {
	c := newClientTest(t)
	for flow := range uint64(3) {
		c.server.Send(openRecord(flow+1, 1))
	}
	c.next(t, wire.RecordOpened, 1)
	c.next(t, wire.RecordOpened, 2)
	c.next(t, wire.RecordClose, 3)
}

func TestClientSession_RecordThatOnlyClientsSendEndsIt(t *testing.T) {
	c := newClientTest(t)
	c.server.Send(wire.Record{Kind: wire.RecordOpened, Flow: 1})
	await.Receive(t, c.session.Context().Done(), "end of the session")
}
