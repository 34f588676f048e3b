package controlclient

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Snapshot is the whole desired state of a kind of device.
type Snapshot interface {
	types.ClientSnapshot | types.ServerSnapshot
}

// Change is what differs from the desired state of the revision before.
type Change interface {
	types.ClientChange | types.ServerChange
}

// update describes a snapshot or a change.
type update struct {
	kind        string
	revision    types.Revision
	snapshot    bool
	connections bool    // The panel that has sent a snapshot takes reports of players.
	allocations []int64 // Those that a change names.
	usage       bool    // The panel that has sent a snapshot takes usage.
}

func describe(message any) update {
	switch m := message.(type) {
	case types.ClientSnapshot:
		return update{kind: string(types.TypeClientSnapshot), revision: m.Revision, snapshot: true}
	case types.ServerSnapshot:
		return update{
			kind: string(types.TypeServerSnapshot), revision: m.Revision, snapshot: true,
			usage: value(m.Usage), connections: value(m.Connections),
		}
	case types.ClientChange:
		u := update{kind: string(types.TypeClientChange), revision: m.Revision}
		for _, a := range m.Allocations {
			u.allocations = append(u.allocations, a.ID)
		}
		return u
	case types.ServerChange:
		u := update{kind: string(types.TypeServerChange), revision: m.Revision}
		for _, a := range m.Allocations {
			u.allocations = append(u.allocations, a.ID)
		}
		return u
	default:
		return update{}
	}
}

// decode returns the S, C, types.UsageAck, types.ConnectionsClose or types.Probe that data holds. For a message of
// any other type, such as one that a later panel may send, the message is nil and kind is its type.
func decode[S Snapshot, C Change](data []byte) (message any, kind string, err error) {
	var union types.ControlMessage
	if err := json.Unmarshal(data, &union); err != nil {
		return nil, "", fmt.Errorf("decode a control message: %w", err)
	}
	kind, err = union.Discriminator()
	if err != nil {
		return nil, "", fmt.Errorf("decode a control message: %w", err)
	}
	var snapshot S
	var change C
	if kind != describe(snapshot).kind && kind != describe(change).kind && kind != string(types.TypeUsageAck) &&
		kind != string(types.TypeConnectionsClose) && kind != string(types.TypeProbe) {
		return nil, kind, nil
	}
	message, err = union.ValueByDiscriminator()
	if err != nil {
		return nil, kind, fmt.Errorf("decode %s: %w", kind, err)
	}
	return message, kind, nil
}

// Merge returns a copy of values without the removed keys and with the entries of
// the elements put, which replace those of the same key.
func Merge[K comparable, V, E any](values map[K]V, removed []K, put []E, entry func(E) (K, V)) map[K]V {
	merged := make(map[K]V, len(values)+len(put))
	maps.Copy(merged, values)
	for _, key := range removed {
		delete(merged, key)
	}
	for _, element := range put {
		key, value := entry(element)
		merged[key] = value
	}
	return merged
}
