package handler_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
)

func TestDevice_SaysWhetherItsAgentIsOlder(t *testing.T) {
	for _, c := range []struct {
		agent, panel string
		outdated     bool
	}{
		{"0.9.0", "0.10.0", true},
		{"v0.1.0", "0.1.1", true},
		{"0.1.1", "v1.0.0", true},
		{"0.1.0", "0.1.0", false},
		{"0.2.0", "0.1.9", false},
		// Not both are releases.
		{"0.1.0-rc.1", "0.1.0", false},
		{"0.1.0-0.20261130000000-0123456789ab", "0.2.0", false},
		{"0.1.0+dirty", "0.2.0", false},
		{"0.1.0", "0.2.0-rc.1", false},
		{"0.1.0", "0.2.0+dirty", false},
		{"devel", "0.2.0", false},
		{"0.1.0", "devel", false},
		{"0.1", "0.2.0", false},
		{"vv0.1.0", "0.2.0", false},
		{"", "0.2.0", false},
		{"0.1.0", "", false},
	} {
		if got := handler.Device(c.panel)(db.Device{AgentVersion: &c.agent}).AgentOutdated; got != c.outdated {
			t.Errorf("agent %q, panel %q: outdated %v", c.agent, c.panel, got)
		}
	}
	if handler.Device("0.1.0")(db.Device{}).AgentOutdated {
		t.Error("outdated without a version")
	}
}

func TestDevices_AgentOutdatedFollowsTheAgent(t *testing.T) {
	p := newPanel(t) // Its version is 0.1.0.
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	device, _ := p.device(t, ada, admin, types.DeviceKindClient)
	for version, outdated := range map[string]bool{"0.0.9": true, "0.1.0": false} {
		p.connectVersion(t, device.ID, version)
		one := decode[types.Device](t, ada.send(t, "GET", "/api/tunnel/devices/"+device.ID.String(), nil), 200)
		list := decode[[]types.Device](t, ada.send(t, "GET", "/api/tunnel/devices", nil), 200)
		if one.AgentOutdated != outdated || len(list) != 1 || list[0].AgentOutdated != outdated {
			t.Errorf("agent %s: %v, in the list %+v", version, one.AgentOutdated, list)
		}
	}
}
