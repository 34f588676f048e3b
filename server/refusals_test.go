package server_test

import (
	"maps"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestPanel_ShowsWhatThePublicPortHasRefused(t *testing.T) {
	p := servertest.Start(t)
	admin, device := p.Admin(), p.Enroll("gaming-rig")
	created := allocate(t, admin, device, types.CreateTCP)
	refused := func() types.AllocationDetail {
		t.Helper()
		resp, err := admin.GetAllocationWithResponse(t.Context(), created.ID)
		if err != nil {
			t.Fatal(err)
		}
		if resp.JSON200 == nil {
			t.Fatalf("get: %s", resp.Body)
		}
		return *resp.JSON200
	}
	if a := refused(); len(a.PlayersRefused)+len(a.DatagramsDropped) != 0 || a.PlayersRefused == nil || a.DatagramsDropped == nil {
		t.Errorf("refused %v and %v before it was opened", a.PlayersRefused, a.DatagramsDropped)
	}
	// No agent is linked.
	controltest.Eventually(t, "a player reaches the port", func() bool { return open(t, created.PublicAddress) })
	controltest.Eventually(t, "the player is shown", func() bool {
		return maps.Equal(refused().PlayersRefused, types.RefusalCounts{"no_link": 1})
	})
	for range 2 {
		open(t, created.PublicAddress)
	}
	controltest.Eventually(t, "the players are shown", func() bool {
		a := refused()
		return maps.Equal(a.PlayersRefused, types.RefusalCounts{"no_link": 3}) && len(a.DatagramsDropped) == 0
	})
}
