package events_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// TestConnections_ArePlayersWhoJoinAndLeave holds what the database makes of them to the contract.
func TestConnections_ArePlayersWhoJoinAndLeave(t *testing.T) {
	p := servertest.Start(t)
	ada, session := person(t, p, "ada@example.com")
	eve, other := person(t, p, "eve@example.com")
	device := own(t, p, ada, "home")
	made, err := p.Client(session).CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &device.Device.ID, Protocol: types.CreateTCP, LocalPort: 25565,
	})
	if err != nil || made.JSON201 == nil {
		t.Fatalf("allocate: %v %s", err, made.Body)
	}
	s, foreign := p.Follow(session, "types=connection", ""), p.Follow(other, "", "")
	s.Want("ready")
	foreign.Want("ready")
	sql := dbtest.SQL(t, dbtest.Open(t, p.DatabaseURL()))
	_, err = sql.ExecContext(t.Context(), `INSERT INTO connections (server_id, number, generation, allocation_id, source, source_port, since, download_bytes, upload_bytes)
		VALUES ($1, 7, 1, $2, '203.0.113.60', 51820, now(), 0, 0)`, made.JSON201.ServerID, made.JSON201.ID)
	check(t, err)
	s.Want("connection.opened")
	_, err = sql.ExecContext(t.Context(), `DELETE FROM connections`)
	check(t, err)
	s.Want("connection.closed")
	own(t, p, eve, "hers")
	foreign.Want("device.created hers")
}
