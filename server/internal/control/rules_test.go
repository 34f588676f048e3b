package control_test

import (
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// every is every rule, as a tunnel server of this version says.
var every = []types.RuleName{
	types.RuleAllow, types.RuleDeny, types.RuleMaxPlayers, types.RuleMaxPlayersPerSource, types.RuleMaxFlowsPerSource,
	types.RuleConnectionsPerSecond, types.RuleConnectionsPerSecondPerSource, types.RuleDatagramsPerSecondPerSource,
	types.RuleDownloadBitsPerSecond, types.RuleUploadBitsPerSecond,
	types.RulePlayerDownloadBitsPerSecond, types.RulePlayerUploadBitsPerSecond,
}

// connectKeeping connects a tunnel server whose hello names rules.
func (r *replica) connectKeeping(t *testing.T, device db.Device, rules ...types.RuleName) *controltest.Peer {
	t.Helper()
	p := r.dial(t, device)
	p.Send(types.Hello{
		Type: types.TypeHello, AgentVersion: "0.0.0-test", Platform: "test/test", Rules: &rules,
		Relay: &types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("ab", 32)},
	})
	return p
}

// setRules changes the own rules of an allocation.
func setRules(t *testing.T, d *db.DB, id int64, patch db.RulesPatch) {
	t.Helper()
	if _, err := d.UpdateAllocation(t.Context(), everything, id, db.AllocationPatch{Rules: patch}); err != nil {
		t.Fatal(err)
	}
}

// awaitFailed waits until an allocation is shown as failed because of a rule.
func awaitFailed(t *testing.T, d *db.DB, id int64, rule types.RuleName) {
	t.Helper()
	await.Until(t, "the allocation has failed because of "+string(rule), func() bool {
		a := allocation(t, d, id)
		return a.ServerState == db.StateFailed && strings.Contains(a.ServerReason, string(rule)) &&
			strings.Contains(a.ServerReason, "update the tunnel server")
	})
}

func TestRules_ReachTheTunnelServerAndNotTheAgent(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	organisation := dbtest.Organisation(t, d, "guild")
	clientRow, serverRow := enrollFor(t, d, db.KindClient, &organisation), enroll(t, d, db.KindServer)
	made := allocate(t, d, clientRow, serverRow, "tcp", 20001)
	server := r.connectKeeping(t, serverRow, every...)
	first := controltest.Next[types.ServerSnapshot](server).Allocations[0]
	client := r.connect(t, clientRow)
	controltest.Next[types.ClientSnapshot](client)
	if first.Rules == nil || *first.Rules.MaxPlayers != 1000 || first.Rules.DownloadBitsPerSecond != nil || first.Rules.Deny != nil {
		t.Fatalf("built in are %+v", first.Rules)
	}
	if first.Options.MaxPlayers.IsSpecified() {
		t.Error("the options have rules")
	}

	changed := func(by string) types.AllocationRules {
		t.Helper()
		change := controltest.Next[types.ServerChange](server)
		if len(change.Allocations) != 1 || change.Allocations[0].ID != made.ID || change.Allocations[0].Rules == nil {
			t.Fatalf("%s causes %+v", by, change)
		}
		return *change.Allocations[0].Rules
	}
	setRules(t, d, made.ID, `{"deny":["192.0.2.0/24"],"maxPlayers":5}`)
	if got := changed("the allocation"); *got.MaxPlayers != 5 || (*got.Deny)[0] != "192.0.2.0/24" {
		t.Errorf("own rules are %+v", got)
	}
	if _, err := d.UpdateOrganisationRules(t.Context(), everything, organisation, `{"uploadBitsPerSecond":8000,"maxPlayers":6}`); err != nil {
		t.Fatal(err)
	}
	if got := changed("the organisation"); *got.MaxPlayers != 5 || *got.UploadBitsPerSecond != 8000 {
		t.Errorf("rules with those of the organisation are %+v", got)
	}
	if _, err := d.UpdateSettings(t.Context(), db.SettingsPatch{RuleDefaults: `{"connectionsPerSecond":7}`, RuleCeiling: `{"maxPlayers":4}`}); err != nil {
		t.Fatal(err)
	}
	if got := changed("the site"); *got.MaxPlayers != 4 || *got.ConnectionsPerSecond != 7 {
		t.Errorf("rules with those of the site are %+v", got)
	}
	setRules(t, d, made.ID, `{"deny":null}`)
	if got := changed("a removal"); got.Deny != nil || *got.MaxPlayers != 4 {
		t.Errorf("rules without the list are %+v", got)
	}

	// The next message of the agent is about something else.
	port := 19132
	if _, err := d.UpdateAllocation(t.Context(), everything, made.ID, db.AllocationPatch{LocalPort: &port}); err != nil {
		t.Fatal(err)
	}
	got := controltest.Next[types.ClientChange](client)
	if got.Revision != 2 || got.Allocations[0].LocalPort != port || got.Allocations[0].Options.MaxPlayers.IsSpecified() {
		t.Errorf("the agent gets %+v", got)
	}
}

func TestRules_ATunnelServerThatDoesNotKeepThemDoesNotOpenThePort(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	plain := allocate(t, d, clientRow, serverRow, "tcp", 20001)
	ruled := allocate(t, d, clientRow, serverRow, "tcp", 20002)
	setRules(t, d, ruled.ID, `{"deny":["192.0.2.7"],"maxPlayers":5}`)

	// Without rules, as versions before them; with some; with names of later versions.
	old := r.connect(t, serverRow)
	if got := controltest.Next[types.ServerSnapshot](old).Allocations; len(got) != 1 || got[0].ID != plain.ID || got[0].Rules != nil {
		t.Errorf("an old one gets %+v", got)
	}
	awaitFailed(t, d, ruled.ID, types.RuleMaxPlayers)
	some := r.connectKeeping(t, serverRow, types.RuleDeny, "ofALaterVersion")
	if got := controltest.Next[types.ServerSnapshot](some).Allocations; len(got) != 1 || got[0].Rules != nil {
		t.Errorf("one that keeps some gets %+v", got)
	}
	awaitFailed(t, d, ruled.ID, types.RuleMaxPlayers)
	if a := allocation(t, d, ruled.ID); strings.Contains(a.ServerReason, string(types.RuleDeny)) {
		t.Errorf("the reason is %q", a.ServerReason)
	}
	enough := r.connectKeeping(t, serverRow, types.RuleMaxPlayers, types.RuleDeny)
	got := controltest.Next[types.ServerSnapshot](enough)
	if len(got.Allocations) != 2 || *got.Allocations[1].Rules.MaxPlayers != 5 || got.Allocations[1].Rules.MaxFlowsPerSource != nil {
		t.Fatalf("one that keeps them gets %+v", got.Allocations)
	}
	enough.Send(types.StatusReport{Type: types.TypeStatus, Revision: got.Revision, Allocations: []types.AllocationReport{
		{ID: plain.ID, State: types.ReportReady}, {ID: ruled.ID, State: types.ReportReady},
	}})
	await.Until(t, "both are ready", func() bool {
		return allocation(t, d, plain.ID).ServerState == db.StateReady && allocation(t, d, ruled.ID).ServerState == db.StateReady
	})
}

func TestRules_AChangeClosesAndOpensThePortOfAConnectedTunnelServer(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	organisation := dbtest.Organisation(t, d, "guild")
	clientRow, serverRow := enrollFor(t, d, db.KindClient, &organisation), enroll(t, d, db.KindServer)
	made := allocate(t, d, clientRow, serverRow, "tcp", 20001)
	server := r.connectKeeping(t, serverRow, types.RuleAllow, types.RuleDeny)
	revision := controltest.Next[types.ServerSnapshot](server).Revision
	report := func() {
		server.Send(types.StatusReport{Type: types.TypeStatus, Revision: revision, Allocations: []types.AllocationReport{
			{ID: made.ID, State: types.ReportReady},
		}})
	}
	awaitReady := func() {
		t.Helper()
		report()
		await.Until(t, "the allocation is ready", func() bool { return allocation(t, d, made.ID).ServerState == db.StateReady })
	}
	awaitReady()
	update := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for who, change := range map[string]struct{ set, remove func() }{
		"the allocation": {
			func() { setRules(t, d, made.ID, `{"maxPlayers":5}`) }, func() { setRules(t, d, made.ID, `{"maxPlayers":null}`) },
		},
		"the organisation": {
			func() { update(d.UpdateOrganisationRules(t.Context(), everything, organisation, `{"maxPlayers":5}`)) },
			func() {
				update(d.UpdateOrganisationRules(t.Context(), everything, organisation, `{"maxPlayers":null}`))
			},
		},
		"the site's default": {
			func() { update(d.UpdateSettings(t.Context(), db.SettingsPatch{RuleDefaults: `{"maxPlayers":5}`})) },
			func() { update(d.UpdateSettings(t.Context(), db.SettingsPatch{RuleDefaults: `{"maxPlayers":null}`})) },
		},
		"the site's ceiling": {
			func() { update(d.UpdateSettings(t.Context(), db.SettingsPatch{RuleCeiling: `{"maxPlayers":5}`})) },
			func() { update(d.UpdateSettings(t.Context(), db.SettingsPatch{RuleCeiling: `{"maxPlayers":null}`})) },
		},
	} {
		change.set()
		got := controltest.Next[types.ServerChange](server)
		if len(got.Allocations) != 0 || len(got.RemovedAllocations) != 1 {
			t.Fatalf("%s causes %+v", who, got)
		}
		revision = got.Revision
		report() // About the port before the tunnel server has closed it.
		awaitFailed(t, d, made.ID, types.RuleMaxPlayers)
		change.remove()
		got = controltest.Next[types.ServerChange](server)
		if len(got.Allocations) != 1 || got.Allocations[0].ID != made.ID {
			t.Fatalf("the removal by %s causes %+v", who, got)
		}
		revision = got.Revision
		awaitReady()
	}
}

func TestRules_AWithheldAllocationStaysFailedOnAnotherPort(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	server := r.connect(t, serverRow)
	if got := controltest.Next[types.ServerSnapshot](server); len(got.Allocations) != 0 {
		t.Fatalf("at first %+v", got)
	}
	made, err := d.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: clientRow.ID, ServerID: &serverRow.ID, Protocols: []string{"udp"}, Port: 20001, LocalHost: "127.0.0.1",
		LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60, Rules: `{"maxFlowsPerSource":5,"maxPlayers":null}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitFailed(t, d, made[0].ID, types.RuleMaxFlowsPerSource)
	// The new port makes the database forget the report.
	port := 20002
	if _, err := d.UpdateAllocation(t.Context(), everything, made[0].ID, db.AllocationPatch{Port: &port}); err != nil {
		t.Fatal(err)
	}
	awaitFailed(t, d, made[0].ID, types.RuleMaxFlowsPerSource)
}
