package link_test

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

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

var errTest = errors.New("refused by the test")

func TestLinks_PlayersStayAndJoinWithThePanelAway(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	before := d.Greet(port)
	d.Panel.Disconnect(channel.CloseRestarting, errTest)
	d.Panel.AwaitDisconnected()
	after := d.Join(port)
	for _, player := range []net.Conn{before, after} {
		linktest.Write(t, player, "still here")
		linktest.Expect(t, player, "still here")
	}
	// The agent comes back with its ticket and no panel.
	links := d.Links
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	d.Server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 && s.Players == 0 })
	if d.StartLinks(nil); d.Links == links {
		t.Fatal("the same links")
	}
	d.Apply()
	d.AwaitReport(1, types.ReportReady)
	d.Greet(port)
}

func TestLinks_FeatureOffClosesPortsUntilItIsOn(t *testing.T) {
	for name, off := range map[string]func(*relaytest.Panel){
		"closed":  func(p *relaytest.Panel) { p.Disconnect(channel.CloseFeatureOff, errTest) },
		"refused": func(p *relaytest.Panel) { p.Disconnect(channel.CloseRestarting, channel.ErrFeatureOff) },
	} {
		t.Run(name, func(t *testing.T) {
			d := linktest.New(t, linktest.Options{})
			port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
			player := d.Greet(port)
			off(d.Panel)
			if err := linktest.ReadToEnd(player); err == nil {
				t.Error("the player was closed in order, want a reset")
			}
			await.Until(t, "the port's end", func() bool {
				c, err := net.Dial("tcp", player.RemoteAddr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			if r := d.AwaitReport(1, types.ReportFailed); r.Reason == nil {
				t.Error("no reason for the failed allocation")
			}
			d.Panel.Reconnect()
			d.Panel.AwaitReport(1, types.ReportReady)
			d.AwaitReport(1, types.ReportReady)
			d.Greet(port)
		})
	}
}

func TestLinks_NewTokenEndsTheLinkUntilItsTicketComes(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	player := d.Greet(port)
	start := time.Now()
	d.Panel.PutClient(d.Client, 2)
	if err := linktest.ReadToEnd(player); err == nil {
		t.Error("the player was closed in order, want a reset")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the player was cut after %v", took)
	}
	d.AwaitReport(1, types.ReportFailed)
	if err := linktest.Refusal(t, port); err == nil {
		t.Error("a player without a link was closed in order, want a reset")
	}
	d.Mu.Lock()
	d.Servers[0].Ticket = d.Panel.Ticket(d.Client, 2, nil)
	d.Mu.Unlock()
	d.Apply()
	d.AwaitReport(1, types.ReportReady)
	player = d.Greet(port)
	d.Panel.RemoveClient(d.Client)
	if err := linktest.ReadToEnd(player); err == nil {
		t.Error("the client was deleted: the player was closed in order, want a reset")
	}
}

func TestLinks_NewerAgentTakesOver(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	ended := make(chan error, 1)
	older := link.New(link.Options{Targets: target.NewDialer(target.Options{Allow: linktest.AllowLoopback})})
	older.Apply(d.Servers, d.Allocations)
	// The test's own agent is linked; this one takes over and is taken over in turn.
	go func() { ended <- older.Run(context.Background()) }()
	var final *channel.FinalError
	select {
	case <-d.Ended:
	case <-time.After(relaytest.Patience):
		t.Fatal("the first agent does not learn that another took over")
	}
	if err := d.Stop(); !errors.As(err, &final) || final.Code != channel.CloseTakenOver {
		t.Fatalf("the older agent ends with %v, want a takeover", err)
	}
	d.StartLinks(nil)
	d.Apply()
	if err := <-ended; !errors.As(err, &final) || final.Code != channel.CloseTakenOver {
		t.Fatalf("the second agent ends with %v, want a takeover", err)
	}
	d.AwaitReport(1, types.ReportReady)
	d.Greet(port)

	// One that stood by runs again, and serves what is applied then.
	ctx, stop := context.WithCancel(t.Context())
	older.Apply(nil, nil)
	go func() { ended <- older.Run(ctx) }()
	await.Until(t, "link to be forgotten", func() bool { return older.Stats().LinksDown+older.Stats().LinksUp == 0 })
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	older.Apply(d.Servers, d.Allocations)
	await.Until(t, "link", func() bool { return older.Stats().LinksUp == 1 })
	d.Greet(port)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLinks_OutageIsLoggedOnce(t *testing.T) {
	var warnings, tries atomic.Int64
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
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
	d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	_ = d.Server.Stop()
	await.Until(t, "another try", func() bool { return tries.Load() > 20 })
	// It restarts, refuses the ticket, and is gone.
	if n := warnings.Load(); n > 6 {
		t.Errorf("%d warnings of one outage", n)
	}
}

// onLog is a slog.Handler that is called with every record.
type onLog func(slog.Record)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}
func (f onLog) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f onLog) WithGroup(string) slog.Handler      { return f }

func TestLinks_TunnelServerRestarts(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	player := d.Greet(port)
	if err := d.Server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := linktest.ReadToEnd(player); err == nil {
		t.Error("the player was closed in order, want a reset")
	}
	r := d.AwaitReport(1, types.ReportFailed)
	if r.Reason == nil || !strings.Contains(*r.Reason, d.Server.Address) {
		t.Errorf("reason %v does not name the tunnel server", r.Reason)
	}
	// At another address, with another key, both from the panel.
	d.Server = relaytest.Start(t, d.Panel, nil)
	d.Panel.AwaitReport(1, types.ReportReady)
	d.Mu.Lock()
	d.Servers[0].Address, d.Servers[0].Fingerprint = d.Server.Address, d.Server.Fingerprint()
	d.Mu.Unlock()
	d.Apply()
	d.AwaitReport(1, types.ReportReady)
	d.Greet(port)
}

func TestLinks_AnotherKeyKeepsLinkAndPlayers(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	player := d.Greet(port)
	before := d.Server.Fingerprint()
	certificate, err := session.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Server.Renew(certificate); err != nil {
		t.Fatal(err)
	}
	d.Server.AwaitFingerprint(t, d.Panel.AwaitHellos(2).Relay.Fingerprint)
	if d.Server.Fingerprint() == before {
		t.Fatal("the key is the same")
	}
	d.Mu.Lock()
	d.Servers[0].Fingerprint = d.Server.Fingerprint()
	d.Mu.Unlock()
	d.Apply()
	// More than the data connections there are, so that new ones are dialled.
	handshakes := d.Server.Stats().Handshakes
	for range 5 {
		other := d.Join(port)
		linktest.Write(t, other, "y")
		linktest.Expect(t, other, "y")
	}
	if d.Server.Stats().Handshakes == handshakes {
		t.Error("no data connection was dialled")
	}
	linktest.Write(t, player, "z")
	linktest.Expect(t, player, "z")
}

func TestLinks_ReasonsAreForPeople(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	good := types.ClientServer{Address: d.Server.Address, Fingerprint: d.Server.Fingerprint(), Ticket: d.Panel.Ticket(d.Client, 1, nil)}
	for name, test := range map[string]struct {
		change func(*types.ClientServer)
		host   string
		want   string
	}{
		"no listener":    {func(s *types.ClientServer) { s.Address = closed.Addr().String() }, "127.0.0.1", "connection refused"},
		"another key":    {func(s *types.ClientServer) { s.Fingerprint = strings.Repeat("0", 64) }, "127.0.0.1", "server key fingerprint mismatch"},
		"no fingerprint": {func(s *types.ClientServer) { s.Fingerprint = "" }, "127.0.0.1", "certificate"},
		"dead ticket":    {func(s *types.ClientServer) { s.Ticket = "dead" }, "127.0.0.1", "ticket is not accepted"},
		"not permitted":  {func(*types.ClientServer) {}, "192.0.2.1", "192.0.2.1 is not on this agent's allow-list"},
	} {
		t.Run(name, func(t *testing.T) {
			server := good
			server.ID = uuid.New()
			test.change(&server)
			d.Mu.Lock()
			d.Servers = []types.ClientServer{server}
			d.Allocations = []types.ClientAllocation{{ID: 1, ServerID: server.ID, Protocol: types.ProtocolTCP, LocalHost: test.host, LocalPort: 1}}
			d.Mu.Unlock()
			d.Apply()
			if r := d.AwaitReport(1, types.ReportFailed); r.Reason == nil || !strings.Contains(*r.Reason, test.want) {
				t.Errorf("reason %q, want one with %q", *r.Reason, test.want)
			}
		})
	}
}

func TestLinks_AllocationOfAnotherServerIsRefused(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	// The agent has an allocation of that number, but on another tunnel server,
	// and the link stays for a second one.
	d.Mu.Lock()
	second := d.Allocations[0]
	second.ID = 2
	d.Allocations[0].ServerID = uuid.New()
	d.Allocations = append(d.Allocations, second)
	d.Mu.Unlock()
	d.Apply()
	if err := linktest.Refusal(t, port); err == nil {
		t.Error("the player was let in")
	}
}

func TestLinks_NothingDesiredClosesEverything(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	player := d.Greet(port)
	d.Links.Apply(nil, nil)
	if err := linktest.ReadToEnd(player); err == nil {
		t.Error("the player was closed in order, want a reset")
	}
	d.Server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 && s.DataConnections == 0 })
	if reports := d.Links.Reports(); len(reports) != 0 {
		t.Errorf("reports on nothing: %+v", reports)
	}
}

func TestLinks_SilentTunnelServerIsLeft(t *testing.T) {
	fast := channel.Options{PingInterval: 20 * time.Millisecond, Deadline: 200 * time.Millisecond}
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
		o.Channel = fast
		o.Limits.DialTimeout = time.Second // What is dialled while the proxy is cut gets no answer.
	}})
	proxy := newBreakableProxy(t, d.Server.Address)
	d.Mu.Lock()
	d.Servers[0].Address = proxy.address
	d.Mu.Unlock()
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	d.Greet(port)
	proxy.cut.Store(true) // Open, but nothing passes: neither end learns of it.
	d.AwaitReport(1, types.ReportFailed)
	proxy.cut.Store(false)
	d.AwaitReport(1, types.ReportReady)
	d.Greet(port)
}

// connectProxy runs an HTTP proxy, and counts the connections through it.
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
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
		o.Proxy = func(r *http.Request) (*url.URL, error) { return proxy, nil }
	}})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	d.Greet(port)
	// Datagrams too: sealed packets would bypass it.
	port = d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	datagrams := linktest.DialUDP(t, "127.0.0.1", port)
	for range 3 {
		linktest.Ask(t, datagrams, []byte("x"))
	}
	if n := tunnelled.Load(); n < 3 {
		t.Errorf("%d connections went through the proxy, want the link and two data connections", n)
	}
	if s := d.Server.Stats(); s.Paths.Received+s.Paths.Unknown != 0 {
		t.Errorf("packets bypassed the proxy: %+v", s.Paths)
	}
	_ = d.Stop()
}

// connect serves an HTTP CONNECT.
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
