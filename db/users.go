package db

import (
	"context"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// User is an account of the panel.
type User struct {
	ID int64 `db:"id"`
	// Email is stored as entered and compared case-insensitively.
	Email        string    `db:"email"`
	PasswordHash string    `db:"password_hash"` // empty until the user has set a password
	Role         string    `db:"role"`          // "user" or "admin"
	CreatedAt    time.Time `db:"created_at"`
	// Suspended users have no sessions and get none.
	Suspended bool `db:"suspended"`
}

// Actor returns the user as an actor at the address of the actor of ctx.
func (u User) Actor(ctx context.Context) Actor {
	return Actor{
		Kind: ActorUser, ID: strconv.FormatInt(u.ID, 10), Name: u.Email, Admin: u.Role == "admin", Address: ActorOf(ctx).Address,
	}
}

const userColumns = `u.id, u.email, u.password_hash, u.role, u.created_at, u.suspended`

// CreateUser creates an account, whose email counts as the user's. It returns [ErrConflict] if the email has one,
// and [ErrPlaceholder].
func (d *DB) CreateUser(ctx context.Context, email, passwordHash, role string) (User, error) {
	if err := checkOwnEmail(email); err != nil {
		return User{}, wrap(err, "create user")
	}
	var user User
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &user,
			`INSERT INTO users AS u (email, password_hash, role) VALUES ($1, $2, $3) RETURNING `+userColumns,
			email, passwordHash, role)
	})
	return user, wrap(err, "create user")
}

// CreateFirstAdmin creates an admin if there is none, and reports whether it did. Of several
// concurrent callers one succeeds. It returns [ErrConflict] if the email belongs to a user who is not
// an admin, and [ErrPlaceholder].
func (d *DB) CreateFirstAdmin(ctx context.Context, email, passwordHash string) (created bool, err error) {
	if err := checkOwnEmail(email); err != nil {
		return false, wrap(err, "create first admin")
	}
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock conflicts with itself and with writes, so that no admin appears after the check.
		if _, err := tx.ExecContext(ctx, `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx,
			`INSERT INTO users (email, password_hash, role)
			SELECT $1, $2, 'admin' WHERE NOT EXISTS (SELECT 1 FROM users WHERE role = 'admin')`,
			email, passwordHash)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		created = rows == 1
		return err
	})
	if err != nil {
		return false, wrap(err, "create first admin")
	}
	return created, nil
}

// HasAdmin reports whether there is an admin.
func (d *DB) HasAdmin(ctx context.Context) (bool, error) {
	var has bool
	err := d.requests.GetContext(ctx, &has, `SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin')`)
	return has, wrap(err, "look for an admin")
}

// HasAdminOf reports whether somebody of one of the identity providers is an admin, and not suspended.
func (d *DB) HasAdminOf(ctx context.Context, providers []string) (bool, error) {
	var has bool
	err := d.requests.GetContext(ctx, &has,
		`SELECT EXISTS (SELECT 1 FROM users u JOIN identities i ON i.user_id = u.id
			WHERE u.role = 'admin' AND NOT u.suspended AND i.provider = ANY ($1))`, pq.Array(providers))
	return has, wrap(err, "look for an admin of the identity providers")
}

// UserByEmail returns the account with an email, compared case-insensitively.
func (d *DB) UserByEmail(ctx context.Context, email string) (User, error) {
	var user User
	err := d.requests.GetContext(ctx, &user,
		`SELECT `+userColumns+` FROM users u WHERE lower(u.email) = lower($1)`, email)
	return user, wrap(err, "user by email")
}

// UserByID returns an account.
func (d *DB) UserByID(ctx context.Context, id int64) (User, error) {
	var user User
	err := d.requests.GetContext(ctx, &user, `SELECT `+userColumns+` FROM users u WHERE u.id = $1`, id)
	return user, wrap(err, "user %d", id)
}

// OrganisationRole returns a user's role in an organisation: "owner", "admin" or "member". It returns
// [ErrNotFound] if the user is not a member.
func (d *DB) OrganisationRole(ctx context.Context, organisationID, userID int64) (string, error) {
	var role string
	err := d.requests.GetContext(ctx, &role,
		`SELECT role FROM organisation_members WHERE organisation_id = $1 AND user_id = $2`,
		organisationID, userID)
	return role, wrap(err, "role of user %d in organisation %d", userID, organisationID)
}

// OrganisationExists reports whether an organisation exists.
func (d *DB) OrganisationExists(ctx context.Context, id int64) (bool, error) {
	var exists bool
	err := d.requests.GetContext(ctx, &exists, `SELECT EXISTS (SELECT 1 FROM organisations WHERE id = $1)`, id)
	return exists, wrap(err, "organisation %d", id)
}
