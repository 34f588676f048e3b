package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

// serving is a stand-alone tunnel server under test.
type serving struct {
	*TunnelServer
	panel  *panel
	events chan Event
	result chan error
	stop   func()
}

// options are those of a tunnel server with everything it keeps in one directory.
func (p *panel) options(t *testing.T, dir string) TunnelServerOptions {
	t.Helper()
	client, err := tunnel.New(tunnel.Options{PanelURL: p.URL, Token: func() string { return deviceToken }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return TunnelServerOptions{
		Client: client, Device: uuid.New(), Listen: "127.0.0.1:0", BindHost: "127.0.0.1",
		KeyFile: filepath.Join(dir, "key.pem"), StateFile: filepath.Join(dir, "state.json"),
		Version: "1.2.3", Platform: "test/arch",
		Backoff: backoff.Exponential{Min: time.Millisecond, Max: 10 * time.Millisecond},
		Standby: standbyTimes,
	}
}

func serveAt(t *testing.T, p *panel, o TunnelServerOptions) *serving {
	t.Helper()
	s := &serving{panel: p, events: make(chan Event, 256), result: make(chan error, 1)}
	o.OnEvent = func(e Event) { s.events <- e }
	var err error
	if s.TunnelServer, err = NewTunnelServer(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s.every = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.result <- s.Run(ctx)
	}()
	s.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(s.stop)
	return s
}

// channel returns the next control channel and its hello.
func (s *serving) channel(t *testing.T) (*panelChannel, types.Hello) {
	t.Helper()
	c := next(t, s.panel.channels, "a control channel")
	hello, ok := next(t, c.received, "hello").(types.Hello)
	if !ok || hello.Relay == nil || hello.AgentVersion != "1.2.3" || hello.Platform != "test/arch" {
		t.Fatalf("hello %+v", hello)
	}
	return c, hello
}

func (s *serving) event(t *testing.T, want EventType) Event {
	t.Helper()
	for {
		if e := next(t, s.events, string(want)); e.Type == want {
			return e
		}
	}
}

// newCertificatePEM makes a certificate and its key.
func newCertificatePEM() ([]byte, error) {
	certificate, err := session.SelfSigned()
	if err != nil {
		return nil, err
	}
	return store.EncodePEM(certificate)
}

func bindings(port int) types.ServerSnapshot {
	client := uuid.New()
	return types.ServerSnapshot{
		Type: types.TypeServerSnapshot, Revision: 1, Keys: types.JWKS{Keys: []types.JWK{}},
		Allocations: []types.ServerAllocation{relaytest.Allocation(1, client, types.ProtocolTCP, port)},
		Clients:     []types.ServerClient{{ID: client, TokenVersion: 1}},
	}
}

func open(port int) bool {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		_ = c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

func TestTunnelServer_ServesWhatThePanelWantsAndSaysHowToReachIt(t *testing.T) {
	p := newPanel(t)
	o := p.options(t, t.TempDir())
	o.AdvertisedPort = 17443
	s := serveAt(t, p, o)
	c, hello := s.channel(t)
	if hello.Relay.Port != 17443 || hello.Relay.Fingerprint != s.Fingerprint() {
		t.Errorf("hello %+v", hello.Relay)
	}
	port := relaytest.FreePort(t)
	c.send(t, bindings(port))
	s.event(t, EventConnected)
	if report := c.status(t); report.Allocations[0] != readyReport(1) || !open(port) {
		t.Errorf("report %+v", report)
	}
	s.stop()
	if err := <-s.result; err != nil || s.event(t, EventStopped).Reason != "" || open(port) {
		t.Errorf("ended with %v", err)
	}
}

func TestTunnelServer_ShowsItsPublicHostWhenItChanges(t *testing.T) {
	p := newPanel(t)
	s := serveAt(t, p, p.options(t, t.TempDir()))
	want := func(host string, guessed bool, warning string) {
		t.Helper()
		h := s.event(t, EventPublicHost).Host
		if h.PublicHost != host || h.PublicHostGuessed != guessed || (h.PublicHostWarning != nil) != (warning != "") {
			t.Errorf("its host is %+v, want %s", h, host)
		}
	}
	c, _ := s.channel(t)
	first := bindings(relaytest.FreePort(t))
	first.Host = &types.ServerHost{PublicHost: "198.51.100.7", PublicHostGuessed: true}
	c.send(t, first)
	s.event(t, EventConnected)
	want("198.51.100.7", true, "")
	change := types.ServerChange{
		Type: types.TypeServerChange, Revision: 2, Allocations: []types.ServerAllocation{}, RemovedAllocations: []int64{},
		Clients: []types.ServerClient{}, RemovedClients: []uuid.UUID{},
	}
	c.send(t, change) // The same host.
	warning := "players without IPv6 cannot join"
	change.Revision, change.Host = 3, &types.ServerHost{PublicHost: "2001:db8::7", PublicHostGuessed: true, PublicHostWarning: &warning}
	c.send(t, change)
	want("2001:db8::7", true, warning)
	c.Close(channel.CloseRestarting, "")
	s.event(t, EventDisconnected)
	c, _ = s.channel(t)
	first.Host = change.Host
	c.send(t, first)
	s.event(t, EventConnected)
	change.Revision, change.Host = 2, &types.ServerHost{PublicHost: "fra1.example.com"}
	c.send(t, change)
	want("fra1.example.com", false, "")
}

func TestTunnelServer_StartsWithKeyAndPortsWhileThePanelIsAway(t *testing.T) {
	p := newPanel(t)
	o, port := p.options(t, t.TempDir()), relaytest.FreePort(t)
	s := serveAt(t, p, o)
	c, _ := s.channel(t)
	c.send(t, bindings(port))
	c.status(t)
	s.stop()
	p.Close()
	again := serveAt(t, p, o)
	again.event(t, EventDisconnected)
	if !open(port) {
		t.Error("the port is closed")
	}
	if again.Fingerprint() != s.Fingerprint() {
		t.Error("the key is another one: agents would refuse it")
	}
}

func TestTunnelServer_DoesNotApplyTheSnapshotOfAnotherPanel(t *testing.T) {
	p := newPanel(t)
	o, port := p.options(t, t.TempDir()), relaytest.FreePort(t)
	s := serveAt(t, p, o)
	c, _ := s.channel(t)
	own := bindings(port)
	own.PanelID = &tokenPanel
	c.send(t, own)
	c.status(t)
	c.Close(channel.CloseRestarting, "")
	c, _ = s.channel(t)
	other := uuid.New()
	c.send(t, types.ServerSnapshot{
		Type: types.TypeServerSnapshot, Revision: 1, PanelID: &other, Keys: types.JWKS{Keys: []types.JWK{}},
		Allocations: []types.ServerAllocation{}, Clients: []types.ServerClient{},
	})
	s.channel(t) // It tries again,
	if !open(port) {
		t.Error("its port is closed")
	}
}

func TestTunnelServer_KeepsNothingOfADeadToken(t *testing.T) {
	for _, end := range []func(*serving, *panelChannel){
		func(_ *serving, c *panelChannel) { c.Close(channel.CloseTokenDead, "why") },
		func(_ *serving, c *panelChannel) { c.Close(channel.CloseDeleted, "why") },
		func(s *serving, c *panelChannel) {
			s.panel.refuse <- types.Problem{Error: types.CodeTokenRevoked, Message: "why"}
			c.Close(channel.CloseRestarting, "")
		},
	} {
		p := newPanel(t)
		o, port := p.options(t, t.TempDir()), relaytest.FreePort(t)
		s := serveAt(t, p, o)
		c, _ := s.channel(t)
		c.send(t, bindings(port))
		c.status(t)
		end(s, c)
		var final *channel.FinalError
		if err := next(t, s.result, "the end"); !errors.As(err, &final) || final.Reason != "why" {
			t.Errorf("ended with %v", err)
		}
		if exists(t, o.StateFile) || open(port) {
			t.Error("something of it is left")
		}
	}
}

func TestTunnelServer_ServesTheOperatorsCertificateAndItsRenewal(t *testing.T) {
	p := newPanel(t)
	dir := t.TempDir()
	o := p.options(t, dir)
	o.KeyFile, o.Certificate = "", CertificateFiles{filepath.Join(dir, "chain.pem"), filepath.Join(dir, "privkey.pem")}
	renew := func() {
		t.Helper()
		data, err := newCertificatePEM()
		if err != nil {
			t.Fatal(err)
		}
		// As other programs do: in place, one after the other, and with a mark.
		data = append([]byte("\uFEFF"), data...)
		for _, path := range []string{o.Certificate.Certificate, o.Certificate.Key} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	renew()
	s := serveAt(t, p, o)
	c, first := s.channel(t)
	c.send(t, bindings(relaytest.FreePort(t)))
	c.status(t)
	renew()
	c, second := s.channel(t)
	if second.Relay.Fingerprint == first.Relay.Fingerprint {
		t.Error("the new key is not reported to the panel")
	}
	c.send(t, bindings(relaytest.FreePort(t)))
	c.status(t)
	await.Until(t, "the new key is served", func() bool { return s.Fingerprint() == second.Relay.Fingerprint })
	// What does not fit, or is missing for a while, changes nothing.
	if err := os.WriteFile(o.Certificate.Key, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.Certificate.Certificate); err != nil {
		t.Fatal(err)
	}
	renew()
	if _, third := s.channel(t); third.Relay.Fingerprint == second.Relay.Fingerprint {
		t.Error("the third key is not announced")
	}
}

func TestNewTunnelServer_SaysWhatIsWrong(t *testing.T) {
	p := newPanel(t)
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	damaged := filepath.Join(dir, "damaged.pem")
	if err := os.WriteFile(damaged, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, change := range map[string]func(*TunnelServerOptions){
		"required":                     func(o *TunnelServerOptions) { o.Client = nil },
		"in use":                       func(o *TunnelServerOptions) { o.Listen = taken.Addr().String() },
		"no file to keep a key":        func(o *TunnelServerOptions) { o.KeyFile = "" },
		"damaged.pem is damaged":       func(o *TunnelServerOptions) { o.KeyFile = damaged },
		"tunnel server's key":          func(o *TunnelServerOptions) { o.KeyFile = filepath.Join(damaged, "key.pem") },
		"read the certificate's key":   func(o *TunnelServerOptions) { o.Certificate = CertificateFiles{damaged, dir} },
		"read the certificate: ":       func(o *TunnelServerOptions) { o.Certificate = CertificateFiles{dir, damaged} },
		"the certificate and its key:": func(o *TunnelServerOptions) { o.Certificate = CertificateFiles{damaged, damaged} },
	} {
		o := p.options(t, dir)
		change(&o)
		s, err := NewTunnelServer(t.Context(), o)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("error %v does not say %q", err, words)
		}
	}
}
