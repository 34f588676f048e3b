package udptunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/wstest"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// echoTarget is a game that sends back what it receives.
type echoTarget struct{ flow *udptunnel.ClientFlow }

func (t *echoTarget) Start(f *udptunnel.ClientFlow) { t.flow = f }

func (t *echoTarget) Send(datagrams []udpsock.Datagram) {
	for i := range datagrams {
		t.flow.Queue([]wire.Record{datagramOf(t.flow.Number(), datagrams[i].Data)})
	}
	t.flow.Flush()
}

func (t *echoTarget) Close() {}

func datagramOf(flow uint64, payload []byte) wire.Record {
	return wire.Record{Kind: wire.RecordDatagram, Flow: flow, Payload: payload}
}

// players are the players of a public port, and keep what they are sent.
type players struct{ received chan []byte }

func (p *players) Deliver(datagrams []udpsock.Datagram) {
	for i := range datagrams {
		p.received <- bytes.Clone(datagrams[i].Data)
	}
}

func (p *players) MayAnswer(*udptunnel.ServerFlow, int) bool { return true }

func (p *players) FlowEnded(*udptunnel.ServerFlow) {}

// sessions are both ends of a UDP session with one flow, to a game that echoes.
type sessions struct {
	t       *testing.T
	server  *udptunnel.ServerSession
	client  *udptunnel.ClientSession
	at, of  udptunnel.Counters // Of the tunnel server and of the tunnel client.
	players *players
	flow    *udptunnel.ServerFlow
	next    uint32 // The number of the next datagram.
}

// newSessions returns sessions whose data connection is upgraded by ends that support
// subprotocols.
func newSessions(t *testing.T, server, client []string) *sessions {
	t.Helper()
	s := &sessions{t: t, players: &players{received: make(chan []byte, 1<<12)}}
	packets, err := udptunnel.ListenPackets(t.Context(), "127.0.0.1:0", &s.at.Paths)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(packets.Serve)
	s.server = udptunnel.NewServerSession(udptunnel.ServerOptions{
		Packets: packets, WarmIdle: time.Minute, AskExpiry: time.Minute, Counters: &s.at, Go: serving.Go,
	}, time.Now())
	s.client = udptunnel.NewClientSession(ctx, s.server.Name(), udptunnel.ClientOptions{
		Target:             func(*wire.Record) (udptunnel.Target, []byte, error) { return new(echoTarget), nil, nil },
		FlowsPerAllocation: 1, Counters: &s.of, Logger: slog.New(slog.DiscardHandler),
	})
	near, far := wstest.Pair(t, wstest.Options{Server: server, Client: client})
	state := near.NetConn().(*tls.Conn).ConnectionState()
	export := seal.Export
	both := func(subprotocol string) bool {
		return slices.Contains(client, subprotocol) && slices.Contains(server, subprotocol)
	}
	if both(wire.SubprotocolRatchet) {
		export = seal.ExportRatchet
	}
	keys, err := export(&state)
	if err != nil {
		t.Fatal(err)
	}
	s.server.OpenPath(keys, both(wire.SubprotocolRatchet) || both(wire.SubprotocolSplit))
	serving.Go(func() { _, _ = s.server.ServeData(near) })
	serving.Go(s.client.Run)
	serving.Go(func() { _ = s.client.ServeData(ctx, far, packets.Address().Port()) })
	t.Cleanup(func() {
		s.server.End()
		cancel()
		packets.Close()
		serving.Wait()
	})
	s.flow = &udptunnel.ServerFlow{Port: s.players, Idle: time.Minute, Source: netip.MustParseAddrPort("203.0.113.9:50123")}
	var d udptunnel.PlayerDatagrams
	if !d.Open(s.server, s.flow, 1, netip.MustParseAddrPort("198.51.100.1:25565"), numbered(0, 4)) {
		t.Fatal("the flow was not opened")
	}
	d.Send()
	await.Receive(t, s.players.received, "first answer")
	await.Until(t, "the path", func() bool {
		s.next = 1
		s.play(1)
		return s.server.Reachable() && s.of.Paths.Up.Load() == 1
	})
	return s
}

// play sends datagrams of sizes and returns the numbers of the answers in the order in
// which they arrive.
func (s *sessions) play(sizes ...int) (order []uint32) {
	s.t.Helper()
	var d udptunnel.PlayerDatagrams
	for _, size := range sizes {
		d.Add(s.flow, numbered(s.next, max(size, 4)))
		s.next++
	}
	d.Send()
	for range sizes {
		b := await.Receive(s.t, s.players.received, "answer")
		number := binary.BigEndian.Uint32(b)
		if !bytes.Equal(b, numbered(number, len(b))) {
			s.t.Errorf("datagram %d of %d bytes is not as it was sent", number, len(b))
		}
		order = append(order, number)
	}
	return order
}

// onDataConnections is how many datagrams have arrived at both ends over TCP.
func (s *sessions) onDataConnections() uint64 {
	return s.at.Datagrams.Received.Load() + s.of.Datagrams.Received.Load() -
		s.at.Paths.ReceivedDatagrams.Load() - s.of.Paths.ReceivedDatagrams.Load()
}

func TestSessions_LargeDatagramsTravelInPacketsAndInOrder(t *testing.T) {
	both := []string{wire.SubprotocolRatchet, wire.SubprotocolSplit, wire.Subprotocol}
	s := newSessions(t, both, both)
	before, first := s.onDataConnections(), s.next
	const turns = 50
	for range turns {
		// Small ones among the large ones, whichever overtakes.
		order := s.play(1400, 10, 1414, 10, 1415, 10, 1472, 10, 2000, 10, 2300, 10)
		for i, number := range order {
			if number != first+uint32(i) {
				t.Fatalf("the answers arrive as %d, want the order from %d", order, first)
			}
		}
		first += uint32(len(order))
	}
	if n := s.onDataConnections() - before; n != 0 {
		t.Errorf("%d datagrams took the data connection", n)
	}
	before = s.onDataConnections()
	for _, size := range []int{3000, 9000, 60000} {
		s.play(size)
	}
	if n := s.onDataConnections() - before; n != 6 {
		t.Errorf("%d datagrams took the data connection, want three each way", n)
	}
}

func TestSessions_EndsThatDoNotSplitGetLargeDatagramsOverTheDataConnection(t *testing.T) {
	split, plain := []string{wire.SubprotocolSplit, wire.Subprotocol}, []string{wire.Subprotocol}
	for name, ends := range map[string]struct{ server, client []string }{
		"old client": {split, plain}, "old server": {plain, split}, "both old": {plain, plain},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSessions(t, ends.server, ends.client)
			before := s.onDataConnections()
			for _, size := range []int{1421, 1450, 1472, 2300} {
				s.play(size)
			}
			if n := s.onDataConnections() - before; n != 8 {
				t.Errorf("%d datagrams took the data connection, want four each way", n)
			}
			before = s.onDataConnections()
			s.play(100, 1100)
			if n := s.onDataConnections() - before; n != 0 {
				t.Errorf("%d small datagrams took the data connection", n)
			}
		})
	}
}

func TestSessions_OldEndsHaveSealedPacketsWithoutARatchet(t *testing.T) {
	split := []string{wire.SubprotocolSplit, wire.Subprotocol}
	ratchet := append([]string{wire.SubprotocolRatchet}, split...)
	for name, ends := range map[string]struct{ server, client []string }{
		"old client": {ratchet, split}, "old server": {split, ratchet}, "both new": {ratchet, ratchet},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSessions(t, ends.server, ends.client)
			before := s.onDataConnections()
			s.play(100, 1450, 2300)
			if n := s.onDataConnections() - before; n != 0 {
				t.Errorf("%d datagrams took the data connection", n)
			}
		})
	}
}

func TestSessions_HalfOnADataConnectionEndsTheSession(t *testing.T) {
	for _, kind := range []wire.RecordKind{wire.RecordProbe, wire.RecordHead, wire.RecordTail} {
		c := newClientTest(t)
		c.server.Send(wire.Record{Kind: kind, Flow: 1, Split: 1, Payload: []byte("x")})
		await.Receive(t, c.session.Context().Done(), "end of the session")
	}
}
