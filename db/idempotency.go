package db

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	// IdempotencyLifetime is how long a key is remembered.
	IdempotencyLifetime = 24 * time.Hour
	// maxIdempotencyKeys is how many keys of one owner are remembered for that long, the newest ones. Each is of
	// a change that was made, so that only who may change much can have many.
	maxIdempotencyKeys = 10_000
)

// ErrRepeated means that what was asked for has been done, under the claim of its context; see [WithClaim].
var ErrRepeated = errors.New("done before under this idempotency key")

// Claim is the claim of a request on an idempotency key. The first transaction that changes something writes it,
// and so commits it together with what it does, or not at all. It is safe for concurrent use, and for one request.
type Claim struct {
	// ID is derived from the key and its owner, 32 bytes that tell nothing of them.
	ID []byte
	// Owner names who uses the key.
	Owner string
	// Request is a code of the request.
	Request []byte

	made atomic.Bool
}

// Made reports whether a transaction has committed the claim.
func (c *Claim) Made() bool { return c.made.Load() }

type claimKey struct{}

// WithClaim returns a context whose first transaction that changes something makes a claim. If another one has made
// the same claim within [IdempotencyLifetime], the transaction changes nothing and returns [ErrRepeated]; if one is
// about to, it waits for that one's end.
func WithClaim(ctx context.Context, claim *Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, claim)
}

// makeClaim writes the claim of ctx, and returns what to call after the commit.
func makeClaim(ctx context.Context, tx *sqlx.Tx) (made func(), err error) {
	claim, _ := ctx.Value(claimKey{}).(*Claim)
	if claim == nil || claim.Made() {
		return func() {}, nil
	}
	// Before anything else of the transaction: who waits here for another one holds no lock.
	result, err := tx.ExecContext(ctx,
		`INSERT INTO idempotency_keys AS k (id, owner, request) VALUES ($1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET request = excluded.request, created_at = now(), answer = NULL
			WHERE k.created_at < now() - $4 * interval '1 second'`,
		claim.ID, claim.Owner, claim.Request, IdempotencyLifetime.Seconds())
	if err != nil {
		return nil, wrap(err, "claim an idempotency key")
	}
	switch rows, err := result.RowsAffected(); {
	case err != nil:
		return nil, wrap(err, "claim an idempotency key")
	case rows == 0:
		return nil, ErrRepeated
	}
	return func() { claim.made.Store(true) }, nil
}

// Claimed is a claim that was made.
type Claimed struct {
	Request []byte        `db:"request"`
	Answer  []byte        `db:"answer"` // As it was given to StoreAnswer; nil if it was not.
	Age     time.Duration `db:"age"`
}

// Claimed returns the claim with an id that was made within [IdempotencyLifetime], or [ErrNotFound].
func (d *DB) Claimed(ctx context.Context, id []byte) (Claimed, error) {
	var claimed Claimed
	err := d.requests.GetContext(ctx, &claimed,
		`SELECT request, answer, (extract(epoch FROM now() - created_at) * 1e9)::bigint AS age FROM idempotency_keys
		WHERE id = $1 AND created_at >= now() - $2 * interval '1 second'`, id, IdempotencyLifetime.Seconds())
	return claimed, wrap(err, "idempotency key")
}

// StoreAnswer keeps the answer to what was done under a claim. It must tell nothing to whoever reads the database.
func (d *DB) StoreAnswer(ctx context.Context, id, answer []byte) error {
	_, err := d.requests.ExecContext(ctx, `UPDATE idempotency_keys SET answer = $2 WHERE id = $1`, id, answer)
	return wrap(err, "store an answer")
}

// ReleaseClaim forgets a claim under which nothing was done after all.
func (d *DB) ReleaseClaim(ctx context.Context, id []byte) error {
	_, err := d.requests.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE id = $1`, id)
	return wrap(err, "release an idempotency key")
}

// PruneIdempotencyKeys deletes the oldest keys that are not remembered any more, at most 5,000, and returns how many.
// If several replicas call it at once, each deletes others.
func (d *DB) PruneIdempotencyKeys(ctx context.Context) (int64, error) {
	result, err := d.devices.ExecContext(ctx,
		`DELETE FROM idempotency_keys WHERE id IN (
			SELECT id FROM idempotency_keys WHERE created_at < now() - $1 * interval '1 second' OR id IN (
				SELECT x.id FROM (SELECT owner FROM idempotency_keys GROUP BY owner HAVING count(*) > $2) AS o
				CROSS JOIN LATERAL (SELECT k.id FROM idempotency_keys k WHERE k.owner = o.owner
					ORDER BY k.created_at DESC OFFSET $2) AS x)
			ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED)`,
		IdempotencyLifetime.Seconds(), maxIdempotencyKeys, pruneBatch)
	if err != nil {
		return 0, wrap(err, "prune idempotency keys")
	}
	deleted, err := result.RowsAffected()
	return deleted, wrap(err, "prune idempotency keys")
}
