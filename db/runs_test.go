package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// newRun requests a run of ports in both protocols.
func newRun(client uuid.UUID, server *uuid.UUID, count int) db.NewAllocation {
	request := newAllocation(client, server, "tcp", "udp")
	request.Count = count
	return request
}

// occupy takes single UDP ports of a tunnel server.
func occupy(t *testing.T, d *db.DB, client, server uuid.UUID, ports ...int) {
	t.Helper()
	for _, port := range ports {
		request := newAllocation(client, &server, "udp")
		request.Port = port
		_, err := d.CreateAllocations(t.Context(), request)
		check(t, err)
	}
}

func TestRuns_ChooseATunnelServerThatHasOne(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	// The first has more free ports, but no four in a row.
	occupy(t, d, client.ID, servers[0].ID, 20003, 20006)
	occupy(t, d, client.ID, servers[1].ID, 20000, 20001, 20002, 20003, 20008, 20009)
	made, err := d.CreateAllocations(t.Context(), newRun(client.ID, nil, 4))
	check(t, err)
	if len(made) != 8 || made[0].ServerID != servers[1].ID || made[0].Port != 20004 || made[7].Port != 20007 || made[7].Protocol != "udp" {
		t.Errorf("made %+v", made)
	}
	for _, server := range []*uuid.UUID{nil, &servers[0].ID, &servers[1].ID} {
		_, err := d.CreateAllocations(t.Context(), newRun(client.ID, server, 4))
		wantErr(t, err, db.ErrNoPorts)
	}
}

// Of all free runs each is chosen, up to the ends of the range.
func TestRuns_AnyFreeRunMayBeChosen(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 1)
	occupy(t, d, client.ID, servers[0].ID, 20004)
	seen := map[int]bool{}
	for deadline := time.Now().Add(eventLimit); len(seen) < 5 && time.Now().Before(deadline); {
		made, err := d.CreateAllocations(t.Context(), newRun(client.ID, nil, 3))
		check(t, err)
		seen[made[0].Port] = true
		for _, a := range made {
			check(t, d.DeleteAllocation(t.Context(), everything, a.ID))
		}
	}
	for _, first := range []int{20000, 20001, 20005, 20006, 20007} {
		if !seen[first] {
			t.Errorf("the run from %d was never chosen", first)
		}
	}
	if len(seen) != 5 {
		t.Errorf("runs began at %v", seen)
	}
}

func TestRuns_DrainAsAWhole(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	run, err := d.CreateAllocations(t.Context(), newRun(client.ID, &servers[0].ID, 3))
	check(t, err)
	// The other tunnel server has ports for each, but no three in a row.
	occupy(t, d, client.ID, servers[1].ID, 20002, 20005, 20008)
	_, err = d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, true)
	check(t, err)
	advanceDrains(t, d)
	for i, a := range run {
		if now := readAllocation(t, d, a.ID); now.ServerID != servers[0].ID || now.Port != a.Port || !now.Draining {
			t.Errorf("allocation %d of the run does not drain in place: %+v", i, now)
		}
	}
	all, err := d.Allocations(t.Context(), everything, db.Page[int64]{})
	check(t, err)
	for _, a := range all {
		if a.Port == 20005 && a.ServerID == servers[1].ID {
			check(t, d.DeleteAllocation(t.Context(), everything, a.ID))
		}
	}
	advanceDrains(t, d)
	first := readAllocation(t, d, run[0].ID).Port
	if first < 20003 || first > 20005 {
		t.Errorf("the run moved to %d", first)
	}
	for i, a := range run {
		now := readAllocation(t, d, a.ID)
		if now.ServerID != servers[1].ID || now.Port != first+i/2 || now.Draining || *now.RunID != *run[0].RunID {
			t.Errorf("allocation %d of the run moved to %+v", i, now)
		}
	}
	// Its old ports are kept for their players, each its own.
	old := map[int]int{}
	for _, a := range ports(t, d, servers[0].ID) {
		old[a.Port]++
	}
	for i := range 3 {
		if old[run[0].Port+i] != 2 {
			t.Errorf("old ports: %v", old)
		}
	}
}
