package main

import (
	"context"
	"runtime"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

type statusCmd struct{}

// status is the output of --json.
type status struct {
	PanelURL     string             `json:"panelUrl"`
	PanelVersion string             `json:"panelVersion"`
	Device       types.Device       `json:"device"`
	Allocations  []types.Allocation `json:"allocations"`
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
	if s.JSON {
		return a.printJSON(st)
	}
	a.printf("panel   %s (version %s)", st.PanelURL, st.PanelVersion)
	a.printf("device  %s", deviceLabel(st.Device.Name, st.Device.ID))
	a.printf("agent   %s", agentLine(st.Device))
	listening := 0
	for _, o := range st.Allocations {
		if o.Status == types.AllocationListening {
			listening++
		}
	}
	a.printf("ports   %d open, %d listening", len(st.Allocations), listening)
	if len(st.Allocations) > 0 {
		a.printf("")
		a.printAllocations(st.Allocations)
	}
	return nil
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
