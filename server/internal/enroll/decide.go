package enroll

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Pending is an enrollment that waits for approval, as a person sees it who may decide.
type Pending struct {
	db.Enrollment
	// SameNetwork means that it was started from the source of the caller's address.
	SameNetwork bool
}

// Pending returns the pending enrollment with a user code. The caller in ctx is a user or an organisation; a
// code of which the policy of package auth does not let the caller decide is as unknown as
// any other. The error may be any problem.Error that the contract lists for the operation.
func (e *Enroller) Pending(ctx context.Context, userCode string) (Pending, error) {
	const operation = "getPendingDevice"
	if err := e.mayDecide(ctx, auth.FromContext(ctx), operation); err != nil {
		return Pending{}, err
	}
	var pending Pending
	err := e.decide(ctx, operation, userCode, func(enrollment db.Enrollment, _ time.Time) error {
		pending = seenFrom(ctx, enrollment)
		return nil
	})
	return pending, err
}

// seenFrom returns an enrollment as the caller in ctx sees it.
func seenFrom(ctx context.Context, enrollment db.Enrollment) Pending {
	return Pending{Enrollment: enrollment, SameNetwork: sameNetwork(ctx, enrollment.StartedFrom)}
}

// PendingByTag returns the pending enrollment with a tag. Who calls and what the error may be is as with Pending. A tag
// cannot be guessed, so that looking for one is no attempt at a user code: a page may ask every two seconds.
func (e *Enroller) PendingByTag(ctx context.Context, tag string) (Pending, error) {
	const operation = "getPendingDevice"
	caller := auth.FromContext(ctx)
	if err := e.mayDecide(ctx, caller, operation); err != nil {
		return Pending{}, err
	}
	err := e.limits.Check(ctx, auth.Limit{Key: "tag:" + caller.Account(), Max: tagReads, Window: tagWindow})
	if err != nil {
		return Pending{}, err
	}
	absent := problem.NotFound("No machine has asked under this tag.")
	enrollment, err := e.options.Store.EnrollmentByTag(ctx, hashTag(tag), asker(caller))
	if errors.Is(err, db.ErrNotFound) {
		return Pending{}, absent
	}
	if err != nil {
		return Pending{}, err
	}
	if err := judge(caller, operation, enrollment, e.options.Now(), absent); err != nil {
		return Pending{}, err
	}
	return seenFrom(ctx, enrollment), nil
}

// Deny ends a pending enrollment for good. The caller in ctx is a user or an organisation. The error may be
// any problem.Error that the contract lists for the operation.
func (e *Enroller) Deny(ctx context.Context, userCode string) error {
	const operation = "denyDevice"
	err := e.mayDecide(ctx, auth.FromContext(ctx), operation)
	if err == nil {
		err = e.decide(ctx, operation, userCode, func(enrollment db.Enrollment, now time.Time) error {
			return e.options.Store.DenyDevice(ctx, enrollment.ID, now)
		})
	}
	return e.refuse(ctx, err)
}

// refuse records in the audit trail that the caller in ctx was refused an approval or a
// denial, and returns err. Attempts over a limit are not recorded: they cost no statement.
func (e *Enroller) refuse(ctx context.Context, err error) error {
	var refused *problem.Error
	if !errors.As(err, &refused) || refused.Code == types.CodeRateLimited {
		return err
	}
	return cmp.Or(e.RecordRefusal(ctx), err)
}

// RecordRefusal records in the audit trail that the caller in ctx, a user or an
// organisation, may not decide about an enrollment. The code, which may be a mistyped one of
// another device, is not recorded. Nor are more refusals than may be guesses.
func (e *Enroller) RecordRefusal(ctx context.Context) error {
	caller := auth.FromContext(ctx)
	err := e.limits.Check(ctx, auth.Limit{Key: "refuse:" + caller.Account(), Max: approveFailures, Window: approveWindow})
	var limited *problem.Error
	switch {
	case errors.As(err, &limited):
		return nil
	case err != nil:
		return err
	}
	userID, organisationID := caller.Owner()
	return e.options.Store.RecordRefusal(ctx, db.Refusal{
		Action: "device.refuse", TargetKind: "device", UserID: userID, OrganisationID: organisationID,
	})
}

// decide calls act with the pending enrollment that has a user code, if the policy lets
// the caller, whom mayDecide has let pass, use the operation for it. act returns
// db.ErrConflict or db.ErrNotFound if the enrollment is not pending any more.
func (e *Enroller) decide(ctx context.Context, operation, userCode string, act func(db.Enrollment, time.Time) error) error {
	caller := auth.FromContext(ctx)
	limits := append(auth.PerSource(ctx, "approve:address", approveFailures, approveWindow),
		auth.Limit{Key: "approve:" + caller.Account(), Max: approveFailures, Window: approveWindow, Told: "approval-account"})
	// Counted before the code is tried, so that concurrent guesses all count.
	if err := e.limits.Check(ctx, limits...); err != nil {
		return err
	}
	now := e.options.Now()
	enrollment, err := e.find(ctx, caller, operation, userCode, now)
	if err != nil {
		return err
	}
	err = act(enrollment, now)
	if errors.Is(err, db.ErrConflict) || errors.Is(err, db.ErrNotFound) {
		// It was approved, denied or expired since it was read: find out which.
		if _, err := e.find(ctx, caller, operation, userCode, now); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if caller.IsAdmin() && operation != "getPendingDevice" {
		return e.limits.Reset(ctx, limits...)
	}
	// Other users could approve a device of their own after every few guesses, and anybody
	// can look at one again and again.
	return e.limits.Refund(ctx, limits...)
}

// mayDecide checks the setting by which users may decide who are no admins.
func (e *Enroller) mayDecide(ctx context.Context, caller auth.Principal, operation string) error {
	if caller.May(operation, auth.AdminsApprove) {
		return nil
	}
	settings, err := e.options.Store.Settings(ctx)
	if err == nil && !settings.OwnersApprove {
		err = problem.Forbidden("Only an admin can do this.")
	}
	return err
}

// find returns the pending device with a user code, of which the caller may decide.
func (e *Enroller) find(ctx context.Context, caller auth.Principal, operation, userCode string, now time.Time) (db.Enrollment, error) {
	absent := problem.NotFound("There is no device with this code.")
	enrollment, err := e.options.Store.EnrollmentByUserCode(ctx, normaliseUserCode(userCode), asker(caller))
	if errors.Is(err, db.ErrNotFound) {
		return db.Enrollment{}, absent
	}
	if err != nil {
		return db.Enrollment{}, err
	}
	return enrollment, judge(caller, operation, enrollment, now, absent)
}

// asker returns the id of the user who calls, and 0 for an organisation.
func asker(caller auth.Principal) int64 {
	if userID, _ := caller.Owner(); userID != nil {
		return *userID
	}
	return 0
}

// judge returns why the caller cannot decide about an enrollment, and nil if they can. absent is the error for one of
// which the caller may know nothing.
func judge(caller auth.Principal, operation string, enrollment db.Enrollment, now time.Time, absent *problem.Error) error {
	rule, _ := auth.RuleOf(operation, caseOf(enrollment))
	switch answer := rule[columnOf(caller, enrollment)]; {
	case answer == http.StatusForbidden:
		return problem.Forbidden("A tunnel server needs an admin of the panel.")
	case answer != auth.Allowed:
		return absent
	case enrollment.ApprovedAt != nil:
		return problem.AlreadyApproved()
	case !now.Before(enrollment.ExpiresAt):
		return problem.EnrollmentExpired()
	}
	return nil
}

// caseOf returns the case of the policy that an enrollment is.
func caseOf(enrollment db.Enrollment) string {
	switch {
	case enrollment.Kind == string(types.DeviceKindServer):
		return auth.TunnelServer
	case enrollment.OwnerID == nil && enrollment.OrganisationID == nil && enrollment.ApprovedAt == nil:
		return auth.Unowned
	default:
		return ""
	}
}

// columnOf returns what the caller is to an enrollment.
func columnOf(caller auth.Principal, enrollment db.Enrollment) auth.Caller {
	_, organisation := caller.Owner()
	switch {
	case caller.IsAdmin():
		return auth.SiteAdmin
	case enrollment.OwnerID != nil && caller.IsUser(*enrollment.OwnerID):
		return auth.Owner
	case organisation != nil && enrollment.OrganisationID != nil && *organisation == *enrollment.OrganisationID:
		return auth.OrgAdmin
	default:
		return auth.MemberAs(enrollment.Role)
	}
}

// mayGive checks that the policy lets the caller, who uses an operation, give a device to
// its new owner. Neither is set if the device keeps its owner, or gets the caller as one.
func (e *Enroller) mayGive(ctx context.Context, caller auth.Principal, operation string, ownerID, organisationID *int64) error {
	if ownerID != nil && !caller.IsUser(*ownerID) && !caller.May(operation, auth.AnotherUser) {
		return problem.Forbidden("Only an admin can give a device to another user.")
	}
	if organisationID != nil && !caller.IsAdmin() {
		return e.mayManage(ctx, caller, operation, *organisationID)
	}
	return nil // checkNewOwner says whether what an admin names exists.
}
