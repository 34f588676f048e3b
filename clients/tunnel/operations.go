package tunnel

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	openapi_types "github.com/oapi-codegen/runtime/types"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// pageSize is the largest page of a list that the contract allows.
const pageSize = 1000

// StartEnrollment requests a device code and a user code (RFC 8628 section 3.1). With
// a session token the device will belong to the session's user, or to
// start.OrganisationID. Without one, who approves the device decides.
//
// Enrollment.Interval is in seconds. If the panel does not permit enrollment without a
// session, the code of the error is unauthorized; for a device of kind server, the
// session must be an admin's (forbidden).
func (c *Client) StartEnrollment(ctx context.Context, start types.EnrollmentStart, opts ...Option) (types.Enrollment, error) {
	return createOnce[types.Enrollment](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.StartEnrollment(ctx, start, e...)
	})
}

// PollEnrollment asks once whether the device has been approved (RFC 8628 section
// 3.4). While it has not, Approved is false and the error is nil. Once it has been
// approved, each call returns a new Token, which invalidates the one before, until the
// device has connected or its token was regenerated; from then on Token is nil.
//
// Codes of its errors are enrollment_expired; enrollment_denied, also once the device has
// been deleted; not_found, for an unknown device code; and slow_down, after which the caller increases its
// interval by 5 seconds (RFC 8628 section 3.5).
func (c *Client) PollEnrollment(ctx context.Context, deviceCode string) (types.EnrollmentStatus, error) {
	return decode[types.EnrollmentStatus](body(c.api.PollEnrollment(ctx, &types.PollEnrollmentParams{DeviceCode: deviceCode})))
}

// Approve approves the pending device with the given user code, in which case and the
// dash do not matter. It needs an admin's session or, where the panel's settings permit
// it, that of who will own the device. Codes of its errors include
// not_found, already_approved, enrollment_expired and rate_limited.
func (c *Client) Approve(ctx context.Context, approval types.DeviceApproval, opts ...Option) (types.Device, error) {
	approved, err := createOnce[types.DeviceApproved](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ApproveDevice(ctx, approval, e...)
	})
	return approved.Device, err
}

// Pending returns what waits for approval with the given user code, for a person who
// decides. It needs the session of somebody who may approve it: an admin or, where the
// panel's settings permit it, who will own the device. Codes of its errors are those of
// Approve.
func (c *Client) Pending(ctx context.Context, userCode string) (types.PendingEnrollment, error) {
	return decode[types.PendingEnrollment](body(c.api.GetPendingDevice(ctx, &types.GetPendingDeviceParams{UserCode: &userCode})))
}

// PendingByTag is Pending for the last enrollment that was started with a tag, the Tag of types.EnrollmentStart. Until
// there is one, the code of the error is not_found, and asking every two seconds is no attempt at a code.
func (c *Client) PendingByTag(ctx context.Context, tag string) (types.PendingEnrollment, error) {
	return decode[types.PendingEnrollment](body(c.api.GetPendingDevice(ctx, &types.GetPendingDeviceParams{Tag: &tag})))
}

// Deny ends the enrollment of the pending device with the given user code: its poll fails
// with enrollment_denied. It needs the session of somebody who may approve it. Codes of its
// errors are those of Approve.
func (c *Client) Deny(ctx context.Context, userCode string) error {
	return done(body(c.api.DenyDevice(ctx, types.DeviceDenial{UserCode: userCode})))
}

// StartDeviceLogin starts a login by which a program gets an API key of the person who approves it (RFC 8628 section
// 3.1). It needs no credential. DeviceLogin.Interval is in seconds. Codes of its errors include rate_limited.
func (c *Client) StartDeviceLogin(ctx context.Context, start types.DeviceLoginStart) (types.DeviceLogin, error) {
	return decode[types.DeviceLogin](body(c.api.StartDeviceLogin(ctx, start)))
}

// PollDeviceLogin asks once whether a login has been approved (RFC 8628 section 3.4). While it has not, Approved is
// false and the error is nil. The first call after the approval returns Key and User, and no other does.
//
// Codes of its errors are login_expired, also once the key has been returned; login_denied; not_found, for an unknown
// device code; and slow_down, after which the caller increases its interval by 5 seconds (RFC 8628 section 3.5).
func (c *Client) PollDeviceLogin(ctx context.Context, deviceCode string) (types.DeviceLoginStatus, error) {
	return decode[types.DeviceLoginStatus](body(c.api.PollDeviceLogin(ctx, types.DeviceLoginPoll{DeviceCode: deviceCode})))
}

// PendingLogin returns what asks to act as the user of the client's session with the given user code, in which case and
// the dash do not matter. It needs a session, as approving and denying do. Codes of its errors include not_found,
// conflict once it was approved, login_expired and rate_limited.
func (c *Client) PendingLogin(ctx context.Context, userCode string) (types.PendingLogin, error) {
	return decode[types.PendingLogin](body(c.api.GetPendingLogin(ctx, &types.GetPendingLoginParams{UserCode: userCode})))
}

// ApproveDeviceLogin makes an API key of the session's user for the program that shows a user code, and returns it
// without the key itself. Codes of its errors are those of PendingLogin; forbidden, if a scope is admin and the user is
// not; and conflict, if the user has 50 keys.
func (c *Client) ApproveDeviceLogin(ctx context.Context, approval types.DeviceLoginApproval, opts ...Option) (types.APIKey, error) {
	return createOnce[types.APIKey](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ApproveDeviceLogin(ctx, approval, e...)
	})
}

// DenyDeviceLogin ends the login of the program that shows a user code: its poll fails with login_denied. Codes of its
// errors are those of PendingLogin.
func (c *Client) DenyDeviceLogin(ctx context.Context, userCode string) error {
	return done(body(c.api.DenyDeviceLogin(ctx, types.DeviceLoginDenial{UserCode: userCode})))
}

// RevokeDeviceLogin revokes an API key, which is its own credential. One that is not valid is no error.
func (c *Client) RevokeDeviceLogin(ctx context.Context, key string) error {
	return done(body(c.api.RevokeDeviceLogin(ctx, types.KeyRevocation{Key: key})))
}

// CreateDevice creates an approved device, and returns it with its token, which cannot be
// retrieved later. It needs an admin's session or, for a client of the session's user or
// of an organisation that the user manages, a panel whose settings permit it.
func (c *Client) CreateDevice(ctx context.Context, create types.DeviceCreate, opts ...Option) (device types.Device, token string, err error) {
	created, err := createOnce[types.DeviceCreated](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateDevice(ctx, create, e...)
	})
	return created.Device, created.Token, err
}

// Login starts a session and returns its token. The client does not keep the token:
// return it from [Options].Token. The code of the error is unauthorized if email or
// password is wrong.
func (c *Client) Login(ctx context.Context, email, password string) (types.Login, error) {
	return decode[types.Login](body(c.api.Login(ctx, types.LoginRequest{Email: openapi_types.Email(email), Password: password})))
}

// Logout ends the session of the client's token. The token is invalid from then on, for
// every client.
func (c *Client) Logout(ctx context.Context) error {
	return done(body(c.api.Logout(ctx)))
}

// Session returns the session of the client's token: its user and when it ends.
func (c *Client) Session(ctx context.Context) (types.Session, error) {
	return decode[types.Session](body(c.api.GetSession(ctx)))
}

// Devices lists every device that the caller manages, newest first. It needs a session;
// an admin's lists all devices of the panel. It fetches pages of 1,000 until the last.
// The list is not nil unless there is an error.
func (c *Client) Devices(ctx context.Context) ([]types.Device, error) {
	var after *string
	return pages(func() (page []types.Device, more bool, err error) {
		limit := pageSize
		resp, err := c.api.ListDevices(ctx, &types.ListDevicesParams{Limit: &limit, After: after})
		if page, err = decode[[]types.Device](body(resp, err)); err != nil {
			return nil, false, err
		}
		after = nextPage(resp.Header)
		return page, after != nil, nil
	})
}

// Device returns a device. With a device token it returns that device alone, and for
// any other id the code of the error is not_found.
func (c *Client) Device(ctx context.Context, id openapi_types.UUID, opts ...Option) (types.Device, error) {
	return fetch[types.Device](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetDevice(ctx, id, e...)
	})
}

// UpdateDevice changes the fields of patch that are not nil and returns the device as it
// is afterwards. patch.Server, the settings of a tunnel server, needs an admin's
// session.
func (c *Client) UpdateDevice(ctx context.Context, id openapi_types.UUID, patch types.DevicePatch, opts ...Option) (types.Device, error) {
	return fetch[types.Device](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateDevice(ctx, id, patch, e...)
	})
}

// DeleteDevice deletes a device and its allocations, and disconnects its players.
//
// The request is retried, so the code not_found can also mean that an earlier attempt
// deleted the device and its answer was lost.
func (c *Client) DeleteDevice(ctx context.Context, id openapi_types.UUID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DeleteDevice(ctx, id, e...)
	})
}

// RegenerateToken returns a new token for a device. The old one is invalid at once, and
// a device that is connected with it is disconnected.
func (c *Client) RegenerateToken(ctx context.Context, id openapi_types.UUID, opts ...Option) (string, error) {
	regenerated, err := createOnce[types.TokenRegenerated](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.RegenerateDeviceToken(ctx, id, e...)
	})
	return regenerated.Token, err
}

// Allocations lists every allocation that the caller manages, newest first. A device
// token lists the device's own. It fetches pages of 1,000 until the last. The list is
// not nil unless there is an error.
func (c *Client) Allocations(ctx context.Context) ([]types.Allocation, error) {
	var after *int64
	return pages(func() (page []types.Allocation, more bool, err error) {
		limit := pageSize
		page, err = decode[[]types.Allocation](body(c.api.ListAllocations(ctx, &types.ListAllocationsParams{Limit: &limit, After: after})))
		if len(page) > 0 {
			after = &page[len(page)-1].ID
		}
		return page, len(page) == pageSize, err
	})
}

// Allocation returns an allocation. Its Status is what is true now, not what was
// requested.
func (c *Client) Allocation(ctx context.Context, id int64, opts ...Option) (types.Allocation, error) {
	return fetch[types.Allocation](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetAllocation(ctx, id, e...)
	})
}

// AllocationDetail returns an allocation as Allocation does, with the rules in effect and
// what its public port has refused since it was opened. A panel from before these were
// added has no rules, and its counts are nil.
func (c *Client) AllocationDetail(ctx context.Context, id int64, opts ...Option) (types.AllocationDetail, error) {
	return fetch[types.AllocationDetail](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetAllocation(ctx, id, e...)
	})
}

// CreateAllocation allocates create.Count public ports (nil is one) and returns the new
// allocations, all or none: one for each port, or two for tcp+udp, of which the TCP one
// is first. A panel from before runs of ports were added refuses a Count. create.DeviceID is required unless
// the caller is a device, which allocates for itself. A nil create.Port lets the panel
// choose the port, and a nil create.ServerID the tunnel server.
//
// Codes of its errors include port_taken, no_ports_available and no_tunnel_server. It
// returns once the allocation is stored, usually with the status pending.
func (c *Client) CreateAllocation(ctx context.Context, create types.AllocationCreate, opts ...Option) ([]types.Allocation, error) {
	created, err := createOnce[types.AllocationCreated](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateAllocation(ctx, create, e...)
	})
	return created.Allocations, err
}

// UpdateAllocation changes the fields of patch that are not nil and returns the
// allocation as it is afterwards. patch.ServerID moves it to another tunnel server;
// patch.DrainSeconds is then how long players may stay on the old one.
func (c *Client) UpdateAllocation(ctx context.Context, id int64, patch types.AllocationPatch, opts ...Option) (types.Allocation, error) {
	return fetch[types.Allocation](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateAllocation(ctx, id, patch, e...)
	})
}

// DeleteAllocation frees a public port and disconnects its players. As with
// [Client.DeleteDevice], not_found can mean that an earlier attempt deleted it.
func (c *Client) DeleteAllocation(ctx context.Context, id int64, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DeleteAllocation(ctx, id, e...)
	})
}

// CheckAllocation finds out whether players can join an allocation, and the first broken hop on
// their way if they cannot. It takes up to ten seconds. What is broken is in the result: an
// error means that it could not be checked, rate_limited that it was checked too often.
func (c *Client) CheckAllocation(ctx context.Context, id int64, opts ...Option) (types.AllocationCheck, error) {
	return fetch[types.AllocationCheck](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CheckAllocation(ctx, id, e...)
	})
}

// BulkAllocations pauses, resumes or deletes many allocations, and returns what became of
// each in the order of bulk.Ids: one that cannot be changed leaves the others as they are.
func (c *Client) BulkAllocations(ctx context.Context, bulk types.AllocationsBulk, opts ...Option) ([]types.BulkResult, error) {
	done, err := fetch[types.BulkResults](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.BulkAllocations(ctx, bulk, e...)
	})
	return done.Results, err
}

// Settings returns the panel's settings. It needs an admin's session.
func (c *Client) Settings(ctx context.Context, opts ...Option) (types.Settings, error) {
	return fetch[types.Settings](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetSettings(ctx, e...)
	})
}

// UpdateSettings changes the fields of patch that are not nil and returns the settings
// as they are afterwards. It needs an admin's session.
func (c *Client) UpdateSettings(ctx context.Context, patch types.SettingsPatch, opts ...Option) (types.Settings, error) {
	return fetch[types.Settings](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateSettings(ctx, patch, e...)
	})
}

// Version returns the version of the panel. It needs no token.
func (c *Client) Version(ctx context.Context) (types.Version, error) {
	return decode[types.Version](body(c.api.GetVersion(ctx)))
}

// Ready returns nil if the panel can serve requests: its database answers, and it is
// neither starting nor stopping. It needs no token.
func (c *Client) Ready(ctx context.Context) error {
	return done(body(c.api.GetReadiness(ctx)))
}

// nextPage returns the parameter `after` of the next page, or nil on the last one.
func nextPage(header http.Header) *string {
	query, err := url.ParseQuery(nextQuery(header))
	if err != nil || !query.Has("after") {
		return nil
	}
	after := query.Get("after")
	return &after
}

// nextQuery returns the query of the next page of a list, or "" on the last one. The
// panel names it in the Link header (RFC 8288), which has no other link.
func nextQuery(header http.Header) string {
	target, parameters, _ := strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	next, err := url.Parse(target)
	if err != nil || !strings.Contains(parameters, `rel="next"`) {
		return ""
	}
	return next.RawQuery
}

// pages collects the pages that next returns until no more follow.
func pages[T any](next func() (page []T, more bool, err error)) ([]T, error) {
	all := []T{}
	for {
		page, more, err := next()
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if !more {
			return all, nil
		}
	}
}
