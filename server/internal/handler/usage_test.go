package handler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// usage asks for usage and returns the sum of downloaded bytes of all series, and the series.
func (c caller) usage(t *testing.T, query string) (int64, []types.UsageSeries) {
	t.Helper()
	usage := decode[types.Usage](t, c.send(t, "GET", "/api/tunnel/usage"+query, nil), 200)
	var sum int64
	for _, s := range usage.Series {
		points := int64(0)
		for _, point := range s.Points {
			points += point.DownloadBytes
		}
		if points != s.Totals.DownloadBytes {
			t.Errorf("points of %d bytes, and a total of %d", points, s.Totals.DownloadBytes)
		}
		sum += s.Totals.DownloadBytes
	}
	return sum, usage.Series
}

func TestUsage_BelongsToTheOwnerOfItsTime(t *testing.T) {
	p := newPanel(t)
	admin, ada, bob := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "bob@example.com", "user")
	client, agent := p.device(t, ada, admin, types.DeviceKindClient)
	server, edge := p.device(t, admin, admin, types.DeviceKindServer)
	created, err := p.db.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: client.ID, ServerID: &server.ID, Protocols: []string{"tcp"}, LocalHost: "127.0.0.1", LocalPort: 25565, Count: 1,
		ProxyProtocol: "none", UDPIdleSeconds: 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := created[0].ID
	epoch, sequence := uuid.New(), int64(0)
	report := func(bytes int64, peak int) {
		t.Helper()
		sequence++
		if err := p.db.AddUsage(t.Context(), server.ID, db.UsageReport{
			Epoch: epoch, Sequence: sequence, Ended: p.Now(), Seconds: 10,
			Allocations: []db.AllocationUsage{{AllocationID: id, Players: peak, PeakPlayers: peak, UsageCounts: db.UsageCounts{DownloadBytes: bytes, Joins: 1}}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	report(100, 3)
	report(20, 5)
	if _, series := ada.usage(t, "?by=allocation&resolution=minute"); len(series) != 1 || series[0].AllocationID.MustGet() != id ||
		series[0].Totals.Joins != 2 || series[0].Totals.PeakPlayers != 5 {
		t.Errorf("ada's usage is %+v", series)
	}
	if a := decode[types.AllocationDetail](t, ada.send(t, "GET", fmt.Sprintf("/api/tunnel/allocations/%d", id), nil), 200); a.Players != 5 {
		t.Errorf("%d players", a.Players)
	}
	decode[types.Device](t, admin.send(t, "PATCH", "/api/tunnel/devices/"+client.ID.String(), map[string]any{"ownerId": bob.user.ID}), 200)
	report(3, 1)
	decode[types.Success](t, bob.send(t, "DELETE", fmt.Sprintf("/api/tunnel/allocations/%d", id), nil), 200)
	report(4, 0) // What was carried before it was deleted.
	for _, resolution := range []string{"minute", "hour", "day"} {
		for name, want := range map[string]struct {
			caller caller
			query  string
			bytes  int64
			series int
		}{
			"ada":                         {ada, "", 120, 1},
			"bob":                         {bob, "", 7, 1},
			"the device":                  {agent, "&by=device", 127, 1},
			"an admin":                    {admin, "", 127, 1},
			"an admin, by owner":          {admin, "&by=owner", 127, 2},
			"an admin, by organisation":   {admin, "&by=organisation", 127, 1},
			"the tunnel server":           {edge, "", 0, 0},
			"an admin, of ada":            {admin, fmt.Sprintf("&ownerId=%d", ada.user.ID), 120, 1},
			"ada, of bob":                 {ada, fmt.Sprintf("&ownerId=%d", bob.user.ID), 0, 0},
			"bob, of the allocation":      {bob, fmt.Sprintf("&allocationId=%d", id), 7, 1},
			"bob, of another allocation":  {bob, fmt.Sprintf("&allocationId=%d", id+1), 0, 0},
			"bob, of the device":          {bob, "&deviceId=" + client.ID.String(), 7, 1},
			"bob, of an organisation":     {bob, "&organisationId=1", 0, 0},
			"an admin, of what was later": {admin, "&from=" + p.Now().Add(48*time.Hour).Format(time.RFC3339) + "&to=" + p.Now().Add(72*time.Hour).Format(time.RFC3339), 0, 0},
		} {
			if bytes, series := want.caller.usage(t, "?resolution="+resolution+want.query); bytes != want.bytes || len(series) != want.series {
				t.Errorf("%s by %s: %d bytes in %d series, want %d in %d", name, resolution, bytes, len(series), want.bytes, want.series)
			}
		}
	}
	wantField(t, ada.send(t, "GET", "/api/tunnel/usage?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", nil), "from")
}

func TestUsage_OfTooManyPointsSaysWhatToTake(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	sql := dbtest.SQL(t, p.db)
	for _, statement := range []string{
		`INSERT INTO usage_subjects (allocation_id, device_id, owner_id, organisation_id) SELECT n, gen_random_uuid(), 0, 0 FROM generate_series(-1, 11) n WHERE n <> 0`,
		`INSERT INTO usage_hours SELECT s.id, t, 1, 1, 1, 1, 1, 1 FROM usage_subjects s, generate_series('2026-01-01T00:00:00Z'::timestamptz, '2026-04-01T00:00:00Z', '1 hour') t`,
	} {
		if _, err := sql.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	const query = "?from=2026-01-01T00:00:00Z&to=2026-04-01T00:00:00Z&resolution=hour"
	if _, series := admin.usage(t, query); len(series) != 1 || len(series[0].Points) != 90*24 {
		t.Errorf("%d series", len(series))
	}
	wantField(t, admin.send(t, "GET", "/api/tunnel/usage"+query+"&by=allocation", nil), "resolution")
}
