package handler

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
)

var errNoDevice = problem.NotFound("There is no such device.")

// ListDevices lists the devices that the caller sees.
func (a *api) ListDevices(ctx context.Context, request server.ListDevicesRequestObject) (server.ListDevicesResponseObject, error) {
	scope, params := auth.FromContext(ctx).Scope(), request.Params
	sort := valueOr(params.Sort, types.DevicesDescendingByCreatedAt)
	filter, parameters := deviceFilter(params)
	wanted := valueOr(params.Limit, types.DefaultLimit)
	var rows []db.Device
	var err error
	if filter == (db.DeviceFilter{}) && sort == types.DevicesDescendingByCreatedAt {
		rows, err = a.newestDevices(ctx, scope, params)
	} else {
		rows, err = a.findDevices(ctx, scope, filter, sort, params)
	}
	if err != nil {
		return nil, err
	}
	rows, link := cut(rows, wanted, "/api/tunnel/devices", func(d db.Device) string { return deviceCursor(sort, d) }, parameters...)
	devices := make([]types.Device, 0, len(rows))
	for _, row := range rows {
		devices = append(devices, a.device(row))
	}
	return server.ListDevices200JSONResponse{
		Body:    devices,
		Headers: server.ListDevices200ResponseHeaders{Link: link},
	}, nil
}

// newestDevices lists all devices that the caller sees in the default order.
func (a *api) newestDevices(ctx context.Context, scope db.Scope, params types.ListDevicesParams) ([]db.Device, error) {
	after, err := a.devicePosition(ctx, scope, params.After)
	if err != nil {
		return nil, err
	}
	_, page := page(params.Limit, after)
	return a.db.Devices(ctx, scope, page)
}

// devicePosition returns the position that the parameter `after` names, or nil without
// one. A device's id, which the first version of the API used as a cursor, names the
// position of that device.
func (a *api) devicePosition(ctx context.Context, scope db.Scope, after *string) (*db.DevicePosition, error) {
	if after == nil {
		return nil, nil
	}
	if position, ok := parseCursor(*after); ok {
		return &position, nil
	}
	id, err := uuid.Parse(*after)
	if err != nil {
		return nil, errNoPosition
	}
	device, err := a.db.Device(ctx, scope, id)
	if err != nil {
		return nil, ifNotFound(err, problem.Invalid(problem.Field("after", "is not one of these devices; use the URL in the Link header")))
	}
	return &db.DevicePosition{CreatedAt: device.CreatedAt, ID: device.ID}, nil
}

// GetDevice returns one device.
func (a *api) GetDevice(ctx context.Context, request server.GetDeviceRequestObject) (server.GetDeviceResponseObject, error) {
	device, err := a.db.Device(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoDevice)
	}
	setTag(ctx, deviceTag(device))
	return server.GetDevice200JSONResponse(a.device(device)), nil
}

// UpdateDevice changes a device's name and owner, and a tunnel server's settings.
func (a *api) UpdateDevice(ctx context.Context, request server.UpdateDeviceRequestObject) (server.UpdateDeviceResponseObject, error) {
	caller := auth.FromContext(ctx)
	var patch db.DevicePatch
	if request.Body.Name != nil {
		name := strings.TrimSpace(*request.Body.Name)
		if name == "" {
			return nil, problem.Invalid(problem.Field("name", "is blank"))
		}
		patch.Name = &name
	}
	if settings := request.Body.Server; settings != nil {
		if err := a.mayConfigure(ctx, caller, request.ID, *settings); err != nil {
			return nil, err
		}
		patch.PublicHost, patch.Region, patch.Cordoned = settings.PublicHost, settings.Region, settings.Cordoned
		if ports := settings.PortRange; ports != nil {
			patch.PortFirst, patch.PortLast = &ports.First, &ports.Last
		}
	}
	if request.Body.OwnerID != nil || request.Body.OrganisationID != nil {
		if err := a.mayGive(ctx, caller, request.ID, *request.Body); err != nil {
			return nil, err
		}
		patch.Owner = &db.NewOwner{UserID: request.Body.OwnerID, OrganisationID: request.Body.OrganisationID}
	}
	device, err := a.db.UpdateDevice(ifMatch(ctx, deviceTag), caller.Scope(), request.ID, patch)
	switch {
	case errors.Is(err, db.ErrNoOwner) && request.Body.OrganisationID != nil:
		return nil, errNoOrganisation
	case errors.Is(err, db.ErrNoOwner):
		return nil, problem.Invalid(problem.Field("ownerId", "is not a user of this panel"))
	case err != nil:
		return nil, ifNotFound(err, errNoDevice)
	}
	setTag(ctx, deviceTag(device))
	return server.UpdateDevice200JSONResponse(a.device(device)), nil
}

// mayConfigure checks that the caller may apply the settings to a tunnel server.
func (a *api) mayConfigure(ctx context.Context, caller auth.Principal, id uuid.UUID, settings types.TunnelServerSettings) error {
	device, err := a.db.ManagedDevice(ctx, caller.Scope(), id)
	switch {
	case err != nil:
		return ifNotFound(err, errNoDevice)
	case !caller.May("updateDevice", auth.ServerSettings):
		return problem.Forbidden("Only an admin can change the settings of a tunnel server.")
	case device.Kind != db.KindServer:
		return problem.Conflict("The device is a tunnel client; only tunnel servers have these settings.")
	case device.Embedded && (settings.PublicHost != nil || settings.PortRange != nil):
		return problem.Conflict("This tunnel server is embedded in a panel, whose settings determine its host and ports.")
	}
	if ports := settings.PortRange; ports != nil {
		return enroll.CheckPortRange(ports.First, ports.Last)
	}
	return nil
}

// mayGive checks what does not depend on the rows of the new owner: whether the caller may
// give the device away so.
func (a *api) mayGive(ctx context.Context, caller auth.Principal, id uuid.UUID, patch types.DevicePatch) error {
	if patch.OwnerID != nil && patch.OrganisationID != nil {
		return problem.Invalid(
			problem.Field("ownerId", "cannot be given together with organisationId"),
			problem.Field("organisationId", "cannot be given together with ownerId"))
	}
	device, err := a.db.ManagedDevice(ctx, caller.Scope(), id)
	switch {
	case err != nil:
		return ifNotFound(err, errNoDevice)
	case patch.OwnerID != nil && !caller.IsUser(*patch.OwnerID) && !caller.May("updateDevice", auth.AnotherOwner):
		return problem.Forbidden("Only an admin can give a device to another user.")
	case device.Kind == db.KindServer && !caller.May("updateDevice", auth.TunnelServer):
		// Its owner decides whose devices it serves.
		return problem.Forbidden("Only an admin can give a tunnel server to another owner.")
	}
	return nil
}

// CreateDevice creates a device that needs no enrollment.
func (a *api) CreateDevice(ctx context.Context, request server.CreateDeviceRequestObject) (server.CreateDeviceResponseObject, error) {
	body := request.Body
	device, token, err := a.enroll.CreateFor(ctx, enroll.Creation{
		Start: enroll.Start{
			Name:           body.Name,
			Kind:           valueOr(body.Kind, types.DeviceKindClient),
			OrganisationID: body.OrganisationID,
			Server:         toServerSettings(body.Server),
		},
		OwnerID: body.OwnerID,
	})
	if err != nil {
		return nil, err
	}
	return server.CreateDevice201JSONResponse(types.DeviceCreated{Device: a.device(device), Token: token}), nil
}

// DrainDevice drains a tunnel server of its players.
func (a *api) DrainDevice(ctx context.Context, request server.DrainDeviceRequestObject) (server.DrainDeviceResponseObject, error) {
	caller := auth.FromContext(ctx)
	if _, err := a.db.ManagedDevice(ctx, caller.Scope(), request.ID); err != nil {
		return nil, ifNotFound(err, errNoDevice)
	}
	if !caller.May("drainDevice", "") {
		return nil, problem.Forbidden("Only an admin can drain a tunnel server.")
	}
	limit := time.Duration(valueOr(request.Body.TimeoutSeconds, defaultDrainSeconds)) * time.Second
	device, err := a.db.DrainServer(ctx, caller.Scope(), request.ID, limit, valueOr(request.Body.Move, false))
	switch {
	case errors.Is(err, db.ErrConflict):
		return nil, problem.Conflict("Only an approved tunnel server can be drained.")
	case err != nil:
		return nil, ifNotFound(err, errNoDevice)
	}
	return server.DrainDevice200JSONResponse(a.device(device)), nil
}

// DeleteDevice removes a device with its allocations.
func (a *api) DeleteDevice(ctx context.Context, request server.DeleteDeviceRequestObject) (server.DeleteDeviceResponseObject, error) {
	if err := a.db.DeleteDevice(ifMatch(ctx, deviceTag), auth.FromContext(ctx).Scope(), request.ID); err != nil {
		return nil, ifNotFound(err, errNoDevice)
	}
	return server.DeleteDevice200JSONResponse(types.Success{Success: true}), nil
}

// RegenerateDeviceToken replaces a device's token.
func (a *api) RegenerateDeviceToken(ctx context.Context, request server.RegenerateDeviceTokenRequestObject) (server.RegenerateDeviceTokenResponseObject, error) {
	device, err := a.db.RegenerateToken(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if errors.Is(err, db.ErrConflict) {
		return nil, problem.Conflict("The device has not been approved yet and has no token.")
	}
	if err != nil {
		return nil, ifNotFound(err, errNoDevice)
	}
	token, err := a.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		return nil, err
	}
	return server.RegenerateDeviceToken200JSONResponse(types.TokenRegenerated{Success: true, Token: token}), nil
}

// ifNotFound returns notFound if err is db.ErrNotFound, otherwise err.
func ifNotFound(err error, notFound *problem.Error) error {
	if errors.Is(err, db.ErrNotFound) {
		return notFound
	}
	return err
}

// device returns a device as the API shows it.
func (a *api) device(row db.Device) types.Device { return toDevice(row, a.version.Version) }

// toDevice returns a device as a panel of a version shows it.
func toDevice(row db.Device, panel string) types.Device {
	device := types.Device{
		ID:             row.ID,
		Name:           row.Name,
		Kind:           types.DeviceKind(row.Kind),
		Approved:       row.ApprovedAt != nil,
		UserCode:       nullable.NewNullNullable[string](),
		ExpiresAt:      nullable.NewNullNullable[time.Time](),
		CreatedAt:      row.CreatedAt,
		OwnerID:        orNull(row.OwnerID),
		OrganisationID: orNull(row.OrganisationID),
		Online:         row.Online,
		LastSeenAt:     orNull(row.LastSeenAt),
		AgentVersion:   orNull(row.AgentVersion),
		AgentOutdated:  row.AgentVersion != nil && isOlder(*row.AgentVersion, panel),
		Platform:       orNull(row.Platform),
		Address:        orNull(row.ControlAddress),
		ConnectedSince: orNull(row.ConnectedAt),

		DisconnectReason: orNull(row.DisconnectReason),

		Server: nullable.NewNullNullable[types.TunnelServer](),
	}
	if row.ApprovedAt == nil {
		device.UserCode = nullable.NewNullableWithValue(row.UserCode)
		device.ExpiresAt = nullable.NewNullableWithValue(row.ExpiresAt)
	} else if device.Kind == types.DeviceKindServer {
		// These are set when the tunnel server is approved.
		s := types.TunnelServer{
			PublicHost:        row.PublicHost,
			PublicHostGuessed: row.HostGuessed,
			PublicHostWarning: nullable.NewNullNullable[string](),
			PublicAddresses:   publichost.Addresses(row.PublicHost, row.PublicAddresses),
			RelayPort:         row.RelayPort,
			PortRange:         types.PortRange{First: row.PortFirst, Last: row.PortLast},
			Region:            row.Region,
			Fingerprint:       row.Fingerprint,
			State:             types.TunnelServerState(row.ServerState),
			Players:           orNull(row.Players),
			DrainUntil:        orNull(row.DrainUntil),
		}
		if warning := publichost.Warning(row.Host, time.Now()); warning != "" {
			s.PublicHostWarning = nullable.NewNullableWithValue(warning)
		}
		device.Server = nullable.NewNullableWithValue(s)
	}
	return device
}

func orNull[T any](value *T) nullable.Nullable[T] {
	if value == nil {
		return nullable.NewNullNullable[T]()
	}
	return nullable.NewNullableWithValue(*value)
}
