package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"
)

// MaxInvitations is how many invitations of an organisation can be open at the same time.
const MaxInvitations = 100

// Invitation is a link with which one user becomes a member of an organisation.
type Invitation struct {
	ID             int64   `db:"id"`
	OrganisationID int64   `db:"organisation_id"`
	Role           string  `db:"role"`
	Email          *string `db:"email"` // The account that it is for; nil for any.
	// InvitedBy is the user who made it; nil if no person did.
	InvitedBy *int64    `db:"invited_by"`
	CreatedAt time.Time `db:"created_at"`
	ExpiresAt time.Time `db:"expires_at"`
	// OrganisationName is the name of the organisation.
	OrganisationName string `db:"organisation_name"`
}

// NewInvitation is an invitation to make.
type NewInvitation struct {
	OrganisationID       int64
	Role                 string
	Email                *string
	TokenHash            []byte // The hash of the link's secret, which is not stored itself.
	CreatedAt, ExpiresAt time.Time
}

// invitationQuery reads Invitations.
const invitationQuery = `SELECT i.id, i.organisation_id, i.role, i.email, i.invited_by, i.created_at, i.expires_at,
	o.name AS organisation_name FROM invitations i JOIN organisations o ON o.id = i.organisation_id`

// open is the condition that invitation i is valid at $1: it has not expired, and whoever made it could make
// it still. Who has been suspended, or has lost the role, returns by no link made before.
const open = `i.expires_at > $1 AND (i.invited_by IS NULL OR EXISTS (SELECT 1 FROM users u
	WHERE u.id = i.invited_by AND NOT u.suspended AND (u.role = 'admin' OR EXISTS (SELECT 1 FROM organisation_members m
		WHERE m.organisation_id = i.organisation_id AND m.user_id = u.id
			AND (m.role = 'owner' OR m.role = 'admin' AND i.role <> 'owner')))))`

// CreateInvitation stores an invitation. Owners may do so, and admins for other roles than owner. It returns
// [ErrTooMany] if [MaxInvitations] of the organisation are open.
func (d *DB) CreateInvitation(ctx context.Context, scope Scope, invitation NewInvitation) (Invitation, error) {
	var created Invitation
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// Before the organisation, as everywhere: the row of the invitation refers to it.
		if _, err := tx.ExecContext(ctx, `SELECT FROM users WHERE id = $1 FOR KEY SHARE`, scope.UserID); err != nil {
			return err
		}
		role, err := lockOrganisation(ctx, tx, scope, invitation.OrganisationID, forMembers)
		switch {
		case err != nil:
			return err
		case !mayInvite(role, invitation.Role):
			return ErrForbidden
		}
		var count int
		err = tx.GetContext(ctx, &count,
			`SELECT count(*) FROM invitations i WHERE i.organisation_id = $2 AND `+open, stamp(invitation.CreatedAt), invitation.OrganisationID)
		switch {
		case err != nil:
			return err
		case count >= MaxInvitations:
			return ErrTooMany
		}
		var id int64
		err = tx.GetContext(ctx, &id,
			`INSERT INTO invitations (organisation_id, role, email, invited_by, token_hash, created_at, expires_at)
			VALUES ($1, $2, $3, nullif($4::bigint, 0), $5, $6, $7) RETURNING id`,
			invitation.OrganisationID, invitation.Role, invitation.Email, scope.UserID, invitation.TokenHash,
			stamp(invitation.CreatedAt), stamp(invitation.ExpiresAt))
		if err != nil {
			return err
		}
		return tx.GetContext(ctx, &created, invitationQuery+` WHERE i.id = $1`, id)
	})
	return created, wrap(err, "invite to organisation %d", invitation.OrganisationID)
}

// mayInvite reports whether who has a role in an organisation may give another one to a user.
func mayInvite(own, role string) bool {
	return own == RoleOwner || own == RoleAdmin && role != RoleOwner
}

// Invitations lists the invitations of an organisation that the scope manages and that are open at now, the
// newest first: at most [MaxInvitations].
func (d *DB) Invitations(ctx context.Context, scope Scope, organisationID int64, now time.Time) ([]Invitation, error) {
	var invitations []Invitation
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var id int64
		err := tx.GetContext(ctx, &id,
			`SELECT o.id FROM organisations o WHERE o.id = $4 AND `+manageableOrganisation, scope.args(organisationID)...)
		if err := scope.refused(ctx, tx, err, organisationRow, organisationID); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &invitations,
			invitationQuery+` WHERE i.organisation_id = $2 AND `+open+` ORDER BY i.id DESC`, stamp(now), organisationID)
	})
	return invitations, wrap(err, "list invitations of organisation %d", organisationID)
}

// DeleteInvitation revokes an invitation. Who may make one may revoke it. It returns [ErrNoInvitation] if
// the organisation has no such one.
func (d *DB) DeleteInvitation(ctx context.Context, scope Scope, organisationID, id int64) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		own, err := lockOrganisation(ctx, tx, scope, organisationID, forMembers)
		switch {
		case err != nil:
			return err
		case rank(own) < rank(RoleAdmin):
			return ErrForbidden
		}
		var role string
		err = tx.GetContext(ctx, &role,
			`DELETE FROM invitations WHERE organisation_id = $1 AND id = $2 RETURNING role`, organisationID, id)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoInvitation
		case err == nil && !mayInvite(own, role):
			return ErrForbidden
		}
		return err
	})
	return wrap(err, "revoke invitation %d of organisation %d", id, organisationID)
}

// InvitationByToken returns the invitation with a hash of its secret. It returns [ErrNotFound] unless it is
// open at now.
func (d *DB) InvitationByToken(ctx context.Context, tokenHash []byte, now time.Time) (Invitation, error) {
	var invitation Invitation
	err := d.requests.GetContext(ctx, &invitation, invitationQuery+` WHERE i.token_hash = $2 AND `+open, stamp(now), tokenHash)
	return invitation, wrap(err, "invitation")
}

// AcceptInvitation makes a user a member by an invitation, which works once. To a user who has that role or
// a higher one already it changes nothing, and stays open for whom it is meant. It returns [ErrNotFound]
// unless it is open at now, and [ErrOtherEmail] if it is for another account.
func (d *DB) AcceptInvitation(ctx context.Context, tokenHash []byte, userID int64, now time.Time) (Organisation, error) {
	var organisation Organisation
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var email string
		// The user first, as whoever deletes one.
		if err := tx.GetContext(ctx, &email, `SELECT email FROM users WHERE id = $1 FOR KEY SHARE`, userID); err != nil {
			return err
		}
		var id int64
		err := tx.GetContext(ctx, &id, `SELECT o.id FROM organisations o
			WHERE o.id = (SELECT organisation_id FROM invitations WHERE token_hash = $1) FOR NO KEY UPDATE`, tokenHash)
		if err != nil {
			return err
		}
		var invitation Invitation
		err = tx.GetContext(ctx, &invitation, invitationQuery+` WHERE i.token_hash = $2 AND `+open, stamp(now), tokenHash)
		if err != nil {
			return err
		}
		var meant bool
		err = tx.GetContext(ctx, &meant, `SELECT coalesce(lower($1::text) = lower($2), true)`, invitation.Email, email)
		switch {
		case err != nil:
			return err
		case !meant:
			return ErrOtherEmail
		}
		if err := join(ctx, tx, invitation, userID); err != nil {
			return err
		}
		return tx.GetContext(ctx, &organisation,
			`SELECT o.id, o.name, o.created_at, m.role FROM organisations o
			JOIN organisation_members m ON m.organisation_id = o.id AND m.user_id = $2 WHERE o.id = $1`, id, userID)
	})
	return organisation, wrap(err, "accept invitation")
}

// join gives a user the role of an invitation, unless the user has it, and deletes the invitation.
func join(ctx context.Context, tx *sqlx.Tx, invitation Invitation, userID int64) error {
	var role string
	err := tx.GetContext(ctx, &role, `SELECT role FROM organisation_members WHERE organisation_id = $1 AND user_id = $2`,
		invitation.OrganisationID, userID)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if rank(role) >= rank(invitation.Role) {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM invitations WHERE id = $1`, invitation.ID); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`INSERT INTO organisation_members (organisation_id, user_id, role) VALUES ($1, $2, $3)
		ON CONFLICT (organisation_id, user_id) DO UPDATE SET role = EXCLUDED.role`,
		invitation.OrganisationID, userID, invitation.Role)
	return err
}
