package tunnel

import (
	"context"

	openapi_types "github.com/oapi-codegen/runtime/types"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// pageSize is how many the panel lists at most in one answer.
const pageSize = 1000

// StartEnrollment asks for a device code (RFC 8628 section 3.1). With a session
// token the device will belong to its user.
func (c *Client) StartEnrollment(ctx context.Context, start types.EnrollmentStart) (types.Enrollment, error) {
	return decode[types.Enrollment](body(c.api.StartEnrollment(ctx, start)))
}

// PollEnrollment asks once whether the device is approved. Its errors are those
// of the contract: enrollment_expired, not_found once the device was deleted,
// and slow_down, which it leaves to the caller.
func (c *Client) PollEnrollment(ctx context.Context, deviceCode string) (types.EnrollmentStatus, error) {
	return decode[types.EnrollmentStatus](body(c.api.PollEnrollment(ctx, &types.PollEnrollmentParams{DeviceCode: deviceCode})))
}

// Approve approves a pending device. It needs an admin's session.
func (c *Client) Approve(ctx context.Context, approval types.DeviceApproval) (types.Device, error) {
	approved, err := decode[types.DeviceApproved](body(c.api.ApproveDevice(ctx, approval)))
	return approved.Device, err
}

// Login returns a session token, which the caller hands in through
// [Options].Token.
func (c *Client) Login(ctx context.Context, email, password string) (types.Login, error) {
	return decode[types.Login](body(c.api.Login(ctx, types.LoginRequest{Email: openapi_types.Email(email), Password: password})))
}

// Logout ends the session of the token.
func (c *Client) Logout(ctx context.Context) error {
	return done(body(c.api.Logout(ctx)))
}

// Session says whose session the token is.
func (c *Client) Session(ctx context.Context) (types.Session, error) {
	return decode[types.Session](body(c.api.GetSession(ctx)))
}

// Devices lists all devices that the caller manages, newest first.
func (c *Client) Devices(ctx context.Context) ([]types.Device, error) {
	var after *openapi_types.UUID
	return pages(func() ([]types.Device, error) {
		limit := pageSize
		page, err := decode[[]types.Device](body(c.api.ListDevices(ctx, &types.ListDevicesParams{Limit: &limit, After: after})))
		if len(page) > 0 {
			after = &page[len(page)-1].ID
		}
		return page, err
	})
}

// Device returns a device; a device may read itself.
func (c *Client) Device(ctx context.Context, id openapi_types.UUID) (types.Device, error) {
	return decode[types.Device](body(c.api.GetDevice(ctx, id)))
}

// UpdateDevice changes the fields that are set. Those of a tunnel server need an
// admin's session.
func (c *Client) UpdateDevice(ctx context.Context, id openapi_types.UUID, patch types.DevicePatch) (types.Device, error) {
	return decode[types.Device](body(c.api.UpdateDevice(ctx, id, patch)))
}

// DeleteDevice deletes a device with its allocations. Where the first answer was
// lost on the way, the repeated request may find nothing and fail with
// not_found.
func (c *Client) DeleteDevice(ctx context.Context, id openapi_types.UUID) error {
	return done(body(c.api.DeleteDevice(ctx, id)))
}

// RegenerateToken returns a new token for a device; the old one is dead at once.
func (c *Client) RegenerateToken(ctx context.Context, id openapi_types.UUID) (string, error) {
	regenerated, err := decode[types.TokenRegenerated](body(c.api.RegenerateDeviceToken(ctx, id)))
	return regenerated.Token, err
}

// Allocations lists all allocations that the caller manages, newest first; for
// a device they are its own.
func (c *Client) Allocations(ctx context.Context) ([]types.Allocation, error) {
	var after *int64
	return pages(func() ([]types.Allocation, error) {
		limit := pageSize
		page, err := decode[[]types.Allocation](body(c.api.ListAllocations(ctx, &types.ListAllocationsParams{Limit: &limit, After: after})))
		if len(page) > 0 {
			after = &page[len(page)-1].ID
		}
		return page, err
	})
}

// Allocation returns one allocation.
func (c *Client) Allocation(ctx context.Context, id int64) (types.Allocation, error) {
	return decode[types.Allocation](body(c.api.GetAllocation(ctx, id)))
}

// CreateAllocation opens a public port and returns what was made: two
// allocations for tcp+udp, the TCP one first, otherwise one.
func (c *Client) CreateAllocation(ctx context.Context, create types.AllocationCreate) ([]types.Allocation, error) {
	created, err := decode[types.AllocationCreated](body(c.api.CreateAllocation(ctx, create)))
	return created.Allocations, err
}

// UpdateAllocation changes the fields that are set.
func (c *Client) UpdateAllocation(ctx context.Context, id int64, patch types.AllocationPatch) (types.Allocation, error) {
	return decode[types.Allocation](body(c.api.UpdateAllocation(ctx, id, patch)))
}

// DeleteAllocation frees a public port. See [Client.DeleteDevice] about lost
// answers.
func (c *Client) DeleteAllocation(ctx context.Context, id int64) error {
	return done(body(c.api.DeleteAllocation(ctx, id)))
}

// Settings reads the panel's settings. It needs an admin's session.
func (c *Client) Settings(ctx context.Context) (types.Settings, error) {
	return decode[types.Settings](body(c.api.GetSettings(ctx)))
}

// UpdateSettings changes the settings that are set, as an admin.
func (c *Client) UpdateSettings(ctx context.Context, patch types.SettingsPatch) (types.Settings, error) {
	return decode[types.Settings](body(c.api.UpdateSettings(ctx, patch)))
}

// Version says which version the panel is.
func (c *Client) Version(ctx context.Context) (types.Version, error) {
	return decode[types.Version](body(c.api.GetVersion(ctx)))
}

// Ready returns nil once the panel can serve requests.
func (c *Client) Ready(ctx context.Context) error {
	return done(body(c.api.GetReadiness(ctx)))
}

// pages collects a list whose pages next returns, one after the other. The list
// is never nil.
func pages[T any](next func() ([]T, error)) ([]T, error) {
	all := []T{}
	for {
		page, err := next()
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < pageSize {
			return all, nil
		}
	}
}
