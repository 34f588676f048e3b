package db

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jmoiron/sqlx"
)

// Member is a member of an organisation.
type Member struct {
	UserID int64  `db:"user_id"`
	Email  string `db:"email"`
	Role   string `db:"role"` // RoleOwner, RoleAdmin or RoleMember
}

// membersQuery reads a page of the members of organisation $1, from the index of its primary key.
const membersQuery = `SELECT m.user_id, u.email, m.role
	FROM organisation_members m JOIN users u ON u.id = m.user_id
	WHERE m.organisation_id = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT nullif($3::bigint, 0)`

// Members lists the members of an organisation in scope, in the order of their ids. page.After need not be
// a member any more.
func (d *DB) Members(ctx context.Context, scope Scope, organisationID int64, page Page[int64]) ([]Member, error) {
	var after int64
	if page.After != nil {
		after = *page.After
	}
	if _, err := d.Organisation(ctx, scope, organisationID); err != nil {
		return nil, err
	}
	var members []Member
	err := d.requests.SelectContext(ctx, &members, membersQuery, organisationID, after, page.Limit)
	return members, wrap(err, "list members of organisation %d", organisationID)
}

// memberQuery reads a member of organisation $1.
const memberQuery = `SELECT m.user_id, u.email, m.role
	FROM organisation_members m JOIN users u ON u.id = m.user_id
	WHERE m.organisation_id = $1 AND m.user_id = $2`

// Member returns a member of an organisation in scope. It returns [ErrNoMember] if the user is not a member.
func (d *DB) Member(ctx context.Context, scope Scope, organisationID, userID int64) (Member, error) {
	if _, err := d.Organisation(ctx, scope, organisationID); err != nil {
		return Member{}, err
	}
	var member Member
	err := d.requests.GetContext(ctx, &member, memberQuery, organisationID, userID)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoMember
	}
	return member, wrap(err, "get member %d of organisation %d", userID, organisationID)
}

// UpdateMember changes the role of a member. Owners may do so, and admins between the roles of admin and
// member. It returns [ErrNoMember] if the user is not a member, and [ErrLastOwner].
func (d *DB) UpdateMember(ctx context.Context, scope Scope, organisationID, userID int64, role string) (Member, error) {
	var member Member
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var err error
		if member, err = changedMember(ctx, tx, scope, organisationID, userID, role); err != nil {
			return err
		}
		member.Role = role
		_, err = tx.ExecContext(ctx,
			`UPDATE organisation_members SET role = $3 WHERE organisation_id = $1 AND user_id = $2`, organisationID, userID, role)
		return err
	})
	return member, wrap(err, "update member %d of organisation %d", userID, organisationID)
}

// RemoveMember ends a membership. Owners may do so, admins that of admins and members, and everybody their
// own. It returns [ErrNoMember] if the user is not a member, and [ErrLastOwner].
func (d *DB) RemoveMember(ctx context.Context, scope Scope, organisationID, userID int64) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := changedMember(ctx, tx, scope, organisationID, userID, ""); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`DELETE FROM organisation_members WHERE organisation_id = $1 AND user_id = $2`, organisationID, userID)
		return err
	})
	return wrap(err, "remove member %d of organisation %d", userID, organisationID)
}

// changedMember locks the organisation, and returns a member whose role may become role, "" for none.
func changedMember(ctx context.Context, tx *sqlx.Tx, scope Scope, organisationID, userID int64, role string) (Member, error) {
	own, err := lockOrganisation(ctx, tx, scope, organisationID, forMembers)
	if err != nil {
		return Member{}, err
	}
	leaves := userID == scope.UserID && role == ""
	if rank(own) < rank(RoleAdmin) && !leaves {
		return Member{}, ErrForbidden
	}
	var member Member
	err = tx.GetContext(ctx, &member, memberQuery, organisationID, userID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return member, ErrNoMember
	case err != nil:
		return member, err
	case own != RoleOwner && (member.Role == RoleOwner || role == RoleOwner):
		return member, ErrForbidden
	case member.Role == RoleOwner && role != RoleOwner:
		err = needOtherOwner(ctx, tx, userID, `m.organisation_id = $2`, organisationID)
	}
	if err != nil {
		return member, err
	}
	return member, checkCondition[Member](ctx, tx, memberQuery, organisationID, userID) // The organisation is locked.
}

// lockOrganisationsOf locks the organisations of a user, whatever the role, which another transaction may be
// changing.
func lockOrganisationsOf(ctx context.Context, tx *sqlx.Tx, userID int64) error {
	_, err := tx.ExecContext(ctx,
		`SELECT o.id FROM organisations o
		WHERE o.id IN (SELECT organisation_id FROM organisation_members WHERE user_id = $1)
		ORDER BY o.id FOR NO KEY UPDATE`, userID)
	return err
}

// hasActiveOthers is the condition that the organisation of membership m has other members who are not
// suspended.
const hasActiveOthers = `EXISTS (SELECT 1 FROM organisation_members o JOIN users u ON u.id = o.user_id
	WHERE o.organisation_id = m.organisation_id AND o.user_id <> m.user_id AND NOT u.suspended)`

// needOtherOwner returns ErrLastOwner if a user is the only owner, but for suspended ones, of an
// organisation that tx has locked and condition selects, of membership m. Its arguments begin with $2. Who
// owns an organisation of an identity provider is decided there.
func needOtherOwner(ctx context.Context, tx *sqlx.Tx, userID int64, condition string, args ...any) error {
	var only bool
	err := tx.GetContext(ctx, &only,
		`SELECT EXISTS (SELECT 1 FROM organisation_members m
			JOIN organisations g ON g.id = m.organisation_id AND g.provider IS NULL
			WHERE m.user_id = $1 AND m.role = 'owner' AND `+condition+`
				AND NOT EXISTS (SELECT 1 FROM organisation_members o JOIN users u ON u.id = o.user_id
					WHERE o.organisation_id = m.organisation_id AND o.user_id <> m.user_id AND o.role = 'owner'
						AND NOT u.suspended))`, append([]any{userID}, args...)...)
	if err == nil && only {
		return ErrLastOwner
	}
	return err
}
