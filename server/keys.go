package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// ErrNoKey means that there is no signing key with the id.
var ErrNoKey = errors.New("there is no such signing key")

// KeyState is the part that a signing key plays.
type KeyState string

// The states of a key, in the order of its life.
const (
	KeyPublished KeyState = "published" // It will sign.
	KeySigns     KeyState = "signs"
	KeyVerifies  KeyState = "verifies" // It signs no more, but for tunnel servers that know no newer one.
	KeyRetired   KeyState = "retired"  // It verifies device tokens and sessions, and no ticket.
)

// Key is a signing key of the panel.
type Key struct {
	ID                   string
	State                KeyState
	CreatedAt, SignsFrom time.Time
}

// Keys lists the signing keys, the last to sign first.
func Keys(ctx context.Context, database Database, logger *slog.Logger) (keys []Key, err error) {
	d, closeDB, err := open(ctx, database, logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeDB()) }()
	rows, err := d.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	signs := false // One that signs was found.
	for _, row := range rows {
		key := Key{ID: row.ID, CreatedAt: row.CreatedAt, SignsFrom: row.SignsFrom}
		switch {
		case row.RetiredAt != nil:
			key.State = KeyRetired
		case row.SignsFrom.After(time.Now()):
			key.State = KeyPublished
		case !signs:
			key.State, signs = KeySigns, true
		default:
			key.State = KeyVerifies
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Revocation is what became of signing keys that were revoked.
type Revocation struct {
	// Devices need new tokens: one of the keys signed theirs.
	Devices []RevokedDevice
	// Unknown counts devices that have not connected since they were given a token;
	// those whose token one of the keys signed need new ones too.
	Unknown int
}

// RevokedDevice is a device whose token is dead.
type RevokedDevice struct {
	ID         uuid.UUID
	Name, Kind string
}

// RevokeKeys ends signing keys that have leaked, beside running panels or not, and
// with them everything that they signed. Where none is left to sign a new one is
// made. The error wraps ErrNoKey where one of the ids is not that of a key;
// nothing has changed then.
func RevokeKeys(ctx context.Context, database Database, ids []string, logger *slog.Logger) (_ Revocation, err error) {
	fresh, err := auth.NewKey()
	if err != nil {
		return Revocation{}, err
	}
	d, closeDB, err := open(ctx, database, logger)
	if err != nil {
		return Revocation{}, err
	}
	defer func() { err = errors.Join(err, closeDB()) }()
	done, err := d.RevokeSigningKeys(ctx, ids, fresh)
	if errors.Is(err, db.ErrNotFound) {
		return Revocation{}, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	if err != nil {
		return Revocation{}, err
	}
	revocation := Revocation{Unknown: done.Unknown}
	for _, device := range done.Devices {
		revocation.Devices = append(revocation.Devices, RevokedDevice{ID: device.ID, Name: device.Name, Kind: device.Kind})
	}
	return revocation, nil
}
