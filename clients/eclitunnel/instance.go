package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
)

// claimInterval is the wait between two attempts to take the place of another agent on
// this machine. Each takes a second.
const claimInterval = 2 * time.Second

// claim makes this process the only agent of its device on this machine. With --standby
// it waits until it can, or ctx ends.
func (cmd *runCmd) claim(ctx context.Context, a *app, s *settings, device uuid.UUID, log *slog.Logger) (*agent.Instance, error) {
	for notified := false; ; notified = true {
		instance, err := agent.ClaimInstance(ctx, s.claimDirs(a, cmd.StateDir), device)
		var other *agent.InstanceError
		switch {
		case !errors.As(err, &other):
			if err != nil && ctx.Err() == nil {
				log.Warn("a second agent on this machine will not be noticed", slog.Any("error", err))
			}
			return instance, nil
		case !cmd.Standby:
			return nil, err
		case !notified:
			log.Info("standing by", slog.String("reason", other.Error()))
			cmd.notifyStandby(a, s, other)
		}
		if err := a.wait(ctx, claimInterval); err != nil {
			return nil, err
		}
	}
}

func (*runCmd) notifyStandby(a *app, s *settings, other *agent.InstanceError) {
	if !s.JSON {
		a.printf("%s  standing by: %s; this one serves once that one ends", time.Now().Format(time.TimeOnly), other)
		return
	}
	// Players do not depend on the reader of the events.
	_ = a.printJSON(agent.Event{Time: time.Now().UTC(), Type: agent.EventStandby, Reason: other.Error()})
}

// claimDirs returns the directories in which an agent claims its device: that of the
// enrollment, whatever link leads to it, and that of the state if it is another one. A
// token from elsewhere has only the latter.
func (s *settings) claimDirs(a *app, stateDir string) []string {
	var dirs []string
	variable, _ := a.variable("ECLITUNNEL_TOKEN")
	path, err := s.path()
	if err == nil && (stateDir == "" || s.TokenFile == "" && variable == "") {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	if stateDir != "" {
		dirs = append(dirs, stateDir)
	}
	return dirs
}
