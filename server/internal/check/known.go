package check

import (
	"fmt"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// known checks what the panel knows by itself.
func (r *run) known() finding {
	row := r.row
	if !row.Enabled {
		return r.fail(types.HopPort, types.CheckPaused, "The port is paused.", "The port is paused. Resume it to let players in.")
	}
	r.hop(types.HopPort, types.HopOk, "The port is not paused.")
	switch {
	case !row.ServerOnline:
		return r.fail(types.HopTunnelServer, types.CheckTunnelServerOffline, "The tunnel server is not connected to the panel.",
			"The tunnel server is not connected to the panel, which therefore cannot tell whether players get through. Its operator has to look at it, or move the port to another tunnel server.")
	case row.Draining:
		return r.fail(types.HopTunnelServer, types.CheckDraining, "The tunnel server drains.",
			"The tunnel server is being drained and takes no new players. Wait until that is over, or move the port to another tunnel server.")
	case row.ServerState == db.StateFailed:
		return r.fail(types.HopTunnelServer, types.CheckPortNotBound, "The tunnel server reports: "+row.ServerReason,
			fmt.Sprintf("The tunnel server cannot open the public port %d: %s. It tries again by itself; choose another port, or ask its operator.", row.Port, row.ServerReason))
	case row.ServerState != db.StateReady:
		return r.unsure(types.HopTunnelServer, "The tunnel server has not reported on the port yet.",
			"The tunnel server has not reported on the port yet. Check again in a few seconds.")
	}
	r.hop(types.HopTunnelServer, types.HopOk, "The tunnel server is connected and the port is open.")
	if !row.DeviceOnline {
		return r.fail(types.HopAgent, types.CheckAgentOffline, "The agent is not connected to the panel.",
			"The agent is not connected. Start eclitunnel on the machine of the game, and see that this machine reaches the panel.")
	}
	r.hop(types.HopAgent, types.HopOk, "The agent is connected.")
	if row.ClientState == db.StatePending {
		return r.unsure(types.HopLink, "The agent has not reported on the port yet.",
			"The agent has not reported on the port yet. Check again in a few seconds.")
	}
	return finding{}
}
