package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/update"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

const (
	// agentTries and agentInterval are how long a service's new program may take to reach
	// the panel, and agentTimeout the same for a panel that takes its time to answer.
	agentTries    = 60
	agentInterval = time.Second
	agentTimeout  = 90 * time.Second
)

// restartService restarts this user's service, or as root the system's, if one runs, and
// returns whether it has. If works then fails, the program at path is replaced by the one
// before, which is started again. A nil works means that nothing is checked.
//
// The program at path is asked to do it: it knows the services of this system.
func (a *app) restartService(ctx context.Context, path string, works func(context.Context) error) (bool, error) {
	if !serviceRuns(ctx, path) {
		return false, nil
	}
	_, err := callService(ctx, path, "restart")
	if err == nil && works != nil {
		err = works(ctx)
	}
	if err == nil || works == nil {
		return err == nil, err
	}
	if ctx.Err() != nil {
		return false, fmt.Errorf("nobody knows yet whether the new program works: %w", err)
	}
	if back := update.Swap(path); back != nil {
		return false, errors.Join(err, back)
	}
	if _, back := callService(ctx, path, "restart"); back != nil {
		return false, errors.Join(err, back)
	}
	return false, fmt.Errorf("the service does not work with the new program: %w. It runs the one from before again; the new one is kept as %s", err, update.Old(path))
}

// serviceRuns reports whether there is a service that runs. Where services cannot be told,
// there is none.
func serviceRuns(ctx context.Context, path string) bool {
	printed, err := callService(ctx, path, "status", "--json")
	var state struct {
		Running bool `json:"running"`
	}
	return err == nil && json.Unmarshal(printed, &state) == nil && state.Running
}

// callService has the program at path run a command about the service.
func callService(ctx context.Context, path string, args ...string) ([]byte, error) {
	args = append([]string{"service"}, args...)
	if runtime.GOOS != "windows" && os.Geteuid() != 0 {
		args = append(args, "--user")
	}
	printed, err := exec.CommandContext(ctx, path, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("eclitunnel %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return printed, err
}

// awaitAgent waits until the panel says that the device's agent is online in a version.
func (a *app) awaitAgent(ctx context.Context, client *tunnel.Client, c agent.Config, version string) error {
	if c.DeviceID == uuid.Nil {
		return nil // There is nobody to ask the panel for.
	}
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	var failed error
	for range agentTries {
		device, err := client.Device(ctx, c.DeviceID)
		if now, _ := device.AgentVersion.Get(); err == nil && device.Online && now == version {
			return nil
		}
		failed = err
		if a.wait(ctx, agentInterval) != nil {
			break
		}
	}
	return errors.Join(errors.New("it does not reach the panel"), failed)
}
