package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// keeping connects a tunnel server that keeps rules.
func keeping(t *testing.T, d *db.DB, server db.Device, replica uuid.UUID, rules ...string) {
	t.Helper()
	_, err := d.Connect(t.Context(), server.ID, db.Hello{
		TokenVersion: server.TokenVersion, ReplicaID: replica, RelayPort: 7443, Fingerprint: "00", KeptRules: rules,
	})
	check(t, err)
}

func TestPlacement_PrefersATunnelServerThatKeepsTheRules(t *testing.T) {
	d := dbtest.New(t)
	org := dbtest.Organisation(t, d, "guild")
	client := ofOrganisation(t, d, db.KindClient, org)
	replica := startReplica(t, d)
	// The old ones are preferred otherwise: one is of the organisation, and all are empty.
	old, capable := ofOrganisation(t, d, db.KindServer, org), enroll(t, d, db.KindServer, nil)
	keeping(t, d, old, replica, "deny")
	keeping(t, d, capable, replica, "deny", "maxPlayers")
	for name, c := range map[string]struct {
		own, organisation, defaults, ceiling db.RulesPatch
		want                                 db.Device
	}{
		"without rules":              {want: old},
		"with rules that both keep":  {own: `{"deny":["192.0.2.7"]}`, want: old},
		"own":                        {own: `{"maxPlayers":1}`, want: capable},
		"removed":                    {own: `{"maxPlayers":null}`, want: old},
		"the organisation's":         {organisation: `{"maxPlayers":1}`, want: capable},
		"the site's":                 {defaults: `{"maxPlayers":1}`, want: capable},
		"the ceiling":                {ceiling: `{"maxPlayers":1}`, want: capable},
		"with rules that none keeps": {own: `{"allow":["192.0.2.7"]}`, want: old},
	} {
		_, err := d.UpdateOrganisationRules(t.Context(), everything, org, c.organisation)
		check(t, err)
		_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{RuleDefaults: c.defaults, RuleCeiling: c.ceiling})
		check(t, err)
		asked := newAllocation(client.ID, nil, "tcp")
		asked.Rules = c.own
		made, err := d.CreateAllocations(t.Context(), asked)
		check(t, err)
		if made[0].ServerID != c.want.ID {
			t.Errorf("%s: it went to %s", name, made[0].PublicHost)
		}
		check(t, d.DeleteAllocation(t.Context(), everything, made[0].ID))
		const none = `{"maxPlayers":null}`
		_, err = d.UpdateOrganisationRules(t.Context(), everything, org, none)
		check(t, err)
		_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{RuleDefaults: none, RuleCeiling: none})
		check(t, err)
	}
	// One that does not keep them is better than none.
	keeping(t, d, capable, replica)
	asked := newAllocation(client.ID, nil, "tcp")
	asked.Rules = `{"maxPlayers":1}`
	made, err := d.CreateAllocations(t.Context(), asked)
	check(t, err)
	if made[0].ServerID != old.ID {
		t.Errorf("it went to %s", made[0].PublicHost)
	}
}

func TestDrain_MovesAllocationsToATunnelServerThatKeepsTheirRules(t *testing.T) {
	d := dbtest.New(t)
	org := dbtest.Organisation(t, d, "guild")
	client := ofOrganisation(t, d, db.KindClient, org)
	replica := startReplica(t, d)
	source, old, capable := enroll(t, d, db.KindServer, nil), ofOrganisation(t, d, db.KindServer, org), enroll(t, d, db.KindServer, nil)
	keeping(t, d, source, replica, "maxPlayers")
	keeping(t, d, old, replica)
	keeping(t, d, capable, replica, "maxPlayers")
	asked := newAllocation(client.ID, &source.ID, "tcp", "udp")
	asked.Rules = `{"maxPlayers":1}`
	made, err := d.CreateAllocations(t.Context(), asked)
	check(t, err)
	_, err = d.DrainServer(t.Context(), everything, source.ID, time.Hour, true)
	check(t, err)
	_, err = d.AdvanceDrains(t.Context())
	check(t, err)
	for _, a := range made {
		if got := readAllocation(t, d, a.ID); got.ServerID != capable.ID || got.Rules != `{"maxPlayers": 1}` {
			t.Errorf("moved to %s with %s", got.PublicHost, got.Rules)
		}
	}
	// The old port has the rules too, and a change of them.
	_, err = d.UpdateAllocation(t.Context(), everything, made[0].ID, db.AllocationPatch{Rules: `{"maxPlayers":2}`})
	check(t, err)
	state, err := d.ServerState(t.Context(), source.ID)
	check(t, err)
	if len(state.Allocations) != 2 || state.Allocations[0].Rules != `{"maxPlayers": 2}` || state.Allocations[1].Rules != `{"maxPlayers": 1}` {
		t.Errorf("old ports are %+v", state.Allocations)
	}
}

func TestRules_NotifyTheTunnelServersConcerned(t *testing.T) {
	d := dbtest.New(t)
	org := dbtest.Organisation(t, d, "guild")
	client, server, idle := ofOrganisation(t, d, db.KindClient, org), enroll(t, d, db.KindServer, nil), enroll(t, d, db.KindServer, nil)
	allocate(t, d, client.ID, server.ID)
	allocate(t, d, enroll(t, d, db.KindClient, nil).ID, idle.ID)
	events, err := d.Listen(t.Context())
	check(t, err)
	next := func() db.Event {
		t.Helper()
		select {
		case event := <-events:
			return event
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
		return db.Event{}
	}
	_, err = d.UpdateOrganisationRules(t.Context(), everything, org, `{"maxPlayers":1}`)
	check(t, err)
	if got := next(); got != (db.Event{DeviceID: server.ID}) {
		t.Errorf("the organisation causes %+v", got)
	}
	_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{RuleCeiling: `{"maxPlayers":1}`})
	check(t, err)
	if got := next(); got != (db.Event{Servers: true}) {
		t.Errorf("the ceiling causes %+v", got)
	}
	_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{RuleCeiling: `{"maxPlayers":1}`, AnonymousEnrollment: ptr(false)})
	check(t, err)
	if got := next(); got != (db.Event{All: true}) {
		t.Errorf("other settings cause %+v", got)
	}
	state, err := d.ServerState(t.Context(), server.ID)
	check(t, err)
	if state.Rules.Ceiling != `{"maxPlayers": 1}` || state.Rules.Defaults != "" || len(state.OrganisationRules) != 1 || state.OrganisationRules[org] != `{"maxPlayers": 1}` {
		t.Errorf("rules are %+v, %+v", state.Rules, state.OrganisationRules)
	}
}
