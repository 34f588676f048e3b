package main

import (
	"context"
	"fmt"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

type checkCmd struct {
	Target string `arg:"" optional:"" name:"id-port-or-name" help:"Id, public port or name of an allocation, as list shows them (default: all ports)."`
}

func (*checkCmd) Help() string {
	return `Follows a player's way through the public port to the game, and names the first hop that is broken. Each port takes up to ten seconds. The game is asked for its status, and may log that.`
}

// Run implements the command. It returns errNotReachable if players cannot join one of the ports.
func (cmd *checkCmd) Run(ctx context.Context, a *app, s *settings) error {
	_, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	chosen, err := cmd.find(ctx, client)
	if err != nil {
		return err
	}
	if len(chosen) == 0 && !s.JSON {
		a.printf("No ports are open. Open one with: eclitunnel open tcp PORT")
		return nil
	}
	checks := make([]types.AllocationCheck, 0, len(chosen))
	broken := false
	for _, o := range chosen {
		check, err := client.CheckAllocation(ctx, o.ID)
		if err != nil {
			return fmt.Errorf("check %s %s: %w", o.Protocol, o.PublicAddress, err)
		}
		checks = append(checks, check)
		broken = broken || !joinable(check)
		if !s.JSON {
			a.printCheck(o, check)
		}
	}
	if s.JSON {
		if err := a.printJSON(checks); err != nil {
			return err
		}
	}
	if broken {
		return errNotReachable
	}
	return nil
}

// find returns the allocations that Target names, with the other protocol on the same port, or all
// without one.
func (cmd *checkCmd) find(ctx context.Context, client *tunnel.Client) ([]types.Allocation, error) {
	if cmd.Target == "" {
		return client.Allocations(ctx)
	}
	return (&named{Target: cmd.Target}).find(ctx, client)
}

func joinable(check types.AllocationCheck) bool {
	return check.Outcome == types.CheckReachable || check.Outcome == types.CheckOpen
}

// hopMarks begin the lines of hops: readable without colour.
var hopMarks = map[types.CheckHopState]string{
	types.HopOk: "ok", types.HopFailed: "FAILED", types.HopSkipped: "-", types.HopUnknown: "?",
}

var hopNames = map[types.CheckHopHop]string{
	types.HopPort: "port", types.HopTunnelServer: "tunnel server", types.HopAgent: "agent", types.HopLink: "link",
	types.HopGame: "game", types.HopName: "public name", types.HopPublicPort: "public port",
}

// printCheck prints the sentence first, and the hops below.
func (a *app) printCheck(o types.Allocation, check types.AllocationCheck) {
	a.printf("%s %s: %s", o.Protocol, o.PublicAddress, check.Message)
	for _, hop := range check.Hops {
		a.printf("  %-6s  %-13s  %s", hopMarks[hop.State], hopNames[hop.Hop], hop.Detail)
	}
	if g := check.Game; g != nil {
		a.printf("  game    %s", gameLine(*g))
	}
}

// gameLine describes a game by what it says of itself.
func gameLine(g types.GameStatus) string {
	line := string(g.Kind)
	if g.Name != nil {
		line += fmt.Sprintf(" %q", *g.Name)
	}
	if g.Version != nil {
		line += ", version " + *g.Version
	}
	if g.Players != nil && g.MaxPlayers != nil {
		line += fmt.Sprintf(", %d of %d players", *g.Players, *g.MaxPlayers)
	}
	if g.RoundTripMs != nil {
		line += fmt.Sprintf(", %.0f ms", *g.RoundTripMs)
	}
	return line
}
