package db

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

const (
	// KeyLead is how long a key is published before it signs. Replicas and tunnel servers hear of it
	// within a second; the rest is for those that a rolling upgrade has not reached yet.
	KeyLead = 24 * time.Hour
	// KeyPropagation is how long a tunnel server may take to hear of a key while it is connected.
	KeyPropagation = time.Minute
	// keyRetirementDelay is how long after its last use a key verifies tickets: they live for a day and are
	// renewed every half, by which time a replica has seen that a newer key will do.
	keyRetirementDelay = 48 * time.Hour
	// retiredKeyRetention is how long a retired key is kept at least; no session lives as long.
	retiredKeyRetention = 31 * 24 * time.Hour
)

// SigningKey is an Ed25519 key that the panel signs tokens with. Its times are those of the
// database's clock.
type SigningKey struct {
	ID string `db:"id"`
	// Seed is the private key as RFC 8032 defines it, 32 bytes.
	Seed      []byte    `db:"seed"`
	CreatedAt time.Time `db:"created_at"` // It has been published since.
	// SignsFrom is when it begins to sign; it does so until a newer key begins.
	SignsFrom time.Time `db:"signs_from"`
	// RetiredAt is when it ceased to verify tickets, and signs nothing any more; nil before. What
	// lives longer, as device tokens do, it verifies until the row is gone.
	RetiredAt *time.Time `db:"retired_at"`
}

const signingKeyQuery = `SELECT id, seed, created_at, signs_from, retired_at FROM signing_keys
	ORDER BY signs_from DESC, id`

// SigningKeys reads all keys, the last to sign first.
func (d *DB) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	var keys []SigningKey
	err := d.pool.SelectContext(ctx, &keys, signingKeyQuery)
	return keys, wrap(err, "signing keys")
}

// EnsureSigningKey stores candidate, of which only the id and the seed count, where there is no key
// yet, and returns all keys, the last to sign first. Replicas that start together agree on one.
func (d *DB) EnsureSigningKey(ctx context.Context, candidate SigningKey) ([]SigningKey, error) {
	var keys []SigningKey
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockSigningKeys(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO signing_keys (id, seed, created_at)
			SELECT $1, $2, now() WHERE NOT EXISTS (SELECT 1 FROM signing_keys)`,
			candidate.ID, candidate.Seed)
		if err != nil {
			return err
		}
		keys = nil
		return tx.SelectContext(ctx, &keys, signingKeyQuery)
	})
	return keys, wrap(err, "ensure signing key")
}

// lockSigningKeys lets one writer at the keys: the lock conflicts with itself, so that a second
// replica sees the first one's key.
func lockSigningKeys(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE`)
	return err
}

// KeyRotation says how signing keys are replaced.
type KeyRotation struct {
	// Every is the age at which the newest key is followed by another; 0: never.
	Every time.Duration
	// Candidate is the next key, of which the id and the seed count.
	Candidate SigningKey
}

// KeyChanges are the ids of keys whose part has changed.
type KeyChanges struct {
	Created, Retired, Deleted []string
}

func (k KeyChanges) none() bool { return len(k.Created)+len(k.Retired)+len(k.Deleted) == 0 }

// rotateKeys makes the next key when that is due, retires those that sign no more and deletes those
// that nothing depends on, and notifies every replica of a change.
func rotateKeys(ctx context.Context, tx *sqlx.Tx, rotation KeyRotation) (KeyChanges, error) {
	var changes KeyChanges
	if err := lockSigningKeys(ctx, tx); err != nil {
		return changes, err
	}
	if rotation.Every > 0 {
		err := tx.SelectContext(ctx, &changes.Created,
			`INSERT INTO signing_keys (id, seed, created_at, signs_from)
			SELECT $1, $2, now(), now() + $3 * interval '1 second'
			WHERE (SELECT max(created_at) FROM signing_keys) <= now() - $4 * interval '1 second'
			RETURNING id`,
			rotation.Candidate.ID, rotation.Candidate.Seed, KeyLead.Seconds(), rotation.Every.Seconds())
		if err != nil {
			return changes, err
		}
	}
	// A key signs until a newer one does and, for a tunnel server that was away when the newer one
	// was made, until that server has been back to hear of it.
	_, err := tx.ExecContext(ctx,
		`UPDATE signing_keys k SET needed_at = now() WHERE k.retired_at IS NULL AND NOT EXISTS (
			SELECT 1 FROM signing_keys n WHERE n.signs_from > k.signs_from AND n.signs_from <= now()
			AND NOT EXISTS (SELECT 1 FROM devices d LEFT JOIN replicas r ON r.id = d.replica_id
				WHERE d.kind = 'server' AND d.relay_port <> 0
				AND greatest(d.last_seen_at, r.renewed_at) < n.created_at + $1 * interval '1 second'))`,
		KeyPropagation.Seconds())
	if err != nil {
		return changes, err
	}
	err = tx.SelectContext(ctx, &changes.Retired,
		`UPDATE signing_keys k SET retired_at = now()
		WHERE k.retired_at IS NULL AND k.needed_at < now() - $1 * interval '1 second' AND EXISTS (
			SELECT 1 FROM signing_keys n
			WHERE n.signs_from > k.signs_from AND n.signs_from < now() - $1 * interval '1 second')
		RETURNING k.id`, keyRetirementDelay.Seconds())
	if err != nil {
		return changes, err
	}
	// A device whose token was signed by a key that is not known may depend on any of them.
	err = tx.SelectContext(ctx, &changes.Deleted,
		`DELETE FROM signing_keys k WHERE k.retired_at < now() - $1 * interval '1 second' AND NOT EXISTS (
			SELECT 1 FROM devices d WHERE d.token_version > 0
			AND (d.token_key = k.id OR d.token_key_version IS DISTINCT FROM d.token_version))
		RETURNING id`, retiredKeyRetention.Seconds())
	if err != nil || changes.none() {
		return changes, err
	}
	return changes, notifyKeys(ctx, tx)
}

// Revocation is what became of signing keys that were revoked.
type Revocation struct {
	// Devices are those whose token one of the keys signed, as they are now: they need new tokens.
	Devices []Device
	// Unknown counts the devices that have not connected since they were given a token, or since
	// an older version of the panel. They need new tokens if one of the keys signed theirs.
	Unknown int
}

// RevokeSigningKeys deletes keys at once: whatever they signed is worth nothing from now on, on any
// replica and any tunnel server. Where no key is left that signs, fresh, of which the id and the
// seed count, does so at once. The token version of every device whose token one of the keys signed
// is raised, which ends its connections, those of an impostor included; except that of an embedded
// tunnel server, which keeps no token. It returns [ErrNotFound] where an id is not that of a key.
func (d *DB) RevokeSigningKeys(ctx context.Context, ids []string, fresh SigningKey) (Revocation, error) {
	var revocation Revocation
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		revocation = Revocation{}
		if err := lockSigningKeys(ctx, tx); err != nil {
			return err
		}
		var deleted []string
		err := tx.SelectContext(ctx, &deleted, `DELETE FROM signing_keys WHERE id = ANY ($1) RETURNING id`, pq.Array(ids))
		if err != nil {
			return err
		}
		for _, id := range ids {
			if !slices.Contains(deleted, id) {
				return fmt.Errorf("signing key %q: %w", id, ErrNotFound)
			}
		}
		_, err = tx.ExecContext(ctx,
			`INSERT INTO signing_keys (id, seed, created_at) SELECT $1, $2, now()
			WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE signs_from <= now() AND retired_at IS NULL)`,
			fresh.ID, fresh.Seed)
		if err != nil {
			return err
		}
		if err := endTokens(ctx, tx, ids, &revocation); err != nil {
			return err
		}
		return notifyKeys(ctx, tx)
	})
	return revocation, wrap(err, "revoke signing keys")
}

// endTokens raises the token versions of the devices whose token one of the keys signed.
func endTokens(ctx context.Context, tx *sqlx.Tx, keys []string, revocation *Revocation) error {
	err := tx.GetContext(ctx, &revocation.Unknown,
		`SELECT count(*) FROM devices WHERE token_version > 0 AND embedded_name IS NULL
		AND token_key_version IS DISTINCT FROM token_version`)
	if err != nil {
		return err
	}
	err = tx.SelectContext(ctx, &revocation.Devices,
		`WITH locked AS (SELECT id FROM devices
			WHERE token_key = ANY ($1) AND token_key_version = token_version AND embedded_name IS NULL
			ORDER BY id FOR NO KEY UPDATE)
		UPDATE devices d SET token_version = d.token_version + 1 FROM locked WHERE d.id = locked.id
		RETURNING `+deviceColumns, pq.Array(keys))
	if err != nil {
		return err
	}
	changed := make([]uuid.UUID, len(revocation.Devices))
	for i, device := range revocation.Devices {
		changed[i] = device.ID
	}
	if err := notifyServersOf(ctx, tx, changed...); err != nil {
		return err
	}
	return notify(ctx, tx, changed...)
}
