package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	relaysession "github.com/eclitunnel/eclitunnel/relay/session"
)

func TestLinks_PlayersStayAndJoinWithThePanelAway(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	before := d.greet(port)
	d.panel.Disconnect(channel.CloseRestarting, errTest)
	d.panel.AwaitDisconnected()
	after := d.join(port)
	for _, player := range []net.Conn{before, after} {
		say(t, player, "still here")
		hear(t, player, "still here")
	}
	// The agent comes back with its ticket and no panel.
	l, stop := d.agent, d.stop
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	d.server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 && s.Players == 0 })
	if d.agent, d.stop = d.startAgent(nil); d.agent == l {
		t.Fatal("the same links")
	}
	d.apply()
	d.awaitReport(1, types.ReportReady)
	d.greet(port)
}

func TestLinks_FeatureOffClosesPortsUntilItIsOn(t *testing.T) {
	for name, off := range map[string]func(*relaytest.Panel){
		"closed":  func(p *relaytest.Panel) { p.Disconnect(channel.CloseFeatureOff, errTest) },
		"refused": func(p *relaytest.Panel) { p.Disconnect(channel.CloseRestarting, channel.ErrFeatureOff) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDataPlane(t, dataPlaneOptions{})
			port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
			player := d.greet(port)
			off(d.panel)
			if err := howItEnds(player); err == nil {
				t.Error("the player was let go in order, want a reset")
			}
			eventually(t, "the port's end", func() bool {
				c, err := net.Dial("tcp", player.RemoteAddr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			if r := d.awaitReport(1, types.ReportFailed); r.Reason == nil {
				t.Error("no reason for the failed allocation")
			}
			d.panel.Reconnect()
			d.panel.AwaitReport(1, types.ReportReady)
			d.awaitReport(1, types.ReportReady)
			d.greet(port)
		})
	}
}

func TestLinks_NewTokenEndsTheLinkUntilItsTicketComes(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	player := d.greet(port)
	start := time.Now()
	d.panel.PutClient(d.client, 2)
	if err := howItEnds(player); err == nil {
		t.Error("the player was let go in order, want a reset")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the player was cut after %v", took)
	}
	d.awaitReport(1, types.ReportFailed)
	if err := refusal(t, port); err == nil {
		t.Error("a player without a link was let go in order, want a reset")
	}
	d.mu.Lock()
	d.servers[0].Ticket = d.panel.Ticket(d.client, 2, nil)
	d.mu.Unlock()
	d.apply()
	d.awaitReport(1, types.ReportReady)
	player = d.greet(port)
	d.panel.RemoveClient(d.client)
	if err := howItEnds(player); err == nil {
		t.Error("the client was deleted: the player was let go in order, want a reset")
	}
}

func TestLinks_NewerAgentTakesOver(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	ended := make(chan error, 1)
	older := newLinks(linkOptions{Allow: func(string) error { return nil }})
	older.Apply(d.servers, d.allocations)
	// The test's own agent is linked; this one takes over and is taken over in turn.
	go func() { ended <- older.Run(context.Background()) }()
	var final *channel.FinalError
	select {
	case <-d.ended:
	case <-time.After(relaytest.Patience):
		t.Fatal("the first agent does not hear that another took over")
	}
	if err := d.stop(); !errors.As(err, &final) || final.Code != channel.CloseTakenOver {
		t.Fatalf("the older agent ends with %v, want a takeover", err)
	}
	d.agent, d.stop = d.startAgent(nil)
	d.apply()
	if err := <-ended; !errors.As(err, &final) || final.Code != channel.CloseTakenOver {
		t.Fatalf("the second agent ends with %v, want a takeover", err)
	}
	d.awaitReport(1, types.ReportReady)
	d.greet(port)
}

func TestLinks_OutageIsLoggedOnce(t *testing.T) {
	var warnings, tries atomic.Int64
	d := newDataPlane(t, dataPlaneOptions{agent: func(o *linkOptions) {
		o.Logger = slog.New(onLog(func(r slog.Record) {
			if r.Message != "no link to the tunnel server" {
				return
			}
			tries.Add(1)
			if r.Level >= slog.LevelWarn {
				warnings.Add(1)
			}
		}))
	}})
	d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	_ = d.server.Stop()
	eventually(t, "another try", func() bool { return tries.Load() > 20 })
	// That it restarts, does not take the ticket any more, and is not there.
	if n := warnings.Load(); n > 6 {
		t.Errorf("%d warnings of one outage", n)
	}
}

// onLog calls itself with every record that is logged.
type onLog func(slog.Record)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}
func (f onLog) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f onLog) WithGroup(string) slog.Handler      { return f }

func TestLinks_TunnelServerRestarts(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	player := d.greet(port)
	if err := d.server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := howItEnds(player); err == nil {
		t.Error("the player was let go in order, want a reset")
	}
	r := d.awaitReport(1, types.ReportFailed)
	if r.Reason == nil || !strings.Contains(*r.Reason, d.server.Address) {
		t.Errorf("reason %v does not name the tunnel server", r.Reason)
	}
	// At another address, with another key, told by the panel.
	d.server = relaytest.Start(t, d.panel, nil)
	d.panel.AwaitReport(1, types.ReportReady)
	d.mu.Lock()
	d.servers[0].Address, d.servers[0].Fingerprint = d.server.Address, d.server.Fingerprint()
	d.mu.Unlock()
	d.apply()
	d.awaitReport(1, types.ReportReady)
	d.greet(port)
}

func TestLinks_AnotherKeyKeepsLinkAndPlayers(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	player := d.greet(port)
	before := d.server.Fingerprint()
	certificate, err := relaysession.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.server.Renew(certificate); err != nil {
		t.Fatal(err)
	}
	d.server.AwaitFingerprint(t, d.panel.AwaitHellos(2).Relay.Fingerprint)
	if d.server.Fingerprint() == before {
		t.Fatal("the key is the same")
	}
	d.mu.Lock()
	d.servers[0].Fingerprint = d.server.Fingerprint()
	d.mu.Unlock()
	d.apply()
	// More than the data connections there are, so that new ones are dialled.
	handshakes := d.server.Stats().Handshakes
	for range 5 {
		other := d.join(port)
		say(t, other, "y")
		hear(t, other, "y")
	}
	if d.server.Stats().Handshakes == handshakes {
		t.Error("no data connection was dialled")
	}
	say(t, player, "z")
	hear(t, player, "z")
}

func TestLinks_ReasonsAreForPeople(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	good := types.ClientServer{Address: d.server.Address, Fingerprint: d.server.Fingerprint(), Ticket: d.panel.Ticket(d.client, 1, nil)}
	for name, test := range map[string]struct {
		change func(*types.ClientServer)
		host   string
		want   string
	}{
		"nobody listens": {func(s *types.ClientServer) { s.Address = closed.Addr().String() }, "127.0.0.1", "connection refused"},
		"another key":    {func(s *types.ClientServer) { s.Fingerprint = strings.Repeat("0", 64) }, "127.0.0.1", "another key"},
		"no fingerprint": {func(s *types.ClientServer) { s.Fingerprint = "" }, "127.0.0.1", "certificate"},
		"dead ticket":    {func(s *types.ClientServer) { s.Ticket = "dead" }, "127.0.0.1", "ticket is not accepted"},
		"not permitted":  {func(*types.ClientServer) {}, "192.0.2.1", "192.0.2.1 is not on this agent's allow-list"},
	} {
		t.Run(name, func(t *testing.T) {
			server := good
			server.ID = uuid.New()
			test.change(&server)
			d.mu.Lock()
			d.servers = []types.ClientServer{server}
			d.allocations = []types.ClientAllocation{{ID: 1, ServerID: server.ID, Protocol: types.ProtocolTCP, LocalHost: test.host, LocalPort: 1}}
			d.mu.Unlock()
			d.apply()
			if r := d.awaitReport(1, types.ReportFailed); r.Reason == nil || !strings.Contains(*r.Reason, test.want) {
				t.Errorf("reason %q, want one with %q", *r.Reason, test.want)
			}
		})
	}
}

func TestLinks_AllocationOfAnotherServerIsRefused(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	// The agent has an allocation of that number, but on another tunnel server,
	// and the link stays for a second one.
	d.mu.Lock()
	second := d.allocations[0]
	second.ID = 2
	d.allocations[0].ServerID = uuid.New()
	d.allocations = append(d.allocations, second)
	d.mu.Unlock()
	d.apply()
	if err := refusal(t, port); err == nil {
		t.Error("the player was let in")
	}
}

func TestLinks_NothingDesiredClosesEverything(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	player := d.greet(port)
	d.agent.Apply(nil, nil)
	if err := howItEnds(player); err == nil {
		t.Error("the player was let go in order, want a reset")
	}
	d.server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 && s.DataConnections == 0 })
	if reports := d.agent.Reports(); len(reports) != 0 {
		t.Errorf("reports on nothing: %+v", reports)
	}
}

func TestLinks_SilentTunnelServerIsLeft(t *testing.T) {
	fast := channel.Options{PingInterval: 20 * time.Millisecond, Deadline: 200 * time.Millisecond}
	d := newDataPlane(t, dataPlaneOptions{agent: func(o *linkOptions) {
		o.Channel = fast
		o.Limits.DialTimeout = time.Second // What is dialled while the wire is cut gets no answer.
	}})
	wire := newCutWire(t, d.server.Address)
	d.mu.Lock()
	d.servers[0].Address = wire.address
	d.mu.Unlock()
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	d.greet(port)
	wire.cut.Store(true) // Open, but nothing passes: no end is told to anybody.
	d.awaitReport(1, types.ReportFailed)
	wire.cut.Store(false)
	d.awaitReport(1, types.ReportReady)
	d.greet(port)
}

// connectProxy runs an HTTP proxy, and counts what goes through it.
func connectProxy(t *testing.T) (at *url.URL, tunnelled *atomic.Int64) {
	t.Helper()
	tunnelled = new(atomic.Int64)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		tunnelled.Add(1)
		connect(w, r.Host)
	}))
	t.Cleanup(proxy.Close)
	at, _ = url.Parse(proxy.URL)
	return at, tunnelled
}

func TestLinks_GoThroughAnHTTPProxy(t *testing.T) {
	proxy, tunnelled := connectProxy(t)
	d := newDataPlane(t, dataPlaneOptions{agent: func(o *linkOptions) {
		o.Proxy = func(r *http.Request) (*url.URL, error) { return proxy, nil }
	}})
	port := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	d.greet(port)
	// Datagrams too, packets of which would go past it.
	port = d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), nil)
	datagrams := playDatagrams(t, "127.0.0.1", port)
	for range 3 {
		ask(t, datagrams, []byte("x"))
	}
	if n := tunnelled.Load(); n < 3 {
		t.Errorf("%d connections went through the proxy, want the link and two data connections", n)
	}
	if s := d.server.Stats(); s.Paths.Received+s.Paths.Unknown != 0 {
		t.Errorf("packets past the proxy: %+v", s.Paths)
	}
	_ = d.stop()
}

// connect splices an HTTP CONNECT.
func connect(w http.ResponseWriter, host string) {
	far, err := net.Dial("tcp", host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	near, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		_ = far.Close()
		return
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(near, far)
		_ = near.Close()
	}()
	_, _ = io.Copy(far, buffered)
	_ = far.Close()
	<-done
}
