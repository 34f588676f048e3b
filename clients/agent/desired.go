package agent

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// desired is what the panel wants, as far as the snapshots and changes of one
// control channel tell. A value is not changed once made: the one applied is
// read while the next one is put together.
type desired struct {
	revision    int64
	allocations map[int64]types.ClientAllocation
	servers     map[uuid.UUID]types.ClientServer
}

func fromSnapshot(m types.ClientSnapshot) desired {
	d := desired{
		revision:    m.Revision,
		allocations: make(map[int64]types.ClientAllocation, len(m.Allocations)),
		servers:     make(map[uuid.UUID]types.ClientServer, len(m.Servers)),
	}
	d.put(m.Allocations, m.Servers)
	return d
}

// with returns the state after a change that follows it directly.
func (d desired) with(m types.ClientChange) desired {
	next := desired{revision: m.Revision, allocations: maps.Clone(d.allocations), servers: maps.Clone(d.servers)}
	for _, id := range m.RemovedAllocations {
		delete(next.allocations, id)
	}
	for _, id := range m.RemovedServers {
		delete(next.servers, id)
	}
	next.put(m.Allocations, m.Servers)
	return next
}

func (d desired) put(allocations []types.ClientAllocation, servers []types.ClientServer) {
	for _, a := range allocations {
		d.allocations[a.ID] = a
	}
	for _, s := range servers {
		d.servers[s.ID] = s
	}
}

// snapshot is the message that says the same.
func (d desired) snapshot() *types.ClientSnapshot {
	return &types.ClientSnapshot{
		Type:        types.TypeClientSnapshot,
		Revision:    d.revision,
		Allocations: d.allocationList(),
		Servers:     d.serverList(),
	}
}

// serverList is sorted by address and allocationList by id, so that the same
// state always looks the same.
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
