package db_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestTombstones_TellDeletedFromUnknown(t *testing.T) {
	d := dbtest.New(t)
	now := time.Now()
	start := func(code string, expires time.Time) db.Device {
		t.Helper()
		device, err := d.CreateDevice(t.Context(), db.NewDevice{
			Name: code, Kind: db.KindClient, UserCode: code, CodeHash: []byte(code), CreatedAt: now, ExpiresAt: expires,
		})
		if err != nil {
			t.Fatal(err)
		}
		return device
	}
	everything := db.Scope{All: true}
	denied, expired, swept := start("denied", now.Add(time.Hour)), start("expired", now.Add(-time.Hour)), start("swept", now.Add(-2*time.Hour))
	kept := start("kept", now.Add(time.Hour))
	if _, _, err := d.Maintain(t.Context(), db.Maintenance{EnrollmentsBefore: now.Add(-90 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	for _, device := range []db.Device{denied, expired} {
		if err := d.DeleteDevice(t.Context(), everything, device.ID); err != nil {
			t.Fatal(err)
		}
	}
	unknown := db.Device{ID: uuid.New(), Name: "unknown"}
	for _, c := range []struct {
		device                  db.Device
		deleted, denied, absent bool
	}{
		{denied, true, true, false},
		{expired, true, false, false}, // It was over before it was deleted.
		{swept, false, false, true},
		{kept, false, false, false},
		{unknown, false, false, true},
	} {
		deleted, err := d.DeviceDeleted(t.Context(), c.device.ID)
		if err != nil || deleted != c.deleted {
			t.Errorf("%s: deleted %v, %v", c.device.Name, deleted, err)
		}
		if denied, err := d.EnrollmentDenied(t.Context(), []byte(c.device.Name)); err != nil || denied != c.denied {
			t.Errorf("%s: denied %v, %v", c.device.Name, denied, err)
		}
		rows, err := d.Channels(t.Context(), []uuid.UUID{c.device.ID})
		row, ok := rows[c.device.ID]
		if err != nil || ok == c.absent || row.Deleted != c.deleted {
			t.Errorf("%s: channel %+v %v, %v", c.device.Name, row, ok, err)
		}
	}
}

func TestTombstones_TellRevokedKeysFromUnknown(t *testing.T) {
	d := dbtest.New(t)
	seed := bytes.Repeat([]byte{1}, 32)
	if _, err := d.EnsureSigningKey(t.Context(), db.SigningKey{ID: "first", Seed: seed}); err != nil {
		t.Fatal(err)
	}
	fresh := db.SigningKey{ID: "second", Seed: seed}
	if _, err := d.RevokeSigningKeys(t.Context(), []string{"first", "none"}, fresh); !errors.Is(err, db.ErrNotFound) {
		t.Fatal(err)
	}
	wantRevoked(t.Context(), t, d, "first", false)
	if _, err := d.RevokeSigningKeys(t.Context(), []string{"first"}, fresh); err != nil {
		t.Fatal(err)
	}
	wantRevoked(t.Context(), t, d, "first", true)
	wantRevoked(t.Context(), t, d, "second", false)
	wantRevoked(t.Context(), t, d, "none", false)
}

func wantRevoked(ctx context.Context, t *testing.T, d *db.DB, key string, want bool) {
	t.Helper()
	if revoked, err := d.SigningKeyRevoked(ctx, key); err != nil || revoked != want {
		t.Errorf("key %s: revoked %v, %v", key, revoked, err)
	}
}
