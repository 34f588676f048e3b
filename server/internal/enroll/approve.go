package enroll

import (
	"context"
	"errors"
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
	// neither is, a device without an owner is given to the caller.
	OwnerID, OrganisationID *int64
	// Name renames the device; nil keeps its name.
	Name *string
}

// Approve approves a pending device. The caller in ctx is a user or an organisation. The
// error may be any problem.Error that the contract lists for the operation.
func (e *Enroller) Approve(ctx context.Context, approval Approval) (db.Device, error) {
	const operation = "approveDevice"
	caller := auth.FromContext(ctx)
	if err := e.mayDecide(ctx, caller, operation); err != nil {
		return db.Device{}, e.refuse(ctx, err)
	}
	if err := e.mayGive(ctx, caller, operation, approval.OwnerID, approval.OrganisationID); err != nil {
		return db.Device{}, e.refuse(ctx, err)
	}
	if err := e.checkNewOwner(ctx, approval); err != nil {
		return db.Device{}, err
	}
	var approved db.Device
	err := e.decide(ctx, operation, approval.UserCode, func(enrollment db.Enrollment, now time.Time) (err error) {
		approved, err = e.approve(ctx, caller, enrollment, approval, now)
		return err
	})
	return approved, e.refuse(ctx, err)
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

func (e *Enroller) approve(ctx context.Context, caller auth.Principal, enrollment db.Enrollment, approval Approval, now time.Time) (db.Device, error) {
	row := db.Approval{At: now, OwnerID: approval.OwnerID, OrganisationID: approval.OrganisationID}
	unowned := enrollment.OwnerID == nil && enrollment.OrganisationID == nil
	if unowned && row.OwnerID == nil && row.OrganisationID == nil {
		row.OwnerID, row.OrganisationID = caller.Owner()
	}
	if approval.Name != nil {
		name := strings.TrimSpace(*approval.Name)
		row.Name = &name
	}
	if enrollment.Kind == string(types.DeviceKindServer) {
		row.PublicHost, row.PortFirst, row.PortLast = e.options.PublicHost, e.options.PortFirst, e.options.PortLast
	}
	return e.options.Store.ApproveDevice(ctx, enrollment.ID, row)
}
