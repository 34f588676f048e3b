package handler_test

import (
	"fmt"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestBulk_DoesWhatTheCallerManagesAndSaysWhatNot(t *testing.T) {
	p := newPanel(t)
	admin, ada, stranger := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "eve@example.com", "user")
	p.server(t, 20999)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	foreign, _ := p.device(t, stranger, admin, types.DeviceKindClient)
	one := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device)), 201)
	two := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device)), 201)
	other := decode[types.AllocationCreated](t, stranger.send(t, "POST", allocations, newAllocation(foreign)), 201)
	bulk := func(c caller, action string, ids ...int64) []types.BulkResult {
		t.Helper()
		return decode[types.BulkResults](t, c.send(t, "POST", allocations+"/bulk", map[string]any{"action": action, "ids": ids}), 200).Results
	}
	enabled := func(id int64) bool {
		t.Helper()
		a := decode[types.Allocation](t, admin.send(t, "GET", fmt.Sprintf("%s/%d", allocations, id), nil), 200)
		if (a.Status == types.AllocationPaused) == a.Enabled {
			t.Errorf("enabled is %t and the status %s", a.Enabled, a.Status)
		}
		return a.Enabled
	}
	for _, c := range []caller{ada, agent} {
		results := bulk(c, "pause", two.ID, other.ID, 999999, one.ID)
		for i, want := range []struct {
			id int64
			ok bool
		}{{two.ID, true}, {other.ID, false}, {999999, false}, {one.ID, true}} {
			got := results[i]
			if got.ID != want.id || got.Ok != want.ok || want.ok != (got.Error == nil) || !want.ok && *got.Error != types.CodeNotFound {
				t.Errorf("result %d is %+v, want %+v", i, got, want)
			}
		}
		if enabled(one.ID) || enabled(two.ID) || !enabled(other.ID) {
			t.Error("not exactly one's own are paused")
		}
		bulk(c, "resume", one.ID, two.ID)
		if !enabled(one.ID) || !enabled(two.ID) {
			t.Error("not resumed")
		}
	}
	bulk(admin, "delete", one.ID, other.ID)
	left := decode[[]types.Allocation](t, admin.send(t, "GET", allocations, nil), 200)
	if len(left) != 1 || left[0].ID != two.ID {
		t.Errorf("left are %+v", left)
	}
	wantField(t, ada.send(t, "POST", allocations+"/bulk", `{"action":"open","ids":[1]}`), "action")
	wantField(t, ada.send(t, "POST", allocations+"/bulk", `{"action":"pause","ids":[]}`), "ids")
	wantField(t, ada.send(t, "POST", allocations+"/bulk", `{"action":"pause","ids":[1,1]}`), "ids")
	wantError(t, ada.send(t, "GET", allocations+"/bulk", nil), 405, types.CodeMethodNotAllowed)
}
