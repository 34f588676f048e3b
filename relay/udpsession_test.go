package relay_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Of a data connection that is lost before the tunnel server has received anything, the
// tunnel client may have had the answer or not: its path is that of the first it has had.
func TestServer_FirstDataConnectionLostBeforeItsFirstRecordLeavesAPath(t *testing.T) {
	t.Run("of the next", func(t *testing.T) {
		lostBeforeFirstRecord(t, func(_, second tls.ConnectionState) tls.ConnectionState { return second })
	})
	t.Run("of the first", func(t *testing.T) {
		lostBeforeFirstRecord(t, func(first, _ tls.ConnectionState) tls.ConnectionState { return first })
	})
}

func lostBeforeFirstRecord(t *testing.T, had func(first, second tls.ConnectionState) tls.ConnectionState) {
	s, l, player := startUDP(t)
	ask := l.next(wire.LinkDial)
	first, _, err := l.sessionData(wire.KindDatagram, ask.Session)
	if err != nil {
		t.Fatal(err)
	}
	before := first.NetConn().(*tls.Conn).ConnectionState()
	_ = first.Close()
	ask = l.next(wire.LinkDial)
	second, _, err := l.sessionData(wire.KindDatagram, ask.Session)
	if err != nil {
		t.Fatal(err)
	}
	state := had(before, second.NetConn().(*tls.Conn).ConnectionState())
	keys, err := seal.Export(&state)
	if err != nil {
		t.Fatal(err)
	}
	var counters udptunnel.PathCounters
	var received atomic.Bool
	handle := func(records []wire.Record) error {
		received.Store(received.Load() || records[0].Kind == wire.RecordOpen)
		return nil
	}
	c, err := udptunnel.DialPath(context.Background(), netip.MustParseAddrPort(s.Address), udptunnel.PathOptions{
		Keys: keys, Handle: handle, Fail: func(err error) { t.Error(err) },
		Datagrams: new(udptunnel.DatagramCounters),
	}, &counters)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); c.Serve() }()
	defer func() { c.Close(); <-served }()
	for deadline := time.Now().Add(relaytest.Patience); !c.Up() || !received.Load(); time.Sleep(20 * time.Millisecond) {
		c.Tick(time.Now())
		_, _ = player.Write([]byte("hello"))
		if time.Now().After(deadline) {
			t.Fatalf("the path does not come up: %+v", s.Stats().Paths)
		}
	}
}

func TestServer_SplitsDatagramsOnlyForClientsThatJoinThem(t *testing.T) {
	for name, also := range map[string][]string{"one that joins them": {wire.SubprotocolSplit}, "one that also ratchets keys": {wire.SubprotocolRatchet, wire.SubprotocolSplit}, "an old one": nil, "one of a later version": {"eclitunnel.v1.later"}} {
		t.Run(name, func(t *testing.T) {
			s, l, player := startUDP(t)
			ask := l.next(wire.LinkDial)
			ws, _, err := l.sessionData(wire.KindDatagram, ask.Session, also...)
			if err != nil {
				t.Fatal(err)
			}
			want, export := wire.Subprotocol, seal.Export
			switch name {
			case "one that joins them":
				want = wire.SubprotocolSplit
			case "one that also ratchets keys":
				want, export = wire.SubprotocolRatchet, seal.ExportRatchet
			}
			if got := ws.Subprotocol(); got != want {
				t.Errorf("the tunnel server selects %q, want %q", got, want)
			}
			overTCP, inPackets := make(chan int, 1024), make(chan int, 1024)
			large := func(to chan int) func([]wire.Record) error {
				return func(records []wire.Record) error {
					for _, r := range records {
						if n := len(r.Payload); n > 100 {
							to <- n
						}
					}
					return nil
				}
			}
			var counters udptunnel.Counters
			conn := udptunnel.NewDataConn(0, &counters.Datagrams)
			var serving sync.WaitGroup
			defer serving.Wait()
			serving.Go(func() { _ = conn.Serve(ws, large(overTCP)) })
			defer conn.Close()
			state := ws.NetConn().(*tls.Conn).ConnectionState()
			keys, err := export(&state)
			if err != nil {
				t.Fatal(err)
			}
			path, err := udptunnel.DialPath(t.Context(), netip.MustParseAddrPort(s.Address), udptunnel.PathOptions{
				Keys: keys, Handle: large(inPackets), Fail: func(err error) { t.Error(err) }, Datagrams: &counters.Datagrams,
			}, &counters.Paths)
			if err != nil {
				t.Fatal(err)
			}
			serving.Go(path.Serve)
			defer path.Close()
			await.Until(t, "the path", func() bool {
				path.Tick(time.Now())
				return path.Up() && s.Stats().Paths.Up == 1
			})
			for _, size := range []int{1450, 1472, 2300} {
				_, _ = player.Write(make([]byte, size))
				from := overTCP
				if want != wire.Subprotocol {
					from = inPackets
				}
				if got := await.Receive(t, from, "large datagram"); got != size {
					t.Errorf("%d bytes arrive as %d", size, got)
				}
			}
			if len(overTCP)+len(inPackets) != 0 {
				t.Error("a datagram came twice")
			}
		})
	}
}

// A tunnel client that pings and does not read the answers has its data connections
// full: to retire them is nothing that others have to wait for.
func TestServer_RetiringFullDataConnectionsDelaysNothingElse(t *testing.T) {
	const full = 16 // Each would take a second.
	p, s, client, _ := start(t, func(o *relay.Options) { o.Limits.WarmIdle = 5 * time.Second })
	port := relaytest.FreePort(t)
	a := relaytest.Allocation(2, client, types.ProtocolUDP, port)
	idle := 1
	a.Options.UDPIdleSeconds = &idle
	p.Put(a)
	p.AwaitReport(2, types.ReportReady)
	l := openLink(t, p, s, client, 1)
	var conns []net.Conn
	for range full {
		ws, _, err := l.data(wire.KindStream)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, ws.NetConn())
	}
	s.AwaitStats(t, "the data connections", func(s relay.Stats) bool { return s.DataConnections == full })
	pings := bytes.Repeat(masked(wire.OpPing, string(make([]byte, wire.MaxControlFrame))), 500)
	var busy sync.WaitGroup
	defer busy.Wait()
	defer l.ws.Close()
	busy.Go(func() { // The link itself stays alive.
		for {
			if _, _, err := l.ws.ReadMessage(); err != nil {
				return
			}
		}
	})
	for _, c := range conns {
		busy.Go(func() {
			for {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				if _, err := c.Write(pings); err != nil {
					return
				}
			}
		})
	}
	player, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer player.Close()
	started := time.Now()
	worst := time.Duration(0)
	for s.Stats().DataConnections > 0 && time.Since(started) < 3*relaytest.Patience {
		_, _ = player.Write([]byte("x"))
		opened := time.Now()
		s.AwaitStats(t, "the flow", func(s relay.Stats) bool { return s.Flows == 1 })
		s.AwaitStats(t, "the flow's end", func(s relay.Stats) bool { return s.Flows == 0 })
		worst = max(worst, time.Since(opened))
	}
	if worst > full/2*time.Second {
		t.Errorf("a flow that ends after a second of silence took %v", worst)
	}
}

func masked(kind wire.Opcode, payload string) []byte {
	return append(wire.AppendFrame(nil, wire.Frame{Opcode: kind, Final: true, Masked: true, Length: int64(len(payload))}), payload...)
}
