package agent

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

// desired is what the panel wants of this agent. A value does not change once
// made: the one applied is read while the next one is put together.
type desired struct {
	revision    int64
	allocations map[int64]types.ClientAllocation
	servers     map[uuid.UUID]types.ClientServer
}

func fromSnapshot(m types.ClientSnapshot) desired {
	return desired{}.with(types.ClientChange{Revision: m.Revision, Allocations: m.Allocations, Servers: m.Servers})
}

// with returns the state after a change.
func (d desired) with(m types.ClientChange) desired {
	return desired{
		revision: m.Revision,
		allocations: controlclient.Merge(d.allocations, m.RemovedAllocations, m.Allocations,
			func(a types.ClientAllocation) (int64, types.ClientAllocation) { return a.ID, a }),
		servers: controlclient.Merge(d.servers, m.RemovedServers, m.Servers,
			func(s types.ClientServer) (uuid.UUID, types.ClientServer) { return s.ID, s }),
	}
}

// snapshot is the message that describes the state.
func (d desired) snapshot() *types.ClientSnapshot {
	return &types.ClientSnapshot{
		Type:        types.TypeClientSnapshot,
		Revision:    d.revision,
		Allocations: d.allocationList(),
		Servers:     d.serverList(),
	}
}

// serverList is sorted by address and allocationList by id, so that equal states
// make equal lists.
func (d desired) serverList() []types.ClientServer {
	return slices.SortedFunc(maps.Values(d.servers), func(a, b types.ClientServer) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), slices.Compare(a.ID[:], b.ID[:]))
	})
}

func (d desired) allocationList() []types.ClientAllocation {
	return slices.SortedFunc(maps.Values(d.allocations), func(a, b types.ClientAllocation) int {
		return cmp.Compare(a.ID, b.ID)
	})
}
