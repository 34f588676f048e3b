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
	// guestPublic is outside the range: nothing else gets the port once the guest is gone.
	guestPublic = 19999

	setupPatience = 2 * time.Minute
)

// fleet is panels, tunnel servers and agents, everything that runs for it, and its players.
type fleet struct {
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
	usage    usage
	// api asks any replica, through the balancer; apis ask one each.
	api  *client.ClientWithResponses
	apis []*client.ClientWithResponses

	stop    context.CancelFunc // Ends the players.
	playing sync.WaitGroup
	counts  tally
	guest   *device // The one that is revoked; nil before the first time.
	results []result

	mu       sync.Mutex
	progress io.Writer
	fault    string // The one in progress.
	breaches []string
	started  time.Time
}

// say prints progress.
func (fl *fleet) say(format string, args ...any) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fmt.Fprintf(fl.progress, "%7.1fs  %s\n", time.Since(fl.started).Seconds(), fmt.Sprintf(format, args...))
}

// breach notes a promise that was broken, or a byte that was wrong.
func (fl *fleet) breach(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.fault != "" {
		text = "during " + fl.fault + ": " + text
	}
	fl.breaches = append(fl.breaches, text)
	fmt.Fprintf(fl.progress, "%7.1fs  BROKEN   %s\n", time.Since(fl.started).Seconds(), text)
}

// open starts everything, until players play on every port.
func (fl *fleet) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	var err error
	if fl.dir, err = cluster.NewDir(); err != nil {
		return err
	}
	if fl.world, err = newWorld(ctx, fl.options.Apart); err != nil {
		return err
	}
	if fl.database, err = fl.world.add(ctx, "postgres"); err != nil {
		return err
	}
	at := fl.database
	if fl.postgres, err = cluster.NewPostgres(ctx, cluster.PostgresOptions{
		Dir: fl.dir, Host: at.addr, Place: at.Place, Settings: []string{"wal_retrieve_retry_interval=100ms"},
	}); err != nil {
		return err
	}
	if err := fl.postgres.Start(ctx); err != nil {
		return err
	}
	if err := fl.openPanels(ctx); err != nil {
		return err
	}
	if err := fl.openDevices(ctx); err != nil {
		return err
	}
	playing, stop := context.WithCancel(context.WithoutCancel(ctx))
	fl.stop = stop
	for _, p := range fl.ports {
		fl.playing.Go(func() { p.run(playing) })
	}
	fl.ledger = newLedger(fl)
	fl.playing.Go(func() { fl.ledger.run(playing) })
	if _, err := fl.recover(ctx, recovery{ports: fl.ports, devices: fl.devices(), listening: true}, time.Now()); err != nil {
		return err
	}
	for _, p := range fl.ports {
		p.require()
	}
	return nil
}

// openPanels starts the replicas of the panel and the balancer before them.
func (fl *fleet) openPanels(ctx context.Context) error {
	router := fl.world.router()
	url := "http://" + netip.AddrPortFrom(router, panelPort).String()
	var backends []string
	for i := range replicas {
		at, err := fl.world.add(ctx, fmt.Sprintf("panel-%d", i+1))
		if err != nil {
			return err
		}
		fl.hosts = append(fl.hosts, at)
		backends = append(backends, at.on(panelPort))
		fl.panels = append(fl.panels, cluster.NewPanel(cluster.PanelOptions{
			Bin: fl.options.Bin, Dir: filepath.Join(fl.dir, at.name), Host: at.addr.String(), Listen: panelPort,
			PublicURL: url, PortFirst: firstPublic, PortLast: lastPublic,
			Env: []string{
				"ECLITUNNEL_DATABASE_URL=" + fl.postgres.URL(),
				"ECLITUNNEL_METRICS_LISTEN=" + at.on(metricsPort),
				"ECLITUNNEL_TRUSTED_PROXIES=10.77.0.0/16,127.77.0.0/16",
			},
			Log: fl.log(at.name), Start: at.Start,
		}))
	}
	for i, p := range fl.panels {
		if err := p.Launch(); err != nil {
			return err
		}
		if i == 0 {
			// It makes the admin.
			if err := p.LogIn(ctx); err != nil {
				return err
			}
			if err := p.LiftRules(ctx); err != nil {
				return err
			}
			fl.token = p.Token
		}
		api, err := cluster.NewClient(p.URL, fl.token)
		if err != nil {
			return err
		}
		fl.apis = append(fl.apis, api)
	}
	for _, p := range fl.panels {
		if err := p.AwaitReady(ctx); err != nil {
			return err
		}
	}
	var err error
	if fl.balancer, err = cluster.StartBalancer(ctx, cluster.BalancerOptions{
		Listen: netip.AddrPortFrom(router, panelPort).String(), Replicas: backends, Retry: true,
	}); err != nil {
		return err
	}
	if fl.api, err = cluster.NewClient(url, fl.token); err != nil {
		return err
	}
	return cluster.Until(ctx, "the balancer finds the panels ready", func(context.Context) (bool, error) {
		return len(fl.balancer.Ready()) == replicas, nil
	})
}

// openDevices enrolls and starts tunnel servers and agents, and allocates ports:
// each agent has TCP on one tunnel server and UDP on another.
func (fl *fleet) openDevices(ctx context.Context) error {
	for i := range tunnelServers {
		d, err := fl.newDevice(ctx, fmt.Sprintf("edge-%d", i+1), types.DeviceKindServer)
		if err != nil {
			return err
		}
		fl.servers = append(fl.servers, d)
	}
	for i := range fl.options.Agents {
		d, err := fl.newDevice(ctx, fmt.Sprintf("home-%d", i+1), types.DeviceKindClient)
		if err != nil {
			return err
		}
		fl.agents = append(fl.agents, d)
		for j, protocol := range []types.AllocationCreateProtocol{types.CreateTCP, types.CreateUDP} {
			p, err := fl.allocate(ctx, d, fl.servers[(i+j)%tunnelServers], protocol, "")
			if err != nil {
				return err
			}
			fl.ports = append(fl.ports, p)
		}
	}
	return nil
}

// newDevice enrolls a device and starts it.
func (fl *fleet) newDevice(ctx context.Context, name string, kind types.DeviceKind) (*device, error) {
	at, err := fl.world.add(ctx, name)
	if err != nil {
		return nil, err
	}
	d := &device{place: at}
	d.channel.copyTo = fl.log(name)
	d.Agent = cluster.NewAgent(fl.options.Bin, fl.dir, name, &d.channel)
	d.StartWith = at.Start
	d.Env = []string{
		"ECLITUNNEL_PANEL=http://" + netip.AddrPortFrom(fl.world.router(), panelPort).String(),
		"ECLITUNNEL_INSECURE=true",
		"ECLITUNNEL_JSON=true",
		"ECLITUNNEL_LOG_LEVEL=" + fl.options.LogLevel,
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
	if err := fl.enroll(ctx, d, kind); err != nil {
		return nil, errors.Join(fmt.Errorf("enroll %s: %w", name, err), d.close())
	}
	return d, d.start()
}

// enroll has a device enrolled and approved; see test/e2e for the way that
// people go.
func (fl *fleet) enroll(ctx context.Context, d *device, kind types.DeviceKind) error {
	start := types.EnrollmentStart{Name: d.Name, Kind: &kind}
	if kind == types.DeviceKindServer {
		host := d.place.addr.String()
		start.Server = &types.TunnelServerSettings{PublicHost: &host}
	}
	started, err := fl.api.StartEnrollmentWithResponse(ctx, start)
	if err != nil {
		return err
	}
	if started.JSON200 == nil {
		return fmt.Errorf("start: %s: %s", started.Status(), started.Body)
	}
	approved, err := fl.api.ApproveDeviceWithResponse(ctx, types.DeviceApproval{UserCode: started.JSON200.UserCode})
	if err != nil {
		return err
	}
	if approved.JSON200 == nil {
		return fmt.Errorf("approve: %s: %s", approved.Status(), approved.Body)
	}
	d.Device = approved.JSON200.Device
	polled, err := fl.api.PollEnrollmentWithResponse(ctx, &types.PollEnrollmentParams{DeviceCode: started.JSON200.DeviceCode})
	if err != nil {
		return err
	}
	if polled.JSON200 == nil || polled.JSON200.Token == nil {
		return fmt.Errorf("poll: %s: %s", polled.Status(), polled.Body)
	}
	d.setToken(*polled.JSON200.Token)
	return nil
}

// devices are tunnel servers and agents.
func (fl *fleet) devices() []*device { return append(append([]*device{}, fl.servers...), fl.agents...) }

// guests are the guest, if there is one.
func (fl *fleet) guests() []*device {
	if fl.guest == nil {
		return nil
	}
	return []*device{fl.guest}
}

// portsOf are those on a tunnel server, of an agent, or both; nil is any.
func (fl *fleet) portsOf(server, agent *device) []*port {
	var found []*port
	for _, p := range fl.ports {
		if (server == nil || p.server == server) && (agent == nil || p.agent == agent) {
			found = append(found, p)
		}
	}
	return found
}

// log is where a program's output goes besides memory; nil without --logs.
func (fl *fleet) log(name string) io.Writer {
	if fl.options.Logs == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(fl.options.Logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fl.say("no log of %s: %v", name, err)
		return nil
	}
	return f
}

// leave ends the players, each of whom verifies that no byte is missing.
func (fl *fleet) leave() {
	if fl.stop != nil {
		fl.stop()
		fl.playing.Wait()
	}
}

// close ends everything.
func (fl *fleet) close() error {
	fl.leave()
	var ending errgroup.Group
	for _, d := range append(fl.agents, fl.guests()...) {
		ending.Go(d.close)
	}
	for _, d := range fl.servers {
		ending.Go(d.close)
	}
	errs := []error{ending.Wait()}
	for _, p := range fl.panels {
		if p.Process != nil {
			errs = append(errs, p.Stop())
		}
	}
	if fl.balancer != nil {
		errs = append(errs, fl.balancer.Close())
	}
	if fl.postgres != nil {
		errs = append(errs, fl.postgres.Stop())
	}
	if fl.world != nil {
		errs = append(errs, fl.world.close())
	}
	if fl.dir != "" {
		errs = append(errs, os.RemoveAll(fl.dir))
	}
	return errors.Join(errs...)
}

// lastOutput is the end of what each program printed.
func (fl *fleet) lastOutput() string {
	var all []string
	for i, p := range fl.panels {
		if p.Process != nil {
			all = append(all, fmt.Sprintf("-- panel-%d\n%s", i+1, p.LastLines(15)))
		}
	}
	for _, d := range append(append([]*device{}, fl.servers...), fl.agents[:min(2, len(fl.agents))]...) {
		if d.process != nil {
			all = append(all, d.process.LastLines(8))
		}
	}
	return strings.Join(all, "\n")
}
