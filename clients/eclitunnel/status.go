package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

type statusCmd struct{}

// status is the output of --json.
type status struct {
	PanelURL     string       `json:"panelUrl"`
	PanelVersion string       `json:"panelVersion"`
	Device       types.Device `json:"device"`
	// Here is nil where nothing is known about an agent on this machine.
	Here        *agent.InstanceInfo `json:"here"`
	Allocations []types.Allocation  `json:"allocations"`
}

// Run implements the command.
func (*statusCmd) Run(ctx context.Context, a *app, s *settings) error {
	c, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	st := status{PanelURL: client.PanelURL()}
	panel, err := client.Version(ctx)
	if err != nil {
		return err
	}
	st.PanelVersion = panel.Version
	if st.Device, err = client.Device(ctx, c.DeviceID); err != nil {
		return err
	}
	if st.Allocations, err = client.Allocations(ctx); err != nil {
		return err
	}
	stateDir, _ := a.variable("ECLITUNNEL_STATE_DIR") // The flag is one of run.
	if here, known := agent.FindInstance(s.claimDirs(a, stateDir), c.DeviceID); known {
		st.Here = &here
	}
	if a.through != nil {
		st.Here = &agent.InstanceInfo{State: agent.InstanceRunning, PID: a.through.PID}
	}
	if s.JSON {
		return a.printJSON(st)
	}
	a.printf("panel   %s (version %s)", st.PanelURL, st.PanelVersion)
	a.printf("device  %s", deviceLabel(st.Device.Name, st.Device.ID))
	a.printf("agent   %s", agentLine(st.Device))
	if server, err := st.Device.Server.Get(); err == nil {
		a.printf("host    %s", hostLine(server.PublicHost, server.PublicHostGuessed))
		a.warnHost(server)
	}
	if line := hereLine(st.Here, st.Device.Online); line != "" {
		a.printf("here    %s", line)
	}
	a.printf("ports   %s", portsLine(st.Allocations))
	if len(st.Allocations) > 0 {
		a.printf("")
		a.printAllocations(st.Allocations)
	}
	if a.printHints(st.Allocations) {
		return nil
	}
	for _, o := range st.Allocations {
		if noGame(o) {
			a.printf("%s", noGameLine(o))
		}
	}
	return nil
}

func portsLine(allocations []types.Allocation) string {
	listening, paused, without := 0, 0, 0
	for _, o := range allocations {
		if o.Status == types.AllocationPaused {
			paused++
		}
		if o.Status == types.AllocationListening {
			listening++
		}
		if noGame(o) {
			without++
		}
	}
	line := fmt.Sprintf("%d open, %d listening", len(allocations)-paused, listening)
	if without > 0 {
		line += fmt.Sprintf(", %d of them without a game", without)
	}
	if paused > 0 {
		line += fmt.Sprintf(", %d paused", paused)
	}
	return line
}

func agentLine(d types.Device) string {
	if d.Online {
		version, _ := d.AgentVersion.Get() // "" if it is unknown.
		return "online, version " + version
	}
	if seen, err := d.LastSeenAt.Get(); err == nil {
		return "offline, last seen " + seen.Local().Format(time.DateTime) + "; start it with: eclitunnel run"
	}
	return "offline, never connected; start it with: eclitunnel run"
}

// hereLine says what the agent on this machine does, or "" where agentLine says it all.
func hereLine(here *agent.InstanceInfo, online bool) string {
	switch {
	case here == nil:
		return ""
	case here.State == agent.InstanceStandby:
		return "standing by" + pid(here) + ": another agent of this device took over; this one serves again once that one has been gone for a minute"
	case here.State == agent.InstanceRunning:
		return "running" + pid(here)
	case online:
		return "not running; another machine runs an agent of this device"
	default:
		return ""
	}
}

func pid(here *agent.InstanceInfo) string {
	if here.PID == 0 {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", here.PID)
}

type versionCmd struct{}

// Run implements the command.
func (*versionCmd) Run(a *app, s *settings) error {
	if s.JSON {
		return a.printJSON(struct {
			Version  string `json:"version"`
			Commit   string `json:"commit"`
			Go       string `json:"go"`
			Platform string `json:"platform"`
		}{version, commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
	}
	a.printf("eclitunnel %s (%s, %s, %s/%s)", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}
