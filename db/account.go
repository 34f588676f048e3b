package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// UseInterval is the least time between two uses of a session or an API key that are stored.
const UseInterval = time.Minute

// SessionPosition is the position of a session in the list of its user's sessions, which is sorted by these
// fields.
type SessionPosition struct {
	CreatedAt time.Time
	ID        uuid.UUID
}

// sessionColumns are those of a [Session].
const sessionColumns = `s.id, s.user_id, s.created_at, s.expires_at,
	coalesce(s.last_used_at, s.created_at) AS last_used_at, s.address, s.user_agent`

// sessionsQuery reads a page of a user's sessions, by the index sessions_order_idx.
const sessionsQuery = `SELECT ` + sessionColumns + ` FROM sessions s
	WHERE s.user_id = $1 AND s.expires_at > $2
		AND ($3::timestamptz IS NULL OR (s.created_at, s.id) < ($3, $4::uuid))
	ORDER BY s.created_at DESC, s.id DESC LIMIT nullif($5::bigint, 0)`

// Sessions lists the sessions of a user that have not expired at now, newest first.
func (d *DB) Sessions(ctx context.Context, userID int64, now time.Time, page Page[SessionPosition]) ([]Session, error) {
	var createdAt *time.Time
	var id *uuid.UUID
	if page.After != nil {
		createdAt, id = &page.After.CreatedAt, &page.After.ID
	}
	var sessions []Session
	err := d.requests.SelectContext(ctx, &sessions, sessionsQuery, userID, stamp(now), createdAt, id, page.Limit)
	return sessions, wrap(err, "list sessions of user %d", userID)
}

// EndSession deletes a session of a user. It returns [ErrNotFound] if the user has none with the id that has
// not expired at now.
func (d *DB) EndSession(ctx context.Context, userID int64, id uuid.UUID, now time.Time) error {
	var ended uuid.UUID
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &ended,
			`DELETE FROM sessions WHERE id = $1 AND user_id = $2 AND expires_at > $3 RETURNING id`, id, userID, stamp(now))
	})
	return wrap(err, "end session of user %d", userID)
}

// EndOtherSessions deletes all sessions of a user but one, and returns how many of them had not expired at
// now.
func (d *DB) EndOtherSessions(ctx context.Context, userID int64, except uuid.UUID, now time.Time) (ended int64, err error) {
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &ended,
			`WITH ended AS (DELETE FROM sessions WHERE user_id = $1 AND id <> $2 RETURNING expires_at)
			SELECT count(*) FROM ended WHERE expires_at > $3`, userID, except, stamp(now))
	})
	return ended, wrap(err, "end other sessions of user %d", userID)
}

// SessionUse is a request with a session.
type SessionUse struct {
	ID        uuid.UUID
	Address   string // "" if it is not known.
	UserAgent string
}

// RecordSessionUses stores uses at now. It leaves out sessions whose last stored use is less than UseInterval
// older, and those whose rows are locked.
func (d *DB) RecordSessionUses(ctx context.Context, uses []SessionUse, now time.Time) error {
	ids := make([]uuid.UUID, len(uses))
	addresses, agents := make([]string, len(uses)), make([]string, len(uses))
	for i, use := range uses {
		ids[i], addresses[i], agents[i] = use.ID, use.Address, use.UserAgent
	}
	// Waiting for locks, it could be in a deadlock with whoever ends several sessions.
	_, err := d.devices.ExecContext(ctx,
		`UPDATE sessions s SET last_used_at = $4, address = u.address, user_agent = u.user_agent
		FROM (SELECT l.id, v.address, v.user_agent
			FROM unnest($1::uuid[], $2::text[], $3::text[]) AS v (id, address, user_agent) JOIN sessions l ON l.id = v.id
			WHERE coalesce(l.last_used_at, l.created_at) <= $5
			FOR NO KEY UPDATE OF l SKIP LOCKED) u
		WHERE s.id = u.id`,
		uuidArray(ids), pq.Array(addresses), pq.Array(agents), stamp(now), stamp(now.Add(-UseInterval)))
	return wrap(err, "record uses of sessions")
}

// Proof is what a user has shown to change their account: a session, and the password with a hash.
type Proof struct {
	UserID       int64
	SessionID    uuid.UUID
	PasswordHash string
}

// changeAccount updates the user of a proof and calls then. In set the value is $3. It returns
// ErrPasswordChanged and ErrNotFound as its callers do.
func (d *DB) changeAccount(ctx context.Context, proof Proof, set string, value any, then func(tx *sqlx.Tx) error) (user User, err error) {
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := checkCondition[User](ctx, tx, lockedUser, proof.UserID); err != nil {
			return err
		}
		var changed []User
		// It waits for logins in progress, and later ones wait for it.
		err := tx.SelectContext(ctx, &changed,
			`UPDATE users AS u SET `+set+` WHERE u.id = $1 AND u.password_hash = $2 RETURNING `+userColumns,
			proof.UserID, proof.PasswordHash, value)
		switch {
		case err != nil:
			return err
		case len(changed) == 0:
			return ErrPasswordChanged
		}
		user = changed[0]
		// The user may have been suspended, or this session ended, since the password was checked.
		var session uuid.UUID
		err = tx.GetContext(ctx, &session, `SELECT id FROM sessions WHERE id = $1 AND user_id = $2 FOR KEY SHARE`, proof.SessionID, proof.UserID)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM password_links WHERE user_id = $1`, proof.UserID); err != nil {
			return err
		}
		return then(tx)
	})
	return user, err
}

// ChangeEmail changes the email of a user, and deletes the link with which they could set a password. It
// returns [ErrNotFound] if the proof's session has ended, [ErrPasswordChanged], [ErrPlaceholder], and
// [ErrConflict] if the email has another account. Nothing proves that another email is the user's: see
// [DB.SyncIdentity].
func (d *DB) ChangeEmail(ctx context.Context, proof Proof, email string) (User, error) {
	if err := checkOwnEmail(email); err != nil {
		return User{}, wrap(err, "change email of user %d", proof.UserID)
	}
	user, err := d.changeAccount(ctx, proof, `email = $3, email_proven = u.email_proven AND lower(u.email) = lower($3)`, email,
		func(*sqlx.Tx) error { return nil })
	return user, wrap(err, "change email of user %d", proof.UserID)
}

// ChangePassword changes the password of a user, ends their other sessions, deletes the link with which they
// could set a password, and forgets from where they logged in, but for place. It returns [ErrNotFound] if the
// proof's session has ended, and [ErrPasswordChanged].
func (d *DB) ChangePassword(ctx context.Context, proof Proof, passwordHash string, place []byte) (User, error) {
	user, err := d.changeAccount(ctx, proof, `password_hash = $3`, passwordHash, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = $1 AND id <> $2`, proof.UserID, proof.SessionID); err != nil {
			return err
		}
		// Who knew the old password may have logged in there.
		_, err := tx.ExecContext(ctx, `DELETE FROM login_places WHERE user_id = $1 AND place <> $2`, proof.UserID, place)
		return err
	})
	return user, wrap(err, "change password of user %d", proof.UserID)
}
