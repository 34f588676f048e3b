package relay_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/channel"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errTest = errors.New("the test says no")

// dial opens a WebSocket to a tunnel server as a tunnel client would.
func dial(s *relaytest.Server, path, credential string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{
		TLSClientConfig:  &tls.Config{InsecureSkipVerify: true},
		Subprotocols:     []string{wire.Subprotocol},
		HandshakeTimeout: relaytest.Patience,
	}
	ws, response, err := dialer.Dial("wss://"+s.Address+path, http.Header{"Authorization": {"Bearer " + credential}})
	if response != nil {
		_ = response.Body.Close()
	}
	return ws, response, err
}

// link is a tunnel client's link in the hands of a test.
type link struct {
	t      *testing.T
	server *relaytest.Server
	ws     *websocket.Conn
	secret string
}

func openLink(t *testing.T, p *relaytest.Panel, s *relaytest.Server, client uuid.UUID, version int64) *link {
	t.Helper()
	ws, _, err := dial(s, wire.PathLink, p.Ticket(client, version, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	l := &link{t: t, server: s, ws: ws}
	l.secret = l.next(wire.LinkWelcome).Secret
	return l
}

// next returns the next message of the link, which must be of a type.
func (l *link) next(want wire.LinkType) wire.LinkMessage {
	l.t.Helper()
	_ = l.ws.SetReadDeadline(time.Now().Add(relaytest.Patience))
	_, data, err := l.ws.ReadMessage()
	if err != nil {
		l.t.Fatal(err)
	}
	m, err := wire.DecodeLink(data)
	if err != nil || m.Type != want {
		l.t.Fatalf("link message %s (%v), want %s", data, err, want)
	}
	return m
}

// closeCode reads the link to its end.
func (l *link) closeCode() int {
	l.t.Helper()
	_ = l.ws.SetReadDeadline(time.Now().Add(relaytest.Patience))
	for {
		_, _, err := l.ws.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) {
			return closed.Code
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *link) data(kind wire.Kind) (*websocket.Conn, *http.Response, error) {
	ws, response, err := dial(l.server, wire.PathData+"?kind="+string(kind), l.secret)
	if err == nil {
		l.t.Cleanup(func() { _ = ws.Close() })
	}
	return ws, response, err
}

// join connects a player.
func join(t *testing.T, port int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
	return c
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the player sees %v, want a reset", err)
	}
}

// wantRefusal connects a player who must be reset at once, be it while he
// connects.
func wantRefusal(t *testing.T, port int) {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
	wantReset(t, c)
}

func refused(port int) bool {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// start returns a tunnel server with one client, and a port of a TCP allocation
// of it with id 1.
func start(t *testing.T, change func(*relay.Options)) (*relaytest.Panel, *relaytest.Server, uuid.UUID, int) {
	t.Helper()
	p := relaytest.NewPanel(t)
	s := relaytest.Start(t, p, change)
	p.AwaitHellos(1)
	client, port := uuid.New(), relaytest.FreePort(t)
	p.PutClient(client, 1)
	p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port))
	p.AwaitReport(1, types.ReportReady)
	return p, s, client, port
}

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
