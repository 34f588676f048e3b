package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// The roles of members of an organisation.
const (
	RoleOwner  = "owner"
	RoleAdmin  = "admin"
	RoleMember = "member"
)

// MaxOwned is how many organisations a user can own and still create another one.
const MaxOwned = 100

// Organisation is a tenant: users who share devices.
type Organisation struct {
	ID int64 `db:"id"`
	// Name need not be unique.
	Name      string    `db:"name"`
	CreatedAt time.Time `db:"created_at"`
	// Role is that of the caller: nil if the caller is not a member.
	Role *string `db:"role"`
}

// CreateOrganisation creates an organisation with its first owner. It returns [ErrNoOwner] if that user does
// not exist, and [ErrTooMany] if it is limited and the user owns [MaxOwned] organisations.
func (d *DB) CreateOrganisation(ctx context.Context, name string, ownerID int64, limited bool) (Organisation, error) {
	var organisation Organisation
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock makes the number exact.
		var owner int64
		err := tx.GetContext(ctx, &owner, `SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE`, ownerID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoOwner
		case err != nil:
			return err
		}
		var owned int
		err = tx.GetContext(ctx, &owned,
			`SELECT count(*) FROM organisation_members WHERE user_id = $1 AND role = 'owner'`, ownerID)
		switch {
		case err != nil:
			return err
		case limited && owned >= MaxOwned:
			return ErrTooMany
		}
		err = tx.GetContext(ctx, &organisation,
			`INSERT INTO organisations (name) VALUES ($1) RETURNING id, name, created_at`, name)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`INSERT INTO organisation_members (organisation_id, user_id, role) VALUES ($1, $2, 'owner')`,
			organisation.ID, ownerID)
		return err
	})
	return organisation, wrap(err, "create organisation")
}

// OrganisationPosition is a position in the list of organisations, which is sorted by these fields. It
// remains one after the organisation is renamed or deleted.
type OrganisationPosition struct {
	Name string // In any case.
	ID   int64
}

// The queries for a page of organisations: $1 to $5 are the user, the search, the position and the number.
// allOrganisationsQuery reads its page from the index of names, ownOrganisationsQuery the user's own from
// that of members. For itselfQuery $1 is an organisation, which sees itself alone.
const (
	allOrganisationsQuery = `SELECT o.id, o.name, o.created_at, m.role FROM organisations o
		LEFT JOIN organisation_members m ON m.organisation_id = o.id AND m.user_id = $1::bigint` + organisationsPage
	ownOrganisationsQuery = `SELECT o.id, o.name, o.created_at, m.role FROM organisation_members m
		JOIN organisations o ON o.id = m.organisation_id AND m.user_id = $1::bigint` + organisationsPage
	itselfQuery = `SELECT o.id, o.name, o.created_at, NULL AS role FROM (SELECT * FROM organisations WHERE id = $1::bigint) o` + organisationsPage

	organisationsPage = ` WHERE lower(o.name) COLLATE "C" >= lower($2::text) AND lower(o.name) COLLATE "C" < lower($2::text) || $6::text
			AND (lower(o.name) COLLATE "C", o.id) > (lower($3::text), $4::bigint)
		ORDER BY lower(o.name) COLLATE "C", o.id LIMIT nullif($5::bigint, 0)`
)

// Organisations lists the organisations in scope whose name begins with search, in the order of their
// names. The case of letters is ignored.
func (d *DB) Organisations(ctx context.Context, scope Scope, search string, page Page[OrganisationPosition]) ([]Organisation, error) {
	var after OrganisationPosition
	if page.After != nil {
		after = *page.After
	}
	query, of := ownOrganisationsQuery, scope.UserID
	switch {
	case scope.All:
		query = allOrganisationsQuery
	case scope.UserID == 0:
		query, of = itselfQuery, scope.OrganisationID
	}
	var organisations []Organisation
	err := d.requests.SelectContext(ctx, &organisations, query, of, search, after.Name, after.ID, page.Limit, lastCharacter)
	return organisations, wrap(err, "list organisations")
}

// organisationColumns are the columns of an Organisation, from organisations o. $2 is the user.
const organisationColumns = `o.id, o.name, o.created_at, (SELECT m.role FROM organisation_members m
	WHERE m.organisation_id = o.id AND m.user_id = $2::bigint) AS role`

// Organisation returns an organisation in scope.
func (d *DB) Organisation(ctx context.Context, scope Scope, id int64) (Organisation, error) {
	var organisation Organisation
	err := d.requests.GetContext(ctx, &organisation,
		`SELECT `+organisationColumns+` FROM organisations o WHERE o.id = $4 AND `+visibleOrganisation, scope.args(id)...)
	return organisation, wrap(err, "organisation %d", id)
}

// RenameOrganisation renames an organisation that the scope manages.
func (d *DB) RenameOrganisation(ctx context.Context, scope Scope, id int64, name string) (Organisation, error) {
	var organisation Organisation
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := checkCondition[Organisation](ctx, tx, `SELECT `+organisationColumns+` FROM organisations o
			WHERE o.id = $4 AND `+manageableOrganisation+` FOR NO KEY UPDATE OF o`, scope.args(id)...)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &organisation,
			`UPDATE organisations AS o SET name = $5 WHERE o.id = $4 AND `+manageableOrganisation+`
			RETURNING `+organisationColumns, scope.args(id, name)...)
		return scope.refused(ctx, tx, err, organisationRow, id)
	})
	return organisation, wrap(err, "rename organisation %d", id)
}

// DeleteOrganisation deletes an organisation with its memberships and invitations, for an owner. It returns
// [ErrOwnsDevices] if the organisation has devices. Enrollments that nobody has approved are none: they are
// deleted.
func (d *DB) DeleteOrganisation(ctx context.Context, scope Scope, id int64) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock excludes new devices, which lock this row too.
		role, err := lockOrganisation(ctx, tx, scope, id, `FOR UPDATE`)
		switch {
		case err != nil:
			return err
		case role != RoleOwner:
			return ErrForbidden
		}
		err = checkCondition[Organisation](ctx, tx, `SELECT `+organisationColumns+` FROM organisations o
			WHERE o.id = $4 AND `+visibleOrganisation, scope.args(id)...)
		if err != nil {
			return err
		}
		var pending []uuid.UUID
		err = tx.SelectContext(ctx, &pending,
			`SELECT id FROM devices WHERE organisation_id = $1 AND approved_at IS NULL ORDER BY id FOR UPDATE`, id)
		if err != nil {
			return err
		}
		if err := deleteDevices(ctx, tx, pending...); err != nil {
			return err
		}
		var owns bool
		err = tx.GetContext(ctx, &owns, `SELECT EXISTS (SELECT 1 FROM devices WHERE organisation_id = $1)`, id)
		switch {
		case err != nil:
			return err
		case owns:
			return ErrOwnsDevices
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM organisations WHERE id = $1`, id)
		return err
	})
	return wrap(err, "delete organisation %d", id)
}

// lockOrganisation locks an organisation in scope against other changes of its members, until tx ends. It
// returns the caller's role there, RoleOwner for who may change every row. As everywhere, users are locked
// before organisations, and organisations in the order of their ids.
func lockOrganisation(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64, lock string) (role string, err error) {
	err = tx.GetContext(ctx, &id,
		`SELECT o.id FROM organisations o WHERE o.id = $4 AND `+visibleOrganisation+` `+lock, scope.args(id)...)
	if err != nil || scope.All {
		return RoleOwner, err
	}
	// A statement of its own sees what was changed while the lock was waited for.
	err = tx.GetContext(ctx, &role,
		`SELECT role FROM organisation_members WHERE organisation_id = $1 AND user_id = $2`, id, scope.UserID)
	return role, err
}

// forMembers is the lock of [lockOrganisation] for changes of members. New devices do not wait for it.
const forMembers = `FOR NO KEY UPDATE`

// rank orders roles by what they may do.
func rank(role string) int {
	switch role {
	case RoleOwner:
		return 3
	case RoleAdmin:
		return 2
	case RoleMember:
		return 1
	default:
		return 0
	}
}
