package handler

import (
	"context"

	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// StartEnrollment starts an enrollment.
func (a *api) StartEnrollment(ctx context.Context, request server.StartEnrollmentRequestObject) (server.StartEnrollmentResponseObject, error) {
	start := enroll.Start{
		Name:           request.Body.Name,
		Kind:           types.DeviceKindClient,
		OrganisationID: request.Body.OrganisationID,
		Platform:       valueOr(request.Body.Platform, ""),
		AgentVersion:   valueOr(request.Body.AgentVersion, ""),
		Tag:            valueOr(request.Body.Tag, ""),
		Server:         toServerSettings(request.Body.Server),
	}
	if request.Body.Kind != nil {
		start.Kind = *request.Body.Kind
	}
	started, err := a.enroll.Start(ctx, start)
	if err != nil {
		return nil, err
	}
	page, complete := a.devicePage(started.Device.UserCode)
	return server.StartEnrollment200JSONResponse(types.Enrollment{
		DeviceCode:              started.DeviceCode,
		UserCode:                started.Device.UserCode,
		ExpiresAt:               started.Device.ExpiresAt,
		VerificationURI:         page,
		VerificationURIComplete: complete,
		Interval:                int(enroll.Interval.Seconds()),
	}), nil
}

// toServerSettings returns the settings for a new tunnel server, or nil for nil.
func toServerSettings(settings *types.TunnelServerSettings) *enroll.ServerSettings {
	if settings == nil {
		return nil
	}
	result := &enroll.ServerSettings{
		PublicHost: valueOr(settings.PublicHost, ""),
		Region:     valueOr(settings.Region, ""),
		Cordoned:   valueOr(settings.Cordoned, false),
	}
	if ports := settings.PortRange; ports != nil {
		result.PortFirst, result.PortLast = ports.First, ports.Last
	}
	return result
}

// PollEnrollment returns the state of an enrollment.
func (a *api) PollEnrollment(ctx context.Context, request server.PollEnrollmentRequestObject) (server.PollEnrollmentResponseObject, error) {
	status, err := a.enroll.Poll(ctx, request.Params.DeviceCode)
	if err != nil {
		return nil, err
	}
	answer := types.EnrollmentStatus{Approved: status.Approved}
	if status.Token != "" {
		answer.Token = &status.Token
	}
	return server.PollEnrollment200JSONResponse(answer), nil
}

// GetPendingDevice returns what waits for approval.
func (a *api) GetPendingDevice(ctx context.Context, request server.GetPendingDeviceRequestObject) (server.GetPendingDeviceResponseObject, error) {
	pending, err := a.pending(ctx, request.Params)
	if err != nil {
		return nil, err
	}
	return server.GetPendingDevice200JSONResponse(types.PendingEnrollment{
		UserCode:         pending.UserCode,
		Name:             pending.Name,
		Kind:             types.DeviceKind(pending.Kind),
		Platform:         orNull(pending.Platform),
		AgentVersion:     orNull(pending.AgentVersion),
		Address:          orNull(pending.StartedFrom),
		SameNetwork:      pending.SameNetwork,
		CreatedAt:        pending.CreatedAt,
		ExpiresAt:        pending.ExpiresAt,
		OwnerID:          orNull(pending.OwnerID),
		OwnerEmail:       orNull(pending.OwnerEmail),
		OrganisationID:   orNull(pending.OrganisationID),
		OrganisationName: orNull(pending.OrganisationName),
	}), nil
}

// pending returns what waits under a user code or a tag, of which exactly one is given.
func (a *api) pending(ctx context.Context, params types.GetPendingDeviceParams) (enroll.Pending, error) {
	switch {
	case params.UserCode == nil && params.Tag == nil:
		return enroll.Pending{}, problem.Invalid(problem.Field("userCode", "is required, unless tag is given"))
	case params.Tag == nil:
		return a.enroll.Pending(ctx, *params.UserCode)
	case params.UserCode == nil:
		return a.enroll.PendingByTag(ctx, *params.Tag)
	default:
		return enroll.Pending{}, problem.Invalid(problem.Field("tag", "cannot be given together with userCode"))
	}
}

// DenyDevice ends a pending enrollment.
func (a *api) DenyDevice(ctx context.Context, request server.DenyDeviceRequestObject) (server.DenyDeviceResponseObject, error) {
	if err := a.enroll.Deny(ctx, request.Body.UserCode); err != nil {
		return nil, err
	}
	return server.DenyDevice200JSONResponse(types.Success{Success: true}), nil
}

// ApproveDevice approves a pending device.
func (a *api) ApproveDevice(ctx context.Context, request server.ApproveDeviceRequestObject) (server.ApproveDeviceResponseObject, error) {
	device, err := a.enroll.Approve(ctx, enroll.Approval{
		UserCode:       request.Body.UserCode,
		OwnerID:        request.Body.OwnerID,
		OrganisationID: request.Body.OrganisationID,
		Name:           request.Body.Name,
	})
	if err != nil {
		return nil, err
	}
	return server.ApproveDevice200JSONResponse(types.DeviceApproved{Success: true, Device: a.device(device)}), nil
}
