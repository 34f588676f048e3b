package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// lastCharacter follows every text that begins with the same characters, in the order of the list of
// users.
const lastCharacter = "\U0010FFFF"

// usersQuery reads a page of users. Both bounds are those of one index: which texts begin with $1, and what
// follows $2.
const usersQuery = `SELECT ` + userColumns + ` FROM users u
	WHERE lower(u.email) COLLATE "C" >= lower($1::text) AND lower(u.email) COLLATE "C" < lower($1::text) || $3::text
		AND lower(u.email) COLLATE "C" > lower($2::text)
	ORDER BY lower(u.email) COLLATE "C" LIMIT nullif($4::bigint, 0)`

// Users lists the accounts whose email begins with search, in the order of their emails. The case of
// letters is ignored. page.After is an email, which need not exist any more.
func (d *DB) Users(ctx context.Context, search string, page Page[string]) ([]User, error) {
	var after string
	if page.After != nil {
		after = *page.After
	}
	var users []User
	err := d.requests.SelectContext(ctx, &users, usersQuery, search, after, lastCharacter, page.Limit)
	return users, wrap(err, "list users")
}

// UserPatch changes the fields that are not nil.
type UserPatch struct {
	Email, Role *string
	Suspended   *bool
}

// UpdateUser changes an account. An email that it sets, also to what it is, counts as the user's. A role that it
// sets stays until an identity provider says otherwise, at a login. Suspending it ends its sessions and its
// password link; another email ends the link. It returns [ErrConflict] if the email has another account,
// [ErrPlaceholder], [ErrLastAdmin], and [ErrLastOwner] if others of an organisation would be left without an owner.
func (d *DB) UpdateUser(ctx context.Context, id int64, patch UserPatch) (User, error) {
	if patch.Email != nil {
		if err := checkOwnEmail(*patch.Email); err != nil {
			return User{}, wrap(err, "update user %d", id)
		}
	}
	var user User
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if patch.Role != nil { // The site's quota does not count for admins.
			if err := lockQuotas(ctx, tx); err != nil {
				return err
			}
		}
		if patch.Role != nil || patch.Suspended != nil {
			if err := lockAdmins(ctx, tx); err != nil {
				return err
			}
		}
		if err := checkCondition[User](ctx, tx, lockedUser, id); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &user,
			`UPDATE users AS u SET email = coalesce($2, u.email), email_proven = u.email_proven OR $2 IS NOT NULL,
				role = coalesce($3, u.role), suspended = coalesce($4, u.suspended) WHERE u.id = $1 RETURNING `+userColumns,
			id, patch.Email, patch.Role, patch.Suspended)
		if err != nil {
			return err
		}
		if patch.Role != nil {
			// A provider that the person does not use any more would otherwise decide for ever.
			if _, err := tx.ExecContext(ctx, `UPDATE identities SET admin = NULL WHERE user_id = $1`, id); err != nil {
				return err
			}
		}
		if patch.Role != nil || patch.Suspended != nil {
			if err := needAdmin(ctx, tx); err != nil {
				return err
			}
		}
		if user.Suspended {
			if err := endSessions(ctx, tx, id); err != nil {
				return err
			}
		}
		if patch.Suspended != nil && user.Suspended {
			if err := lockOrganisationsOf(ctx, tx, id); err != nil {
				return err
			}
			if err := needOtherOwner(ctx, tx, id, hasActiveOthers); err != nil {
				return err
			}
		}
		if user.Suspended || patch.Email != nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM password_links WHERE user_id = $1`, id)
		}
		return err
	})
	return user, wrap(err, "update user %d", id)
}

const lockedUser = `SELECT ` + userColumns + ` FROM users u WHERE u.id = $1 FOR NO KEY UPDATE`

// lockAdmins keeps other transactions from changing who is an admin until tx ends.
func lockAdmins(ctx context.Context, tx *sqlx.Tx) error {
	// The lock conflicts with itself and with writes. Taken before the first write, so that two of
	// these transactions do not wait for each other.
	_, err := tx.ExecContext(ctx, `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`)
	return err
}

// lockForUpdates takes the lock of the table that an UPDATE of users takes. A transaction that locks a row of
// users before it updates one takes it first: another one could get lockAdmins in between, and wait for the row.
func lockForUpdates(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `LOCK TABLE users IN ROW EXCLUSIVE MODE`)
	return err
}

// needAdmin returns ErrLastAdmin if nobody who could log in, by a password or an identity provider, is an admin
// any more.
func needAdmin(ctx context.Context, tx *sqlx.Tx) error {
	var has bool
	err := tx.GetContext(ctx, &has,
		`SELECT EXISTS (SELECT 1 FROM users u WHERE u.role = 'admin' AND NOT u.suspended
			AND (u.password_hash <> '' OR EXISTS (SELECT 1 FROM identities i WHERE i.user_id = u.id)))`)
	if err == nil && !has {
		return ErrLastAdmin
	}
	return err
}

func endSessions(ctx context.Context, tx *sqlx.Tx, userID int64) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = $1`, userID)
	return err
}

// DevicesOf says what becomes of the devices of a user who is deleted. By the zero value there must be none.
type DevicesOf struct {
	Delete bool
	// MoveTo is the user who gets them; nil means nobody.
	MoveTo *int64
}

// DeleteUser deletes an account with its sessions. It returns [ErrOwnsDevices] if the user has devices and
// nothing is to become of them, [ErrLastAdmin], [ErrLastOwner], and [ErrNoOwner] if their new owner does not
// exist, and a [QuotaError] if their new owner would have too many devices or allocations. An organisation of an
// identity provider may lose its last owner: the provider decides about those.
func (d *DB) DeleteUser(ctx context.Context, id int64, devices DevicesOf) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := shareQuotas(ctx, tx); err != nil { // Before all else, as everywhere.
			return err
		}
		if err := lockAdmins(ctx, tx); err != nil {
			return err
		}
		// The lock excludes new devices, which lock this row too.
		var locked int64
		if err := tx.GetContext(ctx, &locked, `SELECT id FROM users WHERE id = $1 FOR UPDATE`, id); err != nil {
			return err
		}
		if err := checkCondition[User](ctx, tx, lockedUser, id); err != nil {
			return err
		}
		hold, err := devices.holdQuota(ctx, tx)
		if err != nil {
			return err
		}
		if err := lockOrganisationsOf(ctx, tx, id); err != nil {
			return err
		}
		if err := needOtherOwner(ctx, tx, id, `true`); err != nil {
			return err
		}
		if err := releaseDevices(ctx, tx, id, devices, hold); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM users WHERE id = $1`, id); err != nil {
			return err
		}
		return needAdmin(ctx, tx)
	})
	return wrap(err, "delete user %d", id)
}

// holdQuota locks the quota of the devices' new owner. Ports outside the range, which only admins move so, may be
// beyond it.
func (o DevicesOf) holdQuota(ctx context.Context, tx *sqlx.Tx) (quotaHold, error) {
	if o.MoveTo == nil {
		return quotaHold{}, nil
	}
	return holdQuota(ctx, tx, Usage{Devices: 1, Allocations: 1}, ofOwner, *o.MoveTo, 0)
}

// releaseDevices deletes or moves the devices of a user. Enrollments that nobody has approved are none: they
// are deleted.
func releaseDevices(ctx context.Context, tx *sqlx.Tx, id int64, devices DevicesOf, hold quotaHold) error {
	var pending []uuid.UUID
	err := tx.SelectContext(ctx, &pending,
		`SELECT id FROM devices WHERE owner_id = $1 AND approved_at IS NULL ORDER BY id FOR UPDATE`, id)
	if err != nil {
		return err
	}
	if err := deleteDevices(ctx, tx, pending...); err != nil {
		return err
	}
	// The lock excludes new allocations, which lock these rows too.
	var owned []uuid.UUID
	err = tx.SelectContext(ctx, &owned, `SELECT id FROM devices WHERE owner_id = $1 ORDER BY id FOR UPDATE`, id)
	switch {
	case err != nil:
		return err
	case devices.MoveTo != nil:
		var owner int64
		err := tx.GetContext(ctx, &owner, `SELECT id FROM users WHERE id = $1 AND id <> $2`, *devices.MoveTo, id)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoOwner
		case err != nil:
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET owner_id = $2 WHERE owner_id = $1`, id, owner); err != nil {
			return err
		}
		return hold.checkDevices(ctx, tx, owned)
	case len(owned) > 0 && !devices.Delete:
		return ErrOwnsDevices
	}
	return deleteDevices(ctx, tx, owned...)
}

// PasswordLink is a link with which a user sets a password once.
type PasswordLink struct {
	UserID int64
	// TokenHash is the hash of the link's secret, which is not stored itself.
	TokenHash []byte
	ExpiresAt time.Time
}

// CreatePasswordLink stores a link, which replaces an earlier one of the user, and returns the user. It
// returns [ErrConflict] if the user is suspended.
func (d *DB) CreatePasswordLink(ctx context.Context, link PasswordLink) (User, error) {
	var user User
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock waits for a suspension, and for another email, which delete links.
		err := tx.GetContext(ctx, &user, `SELECT `+userColumns+` FROM users u WHERE u.id = $1 FOR SHARE`, link.UserID)
		switch {
		case err != nil:
			return err
		case user.Suspended:
			return ErrConflict
		}
		_, err = tx.ExecContext(ctx,
			`INSERT INTO password_links (user_id, token_hash, expires_at) VALUES ($1, $2, $3)
			ON CONFLICT (user_id) DO UPDATE SET token_hash = EXCLUDED.token_hash, expires_at = EXCLUDED.expires_at`,
			link.UserID, link.TokenHash, stamp(link.ExpiresAt))
		return err
	})
	return user, wrap(err, "create password link of user %d", link.UserID)
}

// PasswordLinkValid reports whether a link has been neither used nor replaced, and has not expired at now.
func (d *DB) PasswordLinkValid(ctx context.Context, tokenHash []byte, now time.Time) (bool, error) {
	var valid bool
	err := d.requests.GetContext(ctx, &valid,
		`SELECT EXISTS (SELECT 1 FROM password_links WHERE token_hash = $1 AND expires_at > $2)`, tokenHash, stamp(now))
	return valid, wrap(err, "password link")
}

// UsePasswordLink sets the password of a link's user, deletes the link, ends the user's sessions and
// forgets from where they logged in. It returns [ErrNotFound] if the link is not valid.
func (d *DB) UsePasswordLink(ctx context.Context, tokenHash []byte, passwordHash string, now time.Time) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockForUpdates(ctx, tx); err != nil {
			return err
		}
		var user User
		// The user first, as in a suspension or a deletion.
		err := tx.GetContext(ctx, &user, `SELECT `+userColumns+` FROM users u JOIN password_links l ON l.user_id = u.id
			WHERE l.token_hash = $1 AND l.expires_at > $2 FOR NO KEY UPDATE OF u`, tokenHash, stamp(now))
		if err != nil {
			return err
		}
		if err := setActor(ctx, tx, user.Actor(ctx)); err != nil {
			return err
		}
		var id int64
		err = tx.GetContext(ctx, &id, `DELETE FROM password_links WHERE token_hash = $1 RETURNING user_id`, tokenHash)
		if err != nil {
			return err
		}
		for _, statement := range []string{
			`UPDATE users SET password_hash = $2 WHERE id = $1`,
			// Who knew the old password may have logged in there.
			`DELETE FROM login_places WHERE user_id = $1 AND $2 <> ''`,
		} {
			if _, err := tx.ExecContext(ctx, statement, id, passwordHash); err != nil {
				return err
			}
		}
		return endSessions(ctx, tx, id)
	})
	return wrap(err, "use password link")
}
