package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// revocationTimeout bounds a revocation of keys.
const revocationTimeout = time.Minute

// ErrNoKey means that a signing key does not exist.
var ErrNoKey = errors.New("there is no such signing key")

// Key is a signing key of the panel.
type Key struct {
	ID                   string
	State                types.SigningKeyState
	CreatedAt, SignsFrom time.Time
}

// Keys lists the signing keys, sorted by SignsFrom, latest first.
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
	states := auth.KeyStates(rows, time.Now())
	for i, row := range rows {
		keys = append(keys, Key{ID: row.ID, State: states[i], CreatedAt: row.CreatedAt, SignsFrom: row.SignsFrom})
	}
	return keys, nil
}

// Revocation is the effect of revoking signing keys.
type Revocation struct {
	// Devices are the devices whose tokens the keys signed. They need new tokens.
	Devices []RevokedDevice
	// Unknown is the number of devices that have not connected since they received
	// their token. They need new tokens if the keys signed theirs.
	Unknown int
}

// RevokedDevice is a device whose token was revoked.
type RevokedDevice struct {
	ID         uuid.UUID
	Name, Kind string
}

// RevokeKeys revokes leaked signing keys and everything that they signed, whether or
// not panels are running. If no key is left to sign, it creates a new one. If one of
// the ids does not exist, it changes nothing and the error wraps ErrNoKey.
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
	// Each device whose token ends takes its time.
	ctx, cancel := context.WithTimeout(ctx, revocationTimeout)
	defer cancel()
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
