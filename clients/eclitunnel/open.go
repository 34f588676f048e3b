package main

import (
	"context"
	"fmt"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// checkInterval is the time between two checks of whether players can join.
const checkInterval = 250 * time.Millisecond

type openCmd struct {
	Protocol        string        `arg:"" enum:"tcp,udp,tcp+udp" help:"tcp, udp, or tcp+udp for both on one public port."`
	Port            int           `arg:"" help:"Local port of the game, 1 to 65535."`
	Host            string        `env:"-" default:"127.0.0.1" help:"Local host of the game (default: 127.0.0.1)."`
	PublicPort      int           `env:"-" placeholder:"N" help:"Public port, 1 to 65535 (default: any free port)."`
	Name            string        `env:"-" help:"Label to recognise the port by."`
	ProxyProtocol   string        `env:"-" enum:"none,v1,v2" default:"none" help:"Send the game its players' addresses in a PROXY protocol header: none, v1 (tcp only) or v2 (default: none)."`
	PlayerAddresses bool          `env:"-" default:"true" negatable:"" help:"Let a game at 127.0.0.1 see each player at an address of its own in 127.0.0.0/8, for its limits and bans. Without it all players are 127.0.0.1 (default: true)."`
	UDPIdle         time.Duration `env:"-" name:"udp-idle" placeholder:"DURATION" help:"End a player's UDP flow after this time without a datagram, 5s to 1h (default: 60s)."`
	Wait            time.Duration `env:"-" default:"10s" help:"How long to wait until players can join; 0s does not wait (default: 10s)."`
}

func (*openCmd) Help() string {
	return `Prints the public address. Waits until players can join, the port has failed, or the panel reports that the agent is offline.`
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
	opened, err := client.CreateAllocation(ctx, request)
	if err != nil {
		return usageIfInvalid(err)
	}
	opened, waitErr := cmd.await(ctx, a, client, opened)
	if s.JSON {
		err = a.printJSON(opened)
	} else {
		a.printAllocations(opened)
	}
	if err != nil {
		return err
	}
	cmd.warnAllow(a, c)
	if waitErr != nil {
		return waitErr
	}
	return a.judge(opened)
}

func (cmd *openCmd) request() (types.AllocationCreate, error) {
	proxy := types.ProxyProtocol(cmd.ProxyProtocol)
	r := types.AllocationCreate{
		Protocol:  types.AllocationCreateProtocol(cmd.Protocol),
		LocalPort: cmd.Port,
		LocalHost: &cmd.Host,
		Options:   &types.AllocationOptions{ProxyProtocol: &proxy},
	}
	if cmd.Port < 1 || cmd.Port > 65535 {
		return r, usagef("the local port must be between 1 and 65535")
	}
	if cmd.PublicPort < 0 || cmd.PublicPort > 65535 {
		return r, usagef("--public-port must be between 1 and 65535")
	}
	if proxy == types.ProxyProtocolV1 && cmd.Protocol != string(types.ProtocolTCP) {
		return r, usagef("--proxy-protocol v1 cannot describe UDP; use v2, or open tcp and udp separately")
	}
	if cmd.PublicPort != 0 {
		r.Port = &cmd.PublicPort
	}
	if cmd.Name != "" {
		r.Name = &cmd.Name
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

// await polls the allocations until none is pending or cmd.Wait has passed, and returns
// their last state. It counts the waits and reads no clock.
func (cmd *openCmd) await(ctx context.Context, a *app, client *tunnel.Client, opened []types.Allocation) ([]types.Allocation, error) {
	for left := cmd.Wait; left > 0 && anyPending(opened); left -= checkInterval {
		if err := a.wait(ctx, min(left, checkInterval)); err != nil {
			return opened, err
		}
		for i := range opened {
			now, err := client.Allocation(ctx, opened[i].ID)
			if err != nil {
				return opened, err
			}
			opened[i] = now
		}
	}
	return opened, nil
}

func anyPending(allocations []types.Allocation) bool {
	for _, a := range allocations {
		if a.Status == types.AllocationPending {
			return true
		}
	}
	return false
}

// warnAllow warns if the enrollment does not permit the local host. A running agent may
// still permit it, by its own --allow.
func (cmd *openCmd) warnAllow(a *app, c agent.Config) {
	list, err := agent.ParseAllowList(c.Allow)
	if err == nil && list.Check(cmd.Host) != nil {
		a.warnf("%s is not on this machine's allow-list; if the agent does not permit it yet, start it with: eclitunnel run --allow %s", cmd.Host, cmd.Host)
	}
}

// judge tells why players cannot join. It returns an error if a port has failed.
func (a *app) judge(opened []types.Allocation) error {
	for _, o := range opened {
		reason, _ := o.StatusReason.Get() // "" if there is none.
		switch o.Status {
		case types.AllocationFailed:
			return fmt.Errorf("%w: %s %s: %s", errNotServed, o.Protocol, o.PublicAddress, reason)
		case types.AllocationOffline:
			a.warnf("%s %s is offline: %s\nStart the agent with: eclitunnel run", o.Protocol, o.PublicAddress, reason)
			return nil
		case types.AllocationPending:
			a.warnf("%s %s is still pending; check it with: eclitunnel list", o.Protocol, o.PublicAddress)
			return nil
		}
	}
	return nil
}
