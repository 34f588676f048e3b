package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const invitationLifetime = 7 * 24 * time.Hour

var errNoInvitation = problem.NotFound("This invitation was used, was revoked or has expired. Ask for a new one.")

// Invitation is an invitation with its link.
type Invitation struct {
	db.Invitation
	URL *url.URL // Its fragment is the secret, which is stored nowhere.
}

// NewInvitation makes a link with which one user becomes a member of an organisation, of the
// account with an email if that is not nil, within 7 days. It returns the errors of
// [db.DB.CreateInvitation].
func (a *Auth) NewInvitation(ctx context.Context, organisationID int64, role string, email *string) (Invitation, error) {
	secret, now := rand.Text(), a.now()
	row, err := a.store.CreateInvitation(ctx, FromContext(ctx).Scope(), db.NewInvitation{
		OrganisationID: organisationID, Role: role, Email: email,
		TokenHash: hashLink(secret), CreatedAt: now, ExpiresAt: now.Add(invitationLifetime),
	})
	if err != nil {
		return Invitation{}, err
	}
	return Invitation{Invitation: row, URL: a.link("invitation", secret)}, nil
}

// Invitations returns the open invitations to an organisation. It returns the errors of
// [db.DB.Invitations].
func (a *Auth) Invitations(ctx context.Context, organisationID int64) ([]db.Invitation, error) {
	return a.store.Invitations(ctx, FromContext(ctx).Scope(), organisationID, a.now())
}

// LookUpInvitation returns the invitation with a link's secret. The error may be any
// problem.Error that the contract lists for the operation.
func (a *Auth) LookUpInvitation(ctx context.Context, secret string) (db.Invitation, error) {
	return linked(ctx, a, func() (db.Invitation, error) {
		return a.store.InvitationByToken(ctx, hashLink(secret), a.now())
	})
}

// AcceptInvitation makes the caller, who is a user, a member by a link's secret, and returns
// the organisation. The error may be any problem.Error that the contract lists for the
// operation.
func (a *Auth) AcceptInvitation(ctx context.Context, secret string) (db.Organisation, error) {
	return linked(ctx, a, func() (db.Organisation, error) {
		organisation, err := a.store.AcceptInvitation(ctx, hashLink(secret), FromContext(ctx).User.ID, a.now())
		if errors.Is(err, db.ErrOtherEmail) {
			err = problem.Forbidden("This invitation is for another email address; log in with the account that has it.")
		}
		return organisation, err
	})
}

// linked calls find with the secret of an invitation, unless the caller's address has sent
// too many unknown ones.
func linked[T any](ctx context.Context, a *Auth, find func() (T, error)) (T, error) {
	var none T
	limits := PerSource(ctx, "invitation:address", linkFailures, linkWindow)
	if wait := a.limits.Over(limits...); wait > 0 {
		return none, problem.RateLimited(wait)
	}
	found, err := find()
	if !errors.Is(err, db.ErrNotFound) {
		return found, err
	}
	if err := a.limits.Check(ctx, limits...); err != nil {
		return none, err
	}
	return none, errNoInvitation
}
