package db

import (
	"context"
	"net/netip"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// maxAPIKeys is the maximum number of API keys of a user or an organisation.
const maxAPIKeys = 50

// APIKeyOwner is whose an API key is: exactly one of the two is set.
type APIKeyOwner struct {
	UserID         *int64 `db:"user_id"`
	OrganisationID *int64 `db:"organisation_id"`
}

// APIKey is a key with which a program acts as a user, or as an admin of an organisation.
type APIKey struct {
	ID int64 `db:"id"`
	APIKeyOwner
	Name      string         `db:"name"`
	Prefix    string         `db:"prefix"` // The first characters of the key.
	Scopes    pq.StringArray `db:"scopes"`
	CreatedAt time.Time      `db:"created_at"`
	ExpiresAt *time.Time     `db:"expires_at"` // nil means never.
	// LastUsedAt and LastUsedFrom are nil until the first use is recorded. The address can also be unknown.
	LastUsedAt   *time.Time `db:"last_used_at"`
	LastUsedFrom *string    `db:"last_used_from"`
}

const apiKeyColumns = `k.id, k.user_id, k.organisation_id, k.name, k.prefix, k.scopes, k.created_at, k.expires_at,
	k.last_used_at, host(k.last_used_from) AS last_used_from`

// keyManaged is the condition that API key k is in the scope of [DB.UpdateAPIKey], of which $1 is All and $2 the
// account.
const keyManaged = `($1::boolean OR k.user_id = $2::bigint OR EXISTS (SELECT 1 FROM organisation_members m
	WHERE m.organisation_id = k.organisation_id AND m.user_id = $2::bigint AND m.role IN ('owner', 'admin')))`

// CreateAPIKey stores a key by its hash and returns it with its id. The key's owner must be in scope: its user, its
// organisation or one in which its user is an owner or admin; otherwise it
// returns [ErrNotFound], or [ErrForbidden] for an organisation of which its user is a member. If the owner has
// 50 keys, a key that has expired before key.CreatedAt is deleted, or it returns [ErrTooManyKeys].
func (d *DB) CreateAPIKey(ctx context.Context, scope Scope, key APIKey, hash []byte) (APIKey, error) {
	var created APIKey
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) (err error) {
		created, err = createAPIKey(ctx, tx, scope, key, hash)
		return err
	})
	return created, wrap(err, "create API key")
}

func createAPIKey(ctx context.Context, tx *sqlx.Tx, scope Scope, key APIKey, hash []byte) (APIKey, error) {
	if key.ExpiresAt != nil {
		expires := stamp(*key.ExpiresAt)
		key.ExpiresAt = &expires
	}
	if err := lockKeyOwner(ctx, tx, scope, key.APIKeyOwner); err != nil {
		return APIKey{}, err
	}
	if err := makeRoomForKey(ctx, tx, key); err != nil {
		return APIKey{}, err
	}
	var created APIKey
	err := tx.GetContext(ctx, &created,
		`INSERT INTO api_keys AS k (user_id, organisation_id, name, prefix, hash, scopes, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING `+apiKeyColumns,
		key.UserID, key.OrganisationID, key.Name, key.Prefix, hash, key.Scopes, stamp(key.CreatedAt), key.ExpiresAt)
	return created, err
}

// lockKeyOwner has other creators of keys wait, and is otherwise checkKeyOwner.
func lockKeyOwner(ctx context.Context, tx *sqlx.Tx, scope Scope, owner APIKeyOwner) error {
	if owner.OrganisationID == nil {
		return checkKeyUser(ctx, tx, scope, *owner.UserID, ` FOR NO KEY UPDATE`)
	}
	role, err := lockOrganisation(ctx, tx, scope, *owner.OrganisationID, forMembers)
	if err == nil && rank(role) < rank(RoleAdmin) {
		return ErrForbidden
	}
	return err
}

// checkKeyOwner returns sql.ErrNoRows if the owner is not in scope, and ErrForbidden if it is an organisation that
// the scope does not manage.
func checkKeyOwner(ctx context.Context, tx *sqlx.Tx, scope Scope, owner APIKeyOwner) error {
	if owner.OrganisationID == nil {
		return checkKeyUser(ctx, tx, scope, *owner.UserID, "")
	}
	var found int64
	err := tx.GetContext(ctx, &found,
		`SELECT o.id FROM organisations o WHERE o.id = $4 AND `+manageableOrganisation, scope.args(*owner.OrganisationID)...)
	return scope.refused(ctx, tx, err, organisationRow, *owner.OrganisationID)
}

func checkKeyUser(ctx context.Context, tx *sqlx.Tx, scope Scope, userID int64, lock string) error {
	var found int64
	return tx.GetContext(ctx, &found,
		`SELECT u.id FROM users u WHERE u.id = $3 AND ($1::boolean OR u.id = $2::bigint)`+lock, scope.All, scope.account(), userID)
}

func makeRoomForKey(ctx context.Context, tx *sqlx.Tx, key APIKey) error {
	var count int
	err := tx.GetContext(ctx, &count,
		`SELECT count(*) FROM api_keys WHERE user_id = $1 OR organisation_id = $2`, key.UserID, key.OrganisationID)
	if err != nil || count < maxAPIKeys {
		return err
	}
	result, err := tx.ExecContext(ctx,
		`DELETE FROM api_keys WHERE id = (SELECT id FROM api_keys
			WHERE (user_id = $1 OR organisation_id = $2) AND expires_at <= $3 ORDER BY expires_at LIMIT 1)`,
		key.UserID, key.OrganisationID, stamp(key.CreatedAt))
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err != nil || rows == 0 {
		return ErrTooManyKeys
	}
	return nil
}

// apiKeysQuery reads the keys of an owner, of whom there are at most maxAPIKeys.
const apiKeysQuery = `SELECT ` + apiKeyColumns + ` FROM api_keys k
	WHERE k.user_id = $1 OR k.organisation_id = $2 ORDER BY k.id DESC`

// APIKeys lists the keys of an owner in the scope of [DB.CreateAPIKey], newest first, those that have expired
// included. It returns [ErrNotFound] if the owner is not in scope.
func (d *DB) APIKeys(ctx context.Context, scope Scope, owner APIKeyOwner) ([]APIKey, error) {
	var keys []APIKey
	err := d.requests.snapshot(ctx, func(tx *sqlx.Tx) error {
		if err := checkKeyOwner(ctx, tx, scope, owner); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &keys, apiKeysQuery, owner.UserID, owner.OrganisationID)
	})
	return keys, wrap(err, "list API keys")
}

// apiKeyManagedQuery reads a key of an owner in scope.
const apiKeyManagedQuery = `SELECT ` + apiKeyColumns + ` FROM api_keys k WHERE k.id = $3 AND ` + keyManaged

// APIKey returns a key of an owner in scope.
func (d *DB) APIKey(ctx context.Context, scope Scope, id int64) (APIKey, error) {
	var key APIKey
	err := d.requests.GetContext(ctx, &key, apiKeyManagedQuery, scope.All, scope.account(), id)
	return key, wrap(err, "get API key %d", id)
}

// checkAPIKey checks the condition of ctx on a key of an owner in scope.
func checkAPIKey(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64) error {
	return checkCondition[APIKey](ctx, tx, apiKeyManagedQuery+` FOR UPDATE`, scope.All, scope.account(), id)
}

// UpdateAPIKey renames a key of an owner in scope.
func (d *DB) UpdateAPIKey(ctx context.Context, scope Scope, id int64, name string) (APIKey, error) {
	var key APIKey
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := checkAPIKey(ctx, tx, scope, id); err != nil {
			return err
		}
		return tx.GetContext(ctx, &key,
			`UPDATE api_keys AS k SET name = $4 WHERE k.id = $3 AND `+keyManaged+` RETURNING `+apiKeyColumns,
			scope.All, scope.account(), id, name)
	})
	return key, wrap(err, "update API key %d", id)
}

// DeleteAPIKey revokes a key of an owner in scope. It is not valid any more when DeleteAPIKey returns.
func (d *DB) DeleteAPIKey(ctx context.Context, scope Scope, id int64) error {
	var deleted int64
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := checkAPIKey(ctx, tx, scope, id); err != nil {
			return err
		}
		return tx.GetContext(ctx, &deleted,
			`DELETE FROM api_keys k WHERE k.id = $3 AND `+keyManaged+` RETURNING k.id`, scope.All, scope.account(), id)
	})
	return wrap(err, "delete API key %d", id)
}

// apiKeyQuery reads a key by its hash, with its user. The columns of the user are those of userColumns, and zero for
// an organisation's key.
const apiKeyQuery = `SELECT ` + apiKeyColumns + `,
		coalesce(u.id, 0) AS "user.id", coalesce(u.email, '') AS "user.email",
		coalesce(u.password_hash, '') AS "user.password_hash", coalesce(u.role, '') AS "user.role",
		coalesce(u.created_at, k.created_at) AS "user.created_at", coalesce(u.suspended, false) AS "user.suspended"
	FROM api_keys k LEFT JOIN users u ON u.id = k.user_id
	LEFT JOIN LATERAL (SELECT true AS managed FROM organisation_members m JOIN users o ON o.id = m.user_id
		WHERE m.organisation_id = k.organisation_id AND m.role IN ('owner', 'admin') AND NOT o.suspended LIMIT 1) g ON true
	WHERE k.hash = $1 AND (k.organisation_id IS NULL OR g.managed)`

// APIKeyByHash returns a key, which may have expired, and its user, who may be suspended. The user is nil if the key
// is an organisation's, whose keys are not found while nobody who manages it may use the panel: it returns
// [ErrNotFound].
func (d *DB) APIKeyByHash(ctx context.Context, hash []byte) (APIKey, *User, error) {
	var row struct {
		APIKey
		User User `db:"user"`
	}
	if err := d.requests.GetContext(ctx, &row, apiKeyQuery, hash); err != nil {
		return APIKey{}, nil, wrap(err, "API key")
	}
	if row.UserID == nil {
		return row.APIKey, nil, nil
	}
	return row.APIKey, &row.User, nil
}

// RecordAPIKeyUses records that keys were used at a time, from addresses by key. The zero address is unknown. It
// writes each key at most once in UseInterval, whichever replica calls it, and leaves out those that are being written.
func (d *DB) RecordAPIKeyUses(ctx context.Context, uses map[int64]netip.Addr, at time.Time) error {
	ids, addresses := make(pq.Int64Array, 0, len(uses)), make(pq.StringArray, 0, len(uses))
	for id, address := range uses {
		text := ""
		if address.IsValid() {
			text = address.WithZone("").String()
		}
		ids, addresses = append(ids, id), append(addresses, text)
	}
	_, err := d.devices.ExecContext(ctx,
		`WITH due AS (SELECT k.id, u.address FROM api_keys k JOIN unnest($1::bigint[], $2::text[]) AS u (id, address) ON u.id = k.id
			WHERE k.last_used_at IS NULL OR k.last_used_at <= $4 FOR UPDATE OF k SKIP LOCKED)
		UPDATE api_keys k SET last_used_at = $3, last_used_from = nullif(due.address, '')::inet FROM due WHERE due.id = k.id`,
		ids, addresses, stamp(at), stamp(at.Add(-UseInterval)))
	return wrap(err, "record uses of API keys")
}
