package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestAgent_AppliesSnapshotAndChanges(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	server := types.ClientServer{ID: uuid.New(), Address: "relay.test:7000"}
	m := snapshot(1, 2, 1)
	m.Servers = []types.ClientServer{server}
	c.send(t, m)
	r.event(t, EventConnected)
	wantIDs(t, r.appliedIDs(t), 1, 2)
	if got := next(t, r.links.servers, "servers"); len(got) != 1 || got[0] != server {
		t.Errorf("servers %v", got)
	}
	c.send(t, change(2, []int64{3}, []int64{1}))
	wantIDs(t, r.appliedIDs(t), 2, 3)
	if got := next(t, r.links.servers, "servers"); len(got) != 1 {
		t.Errorf("a change of allocations left the servers %v", got)
	}
	last := change(3, nil, nil)
	last.RemovedServers = []uuid.UUID{server.ID}
	c.send(t, last)
	wantIDs(t, r.appliedIDs(t), 2, 3)
	if got := next(t, r.links.servers, "servers"); len(got) != 0 {
		t.Errorf("servers %v", got)
	}
}

func TestAgent_MissedRevisionAsksOnceForASnapshot(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
	c.send(t, change(3, []int64{3}, nil))
	c.send(t, change(4, []int64{4}, nil))
	c.send(t, snapshot(5, 1, 2, 3, 4))
	c.send(t, change(6, nil, []int64{1}))
	wantIDs(t, r.appliedIDs(t), 1, 2, 3, 4)
	wantIDs(t, r.appliedIDs(t), 2, 3, 4)
	if m := next(t, c.received, "resync"); m != (types.ResyncRequest{Type: types.TypeResync}) {
		t.Fatalf("got %#v", m)
	}
	r.links.report(readyReport(2))
	if report := c.status(t); report.Revision != 6 {
		t.Errorf("revision %d, want 6: the only other message was to be one resync", report.Revision)
	}
}

func TestAgent_ReportsWhatChangesAndAllAfterReconnect(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1, 2))
	r.appliedIDs(t)
	r.links.report(readyReport(1), failedReport(2, "not allowed"), readyReport(99))
	report := c.status(t)
	if len(report.Allocations) != 2 || report.Revision != 1 || *report.Allocations[1].Reason != "not allowed" {
		t.Fatalf("report %+v", report)
	}
	ready, failed := r.event(t, EventAllocationReady), r.event(t, EventAllocationFailed)
	if ready.Allocation.PublicAddress != "play.test:20001" || ready.Allocation.LocalAddress != "127.0.0.1:25565" || failed.Reason != "not allowed" {
		t.Errorf("events %+v %+v", ready, failed)
	}
	r.links.report(readyReport(1), readyReport(2))
	if report := c.status(t); len(report.Allocations) != 1 || report.Allocations[0] != readyReport(2) {
		t.Fatalf("second report %+v", report)
	}
	c.Close(channel.CloseRestarting, "restarting")
	if e := r.event(t, EventDisconnected); e.Reason != "the panel restarts" {
		t.Errorf("event %+v", e)
	}
	c = r.channel(t)
	c.send(t, snapshot(1, 1, 2))
	if report := c.status(t); len(report.Allocations) != 2 {
		t.Errorf("report after reconnect %+v", report)
	}
}

func TestAgent_ReportsWhetherTheTargetIsReached(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1))
	r.appliedIDs(t)
	with := func(target types.TargetState, reason string) types.AllocationReport {
		report := readyReport(1)
		report.Target = &target
		if reason != "" {
			report.TargetReason = &reason
		}
		return report
	}
	r.links.report(readyReport(1))
	if report := c.status(t); report.Allocations[0].Target != nil {
		t.Errorf("report %+v", report)
	}
	r.event(t, EventAllocationReady)
	for _, step := range []struct {
		target types.TargetState
		reason string
	}{{types.TargetDown, "nothing listens"}, {types.TargetDown, "no answer"}, {types.TargetUp, ""}, {types.TargetUnknown, ""}} {
		r.links.report(with(step.target, step.reason))
		report := c.status(t)
		if a := report.Allocations[0]; a.State != types.ReportReady || *a.Target != step.target || (a.TargetReason != nil) != (step.reason != "") {
			t.Errorf("report %+v", report)
		}
		if e := next(t, r.events, "event"); e.Type != EventAllocationTarget || e.Target != step.target || e.Reason != step.reason || e.Allocation.ID != 1 {
			t.Errorf("event %+v", e)
		}
	}
}

func TestAgent_ShowsTheAddressesOfItsTunnelServers(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	m := snapshot(1, 1)
	m.Servers = []types.ClientServer{{
		ID: m.Allocations[0].ServerID, Address: "play.test:7443", PublicAddresses: &[]string{"203.0.113.7", "2001:db8::7"},
	}}
	c.send(t, m)
	r.appliedIDs(t)
	r.links.report(readyReport(1))
	if got := r.event(t, EventAllocationReady).Allocation.PublicAddresses; !slices.Equal(got, *m.Servers[0].PublicAddresses) {
		t.Errorf("the addresses are %v", got)
	}
	other := change(2, nil, nil)
	other.Servers = []types.ClientServer{{ID: m.Servers[0].ID, Address: "play.test:7443", PublicAddresses: &[]string{"203.0.113.8"}}}
	c.send(t, other)
	if got := r.event(t, EventAllocationReady).Allocation.PublicAddresses; !slices.Equal(got, []string{"203.0.113.8"}) {
		t.Errorf("the addresses become %v", got)
	}
}

func TestAgent_ReportsInMessagesOfAThousand(t *testing.T) {
	// A busy machine takes longer than start's deadline to decode that much.
	r := startAt(t, newPanel(t), func(o *Options) { o.Channel.Deadline = 0 })
	c := r.channel(t)
	ids, reports := make([]int64, 2500), make([]types.AllocationReport, 2500)
	for i := range ids {
		ids[i] = int64(i + 1)
		reports[i] = failedReport(ids[i], "no")
	}
	reports[0] = failedReport(1, strings.Repeat("é", 400))
	c.send(t, snapshot(1, ids...))
	r.appliedIDs(t)
	go func() { // More events than the channel of this test holds.
		for range 2500 + 1 {
			<-r.events
		}
	}()
	r.links.report(reports...)
	for _, want := range []int{1000, 1000, 500} {
		report := c.status(t)
		if len(report.Allocations) != want {
			t.Errorf("%d reports, want %d", len(report.Allocations), want)
		}
		if reason := *report.Allocations[0].Reason; len(reason) > 500 || reason != strings.Repeat("é", 250) && reason != "no" {
			t.Errorf("reason %q", reason)
		}
	}
}

func TestAgent_PanelAwayLeavesLinksAlone(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
	r.links.report(readyReport(1))
	c.status(t)
	c.Close(websocket.CloseInternalServerErr, "oops")
	r.event(t, EventDisconnected)
	// Reports of the links meanwhile become events, and reach the panel later.
	r.links.report(failedReport(1, "link lost"))
	r.event(t, EventAllocationFailed)
	c = r.channel(t)
	select {
	case got := <-r.links.applied:
		t.Fatalf("applied %v without the panel", got)
	default:
	}
	c.send(t, snapshot(1, 1))
	if report := c.status(t); report.Allocations[0].State != types.ReportFailed {
		t.Errorf("report %+v", report)
	}
}

func TestAgent_FeatureOffClosesLinksAndComesBack(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
	r.links.report(readyReport(1))
	c.status(t)
	r.refuse <- types.Problem{Error: types.CodeFeatureDisabled, Message: "Off."}
	c.Close(channel.CloseFeatureOff, "off")
	wantIDs(t, r.appliedIDs(t)) // By the close code,
	wantIDs(t, r.appliedIDs(t)) // and by the refused upgrade.
	r.event(t, EventAllocationClosed)
	c = r.channel(t)
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
	if report := c.status(t); len(report.Allocations) != 1 {
		t.Errorf("report %+v", report)
	}
	r.event(t, EventAllocationReady)
}

func TestAgent_FinalWordsStopIt(t *testing.T) {
	for _, code := range []int{channel.CloseTokenDead, channel.CloseDeleted} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			r := start(t)
			c := r.channel(t)
			c.send(t, snapshot(1, 1))
			c.Close(code, "why")
			wantFinal(t, next(t, r.result, "the end"), code)
			if e := r.event(t, EventStopped); e.Reason != "why" {
				t.Errorf("event %+v", e)
			}
		})
	}
	for code, refusal := range map[int]types.ErrorCode{channel.CloseTokenDead: types.CodeTokenRevoked, channel.CloseDeleted: types.CodeDeviceDeleted} {
		t.Run(string(refusal), func(t *testing.T) {
			r := start(t)
			c := r.channel(t)
			r.refuse <- types.Problem{Error: refusal, Message: "why"}
			c.Close(channel.CloseRestarting, "")
			wantFinal(t, next(t, r.result, "the end"), code)
		})
	}
}

// An agent's token is valid still, whatever these say.
func TestAgent_ReturnsAfterRefusalsThatAreNotFinal(t *testing.T) {
	for _, code := range []types.ErrorCode{
		types.CodeUnauthorized, types.CodeForbidden, types.CodeNotFound, types.CodeUnknownDevice, "a_later_code",
	} {
		t.Run(string(code), func(t *testing.T) {
			r := start(t)
			c := r.channel(t)
			c.send(t, snapshot(1, 1))
			wantIDs(t, r.appliedIDs(t), 1)
			r.refuse <- types.Problem{Error: code, Message: "why"}
			c.Close(channel.CloseRestarting, "")
			c = r.channel(t)
			c.send(t, snapshot(1, 1, 2))
			wantIDs(t, r.appliedIDs(t), 1, 2) // The ports were kept meanwhile.
		})
	}
}

func TestAgent_DoesNotApplyTheSnapshotOfAnotherPanel(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	own := snapshot(1, 1)
	own.PanelID = &tokenPanel
	c.send(t, own)
	wantIDs(t, r.appliedIDs(t), 1)
	c.Close(channel.CloseRestarting, "")
	foreign := snapshot(1)
	other := uuid.New()
	foreign.PanelID = &other
	c = r.channel(t)
	c.send(t, foreign)
	c = r.channel(t) // It tries again,
	c.send(t, snapshot(1, 2))
	wantIDs(t, r.appliedIDs(t), 2) // and has not closed its ports.
}

func wantFinal(t *testing.T, err error, code int) {
	t.Helper()
	var final *channel.FinalError
	if !errors.As(err, &final) || final.Code != code || final.Reason != "why" {
		t.Errorf("ended with %v, want code %d", err, code)
	}
}

func TestAgent_SilentPanelIsLeft(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	r.mute <- struct{}{}
	c.Close(channel.CloseRestarting, "")
	for r.event(t, EventDisconnected).Reason != "the panel has gone silent" {
	}
	c = r.channel(t)
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
}

func TestAgent_IgnoresMessagesOfALaterPanel(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, map[string]any{"type": "client.greeting", "text": "hello"})
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
}

func TestAgent_GarbageEndsTheChannelOnly(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, "not an object")
	r.event(t, EventDisconnected)
	c = r.channel(t)
	c.send(t, snapshot(1, 1))
	wantIDs(t, r.appliedIDs(t), 1)
}

func TestAgent_StopsCleanly(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1))
	r.appliedIDs(t)
	r.stop()
	if err := next(t, r.result, "the end"); err != nil {
		t.Errorf("error %v", err)
	}
	if err := next(t, c.ended, "the panel's end"); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the panel saw %v", err)
	}
	if e := r.event(t, EventStopped); e.Reason != "" {
		t.Errorf("event %+v", e)
	}
}

func TestAgent_ReportsMovedAllocationsAgain(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1, 2))
	r.appliedIDs(t)
	r.links.report(readyReport(1), readyReport(2))
	c.status(t)
	// The link there is up already: only the tunnel server changes.
	moved := change(2, []int64{1}, nil)
	moved.Allocations[0].ServerID = uuid.New()
	c.send(t, moved)
	if report := c.status(t); report.Revision != 2 || len(report.Allocations) != 1 || report.Allocations[0] != readyReport(1) {
		t.Errorf("report %+v", report)
	}
}
