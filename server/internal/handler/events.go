package handler

import (
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Device returns what shows devices as the API of a panel of that version does, for events.
func Device(version string) func(db.Device) types.Device {
	return func(row db.Device) types.Device { return toDevice(row, version) }
}

// Allocation returns an allocation as the API shows it, for events.
func Allocation(row db.Allocation) types.Allocation { return toAllocation(row) }
