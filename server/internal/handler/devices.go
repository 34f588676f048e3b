package handler

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

var errNoDevice = problem.NotFound("There is no such device.")

// ListDevices lists the devices the caller can manage.
func (a *api) ListDevices(ctx context.Context, request server.ListDevicesRequestObject) (server.ListDevicesResponseObject, error) {
	wanted, page := page(request.Params.Limit, request.Params.After)
	rows, err := a.db.Devices(ctx, auth.FromContext(ctx).Scope(), page)
	if err != nil {
		return nil, absent(err, problem.Invalid(problem.Field("after", "names none of these devices")))
	}
	rows, link := cut(rows, wanted, "/api/tunnel/devices", func(d db.Device) string { return d.ID.String() })
	devices := make([]types.Device, 0, len(rows))
	for _, row := range rows {
		devices = append(devices, toDevice(row))
	}
	return server.ListDevices200JSONResponse{
		Body:    devices,
		Headers: server.ListDevices200ResponseHeaders{Link: link},
	}, nil
}

// GetDevice returns one device.
func (a *api) GetDevice(ctx context.Context, request server.GetDeviceRequestObject) (server.GetDeviceResponseObject, error) {
	device, err := a.db.Device(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, absent(err, errNoDevice)
	}
	return server.GetDevice200JSONResponse(toDevice(device)), nil
}

// UpdateDevice renames a device.
func (a *api) UpdateDevice(ctx context.Context, request server.UpdateDeviceRequestObject) (server.UpdateDeviceResponseObject, error) {
	name := strings.TrimSpace(request.Body.Name)
	device, err := a.db.RenameDevice(ctx, auth.FromContext(ctx).Scope(), request.ID, name)
	if err != nil {
		return nil, absent(err, errNoDevice)
	}
	return server.UpdateDevice200JSONResponse(toDevice(device)), nil
}

// DeleteDevice removes a device with its allocations.
func (a *api) DeleteDevice(ctx context.Context, request server.DeleteDeviceRequestObject) (server.DeleteDeviceResponseObject, error) {
	if err := a.db.DeleteDevice(ctx, auth.FromContext(ctx).Scope(), request.ID); err != nil {
		return nil, absent(err, errNoDevice)
	}
	return server.DeleteDevice200JSONResponse(types.Success{Success: true}), nil
}

// RegenerateDeviceToken replaces a device's token.
func (a *api) RegenerateDeviceToken(ctx context.Context, request server.RegenerateDeviceTokenRequestObject) (server.RegenerateDeviceTokenResponseObject, error) {
	device, err := a.db.RegenerateToken(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if errors.Is(err, db.ErrConflict) {
		return nil, problem.Conflict("The device has not been approved yet, and has no token.")
	}
	if err != nil {
		return nil, absent(err, errNoDevice)
	}
	token, err := a.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		return nil, err
	}
	return server.RegenerateDeviceToken200JSONResponse(types.TokenRegenerated{Success: true, Token: token}), nil
}

// absent says what it is that was not found.
func absent(err error, notFound *problem.Error) error {
	if errors.Is(err, db.ErrNotFound) {
		return notFound
	}
	return err
}

func toDevice(row db.Device) types.Device {
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
		Platform:       orNull(row.Platform),
		Server:         nullable.NewNullNullable[types.TunnelServer](),
	}
	if row.ApprovedAt == nil {
		device.UserCode = nullable.NewNullableWithValue(row.UserCode)
		device.ExpiresAt = nullable.NewNullableWithValue(row.ExpiresAt)
	} else if device.Kind == types.DeviceKindServer {
		// A tunnel server gets these when it is approved.
		device.Server = nullable.NewNullableWithValue(types.TunnelServer{
			PublicHost:  row.PublicHost,
			RelayPort:   row.RelayPort,
			PortRange:   types.PortRange{First: row.PortFirst, Last: row.PortLast},
			Fingerprint: row.Fingerprint,
		})
	}
	return device
}

func orNull[T any](value *T) nullable.Nullable[T] {
	if value == nil {
		return nullable.NewNullNullable[T]()
	}
	return nullable.NewNullableWithValue(*value)
}
