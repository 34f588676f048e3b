package handler

import (
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Device returns a device as the API shows it, for events.
func Device(row db.Device) types.Device { return toDevice(row) }

// Allocation returns an allocation as the API shows it, for events.
func Allocation(row db.Allocation) types.Allocation { return toAllocation(row) }
