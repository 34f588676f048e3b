package enroll

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Approval is a request to approve the device with a user code.
type Approval struct {
	UserCode string
	// OwnerID and OrganisationID name the device's new owner; at most one is set. If
	// neither is, a device without an owner is given to the admin.
	OwnerID, OrganisationID *int64
	// Name renames the device; nil keeps its name.
	Name *string
}

// Approve approves a pending device. The caller in ctx is a user whom the policy of
// package auth lets approve devices. The error may be any problem.Error that the contract
// lists for the operation.
func (e *Enroller) Approve(ctx context.Context, approval Approval) (db.Device, error) {
	caller := auth.FromContext(ctx)
	if err := e.checkNewOwner(ctx, approval); err != nil {
		return db.Device{}, err
	}
	limits := append(auth.PerSource(ctx, "approve:address", approveFailures, approveWindow),
		auth.Limit{Key: "approve:user:" + strconv.FormatInt(caller.User.ID, 10), Max: approveFailures, Window: approveWindow})
	// Counted before the code is tried, so that concurrent guesses all count.
	if err := e.limits.Check(ctx, limits...); err != nil {
		return db.Device{}, err
	}
	device, err := e.approve(ctx, caller, approval)
	if err != nil {
		return db.Device{}, err
	}
	return device, e.limits.Reset(ctx, limits...)
}

// checkNewOwner checks the new name, and that the new owner exists. It runs before the
// code is tried, so that a mistake in these fields does not count as a guess.
func (e *Enroller) checkNewOwner(ctx context.Context, approval Approval) error {
	if approval.Name != nil && strings.TrimSpace(*approval.Name) == "" {
		return problem.Invalid(problem.Field("name", "is blank"))
	}
	if approval.OwnerID != nil && approval.OrganisationID != nil {
		return problem.Invalid(
			problem.Field("ownerId", "cannot be given together with organisationId"),
			problem.Field("organisationId", "cannot be given together with ownerId"))
	}
	if approval.OwnerID != nil {
		_, err := e.options.Store.UserByID(ctx, *approval.OwnerID)
		if errors.Is(err, db.ErrNotFound) {
			return problem.Invalid(problem.Field("ownerId", "is not a user of this panel"))
		}
		return err
	}
	if approval.OrganisationID != nil {
		exists, err := e.options.Store.OrganisationExists(ctx, *approval.OrganisationID)
		if err == nil && !exists {
			return problem.Invalid(problem.Field("organisationId", "is not an organisation of this panel"))
		}
		return err
	}
	return nil
}

func (e *Enroller) approve(ctx context.Context, caller auth.Principal, approval Approval) (db.Device, error) {
	now := e.options.Now()
	device, err := e.find(ctx, approval.UserCode, now)
	if err != nil {
		return db.Device{}, err
	}
	row := db.Approval{At: now, OwnerID: approval.OwnerID, OrganisationID: approval.OrganisationID}
	unowned := device.OwnerID == nil && device.OrganisationID == nil
	if unowned && row.OwnerID == nil && row.OrganisationID == nil {
		row.OwnerID = &caller.User.ID
	}
	if approval.Name != nil {
		name := strings.TrimSpace(*approval.Name)
		row.Name = &name
	}
	if device.Kind == string(types.DeviceKindServer) {
		row.PublicHost, row.PortFirst, row.PortLast = e.options.PublicHost, e.options.PortFirst, e.options.PortLast
	}
	approved, err := e.options.Store.ApproveDevice(ctx, device.ID, row)
	if errors.Is(err, db.ErrConflict) {
		// It was approved or expired since it was read: find out which.
		if _, err := e.find(ctx, approval.UserCode, now); err != nil {
			return db.Device{}, err
		}
	}
	return approved, err
}

// find returns the pending device with a user code.
func (e *Enroller) find(ctx context.Context, userCode string, now time.Time) (db.Device, error) {
	device, err := e.options.Store.DeviceByUserCode(ctx, normaliseUserCode(userCode))
	switch {
	case errors.Is(err, db.ErrNotFound):
		return db.Device{}, problem.NotFound("There is no device with this code.")
	case err != nil:
		return db.Device{}, err
	case device.ApprovedAt != nil:
		return db.Device{}, problem.AlreadyApproved()
	case !now.Before(device.ExpiresAt):
		return db.Device{}, problem.EnrollmentExpired()
	}
	return device, nil
}
