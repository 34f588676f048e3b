//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

const (
	replicas      = 3
	tunnelServers = 2

	panelPort   = 8080
	relayPort   = 7443
	metricsPort = 9464
	gamePort    = 25565
	firstPublic = 20000
	lastPublic  = 21999

	setupPatience = 2 * time.Minute
)

// house is a fleet, everything that runs for it, and its players.
type house struct {
	options options
	world   *world
	dir     string
	token   string

	postgres *cluster.Postgres
	balancer *cluster.Balancer
	panels   []*cluster.Panel
	hosts    []*place // Of the panels.
	database *place   // Of Postgres.
	servers  []*device
	agents   []*device
	ports    []*port
	ledger   *ledger
	// api asks any replica, through the balancer; apis ask one each.
	api  *client.ClientWithResponses
	apis []*client.ClientWithResponses

	stop    context.CancelFunc // Ends the players.
	playing sync.WaitGroup
	counts  tally
	guest   *device // Who is revoked; nil before the first time.
	results []result

	mu       sync.Mutex
	progress io.Writer
	fault    string // Which one is going on.
	breaches []string
	started  time.Time
}

// say tells whoever watches what is going on.
func (h *house) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(h.progress, "%7.1fs  %s\n", time.Since(h.started).Seconds(), fmt.Sprintf(format, args...))
}

// breach notes a promise that was broken, or a byte that was wrong.
func (h *house) breach(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fault != "" {
		text = "during " + h.fault + ": " + text
	}
	h.breaches = append(h.breaches, text)
	fmt.Fprintf(h.progress, "%7.1fs  BROKEN   %s\n", time.Since(h.started).Seconds(), text)
}

// open starts everything, until players play on every port.
func (h *house) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	var err error
	if h.dir, err = cluster.NewDir(); err != nil {
		return err
	}
	if h.world, err = newWorld(ctx, h.options.Apart); err != nil {
		return err
	}
	if h.database, err = h.world.add(ctx, "postgres"); err != nil {
		return err
	}
	at := h.database
	if h.postgres, err = cluster.NewPostgres(ctx, cluster.PostgresOptions{
		Dir: h.dir, Host: at.addr, Place: at.Place, Settings: []string{"wal_retrieve_retry_interval=100ms"},
	}); err != nil {
		return err
	}
	if err := h.postgres.Start(ctx); err != nil {
		return err
	}
	if err := h.openPanels(ctx); err != nil {
		return err
	}
	if err := h.openDevices(ctx); err != nil {
		return err
	}
	playing, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	for _, p := range h.ports {
		h.playing.Go(func() { p.run(playing) })
	}
	h.ledger = newLedger(h)
	h.playing.Go(func() { h.ledger.run(playing) })
	if _, err := h.recover(ctx, recovery{ports: h.ports, devices: h.devices(), listening: true}, time.Now()); err != nil {
		return err
	}
	for _, p := range h.ports {
		p.require()
	}
	return nil
}

// openPanels starts the replicas of the panel and the balancer before them.
func (h *house) openPanels(ctx context.Context) error {
	router := h.world.router()
	url := "http://" + netip.AddrPortFrom(router, panelPort).String()
	var backends []string
	for i := range replicas {
		at, err := h.world.add(ctx, fmt.Sprintf("panel-%d", i+1))
		if err != nil {
			return err
		}
		h.hosts = append(h.hosts, at)
		backends = append(backends, at.on(panelPort))
		h.panels = append(h.panels, cluster.NewPanel(cluster.PanelOptions{
			Bin: h.options.Bin, Dir: filepath.Join(h.dir, at.name), Host: at.addr.String(), Listen: panelPort,
			PublicURL: url, PortFirst: firstPublic, PortLast: lastPublic,
			Env: []string{
				"ECLITUNNEL_DATABASE_URL=" + h.postgres.URL(),
				"ECLITUNNEL_METRICS_LISTEN=" + at.on(metricsPort),
				"ECLITUNNEL_TRUSTED_PROXIES=10.77.0.0/16,127.77.0.0/16",
			},
			Log: h.log(at.name), Start: at.Start,
		}))
	}
	for i, p := range h.panels {
		if err := p.Launch(); err != nil {
			return err
		}
		if i == 0 {
			// It makes the admin.
			if err := p.LogIn(ctx); err != nil {
				return err
			}
			h.token = p.Token
		}
		api, err := cluster.NewClient(p.URL, h.token)
		if err != nil {
			return err
		}
		h.apis = append(h.apis, api)
	}
	for _, p := range h.panels {
		if err := p.AwaitReady(ctx); err != nil {
			return err
		}
	}
	var err error
	if h.balancer, err = cluster.StartBalancer(ctx, cluster.BalancerOptions{
		Listen: netip.AddrPortFrom(router, panelPort).String(), Replicas: backends, Retry: true,
	}); err != nil {
		return err
	}
	if h.api, err = cluster.NewClient(url, h.token); err != nil {
		return err
	}
	return cluster.Until(ctx, "the balancer finds the panels ready", func(context.Context) (bool, error) {
		return len(h.balancer.Ready()) == replicas, nil
	})
}

// openDevices enrolls and starts tunnel servers and agents, and allocates ports:
// each agent has TCP on one tunnel server and UDP on another.
func (h *house) openDevices(ctx context.Context) error {
	for i := range tunnelServers {
		d, err := h.newDevice(ctx, fmt.Sprintf("edge-%d", i+1), types.DeviceKindServer)
		if err != nil {
			return err
		}
		h.servers = append(h.servers, d)
	}
	for i := range h.options.Agents {
		d, err := h.newDevice(ctx, fmt.Sprintf("home-%d", i+1), types.DeviceKindClient)
		if err != nil {
			return err
		}
		h.agents = append(h.agents, d)
		for j, protocol := range []types.AllocationCreateProtocol{types.CreateTCP, types.CreateUDP} {
			p, err := h.allocate(ctx, d, h.servers[(i+j)%tunnelServers], protocol, "")
			if err != nil {
				return err
			}
			h.ports = append(h.ports, p)
		}
	}
	return nil
}

// newDevice enrolls a device and starts it.
func (h *house) newDevice(ctx context.Context, name string, kind types.DeviceKind) (*device, error) {
	at, err := h.world.add(ctx, name)
	if err != nil {
		return nil, err
	}
	d := &device{place: at}
	d.channel.copyTo = h.log(name)
	d.Agent = cluster.NewAgent(h.options.Bin, h.dir, name, &d.channel)
	d.StartWith = at.Start
	d.Env = []string{
		"ECLITUNNEL_PANEL=http://" + netip.AddrPortFrom(h.world.router(), panelPort).String(),
		"ECLITUNNEL_JSON=true",
		"ECLITUNNEL_LOG_LEVEL=" + h.options.LogLevel,
		"ECLITUNNEL_METRICS_LISTEN=" + at.on(metricsPort),
	}
	if kind == types.DeviceKindServer {
		d.Env = append(d.Env, "ECLITUNNEL_RELAY_LISTEN="+at.on(relayPort), "ECLITUNNEL_BIND_HOST="+at.addr.String())
	} else if err := at.Do(func() (err error) {
		d.game, err = traffic.Listen(ctx, netip.AddrPortFrom(netip.MustParseAddr(at.inside()), gamePort).String())
		return err
	}); err != nil {
		return nil, err
	}
	if err := h.enroll(ctx, d, kind); err != nil {
		return nil, errors.Join(fmt.Errorf("enroll %s: %w", name, err), d.close())
	}
	return d, d.start()
}

// enroll has a device enrolled and approved; see test/e2e for the way that
// people go.
func (h *house) enroll(ctx context.Context, d *device, kind types.DeviceKind) error {
	start := types.EnrollmentStart{Name: d.Name, Kind: &kind}
	if kind == types.DeviceKindServer {
		host := d.place.addr.String()
		start.Server = &types.TunnelServerSettings{PublicHost: &host}
	}
	started, err := h.api.StartEnrollmentWithResponse(ctx, start)
	if err != nil {
		return err
	}
	if started.JSON200 == nil {
		return fmt.Errorf("start: %s: %s", started.Status(), started.Body)
	}
	approved, err := h.api.ApproveDeviceWithResponse(ctx, types.DeviceApproval{UserCode: started.JSON200.UserCode})
	if err != nil {
		return err
	}
	if approved.JSON200 == nil {
		return fmt.Errorf("approve: %s: %s", approved.Status(), approved.Body)
	}
	d.Device = approved.JSON200.Device
	polled, err := h.api.PollEnrollmentWithResponse(ctx, &types.PollEnrollmentParams{DeviceCode: started.JSON200.DeviceCode})
	if err != nil {
		return err
	}
	if polled.JSON200 == nil || polled.JSON200.Token == nil {
		return fmt.Errorf("poll: %s: %s", polled.Status(), polled.Body)
	}
	d.setToken(*polled.JSON200.Token)
	return nil
}

// allocate opens a public port.
func (h *house) allocate(ctx context.Context, agent, server *device, protocol types.AllocationCreateProtocol, name string) (*port, error) {
	device, at, host := agent.id(), server.id(), agent.place.inside()
	idle := 10
	answer, err := h.api.CreateAllocationWithResponse(ctx, types.AllocationCreate{
		DeviceID: &device, ServerID: &at, Protocol: protocol, LocalPort: gamePort, LocalHost: &host, Name: &name,
		Options: &types.AllocationOptions{UDPIdleSeconds: &idle},
	})
	if err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	if answer.JSON201 == nil {
		return nil, fmt.Errorf("allocate: %s: %s", answer.Status(), answer.Body)
	}
	return &port{
		Allocation: answer.JSON201.Allocations[0], agent: agent, server: server,
		counts: &h.counts, breach: h.breach, excused: true,
	}, nil
}

// devices are all of them.
func (h *house) devices() []*device { return append(append([]*device{}, h.servers...), h.agents...) }

// guests are the guest, where there is one.
func (h *house) guests() []*device {
	if h.guest == nil {
		return nil
	}
	return []*device{h.guest}
}

// portsOf are those on a tunnel server, of an agent, or both; nil is any.
func (h *house) portsOf(server, agent *device) []*port {
	var found []*port
	for _, p := range h.ports {
		if (server == nil || p.server == server) && (agent == nil || p.agent == agent) {
			found = append(found, p)
		}
	}
	return found
}

// log is where a program's output goes besides memory; nil without --logs.
func (h *house) log(name string) io.Writer {
	if h.options.Logs == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(h.options.Logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.say("no log of %s: %v", name, err)
		return nil
	}
	return f
}

// leave has the players leave, each of whom verifies that nothing is missing.
func (h *house) leave() {
	if h.stop != nil {
		h.stop()
		h.playing.Wait()
	}
}

// close ends everything.
func (h *house) close() error {
	h.leave()
	var ending errgroup.Group
	for _, d := range append(h.agents, h.guests()...) {
		ending.Go(d.close)
	}
	for _, d := range h.servers {
		ending.Go(d.close)
	}
	errs := []error{ending.Wait()}
	for _, p := range h.panels {
		if p.Process != nil {
			errs = append(errs, p.Stop())
		}
	}
	if h.balancer != nil {
		errs = append(errs, h.balancer.Close())
	}
	if h.postgres != nil {
		errs = append(errs, h.postgres.Stop())
	}
	if h.world != nil {
		errs = append(errs, h.world.close())
	}
	if h.dir != "" {
		errs = append(errs, os.RemoveAll(h.dir))
	}
	return errors.Join(errs...)
}

// lastWords are the ends of what the programs printed.
func (h *house) lastWords() string {
	var all []string
	for i, p := range h.panels {
		if p.Process != nil {
			all = append(all, fmt.Sprintf("-- panel-%d\n%s", i+1, p.LastLines(15)))
		}
	}
	for _, d := range append(append([]*device{}, h.servers...), h.agents[:min(2, len(h.agents))]...) {
		if d.process != nil {
			all = append(all, d.process.LastLines(8))
		}
	}
	return strings.Join(all, "\n")
}
