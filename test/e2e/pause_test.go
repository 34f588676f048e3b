package e2e

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// TestPause_CutsPlayersAndKeepsThePort pauses one of two allocations while both are played, kills and restarts the panel with
// its tunnel server, and resumes it.
func TestPause_CutsPlayersAndKeepsThePort(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	other := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	var bystanders playing
	bystanders.start(t, other)
	listed, err := w.panel.API.ListAllocationsWithResponse(within(t, patience), &types.ListAllocationsParams{})
	if err != nil || listed.JSON200 == nil {
		t.Fatalf("list: %v", err)
	}
	var id types.AllocationID
	for _, a := range *listed.JSON200 {
		if a.PublicAddress == public {
			id = a.ID
		}
	}
	enable := func(enabled bool) {
		t.Helper()
		answer, err := w.panel.API.UpdateAllocationWithResponse(within(t, patience), id, types.AllocationPatch{Enabled: &enabled})
		if err != nil || answer.JSON200 == nil || answer.JSON200.PublicAddress != public {
			t.Fatalf("enabled %t: %v", enabled, err)
		}
	}
	enable(false)
	if err := player.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := player.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the player is in a second after the pause: %v", err)
	}
	closed(t, time.Second, public)
	bystanders.await(t, 20)
	bystanders.ending.Store(true)
	bystanders.work.Wait()

	if err := w.panel.Kill(); err != nil { // Its tunnel server is part of it.
		t.Fatal(err)
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	awaitPlay(t, patience, other)
	closed(t, time.Second, public)
	enable(true)
	awaitPlay(t, patience, public)
}

func isTimeout(err error) bool {
	var failure net.Error
	return errors.As(err, &failure) && failure.Timeout()
}
