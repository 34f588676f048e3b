package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/diagnostics"
)

type runCmd struct {
	Plain bool `help:"Print lines instead of a picture, as where standard output is no terminal (default: false)."`

	Allow      []string `placeholder:"HOST[:PORTS]" help:"Local host that the agent may reach in addition to those of the enrollment: a name, an IP address or a prefix, with all its ports, or one or a range such as game.lan:2456-2458. Repeatable."`
	AllowPorts []string `placeholder:"PORTS" help:"Ports of this machine that the agent may reach, with those of the enrollment, such as 25565,2456-2458 (default: all, if the enrollment has none)."`

	Tunnels string `lines:"" placeholder:"LIST" help:"Ports to open when the agent starts, such as minecraft=tcp:25565,voice=udp:24454: [NAME=]PROTOCOL:[PUBLIC->]TARGET, with a target as of the command open. What is open by a name is changed to match, and other ports stay. The agent may reach the hosts of these targets (default: none)."`

	unattended `embed:""`

	SocketGroup string `placeholder:"NAME" help:"Group whose members may use the agent's socket, besides its user and the person who enrolled it with sudo (default: none)."`

	Standby    bool `help:"If an agent of this device already runs on this machine, wait until it ends, and serve then, instead of exiting with code 13. For services (default: false)."`
	AutoUpdate bool `help:"Replace the program by a newer signed one that the panel hands out, when nobody plays or after a day, and exit with code 15 for the service manager to start it. If it does not reach the panel, the one before is put back (default: false)."`

	StateDir string `placeholder:"DIR" help:"Directory for the last state from the panel, used at a start while the panel is down, and for a tunnel server's own key (default: that of the enrollment)."`

	PlayerAddresses bool `default:"true" negatable:"" help:"Let games at 127.0.0.1 see each player at an address of its own in 127.0.0.0/8, where the system has these, for ports without --proxy-protocol. Without it all players are 127.0.0.1 (default: true)."`
	PlainStreams    bool `help:"Do not encrypt players' TCP bytes between agent and tunnel server if the other end also has this flag. Only for networks that are already encrypted, or trusted (default: false)."`

	tunnelServerFlags `embed:""`

	LogLevel  string `enum:"debug,info,warn,error" default:"warn" help:"Lowest level to log: debug, info, warn or error (default: warn)."`
	LogFormat string `enum:"text,json" default:"text" help:"Format of the log on standard error: text or json (default: text)."`

	MetricsListen  string `placeholder:"HOST:PORT" help:"Address of /metrics for Prometheus. Restrict it to this machine or the operator's network (default: none)."`
	ProfilesListen string `placeholder:"HOST:PORT" help:"Address of /debug/pprof/, which shows the agent's memory, including the token. Restrict it to this machine (default: none)."`
}

func (*runCmd) Help() string {
	return `In a terminal it draws its ports, players and traffic in place. Elsewhere, and with --plain, it prints lines about its connection and its ports. With --json it prints one event per line: connected, disconnected, switched_off, standby, public_host, allocation_ready, allocation_failed, allocation_target, allocation_closed, stopped. It reconnects automatically. SIGINT, SIGTERM and SIGHUP stop it with exit code 0; under nohup SIGHUP does not.

One agent serves a device. A second one on the same machine exits with code 13. If a second one starts on another machine, it takes over and the first one stands by: it serves again once the second has been gone for a minute.

A device of kind server runs a tunnel server: it accepts players on public ports and agents on --relay-listen.`
}

// Run implements the command.
func (cmd *runCmd) Run(ctx context.Context, a *app, s *settings) error {
	return underManager(ctx, func(ctx context.Context) error { return cmd.run(ctx, a, s) })
}

func (cmd *runCmd) run(ctx context.Context, a *app, s *settings) (err error) {
	specs, err := parseTunnels(cmd.Tunnels)
	if err != nil {
		return err
	}
	c, client, err := cmd.device(ctx, a, s, logger(a.stderr, cmd.LogLevel, cmd.LogFormat))
	if err != nil {
		return err
	}
	defer client.Close()
	kind, err := tunnel.DeviceKind(c.Token)
	if err != nil {
		return usagef("the device token: %w", err)
	}
	s.warnExposed(a)
	r := &running{runCmd: cmd, app: a, settings: s, config: c, client: client, kind: kind, specs: specs}
	if !s.JSON && kind == types.DeviceKindClient {
		r.picture = a.newPicture(cmd.Plain)
	}
	r.log = logger(r.picture.log(a.stderr), cmd.LogLevel, cmd.LogFormat).With(slog.String("deviceId", c.DeviceID.String()))
	instance, err := cmd.claim(ctx, a, s, c.DeviceID, r.log)
	defer func() { err = errors.Join(err, instance.Release()) }()
	if ctx.Err() != nil {
		return nil // It was stopped while it waited.
	}
	if err != nil {
		return err
	}
	if r.updates, err = r.newAutoUpdate(); err != nil {
		return err
	}
	r.onEvent = r.updates.watch(instance.Watch(r.events()))
	r.endpoint, err = diagnostics.Start(ctx, diagnostics.Options{
		MetricsListen: cmd.MetricsListen, ProfilesListen: cmd.ProfilesListen,
		Program: "eclitunnel", Version: version, Commit: commit, Logger: r.log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.endpoint.Close()) }()
	r.state = cmd.file(s, c.DeviceID, "state.json")
	if kind == types.DeviceKindServer {
		if len(specs) > 0 {
			return usagef("--tunnels is for the agent beside a game, and this device is a tunnel server")
		}
		return r.tunnelServer(ctx)
	}
	return r.tunnelClient(ctx)
}

// running is what a run consists of.
type running struct {
	*runCmd
	app      *app
	settings *settings
	config   agent.Config
	client   *tunnel.Client
	kind     types.DeviceKind
	specs    []tunnelSpec // Of --tunnels.
	log      *slog.Logger
	picture  *picture    // nil: lines, or JSON.
	updates  *autoUpdate // nil: none.
	onEvent  func(agent.Event)
	endpoint *diagnostics.Endpoint
	state    string // The file of the desired state; "": none.
}

// events returns what prints events.
func (r *running) events() func(agent.Event) {
	switch {
	case r.picture != nil:
		return func(agent.Event) {} // The picture has them.
	case r.settings.JSON:
		// Players must stay connected even if the reader of the events has exited.
		return func(e agent.Event) { _ = r.app.printJSON(e) }
	default:
		show := &display{app: r.app, panel: r.client.PanelURL(), device: deviceLabel(r.config.Name, r.config.DeviceID)}
		return show.line
	}
}

func (r *running) tunnelServer(ctx context.Context) error {
	options := agent.TunnelServerOptions{
		Client:    r.client,
		Device:    r.config.DeviceID,
		KeyFile:   r.file(r.settings, r.config.DeviceID, "key.pem"),
		StateFile: r.state,
		Logger:    r.log,
		Version:   version,
		OnEvent:   r.onEvent,
		Metrics:   r.endpoint.Metrics(),

		PlainStreams: r.PlainStreams,
	}
	defer r.serveLocal(ctx, nil)()
	return r.serveTunnels(ctx, r.app, r.settings, options)
}

func (r *running) tunnelClient(ctx context.Context) error {
	if r.state == "" {
		r.log.WarnContext(ctx, "the desired state is not kept: a restart will need the panel",
			slog.String("reason", "there is no directory for it; set one with --state-dir"))
	}
	allow, allowPorts := allowTargets(r.specs, append(r.config.Allow, r.Allow...), append(r.config.AllowPorts, r.AllowPorts...))
	served, err := agent.New(agent.Options{
		Client:     r.client,
		Name:       r.config.Name,
		Allow:      allow,
		AllowPorts: allowPorts,
		StateFile:  r.state,
		Logger:     r.log,
		Version:    version,
		OnEvent:    r.onEvent,
		Metrics:    r.endpoint.Metrics(),

		PlainStreams: r.PlainStreams,
		OneAddress:   !r.PlayerAddresses,
	})
	if err != nil {
		return &usageError{err}
	}
	defer r.serveLocal(ctx, served)()
	if r.picture != nil {
		var drawing sync.WaitGroup
		defer drawing.Wait()
		drawing.Go(func() {
			// It ends after the agent, whose last state stays in sight.
			_ = r.picture.follow(context.WithoutCancel(ctx), func(ctx context.Context, show func(agent.Snapshot) error) error {
				defer r.picture.without("stopped")
				return served.Watch(ctx, show)
			})
		})
	}
	defer openTunnels(ctx, r.app, r.client, r.specs, r.log)()
	return r.updates.serve(ctx, served)
}

// file returns the path of a file that belongs to a device. It returns "" if there is no
// directory for it: a container that is given a token may have no home directory.
func (cmd *runCmd) file(s *settings, device uuid.UUID, suffix string) string {
	dir := cmd.StateDir
	if dir == "" {
		path, err := s.path()
		if err != nil {
			return ""
		}
		dir = filepath.Dir(path)
	}
	// The name contains the device, because the token may be of another device than the
	// enrollment.
	return filepath.Join(dir, device.String()+"."+suffix)
}

func logger(w io.Writer, level, format string) *slog.Logger {
	var minimum slog.Level
	if err := minimum.UnmarshalText([]byte(level)); err != nil {
		minimum = slog.LevelWarn // The command line accepts no other names.
	}
	options := &slog.HandlerOptions{Level: minimum}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// display prints events for people, one per line.
type display struct {
	app           *app
	panel, device string
	lastReason    string         // The reason in the last "not connected" line.
	down          map[int64]bool // Allocations that were said to have no game.
}

func (d *display) line(e agent.Event) {
	switch e.Type {
	case agent.EventConnected:
		d.lastReason = ""
		d.printf("connected to %s as %s", d.panel, d.device)
	case agent.EventDisconnected, agent.EventSwitchedOff:
		if e.Reason == d.lastReason {
			return // It retries every few seconds; one line is enough.
		}
		d.lastReason = e.Reason
		d.printf("not connected: %s, reconnecting", e.Reason)
	case agent.EventStandby:
		d.lastReason = ""
		d.printf("standing by: another agent of this device took over (%s); this one serves again once that one has been gone for a minute", e.Reason)
	case agent.EventAllocationReady:
		d.printf("ready   %s", port(e))
	case agent.EventAllocationFailed:
		d.printf("failed  %s: %s", port(e), e.Reason)
	case agent.EventAllocationTarget:
		d.target(e)
	case agent.EventAllocationClosed:
		delete(d.down, e.Allocation.ID)
		d.printf("closed  %s", port(e))
	case agent.EventPublicHost:
		d.printf("players and agents reach this tunnel server at %s", hostLine(e.Host.PublicHost, e.Host.PublicHostGuessed))
		if e.Host.PublicHostWarning != nil {
			d.printf("warning: %s", *e.Host.PublicHostWarning)
		}
	case agent.EventStopped:
		d.printf("stopped")
	}
}

// target prints that a game cannot be reached, and that it can again.
func (d *display) target(e agent.Event) {
	wasDown := d.down[e.Allocation.ID]
	switch {
	case e.Target == types.TargetDown:
		if d.down == nil {
			d.down = map[int64]bool{}
		}
		d.down[e.Allocation.ID] = true
		d.printf("no game %s: %s", port(e), e.Reason)
		return
	case wasDown && e.Target == types.TargetUp:
		d.printf("game    %s: the game is there", port(e))
	case wasDown:
		d.printf("game    %s: players are no longer refused", port(e))
	}
	delete(d.down, e.Allocation.ID)
}

func (d *display) printf(format string, args ...any) {
	d.app.printf("%s  %s", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func port(e agent.Event) string {
	a := e.Allocation
	text := fmt.Sprintf("%s  %s -> %s", a.Protocol, a.PublicAddress, a.LocalAddress)
	if a.Name != "" {
		text += "  " + a.Name
	}
	if host, number, err := net.SplitHostPort(a.PublicAddress); err == nil && a.Protocol == types.ProtocolUDP {
		if addresses := asAddresses(host, number, a.PublicAddresses); addresses != "" {
			text += "  (IP address: " + addresses + ")"
		}
	}
	return text
}
