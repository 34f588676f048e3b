package tunnel

import "github.com/eclitunnel/eclitunnel/gen/types"

// Value returns the event as the contract's type of such events:
//
//   - a types.ReadyEvent or types.ResyncEvent, about the stream;
//   - a types.DeviceEvent or types.DeviceDeletedEvent;
//   - a types.AllocationEvent or types.AllocationDeletedEvent;
//   - a types.ConnectionEvent, when a player has joined or left;
//   - a types.UsageEvent, with what allocations have carried in the last seconds.
//
// It is nil for a type that this version does not know.
func (e Event) Value() (any, error) {
	switch e.Type {
	case EventReady:
		return value[types.ReadyEvent](e)
	case EventResync:
		return value[types.ResyncEvent](e)
	case string(types.EventDeviceCreated), string(types.EventDeviceUpdated):
		return value[types.DeviceEvent](e)
	case string(types.EventDeviceDeleted):
		return value[types.DeviceDeletedEvent](e)
	case string(types.EventAllocationCreated), string(types.EventAllocationUpdated):
		return value[types.AllocationEvent](e)
	case string(types.EventAllocationDeleted):
		return value[types.AllocationDeletedEvent](e)
	case string(types.EventConnectionOpened), string(types.EventConnectionClosed):
		return value[types.ConnectionEvent](e)
	case string(types.EventUsage):
		return value[types.UsageEvent](e)
	default:
		return nil, nil
	}
}

func value[T any](e Event) (any, error) {
	var v T
	if err := e.Decode(&v); err != nil {
		return nil, err
	}
	return v, nil
}
