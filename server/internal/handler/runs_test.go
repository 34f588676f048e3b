package handler_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// wantRun checks that allocations are one run: ports from first on with the same offsets as the local
// ones, in this order, and for each port all protocols.
func wantRun(t *testing.T, made []types.Allocation, first, local int, protocols ...types.Protocol) {
	t.Helper()
	run, err := made[0].RunID.Get()
	if err != nil || run == uuid.Nil {
		t.Errorf("run %v: %v", run, err)
	}
	for i, a := range made {
		offset := i / len(protocols)
		if a.Port != first+offset || a.LocalPort != local+offset || a.Protocol != protocols[i%len(protocols)] ||
			a.ServerID != made[0].ServerID || a.RunID.MustGet() != run || a.PublicAddress != fmt.Sprintf("%s:%d", a.PublicHost, a.Port) {
			t.Errorf("allocation %d of the run is %+v", i, a)
		}
	}
}

func TestRuns_PublicPortsHaveTheOffsetsOfTheLocalOnes(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	p.server(t, 20999)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	tcp, udp := types.ProtocolTCP, types.ProtocolUDP
	for _, c := range []struct {
		game         string
		protocol     string
		local, count int
		port         any
		protocols    []types.Protocol
	}{
		{"Valheim", "udp", 2456, 3, nil, []types.Protocol{udp}},
		{"Sauerbraten", "udp", 28785, 2, 28785, []types.Protocol{udp}},
		{"a Source server", "tcp+udp", 27015, 6, nil, []types.Protocol{tcp, udp}},
		{"on the last ports", "tcp+udp", 65534, 2, 65534, []types.Protocol{tcp, udp}},
		{"the longest run", "tcp", 30000, types.MaxAllocationCreateCount, nil, []types.Protocol{tcp}},
	} {
		t.Run(c.game, func(t *testing.T) {
			made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations,
				newAllocation(device, "protocol", c.protocol, "localPort", c.local, "count", c.count, "port", c.port, "name", c.game)), 201)
			if len(made.Allocations) != c.count*len(c.protocols) || made.ID != made.Allocations[0].ID || made.RunID.MustGet() != made.Allocations[0].RunID.MustGet() {
				t.Fatalf("made %+v", made)
			}
			if c.port != nil && made.Port != c.port || c.port == nil && (made.Port < 20000 || made.Port+c.count-1 > 20999) {
				t.Errorf("its first port is %d", made.Port)
			}
			wantRun(t, made.Allocations, made.Port, c.local, c.protocols...)
			listed := decode[[]types.Allocation](t, agent.send(t, "GET", fmt.Sprintf("%s?limit=%d", allocations, len(made.Allocations)), nil), 200)
			slices.Reverse(listed) // The newest is first.
			wantRun(t, listed, made.Port, c.local, c.protocols...)
		})
	}
	single := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device, "count", 1)), 201)
	if len(single.Allocations) != 1 || !single.RunID.IsNull() {
		t.Errorf("a single port: %+v", single)
	}
}

// None of a run's ports is allocated if one of them cannot be.
func TestRuns_AreAllocatedWholeOrNotAtAll(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20005) // Its own port for agents is 7443.
	device, _ := p.device(t, ada, admin, types.DeviceKindClient)
	run := func(changes ...any) answer {
		return ada.send(t, "POST", allocations, newAllocation(device, append([]any{"protocol", "udp", "count", 3}, changes...)...))
	}
	decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "protocol", "udp", "port", 20002)), 201)
	before := len(decode[[]types.Allocation](t, ada.send(t, "GET", allocations, nil), 200))

	for name, a := range map[string]answer{
		"its last port is taken":           run("port", 20000),
		"its first port is taken":          run("port", 20002),
		"taken in one protocol of two":     run("port", 20001, "protocol", "tcp+udp"),
		"the tunnel server's own port":     run("port", 7442),
		"the tunnel server's own, as last": run("port", 7441, "protocol", "tcp"),
	} {
		if failure := wantError(t, a, http.StatusConflict, types.CodePortTaken); !strings.Contains(failure.Message, "3 ports") {
			t.Errorf("%s: %q", name, failure.Message)
		}
	}
	if failure := wantError(t, run("count", 4), http.StatusServiceUnavailable, types.CodeNoPortsAvailable); !strings.Contains(failure.Message, "4 neighbouring ports") {
		t.Errorf("no run of 4: %q", failure.Message)
	}
	for field, a := range map[string]answer{
		"localPort": run("localPort", 65534),
		"port":      run("port", 65534),
		"count":     run("count", types.MaxAllocationCreateCount+1),
	} {
		wantField(t, a, field)
	}
	wantField(t, run("count", 0), "count")
	wantField(t, run("count", "3"), "count")
	wantError(t, run("port", 1022), http.StatusForbidden, types.CodeForbidden)
	if after := len(decode[[]types.Allocation](t, ada.send(t, "GET", allocations, nil), 200)); after != before {
		t.Errorf("%d allocations after the failures, %d before", after, before)
	}
	// The only run of 3 that is left, although 5 ports are free; in TCP there is more.
	if made := decode[types.AllocationCreated](t, run(), 201); made.Port != 20003 {
		t.Errorf("the run is at %d", made.Port)
	}
	decode[types.AllocationCreated](t, run("protocol", "tcp", "count", 6), 201)
}

// Concurrent requests never share a port, and a run that is given out is whole.
func TestRuns_ConcurrentRequestsNeverOverlap(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	p.server(t, 20011)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	answers := make(chan answer, 12)
	var callers sync.WaitGroup
	for range cap(answers) {
		callers.Go(func() {
			answers <- agent.send(t, "POST", allocations, newAllocation(device, "protocol", "tcp+udp", "count", 3))
		})
	}
	callers.Wait()
	close(answers)
	taken := map[int]bool{}
	for a := range answers {
		if a.status != http.StatusCreated {
			wantError(t, a, http.StatusServiceUnavailable, types.CodeNoPortsAvailable)
			continue
		}
		made := decode[types.AllocationCreated](t, a, http.StatusCreated)
		wantRun(t, made.Allocations, made.Port, 25565, types.ProtocolTCP, types.ProtocolUDP)
		for offset := range 3 {
			if taken[made.Port+offset] {
				t.Errorf("port %d was allocated twice", made.Port+offset)
			}
			taken[made.Port+offset] = true
		}
	}
	// At worst the runs leave gaps of 2 between them: 12 ports have room for at least 2 runs.
	if len(taken) < 6 {
		t.Errorf("only %d ports were allocated", len(taken))
	}
	var rows int
	if err := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), `SELECT count(*) FROM allocations`).Scan(&rows); err != nil || rows != 2*len(taken) {
		t.Errorf("%d rows for %d ports (%v)", rows, len(taken), err)
	}
}

// A run stays a run: it moves as a whole, and none of its ports changes alone.
func TestRuns_MoveTogether(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	server := p.server(t, 20999)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	p.connect(t, device.ID)
	edge := p.edge(t)
	path := func(a types.Allocation) string { return fmt.Sprintf("%s/%d", allocations, a.ID) }
	now := func(run []types.Allocation) (list []types.Allocation) {
		for _, a := range run {
			list = append(list, decode[types.Allocation](t, agent.send(t, "GET", path(a), nil), 200))
		}
		return list
	}
	other := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device, "serverId", server.ID)), 201)
	for _, c := range []struct {
		protocol  string
		protocols []types.Protocol
		blocked   bool // The second port is taken on the other tunnel server.
	}{
		{"udp", []types.Protocol{types.ProtocolUDP}, false},
		{"tcp", []types.Protocol{types.ProtocolTCP}, true},
		{"tcp+udp", []types.Protocol{types.ProtocolTCP, types.ProtocolUDP}, true},
	} {
		t.Run(fmt.Sprintf("%s, blocked %v", c.protocol, c.blocked), func(t *testing.T) {
			made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations,
				newAllocation(device, "serverId", server.ID, "protocol", c.protocol, "localPort", 2456, "count", 3)), 201)
			if c.blocked {
				decode[types.AllocationCreated](t, agent.send(t, "POST", allocations,
					newAllocation(device, "serverId", edge.ID, "port", made.Port+1)), 201)
			}
			middle := made.Allocations[len(made.Allocations)/2]
			moved := decode[types.Allocation](t, agent.send(t, "PATCH", path(middle), map[string]any{"serverId": edge.ID}), 200)
			first := moved.Port - 1
			if stays := first == made.Port; stays == c.blocked || c.blocked && first < 30000 {
				t.Errorf("from %d it moved to %d", made.Port, first)
			}
			run := now(made.Allocations)
			wantRun(t, run, first, 2456, c.protocols...)
			if run[0].ServerID != edge.ID {
				t.Errorf("it is on %s", run[0].ServerID)
			}
			// The old ports are held for their players, and the run gets them back.
			back := decode[types.Allocation](t, agent.send(t, "PATCH", path(run[len(run)-1]), map[string]any{"serverId": server.ID}), 200)
			if back.Port != made.Port+2 {
				t.Errorf("back on %d, was on %d", back.Port, made.Port+2)
			}
			wantRun(t, now(run), made.Port, 2456, c.protocols...)

			for _, change := range []map[string]any{{"port": 20500}, {"port": 30005, "serverId": edge.ID}, {"port": made.Port, "serverId": edge.ID}} {
				wantError(t, agent.send(t, "PATCH", path(made.Allocations[0]), change), http.StatusConflict, types.CodeConflict)
			}
			named := decode[types.Allocation](t, agent.send(t, "PATCH", path(made.Allocations[0]), map[string]any{"port": made.Port, "name": "first"}), 200)
			if named.Name != "first" || named.RunID.MustGet() != made.RunID.MustGet() {
				t.Errorf("renamed to %+v", named)
			}
			wantRun(t, now(run), made.Port, 2456, c.protocols...)
			// Deleting one leaves the others, and these still move together.
			decode[types.Success](t, agent.send(t, "DELETE", path(middle), nil), 200)
			decode[types.Allocation](t, agent.send(t, "PATCH", path(made.Allocations[0]), map[string]any{"serverId": edge.ID}), 200)
			ends := now([]types.Allocation{run[0], run[len(run)-1]})
			if ends[0].ServerID != edge.ID || ends[1].ServerID != edge.ID || ends[1].Port != ends[0].Port+2 {
				t.Errorf("without its middle the run is at %+v", ends)
			}
		})
	}
	if a := now(other.Allocations)[0]; a.ServerID != server.ID || a.Port != other.Port {
		t.Errorf("an allocation of its own moved with them: %+v", a)
	}
}

func TestRuns_AMoveThatFindsTooFewNeighbouringPortsSaysSo(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	server, edge := p.server(t, 20001), p.edge(t) // Two free ports, which are not enough.
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	p.connect(t, device.ID)
	run := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device, "serverId", edge.ID, "count", 3)), 201)
	decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device, "serverId", server.ID, "port", run.Port+1)), 201)
	refused := agent.send(t, "PATCH", fmt.Sprintf("%s/%d", allocations, run.ID), map[string]any{"serverId": server.ID})
	if failure := wantError(t, refused, http.StatusServiceUnavailable, types.CodeNoPortsAvailable); !strings.Contains(failure.Message, "neighbouring ports") {
		t.Errorf("refused with %q", failure.Message)
	}
}
