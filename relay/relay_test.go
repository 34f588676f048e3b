package relay_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestServer_HelloTellsHowToReachIt(t *testing.T) {
	p := relaytest.NewPanel(t)
	s := relaytest.Start(t, p, func(o *relay.Options) { o.Version = "1.2.3" })
	hello := p.AwaitHellos(1)
	_, port, _ := net.SplitHostPort(s.Address)
	if hello.AgentVersion != "1.2.3" || hello.Relay == nil || strconv.Itoa(hello.Relay.Port) != port || hello.Relay.Fingerprint != s.Fingerprint() {
		t.Errorf("hello %+v", hello)
	}
}

func TestServer_PortsFollowTheDesiredState(t *testing.T) {
	p, _, client, port := start(t, nil)
	other := relaytest.FreePort(t)
	p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, other))
	p.AwaitReport(1, types.ReportReady)
	if !refused(port) {
		t.Error("the port is open after the allocation moved")
	}
	if refused(other) {
		t.Error("the new port is not open")
	}
	// Another allocation may have the port at once.
	p.Put(relaytest.Allocation(2, client, types.ProtocolTCP, port), relaytest.Allocation(3, client, types.ProtocolUDP, port))
	p.AwaitReport(2, types.ReportReady)
	p.AwaitReport(3, types.ReportReady)
	p.Remove(1, 2, 3)
	p.Put(relaytest.Allocation(4, client, types.ProtocolUDP, port)) // A port for what was removed before it.
	p.AwaitReport(4, types.ReportReady)
	if !refused(other) || !refused(port) {
		t.Error("a port is open after its allocation was removed")
	}
}

func TestServer_PortInUseIsReportedAndHealed(t *testing.T) {
	p, _, client, _ := start(t, nil)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	p.Put(relaytest.Allocation(2, client, types.ProtocolTCP, port))
	report := p.AwaitReport(2, types.ReportFailed)
	if want := fmt.Sprintf("port %d is in use by another program", port); report.Reason == nil || *report.Reason != want {
		t.Errorf("reason %v, want %q", report.Reason, want)
	}
	_ = l.Close()
	p.AwaitReport(2, types.ReportReady)
}

func TestServer_ReportsEverythingAfterReconnect(t *testing.T) {
	p, _, _, _ := start(t, nil)
	p.Disconnect(channel.CloseRestarting, nil)
	p.AwaitHellos(2)
	p.AwaitReport(1, types.ReportReady)
}

func TestServer_ReportsInMessagesOfAThousand(t *testing.T) {
	p := relaytest.NewPanel(t)
	client := uuid.New()
	const count = 1500
	// Bound to an address that no machine has, they all fail and take no ports.
	relaytest.Start(t, p, func(o *relay.Options) { o.BindHost = "192.0.2.1" })
	p.AwaitHellos(1)
	var all []types.ServerAllocation
	for id := int64(1); id <= count; id++ {
		all = append(all, relaytest.Allocation(id, client, types.ProtocolTCP, 20000))
	}
	p.Put(all...)
	for id := int64(1); id <= count; id++ {
		p.AwaitReport(id, types.ReportFailed)
	}
}

func TestServer_MissedRevisionIsMadeUpFor(t *testing.T) {
	p, _, client, _ := start(t, nil)
	p.LoseRevision()
	p.Put(relaytest.Allocation(2, client, types.ProtocolTCP, relaytest.FreePort(t)))
	p.AwaitResync()
	p.AwaitReport(2, types.ReportReady)
}

func TestServer_FinalWordEndsRun(t *testing.T) {
	for _, code := range []int{channel.CloseTokenDead, channel.CloseDeleted, channel.CloseTakenOver} {
		p, s, _, port := start(t, nil)
		p.Disconnect(code, errTest)
		select {
		case <-s.Done():
		case <-time.After(relaytest.Patience):
			t.Fatal("Run goes on")
		}
		var final *channel.FinalError
		if !errors.As(s.Err(), &final) || final.Code != code {
			t.Errorf("Run returned %v, want a FinalError of %d", s.Err(), code)
		}
		if !refused(port) {
			t.Error("a public port is open after Run")
		}
	}
}

func TestServer_PlayerWithoutLinkIsRefusedAtOnce(t *testing.T) {
	_, _, _, port := start(t, nil)
	wantRefusal(t, port)
}

func TestServer_PlayerWaitsForADataConnection(t *testing.T) {
	p, s, client, port := start(t, nil)
	l := openLink(t, p, s, client, 1)
	player := join(t, port)
	if _, err := io.WriteString(player, "hello"); err != nil {
		t.Fatal(err)
	}
	if m := l.next(wire.LinkDial); m.Kind != wire.KindStream || m.Count < 1 {
		t.Fatalf("asked for %+v", m)
	}
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	open, err := wire.DecodeControl(text)
	if err != nil || open.Type != wire.ControlOpen || open.Allocation != 1 || open.Source.String() != player.LocalAddr().String() || open.Destination.String() != player.RemoteAddr().String() {
		t.Errorf("opened with %s", text)
	}
	if _, data, err := ws.ReadMessage(); err != nil || string(data) != "hello" {
		t.Errorf("got %q, %v", data, err)
	}
	p.Remove(1)
	wantReset(t, player)
	if _, text, err := ws.ReadMessage(); err != nil || !strings.Contains(string(text), "reset") {
		t.Errorf("the allocation is gone: %s (%v), want a reset", text, err)
	}
}

func TestServer_PlayerIsRefusedWhenNoDataConnectionComes(t *testing.T) {
	p, s, client, port := start(t, func(o *relay.Options) {
		o.Limits.JoinWait, o.Limits.Waiting = 50*time.Millisecond, 1
	})
	openLink(t, p, s, client, 1)
	for range 3 {
		wantRefusal(t, port)
	}
}

func TestServer_DeadDataConnectionIsPassedOver(t *testing.T) {
	p, s, client, port := start(t, nil)
	l := openLink(t, p, s, client, 1)
	dead, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	s.AwaitStats(t, "the data connection", func(s relay.Stats) bool { return s.DataConnections == 1 })
	player := join(t, port)
	if _, _, err := dead.ReadMessage(); err != nil { // Open, and nothing else.
		t.Fatal(err)
	}
	_ = dead.Close()
	alive, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := alive.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	_ = alive.WriteMessage(websocket.BinaryMessage, []byte("welcome"))
	b := make([]byte, 7)
	if _, err := io.ReadFull(player, b); err != nil || string(b) != "welcome" {
		t.Errorf("the player hears %q, %v", b, err)
	}
}

func TestServer_PlayersAreLimited(t *testing.T) {
	p, s, client, port := start(t, func(o *relay.Options) { o.Limits.Players = 2 })
	openLink(t, p, s, client, 1)
	join(t, port)
	join(t, port)
	s.AwaitStats(t, "two players", func(s relay.Stats) bool { return s.Players == 2 })
	wantRefusal(t, port)
}

func TestServer_StopsWithEverythingOpen(t *testing.T) {
	p, s, client, port := start(t, nil)
	l := openLink(t, p, s, client, 1)
	player := join(t, port)
	l.next(wire.LinkDial)
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	half, err := net.Dial("tcp", s.Address) // Never shakes hands.
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	if code := l.closeCode(); code != channel.CloseRestarting {
		t.Errorf("the link is closed with %d", code)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	wantReset(t, player)
}

func TestServer_ClosedListenerEndsRun(t *testing.T) {
	p := relaytest.NewPanel(t)
	var listener net.Listener
	s := relaytest.Start(t, p, func(o *relay.Options) { listener = o.Listener })
	p.AwaitHellos(1)
	_ = listener.Close()
	select {
	case <-s.Done():
	case <-time.After(relaytest.Patience):
		t.Fatal("Run goes on without its listener")
	}
	if !errors.Is(s.Err(), net.ErrClosed) {
		t.Errorf("Run returned %v", s.Err())
	}
}

func TestServer_IdleLinksCostLittle(t *testing.T) {
	p, s, client, _ := start(t, nil)
	before := runtime.NumGoroutine()
	for range 20 {
		l := openLink(t, p, s, client, 1)
		_ = l.ws.Close()
	}
	s.AwaitStats(t, "no links", func(s relay.Stats) bool { return s.Links == 0 })
	for deadline := time.Now().Add(relaytest.Patience); runtime.NumGoroutine() > before+2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestNew_RefusesOptionsThatCannotWork(t *testing.T) {
	if _, err := relay.New(relay.Options{}); err == nil {
		t.Error("no ID, no Dial, no Listener, and no error")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = relay.New(relay.Options{
		ID: uuid.New(), Listener: l, Certificate: &tls.Certificate{},
		Dial: func(context.Context) (*websocket.Conn, error) { return nil, errTest },
	})
	if err == nil {
		t.Error("an empty certificate, and no error")
	}
}
