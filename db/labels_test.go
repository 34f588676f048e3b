package db_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func labelled(t *testing.T, d *db.DB, scope db.Scope, filters ...db.LabelFilter) []int64 {
	t.Helper()
	found, err := d.FindAllocations(t.Context(), scope, db.AllocationFilter{Labels: filters}, db.Listing{Sort: db.Sort{By: "id"}})
	check(t, err)
	var ids []int64
	for _, a := range found {
		ids = append(ids, a.ID)
	}
	return ids
}

func TestLabels_AreSharedByARunAndKeptByAMove(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	request := newAllocation(client.ID, &servers[0].ID, "tcp", "udp")
	request.Count, request.Labels = 2, `{"game": "valheim", "season": ""}`
	run, err := d.CreateAllocations(t.Context(), request)
	check(t, err)
	if len(run) != 4 {
		t.Fatalf("made %d", len(run))
	}
	moveTo(t, d, run[0].ID, servers[1].ID)
	plain := allocate(t, d, client.ID, servers[1].ID)
	if plain.Labels != "" {
		t.Errorf("without labels it has %q", plain.Labels)
	}
	for _, a := range run {
		if now := readAllocation(t, d, a.ID); now.Labels != request.Labels || now.ServerID != servers[1].ID {
			t.Errorf("moved: %+v", now)
		}
	}

	labels := db.Labels(`{"game": "minecraft"}`)
	changed, err := d.UpdateAllocation(t.Context(), everything, run[1].ID, db.AllocationPatch{Labels: &labels})
	check(t, err)
	if changed.Labels != labels {
		t.Errorf("changed to %q", changed.Labels)
	}
	other := 1234
	if changed, err = d.UpdateAllocation(t.Context(), everything, run[1].ID, db.AllocationPatch{LocalPort: &other}); err != nil || changed.Labels != labels {
		t.Errorf("another change made them %q (%v)", changed.Labels, err)
	}
	value := func(text string) *string { return &text }
	all := []int64{run[0].ID, run[1].ID, run[2].ID, run[3].ID}
	for _, c := range []struct {
		filters []db.LabelFilter
		want    []int64
	}{
		{[]db.LabelFilter{{Key: "game"}}, all},
		{[]db.LabelFilter{{Key: "game", Value: value("minecraft")}}, all[1:2]},
		{[]db.LabelFilter{{Key: "game"}, {Key: "season", Value: value("")}}, []int64{run[0].ID, run[2].ID, run[3].ID}},
		{[]db.LabelFilter{{Key: "game", Value: value("mine")}}, nil},
		{[]db.LabelFilter{{Key: "season", Value: value("valheim")}}, nil},
		{[]db.LabelFilter{{Key: `"`, Value: value(`"}`)}}, nil},
	} {
		if got := labelled(t, d, everything, c.filters...); !slices.Equal(got, c.want) {
			t.Errorf("%+v found %v, want %v", c.filters, got, c.want)
		}
		if got := labelled(t, d, db.Scope{DeviceID: client.ID}, c.filters...); !slices.Equal(got, c.want) {
			t.Errorf("%+v of the device found %v, want %v", c.filters, got, c.want)
		}
	}
	none := db.Labels("")
	if changed, err = d.UpdateAllocation(t.Context(), everything, run[1].ID, db.AllocationPatch{Labels: &none}); err != nil || changed.Labels != "" {
		t.Errorf("removed: %q (%v)", changed.Labels, err)
	}
}

// TestLabels_AreFoundByTheirIndex: among 20,000 allocations, of which few have a label.
func TestLabels_AreFoundByTheirIndex(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	sql := dbtest.SQL(t, d)
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds, labels)
			SELECT '%s', '%s', 'tcp', n, 'localhost', 1, '', 'none', 60,
				CASE WHEN n %% 1000 = 0 THEN '{"game": "minecraft"}' WHEN n %% 2 = 0 THEN '{"managed-by": "apply"}' ELSE '{}' END::jsonb
			FROM generate_series(1, 20000) n`, client.ID, server.ID),
		`ANALYZE allocations`,
	} {
		_, err := sql.ExecContext(t.Context(), statement)
		check(t, err)
	}
	game := "minecraft"
	for _, filter := range []db.LabelFilter{{Key: "game"}, {Key: "game", Value: &game}} {
		query, args, err := db.FindAllocationsQuery(everything, db.AllocationFilter{Labels: []db.LabelFilter{filter}},
			db.Listing{Sort: db.Sort{By: "port"}})
		check(t, err)
		if how := plan(t, sql, query, args...); !strings.Contains(how, "allocations_labels_idx") {
			t.Errorf("%+v is found by\n%s", filter, how)
		}
	}
}
