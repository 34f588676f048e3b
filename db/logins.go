package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

const (
	// maxLoginPlaces is the maximum number of places that are kept for a user, the last ones, and
	// loginPlaceLifetime how long each is known after the last login from it.
	maxLoginPlaces     = 8
	loginPlaceLifetime = 365 * 24 * time.Hour
)

// Session is a user's session.
type Session struct {
	ID        uuid.UUID `db:"id"`
	UserID    int64     `db:"user_id"`
	CreatedAt time.Time `db:"created_at"`
	ExpiresAt time.Time `db:"expires_at"`
	// LastUsedAt is the last request with it, to the minute, and Address and UserAgent are that request's, or
	// "" if they are not known. See [DB.RecordSessionUses].
	LastUsedAt time.Time `db:"last_used_at"`
	Address    string    `db:"address"`
	UserAgent  string    `db:"user_agent"`
}

// LoginSecret returns the secret of 32 bytes, made with the database, that signs the cookies of known
// browsers and keys the hashes of places.
func (d *DB) LoginSecret(ctx context.Context) ([]byte, error) {
	var secret []byte
	err := d.devices.GetContext(ctx, &secret, `SELECT login_secret FROM settings`)
	return secret, wrap(err, "login secret")
}

// UserAt returns the account with an email, compared case-insensitively, and whether place, an opaque
// hash, is one of the last 8 from which its user has logged in, within a year before now.
func (d *DB) UserAt(ctx context.Context, email string, place []byte, now time.Time) (user User, known bool, err error) {
	var row struct {
		User
		Known bool `db:"known"`
	}
	err = d.requests.GetContext(ctx, &row,
		`SELECT `+userColumns+`, EXISTS (SELECT 1 FROM login_places p
			WHERE p.user_id = u.id AND p.place = $2 AND p.used_at > $3) AS known
		FROM users u WHERE lower(u.email) = lower($1)`, email, place, stamp(now.Add(-loginPlaceLifetime)))
	return row.User, row.Known, wrap(err, "user by email")
}

// LoginPlace is a place from which a user has logged in.
type LoginPlace struct {
	Email string `db:"email"` // In lower case.
	Place []byte `db:"place"`
}

// LoginPlaces returns the places of all users that are known at now, those of the last logins, at most
// limit.
func (d *DB) LoginPlaces(ctx context.Context, limit int, now time.Time) ([]LoginPlace, error) {
	var places []LoginPlace
	err := d.devices.SelectContext(ctx, &places,
		`SELECT lower(u.email) AS email, p.place FROM login_places p JOIN users u ON u.id = p.user_id
		WHERE p.used_at > $1 ORDER BY p.used_at DESC LIMIT $2`, stamp(now.Add(-loginPlaceLifetime)), limit)
	return places, wrap(err, "login places")
}

// CreateSession stores a session, which was created and last used at now, and the place of its login as the user's last one at now, unless the
// password that it was created for has been changed: it returns [ErrNotFound] then, and if the user does not
// exist, and [ErrConflict] if the user is suspended.
func (d *DB) CreateSession(ctx context.Context, session Session, passwordHash string, place []byte, now time.Time) error {
	var outcome struct {
		Created   bool
		Suspended bool
	}
	// The lock waits for a change of the password that has not been committed. The deletion comes after the
	// insertion, whose row it does not see. It skips what concurrent logins lock: the next login deletes what
	// is left.
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &outcome,
			`WITH owner AS (SELECT id, suspended FROM users WHERE id = $2 AND password_hash = $7 FOR SHARE),
			session AS (INSERT INTO sessions (id, user_id, created_at, expires_at, last_used_at, address, user_agent)
				SELECT $1::uuid, id, $5::timestamptz, $3::timestamptz, $5::timestamptz, $8::text, $9::text FROM owner
				RETURNING user_id),
			place AS (INSERT INTO login_places AS p (user_id, place, used_at) SELECT user_id, $4::bytea, $5::timestamptz FROM session
				ON CONFLICT (user_id, place) DO UPDATE SET used_at = greatest(p.used_at, excluded.used_at)
				RETURNING place),
			surplus AS (DELETE FROM login_places WHERE user_id = $2 AND EXISTS (SELECT FROM place) AND place IN (
				SELECT l.place FROM login_places l WHERE l.user_id = $2 AND EXISTS (SELECT FROM place) AND l.place IN (
					SELECT o.place FROM login_places o WHERE o.user_id = $2 AND o.place <> $4
					ORDER BY o.used_at DESC OFFSET $6)
				FOR UPDATE SKIP LOCKED))
			SELECT EXISTS (SELECT FROM session) AS created,
				coalesce((SELECT suspended FROM owner), false) AS suspended`,
			session.ID, session.UserID, stamp(session.ExpiresAt), place, stamp(now), maxLoginPlaces-1, passwordHash,
			session.Address, session.UserAgent)
	})
	switch {
	case err != nil || outcome.Created:
	case outcome.Suspended:
		err = ErrConflict // By the trigger sessions_refuse_suspended.
	default:
		err = ErrNotFound
	}
	return wrap(err, "create session")
}

// SessionUser returns a session that has not expired at now, and its user.
func (d *DB) SessionUser(ctx context.Context, id uuid.UUID, now time.Time) (Session, User, error) {
	var row struct {
		Session Session `db:"session"`
		User
	}
	err := d.requests.GetContext(ctx, &row,
		`SELECT s.id AS "session.id", s.user_id AS "session.user_id", s.expires_at AS "session.expires_at",
			s.created_at AS "session.created_at", coalesce(s.last_used_at, s.created_at) AS "session.last_used_at",
			s.address AS "session.address", s.user_agent AS "session.user_agent", `+userColumns+`
		FROM sessions s JOIN users u ON u.id = s.user_id
		WHERE s.id = $1 AND s.expires_at > $2`, id, stamp(now))
	if err != nil {
		return Session{}, User{}, wrap(err, "session")
	}
	return row.Session, row.User, nil
}

// DeleteSession deletes a session. It is not an error if the session does not exist.
func (d *DB) DeleteSession(ctx context.Context, id uuid.UUID) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE id = $1`, id)
		return err
	})
	return wrap(err, "delete session")
}
