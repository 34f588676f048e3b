package handler

import (
	"net"
	"strconv"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
	"github.com/eclitunnel/eclitunnel/server/internal/rules"
)

func valueOr[T any](value *T, fallback T) T {
	if value == nil {
		return fallback
	}
	return *value
}

func toAllocations(rows []db.Allocation) []types.Allocation {
	allocations := make([]types.Allocation, 0, len(rows))
	for _, row := range rows {
		allocations = append(allocations, toAllocation(row))
	}
	return allocations
}

func toAllocation(row db.Allocation) types.Allocation {
	status, reason := AllocationStatus(row)
	allocation := types.Allocation{
		ID:              row.ID,
		DeviceID:        row.DeviceID,
		ServerID:        row.ServerID,
		Protocol:        types.Protocol(row.Protocol),
		Port:            row.Port,
		PublicHost:      row.PublicHost,
		PublicAddress:   net.JoinHostPort(row.PublicHost, strconv.Itoa(row.Port)),
		LocalHost:       row.LocalHost,
		LocalPort:       row.LocalPort,
		Name:            row.Name,
		Enabled:         row.Enabled,
		Labels:          readLabels(row.Labels),
		Options:         toOptions(row),
		CreatedAt:       row.CreatedAt,
		Status:          status,
		StatusReason:    nullable.NewNullNullable[string](),
		RunID:           nullable.NewNullNullable[uuid.UUID](),
		Target:          types.TargetUnknown,
		PublicAddresses: publichost.Addresses(row.PublicHost, row.PublicAddresses),
	}
	if row.RunID != nil {
		allocation.RunID = nullable.NewNullableWithValue(*row.RunID)
	}
	if row.DeviceOnline { // As with the status, its report counts only then.
		allocation.Target = types.TargetState(row.Target)
	}
	if allocation.Target == types.TargetDown {
		allocation.TargetReason = &row.TargetReason
	}
	if reason != "" {
		allocation.StatusReason = nullable.NewNullableWithValue(reason)
	}
	return allocation
}

// toOptions returns the options of an allocation, its own rules among them.
func toOptions(row db.Allocation) types.AllocationOptions {
	proxyProtocol := types.ProxyProtocol(row.ProxyProtocol)
	options := types.AllocationOptions{ProxyProtocol: &proxyProtocol, UDPIdleSeconds: &row.UDPIdleSeconds, PlayerAddresses: &row.PlayerAddresses}
	// A rule that this version cannot read is left out: whoever reads a list must not get an error for it.
	// Its tunnel server does not get the allocation, and its status tells why.
	_ = readRules(row.Rules, &options)
	return options
}

// toDetail returns an allocation with what counts for it now.
func toDetail(row db.RuledAllocation, refusals db.Refusals) (types.AllocationDetail, error) {
	layers := rules.Layers{Own: row.Rules, Organisation: row.OrganisationRules, Defaults: row.Defaults, Ceiling: row.Ceiling}
	effective, err := layers.Effective()
	a := toAllocation(row.Allocation)
	return types.AllocationDetail{
		Rules:           effective,
		ID:              a.ID,
		DeviceID:        a.DeviceID,
		ServerID:        a.ServerID,
		Protocol:        a.Protocol,
		Port:            a.Port,
		PublicHost:      a.PublicHost,
		PublicAddress:   a.PublicAddress,
		LocalHost:       a.LocalHost,
		LocalPort:       a.LocalPort,
		RunID:           a.RunID,
		Name:            a.Name,
		Enabled:         a.Enabled,
		Labels:          a.Labels,
		Options:         a.Options,
		CreatedAt:       a.CreatedAt,
		Status:          a.Status,
		StatusReason:    a.StatusReason,
		Target:          a.Target,
		TargetReason:    a.TargetReason,
		PublicAddresses: a.PublicAddresses,

		PlayersRefused:   refusals.Players,
		DatagramsDropped: refusals.Datagrams,
	}, err
}

// toCreated returns the fields of the first allocation, and the list of all.
func toCreated(rows []db.Allocation) types.AllocationCreated {
	first := toAllocation(rows[0])
	return types.AllocationCreated{
		Allocations:     toAllocations(rows),
		ID:              first.ID,
		DeviceID:        first.DeviceID,
		ServerID:        first.ServerID,
		Protocol:        first.Protocol,
		Port:            first.Port,
		PublicHost:      first.PublicHost,
		PublicAddress:   first.PublicAddress,
		LocalHost:       first.LocalHost,
		LocalPort:       first.LocalPort,
		RunID:           first.RunID,
		Name:            first.Name,
		Enabled:         first.Enabled,
		Labels:          first.Labels,
		Options:         first.Options,
		CreatedAt:       first.CreatedAt,
		Status:          first.Status,
		StatusReason:    first.StatusReason,
		Target:          first.Target,
		TargetReason:    first.TargetReason,
		PublicAddresses: first.PublicAddresses,
	}
}

// AllocationStatus returns the status of an allocation, and the reason if players
// cannot join, unless it is paused. The report of a device counts only while the device is connected.
func AllocationStatus(row db.Allocation) (status types.AllocationStatus, reason string) {
	switch {
	case !row.Enabled:
		return types.AllocationPaused, ""
	case row.ServerOnline && row.DeviceOnline && row.Draining:
		return types.AllocationDraining, "the tunnel server is being drained"
	case row.ServerOnline && row.ServerState == db.StateFailed:
		return types.AllocationFailed, row.ServerReason
	case row.DeviceOnline && row.ClientState == db.StateFailed:
		return types.AllocationFailed, row.ClientReason
	case !row.ServerOnline:
		return types.AllocationOffline, "the tunnel server is not connected"
	case !row.DeviceOnline:
		return types.AllocationOffline, "the device is not connected"
	case row.ServerState == db.StatePending:
		return types.AllocationPending, "the tunnel server has not opened the port yet"
	case row.ClientState == db.StatePending:
		return types.AllocationPending, "the device has not linked to the tunnel server yet"
	default:
		return types.AllocationListening, ""
	}
}
