package handler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// The defaults of an allocation that the contract states in prose.
const (
	defaultLocalHost    = "127.0.0.1"
	defaultDrainSeconds = 3600
)

// firstUnprivilegedPort is the lowest port that a caller other than an admin may
// request. Those below it are reserved for the tunnel server's own services.
const firstUnprivilegedPort = 1024

var (
	errNoAllocation = problem.NotFound("There is no such allocation.")
	errNoServer     = problem.NotFound("There is no such tunnel server for this device, or the device no longer exists.")
)

// CreateAllocation opens a public port.
func (a *api) CreateAllocation(ctx context.Context, request server.CreateAllocationRequestObject) (server.CreateAllocationResponseObject, error) {
	create := request.Body
	deviceID, err := a.allocatingDevice(ctx, create.DeviceID)
	if err != nil {
		return nil, err
	}
	allocation := db.NewAllocation{
		DeviceID:        deviceID,
		ServerID:        create.ServerID,
		OnCordoned:      auth.FromContext(ctx).May("createAllocation", auth.CordonedServer),
		Protocols:       []string{string(create.Protocol)},
		LocalHost:       valueOr(create.LocalHost, defaultLocalHost),
		LocalPort:       create.LocalPort,
		Count:           valueOr(create.Count, types.DefaultAllocationCreateCount),
		Port:            valueOr(create.Port, 0),
		AnyPort:         auth.FromContext(ctx).May("createAllocation", auth.PortOutsideRange),
		Name:            valueOr(create.Name, ""),
		Paused:          !valueOr(create.Enabled, true),
		ProxyProtocol:   string(types.ProxyProtocolNone),
		UDPIdleSeconds:  types.DefaultAllocationOptionsUDPIdleSeconds,
		PlayerAddresses: types.DefaultAllocationOptionsPlayerAddresses,
	}
	if create.Protocol == types.CreateTCPUDP {
		allocation.Protocols = []string{string(types.ProtocolTCP), string(types.ProtocolUDP)}
	}
	if options := create.Options; options != nil {
		allocation.ProxyProtocol = string(valueOr(options.ProxyProtocol, types.ProxyProtocolNone))
		allocation.UDPIdleSeconds = valueOr(options.UDPIdleSeconds, types.DefaultAllocationOptionsUDPIdleSeconds)
		allocation.PlayerAddresses = valueOr(options.PlayerAddresses, types.DefaultAllocationOptionsPlayerAddresses)
		if allocation.Rules, err = rulesPatch(options); err != nil {
			return nil, err
		}
	}
	if err := mayUsePort(ctx, "createAllocation", create.Port); err != nil {
		return nil, err
	}
	if err := checkProxyProtocol(allocation.ProxyProtocol, allocation.Protocols); err != nil {
		return nil, err
	}
	if err := checkRun(allocation); err != nil {
		return nil, err
	}
	if allocation.Labels, err = toLabels(create.Labels); err != nil {
		return nil, err
	}
	rows, err := a.db.CreateAllocations(ctx, allocation)
	if err != nil {
		return nil, runUnavailable(ifNotFound(err, errNoServer), allocation.Count)
	}
	return server.CreateAllocation201JSONResponse(toCreated(rows)), nil
}

// allocatingDevice returns the device of a new allocation: the requested one, or the
// caller if it is a device. The device must be an approved tunnel client.
func (a *api) allocatingDevice(ctx context.Context, requested *uuid.UUID) (uuid.UUID, error) {
	caller := auth.FromContext(ctx)
	var id uuid.UUID
	switch {
	case requested != nil:
		id = *requested
	case caller.Device != nil:
		id = caller.Device.ID
	default:
		return uuid.Nil, problem.Invalid(problem.Field("deviceId", "is required"))
	}
	device, err := a.db.ManagedDevice(ctx, caller.Scope(), id)
	switch {
	case err != nil:
		return uuid.Nil, ifNotFound(err, errNoDevice)
	case device.Kind != string(types.DeviceKindClient):
		return uuid.Nil, problem.Conflict("A tunnel server cannot own allocations; name a tunnel client.")
	case device.ApprovedAt == nil:
		return uuid.Nil, problem.Conflict("The device has not been approved yet.")
	}
	return id, nil
}

// GetAllocation returns one allocation, with the rules in effect and what its port has refused.
func (a *api) GetAllocation(ctx context.Context, request server.GetAllocationRequestObject) (server.GetAllocationResponseObject, error) {
	row, err := a.db.RuledAllocation(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoAllocation)
	}
	refusals, err := a.db.Refusals(ctx, request.ID)
	if err != nil {
		return nil, err
	}
	setTag(ctx, allocationTag(row.Allocation))
	players, err := a.db.Players(ctx, []int64{request.ID})
	if err != nil {
		return nil, err
	}
	detail, err := toDetail(row, refusals)
	detail.Players = players[request.ID]
	return server.GetAllocation200JSONResponse(detail), err
}

// UpdateAllocation changes the fields that the request contains.
func (a *api) UpdateAllocation(ctx context.Context, request server.UpdateAllocationRequestObject) (server.UpdateAllocationResponseObject, error) {
	scope := auth.FromContext(ctx).Scope()
	row, err := a.db.Allocation(ctx, scope, request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoAllocation)
	}
	patch := db.AllocationPatch{
		Name:      request.Body.Name,
		LocalHost: request.Body.LocalHost,
		LocalPort: request.Body.LocalPort,
		Port:      request.Body.Port,
		Enabled:   request.Body.Enabled,
		AnyPort:   auth.FromContext(ctx).May("updateAllocation", auth.PortOutsideRange),
	}
	if patch.Move, err = move(ctx, *request.Body); err != nil {
		return nil, err
	}
	if request.Body.Labels != nil {
		labels, err := toLabels(request.Body.Labels)
		if err != nil {
			return nil, err
		}
		patch.Labels = &labels
	}
	if options := request.Body.Options; options != nil {
		patch.UDPIdleSeconds = options.UDPIdleSeconds
		patch.PlayerAddresses = options.PlayerAddresses
		if patch.Rules, err = rulesPatch(options); err != nil {
			return nil, err
		}
		if options.ProxyProtocol != nil {
			version := string(*options.ProxyProtocol)
			patch.ProxyProtocol = &version
			// The protocol of an allocation never changes.
			if err := checkProxyProtocol(version, []string{row.Protocol}); err != nil {
				return nil, err
			}
		}
	}
	// The same port on another tunnel server is a new port.
	moves := patch.Move != nil && patch.Move.ServerID != row.ServerID
	if patch.Port != nil && (moves || *patch.Port != row.Port) {
		if row.RunID != nil {
			return nil, problem.Conflict("The port of one allocation of a run cannot be changed; delete the run and allocate another.")
		}
		if err := mayUsePort(ctx, "updateAllocation", patch.Port); err != nil {
			return nil, err
		}
	}
	updated, err := a.db.UpdateAllocation(ifMatch(ctx, allocationTag), scope, request.ID, patch)
	switch {
	case row.RunID != nil && errors.Is(err, db.ErrNoPorts):
		noPorts := problem.NoPorts(1)
		noPorts.Message = "The tunnel server has too few neighbouring ports free for the whole run."
		return nil, noPorts
	case err != nil && patch.Move != nil:
		return nil, ifNotFound(err, errNoServer)
	case err != nil:
		return nil, ifNotFound(err, errNoAllocation)
	}
	setTag(ctx, allocationTag(updated))
	return server.UpdateAllocation200JSONResponse(toAllocation(updated)), nil
}

// DeleteAllocation frees a public port.
func (a *api) DeleteAllocation(ctx context.Context, request server.DeleteAllocationRequestObject) (server.DeleteAllocationResponseObject, error) {
	if err := a.db.DeleteAllocation(ifMatch(ctx, allocationTag), auth.FromContext(ctx).Scope(), request.ID); err != nil {
		return nil, ifNotFound(err, errNoAllocation)
	}
	return server.DeleteAllocation200JSONResponse(types.Success{Success: true}), nil
}

// move returns the move that a patch requests, or nil.
func move(ctx context.Context, patch types.AllocationPatch) (*db.Move, error) {
	switch {
	case patch.ServerID != nil:
		caller := auth.FromContext(ctx)
		m := db.Move{
			ServerID:     *patch.ServerID,
			OnCordoned:   caller.May("updateAllocation", auth.CordonedServer),
			KeepPortFrom: firstUnprivilegedPort,
			Linger:       time.Duration(valueOr(patch.DrainSeconds, defaultDrainSeconds)) * time.Second,
		}
		if caller.May("updateAllocation", auth.PortBelow1024) {
			m.KeepPortFrom = 1
		}
		return &m, nil
	case patch.DrainSeconds != nil:
		return nil, problem.Invalid(problem.Field("drainSeconds", "requires serverId, the tunnel server to move to"))
	}
	return nil, nil
}

func mayUsePort(ctx context.Context, operation string, port *int) error {
	if port != nil && *port < firstUnprivilegedPort && !auth.FromContext(ctx).May(operation, auth.PortBelow1024) {
		return problem.Forbidden("Only an admin can use a port below 1024.")
	}
	return nil
}

// lastPort is the highest port number.
const lastPort = 65535

// checkRun rejects a run that ends beyond the last port.
func checkRun(allocation db.NewAllocation) error {
	for _, first := range []struct {
		field string
		port  int
	}{{"localPort", allocation.LocalPort}, {"port", allocation.Port}} {
		if last := first.port + allocation.Count - 1; last > lastPort {
			return problem.Invalid(problem.Field(first.field,
				fmt.Sprintf("is the first of %d ports, and the last would be %d, beyond %d", allocation.Count, last, lastPort)))
		}
	}
	return nil
}

// runUnavailable says that a run is what cannot be had, where a single port might be.
func runUnavailable(err error, count int) error {
	switch {
	case count > 1 && errors.Is(err, db.ErrPortTaken):
		return problem.PortTaken(count)
	case count > 1 && errors.Is(err, db.ErrNoPorts):
		return problem.NoPorts(count)
	}
	return err
}

// checkProxyProtocol rejects version 1 for protocols other than TCP: its text header
// cannot describe datagrams.
func checkProxyProtocol(version string, protocols []string) error {
	if version != string(types.ProxyProtocolV1) {
		return nil
	}
	for _, protocol := range protocols {
		if protocol != string(types.ProtocolTCP) {
			return problem.Invalid(problem.Field("options.proxyProtocol", "v1 is for TCP only; use v2"))
		}
	}
	return nil
}
