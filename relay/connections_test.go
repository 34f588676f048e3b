package relay_test

import (
	"errors"
	"io"
	"net"
	"reflect"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// carry connects a player to a port, to whom the game says something. The data connection that it
// returns ends the player.
func carry(t *testing.T, l *link, port int, greeting string) (net.Conn, *websocket.Conn) {
	t.Helper()
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	player := join(t, port)
	if kind, _, err := ws.ReadMessage(); err != nil || kind != websocket.TextMessage {
		t.Fatalf("open: %v", err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte(greeting)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(player, make([]byte, len(greeting))); err != nil {
		t.Fatal(err)
	}
	return player, ws
}

// wantKeptOut fails unless a player who connects is reset.
func wantKeptOut(t *testing.T, port int) {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
	wantReset(t, c)
}

func TestServer_ReportsPlayersAndCutsThemOff(t *testing.T) {
	p, s, client, port := start(t, nil)
	l := openLink(t, p, s, client, 1)
	player, _ := carry(t, l, port, "welcome")
	var id string
	for name, c := range p.AwaitConnections(1) {
		id = name
		from, _ := player.LocalAddr().(*net.TCPAddr)
		if c.AllocationID != 1 || c.SourceAddress != "127.0.0.1" || c.SourcePort != from.Port || time.Since(c.Since) > time.Minute || c.PlayerRoundTripMs == nil {
			t.Errorf("reported %+v", c)
		}
	}

	// After each channel the list is the same, by the same ids.
	p.Disconnect(channel.CloseRestarting, errors.New("away"))
	_, other := carry(t, l, port, "hello")
	p.Reconnect()
	p.AwaitHellos(2)
	if _, ok := p.AwaitConnections(2)[id]; !ok {
		t.Error("the first has another id")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	p.AwaitConnections(1)

	began := time.Now()
	p.CloseConnections(id, "0000000000000001", "nonsense")
	wantReset(t, player)
	if took := time.Since(began); took > time.Second {
		t.Errorf("cut off after %v", took)
	}
	if end := p.AwaitEnd(id); end.DownloadBytes != 7 || end.UploadBytes != 0 {
		t.Errorf("it carried %+v", end)
	}
	p.AwaitConnections(0)
}

func TestServer_ReportsFlowsOnceTheyAreProven(t *testing.T) {
	g := startUDPGame(t, relay.PortLimits{}, echo)
	g.ask(g.player("127.0.2.2"), "query")
	player := g.join("127.0.2.1")
	for id, c := range g.panel.AwaitConnections(1) {
		if c.AllocationID != 2 || c.SourceAddress != "127.0.2.1" || c.PlayerRoundTripMs != nil || c.DownloadBytes == 0 {
			t.Errorf("reported %+v", c)
		}
		g.panel.CloseConnections(id)
		g.panel.AwaitEnd(id)
	}
	g.ask(player, "again") // A new flow, which is not proven.
	g.panel.AwaitConnections(0)
}

func TestServer_KeepsSourcesOutUntilTheirTime(t *testing.T) {
	var ahead atomic.Int64
	p, s, client, port := start(t, func(o *relay.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	l := openLink(t, p, s, client, 1)
	player, _ := carry(t, l, port, "welcome")
	p.AwaitConnections(1)
	put := func(kept ...types.ServerKeptOut) {
		t.Helper()
		a := relaytest.Allocation(1, client, types.ProtocolTCP, port)
		if len(kept) > 0 {
			a.KeptOut = &kept
		}
		p.Put(a)
		p.AwaitReport(1, types.ReportReady)
	}
	// Another source changes nothing; its own ends what there is, and it cannot come back.
	hour := time.Now().Add(time.Hour)
	put(types.ServerKeptOut{Source: "127.0.0.2", Until: hour})
	p.AwaitConnections(1)
	put(types.ServerKeptOut{Source: "127.0.0.1", Until: hour}, types.ServerKeptOut{Source: "2001:db8::/64", Until: hour})
	wantReset(t, player)
	wantKeptOut(t, port)
	p.AwaitRefused(1, "kept_out", 2)
	// Not after a new control channel either.
	p.Disconnect(channel.CloseRestarting, errors.New("away"))
	wantKeptOut(t, port)
	p.Reconnect()
	p.AwaitHellos(2)
	wantKeptOut(t, port)

	ahead.Store(int64(time.Hour + time.Second)) // Its time is over.
	carry(t, l, port, "welcome back")
	ahead.Store(0)
	wantKeptOut(t, port)
	put() // Somebody lets it in again.
	carry(t, l, port, "welcome back")
}

// TestServer_KeepsWhatItKeepsOutBeforeItDoes: a process that ends at once after it, and one after it that does not reach
// the panel, must not let the player in again.
func TestServer_KeepsWhatItKeepsOutBeforeItDoes(t *testing.T) {
	k, now, written := make(kept, 16), make(chan *types.ServerSnapshot, 16), make(chan struct{})
	p, s, client, port := start(t, func(o *relay.Options) {
		k.options(o)
		o.KeepNow = func(m *types.ServerSnapshot) {
			now <- m
			<-written
		}
	})
	k.until(t, func(m *types.ServerSnapshot) bool { return len(m.Allocations) == 1 })
	l := openLink(t, p, s, client, 1)
	player, ws := carry(t, l, port, "welcome")
	a := relaytest.Allocation(1, client, types.ProtocolTCP, port)
	a.KeptOut = &[]types.ServerKeptOut{{Source: "127.0.0.1", Until: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}}
	p.Put(a)
	last := await.Receive(t, now, "state that is kept at once")
	if len(last.Allocations) != 1 || !reflect.DeepEqual(last.Allocations[0].KeptOut, a.KeptOut) {
		t.Errorf("kept %+v", last)
	}
	// Nothing of it has taken effect yet.
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("x")); err != nil {
		t.Error(err)
	}
	_ = player.SetReadDeadline(time.Now().Add(relaytest.Patience))
	if _, err := player.Read(make([]byte, 1)); err != nil {
		t.Errorf("the player while the state is being written: %v", err)
	}
	close(written)
	s.AwaitStats(t, "the end of the player", func(s relay.Stats) bool { return s.Players == 0 })
	_ = ws.Close()
	wantKeptOut(t, port)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	p.Disconnect(channel.CloseRestarting, errors.New("away"))
	again := relaytest.Start(t, p, func(o *relay.Options) { o.Last = last })
	openLink(t, p, again, client, 1)
	wantKeptOut(t, port)
}

// A flood of short connections causes no flood of reports.
func TestServer_ReportsOfAFloodAreFew(t *testing.T) {
	p, s, client, port := start(t, nil)
	l := openLink(t, p, s, client, 1)
	began := time.Now()
	const flood = 300
	for range flood {
		_, data := carry(t, l, port, "x")
		_ = data.Close()
	}
	s.AwaitStats(t, "the end of the flood", func(s relay.Stats) bool { return s.Players == 0 })
	_, last := carry(t, l, port, "x")
	p.AwaitConnections(1)
	_ = last.Close()
	p.AwaitConnections(0)
	reports, connections := p.ConnectionReports()
	most := int(time.Since(began)/(250*time.Millisecond)) + 2
	if reports > most || connections > flood+1 {
		t.Errorf("%d reports of %d connections, want at most %d", reports, connections, most)
	}
}

func TestServer_ReportsNoPlayersToAnOlderPanel(t *testing.T) {
	p, s, client, port := start(t, nil)
	p.TakeNoConnections()
	p.Disconnect(channel.CloseRestarting, errors.New("another version"))
	p.Reconnect()
	p.AwaitHellos(2)
	l := openLink(t, p, s, client, 1)
	_, player := carry(t, l, port, "welcome")
	p.AwaitPlayers(1) // It takes longer than a report of players.
	_ = player.Close()
	p.AwaitPlayers(0)
	if reports, _ := p.ConnectionReports(); reports > 0 {
		t.Errorf("%d reports", reports)
	}
}
