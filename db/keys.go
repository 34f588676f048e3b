package db

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

const (
	// KeyLead is how long a key is published before it signs. Replicas and tunnel servers receive it
	// within a second; the rest leaves time for a rolling upgrade.
	KeyLead = 24 * time.Hour
	// KeyPropagation bounds the time until a connected tunnel server has received a new key.
	KeyPropagation = time.Minute
	// keyRetirementDelay is how long a key verifies tickets after its last use. Tickets are valid for
	// a day and renewed every twelve hours, and replicas have switched to a newer key by then.
	keyRetirementDelay = 48 * time.Hour
	// retiredKeyRetention is the minimum time for which a retired key is kept. It exceeds the
	// lifetime of sessions.
	retiredKeyRetention = 31 * 24 * time.Hour
)

// SigningKey is an Ed25519 key with which the panel signs tokens. Its times are by the database's
// clock.
type SigningKey struct {
	ID string `db:"id"`
	// Seed is the private key as RFC 8032 defines it, 32 bytes. Nil means that it is encrypted with a key that
	// the database was not opened with.
	Seed      []byte    `db:"seed"`
	CreatedAt time.Time `db:"created_at"` // It is published from then on.
	// SignsFrom is when it starts to sign. It signs until a newer key does.
	SignsFrom time.Time `db:"signs_from"`
	// RetiredAt is when it stopped signing and verifying tickets; nil before that. It verifies tokens
	// that are valid for longer, such as device tokens, until it is deleted.
	RetiredAt *time.Time `db:"retired_at"`
}

const signingKeyQuery = `SELECT id, seed, created_at, signs_from, retired_at FROM signing_keys
	ORDER BY signs_from DESC, id`

// SigningKeys returns all keys, sorted by SignsFrom, latest first.
func (d *DB) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	var keys []SigningKey
	if err := d.devices.SelectContext(ctx, &keys, signingKeyQuery); err != nil {
		return nil, wrap(err, "signing keys")
	}
	d.openSeeds(keys)
	return keys, nil
}

// EnsureSigningKey stores candidate if there is no key yet, and returns all keys, sorted by SignsFrom,
// latest first. It uses only the candidate's id and seed. Replicas that start together agree on one
// key. Seeds that are not encrypted with the first of the database's secret keys are from then on. It
// returns [ErrSecretKeys] if a seed is nil.
func (d *DB) EnsureSigningKey(ctx context.Context, candidate SigningKey) ([]SigningKey, error) {
	var keys []SigningKey
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockSigningKeys(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO signing_keys (id, seed, created_at)
			SELECT $1, $2, now() WHERE NOT EXISTS (SELECT 1 FROM signing_keys)`,
			candidate.ID, d.sealSeed(candidate))
		if err != nil {
			return err
		}
		keys = nil
		if err := tx.SelectContext(ctx, &keys, signingKeyQuery); err != nil {
			return err
		}
		for _, key := range d.openSeeds(keys) {
			if key.Seed == nil {
				return fmt.Errorf("signing key %s: %w", key.ID, ErrSecretKeys)
			}
			if _, err := tx.ExecContext(ctx, `UPDATE signing_keys SET seed = $2 WHERE id = $1`, key.ID, d.sealSeed(key)); err != nil {
				return err
			}
		}
		return nil
	})
	return keys, wrap(err, "ensure signing key")
}

// lockSigningKeys locks the keys for one writer until tx ends. The lock conflicts with itself, so that
// a second replica sees the first one's key.
func lockSigningKeys(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE`)
	return err
}

// sealSeed returns a key's seed as the database stores it.
func (d *DB) sealSeed(key SigningKey) []byte { return d.sealSecret(seedName(key), key.Seed) }

// openSeeds replaces the seeds of keys, as the database stores them, by what they are, or by nil. It returns
// the keys whose seeds should be stored differently.
func (d *DB) openSeeds(keys []SigningKey) (outdated []SigningKey) {
	for i, key := range keys {
		var current bool
		keys[i].Seed, current = d.openSecret(seedName(key), key.Seed, len(key.Seed) != ed25519.SeedSize)
		if !current {
			outdated = append(outdated, keys[i])
		}
	}
	return outdated
}

func seedName(key SigningKey) string { return "signing key " + key.ID }

// sealSecret returns a secret as the database stores it: encrypted, if the database was opened with keys. The
// name is that of package atrest.
func (d *DB) sealSecret(name string, secret []byte) []byte {
	if d.secrets == nil {
		return secret
	}
	return d.secrets.Seal(name, secret)
}

// openSecret returns a secret that is stored, sealed or as it is, or nil if it is encrypted with a key that the
// database was not opened with. It reports whether sealSecret would store it in the same way.
func (d *DB) openSecret(name string, stored []byte, sealed bool) (secret []byte, current bool) {
	if !sealed {
		return stored, d.secrets == nil
	}
	secret, current, err := d.secrets.Open(name, stored)
	if err != nil {
		return nil, false
	}
	return secret, current
}

// KeyRotation configures the rotation of signing keys.
type KeyRotation struct {
	// Every is the age at which the newest key is replaced; 0 means never.
	Every time.Duration
	// Candidate is the next key. Only its id and seed are used.
	Candidate SigningKey
}

// KeyChanges are the ids of keys whose state has changed.
type KeyChanges struct {
	Created, Retired, Deleted []string
}

func (k KeyChanges) none() bool { return len(k.Created)+len(k.Retired)+len(k.Deleted) == 0 }

// rotateKeys creates the next key if it is due, retires keys that no longer sign, deletes keys that
// nothing depends on, and notifies every replica of a change.
func (d *DB) rotateKeys(ctx context.Context, tx *sqlx.Tx, rotation KeyRotation) (KeyChanges, error) {
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
			rotation.Candidate.ID, d.sealSeed(rotation.Candidate), KeyLead.Seconds(), rotation.Every.Seconds())
		if err != nil {
			return changes, err
		}
	}
	// A key signs until a newer one does. For a tunnel server that was offline when the newer one was
	// created, it signs until that tunnel server has connected and received it.
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
	// If the key that signed a device's token is not known, it may be any of them.
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

// Revocation is the effect of revoking signing keys.
type Revocation struct {
	// Devices are those whose tokens the keys signed, as they are now. They need new tokens.
	Devices []Device
	// Unknown is the number of devices that have not connected since they received their token, or
	// since an older version of the panel. They need new tokens if the keys signed theirs.
	Unknown int
}

// RevokeSigningKeys deletes keys, which invalidates everything that they signed on all replicas and
// tunnel servers. If no key is left that signs, fresh signs at once; only its id and seed are used.
// RevokeSigningKeys raises the token version of every device whose token the keys signed, which closes
// its connections, including those of an impostor. It skips embedded tunnel servers, which store no
// token. It returns [ErrNotFound] if one of the keys does not exist.
func (d *DB) RevokeSigningKeys(ctx context.Context, ids []string, fresh SigningKey) (Revocation, error) {
	var revocation Revocation
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
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
			`INSERT INTO revoked_signing_keys (id) SELECT unnest($1::text[]) ON CONFLICT (id) DO NOTHING`, pq.Array(deleted))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`INSERT INTO signing_keys (id, seed, created_at) SELECT $1, $2, now()
			WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE signs_from <= now() AND retired_at IS NULL)`,
			fresh.ID, d.sealSeed(fresh))
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

// endTokens raises the token versions of the devices whose tokens the keys signed.
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
