package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// checkInterval is the time between two checks of whether players can join.
	checkInterval = 250 * time.Millisecond
	// failureLimit is for how long a port fails before open gives up. Some failures pass:
	// an agent that is just linking to a tunnel server tries again.
	failureLimit = 3 * time.Second
	// closeAgainLimit is the time for closing the ports of an open that has failed, which
	// are up to 32, one after another.
	closeAgainLimit = 10 * time.Second
	// targetLimit is for how long open waits to be told whether there is a game once
	// players can join. Of some games it is not known before the first player.
	targetLimit = time.Second
)

type openCmd struct {
	Protocol        word              `arg:"" enum:"tcp,udp,tcp+udp" help:"tcp, udp, or tcp+udp for both on one public port, as Minecraft Bedrock Edition needs."`
	Target          string            `arg:"" name:"port" help:"Local port of the game, 1 to 65535, or up to 16 neighbouring ports, such as 2456-2458. HOST:PORT is a port of another host."`
	Host            string            `env:"-" placeholder:"HOST" help:"Local host of the game (default: 127.0.0.1)."`
	PublicPort      int               `env:"-" placeholder:"N" help:"Public port, 1 to 65535, of neighbouring ports the first. Outside the tunnel server's range an admin has to permit it (default: any free port)."`
	Name            string            `env:"-" help:"Label to recognise the port by."`
	ProxyProtocol   word              `env:"-" enum:"none,v1,v2," default:"" placeholder:"NAME" help:"Send the game its players' addresses in a PROXY protocol header: none, v1 (tcp only) or v2 (default: none)."`
	PlayerAddresses bool              `env:"-" default:"true" negatable:"" help:"Let a game at 127.0.0.1 see each player at an address of its own in 127.0.0.0/8, for its limits and bans. Without it all players are 127.0.0.1 (default: true)."`
	UDPIdle         time.Duration     `env:"-" name:"udp-idle" placeholder:"DURATION" help:"End a player's UDP flow after this time without a datagram, 5s to 1h (default: 60s)."`
	Wait            time.Duration     `env:"-" default:"10s" help:"How long to wait until players can join; 0s does not wait (default: 10s)."`
	Label           map[string]string `env:"-" mapsep:"none" placeholder:"KEY=VALUE" help:"Label for tools to find the port by, such as game=minecraft. Can be repeated, up to 16 times."`
	New             bool              `env:"-" help:"Open another public port if the game has one already (default: false)."`
}

func (*openCmd) Help() string {
	return `Prints the public address. Waits until players can join, the port has failed for some seconds, or the panel reports that the agent is offline. A port that has failed for that long, or for all of a shorter --wait, is closed again.

Neighbouring ports get public ports with the same offsets, all or none: open udp 2456-2458 may give 24510 to 24512.

If the same local port is open already, with the options given, prints that public address and opens no other.

While the agent is offline, the port stays open and the exit code is 12; with --wait 0s it is 0.`
}

// Run implements the command.
func (cmd *openCmd) Run(ctx context.Context, a *app, s *settings) error {
	request, err := cmd.request()
	if err != nil {
		return err
	}
	c, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	var opened []types.Allocation
	if !cmd.New {
		allocations, err := client.Allocations(ctx)
		if err != nil {
			return err
		}
		opened = findOpen(allocations, request)
	}
	created := opened == nil
	if created {
		opened, err = client.CreateAllocation(ctx, request)
		if err != nil {
			return usageIfInvalid(err)
		}
	} else {
		a.warnf("%s %s is open already; to open another public port for it, add --new", cmd.Protocol, cmd.Target)
	}
	opened, failed, err := cmd.await(ctx, a, client, opened)
	if err == nil {
		err = cmd.judge(opened, errNotServed)
	}
	if created && (failed || interrupted(err)) {
		left := a.closeAgain(ctx, client, opened)
		if failed && len(left) == 0 {
			err = cmd.judge(opened, errOpenFailed)
		}
		opened = left
	}
	switch {
	case len(opened) == 0: // Closed again, or by somebody else.
	case s.JSON:
		err = errors.Join(a.printJSON(opened), err)
	default:
		a.printAllocations(opened)
	}
	for _, o := range opened {
		if noGame(o) {
			a.warnf("%s", noGameLine(o))
		}
	}
	a.warnAllow(c, request)
	return err
}

func (cmd *openCmd) request() (types.AllocationCreate, error) {
	r := types.AllocationCreate{
		Protocol: types.AllocationCreateProtocol(cmd.Protocol),
		Options:  &types.AllocationOptions{},
	}
	target, err := parseTarget(cmd.Target, cmd.Host)
	if err != nil {
		return r, err
	}
	r.LocalHost, r.LocalPort = &target.host, target.first
	if target.count > 1 {
		r.Count = &target.count // A panel that does not know it yet refuses it.
	}
	if cmd.PublicPort < 0 || cmd.PublicPort > lastPort-target.count+1 {
		return r, usagef("--public-port must be between 1 and %d", lastPort-target.count+1)
	}
	if cmd.ProxyProtocol == word(types.ProxyProtocolV1) && cmd.Protocol != word(types.ProtocolTCP) {
		return r, usagef("--proxy-protocol v1 cannot describe UDP; use v2, or open tcp and udp separately")
	}
	if cmd.PublicPort != 0 {
		r.Port = &cmd.PublicPort
	}
	if cmd.ProxyProtocol != "" {
		proxy := types.ProxyProtocol(cmd.ProxyProtocol)
		r.Options.ProxyProtocol = &proxy
	}
	if cmd.Name != "" {
		r.Name = &cmd.Name
	}
	if len(cmd.Label) > 0 { // As with the next option.
		labels := types.Labels(cmd.Label)
		r.Labels = &labels
	}
	if !cmd.PlayerAddresses { // Panels that do not know it yet refuse the option.
		r.Options.PlayerAddresses = &cmd.PlayerAddresses
	}
	if cmd.UDPIdle != 0 {
		if cmd.UDPIdle < 5*time.Second || cmd.UDPIdle > time.Hour || cmd.UDPIdle%time.Second != 0 {
			return r, usagef("--udp-idle must be whole seconds between 5s and 1h")
		}
		seconds := int(cmd.UDPIdle / time.Second)
		r.Options.UDPIdleSeconds = &seconds
	}
	return r, nil
}

// await polls the allocations until all are settled or cmd.Wait has passed, and returns
// the last state of those that still exist, and whether one has failed for good: for
// failureLimit, or at every check. It counts the waits and reads no clock.
func (cmd *openCmd) await(ctx context.Context, a *app, client *tunnel.Client, opened []types.Allocation) ([]types.Allocation, bool, error) {
	var failed time.Duration // For how long an allocation has been failed,
	var joined time.Duration // and players could join all of them.
	always := cmd.Wait > 0   // One was failed at every check.
	for left := cmd.Wait; left > 0 && failed < failureLimit; left -= checkInterval {
		switch {
		case has(opened, types.AllocationFailed):
			failed += checkInterval
		case has(opened, types.AllocationPending):
			failed = 0
		case joined < targetLimit && slices.ContainsFunc(opened, targetPending):
			joined += checkInterval
		default:
			return opened, false, nil
		}
		if err := a.wait(ctx, min(left, checkInterval)); err != nil {
			return opened, false, err
		}
		allocations, err := client.Allocations(ctx)
		if err != nil {
			return opened, false, fmt.Errorf("check whether players can join: %w", err)
		}
		var now []types.Allocation
		for _, o := range opened {
			if i := slices.IndexFunc(allocations, func(a types.Allocation) bool { return sameAllocation(a, o) }); i >= 0 {
				now = append(now, allocations[i])
			}
		}
		if len(now) < len(opened) {
			return now, false, fmt.Errorf("%w: it was closed meanwhile", errNoAllocation)
		}
		opened = now
		always = always && has(opened, types.AllocationFailed)
	}
	return opened, has(opened, types.AllocationFailed) && (always || failed >= failureLimit), nil
}

func has(allocations []types.Allocation, status types.AllocationStatus) bool {
	return slices.ContainsFunc(allocations, func(a types.Allocation) bool { return a.Status == status })
}

// targetPending reports whether it may be known soon whether an allocation has a game. A panel
// that does not say it leaves the field empty.
func targetPending(o types.Allocation) bool {
	return o.Status == types.AllocationListening && o.Target == types.TargetUnknown
}

// warnAllow warns if the enrollment does not permit the local target. A running agent may
// still permit it, by its own flags.
func (a *app) warnAllow(c agent.Config, request types.AllocationCreate) {
	list, err := agent.ParseAllowList(c.Allow, c.AllowPorts)
	if err != nil {
		return // The agent says so.
	}
	first, count := request.LocalPort, 1
	if request.Count != nil {
		count = *request.Count
	}
	for port := first; port < first+count; port++ {
		var refused *agent.NotAllowedError
		if errors.As(list.Check(*request.LocalHost, port), &refused) {
			ports := strconv.Itoa(first) + through(first, count-1)
			a.warnf("%s is not on this machine's allow-list; if the agent does not permit it yet, end it and start it with: eclitunnel run %s",
				net.JoinHostPort(*request.LocalHost, ports), refused.Flag(ports))
			return
		}
	}
}

// judge returns an error that wraps verdict and tells why players cannot join, or nil if
// they can. With --wait 0s, the caller does not want to know.
func (cmd *openCmd) judge(opened []types.Allocation, verdict error) error {
	if cmd.Wait <= 0 {
		return nil
	}
	for _, h := range []struct {
		status types.AllocationStatus
		hint   string
	}{
		{types.AllocationFailed, ""},
		{types.AllocationDraining, ""},
		{types.AllocationPaused, "; open it again with: eclitunnel resume"},
		{types.AllocationOffline, "; if the agent does not run, start it with: eclitunnel run"},
		{types.AllocationPending, "; check it with: eclitunnel list"},
	} {
		i := slices.IndexFunc(opened, func(o types.Allocation) bool { return o.Status == h.status })
		if i < 0 {
			continue
		}
		o := opened[i]
		return fmt.Errorf("%w: %s %s is %s%s", verdict, o.Protocol, o.PublicAddress, statusLine(o), h.hint)
	}
	return nil
}

// closeAgain deletes the allocations of an open that has failed, even after a signal, and
// returns those that it could not delete.
func (a *app) closeAgain(ctx context.Context, client *tunnel.Client, opened []types.Allocation) (left []types.Allocation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeAgainLimit)
	defer cancel()
	for _, o := range opened {
		if err := client.DeleteAllocation(ctx, o.ID); err != nil && !tunnel.HasCode(err, types.CodeNotFound) {
			a.warnf("%s %s could not be closed again: %v\nClose it with: eclitunnel close id:%d", o.Protocol, o.PublicAddress, err, o.ID)
			left = append(left, o)
		}
	}
	return left
}
