package agent

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// newTestFlows is a carrier of a client that has allocation 1, UDP, at a local
// port, and its data connection, which nobody takes anything from.
func newTestFlows(t *testing.T, local int) (*flows, *udptunnel.DataConn) {
	t.Helper()
	server := types.ClientServer{ID: uuid.New()}
	l := newLinks(linkOptions{Allow: func(string) error { return nil }})
	l.targets.set([]types.ClientAllocation{{
		ID: 1, Protocol: types.ProtocolUDP, ServerID: server.ID, LocalHost: "127.0.0.1", LocalPort: local,
	}})
	ctx, cancel := context.WithCancel(context.Background())
	k := newLink(l, server, cancel)
	f := newFlows(ctx, k, "C")
	t.Cleanup(func() {
		cancel()
		k.carriers.Wait()
	})
	conn := udptunnel.NewDataConn(0, &l.counters.datagrams)
	if !f.attach(conn) {
		t.Fatal("not attached")
	}
	f.work.Done()
	return f, conn
}

func opening(flow uint64, allocation int64) wire.Record {
	a := wire.Record{Kind: wire.RecordOpen, Flow: flow, Allocation: allocation, IdleSeconds: 60}
	a.Source = netip.MustParseAddrPort("203.0.113.9:50123")
	a.Destination = a.Source
	return a
}

func TestFlows_OneThatHasEndedIsNotOpenedAgainHoweverManyAreRefused(t *testing.T) {
	f, _ := newTestFlows(t, datagramGame(t, 0, echoDatagrams))
	var g gathered
	if err := f.handle([]wire.Record{opening(1, 1)}, &g); err != nil {
		t.Fatal(err)
	}
	f.find(1).end()
	eventually(t, "the flow's end", func() bool { return f.find(1) == nil })
	f.mu.Lock()
	f.refused = refusalsPerTick
	f.mu.Unlock()
	if err := f.handle([]wire.Record{opening(1, 1)}, &g); err != nil {
		t.Fatal(err)
	}
	if f.find(1) != nil {
		t.Error("a flow that has ended is open again")
	}
}

func TestFlows_RefusalsDoNotFillTheQueue(t *testing.T) {
	f, conn := newTestFlows(t, datagramGame(t, 0, echoDatagrams))
	var g gathered
	for range 100_000 {
		if err := f.handle([]wire.Record{opening(1<<60, 2)}, &g); err != nil {
			t.Fatal(err)
		}
	}
	if !conn.Queue(wire.Record{Kind: wire.RecordDatagram, Flow: 1, Payload: []byte("x")}) {
		t.Error("the refusals of flows have left no room for a datagram")
	}
}
