package main

import (
	"context"
	"fmt"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

type pauseCmd struct{ named }

func (*pauseCmd) Help() string {
	return `Disconnects the players on the port at once and closes it. The port stays yours: eclitunnel resume opens it again. It takes the same arguments as eclitunnel close.`
}

// Run implements the command.
func (cmd *pauseCmd) Run(ctx context.Context, a *app, s *settings) error {
	return cmd.enable(ctx, a, s, false)
}

type resumeCmd struct{ named }

func (*resumeCmd) Help() string {
	return `Opens a port that eclitunnel pause has closed. It takes the same arguments as eclitunnel close.`
}

// Run implements the command.
func (cmd *resumeCmd) Run(ctx context.Context, a *app, s *settings) error {
	return cmd.enable(ctx, a, s, true)
}

// enable resumes the allocations that Target names, or pauses them. Those that are so already stay so.
func (cmd *named) enable(ctx context.Context, a *app, s *settings, enabled bool) error {
	verb, past := "pause", "paused"
	if enabled {
		verb, past = "resume", "resumed"
	}
	_, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	chosen, err := cmd.find(ctx, client)
	if err != nil {
		return err
	}
	for i, o := range chosen {
		if chosen[i], err = client.UpdateAllocation(ctx, o.ID, types.AllocationPatch{Enabled: &enabled}); err != nil {
			return fmt.Errorf("%s %s %s: %w", verb, o.Protocol, o.PublicAddress, err)
		}
		if !s.JSON {
			a.printf("%s %s %s", past, o.Protocol, o.PublicAddress)
		}
	}
	if s.JSON {
		return a.printJSON(chosen)
	}
	return nil
}
