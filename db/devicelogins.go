package db

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// The states of a [DeviceLogin].
const (
	LoginPending  = "pending"
	LoginApproved = "approved" // Its key waits for the program.
	LoginDenied   = "denied"
	LoginDone     = "done" // The program has the key.
)

// DeviceLogin is the login of a program that is to act as a person (RFC 8628).
type DeviceLogin struct {
	ID       int64          `db:"id"`
	UserCode string         `db:"user_code"`
	Client   string         `db:"client"`
	Host     *string        `db:"host"`     // nil if the program does not say.
	Platform *string        `db:"platform"` // The same.
	Scopes   pq.StringArray `db:"scopes"`   // What it asks for.
	// StartedFrom is the address from which it was started; nil if it is not known.
	StartedFrom *string   `db:"started_address"`
	CreatedAt   time.Time `db:"created_at"`
	ExpiresAt   time.Time `db:"expires_at"`
	State       string    `db:"state"`
	KeyID       *int64    `db:"key_id"` // nil unless approved, and after the key was revoked.
}

const deviceLoginColumns = `l.id, l.user_code, l.client, l.host, l.platform, l.scopes, host(l.started_address) AS started_address,
	l.created_at, l.expires_at, l.state, l.key_id`

// NewDeviceLogin is a login to start.
type NewDeviceLogin struct {
	UserCode             string
	CodeHash             []byte // Of the device code, which is not stored itself.
	Client               string
	Host, Platform       string // "" for none.
	Scopes               []string
	CreatedAt, ExpiresAt time.Time
	StartedFrom          netip.Addr // The zero Addr if it is not known.
}

// loginLock is the advisory lock of [DB.CreateDeviceLogin]: "eclg" in ASCII.
const loginLock = 0x65636c67

// CreateDeviceLogin stores a pending login. If as many are pending as one of the limits allows, it stores nothing, and
// returns how long it is at least until one of them expires. Of limits, Site and Networks count. It returns
// [ErrConflict] if another login has the user code; try again with another one.
func (d *DB) CreateDeviceLogin(ctx context.Context, login NewDeviceLogin, limits PendingLimits) (wait time.Duration, err error) {
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(loginLock)); err != nil {
			return err
		}
		var err error
		if wait, err = pendingLoginsWait(ctx, tx, login, limits); err != nil || wait > 0 {
			return err
		}
		network := ""
		if len(limits.Networks) > 0 {
			network = limits.Networks[0].Network.String()
		}
		_, err = tx.ExecContext(ctx,
			`INSERT INTO device_logins (code_hash, user_code, client, host, platform, scopes, started_address, started_from, created_at, expires_at)
			VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''), $6, nullif($7, '')::inet, nullif($8, '')::cidr, $9, $10)`,
			login.CodeHash, login.UserCode, login.Client, login.Host, login.Platform, pq.Array(login.Scopes),
			addressText(login.StartedFrom), network, stamp(login.CreatedAt), stamp(login.ExpiresAt))
		return err
	})
	return wait, wrap(err, "create login of a terminal")
}

// pendingLoginsWait returns how long to wait if a limit is reached, and otherwise 0.
func pendingLoginsWait(ctx context.Context, tx *sqlx.Tx, login NewDeviceLogin, limits PendingLimits) (time.Duration, error) {
	networks, bounds := limits.networks()
	var pending struct {
		All  int        `db:"all_pending"`
		Full bool       `db:"network_full"`
		Next *time.Time `db:"next"`
	}
	now := stamp(login.CreatedAt)
	err := tx.GetContext(ctx, &pending,
		`WITH pending AS (SELECT started_from, expires_at FROM device_logins WHERE state = 'pending' AND expires_at > $1)
		SELECT count(*) AS all_pending,
			EXISTS (SELECT 1 FROM unnest($2::cidr[], $3::bigint[]) AS n (network, max)
				WHERE (SELECT count(*) FROM pending p WHERE p.started_from <<= n.network) >= n.max) AS network_full,
			min(expires_at) AS next
		FROM pending`, now, pq.Array(networks), pq.Array(bounds))
	if err != nil || (pending.All < limits.Site || limits.Site == 0) && !pending.Full {
		return 0, err
	}
	return max(time.Second, pending.Next.Sub(now)), nil
}

// DeviceLoginByCodeHash returns the login with a hash of its device code, in whatever state it is.
func (d *DB) DeviceLoginByCodeHash(ctx context.Context, hash []byte) (DeviceLogin, error) {
	var login DeviceLogin
	err := d.requests.GetContext(ctx, &login, `SELECT `+deviceLoginColumns+` FROM device_logins l WHERE l.code_hash = $1`, hash)
	return login, wrap(err, "login by device code")
}

// DeviceLoginByUserCode returns the login with a user code, in whatever state it is.
func (d *DB) DeviceLoginByUserCode(ctx context.Context, userCode string) (DeviceLogin, error) {
	var login DeviceLogin
	err := d.requests.GetContext(ctx, &login,
		`SELECT `+deviceLoginColumns+` FROM device_logins l WHERE l.user_code = $1 AND l.user_code <> ''`, userCode)
	return login, wrap(err, "login by user code")
}

// RecordLoginPoll is [DB.RecordPoll] for a login.
func (d *DB) RecordLoginPoll(ctx context.Context, id int64, now time.Time, interval time.Duration) (wait time.Duration, err error) {
	now = stamp(now)
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		wait = 0
		var last *time.Time
		err := tx.GetContext(ctx, &last, `SELECT polled_at FROM device_logins WHERE id = $1 FOR NO KEY UPDATE`, id)
		if err != nil {
			return err
		}
		if last != nil && now.Before(last.Add(interval)) {
			wait = last.Add(interval).Sub(now)
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE device_logins SET polled_at = $2 WHERE id = $1`, id, now)
		return err
	})
	return wait, wrap(err, "record poll of login %d", id)
}

// ApproveDeviceLogin approves a login that is pending at key.CreatedAt, and makes the key that its program will get
// from [DB.TakeLoginKey]. Until then the key is in the owner's list and nobody has it. It returns [ErrConflict] if the
// login is not pending, and otherwise the errors of [DB.CreateAPIKey].
func (d *DB) ApproveDeviceLogin(ctx context.Context, scope Scope, id int64, key APIKey) (APIKey, error) {
	var nobody [32]byte
	if _, err := rand.Read(nobody[:]); err != nil {
		return APIKey{}, wrap(err, "approve login %d", id)
	}
	var created APIKey
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var err error
		// The owner is locked first, as by others who make keys.
		if created, err = createAPIKey(ctx, tx, scope, key, nobody[:]); err != nil {
			return err
		}
		return decideLogin(ctx, tx, `UPDATE device_logins SET state = 'approved', key_id = $3
			WHERE id = $1 AND state = 'pending' AND expires_at > $2`, id, stamp(key.CreatedAt), created.ID)
	})
	return created, wrap(err, "approve login %d", id)
}

// DenyDeviceLogin denies a login. It returns [ErrConflict] if that is not pending at a time.
func (d *DB) DenyDeviceLogin(ctx context.Context, id int64, at time.Time) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return decideLogin(ctx, tx, `UPDATE device_logins SET state = 'denied'
			WHERE id = $1 AND state = 'pending' AND expires_at > $2`, id, stamp(at))
	})
	return wrap(err, "deny login %d", id)
}

func decideLogin(ctx context.Context, tx *sqlx.Tx, statement string, args ...any) error {
	result, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err != nil || rows == 0 {
		return orConflict(err)
	}
	return nil
}

// orConflict returns err, and ErrConflict for nil.
func orConflict(err error) error {
	if err != nil {
		return err
	}
	return ErrConflict
}

// TakeLoginKey gives an approved login's key its hash, which newHash returns for the key's prefix, and returns the key and
// its user. Of callers at the same time one gets it; the others, and those after it, get [ErrConflict], as they do
// once the key was revoked.
func (d *DB) TakeLoginKey(ctx context.Context, id int64, newHash func(prefix string) []byte) (APIKey, User, error) {
	var key APIKey
	var user User
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The key first, as by those who revoke it.
		err := tx.GetContext(ctx, &key, `SELECT `+apiKeyColumns+` FROM api_keys k
			WHERE k.id = (SELECT l.key_id FROM device_logins l WHERE l.id = $1 AND l.state = 'approved') FOR NO KEY UPDATE`, id)
		if err != nil {
			return err
		}
		err = decideLogin(ctx, tx,
			`UPDATE device_logins SET state = 'done' WHERE id = $1 AND state = 'approved' AND key_id = $2`, id, key.ID)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE api_keys SET hash = $2 WHERE id = $1`, key.ID, newHash(key.Prefix)); err != nil {
			return err
		}
		return tx.GetContext(ctx, &user, `SELECT `+userColumns+` FROM users u WHERE u.id = $1`, *key.UserID)
	})
	if err = wrap(err, "take key of login %d", id); errors.Is(err, ErrNotFound) {
		err = ErrConflict
	}
	return key, user, err
}

// RevokeAPIKey revokes the key with a hash, and reports whether there was one.
func (d *DB) RevokeAPIKey(ctx context.Context, hash []byte) (bool, error) {
	var rows int64
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM api_keys WHERE hash = $1`, hash)
		if err != nil {
			return err
		}
		rows, err = result.RowsAffected()
		return err
	})
	return rows > 0, wrap(err, "revoke API key")
}

// deleteExpiredLogins deletes logins that have expired, and the keys that no program has fetched.
func deleteExpiredLogins(ctx context.Context, tx *sqlx.Tx, before time.Time) error {
	for _, statement := range []string{
		// Rows that are being fetched or revoked right now can wait.
		`DELETE FROM api_keys WHERE id IN (
			SELECT k.id FROM api_keys k JOIN device_logins l ON l.key_id = k.id
			WHERE l.state = 'approved' AND l.expires_at < $1 FOR UPDATE OF k SKIP LOCKED)`,
		`DELETE FROM device_logins WHERE id IN (
			SELECT id FROM device_logins WHERE expires_at < $1 AND (state <> 'approved' OR key_id IS NULL) FOR UPDATE SKIP LOCKED)`,
	} {
		if _, err := tx.ExecContext(ctx, statement, stamp(before)); err != nil {
			return err
		}
	}
	return nil
}
